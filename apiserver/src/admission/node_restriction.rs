//! NodeRestriction: what a kubelet writes is about itself: its node, lease, CSINode, and the pods bound to it.

use super::service_account::is_mirror;
use super::{Attributes, CREATE, Context, DELETE, UPDATE};
use crate::authorization::node_of;
use coracle_api::meta;
use coracle_api::status::{GroupResource, Status};
use serde_json::Value;

const LEASE_NAMESPACE: &str = "kube-node-lease";

/// Labels of Kubernetes' own domains that a kubelet may set on its node.
const OWN_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
];

/// Refuses what a node may not write; others pass.
pub async fn validate(context: &Context, attributes: &Attributes<'_>, object: &Value) -> Result<(), Status> {
    let Some(node) = node_of(attributes.user) else { return Ok(()) };
    let request = attributes.request;
    let refuse = |cause: String| Err(attributes.forbidden(object, &cause));
    if node.is_empty() {
        return refuse(format!("could not determine node from user {:?}", attributes.user.name));
    }
    let named = || if meta::name(object).is_empty() { request.name.as_str() } else { meta::name(object) };
    match (request.group.as_str(), request.resource.as_str(), request.subresource.as_str()) {
        ("", "pods", subresource) => pod(context, attributes, object, node, subresource).or_else(refuse),
        ("", "nodes", _) => own_node(attributes, object, node, named()).or_else(refuse),
        ("", "serviceaccounts", "token") => token(context, attributes, object, node).await,
        ("coordination.k8s.io", "leases", _) if request.namespace != LEASE_NAMESPACE => {
            refuse(format!("can only access leases in the {LEASE_NAMESPACE:?} system namespace"))
        }
        ("coordination.k8s.io", "leases", _) if named() != node => {
            refuse("can only access node lease with the same name as the requesting node".to_owned())
        }
        ("storage.k8s.io", "csinodes", _) if named() != node => {
            refuse("can only access CSINode with the same name as the requesting node".to_owned())
        }
        _ => Ok(()),
    }
}

