//! The fake's objects and their history.

use coracle_daemon::{clock, random};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// (group, version, plural, kind, in namespaces)
const SERVED: [(&str, &str, &str, &str, bool); 28] = [
    ("", "v1", "pods", "Pod", true),
    ("", "v1", "nodes", "Node", false),
    ("", "v1", "namespaces", "Namespace", false),
    ("", "v1", "serviceaccounts", "ServiceAccount", true),
    ("", "v1", "configmaps", "ConfigMap", true),
    ("", "v1", "secrets", "Secret", true),
    ("certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest", false),
    ("", "v1", "services", "Service", true),
    ("", "v1", "endpoints", "Endpoints", true),
    ("", "v1", "events", "Event", true),
    ("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", true),
    ("", "v1", "resourcequotas", "ResourceQuota", true),
    ("apps", "v1", "deployments", "Deployment", true),
    ("apps", "v1", "replicasets", "ReplicaSet", true),
    ("apps", "v1", "statefulsets", "StatefulSet", true),
    ("apps", "v1", "daemonsets", "DaemonSet", true),
    ("apps", "v1", "controllerrevisions", "ControllerRevision", true),
    ("batch", "v1", "jobs", "Job", true),
    ("batch", "v1", "cronjobs", "CronJob", true),
    ("coordination.k8s.io", "v1", "leases", "Lease", true),
    ("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", true),
    ("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", true),
    ("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", false),
    ("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", false),
    ("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", false),
    ("", "v1", "secrets", "Secret", true),
    ("", "v1", "persistentvolumes", "PersistentVolume", false),
    ("storage.k8s.io", "v1", "storageclasses", "StorageClass", false),
];

/// A refused request.
pub struct Refusal {
    pub code: u16,
    reason: &'static str,
    message: String,
}

impl Refusal {
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into() }
    }

    pub fn body(&self) -> Value {
        json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": self.message, "reason": self.reason, "code": self.code })
    }
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub struct Address {
    group: String,
    version: String,
    plural: String,
    namespace: String,
    pub name: String,
    pub subresource: String,
}

impl Address {
    pub fn parse(path: &str) -> Result<Self, Refusal> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return Err(Refusal::new(404, "NotFound", path)),
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, plural, rest @ ..] if !matches!(*plural, "status" | "finalize") => {
                (*namespace, [&[*plural], rest].concat())
            }
            _ => ("", rest.to_vec()),
        };
        let part = |at: usize| rest.get(at).copied().unwrap_or_default().to_owned();
        Ok(Self {
            group: group.into(),
            version: version.into(),
            plural: part(0),
            namespace: namespace.into(),
            name: part(1),
            subresource: part(2),
        })
    }

    fn id(&self, name: &str) -> Id {
        (self.group.clone(), self.plural.clone(), self.namespace.clone(), name.to_owned())
    }

    fn covers(&self, id: &Id) -> bool {
        id.0 == self.group && id.1 == self.plural && (self.namespace.is_empty() || id.2 == self.namespace)
    }

    fn kind(&self) -> (&'static str, String) {
        let served =
            SERVED.iter().find(|(group, _, plural, ..)| *group == self.group && *plural == self.plural);
        let api_version = if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        };
        (served.map_or("Unknown", |served| served.3), api_version)
    }
}

/// Group, plural, namespace, name.
type Id = (String, String, String, String);

/// What a list or watch wants of each object.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    fields: Vec<(String, bool, String)>,
    metadata_only: bool,
}

impl Wanted {
    pub fn new(query: &[(String, String)], metadata_only: bool) -> Self {
        let text = query.iter().find(|(key, _)| key == "fieldSelector").map_or("", |(_, value)| value);
        let field = |part: &str| {
            let (path, equal, value) = match part.split_once("!=") {
                Some((path, value)) => (path, false, value),
                None => part.split_once('=').map(|(path, value)| (path, true, value))?,
            };
            Some((format!("/{}", path.replace('.', "/")), equal, value.to_owned()))
        };
        Self { fields: text.split(',').filter_map(field).collect(), metadata_only }
    }

    fn matches(&self, object: &Value) -> bool {
        self.fields.iter().all(|(path, equal, value)| {
            (object.pointer(path).and_then(Value::as_str).unwrap_or_default() == value) == *equal
        })
    }

