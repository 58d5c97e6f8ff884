//! `string.format` with its clauses, and the formats that have names.

use super::super::value::{Fault, List, Value, told};
use super::text::push;
use super::{Cost, Opaque, Written, number, time};
use crate::labels;
use std::sync::Arc;

/// A format by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named(usize);

type Judge = fn(&str) -> Vec<String>;

/// Names, the longest pattern that they stand for, and what they say against a text.
const FORMATS: [(&str, u64, Judge); 13] = [
    ("dns1123Label", 30, labels::is_dns1123_label),
    ("dns1123Subdomain", 60, labels::is_dns1123_subdomain),
    ("dns1035Label", 30, labels::is_dns1035_label),
    ("qualifiedName", 60, labels::is_qualified_name),
    ("dns1123LabelPrefix", 30, |text| labels::is_dns1123_label(&masked(text))),
    ("dns1123SubdomainPrefix", 60, |text| labels::is_dns1123_subdomain(&masked(text))),
    ("dns1035LabelPrefix", 30, |text| labels::is_dns1035_label(&masked(text))),
    ("labelValue", 40, labels::is_valid_label_value),
    ("uri", 1000, |text| match super::network::Url::parse(text) {
        Ok(_) => Vec::new(),
        Err(why) => vec![why],
    }),
    ("uuid", 1000, |text| {
        let lengths: Vec<usize> = text.split('-').map(str::len).collect();
        let hex = text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
        says(hex && (lengths == [8, 4, 4, 4, 12] || lengths == [32]), "does not match the UUID format")
    }),
    ("byte", 1000, |text| {
        use base64::Engine;
        says(base64::prelude::BASE64_STANDARD.decode(text).is_ok(), "invalid base64")
    }),
    ("date", 1000, |text| says(time::is_date(text), "invalid date")),
    ("datetime", 1000, |text| says(time::is_date_time(text), "invalid datetime")),
];

fn says(fine: bool, complaint: &str) -> Vec<String> {
    if fine { Vec::new() } else { vec![complaint.to_owned()] }
}

/// A prefix may end in a dash, since more follows.
fn masked(text: &str) -> String {
    match text.strip_suffix('-') {
        Some(head) if text.len() > 1 => format!("{head}a"),
        _ => text.to_owned(),
    }
}

impl Named {
    pub fn size(self) -> u64 {
        FORMATS[self.0].1
    }

    fn find(name: &str) -> Option<Self> {
        FORMATS.iter().position(|(own, ..)| *own == name).map(Self)
    }
}

macro_rules! constant {
    ($function:literal, $name:literal) => {
        ($function, &["() format"], Cost::One, |_| match Named::find($name) {
            Some(named) => Ok(Value::Opaque(Arc::new(Opaque::Format(named)))),
            None => Err(Fault::NoOverload),
        })
    };
}

pub const TABLE: &[Written] = &[
    ("format", &["string.(list(dyn)) string"], Cost::Format, |args| match args {
        [Value::Text(pattern), Value::List(values)] => Ok(Value::text(filled(pattern, values)?)),
        _ => Err(Fault::NoOverload),
    }),
    ("format.named", &["(string) optional(format)"], Cost::One, |args| match args {
        [Value::Text(name)] => {
            let named = Named::find(name).map(|named| Value::Opaque(Arc::new(Opaque::Format(named))));
            Ok(Value::Optional(named.map(Arc::new)))
        }
        _ => Err(Fault::NoOverload),
    }),
    ("validate", &["format.(string) optional(list(string))"], Cost::Pattern, |args| match args {
        [Value::Opaque(of), Value::Text(text)] => match of.as_ref() {
            Opaque::Format(named) => {
                let complaints = FORMATS[named.0].2(text);
                let list = || Value::list(complaints.iter().map(|one| Value::text(one.as_str())).collect());
                Ok(Value::Optional((!complaints.is_empty()).then(|| Arc::new(list()))))
            }
            _ => Err(Fault::NoOverload),
        },
        _ => Err(Fault::NoOverload),
    }),
    constant!("format.dns1123Label", "dns1123Label"),
    constant!("format.dns1123Subdomain", "dns1123Subdomain"),
    constant!("format.dns1035Label", "dns1035Label"),
    constant!("format.qualifiedName", "qualifiedName"),
    constant!("format.dns1123LabelPrefix", "dns1123LabelPrefix"),
    constant!("format.dns1123SubdomainPrefix", "dns1123SubdomainPrefix"),
    constant!("format.dns1035LabelPrefix", "dns1035LabelPrefix"),
    constant!("format.labelValue", "labelValue"),
    constant!("format.uri", "uri"),
    constant!("format.uuid", "uuid"),
    constant!("format.byte", "byte"),
    constant!("format.date", "date"),
    constant!("format.datetime", "datetime"),
];

