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
    legacy(event, out);
    if !is_modern(event) {
        return;
    }
    series(event, out);
    if !event.get("eventTime").is_set() {
        event.get("eventTime").required("", out);
    }
    let kind = event.get("type");
    if !matches!(kind.text(), "Normal" | "Warning") {
        kind.invalid_as(&json!(""), format!("has invalid value: {}", kind.text()), out);
    }
    for (key, told) in [
        ("deprecatedFirstTimestamp", "firstTimestamp"),
        ("deprecatedLastTimestamp", "lastTimestamp"),
        ("deprecatedCount", "count"),
        ("deprecatedSource", "source"),
    ] {
        let field = event.get(key);
        let source = !field.get("component").is_empty() || !field.get("host").is_empty();
        if field.int() != 0 || !field.text().is_empty() || source {
            event.get(told).invalid_as(&json!(""), "needs to be unset", out);
        }
    }
}

fn series(event: &Node<'_, '_>, out: &mut Faults) {
    let series = event.get("series");
    if !series.is_set() {
        return;
    }
    if series.get("count").int() < 2 {
        series.get("count").invalid_as(&json!(""), "should be at least 2", out);
    }
    series.get("lastObservedTime").must_be_given(out);
}

/// What every event keeps to. It lives where its object does; events about cluster-scoped objects live in `default`,
/// or, where they have an eventTime, in `kube-system`.
fn legacy(event: &Node<'_, '_>, out: &mut Faults) {
    let given = event.get(if is_modern(event) { "regarding.namespace" } else { "involvedObject.namespace" });
    let about = event.named("involvedObject.namespace", given.value);
    let namespace = event.get("metadata.namespace");
    let timed = event.get("eventTime").is_set();
    let fits = match about.text() {
        "" => namespace.text() == "default" || (timed && namespace.text() == "kube-system"),
        other => timed || other == namespace.text(),
    };
    if !fits {
        about.invalid_as(&json!(about.text()), "does not match event.namespace", out);
    }
    if timed {
        complete(event, out);
    }
    event.named("namespace", namespace.value).text_must(labels::is_dns1123_subdomain, out);
}

fn complete(event: &Node<'_, '_>, out: &mut Faults) {
    let modern = is_modern(event);
    let controller = event.get(if modern { "reportingController" } else { "reportingComponent" });
    controller.must_be_given(out);
    controller.text_must(labels::is_qualified_name, out);
    for key in ["reportingInstance", "action", "reason"] {
        let field = event.get(key);
        field.must_be_given(out);
        at_most(TEXT_MAX, &field, out);
    }
    let note = event.get(if modern { "note" } else { "message" });
    at_most(NOTE_MAX, &event.named("message", note.value), out);
}

fn at_most(max: usize, field: &Node<'_, '_>, out: &mut Faults) {
    if field.text().len() > max {
        field.invalid_as(&json!(""), format!("can have at most {max} characters"), out);
    }
}

/// What a later update must leave alone, what it is called in faults, and its shape there.
const FIXED: [(&str, &str, &str); 14] = [
    ("regarding", "involvedObject", "ObjectReference"),
    ("reason", "reason", ""),
    ("note", "message", ""),
    ("deprecatedSource", "source", "EventSource"),
    ("deprecatedFirstTimestamp", "firstTimestamp", ""),
    ("deprecatedLastTimestamp", "lastTimestamp", ""),
    ("deprecatedCount", "count", ""),
    ("reason", "reason", ""),
    ("type", "type", ""),
    ("eventTime", "eventTime", ""),
    ("action", "action", ""),
    ("related", "related", "ObjectReference"),
    ("reportingController", "reportingController", ""),
    ("reportingInstance", "reportingInstance", ""),
];

pub(super) fn update(new: &Node<'_, '_>, old: &Node<'_, '_>, _: &str, out: &mut Faults) {
    legacy(new, out);
    if !is_modern(new) {
        return;
    }
    if !same(new.get("series").value, old.get("series").value) {
        series(new, out);
    }
    for (key, told, shape) in FIXED {
        let (field, before) = (new.get(key), old.get(key));
        if same(field.value, before.value) {
            continue;
        }
        let place = new.named(told, field.value);
        if !field.is_set()
            && before.value.is_string()
            && !told.ends_with("ime")
            && !told.ends_with("Timestamp")
        {
            place.invalid_as(&json!(""), IMMUTABLE, out);
        } else if shape.is_empty() || !field.is_set() {
            place.invalid_or_null(IMMUTABLE, out);
        } else {
            place.invalid_inside(shape, IMMUTABLE, out);
        }
    }
}
