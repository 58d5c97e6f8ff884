//! Seats and fair queues of all priority levels: pure decisions over data and the time that is passed in.
//!
//! In: requests that come, end and give up. Out: which may run now. A request takes seats of its level; a level may take more
//! than its own while others do not use what they lend. Waiting requests lie in queues: each flow has a hand of queues, and
//! takes the shortest of its hand. The next to run is the one whose queue would have ended it first had all queues been
//! served at once.
//!
//! Invariants: the seats in use never exceed the server's, exempt levels apart; a level can always get the seats that it
//! does not lend; what waits is bounded by queues and their length.

use super::matching::{Level, Limit};
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// How long a request is taken to run until that is known, in seconds.
const GUESSED: f64 = 3.0;

/// A request.
pub type Id = u64;

/// What becomes of a request that comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    Runs,
    Waits,
    Refused(&'static str),
}

struct Waiting {
    id: Id,
    seats: u64,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// Seats of its requests that run.
    running: u64,
    /// The virtual time at which its next request would begin.
    next: f64,
}

/// A running request.
struct Running {
    level: String,
    queue: Option<usize>,
    seats: u64,
    began: Duration,
}

/// A level with what it has.
struct Own {
    level: Level,
    nominal: u64,
    least: u64,
    most: u64,
    used: u64,
    queues: Vec<Queue>,
    /// Virtual time, and when it was that.
    time: f64,
    at: Duration,
    waiting: usize,
}

/// What a level does now, for the metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub level: String,
    pub nominal: u64,
    pub least: u64,
    pub most: u64,
    pub used: u64,
    pub waiting: usize,
}

/// All levels.
#[derive(Default)]
pub struct Queues {
    seats: u64,
    levels: HashMap<String, Own>,
    running: HashMap<Id, Running>,
    /// Where requests wait: their level and queue.
    places: HashMap<Id, (String, usize)>,
}

fn percent(of: u64, percent: u64) -> u64 {
    (of * percent + 50) / 100
}

impl Own {
    fn new(level: Level, nominal: u64, total: u64) -> Self {
        let least = nominal - percent(nominal, level.lendable).min(nominal);
        let most = level.borrowing.map_or(total, |own| nominal + percent(nominal, own)).max(1);
        let count = match level.limit {
            Limit::Queue { queues, .. } => queues,
            _ => 0,
        };
        let queues = std::iter::repeat_with(Queue::default).take(count).collect();
        Self { level, nominal, least, most, used: 0, queues, time: 0.0, at: Duration::ZERO, waiting: 0 }
    }

    /// Virtual time goes on as fast as each busy queue is served.
    #[expect(clippy::cast_precision_loss, reason = "counts of seats and queues are small")]
    fn advance(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = now;
        let busy = self.queues.iter().filter(|queue| queue.running > 0 || !queue.waiting.is_empty()).count();
        if busy > 0 {
            self.time += passed * (self.used.max(1) as f64) / (busy as f64);
        }
    }

    /// The queues of a flow, dealt as cards are.
    fn hand(&self, flow: u64, size: usize) -> Vec<usize> {
        let mut left = flow;
        let size = size.min(self.queues.len());
        let (mut dealt, mut sorted) = (Vec::with_capacity(size), Vec::with_capacity(size));
        for index in 0..size {
            let rest = (self.queues.len() - index) as u64;
            let mut card = usize::try_from(left % rest).unwrap_or(0);
            left /= rest;
            // Cards that are dealt already are skipped.
            let mut place = 0;
            while sorted.get(place).is_some_and(|own| *own <= card) {
                (card, place) = (card + 1, place + 1);
            }
            sorted.insert(place, card);
            dealt.push(card);
        }
        dealt
    }

    fn shortest(&self, flow: u64, hand: usize) -> Option<usize> {
        let load = |at: &usize| {
            let queue = &self.queues[*at];
            queue.running + queue.waiting.iter().map(|waiting| waiting.seats).sum::<u64>()
        };
        self.hand(flow, hand).into_iter().min_by_key(load)
    }