/// The most digits that a clause may ask for.
const DIGITS_MAX: usize = 100;

/// A pattern with its clauses filled in.
fn filled(pattern: &str, values: &List<'_>) -> Result<String, Fault> {
    let mut out = String::new();
    let mut chars = pattern.chars().peekable();
    let mut next = 0;
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.peek() == Some(&'%') {
            chars.next();
            out.push('%');
            continue;
        }
        let mut digits = None;
        if chars.peek() == Some(&'.') {
            chars.next();
            let mut text = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                text.push(digit);
            }
            let wanted = text.parse().ok().filter(|wanted| *wanted <= DIGITS_MAX);
            digits = Some(wanted.ok_or_else(|| Fault::Told("error while parsing precision".to_owned()))?);
        }
        let Some(clause) = chars.next() else { return told("unexpected end of string") };
        let Some(value) = values.get(next) else { return told(format!("index {next} out of range")) };
        next += 1;
        push(&mut out, &one(clause, &value, digits)?)?;
    }
    Ok(out)
}

fn one(clause: char, value: &Value<'_>, digits: Option<usize>) -> Result<String, Fault> {
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    Ok(match (clause, value) {
        ('s', value) => {
            let mut out = String::new();
            show(value, &mut out)?;
            out
        }
        ('d', Value::Int(value)) => value.to_string(),
        ('d', Value::Uint(value)) => value.to_string(),
        ('d', Value::Double(value)) if !value.is_finite() => special(*value),
        ('f' | 'e', value) => {
            let number = match value {
                Value::Double(value) => *value,
                other => match number_of(other) {
                    Some(value) => value,
                    None => return wrong(clause, other),
                },
            };
            let digits = digits.unwrap_or(6);
            match (number.is_finite(), clause) {
                (false, _) => special(number),
                (true, 'f') => format!("{number:.digits$}"),
                (true, _) => scientific(number, digits),
            }
        }
        ('b', Value::Int(value)) if *value < 0 => format!("-{:b}", value.unsigned_abs()),
        ('b', Value::Int(value)) => format!("{value:b}"),
        ('b', Value::Uint(value)) => format!("{value:b}"),
        ('b', Value::Bool(value)) => u8::from(*value).to_string(),
        ('o', Value::Int(value)) if *value < 0 => format!("-{:o}", value.unsigned_abs()),
        ('o', Value::Int(value)) => format!("{value:o}"),
        ('o', Value::Uint(value)) => format!("{value:o}"),
        ('x', Value::Int(value)) if *value < 0 => format!("-{:x}", value.unsigned_abs()),
        ('x', Value::Int(value)) => format!("{value:x}"),
        ('x', Value::Uint(value)) => format!("{value:x}"),
        ('x', Value::Text(text)) => hex(text.as_bytes()),
        ('x', Value::Bytes(bytes)) => hex(bytes),
        ('X', value) => one('x', value, digits)?.to_uppercase(),
        ('d' | 'b' | 'o' | 'x', other) => return wrong(clause, other),
        _ => return told(format!("unrecognized formatting clause \"{clause}\"")),
    })
}

