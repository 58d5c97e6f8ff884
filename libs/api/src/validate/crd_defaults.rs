//! Defaults in schemas of a CustomResourceDefinition: they are judged by the schema they stand in.

use super::node::{Faults, Node};
use crate::custom;
use crate::status::FieldError;

/// Judges the defaults of a schema and of what is in it; `root` where it is of whole objects. Those of map values are not looked at, as in Kubernetes.
pub(super) fn read(schema: &Node<'_, '_>, root: bool, out: &mut Faults) {
    let default = schema.get("default");
    if default.is_set() {
        let place = default.path();
        out.extend(custom::validate_default(default.value, schema.value, root).into_iter().map(|fault| {
            let field =
                if fault.field.is_empty() { place.clone() } else { format!("{place}.{}", fault.field) };
            FieldError { field, ..fault }
        }));
    }
    for (_, property) in schema.get("properties").entries() {
        read(&property, false, out);
    }
    if schema.get("items").value.is_object() {
        read(&schema.get("items"), false, out);
    }
}
