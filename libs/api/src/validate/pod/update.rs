//! What may change in a pod that exists. In: both pods. Out: faults of the change, and of the new pod as such.

use super::super::diff;
use super::super::node::{Faults, Node};
use super::MAX_INT32;
use crate::labels;
use crate::quantity::Quantity;
use crate::strategy::same;
use serde_json::{Value, json};

const ONLY: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
const LISTS: [&str; 2] = ["containers", "initContainers"];

pub(in super::super) fn update(new: &Node<'_, '_>, old: &Node<'_, '_>, subresource: &str, out: &mut Faults) {
    match subresource {
        "" => main(new, old, out),
        "status" => status(new, old, out),
        "ephemeralcontainers" => ephemeral(new, old, out),
        "resize" => resize(new, old, out),
        _ => {}
    }
}

fn main(new: &Node<'_, '_>, old: &Node<'_, '_>, out: &mut Faults) {
    annotations(&new.get("metadata.annotations"), &old.get("metadata.annotations"), out);
    let (spec, stored) = (new.get("spec"), old.get("spec"));
    if LISTS.iter().any(|list| spec.get(list).len() != stored.get(list).len()) {
        for list in LISTS {
            if spec.get(list).len() != stored.get(list).len() {
                spec.get(list).forbidden("pod updates may not add or remove containers", out);
            }
        }
        return;
    }
    images(&spec, out);
    deadline(&spec.get("activeDeadlineSeconds"), &stored.get("activeDeadlineSeconds"), out);
    tolerations(&spec.get("tolerations"), &stored.get("tolerations"), out);
    gates(&spec.get("schedulingGates"), &stored.get("schedulingGates"), out);
    let mut allowed = spec.value.clone();
    undo_allowed(&mut allowed, stored.value);
    if !same(&allowed, stored.value) {
        spec.forbidden(format!("{ONLY}\n{}", diff::pod_spec(stored.value, &allowed)), out);
    }
}

/// Sets what an update may change back to the stored values: what then differs may not.
fn undo_allowed(spec: &mut Value, stored: &Value) {
    for list in LISTS {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for (container, before) in containers.zip(stored[list].as_array().into_iter().flatten()) {
            put_back(container, before, "image");
        }
    }
    for key in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        put_back(spec, stored, key);
    }
    if stored["terminationGracePeriodSeconds"].as_i64().is_some_and(|grace| grace < 0)
        && spec["terminationGracePeriodSeconds"] == 1
    {
        put_back(spec, stored, "terminationGracePeriodSeconds");
    }
    // While gated, a pod may be narrowed to fewer nodes.
    if stored["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        let kept = stored["nodeSelector"]
            .as_object()
            .into_iter()
            .flatten()
            .all(|(key, value)| spec["nodeSelector"].get(key) == Some(value));
        if kept {
            put_back(spec, stored, "nodeSelector");
        }
        if tightened(&spec["affinity"]["nodeAffinity"], &stored["affinity"]["nodeAffinity"]) {
            put_back(spec, stored, "affinity");
        }
    }
}

/// Whether required node terms only gained requirements.
fn tightened(new: &Value, old: &Value) -> bool {
    let terms = |affinity: &Value| {
        affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    };
    let (new, old) = (terms(new), terms(old));
    let starts = |new: &Value, old: &Value, key: &str| {
        let (new, old) = (
            new[key].as_array().cloned().unwrap_or_default(),
            old[key].as_array().cloned().unwrap_or_default(),
        );
        new.starts_with(&old)
    };
    old.is_empty()
        || (new.len() == old.len()
            && new
                .iter()
                .zip(&old)
                .all(|(new, old)| starts(new, old, "matchExpressions") && starts(new, old, "matchFields")))
}

fn put_back(object: &mut Value, stored: &Value, key: &str) {
    let Some(map) = object.as_object_mut() else { return };
    match stored.get(key) {
        Some(value) => drop(map.insert(key.to_owned(), value.clone())),
        None => drop(map.remove(key)),
    }
}

fn annotations(new: &Node<'_, '_>, old: &Node<'_, '_>, out: &mut Faults) {
    const MIRROR: &str = "kubernetes.io/config.mirror";
    if new.key(MIRROR).value != old.key(MIRROR).value {
        let detail = if old.key(MIRROR).is_set() {
            "may not remove or update mirror pod annotation"
        } else {
            "may not add mirror pod annotation"
        };
        new.key(MIRROR).forbidden(detail, out);
    }
}

fn images(spec: &Node<'_, '_>, out: &mut Faults) {
    for list in LISTS {
        for container in spec.get(list).items() {
            let image = container.get("image");
            if image.is_empty() {
                image.required("", out);
            } else if image.text() != image.text().trim() {
                image.invalid("must not have leading or trailing whitespace", out);
            }
        }
    }
}

fn deadline(new: &Node<'_, '_>, old: &Node<'_, '_>, out: &mut Faults) {
    if new.is_set() {
        new.between(0, MAX_INT32, out);
        if old.is_set() && old.int() < new.int() {
            new.invalid("must be less than or equal to previous value", out);
        }
    } else if old.is_set() {
        new.invalid("must not update from a positive integer to nil value", out);
    }
}

fn tolerations(new: &Node<'_, '_>, old: &Node<'_, '_>, out: &mut Faults) {
    let matches = |a: &Value, b: &Value| {
        ["key", "operator", "value", "effect"].iter().all(|key| same(&a[*key], &b[*key]))
    };
    for before in old.items() {
        if !new.items().any(|toleration| matches(toleration.value, before.value)) {
            return new
                .forbidden("existing toleration can not be modified except its tolerationSeconds", out);
        }
    }
    super::tolerations(new, out);
}

