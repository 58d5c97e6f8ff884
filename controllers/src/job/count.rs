//! Counting a Job's pods: those that finished, each exactly once, and those that are under way.

use super::index::{self, Retries, parse_indexes, tell_indexes};
use super::pod::{index, is_tracked};
use super::policy::{Meaning, meaning};
use super::replaces_failed_only;
use crate::pods::{self, unless_zero};
use coracle_daemon::backoff::exponential;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

pub struct Tally {
    /// The status to write, without conditions that changed.
    pub status: JobStatus,
    pub active: i32,
    /// Pods that go away and are not at their end.
    pub terminating: i32,
    /// Finished pods, counted or about to be.
    pub succeeded: i32,
    pub failed: i32,
    /// For indexed Jobs: indexes done, those given up, and those that must not get another pod now.
    pub done: BTreeSet<i32>,
    pub given_up: BTreeSet<i32>,
    pub busy: BTreeSet<i32>,
    /// What is known of indexes that are to be tried again, when each has a limit of its own.
    pub retries: Retries,
    /// Pods that are written down, so that they may go.
    pub untrack: Vec<Arc<Pod>>,
    /// What a failed pod said that ends the Job, by its failure policy.
    pub forbidden_failure: Option<String>,
    last_failure: Option<Timestamp>,
}

/// A pod that is going away will not succeed; but where pods are replaced only once they ended, it has not failed yet,
/// unless it was removed by force: then nobody will report its end any more.
pub fn has_failed(spec: &JobSpec, pod: &Pod) -> bool {
    pods::phase(pod) == "Failed"
        || (pods::is_terminating(pod)
            && pods::phase(pod) != "Succeeded"
            && (is_forced(pod) || !replaces_failed_only(spec)))
}

fn is_forced(pod: &Pod) -> bool {
    pod.metadata.deletion_grace_period_seconds == Some(0)
}

/// A pod that goes away and whose end is still to come.
pub fn is_leaving(pod: &Pod) -> bool {
    pods::is_terminating(pod) && !pods::is_finished(pod) && !is_forced(pod)
}

/// What was written down and is freed by now is counted; the rest stays written.
fn settle(list: Option<&Vec<String>>, still_tracked: &BTreeSet<String>) -> (Vec<String>, i32) {
    let (open, counted): (Vec<_>, Vec<_>) =
        list.into_iter().flatten().cloned().partition(|uid| still_tracked.contains(uid));
    (open, i32::try_from(counted.len()).unwrap_or(i32::MAX))
}

fn names(list: Option<&Vec<String>>, uid: &str) -> bool {
    list.into_iter().flatten().any(|known| known == uid)
}

