//! What Kubernetes says of a value of a wrong type where it reads values that are taken apart already, as after a
//! strategic merge: by Go's kinds and without the field's name. Numbers are converted there as Go does.

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
                    let (found, into) = (canonical::found(&value), go_value(*special));
                    // Go shows a number that it read as one.
                    let shown = if into == "int32" && value.is_number() {
                        format!(" {value}")
                    } else {
                        String::new()
                    };
                    format!("json: cannot unmarshal {found}{shown} into Go value of type {into}")
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

/// Brings every number to the whole number that Go's conversion makes of it: what is too large loses its upper bits, and a
/// fraction of nothing goes.
pub fn convert_numbers(object: &mut Value, kind: &Kind) {
    if let Some(at) = schema::of(kind) {
        convert(&Type::Message(at), object);
    }
}

fn convert(of: &Type, value: &mut Value) {
    match (of, value) {
        (Type::Message(at) | Type::Or(_, at), Value::Object(map)) => convert_fields(*at, map),
        (Type::List(item), Value::Array(items)) => items.iter_mut().for_each(|value| convert(item, value)),
        (Type::Map(item), Value::Object(map)) => map.values_mut().for_each(|value| convert(item, value)),
        (Type::Int32 | Type::Int64, value @ Value::Number(_)) => {
            if let Some(whole) = whole(value) {
                *value = if *of == Type::Int32 { low_bits(whole).into() } else { whole.into() };
            }
        }
        _ => {}
    }
}

fn convert_fields(at: usize, map: &mut Map<String, Value>) {
    for field in &schema::message(at).fields {
        match (&field.of, map.get_mut(&field.name)) {
            (Type::Message(inner), _) if field.inline => convert_fields(*inner, map),
            (of, Some(value)) => convert(of, value),
            (_, None) => {}
        }
    }
}

/// A float beyond 64 bits becomes the smallest number, as on the machines that Kubernetes runs on.
fn whole(value: &Value) -> Option<i64> {
    const EDGE: f64 = 9_223_372_036_854_775_808.0;
    value.as_i64().or_else(|| {
        let float = value.as_f64().filter(|float| float.fract() == 0.0)?;
        #[expect(clippy::cast_possible_truncation, reason = "in range")]
        Some(if (-EDGE..EDGE).contains(&float) { float as i64 } else { i64::MIN })
    })
}

#[expect(clippy::cast_possible_truncation, reason = "as Go converts")]
fn low_bits(whole: i64) -> i32 {
    whole as i32
}

/// Numbers without a fraction lose their point, and those that only a float holds lose what it does not keep of them.
pub(super) fn as_go_writes(value: &mut Value) {
    /// What is larger fits no integer, and is kept as it is.
    const WHOLE_MAX: f64 = 2e19;
    match value {
        Value::Number(number) if !number.is_i64() => match number.as_f64() {
            Some(float) if float.fract() == 0.0 && float.abs() < WHOLE_MAX => {
                // As few digits as tell it from other floats, and zeros.
                let digits = float.to_string();
                let signed = digits.parse::<i64>().map(Value::from);
                if let Ok(whole) = signed.or_else(|_| digits.parse::<u64>().map(Value::from)) {
                    *value = whole;
                }
            }
            _ => {}
        },
        Value::Array(items) => items.iter_mut().for_each(as_go_writes),
        Value::Object(map) => map.values_mut().for_each(as_go_writes),
        _ => {}
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

    #[test]
    fn numbers_are_converted_as_go_does() {
        let kind = kinds::by_resource("apps", "v1", "deployments").expect("deployments");
        let rows = [
            (json!(3_000_000_000_u32), json!(-1_294_967_296)),
            (json!(2.0), json!(2)),
            (json!(1e30), json!(0)),
            (json!(-7), json!(-7)),
            (json!(1.5), json!(1.5)),
            (json!("3"), json!("3")),
        ];
        for (sent, want) in rows {
            let mut object = json!({"spec": {"replicas": sent, "template": {"spec": {"containers": [
                {"name": "a", "ports": [{"containerPort": sent}]}]}}}});
            convert_numbers(&mut object, kind);
            assert_eq!(object["spec"]["replicas"], want);
            assert_eq!(
                object["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"],
                want
            );
        }
    }
}
