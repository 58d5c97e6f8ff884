//! The leases' clock: how long each still lives, which only the leader counts, and the task that ends those whose time is up.
//!
//! In: grants and ends as the machine applies them, renewals from clients. Out: ids whose time is up. A new leader gives each
//! lease its full time again, so that no lease ends early because of an election; remaining times are never replicated.

use crate::command::Op;
use crate::consensus::Consensus;
use crate::error::StoreError;
use crate::machine::Change;
use coracle_daemon::clock::{self, Instant};
use coracle_etcd::proto::LeaseRevokeRequest;
use futures::StreamExt;
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Leases that end at once; more wait their turn.
const ENDING_MAX: usize = 32;
/// How long to wait before ending a lease is tried again, after it failed.
const RETRY: Duration = Duration::from_millis(500);
/// Deadlines further away than this are as good as never.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Deadlines of all leases.
#[derive(Default)]
pub struct Lessor {
    state: Mutex<State>,
    /// The earliest deadline may have changed.
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// The term in which this member leads.
    term: Option<u64>,
    leases: HashMap<i64, Deadline>,
    queue: BTreeSet<(Instant, i64)>,
}

#[derive(Clone, Copy)]
struct Deadline {
    ttl: i64,
    at: Instant,
}

fn ttl_duration(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0)).min(FAR)
}

impl State {
    fn set(&mut self, id: i64, ttl: i64, at: Instant) {
        if let Some(old) = self.leases.insert(id, Deadline { ttl, at }) {
            self.queue.remove(&(old.at, id));
        }
        self.queue.insert((at, id));
    }

    fn remove(&mut self, id: i64) {
        if let Some(old) = self.leases.remove(&id) {
            self.queue.remove(&(old.at, id));
        }
    }

    fn extend_all(&mut self) {
        let now = Instant::now();
        let all: Vec<(i64, i64)> = self.leases.iter().map(|(id, lease)| (*id, lease.ttl)).collect();
        for (id, ttl) in all {
            self.set(id, ttl, now + ttl_duration(ttl));
        }
    }

    /// A lease whose time is not up.
    fn living(&self, id: i64) -> Result<Deadline, StoreError> {
        if self.term.is_none() {
            return Err(StoreError::NotLeader);
        }
        let lease = self.leases.get(&id).copied().filter(|lease| lease.at > Instant::now());
        lease.ok_or(StoreError::LeaseNotFound)
    }
}