impl Tally {
    /// `ending`: whether the Job's end is decided, so that nothing is kept for another try.
    pub fn of(job: &Job, spec: &JobSpec, pods: &[Arc<Pod>], ending: bool) -> Self {
        let old = job.status.clone().unwrap_or_default();
        let indexed = spec.completion_mode.as_deref() == Some("Indexed");
        let written = old.uncounted_terminated_pods.clone().unwrap_or_default();
        let mut done = parse_indexes(old.completed_indexes.as_deref().unwrap_or_default());
        let written_indexes = done.clone();
        let still_tracked: BTreeSet<_> =
            pods.iter().filter(|pod| is_tracked(pod)).filter_map(|pod| pod.metadata.uid.clone()).collect();
        let retries = Retries::of(&old, spec, pods, ending);
        let (mut untrack, mut forbidden_failure) = (Vec::new(), None);
        let (mut open_succeeded, newly_succeeded) = settle(written.succeeded.as_ref(), &still_tracked);
        let (mut open_failed, newly_failed) = settle(written.failed.as_ref(), &still_tracked);
        for pod in pods.iter().filter(|pod| is_tracked(pod)) {
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            if pods::phase(pod) == "Succeeded" {
                match index(pod).filter(|_| indexed) {
                    Some(index) => {
                        if written_indexes.contains(&index) {
                            untrack.push(pod.clone());
                        }
                        done.insert(index);
                    }
                    None if names(written.succeeded.as_ref(), &uid) => untrack.push(pod.clone()),
                    None => open_succeeded.push(uid),
                }
            } else if has_failed(spec, pod) {
                let means = meaning(spec, pod);
                if let Meaning::FailJob(message) = &means {
                    forbidden_failure.get_or_insert_with(|| message.clone());
                }
                if retries.keeps(pod) {
                    continue;
                }
                if means == Meaning::Ignore || names(written.failed.as_ref(), &uid) {
                    untrack.push(pod.clone());
                } else if !open_failed.contains(&uid) {
                    open_failed.push(uid);
                }
            }
        }
        let counted_succeeded =
            if indexed { len(&done) } else { old.succeeded.unwrap_or(0) + newly_succeeded };
        let counted_failed = old.failed.unwrap_or(0) + newly_failed;
        let status = JobStatus {
            succeeded: unless_zero(counted_succeeded),
            failed: unless_zero(counted_failed),
            completed_indexes: (indexed && !done.is_empty()).then(|| tell_indexes(&done)),
            failed_indexes: spec.backoff_limit_per_index.map(|_| tell_indexes(&retries.given_up)),
            uncounted_terminated_pods: Some(UncountedTerminatedPods {
                succeeded: Some(open_succeeded.clone()).filter(|list| !list.is_empty()),
                failed: Some(open_failed.clone()).filter(|list| !list.is_empty()),
            }),
            ..old
        };
        let status = live_counts(status, pods);
        Self {
            active: status.active.unwrap_or(0),
            terminating: status.terminating.unwrap_or(0),
            succeeded: counted_succeeded + i32::try_from(open_succeeded.len()).unwrap_or(i32::MAX),
            failed: counted_failed + i32::try_from(open_failed.len()).unwrap_or(i32::MAX),
            done,
            given_up: retries.given_up.clone(),
            busy: index::busy(spec, pods),
            retries,
            untrack,
            forbidden_failure,
            last_failure: pods.iter().filter(|pod| has_failed(spec, pod)).filter_map(|pod| ended(pod)).max(),
            status,
        }
    }

    /// Whether all that finished is counted for good.
    pub fn is_settled(&self) -> bool {
        let open = self.status.uncounted_terminated_pods.clone().unwrap_or_default();
        open.succeeded.is_none()
            && open.failed.is_none()
            && self.untrack.is_empty()
            && !self.retries.keeps_any()
    }

    /// How long to wait until the next pod, after failures.
    pub fn backoff_left(&self, first: Duration, most: Duration, now: Timestamp) -> Option<Duration> {
        let failures = u32::try_from(self.failed).ok().filter(|failures| *failures > 0)?;
        let wait = exponential(first, most, failures - 1);
        pods::until(self.last_failure?, i64::try_from(wait.as_secs()).ok()?, now)
    }
}

fn live_counts(status: JobStatus, pods: &[Arc<Pod>]) -> JobStatus {
    JobStatus {
        active: unless_zero(pods::count(pods, pods::is_active)),
        ready: Some(pods::count(pods, |pod| pods::is_active(pod) && pods::is_ready(pod))),
        terminating: Some(pods::count(pods, is_leaving)),
        ..status
    }
}

/// When a pod's last container ended, or else when it was told to go.
pub fn ended(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.as_ref()?.container_statuses.iter().flatten();
    let ends = statuses
        .filter_map(|status| status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref().map(|at| at.0));
    ends.max().or_else(|| {
        pod.metadata.deletion_timestamp.as_ref().or(pod.metadata.creation_timestamp.as_ref()).map(|at| at.0)
    })
}

fn len(set: &BTreeSet<i32>) -> i32 {
    i32::try_from(set.len()).unwrap_or(i32::MAX)
}
