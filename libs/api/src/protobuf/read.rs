//! Messages to objects: only what is there; zeros are filled in when the object is made canonical.

use super::wire::{self, Field};
use super::{ProtobufError, enveloped};
use crate::schema::{self, Instead, Special, Type};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

const DEPTH_MAX: usize = 200;

/// The object in a message.
pub(super) fn message(at: usize, bytes: &[u8], depth: usize) -> Result<Value, ProtobufError> {
    let mut object = Map::new();
    fill(at, bytes, &mut object, depth)?;
    Ok(Value::Object(object))
}

fn fill(at: usize, bytes: &[u8], object: &mut Map<String, Value>, depth: usize) -> Result<(), ProtobufError> {
    if depth > DEPTH_MAX {
        return Err(ProtobufError("proto: message is nested too deep".to_owned()));
    }
    let of = schema::message(at);
    for field in wire::fields(bytes, of.go.rsplit('.').next().unwrap_or_default()) {
        let (number, content) = field?;
        let Some(field) = of.fields.iter().find(|field| field.number == number) else { continue };
        if let (Type::List(item), Field::Bytes(bytes)) = (&field.of, &content)
            && wire_type(item) == 0
        {
            let items = wire::packed(bytes).map(|raw| value(item, &Field::Varint(raw?), depth));
            append(object, &field.name, items.collect::<Result<Vec<_>, _>>()?);
            continue;
        }
        fits(&content, wire_type(&field.of), || shown_as(&field.name))?;
        match (&field.of, content) {
            (Type::Message(inner), Field::Bytes(bytes)) if field.inline => {
                fill(*inner, bytes, object, depth + 1)?;
            }
            // What comes in parts is put together.
            (Type::Message(inner), Field::Bytes(bytes)) => {
                let part = object.entry(field.name.clone()).or_insert_with(|| json!({}));
                if let Some(part) = part.as_object_mut() {
                    fill(*inner, bytes, part, depth + 1)?;
                }
            }
            (Type::List(item), content) => {
                let item = value(item, &content, depth)?;
                append(object, &field.name, [item]);
            }
            (Type::Map(item), Field::Bytes(bytes)) => {
                let (key, value) = entry(item, bytes, depth)?;
                let map = object.entry(field.name.clone()).or_insert_with(|| json!({}));
                map[key] = value;
            }
            (of, content) => {
                let value = value(of, &content, depth)?;
                object.insert(field.name.clone(), value);
            }
        }
    }
    Ok(())
}

/// Appends to the list in a field.
fn append(object: &mut Map<String, Value>, name: &str, items: impl IntoIterator<Item = Value>) {
    let list = object.entry(name.to_owned()).or_insert_with(|| json!([]));
    if let Some(list) = list.as_array_mut() {
        list.extend(items);
    }
}

/// How a value of a type stands on the wire, or each of several.
fn wire_type(of: &Type) -> u8 {
    match of {
        Type::Bool | Type::Int32 | Type::Int64 => 0,
        Type::Float => 1,
        Type::List(item) => wire_type(item),
        _ => 2,
    }
}

/// Go's name of a field, for texts.
fn shown_as(name: &str) -> String {
    match name {
        "metadata" => "ObjectMeta".to_owned(),
        "uid" | "ip" | "id" | "url" => name.to_uppercase(),
        other => {
            let mut letters = other.chars();
            letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
        }
    }
}

fn fits(content: &Field<'_>, wanted: u8, name: impl FnOnce() -> String) -> Result<(), ProtobufError> {
    let found = content.wire_type();
    if found == wanted {
        return Ok(());
    }
    Err(ProtobufError(format!("proto: wrong wireType = {found} for field {}", name())))
}

fn entry(of: &Type, bytes: &[u8], depth: usize) -> Result<(String, Value), ProtobufError> {
    let (mut key, mut found) = (String::new(), None);
    for field in wire::fields(bytes, "entry") {
        match field? {
            (1, Field::Bytes(text)) => key = wire::text(text),
            (2, content) => found = Some(value(of, &content, depth)?),
            _ => {}
        }
    }
    // What is left out has its zero.
    let zero = match wire_type(of) {
        0 => Field::Varint(0),
        1 => Field::Double(0.0),
        _ => Field::Bytes(&[]),
    };
    let found = found.map_or_else(|| value(of, &zero, depth), Ok)?;
    Ok((key, found))
}

/// Two's complement, as the wire has it.
fn signed(raw: u64) -> i64 {
    raw as i64
}

fn value(of: &Type, content: &Field<'_>, depth: usize) -> Result<Value, ProtobufError> {
    Ok(match (of, content) {
        (Type::Bool, Field::Varint(raw)) => json!(*raw != 0),
        (Type::Int32, Field::Varint(raw)) => json!(*raw as i32),
        (Type::Int64, Field::Varint(raw)) => json!(signed(*raw)),
        (Type::Float, Field::Double(raw)) => json!(raw),
        (Type::Or(instead, at), Field::Bytes(bytes)) => one_or_other(*instead, *at, bytes, depth + 1)?,
        (Type::String, Field::Bytes(bytes)) => json!(wire::text(bytes)),
        (Type::Bytes, Field::Bytes(bytes)) => json!(BASE64_STANDARD.encode(bytes)),
        (Type::Message(at), Field::Bytes(bytes)) => message(*at, bytes, depth + 1)?,
        (Type::Special(special), Field::Bytes(bytes)) => of_special(*special, bytes, depth)?,
        (_, other) => {
            return Err(ProtobufError(format!("proto: wrong wireType = {}", other.wire_type())));
        }
    })
}

