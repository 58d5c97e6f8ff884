//! One node: which conditions and taints it should have, given how long nothing was heard of it.

use super::zone::Evictions;
use crate::plan::{Action, NODE, POD, Plan};
use crate::pods;
use coracle_client::{EventType, Key, ObjectId};
use coracle_daemon::clock::rfc3339_seconds;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// (condition, its status, the taint that goes with it)
const CONDITION_TAINTS: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that only the kubelet knows, and nobody when it is silent.
const KUBELETS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
/// Looking a little late saves looking twice.
const SLACK: Duration = Duration::from_millis(100);

fn conditions(node: &Node) -> &[NodeCondition] {
    node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default()
}

fn ready(node: &Node) -> Option<&NodeCondition> {
    conditions(node).iter().find(|condition| condition.type_ == "Ready")
}

/// Whether its kubelet says that it is.
pub fn is_ready(node: &Node) -> bool {
    ready(node).is_some_and(|ready| ready.status == "True")
}

/// What changes when the kubelet reports.
pub fn heartbeat(node: &Node) -> Option<Timestamp> {
    ready(node).and_then(|ready| ready.last_heartbeat_time.as_ref().map(|at| at.0))
}

/// Whether we said that nothing is known of it.
pub fn is_given_up(node: &Node) -> bool {
    ready(node).is_none_or(|ready| ready.status == "Unknown")
}

pub fn taints(node: &Node) -> Vec<Taint> {
    node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default()
}

pub fn reconcile(
    node: &Node,
    pods: &[Arc<Pod>],
    silent_for: Duration,
    grace: Duration,
    evictions: Evictions,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    let key = Key::of(&node.metadata);
    let silent = silent_for >= grace;
    let mut list = conditions(node).to_vec();
    if silent {
        let changed = give_up(&mut list, now);
        if changed {
            let patch = json!({ "metadata": { "resourceVersion": node.metadata.resource_version }, "status": { "conditions": list } });
            let message = format!("Node {} status is now: NodeNotReady", key.name);
            // The taints follow once the change of status comes back: they need its resourceVersion.
            plan.then([
                Action::Patch { resource: &NODE, key, subresource: "status", patch },
                Action::Event {
                    about: ObjectId::of(node),
                    kind: EventType::Normal,
                    reason: "NodeNotReady",
                    message,
                },
            ]);
            return plan;
        }
    } else {
        plan.look_again(Some(grace - silent_for + SLACK));
    }
    plan.then(taint(node, &list, evictions, now));
    if ready(node).is_some_and(|ready| ready.status != "True") {
        plan.then(pods.iter().filter_map(|pod| mark_unready(pod, now)).flatten());
    }
    plan
}

/// Turns what the kubelet said into Unknown; whether that changed anything.
fn give_up(list: &mut Vec<NodeCondition>, now: Timestamp) -> bool {
    let mut changed = false;
    for kind in KUBELETS {
        let at = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
        match list.iter_mut().find(|condition| condition.type_ == kind) {
            Some(condition) if condition.status == "Unknown" => {}
            Some(condition) => {
                condition.status = "Unknown".into();
                condition.reason = Some("NodeStatusUnknown".into());
                condition.message = Some("Kubelet stopped posting node status.".into());
                condition.last_transition_time = at;
                changed = true;
            }
            None => {
                list.push(NodeCondition {
                    type_: kind.into(),
                    status: "Unknown".into(),
                    reason: Some("NodeStatusNeverUpdated".into()),
                    message: Some("Kubelet never posted node status.".into()),
                    last_heartbeat_time: node_time(now),
                    last_transition_time: at,
                });
                changed = true;
            }
        }
    }
    changed
}

const fn node_time(now: Timestamp) -> Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time> {
    Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now))
}

/// The taints to have, as (key, effect); `None` while the kubelet has not reported yet: it registers with its own.
fn wanted_taints(
    node: &Node,
    list: &[NodeCondition],
    evictions: Evictions,
) -> Vec<(&'static str, &'static str)> {
    let mut wanted = Vec::new();
    let drives =
        |taint: &Taint| taint.effect == "NoExecute" && [NOT_READY, UNREACHABLE].contains(&taint.key.as_str());
    let drives_out = match evictions {
        Evictions::Go => true,
        Evictions::Held => taints(node).iter().any(drives),
        Evictions::Lifted => false,
    };
    for (kind, status, taint) in CONDITION_TAINTS {
        if list.iter().any(|condition| condition.type_ == kind && condition.status == status) {
            wanted.push((taint, "NoSchedule"));
            if kind == "Ready" && drives_out {
                wanted.push((taint, "NoExecute"));
            }
        }
    }
    if node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true)) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    wanted
}

fn taint(node: &Node, list: &[NodeCondition], evictions: Evictions, now: Timestamp) -> Option<Action> {
    ready(node)?;
    let ours = |taint: &Taint| {
        taint.key == UNSCHEDULABLE || CONDITION_TAINTS.iter().any(|(_, _, key)| *key == taint.key)
    };
    let known = taints(node);
    let mut missing = wanted_taints(node, list, evictions);
    let mut kept: Vec<Value> = Vec::new();
    let mut changed = false;
    for taint in &known {
        let at = missing.iter().position(|(key, effect)| *key == taint.key && *effect == taint.effect);
        match at {
            Some(at) => {
                missing.remove(at);
            }
            None if ours(taint) && taint.effect != "PreferNoSchedule" => {
                changed = true;
                continue;
            }
            None => {}
        }
        kept.push(serde_json::to_value(taint).ok()?);
    }
    if !changed && missing.is_empty() {
        return None;
    }
    kept.extend(
        missing
            .iter()
            .map(|(key, effect)| json!({ "key": key, "effect": effect, "timeAdded": rfc3339_seconds(now) })),
    );
    let patch = json!({ "metadata": { "resourceVersion": node.metadata.resource_version }, "spec": { "taints": kept } });
    Some(Action::Patch { resource: &NODE, key: Key::of(&node.metadata), subresource: "", patch })
}

