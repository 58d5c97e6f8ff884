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

/// No pod has less than no time to end.
pub(super) fn converted(pod: &mut Value) {
    let grace = &mut pod["spec"]["terminationGracePeriodSeconds"];
    if grace.as_i64().is_some_and(|grace| grace < 0) {
        *grace = json!(1);
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
#[must_use]
pub fn quality_of_service(spec: &Value) -> &'static str {
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
