//! The Node authorizer: a kubelet may touch what its own pods need, its own node, lease and CSINode, and its own pods.
//!
//! Relations are looked up among the pods of the asked object's namespace rather than kept in a graph: a kubelet asks once
//! for each Secret or ConfigMap that it watches, while a graph would have to be rebuilt for every pod's every status.

use super::rule::Rule;
use crate::reader::Reader;
use crate::request::{RequestInfo, UserInfo};
use coracle_api::meta;
use coracle_api::selector::FieldSelector;
use coracle_api::status::GroupResource;
use serde_json::Value;
use std::sync::Arc;

const USER_PREFIX: &str = "system:node:";
const NODES_GROUP: &str = "system:nodes";
const LEASE_NAMESPACE: &str = "kube-node-lease";
const SLICE_VERBS: &str = "only the following verbs are allowed for a ResourceSlice: \
    get, watch, list, create, update, patch, delete, deletecollection";
/// Where a volume tells the secrets that nodes mount it with: the place, the key of the name and that of the namespace,
/// which is the claim's when it is not told.
const VOLUME_SECRETS: &[(&str, &str, &str)] = &[
    ("/azureFile", "secretName", "secretNamespace"),
    ("/cephfs/secretRef", "name", "namespace"),
    ("/cinder/secretRef", "name", "namespace"),
    ("/flexVolume/secretRef", "name", "namespace"),
    ("/rbd/secretRef", "name", "namespace"),
    ("/scaleIO/secretRef", "name", "namespace"),
    ("/iscsi/secretRef", "name", "namespace"),
    ("/storageos/secretRef", "name", "namespace"),
    ("/csi/nodePublishSecretRef", "name", "namespace"),
    ("/csi/nodeStageSecretRef", "name", "namespace"),
    ("/csi/nodeExpandSecretRef", "name", "namespace"),
];

/// The node that `user` is, if it is one.
#[must_use]
pub fn node_of(user: &UserInfo) -> Option<&str> {
    let in_group = user.groups.iter().any(|group| group == NODES_GROUP);
    user.name.strip_prefix(USER_PREFIX).filter(|_| in_group)
}

/// The Node authorizer.
pub struct NodeAuthorizer {
    reader: Arc<dyn Reader>,
    pods: GroupResource,
    volumes: GroupResource,
    /// What every node may do besides (ClusterRole `system:node`).
    rules: Vec<Rule>,
}

type Answer = Result<(), String>;

fn no(why: &str) -> Answer {
    Err(why.to_owned())
}

impl NodeAuthorizer {
    /// Over the cache; `rules` are those of ClusterRole `system:node`.
    pub fn new(reader: Arc<dyn Reader>, rules: Vec<Rule>) -> Self {
        let (pods, volumes) = (GroupResource::new("", "pods"), GroupResource::new("", "persistentvolumes"));
        Self { reader, pods, volumes, rules }
    }

    /// Ok when `user` is a node that may do this; `None` when it is none, so that others decide.
    ///
    /// # Errors
    /// The reason to add to the 403; may be empty.
    pub fn allows(&self, user: &UserInfo, request: &RequestInfo) -> Option<Answer> {
        let node = node_of(user)?;
        if node.is_empty() {
            return Some(Err(format!("unknown node for user {:?}", user.name)));
        }
        Some(self.decide(node, request))
    }

    fn decide(&self, node: &str, request: &RequestInfo) -> Answer {
        if request.is_resource {
            match (request.group.as_str(), request.resource.as_str()) {
                ("", "secrets" | "configmaps") => return self.namespaced_read(node, request),
                ("", "persistentvolumeclaims") if request.subresource == "status" => {
                    return self.status_update(node, request);
                }
                ("", "persistentvolumeclaims" | "persistentvolumes")
                | ("storage.k8s.io", "volumeattachments")
                | ("resource.k8s.io", "resourceclaims") => return self.single_get(node, request),
                ("", "serviceaccounts") => return self.token(node, request),
                ("resource.k8s.io", "resourceslices") => return self.slice(node, request),
                ("coordination.k8s.io", "leases") => return lease(node, request),
                ("storage.k8s.io", "csinodes") => return csi_node(node, request),
                ("", "nodes") => return own_node(node, request),
                ("", "pods") => return self.pod(node, request),
                _ => {}
            }
        }
        if self.rules.iter().any(|rule| rule.allows(request)) { Ok(()) } else { no("") }
    }

    fn namespaced_read(&self, node: &str, request: &RequestInfo) -> Answer {
        if !matches!(request.verb.as_str(), "get" | "list" | "watch") {
            return no("can only read resources of this type");
        }
        if !request.subresource.is_empty() {
            return no("cannot read subresource");
        }
        if request.namespace.is_empty() {
            return no("can only read namespaced object of this type");
        }
        self.related(node, request)
    }

