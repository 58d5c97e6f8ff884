//! The few built-in kinds that are served in another version than they are stored in.
//!
//! In: an object as stored, or as a client sent it. Out: the same in the other version. Both directions lose nothing.

use crate::storage::entry::Entry;
use coracle_api::autoscaling;
use coracle_api::kinds::Kind;
use serde_json::{Value, json};
use std::sync::Arc;

/// Whether objects of a built-in kind are stored in another version.
fn needed(kind: &Kind) -> bool {
    stored_version(kind) != kind.api_version()
}

/// Whether a stored object is told as it is stored.
#[must_use]
pub fn is_plain(kind: &Kind, entry: &Entry) -> bool {
    match &kind.custom {
        // It may have what its schema has lost since, and lack what it has a default for.
        Some(version) => version.read_as(entry.value(), &kind.api_version()).is_none(),
        None => !needed(kind),
    }
}

/// The apiVersion in which `kind` is stored.
#[must_use]
pub fn stored_version(kind: &Kind) -> String {
    match (kind.group.as_str(), kind.kind.as_str()) {
        _ if kind.custom.is_some() => kind.storage_version.clone(),
        (_, "Event") => "v1".to_owned(),
        (_, "HorizontalPodAutoscaler") => "autoscaling/v2".to_owned(),
        _ => kind.api_version(),
    }
}

/// A stored object in the version of `kind`.
#[must_use]
pub fn to(kind: &Kind, stored: &Arc<Value>) -> Arc<Value> {
    if let Some(version) = &kind.custom {
        return version.read_as(stored, &kind.api_version()).map_or_else(|| stored.clone(), Arc::new);
    }
    if !needed(kind) {
        return stored.clone();
    }
    let mut object = stored.as_ref().clone();
    object["apiVersion"] = json!(kind.api_version());
    match kind.kind.as_str() {
        "Event" => {
            rename(&mut object, EVENT_FIELDS);
            // Only the older version writes these when they are empty.
            if let Some(object) = object.as_object_mut() {
                object.retain(|key, value| {
                    !(matches!(key.as_str(), "reportingController" | "reportingInstance") && *value == "")
                });
            }
        }
        "HorizontalPodAutoscaler" => autoscaling::to_v1(&mut object),
        _ => {}
    }
    Arc::new(object)
}

/// A stored object without what only its version adds to its metadata.
#[must_use]
pub fn bare(kind: &Kind, stored: &Arc<Value>) -> Arc<Value> {
    const GENERATION: &str = "deprecated.daemonset.template.generation";
    if kind.kind != "DaemonSet" || !stored["metadata"]["annotations"][GENERATION].is_string() {
        return stored.clone();
    }
    let mut object = stored.as_ref().clone();
    if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
        annotations.remove(GENERATION);
        if annotations.is_empty() {
            coracle_api::meta::remove(&mut object, "annotations");
        }
    }
    Arc::new(object)
}

/// An object in the version of `kind` as it is stored.
#[must_use]
pub fn from(kind: &Kind, mut object: Value) -> Value {
    if let Some(version) = &kind.custom {
        return version.stored_as(object, &stored_version(kind));
    }
    if !needed(kind) {
        return object;
    }
    object["apiVersion"] = json!(stored_version(kind));
    match kind.kind.as_str() {
        "Event" => {
            let back: Vec<(&str, &str)> = EVENT_FIELDS.iter().map(|(core, new)| (*new, *core)).collect();
            rename(&mut object, &back);
        }
        "HorizontalPodAutoscaler" => autoscaling::from_v1(&mut object),
        _ => {}
    }
    object
}

/// Fields of a v1 Event and their names in events.k8s.io/v1.
const EVENT_FIELDS: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn rename(object: &mut Value, fields: &[(&str, &str)]) {
    let Some(object) = object.as_object_mut() else { return };
    for (from, to) in fields {
        if let Some(value) = object.remove(*from) {
            object.insert((*to).to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(group: &str, version: &str, name: &str) -> Kind {
        Kind {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: name.to_owned(),
            plural: String::new(),
            singular: String::new(),
            short_names: Vec::new(),
            categories: Vec::new(),
            namespaced: true,
            verbs: Vec::new(),
            subresources: Vec::new(),
            storage_version: String::new(),
            definition: String::new(),
            custom: None,
        }
    }

    #[test]
    fn events_and_autoscalers_come_back_unchanged() {
        let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "regarding": {"name": "p"}, "note": "n"});
        let of = kind("events.k8s.io", "v1", "Event");
        let stored = from(&of, event.clone());
        assert_eq!(stored["involvedObject"]["name"], "p");
        assert_eq!(to(&of, &Arc::new(stored)).as_ref(), &event);

        let v1 = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
            "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50}, "status": {"currentReplicas": 0, "desiredReplicas": 0}});
        let of = kind("autoscaling", "v1", "HorizontalPodAutoscaler");
        let stored = from(&of, v1.clone());
        assert_eq!(stored["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 50);
        assert_eq!(to(&of, &Arc::new(stored)).as_ref(), &v1);
    }
}
