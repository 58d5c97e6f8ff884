//! That a schema is structural: it says of every field what it is, and `allOf`, `anyOf`, `oneOf` and `not` say no more than
//! how values are.

use super::node::{Faults, Node};
use crate::pattern::Pattern;
use serde_json::{Value, json};

const EMPTY: &str = "must be empty to be structural";
const FALSE: &str = "must be false to be structural";
const UNDEFINED: &str = "must be undefined to be structural";
const EMBEDDED: &str = "x-kubernetes-embedded-resource";
const FREE: &str = "x-kubernetes-preserve-unknown-fields";
const INT_OR_STRING: &str = "x-kubernetes-int-or-string";
/// Fields that only the schema itself has, with what is told of them elsewhere.
const OUTSIDE: [(&str, &str); 13] = [
    ("type", EMPTY),
    ("additionalProperties", UNDEFINED),
    ("default", UNDEFINED),
    ("title", EMPTY),
    ("description", EMPTY),
    ("nullable", FALSE),
    (FREE, FALSE),
    (EMBEDDED, FALSE),
    (INT_OR_STRING, FALSE),
    ("x-kubernetes-list-map-keys", EMPTY),
    ("x-kubernetes-list-type", UNDEFINED),
    ("x-kubernetes-map-type", UNDEFINED),
    ("x-kubernetes-validations", EMPTY),
];
/// Fields of JSON schemas that no structural schema has, with their names there.
const UNREADABLE: [(&str, &str); 7] = [
    ("id", "id"),
    ("$schema", "schema"),
    ("$ref", "$ref"),
    ("patternProperties", "patternProperties"),
    ("dependencies", "dependencies"),
    ("additionalItems", "additionalItems"),
    ("definitions", "definitions"),
];

/// The first thing for which a schema cannot even be looked at, as Kubernetes tells it.
pub(super) fn unreadable(schema: &Value) -> Option<String> {
    let said = |value: &Value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    };
    let own = UNREADABLE.iter().find(|(key, _)| said(&schema[*key]));
    let own = own.map(|(_, name)| format!("OpenAPIV3Schema '{name}' is not supported"));
    let unset =
        || (schema[FREE] == false).then(|| format!("internal error: '{FREE}' must be true or undefined"));
    own.or_else(unset).or_else(|| {
        let properties = schema["properties"].as_object().into_iter().flat_map(|map| map.values());
        let lists = ["allOf", "anyOf", "oneOf"].into_iter().flat_map(|key| schema[key].as_array()).flatten();
        let single = ["items", "additionalProperties", "not"].into_iter().map(|key| &schema[key]);
        properties.chain(lists).chain(single).filter(|inner| inner.is_object()).find_map(unreadable)
    })
}

/// Where a schema stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Items,
    Fields,
}

/// Judges a whole schema; what is wrong is told in the order of the alphabet.
pub(super) fn structural(schema: &Node<'_, '_>, out: &mut Faults) {
    let mut faults = Faults::new();
    invariants(schema, Level::Root, &mut faults);
    junctors(schema, &mut |part, out| complete(part, schema, out), &mut faults);
    faults.sort_by_cached_key(ToString::to_string);
    out.extend(faults);
}

fn invariants(schema: &Node<'_, '_>, level: Level, out: &mut Faults) {
    let (kind, items, more) = (schema.get("type"), schema.get("items"), schema.get("additionalProperties"));
    if kind.text() == "array" && !items.is_set() {
        items.required("must be specified", out);
    }
    if items.value.is_object() {
        invariants(&items, Level::Items, out);
    }
    for (_, property) in schema.get("properties").entries() {
        invariants(&property, Level::Fields, out);
    }
    if more.is_set() && level == Level::Root {
        more.forbidden("must not be used at the root", out);
    }
    if more.value.is_object() {
        invariants(&more, Level::Fields, out);
    }
    let typed_elsewhere = schema.get(INT_OR_STRING).is_true();
    for key in [FREE, EMBEDDED].into_iter().filter(|key| typed_elsewhere && schema.get(key).is_true()) {
        schema.get(key).invalid("must be false if x-kubernetes-int-or-string is true", out);
    }
    values(schema, is_int_or_string(schema), true, out);
    of_type(schema, level, out);
    of_object(schema, level, out);
}

fn of_type(schema: &Node<'_, '_>, level: Level, out: &mut Faults) {
    let (kind, embeds) = (schema.get("type"), schema.get(EMBEDDED).is_true());
    if embeds && kind.text() != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        if kind.is_empty() { kind.required(detail, out) } else { kind.invalid(detail, out) }
    } else if kind.is_empty() && !schema.get(INT_OR_STRING).is_true() && !schema.get(FREE).is_true() {
        let detail = match level {
            Level::Root => "must not be empty at the root",
            Level::Items => "must not be empty for specified array items",
            Level::Fields => "must not be empty for specified object fields",
        };
        kind.required(detail, out);
    }
    if embeds && schema.get("additionalProperties").is_set() {
        let detail = "must not be used if x-kubernetes-embedded-resource is set";
        schema.get("additionalProperties").forbidden(detail, out);
    }
    if level == Level::Root && !kind.is_empty() && kind.text() != "object" {
        kind.invalid("must be object at the root", out);
    }
}

