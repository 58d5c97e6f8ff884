//! Merge patch: objects merge, `null` removes, anything else replaces.

use serde_json::Value;

/// Merges `patch` into `target`.
pub fn merge_values(target: &mut Value, patch: Value) {
    let patch = match (&*target, patch) {
        (Value::Object(_), Value::Object(patch)) => patch,
        (_, mut other) => {
            prune(&mut other);
            *target = other;
            return;
        }
    };
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(&key);
        } else {
            merge_values(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// Nulls say "remove"; where there was nothing they leave nothing. Nulls that are items of a list stay.
fn prune(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(prune);
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::{PatchError, merge_patch};
    use serde_json::json;

    #[test]
    fn merges() {
        let rows = [
            (json!({"a": "1", "b": "2"}), json!({"a": null, "c": "3"}), json!({"b": "2", "c": "3"})),
            (
                json!({"a": {"b": 1}}),
                json!({"a": {"c": null, "d": {"e": null, "f": 1}}}),
                json!({"a": {"b": 1, "d": {"f": 1}}}),
            ),
            (json!({"a": [1, 2]}), json!({"a": [{"x": null, "y": 1}, null]}), json!({"a": [{"y": 1}, null]})),
            (json!({"a": 1}), json!({"a": {"b": null}}), json!({"a": {}})),
            (json!({"a": 1}), json!({}), json!({"a": 1})),
        ];
        for (object, patch, want) in rows {
            assert_eq!(merge_patch(&object, patch.to_string().as_bytes()).unwrap().object, want);
        }
    }

    #[test]
    fn malformed() {
        let rows = [
            ("{", "error decoding patch: unexpected end of JSON input"),
            (
                "[]",
                "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
            ),
            ("x", "error decoding patch: invalid character 'x' looking for beginning of value"),
        ];
        for (patch, want) in rows {
            assert_eq!(
                merge_patch(&json!({}), patch.as_bytes()),
                Err(PatchError::Malformed(want.to_owned()))
            );
        }
    }
}
