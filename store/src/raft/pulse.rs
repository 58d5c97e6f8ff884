//! The member's pulse: a leader's beats, and when a member that hears none stands for election; from one timer that mostly
//! sleeps.
//!
//! openraft's own tick, which wakes every few milliseconds to find that nothing is due, is off. Every beat announces when
//! the next one comes, so a leader may beat rarely while little is written. A leader that dies closes its connections, which
//! its followers see at once; one that falls silent is missed after [`Timing::patience`]. Members stand for election one
//! after the other, in the order of their ids, so that they do not take each other's votes.

use super::NodeConfig;
use super::node::Node;
use coracle_daemon::clock::{self, Instant};
use coracle_daemon::random;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Over how long entries are counted, and how many make a busy cluster: components that renew their leases do not.
const COUNTED_OVER: Duration = Duration::from_secs(1);
const BUSY_ENTRIES: u64 = 10;
/// How much rarer beats are in a quiet cluster.
const QUIET_FACTOR: u32 = 20;
/// The rarest beats that are believed.
const ANNOUNCED_MAX: Duration = Duration::from_secs(60);

/// How often a leader beats, and for how long members believe in it.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Between beats while somebody writes.
    pub heartbeat: Duration,
    /// How long after a leader's last call no member votes for another.
    pub lease: Duration,
}

impl Timing {
    /// As the flags say.
    #[must_use]
    pub fn of(config: &NodeConfig) -> Self {
        let millis = Duration::from_millis;
        Self { heartbeat: millis(config.heartbeat_millis), lease: millis(config.election_millis) }
    }

    /// How late a beat may be.
    fn patience(self) -> Duration {
        2 * self.lease
    }

    /// How long after the lease the member of this rank stands for election. It takes a few milliseconds to see that a
    /// leader is gone, and an election should be over before the next one begins.
    fn turn_of(self, rank: u32) -> Duration {
        self.lease / 16 + rank * (self.lease / 3)
    }

    /// After an election without a winner.
    fn pause(self) -> Duration {
        self.lease.mul_f64(1.0 + random::fraction())
    }

    fn quiet_heartbeat(self) -> Duration {
        (QUIET_FACTOR * self.heartbeat).min(ANNOUNCED_MAX / 2).max(self.heartbeat)
    }
}

/// Who leads, as far as a member knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Trust {
    leader: u64,
    /// Its last call.
    last: Instant,
    /// Its next call must come before.
    until: Instant,
}

/// What a member heard, and what it says to others.
#[derive(Debug)]
pub struct Pulse {
    timing: Timing,
    trust: Mutex<Option<Trust>>,
    /// The leader is gone, or promised more.
    changed: Notify,
    /// Milliseconds until this member's next beat, should it lead.
    next_beat: AtomicU32,
}

impl Pulse {
    /// Nothing was heard yet.
    #[must_use]
    pub fn new(timing: Timing) -> Self {
        Self { timing, trust: Mutex::default(), changed: Notify::new(), next_beat: AtomicU32::new(0) }
    }

    /// `leader` called, leads indeed, and will call again within this time, should it have told one.
    pub fn heard(&self, leader: u64, next_millis: u32) {
        let now = Instant::now();
        let announced = Duration::from_millis(next_millis.into()).min(ANNOUNCED_MAX);
        let mut trust = self.trust.lock();
        let promised = trust.filter(|known| known.leader == leader).map(|known| known.until);
        let until = now + announced + self.timing.patience();
        *trust =
            Some(Trust { leader, last: now, until: promised.map_or(until, |promised| promised.max(until)) });
        // The wait begins anew with each beat: otherwise a timer ends at what the beat before promised, and wakes the process.
        if next_millis > 0 {
            self.changed.notify_one();
        }
    }

    /// The connection over which `leader` beat is closed.
    pub fn lost(&self, leader: u64) {
        if let Some(known) = self.trust.lock().as_mut().filter(|known| known.leader == leader) {
            known.until = known.last + self.timing.lease;
            self.changed.notify_one();
        }
    }

    /// Whether this member follows a leader that is not missing.
    #[must_use]
    pub fn trusts(&self) -> bool {
        self.trust.lock().is_some_and(|known| known.until > Instant::now())
    }

    /// How old a leader's last answers from a majority may be for it to count as one.
    #[must_use]
    pub fn answered_within(&self) -> Duration {
        self.timing.quiet_heartbeat() / 4 * 5 + self.timing.patience()
    }

    /// Milliseconds until this member's next beat.
    #[must_use]
    pub fn next_beat(&self) -> u32 {
        self.next_beat.load(Ordering::Relaxed)
    }
}

/// Part that a member has in elections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// It votes not, or leads alone.
    None,
    Leads,
    /// The only one that votes.
    Alone,
    /// How many others stand for election first.
    Votes {
        rank: u32,
    },
}

