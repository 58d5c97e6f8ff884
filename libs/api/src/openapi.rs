//! OpenAPI v2 and v3 documents from the schemas and the table of kinds.
//!
//! The schemas of built-in types stand in `data/schemas.json`, as in Kubernetes' own document but without descriptions, which
//! [`descriptions`] adds.

mod descriptions;
pub mod wire;

use crate::kinds::{Kind, builtin};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

static SCHEMAS: LazyLock<Map<String, Value>> = LazyLock::new(|| {
    // The data is part of the program: a test reads it.
    serde_json::from_str(include_str!("../data/schemas.json")).unwrap_or_default()
});

const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
const PATCHES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Those of the built-in kinds.
static BUILTIN: LazyLock<Documents> = LazyLock::new(|| Documents::of(builtin()));

/// A document of version 3 as clients get it: made once, and sent many times.
#[derive(Debug)]
pub struct Document {
    /// JSON.
    pub json: Bytes,
    /// What tells it from others: SHA-512 in upper-case hexadecimal.
    pub hash: String,
}

/// The documents of version 3 of some kinds, by path of the index (`api/v1`, `apis/apps/v1`).
#[derive(Debug, Default)]
pub struct Documents(BTreeMap<String, Document>);

impl Documents {
    /// Makes them.
    #[must_use]
    pub fn of(kinds: &[Arc<Kind>]) -> Self {
        let mut by_root: BTreeMap<String, Vec<&Arc<Kind>>> = BTreeMap::new();
        for kind in kinds {
            by_root.entry(root(kind)).or_default().push(kind);
        }
        let made = by_root.into_iter().map(|(root, kinds)| {
            let json = Bytes::from(document(&kinds).to_string());
            let hash = hex::encode_upper(Sha512::digest(&json));
            (root, Document { json, hash })
        });
        Self(made.collect())
    }
}

fn root(kind: &Kind) -> String {
    if kind.group.is_empty() {
        format!("api/{}", kind.version)
    } else {
        format!("apis/{}", kind.api_version())
    }
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": "v1.33.6+coracle"})
}

/// Copies `name` and every schema that it refers to.
fn collect(name: &str, into: &mut Map<String, Value>) {
    if into.contains_key(name) {
        return;
    }
    let Some(schema) = SCHEMAS.get(name) else { return };
    let mut schema = schema.clone();
    if let Some(many) = schema.get_mut("x-kubernetes-group-version-kind")
        && many.is_string()
    {
        // Options belong to every group; this is one of them.
        *many = json!([{"group": "", "version": "v1", "kind": name.rsplit('.').next()}]);
    }
    descriptions::describe(name, &mut schema);
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
            if let Some(name) =
                map.get("$ref").and_then(Value::as_str).and_then(|to| to.strip_prefix("#/definitions/"))
            {
                let name = name.to_owned();
                // Beside a reference nothing else may stand, such as a description.
                let target = json!({"$ref": format!("#/components/schemas/{name}")});
                referred.push(name);
                map.remove("$ref");
                map.insert("allOf".to_owned(), json!([target]));
                return;
            }
            map.values_mut().for_each(|value| point_to_components(value, referred));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| point_to_components(value, referred)),
        _ => {}
    }
}

fn document(kinds: &[&Arc<Kind>]) -> Value {
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    collect(PATCH, &mut schemas);
    for kind in kinds {
        add_paths(kind, &mut paths);
        match &kind.custom {
            None => {
                collect(&kind.definition, &mut schemas);
                collect(&format!("{}List", kind.definition), &mut schemas);
            }
            Some(custom) => {
                let mut schema = custom
                    .pointer("/schema/openAPIV3Schema")
                    .cloned()
                    .unwrap_or_else(|| json!({"type": "object"}));
                schema["x-kubernetes-group-version-kind"] = json!([gvk(kind)]);
                // Every object has these, whatever its schema says.
                schema["properties"]["apiVersion"] = json!({"type": "string"});
                schema["properties"]["kind"] = json!({"type": "string"});
                schema["properties"]["metadata"] =
                    json!({"allOf": [{"$ref": format!("#/components/schemas/{OBJECT_META}")}]});
                if let Some(properties) = schema["properties"].as_object_mut() {
                    descriptions::describe_every_object(properties);
                }
                collect(OBJECT_META, &mut schemas);
                collect(LIST_META, &mut schemas);
                schemas.insert(kind.definition.clone(), schema);
                schemas.insert(list_definition(kind), custom_list(kind));
            }
        }
    }
    json!({"openapi": "3.0.0", "info": info(), "paths": paths, "components": {"schemas": schemas}})
}

