//! Schemas of CustomResourceDefinitions: what may stand where in them. Whether they are structural is judged in `crd_nested`.

use super::crd_defaults as defaults;
use super::crd_lists as lists;
use super::crd_nested as nested;
use super::crd_rules as rules;
use super::node::{Faults, Node};
use serde_json::{Value, json};

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

/// Judges a version's schema and then its rules.
pub(super) fn of_version(place: &Node<'_, '_>, with_status: bool, out: &mut Faults) {
    let known = out.len();
    if with_status {
        root_with_status(place, out);
    }
    if place.get("nullable").is_true() {
        place.get("nullable").forbidden("nullable cannot be true at the root", out);
    }
    let unreadable = nested::unreadable(place.value);
    if unreadable.is_none() {
        let before = out.len();
        nested::structural(place, out);
        // Defaults are read only in what is structural.
        if out.len() == before {
            defaults::read(place, true, out);
        }
    }
    schema(place, Standing::default(), out);
    match unreadable {
        Some(why) if out.len() == known => place.invalid_as(&json!(""), why, out),
        // Rules are read only where the schema itself is right.
        None if out.len() == known => rules::read(place, out),
        _ => {}
    }
}

/// What may stand at the root beside a status, whose schema is taken out of it; as Kubernetes tells it, and in JSON.
const AT_ROOT: [&str; 22] = [
    "Description",
    "Type",
    "Format",
    "Title",
    "Maximum",
    "ExclusiveMaximum",
    "Minimum",
    "ExclusiveMinimum",
    "MaxLength",
    "MinLength",
    "Pattern",
    "MaxItems",
    "MinItems",
    "UniqueItems",
    "MultipleOf",
    "Required",
    "Items",
    "Properties",
    "ExternalDocs",
    "Example",
    "XPreserveUnknownFields",
    "XValidations",
];

fn root_with_status(schema: &Node<'_, '_>, out: &mut Faults) {
    let kind = schema.get("type");
    if !kind.is_empty() && kind.text() != "object" {
        let detail = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        return kind.invalid(detail, out);
    }
    let allowed = |key: &str| {
        let inside = key
            .strip_prefix("x-kubernetes-")
            .map_or_else(|| key.to_owned(), |name| format!("x{}", name.replace('-', "")));
        AT_ROOT.iter().any(|name| name.eq_ignore_ascii_case(&inside))
    };
    let is_zero = |value: &Value| *value == false || value.as_array().is_some_and(Vec::is_empty);
    if schema.entries().any(|(key, value)| !allowed(key) && !is_zero(value.value)) {
        let names = AT_ROOT.join(" ");
        let told = format!(
            "only [{names}] fields are allowed at the root of the schema if the status subresource is enabled"
        );
        schema.invalid(told, out);
    }
}

/// Where a part of a schema stands.
#[derive(Clone, Copy, Default)]
struct Standing<'a> {
    /// Below the root.
    inside: bool,
    /// Within the metadata of the object or of one inside.
    in_meta: bool,
    /// Why it must have no default, where it must not.
    no_default: &'a str,
}

/// A part of a schema.
fn schema(schema: &Node<'_, '_>, standing: Standing<'_>, out: &mut Faults) {
    let free = schema.get("x-kubernetes-preserve-unknown-fields");
    let embeds = schema.get("x-kubernetes-embedded-resource").is_true();
    let root = !standing.inside;
    within(schema, out);
    standard(schema, standing, out);
    if free.is_set() && !free.is_true() {
        free.invalid("must be true or undefined", out);
    }
    let (properties, more, items) =
        (schema.get("properties"), schema.get("additionalProperties"), schema.get("items"));
    if !properties.is_empty() && more.is_set() && *more.value != true {
        more.forbidden("additionalProperties and properties are mutual exclusive", out);
    }
    if more.value.is_object() {
        let no_default = "inside additionalProperties applying to object metadata";
        let no_default = if standing.in_meta { no_default } else { standing.no_default };
        self::schema(&more, Standing { inside: true, no_default, ..standing }, out);
    }
    for (name, property) in properties.entries() {
        let of_meta = (root || embeds) && matches!(name, "metadata" | "kind" | "apiVersion");
        let top = format!("in top-level {name}");
        let no_default = if root && of_meta { top.as_str() } else { standing.no_default };
        let in_meta = standing.in_meta || of_meta;
        self::schema(&property, Standing { inside: true, in_meta, no_default }, out);
    }
    if items.value.is_object() {
        self::schema(&items, Standing { inside: true, ..standing }, out);
    }
    lists::types(schema, out);
    rules::written(schema, out);
}

/// What stands in `allOf` and its like.
fn within(schema: &Node<'_, '_>, out: &mut Faults) {
    let judge = |part: &Node<'_, '_>, out: &mut Faults| {
        within(part, out);
        let (items, properties) = (part.get("items"), part.get("properties"));
        let inner = properties.entries().map(|(_, property)| property);
        for part in inner.chain(items.value.is_object().then_some(items)) {
            within(&part, out);
            standard(&part, Standing::default(), out);
            lists::types(&part, out);
        }
        standard(part, Standing::default(), out);
        lists::types(part, out);
    };
    for key in ["allOf", "anyOf", "oneOf"] {
        schema.get(key).items().for_each(|part| judge(&part, out));
    }
    if schema.get("not").is_set() {
        judge(&schema.get("not"), out);
    }
}

/// What no schema has in Kubernetes.
fn standard(schema: &Node<'_, '_>, standing: Standing<'_>, out: &mut Faults) {
    let (kind, default) = (schema.get("type"), schema.get("default"));
    kind.may_be_one_of(&TYPES, out);
    if default.is_set() && !standing.no_default.is_empty() {
        default.forbidden(format!("must not be set {}", standing.no_default), out);
    }
    for key in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        if schema.get(key).is_set() {
            schema.get(key).forbidden(format!("{key} is not supported"), out);
        }
    }
    if kind.text() == "null" {
        kind.forbidden("type cannot be set to null, use nullable as an alternative", out);
    }
    if schema.get("items").value.is_array() {
        schema.get("items").forbidden("items must be a schema object and not an array", out);
    }
    if schema.get("uniqueItems").is_true() {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        schema.get("uniqueItems").forbidden(detail, out);
    }
    let embeds = schema.get("x-kubernetes-embedded-resource");
    if standing.in_meta && embeds.is_true() {
        embeds.forbidden("must not be used inside of resource meta", out);
    }
}
