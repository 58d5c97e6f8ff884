//! A Deployment's counts and its conditions Available and Progressing.

use super::revision::Sets;
use super::scale::{bounds, size, wanted};
use crate::plan::{Action, DEPLOYMENT, status_patch};
use crate::pods::{unless_zero, until};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::time::Duration;

/// What a reconcile just did, as far as conditions tell of it.
pub enum Step {
    Watching,
    /// Made the ReplicaSet of this name.
    Created(String),
}

/// Whether the status last written says that the rollout is over.
pub fn is_complete(deployment: &Deployment) -> bool {
    let (Some(status), total) = (&deployment.status, wanted(deployment)) else { return false };
    is_done(status, total) && status.observed_generation >= deployment.metadata.generation
}

fn is_done(status: &DeploymentStatus, total: i32) -> bool {
    let [updated, replicas, available] =
        [status.updated_replicas, status.replicas, status.available_replicas].map(|n| n.unwrap_or(0));
    updated == total && replicas == total && available == total
}

/// The status to write, if it differs; `look_again`: when the progress deadline runs out.
pub fn update(
    deployment: &Deployment,
    sets: &Sets,
    step: Step,
    now: Timestamp,
    look_again: &mut Option<Duration>,
) -> Option<Action> {
    let old = deployment.status.clone().unwrap_or_default();
    let mut status = counts(deployment, sets);
    let mut conditions = Conditions { list: old.conditions.clone().unwrap_or_default(), now };
    let (total, available) = (wanted(deployment), status.available_replicas.unwrap_or(0));
    if available >= total - bounds(deployment).1 {
        conditions.set(
            "Available",
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        );
    } else {
        conditions.set(
            "Available",
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        );
    }
    progress(deployment, sets, step, (&old, &status), &mut conditions, look_again);
    conditions.list.retain(|condition| condition.type_ != "ReplicaFailure");
    conditions.list.extend(refusal(sets));
    status.conditions = Some(conditions.list);
    status_patch(&DEPLOYMENT, &deployment.metadata, &deployment.status, &status)
}

/// What keeps pods from being made, as the newest ReplicaSet that says so tells it.
fn refusal(sets: &Sets) -> Option<DeploymentCondition> {
    let of = |set: &std::sync::Arc<k8s_openapi::api::apps::v1::ReplicaSet>| {
        let conditions = set.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|condition| condition.type_ == "ReplicaFailure").cloned()
    };
    let told = sets.current.as_ref().and_then(of).or_else(|| sets.old.iter().rev().find_map(of))?;
    Some(DeploymentCondition {
        type_: told.type_,
        status: told.status,
        reason: told.reason,
        message: told.message,
        last_update_time: told.last_transition_time.clone(),
        last_transition_time: told.last_transition_time,
    })
}

fn counts(deployment: &Deployment, sets: &Sets) -> DeploymentStatus {
    let status =
        |set: &std::sync::Arc<k8s_openapi::api::apps::v1::ReplicaSet>| set.status.clone().unwrap_or_default();
    let sum = |count: fn(&ReplicaSetStatus) -> i32| sets.all().map(|set| count(&status(set))).sum::<i32>();
    let available = sum(|status| status.available_replicas.unwrap_or(0));
    let asked: i32 = sets.all().map(|set| size(set)).sum();
    DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: unless_zero(sum(|status| status.replicas)),
        updated_replicas: unless_zero(sets.current.as_ref().map_or(0, |set| status(set).replicas)),
        ready_replicas: unless_zero(sum(|status| status.ready_replicas.unwrap_or(0))),
        available_replicas: unless_zero(available),
        unavailable_replicas: unless_zero((asked - available).max(0)),
        collision_count: deployment.status.as_ref().and_then(|status| status.collision_count),
        conditions: None,
        ..DeploymentStatus::default()
    }
}