/// The name of the schema of a kind's lists.
fn list_definition(kind: &Kind) -> String {
    match &kind.custom {
        None => format!("{}List", kind.definition),
        Some(_) => kind.definition.trim_end_matches(&kind.kind).to_owned() + &kind.list_kind(),
    }
}

fn custom_list(kind: &Kind) -> Value {
    let of = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
    let text = json!({"type": "string"});
    let items = json!({"type": "array", "items": {"allOf": [of(&kind.definition)]}});
    let list = json!({"group": kind.group, "version": kind.version, "kind": kind.list_kind()});
    let mut schema = json!({"type": "object", "required": ["items"], "x-kubernetes-group-version-kind": [list],
        "properties": {"apiVersion": text, "kind": text, "metadata": {"allOf": [of(LIST_META)]}, "items": items}});
    descriptions::describe_list(&kind.kind, &mut schema);
    schema
}

/// What stands in braces in a path.
fn path_parameters(path: &str) -> Value {
    let names = ["namespace", "name"].into_iter().filter(|name| path.contains(&format!("{{{name}}}")));
    let of = |name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}});
    names.map(of).collect()
}

fn gvk(kind: &Kind) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

fn parameters(verb: &str) -> Value {
    let names: &[&str] = match verb {
        "post" | "put" => &["dryRun", "fieldManager", "fieldValidation"],
        "patch" => &["dryRun", "fieldManager", "fieldValidation", "force"],
        "delete" => &["dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"],
        "list" => &[
            "allowWatchBookmarks",
            "continue",
            "fieldSelector",
            "labelSelector",
            "limit",
            "resourceVersion",
            "resourceVersionMatch",
            "sendInitialEvents",
            "timeoutSeconds",
            "watch",
        ],
        _ => &[],
    };
    let of =
        |name: &&str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
    names.iter().map(of).collect()
}

fn operation(kind: &Kind, method: &str, action: &str) -> Value {
    let of = |name: &str| json!({"schema": {"$ref": format!("#/components/schemas/{name}")}});
    let content = |name: &str| json!({"application/json": of(name)});
    let answer = if action == "list" { list_definition(kind) } else { kind.definition.clone() };
    let told = |what: &str| json!({"description": what, "content": content(&answer)});
    let mut operation = json!({"x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk(kind),
        "parameters": parameters(if action == "list" { action } else { method }),
        "responses": {"200": told("OK"), "401": {"description": "Unauthorized"}}});
    if matches!(method, "post" | "put" | "patch") {
        operation["responses"]["201"] = told("Created");
    }
    if matches!(method, "post" | "put") {
        operation["requestBody"] = json!({"content": content(&kind.definition), "required": true});
    }
    if method == "patch" {
        let fits = |media: &&&str| kind.custom.is_none() || !media.contains("strategic");
        let content: Map<String, Value> =
            PATCHES.iter().filter(fits).map(|media| ((*media).to_owned(), of(PATCH))).collect();
        operation["requestBody"] = json!({"content": content, "required": true});
    }
    operation
}

fn add_paths(kind: &Kind, paths: &mut Map<String, Value>) {
    let base = format!("/{}", root(kind));
    let inside = if kind.namespaced { "/namespaces/{namespace}" } else { "" };
    let many = format!("{base}{inside}/{}", kind.plural);
    let mut add = |path: String, rows: &[(&str, &str, &str)]| {
        let mut item = Map::new();
        for (verb, method, action) in rows.iter().filter(|(verb, _, _)| kind.offers(verb)) {
            let _ = verb;
            item.insert((*method).to_owned(), operation(kind, method, action));
        }
        if !item.is_empty() {
            let given = path_parameters(&path);
            if given.as_array().is_some_and(|given| !given.is_empty()) {
                item.insert("parameters".to_owned(), given);
            }
            paths.insert(path, Value::Object(item));
        }
    };
    add(
        many.clone(),
        &[
            ("list", "get", "list"),
            ("create", "post", "post"),
            ("deletecollection", "delete", "deletecollection"),
        ],
    );
    add(
        format!("{many}/{{name}}"),
        &[
            ("get", "get", "get"),
            ("update", "put", "put"),
            ("patch", "patch", "patch"),
            ("delete", "delete", "delete"),
        ],
    );
    if kind.namespaced {
        add(format!("{base}/{}", kind.plural), &[("list", "get", "list")]);
    }
}

