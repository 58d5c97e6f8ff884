//! Rules of single kinds that fit in a few lines each.

use super::{put, same};
use crate::status::go_quoted;
use serde_json::{Value, json};
use std::collections::HashSet;

const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// DaemonSets count changes of their template in an annotation, a leftover that clients still read.
pub(super) fn template_generation(set: &mut Value, old: Option<&Value>) {
    let stored = |object: &Value| {
        object["metadata"]["annotations"][TEMPLATE_GENERATION]
            .as_str()
            .and_then(|text| text.parse::<i64>().ok())
    };
    let generation = match old {
        None => stored(set).unwrap_or(0).max(1),
        Some(old) => {
            stored(old).unwrap_or(1) + i64::from(!same(&set["spec"]["template"], &old["spec"]["template"]))
        }
    };
    put(&mut set["metadata"]["annotations"], TEMPLATE_GENERATION, Some(json!(generation.to_string())));
}

/// What is wrong with the number that is in the annotation, if it is none.
pub(super) fn wrong_template_generation(set: &Value) -> Option<String> {
    let text = set["metadata"]["annotations"][TEMPLATE_GENERATION].as_str()?;
    text.parse::<i64>().err()?;
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let fault = if is_number { "value out of range" } else { "invalid syntax" };
    Some(format!("strconv.ParseInt: parsing {}: {fault}", go_quoted(text)))
}

/// Who writes the status leaves the template alone, and with it what counts its changes.
pub(super) fn keep_template_generation(set: &mut Value, old: &Value) {
    let kept = old["metadata"]["annotations"].get(TEMPLATE_GENERATION).cloned();
    put(&mut set["metadata"]["annotations"], TEMPLATE_GENERATION, kept);
}

/// Who sends none sends zero.
pub(super) fn told_template_generation(set: &mut Value) {
    let annotations = &mut set["metadata"]["annotations"];
    if annotations.get(TEMPLATE_GENERATION).is_none() {
        put(annotations, TEMPLATE_GENERATION, Some(json!("0")));
    }
}

/// Claims of a set are of one kind, whatever they say themselves.
pub(super) fn claim_templates(set: &mut Value) {
    let claims = set.pointer_mut("/spec/volumeClaimTemplates").and_then(Value::as_array_mut);
    for claim in claims.into_iter().flatten() {
        put(claim, "apiVersion", Some(json!("v1")));
        put(claim, "kind", Some(json!("PersistentVolumeClaim")));
    }
}

/// Version 1 of slices has no topology of its own any more; what older versions left stays until the endpoints change.
pub(super) fn old_topology(slice: &mut Value, old: Option<&Value>) {
    const TOPOLOGY: &str = "deprecatedTopology";
    let old = old.and_then(|old| old["endpoints"].as_array()).into_iter().flatten();
    let known: HashSet<&Value> = old.filter(|endpoint| !endpoint[TOPOLOGY].is_null()).collect();
    let endpoints = slice["endpoints"].as_array_mut();
    for endpoint in endpoints.into_iter().flatten().filter(|endpoint| !known.contains(&**endpoint)) {
        put(endpoint, TOPOLOGY, None);
    }
}

/// The namespace controller removes this finalizer once the namespace is empty.
pub(super) fn namespace(namespace: &mut Value) {
    let spec = &mut namespace["spec"];
    if !spec["finalizers"].is_array() {
        put(spec, "finalizers", Some(json!([])));
    }
    if let Some(finalizers) = spec["finalizers"].as_array_mut()
        && !finalizers.iter().any(|name| name == "kubernetes")
    {
        finalizers.push(json!("kubernetes"));
    }
}

/// The deprecated single CIDR and the list say the same; who knows only the single one has its word.
pub(super) fn node(node: &mut Value) {
    let spec = &mut node["spec"];
    let first = spec["podCIDRs"].get(0).and_then(Value::as_str).unwrap_or_default().to_owned();
    match spec["podCIDR"].as_str().unwrap_or_default().to_owned() {
        cidr if cidr == first => {}
        cidr if cidr.is_empty() => put(spec, "podCIDR", Some(json!(first))),
        cidr => put(spec, "podCIDRs", Some(json!([cidr]))),
    }
}

/// Where a kubelet's settings come from went away; what is there may stay.
pub(super) fn node_config_source(node: &mut Value, old: Option<&Value>) {
    if old.is_none_or(|old| old["spec"]["configSource"].is_null()) {
        put(&mut node["spec"], "configSource", None);
    }
}

/// `lastPhaseTransitionTime` starts with the volume and follows its phase.
pub(super) fn volume_phase_time(volume: &mut Value, old: Option<&Value>) {
    let time = match old {
        None => volume["metadata"].get("creationTimestamp").cloned(),
        Some(old)
            if volume["status"]["phase"] == old["status"]["phase"]
                && volume["status"]["lastPhaseTransitionTime"].is_null() =>
        {
            old["status"].get("lastPhaseTransitionTime").cloned()
        }
        Some(_) => return,
    };
    put(&mut volume["status"], "lastPhaseTransitionTime", time.filter(|time| !time.is_null()));
}

