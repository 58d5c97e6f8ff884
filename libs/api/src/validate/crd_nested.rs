//! What `allOf`, `anyOf`, `oneOf` and `not` may say in a structural schema: how values are, and never what they are.

use super::node::{Faults, Node};
use serde_json::json;

const EMPTY: &str = "must be empty to be structural";
const FALSE: &str = "must be false to be structural";
const UNDEFINED: &str = "must be undefined to be structural";
/// Fields that only the schema itself has, with what is told of them elsewhere.
const OUTSIDE: [(&str, &str); 13] = [
    ("type", EMPTY),
    ("additionalProperties", UNDEFINED),
    ("default", UNDEFINED),
    ("title", EMPTY),
    ("description", EMPTY),
    ("nullable", FALSE),
    ("x-kubernetes-preserve-unknown-fields", FALSE),
    ("x-kubernetes-embedded-resource", FALSE),
    ("x-kubernetes-int-or-string", FALSE),
    ("x-kubernetes-list-map-keys", EMPTY),
    ("x-kubernetes-list-type", UNDEFINED),
    ("x-kubernetes-map-type", UNDEFINED),
    ("x-kubernetes-validations", EMPTY),
];

/// A schema or a part of one, and what `own` has to say of each part that stands in such a list.
pub(super) fn parts(schema: &Node<'_, '_>, own: &dyn Fn(&Node<'_, '_>, &mut Faults), out: &mut Faults) {
    each(schema, is_int_or_string(schema), true, own, out);
}

/// `free`: types may stand in `anyOf`. `first`: they may so in the first of `allOf`.
fn each(
    schema: &Node<'_, '_>,
    free: bool,
    first: bool,
    own: &dyn Fn(&Node<'_, '_>, &mut Faults),
    out: &mut Faults,
) {
    for key in ["allOf", "anyOf", "oneOf"] {
        if key == "anyOf" && free {
            continue;
        }
        for (i, item) in schema.get(key).items().enumerate() {
            let free = first && key == "allOf" && i == 0 && is_int_or_string(&item);
            part(&item, free, own, out);
        }
    }
    let not = schema.get("not");
    if not.is_set() {
        part(&not, false, own, out);
    }
}

fn part(schema: &Node<'_, '_>, free: bool, own: &dyn Fn(&Node<'_, '_>, &mut Faults), out: &mut Faults) {
    each(schema, free, false, own, out);
    let items = schema.get("items");
    if items.value.is_object() {
        part(&items, false, own, out);
    }
    let properties = schema.get("properties");
    for (name, property) in properties.entries() {
        part(&property, false, own, out);
        if name == "metadata" {
            property.forbidden("must not be specified in a nested context", out);
        }
    }
    for (key, detail) in OUTSIDE {
        let field = schema.get(key);
        // An empty schema of others is one; no is as good as nothing.
        let said = if key == "additionalProperties" { field.is_set() } else { !field.is_empty() };
        if said && *field.value != false {
            field.forbidden(detail, out);
        }
    }
    own(schema, out);
}

/// The one place where types may stand within: a number or a text.
fn is_int_or_string(schema: &Node<'_, '_>) -> bool {
    *schema.get("anyOf").value == json!([{"type": "integer"}, {"type": "string"}])
}
