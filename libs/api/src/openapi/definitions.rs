//! The definitions of types, as OpenAPI 3 and 2 have them.
//!
//! Those of built-in types stand in `data/schemas.json` without their descriptions, which [`descriptions`] adds. Version 2
//! has no defaults, and no types that are either of two.

use super::{descriptions, list_definition};
use crate::kinds::Kind;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

pub(super) static SCHEMAS: LazyLock<Map<String, Value>> = LazyLock::new(|| {
    // The data is part of the program: a test reads it.
    serde_json::from_str(include_str!("../../data/schemas.json")).unwrap_or_default()
});

pub(super) const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
pub(crate) const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
pub(super) const API_GROUP: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.APIGroup";
pub(super) const API_GROUP_LIST: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.APIGroupList";
pub(super) const API_RESOURCE_LIST: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.APIResourceList";
pub(super) const API_VERSIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.APIVersions";
pub(super) const VERSION_INFO: &str = "io.k8s.apimachinery.pkg.version.Info";
const EITHER: [(&str, [&str; 2]); 2] = [
    ("io.k8s.apimachinery.pkg.api.resource.Quantity", ["string", "number"]),
    ("io.k8s.apimachinery.pkg.util.intstr.IntOrString", ["integer", "string"]),
];
const OF_OBJECTS: &str =
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
const OF_TYPES: &str =
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const CONVENTIONS: &str =
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md";

/// Copies the definition `name` and every one that it refers to, as version 3 has them.
pub(super) fn collect(name: &str, into: &mut Map<String, Value>) {
    if into.contains_key(name) {
        return;
    }
    let Some(schema) = SCHEMAS.get(name) else { return };
    let mut schema = schema.clone();
    descriptions::describe(name, &mut schema);
    if let Some((_, types)) = EITHER.iter().find(|(either, _)| *either == name) {
        schema["oneOf"] = types.iter().map(|one| json!({"type": one})).collect();
        if let Some(schema) = schema.as_object_mut() {
            schema.remove("type");
        }
    }
    into.insert(name.to_owned(), Value::Null);
    let mut referred = Vec::new();
    point_to_components(&mut schema, &mut referred);
    into.insert(name.to_owned(), schema);
    for name in referred {
        collect(&name, into);
    }
}

/// Turns references of version 2 into those of version 3.
fn point_to_components(schema: &mut Value, referred: &mut Vec<String>) {
    match schema {
        Value::Object(map) => {
            let name =
                map.get("$ref").and_then(Value::as_str).and_then(|to| to.strip_prefix("#/definitions/"));
            let Some(name) = name.map(str::to_owned) else {
                map.values_mut().for_each(|value| point_to_components(value, referred));
                return;
            };
            let target = format!("#/components/schemas/{name}");
            referred.push(name);
            map.insert("$ref".to_owned(), json!(target));
            // Beside a reference nothing else may stand, such as a description.
            if map.len() > 1 {
                map.remove("$ref");
                map.insert("allOf".to_owned(), json!([{"$ref": target}]));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|value| point_to_components(value, referred)),
        _ => {}
    }
}

/// The built-in definitions of these names, and every one that they refer to, as version 2 has them.
pub(super) fn v2<'n>(names: impl Iterator<Item = &'n str>) -> Map<String, Value> {
    let mut all = Map::new();
    let mut wanted: Vec<&str> = names.collect();
    while let Some(name) = wanted.pop() {
        let Some(own) = SCHEMAS.get(name).filter(|_| !all.contains_key(name)) else { continue };
        refers(own, &mut wanted);
        let mut schema = own.clone();
        descriptions::describe(name, &mut schema);
        without_defaults(&mut schema);
        all.insert(name.to_owned(), schema);
    }
    all
}

/// The definitions that a schema names.
fn refers<'s>(schema: &'s Value, to: &mut Vec<&'s str>) {
    match schema {
        Value::Object(map) => map.iter().for_each(|(key, value)| match (key.as_str(), value) {
            ("$ref", Value::String(text)) => to.extend(text.strip_prefix("#/definitions/")),
            _ => refers(value, to),
        }),
        Value::Array(items) => items.iter().for_each(|value| refers(value, to)),
        _ => {}
    }
}

fn without_defaults(schema: &mut Value) {
    let Some(schema) = schema.as_object_mut() else { return };
    schema.remove("default");
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get_mut(inner) {
            without_defaults(inner);
        }
    }
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(without_defaults);
    }
}

/// The schema of a custom kind and of its lists; references as in version 2.
pub(super) fn custom(kind: &Kind, version_2: bool) -> [(String, Value); 2] {
    let declared = kind.custom.as_ref().and_then(|custom| custom.pointer("/schema/openAPIV3Schema"));
    let any = |schema: &Value| version_2 && schema["x-kubernetes-preserve-unknown-fields"] == true;
    let mut schema = match declared {
        Some(schema) if !any(schema) => {
            let mut schema = schema.clone();
            forget_samples(&mut schema);
            if version_2 {
                narrow(&mut schema);
            } else {
                unfold(&mut schema);
            }
            add_native(&mut schema);
            schema
        }
        // Clients would take what else is declared for all that there may be.
        _ => json!({"type": "object"}),
    };
    let mut list = list_of(kind);
    let gvk = |name: &str| json!([{"group": kind.group, "version": kind.version, "kind": name}]);
    schema["x-kubernetes-group-version-kind"] = gvk(&kind.kind);
    list["x-kubernetes-group-version-kind"] = gvk(&kind.list_kind());
    let selectable = kind.custom.iter().flat_map(|custom| custom["selectableFields"].as_array());
    let selectable: Vec<Value> = selectable
        .flatten()
        .filter_map(|field| field["jsonPath"].as_str())
        .map(|path| json!({"fieldPath": path.trim_start_matches('.')}))
        .collect();
    if !selectable.is_empty() {
        schema["x-kubernetes-selectable-fields"] = json!(selectable);
        list["x-kubernetes-selectable-fields"] = json!(selectable);
    }
    [(kind.definition.clone(), schema), (list_definition(kind), list)]
}

