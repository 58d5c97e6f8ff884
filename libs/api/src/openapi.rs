//! OpenAPI v2 and v3 documents from the schemas and the table of kinds.
//!
//! A document of version 3 is of one group version, or of one path that is no resource's; that of version 2 is of everything.
//! Each is made once, and sent many times.

mod definitions;
mod descriptions;
mod operation;
mod parameters;
mod paths;
mod plain;
mod wire;

use crate::kinds::{self, Kind};
use bytes::Bytes;
use definitions::SCHEMAS;
use operation::{Operation, Path};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock, OnceLock};

/// Groups that the part of a server that has custom kinds knows nothing of.
const ELSEWHERE: [&str; 4] =
    ["admission.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io", "imagepolicy.k8s.io"];
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const WATCH_EVENT: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent";

/// Those of every built-in kind.
static BUILTIN: LazyLock<Documents> = LazyLock::new(|| Documents::builtin(kinds::builtin()));

/// A document as clients get it.
#[derive(Debug)]
pub struct Document {
    /// The text, or protobuf.
    pub bytes: Bytes,
    /// What tells it from others: SHA-512 in upper-case hexadecimal.
    pub hash: String,
}

impl Document {
    fn of(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let hash = hex::encode_upper(Sha512::digest(&bytes));
        Self { bytes, hash }
    }
}

/// The document of version 2 in both of its forms.
#[derive(Debug)]
pub struct Version2 {
    /// JSON.
    pub json: Document,
    /// gnostic's protobuf.
    pub protobuf: Document,
}

/// Documents of some kinds.
#[derive(Debug, Default)]
pub struct Documents {
    /// Version 3, by path of the index (`api/v1`, `apis/apps/v1`), with the kinds of definitions that each tells of.
    v3: BTreeMap<String, (Vec<Arc<Kind>>, Arc<Document>)>,
    /// Version 2, of these kinds and all built-in ones.
    v2: OnceLock<Version2>,
}

impl Documents {
    /// Those of kinds that come from definitions. What has not changed since `earlier` is not made again.
    #[must_use]
    pub fn of(kinds: &[Arc<Kind>], earlier: Option<&Self>) -> Self {
        let made = by_root(kinds).into_iter().map(|(root, kinds)| {
            let known = earlier.and_then(|earlier| earlier.v3.get(&root)).filter(|(of, _)| *of == kinds);
            let document = known.map_or_else(
                || {
                    let paths: Vec<Path> = kinds.iter().flat_map(|kind| paths::of_kind(kind)).collect();
                    let info = json!({"title": "Kubernetes CRD Swagger", "version": "v0.1.0"});
                    let mut document = document_v3(&info, &paths, &kinds);
                    leave_other_schemes_out(&mut document);
                    Arc::new(Document::of(document.to_string()))
                },
                |(_, document)| document.clone(),
            );
            (root, (kinds, document))
        });
        Self { v3: made.collect(), v2: OnceLock::new() }
    }

    /// Those of built-in kinds, and of what is at paths of no kind.
    #[must_use]
    pub fn builtin(kinds: &[Arc<Kind>]) -> Self {
        let mut by_root = by_root(kinds);
        let made = builtin_paths(kinds).into_iter().map(|(root, paths)| {
            let mut document = document_v3(&info(), &paths, &[]);
            document["components"]["securitySchemes"] = security();
            let kinds = by_root.remove(&root).unwrap_or_default();
            (root, (kinds, Arc::new(Document::of(document.to_string()))))
        });
        Self { v3: made.collect(), v2: OnceLock::new() }
    }

    fn kinds(&self) -> Vec<Arc<Kind>> {
        self.v3.values().flat_map(|(kinds, _)| kinds).cloned().collect()
    }

    /// The document of version 2 of these kinds and of the built-in ones.
    #[must_use]
    pub fn v2(&self, builtin: &Self) -> &Version2 {
        self.v2.get_or_init(|| {
            let document = document_v2(&builtin.kinds(), &self.kinds());
            Version2 {
                json: Document::of(document.to_string()),
                protobuf: Document::of(wire::document(&document)),
            }
        })
    }
}

