//! Schemas of CustomResourceDefinitions: that they are structural, and what may stand where in them.

use super::crd_defaults as defaults;
use super::crd_lists as lists;
use super::crd_nested as nested;
use super::crd_rules as rules;
use super::node::{Faults, Node};
use serde_json::Value;

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

/// Judges a version's schema and then its rules.
pub(super) fn of_version(place: &Node<'_, '_>, with_status: bool, out: &mut Faults) {
    let known = out.len();
    if with_status {
        root_with_status(place, out);
    }
    root_schema(place, out);
    // Rules and defaults are read only where the schema itself is right.
    if out.len() == known {
        rules::read(place, out);
        defaults::read(place, out);
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
    /// Whose part it is; empty at the root.
    what: &'a str,
    /// Within the metadata of the object or of one inside.
    in_meta: bool,
    /// Why it must have no default, where it must not.
    no_default: &'a str,
}

fn root_schema(schema: &Node<'_, '_>, out: &mut Faults) {
    let kind = schema.get("type");
    if schema.get("nullable").is_true() {
        schema.get("nullable").forbidden("nullable cannot be true at the root", out);
    }
    if kind.is_empty() && !schema.get("x-kubernetes-preserve-unknown-fields").is_true() {
        kind.required("must not be empty at the root", out);
    } else if !kind.is_empty() && kind.text() != "object" {
        kind.invalid("must be object at the root", out);
    }
    self::schema(schema, Standing::default(), out);
}

/// A part of a structural schema.
fn schema(schema: &Node<'_, '_>, standing: Standing<'_>, out: &mut Faults) {
    let kind = schema.get("type");
    let free = schema.get("x-kubernetes-preserve-unknown-fields");
    let embeds = schema.get("x-kubernetes-embedded-resource").is_true();
    let typed_elsewhere = schema.get("x-kubernetes-int-or-string").is_true();
    let root = standing.what.is_empty();
    if !root && kind.is_empty() && !free.is_true() && !typed_elsewhere {
        kind.required(format!("must not be empty for specified {}", standing.what), out);
    }
    let within = |part: &Node<'_, '_>, out: &mut Faults| {
        standard(part, Standing::default(), out);
        lists::types(part, out);
    };
    nested::parts(schema, &within, out);
    standard(schema, standing, out);
    if free.is_set() && !free.is_true() {
        free.invalid("must be true or undefined", out);
    }
    let (properties, more, items) =
        (schema.get("properties"), schema.get("additionalProperties"), schema.get("items"));
    if !properties.is_empty() && more.is_set() && *more.value != false {
        more.forbidden("additionalProperties and properties are mutual exclusive", out);
    }
    if more.value.is_object() {
        let no_default = "inside additionalProperties applying to object metadata";
        let no_default = if standing.in_meta { no_default } else { standing.no_default };
        self::schema(&more, Standing { what: "object fields", no_default, ..standing }, out);
    }
    for (name, property) in properties.entries() {
        let of_meta = (root || embeds) && matches!(name, "metadata" | "kind" | "apiVersion");
        let top = format!("in top-level {name}");
        let no_default = if root && of_meta { top.as_str() } else { standing.no_default };
        let in_meta = standing.in_meta || of_meta;
        self::schema(&property, Standing { what: "object fields", in_meta, no_default }, out);
    }
    if kind.text() == "array" && !items.is_set() {
        items.required("must be specified", out);
    }
    if items.value.is_object() {
        self::schema(&items, Standing { what: "array items", ..standing }, out);
    }
    lists::types(schema, out);
    rules::written(schema, out);
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
