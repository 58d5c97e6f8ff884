//! What belongs to features that are off in this version, and is dropped unless the object has it already.

use super::put;
use serde_json::{Value, json};
use std::collections::HashSet;

/// Where an object of a kind has a PodSpec.
fn spec_of(kind: &str) -> Option<&'static str> {
    match kind {
        "Pod" => Some("/spec"),
        "PodTemplate" => Some("/template/spec"),
        "Deployment" | "ReplicaSet" | "ReplicationController" | "StatefulSet" | "DaemonSet" | "Job" => {
            Some("/spec/template/spec")
        }
        "CronJob" => Some("/spec/jobTemplate/spec/template/spec"),
        _ => None,
    }
}

/// A feature of a PodSpec.
struct Feature {
    uses: fn(&Value) -> bool,
    drop: fn(&mut Value),
}

/// Projected bundles of certificates, volumes of images with their mounts, resources of whole pods, claims of devices, and
/// signals that stop containers.
const FEATURES: [Feature; 5] = [
    Feature { uses: |spec| any_volume(spec, is_bundle), drop: drop_bundles },
    Feature { uses: |spec| any_volume(spec, is_image), drop: drop_images },
    Feature { uses: |spec| !spec["resources"].is_null(), drop: |spec| put(spec, "resources", None) },
    Feature { uses: has_claims, drop: drop_claims },
    Feature {
        uses: |spec| containers(spec).any(|one| !one["lifecycle"]["stopSignal"].is_null()),
        drop: drop_signals,
    },
];

pub(super) fn drop_disabled(object: &mut Value, old: Option<&Value>, kind: &str) {
    drop_unset(object, old, kind, FIELDS);
    match kind {
        "PersistentVolumeClaim" => drop_foreign_source(object, old),
        "HorizontalPodAutoscaler" => drop_tolerances(object, old),
        "EndpointSlice" => drop_nodes(object, old),
        _ => {}
    }
    let Some(place) = spec_of(kind) else { return };
    let old = old.and_then(|old| old.pointer(place)).unwrap_or(&Value::Null);
    let Some(spec) = object.pointer_mut(place).filter(|spec| spec.is_object()) else { return };
    for feature in FEATURES.iter().filter(|feature| !(feature.uses)(old)) {
        (feature.drop)(spec);
    }
}

/// Fields of features that are off: the kind, where they are, and their names.
const FIELDS: &[(&str, &str, &str)] = &[
    ("Lease", "/spec", "strategy"),
    ("Lease", "/spec", "preferredHolder"),
    ("PersistentVolume", "/spec", "volumeAttributesClassName"),
    ("PersistentVolumeClaim", "/spec", "volumeAttributesClassName"),
    ("CSIDriver", "/spec", "nodeAllocatableUpdatePeriodSeconds"),
    ("StatefulSet", "/spec/updateStrategy/rollingUpdate", "maxUnavailable"),
    ("Node", "/status", "config"),
];
/// The same of statuses.
const STATUS_FIELDS: &[(&str, &str, &str)] = &[
    ("PersistentVolumeClaim", "/status", "currentVolumeAttributesClassName"),
    ("PersistentVolumeClaim", "/status", "modifyVolumeStatus"),
    ("Node", "/status", "config"),
    ("Deployment", "/status", "terminatingReplicas"),
    ("ReplicaSet", "/status", "terminatingReplicas"),
    ("VolumeAttachment", "/status/attachError", "errorCode"),
    ("VolumeAttachment", "/status/detachError", "errorCode"),
];

/// Drops fields that were not set before.
fn drop_unset(new: &mut Value, old: Option<&Value>, kind: &str, fields: &[(&str, &str, &str)]) {
    for (_, place, field) in fields.iter().filter(|(of, ..)| *of == kind) {
        let had = old.and_then(|old| old.pointer(place)).is_some_and(|old| !old[*field].is_null());
        if let Some(holder) = new.pointer_mut(place).filter(|holder| holder.is_object() && !had) {
            put(holder, field, None);
        }
    }
}

/// Drops fields of statuses that belong to features that are off, where they were not set before.
pub(super) fn drop_status_fields(new: &mut Value, old: &Value, kind: &str) {
    drop_unset(new, Some(old), kind, STATUS_FIELDS);
}

/// Drops from a pod's status what belongs to features that are off.
pub(super) fn drop_status(new: &mut Value, old: &Value) {
    let status = &mut new["status"];
    if !has_claims(&old["spec"]) {
        put(status, "resourceClaimStatuses", None);
    }
    for list in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        each(status, list, &|one| put(one, "allocatedResourcesStatus", None));
    }
    let counts = |from: &Value| from["observedGeneration"].as_i64().is_some_and(|number| number != 0);
    let conditions = old["status"]["conditions"].as_array();
    if !counts(&old["status"]) && !conditions.is_some_and(|all| all.iter().any(counts)) {
        put(status, "observedGeneration", None);
        each(status, "conditions", &|one| put(one, "observedGeneration", None));
    }
}

