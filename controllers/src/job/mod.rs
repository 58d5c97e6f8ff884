//! Jobs: pods that run to their end, a given number of times.
//!
//! In: a Job and its pods. Out: pods to create and delete, the counts, the end. A pod is counted once and for all:
//!
//!     finished pod ──► named in status.uncountedTerminatedPods ──► its finalizer removed ──► added to the counts
//!
//! so that neither a crash of ours nor the deletion of a pod ever counts it twice or not at all.
//!
//!     mod.rs    order of decisions       count.rs  which pods count, and how       pod.rs  making pods

mod count;
mod cron;
mod pod;
mod policy;
mod ttl;

use crate::context::Context;
use crate::expectations::Expectations;
use crate::plan::{JOB, Plan, Tracked, status_patch};
use crate::pods;
use crate::stores::BY_OWNER;
use crate::wake::owners_of_pods;
use coracle_client::controller::{Next, ReconcileError};
use coracle_client::{EventType, Key, ObjectId, Queue, controller_of};
use coracle_daemon::clock;
use count::Tally;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::sync::Arc;
use std::time::Duration;

/// The wait after a first failed pod, doubled for each further one, and the longest.
const BACKOFF_FIRST: Duration = Duration::from_secs(10);
const BACKOFF_MOST: Duration = Duration::from_secs(600);

pub fn start(ctx: &Context) {
    let (queue, expectations) = (Queue::new(), Arc::new(Expectations::default()));
    let wake = queue.clone();
    ctx.stores.jobs.on_change(move |change| wake.add(change.key.clone()));
    owners_of_pods(&ctx.stores.pods, &queue, "Job", &expectations, &ctx.stores.jobs, |job| {
        job.spec.as_ref()?.selector.as_ref()
    });
    ctx.control("job", queue, 8, move |ctx, key| {
        let expectations = expectations.clone();
        async move { sync(&ctx, &key, &expectations).await }
    });
    ttl::start(ctx);
    cron::start(ctx);
}

async fn sync(ctx: &Context, key: &Key, expectations: &Expectations) -> Result<Next, ReconcileError> {
    let Some(job) = ctx.stores.jobs.get(key) else {
        return ctx.execute(let_go(key, &ctx.stores.pods.list_in(&key.namespace)), None).await;
    };
    let pods = ctx.stores.pods.by_index(BY_OWNER, job.metadata.uid.as_deref().unwrap_or_default());
    let plan = reconcile(&job, &pods, expectations.are_met(key), clock::now());
    ctx.execute(plan, Some(Tracked { expectations, owner: key })).await
}

/// The pods of a Job that is gone: nobody will count them, so nothing may keep them.
fn let_go(key: &Key, pods: &[Arc<Pod>]) -> Plan {
    let mut plan = Plan::default();
    let is_left = |pod: &&Arc<Pod>| {
        let owner = controller_of(&pod.metadata);
        pod::is_tracked(pod) && owner.is_some_and(|owner| owner.kind == "Job" && owner.name == key.name)
    };
    plan.then(pods.iter().filter(is_left).map(|pod| pod::untrack(pod)));
    plan
}

pub fn condition<'a>(job: &'a Job, kind: &str) -> Option<&'a JobCondition> {
    job.status
        .as_ref()?
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == kind && condition.status == "True")
}

/// When the Job ended, if it did.
pub fn finished_at(job: &Job) -> Option<Timestamp> {
    let ended = condition(job, "Complete").or_else(|| condition(job, "Failed"))?;
    ended.last_transition_time.as_ref().map(|at| at.0)
}

/// Why Jobs fail.
const REASONS: [&str; 3] = ["BackoffLimitExceeded", "DeadlineExceeded", "PodFailurePolicy"];

