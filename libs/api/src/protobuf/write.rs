//! Objects to messages. As in Go: fields in order of their numbers; what is no pointer is written even when zero.

use super::{ProtobufError, wire};
use crate::schema::{self, Instead, Special, Type};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

type Written = Result<(), ProtobufError>;

/// Appends the fields of an object.
pub(super) fn message(at: usize, object: &Value, out: &mut Vec<u8>) -> Written {
    for field in &schema::message(at).fields {
        if field.inline {
            let Type::Message(inner) = field.of else { continue };
            let mut bytes = Vec::new();
            message(inner, object, &mut bytes)?;
            wire::put_bytes(out, field.number, &bytes);
            continue;
        }
        let given = &object[field.name.as_str()];
        if given.is_null() && (field.pointer || is_many(&field.of)) {
            continue;
        }
        value(field.number, &field.of, given, out)?;
    }
    Ok(())
}

fn is_many(of: &Type) -> bool {
    matches!(
        of,
        Type::List(_)
            | Type::Map(_)
            | Type::Bytes
            | Type::Special(Special::Raw | Special::Strings)
            | Type::Or(..)
    )
}

fn misfit(value: &Value) -> ProtobufError {
    ProtobufError(format!("{value} does not fit its field"))
}

fn value(number: u32, of: &Type, given: &Value, out: &mut Vec<u8>) -> Written {
    match of {
        Type::String => wire::put_bytes(out, number, given.as_str().unwrap_or_default().as_bytes()),
        Type::Bool => wire::put_varint(out, number, i64::from(given.as_bool().unwrap_or(false))),
        Type::Int32 | Type::Int64 => wire::put_varint(out, number, given.as_i64().unwrap_or(0)),
        Type::Float => wire::put_double(out, number, given.as_f64().unwrap_or(0.0)),
        Type::Or(instead, at) => {
            let mut bytes = Vec::new();
            one_or_other(*instead, *at, given, &mut bytes)?;
            wire::put_bytes(out, number, &bytes);
        }
        Type::Bytes => {
            let bytes =
                BASE64_STANDARD.decode(given.as_str().unwrap_or_default()).map_err(|_| misfit(given))?;
            wire::put_bytes(out, number, &bytes);
        }
        Type::Message(at) => {
            let mut bytes = Vec::new();
            message(*at, given, &mut bytes)?;
            wire::put_bytes(out, number, &bytes);
        }
        Type::List(item) => {
            for given in given.as_array().ok_or_else(|| misfit(given))? {
                value(number, item, given, out)?;
            }
        }
        Type::Map(item) => {
            for (key, given) in given.as_object().ok_or_else(|| misfit(given))? {
                let mut entry = Vec::new();
                wire::put_bytes(&mut entry, 1, key.as_bytes());
                value(2, item, given, &mut entry)?;
                wire::put_bytes(out, number, &entry);
            }
        }
        Type::Special(special) => {
            let mut bytes = Vec::new();
            of_special(*special, given, &mut bytes)?;
            wire::put_bytes(out, number, &bytes);
        }
    }
    Ok(())
}

fn one_or_other(instead: Instead, at: usize, given: &Value, out: &mut Vec<u8>) -> Written {
    let schema = if instead == Instead::Flag { 2 } else { 1 };
    if instead == Instead::Flag {
        // A schema allows what it describes.
        wire::put_varint(out, 1, i64::from(given.as_bool().unwrap_or(given.is_object())));
    }
    match (instead, given) {
        (_, Value::Object(_)) => value(schema, &Type::Message(at), given, out),
        (Instead::Many, Value::Array(_)) => value(2, &Type::List(Box::new(Type::Message(at))), given, out),
        (Instead::Texts, Value::Array(_)) => value(2, &Type::List(Box::new(Type::String)), given, out),
        _ => Ok(()),
    }
}

fn of_special(special: Special, given: &Value, out: &mut Vec<u8>) -> Written {
    match special {
        Special::Quantity => {
            let text = given.as_str().map_or_else(|| given.to_string(), str::to_owned);
            wire::put_bytes(out, 1, if given.is_null() { b"0" } else { text.as_bytes() });
        }
        Special::IntOrString => {
            wire::put_varint(out, 1, i64::from(given.is_string()));
            wire::put_varint(out, 2, given.as_i64().unwrap_or(0));
            wire::put_bytes(out, 3, given.as_str().unwrap_or_default().as_bytes());
        }
        Special::Time | Special::MicroTime => {
            let Some(text) = given.as_str() else { return Ok(()) };
            let time: jiff::Timestamp = text.parse().map_err(|_| misfit(given))?;
            let nanos = if special == Special::Time { 0 } else { time.subsec_nanosecond() / 1000 * 1000 };
            wire::put_varint(out, 1, time.as_second());
            wire::put_varint(out, 2, i64::from(nanos));
        }
        Special::Duration => {
            let nanos = match given.as_str() {
                None => 0,
                Some(text) => super::read::nanos(text).ok_or_else(|| misfit(given))?,
            };
            wire::put_varint(out, 1, nanos);
        }
        Special::Raw | Special::Json => wire::put_bytes(out, 1, given.to_string().as_bytes()),
        Special::Strings => {
            for text in given.as_array().into_iter().flatten().filter_map(Value::as_str) {
                wire::put_bytes(out, 1, text.as_bytes());
            }
        }
    }
    Ok(())
}
