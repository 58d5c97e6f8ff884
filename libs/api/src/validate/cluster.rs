//! Namespace, Node, PriorityClass, RuntimeClass, Lease.

use super::node::{Faults, Node, unique};
use super::{meta, pod, shapes};
use crate::status::FieldError;
use crate::{decode, labels};
use serde_json::Value;
use std::collections::HashSet;

pub(super) fn namespace(object: &Node<'_, '_>, out: &mut Faults) {
    let finalizers = object.get("spec.finalizers");
    finalizers.items().for_each(|finalizer| meta::namespace_finalizer(&finalizer, &finalizers, out));
}

pub(super) fn namespace_update(new: &Node<'_, '_>, _: &Node<'_, '_>, subresource: &str, out: &mut Faults) {
    match subresource {
        "finalize" => {
            let finalizers = new.get("spec.finalizers");
            finalizers.items().for_each(|finalizer| meta::namespace_finalizer(&finalizer, &finalizer, out));
        }
        "status" => {
            let phase = new.get("status.phase");
            let deleting = new.get("metadata.deletionTimestamp").is_set();
            if !deleting && phase.text() != "Active" {
                new.named("status.Phase", phase.value)
                    .invalid("may only be 'Active' if `deletionTimestamp` is empty", out);
            } else if deleting && phase.text() != "Terminating" {
                new.named("status.Phase", phase.value)
                    .invalid("may only be 'Terminating' if `deletionTimestamp` is not empty", out);
            }
        }
        _ => {}
    }
}

pub(super) fn node(object: &Node<'_, '_>, out: &mut Faults) {
    let metadata = object.get("metadata");
    node_annotations(&metadata.get("annotations"), out);
    // Taints are told under metadata, as Kubernetes does since they were annotations.
    node_taints(&metadata.named("taints", object.get("spec.taints").value), out);
    node_resources(object, out);
    let cidrs = object.get("spec.podCIDRs");
    for cidr in cidrs.items() {
        cidr.text_must(labels::is_valid_cidr, out);
    }
    let bad = cidrs.items().enumerate().find(|(_, cidr)| !labels::is_valid_cidr(cidr.text()).is_empty());
    if let Some((index, cidr)) = bad.filter(|_| cidrs.len() > 1) {
        let why = format!("invalid CIDR[{index}]: <nil> (invalid CIDR address: {})", cidr.text());
        let why = format!("invalid PodCIDRs. failed to check with dual stack with error:{why}");
        out.push(FieldError::internal(cidrs.path(), why));
    }
    let six = cidrs.items().filter(|cidr| cidr.text().contains(':')).count();
    if cidrs.len() > 2 || six > 1 || cidrs.len() - six > 1 {
        cidrs.invalid("may specify no more than one CIDR for each IP family", out);
    }
}

const OLD_TAINTS: &str = "scheduler.alpha.kubernetes.io/taints";
const AVOIDED_PODS: &str = "scheduler.alpha.kubernetes.io/preferAvoidPods";

/// Annotations that hold JSON for the scheduler.
fn node_annotations(notes: &Node<'_, '_>, out: &mut Faults) {
    let parsed = |key: &str, place: &Node<'_, '_>, out: &mut Faults| {
        let text = notes.key(key).text();
        let read = decode::document_of_json(text.as_bytes());
        let read = if text.is_empty() { Ok(Value::Null) } else { read };
        read.map_err(|fault| place.invalid_as(&key.into(), fault, out)).unwrap_or_default()
    };
    let taints = parsed(OLD_TAINTS, notes, out);
    node_taints(&notes.named(OLD_TAINTS, &taints), out);
    let avoided = parsed(AVOIDED_PODS, &notes.get("AvoidPods"), out);
    for entry in notes.named(AVOIDED_PODS, &avoided["preferAvoidPods"]).items() {
        let owner = &entry.value["podSignature"]["podController"];
        if owner.is_null() {
            entry.get("PodSignature").required("", out);
        } else if owner["controller"] != true {
            let shown =
                if owner["controller"].is_null() { "null".into() } else { owner["controller"].clone() };
            let place = entry.get("PodSignature.PodController.Controller");
            place.invalid_as(&shown, "must point to a controller", out);
        }
    }
}

fn node_taints(taints: &Node<'_, '_>, out: &mut Faults) {
    let mut seen = HashSet::new();
    for taint in taints.items() {
        taint.get("key").text_must(labels::is_qualified_name, out);
        let value = taint.get("value");
        let complaints = labels::is_valid_label_value(value.text());
        if !complaints.is_empty() {
            value.invalid(complaints.join(";"), out);
        }
        let effect = taint.get("effect");
        effect.required_one_of(&pod::TAINT_EFFECTS, out);
        let key = (effect.text(), taint.get("key").text());
        if seen.contains(&key) {
            taint.duplicate_shown(shapes::compact(taint.value, "Taint"), out);
            if let Some(fault) = out.last_mut() {
                "taints must be unique by key and effect pair".clone_into(&mut fault.detail);
            }
        }
        seen.insert(key);
    }
}

