//! One pod: when the taints of its node drive it out, and what becomes of it when the node is gone.

use crate::context::Context;
use crate::node::health::taints;
use crate::plan::{Action, Deletion, POD, Plan};
use crate::pods;
use coracle_client::controller::{Next, ReconcileError};
use coracle_client::placement::tolerates;
use coracle_client::{EventType, Key, ObjectId};
use coracle_daemon::clock;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, PodCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use serde_json::json;
use std::time::Duration;

/// Seconds after which nobody else takes away a pod that ends and has no node.
const LEFT_AFTER: i64 = 20;

/// `node`: that of the pod, if it exists.
pub fn reconcile(pod: &Pod, node: Option<&Node>, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if let Some(ends) = &pod.metadata.deletion_timestamp {
        // No kubelet will ever stop a pod that was never given to one. The apiserver that marks it also takes it away, if it
        // lives that long.
        if pods::node_name(pod).is_empty() {
            match pods::until(ends.0, LEFT_AFTER, now) {
                Some(left) => plan.look_again(Some(left)),
                None => plan.then([remove(pod)]),
            };
        }
        return plan;
    }
    let Some(node) = node.filter(|_| !pods::is_finished(pod)) else { return plan };
    let taints: Vec<_> = taints(node).into_iter().filter(|taint| taint.effect == "NoExecute").collect();
    let Some(leaves) = leaves_at(pod, &taints, now) else { return plan };
    match Duration::try_from(leaves.duration_since(now)).ok().filter(|left| !left.is_zero()) {
        Some(left) => {
            plan.look_again(Some(left));
        }
        None => {
            let key = Key::of(&pod.metadata);
            let message = format!("Marking for deletion Pod {key}");
            plan.then([Action::Event {
                about: ObjectId::of(pod),
                kind: EventType::Normal,
                reason: "TaintManagerEviction",
                message,
            }]);
            plan.then([disrupted(
                pod,
                "DeletionByTaintManager",
                "Taint manager: deleting due to NoExecute taint",
                now,
            )]);
            plan.then([Action::Delete {
                resource: &POD,
                key,
                uid: pod.metadata.uid.clone(),
                how: Deletion::default(),
                owner: None,
            }]);
        }
    }
    plan
}

/// When the pod must go, if ever: at once for a taint that it does not tolerate, else when the shortest toleration ends.
fn leaves_at(pod: &Pod, taints: &[Taint], now: Timestamp) -> Option<Timestamp> {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let mut leaves: Option<Timestamp> = None;
    for taint in taints {
        let tolerating: Vec<_> = tolerations
            .iter()
            .filter(|toleration| tolerates(std::slice::from_ref(*toleration), taint))
            .collect();
        let added = taint.time_added.as_ref().map_or(now, |at| at.0);
        let at = if tolerating.is_empty() {
            now
        } else {
            let Some(seconds) =
                tolerating.iter().filter_map(|toleration| toleration.toleration_seconds).min()
            else {
                continue;
            };
            added.checked_add(jiff::SignedDuration::from_secs(seconds.max(0))).ok()?
        };
        leaves = Some(leaves.map_or(at, |sooner| sooner.min(at)));
    }
    leaves
}

fn disrupted(pod: &Pod, reason: &str, message: &str, now: Timestamp) -> Action {
    let mut conditions = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    conditions.retain(|condition| condition.type_ != "DisruptionTarget");
    conditions.push(PodCondition {
        type_: "DisruptionTarget".into(),
        status: "True".into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_transition_time: Some(Time(now)),
        ..PodCondition::default()
    });
    let patch = json!({ "metadata": { "uid": pod.metadata.uid }, "status": { "conditions": conditions } });
    Action::Patch { resource: &POD, key: Key::of(&pod.metadata), subresource: "status", patch }
}

fn remove(pod: &Pod) -> Action {
    let how = Deletion { background: false, force: true };
    Action::Delete {
        resource: &POD,
        key: Key::of(&pod.metadata),
        uid: pod.metadata.uid.clone(),
        how,
        owner: None,
    }
}

/// How long a pod's node may be missing: a restarted apiserver, or a node that registers anew, is no reason.
const ORPHAN_AFTER: i64 = 40;

/// Whether the pod is old enough that its node cannot merely be unheard of yet.
pub fn may_be_orphan(pod: &Pod) -> bool {
    pod.metadata.creation_timestamp.is_some()
}

/// Removes a pod whose node is gone for good; the apiserver is asked about the node first.
pub async fn remove_orphan(ctx: &Context, pod: &Pod) -> Result<Next, ReconcileError> {
    let now = clock::now();
    let missing_since = pod.metadata.creation_timestamp.as_ref().map_or(now, |at| at.0);
    if let Some(left) = pods::until(missing_since, ORPHAN_AFTER, now) {
        return Ok(Next::After(left));
    }
    let nodes: Api<Node> = Api::all(ctx.client.clone());
    if nodes.get_metadata_opt(pods::node_name(pod)).await?.is_some() {
        return Ok(Next::Change);
    }
    let mut plan = Plan::default();
    if !pods::is_finished(pod) {
        plan.then([disrupted(pod, "DeletionByPodGC", "PodGC: node no longer exists", now)]);
    }
    plan.then([remove(pod)]);
    ctx.execute(plan, None).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, object};
    use serde_json::Value;

    const NOW: &str = "2026-01-01T00:05:00Z";

    /// Seconds until the pod leaves a node that became unreachable at 00:00:00.
    #[expect(clippy::needless_pass_by_value, reason = "tests read better with json! in place")]
    fn leaves_in(tolerations: Value) -> Option<i64> {
        let taint: Taint = object(
            json!({ "key": "unreachable", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z" }),
        );
        let pod: Pod =
            object(json!({ "metadata": {}, "spec": { "containers": [], "tolerations": tolerations } }));
        leaves_at(&pod, &[taint], at(NOW)).map(|leaves| leaves.duration_since(at(NOW)).as_secs())
    }

    #[test]
    fn a_pod_without_a_node_that_was_left_marked_goes() {
        // (when it was to end, its node, actions, seconds until it is looked at again)
        let rows = [
            ("2026-01-01T00:05:00Z", "", 0, Some(20)),
            ("2026-01-01T00:04:41Z", "", 0, Some(1)),
            ("2026-01-01T00:04:40Z", "", 1, None),
            ("2026-01-01T00:04:40Z", "n", 0, None),
        ];
        for (ends, node, actions, again) in rows {
            let pod: Pod =
                object(json!({ "metadata": { "name": "p", "namespace": "d", "deletionTimestamp": ends },
                "spec": { "containers": [], "nodeName": node } }));
            let plan = reconcile(&pod, None, at(NOW));
            let found = (plan.actions().count(), plan.after.map(|delay| delay.as_secs()));
            assert_eq!(found, (actions, again), "{ends} {node}");
        }
    }

    #[test]
    fn a_pod_leaves_when_its_toleration_ends() {
        assert_eq!(leaves_in(json!([])), Some(0));
        assert_eq!(
            leaves_in(json!([{ "key": "unreachable", "operator": "Exists", "tolerationSeconds": 310 }])),
            Some(10)
        );
        assert_eq!(leaves_in(json!([{ "operator": "Exists" }])), None);
        assert_eq!(leaves_in(json!([{ "key": "other", "operator": "Exists" }])), Some(0));
    }
}
