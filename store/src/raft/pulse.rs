//! The member's pulse: a leader's beats, and when a member that hears none stands for election; from one timer that mostly
//! sleeps.
//!
//! openraft's own tick, which wakes every few milliseconds to find that nothing is due, is off. Every beat announces when
//! the next one comes, so a leader may beat rarely while little is written. A leader that dies closes its connections, which
//! its followers see at once; one that falls silent is missed once a beat is late by [`Timing::patience`], or once it owes
//! an answer for as long. A leader that is asked for its vote beats at once: whoever asks did not hear it. Members stand for
//! election one after the other, in the order of their ids, so that they do not take each other's votes.

use super::NodeConfig;
use super::node::Node;
use super::rhythm::Rhythm;
use coracle_daemon::clock::{self, Instant};
use coracle_daemon::random;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Between beats in a quiet cluster. Each wakes every member, and was a third of what such a cluster did.
const QUIET_HEARTBEAT: Duration = Duration::from_secs(10);
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

    /// How late a beat, or an answer, may be.
    #[must_use]
    pub fn patience(self) -> Duration {
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
        QUIET_HEARTBEAT.max(self.heartbeat)
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
    /// It owes an answer for too long, and has not called since.
    doubted: bool,
}

impl Trust {
    fn until(self, timing: Timing) -> Instant {
        if self.doubted { self.until.min(self.last + timing.lease) } else { self.until }
    }
}

/// What a member heard, and what it says to others.
#[derive(Debug)]
pub struct Pulse {
    /// As the flags say.
    pub timing: Timing,
    trust: Mutex<Option<Trust>>,
    /// The leader is gone, or promised more.
    changed: Notify,
    /// This member's next beat, should it lead.
    next_beat: Mutex<Option<Instant>>,
    /// Entries that this member had replicated as a leader, and how many make a burst.
    entries: AtomicU64,
    burst: AtomicU64,
}

impl Pulse {
    /// Nothing was heard yet.
    #[must_use]
    pub fn new(timing: Timing) -> Self {
        Self {
            timing,
            trust: Mutex::default(),
            changed: Notify::new(),
            next_beat: Mutex::default(),
            entries: AtomicU64::new(0),
            burst: AtomicU64::new(u64::MAX),
        }
    }

    /// `leader` called, leads indeed, and will call again within this time, should it have told one.
    pub fn heard(&self, leader: u64, next_millis: u32) {
        let now = Instant::now();
        let announced = Duration::from_millis(next_millis.into()).min(ANNOUNCED_MAX);
        let mut trust = self.trust.lock();
        let promised = trust.filter(|known| known.leader == leader).map(|known| known.until);
        let until = now + announced + self.timing.patience();
        let until = promised.map_or(until, |promised| promised.max(until));
        *trust = Some(Trust { leader, last: now, until, doubted: false });
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

    /// `leader` leads, as it tells a majority.
    pub fn answered(&self, leader: u64) {
        if let Some(known) = self.trust.lock().as_mut().filter(|known| known.leader == leader) {
            (known.last, known.doubted) = (Instant::now(), false);
        }
    }

    /// `leader` owes an answer for too long. If it has not called for as long, it is missing; otherwise it may be from the
    /// time that is returned on, should it still owe the answer then.
    pub fn doubt(&self, leader: u64) -> Instant {
        let (patience, now) = (self.timing.patience(), Instant::now());
        let mut trust = self.trust.lock();
        let Some(known) = trust.as_mut().filter(|known| known.leader == leader) else {
            return now + patience;
        };
        if known.last + patience > now {
            return known.last + patience;
        }
        if !std::mem::replace(&mut known.doubted, true) {
            self.changed.notify_one();
        }
        now + patience
    }

    /// The leader that this member follows, unless it is missing, and whether it called lately.
    #[must_use]
    pub fn follows(&self) -> Option<(u64, bool)> {
        let (trust, now) = (*self.trust.lock(), Instant::now());
        let known = trust.filter(|known| known.until(self.timing) > now)?;
        Some((known.leader, known.last + self.timing.patience() > now))
    }

    /// This member, which leads, has `count` more entries replicated. Many of them make it beat often, at once.
    pub fn replicates(&self, count: u64) {
        let (before, burst) =
            (self.entries.fetch_add(count, Ordering::Relaxed), self.burst.load(Ordering::Relaxed));
        if (before..before + count).contains(&burst) {
            self.changed.notify_one();
        }
    }

    /// How old a leader's last answers from a majority may be for it to count as one.
    #[must_use]
    pub fn answered_within(&self) -> Duration {
        self.timing.quiet_heartbeat() / 4 * 5 + self.timing.patience()
    }

    /// Milliseconds until this member's next beat; 0 when it has none before it.
    #[must_use]
    pub fn next_beat(&self) -> u32 {
        let rest = self.next_beat.lock().map(|next| next.saturating_duration_since(Instant::now()));
        rest.map_or(0, |rest| rest.as_millis().try_into().unwrap_or(u32::MAX).max(1))
    }
}

/// Part that a member has in elections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// It is no member yet, or leads alone.
    None,
    Leads,
    /// It votes not.
    Learns,
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
        (true, _, 1) | (false, false, 0) => Part::None,
        (true, ..) => Part::Leads,
        (_, false, _) => Part::Learns,
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
    /// For election; or call the leader, should this member not vote.
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
        Part::Alone | Part::Learns => 0,
        Part::Votes { rank } => rank,
    };
    let missed = trust.map(|known| known.until(timing) + timing.turn_of(rank));
    let due = missed.map_or(not_before, |missed| missed.max(not_before));
    if due > now { Turn::Wait(due) } else { Turn::Stand }
}

