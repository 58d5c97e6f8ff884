//! Making a Job's pods, and letting them go once they are counted.

use super::count::Tally;
use super::index::{FAILURES, IGNORED_FAILURES};
use super::{BACKOFF_FIRST, BACKOFF_MOST};
use crate::context::Context;
use crate::plan::{Action, POD, Plan};
use crate::pods;
use coracle_client::{Key, ObjectId, Queue, controller_of};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::JobSpec;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use std::time::Duration;

/// Keeps a pod until it is counted.
pub const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// Annotation and label with the pod's completion index.
pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Pods created in one go.
const BURST: usize = 500;

pub fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

/// Nobody counts it: it would be kept for ever. A Job that adopts it keeps it anew.
fn is_abandoned(pod: &Pod) -> bool {
    is_tracked(pod) && controller_of(&pod.metadata).is_none()
}

/// Lets go of pods that have lost their Job.
pub fn start(ctx: &Context) {
    let queue = Queue::new();
    let found = queue.clone();
    ctx.stores.pods.on_change(move |change| {
        if change.new.as_ref().is_some_and(|pod| is_abandoned(pod)) {
            found.add(change.key.clone());
        }
    });
    ctx.control("job-orphan", queue, 1, |ctx, key| async move {
        let mut plan = Plan::default();
        plan.then(ctx.stores.pods.get(&key).filter(|pod| is_abandoned(pod)).map(|pod| untrack(&pod)));
        ctx.execute(plan, None).await
    });
}

pub fn index(pod: &Pod) -> Option<i32> {
    pod.metadata.annotations.as_ref()?.get(INDEX)?.parse().ok()
}

pub fn untrack(pod: &Pod) -> Action {
    let finalizers: Vec<_> =
        pod.metadata.finalizers.iter().flatten().filter(|finalizer| *finalizer != FINALIZER).collect();
    let meta = json!({ "uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version, "finalizers": finalizers });
    Action::Patch {
        resource: &POD,
        key: Key::of(&pod.metadata),
        subresource: "",
        patch: json!({ "metadata": meta }),
    }
}

/// `missing` more pods; for indexed Jobs the lowest indexes that are neither done, given up nor under way. The time: when
/// the next index may be tried that must not be yet.
pub fn create(
    spec: &JobSpec,
    owner: &ObjectId,
    tally: &Tally,
    missing: usize,
    now: Timestamp,
) -> (Vec<Action>, Option<Duration>) {
    let missing = missing.min(BURST);
    if spec.completion_mode.as_deref() != Some("Indexed") {
        let pods = (0..missing).map(|_| pods::create(body(spec, owner, None, tally), owner));
        return (pods.collect(), None);
    }
    let taken = [&tally.done, &tally.given_up, &tally.busy];
    let free =
        (0..spec.completions.unwrap_or(0)).filter(|index| !taken.iter().any(|set| set.contains(index)));
    let (mut actions, mut soonest): (Vec<_>, Option<Duration>) = (Vec::new(), None);
    for index in free.take(missing) {
        match tally.retries.wait(index, BACKOFF_FIRST, BACKOFF_MOST, now) {
            Some(wait) => soonest = Some(soonest.map_or(wait, |known| known.min(wait))),
            None => actions.push(pods::create(body(spec, owner, Some(index), tally), owner)),
        }
    }
    (actions, soonest)
}

fn body(spec: &JobSpec, owner: &ObjectId, index: Option<i32>, tally: &Tally) -> Value {
    let mut pod = pods::from_template(&spec.template, owner);
    let mut finalizers = pod["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    finalizers.push(json!(FINALIZER));
    pod["metadata"]["finalizers"] = json!(finalizers);
    for (label, value) in [("job-name", &owner.name), ("controller-uid", &owner.uid)] {
        pod["metadata"]["labels"][label] = json!(value);
        pod["metadata"]["labels"][format!("batch.kubernetes.io/{label}")] = json!(value);
    }
    let Some(index) = index else { return pod };
    pod["metadata"]["generateName"] = json!(format!("{}-{index}-", owner.name));
    pod["metadata"]["annotations"][INDEX] = json!(index.to_string());
    pod["metadata"]["labels"][INDEX] = json!(index.to_string());
    if spec.backoff_limit_per_index.is_some() {
        let retry = tally.retries.next(index);
        pod["metadata"]["annotations"][FAILURES] = json!(retry.map_or(0, |retry| retry.failures).to_string());
        if let Some(retry) = retry.filter(|retry| retry.ignored > 0) {
            pod["metadata"]["annotations"][IGNORED_FAILURES] = json!(retry.ignored.to_string());
        }
    }
    pod["spec"]["hostname"] = json!(format!("{}-{index}", owner.name));
    let variable = json!({ "name": "JOB_COMPLETION_INDEX", "valueFrom": { "fieldRef": { "fieldPath": format!("metadata.labels['{INDEX}']") } } });
    for list in ["containers", "initContainers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            let mut env = container["env"].as_array().cloned().unwrap_or_default();
            if !env.iter().any(|known| known["name"] == "JOB_COMPLETION_INDEX") {
                env.push(variable.clone());
            }
            container["env"] = json!(env);
        }
    }
    pod
}
