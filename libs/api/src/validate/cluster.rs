//! Namespace, Node, PriorityClass, RuntimeClass, Lease.

use super::node::{Faults, Node, unique};
use super::{meta, pod};
use crate::labels;

pub(super) fn namespace(object: &Node<'_, '_>, out: &mut Faults) {
    let finalizers = object.get("spec.finalizers");
    finalizers.items().for_each(|finalizer| meta::namespace_finalizer(&finalizer, &finalizers, out));
}

pub(super) fn namespace_update(new: &Node<'_, '_>, _: &Node<'_, '_>, subresource: &str, out: &mut Faults) {
    match subresource {
        "finalize" => namespace(new, out),
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
    // Taints are told under metadata, as Kubernetes does since they were annotations.
    let taints = object.get("spec.taints");
    node_taints(&metadata.named("taints", taints.value), out);
    let cidrs = object.get("spec.podCIDRs");
    for cidr in cidrs.items() {
        cidr.text_must(labels::is_valid_cidr, out);
    }
    let six = cidrs.items().filter(|cidr| cidr.text().contains(':')).count();
    if cidrs.len() > 2 || six > 1 || cidrs.len() - six > 1 {
        cidrs.invalid("may specify no more than one CIDR for each IP family", out);
    }
    for list in ["status.capacity", "status.allocatable"] {
        for (name, amount) in object.get(list).entries() {
            pod::resources::known_name(&amount, name, out);
            pod::resources::amount(&amount, name, out);
        }
    }
}

fn node_taints(taints: &Node<'_, '_>, out: &mut Faults) {
    let mut seen = Vec::new();
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
            taint.duplicate(out);
        }
        seen.push(key);
    }
}

pub(super) fn node_update(new: &Node<'_, '_>, old: &Node<'_, '_>, _: &str, out: &mut Faults) {
    node(new, out);
    // Kubernetes looks at the taints of an update twice, and tells their faults twice.
    let metadata = new.get("metadata");
    let taints = new.get("spec.taints");
    node_taints(&metadata.named("taints", taints.value), out);
    let addresses = new.get("status.addresses");
    let all: Vec<Node<'_, '_>> = addresses.items().collect();
    unique(all.iter().copied(), out);
    let (cidrs, before) = (new.get("spec.podCIDRs"), old.get("spec.podCIDRs"));
    if !before.is_empty() && cidrs.value != before.value {
        cidrs.forbidden("node updates may not change podCIDR except from \"\" to valid", out);
    }
    let (id, before) = (new.get("spec.providerID"), old.get("spec.providerID"));
    if !before.is_empty() && id.value != before.value {
        id.forbidden("node updates may not change providerID except from \"\" to valid", out);
    }
}

const USER_PRIORITY_MAX: i64 = 1_000_000_000;
const SYSTEM_CLASSES: [(&str, i64); 2] =
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

pub(super) fn priority_class(object: &Node<'_, '_>, out: &mut Faults) {
    let (name, value) = (object.get("metadata.name"), object.get("value"));
    if name.text().starts_with("system-") {
        if !SYSTEM_CLASSES.contains(&(name.text(), value.int())) {
            let text = name.text();
            let detail = format!(
                "priority class names with 'system-' prefix are reserved for system use only. error: {text} is not a known system priority class"
            );
            name.forbidden(detail, out);
        }
    } else if value.int() > USER_PRIORITY_MAX {
        value.forbidden(
            format!("maximum allowed value of a user defined priority is {USER_PRIORITY_MAX}"),
            out,
        );
    }
    object.get("preemptionPolicy").may_be_one_of(&["PreemptLowerPriority", "Never"], out);
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
    pod::tolerations(&tolerations, out);
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
