//! What Kubernetes says of a value of a wrong type where it reads values that are taken apart already, as after a
//! strategic merge: by Go's kinds and without the field's name.

use super::canonical;
use crate::kinds::Kind;
use crate::schema::{self, Special, Type};
use serde_json::{Map, Value};

/// What is wrong first, if anything is.
#[must_use]
pub fn fault(object: &Value, kind: &Kind) -> Option<String> {
    let at = schema::of(kind)?;
    of_struct(at, object)
}

/// Go's kind of a value that is taken apart.
fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "invalid",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    }
}

fn of_struct(at: usize, value: &Value) -> Option<String> {
    match value {
        Value::Object(map) => fields(at, map),
        Value::Null => None,
        other => Some(format!("cannot restore struct from: {}", go_kind(other))),
    }
}

fn fields(at: usize, map: &Map<String, Value>) -> Option<String> {
    schema::message(at).fields.iter().find_map(|field| match (field.inline, &field.of) {
        (true, Type::Message(inner)) => fields(*inner, map),
        _ => {
            let text = schema::message(at).named.get(field.name.as_str()).unwrap_or(&"string");
            map.get(&field.name).and_then(|value| of_type(&field.of, value, text))
        }
    })
}

/// `text` is what Go calls a text there.
fn of_type(of: &Type, value: &Value, text: &str) -> Option<String> {
    match (of, value) {
        (_, Value::Null) => None,
        (Type::Message(at), value) => of_struct(*at, value),
        (Type::Or(_, at), value) => value.is_object().then(|| of_struct(*at, value)).flatten(),
        (Type::Map(item), Value::Object(map)) => map.values().find_map(|value| of_type(item, value, text)),
        (Type::Map(_), other) => Some(format!("cannot restore map from {}", go_kind(other))),
        (Type::List(item), Value::Array(items)) => items.iter().find_map(|value| of_type(item, value, text)),
        (Type::Special(Special::Strings), Value::Array(items)) => {
            items.iter().find_map(|value| of_type(&Type::String, value, text))
        }
        (Type::Bytes, Value::String(text)) => canonical::illegal_base64(text)
            .map(|at| format!("error decoding from json: illegal base64 data at input byte {at}")),
        (Type::List(_) | Type::Bytes | Type::Special(Special::Strings), other) => {
            Some(format!("cannot restore slice from {}", go_kind(other)))
        }
        (Type::Special(special), value) => {
            canonical::of_special(*special, value.clone()).err().map(|(value, text)| {
                text.unwrap_or_else(|| {
                    format!(
                        "json: cannot unmarshal {} into Go value of type {}",
                        canonical::found(&value),
                        go_value(*special)
                    )
                })
            })
        }
        (Type::String | Type::Bool | Type::Int32 | Type::Int64 | Type::Float, value) => {
            simple(of, value, text)
        }
    }
}

/// What Go reads a value with a form of its own into.
fn go_value(special: Special) -> &'static str {
    if special == Special::IntOrString { "int32" } else { "string" }
}

fn simple(of: &Type, value: &Value, text: &str) -> Option<String> {
    let name = match of {
        Type::String => "string",
        Type::Bool => "bool",
        Type::Int32 => "int32",
        Type::Float => "float64",
        _ => "int64",
    };
    match (of, value) {
        (Type::String, Value::String(_)) | (Type::Bool, Value::Bool(_)) | (Type::Float, Value::Number(_)) => {
            None
        }
        // Go converts a whole number to a text, but not as anybody would want it.
        (Type::String, Value::Number(number)) if !number.is_f64() => {
            Some(format!("cannot convert int64 to {text}"))
        }
        (Type::Int32 | Type::Int64, Value::Number(number)) => {
            let whole = number.as_f64().is_some_and(|number| number.fract() == 0.0);
            (!whole).then(|| format!("cannot convert float64 to {name}"))
        }
        _ => Some(format!("unrecognized type: {name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds;
    use serde_json::json;

    #[test]
    fn faults_are_told_by_gos_kinds() {
        let maps = kinds::by_resource("", "v1", "configmaps").expect("configmaps");
        let rows = [
            (json!({"data": {"x": 1}}), "cannot convert int64 to string"),
            (json!({"data": {"x": {}}}), "unrecognized type: string"),
            (json!({"data": [1]}), "cannot restore map from slice"),
            (json!({"immutable": "x"}), "unrecognized type: bool"),
            (json!({"metadata": {"finalizers": "x"}}), "cannot restore slice from string"),
            (json!({"metadata": {"generation": "x"}}), "unrecognized type: int64"),
            (json!({"metadata": {"generation": 1.5}}), "cannot convert float64 to int64"),
            (json!({"metadata": "x"}), "cannot restore struct from: string"),
            (
                json!({"binaryData": {"a": "%%"}}),
                "error decoding from json: illegal base64 data at input byte 0",
            ),
            (
                json!({"metadata": {"creationTimestamp": "x"}}),
                "parsing time \"x\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"x\" as \"2006\"",
            ),
        ];
        for (object, want) in rows {
            assert_eq!(fault(&object, maps).as_deref(), Some(want), "{object}");
        }
        assert_eq!(fault(&json!({"data": {"x": "1"}, "metadata": {"name": null}}), maps), None);
    }
}