    /// The queue whose first request would have ended first.
    #[expect(clippy::cast_precision_loss, reason = "counts of seats are small")]
    fn next_queue(&self) -> Option<usize> {
        let end = |queue: &Queue| {
            queue.next + GUESSED * queue.waiting.front().map_or(0, |first| first.seats) as f64
        };
        let some = self.queues.iter().enumerate().filter(|(_, queue)| !queue.waiting.is_empty());
        some.min_by(|(_, a), (_, b)| end(a).total_cmp(&end(b))).map(|(at, _)| at)
    }
}

impl Queues {
    /// With these levels and seats in all; what runs or waits goes on.
    pub fn configure(&mut self, levels: &HashMap<String, Level>, seats: u64) {
        self.seats = seats;
        let shares: u64 = levels.values().map(|level| level.shares).sum();
        let mut before = std::mem::take(&mut self.levels);
        for (name, level) in levels {
            let nominal = (seats * level.shares).div_ceil(shares.max(1));
            let mut own = Own::new(level.clone(), nominal, seats);
            if let Some(mut known) = before.remove(name) {
                (own.used, own.time, own.at, own.waiting) = (known.used, known.time, known.at, known.waiting);
                // Queues that hold something stay, so that nobody's place is lost.
                let keep =
                    known.queues.iter().rposition(|queue| queue.running > 0 || !queue.waiting.is_empty());
                let size = own.queues.len().max(keep.map_or(0, |last| last + 1));
                known.queues.resize_with(size, Queue::default);
                own.queues = known.queues;
            }
            self.levels.insert(name.clone(), own);
        }
        // A level that is gone keeps what is in it until it is empty.
        self.levels.extend(before.into_iter().filter(|(_, own)| own.used > 0 || own.waiting > 0));
    }

    /// Whether a level may use more seats now.
    fn free(&self, own: &Own, seats: u64) -> bool {
        // What asks for more than a level can ever have runs alone.
        if own.used > 0 && own.used + seats > own.most {
            return false;
        }
        let others = self.levels.values().filter(|other| other.level.limit != Limit::Exempt);
        let kept: u64 =
            others.map(|other| if std::ptr::eq(other, own) { 0 } else { other.used.max(other.least) }).sum();
        own.used + seats <= own.least || kept + own.used + seats <= self.seats || own.used == 0
    }

