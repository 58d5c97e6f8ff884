//! Seats and fair queues of all priority levels: pure decisions over data and the time that is passed in.
//!
//! In: requests that come, end and give up. Out: which may run now. A request takes seats of its level; every ten seconds
//! levels are lent what others do not need (borrowing.rs). Waiting requests lie in queues (level.rs): each flow has a hand of
//! queues, and takes the shortest of its hand. The next to run is the one whose queue would have ended it first had all queues
//! been served at once.
//!
//! Invariants: a level always has the seats that it does not lend; what waits is bounded by queues and their length; time
//! passes only when something comes, ends, or waits.

use super::borrowing::{Claim, PERIOD, allocate};
use super::level::{GUESSED, Own, Waiting};
use super::matching::{Level, Limit};
use std::collections::HashMap;
use std::time::Duration;

/// A request.
pub type Id = u64;

/// What becomes of a request that comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    Runs,
    Waits,
    Refused(&'static str),
}

/// A running request.
struct Running {
    level: String,
    queue: Option<usize>,
    seats: u64,
    began: Duration,
}

/// What a level does now, for the metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub level: String,
    pub nominal: u64,
    pub least: u64,
    pub most: u64,
    pub limit: u64,
    pub used: u64,
    pub wanted: u64,
    pub waiting: usize,
    pub refused: u64,
    pub is_leaving: bool,
    pub is_exempt: bool,
}

/// What a queue holds now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Held {
    pub waiting: Vec<Id>,
    pub requests: usize,
    pub running: u64,
    pub next: f64,
    pub wanted: u64,
}

impl Held {
    /// The work that waits, in seats times seconds.
    #[expect(clippy::cast_precision_loss, reason = "counts of seats are small")]
    pub fn work(&self) -> f64 {
        GUESSED * self.wanted as f64
    }
}

/// All levels.
#[derive(Default)]
pub struct Queues {
    seats: u64,
    levels: HashMap<String, Own>,
    running: HashMap<Id, Running>,
    /// Where requests wait: their level and queue.
    places: HashMap<Id, (String, usize)>,
    /// When seats were last shared out.
    shared: Duration,
}

impl Queues {
    /// With these levels and seats in all; what runs or waits goes on.
    pub fn configure(&mut self, levels: &HashMap<String, Level>, seats: u64, now: Duration) {
        self.seats = seats;
        let shares: u64 = levels.values().map(|level| level.shares).sum();
        let mut before = std::mem::take(&mut self.levels);
        for (name, level) in levels {
            let nominal = (seats * level.shares).div_ceil(shares.max(1));
            let mut own = Own::new(level.clone(), nominal, seats, now);
            if let Some(known) = before.remove(name) {
                own.inherit(known);
            }
            self.levels.insert(name.clone(), own);
        }
        // A level that is gone keeps what is in it until it is empty.
        for (name, mut own) in before.into_iter().filter(|(_, own)| own.used > 0 || own.waiting > 0) {
            own.is_leaving = true;
            self.levels.insert(name, own);
        }
        self.share();
    }

    /// Shares seats out anew where it is time for that; whether it was.
    pub fn turn(&mut self, now: Duration) -> bool {
        if now.saturating_sub(self.shared) < PERIOD {
            return false;
        }
        self.shared = now;
        self.levels.values_mut().for_each(|own| own.demand.settle(now));
        self.share();
        true
    }

