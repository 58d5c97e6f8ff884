//! Lists, maps and selectable fields of a CustomResourceDefinition: that items can be told apart, and fields found.

use super::crd_rules::followed;
use super::node::{Faults, Node, Seen};
use serde_json::{Value, json};

/// Fields that can be selected by, at most.
const SELECTABLE_MAX: usize = 8;

/// `x-kubernetes-list-type`, its keys, and `x-kubernetes-map-type`.
pub(super) fn types(schema: &Node<'_, '_>, out: &mut Faults) {
    let (list, map) = (schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-map-type"));
    let kind = schema.get("type");
    let must_be = |wanted: &str, what: &str, out: &mut Faults| {
        let detail = format!("must be {wanted} if {what} is specified");
        match kind.text() {
            "" => kind.required(detail, out),
            own if own == wanted => {}
            _ => kind.invalid(detail, out),
        }
    };
    if map.is_set() {
        must_be("object", "x-kubernetes-map-type", out);
        map.must_be_one_of(&["atomic", "granular"], out);
    }
    if list.is_set() {
        must_be("array", "x-kubernetes-list-type", out);
        list.must_be_one_of(&["atomic", "set", "map"], out);
    }
    let keys = schema.get("x-kubernetes-list-map-keys");
    match list.text() {
        "map" => keyed(schema, &keys, out),
        "" if !keys.is_empty() && !list.is_set() => {
            list.required("must be map if x-kubernetes-list-map-keys is non-empty", out);
        }
        _ if !keys.is_empty() => list.invalid("must be map if x-kubernetes-list-map-keys is non-empty", out),
        "set" => whole(&schema.get("items"), out),
        _ => {}
    }
    let nullable = schema.get("items.nullable");
    if matches!(list.text(), "map" | "set") && nullable.is_true() {
        nullable.forbidden(format!("cannot be nullable when x-kubernetes-list-type is {}", list.text()), out);
    }
}

/// Items of sets are the same or not as a whole.
fn whole(items: &Node<'_, '_>, out: &mut Faults) {
    let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
    let (list, map) = (items.get("x-kubernetes-list-type"), items.get("x-kubernetes-map-type"));
    match items.get("type").text() {
        "array" if list.is_set() && list.text() != "atomic" => list.invalid(detail, out),
        "object" if map.text() != "atomic" => map.invalid(detail, out),
        _ => {}
    }
}

/// Items of maps have keys, which every one of them has.
fn keyed(schema: &Node<'_, '_>, keys: &Node<'_, '_>, out: &mut Faults) {
    if keys.is_empty() {
        keys.required("must not be empty if x-kubernetes-list-type is map", out);
    }
    let items = schema.get("items");
    if !items.value.is_object() {
        return items.required("must have a schema if x-kubernetes-list-type is map", out);
    }
    let kind = items.get("type");
    if kind.text() != "object" {
        let shown = json!(kind.text());
        return kind.invalid_as(
            &shown,
            "must be object if parent array's x-kubernetes-list-type is map",
            out,
        );
    }
    let (properties, required) = (items.get("properties"), items.get("required"));
    let mut seen = Seen::new();
    for key in keys.items() {
        let property = properties.key(key.text());
        if seen.contains(&key.text()) {
            keys.invalid("must not contain duplicate entries", out);
        }
        seen.insert(key.text());
        if !property.is_set() {
            keys.invalid("entries must all be names of item properties", out);
            continue;
        }
        let kind = property.get("type");
        if matches!(kind.text(), "array" | "object") {
            kind.invalid("must be a scalar type if parent array's x-kubernetes-list-type is map", out);
        }
        let default = property.get("default");
        if !default.is_set() && !required.items().any(|own| own.value == key.value) {
            let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            default.required(detail, out);
        }
        if property.get("nullable").is_true() {
            let detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            property.get("nullable").forbidden(detail, out);
        }
    }
}

const ARRAY: &str = "array notation is not allowed";

/// The fields by which objects of a version can be selected.
pub(super) fn selectable(fields: &Node<'_, '_>, schema: &Value, out: &mut Faults) {
    let mut seen = Seen::new();
    for field in fields.items() {
        let path = field.get("jsonPath");
        let text = path.text();
        if text.is_empty() {
            path.required("", out);
            continue;
        }
        let found = match text.split_once('[') {
            // What comes before it must be there.
            Some((before, _)) if !before.is_empty() => {
                followed(before, schema).and_then(|_| Err(ARRAY.to_owned()))
            }
            Some(_) => Err(ARRAY.to_owned()),
            None => followed(text, schema),
        };
        match found {
            Err(why) => path.invalid(format!("is an invalid path: {why}"), out),
            Ok(_) if text == ".metadata" || text.starts_with(".metadata.") => {
                path.invalid("must not point to fields in metadata", out);
            }
            Ok(found) if !matches!(found["type"].as_str(), Some("string" | "boolean" | "integer")) => {
                let detail = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
                path.invalid(detail, out);
            }
            Ok(_) if seen.contains(&text) => path.duplicate(out),
            Ok(_) => {}
        }
        seen.insert(text);
    }
    if fields.len() > SELECTABLE_MAX {
        fields.too_many(SELECTABLE_MAX, out);
    }
}
