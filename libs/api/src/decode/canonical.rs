//! A value as Go would write it again after reading it into its type.

use super::findings::tell;
use super::time;
use crate::quantity::Quantity;
use crate::schema::{self, Field, Instead, Message, Special, Type};
use base64::Engine;
use serde_json::{Map, Value, json};

type Path = Vec<String>;
/// Deeper objects are refused rather than followed.
const DEPTH_MAX: usize = 500;

/// Types that also stand within others, and say there what they are: a StatefulSet's claims, an Eviction's options. The table
/// does not tell, as protobuf has no such fields.
const TYPED: [&str; 2] = ["v1.PersistentVolumeClaim", "v1.DeleteOptions"];

/// Lists that have a default where none is given, and are refused where they hold nothing.
const KEPT_EMPTY: [(&str, &str); 2] =
    [("v2.HPAScalingRules", "policies"), ("v1.ObjectMeta", "managedFields")];

/// How Go's errors call what they found.
#[must_use]
pub fn found(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Go's name of a type; texts may have a type of their own.
fn go_type(of: &Type, text: &str) -> String {
    match of {
        Type::String => text.to_owned(),
        Type::Bool => "bool".to_owned(),
        Type::Int32 => "int32".to_owned(),
        Type::Int64 => "int64".to_owned(),
        Type::Float => "float64".to_owned(),
        Type::Bytes => "[]uint8".to_owned(),
        Type::Special(Special::Strings) => "[]string".to_owned(),
        Type::Special(Special::IntOrString) => "int32".to_owned(),
        Type::Special(Special::Json) => "v1.JSON".to_owned(),
        Type::Special(_) => "string".to_owned(),
        Type::Message(at) | Type::Or(_, at) => schema::message(*at).go.clone(),
        Type::List(item) => format!("[]{}", go_type(item, text)),
        Type::Map(item) if matches!(**item, Type::Special(Special::Quantity)) => "v1.ResourceList".to_owned(),
        Type::Map(item) if matches!(**item, Type::Special(Special::Strings)) => {
            "map[string]v1.ExtraValue".to_owned()
        }
        Type::Map(item) => format!("map[string]{}", go_type(item, text)),
    }
}

/// The struct that a field stands in.
#[derive(Clone, Copy)]
struct Owner<'a> {
    /// Where the field is written, which is what Go tells; the one that embeds it where it comes from another.
    outer: &'a Message,
    inner: &'a Message,
}

impl<'a> Owner<'a> {
    const fn of(message: &'a Message) -> Self {
        Self { outer: message, inner: message }
    }
}

/// `json: cannot unmarshal …`, for a field of the struct `owner`.
fn mismatch(value: &Value, of: &Type, owner: Owner<'_>, path: &Path) -> String {
    let name = short(owner.outer);
    let fields: Vec<&str> =
        path.iter().map(String::as_str).filter(|part| !part.starts_with(['[', '{'])).collect();
    let shown = match value {
        Value::Number(number)
            if matches!(of, Type::Int32 | Type::Int64 | Type::Special(Special::IntOrString)) =>
        {
            format!("number {number}")
        }
        other => found(other).to_owned(),
    };
    let named = fields.last().and_then(|field| owner.inner.named.get(field)).copied();
    let wanted = match (named.and_then(|named| named.strip_prefix('*')), of) {
        (Some(whole), Type::List(_)) => whole.to_owned(),
        (Some(_), _) => go_type(of, "string"),
        (None, _) => go_type(of, named.unwrap_or("string")),
    };
    format!(
        "json: cannot unmarshal {shown} into Go struct field {name}.{} of type {wanted}",
        fields.join(".")
    )
}

/// A struct's name without its package.
fn short(message: &Message) -> &str {
    message.go.rsplit('.').next().unwrap_or_default()
}

/// The path as findings show it.
fn shown(path: &Path) -> String {
    let mut text = String::new();
    for part in path {
        let part = part.strip_prefix('{').unwrap_or(part);
        if !text.is_empty() && !part.starts_with('[') {
            text.push('.');
        }
        text.push_str(part);
    }
    text
}

