//! Pruning and defaults by a structural schema, as Kubernetes does them when it decodes.

use super::Version;
use super::embedded::{self, EMBEDDED};
use crate::decode::tell;
use serde_json::{Map, Value};

const EXTRA: &str = "x-kubernetes-preserve-unknown-fields";
/// Fields of every object, whatever the schema says.
const ROOT: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// What pruning finds.
struct Found<'f> {
    unknown: &'f mut Vec<String>,
    /// Of the metadata of embedded objects, which is told last.
    of_metadata: Vec<String>,
    /// What cannot be read of the first embedded object that is wrong.
    wrong: Option<String>,
}

/// Prunes an object and makes what embedded objects say of themselves canonical.
///
/// # Errors
/// What cannot be read of an embedded object.
pub fn read(object: &mut Value, version: &Version, unknown: &mut Vec<String>) -> Result<(), String> {
    let mut found = Found { unknown, of_metadata: Vec::new(), wrong: None };
    prune_at(object, version.schema(), &mut String::new(), true, &mut found);
    for text in found.of_metadata {
        tell(found.unknown, || text);
    }
    found.wrong.map_or(Ok(()), Err)
}

/// Whether pruning would take something away.
pub(super) fn has_unknown(value: &Value, schema: &Value) -> bool {
    let mut pruned = value.clone();
    prune_at(
        &mut pruned,
        schema,
        &mut String::new(),
        false,
        &mut Found { unknown: &mut Vec::new(), of_metadata: Vec::new(), wrong: None },
    );
    pruned != *value
}

fn keeps(schema: &Value) -> bool {
    schema[EXTRA] == true
}

/// `path` is where the value stands; it comes back as it was.
fn prune_at(value: &mut Value, schema: &Value, path: &mut String, root: bool, found: &mut Found<'_>) {
    let length = path.len();
    let embedded = schema[EMBEDDED] == true && !root && value.is_object();
    if embedded && let Err(why) = embedded::read(value, path, &mut found.of_metadata) {
        found.wrong.get_or_insert(why);
    }
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                path.push_str(&format!("[{index}]"));
                prune_at(item, &schema["items"], path, false, found);
                path.truncate(length);
            }
        }
        Value::Object(map) => prune_map(map, schema, path, root || embedded, found),
        _ => {}
    }
}

fn prune_map(
    map: &mut Map<String, Value>,
    schema: &Value,
    path: &mut String,
    root: bool,
    found: &mut Found<'_>,
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
            prune_at(value, property, path, false, found);
            return true;
        }
        match more {
            Value::Object(_) => {
                prune_at(value, more, path, false, found);
                true
            }
            // Fields of any name and nothing in them.
            Value::Bool(_) => {
                prune_at(value, &Value::Null, path, false, found);
                true
            }
            _ if keeps(schema) => true,
            _ => {
                tell(found.unknown, || format!("unknown field {path:?}"));
                false
            }
        }
    });
    path.truncate(length);
}

/// Whether neither pruning nor defaults would change a whole object.
pub(super) fn fits(object: &Value, schema: &Value) -> bool {
    fits_at(object, schema, true)
}

fn fits_at(value: &Value, schema: &Value, root: bool) -> bool {
    match value {
        Value::Array(items) => items.iter().all(|item| fits_at(item, &schema["items"], false)),
        // What embedded objects say of themselves is only known by reading them.
        Value::Object(_) if schema[EMBEDDED] == true && !root => false,
        Value::Object(map) => {
            let more = &schema["additionalProperties"];
            let properties = schema["properties"].as_object();
            let complete = properties.into_iter().flatten().all(|(key, property)| {
                map.contains_key(key) || property.get("default").is_none_or(Value::is_null)
            });
            let known = |(key, value): (&String, &Value)| {
                let property = properties.and_then(|properties| properties.get(key));
                match property.or(Some(more).filter(|more| more.is_object())) {
                    Some(inner) if value.is_null() => inner["nullable"] == true,
                    Some(inner) => fits_at(value, inner, false),
                    None if root && ROOT.contains(&key.as_str()) => true,
                    None if more.is_boolean() => fits_at(value, &Value::Null, false),
                    None => keeps(schema),
                }
            };
            complete && map.iter().all(known)
        }
        _ => true,
    }
}

/// Removes what a schema does not know from a whole object.
pub(super) fn prune_by(object: &mut Value, schema: &Value) {
    let mut found = Found { unknown: &mut Vec::new(), of_metadata: Vec::new(), wrong: None };
    prune_at(object, schema, &mut String::new(), true, &mut found);
}

/// Fills in defaults; a null where none is allowed counts as absent.
pub fn default(object: &mut Value, version: &Version) {
    default_by(object, version.schema());
}

/// Fills in the defaults of a schema.
pub(super) fn default_by(object: &mut Value, schema: &Value) {
    default_at(object, schema);
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
                    None if forbidden_null => {
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
                let default = more.get("default").filter(|default| !default.is_null());
                map.retain(|key, value| {
                    if declared(key) {
                        return true;
                    }
                    if value.is_null() && more["nullable"] != true {
                        let Some(default) = default else { return false };
                        value.clone_from(default);
                    }
                    default_at(value, more);
                    true
                });
            }
        }
        _ => {}
    }
}
