//! What may change in a pod that exists. In: both pods. Out: faults of the new pod as such, and of the change.

use super::super::diff;
use super::super::node::{Faults, Node, Seen};
use super::status::is_static;
use super::{Allowed, MAX_INT32, Setting, container, resize, status, whole};
use crate::kinds;
use crate::strategy::{same, same_field};
use serde_json::Value;
use std::collections::{HashMap, HashSet};

const ONLY: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
const LISTS: [&str; 2] = ["containers", "initContainers"];
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const REQUIRED_TERMS: &str = "requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";

pub(in super::super) fn update(new: &Node<'_, '_>, old: &Node<'_, '_>, subresource: &str, out: &mut Faults) {
    match subresource {
        "" => main(new, old, out),
        "status" => status::update(new, old, out),
        "ephemeralcontainers" => ephemeral(new, old, out),
        "resize" => resize::update(new, old, out),
        _ => {}
    }
}

fn setting<'a>(new: &'a Node<'a, '_>, old: &Node<'_, '_>) -> Setting<'a> {
    Setting { pod: new.value["metadata"]["name"].as_str(), allowed: Allowed::by(old) }
}

fn main(new: &Node<'_, '_>, old: &Node<'_, '_>, out: &mut Faults) {
    whole(new, setting(new, old), out);
    annotations(new, old, out);
    let (spec, stored) = (new.get("spec"), old.get("spec"));
    for list in LISTS {
        let containers = spec.get(list);
        if containers.len() != stored.get(list).len() {
            return containers.forbidden("pod updates may not add or remove containers", out);
        }
        for container in containers.items() {
            container.get("image").must_be_given(out);
            container::whole_image(&container.get("image"), out);
        }
    }
    let (deadline, before) = (spec.get("activeDeadlineSeconds"), stored.get("activeDeadlineSeconds"));
    if deadline.is_set() {
        if !(0..=MAX_INT32).contains(&deadline.int()) {
            return deadline.between(0, MAX_INT32, out);
        }
        if before.is_set() && before.int() < deadline.int() {
            return deadline.invalid("must be less than or equal to previous value", out);
        }
    } else if before.is_set() {
        let nothing = Value::from("null");
        deadline.invalid_as(&nothing, "must not update from a positive integer to nil value", out);
    }
    tolerations(&spec.get("tolerations"), &stored.get("tolerations"), out);
    gates(&spec.get("schedulingGates"), &stored.get("schedulingGates"), out);
    let mut allowed = spec.value.clone();
    undo_allowed(&mut allowed, stored.value);
    if !stored.get("schedulingGates").is_empty() {
        narrowed(&spec, &stored, &mut allowed, out);
    }
    let unchanged = match kinds::by_gvk("v1", "Pod") {
        Some(pod) => same_field(pod, "spec", &allowed, stored.value),
        None => same(&allowed, stored.value),
    };
    if !unchanged {
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
}

/// While gated, a pod may be narrowed to fewer nodes.
fn narrowed(spec: &Node<'_, '_>, stored: &Node<'_, '_>, allowed: &mut Value, out: &mut Faults) {
    let (selector, before) = (spec.get("nodeSelector"), stored.get("nodeSelector"));
    if before.entries().any(|(key, value)| selector.key(key).value != value.value) {
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        selector.invalid(detail, out);
    }
    put_back(allowed, stored.value, "nodeSelector");
    let (affinity, before) = (spec.get("affinity.nodeAffinity"), stored.get("affinity.nodeAffinity"));
    if same(affinity.value, before.value) {
        return;
    }
    tightened(&affinity.get(REQUIRED_TERMS), &before.get(REQUIRED_TERMS), out);
    match (allowed["affinity"].is_object(), before.is_set()) {
        (false, false) => {}
        (false, true) => allowed["affinity"] = serde_json::json!({"nodeAffinity": before.value}),
        (true, _) => {
            put_back(&mut allowed["affinity"], &stored.value["affinity"], "nodeAffinity");
            // An affinity of nothing else was not there before.
            let others =
                ["podAffinity", "podAntiAffinity"].iter().any(|key| !allowed["affinity"][*key].is_null());
            if stored.value["affinity"].is_null() && !others {
                put_back(allowed, stored.value, "affinity");
            }
        }
    }
}

/// Required node terms may only gain requirements.
fn tightened(new: &Node<'_, '_>, old: &Node<'_, '_>, out: &mut Faults) {
    if old.is_empty() {
        return;
    }
    if new.len() != old.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        return new.invalid_inside_list("NodeSelectorTerm", detail, out);
    }
    for (new, old) in new.items().zip(old.items()) {
        let empty = |term: &Node<'_, '_>| {
            term.get("matchExpressions").is_empty() && term.get("matchFields").is_empty()
        };
        let starts = |key: &str| {
            let (new, old) = (new.get(key), old.get(key));
            new.len() >= old.len()
                && new.items().zip(old.items()).all(|(new, old)| same(new.value, old.value))
        };
        // A term that takes no node cannot take fewer.
        let widened = empty(&old) && !empty(&new);
        if widened || !starts("matchExpressions") || !starts("matchFields") {
            let detail = "only additions are allowed (no mutations or deletions)";
            new.invalid_inside("NodeSelectorTerm", detail, out);
        }
    }
}