/// A struct.
///
/// # Errors
/// Go's text of the first value of a wrong type.
pub(super) fn message(
    at: usize,
    value: Value,
    path: &mut Path,
    findings: &mut Vec<String>,
) -> Result<Value, String> {
    if path.len() > DEPTH_MAX {
        return Err("json: exceeded max depth".to_owned());
    }
    let mut given = match value {
        Value::Object(given) => given,
        _ => Map::new(),
    };
    let mut out = Map::new();
    fill(Owner::of(schema::message(at)), &mut given, &mut out, path, findings)?;
    if TYPED.contains(&schema::message(at).go.as_str()) {
        keep_type(&mut given, &mut out, path)?;
    }
    for key in given.keys() {
        path.push(key.clone());
        tell(findings, || format!("unknown field {:?}", shown(path)));
        path.pop();
    }
    Ok(Value::Object(out))
}

/// Moves what an object says of its type from `given` to `out`.
fn keep_type(
    given: &mut Map<String, Value>,
    out: &mut Map<String, Value>,
    path: &Path,
) -> Result<(), String> {
    for key in ["kind", "apiVersion"] {
        match given.remove(key).unwrap_or_default() {
            Value::Null => {}
            Value::String(text) if text.is_empty() => {}
            value @ Value::String(_) => drop(out.insert(key.to_owned(), value)),
            other => {
                let path = path.iter().cloned().chain([key.to_owned()]).collect();
                let owner = Message { go: "v1.TypeMeta".to_owned(), ..Message::default() };
                return Err(mismatch(&other, &Type::String, Owner::of(&owner), &path));
            }
        }
    }
    Ok(())
}

/// Moves the fields of a type from `given` to `out`.
fn fill(
    owner: Owner<'_>,
    given: &mut Map<String, Value>,
    out: &mut Map<String, Value>,
    path: &mut Path,
    findings: &mut Vec<String>,
) -> Result<(), String> {
    for field in &owner.inner.fields {
        if field.inline {
            if let Type::Message(inner) = field.of {
                fill(Owner { inner: schema::message(inner), ..owner }, given, out, path, findings)?;
            }
            continue;
        }
        let value = match given.remove(&field.name).unwrap_or_default() {
            Value::Null => Value::Null,
            value => {
                path.push(field.name.clone());
                let value = typed(&field.of, value, owner, path, findings)?;
                path.pop();
                value
            }
        };
        if let Some(value) = written(owner.inner, field, value) {
            out.insert(field.name.clone(), value);
        }
    }
    Ok(())
}

/// What Go writes for a field; `None` when it leaves it out.
fn written(of: &Message, field: &Field, value: Value) -> Option<Value> {
    if value.is_null() {
        // Go before 1.34 wrote null for this time where nobody set it; to every client that is the same as nothing.
        if field.name == "creationTimestamp" {
            return None;
        }
        return if field.omitempty && (field.pointer || !is_struct(&field.of)) {
            None
        } else if field.pointer {
            Some(Value::Null)
        } else {
            Some(zero(&field.of))
        };
    }
    let empty = match &value {
        // What stands there as it was sent is there.
        _ if matches!(field.of, Type::Special(Special::Raw)) => false,
        Value::String(text) => text.is_empty(),
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Null => true,
    };
    // Storing takes maps without entries for none; lists stay until they are stored (see `settle`).
    if empty && !field.omitempty && !of.stored_as_json && matches!(field.of, Type::Map(_)) {
        return Some(Value::Null);
    }
    let unlike_none = KEPT_EMPTY.contains(&(of.go.as_str(), field.name.as_str()));
    let kept = !empty || unlike_none || !field.omitempty || field.pointer || is_struct(&field.of);
    kept.then_some(value)
}

/// What storing makes of a value: lists without items are none, but in what is stored as JSON.
pub(super) fn settle(of: &Type, value: &mut Value) {
    match (of, value) {
        (Type::Message(at), Value::Object(map)) => settle_fields(*at, map),
        (Type::List(item), Value::Array(items)) => items.iter_mut().for_each(|value| settle(item, value)),
        (Type::Map(item), Value::Object(map)) => map.values_mut().for_each(|value| settle(item, value)),
        _ => {}
    }
}

fn settle_fields(at: usize, map: &mut Map<String, Value>) {
    let of = schema::message(at);
    for field in &of.fields {
        if let (true, Type::Message(inner)) = (field.inline, &field.of) {
            settle_fields(*inner, map);
            continue;
        }
        match map.get_mut(&field.name) {
            Some(value) if !of.stored_as_json && matches!(field.of, Type::List(_)) && *value == json!([]) => {
                *value = Value::Null;
            }
            Some(value) => settle(&field.of, value),
            None => {}
        }
    }
}

/// Whether Go never leaves a value of this type out as empty.
fn is_struct(of: &Type) -> bool {
    match of {
        Type::Message(_) => true,
        Type::Special(special) => !matches!(special, Special::Strings | Special::Raw | Special::Json),
        _ => false,
    }
}

