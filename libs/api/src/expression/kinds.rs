//! What is declared of the objects of a kind, for expressions about them.
//!
//! In: a kind, built-in or custom. Out: its place, with the references of its schema followed.

use super::schema::declared;
use super::types::Decl;
use crate::kinds::Kind;
use crate::openapi;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// What is declared of the objects of a kind; `None` where that is not known, as of kinds that hold themselves.
#[must_use]
pub fn declared_kind(kind: &Kind) -> Option<Arc<Decl>> {
    let schema = match &kind.custom {
        Some(version) => {
            let mut schema = version.schema().clone();
            // As their documents have it.
            if let Some(metadata) = openapi::definition(openapi::OBJECT_META)
                && schema.is_object()
            {
                schema["properties"]["metadata"] = followed(metadata, &mut Vec::new())?;
            }
            schema
        }
        None => followed(openapi::definition(&kind.definition)?, &mut vec![kind.definition.clone()])?,
    };
    declared(&schema, &kind.kind, true).map(Arc::new)
}

/// A schema with the references in it replaced by what they are to; `None` where one leads to itself.
fn followed(schema: &Value, around: &mut Vec<String>) -> Option<Value> {
    let only = schema["allOf"].as_array().and_then(|all| all.first()).filter(|_| schema["$ref"].is_null());
    let reference = schema["$ref"].as_str().or_else(|| only.and_then(|only| only["$ref"].as_str()));
    if let Some(reference) = reference {
        let name = reference.rsplit('/').next().unwrap_or_default().to_owned();
        if around.contains(&name) {
            return None;
        }
        let target = openapi::definition(&name)?;
        around.push(name);
        let out = followed(target, around);
        around.pop();
        return out;
    }
    let mut out = Map::new();
    for key in ["type", "format", "required", "enum", "x-kubernetes-list-type", "x-kubernetes-list-map-keys"]
    {
        if let Some(value) = schema.get(key) {
            out.insert(key.to_owned(), value.clone());
        }
    }
    if schema["format"] == "int-or-string" {
        return Some(json!({"x-kubernetes-int-or-string": true}));
    }
    for key in ["items", "additionalProperties"] {
        if schema[key].is_object() {
            out.insert(key.to_owned(), followed(&schema[key], around)?);
        }
    }
    if let Some(properties) = schema["properties"].as_object() {
        let all: Option<Map<String, Value>> =
            properties.iter().map(|(key, own)| Some((key.clone(), followed(own, around)?))).collect();
        out.insert("properties".to_owned(), Value::Object(all?));
    }
    Some(Value::Object(out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expression::misfits;
    use crate::kinds;

    #[test]
    fn policies_are_checked_against_built_in_kinds() {
        let kind = kinds::by_gvk("apps/v1", "Deployment").expect("deployments");
        let place = declared_kind(kind).expect("a declaration");
        let spec = |expression: &str| json!({"validations": [{"expression": expression}]});
        let fine = "object.spec.replicas <= 5 && object.metadata.name != '' && object.metadata.?labels.a.orValue('') == '' && has(object.metadata.annotations) && object.spec.template.spec.containers.all(c, c.image.startsWith('a'))";
        assert_eq!(misfits(&spec(fine), &place, None), []);
        let told = misfits(&spec("object.spec.replicas > '1'"), &place, None);
        assert!(told[0].1.contains("no matching overload for '_>_' applied to '(int, string)'"), "{told:?}");
        let told = misfits(&spec("object.spec.replica > 1"), &place, None);
        assert!(told[0].1.contains("undefined field 'replica'"), "{told:?}");
    }

    #[test]
    fn kinds_that_hold_themselves_are_not_declared() {
        let kind = kinds::by_gvk("apiextensions.k8s.io/v1", "CustomResourceDefinition").expect("definitions");
        assert!(declared_kind(kind).is_none());
    }
}
