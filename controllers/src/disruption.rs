//! PodDisruptionBudgets: how many pods may be missed, for whoever evicts.

use crate::context::Context;
use crate::ownership::{selector, selects};
use crate::plan::{POD_DISRUPTION_BUDGET, Plan, status_patch};
use crate::pods;
use coracle_client::controller::Next;
use coracle_client::{Key, ObjectId, Queue, controller_of};
use coracle_daemon::clock;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::core::Selector;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How long a pod that was to be evicted is awaited to go.
const EVICTION_SECONDS: i64 = 120;

pub fn start(ctx: &Context) {
    let queue = Queue::new();
    let wake = queue.clone();
    ctx.stores.budgets.on_change(move |change| wake.add(change.key.clone()));
    let (wake, budgets) = (queue.clone(), ctx.stores.budgets.clone());
    ctx.stores.pods.on_change(move |change| {
        for budget in budgets.list_in(&change.key.namespace) {
            let wanted = wanted(&budget);
            if [&change.old, &change.new]
                .into_iter()
                .flatten()
                .any(|pod| selects(wanted.as_ref(), &pod.metadata))
            {
                wake.add(Key::of(&budget.metadata));
            }
        }
    });
    ctx.control("disruption", queue, 2, |ctx, key| async move {
        let Some(budget) = ctx.stores.budgets.get(&key) else { return Ok(Next::Change) };
        let chosen = wanted(&budget);
        let pods = ctx
            .stores
            .pods
            .list_in(&key.namespace)
            .into_iter()
            .filter(|pod| selects(chosen.as_ref(), &pod.metadata) && !pods::is_finished(pod));
        let pods: Vec<_> = pods.collect();
        let expected = expected(&ctx, &pods);
        ctx.execute(reconcile(&budget, &pods, expected, clock::now()), None).await
    });
}

/// Unlike elsewhere, an empty selector means all pods of the namespace.
fn wanted(budget: &PodDisruptionBudget) -> Option<Selector> {
    let own = budget.spec.as_ref()?.selector.as_ref()?;
    selector(own).or_else(|| Selector::try_from(own.clone()).ok())
}

/// How many pods their controllers want, each controller once; a pod without one counts for itself.
fn expected(ctx: &Context, pods: &[Arc<Pod>]) -> i32 {
    let mut owners: BTreeMap<ObjectId, i32> = BTreeMap::new();
    let mut alone = 0;
    for pod in pods {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let Some(owner) = controller_of(&pod.metadata) else {
            alone += 1;
            continue;
        };
        let key = Key::new(namespace, owner.name.clone());
        let wanted = match owner.kind.as_str() {
            "ReplicaSet" => ctx
                .stores
                .replica_sets
                .get(&key)
                .and_then(|set| set.spec.as_ref().map(|spec| spec.replicas.unwrap_or(1))),
            "StatefulSet" => ctx
                .stores
                .stateful_sets
                .get(&key)
                .and_then(|set| set.spec.as_ref().map(|spec| spec.replicas.unwrap_or(1))),
            _ => None,
        };
        match wanted {
            Some(wanted) => {
                owners.insert(ObjectId { uid: owner.uid.clone(), ..ObjectId::default() }, wanted);
            }
            None => alone += 1,
        }
    }
    owners.values().sum::<i32>() + alone
}

pub fn reconcile(budget: &PodDisruptionBudget, pods: &[Arc<Pod>], expected: i32, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = &budget.spec else { return plan };
    let old = budget.status.clone().unwrap_or_default();
    let desired = match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => (expected - pods::resolve(most, expected, true)).max(0),
        (None, Some(least)) => pods::resolve(least, expected, true),
        (None, None) => 1,
    };
    let mut disrupted = old.disrupted_pods.clone().unwrap_or_default();
    disrupted.retain(|name, since| {
        let there =
            pods.iter().any(|pod| pod.metadata.name.as_ref() == Some(name) && !pods::is_terminating(pod));
        let left = pods::until(since.0, EVICTION_SECONDS, now).filter(|_| there);
        plan.look_again(left);
        left.is_some()
    });
    let is_disrupted =
        |pod: &Pod| pod.metadata.name.as_ref().is_some_and(|name| disrupted.contains_key(name));
    let healthy =
        pods::count(pods, |pod| pods::is_ready(pod) && !pods::is_terminating(pod) && !is_disrupted(pod));
    let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
    let status = PodDisruptionBudgetStatus {
        conditions: Some(vec![condition(&old, allowed, budget.metadata.generation, now)]),
        current_healthy: healthy,
        desired_healthy: desired,
        disrupted_pods: Some(disrupted.clone()).filter(|pods| !pods.is_empty()),
        disruptions_allowed: allowed,
        expected_pods: expected,
        observed_generation: budget.metadata.generation,
    };
    plan.then(status_patch(&POD_DISRUPTION_BUDGET, &budget.metadata, &budget.status, &status));
    plan
}

fn condition(
    old: &PodDisruptionBudgetStatus,
    allowed: i32,
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    let (status, reason) =
        if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let before = old
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "DisruptionAllowed" && condition.status == status);
    Condition {
        type_: "DisruptionAllowed".into(),
        status: status.into(),
        reason: reason.into(),
        message: String::new(),
        last_transition_time: before.map_or(Time(now), |before| before.last_transition_time.clone()),
        observed_generation: generation,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Action;
    use crate::testing::{at, object, pod};
    use serde_json::{Value, json};

    #[expect(clippy::needless_pass_by_value, reason = "tests read better with json! in place")]
    fn allowed(spec: Value, ready: usize, unready: usize) -> i64 {
        let member = |n: usize| {
            let status = if n < ready { "True" } else { "False" };
            Arc::new(pod(
                json!({ "metadata": { "name": format!("p{n}") }, "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": status }] } }),
            ))
        };
        let pods: Vec<_> = (0..ready + unready).map(member).collect();
        let budget: PodDisruptionBudget = object(json!({ "metadata": { "name": "b" }, "spec": spec }));
        let plan =
            reconcile(&budget, &pods, i32::try_from(pods.len()).expect("few"), at("2026-01-01T00:00:00Z"));
        let patch = plan.actions().find_map(|action| match action {
            Action::Patch { patch, .. } => patch["status"]["disruptionsAllowed"].as_i64(),
            _ => None,
        });
        patch.expect("a status is written")
    }

    #[test]
    fn what_may_be_missed_is_what_is_healthy_beyond_what_is_wanted() {
        assert_eq!(allowed(json!({ "minAvailable": 2 }), 3, 0), 1);
        assert_eq!(allowed(json!({ "minAvailable": 2 }), 1, 2), 0);
        assert_eq!(allowed(json!({ "maxUnavailable": 1 }), 3, 0), 1);
        assert_eq!(allowed(json!({ "maxUnavailable": "50%" }), 4, 0), 2);
    }
}
