//! Requests and limits: known names, amounts that fit their resource, requests within limits.

use super::super::node::{Faults, Node};
use super::Allowed;
use crate::labels;
use crate::quantity::Quantity;
use crate::status::FieldError;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const CONTAINER_RESOURCES: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// Unqualified names that some object may limit.
const STANDARD: [&str; 20] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];

pub(in super::super) fn is_huge_pages(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// `kubernetes.io/x` and unprefixed names are Kubernetes' own.
pub(in super::super) fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether a resource is one that somebody added, and counted in whole.
#[must_use]
pub fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && labels::is_qualified_name(&format!("requests.{name}")).is_empty()
}

/// A name of any resource. Faults show names of resources without quotes.
pub(in super::super) fn known_name(node: &Node<'_, '_>, name: &str, out: &mut Faults) -> bool {
    let complaints = labels::is_qualified_name(name);
    let ok = complaints.is_empty();
    for complaint in complaints {
        node.invalid_shown(name.to_owned(), complaint, out);
    }
    let huge = is_huge_pages(name) || name.starts_with("requests.hugepages-");
    if ok && !name.contains('/') && !STANDARD.contains(&name) && !huge {
        node.invalid_shown(name.to_owned(), "must be a standard resource type or fully qualified", out);
        return false;
    }
    ok
}

pub(in super::super) fn container_name(node: &Node<'_, '_>, name: &str, out: &mut Faults) {
    known_name(node, name, out);
    if !name.contains('/') && !CONTAINER_RESOURCES.contains(&name) && !is_huge_pages(name) {
        node.invalid_shown(name.to_owned(), "must be a standard resource for containers", out);
    } else if name.contains('/') && !is_native(name) && !is_extended(name) {
        node.invalid_shown(name.to_owned(), "doesn't follow extended resource name standard", out);
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
            | "services.nodeports"
            | "services.loadbalancers"
    ) || is_extended(name);
    if counted && !node.amount().is_whole() {
        node.invalid("must be an integer", out);
    }
}

/// Amounts that a pod costs on top of its containers; judged as limits.
pub(super) fn overhead(list: &Node<'_, '_>, allowed: Allowed, out: &mut Faults) {
    limits(&list.named("limits", list.value), allowed, out);
    if holds_huge_pages(list) && !holds_compute(list) {
        list.forbidden("HugePages require cpu or memory", out);
    }
}

/// The same where there is nothing stored to tolerate: the overhead of a RuntimeClass.
pub(in super::super) fn class_overhead(overhead: &Node<'_, '_>, out: &mut Faults) {
    self::overhead(&overhead.named("", overhead.get("podFixed").value), Allowed::default(), out);
}

fn limits(list: &Node<'_, '_>, allowed: Allowed, out: &mut Faults) {
    for (name, node) in list.entries() {
        container_name(&node, name, out);
        amount(&node, name, out);
        whole_pages(&node, name, allowed, out);
    }
}

fn holds_huge_pages(list: &Node<'_, '_>) -> bool {
    list.entries().any(|(name, _)| is_huge_pages(name))
}

fn holds_compute(list: &Node<'_, '_>) -> bool {
    list.key("cpu").is_set() || list.key("memory").is_set()
}

/// Whether a container asks for parts of huge pages, as it could of old.
pub(super) fn odd_huge_pages(container: &Value) -> bool {
    let amounts =
        ["limits", "requests"].into_iter().filter_map(|list| container["resources"][list].as_object());
    amounts
        .flatten()
        .any(|(name, amount)| is_huge_pages(name) && !divides(name, amount.as_str().unwrap_or_default()))
}

/// Whether the amount is a whole number of pages of the size in the name.
fn divides(name: &str, amount: &str) -> bool {
    let size = Quantity::parse(name.trim_start_matches("hugepages-"));
    let (Ok(size), Ok(amount)) = (size, Quantity::parse(amount)) else { return false };
    size > Quantity::ZERO && size.is_whole() && amount.value() % size.value() == 0
}

fn whole_pages(node: &Node<'_, '_>, name: &str, allowed: Allowed, out: &mut Faults) {
    if is_huge_pages(name) && !allowed.odd_huge_pages && !divides(name, node.text()) {
        node.invalid(format!("{} is not positive integer multiple of {name}", node.text()), out);
    }
}

/// `resources` of a container.
pub(super) fn container(resources: &Node<'_, '_>, spec: &Node<'_, '_>, allowed: Allowed, out: &mut Faults) {
    let (most, requests) = (resources.get("limits"), resources.get("requests"));
    limits(&most, allowed, out);
    for (name, request) in requests.entries() {
        container_name(&request, name, out);
        amount(&request, name, out);
        within_limit(&requests, name, &request, &most, out);
        whole_pages(&request, name, allowed, out);
    }
    let lists = [&most, &requests];
    if lists.iter().any(|list| holds_huge_pages(list)) && !lists.iter().any(|list| holds_compute(list)) {
        resources.forbidden("HugePages require cpu or memory", out);
    }
    claims(&resources.get("claims"), &spec.get("resourceClaims"), out);
}

/// Claims of a container are the pod's; the whole of one, or one request of it, once.
fn claims(claims: &Node<'_, '_>, known: &Node<'_, '_>, out: &mut Faults) {
    let names: BTreeSet<&str> =
        known.items().map(|claim| claim.get("name").text()).filter(|name| !name.is_empty()).collect();
    let mut seen = BTreeSet::new();
    for claim in claims.items() {
        let (name, request) = (claim.get("name").text(), claim.get("request"));
        if name.is_empty() {
            claim.required("", out);
            continue;
        }
        let key = if request.is_empty() { name.to_owned() } else { format!("{name}/{}", request.text()) };
        if seen.contains(name) {
            claim.duplicate_as(&json!(name), out);
        } else {
            request.text_may(labels::is_dns1123_label, out);
            let part = format!("{name}/");
            if seen.contains(&key) {
                claim.duplicate_as(&json!(key), out);
            } else if request.is_empty()
                && seen.range(part.clone()..).next().is_some_and(|other: &String| other.starts_with(&part))
            {
                claim.duplicate_as(&json!(name), out);
            }
            seen.insert(key);
        }
        if !names.contains(name) {
            let list = if names.is_empty() {
                " which is empty".to_owned()
            } else {
                format!(": {}", names.iter().copied().collect::<Vec<_>>().join(", "))
            };
            let fault = FieldError::not_found(claim.path(), &json!(name));
            let detail = format!("must be one of the names in pod.spec.resourceClaims{list}");
            out.push(FieldError { detail, ..fault });
        }
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
    } else if !overcommits {
        limits.required("Limit must be set for non overcommitable resources", out);
    }
}
