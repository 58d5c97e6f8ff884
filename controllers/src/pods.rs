//! What the workload controllers ask of pods: whether they count, how ready they are, which should go first, and how one
//! is made from a template.

use crate::plan::Action;
use crate::plan::POD;
use coracle_client::{Key, ObjectId};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

pub fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

pub fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Neither finished nor going away.
pub fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !is_terminating(pod)
}

pub fn node_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

/// Since when the pod has been ready.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|ready| ready.status == "True")?;
    ready.last_transition_time.as_ref().map(|at| at.0)
}

/// Ready for at least `min_ready` seconds; if not yet, `Err` says in how long, when only time is wanting.
pub fn availability(pod: &Pod, min_ready: i32, now: Timestamp) -> Result<(), Option<Duration>> {
    if !is_ready(pod) {
        return Err(None);
    }
    if min_ready <= 0 {
        return Ok(());
    }
    let Some(since) = ready_since(pod) else { return Err(None) };
    until(since, i64::from(min_ready), now).map_or(Ok(()), |left| Err(Some(left)))
}

/// How long from `now` until `since` is `seconds` ago; `None` once it is.
pub fn until(since: Timestamp, seconds: i64, now: Timestamp) -> Option<Duration> {
    let due = since.checked_add(jiff::SignedDuration::from_secs(seconds)).ok()?;
    Duration::try_from(due.duration_since(now)).ok().filter(|left| !left.is_zero())
}

pub fn restarts(pod: &Pod) -> i32 {
    pod.status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten())
        .map(|container| container.restart_count)
        .max()
        .unwrap_or(0)
}

/// Restarts of all the pod's containers together.
pub fn all_restarts(pod: &Pod) -> i32 {
    let status = pod.status.iter();
    let lists = status.flat_map(|status| [&status.init_container_statuses, &status.container_statuses]);
    lists.flatten().flatten().map(|container| container.restart_count).fold(0, i32::saturating_add)
}

/// Orders pods so that those to be deleted first come first: unassigned, pending, unready, cheap to delete, crowded
/// together on a node, ready for less long, often restarted, young.
pub fn rank_for_deletion(pods: &mut [Arc<Pod>], related: &[Arc<Pod>]) {
    let mut crowd: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| is_active(pod)) {
        *crowd.entry(node_name(pod)).or_default() += 1;
    }
    pods.sort_by_cached_key(|pod| {
        let phase_rank = match phase(pod) {
            "Pending" => 0,
            "Unknown" => 1,
            _ => 2,
        };
        let cost = pod
            .metadata
            .annotations
            .as_ref()
            .and_then(|all| all.get("controller.kubernetes.io/pod-deletion-cost")?.parse::<i32>().ok());
        let crowded = crowd.get(node_name(pod)).copied().unwrap_or_default();
        let assigned = !node_name(pod).is_empty();
        // A later time means less lost: it comes first.
        let ready_since = std::cmp::Reverse(ready_since(pod));
        let created = std::cmp::Reverse(pod.metadata.creation_timestamp.as_ref().map(|at| at.0));
        let order = (assigned, phase_rank, is_ready(pod), cost.unwrap_or(0), std::cmp::Reverse(crowded));
        (order, ready_since, std::cmp::Reverse(restarts(pod)), created, pod.metadata.name.clone())
    });
}

/// An owner reference of the one controller.
pub fn owner_reference(owner: &ObjectId) -> Value {
    json!({
        "apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": owner.uid,
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// A pod's JSON from a template, controlled by `owner`; named by the server after the owner unless renamed.
pub fn from_template(template: &PodTemplateSpec, owner: &ObjectId) -> Value {
    let meta = template.metadata.clone().unwrap_or_default();
    // A name this long would leave no room for the random suffix.
    let prefix: String = owner.name.chars().take(57).collect();
    json!({
        "metadata": {
            "generateName": format!("{prefix}-"), "namespace": owner.namespace,
            "labels": meta.labels.unwrap_or_default(), "annotations": meta.annotations.unwrap_or_default(),
            "finalizers": meta.finalizers.unwrap_or_default(), "ownerReferences": [owner_reference(owner)],
        },
        "spec": template.spec,
    })
}

/// Deletes one of the owner's pods.
pub fn delete(pod: &Pod, owner: &ObjectId) -> Action {
    Action::Delete {
        resource: &POD,
        key: Key::of(&pod.metadata),
        uid: pod.metadata.uid.clone(),
        how: crate::plan::Deletion::default(),
        owner: Some(owner.clone()),
    }
}

/// Creates a pod for the owner.
pub fn create(body: Value, owner: &ObjectId) -> Action {
    Action::Create { resource: &POD, body, owner: Some(owner.clone()) }
}

/// A number or a percentage of `total`.
pub fn resolve(value: &IntOrString, total: i32, round_up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let scaled = percent * i64::from(total);
            let part = if round_up { (scaled + 99).div_euclid(100) } else { scaled.div_euclid(100) };
            i32::try_from(part).unwrap_or(i32::MAX)
        }
    }
}

/// The number, unless it is zero: Kubernetes leaves such fields out.
pub const fn unless_zero(number: i32) -> Option<i32> {
    if number == 0 { None } else { Some(number) }
}

pub fn count(pods: &[Arc<Pod>], holds: impl Fn(&Pod) -> bool) -> i32 {
    i32::try_from(pods.iter().filter(|pod| holds(pod)).count()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, pod};

    fn ranked(pods: &[Value]) -> Vec<String> {
        let mut pods: Vec<_> = pods.iter().map(|value| Arc::new(pod(value.clone()))).collect();
        let related = pods.clone();
        rank_for_deletion(&mut pods, &related);
        pods.iter().filter_map(|pod| pod.metadata.name.clone()).collect()
    }

    fn running(name: &str, node: &str, ready: &str) -> Value {
        json!({
            "metadata": { "name": name }, "spec": { "containers": [], "nodeName": node },
            "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z" }] },
        })
    }

    #[test]
    fn the_least_useful_pod_goes_first() {
        let unassigned = json!({ "metadata": { "name": "unassigned" } });
        let all = [
            running("alone", "b", "True"),
            running("twin-1", "a", "True"),
            running("twin-2", "a", "True"),
            running("unready", "c", "False"),
            unassigned,
        ];
        assert_eq!(ranked(&all), ["unassigned", "unready", "twin-1", "twin-2", "alone"]);
    }

    #[test]
    fn a_cheap_pod_goes_before_a_crowded_one() {
        let mut cheap = running("cheap", "b", "True");
        cheap["metadata"]["annotations"] = json!({ "controller.kubernetes.io/pod-deletion-cost": "-5" });
        assert_eq!(ranked(&[running("x", "a", "True"), running("y", "a", "True"), cheap])[0], "cheap");
    }

    #[test]
    fn percentages_round_as_asked() {
        let quarter = IntOrString::String("25%".into());
        assert_eq!(
            (resolve(&quarter, 3, true), resolve(&quarter, 3, false), resolve(&IntOrString::Int(2), 3, true)),
            (1, 0, 2)
        );
    }

    #[test]
    fn availability_takes_its_time() {
        let pod = pod(running("a", "n", "True"));
        assert_eq!(availability(&pod, 10, at("2026-01-01T00:00:04Z")), Err(Some(Duration::from_secs(6))));
        assert_eq!(availability(&pod, 10, at("2026-01-01T00:00:10Z")), Ok(()));
    }
}
