//! A write to a pod's `resize`: cpu and memory of containers that run on, and nothing else.

use super::super::node::{Faults, Node};
use super::status::is_static;
use super::{Allowed, Setting, whole};
use crate::quantity::Quantity;
use crate::strategy::{quality_of_service, same};
use serde_json::{Value, json};

const ONLY: &str = "only cpu and memory resources are mutable";

pub(super) fn update(new: &Node<'_, '_>, old: &Node<'_, '_>, out: &mut Faults) {
    let before = out.len();
    let name = new.get("metadata.name");
    whole(new, Setting { pod: Some(name.text()), allowed: Allowed::by(old) }, out);
    let (spec, stored) = (new.get("spec"), old.get("spec"));
    // What cannot be resized at all is told alone.
    let asks = |spec: &Node<'_, '_>| {
        ["resources.requests", "resources.limits"].iter().any(|list| !spec.get(list).is_empty())
    };
    let never = [
        (asks(&spec) || asks(&stored), "pods with pod-level resources cannot be resized"),
        (is_static(old), "static pods cannot be resized"),
        (stored.get("os.name").text() == "windows", "windows pods cannot be resized"),
    ];
    if let Some((_, why)) = never.into_iter().find(|(holds, _)| *holds) {
        out.truncate(0);
        return new.key("").forbidden(why, out);
    }
    let class = quality_of_service(spec.value);
    if class != quality_of_service(stored.value) {
        let told = json!(new.get("status.qosClass").text());
        spec.invalid_as(&told, "Pod QOS Class may not change as a result of resizing", out);
    }
    if !node_resizes(&old.get("status.containerStatuses")) {
        spec.forbidden("Pod running on node without support for resize", out);
    }
    // What follows compares containers by their places.
    let told = out.len();
    same_containers(&spec, &stored, out);
    if out.len() > told {
        return;
    }
    for list in ["initContainers", "containers"] {
        let (containers, stored) = (spec.get(list), stored.get(list));
        for (container, before) in containers.items().zip(stored.items()) {
            if list == "containers" || is_sidecar(&before) {
                resources(&container, &before, out);
            }
        }
    }
    for list in ["containers", "initContainers"] {
        let (containers, stored) = (spec.get(list), stored.get(list));
        for (container, before) in containers.items().zip(stored.items()) {
            others(&spec, list, &container, &before, out);
        }
    }
    if out.len() > before {
        return;
    }
    let but_containers = |spec: &Value| {
        let mut spec = spec.clone();
        spec["containers"] = Value::Null;
        spec["initContainers"] = Value::Null;
        spec
    };
    if !same(&but_containers(spec.value), &but_containers(stored.value)) {
        spec.forbidden(ONLY, out);
    }
}

fn is_sidecar(container: &Node<'_, '_>) -> bool {
    container.get("restartPolicy").text() == "Always"
}

/// A kubelet that can resize tells what running containers have.
fn node_resizes(statuses: &Node<'_, '_>) -> bool {
    let running = statuses.items().find(|status| status.get("state.running").is_set());
    running.is_none_or(|status| status.get("resources").is_set())
}

fn same_containers(spec: &Node<'_, '_>, stored: &Node<'_, '_>, out: &mut Faults) {
    for list in ["containers", "initContainers"] {
        let (containers, before) = (spec.get(list), stored.get(list));
        if containers.len() != before.len() {
            containers.forbidden(format!("{list} may not be added or removed on resize"), out);
            continue;
        }
        for (container, before) in containers.items().zip(before.items()) {
            if container.get("name").value != before.get("name").value {
                let detail = format!("{list} may not be renamed or reordered on resize");
                container.get("name").forbidden(detail, out);
            }
        }
    }
}

fn resources(container: &Node<'_, '_>, before: &Node<'_, '_>, out: &mut Faults) {
    let (own, stored) = (container.get("resources"), before.get("resources"));
    for kind in ["requests", "limits"] {
        let (list, old) = (own.get(kind), stored.get(kind));
        if old.entries().any(|(name, _)| !list.key(name).is_set()) {
            list.forbidden(format!("resource {kind} cannot be removed"), out);
        }
    }
    // A program that holds more than it may is killed, unless it starts anew with less.
    let policies = container.get("resizePolicy");
    let restarts = policies.items().any(|policy| {
        policy.get("resourceName").text() == "memory"
            && policy.get("restartPolicy").text() == "RestartContainer"
    });
    let (limits, old) = (own.get("limits"), stored.get("limits"));
    let (limit, old) = (limits.key("memory"), old.key("memory"));
    let bytes = |text: &str| Quantity::parse(text).ok();
    let verb = match (bytes(limit.text()), bytes(old.text())) {
        _ if restarts => return,
        (Some(now), Some(before)) if now < before => "decreased",
        (Some(_), None) => "added",
        _ => return,
    };
    limit.forbidden(format!("memory limits cannot be {verb} unless resizePolicy is RestartContainer"), out);
}

/// All of a container but its cpu and memory.
fn others(
    spec: &Node<'_, '_>,
    list: &str,
    container: &Node<'_, '_>,
    before: &Node<'_, '_>,
    out: &mut Faults,
) {
    if list == "initContainers" && !is_sidecar(container) {
        if !same(container.value, before.value) {
            spec.forbidden("resources for non-sidecar init containers are immutable", out);
        }
        return;
    }
    let mut fixed = container.value.clone();
    for kind in ["requests", "limits"] {
        let stored = &before.value["resources"][kind];
        if stored.is_null() {
            // Where there was nothing, anything of the two may be set.
            if let Some(map) = fixed["resources"][kind].as_object_mut() {
                map.retain(|name, _| !matches!(name.as_str(), "cpu" | "memory"));
            }
            continue;
        }
        // That it may not be taken away is told already.
        if !fixed["resources"][kind].is_object() {
            fixed["resources"][kind] = json!({});
        }
        for name in ["cpu", "memory"] {
            match (stored.get(name).cloned(), fixed["resources"][kind].as_object_mut()) {
                (Some(amount), Some(map)) => drop(map.insert(name.to_owned(), amount)),
                (None, Some(map)) => drop(map.remove(name)),
                (_, None) => {}
            }
        }
    }
    if !same(&fixed, before.value) {
        let detail = if list == "containers" {
            ONLY
        } else {
            "only cpu and memory resources for sidecar containers are mutable"
        };
        spec.forbidden(detail, out);
    }
}
