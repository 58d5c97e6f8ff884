//! NodeRestriction: what a kubelet writes is about itself: its node, lease, CSINode, ResourceSlices, certificates, and the
//! pods bound to it.

mod tokens;

use super::{Attributes, CREATE, Context, DELETE, UPDATE, certificates};
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
pub async fn admit(context: &Context, attributes: &Attributes<'_>, object: &Value) -> Result<(), Status> {
    let Some(node) = node_of(attributes.user) else { return Ok(()) };
    let request = attributes.request;
    let refuse = |cause: String| Err(attributes.forbidden(object, &cause));
    if node.is_empty() {
        return refuse(format!("could not determine node from user {:?}", attributes.user.name));
    }
    let named = || if meta::name(object).is_empty() { request.name.as_str() } else { meta::name(object) };
    match (request.group.as_str(), request.resource.as_str(), request.subresource.as_str()) {
        ("", "pods", "eviction") => evicted(context, attributes, object, node).await,
        ("", "pods", subresource) => pod(context, attributes, object, node, subresource).or_else(refuse),
        ("", "nodes", _) => own_node(attributes, object, node, named()).or_else(refuse),
        ("", "persistentvolumeclaims", subresource) => {
            claim(attributes, object, node, subresource).or_else(refuse)
        }
        ("", "serviceaccounts", "token") if attributes.operation == CREATE => {
            tokens::admit(context, attributes, object, node).await
        }
        ("coordination.k8s.io", "leases", _) if request.namespace != LEASE_NAMESPACE => {
            refuse(format!("can only access leases in the {LEASE_NAMESPACE:?} system namespace"))
        }
        ("coordination.k8s.io", "leases", _) if named() != node => {
            refuse("can only access node lease with the same name as the requesting node".to_owned())
        }
        ("storage.k8s.io", "csinodes", _) if named() != node => {
            refuse("can only access CSINode with the same name as the requesting node".to_owned())
        }
        ("resource.k8s.io", "resourceslices", _) => slice(attributes, object, node).or_else(refuse),
        ("certificates.k8s.io", "certificatesigningrequests", _) if attributes.operation == CREATE => {
            certificate(object, node).or_else(refuse)
        }
        _ => Ok(()),
    }
}

/// Whether a pod is bound to the node.
fn bound_to(node: &str, pod: &Value) -> bool {
    pod["spec"]["nodeName"] == node
}

fn pod(
    context: &Context,
    attributes: &Attributes<'_>,
    object: &Value,
    node: &str,
    subresource: &str,
) -> Result<(), String> {
    let mine = |pod: &Value| bound_to(node, pod);
    match (subresource, attributes.operation) {
        ("", CREATE) => {
            if !meta::is_mirror(object) {
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
        ("", operation) => Err(format!(
            "unexpected operation {operation:?}, node {node:?} can only create and delete mirror pods"
        )),
        ("status", UPDATE) => status(attributes.old.unwrap_or(&Value::Null), object, node),
        ("status", operation) => Err(format!("unexpected operation {operation:?}")),
        (other, _) => {
            Err(format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"))
        }
    }
}

fn status(old: &Value, pod: &Value, node: &str) -> Result<(), String> {
    if !bound_to(node, old) {
        return Err(format!(
            "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    let labels = |pod: &Value| pod["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    if labels(old) != labels(pod) {
        return Err(format!("node {node:?} cannot update labels through pod status"));
    }
    // They let the node read claims.
    let claims = |pod: &Value| {
        let told = pod["status"]["resourceClaimStatuses"].as_array().cloned().unwrap_or_default();
        told.iter().map(|one| (one["name"].clone(), one["resourceClaimName"].clone())).collect::<Vec<_>>()
    };
    if claims(old) != claims(pod) {
        return Err(format!("node {node:?} cannot update resource claim statues"));
    }
    Ok(())
}

async fn evicted(
    context: &Context,
    attributes: &Attributes<'_>,
    eviction: &Value,
    node: &str,
) -> Result<(), Status> {
    let (pods, request) = (GroupResource::new("", "pods"), attributes.request);
    let Some(pod) = context.find("", "pods", &request.namespace, &request.name).await? else {
        return Err(Status::not_found(&pods, &request.name));
    };
    if bound_to(node, &pod) {
        return Ok(());
    }
    let cause = format!("node {node} can only evict pods with spec.nodeName set to itself");
    Err(attributes.forbidden(eviction, &cause))
}

/// A node tells how its volumes grow, and nothing else of a claim.
fn claim(attributes: &Attributes<'_>, object: &Value, node: &str, subresource: &str) -> Result<(), String> {
    if subresource != "status" {
        return Err("may only update PVC status".to_owned());
    }
    if attributes.operation != UPDATE {
        return Err(format!("unexpected operation {:?}", attributes.operation));
    }
    let rest = |claim: &Value| {
        let mut claim = claim.clone();
        for (part, keys) in [
            ("metadata", &["resourceVersion", "managedFields"][..]),
            ("status", &["capacity", "conditions", "allocatedResources", "allocatedResourceStatuses"]),
        ] {
            if let Some(fields) = claim[part].as_object_mut() {
                fields.retain(|key, _| !keys.contains(&key.as_str()));
            }
        }
        if claim["status"].as_object().is_some_and(serde_json::Map::is_empty) {
            claim["status"] = Value::Null;
        }
        claim
    };
    if attributes.old.is_some_and(|old| rest(old) == rest(object)) {
        return Ok(());
    }
    Err(format!(
        "node {node:?} is not allowed to update fields other than status.quantity and status.conditions"
    ))
}

fn slice(attributes: &Attributes<'_>, object: &Value, node: &str) -> Result<(), String> {
    let (slice, verb) = match attributes.operation {
        CREATE => (Some(object), "create"),
        DELETE => (attributes.old, "delete"),
        _ => return Ok(()),
    };
    if slice.is_some_and(|slice| slice["spec"]["nodeName"] == node) {
        return Ok(());
    }
    Err(format!("can only {verb} ResourceSlice with the same NodeName as the requesting node"))
}

/// A node asks for certificates of its own name; what else they are for is the signers' affair.
fn certificate(request: &Value, node: &str) -> Result<(), String> {
    if !["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"]
        .contains(&request["spec"]["signerName"].as_str().unwrap_or_default())
    {
        return Ok(());
    }
    let name = certificates::common_name(request)
        .ok_or("unable to parse csr: PEM block type must be CERTIFICATE REQUEST")?;
    if name != format!("system:node:{node}") {
        return Err(format!("can only create a node CSR with CN=system:node:{node}"));
    }
    Ok(())
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