/// The `/openapi/v3` index: paths (`api/v1`, `apis/apps/v1`, …) to `serverRelativeURL`s with a hash.
#[must_use]
pub fn v3_index(custom: &Documents) -> Value {
    let mut paths = Map::new();
    for (root, document) in BUILTIN.0.iter().chain(&custom.0) {
        let url = format!("/openapi/v3/{root}?hash={}", document.hash);
        paths.insert(root.clone(), json!({"serverRelativeURL": url}));
    }
    json!({"paths": paths})
}

/// The document for one path of the index, with `x-kubernetes-*` extensions and paths; `None` if unknown.
#[must_use]
pub fn v3_document<'a>(path: &str, custom: &'a Documents) -> Option<&'a Document> {
    BUILTIN.0.get(path).or_else(|| custom.0.get(path))
}

/// The schema of a definition, with references to others as in the `/openapi/v2` document.
pub(crate) fn definition(name: &str) -> Option<&'static Value> {
    SCHEMAS.get(name)
}

/// The `/openapi/v2` document.
#[must_use]
pub fn v2_document(custom: &[Arc<Kind>]) -> Value {
    let mut definitions = SCHEMAS.clone();
    for (name, schema) in &mut definitions {
        descriptions::describe(name, schema);
    }
    for kind in custom {
        let schema = kind.custom.as_ref().and_then(|custom| custom.pointer("/schema/openAPIV3Schema"));
        definitions.insert(kind.definition.clone(), schema.cloned().unwrap_or_default());
    }
    json!({"swagger": "2.0", "info": info(), "paths": {}, "definitions": definitions})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(root: &str, custom: &Documents) -> Value {
        let document = v3_document(root, custom).expect("a document");
        serde_json::from_slice(&document.json).expect("JSON")
    }

    #[test]
    fn custom_kinds_are_described_with_the_fields_of_every_object() {
        let mut kind = crate::shape::tests::kind("a.io/v1", "Widget", "io.a.v1.Widget");
        let version = json!({"schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object"}}}}});
        kind.custom = Some(Arc::new(crate::custom::Version::new(version)));
        let custom = Documents::of(&[Arc::new(kind)]);
        let document = parsed("apis/a.io/v1", &custom);
        let schemas = &document["components"]["schemas"];
        let fields = schemas["io.a.v1.Widget"]["properties"].as_object().expect("fields");
        assert_eq!(fields.keys().collect::<Vec<_>>(), ["apiVersion", "kind", "metadata", "spec"]);
        assert!(schemas["io.a.v1.WidgetList"]["properties"]["items"].is_object());
        assert!(schemas[OBJECT_META].is_object());
    }

    #[test]
    fn every_reference_of_a_document_has_its_schema() {
        let none = Documents::default();
        let index = v3_index(&none);
        for root in index["paths"].as_object().expect("paths").keys() {
            let document = parsed(root, &none);
            let schemas = document["components"]["schemas"].as_object().expect("schemas");
            for part in document.to_string().split("#/components/schemas/").skip(1) {
                let name = part.split('"').next().expect("name");
                assert!(schemas.contains_key(name), "{root}: {name}");
            }
        }
        let apps = parsed("apis/apps/v1", &none);
        let metadata =
            &apps["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"]["properties"]["metadata"];
        assert!(metadata["allOf"].is_array() && metadata["description"].is_string(), "{metadata}");
        let given = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["parameters"];
        assert_eq!((&given[0]["name"], &given[1]["name"]), (&json!("namespace"), &json!("name")));
        let list = &apps["paths"]["/apis/apps/v1/deployments"]["get"]["responses"]["200"]["content"];
        assert!(list.to_string().contains("io.k8s.api.apps.v1.DeploymentList"), "{list}");
        let patch = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
        assert!(patch["parameters"].to_string().contains("fieldValidation"));
    }
}
