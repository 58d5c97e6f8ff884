//! Pods that wait for a node: to be tried now, after a back-off, or when something changes that could help.
//!
//!     add ──► active ──pop──► (tried) ──refused──► parked ──wake(cure)──► backing off ──due──► active
//!
//! The more important come first, then the older. A pod is never tried again without a reason.

use crate::filter::Cure;
use crate::pod::PodInfo;
use coracle_client::Key;
use coracle_daemon::backoff::exponential;
use coracle_daemon::clock::Instant;
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MOST: Duration = Duration::from_secs(10);

type Rank = (Reverse<i32>, u64, Key);

#[derive(Default)]
pub struct Queue {
    pods: HashMap<Key, Waiting>,
    active: BTreeSet<Rank>,
    backing_off: BTreeSet<(Instant, Key)>,
    next_turn: u64,
}

struct Waiting {
    pod: Arc<PodInfo>,
    /// Order of arrival.
    turn: u64,
    attempts: u32,
    /// Not to be tried again before.
    not_before: Option<Instant>,
    state: State,
}

enum State {
    Active,
    BackingOff(Instant),
    Parked(BTreeSet<Cure>),
    /// Being tried or bound.
    Tried,
}

impl Queue {
    /// Adds a pod, or takes note of its change; a changed pod that was parked is tried again if `retry`.
    pub fn set(&mut self, pod: Arc<PodInfo>, retry: bool, now: Instant) {
        let key = pod.key.clone();
        match self.pods.get_mut(&key) {
            None => {
                let turn = self.next_turn;
                self.next_turn += 1;
                self.active.insert((Reverse(pod.priority), turn, key.clone()));
                self.pods
                    .insert(key, Waiting { pod, turn, attempts: 0, not_before: None, state: State::Active });
            }
            Some(waiting) => {
                waiting.pod = pod;
                if retry && matches!(waiting.state, State::Parked(_)) {
                    self.retry(&key, now);
                }
            }
        }
    }

    /// Forgets a pod.
    pub fn remove(&mut self, key: &Key) {
        if let Some(waiting) = self.pods.remove(key) {
            match waiting.state {
                // The priority of a pod never changes.
                State::Active => {
                    self.active.remove(&(Reverse(waiting.pod.priority), waiting.turn, key.clone()));
                }
                State::BackingOff(at) => {
                    self.backing_off.remove(&(at, key.clone()));
                }
                State::Parked(_) | State::Tried => {}
            }
        }
    }

    /// The next pod to try.
    pub fn pop(&mut self, now: Instant) -> Option<Arc<PodInfo>> {
        while let Some((at, key)) = self.backing_off.first().cloned().filter(|(at, _)| *at <= now) {
            self.backing_off.remove(&(at, key.clone()));
            self.activate(&key);
        }
        let (_, _, key) = self.active.pop_first()?;
        let waiting = self.pods.get_mut(&key)?;
        waiting.state = State::Tried;
        waiting.attempts = waiting.attempts.saturating_add(1);
        waiting.not_before = Some(now + exponential(RETRY_FIRST, RETRY_MOST, waiting.attempts - 1));
        Some(waiting.pod.clone())
    }

    /// When the next back-off ends.
    pub fn next_due(&self) -> Option<Instant> {
        self.backing_off.first().map(|(at, _)| *at)
    }

    /// A tried pod found no node.
    pub fn park(&mut self, key: &Key, cures: BTreeSet<Cure>) {
        if let Some(waiting) = self.pods.get_mut(key) {
            waiting.state = State::Parked(cures);
        }
    }

    /// A tried pod is to be tried again after its back-off.
    pub fn retry(&mut self, key: &Key, now: Instant) {
        let Some(waiting) = self.pods.get_mut(key) else { return };
        match waiting.not_before.filter(|at| *at > now) {
            Some(at) => {
                waiting.state = State::BackingOff(at);
                self.backing_off.insert((at, key.clone()));
            }
            None => self.activate(key),
        }
    }

    /// Something changed that may help some of the parked.
    pub fn wake(&mut self, cure: Cure, now: Instant) {
        let helped =
            |waiting: &Waiting| matches!(&waiting.state, State::Parked(cures) if cures.contains(&cure));
        let keys: Vec<_> =
            self.pods.iter().filter(|(_, waiting)| helped(waiting)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.retry(&key, now);
        }
    }

    fn activate(&mut self, key: &Key) {
        if let Some(waiting) = self.pods.get_mut(key) {
            waiting.state = State::Active;
            self.active.insert((Reverse(waiting.pod.priority), waiting.turn, key.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::tests::pod;

    fn queue(pods: &[&str]) -> (Queue, Instant) {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for words in pods {
            queue.set(Arc::new(pod(words)), true, now);
        }
        (queue, now)
    }

    fn popped(queue: &mut Queue, now: Instant) -> Option<String> {
        queue.pop(now).map(|pod| pod.key.name.clone())
    }

    #[tokio::test(start_paused = true)]
    async fn the_important_come_first_then_the_older() {
        let (mut queue, now) = queue(&["a", "b", "c priority=5"]);
        let order: Vec<_> = std::iter::from_fn(|| popped(&mut queue, now)).collect();
        assert_eq!(order, ["c", "a", "b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_parked_pod_wakes_for_its_cure_and_after_its_back_off() {
        let (mut queue, now) = queue(&["a"]);
        queue.pop(now);
        queue.park(&Key::new("ns", "a"), BTreeSet::from([Cure::Room]));
        queue.wake(Cure::Company, now);
        assert_eq!(queue.next_due(), None);
        queue.wake(Cure::Room, now);
        assert_eq!((popped(&mut queue, now), queue.next_due()), (None, Some(now + RETRY_FIRST)));
        assert_eq!(popped(&mut queue, now + RETRY_FIRST), Some("a".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_cure_after_the_back_off_works_at_once() {
        let (mut queue, now) = queue(&["a"]);
        queue.pop(now);
        queue.park(&Key::new("ns", "a"), BTreeSet::from([Cure::Room]));
        queue.wake(Cure::Room, now + RETRY_MOST);
        assert_eq!(popped(&mut queue, now + RETRY_MOST), Some("a".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_removed_pod_is_not_tried() {
        let (mut queue, now) = queue(&["a"]);
        queue.remove(&Key::new("ns", "a"));
        assert_eq!(popped(&mut queue, now), None);
    }
}