fn gates(new: &Node<'_, '_>, old: &Node<'_, '_>, out: &mut Faults) {
    for gate in new.items() {
        let name = gate.get("name");
        if !old.items().any(|before| before.get("name").value == name.value) {
            name.forbidden(
                format!("only deletion is allowed, but found new scheduling gate '{}'", name.text()),
                out,
            );
        }
    }
}

fn status(new: &Node<'_, '_>, old: &Node<'_, '_>, out: &mut Faults) {
    let (node, stored) = (new.get("spec.nodeName"), old.get("spec.nodeName"));
    if node.value != stored.value {
        new.get("status.nodeName").forbidden("may not be changed directly", out);
    }
    let status = new.get("status");
    status.get("nominatedNodeName").text_may(labels::is_dns1123_subdomain, out);
    let (class, before) = (status.get("qosClass"), old.get("status.qosClass"));
    if !before.is_empty() && class.value != before.value {
        class.invalid("field is immutable", out);
    }
    if new.get("spec.restartPolicy").text() == "Always" {
        return;
    }
    let never = new.get("spec.restartPolicy").text() == "Never";
    let statuses = status.get("containerStatuses");
    for (i, container) in statuses.items().enumerate() {
        let name = container.get("name");
        let before = old.get("status.containerStatuses");
        let Some(before) = before.items().find(|before| before.get("name").value == name.value) else {
            continue;
        };
        let ended = before.get("state.terminated");
        let final_state = ended.is_set() && (never || ended.get("exitCode").int() == 0);
        if final_state && !container.get("state.terminated").is_set() {
            // Kubernetes names the place without the status' own path element.
            let place = format!("status.containerStatuses[{i}].state");
            Node::root(new.value)
                .named(&place, &Value::Null)
                .forbidden("may not be transitioned to non-terminated state", out);
        }
    }
}

fn ephemeral(new: &Node<'_, '_>, old: &Node<'_, '_>, out: &mut Faults) {
    super::container::all(&new.get("spec"), true, out);
    let (list, stored) = (new.get("spec.ephemeralContainers"), old.get("spec.ephemeralContainers"));
    for before in stored.items() {
        let name = before.get("name");
        match list.items().find(|container| container.get("name").value == name.value) {
            None => list.forbidden(
                format!("existing ephemeral containers {:?} may not be removed\n", name.text()),
                out,
            ),
            Some(now) if !same(now.value, before.value) => {
                let detail = format!("existing ephemeral containers {:?} may not be changed\n", name.text());
                list.forbidden(detail, out);
            }
            Some(_) => {}
        }
    }
}

/// A program that holds more than it may is killed, unless it starts anew with less.
fn memory_shrinks(container: &Node<'_, '_>, before: &Node<'_, '_>, out: &mut Faults) {
    let mut policies = container.get("resizePolicy").value.as_array().into_iter().flatten();
    let restarts = policies
        .any(|policy| policy["resourceName"] == "memory" && policy["restartPolicy"] == "RestartContainer");
    let bytes = |text: &str| Quantity::parse(text).ok();
    let (limits, old) = (container.get("resources.limits"), before.get("resources.limits"));
    let (limit, old) = (limits.key("memory"), old.key("memory"));
    if !restarts && bytes(limit.text()).zip(bytes(old.text())).is_some_and(|(now, before)| now < before) {
        limit.forbidden("memory limits cannot be decreased unless resizePolicy is RestartContainer", out);
    }
}

fn resize(new: &Node<'_, '_>, old: &Node<'_, '_>, out: &mut Faults) {
    let (spec, stored) = (new.get("spec"), old.get("spec"));
    super::container::all(&spec, true, out);
    if crate::strategy::quality_of_service(spec.value) != crate::strategy::quality_of_service(stored.value) {
        let class = json!(crate::strategy::quality_of_service(spec.value));
        spec.invalid_as(&class, "Pod QOS Class may not change as a result of resizing", out);
    }
    let (containers, before) = (spec.get("containers"), stored.get("containers"));
    for (container, before) in containers.items().zip(before.items()) {
        memory_shrinks(&container, &before, out);
        for kind in ["requests", "limits"] {
            let resources = container.get("resources");
            let list = resources.get(kind);
            let old_resources = before.get("resources");
            let old_list = old_resources.get(kind);
            let removed = old_list.entries().any(|(name, _)| !list.key(name).is_set());
            if removed {
                list.forbidden(format!("resource {kind} cannot be removed"), out);
            }
            let others = |list: &Node<'_, '_>| -> Vec<(String, Value)> {
                list.entries()
                    .filter(|(name, _)| !matches!(*name, "cpu" | "memory"))
                    .map(|(name, amount)| (name.to_owned(), amount.value.clone()))
                    .collect()
            };
            if others(&list) != others(&old_list) {
                spec.forbidden("only cpu and memory resources are mutable", out);
            }
        }
    }
    let (inits, before) = (spec.get("initContainers"), stored.get("initContainers"));
    for (container, before) in inits.items().zip(before.items()) {
        if container.get("restartPolicy").text() != "Always"
            && !same(container.get("resources").value, before.get("resources").value)
        {
            spec.forbidden("resources for non-sidecar init containers are immutable", out);
        }
    }
}
