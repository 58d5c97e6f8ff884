//! Counting a Job's pods: those that finished, each exactly once, and those that are under way.

use super::pod::{index, is_tracked};
use super::policy::{Meaning, meaning};
use crate::pods::{self, unless_zero};
use coracle_client::backoff::exponential;
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
    /// Finished pods, counted or about to be.
    pub succeeded: i32,
    pub failed: i32,
    /// For indexed Jobs: indexes done, and those under way.
    pub done: BTreeSet<i32>,
    pub busy: BTreeSet<i32>,
    /// Pods that are written down, so that they may go.
    pub untrack: Vec<Arc<Pod>>,
    /// What a failed pod said that ends the Job, by its failure policy.
    pub forbidden_failure: Option<String>,
    last_failure: Option<Timestamp>,
}

/// A pod that is going away will not succeed.
fn has_failed(pod: &Pod) -> bool {
    pods::phase(pod) == "Failed" || (pods::is_terminating(pod) && pods::phase(pod) != "Succeeded")
}

/// Of the pods that were written down as finished: those still tracked, and the number of the others, which now count.
fn settle(list: Option<Vec<String>>, still_tracked: &BTreeSet<String>) -> (Vec<String>, i32) {
    let (open, counted): (Vec<_>, Vec<_>) =
        list.unwrap_or_default().into_iter().partition(|uid| still_tracked.contains(uid));
    (open, i32::try_from(counted.len()).unwrap_or(i32::MAX))
}

impl Tally {
    pub fn of(job: &Job, spec: &JobSpec, pods: &[Arc<Pod>]) -> Self {
        let old = job.status.clone().unwrap_or_default();
        let indexed = spec.completion_mode.as_deref() == Some("Indexed");
        let written = old.uncounted_terminated_pods.clone().unwrap_or_default();
        let mut done = parse_indexes(old.completed_indexes.as_deref().unwrap_or_default());
        let written_indexes = done.clone();
        let still_tracked: BTreeSet<_> =
            pods.iter().filter(|pod| is_tracked(pod)).filter_map(|pod| pod.metadata.uid.clone()).collect();
        let (mut untrack, mut forbidden_failure) = (Vec::new(), None);

        let (mut open_succeeded, newly_succeeded) = settle(written.succeeded.clone(), &still_tracked);
        let (mut open_failed, newly_failed) = settle(written.failed.clone(), &still_tracked);
        let was_written =
            |list: &Option<Vec<String>>, uid: &str| list.iter().flatten().any(|known| known == uid);
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
                    None if was_written(&written.succeeded, &uid) => untrack.push(pod.clone()),
                    None => open_succeeded.push(uid),
                }
            } else if has_failed(pod) {
                let means = meaning(spec, pod);
                if let Meaning::FailJob(message) = &means {
                    forbidden_failure.get_or_insert_with(|| message.clone());
                }
                if means == Meaning::Ignore || was_written(&written.failed, &uid) {
                    untrack.push(pod.clone());
                } else {
                    open_failed.push(uid);
                }
            }
        }
        let counted_succeeded =
            if indexed { len(&done) } else { old.succeeded.unwrap_or(0) + newly_succeeded };
        let counted_failed = old.failed.unwrap_or(0) + newly_failed;
        let active = pods::count(pods, pods::is_active);
        let status = JobStatus {
            active: unless_zero(active),
            ready: Some(pods::count(pods, |pod| pods::is_active(pod) && pods::is_ready(pod))),
            terminating: Some(pods::count(pods, |pod| pods::is_terminating(pod) && !pods::is_finished(pod))),
            succeeded: unless_zero(counted_succeeded),
            failed: unless_zero(counted_failed),
            completed_indexes: (indexed && !done.is_empty()).then(|| tell_indexes(&done)),
            uncounted_terminated_pods: Some(UncountedTerminatedPods {
                succeeded: Some(open_succeeded.clone()).filter(|list| !list.is_empty()),
                failed: Some(open_failed.clone()).filter(|list| !list.is_empty()),
            }),
            ..old
        };
        let busy = pods.iter().filter(|pod| pods::is_active(pod)).filter_map(|pod| index(pod)).collect();
        Self {
            active,
            succeeded: counted_succeeded + i32::try_from(open_succeeded.len()).unwrap_or(i32::MAX),
            failed: counted_failed + i32::try_from(open_failed.len()).unwrap_or(i32::MAX),
            done,
            busy,
            untrack,
            forbidden_failure,
            last_failure: pods.iter().filter(|pod| has_failed(pod)).filter_map(|pod| ended(pod)).max(),
            status,
        }
    }

    /// Whether all that finished is counted for good.
    pub fn is_settled(&self) -> bool {
        let open = self.status.uncounted_terminated_pods.clone().unwrap_or_default();
        open.succeeded.is_none() && open.failed.is_none() && self.untrack.is_empty()
    }

    /// How long to wait until the next pod, after failures.
    pub fn backoff_left(&self, first: Duration, most: Duration, now: Timestamp) -> Option<Duration> {
        let failures = u32::try_from(self.failed).ok().filter(|failures| *failures > 0)?;
        let wait = exponential(first, most, failures - 1);
        pods::until(self.last_failure?, i64::try_from(wait.as_secs()).ok()?, now)
    }
}

fn ended(pod: &Pod) -> Option<Timestamp> {
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

/// `1,3-5` as numbers.
pub fn parse_indexes(text: &str) -> BTreeSet<i32> {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.parse::<i32>().ok()?..=to.parse::<i32>().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}

/// Numbers as `1,3-5`; two in a row are written with a comma.
pub fn tell_indexes(indexes: &BTreeSet<i32>) -> String {
    let mut runs: Vec<(i32, i32)> = Vec::new();
    for index in indexes {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *index => *last = *index,
            _ => runs.push((*index, *index)),
        }
    }
    let told = runs.iter().map(|(first, last)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    });
    told.collect::<Vec<_>>().join(",")
}