/// How a Job ends: reason and message.
type End = (&'static str, String);

pub fn reconcile(job: &Job, pods: &[Arc<Pod>], settled: bool, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = &job.spec else { return plan };
    let owner = ObjectId::of(job);
    if finished_at(job).is_some() || job.metadata.deletion_timestamp.is_some() {
        plan.then(pods.iter().filter(|pod| pod::is_tracked(pod)).map(|pod| pod::untrack(pod)));
        return plan;
    }
    let tally = Tally::of(job, spec, pods);
    let mut status = tally.status.clone();
    let suspended = spec.suspend == Some(true);
    suspend_or_resume(&mut status, suspended, now);
    if status.start_time.is_none() && !suspended {
        status.start_time = Some(Time(now));
    }
    let failure = failure(job, spec, &tally, pods, status.start_time.as_ref().map(|at| at.0), now, &mut plan);
    let success = failure.is_none() && is_done(spec, &tally);
    let active: Vec<_> = pods.iter().filter(|pod| pods::is_active(pod)).collect();

    if settled && (failure.is_some() || success || suspended) {
        plan.then(active.iter().map(|pod| pods::delete(pod, &owner)));
    } else if settled {
        let (actions, left) = changes(spec, &owner, &tally, &active, now);
        plan.then(actions);
        plan.look_again(left);
    }
    // The pods that decided it may be gone before the end: what they decided is kept.
    if let Some((reason, message)) = failure.as_ref().filter(|_| condition(job, "FailureTarget").is_none()) {
        set(&mut status, "FailureTarget", "True", reason, message, now);
    }
    plan.then(tally.untrack.iter().map(|pod| pod::untrack(pod)));
    if active.is_empty() && tally.is_settled() {
        let event = if let Some((reason, message)) = &failure {
            end(&mut status, "FailureTarget", "Failed", reason, message, now);
            Some((EventType::Warning, *reason, message.clone()))
        } else if success {
            end(
                &mut status,
                "SuccessCriteriaMet",
                "Complete",
                "CompletionsReached",
                "Reached expected number of succeeded pods",
                now,
            );
            status.completion_time = Some(Time(now));
            Some((EventType::Normal, "Completed", "Job completed".to_owned()))
        } else {
            None
        };
        plan.then(event.map(|(kind, reason, message)| crate::plan::Action::Event {
            about: owner,
            kind,
            reason,
            message,
        }));
    }
    plan.then(status_patch(&JOB, &job.metadata, &job.status, &status));
    plan
}

fn is_done(spec: &JobSpec, tally: &Tally) -> bool {
    match spec.completions {
        Some(wanted) => tally.succeeded >= wanted,
        None => tally.succeeded > 0 && tally.active == 0,
    }
}

fn failure(
    job: &Job,
    spec: &JobSpec,
    tally: &Tally,
    pods: &[Arc<Pod>],
    started: Option<Timestamp>,
    now: Timestamp,
    plan: &mut Plan,
) -> Option<End> {
    if let Some(target) = condition(job, "FailureTarget") {
        let reason =
            REASONS.into_iter().find(|reason| target.reason.as_deref() == Some(reason)).unwrap_or(REASONS[0]);
        return Some((reason, target.message.clone().unwrap_or_default()));
    }
    if let Some(message) = &tally.forbidden_failure {
        return Some(("PodFailurePolicy", message.clone()));
    }
    let limit = spec.backoff_limit.unwrap_or(6);
    let in_place =
        spec.template.spec.as_ref().and_then(|pod| pod.restart_policy.as_deref()) == Some("OnFailure");
    let restarts: i32 =
        pods.iter().filter(|pod| in_place && pods::is_active(pod)).map(|pod| pods::restarts(pod)).sum();
    if tally.failed > limit || (restarts > 0 && restarts >= limit) {
        return Some(("BackoffLimitExceeded", "Job has reached the specified backoff limit".into()));
    }
    if let (Some(deadline), Some(started), false) =
        (spec.active_deadline_seconds, started, spec.suspend == Some(true))
    {
        match pods::until(started, deadline, now) {
            None => {
                return Some(("DeadlineExceeded", "Job was active longer than specified deadline".into()));
            }
            left => {
                plan.look_again(left);
            }
        }
    }
    None
}

/// Pods to create, or to delete when there are too many; and when to look again, if it is too early for more.
fn changes(
    spec: &JobSpec,
    owner: &ObjectId,
    tally: &Tally,
    active: &[&Arc<Pod>],
    now: Timestamp,
) -> (Vec<crate::plan::Action>, Option<Duration>) {
    let parallelism = spec.parallelism.unwrap_or(1);
    let wanted = match spec.completions {
        Some(completions) => parallelism.min(completions - tally.succeeded),
        None if tally.succeeded > 0 => tally.active.min(parallelism),
        None => parallelism,
    };
    let missing = wanted.max(0) - tally.active;
    if missing < 0 {
        let mut ranked: Vec<_> = active.iter().map(|pod| Arc::clone(pod)).collect();
        let related = ranked.clone();
        pods::rank_for_deletion(&mut ranked, &related);
        let surplus = ranked.iter().take(usize::try_from(-missing).unwrap_or(0));
        return (surplus.map(|pod| pods::delete(pod, owner)).collect(), None);
    }
    match tally.backoff_left(BACKOFF_FIRST, BACKOFF_MOST, now).filter(|_| missing > 0) {
        Some(left) => (Vec::new(), Some(left)),
        None => (pod::create(spec, owner, tally, usize::try_from(missing).unwrap_or(0)), None),
    }
}

fn suspend_or_resume(status: &mut JobStatus, suspended: bool, now: Timestamp) {
    let is_suspended = status
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == "Suspended" && condition.status == "True");
    if suspended && !is_suspended {
        set(status, "Suspended", "True", "JobSuspended", "Job suspended", now);
        status.start_time = None;
    } else if !suspended && is_suspended {
        set(status, "Suspended", "False", "JobResumed", "Job resumed", now);
    }
}

fn end(status: &mut JobStatus, target: &str, kind: &str, reason: &str, message: &str, now: Timestamp) {
    set(status, target, "True", reason, message, now);
    set(status, kind, "True", reason, message, now);
}

fn set(status: &mut JobStatus, kind: &str, value: &str, reason: &str, message: &str, now: Timestamp) {
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != kind);
    conditions.push(JobCondition {
        type_: kind.into(),
        status: value.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    });
}

#[cfg(test)]
mod tests;