/// Who serves custom kinds does not know of the groups that other servers' types are of.
fn leave_other_schemes_out(document: &mut Value) {
    const OTHERS: [&str; 4] =
        ["admission.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io", "imagepolicy.k8s.io"];
    let place = format!("/components/schemas/{DELETE_OPTIONS}/x-kubernetes-group-version-kind");
    if let Some(kinds) = document.pointer_mut(&place).and_then(Value::as_array_mut) {
        kinds.retain(|kind| !kind["group"].as_str().is_some_and(|group| OTHERS.contains(&group)));
    }
}

fn root(kind: &Kind) -> String {
    if kind.group.is_empty() {
        format!("api/{}", kind.version)
    } else {
        format!("apis/{}", kind.api_version())
    }
}

fn by_root(kinds: &[Arc<Kind>]) -> BTreeMap<String, Vec<Arc<Kind>>> {
    let mut by_root: BTreeMap<String, Vec<Arc<Kind>>> = BTreeMap::new();
    for kind in kinds {
        by_root.entry(root(kind)).or_default().push(kind.clone());
    }
    by_root
}

/// The name of the schema of a kind's lists.
fn list_definition(kind: &Kind) -> String {
    match &kind.custom {
        None => format!("{}List", kind.definition),
        Some(_) => kind.definition.trim_end_matches(&kind.kind).to_owned() + &kind.list_kind(),
    }
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": "v1.33.6+coracle"})
}

fn security() -> Value {
    json!({"BearerToken": {"type": "apiKey", "description": "Bearer Token authentication",
        "name": "authorization", "in": "header"}})
}

/// Every path that this server always serves, by the document of version 3 that tells of it.
fn builtin_paths(kinds: &[Arc<Kind>]) -> BTreeMap<String, Vec<Path>> {
    let mut documents = BTreeMap::new();
    for (root, kinds) in by_root(kinds) {
        let mut paths: Vec<Path> = kinds.iter().flat_map(|kind| paths::of_kind(kind)).collect();
        paths.extend(kinds.first().map(|kind| plain::resources(&root, &kind.group, &kind.version)));
        documents.insert(root, paths);
    }
    let groups: BTreeSet<&str> = kinds.iter().map(|kind| kind.group.as_str()).collect();
    for (name, path) in plain::documents(groups.into_iter()) {
        documents.insert(name, vec![path]);
    }
    documents
}

/// One document of version 3; `custom` are the kinds of definitions that it tells of.
fn document_v3(info: &Value, paths: &[Path], custom: &[Arc<Kind>]) -> Value {
    let mut schemas = Map::new();
    for kind in custom {
        for (name, schema) in definitions::custom(kind, false) {
            let schema = definitions::to_v3(schema, &mut schemas);
            schemas.insert(name, schema);
        }
    }
    for operation in paths.iter().flat_map(|path| &path.operations) {
        operation.definitions().for_each(|name| definitions::collect(name, &mut schemas));
    }
    let groups = schemas.get_mut(DELETE_OPTIONS).filter(|_| !custom.is_empty());
    let groups = groups.and_then(|options| options["x-kubernetes-group-version-kind"].as_array_mut());
    if let Some(groups) = groups {
        groups.retain(|of| !ELSEWHERE.iter().any(|group| of["group"] == *group));
    }
    let told: Map<String, Value> = paths.iter().map(|path| (path.path.clone(), path.v3())).collect();
    let components = if schemas.is_empty() { json!({}) } else { json!({"schemas": schemas}) };
    json!({"openapi": "3.0.0", "info": info, "paths": told, "components": components})
}

/// The one document of version 2, with the kinds of definitions.
fn document_v2(builtin: &[Arc<Kind>], custom: &[Arc<Kind>]) -> Value {
    let paths: Vec<Path> = builtin_paths(builtin)
        .into_values()
        .flatten()
        .chain(custom.iter().flat_map(|kind| paths::of_kind(kind)))
        .collect();
    let operations = paths.iter().flat_map(|path| &path.operations);
    let mut definitions = definitions::v2(operations.flat_map(Operation::definitions));
    definitions.extend(custom.iter().flat_map(|kind| definitions::custom(kind, true)));
    let paths: Map<String, Value> = paths.into_iter().map(|path| (path.path.clone(), path.v2())).collect();
    let parameters: Map<String, Value> = parameters::shared().chain(operation::shared_bodies()).collect();
    json!({"swagger": "2.0", "info": info(), "paths": paths, "definitions": definitions,
        "parameters": parameters, "securityDefinitions": security(), "security": [{"BearerToken": []}]})
}