/// Any name of a resource will do; faults put it after a dot.
fn node_resources(object: &Node<'_, '_>, out: &mut Faults) {
    for list in ["status.capacity", "status.allocatable"] {
        let list = object.get(list);
        for (name, amount) in list.entries() {
            pod::resources::amount(&list.named(name, amount.value), name, out);
        }
    }
}

pub(super) fn node_update(new: &Node<'_, '_>, old: &Node<'_, '_>, subresource: &str, out: &mut Faults) {
    if subresource.is_empty() {
        node(new, out);
    }
    let metadata = new.get("metadata");
    node_annotations(&metadata.get("annotations"), out);
    node_resources(new, out);
    let mut seen = HashSet::new();
    for address in new.get("status.addresses").items() {
        if seen.contains(&address.value) {
            address.duplicate_shown(shapes::compact(address.value, "NodeAddress"), out);
        }
        seen.insert(address.value);
    }
    let (cidrs, before) = (new.get("spec.podCIDRs"), old.get("spec.podCIDRs"));
    if !before.is_empty() && cidrs.value != before.value {
        cidrs.forbidden("node updates may not change podCIDR except from \"\" to valid", out);
    }
    let (id, before) = (new.get("spec.providerID"), old.get("spec.providerID"));
    if !before.is_empty() && id.value != before.value {
        id.forbidden("node updates may not change providerID except from \"\" to valid", out);
    }
    // Kubernetes looks at the taints of an update twice, and tells their faults twice.
    node_taints(&metadata.named("taints", new.get("spec.taints").value), out);
    let external = new.get("spec.externalID");
    if external.text() != old.get("spec.externalID").text() {
        external.forbidden("may not be updated", out);
    }
}

const USER_PRIORITY_MAX: i64 = 1_000_000_000;
const SYSTEM_CLASSES: [(&str, i64); 2] =
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

/// What keeps the class from being one that every cluster has.
fn unlike_system_class(object: &Node<'_, '_>) -> Option<String> {
    let name = object.get("metadata.name").text();
    let Some((_, value)) = SYSTEM_CLASSES.iter().find(|(known, _)| *known == name) else {
        return Some(format!("{name} is not a known system priority class"));
    };
    if object.get("value").int() != *value {
        return Some(format!("value of {name} PriorityClass must be {value}"));
    }
    let global = object.get("globalDefault").is_true();
    global.then(|| format!("globalDefault of {name} PriorityClass must be false"))
}

pub(super) fn priority_class(object: &Node<'_, '_>, out: &mut Faults) {
    let (name, value) = (object.get("metadata.name"), object.get("value"));
    let text = name.text();
    if text.starts_with("system-") {
        if let Some(told) = unlike_system_class(object) {
            let reserved = "priority class names with 'system-' prefix are reserved for system use only.";
            name.forbidden(format!("{reserved} error: {told}"), out);
        }
    } else if value.int() > USER_PRIORITY_MAX {
        value.forbidden(
            format!("maximum allowed value of a user defined priority is {USER_PRIORITY_MAX}"),
            out,
        );
    }
    let preemption = object.get("preemptionPolicy");
    if preemption.is_set() {
        preemption.required_one_of(&["PreemptLowerPriority", "Never"], out);
    }
}

pub(super) fn priority_class_update(new: &Node<'_, '_>, old: &Node<'_, '_>, _: &str, out: &mut Faults) {
    if new.get("value").int() != old.get("value").int() {
        new.get("value").forbidden("may not be changed in an update.", out);
    }
    new.get("preemptionPolicy").same_as(&old.get("preemptionPolicy"), out);
}

pub(super) fn runtime_class(object: &Node<'_, '_>, out: &mut Faults) {
    object.get("handler").text_must(labels::is_dns1123_label, out);
    pod::resources::class_overhead(&object.get("overhead"), out);
    let scheduling = object.get("scheduling");
    meta::labels(&scheduling.get("nodeSelector"), out);
    let tolerations = scheduling.get("tolerations");
    // Their faults are told one level deeper than they stand.
    pod::tolerations(&tolerations.named("tolerations", tolerations.value), out);
    let all: Vec<Node<'_, '_>> = tolerations.items().collect();
    unique(all.iter().copied(), out);
}

pub(super) fn runtime_class_update(new: &Node<'_, '_>, old: &Node<'_, '_>, _: &str, out: &mut Faults) {
    runtime_class(new, out);
    new.get("handler").same_as(&old.get("handler"), out);
}

pub(super) fn lease(object: &Node<'_, '_>, out: &mut Faults) {
    let spec = object.get("spec");
    let duration = spec.get("leaseDurationSeconds");
    if duration.is_set() && duration.int() <= 0 {
        duration.invalid("must be greater than 0", out);
    }
    spec.get("leaseTransitions").not_negative(out);
    let holder = spec.get("preferredHolder");
    if !holder.is_empty() && spec.get("strategy").is_empty() {
        holder.forbidden("may only be specified if `strategy` is defined", out);
    }
}

pub(super) fn lease_update(new: &Node<'_, '_>, _: &Node<'_, '_>, _: &str, out: &mut Faults) {
    lease(new, out);
}
