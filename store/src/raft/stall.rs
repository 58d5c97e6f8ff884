//! A disk that stalls: a leader whose log cannot be synced for long hands leadership to a member whose disk works.
//!
//! In: when each sync begins and ends, told by the log's thread. Out: a hand-over, should one take longer than a limit. While
//! nothing is synced nothing wakes; while much is, the watch wakes once per limit, not once per sync.

use coracle_daemon::clock::{self, Instant};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// How many election timeouts a sync may take.
const ELECTIONS: u32 = 5;

/// The sync under way.
#[derive(Debug)]
pub struct Syncs {
    epoch: Instant,
    /// Milliseconds since the epoch when the sync under way began, and 1; 0 when there is none.
    began: AtomicU64,
    /// Syncs so far.
    count: AtomicU64,
    watched: AtomicBool,
    begins: Notify,
}

impl Syncs {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            epoch: Instant::now(),
            began: AtomicU64::new(0),
            count: AtomicU64::new(0),
            watched: AtomicBool::new(false),
            begins: Notify::new(),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
    }

    /// A sync begins.
    pub fn begin(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.began.store(self.now() + 1, Ordering::SeqCst);
        if !self.watched.swap(true, Ordering::SeqCst) {
            self.begins.notify_one();
        }
    }

    /// It has ended.
    pub fn end(&self) {
        self.began.store(0, Ordering::SeqCst);
    }

    /// How long the sync under way has taken.
    fn under_way(&self) -> Option<Duration> {
        let began = self.began.load(Ordering::SeqCst).checked_sub(1)?;
        Some(Duration::from_millis(self.now().saturating_sub(began)))
    }
}

/// How long a sync may take before its leader gives up leadership.
#[must_use]
pub fn limit(election_millis: u64) -> Duration {
    ELECTIONS * Duration::from_millis(election_millis)
}

/// Calls `hand_over` whenever a sync takes longer than `limit`, and again after each further limit.
pub async fn watch<F: Future<Output = ()>>(
    syncs: &Syncs,
    limit: Duration,
    hand_over: impl Fn(Duration) -> F,
) {
    loop {
        // Syncs that began before this call, or while an earlier one was given up, wake nobody any more.
        if !syncs.watched.load(Ordering::SeqCst) {
            syncs.begins.notified().await;
        }
        loop {
            let count = syncs.count.load(Ordering::Relaxed);
            let taken = syncs.under_way().unwrap_or_default();
            clock::sleep(limit.checked_sub(taken).filter(|left| !left.is_zero()).unwrap_or(limit)).await;
            match syncs.under_way() {
                Some(taken) if taken >= limit => hand_over(taken).await,
                Some(_) => {}
                None if syncs.count.load(Ordering::Relaxed) != count => {}
                None => {
                    syncs.watched.store(false, Ordering::SeqCst);
                    // One may have begun before it could see that nobody watches.
                    if syncs.under_way().is_none() || syncs.watched.swap(true, Ordering::SeqCst) {
                        break;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const LIMIT: Duration = Duration::from_millis(1000);

    /// How often leadership was handed over while these syncs took so long, in milliseconds, each after a pause.
    async fn handed(syncs_millis: &[(u64, u64)]) -> u32 {
        let (syncs, handed) = (Syncs::new(), Cell::new(0));
        let watching = watch(&syncs, LIMIT, |_| async { handed.set(handed.get() + 1) });
        let syncing = async {
            for (pause, millis) in syncs_millis {
                clock::sleep(Duration::from_millis(*pause)).await;
                syncs.begin();
                clock::sleep(Duration::from_millis(*millis)).await;
                syncs.end();
            }
        };
        tokio::select! { () = watching => {}, () = syncing => {} }
        handed.get()
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_begins_during_a_stall_or_after_another_was_given_up_sees_it() {
        let (syncs, handed) = (Syncs::new(), Cell::new(0));
        let watch_for = async |millis| {
            let watching = watch(&syncs, LIMIT, |_| async { handed.set(handed.get() + 1) });
            clock::timeout(Duration::from_millis(millis), watching).await.expect_err("it never ends");
        };
        syncs.begin();
        clock::sleep(LIMIT / 2).await;
        watch_for(510).await;
        assert_eq!(handed.get(), 1);
        // Given up in the middle of the next.
        syncs.begin();
        watch_for(510).await;
        assert_eq!(handed.get(), 1);
        watch_for(510).await;
        assert_eq!(handed.get(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_sync_that_takes_too_long_ends_leadership() {
        for (syncs, wanted) in [
            (vec![(0, 999)], 0),
            (vec![(0, 1005)], 1),
            (vec![(0, 2500)], 2),
            (vec![(10, 700), (0, 700), (0, 700), (0, 999)], 0),
            (vec![(10, 700), (0, 1700)], 1),
            (vec![(0, 1), (5000, 1), (5000, 1500)], 1),
        ] {
            assert_eq!(handed(&syncs).await, wanted, "{syncs:?}");
        }
    }
}