/// What Go writes for a value that nobody set.
fn zero(of: &Type) -> Value {
    match of {
        Type::String => json!(""),
        Type::Bool => json!(false),
        Type::Int32 | Type::Int64 | Type::Float => json!(0),
        Type::Or(..) | Type::Bytes | Type::List(_) | Type::Map(_) => Value::Null,
        Type::Special(Special::Quantity) => json!("0"),
        Type::Special(Special::IntOrString) => json!(0),
        Type::Special(Special::Duration) => json!("0s"),
        Type::Special(_) => Value::Null,
        Type::Message(at) => message(*at, Value::Null, &mut Vec::new(), &mut Vec::new()).unwrap_or_default(),
    }
}

fn typed(
    of: &Type,
    value: Value,
    owner: Owner<'_>,
    path: &mut Path,
    findings: &mut Vec<String>,
) -> Result<Value, String> {
    match (of, value) {
        (Type::String, value @ Value::String(_)) | (Type::Bool, value @ Value::Bool(_)) => Ok(value),
        (Type::Bytes, Value::String(text)) => match illegal_base64(&text) {
            Some(at) => Err(format!("illegal base64 data at input byte {at}")),
            None => Ok(Value::String(one_line(text))),
        },
        (Type::Bytes, Value::Array(items)) => match bytes(&items) {
            Some(bytes) => Ok(Value::String(base64::engine::general_purpose::STANDARD.encode(bytes))),
            None => Err(mismatch(&Value::Array(items), of, owner, path)),
        },
        (Type::Int32, Value::Number(number)) => match number.as_i64() {
            Some(fits) if i32::try_from(fits).is_ok() => Ok(fits.into()),
            _ => Err(mismatch(&Value::Number(number), of, owner, path)),
        },
        (Type::Int64, Value::Number(number)) => match number.as_i64() {
            Some(fits) => Ok(fits.into()),
            None => Err(mismatch(&Value::Number(number), of, owner, path)),
        },
        (Type::Float, value @ Value::Number(_)) => Ok(plain(value)),
        (Type::Or(instead, at), value) => {
            let depth = path.len();
            let read = one_or_other(*instead, *at, value, owner, path);
            read.map_err(|text| up_to(&path[..depth], &text))
        }
        (Type::Message(at), value @ Value::Object(_)) => message(*at, value, path, findings),
        (Type::List(item), Value::Array(items)) => {
            let mut out = Vec::with_capacity(items.len());
            for (index, value) in items.into_iter().enumerate() {
                path.push(format!("[{index}]"));
                out.push(if value.is_null() {
                    zero(item)
                } else {
                    typed(item, value, owner, path, findings)?
                });
                path.pop();
            }
            Ok(Value::Array(out))
        }
        (Type::Map(item), Value::Object(entries)) => {
            let mut out = Map::new();
            for (key, value) in entries {
                path.push(format!("{{{key}"));
                let value = match (&**item, value) {
                    // Storing makes no bytes of none.
                    (Type::Bytes, Value::Null) => json!(""),
                    (item, Value::Null) => zero(item),
                    (item, value) => typed(item, value, owner, path, findings)?,
                };
                path.pop();
                out.insert(key, value);
            }
            Ok(Value::Object(out))
        }
        (Type::Special(special), value) => of_special(*special, value).map_err(|(value, text)| match text {
            Some(text) => text,
            None => misfit(*special, &value, of, owner, path),
        }),
        (_, value) => Err(mismatch(&value, of, owner, path)),
    }
}

/// Base64 without the line breaks that Go's decoder goes over.
fn one_line(text: String) -> String {
    if text.contains(['\n', '\r']) { text.replace(['\n', '\r'], "") } else { text }
}

/// Bytes that are listed one by one, which Go takes too.
fn bytes(items: &[Value]) -> Option<Vec<u8>> {
    let byte = |item: &Value| if item.is_null() { Some(0) } else { item.as_u64() };
    items.iter().map(|item| byte(item).and_then(|number| u8::try_from(number).ok())).collect()
}

/// `mismatch` of a value with a form of its own; of a list it is told which item does not fit.
fn misfit(special: Special, value: &Value, of: &Type, owner: Owner<'_>, path: &Path) -> String {
    match value.as_array().and_then(|items| items.iter().find(|item| !fits_text(item))) {
        Some(item) if special == Special::Strings => mismatch(item, &Type::String, owner, path),
        _ => mismatch(value, of, owner, path),
    }
}