/// The documents of every built-in kind.
#[must_use]
pub fn builtin() -> &'static Documents {
    &BUILTIN
}

/// The `/openapi/v3` index: paths (`api/v1`, `apis/apps/v1`, …) to `serverRelativeURL`s with a hash.
#[must_use]
pub fn v3_index(builtin: &Documents, custom: &Documents) -> Value {
    let mut paths = Map::new();
    for (root, (_, document)) in builtin.v3.iter().chain(&custom.v3) {
        let url = format!("/openapi/v3/{root}?hash={}", document.hash);
        paths.insert(root.clone(), json!({"serverRelativeURL": url}));
    }
    json!({"paths": paths})
}

/// The document for one path of the index, with `x-kubernetes-*` extensions and paths; `None` if unknown.
#[must_use]
pub fn v3_document<'a>(path: &str, builtin: &'a Documents, custom: &'a Documents) -> Option<&'a Document> {
    builtin.v3.get(path).or_else(|| custom.v3.get(path)).map(|(_, document)| document.as_ref())
}

/// What a field such as `api.core.v1.PodSpec.nodeName` is for.
pub(crate) fn description(field: &str) -> Option<&'static str> {
    let (definition, field) = field.rsplit_once('.')?;
    descriptions::of_field(&format!("io.k8s.{definition}"), field)
}

pub(crate) use definitions::OBJECT_META;

