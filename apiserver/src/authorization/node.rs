//! The Node authorizer: a kubelet may touch what its own pods need, its own node, lease and CSINode, and its own pods.
//!
//! Relations are looked up among the pods of the asked object's namespace rather than kept in a graph: a kubelet asks once
//! for each Secret or ConfigMap that it watches, while a graph would have to be rebuilt for every pod's every status.

use super::rule::Rule;
use crate::reader::Reader;
use crate::request::{RequestInfo, UserInfo};
use coracle_api::meta;
use coracle_api::status::GroupResource;
use serde_json::Value;
use std::sync::Arc;

const USER_PREFIX: &str = "system:node:";
const NODES_GROUP: &str = "system:nodes";
const LEASE_NAMESPACE: &str = "kube-node-lease";

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
    claims: GroupResource,
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
        let (pods, claims) =
            (GroupResource::new("", "pods"), GroupResource::new("", "persistentvolumeclaims"));
        Self { reader, pods, claims, rules }
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
            return no("can only get and update status of this type");
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
        if request.verb != "create" || request.name.is_empty() {
            return no("can only create tokens for individual service accounts");
        }
        if request.subresource != "token" {
            return no("can only create token subresource of service account");
        }
        self.related(node, request)
    }

    fn pod(&self, node: &str, request: &RequestInfo) -> Answer {
        match (request.subresource.as_str(), request.verb.as_str()) {
            ("", "get") => self.related(node, request),
            ("", "list" | "watch") => {
                let own = request.field_selector.split(',').any(|term| {
                    let value =
                        term.strip_prefix("spec.nodeName=").map(|value| value.trim_start_matches('='));
                    value == Some(node)
                });
                if own {
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

    fn related(&self, node: &str, request: &RequestInfo) -> Answer {
        if request.name.is_empty() {
            return no("No Object name found");
        }
        let RequestInfo { resource, namespace, name, .. } = request;
        let related = match resource.as_str() {
            "persistentvolumes" => self.uses_volume(node, name),
            "volumeattachments" => self
                .reader
                .get(&GroupResource::new("storage.k8s.io", "volumeattachments"), "", name)
                .is_some_and(|attachment| attachment["spec"]["nodeName"] == node),
            "pods" => self
                .reader
                .get(&self.pods, namespace, name)
                .is_some_and(|pod| pod["spec"]["nodeName"] == node),
            _ => self.own_pods(node, namespace).any(|pod| pod_uses(&pod, resource, name)),
        };
        if related {
            return Ok(());
        }
        Err(format!("no relationship found between node '{node}' and this object"))
    }

    fn own_pods<'a>(&self, node: &'a str, namespace: &str) -> impl Iterator<Item = Arc<Value>> + use<'a> {
        self.reader.list(&self.pods, namespace).into_iter().filter(move |pod| pod["spec"]["nodeName"] == node)
    }

    /// Whether a pod of the node uses a claim that is bound to the volume.
    fn uses_volume(&self, node: &str, volume: &str) -> bool {
        self.own_pods(node, "").any(|pod| {
            let namespace = meta::namespace(&pod);
            claims_of(&pod).any(|claim| {
                let claim = self.reader.get(&self.claims, namespace, &claim);
                claim.is_some_and(|claim| claim["spec"]["volumeName"] == volume)
            })
        })
    }
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

/// Writes are narrowed to the node's own object by NodeRestriction. Reads are open to all nodes: each kubelet keeps the
/// routes to the others' pods, and learns them from their Node objects.
fn own_node(_node: &str, request: &RequestInfo) -> Answer {
    match (request.subresource.as_str(), request.verb.as_str()) {
        ("", "create" | "update" | "patch" | "get" | "list" | "watch") | ("status", "update" | "patch") => {
            Ok(())
        }
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