/// A text that names a field below `path`, with `path` alone.
fn up_to(path: &[String], text: &str) -> String {
    let fields: Vec<&str> =
        path.iter().map(String::as_str).filter(|part| !part.starts_with(['[', '{'])).collect();
    let named = format!(".{}.", fields.join("."));
    match (text.find(&named), text.rfind(" of type ")) {
        (Some(at), Some(end)) if at + named.len() <= end => {
            format!("{}{}", &text[..at + named.len() - 1], &text[end..])
        }
        _ => text.to_owned(),
    }
}

/// A message, or what may stand instead of it. Go reads it apart, and does not tell of unknown fields there.
fn one_or_other(
    instead: Instead,
    at: usize,
    value: Value,
    owner: Owner<'_>,
    path: &mut Path,
) -> Result<Value, String> {
    let quiet = &mut Vec::new();
    match (instead, value) {
        (_, value @ Value::Object(_)) => message(at, value, path, quiet),
        (Instead::Flag, value @ Value::Bool(_)) => Ok(value),
        (Instead::Flag, _) => Err("boolean or JSON schema expected".to_owned()),
        (Instead::Many, value @ Value::Array(_)) => {
            typed(&Type::List(Box::new(Type::Message(at))), value, owner, path, quiet)
        }
        (Instead::Texts, value @ Value::Array(_)) => {
            typed(&Type::List(Box::new(Type::String)), value, owner, path, quiet)
        }
        // Anything else is passed over.
        _ => Ok(Value::Null),
    }
}

/// A value with its numbers as Go writes them.
fn plain(mut value: Value) -> Value {
    super::unstructured::as_go_writes(&mut value);
    value
}

/// Whether Go reads a text of it: nothing is an empty one.
fn fits_text(value: &Value) -> bool {
    value.is_string() || value.is_null()
}

/// Where Go sees that a text is no base64.
pub(super) fn illegal_base64(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let is_break = |byte: &u8| matches!(byte, b'\r' | b'\n');
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    // How many characters the group of four has.
    let mut group = 0;
    for (at, &byte) in bytes.iter().enumerate().filter(|(_, byte)| !is_break(byte)) {
        if is_legal(byte) {
            group = (group + 1) % 4;
            continue;
        }
        if byte != b'=' || group < 2 {
            return Some(at);
        }
        let mut rest = (at + 1..bytes.len()).filter(|next| !is_break(&bytes[*next]));
        if group == 2 {
            match rest.next() {
                None => return Some(bytes.len()),
                Some(next) if bytes[next] != b'=' => return Some(next - 1),
                Some(_) => {}
            }
        }
        return rest.next();
    }
    (group != 0).then_some(bytes.len() - group)
}

type Wrong = (Value, Option<String>);

pub(super) fn of_special(special: Special, value: Value) -> Result<Value, Wrong> {
    match (special, &value) {
        (Special::Raw, _) => Ok(value),
        (Special::Json, _) => Ok(plain(value)),
        (Special::Quantity, Value::String(text)) => match text.trim().parse::<Quantity>() {
            Ok(quantity) => Ok(quantity.written_as(text.trim()).into()),
            Err(error) => Err((value, Some(error.to_string()))),
        },
        (Special::Quantity, Value::Number(number)) => match number.to_string().parse::<Quantity>() {
            Ok(quantity) => Ok(quantity.to_string().into()),
            Err(error) => Err((value, Some(error.to_string()))),
        },
        (Special::Quantity, _) => {
            let text = crate::quantity::QuantityError::Format.to_string();
            Err((value, Some(text)))
        }
        (Special::IntOrString, Value::String(_)) => Ok(value),
        (Special::IntOrString, Value::Number(number))
            if number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) =>
        {
            Ok(value)
        }
        (Special::Time | Special::MicroTime, Value::String(text)) => {
            let micro = special == Special::MicroTime;
            let form = if micro { "%Y-%m-%dT%H:%M:%S.%6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
            match time::parse(text, micro) {
                Ok(time) => Ok(time.strftime(form).to_string().into()),
                Err(told) => Err((value, Some(told))),
            }
        }
        (Special::Duration, Value::String(_)) => Ok(value),
        (Special::Strings, Value::Array(items)) if items.iter().all(fits_text) => {
            Ok(items.iter().map(|item| item.as_str().unwrap_or_default()).collect())
        }
        _ => Err((value, None)),
    }
}