fn part(leads: bool, me: u64, leader: Option<u64>, voters: impl Iterator<Item = u64>) -> Part {
    let (mut count, mut before, mut votes) = (0, 0, false);
    for voter in voters {
        count += 1;
        votes |= voter == me;
        before += u32::from(voter < me && Some(voter) != leader);
    }
    match (leads, votes, count) {
        (true, _, 1) | (false, false, _) => Part::None,
        (true, ..) => Part::Leads,
        (_, _, 1) => Part::Alone,
        _ => Part::Votes { rank: before },
    }
}

/// What a member has to do next.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// Nothing, until its part changes.
    Rest,
    /// Beat at this time.
    Beat(Instant),
    /// Nothing, until this time.
    Wait(Instant),
    Stand,
}

/// `not_before`: when the next election may be tried.
fn turn(
    part: Part,
    next_beat: Instant,
    trust: Option<Trust>,
    not_before: Instant,
    timing: Timing,
    now: Instant,
) -> Turn {
    let rank = match part {
        Part::None => return Turn::Rest,
        Part::Leads => return Turn::Beat(next_beat),
        Part::Alone => 0,
        Part::Votes { rank } => rank,
    };
    let missed = trust.map(|known| known.until + timing.turn_of(rank));
    let due = missed.map_or(not_before, |missed| missed.max(not_before));
    if due > now { Turn::Wait(due) } else { Turn::Stand }
}

/// How often a leader beats.
#[derive(Debug)]
struct Rhythm {
    timing: Timing,
    next: Instant,
    /// Since when entries are counted, and the newest one then.
    since: Instant,
    newest: u64,
    busy: bool,
}

impl Rhythm {
    fn new(timing: Timing, now: Instant) -> Self {
        Self { timing, next: now + timing.heartbeat, since: now, newest: 0, busy: true }
    }

    /// A beat is sent; how long until the next one, which is `quiet` while little is written.
    fn beat(&mut self, now: Instant, newest: u64, quiet: Duration) -> Duration {
        if now >= self.since + COUNTED_OVER {
            self.busy = newest >= self.newest + BUSY_ENTRIES;
            (self.since, self.newest) = (now, newest);
        }
        let pause = if self.busy { self.timing.heartbeat } else { quiet };
        self.next = now + pause;
        pause
    }
}