/// The schema of a definition, with references to others as in the `/openapi/v2` document.
pub(crate) fn definition(name: &str) -> Option<&'static Value> {
    SCHEMAS.get(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(root: &str, custom: &Documents) -> Value {
        let document = v3_document(root, builtin(), custom).expect("a document");
        serde_json::from_slice(&document.bytes).expect("JSON")
    }

    #[test]
    fn custom_kinds_are_described_with_the_fields_of_every_object() {
        let mut kind = crate::shape::tests::kind("a.io/v1", "Widget", "io.a.v1.Widget");
        let version = json!({"schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "example": {"a": 1}, "externalDocs": {"url": "https://a.b"}}}}}});
        kind.custom = Some(Arc::new(crate::custom::Version::new(version)));
        let custom = Documents::of(&[Arc::new(kind)], None);
        let document = parsed("apis/a.io/v1", &custom);
        let schemas = &document["components"]["schemas"];
        let fields = schemas["io.a.v1.Widget"]["properties"].as_object().expect("fields");
        assert_eq!(fields.keys().collect::<Vec<_>>(), ["apiVersion", "kind", "metadata", "spec"]);
        assert_eq!(
            fields["spec"],
            serde_json::json!({"type": "object"}),
            "samples are none of a structural schema's"
        );
        assert!(schemas["io.a.v1.WidgetList"]["properties"]["items"].is_object());
        assert!(schemas[definitions::OBJECT_META].is_object());
    }

    #[test]
    fn every_reference_of_a_document_has_its_schema() {
        let none = Documents::default();
        let index = v3_index(builtin(), &none);
        for root in index["paths"].as_object().expect("paths").keys() {
            let document = parsed(root, &none);
            let schemas = &document["components"]["schemas"];
            for part in document.to_string().split("#/components/schemas/").skip(1) {
                let name = part.split('"').next().expect("name");
                assert!(schemas[name].is_object(), "{root}: {name}");
            }
        }
        let apps = parsed("apis/apps/v1", &none);
        let metadata =
            &apps["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"]["properties"]["metadata"];
        assert!(metadata["allOf"].is_array() && metadata["description"].is_string(), "{metadata}");
        let given = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["parameters"];
        let given: Vec<&Value> = given.as_array().expect("list").iter().map(|one| &one["name"]).collect();
        assert_eq!(given, ["name", "namespace", "pretty"]);
        let list = &apps["paths"]["/apis/apps/v1/deployments"]["get"]["responses"]["200"]["content"];
        assert!(list.to_string().contains("io.k8s.api.apps.v1.DeploymentList"), "{list}");
        for (path, method, id) in [
            ("deployments/{name}/scale", "patch", "patchAppsV1NamespacedDeploymentScale"),
            ("deployments", "delete", "deleteAppsV1CollectionNamespacedDeployment"),
            ("deployments/{name}", "delete", "deleteAppsV1NamespacedDeployment"),
        ] {
            let operation = &apps["paths"][format!("/apis/apps/v1/namespaces/{{namespace}}/{path}")][method];
            assert_eq!(operation["operationId"], id);
        }
        let watch = &apps["paths"]["/apis/apps/v1/watch/deployments"]["get"];
        assert_eq!(watch["operationId"], "watchAppsV1DeploymentListForAllNamespaces");
        let policy =
            &apps["components"]["schemas"]["io.k8s.api.core.v1.Container"]["properties"]["imagePullPolicy"];
        assert!(
            policy["description"].as_str().is_some_and(|told| told.contains("\n - `\"Never\"` means that")),
            "{policy}"
        );
        assert_eq!(
            parsed("apis/apps", &none)["paths"]["/apis/apps/"]["get"]["operationId"],
            "getAppsAPIGroup"
        );
        let patch = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
        assert!(patch["parameters"].to_string().contains("fieldValidation"));
    }

    #[test]
    fn what_is_not_served_has_no_paths_and_no_types_that_nothing_else_has() {
        let of = |kinds: &[Arc<Kind>]| document_v2(kinds, &[]);
        let all = of(kinds::builtin());
        assert_eq!(all["definitions"].as_object().expect("map").len(), SCHEMAS.len());
        let kept: Vec<Arc<Kind>> =
            kinds::builtin().iter().filter(|kind| kind.kind != "Deployment").cloned().collect();
        let less = of(&kept);
        let deployment = "io.k8s.api.apps.v1.Deployment";
        let path = "/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale";
        assert!(all["definitions"][deployment].is_object() && all["paths"][path].is_object());
        assert!(less["definitions"][deployment].is_null() && less["paths"][path].is_null());
        assert!(less["definitions"]["io.k8s.api.autoscaling.v1.Scale"].is_object());
    }

    #[test]
    fn documents_of_custom_kinds_name_no_groups_of_other_servers_types() {
        let kinds = |groups: &[&str]| -> Value {
            let kinds: Vec<Value> = groups.iter().map(|group| json!({"group": group})).collect();
            json!({"components": {"schemas": {DELETE_OPTIONS: {"x-kubernetes-group-version-kind": kinds}}}})
        };
        let mut document = kinds(&["", "admission.k8s.io", "apiextensions.k8s.io", "apps"]);
        leave_other_schemes_out(&mut document);
        assert_eq!(document, kinds(&["", "apps"]));
        leave_other_schemes_out(&mut json!({}));
    }

    #[test]
    fn version_2_says_of_custom_kinds_what_its_readers_understand() {
        let mut kind = crate::shape::tests::kind("a.io/v1", "Widget", "io.a.v1.Widget");
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "required": ["n", "m"],
            "properties": {"n": {"type": "string", "nullable": true}, "m": {"type": "integer", "default": 1},
                "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {}}},
                "either": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}}}}});
        kind.custom = Some(Arc::new(crate::custom::Version::new(
            json!({"schema": {"openAPIV3Schema": schema}, "selectableFields": [{"jsonPath": ".spec.n"}]}),
        )));
        let kinds = [Arc::new(kind)];
        let custom = Documents::of(&kinds, None);
        let document: Value = serde_json::from_slice(&custom.v2(builtin()).json.bytes).expect("JSON");
        let told = &document["definitions"]["io.a.v1.Widget"];
        assert_eq!(
            told["properties"]["spec"],
            json!({"type": "object", "required": ["m"], "properties": {"n": {}, "m": {"type": "integer"},
                "any": {"x-kubernetes-preserve-unknown-fields": true}, "either": {"x-kubernetes-int-or-string": true}}})
        );
        assert_eq!(told["x-kubernetes-selectable-fields"], json!([{"fieldPath": "spec.n"}]));
        let pods = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"];
        assert_eq!(pods["delete"]["operationId"], "deleteCoreV1NamespacedPod");
        assert_eq!(
            document["definitions"]["io.k8s.api.core.v1.Container"]["properties"]["name"]["default"],
            Value::Null
        );
        assert!(custom.v2(builtin()).protobuf.bytes.len() > 1_000_000);
        let again = Documents::of(&kinds, Some(&custom));
        assert!(Arc::ptr_eq(&again.v3["apis/a.io/v1"].1, &custom.v3["apis/a.io/v1"].1));
    }
}