fn progress(
    deployment: &Deployment,
    sets: &Sets,
    step: Step,
    (old, new): (&DeploymentStatus, &DeploymentStatus),
    conditions: &mut Conditions,
    look_again: &mut Option<Duration>,
) {
    let spec = deployment.spec.clone().unwrap_or_default();
    let Some(deadline) = spec.progress_deadline_seconds.filter(|seconds| *seconds < i32::MAX) else {
        conditions.list.retain(|condition| condition.type_ != "Progressing");
        return;
    };
    if let Step::Created(name) = step {
        conditions.touch("True", "NewReplicaSetCreated", &format!("Created new replica set \"{name}\""));
        return;
    }
    let reason = conditions.reason("Progressing");
    if spec.paused == Some(true) {
        if reason.as_deref() != Some("DeploymentPaused") {
            conditions.touch("Unknown", "DeploymentPaused", "Deployment is paused");
        }
        return;
    }
    if reason.as_deref() == Some("DeploymentPaused") {
        conditions.touch("Unknown", "DeploymentResumed", "Deployment is resumed");
    }
    let name = sets.current.as_ref().and_then(|set| set.metadata.name.clone());
    let what = name.map_or_else(
        || format!("Deployment \"{}\"", deployment.metadata.name.as_deref().unwrap_or_default()),
        |name| format!("ReplicaSet \"{name}\""),
    );
    if reason.as_deref() == Some("NewReplicaSetAvailable") && new.replicas == new.updated_replicas {
        // A finished rollout stays finished while its pods come and go.
        return;
    }
    if is_done(new, wanted(deployment)) {
        conditions.set(
            "Progressing",
            "True",
            "NewReplicaSetAvailable",
            &format!("{what} has successfully progressed."),
        );
    } else if has_progressed(old, new) || reason.is_none() {
        conditions.touch("True", "ReplicaSetUpdated", &format!("{what} is progressing."));
        *look_again = Some(Duration::from_secs(u64::try_from(deadline).unwrap_or(0) + 1));
    } else {
        let since = conditions.updated("Progressing").unwrap_or(conditions.now);
        match until(since, i64::from(deadline), conditions.now) {
            Some(left) => *look_again = Some(left + Duration::from_secs(1)),
            None => conditions.set(
                "Progressing",
                "False",
                "ProgressDeadlineExceeded",
                &format!("{what} has timed out progressing."),
            ),
        }
    }
}

fn has_progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let n = |count: Option<i32>| count.unwrap_or(0);
    let outdated = |status: &DeploymentStatus| n(status.replicas) - n(status.updated_replicas);
    n(new.updated_replicas) > n(old.updated_replicas)
        || outdated(new) < outdated(old)
        || n(new.ready_replicas) > n(old.ready_replicas)
        || n(new.available_replicas) > n(old.available_replicas)
}

struct Conditions {
    list: Vec<DeploymentCondition>,
    now: Timestamp,
}

impl Conditions {
    fn find(&self, kind: &str) -> Option<&DeploymentCondition> {
        self.list.iter().find(|condition| condition.type_ == kind)
    }

    fn reason(&self, kind: &str) -> Option<String> {
        self.find(kind).and_then(|condition| condition.reason.clone())
    }

    fn updated(&self, kind: &str) -> Option<Timestamp> {
        self.find(kind).and_then(|condition| condition.last_update_time.as_ref().map(|at| at.0))
    }

    /// Sets a condition unless it says the same already.
    fn set(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let same =
            self.find(kind).is_some_and(|old| old.status == status && old.reason.as_deref() == Some(reason));
        if !same {
            self.write(kind, status, reason, message);
        }
    }

    /// Sets Progressing even when it says the same: the deadline counts from here.
    fn touch(&mut self, status: &str, reason: &str, message: &str) {
        self.write("Progressing", status, reason, message);
    }

    fn write(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let since = self
            .find(kind)
            .filter(|old| old.status == status)
            .and_then(|old| old.last_transition_time.clone());
        let condition = DeploymentCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_update_time: Some(Time(self.now)),
            last_transition_time: since.or(Some(Time(self.now))),
        };
        match self.list.iter_mut().find(|old| old.type_ == kind) {
            Some(old) => *old = condition,
            None => self.list.push(condition),
        }
    }
}