    /// A request comes.
    pub fn arrive(&mut self, id: Id, level: &str, flow: u64, seats: u64, now: Duration) -> Arrival {
        let Some(own) = self.levels.get_mut(level) else { return Arrival::Runs };
        own.advance(now);
        let limit = own.level.limit;
        let own = &self.levels[level];
        if limit == Limit::Exempt {
            self.begin(id, level, None, seats, now);
            return Arrival::Runs;
        }
        let free = own.waiting == 0 && self.free(own, seats);
        let Limit::Queue { hand, length, .. } = limit else {
            if !free {
                return Arrival::Refused("concurrency-limit");
            }
            self.begin(id, level, None, seats, now);
            return Arrival::Runs;
        };
        let Some(queue) = own.shortest(flow, hand) else { return Arrival::Refused("queue-full") };
        if free {
            self.begin(id, level, Some(queue), seats, now);
            return Arrival::Runs;
        }
        if own.queues[queue].waiting.len() >= length {
            return Arrival::Refused("queue-full");
        }
        if let Some(own) = self.levels.get_mut(level) {
            let time = own.time;
            let queue = &mut own.queues[queue];
            if queue.waiting.is_empty() && queue.running == 0 {
                queue.next = time;
            }
            queue.waiting.push_back(Waiting { id, seats });
            own.waiting += 1;
        }
        self.places.insert(id, (level.to_owned(), queue));
        Arrival::Waits
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of seats are small")]
    fn begin(&mut self, id: Id, level: &str, queue: Option<usize>, seats: u64, now: Duration) {
        let Some(own) = self.levels.get_mut(level) else { return };
        own.used += seats;
        let time = own.time;
        if let Some(queue) = queue.and_then(|at| own.queues.get_mut(at)) {
            if queue.running == 0 && queue.waiting.is_empty() {
                queue.next = queue.next.max(time);
            }
            queue.running += seats;
            queue.next += GUESSED * seats as f64;
        }
        self.running.insert(id, Running { level: level.to_owned(), queue, seats, began: now });
    }

    /// A request ends.
    #[expect(clippy::cast_precision_loss, reason = "counts of seats are small")]
    pub fn end(&mut self, id: Id, now: Duration) {
        let Some(running) = self.running.remove(&id) else { return };
        let Some(own) = self.levels.get_mut(&running.level) else { return };
        own.advance(now);
        own.used = own.used.saturating_sub(running.seats);
        if let Some(queue) = running.queue.and_then(|at| own.queues.get_mut(at)) {
            queue.running = queue.running.saturating_sub(running.seats);
            // Now it is known how long it ran.
            let ran = now.saturating_sub(running.began).as_secs_f64();
            queue.next -= (GUESSED - ran) * running.seats as f64;
        }
    }

    /// A waiting request gives up; false where it runs already.
    pub fn leave(&mut self, id: Id) -> bool {
        let Some((level, queue)) = self.places.remove(&id) else { return false };
        let Some(own) = self.levels.get_mut(&level) else { return true };
        own.queues[queue].waiting.retain(|waiting| waiting.id != id);
        own.waiting = own.waiting.saturating_sub(1);
        true
    }

    /// Lets requests run that may do so now.
    pub fn dispatch(&mut self, now: Duration) -> Vec<Id> {
        let mut out = Vec::new();
        let waiting = |own: &Own| own.waiting > 0;
        let names: Vec<String> =
            self.levels.iter().filter(|(_, own)| waiting(own)).map(|(name, _)| name.clone()).collect();
        for name in names {
            if let Some(own) = self.levels.get_mut(&name) {
                own.advance(now);
            }
            while let Some((id, queue, seats)) = self.next(&name) {
                if let Some(own) = self.levels.get_mut(&name) {
                    own.queues[queue].waiting.pop_front();
                    own.waiting -= 1;
                }
                self.places.remove(&id);
                self.begin(id, &name, Some(queue), seats, now);
                out.push(id);
            }
        }
        out
    }

    fn next(&self, level: &str) -> Option<(Id, usize, u64)> {
        let own = self.levels.get(level)?;
        let queue = own.next_queue()?;
        let first = own.queues[queue].waiting.front()?;
        self.free(own, first.seats).then_some((first.id, queue, first.seats))
    }

    /// What every level does now.
    #[must_use]
    pub fn usage(&self) -> Vec<Usage> {
        let usage = |own: &Own| Usage {
            level: own.level.name.clone(),
            nominal: own.nominal,
            least: own.least,
            most: own.most,
            used: own.used,
            waiting: own.waiting,
        };
        self.levels.values().map(usage).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(name: &str, shares: u64, lendable: u64, limit: Limit) -> Level {
        Level { name: name.to_owned(), uid: String::new(), shares, lendable, borrowing: None, limit }
    }

    fn queues(levels: &[Level], seats: u64) -> Queues {
        let mut queues = Queues::default();
        let levels = levels.iter().map(|level| (level.name.clone(), level.clone())).collect();
        queues.configure(&levels, seats);
        queues
    }

    const QUEUED: Limit = Limit::Queue { queues: 8, hand: 2, length: 3 };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn seats_are_shared_by_shares_and_lent_while_nobody_needs_them() {
        let mut queues = queues(&[level("a", 30, 50, Limit::Reject), level("b", 10, 0, Limit::Reject)], 40);
        // `a` has 30 seats and lends 15 of them; `b` has 10 that it keeps.
        let ran = (0..40).filter(|id| queues.arrive(*id, "b", 0, 1, at(0)) == Arrival::Runs).count();
        assert_eq!(ran, 25);
        let ran = (100..140).filter(|id| queues.arrive(*id, "a", 0, 1, at(0)) == Arrival::Runs).count();
        assert_eq!(ran, 15);
        assert_eq!(queues.arrive(200, "a", 0, 1, at(0)), Arrival::Refused("concurrency-limit"));
        // What was borrowed comes back.
        (0..10).for_each(|id| queues.end(id, at(1)));
        let ran = (300..340).filter(|id| queues.arrive(*id, "a", 0, 1, at(1)) == Arrival::Runs).count();
        assert_eq!(ran, 10);
    }

    #[test]
    fn exempt_levels_are_never_held_up() {
        let mut queues = queues(&[level("x", 0, 0, Limit::Exempt), level("b", 1, 0, Limit::Reject)], 1);
        assert!((0..100).all(|id| queues.arrive(id, "x", 0, 1, at(0)) == Arrival::Runs));
        assert_eq!(queues.arrive(100, "b", 0, 1, at(0)), Arrival::Runs);
    }

    #[test]
    fn requests_wait_in_short_queues_and_run_when_seats_are_free() {
        let mut queues = queues(&[level("q", 1, 0, QUEUED)], 1);
        assert_eq!(queues.arrive(1, "q", 7, 1, at(0)), Arrival::Runs);
        let told: Vec<Arrival> = (2..9).map(|id| queues.arrive(id, "q", 7, 1, at(0))).collect();
        // Two queues of three.
        assert_eq!(told[..6], [Arrival::Waits; 6]);
        assert_eq!(told[6], Arrival::Refused("queue-full"));
        assert!(queues.dispatch(at(0)).is_empty());
        queues.end(1, at(1));
        let next = queues.dispatch(at(1));
        assert_eq!(next.len(), 1);
        assert!(!queues.leave(next[0]) && queues.leave(8 - next[0] + 1 + u64::from(next[0] == 4)));
        assert_eq!(queues.usage()[0].waiting, 4);
    }

    #[test]
    fn a_flood_of_one_flow_does_not_hold_up_another() {
        let mut queues = queues(&[level("q", 1, 0, Limit::Queue { queues: 64, hand: 4, length: 50 })], 4);
        for id in 0..150 {
            queues.arrive(id, "q", 12_345, 1, at(0));
        }
        for id in 1000..1004 {
            assert_eq!(queues.arrive(id, "q", 999_999_937, 1, at(0)), Arrival::Waits);
        }
        let mut running: Vec<Id> = (0..4).collect();
        let mut ended = Vec::new();
        for second in 1..=8 {
            for id in std::mem::take(&mut running) {
                queues.end(id, at(second));
                ended.push(id);
            }
            running = queues.dispatch(at(second));
        }
        let quiet = ended.iter().position(|id| *id >= 1000).expect("the quiet flow ran");
        let last = ended.iter().rposition(|id| *id >= 1000).expect("the quiet flow ran");
        assert!(quiet <= 8 && last <= 24, "{ended:?}");
    }

    #[test]
    fn a_hand_has_each_queue_once() {
        let queues = queues(&[level("q", 1, 0, Limit::Queue { queues: 10, hand: 10, length: 1 })], 1);
        for flow in [0, 1, 7, 12_345, u64::MAX] {
            let mut hand = queues.levels["q"].hand(flow, 10);
            hand.sort_unstable();
            assert_eq!(hand, (0..10).collect::<Vec<_>>(), "{flow}");
        }
    }

    #[test]
    fn levels_change_while_requests_wait() {
        let mut queues = queues(&[level("q", 1, 0, QUEUED)], 1);
        queues.arrive(1, "q", 7, 1, at(0));
        queues.arrive(2, "q", 7, 1, at(0));
        queues.configure(&HashMap::new(), 1);
        queues.end(1, at(1));
        assert_eq!(queues.dispatch(at(1)), [2]);
        queues.end(2, at(2));
        queues.configure(&HashMap::new(), 1);
        assert!(queues.usage().is_empty());
    }
}
