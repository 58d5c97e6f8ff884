//! Pods: first status, quality of service, affinity keys, and what `resize` may change.

use super::{carry_request_metadata, put};
use crate::quantity::Quantity;
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(super) fn prepare_create(pod: &mut Value) {
    let class = quality_of_service(&pod["spec"]);
    let mut status = json!({"phase": "Pending", "qosClass": class});
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        status["conditions"] = json!([{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "lastProbeTime": null,
            "lastTransitionTime": pod["metadata"]["creationTimestamp"], "message": "Scheduling is blocked due to non-empty scheduling gates",
        }]);
    }
    pod["status"] = status;
    merge_label_keys(pod);
}

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

/// Drops what belongs to features that are off in this version, unless the object has it already: volumes of images with
/// their mounts, and projected bundles of certificates.
pub(super) fn drop_disabled(object: &mut Value, old: Option<&Value>, kind: &str) {
    drop_disabled_fields(object, old, kind);
    let Some(place) = spec_of(kind) else { return };
    let old = old.and_then(|old| old.pointer(place)).unwrap_or(&Value::Null);
    let Some(spec) = object.pointer_mut(place) else { return };
    let is_image = |volume: &Value| !volume["image"].is_null();
    let sources = |volume: &Value| volume["projected"]["sources"].as_array().cloned().unwrap_or_default();
    let is_bundle = |volume: &Value| sources(volume).iter().any(|one| !one["clusterTrustBundle"].is_null());
    let uses = |spec: &Value, is: &dyn Fn(&Value) -> bool| {
        spec["volumes"].as_array().is_some_and(|volumes| volumes.iter().any(is))
    };
    if uses(spec, &is_bundle) && !uses(old, &is_bundle) {
        for volume in spec["volumes"].as_array_mut().into_iter().flatten() {
            let sources = volume.pointer_mut("/projected/sources").and_then(Value::as_array_mut);
            sources.into_iter().flatten().for_each(|source| put(source, "clusterTrustBundle", None));
        }
    }
    if uses(spec, &is_image) && !uses(old, &is_image) {
        drop_volumes(spec, &is_image);
    }
}

/// Drops fields of specs that belong to features that are off.
fn drop_disabled_fields(object: &mut Value, old: Option<&Value>, kind: &str) {
    let fields: &[&str] = match kind {
        "Lease" => &["strategy", "preferredHolder"],
        "PersistentVolume" | "PersistentVolumeClaim" => &["volumeAttributesClassName"],
        _ => return,
    };
    let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else { return };
    let had = |field: &str| old.is_some_and(|old| !old["spec"][field].is_null());
    for field in fields.iter().filter(|field| !had(field)) {
        put(spec, field, None);
    }
    // Nothing is copied from another namespace.
    let elsewhere = spec["dataSourceRef"]["namespace"].as_str().is_some_and(|name| !name.is_empty());
    if kind == "PersistentVolumeClaim" && elsewhere && !had("dataSource") && !had("dataSourceRef") {
        put(spec, "dataSourceRef", None);
    }
}

/// Drops volumes and their mounts.
fn drop_volumes(spec: &mut Value, goes: &dyn Fn(&Value) -> bool) {
    let volumes = spec["volumes"].take();
    let (gone, kept): (Vec<&Value>, Vec<&Value>) =
        volumes.as_array().into_iter().flatten().partition(|volume| goes(volume));
    let gone: Vec<&str> = gone.iter().filter_map(|volume| volume["name"].as_str()).collect();
    put(spec, "volumes", (!kept.is_empty()).then(|| json!(kept)));
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(mounts) = container.get_mut("volumeMounts").and_then(Value::as_array_mut) else {
                continue;
            };
            mounts.retain(|mount| !mount["name"].as_str().is_some_and(|name| gone.contains(&name)));
            if mounts.is_empty() {
                put(container, "volumeMounts", None);
            }
        }
    }
}

