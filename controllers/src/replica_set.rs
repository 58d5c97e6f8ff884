//! ReplicaSets: as many pods as asked for, no more.
//!
//! In: a ReplicaSet and the pods that it controls or might. Out: adoptions, pods to create or delete, its status.

use crate::context::Context;
use crate::execute::Tracked;
use crate::expectations::Expectations;
use crate::ownership::{claim, selector};
use crate::plan::{Action, Plan, REPLICA_SET, Resource, status_patch};
use crate::pods::{self, unless_zero};
use crate::stores::candidates;
use crate::wake::owners_of_pods;
use coracle_client::controller::{Next, ReconcileError};
use coracle_client::{Key, ObjectId, Queue};
use coracle_daemon::clock;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::sync::Arc;

/// Pods created or deleted in one go.
const BURST: usize = 500;

pub fn start(ctx: &Context) {
    let (queue, expectations) = (Queue::new(), Arc::new(Expectations::default()));
    let wake = queue.clone();
    ctx.stores.replica_sets.on_change(move |change| wake.add(change.key.clone()));
    owners_of_pods(&ctx.stores.pods, &queue, "ReplicaSet", &expectations, &ctx.stores.replica_sets, |set| {
        Some(selector(&set.spec.as_ref()?.selector))
    });
    ctx.control("replicaset", queue, 8, move |ctx, key| {
        let expectations = expectations.clone();
        async move {
            let Some(set) = ctx.stores.replica_sets.get(&key) else { return Ok(Next::Change) };
            sync(&ctx, &REPLICA_SET, &set, &expectations).await
        }
    });
}

/// `resource`: what the set is stored as; a ReplicationController is a set of another name.
pub async fn sync(
    ctx: &Context,
    resource: &'static Resource,
    set: &ReplicaSet,
    expectations: &Expectations,
) -> Result<Next, ReconcileError> {
    let (key, uid) = (Key::of(&set.metadata), set.metadata.uid.as_deref().unwrap_or_default());
    let of = || candidates(&ctx.stores.pods, uid, &key.namespace);
    let work = Work::Change { settled: expectations.are_met(&key) };
    let plan = reconcile(resource, set, of(), work, clock::now());
    let done = ctx.execute(plan, Some(Tracked { expectations, owner: &key })).await;
    if let Err(ReconcileError::Api(kube::Error::Api(refusal))) = &done
        && matches!(refusal.code, 403 | 422)
    {
        let told = reconcile(resource, set, of(), Work::Refused(&refusal.message), clock::now());
        ctx.execute(told, None).await?;
    }
    done
}

/// What a reconcile may do besides counting.
#[derive(Clone, Copy)]
pub enum Work<'a> {
    /// Create and delete pods. `settled`: whether the cache shows all that was done before; without it they are only counted.
    Change { settled: bool },
    /// Tell that the API refused the last change, with this message.
    Refused(&'a str),
}

pub fn reconcile(
    resource: &'static Resource,
    set: &ReplicaSet,
    candidates: Vec<Arc<Pod>>,
    work: Work<'_>,
    now: Timestamp,
) -> Plan {
    let Some(spec) = &set.spec else { return Plan::default() };
    let owner =
        ObjectId { api_version: resource.api_version(), kind: resource.kind.into(), ..ObjectId::of(set) };
    let wanted = selector(&spec.selector);
    let active = candidates.into_iter().filter(|pod| pods::is_active(pod)).collect();
    let claimed = claim(&crate::plan::POD, &owner, &set.metadata, wanted.as_ref(), active, None);
    let mine = claimed.mine;
    let mut plan = Plan::default();
    plan.then(claimed.actions);

    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let availability: Vec<_> = mine.iter().map(|pod| pods::availability(pod, min_ready, now)).collect();
    plan.look_again(availability.iter().filter_map(|available| available.err().flatten()).min());
    if matches!(work, Work::Change { settled: true }) && set.metadata.deletion_timestamp.is_none() {
        plan.then(changes(set, &owner, &mine));
    }
    let available = availability.iter().filter(|available| available.is_ok()).count();
    let mut status = status(set, &mine, available);
    if let Work::Refused(message) = work {
        let too_few = status.replicas < spec.replicas.unwrap_or(1);
        tell_refusal(&mut status, if too_few { "FailedCreate" } else { "FailedDelete" }, message, now);
    }
    plan.then(status_patch(resource, &set.metadata, &set.status, &status));
    plan
}

/// The pods to create or delete.
fn changes(set: &ReplicaSet, owner: &ObjectId, mine: &[Arc<Pod>]) -> Vec<Action> {
    let Some(spec) = &set.spec else { return Vec::new() };
    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    if mine.len() < wanted {
        let Some(template) = &spec.template else { return Vec::new() };
        let body = pods::from_template(template, owner);
        return (mine.len()..wanted).take(BURST).map(|_| pods::create(body.clone(), owner)).collect();
    }
    let mut ranked = mine.to_vec();
    pods::rank_for_deletion(&mut ranked, mine);
    ranked.iter().take((mine.len() - wanted).min(BURST)).map(|pod| pods::delete(pod, owner)).collect()
}

