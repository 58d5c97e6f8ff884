//! See the module above.

use super::index::Index;
use crate::error::StoreError;
use crate::machine::{Batch, KeyRange, Machine};
use coracle_daemon::clock;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::yield_now;

/// Bytes of the last events that are kept for watchers that keep up.
const RECENT_BYTES_MAX: u64 = 16 << 20;
/// Revisions of the last events that are kept.
const RECENT_BATCHES_MAX: usize = 8192;
/// Records that one pull looks at, a revision's last ones apart: what one watcher may take before others have their turn.
const PULL_RECORDS_MAX: usize = 1000;
/// Streams that are all woken at once.
pub(super) const FEW: usize = 16;
/// How many are woken at once when there are more. Each hop of a write waits until those were served.
pub(super) const OF_MANY: usize = 4;
/// How long nobody is woken after many were: a packet for each event and stream costs as much as the write itself does, and in
/// a burst one packet holds what came meanwhile.
pub(super) const REST: Duration = Duration::from_millis(4);

/// A watcher's number within its hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WatcherId(pub(super) u64);

/// Where a stream waits for its watchers to have something to read.
#[derive(Default)]
pub struct Outlet {
    dirty: Mutex<VecDeque<WatcherId>>,
    wake: Notify,
}

impl Outlet {
    /// Waits until a watcher may have something to read.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }
}

struct Watcher {
    range: KeyRange,
    /// The first revision that it wants and has not read, once there is something; and its turn is due.
    unread: Option<i64>,
    /// Revisions below this it does not want.
    from: i64,
    outlet: Arc<Outlet>,
}

/// All watchers of a member.
pub struct Hub {
    state: Mutex<State>,
    /// [`Hub::wake`] has something to do.
    more: Notify,
}

struct State {
    published: i64,
    /// The last events: consecutive revisions, up to `published`.
    recent: VecDeque<Arc<Batch>>,
    recent_bytes: u64,
    watchers: HashMap<WatcherId, Watcher>,
    index: Index,
    last_id: u64,
    /// Streams with something to read that were not woken yet, in order.
    asleep: VecDeque<Arc<Outlet>>,
    /// Whether [`Hub::wake`] wakes them.
    waking: bool,
}

/// What a watcher read.
#[derive(Debug)]
pub struct Pulled {
    /// Batches that may concern it; their events must still be checked against its range.
    pub batches: Vec<Arc<Batch>>,
    /// All events up to here are in it, or were read before.
    pub revision: i64,
}

fn size(batch: &Batch) -> u64 {
    batch.events.iter().map(|event| event.record.size()).sum()
}

impl State {
    fn mark(&mut self, id: WatcherId, revision: i64) {
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        if revision < watcher.from {
            return;
        }
        match watcher.unread {
            Some(unread) => watcher.unread = Some(unread.min(revision)),
            None => {
                watcher.unread = Some(revision);
                let mut dirty = watcher.outlet.dirty.lock();
                // Otherwise it is on its way already.
                if dirty.is_empty() {
                    self.asleep.push_back(watcher.outlet.clone());
                }
                dirty.push_back(id);
            }
        }
    }

    /// Wakes the next streams, all if there are at most `few`. Returns whether there are more.
    fn wake_some(&mut self, few: usize) -> bool {
        let next = if self.asleep.len() <= few { self.asleep.len() } else { OF_MANY };
        for outlet in self.asleep.drain(..next) {
            outlet.wake.notify_one();
        }
        !self.asleep.is_empty()
    }

    fn keep(&mut self, batch: Arc<Batch>) {
        self.recent_bytes += size(&batch);
        self.recent.push_back(batch);
        while self.recent_bytes > RECENT_BYTES_MAX || self.recent.len() > RECENT_BATCHES_MAX {
            let Some(oldest) = self.recent.pop_front() else { return };
            self.recent_bytes -= size(&oldest);
        }
    }

    fn forget_recent(&mut self) {
        self.recent.clear();
        self.recent_bytes = 0;
    }

    /// Kept batches from `from` on; `None` when the first of them is no longer kept.
    fn recent_since(&self, from: i64) -> Option<Pulled> {
        let oldest = self.recent.front()?.revision;
        let start = usize::try_from(from.checked_sub(oldest)?).ok()?;
        let (mut batches, mut looked_at) = (Vec::new(), 0);
        for batch in self.recent.range(start.min(self.recent.len())..) {
            if looked_at >= PULL_RECORDS_MAX {
                return Some(Pulled { batches, revision: batch.revision - 1 });
            }
            looked_at += batch.events.len();
            batches.push(batch.clone());
        }
        Some(Pulled { batches, revision: self.published })
    }
}

impl Hub {
    /// Without watchers, over a store at `revision`.
    #[must_use]
    pub fn new(revision: i64) -> Self {
        Self {
            state: Mutex::new(State {
                published: revision,
                recent: VecDeque::new(),
                recent_bytes: 0,
                watchers: HashMap::new(),
                index: Index::default(),
                last_id: 0,
                asleep: VecDeque::new(),
                waking: false,
            }),
            more: Notify::new(),
        }
    }

