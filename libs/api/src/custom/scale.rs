//! The numbers and the selector that the scale subresource takes out of a custom object.

use crate::status::{FieldError, go_printed};
use serde_json::Value;

/// What is wrong with them.
pub(super) fn validate(object: &Value, scale: &Value, faults: &mut Vec<FieldError>) {
    let path = |key: &str| scale[key].as_str().filter(|path| !path.is_empty());
    for path in ["specReplicasPath", "statusReplicasPath"].into_iter().filter_map(path) {
        match nested(object, path) {
            Ok(None) => {}
            Ok(Some(Value::Number(number))) if number.is_i64() => {
                let number = number.as_i64().unwrap_or_default();
                let told = if number < 0 {
                    "should be a non-negative integer".to_owned()
                } else if number > i64::from(i32::MAX) {
                    format!("should be less than or equal to {}", i32::MAX)
                } else {
                    continue;
                };
                faults.push(FieldError::invalid(path, &number.into(), told));
            }
            Ok(Some(other)) => {
                faults.push(FieldError::invalid(path, &0.into(), strange(path, other, "int64")));
            }
            Err(why) => faults.push(FieldError::invalid(path, &0.into(), why)),
        }
    }
    let Some(path) = path("labelSelectorPath") else { return };
    let told = match nested(object, path) {
        Ok(None | Some(Value::String(_))) => return,
        Ok(Some(other)) => strange(path, other, "string"),
        Err(why) => why,
    };
    faults.push(FieldError::invalid(path, &"".into(), told));
}

/// The value at a path of names; `None` where there is nothing.
fn nested<'v>(object: &'v Value, path: &str) -> Result<Option<&'v Value>, String> {
    let mut at = object;
    let mut gone = String::new();
    for name in path.trim_start_matches('.').split('.') {
        gone.push('.');
        gone.push_str(name);
        at = match at {
            Value::Object(map) => match map.get(name) {
                Some(next) => next,
                None => return Ok(None),
            },
            Value::Null => return Ok(None),
            other => return Err(strange(&gone, other, "map[string]interface{}")),
        };
    }
    Ok(Some(at))
}

fn strange(path: &str, found: &Value, wanted: &str) -> String {
    let kind = match found {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_i64() => "int64",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    };
    format!("{path} accessor error: {} is of the type {kind}, expected {wanted}", go_printed(found))
}