/// Nothing is copied from another namespace.
fn drop_foreign_source(claim: &mut Value, old: Option<&Value>) {
    let had = |field: &str| old.is_some_and(|old| !old["spec"][field].is_null());
    let elsewhere = claim["spec"]["dataSourceRef"]["namespace"].as_str().is_some_and(|name| !name.is_empty());
    if elsewhere && !had("dataSource") && !had("dataSourceRef") {
        put(&mut claim["spec"], "dataSourceRef", None);
    }
}

/// How far metrics may be off before an autoscaler acts.
fn drop_tolerances(object: &mut Value, old: Option<&Value>) {
    const RULES: [&str; 2] = ["scaleUp", "scaleDown"];
    let has = |old: &Value, rules: &str| !old["spec"]["behavior"][rules]["tolerance"].is_null();
    if old.is_some_and(|old| RULES.iter().any(|rules| has(old, rules))) {
        return;
    }
    for rules in RULES {
        if let Some(rules) = object.pointer_mut(&format!("/spec/behavior/{rules}")) {
            put(rules, "tolerance", None);
        }
    }
}

/// The nodes for which an endpoint is best.
fn drop_nodes(slice: &mut Value, old: Option<&Value>) {
    let endpoints = old.and_then(|old| old["endpoints"].as_array()).into_iter().flatten();
    if endpoints.into_iter().any(|endpoint| !endpoint["hints"]["forNodes"].is_null()) {
        return;
    }
    each(slice, "endpoints", &|endpoint| {
        if let Some(hints) = endpoint.get_mut("hints") {
            put(hints, "forNodes", None);
        }
    });
}

const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    CONTAINERS.iter().filter_map(|list| spec[*list].as_array()).flatten()
}

fn each(holder: &mut Value, list: &str, change: &dyn Fn(&mut Value)) {
    let items = holder.get_mut(list).and_then(Value::as_array_mut);
    items.into_iter().flatten().filter(|item| item.is_object()).for_each(change);
}

fn each_container(spec: &mut Value, change: &dyn Fn(&mut Value)) {
    CONTAINERS.iter().for_each(|list| each(spec, list, change));
}

fn any_volume(spec: &Value, is: fn(&Value) -> bool) -> bool {
    spec["volumes"].as_array().is_some_and(|volumes| volumes.iter().any(is))
}

fn is_image(volume: &Value) -> bool {
    !volume["image"].is_null()
}

fn is_bundle(volume: &Value) -> bool {
    let sources = volume["projected"]["sources"].as_array().into_iter().flatten();
    sources.into_iter().any(|one| !one["clusterTrustBundle"].is_null())
}

fn drop_bundles(spec: &mut Value) {
    each(spec, "volumes", &|volume| {
        let sources = volume.pointer_mut("/projected/sources").and_then(Value::as_array_mut);
        sources.into_iter().flatten().for_each(|source| put(source, "clusterTrustBundle", None));
    });
}

fn drop_images(spec: &mut Value) {
    if !any_volume(spec, is_image) {
        return;
    }
    let volumes = spec["volumes"].take();
    let (gone, kept): (Vec<&Value>, Vec<&Value>) =
        volumes.as_array().into_iter().flatten().partition(|volume| is_image(volume));
    let gone: HashSet<&str> = gone.iter().filter_map(|volume| volume["name"].as_str()).collect();
    put(spec, "volumes", (!kept.is_empty()).then(|| json!(kept)));
    each_container(spec, &|container| {
        let Some(mounts) = container.get_mut("volumeMounts").and_then(Value::as_array_mut) else { return };
        mounts.retain(|mount| !mount["name"].as_str().is_some_and(|name| gone.contains(name)));
        if mounts.is_empty() {
            put(container, "volumeMounts", None);
        }
    });
}

/// Containers have claims of their pod only.
fn has_claims(spec: &Value) -> bool {
    spec["resourceClaims"].as_array().is_some_and(|claims| !claims.is_empty())
}

fn drop_claims(spec: &mut Value) {
    put(spec, "resourceClaims", None);
    each_container(spec, &|container| {
        if let Some(resources) = container.get_mut("resources") {
            put(resources, "claims", None);
        }
    });
}

/// What says nothing else of a container's life goes with the signal.
fn drop_signals(spec: &mut Value) {
    each_container(spec, &|container| {
        let Some(lifecycle) = container.get_mut("lifecycle").and_then(Value::as_object_mut) else { return };
        if lifecycle.remove("stopSignal").is_some() && lifecycle.is_empty() {
            put(container, "lifecycle", None);
        }
    });
}
