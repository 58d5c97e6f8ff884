//! Deployments: rolls ReplicaSets from one pod template to the next.
//!
//! In: a Deployment, the ReplicaSets that it controls or might, and (for Recreate) its pods. Out: ReplicaSets to create
//! and scale, revisions to record, old ones to forget, its status.
//!
//!     mod.rs       what is observed, the order of decisions
//!     revision.rs  which ReplicaSet is the current one, its number and annotations
//!     scale.rs     how many replicas each ReplicaSet should have
//!     status.rs    counts and conditions

mod revision;
mod scale;
mod status;

use crate::context::Context;
use crate::ownership::{claim, selector, selects};
use crate::plan::{Action, DEPLOYMENT, Deletion, Plan, REPLICA_SET};
use crate::pods;
use crate::stores::{BY_OWNER, candidates};
use coracle_client::controller::{Next, ReconcileError};
use coracle_client::{EventType, Key, ObjectId, Queue, controller_of};
use coracle_daemon::clock;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use serde_json::json;
use std::sync::Arc;

pub fn start(ctx: &Context) {
    let queue = Queue::new();
    let wake = queue.clone();
    ctx.stores.deployments.on_change(move |change| wake.add(change.key.clone()));
    let (wake, deployments) = (queue.clone(), ctx.stores.deployments.clone());
    ctx.stores.replica_sets.on_change(move |change| {
        for set in [&change.old, &change.new].into_iter().flatten() {
            match controller_of(&set.metadata) {
                Some(owner) if owner.kind == "Deployment" => {
                    wake.add(Key::new(change.key.namespace.clone(), owner.name.clone()));
                }
                Some(_) => {}
                None => {
                    for deployment in deployments.list_in(&change.key.namespace) {
                        let wanted = deployment.spec.as_ref().and_then(|spec| selector(&spec.selector));
                        if selects(wanted.as_ref(), &set.metadata) {
                            wake.add(Key::of(&deployment.metadata));
                        }
                    }
                }
            }
        }
    });
    let (wake, sets) = (queue.clone(), ctx.stores.replica_sets.clone());
    ctx.stores.pods.on_change(move |change| {
        // Recreate waits for the last old pod to go.
        let (Some(pod), None) = (&change.old, &change.new) else { return };
        let Some(owner) = controller_of(&pod.metadata).filter(|owner| owner.kind == "ReplicaSet") else {
            return;
        };
        let set = sets.get(&Key::new(change.key.namespace.clone(), owner.name.clone()));
        if let Some(owner) = set.as_ref().and_then(|set| controller_of(&set.metadata)) {
            wake.add(Key::new(change.key.namespace.clone(), owner.name.clone()));
        }
    });
    ctx.control("deployment", queue, 8, |ctx, key| async move { sync(&ctx, &key).await });
}

async fn sync(ctx: &Context, key: &Key) -> Result<Next, ReconcileError> {
    let Some(deployment) = ctx.stores.deployments.get(key) else { return Ok(Next::Change) };
    let uid = deployment.metadata.uid.as_deref().unwrap_or_default();
    let sets = candidates(&ctx.stores.replica_sets, uid, &key.namespace);
    let pods_of = |set: &ReplicaSet| {
        let pods = ctx.stores.pods.by_index(BY_OWNER, set.metadata.uid.as_deref().unwrap_or_default());
        pods.iter().any(|pod| !pods::is_finished(pod))
    };
    ctx.execute(reconcile(&deployment, sets, pods_of, clock::now()), None).await
}

/// `has_pods`: whether pods of a ReplicaSet still run, going away or not.
pub fn reconcile(
    deployment: &Deployment,
    candidates: Vec<Arc<ReplicaSet>>,
    has_pods: impl Fn(&ReplicaSet) -> bool,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    let (Some(spec), owner) = (&deployment.spec, ObjectId::of(deployment)) else { return plan };
    let Some(wanted) = selector(&spec.selector) else {
        let message = "This deployment is selecting all pods. A non-empty selector is required.".into();
        plan.then([Action::Event {
            about: owner,
            kind: EventType::Warning,
            reason: "SelectingAll",
            message,
        }]);
        return plan;
    };
    let claimed = claim(&REPLICA_SET, &owner, &deployment.metadata, Some(&wanted), candidates, None);
    plan.then(claimed.actions);
    let sets = revision::Sets::sort(deployment, claimed.mine);
    if deployment.metadata.deletion_timestamp.is_some() {
        plan.then(status::update(deployment, &sets, status::Step::Watching, now, &mut None));
        return plan;
    }

    let mut step = status::Step::Watching;
    let paused = spec.paused == Some(true);
    if paused || scale::is_scaled(deployment, &sets) {
        plan.then(scale::scale(deployment, &sets));
    } else if let Some(current) = &sets.current {
        plan.then(revision::keep_current(deployment, &sets, current));
        if is_recreate(deployment) {
            recreate_old(deployment, &sets, &mut plan);
        } else {
            plan.then(scale::roll(deployment, &sets));
        };
        if is_recreate(deployment) && !sets.old.iter().any(|set| has_pods(set)) {
            plan.then(scale::to(deployment, current, scale::wanted(deployment)));
        }
    } else if is_recreate(deployment) && sets.old.iter().any(|set| scale::size(set) > 0 || has_pods(set)) {
        recreate_old(deployment, &sets, &mut plan);
    } else {
        let created = revision::create_current(deployment, &sets);
        step = status::Step::Created(created.name);
        plan.then(created.actions);
    }

    let mut look_again = None;
    plan.then(status::update(deployment, &sets, step, now, &mut look_again));
    plan.look_again(look_again);
    if !paused && status::is_complete(deployment) {
        plan.then(forget_old(deployment, &sets));
    }
    plan
}

fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref()?.type_.as_deref());
    strategy == Some("Recreate")
}

fn recreate_old(deployment: &Deployment, sets: &revision::Sets, plan: &mut Plan) {
    for set in sets.old.iter().filter(|set| scale::size(set) > 0) {
        plan.then(scale::to(deployment, set, 0));
    }
}

/// Deletes the oldest ReplicaSets beyond the history limit.
fn forget_old(deployment: &Deployment, sets: &revision::Sets) -> Vec<Action> {
    let limit = deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
    let mut idle: Vec<_> = sets.old.iter().filter(|set| set.metadata.deletion_timestamp.is_none()).collect();
    let surplus = idle.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    idle.sort_by_key(|set| revision::number(set.as_ref()));
    let empty = |set: &ReplicaSet| {
        let status = set.status.clone().unwrap_or_default();
        scale::size(set) == 0 && status.replicas == 0 && status.observed_generation >= set.metadata.generation
    };
    let gone = idle.into_iter().take(surplus).filter(|set| empty(set));
    gone.map(|set| Action::Delete {
        resource: &REPLICA_SET,
        key: Key::of(&set.metadata),
        uid: set.metadata.uid.clone(),
        how: Deletion { background: true, force: false },
        owner: None,
    })
    .collect()
}

/// Records a revision on the Deployment itself, by its status: through the main resource it would count as a new generation.
fn annotate(deployment: &Deployment, revision: i64) -> Option<Action> {
    let known = deployment.metadata.annotations.as_ref().and_then(|all| all.get(revision::REVISION));
    let wanted = revision.to_string();
    (known != Some(&wanted)).then(|| Action::Patch {
        resource: &DEPLOYMENT,
        key: Key::of(&deployment.metadata),
        subresource: "status",
        patch: json!({ "metadata": { "annotations": { revision::REVISION: wanted } } }),
    })
}

#[cfg(test)]
mod tests;