    pub fn shape(&self, object: Value) -> Value {
        if !self.metadata_only {
            return object;
        }
        json!({ "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object["metadata"] })
    }
}

struct Event {
    version: u64,
    id: Id,
    kind: &'static str,
    object: Value,
}

/// All objects, and everything that happened to them.
#[derive(Default)]
pub struct State {
    pub version: u64,
    objects: BTreeMap<Id, Value>,
    history: Vec<Event>,
    /// History up to here is forgotten.
    compacted: u64,
}

impl State {
    pub fn get(&self, address: &Address) -> Result<Value, Refusal> {
        let found = self.objects.get(&address.id(&address.name)).cloned();
        found.ok_or_else(|| {
            Refusal::new(404, "NotFound", format!("{} \"{}\" not found", address.plural, address.name))
        })
    }

    pub fn list(&self, address: &Address, wanted: &Wanted) -> Vec<Value> {
        let all = self.objects.iter().filter(|(id, object)| address.covers(id) && wanted.matches(object));
        all.map(|(_, object)| object.clone()).collect()
    }

    pub fn list_object(&self, address: &Address, wanted: &Wanted) -> Value {
        let items: Vec<_> =
            self.list(address, wanted).into_iter().map(|object| wanted.shape(object)).collect();
        let (kind, api_version) = address.kind();
        json!({ "apiVersion": api_version, "kind": format!("{kind}List"), "metadata": { "resourceVersion": self.version.to_string() }, "items": items })
    }

    pub fn events(&self, address: &Address, wanted: &Wanted, after: u64) -> (Vec<Value>, u64) {
        let events = self.history.iter().filter(|event| event.version > after && address.covers(&event.id));
        let told = events.map(|event| {
            let kind = if event.kind != "DELETED" && !wanted.matches(&event.object) {
                "DELETED"
            } else {
                event.kind
            };
            json!({ "type": kind, "object": wanted.shape(event.object.clone()) })
        });
        (told.collect(), self.version)
    }

    pub fn compact(&mut self) {
        self.compacted = self.version;
        self.history.clear();
    }

    pub fn check_history(&self, from: u64) -> Result<(), Refusal> {
        if from < self.compacted {
            Err(Refusal::new(410, "Expired", "too old resource version"))
        } else {
            Ok(())
        }
    }

    fn put(&mut self, id: Id, mut object: Value, kind: &'static str) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if kind == "DELETED" {
            self.objects.remove(&id);
        } else {
            self.objects.insert(id.clone(), object.clone());
        }
        self.history.push(Event { version: self.version, id, kind, object: object.clone() });
        object
    }

    pub fn create(&mut self, address: &Address, mut object: Value) -> Result<Value, Refusal> {
        let (kind, api_version) = address.kind();
        let prefix = object["metadata"]["generateName"].as_str().unwrap_or_default().to_owned();
        let name = object["metadata"]["name"]
            .as_str()
            .map_or_else(|| format!("{prefix}{}", random::name_suffix(5)), str::to_owned);
        let id = address.id(&name);
        if self.objects.contains_key(&id) {
            return Err(Refusal::new(
                409,
                "AlreadyExists",
                format!("{} \"{name}\" already exists", address.plural),
            ));
        }
        if self.is_leaving(&address.namespace) {
            let message = format!(
                "unable to create new content in namespace {} because it is being terminated",
                address.namespace
            );
            return Err(Refusal::new(403, "Forbidden", message));
        }
        object["apiVersion"] = json!(api_version);
        object["kind"] = json!(kind);
        let meta = &mut object["metadata"];
        meta["name"] = json!(name);
        meta["uid"] = json!(random::uuid());
        meta["generation"] = json!(1);
        meta["creationTimestamp"] = json!(clock::rfc3339_seconds(clock::now()));
        if !address.namespace.is_empty() {
            meta["namespace"] = json!(address.namespace);
        }
        if kind == "Namespace" {
            object["spec"]["finalizers"] = json!(["kubernetes"]);
        }
        Ok(self.put(id, object, "ADDED"))
    }

    fn is_leaving(&self, namespace: &str) -> bool {
        let leaving = |object: &Value| {
            object["kind"] == "Namespace"
                && object["metadata"]["name"] == namespace
                && object["metadata"]["deletionTimestamp"].is_string()
        };
        !namespace.is_empty() && self.objects.values().any(leaving)
    }

    pub fn replace(&mut self, address: &Address, object: Value) -> Result<Value, Refusal> {
        let old = self.get(address)?;
        check(&old, &object)?;
        Ok(self.settle(address.id(&address.name), object))
    }

    pub fn patch(&mut self, address: &Address, patch: &Value) -> Result<Value, Refusal> {
        let old = self.get(address)?;
        check(&old, patch)?;
        let mut object = old.clone();
        if address.subresource == "status" {
            // Annotations may travel with a status, as the Deployment controller's do.
            for place in ["/status", "/metadata/annotations"] {
                if let Some(part) = patch.pointer(place) {
                    merge(&mut object, &nested(place, part));
                }
            }
        } else {
            merge(&mut object, patch);
        }
        if object == old {
            return Ok(old);
        }
        if object["spec"] != old["spec"] {
            object["metadata"]["generation"] = json!(old["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
        }
        Ok(self.settle(address.id(&address.name), object))
    }

    /// Stores a change; what was only kept by its last finalizer goes.
    fn settle(&mut self, id: Id, object: Value) -> Value {
        let meta = &object["metadata"];
        let held = |list: &Value| list.as_array().is_some_and(|list| !list.is_empty());
        let gone = meta["deletionTimestamp"].is_string()
            && !held(&meta["finalizers"])
            && !held(&object["spec"]["finalizers"]);
        self.put(id, object, if gone { "DELETED" } else { "MODIFIED" })
    }

    pub fn delete(&mut self, address: &Address, options: &Value) -> Result<Value, Refusal> {
        let mut object = self.get(address)?;
        check(&object, &json!({ "metadata": options["preconditions"] }))?;
        let finalizer = match options["propagationPolicy"].as_str() {
            Some("Foreground") => Some("foregroundDeletion"),
            Some("Orphan") => Some("orphan"),
            _ => None,
        };
        if let Some(finalizer) = finalizer {
            let mut finalizers = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
            finalizers.push(json!(finalizer));
            object["metadata"]["finalizers"] = json!(finalizers);
        }
        object["metadata"]["deletionTimestamp"] = json!(clock::rfc3339_seconds(clock::now()));
        Ok(self.settle(address.id(&address.name), object))
    }

    pub fn delete_all(
        &mut self,
        address: &Address,
        wanted: &Wanted,
        options: &Value,
    ) -> Result<Value, Refusal> {
        for object in self.list(address, wanted) {
            let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
            self.delete(
                &Address { name: text("name"), namespace: text("namespace"), ..address.clone() },
                options,
            )?;
        }
        Ok(self.list_object(address, wanted))
    }

    pub fn bind(&mut self, address: &Address, binding: &Value) -> Result<Value, Refusal> {
        let mut pod = self.get(address)?;
        if pod["spec"]["nodeName"].is_string() {
            return Err(Refusal::new(
                409,
                "Conflict",
                format!("pod {} is already assigned to a node", address.name),
            ));
        }
        pod["spec"]["nodeName"] = binding["target"]["name"].clone();
        self.put(address.id(&address.name), pod, "MODIFIED");
        Ok(json!({ "kind": "Status", "apiVersion": "v1", "status": "Success", "code": 201 }))
    }
}

/// A resourceVersion or uid that is given must be the current one.
fn check(object: &Value, given: &Value) -> Result<(), Refusal> {
    let differs = ["resourceVersion", "uid"].iter().any(|key| {
        let (given, own) = (&given["metadata"][key], &object["metadata"][key]);
        given.is_string() && given != own
    });
    if differs { Err(Refusal::new(409, "Conflict", "the object has been modified")) } else { Ok(()) }
}

/// A value at a JSON pointer, and nothing beside it.
fn nested(place: &str, value: &Value) -> Value {
    place
        .rsplit('/')
        .filter(|step| !step.is_empty())
        .fold(value.clone(), |inner, step| json!({ step: inner }))
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// The aggregated discovery document of `/api` or `/apis`.
pub fn discovery(path: &str) -> Value {
    let mut groups: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for (group, version, plural, kind, namespaced) in
        SERVED.iter().filter(|served| served.0.is_empty() == (path == "/api"))
    {
        groups.entry(group).or_default().push(json!({
            "resource": plural, "responseKind": { "group": group, "version": version, "kind": kind },
            "scope": if *namespaced { "Namespaced" } else { "Cluster" }, "singularResource": "",
            "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        }));
    }
    let groups = groups.into_iter().map(|(group, resources)| {
        json!({ "metadata": { "name": group }, "versions": [{ "version": "v1", "resources": resources, "freshness": "Current" }] })
    });
    json!({ "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": groups.collect::<Vec<_>>() })
}
