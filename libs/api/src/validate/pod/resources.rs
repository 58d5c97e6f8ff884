//! Requests and limits: known names, amounts that fit their resource, requests within limits.

use super::super::node::{Faults, Node};
use crate::labels;
use crate::quantity::Quantity;
use serde_json::json;

const CONTAINER_RESOURCES: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// Unqualified names that some object may limit.
const STANDARD: [&str; 28] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "storage",
    "pods",
    "services",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "limits",
    "requests",
    "count/pods",
    "count/services",
    "count/secrets",
    "count/configmaps",
    "count/replicationcontrollers",
    "count/persistentvolumeclaims",
];

pub(in super::super) fn is_huge_pages(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// `kubernetes.io/x` and unprefixed names are Kubernetes' own.
pub(in super::super) fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && labels::is_qualified_name(&format!("requests.{name}")).is_empty()
}

/// A name of any resource.
pub(in super::super) fn known_name(node: &Node<'_, '_>, name: &str, out: &mut Faults) -> bool {
    let complaints = labels::is_qualified_name(name);
    let ok = complaints.is_empty();
    for complaint in complaints {
        node.invalid_as(&json!(name), complaint, out);
    }
    if ok && !name.contains('/') && !STANDARD.contains(&name) && !is_huge_pages(name) {
        node.invalid_as(&json!(name), "must be a standard resource type or fully qualified", out);
        return false;
    }
    ok
}

fn container_name(node: &Node<'_, '_>, name: &str, out: &mut Faults) {
    known_name(node, name, out);
    if !name.contains('/') && !CONTAINER_RESOURCES.contains(&name) && !is_huge_pages(name) {
        node.invalid_as(&json!(name), "must be a standard resource for containers", out);
    } else if name.contains('/') && !is_native(name) && !is_extended(name) {
        node.invalid_as(&json!(name), "doesn't follow extended resource name standard", out);
    }
}

/// An amount for `name`: not negative, whole where the resource is counted.
pub(in super::super) fn amount(node: &Node<'_, '_>, name: &str, out: &mut Faults) {
    node.amount_not_negative(out);
    let counted = matches!(
        name,
        "pods"
            | "services"
            | "replicationcontrollers"
            | "resourcequotas"
            | "secrets"
            | "configmaps"
            | "persistentvolumeclaims"
    ) || name.starts_with("services.")
        || name.starts_with("count/")
        || is_extended(name);
    if counted && !node.amount().is_whole() {
        node.invalid("must be an integer", out);
    }
}

/// `overhead` and other bare lists of amounts.
pub(super) fn amounts(list: &Node<'_, '_>, out: &mut Faults) {
    for (name, node) in list.entries() {
        container_name(&node, name, out);
        amount(&node, name, out);
    }
}

/// `resources` of a container, or of a claim template where names are freer.
pub(super) fn container(resources: &Node<'_, '_>, spec: &Node<'_, '_>, out: &mut Faults) {
    let (limits, requests) = (resources.get("limits"), resources.get("requests"));
    amounts(&limits, out);
    for (name, request) in requests.entries() {
        container_name(&request, name, out);
        amount(&request, name, out);
        within_limit(&requests, name, &request, &limits, out);
    }
    let has = |name: &str| limits.key(name).is_set() || requests.key(name).is_set();
    let huge = |list: &Node<'_, '_>| list.entries().any(|(name, _)| is_huge_pages(name));
    if (huge(&limits) || huge(&requests)) && !has("cpu") && !has("memory") {
        resources.forbidden("HugePages require cpu or memory", out);
    }
    let claims = resources.get("claims");
    let mut seen: Vec<&str> = Vec::new();
    for claim in claims.items() {
        let name = claim.get("name");
        if name.is_empty() {
            claim.required("", out);
        } else if seen.contains(&name.text()) {
            claim.duplicate_as(name.value, out);
        } else if !spec.get("resourceClaims").items().any(|known| known.get("name").value == name.value) {
            claim.named("", name.value).not_found(out);
        }
        seen.push(name.text());
    }
}

fn within_limit(
    requests: &Node<'_, '_>,
    name: &str,
    request: &Node<'_, '_>,
    limits: &Node<'_, '_>,
    out: &mut Faults,
) {
    let limit = limits.key(name);
    let overcommits = is_native(name) && !is_huge_pages(name);
    if limit.is_set() {
        if !overcommits && request.amount() != limit.amount() {
            requests.invalid_as(
                request.value,
                format!("must be equal to {name} limit of {}", limit.text()),
                out,
            );
        } else if request.amount() > limit.amount() {
            let detail = format!("must be less than or equal to {name} limit of {}", limit.text());
            requests.invalid_as(request.value, detail, out);
        }
    } else if !overcommits && request.amount() > Quantity::ZERO {
        limits.required("Limit must be set for non overcommitable resources", out);
    }
}