/// What a schema of whole objects may say of what they all have.
fn of_object(schema: &Node<'_, '_>, level: Level, out: &mut Faults) {
    let embeds = schema.get(EMBEDDED).is_true();
    let whole = embeds || level == Level::Root;
    let properties = schema.get("properties");
    for (name, wanted) in [("kind", "string"), ("apiVersion", "string"), ("metadata", "object")] {
        let property = properties.key(name);
        let kind = property.get("type");
        if whole && property.is_set() && kind.text() != wanted {
            kind.invalid_as(&json!(kind.text()), format!("must be {wanted}"), out);
        }
    }
    let metadata = properties.key("metadata");
    if level == Level::Root && metadata.is_set() && !names_only(metadata.value) {
        let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        metadata.forbidden(detail, out);
    }
    if embeds && !schema.get(FREE).is_true() && properties.is_empty() {
        let detail = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        properties.required(detail, out);
    }
}

/// Whether a schema of metadata says no more than how objects may be called.
fn names_only(metadata: &Value) -> bool {
    let Some(map) = metadata.as_object() else { return true };
    map.iter().all(|(key, value)| match key.as_str() {
        "type" | "default" => true,
        "properties" => {
            let names = value.as_object();
            names.is_none_or(|names| {
                names.keys().all(|name| ["name", "generateName"].contains(&name.as_str()))
            })
        }
        _ => {
            value.is_null() || *value == false || *value == "" || value.as_array().is_some_and(Vec::is_empty)
        }
    })
}

/// Calls `judge` for each part of `allOf` and its like.
fn junctors(schema: &Node<'_, '_>, judge: &mut dyn FnMut(&Node<'_, '_>, &mut Faults), out: &mut Faults) {
    if schema.get("not").is_set() {
        judge(&schema.get("not"), out);
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        schema.get(key).items().for_each(|part| judge(&part, out));
    }
}

/// Judges what a schema says of values. `free`: types may stand in `anyOf`. `first`: they may so in the first of `allOf`.
fn values(schema: &Node<'_, '_>, free: bool, first: bool, out: &mut Faults) {
    for key in ["allOf", "anyOf", "oneOf"] {
        if key == "anyOf" && free {
            continue;
        }
        for (i, item) in schema.get(key).items().enumerate() {
            let free = first && key == "allOf" && i == 0 && is_int_or_string(&item);
            part(&item, free, out);
        }
    }
    let not = schema.get("not");
    if not.is_set() {
        part(&not, false, out);
    }
    let pattern = schema.get("pattern");
    if let Err(why) = Pattern::new(pattern.text()) {
        pattern.invalid(format!("must be a valid regular expression, but isn't: {why}"), out);
    }
}

fn part(schema: &Node<'_, '_>, free: bool, out: &mut Faults) {
    values(schema, free, false, out);
    let items = schema.get("items");
    if items.value.is_object() {
        part(&items, false, out);
    }
    let properties = schema.get("properties");
    for (name, property) in properties.entries() {
        part(&property, false, out);
        if name == "metadata" {
            property.forbidden("must not be specified in a nested context", out);
        }
    }
    for (key, detail) in OUTSIDE {
        let field = schema.get(key);
        // An empty schema of others is one, as an empty default is; no is as good as nothing.
        let whole = ["additionalProperties", "default"].contains(&key);
        let said = if whole { field.is_set() } else { !field.is_empty() };
        if said && (key == "default" || *field.value != false) {
            field.forbidden(detail, out);
        }
    }
}

/// What is said of a field's values must be said of a field that the schema itself has.
fn complete(part: &Node<'_, '_>, schema: &Node<'_, '_>, out: &mut Faults) {
    if !schema.is_set() {
        return schema.required(format!("because it is defined in {}", part.path()), out);
    }
    junctors(part, &mut |inner, out| complete(inner, schema, out), out);
    if part.get("items").value.is_object() {
        complete(&part.get("items"), &schema.get("items"), out);
    }
    let (said, known) = (part.get("properties"), schema.get("properties"));
    for (name, inner) in said.entries() {
        complete(&inner, &known.key(name), out);
    }
}

/// The one place where types may stand within: a number or a text.
fn is_int_or_string(schema: &Node<'_, '_>) -> bool {
    *schema.get("anyOf").value == json!([{"type": "integer"}, {"type": "string"}])
}
