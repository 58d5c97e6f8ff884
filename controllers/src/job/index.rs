//! The indexes of an indexed Job: as text, which are taken, and how often each was tried when each has a limit.
//!
//! How often an index failed is written on its next pod. So the last failed pod of an index is kept, uncounted, until
//! that next pod exists or the index is given up.

use super::count::{ended, has_failed, is_leaving};
use super::pod::{index, is_tracked};
use super::policy::{Meaning, meaning};
use super::replaces_failed_only;
use crate::pods;
use coracle_daemon::backoff::exponential;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Annotations of a pod: how often its index failed before, and failed without that counting.
pub const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
pub const IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// What one index's next pod must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    pub failures: i32,
    pub ignored: i32,
    last: Option<Timestamp>,
}

/// The indexes that failed.
#[derive(Debug, Default)]
pub struct Retries {
    /// Indexes that will not be tried again.
    pub given_up: BTreeSet<i32>,
    again: BTreeMap<i32, Retry>,
    /// Uids of failed pods that are kept.
    kept: BTreeSet<String>,
}

fn noted(pod: &Pod, annotation: &str) -> i32 {
    let notes = pod.metadata.annotations.as_ref();
    notes.and_then(|notes| notes.get(annotation)?.parse().ok()).unwrap_or(0)
}

impl Retries {
    pub fn of(status: &JobStatus, spec: &JobSpec, pods: &[Arc<Pod>], ending: bool) -> Self {
        let Some(limit) = spec.backoff_limit_per_index else { return Self::default() };
        let written = parse_indexes(status.failed_indexes.as_deref().unwrap_or_default());
        let mut found = Self { given_up: written.clone(), ..Self::default() };
        // The pod of each index that was made last.
        let mut latest: BTreeMap<i32, &Arc<Pod>> = BTreeMap::new();
        let tries = |pod: &Pod| {
            (
                noted(pod, FAILURES) + noted(pod, IGNORED_FAILURES),
                pod.metadata.creation_timestamp.as_ref().map(|at| at.0),
            )
        };
        for pod in pods.iter().filter(|pod| is_tracked(pod)) {
            let Some(index) = index(pod) else { continue };
            let newer = latest.get(&index).is_none_or(|known| tries(known) < tries(pod));
            if newer {
                latest.insert(index, pod);
            }
        }
        for (index, pod) in latest {
            if !has_failed(spec, pod) || written.contains(&index) {
                continue;
            }
            let means = meaning(spec, pod);
            let (failures, ignored) = (noted(pod, FAILURES), noted(pod, IGNORED_FAILURES));
            let given_up = means == Meaning::FailIndex || (means != Meaning::Ignore && failures >= limit);
            if given_up {
                found.given_up.insert(index);
            } else {
                let counts = i32::from(means != Meaning::Ignore);
                let next =
                    Retry { failures: failures + counts, ignored: ignored + 1 - counts, last: ended(pod) };
                found.again.insert(index, next);
            }
            if !ending {
                found.kept.extend(pod.metadata.uid.clone());
            }
        }
        found
    }

    /// Whether this failed pod must not be let go yet.
    pub fn keeps(&self, pod: &Pod) -> bool {
        pod.metadata.uid.as_ref().is_some_and(|uid| self.kept.contains(uid))
    }

    pub fn keeps_any(&self) -> bool {
        !self.kept.is_empty()
    }

    /// What to note on an index's next pod.
    pub fn next(&self, index: i32) -> Option<Retry> {
        self.again.get(&index).copied()
    }

    /// How long an index must wait for its next pod.
    pub fn wait(&self, index: i32, first: Duration, most: Duration, now: Timestamp) -> Option<Duration> {
        let retry = self.again.get(&index)?;
        let failures = u32::try_from(retry.failures + retry.ignored).ok().filter(|failures| *failures > 0)?;
        let wait = exponential(first, most, failures - 1);
        pods::until(retry.last?, i64::try_from(wait.as_secs()).ok()?, now)
    }
}

/// Indexes that have a pod.
pub fn busy(spec: &JobSpec, pods: &[Arc<Pod>]) -> BTreeSet<i32> {
    let takes = |pod: &&Arc<Pod>| pods::is_active(pod) || (replaces_failed_only(spec) && is_leaving(pod));
    pods.iter().filter(takes).filter_map(|pod| index(pod)).collect()
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