/// Beats, watches and stands for election, until the member stops or replication ends.
pub async fn run(node: &Node, stop: CancellationToken) {
    let (pulse, timing, me) = (&node.pulse, node.pulse.timing, node.member_id());
    let mut server = node.raft.server_metrics();
    let entries = || pulse.entries.load(Ordering::Relaxed);
    let mut rhythm = Rhythm::new(timing, Instant::now(), entries());
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
            rhythm = Rhythm::new(timing, Instant::now(), entries());
        }
        led = part == Part::Leads;
        let first = *not_before.get_or_insert_with(|| match part {
            Part::Votes { rank } => Instant::now() + timing.turn_of(rank),
            _ => Instant::now(),
        });
        let turn = turn(part, rhythm.due(entries()), trust, first, timing, Instant::now());
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
        let done = match turn {
            Turn::Beat(_) => {
                let quiet = clock::until_whole(timing.quiet_heartbeat());
                let now = Instant::now();
                let pause = rhythm.beat(now, entries(), quiet);
                *pulse.next_beat.lock() = Some(now + pause);
                pulse.burst.store(rhythm.burst(), Ordering::Relaxed);
                node.raft.trigger().heartbeat().await
            }
            Turn::Stand => {
                not_before = Some(Instant::now() + timing.pause());
                match part {
                    Part::Learns => {
                        node.call_leader().await;
                        Ok(())
                    }
                    _ => node.raft.trigger().elect(part != Part::Alone).await,
                }
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
            (false, 4, Some(1), &[1, 2, 3], Part::Learns),
            (false, 4, Some(1), &[1], Part::Learns),
            (false, 4, None, &[], Part::None),
        ] {
            let got = part(leads, me, leader, voters.iter().copied());
            assert_eq!(got, wanted, "leads {leads}, member {me} of {voters:?}, {leader:?} is lost");
        }
    }

    #[test]
    fn a_member_stands_once_its_leader_is_missed_and_its_turn_has_come() {
        let now = Instant::now() + Duration::from_secs(1);
        let votes = |rank| Part::Votes { rank };
        let trust = |until| Some(Trust { leader: 9, last: now - millis(200), until, doubted: false });
        let doubted =
            Some(Trust { leader: 9, last: now - millis(200), until: now + millis(9_000), doubted: true });
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
            (votes(0), doubted, before, Turn::Wait(now + first)),
            (Part::Learns, trust(now - first), before, Turn::Stand),
            (votes(1), trust(now - first), before, Turn::Wait(now + TIMING.lease / 3)),
            (votes(0), trust(now - first), now + millis(70), Turn::Wait(now + millis(70))),
        ] {
            let got = turn(part, beat, trust, not_before, TIMING, now);
            assert_eq!(got, wanted, "{part:?}, {trust:?}");
        }
    }

    #[test]
    fn rare_beats_are_never_rarer_than_is_believed() {
        for (heartbeat, quiet) in [(50, 10_000), (1_000, 10_000), (10_000, 10_000), (20_000, 20_000)] {
            let timing = Timing { heartbeat: millis(heartbeat), ..TIMING };
            assert_eq!(timing.quiet_heartbeat(), millis(quiet), "{heartbeat}");
            // The first beat comes a quarter later at most.
            assert!(timing.quiet_heartbeat() / 4 * 5 <= ANNOUNCED_MAX, "{heartbeat}");
        }
    }

    #[test]
    fn many_entries_end_a_leaders_rest_once() {
        let pulse = Pulse::new(TIMING);
        let woken = || pulse.changed.notified().now_or_never().is_some();
        pulse.replicates(1_000);
        assert!(!woken(), "nothing rests");
        pulse.burst.store(1_032, Ordering::Relaxed);
        pulse.replicates(31);
        assert!(!woken(), "few entries");
        pulse.replicates(2);
        assert!(woken(), "a burst");
        pulse.replicates(100);
        assert!(!woken(), "it was told");
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
    async fn a_beat_tells_how_long_it_really_is_until_the_next() {
        let pulse = Pulse::new(TIMING);
        assert_eq!(pulse.next_beat(), 0, "none is planned");
        *pulse.next_beat.lock() = Some(Instant::now() + millis(500));
        clock::sleep(millis(200)).await;
        assert_eq!(pulse.next_beat(), 300);
        clock::sleep(millis(400)).await;
        assert_eq!(pulse.next_beat(), 1, "it is due");
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_owes_an_answer_is_missed_until_it_calls() {
        let pulse = Pulse::new(TIMING);
        pulse.heard(1, 9_000);
        assert!(pulse.changed.notified().now_or_never().is_some(), "it called");
        clock::sleep(millis(300)).await;
        assert_eq!(pulse.doubt(1), Instant::now() + millis(100), "it called lately");
        assert_eq!(pulse.follows(), Some((1, true)));
        clock::sleep(millis(100)).await;
        pulse.doubt(2);
        assert_eq!(pulse.follows(), Some((1, false)), "another is doubted");
        for is_new in [true, false] {
            assert_eq!(pulse.doubt(1), Instant::now() + millis(400));
            assert_eq!(pulse.follows(), None);
            assert_eq!(pulse.changed.notified().now_or_never().is_some(), is_new, "it may be time to stand");
        }
        // Whatever it says restores what it promised.
        for call in [Pulse::answered, |pulse: &Pulse, leader| pulse.heard(leader, 0)] {
            pulse.doubt(1);
            call(&pulse, 1);
            assert_eq!(pulse.follows(), Some((1, true)));
            clock::sleep(millis(2_000)).await;
            assert_eq!(pulse.follows(), Some((1, false)));
        }
        pulse.doubt(1);
        pulse.answered(2);
        assert_eq!(pulse.follows(), None, "another answered");
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_is_trusted_for_as_long_as_it_announced_unless_its_connection_is_lost() {
        let pulse = Pulse::new(TIMING);
        assert!(pulse.follows().is_none(), "nobody called");
        pulse.heard(1, 500);
        clock::sleep(millis(400)).await;
        // An entry announces nothing, and takes nothing back.
        pulse.heard(1, 0);
        clock::sleep(millis(499)).await;
        assert!(pulse.follows().is_some());
        clock::sleep(millis(2)).await;
        assert!(pulse.follows().is_none(), "the beat is missed");
        pulse.heard(1, 500);
        pulse.lost(2);
        clock::sleep(TIMING.lease).await;
        assert!(pulse.follows().is_some(), "another's connection closed");
        pulse.lost(1);
        assert!(pulse.follows().is_none(), "its lease is over too");
        pulse.heard(2, 0);
        assert!(pulse.follows().is_some(), "the next leader");
        pulse.lost(2);
        assert!(pulse.follows().is_some(), "as long as its lease");
    }
}
