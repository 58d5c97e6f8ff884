//! Leader election on a Lease: of all instances of a component, at most one acts.
//!
//!     waiting ──lease free or expired, and our write wins──► leading ──renewed within the deadline──► leading
//!        ▲                                                      │
//!        └────────────── not renewed in time: work is dropped at once ◄┘     asked to stop: work dropped, lease released
//!
//! Clocks of different machines are never compared: an instance counts another's lease as expired when it has itself
//! seen no renewal for the lease's whole duration, by its own monotonic clock. Waiting instances watch the lease, so
//! they cost one event for each renewal and take a released lease at once.

use crate::{Scope, errors};
use coracle_daemon::backoff::Backoff;
use coracle_daemon::clock::{self, Instant};
use coracle_daemon::{Tasks, random};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ListParams, ObjectMeta, PostParams, WatchEvent, WatchParams};
use std::future::Future;
use std::time::Duration;

// The lease is as long as upstream's, but renewed every 10 s, not every 2: renewals are most of what an idle cluster does, as
// each wakes most of its processes. A killed holder is seldom waited for, as one that is started again under its name holds the
// lease at once, and a clean stop releases it. After a freeze or a cut another acts within the lease, as upstream's do.

/// How long after a renewal others must leave the lease alone.
const LEASE: Duration = Duration::from_secs(15);
/// How long the holder goes on without a renewal before it gives up.
const RENEW_DEADLINE: Duration = Duration::from_secs(14);
/// How often the holder renews, the first time a quarter of it later at most. Several tries fit into the deadline.
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// How long one attempt may take, and how long after a failure comes the next.
const ATTEMPT_MAX: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(200);
const RETRY_MOST: Duration = Duration::from_secs(1);

const _: () = assert!(
    RENEW_EVERY.as_millis() / 4 * 5 + ATTEMPT_MAX.as_millis() < RENEW_DEADLINE.as_millis()
        && RENEW_DEADLINE.as_millis() < LEASE.as_millis(),
    "the holder must have stopped before anyone else may start"
);

/// What an instance last saw of the lease.
#[derive(Clone, Debug)]
struct Seen {
    lease: Lease,
    /// When this state of the lease was first seen, by our own clock.
    at: Instant,
}

impl Seen {
    fn spec(&self) -> LeaseSpec {
        self.lease.spec.clone().unwrap_or_default()
    }

    fn holder(&self) -> Option<String> {
        self.spec().holder_identity.filter(|holder| !holder.is_empty())
    }

    /// When the lease may be taken by someone other than its holder; at once when it has none.
    fn free_at(&self) -> Instant {
        let duration = self.spec().lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        if self.holder().is_none() { self.at } else { self.at + duration.map_or(LEASE, Duration::from_secs) }
    }
}

/// Whether two states of a lease differ by a renewal or a change of hands.
fn renewed(old: &Lease, new: &Lease) -> bool {
    old.spec != new.spec || old.metadata.uid != new.metadata.uid
}

struct Candidate {
    api: Api<Lease>,
    name: String,
    identity: String,
    seen: Option<Seen>,
}

/// Contends for the Lease `name` in kube-system for as long as the process lives, and runs `on_lead` whenever it is held.
///
/// `on_lead` starts its tasks in the scope it is given and may return; they are dropped at once when the lease is lost,
/// and `on_lead` is called again should it be won again. On a clean stop the tasks end first, then the lease is released.
pub fn run<F, R>(tasks: &Tasks, client: kube::Client, name: &str, identity: &str, on_lead: F)
where
    F: Fn(Scope) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let candidate = Candidate {
        api: Api::namespaced(client, "kube-system"),
        name: name.to_owned(),
        identity: identity.to_owned(),
        seen: None,
    };
    let tasks_for_work = tasks.clone();
    tasks.spawn(format!("leader election {name}"), async move {
        candidate.contend(&tasks_for_work, on_lead).await;
        Ok(())
    });
}

