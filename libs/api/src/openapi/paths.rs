//! What can be done with a kind by HTTP: a path for each resource and subresource, an operation for each method.

use super::operation::{Body, Content, Operation, Path};
use super::parameters::{self, Parameter};
use super::{DELETE_OPTIONS, PATCH, STATUS, WATCH_EVENT, list_definition, root};
use crate::kinds::{self, Kind, Subresource};
use serde_json::{Value, json};

pub(super) const OBJECTS: &[&str] =
    &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const LISTS: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];
const LOGS: &[&str] =
    &["text/plain", "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const CUSTOM: &[&str] = &["application/json", "application/yaml"];
const ANY: &[&str] = &["*/*"];
const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];
const CUSTOM_PATCHES: &[&str] =
    &["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];
/// What has no place in a list of what to delete.
const WATCHES_ONLY: [&str; 2] = ["allowWatchBookmarks", "watch"];
/// Kinds whose objects are answered when they are deleted.
const ANSWERED_WHEN_DELETED: [&str; 11] = [
    "CSIDriver",
    "CSINode",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Pod",
    "PodTemplate",
    "ResourceQuota",
    "Service",
    "ServiceAccount",
    "StorageClass",
    "VolumeAttachment",
];
const DEPRECATED: &str = "deprecated: use the 'watch' parameter with a list operation instead";

/// A group or version within an operation's name: each run of letters and digits begins with a capital letter.
pub(super) fn title(text: &str, first: bool) -> String {
    let (mut out, mut capital) = (String::new(), first);
    for (at, c) in text.char_indices() {
        if !(c.is_alphabetic() || c == '_' || (at > 0 && c.is_numeric())) {
            capital = true;
        } else if std::mem::take(&mut capital) {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
    }
    out
}

/// A group's name as operations have it: `core`, `rbac.authorization`.
pub(super) fn group_name(group: &str) -> &str {
    if group.is_empty() { "core" } else { group.strip_suffix(".k8s.io").unwrap_or(group) }
}

/// `a Pod`, `an Event`, `Endpoints`.
fn with_article(kind: &str) -> String {
    if kind.ends_with('s') && !kind.ends_with("ss") {
        return kind.to_owned();
    }
    let vowel = kind.starts_with(['A', 'E', 'I', 'O', 'U', 'a', 'e', 'i', 'o', 'u']);
    format!("{} {kind}", if vowel { "an" } else { "a" })
}

/// What the operations of one kind share.
struct Of<'a> {
    kind: &'a Kind,
    /// `AppsV1`.
    version: String,
    /// `Namespaced` or nothing.
    scope: &'static str,
}

/// All paths of a kind.
pub(super) fn of_kind(kind: &Kind) -> Vec<Path> {
    let version = title(group_name(&kind.group), true) + &title(&kind.version, true);
    let of = Of { kind, version, scope: if kind.namespaced { "Namespaced" } else { "" } };
    let base = format!("/{}", root(kind));
    let inside = if kind.namespaced { "/namespaces/{namespace}" } else { "" };
    let many = format!("{inside}/{}", kind.plural);
    let mut paths = vec![
        Path { path: format!("{base}{many}"), operations: of.collection() },
        Path { path: format!("{base}{many}/{{name}}"), operations: of.object() },
    ];
    if kind.namespaced {
        paths.push(Path { path: format!("{base}/{}", kind.plural), operations: of.everywhere() });
    }
    if kind.custom.is_none() && kind.offers("watch") {
        let mut watch = |path: String, operation| {
            paths.push(Path { path: format!("{base}/watch{path}"), operations: vec![operation] });
        };
        watch(many.clone(), of.watches(true, ""));
        watch(format!("{many}/{{name}}"), of.watches(false, ""));
        if kind.namespaced {
            watch(format!("/{}", kind.plural), of.watches(true, "ForAllNamespaces"));
        }
    }
    for sub in &kind.subresources {
        let path = format!("{base}{many}/{{name}}/{}", sub.name);
        if sub.name == "proxy" {
            paths.push(Path { path: format!("{path}/{{path}}"), operations: of.connects(sub, true) });
        }
        paths.push(Path { path, operations: of.subresource(sub) });
    }
    paths.retain(|path| !path.operations.is_empty());
    paths
}

impl Of<'_> {
    fn gvk(&self) -> Value {
        json!({"group": self.kind.group, "version": self.kind.version, "kind": self.kind.kind})
    }

    fn is_custom(&self) -> bool {
        self.kind.custom.is_some()
    }

    /// What most operations have in common.
    fn operation(&self, method: &'static str, action: &'static str, id: String) -> Operation {
        let tag = title(group_name(&self.kind.group), false) + "_" + &title(&self.kind.version, false);
        Operation {
            method,
            id,
            tag,
            description: String::new(),
            resource: Some((action, self.gvk())),
            parameters: parameters::some("Path", &["pretty"]),
            consumes: if self.is_custom() { CUSTOM } else { ANY },
            produces: if self.is_custom() { CUSTOM } else { OBJECTS },
            body: None,
            answer: Content::Object(self.kind.definition.clone()),
            codes: &[200],
        }
    }

    fn named(&self, verb: &str, before: &str, after: &str) -> String {
        format!("{verb}{}{before}{}{}{after}", self.version, self.scope, self.kind.kind)
    }

    fn in_namespace(&self, mut operation: Operation) -> Operation {
        if self.kind.namespaced {
            operation.parameters.extend(parameters::some("Path", &["namespace"]));
        }
        operation
    }

    fn list(&self, id: String) -> Operation {
        let mut list = self.operation("get", "list", id);
        let watched = if !self.is_custom() && self.kind.offers("watch") { "list or watch" } else { "list" };
        list.description = format!("{watched} objects of kind {}", self.kind.kind);
        list.parameters.extend(parameters::of("ListOptions"));
        list.produces = if self.is_custom() { CUSTOM } else { LISTS };
        list.answer = Content::Object(list_definition(self.kind));
        list
    }

    /// The objects of all namespaces.
    fn everywhere(&self) -> Vec<Operation> {
        let id = format!("list{}{}ForAllNamespaces", self.version, self.kind.kind);
        if self.kind.offers("list") { vec![self.list(id)] } else { Vec::new() }
    }

    fn collection(&self) -> Vec<Operation> {
        let mut all = Vec::new();
        if self.kind.offers("list") {
            all.push(self.in_namespace(self.list(self.named("list", "", ""))));
        }
        if self.kind.offers("create") {
            let create = self.writes("post", "post", self.named("create", "", ""));
            all.push(Operation {
                description: format!("create {}", with_article(&self.kind.kind)),
                ..self.in_namespace(create)
            });
        }
        if self.kind.offers("deletecollection") {
            let id = self.named("delete", "Collection", "");
            let mut delete = self.deletes("deletecollection", id);
            delete.description = format!("delete collection of {}", self.kind.kind);
            let lists = parameters::of("ListOptions").into_iter();
            if self.is_custom() {
                delete.body = None;
                delete.parameters = parameters::some("Path", &["pretty"]);
                delete.parameters.extend(lists);
            } else {
                delete
                    .parameters
                    .extend(lists.filter(|parameter| !WATCHES_ONLY.contains(&parameter.name.as_str())));
            }
            all.push(self.in_namespace(delete));
        }
        all
    }

    fn deletes(&self, action: &'static str, id: String) -> Operation {
        let mut delete = self.operation("delete", action, id);
        delete.parameters.extend(parameters::of("DeleteOptions"));
        delete.body = Some(Body { definition: DELETE_OPTIONS.to_owned(), required: false });
        delete.answer = Content::Object(STATUS.to_owned());
        delete
    }

    /// `post` and `put`.
    fn writes(&self, method: &'static str, action: &'static str, id: String) -> Operation {
        let mut writes = self.operation(method, action, id);
        writes.parameters.extend(parameters::of("CreateOptions"));
        writes.body = Some(Body { definition: self.kind.definition.clone(), required: true });
        writes.codes = if method == "post" { &[200, 201, 202] } else { &[200, 201] };
        writes
    }

    fn patches(&self, id: String) -> Operation {
        let mut patch = self.writes("patch", "patch", id);
        let own = parameters::of("PatchOptions");
        patch.parameters.retain(|parameter| own.iter().all(|own| own.name != parameter.name));
        patch.parameters.extend(own);
        patch.consumes = PATCHES;
        if self.is_custom() {
            patch.codes = &[200];
            patch.consumes = CUSTOM_PATCHES;
        }
        patch.body = Some(Body { definition: PATCH.to_owned(), required: true });
        patch
    }

    /// What is done with one object, or with a subresource of it.
    fn on_object(&self, offers: impl Fn(&str) -> bool, sub: &str) -> Vec<Operation> {
        let (after, of) = if sub.is_empty() {
            (String::new(), String::new())
        } else {
            (title(sub, true), format!("{sub} of "))
        };
        let kind = &self.kind.kind;
        let mut all = Vec::new();
        if offers("get") {
            let mut get = self.operation("get", "get", self.named("read", "", &after));
            get.description = format!("read {of}the specified {kind}");
            if self.is_custom() {
                get.parameters.extend(parameters::some("ListOptions", &["resourceVersion"]));
            }
            all.push(get);
        }
        if offers("update") {
            let mut put = self.writes("put", "put", self.named("replace", "", &after));
            put.description = format!("replace {of}the specified {kind}");
            all.push(put);
        }
        if offers("patch") {
            let mut patch = self.patches(self.named("patch", "", &after));
            patch.description = format!("partially update {of}the specified {kind}");
            all.push(patch);
        }
        all
    }

    fn object(&self) -> Vec<Operation> {
        let mut all = self.on_object(|verb| self.kind.offers(verb), "");
        if self.kind.offers("delete") {
            let mut delete = self.deletes("delete", self.named("delete", "", ""));
            delete.description = format!("delete {}", with_article(&self.kind.kind));
            delete.codes = &[200, 202];
            if !self.is_custom() && ANSWERED_WHEN_DELETED.contains(&self.kind.kind.as_str()) {
                delete.answer = Content::Object(self.kind.definition.clone());
            }
            all.push(delete);
        }
        self.of_one(all, &self.kind.kind)
    }

    /// Adds what the path of one object says: `told` is the kind that the name is said to be of.
    fn of_one(&self, all: Vec<Operation>, told: &str) -> Vec<Operation> {
        let named = all.into_iter().map(|mut operation| {
            operation.parameters.push(parameters::name_of(told));
            self.in_namespace(operation)
        });
        named.collect()
    }

    fn watches(&self, lists: bool, after: &str) -> Operation {
        let (action, list) = if lists { ("watchlist", "List") } else { ("watch", "") };
        let kind = &self.kind.kind;
        let id = match after {
            "" => self.named("watch", "", list),
            after => format!("watch{}{kind}{list}{after}", self.version),
        };
        let mut watch = self.operation("get", action, id);
        watch.description = if lists {
            format!("watch individual changes to a list of {kind}. {DEPRECATED}.")
        } else {
            format!(
                "watch changes to an object of kind {kind}. {DEPRECATED}, filtered to a single item with the 'fieldSelector' parameter."
            )
        };
        watch.parameters.extend(parameters::of("ListOptions"));
        watch.produces = LISTS;
        watch.answer = Content::Object(WATCH_EVENT.to_owned());
        if !lists {
            watch.parameters.push(parameters::name_of(kind));
        }
        if after.is_empty() { self.in_namespace(watch) } else { watch }
    }

    fn subresource(&self, sub: &Subresource) -> Vec<Operation> {
        if sub.kind.ends_with("Options") {
            return self.connects(sub, false);
        }
        let offers = |verb: &str| sub.verbs.iter().any(|offered| offered == verb);
        let mut all = self.on_object(offers, &sub.name);
        let definition = kinds::definition(&sub.group, &sub.version, &sub.kind);
        let is_own = sub.kind == self.kind.kind;
        let told = if self.is_custom() { &self.kind.kind } else { &sub.kind };
        if offers("create") {
            let id = self.named("create", "", &title(&sub.name, true));
            let mut create = self.writes("post", "post", id);
            create.description = format!("create {} of {}", sub.name, with_article(&self.kind.kind));
            all.push(create);
        }
        for operation in &mut all {
            if !is_own {
                operation.answer = Content::Object(definition.clone());
                if let Some(body) = operation.body.as_mut().filter(|body| body.definition != PATCH) {
                    body.definition.clone_from(&definition);
                }
            }
            if let Some((_, kind)) = operation.resource.as_mut().filter(|_| !self.is_custom()) {
                *kind = json!({"group": sub.group, "version": sub.version, "kind": sub.kind});
            }
            if sub.name == "log" {
                operation.parameters.extend(parameters::of("PodLogOptions"));
                operation.answer = Content::Text;
                operation.produces = LOGS;
            }
        }
        self.of_one(all, told)
    }

    /// What goes on to kubelets, pods and services.
    fn connects(&self, sub: &Subresource, with_path: bool) -> Vec<Operation> {
        let methods: &[&'static str] = if sub.name == "proxy" {
            &["get", "put", "post", "delete", "options", "head", "patch"]
        } else {
            &["get", "post"]
        };
        let after = title(&sub.name, true) + if with_path { "WithPath" } else { "" };
        let connect = |method: &&'static str| {
            let id = self.named("connect", &title(method, true), &after);
            let mut parameters: Vec<Parameter> = parameters::of(&sub.kind);
            if with_path {
                parameters.extend(parameters::some("Path", &["path"]));
            }
            let mut connect = self.operation(method, "connect", id);
            connect.description =
                format!("connect {} requests to {} of {}", method.to_uppercase(), sub.name, self.kind.kind);
            connect.resource =
                Some(("connect", json!({"group": sub.group, "version": sub.version, "kind": sub.kind})));
            connect.parameters = parameters;
            connect.produces = ANY;
            connect.answer = Content::Text;
            connect
        };
        self.of_one(methods.iter().map(connect).collect(), &sub.kind)
    }
}