    /// Wakes streams when there are many, some at a time, and lets others work in between; never returns.
    pub async fn wake(&self) {
        loop {
            self.more.notified().await;
            while self.go_on_waking() {
                while self.state.lock().wake_some(OF_MANY) {
                    yield_now().await;
                }
                clock::sleep(REST).await;
            }
        }
    }

    /// Whether there is anybody to wake; if not, who is marked next is woken at once.
    fn go_on_waking(&self) -> bool {
        let mut state = self.state.lock();
        state.waking = !state.asleep.is_empty();
        state.waking
    }

    /// Has those woken whom `mark` marks: at once if they are few, and behind those that wait already.
    fn marking<T>(&self, mark: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let marked = mark(&mut state);
        if !state.waking && state.wake_some(FEW) {
            state.waking = true;
            self.more.notify_one();
        }
        marked
    }

    /// The last revision that was published.
    #[must_use]
    pub fn published(&self) -> i64 {
        self.state.lock().published
    }

    /// Number of watchers.
    #[must_use]
    pub fn watchers(&self) -> usize {
        self.state.lock().watchers.len()
    }

    /// Number of watchers that have something to read.
    #[must_use]
    pub fn unread_watchers(&self) -> usize {
        self.state.lock().watchers.values().filter(|watcher| watcher.unread.is_some()).count()
    }

    /// Takes the events of the revisions up to `revision`, and wakes whom they concern.
    pub fn publish(&self, revision: i64, batches: Vec<Arc<Batch>>) {
        if batches.is_empty() {
            return;
        }
        self.marking(|state| {
            state.published = revision;
            if state.watchers.is_empty() {
                state.forget_recent();
                return;
            }
            let mut concerned = Vec::new();
            for batch in batches {
                for event in &batch.events {
                    state.index.each(event.key(), |id| concerned.push(id));
                }
                for id in concerned.drain(..) {
                    state.mark(id, batch.revision);
                }
                state.keep(batch);
            }
        });
    }

    /// The store is at `revision` now, and how it got there is in its history only.
    pub fn jump(&self, revision: i64) {
        self.marking(|state| {
            state.forget_recent();
            let first = state.published + 1;
            state.published = revision;
            let all: Vec<(WatcherId, i64)> =
                state.watchers.iter().map(|(id, watcher)| (*id, watcher.from)).collect();
            for (id, from) in all {
                let first = first.max(from);
                if first <= revision {
                    state.mark(id, first);
                }
            }
        });
    }

    /// Adds a watcher from revision `from` on (0: from the next). Returns it with the revision it was added at.
    pub fn add(&self, outlet: &Arc<Outlet>, range: KeyRange, from: i64) -> (WatcherId, i64) {
        self.marking(|state| {
            state.last_id += 1;
            let id = WatcherId(state.last_id);
            let published = state.published;
            let from = if from <= 0 { published + 1 } else { from };
            state.index.insert(&range, id);
            state.watchers.insert(id, Watcher { range, unread: None, from, outlet: outlet.clone() });
            if from <= published {
                state.mark(id, from);
            }
            (id, published)
        })
    }

    /// Removes a watcher.
    pub fn remove(&self, id: WatcherId) {
        let mut state = self.state.lock();
        if let Some(watcher) = state.watchers.remove(&id) {
            state.index.remove(&watcher.range, id);
        }
    }

    /// The next watcher of `outlet` that has something to read, with the first revision it has not read. It counts as read.
    pub fn next_unread(&self, outlet: &Outlet) -> Option<(WatcherId, i64)> {
        let mut state = self.state.lock();
        loop {
            let id = outlet.dirty.lock().pop_front()?;
            // A removed watcher is still on the list.
            let Some(watcher) = state.watchers.get_mut(&id) else { continue };
            let Some(unread) = watcher.unread.take() else { continue };
            // It may have read further since it was marked.
            let unread = unread.max(watcher.from);
            if unread <= state.published {
                return Some((id, unread));
            }
        }
    }

    /// The revision that all watchers of `outlet` have read up to, when none of them has something to read.
    pub fn all_read(&self, outlet: &Outlet) -> Option<i64> {
        let state = self.state.lock();
        outlet.dirty.lock().is_empty().then_some(state.published)
    }

    /// Reads on from revision `from`: out of the last events, or else out of history. What is left is put back.
    ///
    /// # Errors
    /// History no longer has `from`.
    pub fn pull<'m, M: std::ops::Deref<Target = Machine> + 'm>(
        &self,
        id: WatcherId,
        range: &KeyRange,
        from: i64,
        machine: impl FnOnce() -> M,
    ) -> Result<Pulled, StoreError> {
        let recent = self.state.lock().recent_since(from);
        let pulled = match recent {
            Some(pulled) => pulled,
            None => {
                let machine = machine();
                let (batches, next) = machine.history(range, from, PULL_RECORDS_MAX)?;
                Pulled { batches: batches.into_iter().map(Arc::new).collect(), revision: next - 1 }
            }
        };
        self.marking(|state| {
            if let Some(watcher) = state.watchers.get_mut(&id) {
                watcher.from = watcher.from.max(pulled.revision + 1);
            }
            if pulled.revision < state.published {
                state.mark(id, pulled.revision + 1);
            }
        });
        Ok(pulled)
    }
}
