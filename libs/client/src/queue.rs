//! The work queue between changes and reconciles.
//!
//! In: keys, now or later, as often as anyone likes. Out: each key once, to one worker at a time. A key added while it
//! is being worked on comes again when that work is done; a key with a due time comes at the earliest time asked for.
//! Failures of a key are spaced 5 ms, 10 ms, … 1000 s until it succeeds, or as long at most as its queue says.

use coracle_daemon::backoff::exponential;
use coracle_daemon::clock::{self, Instant};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

const RETRY_FIRST: Duration = Duration::from_millis(5);
const RETRY_MOST: Duration = Duration::from_secs(1000);

/// A handle on a queue; clones share it. One task takes keys out (see [`crate::controller::run`]), any may add.
pub struct Queue<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

struct Shared<T> {
    state: Mutex<State<T>>,
    wake: Notify,
}

struct State<T> {
    /// To be handed out, in order; the same keys as in `waiting`.
    ready: VecDeque<T>,
    waiting: HashSet<T>,
    /// Handed out and not done; `true` when added again meanwhile.
    working: HashMap<T, bool>,
    /// Added for later, soonest first; `due` finds a key's time.
    later: BTreeSet<(Instant, T)>,
    due: HashMap<T, Instant>,
    failures: HashMap<T, u32>,
    retry_most: Duration,
}

impl<T: Clone + Eq + Hash + Ord> Default for Queue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Clone + Eq + Hash + Ord> Queue<T> {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self::retrying_within(RETRY_MOST)
    }

    /// An empty queue of keys that fail for reasons outside of them, whose end nothing tells: none waits longer than `most`.
    #[must_use]
    pub fn retrying_within(most: Duration) -> Self {
        let state = State {
            ready: VecDeque::new(),
            waiting: HashSet::new(),
            working: HashMap::new(),
            later: BTreeSet::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            retry_most: most,
        };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), wake: Notify::new() }) }
    }

    /// Adds a key, to be handed out as soon as possible.
    pub fn add(&self, key: T) {
        self.shared.state.lock().add(key);
        self.shared.wake.notify_one();
    }

    /// Adds a key, to be handed out after `delay`, or before if it is also added for sooner.
    pub fn add_after(&self, key: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        self.shared.state.lock().add_at(key, Instant::now() + delay);
        self.shared.wake.notify_one();
    }

    /// Adds a key whose work failed, after its back-off.
    pub fn retry(&self, key: T) {
        let delay = {
            let mut state = self.shared.state.lock();
            let most = state.retry_most;
            let failures = state.failures.entry(key.clone()).or_default();
            let delay = exponential(RETRY_FIRST, most, *failures);
            *failures = failures.saturating_add(1);
            delay
        };
        self.add_after(key, delay);
    }

    /// Forgets a key's failures.
    pub fn forget(&self, key: &T) {
        self.shared.state.lock().failures.remove(key);
    }

    /// Waits for a key to work on. Call [`Queue::done`] with it afterwards.
    pub async fn next(&self) -> T {
        loop {
            let next_due = {
                let mut state = self.shared.state.lock();
                state.move_due(Instant::now());
                if let Some(key) = state.take() {
                    return key;
                }
                state.later.first().map(|(at, _)| *at)
            };
            match next_due {
                Some(at) => tokio::select! {
                    () = clock::sleep_until(at) => {}
                    () = self.shared.wake.notified() => {}
                },
                None => self.shared.wake.notified().await,
            }
        }
    }

    /// The work on `key` is over.
    pub fn done(&self, key: &T) {
        let mut state = self.shared.state.lock();
        if state.working.remove(key) == Some(true) {
            state.add(key.clone());
            drop(state);
            self.shared.wake.notify_one();
        }
    }

    /// How many keys wait to be handed out now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.state.lock().ready.len()
    }

    /// Whether no key waits to be handed out now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: Clone + Eq + Hash + Ord> State<T> {
    fn add(&mut self, key: T) {
        if let Some(at) = self.due.remove(&key) {
            self.later.remove(&(at, key.clone()));
        }
        if let Some(again) = self.working.get_mut(&key) {
            *again = true;
        } else if self.waiting.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn add_at(&mut self, key: T, at: Instant) {
        match self.due.get(&key) {
            Some(sooner) if *sooner <= at => return,
            Some(later) => {
                self.later.remove(&(*later, key.clone()));
            }
            None => {}
        }
        self.due.insert(key.clone(), at);
        self.later.insert((at, key));
    }

    fn move_due(&mut self, now: Instant) {
        while let Some((at, key)) = self.later.first().cloned().filter(|(at, _)| *at <= now) {
            self.later.remove(&(at, key.clone()));
            self.due.remove(&key);
            self.add(key);
        }
    }

    fn take(&mut self) -> Option<T> {
        let key = self.ready.pop_front()?;
        self.waiting.remove(&key);
        self.working.insert(key.clone(), false);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn taken(queue: &Queue<&'static str>) -> Option<&'static str> {
        clock::timeout(Duration::from_millis(1), queue.next()).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_added_twice_comes_once() {
        let queue = Queue::new();
        queue.add("a");
        queue.add("a");
        assert_eq!((taken(&queue).await, taken(&queue).await), (Some("a"), None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_in_work_comes_again_only_when_done() {
        let queue = Queue::new();
        queue.add("a");
        queue.next().await;
        queue.add("a");
        assert_eq!(taken(&queue).await, None);
        queue.done(&"a");
        assert_eq!(taken(&queue).await, Some("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_due_time_wins() {
        let queue = Queue::new();
        let began = Instant::now();
        queue.add_after("a", Duration::from_secs(9));
        queue.add_after("a", Duration::from_secs(2));
        queue.add_after("a", Duration::from_secs(5));
        queue.next().await;
        assert_eq!(began.elapsed().as_secs(), 2);
        queue.done(&"a");
        assert_eq!(clock::timeout(Duration::from_secs(60), queue.next()).await.ok(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn no_key_waits_longer_than_its_queue_says() {
        let queue = Queue::retrying_within(Duration::from_secs(60));
        let mut waited = Duration::ZERO;
        for _ in 0..20 {
            let began = Instant::now();
            queue.retry("a");
            queue.next().await;
            queue.done(&"a");
            waited = began.elapsed();
        }
        assert_eq!(waited.as_secs(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_space_out_until_forgotten() {
        let queue = Queue::new();
        let mut waits = Vec::new();
        for _ in 0..3 {
            let began = Instant::now();
            queue.retry("a");
            queue.next().await;
            queue.done(&"a");
            waits.push(began.elapsed().as_millis());
        }
        assert_eq!(waits, [5, 10, 20]);
        queue.forget(&"a");
        let began = Instant::now();
        queue.retry("a");
        queue.next().await;
        assert_eq!(began.elapsed().as_millis(), 5);
    }
}
