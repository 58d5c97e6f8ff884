//! Jobs: pods that run to their end, a given number of times.
//!
//! In: a Job and its pods. Out: pods to create and delete, the counts, the end. A pod is counted once and for all:
//!
//!     finished pod ──► named in status.uncountedTerminatedPods ──► its finalizer removed ──► added to the counts
//!
//! so that neither a crash of ours nor the deletion of a pod ever counts it twice or not at all.
//!
//!     mod.rs      order of decisions                   count.rs  which pods count, and how
//!     outcome.rs  what ends a Job, and how             index.rs  the indexes of an indexed Job
//!     policy.rs   what a pod's failure means           pod.rs    making pods

mod count;
mod cron;
mod index;
mod outcome;
mod pod;
mod policy;
mod ttl;

use crate::context::Context;
use crate::execute::Tracked;
use crate::expectations::Expectations;
use crate::ownership::{claim, selector};
use crate::plan::{Action, JOB, POD, Plan, status_patch};
use crate::pods;
use crate::stores::candidates;
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
        Some(selector(job.spec.as_ref()?.selector.as_ref()?))
    });
    ctx.control("job", queue, 8, move |ctx, key| {
        let expectations = expectations.clone();
        async move { sync(&ctx, &key, &expectations).await }
    });
    pod::start(ctx);
    ttl::start(ctx);
    cron::start(ctx);
}

async fn sync(ctx: &Context, key: &Key, expectations: &Expectations) -> Result<Next, ReconcileError> {
    let Some(job) = ctx.stores.jobs.get(key) else {
        return ctx.execute(let_go(key, &ctx.stores.pods.list_in(&key.namespace)), None).await;
    };
    let uid = job.metadata.uid.as_deref().unwrap_or_default();
    let pods = candidates(&ctx.stores.pods, uid, &key.namespace);
    let plan = reconcile(&job, pods, expectations.are_met(key), clock::now());
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

/// Where set, a pod is replaced only once it ended; with a failure policy, its end must be known before it is judged.
pub fn replaces_failed_only(spec: &JobSpec) -> bool {
    spec.pod_replacement_policy.as_deref() == Some("Failed") || spec.pod_failure_policy.is_some()
}

/// Jobs that another controller runs are none of our business.
fn is_ours(spec: &JobSpec) -> bool {
    spec.managed_by.as_deref().is_none_or(|name| name == "kubernetes.io/job-controller")
}

pub fn reconcile(job: &Job, candidates: Vec<Arc<Pod>>, settled: bool, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = job.spec.as_ref().filter(|spec| is_ours(spec)) else { return plan };
    let owner = ObjectId::of(job);
    if finished_at(job).is_some() || job.metadata.deletion_timestamp.is_some() {
        let is_own = |pod: &Pod| controller_of(&pod.metadata).is_some_and(|own| own.uid == owner.uid);
        let left = candidates.iter().filter(|pod| is_own(pod) && pod::is_tracked(pod));
        plan.then(left.map(|pod| pod::untrack(pod)));
        return plan;
    }
    let wanted = spec.selector.as_ref().and_then(selector);
    let claimed = claim(&POD, &owner, &job.metadata, wanted.as_ref(), candidates, Some(pod::FINALIZER));
    plan.then(claimed.actions);
    let pods = &claimed.mine;
    let tally = Tally::of(job, spec, pods, outcome::is_decided(job));
    let mut status = tally.status.clone();
    let suspended = spec.suspend == Some(true);
    plan.then(suspend_or_resume(&owner, &mut status, suspended, now));
    if status.start_time.is_none() && !suspended {
        status.start_time = Some(Time(now));
    }
    let started = status.start_time.as_ref().map(|at| at.0);
    let failure = outcome::failure(job, spec, &tally, pods, started, now, &mut plan);
    let success = if failure.is_none() { outcome::success(job, spec, &tally) } else { None };
    let active: Vec<_> = pods.iter().filter(|pod| pods::is_active(pod)).collect();

    let pod_changes = if settled && (failure.is_some() || success.is_some() || suspended) {
        active.iter().map(|pod| pods::delete(pod, &owner)).collect()
    } else if settled {
        let (actions, left) = changes(spec, &owner, &tally, &active, now);
        plan.look_again(left);
        actions
    } else {
        Vec::new()
    };
    if let Some(end) = &failure {
        outcome::decide(job, &mut status, "FailureTarget", end, now);
    }
    if let Some(end) = &success {
        outcome::decide(job, &mut status, "SuccessCriteriaMet", end, now);
    }
    plan.then(tally.untrack.iter().map(|pod| pod::untrack(pod)));
    if active.is_empty() && tally.terminating == 0 && tally.is_settled() {
        plan.then(finish(&owner, &mut status, failure, success, now));
    }
    plan.then(status_patch(&JOB, &job.metadata, &job.status, &status));
    // Last, for they may be refused (by a quota, in a namespace that goes away), which must not hold up the counting.
    plan.then(pod_changes);
    plan
}

/// Writes the end, once no pod is left that runs.
fn finish(
    owner: &ObjectId,
    status: &mut JobStatus,
    failure: Option<outcome::End>,
    success: Option<outcome::End>,
    now: Timestamp,
) -> Option<Action> {
    let (kind, reason, message) = if let Some((reason, message)) = failure {
        set(status, "Failed", "True", reason, &message, now);
        (EventType::Warning, reason, message)
    } else {
        let (reason, message) = success?;
        set(status, "Complete", "True", reason, &message, now);
        status.completion_time = Some(Time(now));
        (EventType::Normal, "Completed", "Job completed".to_owned())
    };
    Some(Action::Event { about: owner.clone(), kind, reason, message })
}

/// Pods to create, or to delete when there are too many; and when to look again, if it is too early for more.
fn changes(
    spec: &JobSpec,
    owner: &ObjectId,
    tally: &Tally,
    active: &[&Arc<Pod>],
    now: Timestamp,
) -> (Vec<Action>, Option<Duration>) {
    let parallelism = spec.parallelism.unwrap_or(1);
    let wanted = match spec.completions {
        Some(completions) => parallelism.min(completions - tally.succeeded),
        None if tally.succeeded > 0 => tally.active.min(parallelism),
        None => parallelism,
    };
    let surplus = tally.active - wanted.max(0);
    if surplus > 0 {
        let mut ranked: Vec<_> = active.iter().map(|pod| Arc::clone(pod)).collect();
        let related = ranked.clone();
        pods::rank_for_deletion(&mut ranked, &related);
        let surplus = ranked.iter().take(usize::try_from(surplus).unwrap_or(0));
        return (surplus.map(|pod| pods::delete(pod, owner)).collect(), None);
    }
    let leaving = if replaces_failed_only(spec) { tally.terminating } else { 0 };
    let missing = usize::try_from(-surplus - leaving).unwrap_or(0);
    let wait = if spec.backoff_limit_per_index.is_some() {
        None
    } else {
        tally.backoff_left(BACKOFF_FIRST, BACKOFF_MOST, now).filter(|_| missing > 0)
    };
    match wait {
        Some(left) => (Vec::new(), Some(left)),
        None => pod::create(spec, owner, tally, missing, now),
    }
}

fn suspend_or_resume(
    owner: &ObjectId,
    status: &mut JobStatus,
    suspended: bool,
    now: Timestamp,
) -> Option<Action> {
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
        status.start_time = Some(Time(now));
    } else {
        return None;
    }
    let (reason, message) =
        if suspended { ("Suspended", "Job suspended") } else { ("Resumed", "Job resumed") };
    Some(Action::Event { about: owner.clone(), kind: EventType::Normal, reason, message: message.into() })
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