/// Takes out what structural schemas do not have.
fn forget_samples(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    for key in ["example", "externalDocs", "id", "$schema"] {
        fields.remove(key);
    }
    for (key, value) in fields {
        match key.as_str() {
            "items" | "additionalProperties" | "not" => forget_samples(value),
            "allOf" | "anyOf" | "oneOf" => {
                value.as_array_mut().into_iter().flatten().for_each(forget_samples);
            }
            "properties" => {
                value.as_object_mut().into_iter().flat_map(Map::values_mut).for_each(forget_samples);
            }
            _ => {}
        }
    }
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/definitions/{name}")})
}

fn described(mut schema: Value, description: &str) -> Value {
    schema["description"] = json!(description);
    schema
}

/// What every object has, whatever its schema says.
fn add_native(schema: &mut Value) {
    schema["properties"]["apiVersion"] = json!({"type": "string"});
    schema["properties"]["kind"] = json!({"type": "string"});
    schema["properties"]["metadata"] = reference(OBJECT_META);
    if let Some(properties) = schema["properties"].as_object_mut() {
        descriptions::describe_every_object(properties);
    }
}

fn list_of(kind: &Kind) -> Value {
    let items = json!({"type": "array", "items": reference(&kind.definition)});
    let mut properties = Map::new();
    properties.insert("apiVersion".to_owned(), json!({"type": "string"}));
    properties.insert("kind".to_owned(), json!({"type": "string"}));
    descriptions::describe_every_object(&mut properties);
    let metadata = described(reference(LIST_META), &format!("Standard list metadata. More info: {OF_TYPES}"));
    properties.insert("metadata".to_owned(), metadata);
    let told = format!("List of {}. More info: {CONVENTIONS}", kind.plural);
    properties.insert("items".to_owned(), described(items, &told));
    json!({"description": format!("{} is a list of {}", kind.list_kind(), kind.kind), "type": "object",
        "required": ["items"], "properties": properties})
}

fn is(schema: &Value, extension: &str) -> bool {
    schema[extension] == true
}

/// What extensions mean, said by version 3's own words.
fn unfold(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(inner) {
            unfold(inner);
        }
    }
    if let Some(properties) = map.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(unfold);
    }
    if is(schema, "x-kubernetes-int-or-string") && schema["anyOf"].is_null() {
        let either = json!([{"type": "integer"}, {"type": "string"}]);
        match schema.get_mut("allOf").and_then(Value::as_array_mut) {
            Some(all) => all.insert(0, json!({"anyOf": either})),
            None => schema["anyOf"] = either,
        }
    }
    if is(schema, "x-kubernetes-embedded-resource") {
        embed(schema);
    }
}

fn embed(schema: &mut Value) {
    let version = format!(
        "apiVersion defines the versioned schema of this representation of an object. More info: {CONVENTIONS}#resources"
    );
    let kind = format!(
        "kind is a string value representing the type of this object. In CamelCase. More info: {OF_TYPES}"
    );
    let metadata = format!("Standard object's metadata. More info: {OF_OBJECTS}");
    let text = || json!({"type": "string"});
    schema["properties"]["apiVersion"] = described(text(), &version);
    schema["properties"]["kind"] = described(text(), &kind);
    schema["properties"]["metadata"] = described(reference(OBJECT_META), &metadata);
    let mut required: Vec<Value> = schema["required"].as_array().cloned().unwrap_or_default();
    for name in ["kind", "apiVersion"] {
        if !required.iter().any(|known| known == name) {
            required.push(json!(name));
        }
    }
    schema["required"] = json!(required);
}

/// Leaves out what version 2, or clients who read it, cannot say.
fn narrow(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    for unsaid in ["default", "allOf", "anyOf", "oneOf", "not"] {
        map.remove(unsaid);
    }
    let nullable = map.remove("nullable") == Some(Value::Bool(true));
    let any = map.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    if nullable || any {
        map.remove("items");
        map.remove("properties");
    }
    let kind = map.get("type").and_then(Value::as_str).unwrap_or_default();
    if nullable || (kind == "array" && !map.contains_key("items")) || (any && kind == "object") {
        map.remove("type");
    }
    let properties = map.get("properties").and_then(Value::as_object).into_iter().flatten();
    let nullables: Vec<String> =
        properties.filter(|(_, field)| is(field, "nullable")).map(|(name, _)| name.clone()).collect();
    if let Some(required) = map.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| !nullables.iter().any(|nullable| name == nullable));
        if required.is_empty() {
            map.remove("required");
        }
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(inner) {
            narrow(inner);
        }
    }
    if let Some(properties) = map.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(narrow);
    }
    if !any && is(schema, "x-kubernetes-embedded-resource") {
        embed(schema);
    }
}

/// Turns the references of custom schemas into version 3's, and collects what they refer to.
pub(super) fn to_v3(mut schema: Value, into: &mut Map<String, Value>) -> Value {
    let mut referred = Vec::new();
    point_to_components(&mut schema, &mut referred);
    for name in referred {
        collect(&name, into);
    }
    schema
}