    fn status_update(&self, node: &str, request: &RequestInfo) -> Answer {
        if !matches!(request.verb.as_str(), "update" | "patch") {
            return no("can only get/update/patch this type");
        }
        self.related(node, request)
    }

    fn single_get(&self, node: &str, request: &RequestInfo) -> Answer {
        if request.verb != "get" {
            return no("can only get individual resources of this type");
        }
        if !request.subresource.is_empty() {
            return no("cannot get subresource");
        }
        self.related(node, request)
    }

    fn token(&self, node: &str, request: &RequestInfo) -> Answer {
        if request.verb == "get" && request.subresource.is_empty() {
            return no("not allowed to get service accounts");
        }
        if request.verb != "create" || request.name.is_empty() {
            return no("can only create tokens for individual service accounts");
        }
        if request.subresource != "token" {
            return no("can only create token subresource of serviceaccount");
        }
        self.related(node, request)
    }

    fn pod(&self, node: &str, request: &RequestInfo) -> Answer {
        match (request.subresource.as_str(), request.verb.as_str()) {
            ("", "get") => self.related(node, request),
            ("", "list" | "watch") => {
                if selects(request, "spec.nodeName", node) {
                    return Ok(());
                }
                if !request.name.is_empty() {
                    return self.related(node, request);
                }
                no("can only list/watch pods with spec.nodeName field selector")
            }
            // Which pods is NodeRestriction's affair.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
            _ => no(""),
        }
    }

    /// Whose slice a create makes is NodeRestriction's affair.
    fn slice(&self, node: &str, request: &RequestInfo) -> Answer {
        if !request.subresource.is_empty() {
            return no("cannot authorize ResourceSlice subresources");
        }
        match request.verb.as_str() {
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" => self.related(node, request),
            "watch" | "list" | "deletecollection" if selects(request, "spec.nodeName", node) => Ok(()),
            "watch" | "list" | "deletecollection" => {
                no("can only list/watch/deletecollection resourceslices with nodeName field selector")
            }
            _ => no(SLICE_VERBS),
        }
    }

    fn related(&self, node: &str, request: &RequestInfo) -> Answer {
        if request.name.is_empty() {
            return no("No Object name found");
        }
        let RequestInfo { resource, namespace, name, .. } = request;
        let named = |group: &str, field: &str| {
            let object = self.reader.get(&GroupResource::new(group, resource), namespace, name);
            object.is_some_and(|object| object["spec"][field] == node)
        };
        let related = match resource.as_str() {
            "persistentvolumes" => {
                self.reader.get(&self.volumes, "", name).is_some_and(|volume| self.mounts(node, &volume))
            }
            "volumeattachments" => named("storage.k8s.io", "nodeName"),
            "resourceslices" => named("resource.k8s.io", "nodeName"),
            "pods" => named("", "nodeName"),
            _ => {
                self.own_pods(node, namespace).any(|pod| pod_uses(&pod, resource, name))
                    || (resource == "secrets" && self.secret_of_volume(node, namespace, name))
            }
        };
        if related {
            return Ok(());
        }
        Err(format!("no relationship found between node '{node}' and this object"))
    }

    /// The node's pods that may let it see other objects: a mirror pod is made by the node itself.
    fn own_pods<'a>(&self, node: &'a str, namespace: &str) -> impl Iterator<Item = Arc<Value>> + use<'a> {
        let grants = move |pod: &Arc<Value>| pod["spec"]["nodeName"] == node && !meta::is_mirror(pod);
        self.reader.list(&self.pods, namespace).into_iter().filter(grants)
    }

    /// Whether a pod of the node uses the claim that the volume is bound to.
    fn mounts(&self, node: &str, volume: &Value) -> bool {
        let claim = &volume["spec"]["claimRef"];
        let (Some(namespace), Some(name)) = (claim["namespace"].as_str(), claim["name"].as_str()) else {
            return false;
        };
        self.own_pods(node, namespace).any(|pod| claims_of(&pod).any(|own| own == name))
    }

    /// Whether a volume of one of the node's pods is mounted with the secret.
    fn secret_of_volume(&self, node: &str, namespace: &str, name: &str) -> bool {
        let mut volumes = self.reader.list(&self.volumes, "").into_iter();
        volumes.any(|volume| volume_needs(&volume, namespace, name) && self.mounts(node, &volume))
    }
}