fn status(set: &ReplicaSet, mine: &[Arc<Pod>], available: usize) -> ReplicaSetStatus {
    let old = set.status.clone().unwrap_or_default();
    let labels = set
        .spec
        .as_ref()
        .and_then(|spec| spec.template.as_ref()?.metadata.as_ref()?.labels.clone())
        .unwrap_or_default();
    let fully_labeled = |pod: &Pod| {
        let own = pod.metadata.labels.clone().unwrap_or_default();
        labels.iter().all(|(key, value)| own.get(key) == Some(value))
    };
    let wanted = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let mut conditions = old.conditions.clone().unwrap_or_default();
    if pods::count(mine, |_| true) == wanted {
        conditions.retain(|condition| condition.type_ != "ReplicaFailure");
    }
    ReplicaSetStatus {
        replicas: pods::count(mine, |_| true),
        fully_labeled_replicas: unless_zero(pods::count(mine, fully_labeled)),
        ready_replicas: unless_zero(pods::count(mine, pods::is_ready)),
        available_replicas: unless_zero(i32::try_from(available).unwrap_or(i32::MAX)),
        observed_generation: set.metadata.generation,
        conditions: Some(conditions).filter(|conditions| !conditions.is_empty()),
        ..old
    }
}

/// Says that pods cannot be created or deleted.
fn tell_refusal(status: &mut ReplicaSetStatus, reason: &str, message: &str, now: Timestamp) {
    let conditions = status.conditions.get_or_insert_default();
    let before = conditions.iter().find(|condition| condition.type_ == "ReplicaFailure");
    if before.is_some_and(|before| before.reason.as_deref() == Some(reason)) {
        return;
    }
    conditions.retain(|condition| condition.type_ != "ReplicaFailure");
    conditions.push(ReplicaSetCondition {
        type_: "ReplicaFailure".into(),
        status: "True".into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_transition_time: Some(Time(now)),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, object, pod};
    use serde_json::{Value, json};

    fn set(replicas: i32) -> ReplicaSet {
        object(json!({
            "metadata": { "name": "rs", "namespace": "ns", "uid": "u", "generation": 2 },
            "spec": { "replicas": replicas, "selector": { "matchLabels": { "a": "b" } }, "template": { "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [] } } },
        }))
    }

    fn owned(name: &str, phase: &str) -> Value {
        let owner = json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "u", "controller": true }]);
        json!({ "metadata": { "name": name, "namespace": "ns", "uid": name, "labels": { "a": "b" }, "ownerReferences": owner }, "status": { "phase": phase } })
    }

    /// The plan in words: `+` a pod created, `-x` one deleted, the status' replicas.
    fn plan(replicas: i32, pods: &[Value], settled: bool) -> Vec<String> {
        let pods = pods.iter().map(|value| Arc::new(pod(value.clone()))).collect();
        let work = Work::Change { settled };
        let plan = reconcile(&REPLICA_SET, &set(replicas), pods, work, at("2026-01-01T00:00:00Z"));
        let words = plan.actions().map(|action| match action {
            Action::Create { .. } => "+".to_owned(),
            Action::Delete { key, .. } => format!("-{}", key.name),
            Action::Patch { patch, .. } => format!("status {}", patch["status"]["replicas"]),
            other => format!("{other:?}"),
        });
        words.collect()
    }

    #[test]
    fn missing_pods_are_created_and_finished_ones_replaced() {
        assert_eq!(plan(3, &[owned("a", "Running"), owned("b", "Failed")], true), ["+", "+", "status 1"]);
    }

    #[test]
    fn surplus_pods_go_pending_first() {
        assert_eq!(plan(1, &[owned("a", "Running"), owned("b", "Pending")], true), ["-b", "status 2"]);
    }

    #[test]
    fn nothing_is_done_on_a_stale_view() {
        assert_eq!(plan(3, &[owned("a", "Running")], false), ["status 1"]);
    }

    #[test]
    fn a_refusal_is_told_with_the_counts_and_forgotten_when_all_are_there() {
        let now = at("2026-01-01T00:00:00Z");
        let pods = vec![Arc::new(pod(owned("a", "Running")))];
        let plan = reconcile(&REPLICA_SET, &set(2), pods.clone(), Work::Refused("exceeded quota"), now);
        let Some(Action::Patch { patch, .. }) = plan.actions().next() else { panic!("told") };
        assert_eq!(
            (&patch["status"]["replicas"], &patch["status"]["conditions"][0]["reason"]),
            (&json!(1), &json!("FailedCreate"))
        );
        let mut refused = set(1);
        let mut status = refused.status.clone().unwrap_or_default();
        tell_refusal(&mut status, "FailedCreate", "exceeded quota", now);
        refused.status = Some(status);
        let plan = reconcile(&REPLICA_SET, &refused, pods, Work::Change { settled: true }, now);
        let Some(Action::Patch { patch, .. }) = plan.actions().next() else { panic!("told") };
        assert_eq!(patch["status"]["conditions"], Value::Null);
    }
}
