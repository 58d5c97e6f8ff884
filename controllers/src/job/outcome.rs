//! How a Job ends: what fails it, what makes it succeed, and what is written then.

use super::count::Tally;
use super::index::parse_indexes;
use super::{condition, set};
use crate::plan::Plan;
use crate::pods;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use std::sync::Arc;

/// Why Jobs end.
const REASONS: [&str; 7] = [
    "BackoffLimitExceeded",
    "DeadlineExceeded",
    "PodFailurePolicy",
    "MaxFailedIndexesExceeded",
    "FailedIndexes",
    "SuccessPolicy",
    "CompletionsReached",
];

/// A Job's end: reason and message.
pub type End = (&'static str, String);

/// The end that was decided before, by the condition that says so.
fn decided(job: &Job, target: &str) -> Option<End> {
    let target = condition(job, target)?;
    let reason =
        REASONS.into_iter().find(|reason| target.reason.as_deref() == Some(reason)).unwrap_or(REASONS[0]);
    Some((reason, target.message.clone().unwrap_or_default()))
}

/// Whether the Job's end is written down already, though pods may still run.
pub fn is_decided(job: &Job) -> bool {
    condition(job, "FailureTarget").is_some() || condition(job, "SuccessCriteriaMet").is_some()
}

/// Why the Job fails, if it does; the plan learns when its deadline comes.
pub fn failure(
    job: &Job,
    spec: &JobSpec,
    tally: &Tally,
    pods: &[Arc<Pod>],
    started: Option<Timestamp>,
    now: Timestamp,
    plan: &mut Plan,
) -> Option<End> {
    if let Some(end) = decided(job, "FailureTarget") {
        return Some(end);
    }
    if condition(job, "SuccessCriteriaMet").is_some() {
        return None;
    }
    if let Some(message) = &tally.forbidden_failure {
        return Some(("PodFailurePolicy", message.clone()));
    }
    let limit = spec.backoff_limit.unwrap_or(6);
    let in_place =
        spec.template.spec.as_ref().and_then(|pod| pod.restart_policy.as_deref()) == Some("OnFailure");
    let restarts: i32 =
        pods.iter().filter(|pod| in_place && pods::is_active(pod)).map(|pod| pods::all_restarts(pod)).sum();
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
    failed_indexes(spec, tally)
}

fn failed_indexes(spec: &JobSpec, tally: &Tally) -> Option<End> {
    let failed = i32::try_from(tally.given_up.len()).unwrap_or(i32::MAX);
    if spec.max_failed_indexes.is_some_and(|most| failed > most) {
        let message = "Job has exceeded the specified maximal number of failed indexes";
        return Some(("MaxFailedIndexesExceeded", message.into()));
    }
    let all_ended = spec.completions.is_some_and(|wanted| tally.succeeded + failed >= wanted);
    (failed > 0 && all_ended).then(|| ("FailedIndexes", "Job has failed indexes".into()))
}

/// Why the Job has succeeded, if it has.
pub fn success(job: &Job, spec: &JobSpec, tally: &Tally) -> Option<End> {
    if let Some(end) = decided(job, "SuccessCriteriaMet") {
        return Some(end);
    }
    let rules = spec.success_policy.iter().flat_map(|policy| &policy.rules);
    for (number, rule) in rules.enumerate() {
        let wanted = rule.succeeded_indexes.as_deref().map(parse_indexes);
        let met =
            tally.done.iter().filter(|index| wanted.as_ref().is_none_or(|wanted| wanted.contains(index)));
        let met = met.count();
        let needed = rule.succeeded_count.and_then(|count| usize::try_from(count).ok());
        if needed.or(wanted.map(|wanted| wanted.len())).is_some_and(|needed| met >= needed) {
            return Some(("SuccessPolicy", format!("Matched rules at index {number}")));
        }
    }
    let done = match spec.completions {
        Some(wanted) => tally.succeeded >= wanted,
        None => tally.succeeded > 0 && tally.active == 0,
    };
    done.then(|| ("CompletionsReached", "Reached expected number of succeeded pods".into()))
}

/// Writes the end that is decided, once: the pods that decided it may be gone before all others are.
pub fn decide(job: &Job, status: &mut JobStatus, target: &str, end: &End, now: Timestamp) {
    if condition(job, target).is_none() {
        set(status, target, "True", end.0, &end.1, now);
    }
}