/// Whether a list is of what has `node` in that field.
fn selects(request: &RequestInfo, field: &str, node: &str) -> bool {
    FieldSelector::parse_any(&request.field_selector)
        .is_ok_and(|selector| selector.terms().any(|term| term == (field, true, node)))
}

/// Whether a node needs the secret to mount the volume, which names its driver's secret itself.
fn volume_needs(volume: &Value, namespace: &str, name: &str) -> bool {
    let spec = &volume["spec"];
    let bound = spec["claimRef"]["namespace"].as_str().unwrap_or_default();
    VOLUME_SECRETS.iter().any(|(pointer, name_key, namespace_key)| {
        let Some(secret) = spec.pointer(pointer) else { return false };
        let told = secret[*namespace_key].as_str().filter(|told| !told.is_empty()).unwrap_or(bound);
        !name.is_empty() && secret[*name_key] == name && told == namespace
    })
}

fn lease(node: &str, request: &RequestInfo) -> Answer {
    if !matches!(request.verb.as_str(), "get" | "create" | "update" | "patch" | "delete") {
        return no("can only get, create, update, patch, or delete a node lease");
    }
    if request.namespace != LEASE_NAMESPACE {
        return Err(format!("can only access leases in the {LEASE_NAMESPACE:?} system namespace"));
    }
    // The name of a create is in its body, which NodeRestriction checks.
    if request.verb != "create" && request.name != node {
        return no("can only access node lease with the same name as the requesting node");
    }
    Ok(())
}

fn csi_node(node: &str, request: &RequestInfo) -> Answer {
    if !matches!(request.verb.as_str(), "get" | "create" | "update" | "patch" | "delete") {
        return no("can only get, create, update, patch, or delete a CSINode");
    }
    if !request.subresource.is_empty() {
        return no("cannot authorize CSINode subresources");
    }
    if request.verb != "create" && request.name != node {
        return no("can only access CSINode with the same name as the requesting node");
    }
    Ok(())
}

/// Writes are narrowed to the node's own object by NodeRestriction. A read names it, so that a node may look before it
/// is there.
fn own_node(node: &str, request: &RequestInfo) -> Answer {
    match (request.subresource.as_str(), request.verb.as_str()) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
        ("", "get" | "list" | "watch") => match request.name.as_str() {
            name if name == node => Ok(()),
            "" => Err(format!("node '{node}' cannot read all nodes, only its own Node object")),
            name => Err(format!("node '{node}' cannot read '{name}', only its own Node object")),
        },
        _ => no(""),
    }
}

/// The claims that a pod mounts, those of its ephemeral volumes included.
fn claims_of(pod: &Value) -> impl Iterator<Item = String> {
    let name = meta::name(pod);
    pod["spec"]["volumes"].as_array().into_iter().flatten().filter_map(move |volume| {
        let own = volume["ephemeral"]
            .is_object()
            .then(|| format!("{name}-{}", volume["name"].as_str().unwrap_or_default()));
        volume["persistentVolumeClaim"]["claimName"].as_str().map(str::to_owned).or(own)
    })
}

/// Whether a pod refers to the named object of its namespace.
fn pod_uses(pod: &Value, plural: &str, name: &str) -> bool {
    match plural {
        "serviceaccounts" => pod["spec"]["serviceAccountName"] == name,
        "persistentvolumeclaims" => claims_of(pod).any(|claim| claim == name),
        "secrets" => refers(&pod["spec"], SECRET_KEYS, name),
        "configmaps" => refers(&pod["spec"], CONFIG_MAP_KEYS, name),
        "resourceclaims" => {
            refers(&pod["status"]["resourceClaimStatuses"], &["resourceClaimName"], name)
                || refers(&pod["spec"]["resourceClaims"], &["resourceClaimName"], name)
        }
        _ => false,
    }
}

/// Keys below which a pod names a Secret: `{name: …}`, `{secretName: …}`, or a list of the first.
const SECRET_KEYS: &[&str] =
    &["secret", "secretRef", "secretKeyRef", "imagePullSecrets", "nodePublishSecretRef", "secretName"];
const CONFIG_MAP_KEYS: &[&str] = &["configMap", "configMapRef", "configMapKeyRef"];

/// Whether anywhere in `value` one of `keys` names `name`.
fn refers(value: &Value, keys: &[&str], name: &str) -> bool {
    let names = |value: &Value| value == name || value["name"] == name || value["secretName"] == name;
    match value {
        Value::Array(items) => items.iter().any(|item| refers(item, keys, name)),
        Value::Object(fields) => fields.iter().any(|(key, value)| {
            let here = keys.contains(&key.as_str())
                && (names(value) || value.as_array().is_some_and(|items| items.iter().any(names)));
            here || refers(value, keys, name)
        }),
        _ => false,
    }
}
