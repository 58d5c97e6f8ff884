//! Pruning and defaults by a structural schema, as Kubernetes does them when it decodes.

use super::Version;
use crate::decode::tell;
use serde_json::{Map, Value};

const EXTRA: &str = "x-kubernetes-preserve-unknown-fields";
const EMBEDDED: &str = "x-kubernetes-embedded-resource";
/// Fields of every object, whatever the schema says.
const ROOT: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Removes fields that the schema does not know; tells their paths.
pub fn prune(object: &mut Value, version: &Version, unknown: &mut Vec<String>) {
    prune_at(object, version.schema(), &mut String::new(), true, unknown);
}

fn keeps(schema: &Value) -> bool {
    schema[EXTRA] == true
}

/// `path` is where the value stands; it comes back as it was.
fn prune_at(value: &mut Value, schema: &Value, path: &mut String, root: bool, unknown: &mut Vec<String>) {
    let length = path.len();
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                path.push_str(&format!("[{index}]"));
                prune_at(item, &schema["items"], path, false, unknown);
                path.truncate(length);
            }
        }
        Value::Object(map) => prune_map(map, schema, path, root || schema[EMBEDDED] == true, unknown),
        _ => {}
    }
}

fn prune_map(
    map: &mut Map<String, Value>,
    schema: &Value,
    path: &mut String,
    root: bool,
    unknown: &mut Vec<String>,
) {
    let more = &schema["additionalProperties"];
    let length = path.len();
    map.retain(|key, value| {
        if root && ROOT.contains(&key.as_str()) {
            return true;
        }
        path.truncate(length);
        if length > 0 {
            path.push('.');
        }
        path.push_str(key);
        if let Some(property) = schema["properties"].get(key) {
            prune_at(value, property, path, false, unknown);
            return true;
        }
        match more {
            Value::Object(_) => {
                prune_at(value, more, path, false, unknown);
                true
            }
            Value::Bool(true) => true,
            _ if keeps(schema) => true,
            _ => {
                tell(unknown, || format!("unknown field {path:?}"));
                false
            }
        }
    });
    path.truncate(length);
}

/// Whether a default stands anywhere in a schema.
pub(super) fn has_default(schema: &Value) -> bool {
    let inner = |schema: &Value| schema.is_object() && has_default(schema);
    schema.get("default").is_some_and(|default| !default.is_null())
        || schema["properties"].as_object().is_some_and(|properties| properties.values().any(inner))
        || inner(&schema["items"])
        || inner(&schema["additionalProperties"])
}

/// Fills in defaults; a null where none is allowed counts as absent.
pub fn default(object: &mut Value, version: &Version) {
    default_at(object, version.schema());
}

fn default_at(value: &mut Value, schema: &Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| default_at(item, &schema["items"])),
        Value::Object(map) => {
            let properties = schema["properties"].as_object();
            for (key, property) in properties.into_iter().flatten() {
                let forbidden_null = property["nullable"] != true && map.get(key).is_some_and(Value::is_null);
                let default = property.get("default").filter(|default| !default.is_null());
                match default {
                    Some(default) if forbidden_null || !map.contains_key(key) => {
                        map.insert(key.clone(), default.clone());
                    }
                    None if forbidden_null && !keeps(property) => {
                        map.remove(key);
                    }
                    _ => {}
                }
                if let Some(value) = map.get_mut(key) {
                    default_at(value, property);
                }
            }
            let more = &schema["additionalProperties"];
            if more.is_object() {
                let declared = |key: &String| properties.is_some_and(|known| known.contains_key(key));
                let others = map.iter_mut().filter(|(key, _)| !declared(key));
                others.for_each(|(_, value)| default_at(value, more));
            }
        }
        _ => {}
    }
}
