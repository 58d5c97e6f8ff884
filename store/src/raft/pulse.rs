//! The member's pulse: a leader's heartbeats, and a follower's watch over them, from one timer that mostly sleeps.
//!
//! openraft's own tick wakes every few milliseconds to find that nothing is due. Here it runs only while it is needed: on
//! a member that has not heard from a leader for as long as no election can begin before. A leader beats by itself, half as
//! often while nobody writes: a beat is then only a sign of life.

use super::node::Node;
use coracle_daemon::clock::{self, Instant};
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Beats without a new entry after which nobody counts as writing.
const QUIET_BEATS: u32 = 10;

/// When a leader was last heard of.
#[derive(Debug, Default)]
pub struct Pulse {
    heard: Mutex<Option<Instant>>,
    /// Somebody waits to hear of a leader again.
    missed: AtomicBool,
    again: Notify,
}

impl Pulse {
    /// A leader called, and is one still.
    pub fn heard(&self) {
        *self.heard.lock() = Some(Instant::now());
        if self.missed.swap(false, Ordering::AcqRel) {
            self.again.notify_one();
        }
    }

    async fn heard_again(&self, since: Option<Instant>) {
        self.missed.store(true, Ordering::Release);
        // It may have called in between.
        if *self.heard.lock() == since {
            self.again.notified().await;
        }
    }
}

/// What a member has to do next.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// Nothing, until its role changes.
    Rest,
    /// Beat at this time.
    Beat(Instant),
    /// Nothing, until this time, when the leader may be lost.
    Trust(Instant),
    /// Stand for election when openraft says so.
    Doubt,
}

/// How often a leader beats.
#[derive(Debug)]
struct Rhythm {
    interval: Duration,
    last: Instant,
    /// The newest entry's index at the last beat, and since how many beats it is the newest.
    newest: Option<u64>,
    quiet: u32,
}

impl Rhythm {
    fn new(interval: Duration, now: Instant) -> Self {
        Self { interval, last: now, newest: None, quiet: 0 }
    }

    fn next(&self) -> Instant {
        self.last + if self.quiet >= QUIET_BEATS { 2 * self.interval } else { self.interval }
    }

    fn beaten(&mut self, now: Instant, newest: Option<u64>) {
        self.quiet = if newest == self.newest { self.quiet.saturating_add(1) } else { 0 };
        (self.last, self.newest) = (now, newest);
    }
}

/// `silence` is how long after a leader's last call no election can begin.
fn turn(
    leads: bool,
    alone: bool,
    next_beat: Instant,
    heard: Option<Instant>,
    silence: Duration,
    now: Instant,
) -> Turn {
    match heard.map(|heard| heard + silence) {
        _ if leads && alone => Turn::Rest,
        _ if leads => Turn::Beat(next_beat),
        Some(until) if until > now => Turn::Trust(until),
        _ => Turn::Doubt,
    }
}

/// Beats and watches until the member stops or replication ends.
pub async fn run(node: &Node, heartbeat: Duration, silence: Duration, stop: CancellationToken) {
    let mut server = node.raft.server_metrics();
    let mut rhythm = Rhythm::new(heartbeat, Instant::now());
    let mut led = false;
    loop {
        let (leads, alone) = {
            let now = server.borrow_and_update();
            (now.state == ServerState::Leader, now.membership_config.nodes().count() == 1)
        };
        if leads && !led {
            // Its first entry tells the others.
            rhythm = Rhythm::new(heartbeat, Instant::now());
        }
        led = leads;
        let heard = *node.pulse.heard.lock();
        let turn = turn(leads, alone, rhythm.next(), heard, silence, Instant::now());
        node.raft.runtime_config().tick(turn == Turn::Doubt);
        let due = async {
            match turn {
                Turn::Rest => std::future::pending().await,
                Turn::Beat(at) | Turn::Trust(at) => clock::sleep_until(at).await,
                Turn::Doubt => node.pulse.heard_again(heard).await,
            }
        };
        tokio::select! {
            () = due => {}
            changed = server.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            () = stop.cancelled() => return,
        }
        if matches!(turn, Turn::Beat(_)) {
            if node.raft.trigger().heartbeat().await.is_err() {
                return;
            }
            let newest = node.raft.metrics().borrow_watched().last_log_index;
            rhythm.beaten(Instant::now(), newest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_follower_doubts_its_leader_only_once_an_election_may_begin() {
        let now = Instant::now();
        let silence = Duration::from_millis(250);
        let (beat, recent) = (now + Duration::from_millis(50), now - Duration::from_millis(100));
        for (leads, alone, heard, wanted) in [
            (false, false, None, Turn::Doubt),
            (false, false, Some(recent), Turn::Trust(recent + silence)),
            (false, false, Some(now - silence), Turn::Doubt),
            (true, false, Some(recent), Turn::Beat(beat)),
            (true, true, None, Turn::Rest),
            (false, true, None, Turn::Doubt),
        ] {
            let got = turn(leads, alone, beat, heard, silence, now);
            assert_eq!(got, wanted, "leads {leads}, alone {alone}, heard {heard:?}");
        }
    }

    #[test]
    fn a_leader_beats_half_as_often_while_nobody_writes() {
        let (now, interval) = (Instant::now(), Duration::from_millis(50));
        let mut rhythm = Rhythm::new(interval, now);
        for _ in 0..=QUIET_BEATS {
            assert_eq!(rhythm.next(), now + interval);
            rhythm.beaten(now, Some(7));
        }
        assert_eq!(rhythm.next(), now + 2 * interval);
        rhythm.beaten(now, Some(8));
        assert_eq!(rhythm.next(), now + interval, "somebody wrote");
    }

    #[tokio::test]
    async fn a_call_that_comes_before_the_wait_for_it_is_not_missed() {
        let pulse = Pulse::default();
        pulse.heard();
        pulse.heard_again(None).await;
        let since = *pulse.heard.lock();
        let call = async {
            tokio::task::yield_now().await;
            pulse.heard();
        };
        tokio::join!(pulse.heard_again(since), call);
    }
}
