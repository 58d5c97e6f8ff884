//! Events of both APIs. In: events of v1 or events.k8s.io/v1. Out: faults under the names of v1, as Kubernetes tells them.
//!
//! Clients of v1 may leave out who reports and what was done, unless they give an eventTime; those of the newer API may not.

use super::node::{Faults, IMMUTABLE, Node};
use crate::labels;
use crate::strategy::same;
use serde_json::json;

const TEXT_MAX: usize = 128;
const NOTE_MAX: usize = 1024;

fn is_modern(event: &Node<'_, '_>) -> bool {
    event.get("apiVersion").text().starts_with("events.k8s.io/")
}

pub(super) fn create(event: &Node<'_, '_>, out: &mut Faults) {
    about(event, out);
    if !is_modern(event) {
        return reported(event, out);
    }
    let (time, kind) = (event.get("eventTime"), event.get("type"));
    if !time.is_set() {
        time.required("", out);
    }
    complete(event, out);
    if !matches!(kind.text(), "Normal" | "Warning") {
        kind.invalid_as(&json!(""), format!("has invalid value: {}", kind.text()), out);
    }
    for (key, told) in [
        ("deprecatedFirstTimestamp", "firstTimestamp"),
        ("deprecatedLastTimestamp", "lastTimestamp"),
        ("deprecatedCount", "count"),
    ] {
        let field = event.get(key);
        if field.int() != 0 || !field.text().is_empty() {
            event.named(told, field.value).invalid("needs to be unset", out);
        }
    }
}

/// The event lives where its object does; events about cluster-scoped objects live in `default` or `kube-system`.
fn about(event: &Node<'_, '_>, out: &mut Faults) {
    let given = event.get(if is_modern(event) { "regarding.namespace" } else { "involvedObject.namespace" });
    let about = event.named("involvedObject.namespace", given.value);
    let namespace = event.get("metadata.namespace").text();
    let fits = match about.text() {
        "" => matches!(namespace, "default" | "kube-system"),
        other => other == namespace,
    };
    if !fits {
        about.invalid_as(&json!(about.text()), "does not match event.namespace", out);
    }
}

fn reported(event: &Node<'_, '_>, out: &mut Faults) {
    if event.get("eventTime").is_set() {
        complete(event, out);
    }
}

fn complete(event: &Node<'_, '_>, out: &mut Faults) {
    let modern = is_modern(event);
    let controller = event.get(if modern { "reportingController" } else { "reportingComponent" });
    event.named("reportingController", controller.value).required_text(labels::is_qualified_name, out);
    for key in ["reportingInstance", "action", "reason"] {
        let field = event.get(key);
        if field.must_be_given(out) && field.text().len() > TEXT_MAX {
            field.invalid(format!("can have at most {TEXT_MAX} characters"), out);
        }
    }
    let note = event.get(if modern { "note" } else { "message" });
    if note.text().len() > NOTE_MAX {
        event.named("message", note.value).invalid(format!("can have at most {NOTE_MAX} characters"), out);
    }
}

/// What a later update of a complete event must leave alone, and what it is called in faults.
const FIXED: [(&str, &str); 9] = [
    ("regarding", "involvedObject"),
    ("reason", "reason"),
    ("note", "message"),
    ("type", "type"),
    ("eventTime", "eventTime"),
    ("action", "action"),
    ("related", "related"),
    ("reportingController", "reportingController"),
    ("reportingInstance", "reportingInstance"),
];

pub(super) fn update(new: &Node<'_, '_>, old: &Node<'_, '_>, _: &str, out: &mut Faults) {
    if !is_modern(new) || !old.get("eventTime").is_set() {
        about(new, out);
        return reported(new, out);
    }
    for (key, told) in FIXED {
        let (field, before) = (new.get(key), old.get(key));
        if !same(field.value, before.value) {
            new.named(told, field.value).invalid(IMMUTABLE, out);
        }
    }
}