fn pod(
    context: &Context,
    attributes: &Attributes<'_>,
    object: &Value,
    node: &str,
    subresource: &str,
) -> Result<(), String> {
    let mine = |pod: &Value| pod["spec"]["nodeName"] == node;
    match (subresource, attributes.operation) {
        ("", CREATE) => {
            if !is_mirror(object) {
                return Err(format!(
                    "pod does not have \"kubernetes.io/config.mirror\" annotation, node {node:?} can only create mirror pods"
                ));
            }
            if !mine(object) {
                return Err(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
            }
            owned(context, object, node)?;
            refers_to_nothing(object, node)
        }
        ("", DELETE) if !attributes.old.is_some_and(mine) => {
            Err(format!("node {node:?} can only delete pods with spec.nodeName set to itself"))
        }
        ("", DELETE) => Ok(()),
        ("status", UPDATE) => {
            let old = attributes.old.unwrap_or(&Value::Null);
            if !mine(old) {
                return Err(format!(
                    "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
                ));
            }
            if old["metadata"]["labels"] != object["metadata"]["labels"] {
                return Err(format!("node {node:?} cannot update labels through pod status"));
            }
            Ok(())
        }
        ("eviction", CREATE) => {
            let request = attributes.request;
            let pod = context.get("", "pods", &request.namespace, &request.name);
            if pod.is_some_and(|pod| mine(&pod)) {
                return Ok(());
            }
            Err(format!("node {node} can only evict pods with spec.nodeName set to itself"))
        }
        ("" | "status", operation) => Err(format!("unexpected operation {operation:?}")),
        (other, _) => {
            Err(format!("unexpected pod subresource {other:?}, only \"status\" and \"eviction\" are allowed"))
        }
    }
}

/// A mirror pod is owned by its node, which controls it.
fn owned(context: &Context, pod: &Value, node: &str) -> Result<(), String> {
    let owners = pod["metadata"]["ownerReferences"].as_array().map(Vec::as_slice).unwrap_or_default();
    let told = |what: &str| Err(format!("node {node:?} can only create pods with {what} set to itself"));
    let [owner] = owners else {
        return told(if owners.is_empty() { "an owner reference" } else { "a single owner reference" });
    };
    if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != node {
        return told("an owner reference");
    }
    if owner["controller"] != true {
        return told("a controller owner reference");
    }
    if owner["blockOwnerDeletion"] == true {
        return Err(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    let uid = context.get("", "nodes", "", node).map(|node| meta::uid(&node).to_owned()).unwrap_or_default();
    if owner["uid"] != uid.as_str() {
        let claimed = owner["uid"].as_str().unwrap_or_default();
        return Err(format!("node {node} UID mismatch: expected {claimed} got {uid}"));
    }
    Ok(())
}

/// A node may read what its pods name: it cannot make pods that name anything.
fn refers_to_nothing(pod: &Value, node: &str) -> Result<(), String> {
    let spec = &pod["spec"];
    let volumes = || spec["volumes"].as_array().into_iter().flatten();
    let sources = || volumes().flat_map(|volume| volume["projected"]["sources"].as_array()).flatten();
    let env = || {
        let lists = ["containers", "initContainers", "ephemeralContainers"];
        lists.into_iter().flat_map(|list| spec[list].as_array()).flatten()
    };
    let names = |of_volume: &str, of_env: &str, of_env_from: &str| {
        volumes().chain(sources()).any(|source| source[of_volume].is_object())
            || env().any(|container| {
                let any = |list: &str, has: &dyn Fn(&Value) -> bool| {
                    container[list].as_array().into_iter().flatten().any(has)
                };
                any("env", &|one| one["valueFrom"][of_env].is_object())
                    || any("envFrom", &|one| one[of_env_from].is_object())
            })
    };
    let filled = |list: &Value| list.as_array().is_some_and(|list| !list.is_empty());
    let named = [
        (!spec["serviceAccountName"].as_str().unwrap_or_default().is_empty(), "a service account"),
        (names("secret", "secretKeyRef", "secretRef") || filled(&spec["imagePullSecrets"]), "secrets"),
        (names("configMap", "configMapKeyRef", "configMapRef"), "configmaps"),
        (sources().any(|source| source["clusterTrustBundle"].is_object()), "clustertrustbundles"),
        (volumes().any(|volume| volume["persistentVolumeClaim"].is_object()), "persistentvolumeclaims"),
        (filled(&spec["resourceClaims"]), "resourceclaims"),
    ];
    match named.into_iter().find(|(is_named, _)| *is_named) {
        Some((_, what)) => Err(format!("node {node:?} can not create pods that reference {what}")),
        None => Ok(()),
    }
}

fn own_node(attributes: &Attributes<'_>, object: &Value, node: &str, named: &str) -> Result<(), String> {
    if named != node {
        return Err(format!("node {node:?} is not allowed to modify node {named:?}"));
    }
    let old = attributes.old.filter(|_| attributes.operation == UPDATE);
    let forbidden = forbidden_labels(old.unwrap_or(&Value::Null), object);
    let settings = &object["spec"]["configSource"];
    match old {
        None if attributes.operation == CREATE && settings.is_object() => {
            Err(format!("node {node:?} is not allowed to create pods with a non-nil configSource"))
        }
        Some(old) if settings.is_object() && *settings != old["spec"]["configSource"] => {
            Err(format!("node {node:?} is not allowed to update configSource to a new non-nil configSource"))
        }
        Some(old) if old["spec"]["taints"] != object["spec"]["taints"] => {
            Err(format!("node {node:?} is not allowed to modify taints"))
        }
        Some(old) if old["metadata"]["ownerReferences"] != object["metadata"]["ownerReferences"] => {
            Err(format!("node {node:?} is not allowed to modify ownerReferences"))
        }
        None if attributes.operation == CREATE && !forbidden.is_empty() => {
            Err(format!("node {node:?} is not allowed to set the following labels: {}", forbidden.join(", ")))
        }
        Some(_) if !forbidden.is_empty() => {
            Err(format!("is not allowed to modify labels: {}", forbidden.join(", ")))
        }
        _ => Ok(()),
    }
}

/// The labels that differ and are not a kubelet's to change, sorted.
fn forbidden_labels(old: &Value, new: &Value) -> Vec<String> {
    let labels = |object: &Value| object["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    let (old, new) = (labels(old), labels(new));
    let mut changed: Vec<String> =
        old.keys().chain(new.keys()).filter(|key| old.get(*key) != new.get(*key)).cloned().collect();
    changed.retain(|key| is_reserved(key));
    changed.sort();
    changed.dedup();
    changed
}

fn is_reserved(label: &str) -> bool {
    let Some((domain, _)) = label.split_once('/') else { return false };
    let within = |of: &str| domain == of || domain.strip_suffix(of).is_some_and(|rest| rest.ends_with('.'));
    if within("node-restriction.kubernetes.io") {
        return true;
    }
    if OWN_LABELS.contains(&label) || within("kubelet.kubernetes.io") || within("node.kubernetes.io") {
        return false;
    }
    within("kubernetes.io") || within("k8s.io")
}

/// A node asks for tokens of its pods' accounts, bound to those pods.
async fn token(
    context: &Context,
    attributes: &Attributes<'_>,
    object: &Value,
    node: &str,
) -> Result<(), Status> {
    let refuse = |cause: &str| Err(attributes.forbidden(object, cause));
    let bound = &object["spec"]["boundObjectRef"];
    if bound["kind"] != "Pod" || bound["apiVersion"] != "v1" {
        return refuse("node requested token not bound to a pod");
    }
    let uid = bound["uid"].as_str().unwrap_or_default();
    if uid.is_empty() {
        return refuse("node requested token with a pod binding without a uid");
    }
    let name = bound["name"].as_str().unwrap_or_default();
    let Some(pod) = context.find("", "pods", &attributes.request.namespace, name).await? else {
        return Err(Status::not_found(&GroupResource::new("", "pods"), name));
    };
    if meta::uid(&pod) != uid {
        return refuse(&format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        ));
    }
    if pod["spec"]["nodeName"] != node {
        return refuse("node requested token bound to a pod scheduled on a different node");
    }
    Ok(())
}