#[expect(clippy::cast_precision_loss, reason = "it is written with few digits")]
fn number_of(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Int(value) => Some(*value as f64),
        Value::Uint(value) => Some(*value as f64),
        Value::Text(text) => matches!(&**text, "NaN" | "Infinity" | "-Infinity").then(|| match &**text {
            "NaN" => f64::NAN,
            "Infinity" => f64::INFINITY,
            _ => f64::NEG_INFINITY,
        }),
        _ => None,
    }
}

/// What is told of a value that a clause does not take, before its type is named.
pub fn takes_only(clause: char) -> &'static str {
    match clause {
        's' => {
            "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps"
        }
        'd' => "decimal clause can only be used on integers",
        'f' => "fixed-point clause can only be used on doubles",
        'e' => "scientific clause can only be used on doubles",
        'b' => "only integers and bools can be formatted as binary",
        'o' => "octal clause can only be used on integers",
        _ => "only integers, byte buffers, and strings can be formatted as hex",
    }
}

fn wrong<T>(clause: char, value: &Value<'_>) -> Result<T, Fault> {
    let what = takes_only(clause);
    told(format!("error during formatting: {what}, was given {}", value.type_name()))
}

fn special(value: f64) -> String {
    match (value.is_nan(), value > 0.0) {
        (true, _) => "NaN",
        (false, true) => "Infinity",
        (false, false) => "-Infinity",
    }
    .to_owned()
}

fn scientific(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$e}");
    let (head, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
    format!("{head}e{sign}{exponent:0>2}")
}

/// A value as `%s` writes it; as much of it as a text can be long.
pub fn shown(value: &Value<'_>) -> String {
    let mut out = String::new();
    let _ = show(value, &mut out);
    out
}

/// Writes any value as `%s` does.
fn show(value: &Value<'_>, out: &mut String) -> Result<(), Fault> {
    match value {
        Value::Null => push(out, "null"),
        Value::Bool(value) => push(out, &value.to_string()),
        Value::Int(value) => push(out, &value.to_string()),
        Value::Uint(value) => push(out, &value.to_string()),
        Value::Double(value) if value.is_finite() => push(out, &number::shown(*value)),
        Value::Double(value) => push(out, &special(*value)),
        Value::Text(text) | Value::Type(text) => push(out, text),
        Value::Bytes(bytes) => push(out, &String::from_utf8_lossy(bytes)),
        Value::Timestamp(at) => push(out, &at.to_string()),
        Value::Duration(value) => push(out, &time::shown(*value)),
        Value::List(list) => {
            push(out, "[")?;
            for (at, item) in list.iter().enumerate() {
                push(out, if at > 0 { ", " } else { "" })?;
                show(&item, out)?;
            }
            push(out, "]")
        }
        Value::Map(map) => {
            // They are sorted as they are written; together they must not be longer than a text can be.
            let (mut all, mut ends) = (String::new(), vec![0]);
            for (key, value) in map.entries() {
                show(&key, &mut all)?;
                push(&mut all, ": ")?;
                show(&value, &mut all)?;
                ends.push(all.len());
            }
            let mut entries: Vec<&str> = ends.windows(2).map(|ends| &all[ends[0]..ends[1]]).collect();
            entries.sort_unstable();
            push(out, "{")?;
            for (at, entry) in entries.into_iter().enumerate() {
                push(out, if at > 0 { ", " } else { "" })?;
                push(out, entry)?;
            }
            push(out, "}")
        }
        Value::Optional(Some(value)) => {
            push(out, "optional(")?;
            show(value, out)?;
            push(out, ")")
        }
        Value::Optional(None) => push(out, "optional.none()"),
        Value::Opaque(value) => push(out, value.type_name()),
    }
}