/// A pod's single address and its list say the same; who knows only the single one has its word. A host's do not.
pub(super) fn mirror_addresses(status: &mut Value) {
    let first = status["podIPs"].get(0).and_then(|entry| entry["ip"].as_str()).unwrap_or_default().to_owned();
    match status["podIP"].as_str().unwrap_or_default().to_owned() {
        ip if ip == first => {}
        ip if ip.is_empty() => put(status, "podIP", Some(json!(first))),
        ip => put(status, "podIPs", Some(json!([{"ip": ip}]))),
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort`, from the cpu and memory of all containers.
pub(crate) fn quality_of_service(spec: &Value) -> &'static str {
    let mut sums: [BTreeMap<&str, Quantity>; 2] = Default::default();
    let mut guaranteed = true;
    for container in
        ["containers", "initContainers"].iter().filter_map(|list| spec[*list].as_array()).flatten()
    {
        for (sum, key) in sums.iter_mut().zip(["requests", "limits"]) {
            let amounts = &container["resources"][key];
            for name in ["cpu", "memory"] {
                match amounts[name]
                    .as_str()
                    .and_then(|text| Quantity::parse(text).ok())
                    .filter(|amount| !amount.is_zero())
                {
                    Some(amount) => {
                        let total = sum.get(name).map_or(amount, |old| *old + amount);
                        sum.insert(name, total);
                    }
                    None if key == "limits" => guaranteed = false,
                    None => {}
                }
            }
        }
    }
    let [requests, limits] = sums;
    match () {
        () if requests.is_empty() && limits.is_empty() => "BestEffort",
        () if guaranteed && requests == limits => "Guaranteed",
        () => "Burstable",
    }
}

/// `matchLabelKeys` of pod (anti)affinity become requirements on the labels the pod has now.
fn merge_label_keys(pod: &mut Value) {
    let labels = pod["metadata"]["labels"].clone();
    for kind in ["podAffinity", "podAntiAffinity"] {
        let path = format!("/spec/affinity/{kind}");
        let Some(affinity) = pod.pointer_mut(&path) else { continue };
        if let Some(terms) =
            affinity.get_mut("requiredDuringSchedulingIgnoredDuringExecution").and_then(Value::as_array_mut)
        {
            terms.iter_mut().for_each(|term| merge_term(term, &labels));
        }
        if let Some(terms) =
            affinity.get_mut("preferredDuringSchedulingIgnoredDuringExecution").and_then(Value::as_array_mut)
        {
            terms
                .iter_mut()
                .filter_map(|term| term.get_mut("podAffinityTerm"))
                .for_each(|term| merge_term(term, &labels));
        }
    }
}

fn merge_term(term: &mut Value, labels: &Value) {
    if !term["labelSelector"].is_object() {
        return;
    }
    for (keys, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        for key in term[keys].as_array().cloned().unwrap_or_default() {
            let Some(value) = key.as_str().and_then(|key| labels.get(key)) else { continue };
            let requirement = json!({"key": key, "operator": operator, "values": [value]});
            let expressions = &mut term["labelSelector"]["matchExpressions"];
            match expressions.as_array_mut() {
                Some(list) => list.push(requirement),
                None => *expressions = json!([requirement]),
            }
        }
    }
}

/// `resize` takes resources and resize policies, container by container, and nothing else.
pub(super) fn keep_all_but_resources(new: &mut Value, old: &Value) {
    let mut kept = old.clone();
    let named = |pod: &Value, list: &str| -> Vec<Value> {
        pod["spec"][list].as_array().into_iter().flatten().map(|own| own["name"].clone()).collect()
    };
    for list in ["containers", "initContainers"] {
        let (asked, stored) = (named(new, list), named(old, list));
        if asked.len() != stored.len() {
            // Validation has its say about what comes or goes.
            return;
        }
        if asked != stored {
            put(&mut kept["spec"], list, new["spec"].get(list).cloned());
            continue;
        }
        let Some(containers) = kept["spec"].get_mut(list).and_then(Value::as_array_mut) else { continue };
        for (i, container) in containers.iter_mut().enumerate() {
            for key in ["resources", "resizePolicy"] {
                put(container, key, new["spec"][list][i].get(key).cloned());
            }
        }
    }
    carry_request_metadata(&mut kept, new);
    *new = kept;
}
