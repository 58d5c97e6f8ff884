//! Objects within custom objects (`x-kubernetes-embedded-resource`): they say what they are, and have standard metadata.

use super::schema::{FAULTS_MAX, field, in_brackets, in_field, old_items};
use crate::decode;
use crate::labels;
use crate::status::{FieldError, shown};
use serde_json::Value;

pub(super) const EMBEDDED: &str = "x-kubernetes-embedded-resource";

/// Makes what an embedded object says of itself canonical.
///
/// # Errors
/// What cannot be read.
pub(super) fn read(object: &mut Value, path: &str, unknown: &mut Vec<String>) -> Result<(), String> {
    for key in ["apiVersion", "kind"] {
        if let Some(other) = object.get(key).filter(|value| !value.is_string()) {
            return Err(format!("{path}.{key}: Invalid value: {}: must be a string", shown(other)));
        }
    }
    let Some(metadata) = object.get_mut("metadata").filter(|metadata| !metadata.is_null()) else {
        return Ok(());
    };
    let mut own = Vec::new();
    *metadata = decode::metadata(metadata.clone(), "metadata", &mut own)
        .map_err(|why| format!("{path}.metadata: Invalid value: {}: {why}", shown(metadata)))?;
    for finding in own {
        decode::tell(unknown, || within(path, finding));
    }
    Ok(())
}

/// A finding about a field, with the path of the object that it is of put before the field's own, within its quotes.
fn within(path: &str, finding: String) -> String {
    let quoted = format!("{path:?}");
    match (finding.split_once('"'), quoted.strip_suffix('"')) {
        (Some((what, field)), Some(open)) => format!("{what}{open}.{field}"),
        _ => finding,
    }
}

/// What objects in a default do not say of themselves; `root` where it is of a whole object.
pub(super) fn missing(value: &Value, schema: &Value, root: bool) -> Vec<FieldError> {
    let mut faults = Vec::new();
    missing_at(value, schema, root, &mut String::new(), &mut faults);
    faults
}

fn missing_at(value: &Value, schema: &Value, root: bool, path: &mut String, faults: &mut Vec<FieldError>) {
    if faults.len() >= FAULTS_MAX {
        return;
    }
    match value {
        Value::Object(map) => {
            if root || schema[EMBEDDED] == true {
                let given = |key: &&str| value[*key].as_str().is_some_and(|text| !text.is_empty());
                let told = |key| FieldError::required(field(path, key), "must not be empty");
                faults.extend(["apiVersion", "kind"].into_iter().filter(|key| !given(key)).map(told));
            }
            for (key, child) in map {
                let schema = schema["properties"].get(key).unwrap_or(&schema["additionalProperties"]);
                in_field(path, key, |path| missing_at(child, schema, false, path, faults));
            }
        }
        Value::Array(items) => items.iter().enumerate().for_each(|(index, item)| {
            in_brackets(path, index, |path| missing_at(item, &schema["items"], false, path, faults));
        }),
        _ => {}
    }
}

/// Faults of what embedded objects say of themselves. What an update leaves as it was is not judged again.
pub(super) fn validate(value: &Value, old: Option<&Value>, schema: &Value) -> Vec<FieldError> {
    let mut faults = Vec::new();
    judge(value, old, schema, &mut String::new(), &mut faults);
    faults.truncate(FAULTS_MAX);
    faults
}

fn judge(
    value: &Value,
    old: Option<&Value>,
    schema: &Value,
    path: &mut String,
    faults: &mut Vec<FieldError>,
) {
    if old == Some(value) || !schema.is_object() || faults.len() >= FAULTS_MAX {
        return;
    }
    match value {
        Value::Object(map) => {
            if schema[EMBEDDED] == true {
                own(value, path, faults);
            }
            for (key, child) in map {
                let schema = schema["properties"].get(key).unwrap_or(&schema["additionalProperties"]);
                let old = old.and_then(|old| old.get(key));
                in_field(path, key, |path| judge(child, old, schema, path, faults));
            }
        }
        Value::Array(items) => {
            let before = old_items(items, old, schema);
            for (index, item) in items.iter().enumerate() {
                let old = before.get(index).copied().flatten();
                in_brackets(path, index, |path| judge(item, old, &schema["items"], path, faults));
            }
        }
        _ => {}
    }
}

fn own(object: &Value, path: &str, faults: &mut Vec<FieldError>) {
    let mut told = |key: &str, value: &Value, why: String| {
        if faults.len() < FAULTS_MAX {
            faults.push(FieldError::invalid(field(path, key), value, why));
        }
    };
    let version = &object["apiVersion"];
    match version.as_str() {
        Some("") => told("apiVersion", version, "must not be empty".to_owned()),
        Some(text) if text.matches('/').count() > 1 => {
            told("apiVersion", version, format!("unexpected GroupVersion string: {text}"));
        }
        _ => {}
    }
    let kind = &object["kind"];
    if let Some(text) = kind.as_str() {
        let complaints = labels::is_dns1035_label(&text.to_lowercase());
        if text.is_empty() {
            told("kind", kind, "must not be empty".to_owned());
        } else if !complaints.is_empty() {
            let complaints = complaints.join(",");
            told("kind", kind, format!("may have mixed case, but should otherwise match: {complaints}"));
        }
    }
    for key in ["generateName", "name", "namespace"] {
        let value = &object["metadata"][key];
        let judge = if key == "namespace" { labels::is_dns1123_label } else { labels::is_path_segment_name };
        for complaint in value.as_str().filter(|text| !text.is_empty()).map(judge).unwrap_or_default() {
            told(&format!("metadata.{key}"), value, complaint);
        }
    }
    for (key, value) in object["metadata"]["labels"].as_object().into_iter().flatten() {
        for complaint in labels::is_qualified_name(key) {
            told("metadata.labels", &key.as_str().into(), complaint);
        }
        for complaint in labels::is_valid_label_value(value.as_str().unwrap_or_default()) {
            told("metadata.labels", value, complaint);
        }
    }
    for key in object["metadata"]["annotations"].as_object().into_iter().flat_map(|map| map.keys()) {
        for complaint in labels::is_qualified_name(&key.to_lowercase()) {
            told("metadata.annotations", &key.as_str().into(), complaint);
        }
    }
}