/// The time of a new phase is now, unless the writer tells another one.
pub(super) fn volume_phase_began(volume: &mut Value, old: &Value, now: &str) {
    const TIME: &str = "lastPhaseTransitionTime";
    let (status, before) = (&volume["status"], &old["status"]);
    let told = !status[TIME].is_null() && status[TIME] != before[TIME];
    if status["phase"] != before["phase"] && !told {
        put(&mut volume["status"], TIME, Some(json!(now)));
    }
}

/// `dataSource` and its successor `dataSourceRef` mirror each other where one of them is given.
pub(super) fn claim_data_source(claim: &mut Value, old: Option<&Value>) {
    let given = |spec: &Value, key: &str| spec.get(key).filter(|value| !value.is_null()).cloned();
    let sources = |spec: &Value| (given(spec, "dataSource"), given(spec, "dataSourceRef"));
    let had_one = old.is_some_and(|old| sources(&old["spec"]) != (None, None));
    let spec = &mut claim["spec"];
    match sources(spec) {
        // Clients of old say what nobody knew, and were never refused.
        (Some(source), None) if !had_one && !is_old_source(&source) => put(spec, "dataSource", None),
        (Some(source), None) => put(spec, "dataSourceRef", Some(source)),
        (None, Some(reference)) if reference["namespace"].as_str().is_none_or(str::is_empty) => {
            put(spec, "dataSource", Some(reference));
        }
        _ => {}
    }
}

/// Whether it is one of the two that `dataSource` has always taken.
fn is_old_source(source: &Value) -> bool {
    let text = |key: &str| source[key].as_str().unwrap_or_default();
    matches!(
        (text("apiGroup"), text("kind")),
        ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
    )
}

pub(super) fn secret_names_only(account: &mut Value) {
    for secret in account.get_mut("secrets").and_then(Value::as_array_mut).into_iter().flatten() {
        *secret = match secret.get("name") {
            Some(name) => json!({"name": name}),
            None => json!({}),
        };
    }
}

/// A version that becomes the stored one is noted: objects may lie in the store in any that ever was.
pub(super) fn one_more_stored_version(definition: &mut Value) {
    let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
    let Some(storage) = versions.into_iter().find(|version| version["storage"] == true) else { return };
    let storage = storage["name"].clone();
    let mut stored = definition["status"]["storedVersions"].as_array().cloned().unwrap_or_default();
    if !stored.contains(&storage) {
        stored.push(storage);
        put(&mut definition["status"], "storedVersions", Some(json!(stored)));
    }
}

/// Local ones are available from the start.
pub(super) fn local_api_service(service: &mut Value) {
    if service["spec"]["service"].is_null() {
        let condition = json!({"type": "Available", "status": "True", "reason": "Local",
            "lastTransitionTime": service["metadata"]["creationTimestamp"],
            "message": "Local APIServices are always available"});
        put(&mut service["status"], "conditions", Some(json!([condition])));
    }
}

fn conditions(object: &mut Value) -> Option<&mut Vec<Value>> {
    object.pointer_mut("/status/conditions").and_then(Value::as_array_mut)
}

/// Decisions stay as they were where a status is written: the first approval of the new status is the first of the old one.
pub(super) fn keep_decisions(request: &mut Value, old: &Value) {
    let Some(conditions) = conditions(request) else { return };
    for kind in ["Approved", "Denied"] {
        let before = old["status"]["conditions"].as_array().into_iter().flatten();
        let before = before.filter(|condition| condition["type"] == kind);
        let new = conditions.iter_mut().filter(|condition| condition["type"] == kind);
        new.zip(before).for_each(|(new, old)| new.clone_from(old));
    }
}

/// Conditions of a request for a certificate tell when they came, and when they were last touched.
pub(super) fn condition_times(request: &mut Value, old: &Value, now: &str) {
    let before = old["status"]["conditions"].as_array().cloned().unwrap_or_default();
    for condition in conditions(request).into_iter().flatten() {
        if !condition.is_object() {
            continue;
        }
        if condition["lastUpdateTime"].is_null() {
            condition["lastUpdateTime"] = json!(now);
        }
        if condition["lastTransitionTime"].is_null() {
            let same = before.iter().find(|old| {
                old["type"] == condition["type"]
                    && old["status"] == condition["status"]
                    && !old["lastTransitionTime"].is_null()
            });
            condition["lastTransitionTime"] =
                same.map_or_else(|| json!(now), |old| old["lastTransitionTime"].clone());
        }
    }
}