/// A message, or what stands instead of it: field 2 where there may be many, field 1 where it is a boolean.
fn one_or_other(instead: Instead, at: usize, bytes: &[u8], depth: usize) -> Result<Value, ProtobufError> {
    let (mut found, mut list) = (None, Vec::new());
    for field in wire::fields(bytes, "JSONSchemaPropsOr") {
        match (instead, field?) {
            (Instead::Flag, (1, Field::Varint(raw))) => {
                found.get_or_insert(json!(raw != 0));
            }
            (Instead::Flag, (2, Field::Bytes(bytes))) | (_, (1, Field::Bytes(bytes))) => {
                found = Some(message(at, bytes, depth)?);
            }
            (Instead::Many, (2, Field::Bytes(bytes))) => list.push(message(at, bytes, depth)?),
            (Instead::Texts, (2, Field::Bytes(bytes))) => list.push(json!(wire::text(bytes))),
            _ => {}
        }
    }
    Ok(found.unwrap_or_else(|| if instead == Instead::Flag { json!(false) } else { json!(list) }))
}

/// The fields of a type with a form of its own: Go's names, and how each stands on the wire.
const fn fields_of(special: Special) -> (&'static str, &'static [(&'static str, u8)]) {
    match special {
        Special::Quantity => ("Quantity", &[("String_", 2)]),
        Special::IntOrString => ("IntOrString", &[("Type", 0), ("IntVal", 0), ("StrVal", 2)]),
        Special::Time => ("Timestamp", &[("Seconds", 0), ("Nanos", 0)]),
        Special::MicroTime => ("Timestamp", &[("Seconds", 0), ("Nanos", 0)]),
        Special::Duration => ("Duration", &[("Duration", 0)]),
        Special::Raw => ("RawExtension", &[("Raw", 2)]),
        Special::Json => ("JSON", &[("Raw", 2)]),
        Special::Strings => ("Items", &[("Items", 2)]),
    }
}

fn of_special(special: Special, bytes: &[u8], depth: usize) -> Result<Value, ProtobufError> {
    let (mut numbers, mut last, mut texts) = ([0_i64; 3], &[][..], Vec::new());
    let (name, fields) = fields_of(special);
    for field in wire::fields(bytes, name) {
        let (number, content) = field?;
        let index = number as usize;
        let Some((name, wanted)) = index.checked_sub(1).and_then(|at| fields.get(at)) else { continue };
        fits(&content, *wanted, || (*name).to_owned())?;
        match content {
            Field::Varint(raw) => numbers[index] = signed(raw),
            Field::Bytes(bytes) => {
                last = bytes;
                texts.push(bytes);
            }
            Field::Double(_) | Field::Other(_) => {}
        }
    }
    Ok(match special {
        Special::Quantity if last.is_empty() => json!("0"),
        Special::Quantity => json!(wire::text(last)),
        Special::IntOrString if numbers[1] == 1 => json!(wire::text(last)),
        Special::IntOrString => json!(numbers[2]),
        Special::Time | Special::MicroTime if bytes.is_empty() => Value::Null,
        Special::Time | Special::MicroTime => {
            let nanos = i32::try_from(numbers[2]).unwrap_or(0);
            let time = jiff::Timestamp::new(numbers[1], nanos)
                .map_err(|_| ProtobufError("a time is out of range".to_owned()))?;
            let form = if special == Special::Time { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S.%6fZ" };
            json!(time.strftime(form).to_string())
        }
        Special::Duration => json!(shown(numbers[1])),
        Special::Raw | Special::Json if last.is_empty() => Value::Null,
        // An object may stand in its own envelope, and so may one in that.
        Special::Raw if last.starts_with(super::MAGIC) => enveloped(last, depth + 1)?,
        Special::Raw | Special::Json => {
            serde_json::from_slice(last).map_err(|error| ProtobufError(error.to_string()))?
        }
        Special::Strings => json!(texts.into_iter().map(wire::text).collect::<Vec<_>>()),
    })
}

const UNITS: [(&str, i64); 6] = [
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
];

/// The nanoseconds of Go's duration text; whole numbers of units.
pub(super) fn nanos(text: &str) -> Option<i64> {
    let (sign, mut rest) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let mut total = 0_i64;
    while !rest.is_empty() && rest != "0" {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let (unit, each) = UNITS.iter().find(|(unit, _)| rest[digits..].starts_with(unit))?;
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            reason = "durations of people are short"
        )]
        let part = (number * *each as f64) as i64;
        total = total.checked_add(part)?;
        rest = &rest[digits + unit.len()..];
    }
    Some(sign * total)
}

/// Go's text of a duration of whole seconds or milliseconds.
fn shown(nanos: i64) -> String {
    let (sign, nanos) = if nanos < 0 { ("-", nanos.unsigned_abs()) } else { ("", nanos.unsigned_abs()) };
    let (seconds, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    if seconds == 0 && rest > 0 {
        return format!("{sign}{}ms", rest / 1_000_000);
    }
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
        (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}
