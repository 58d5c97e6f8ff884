//! Reading and writing `metadata` of a dynamic object.

use serde_json::Value;

/// A string field of `metadata`, empty when absent.
#[must_use]
pub fn field<'a>(object: &'a Value, key: &str) -> &'a str {
    object["metadata"][key].as_str().unwrap_or_default()
}

/// Whether an annotation's text is yes or no, as Go's `strconv.ParseBool` reads it.
#[must_use]
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// `metadata.name`, empty when absent.
#[must_use]
pub fn name(object: &Value) -> &str {
    field(object, "name")
}

/// `metadata.namespace`, empty when absent.
#[must_use]
pub fn namespace(object: &Value) -> &str {
    field(object, "namespace")
}

/// `metadata.uid`, empty when absent.
#[must_use]
pub fn uid(object: &Value) -> &str {
    field(object, "uid")
}

/// The annotation of a pod that mirrors one of a kubelet's own.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

/// Whether a pod mirrors one of a kubelet's own.
#[must_use]
pub fn is_mirror(pod: &Value) -> bool {
    pod["metadata"]["annotations"][MIRROR].is_string()
}

/// Sets `metadata[key]`, making `metadata` an object where it is none.
pub fn set(object: &mut Value, key: &str, value: impl Into<Value>) {
    if !object["metadata"].is_object() {
        object["metadata"] = Value::Object(serde_json::Map::new());
    }
    object["metadata"][key] = value.into();
}

/// Removes `metadata[key]`.
pub fn remove(object: &mut Value, key: &str) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove(key);
    }
}

/// Takes out the owners that are named once more; returns their uids.
pub fn dedup_owners(object: &mut Value) -> Vec<String> {
    let owners = object.pointer_mut("/metadata/ownerReferences").and_then(Value::as_array_mut);
    let Some(owners) = owners.filter(|owners| owners.len() > 1) else { return Vec::new() };
    let (mut kept, mut again): (Vec<Value>, Vec<String>) = (Vec::new(), Vec::new());
    for owner in owners.drain(..) {
        if kept.contains(&owner) {
            again.push(owner["uid"].as_str().unwrap_or_default().to_owned());
        } else {
            kept.push(owner);
        }
    }
    *owners = kept;
    again
}

/// The strings of a list; nothing for `Null`.
pub fn strings(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}
