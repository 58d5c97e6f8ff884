//! One priority level: its seats, its queues and what waits in them. Every step looks at few queues, however many there are.

use super::borrowing::Demand;
use super::matching::{Level, Limit};
use super::queues::Id;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// How long a request is taken to run until that is known, in seconds.
pub const GUESSED: f64 = 3.0;

pub struct Waiting {
    pub id: Id,
    pub seats: u64,
}

#[derive(Default)]
pub struct Queue {
    pub waiting: VecDeque<Waiting>,
    /// Seats of its requests that wait.
    pub wanted: u64,
    /// Seats of its requests that run, and how many those are.
    pub running: u64,
    pub requests: usize,
    /// The virtual time at which its next request would begin.
    pub next: f64,
    /// Where it stands among those that could go next.
    place: Option<u64>,
    is_busy: bool,
}

/// A level with what it has.
pub struct Own {
    pub level: Level,
    pub nominal: u64,
    pub least: u64,
    pub most: u64,
    /// Seats that it may use for now.
    pub limit: u64,
    pub used: u64,
    pub queues: Vec<Queue>,
    /// Its first requests by when they would have ended, of all queues where some wait.
    order: BTreeSet<(u64, usize)>,
    busy: usize,
    /// Virtual time, and when it was that.
    pub time: f64,
    pub at: Duration,
    pub waiting: usize,
    /// Seats that are waited for.
    pub wanted: u64,
    pub demand: Demand,
    /// It is no more wanted, and kept until it is empty.
    pub is_leaving: bool,
    pub refused: u64,
}

fn percent(of: u64, percent: u64) -> u64 {
    (of * percent + 50) / 100
}

/// Numbers in the order of these doubles.
fn ordered(value: f64) -> u64 {
    let bits = value.to_bits();
    if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }
}

impl Own {
    #[expect(clippy::cast_precision_loss, reason = "counts of seats are small")]
    pub fn new(level: Level, nominal: u64, total: u64, now: Duration) -> Self {
        let lent = percent(nominal, level.lendable).min(nominal);
        let least = nominal - lent;
        let most = nominal + level.borrowing.map_or(total, |own| percent(nominal, own));
        let count = match level.limit {
            Limit::Queue { queues, .. } => queues,
            _ => 0,
        };
        let expected = nominal - lent / 2;
        Self {
            level,
            nominal,
            least,
            most: most.max(1),
            limit: nominal,
            used: 0,
            queues: std::iter::repeat_with(Queue::default).take(count).collect(),
            order: BTreeSet::new(),
            busy: 0,
            time: 0.0,
            at: Duration::ZERO,
            waiting: 0,
            wanted: 0,
            demand: Demand::expected(expected as f64, now),
            is_leaving: false,
            refused: 0,
        }
    }

    /// Takes over what runs and waits in an earlier form of it.
    pub fn inherit(&mut self, mut known: Self) {
        // Queues that hold something stay, so that nobody's place is lost.
        let keep = known.queues.iter().rposition(|queue| queue.is_busy);
        let size = self.queues.len().max(keep.map_or(0, |last| last + 1));
        known.queues.resize_with(size, Queue::default);
        (self.queues, self.order, self.busy) = (known.queues, known.order, known.busy);
        (self.used, self.waiting, self.wanted) = (known.used, known.waiting, known.wanted);
        (self.time, self.at, self.limit) = (known.time, known.at, known.limit);
        (self.demand, self.refused) = (known.demand, known.refused);
    }

    /// Virtual time goes on as fast as each busy queue is served.
    #[expect(clippy::cast_precision_loss, reason = "counts of seats and queues are small")]
    pub fn advance(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = now;
        if self.busy > 0 {
            self.time += passed * (self.used.max(1) as f64) / (self.busy as f64);
        }
    }

    /// Notes that a queue is another than before, and what the level asks for.
    #[expect(clippy::cast_precision_loss, reason = "counts of seats are small")]
    pub fn note(&mut self, queue: Option<usize>, now: Duration) {
        self.demand.set((self.used + self.wanted) as f64, now);
        let Some((at, queue)) = queue.and_then(|at| Some((at, self.queues.get_mut(at)?))) else { return };
        let is_busy = queue.running > 0 || !queue.waiting.is_empty();
        match (queue.is_busy, is_busy) {
            (false, true) => self.busy += 1,
            (true, false) => self.busy -= 1,
            _ => {}
        }
        queue.is_busy = is_busy;
        let first = queue.waiting.front();
        let place = first.map(|first| ordered(queue.next + GUESSED * first.seats as f64));
        let before = std::mem::replace(&mut queue.place, place);
        if before == place {
            return;
        }
        if let Some(before) = before {
            self.order.remove(&(before, at));
        }
        if let Some(place) = place {
            self.order.insert((place, at));
        }
    }

    /// The queues of a flow, dealt as cards are.
    pub fn hand(&self, flow: u64, size: usize) -> Vec<usize> {
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

    pub fn shortest(&self, flow: u64, hand: usize) -> Option<usize> {
        let load = |at: &usize| self.queues[*at].running + self.queues[*at].wanted;
        self.hand(flow, hand).into_iter().min_by_key(load)
    }

    /// The queue whose first request would have ended first.
    pub fn next_queue(&self) -> Option<usize> {
        self.order.first().map(|(_, at)| *at)
    }

    /// Whether it may use more seats now. What asks for more than it has runs alone.
    pub fn has_free(&self, seats: u64) -> bool {
        self.used == 0 || self.used + seats <= self.limit
    }
}