/// A pod of a node that is not ready is not ready, whatever it said last.
fn mark_unready(pod: &Pod, now: Timestamp) -> Option<[Action; 2]> {
    if !pods::is_ready(pod) {
        return None;
    }
    let mut conditions = pod.status.as_ref()?.conditions.clone()?;
    let ready = conditions.iter_mut().find(|condition| condition.type_ == "Ready")?;
    ready.status = "False".into();
    ready.last_transition_time = node_time(now);
    let patch = json!({ "metadata": { "resourceVersion": pod.metadata.resource_version }, "status": { "conditions": conditions } });
    let marked = Action::Patch { resource: &POD, key: Key::of(&pod.metadata), subresource: "status", patch };
    let (about, message) = (ObjectId::of(pod), "Node is not ready".to_owned());
    let told = Action::Event { about, kind: EventType::Warning, reason: "NodeNotReady", message };
    Some([marked, told])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, object};

    const GRACE: Duration = Duration::from_secs(50);

    #[expect(clippy::needless_pass_by_value, reason = "tests read better with json! in place")]
    fn node(ready: &str, taints: Value) -> Node {
        let condition = json!([{ "type": "Ready", "status": ready }]);
        object(
            json!({ "metadata": { "name": "n" }, "spec": { "taints": taints }, "status": { "conditions": condition } }),
        )
    }

    /// What is written, and in how many seconds to look again.
    fn plan(node: &Node, silent: u64) -> (Vec<String>, Option<u64>) {
        plan_where(Evictions::Go, node, silent)
    }

    fn plan_where(evictions: Evictions, node: &Node, silent: u64) -> (Vec<String>, Option<u64>) {
        let now = at("2026-01-01T00:00:00Z");
        let plan = reconcile(node, &[], Duration::from_secs(silent), GRACE, evictions, now);
        let words = plan.actions().filter_map(|action| match action {
            Action::Patch { patch, .. } if patch["status"].is_object() => {
                Some(format!("ready {}", patch["status"]["conditions"][0]["status"]))
            }
            Action::Patch { patch, .. } => {
                let taints = patch["spec"]["taints"].as_array().cloned().unwrap_or_default();
                Some(
                    taints
                        .iter()
                        .map(|taint| format!("{}:{}", taint["key"], taint["effect"]))
                        .collect::<Vec<_>>()
                        .join(" ")
                        .replace('"', ""),
                )
            }
            _ => None,
        });
        (words.collect(), plan.after.map(|after| after.as_secs()))
    }

    #[test]
    fn a_ready_node_loses_its_taint_at_once() {
        let tainted = node(
            "True",
            json!([{ "key": NOT_READY, "effect": "NoSchedule" }, { "key": "mine", "effect": "NoSchedule" }]),
        );
        assert_eq!(plan(&tainted, 0), (vec!["mine:NoSchedule".into()], Some(50)));
    }

    #[test]
    fn a_silent_node_is_given_up_then_tainted() {
        assert_eq!(plan(&node("True", json!([])), 50), (vec!["ready \"Unknown\"".into()], None));
        let mut given_up = node("Unknown", json!([]));
        let status = given_up.status.as_mut().expect("a status");
        give_up(status.conditions.as_mut().expect("conditions"), at("2026-01-01T00:00:00Z"));
        assert_eq!(plan(&given_up, 60).0, [format!("{UNREACHABLE}:NoSchedule {UNREACHABLE}:NoExecute")]);
    }

    #[test]
    fn a_node_of_an_ailing_zone_takes_no_more_pods_and_drives_none_out() {
        let taint = |key: &str, effect: &str| json!({ "key": key, "effect": effect });
        let both = |key: &str| [taint(key, "NoSchedule"), taint(key, "NoExecute")];
        let of = |evictions, ready: &str, taints: Value| plan_where(evictions, &node(ready, taints), 10).0;
        let scheduling = format!("{NOT_READY}:NoSchedule");
        for evictions in [Evictions::Held, Evictions::Lifted] {
            assert_eq!(of(evictions, "False", json!([])), [scheduling.as_str()], "{evictions:?}");
        }
        assert_eq!(of(Evictions::Held, "False", json!(both(NOT_READY))), [""; 0]);
        assert_eq!(of(Evictions::Lifted, "False", json!(both(NOT_READY))), [scheduling]);
        let swapped = format!("{NOT_READY}:NoSchedule {NOT_READY}:NoExecute");
        assert_eq!(of(Evictions::Held, "False", json!(both(UNREACHABLE))), [swapped]);
    }

    #[test]
    fn a_cordoned_node_says_so() {
        let mut cordoned = node("True", json!([]));
        cordoned.spec.as_mut().expect("a spec").unschedulable = Some(true);
        assert_eq!(plan(&cordoned, 10), (vec![format!("{UNSCHEDULABLE}:NoSchedule")], Some(40)));
    }
}