/// A name no other instance has: host and a random part.
#[must_use]
pub fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}_{}", host.trim(), random::uuid())
}

impl Candidate {
    async fn contend<F, R>(mut self, tasks: &Tasks, on_lead: F)
    where
        F: Fn(Scope) -> R,
        R: Future<Output = ()> + Send + 'static,
    {
        let stopping = tasks.stopping();
        while stopping.run_until_cancelled(self.acquire()).await.is_some() {
            tracing::info!(lease = self.name, identity = self.identity, "leading");
            let scope = Scope::new(tasks);
            scope.spawn(format!("leader work {}", self.name), on_lead(scope.clone()));
            let lost = stopping.run_until_cancelled(self.renew()).await.is_some();
            scope.stop().await;
            if !lost {
                self.release().await;
                return;
            }
            tracing::warn!(lease = self.name, "leadership lost: everything stopped");
        }
    }

    /// Returns when the lease is ours.
    async fn acquire(&mut self) {
        let mut backoff = Backoff::new(RETRY, RETRY_MOST);
        loop {
            match self.wait_until_free().await {
                Ok(()) => {}
                Err(error) => {
                    tracing::debug!(lease = self.name, %error, "cannot watch the lease");
                    clock::sleep(backoff.next_delay()).await;
                    continue;
                }
            }
            match clock::timeout(ATTEMPT_MAX, self.write()).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => tracing::debug!(lease = self.name, %error, "not acquired"),
                Err(_) => tracing::debug!(lease = self.name, "acquiring timed out"),
            }
            self.seen = None;
            clock::sleep(backoff.next_delay()).await;
        }
    }

    /// Follows the lease until it is free to be taken.
    async fn wait_until_free(&mut self) -> kube::Result<()> {
        let only = format!("metadata.name={}", self.name);
        let listed = self.api.list(&ListParams::default().fields(&only)).await?;
        match listed.items.into_iter().next() {
            Some(lease) => self.observe(lease),
            None => self.seen = None,
        }
        let mut version = listed.metadata.resource_version.unwrap_or_default();
        loop {
            let mut events = self.api.watch(&WatchParams::default().fields(&only), &version).await?.boxed();
            loop {
                let Some(seen) = &self.seen else { return Ok(()) };
                if seen.holder().is_some_and(|holder| holder == self.identity) {
                    return Ok(());
                }
                let event = match clock::timeout(
                    seen.free_at().saturating_duration_since(Instant::now()),
                    events.try_next(),
                )
                .await
                {
                    Err(_expired) => return Ok(()),
                    Ok(Err(error)) => return Err(error),
                    Ok(Ok(None)) => break,
                    Ok(Ok(Some(event))) => event,
                };
                match event {
                    WatchEvent::Added(lease) | WatchEvent::Modified(lease) => {
                        version = lease.metadata.resource_version.clone().unwrap_or_default();
                        self.observe(lease);
                    }
                    WatchEvent::Deleted(_) => self.seen = None,
                    WatchEvent::Bookmark(bookmark) => version = bookmark.metadata.resource_version,
                    WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
                }
            }
            clock::sleep(RETRY).await;
        }
    }

    fn observe(&mut self, lease: Lease) {
        match &mut self.seen {
            Some(seen) if !renewed(&seen.lease, &lease) => seen.lease = lease,
            _ => self.seen = Some(Seen { lease, at: Instant::now() }),
        }
    }

    /// Returns when the lease could not be renewed in time.
    async fn renew(&mut self) {
        let mut renewed_at = Instant::now();
        let mut pause = clock::until_whole(RENEW_EVERY);
        loop {
            let deadline = renewed_at + RENEW_DEADLINE;
            clock::sleep(pause.min(deadline.saturating_duration_since(Instant::now()))).await;
            // Counted from before the request: others count from when they see it, which is later.
            let asked = Instant::now();
            let left = deadline.saturating_duration_since(asked);
            if left.is_zero() {
                return;
            }
            match clock::timeout(left.min(ATTEMPT_MAX), self.write()).await {
                Ok(Ok(())) => {
                    renewed_at = asked;
                    pause = clock::until_whole(RENEW_EVERY);
                    continue;
                }
                Ok(Err(error)) if errors::is_conflict(&error) || errors::is_not_found(&error) => {
                    if self.is_taken().await {
                        return;
                    }
                }
                Ok(Err(error)) => tracing::debug!(lease = self.name, %error, "not renewed"),
                Err(_) => tracing::debug!(lease = self.name, "renewing timed out"),
            }
            pause = RETRY;
        }
    }

    /// Re-reads the lease after a conflict; true when it is another's now.
    async fn is_taken(&mut self) -> bool {
        match clock::timeout(ATTEMPT_MAX, self.api.get_opt(&self.name)).await {
            Ok(Ok(Some(lease))) => {
                self.observe(lease);
                self.seen.as_ref().and_then(Seen::holder).is_some_and(|holder| holder != self.identity)
            }
            Ok(Ok(None)) => {
                self.seen = None;
                false
            }
            _ => false,
        }
    }

    /// Makes the lease ours, or renews it; a compare-and-swap on what was seen.
    async fn write(&mut self) -> kube::Result<()> {
        let wanted = self.wanted();
        let written = match &self.seen {
            None => self.api.create(&PostParams::default(), &wanted).await?,
            Some(_) => self.api.replace(&self.name, &PostParams::default(), &wanted).await?,
        };
        self.seen = Some(Seen { lease: written, at: Instant::now() });
        Ok(())
    }

    fn wanted(&self) -> Lease {
        let now = MicroTime(clock::now());
        let old = self.seen.as_ref().map(Seen::spec).unwrap_or_default();
        let ours = old.holder_identity.as_ref() == Some(&self.identity);
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(LEASE.as_secs()).ok(),
            acquire_time: if ours { old.acquire_time.clone() } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(
                old.lease_transitions.unwrap_or(0) + i32::from(!ours && self.seen.is_some()),
            ),
            ..old
        };
        let metadata = match &self.seen {
            Some(seen) => seen.lease.metadata.clone(),
            None => ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some("kube-system".into()),
                ..ObjectMeta::default()
            },
        };
        Lease { metadata, spec: Some(spec) }
    }

    /// Gives the lease up, so that the next instance need not wait for it to expire.
    async fn release(&mut self) {
        let Some(seen) = &self.seen else { return };
        let now = MicroTime(clock::now());
        let mut lease = seen.lease.clone();
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            renew_time: Some(now.clone()),
            acquire_time: Some(now),
            ..seen.spec()
        });
        match clock::timeout(ATTEMPT_MAX, self.api.replace(&self.name, &PostParams::default(), &lease)).await
        {
            Ok(Ok(_)) => tracing::info!(lease = self.name, "released"),
            Ok(Err(error)) => tracing::debug!(lease = self.name, %error, "not released"),
            Err(_) => tracing::debug!(lease = self.name, "releasing timed out"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, seconds: i32) -> Lease {
        let spec = LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(seconds),
            ..LeaseSpec::default()
        };
        Lease { spec: Some(spec), ..Lease::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_held_lease_is_free_after_its_own_duration_and_a_released_one_at_once() {
        let at = Instant::now();
        assert_eq!(Seen { lease: lease("other", 7), at }.free_at() - at, Duration::from_secs(7));
        assert_eq!(Seen { lease: lease("", 1), at }.free_at(), at);
    }

    #[test]
    fn a_change_of_metadata_is_no_renewal() {
        let old = lease("a", 5);
        let mut touched = old.clone();
        touched.metadata.resource_version = Some("9".into());
        let mut taken = old.clone();
        taken.spec = lease("b", 5).spec;
        assert!(!renewed(&old, &touched) && renewed(&old, &taken));
    }
}