    /// When it is time for that.
    #[must_use]
    pub fn next_turn(&self) -> Duration {
        self.shared + PERIOD
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts of seats are small and no less than zero"
    )]
    fn share(&mut self) {
        let mut limited: Vec<&mut Own> =
            self.levels.values_mut().filter(|own| own.level.limit != Limit::Exempt).collect();
        let claims: Vec<Claim> = limited
            .iter()
            .map(|own| {
                let least = (own.least as f64).max((own.nominal as f64).min(own.demand.peak));
                Claim { least, most: own.most as f64, target: least.max(own.demand.smoothed) }
            })
            .collect();
        let sum: u64 = limited.iter().map(|own| own.nominal).sum();
        // Where no shares fit, all stay as they are.
        let Some(seats) = allocate(sum as f64, &claims) else { return };
        for (own, seats) in limited.iter_mut().zip(seats) {
            own.limit = seats.round() as u64;
        }
    }

    /// A request comes.
    pub fn arrive(&mut self, id: Id, level: &str, flow: u64, seats: u64, now: Duration) -> Arrival {
        self.turn(now);
        let Some(own) = self.levels.get_mut(level) else { return Arrival::Runs };
        own.advance(now);
        let limit = own.level.limit;
        if limit == Limit::Exempt {
            self.begin(id, level, None, seats, now);
            return Arrival::Runs;
        }
        let free = own.waiting == 0 && own.has_free(seats);
        let Limit::Queue { hand, length, .. } = limit else {
            if !free {
                own.refused += 1;
                return Arrival::Refused("concurrency-limit");
            }
            self.begin(id, level, None, seats, now);
            return Arrival::Runs;
        };
        let queue = own.shortest(flow, hand).filter(|at| free || own.queues[*at].waiting.len() < length);
        let Some(queue) = queue else {
            own.refused += 1;
            return Arrival::Refused("queue-full");
        };
        if free {
            self.begin(id, level, Some(queue), seats, now);
            return Arrival::Runs;
        }
        let (time, place) = (own.time, &mut own.queues[queue]);
        if place.waiting.is_empty() && place.running == 0 {
            place.next = time;
        }
        place.waiting.push_back(Waiting { id, seats });
        place.wanted += seats;
        own.waiting += 1;
        own.wanted += seats;
        own.note(Some(queue), now);
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
            queue.requests += 1;
            queue.next += GUESSED * seats as f64;
        }
        own.note(queue, now);
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
            queue.requests = queue.requests.saturating_sub(1);
            // Now it is known how long it ran.
            let ran = now.saturating_sub(running.began).as_secs_f64();
            queue.next -= (GUESSED - ran) * running.seats as f64;
        }
        own.note(running.queue, now);
    }

    /// A waiting request gives up; false where it runs already.
    pub fn leave(&mut self, id: Id, now: Duration) -> bool {
        let Some((level, queue)) = self.places.remove(&id) else { return false };
        let Some(own) = self.levels.get_mut(&level) else { return true };
        let place = &mut own.queues[queue];
        let Some(at) = place.waiting.iter().position(|waiting| waiting.id == id) else { return true };
        let seats = place.waiting.remove(at).map_or(0, |gone| gone.seats);
        place.wanted -= seats;
        own.waiting -= 1;
        own.wanted -= seats;
        own.note(Some(queue), now);
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
                    own.queues[queue].wanted -= seats;
                    own.waiting -= 1;
                    own.wanted -= seats;
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
        own.has_free(first.seats).then_some((first.id, queue, first.seats))
    }

    /// What every level does now.
    #[must_use]
    pub fn usage(&self) -> Vec<Usage> {
        let usage = |own: &Own| Usage {
            level: own.level.name.clone(),
            nominal: own.nominal,
            least: own.least,
            most: own.most,
            limit: own.limit,
            used: own.used,
            wanted: own.wanted,
            waiting: own.waiting,
            refused: own.refused,
            is_leaving: own.is_leaving,
            is_exempt: own.level.limit == Limit::Exempt,
        };
        self.levels.values().map(usage).collect()
    }

    /// What the queues of a level hold now.
    #[must_use]
    pub fn held(&self, level: &str) -> Vec<Held> {
        let held = |queue: &super::level::Queue| Held {
            waiting: queue.waiting.iter().map(|waiting| waiting.id).collect(),
            requests: queue.requests,
            running: queue.running,
            next: queue.next,
            wanted: queue.wanted,
        };
        self.levels.get(level).map(|own| own.queues.iter().map(held).collect()).unwrap_or_default()
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
        queues.configure(&levels, seats, Duration::ZERO);
        queues
    }

    const QUEUED: Limit = Limit::Queue { queues: 8, hand: 2, length: 3 };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn ran(queues: &mut Queues, level: &str, ids: std::ops::Range<Id>, now: u64) -> usize {
        ids.filter(|id| queues.arrive(*id, level, 0, 1, at(now)) == Arrival::Runs).count()
    }

    #[test]
    fn seats_are_shared_by_shares_and_lent_every_ten_seconds_while_nobody_needs_them() {
        let mut queues = queues(&[level("a", 30, 50, Limit::Reject), level("b", 10, 0, Limit::Reject)], 40);
        let limits = |queues: &Queues| -> Vec<u64> {
            let mut usage = queues.usage();
            usage.sort_by(|one, other| one.level.cmp(&other.level));
            usage.iter().map(|usage| usage.limit).collect()
        };
        // `a` has 30 seats and lends 15 of them; `b` has 10 that it keeps. Nothing is known yet of what they need.
        assert_eq!(limits(&queues), [28, 12]);
        assert_eq!(ran(&mut queues, "b", 0..40, 0), 12);
        assert_eq!(queues.arrive(40, "b", 0, 1, at(9)), Arrival::Refused("concurrency-limit"));
        // `b` was full and `a` asked for nothing: more is lent with each turn, never more than `a` lends.
        for turn in 1..100 {
            ran(&mut queues, "b", 1000 * turn..1000 * turn + 40, turn * 10);
        }
        assert_eq!(limits(&queues), [15, 25]);
        // `a` has what it does not lend at once, and its own from the next turn on; what runs is not ended for that.
        assert_eq!(ran(&mut queues, "a", 200_000..200_040, 995), 15);
        assert!(queues.turn(at(1000)));
        assert_eq!(ran(&mut queues, "b", 300_000..300_001, 1000), 0);
        let [a, b] = limits(&queues)[..] else { panic!("two levels") };
        assert!(a >= 15 && b >= 10 && a + b == 40, "{a} {b}");
        assert!(!queues.turn(at(1009)));
    }

    #[test]
    fn what_no_queue_holds_costs_nothing_to_look_for() {
        let mut queues =
            queues(&[level("q", 1, 0, Limit::Queue { queues: 100_000, hand: 4, length: 50 })], 1);
        let began = std::time::Instant::now();
        for id in 0..20_000 {
            queues.arrive(id, "q", id * 7919, 1, at(0));
        }
        for id in 0..20_000 {
            queues.end(id, at(1));
            assert!(queues.dispatch(at(1)).len() <= 1);
        }
        // Were all queues walked each time, these would be billions of steps.
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
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
        assert!(
            !queues.leave(next[0], at(1)) && queues.leave(8 - next[0] + 1 + u64::from(next[0] == 4), at(1))
        );
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
        queues.configure(&HashMap::new(), 1, at(0));
        queues.end(1, at(1));
        assert_eq!(queues.dispatch(at(1)), [2]);
        queues.end(2, at(2));
        queues.configure(&HashMap::new(), 1, at(2));
        assert!(queues.usage().is_empty());
    }
}