/// Beats, watches and stands for election, until the member stops or replication ends.
pub async fn run(node: &Node, stop: CancellationToken) {
    let (pulse, timing, me) = (&node.pulse, node.pulse.timing, node.member_id());
    let mut server = node.raft.server_metrics();
    let mut rhythm = Rhythm::new(timing, Instant::now());
    // A leader that lives calls before.
    let mut not_before: Option<Instant> = None;
    let mut led = false;
    loop {
        let trust = *pulse.trust.lock();
        let part = {
            let now = server.borrow_and_update();
            let leads = now.state == ServerState::Leader;
            part(leads, me, trust.map(|known| known.leader), now.membership_config.voter_ids())
        };
        if part == Part::Leads && !led {
            // Its first entry tells the others.
            rhythm = Rhythm::new(timing, Instant::now());
        }
        led = part == Part::Leads;
        let first = *not_before.get_or_insert_with(|| match part {
            Part::Votes { rank } => Instant::now() + timing.turn_of(rank),
            _ => Instant::now(),
        });
        let turn = turn(part, rhythm.next, trust, first, timing, Instant::now());
        let due = async {
            match turn {
                Turn::Rest => std::future::pending().await,
                Turn::Beat(at) | Turn::Wait(at) => clock::sleep_until(at).await,
                Turn::Stand => {}
            }
        };
        tokio::select! {
            () = due => {}
            () = pulse.changed.notified() => continue,
            changed = server.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            () = stop.cancelled() => return,
        }
        let trigger = node.raft.trigger();
        let done = match turn {
            Turn::Beat(_) => {
                let newest = node.raft.metrics().borrow_watched().last_log_index;
                let quiet = clock::until_whole(timing.quiet_heartbeat());
                let pause = rhythm.beat(Instant::now(), newest.unwrap_or(0), quiet);
                pulse.next_beat.store(pause.as_millis().try_into().unwrap_or(u32::MAX), Ordering::Relaxed);
                trigger.heartbeat().await
            }
            Turn::Stand => {
                not_before = Some(Instant::now() + timing.pause());
                trigger.elect(part != Part::Alone).await
            }
            Turn::Rest | Turn::Wait(_) => Ok(()),
        };
        if done.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    const TIMING: Timing = Timing { heartbeat: Duration::from_millis(50), lease: Duration::from_millis(200) };

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn members_stand_one_after_the_other_and_the_lost_leader_does_not_count() {
        for (leads, me, leader, voters, wanted) in [
            (false, 1, Some(3), &[1, 2, 3][..], Part::Votes { rank: 0 }),
            (false, 2, Some(3), &[1, 2, 3], Part::Votes { rank: 1 }),
            (false, 2, Some(1), &[1, 2, 3], Part::Votes { rank: 0 }),
            (false, 3, Some(1), &[1, 2, 3], Part::Votes { rank: 1 }),
            (false, 3, None, &[1, 2, 3], Part::Votes { rank: 2 }),
            (true, 3, None, &[1, 2, 3], Part::Leads),
            (true, 1, None, &[1], Part::None),
            (false, 1, None, &[1], Part::Alone),
            (false, 4, Some(1), &[1, 2, 3], Part::None),
        ] {
            let got = part(leads, me, leader, voters.iter().copied());
            assert_eq!(got, wanted, "leads {leads}, member {me} of {voters:?}, {leader:?} is lost");
        }
    }

    #[test]
    fn a_member_stands_once_its_leader_is_missed_and_its_turn_has_come() {
        let now = Instant::now() + Duration::from_secs(1);
        let votes = |rank| Part::Votes { rank };
        let trust = |until| Some(Trust { leader: 9, last: now - millis(200), until });
        let (beat, before) = (now + millis(50), now - millis(1));
        let first = TIMING.turn_of(0);
        for (part, trust, not_before, wanted) in [
            (Part::None, None, before, Turn::Rest),
            (Part::Leads, trust(now), before, Turn::Beat(beat)),
            (Part::Alone, None, before, Turn::Stand),
            (votes(0), None, before, Turn::Stand),
            (votes(0), trust(now + millis(100)), before, Turn::Wait(now + millis(100) + first)),
            (votes(0), trust(now), before, Turn::Wait(now + first)),
            (votes(0), trust(now - first), before, Turn::Stand),
            (votes(1), trust(now - first), before, Turn::Wait(now + TIMING.lease / 3)),
            (votes(0), trust(now - first), now + millis(70), Turn::Wait(now + millis(70))),
        ] {
            let got = turn(part, beat, trust, not_before, TIMING, now);
            assert_eq!(got, wanted, "{part:?}, {trust:?}");
        }
    }

    #[test]
    fn a_leader_beats_rarely_while_little_is_written() {
        let start = Instant::now();
        let (often, rarely) = (TIMING.heartbeat, TIMING.quiet_heartbeat());
        let mut rhythm = Rhythm::new(TIMING, start);
        for (at, newest, wanted) in [
            (50, 100, often),
            (950, 100, often),
            (1000, 100, often),
            (1050, 109, often),
            (2000, 109, rarely),
            (2500, 119, rarely),
            (3000, 119, often),
            (3050, 119, often),
            (4000, 119, rarely),
        ] {
            let now = start + millis(at);
            assert_eq!(rhythm.beat(now, newest, rarely), wanted, "at {at} ms");
            assert_eq!(rhythm.next, now + wanted);
        }
    }

    #[test]
    fn rare_beats_are_never_rarer_than_is_believed() {
        for (heartbeat, quiet) in [(50, 1_000), (1_000, 20_000), (2_000, 30_000), (10_000, 30_000)] {
            let timing = Timing { heartbeat: millis(heartbeat), ..TIMING };
            assert_eq!(timing.quiet_heartbeat(), millis(quiet), "{heartbeat}");
            // The first beat comes a quarter later at most.
            assert!(timing.quiet_heartbeat() / 4 * 5 <= ANNOUNCED_MAX, "{heartbeat}");
        }
    }

    #[test]
    fn a_wait_begins_anew_with_a_beat_and_not_with_each_entry() {
        let pulse = Pulse::new(TIMING);
        let anew = || pulse.changed.notified().now_or_never().is_some();
        pulse.heard(1, 0);
        assert!(!anew(), "an entry promises nothing");
        pulse.heard(1, 1_000);
        assert!(anew(), "a beat promises the next");
        pulse.lost(1);
        assert!(anew(), "the leader is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_is_trusted_for_as_long_as_it_announced_unless_its_connection_is_lost() {
        let pulse = Pulse::new(TIMING);
        assert!(!pulse.trusts(), "nobody called");
        pulse.heard(1, 500);
        clock::sleep(millis(400)).await;
        // An entry announces nothing, and takes nothing back.
        pulse.heard(1, 0);
        clock::sleep(millis(499)).await;
        assert!(pulse.trusts());
        clock::sleep(millis(2)).await;
        assert!(!pulse.trusts(), "the beat is missed");
        pulse.heard(1, 500);
        pulse.lost(2);
        clock::sleep(TIMING.lease).await;
        assert!(pulse.trusts(), "another's connection closed");
        pulse.lost(1);
        assert!(!pulse.trusts(), "its lease is over too");
        pulse.heard(2, 0);
        assert!(pulse.trusts(), "the next leader");
        pulse.lost(2);
        assert!(pulse.trusts(), "as long as its lease");
    }
}