fn put_back(object: &mut Value, stored: &Value, key: &str) {
    let Some(map) = object.as_object_mut() else { return };
    match stored.get(key) {
        Some(value) => drop(map.insert(key.to_owned(), value.clone())),
        None => drop(map.remove(key)),
    }
}

/// Annotations that say what a pod is, which it stays.
pub(super) fn annotations(new: &Node<'_, '_>, old: &Node<'_, '_>, out: &mut Faults) {
    let (notes, stored) = (new.get("metadata.annotations"), old.get("metadata.annotations"));
    let what = |key: &str| match key {
        super::annotations::MIRROR => Some("mirror pod annotation"),
        _ if key.starts_with(APP_ARMOR) => Some("AppArmor annotations"),
        _ => None,
    };
    for (key, value) in stored.entries() {
        let now = notes.key(key);
        if let Some(what) = what(key)
            && now.value != value.value
        {
            now.forbidden(format!("may not remove or update {what}"), out);
        }
    }
    for (key, now) in notes.entries().filter(|(key, _)| !stored.key(key).is_set()) {
        if let Some(what) = what(key) {
            now.forbidden(format!("may not add {what}"), out);
        }
    }
    super::annotations::all(&notes, &new.get("spec"), setting(new, old), out);
}

/// What a toleration tolerates, however long.
fn tolerated<'v>(toleration: &Node<'v, '_>) -> [&'v str; 4] {
    ["key", "operator", "value", "effect"].map(|key| toleration.get(key).text())
}

fn tolerations(new: &Node<'_, '_>, old: &Node<'_, '_>, out: &mut Faults) {
    let kept: HashSet<[&str; 4]> = new.items().map(|toleration| tolerated(&toleration)).collect();
    for before in old.items() {
        if !kept.contains(&tolerated(&before)) {
            return new
                .forbidden("existing toleration can not be modified except its tolerationSeconds", out);
        }
    }
    super::tolerations(new, out);
}

fn gates(new: &Node<'_, '_>, old: &Node<'_, '_>, out: &mut Faults) {
    let known: Seen<'_> = old.items().map(|before| before.get("name").text()).collect();
    for gate in new.items() {
        let name = gate.get("name");
        if !known.contains(name.text()) {
            name.forbidden(
                format!("only deletion is allowed, but found new scheduling gate '{}'", name.text()),
                out,
            );
        }
    }
}

fn ephemeral(new: &Node<'_, '_>, old: &Node<'_, '_>, out: &mut Faults) {
    whole(new, setting(new, old), out);
    annotations(new, old, out);
    if is_static(old) {
        out.truncate(0);
        return new.key("").forbidden("static pods do not support ephemeral containers", out);
    }
    let (list, stored) = (new.get("spec.ephemeralContainers"), old.get("spec.ephemeralContainers"));
    let mut now: HashMap<&str, Node<'_, '_>> = HashMap::new();
    for container in list.items() {
        now.entry(container.get("name").text()).or_insert(container);
    }
    for before in stored.items() {
        let name = before.get("name");
        let shown = crate::status::go_quoted(name.text());
        let start = format!("existing ephemeral containers {shown} may not be");
        match now.get(name.text()) {
            None => list.forbidden(format!("{start} removed\n"), out),
            Some(now) if !same(now.value, before.value) => {
                let difference = diff::ephemeral_container(before.value, now.value);
                list.forbidden(format!("{start} changed\n{difference}"), out);
            }
            Some(_) => {}
        }
    }
}