impl Lessor {
    /// Forgets all and takes these leases: id and seconds.
    pub fn reset(&self, leases: impl Iterator<Item = (i64, i64)>) {
        let now = Instant::now();
        let mut state = self.state.lock();
        state.leases.clear();
        state.queue.clear();
        for (id, ttl) in leases {
            state.set(id, ttl, now + ttl_duration(ttl));
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Follows what the machine did.
    pub fn apply(&self, changes: &[Change]) {
        if !changes.iter().any(|change| matches!(change, Change::Lease { .. } | Change::LeaseGone(_))) {
            return;
        }
        let now = Instant::now();
        let mut state = self.state.lock();
        for change in changes {
            match change {
                Change::Lease { id, ttl } => state.set(*id, *ttl, now + ttl_duration(*ttl)),
                Change::LeaseGone(id) => state.remove(*id),
                _ => {}
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    /// This member leads in this term from now on, or no longer does. A new term means that others may have led, and renewed
    /// leases, in between, even if nobody saw this member follow.
    pub fn lead(&self, term: Option<u64>) {
        let mut state = self.state.lock();
        if term.is_some() && term != state.term {
            state.extend_all();
        }
        state.term = term;
    }

    /// Prolongs a lease by its time to live, and returns that in seconds.
    ///
    /// # Errors
    /// It is gone, or this member does not lead.
    pub fn renew(&self, id: i64) -> Result<i64, StoreError> {
        let mut state = self.state.lock();
        let lease = state.living(id)?;
        state.set(id, lease.ttl, Instant::now() + ttl_duration(lease.ttl));
        Ok(lease.ttl)
    }

    /// Seconds left of a lease, rounded down.
    ///
    /// # Errors
    /// It is gone, or this member does not lead.
    pub fn remaining(&self, id: i64) -> Result<i64, StoreError> {
        let lease = self.state.lock().living(id)?;
        let left = lease.at.saturating_duration_since(Instant::now()).as_secs();
        Ok(i64::try_from(left).unwrap_or(i64::MAX).min(lease.ttl))
    }

    /// Leases whose time is up; and when the next one's will be.
    fn due(&self) -> (Vec<i64>, Option<Instant>) {
        let now = Instant::now();
        let state = self.state.lock();
        let due: Vec<i64> = state.queue.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id).collect();
        let next = state.queue.iter().find(|(at, _)| *at > now).map(|(at, _)| *at);
        (due, next)
    }
}

/// Ends leases whose time is up, while this member leads, until `stop`.
pub async fn end_leases(lessor: &Lessor, consensus: Arc<dyn Consensus>, stop: CancellationToken) {
    let mut leadership = consensus.leadership();
    let mut retry_at: Option<Instant> = None;
    loop {
        let leads = {
            let known = leadership.borrow_and_update();
            known.is_me.then_some(known.term)
        };
        lessor.lead(leads);
        let wake_at = if let Some(term) = leads {
            let (due, next) = lessor.due();
            if !due.is_empty() && retry_at.is_none_or(|at| at <= Instant::now()) {
                let all_ended = end(&consensus, term, due).await;
                retry_at = (!all_ended).then(|| Instant::now() + RETRY);
                continue;
            }
            retry_at.filter(|_| !due.is_empty()).or(next)
        } else {
            retry_at = None;
            None
        };
        tokio::select! {
            () = stop.cancelled() => return,
            changed = leadership.changed() => if changed.is_err() { return },
            () = lessor.changed.notified() => {}
            () = async { clock::sleep_until(wake_at.unwrap_or_else(|| Instant::now() + FAR)).await } => {}
        }
    }
}

/// Whether all are gone now. Only the leader that counted their time may end them: the next one gives them their full time
/// again, and clients have renewed them there.
async fn end(consensus: &Arc<dyn Consensus>, term: u64, due: Vec<i64>) -> bool {
    let ends = futures::stream::iter(due).map(|id| async move {
        let revoke = Op::LeaseRevoke(LeaseRevokeRequest { id });
        match consensus.commit_in_term(revoke, term).await {
            Ok(_) | Err(StoreError::LeaseNotFound) => true,
            Err(error) => {
                tracing::debug!(lease = id, %error, "a lease whose time is up could not be ended yet");
                false
            }
        }
    });
    ends.buffer_unordered(ENDING_MAX).fold(true, |all, one| async move { all && one }).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(leases: &[(i64, i64)]) -> Lessor {
        let lessor = Lessor::default();
        lessor.reset(leases.iter().copied());
        lessor
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_leader_counts_and_it_starts_with_full_times() {
        let lessor = with(&[(1, 10)]);
        clock::sleep(Duration::from_secs(8)).await;
        assert_eq!(lessor.remaining(1), Err(StoreError::NotLeader));
        lessor.lead(Some(1));
        assert_eq!(lessor.remaining(1), Ok(10));
        clock::sleep(Duration::from_secs(8)).await;
        assert_eq!(lessor.remaining(1), Ok(2));
        lessor.lead(Some(1));
        assert_eq!(lessor.remaining(1), Ok(2), "going on leading is no election");
        lessor.lead(Some(3));
        assert_eq!(lessor.remaining(1), Ok(10), "another may have led in between");
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_restarts_the_time_but_comes_too_late_for_one_that_is_up() {
        let lessor = with(&[(1, 10), (2, 5)]);
        lessor.lead(Some(1));
        clock::sleep(Duration::from_secs(6)).await;
        assert_eq!(lessor.renew(1), Ok(10));
        assert_eq!(lessor.renew(2), Err(StoreError::LeaseNotFound));
        assert_eq!(lessor.due().0, [2]);
        assert_eq!(lessor.remaining(1), Ok(10));
        lessor.apply(&[Change::LeaseGone(2), Change::Lease { id: 3, ttl: 1 }]);
        assert_eq!(lessor.due().0, Vec::<i64>::new());
        assert_eq!(lessor.remaining(3), Ok(1));
    }

    #[test]
    fn the_longest_lease_has_a_deadline() {
        let lessor = with(&[(1, i64::MAX)]);
        lessor.lead(Some(1));
        assert_eq!(lessor.renew(1), Ok(i64::MAX));
    }
}
