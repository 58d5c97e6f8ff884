//! Whole members in a simulated world: the real store with openraft, its elections, its calls over HTTP/2, its log and its
//! snapshots, on a network that delays and cuts, machines that stand still, die and lose power, and clocks that drift.
//!
//! In: a seed. Out: what happened, or what was violated. First some seconds of faults while clients of every member ask,
//! hold leases and watch; then everything heals, and must come together within [`HEAL_MAX`].
//!
//! Checked: the history is linearizable (see [`history`]), members that have applied the same are in the same state, every watcher was told every change once and in order, no lease
//! ended early and none stays, all members are equal, no member ends by itself but for its disk, and leadership comes back.
//!
//! Time and all chance follow from the seed (see [`chance`]). Snapshots are on the real disk.

mod chance;
pub mod clients;
mod faults;
pub mod history;
mod host;
mod net;

use crate::dice::Dice;
use clients::{LEASE_SECONDS, Notes};
use history::Change;
use host::{Common, Host};
use net::Net;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use store::consensus::Consensus;
use store::machine::KeyRange;

/// Milliseconds of faults.
const FAULTS: u64 = 8_000;
/// Milliseconds after which all must have come together.
const HEAL_MAX: u64 = 20_000;
/// Milliseconds between comparisons of the members' states.
const COMPARED_EVERY: u64 = 20;
/// The drift of clocks and the moment between a request and its effect, in milliseconds.
const LEASE_SLACK: u64 = 60;

/// What a seed did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub answered: usize,
    pub unanswered: usize,
    pub changes: usize,
    pub kills: usize,
    pub cuts: usize,
    pub pauses: usize,
    pub terms: u64,
    pub lease_ends: usize,
    /// Of everything: two runs of a seed must agree in it.
    pub fingerprint: u64,
}

impl AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.answered += other.answered;
        self.unanswered += other.unanswered;
        self.changes += other.changes;
        self.kills += other.kills;
        self.cuts += other.cuts;
        self.pauses += other.pauses;
        self.terms += other.terms;
        self.lease_ends += other.lease_ends;
        self.fingerprint = self.fingerprint.rotate_left(1) ^ other.fingerprint;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { answered, unanswered, changes, kills, cuts, pauses, terms, lease_ends, fingerprint } =
            self;
        write!(
            f,
            "{answered} requests answered, {unanswered} not, {changes} changes, {kills} kills, {cuts} cuts, {pauses} pauses, {terms} terms, {lease_ends} leases ended by time ({fingerprint:016x})"
        )
    }
}

/// What members that have applied the same entries must have in common: revision, hash, and leases.
type State = (i64, u32, Vec<(i64, i64)>);

/// Everything there is.
pub struct World {
    hosts: Vec<Host>,
    net: Net,
    notes: Arc<Mutex<Notes>>,
    now: Arc<AtomicU64>,
    /// When each revision was first seen at a member.
    first_seen: BTreeMap<i64, u64>,
    newest: i64,
    /// By how many entries were applied: who was seen there first, and in which state.
    states: BTreeMap<u64, (usize, State)>,
    /// By host: the newest term seen.
    terms: Vec<u64>,
    summary: Summary,
    trace: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Plays a seed.
pub fn play(seed: u64, trace: bool) -> Result<Summary, String> {
    chance::on_a_fresh_thread(seed, move || play_here(seed, trace))
}

fn play_here(seed: u64, trace: bool) -> Result<Summary, String> {
    // Seeds of the two simulations have nothing in common.
    let mut dice = Dice::new(seed ^ 0x636c_7573_7465_7221);
    coracle_daemon::random::seed(dice.next());
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let net = Net::new(dice.fork());
    let common = Common {
        members: if dice.percent(75) { 3 } else { 5 },
        folder: folder.path().to_owned(),
        net: net.clone(),
        notes: Arc::default(),
        now: Arc::default(),
    };
    let mut world = World {
        hosts: (0..common.members).map(|number| Host::new(number, &common, &mut dice)).collect(),
        net,
        notes: common.notes,
        now: common.now,
        first_seen: BTreeMap::new(),
        newest: 0,
        states: BTreeMap::new(),
        terms: vec![0; common.members],
        summary: Summary::default(),
        trace,
    };
    let done = world.play(&mut dice);
    for host in &mut world.hosts {
        host.kill(true);
    }
    done.map_err(|what| format!("cluster seed {seed}, at {} ms: {what}", world.now()))
}

impl World {
    fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    fn tell(&self, what: impl fmt::Display) {
        if self.trace {
            println!("{:6} {what}", self.now());
        }
    }

    fn play(&mut self, dice: &mut Dice) -> Result<Summary, String> {
        for host in &mut self.hosts {
            host.start()?;
        }
        let mut faults = faults::Faults::new(dice.fork(), self.hosts.len());
        while self.now() < FAULTS {
            faults.step(self)?;
            self.tick()?;
        }
        self.tell("everything heals");
        self.heal()?;
        let truth = self.truth()?;
        self.check(&truth)?;
        let notes = lock(&self.notes);
        let summary = &mut self.summary;
        summary.answered = notes.history.answered();
        summary.unanswered = notes.history.requests.len() - summary.answered;
        summary.changes = truth.len();
        summary.terms = self.terms.iter().copied().max().unwrap_or(0);
        summary.fingerprint = notes.history.requests.iter().fold(summary.terms, |sum, request| {
            let ended = request.ended.map_or(0, |(at, _)| at);
            sum.rotate_left(5) ^ request.began ^ (ended << 20)
        });
        Ok(*summary)
    }

    /// A millisecond passes.
    fn tick(&mut self) -> Result<(), String> {
        let now = self.now() + 1;
        self.now.store(now, Ordering::Relaxed);
        self.net.advance(now);
        for host in &mut self.hosts {
            host.tick(now);
        }
        for at in 0..self.hosts.len() {
            if let Some(member) = self.hosts[at].member() {
                let revision = member.shared.hub().published();
                for revision in self.newest + 1..=revision {
                    self.first_seen.insert(revision, now);
                }
                self.newest = self.newest.max(revision);
            }
            self.bury(at)?;
        }
        if now.is_multiple_of(COMPARED_EVERY) { self.compare() } else { Ok(()) }
    }

    /// Members that have applied the same entries are in the same state, whenever that was.
    fn compare(&mut self) -> Result<(), String> {
        for at in 0..self.hosts.len() {
            let Some(up) = self.hosts[at].member() else { continue };
            let (applied, machine) = (up.node.status().applied, up.shared.machine());
            let state = (machine.revision(), machine.hash_kv(0), machine.leases().collect());
            let (other, known) = self.states.entry(applied).or_insert_with(|| (at, state.clone()));
            if *known != state {
                return Err(format!(
                    "members {other} and {at} have applied {applied} entries, but one is in {known:x?} and the other in {state:x?}"
                ));
            }
        }
        Ok(())
    }

    /// Takes note of a member that ended by itself, which only one without power may.
    fn bury(&mut self, at: usize) -> Result<(), String> {
        let Some(why) = self.hosts[at].ended() else { return Ok(()) };
        if !self.hosts[at].is_up() {
            return Ok(());
        }
        if self.hosts[at].disk.is_powered() {
            return Err(format!("member {at} ended by itself: {why}"));
        }
        self.tell(format_args!("member {at} has lost power"));
        self.hosts[at].kill(true);
        Ok(())
    }

    /// Nothing fails any more, and all must come together.
    fn heal(&mut self) -> Result<(), String> {
        self.net.heal();
        for host in &mut self.hosts {
            host.paused_until = 0;
            host.sync_millis.store(3, Ordering::Relaxed);
            if !host.is_up() {
                host.start()?;
            } else if host.disk.is_powered() {
                host.disk.cut_after(u64::MAX);
            }
        }
        let healed = self.now();
        let lease_max = u64::try_from(LEASE_SECONDS).unwrap_or(0) * 1000;
        let mut quiet = false;
        loop {
            self.tick()?;
            for at in 0..self.hosts.len() {
                if !self.hosts[at].is_up() {
                    self.hosts[at].start()?;
                }
            }
            let now = self.now();
            // Clients go on for a while, and must be answered.
            if !quiet && now >= healed + 3_000 && self.answered_since(healed) {
                quiet = true;
                self.tell("clients stop");
                lock(&self.notes).quiet = true;
            }
            if quiet && now >= healed + 4_000 + 2 * lease_max && self.is_settled() {
                return Ok(());
            }
            if now > healed + HEAL_MAX {
                return Err(format!("it did not come together: {}", self.stand()));
            }
        }
    }

    /// Whether a client of each member was answered lately.
    fn answered_since(&self, healed: u64) -> bool {
        let notes = lock(&self.notes);
        (0..self.hosts.len()).all(|host| notes.answered.get(&host).is_some_and(|at| *at > healed))
    }

    fn is_settled(&self) -> bool {
        let members: Vec<host::Up> = self.hosts.iter().filter_map(Host::member).collect();
        let stand = |up: &host::Up| (up.node.status().leader, up.node.status().applied);
        members.len() == self.hosts.len()
            && members.iter().all(|member| stand(member) == stand(&members[0]) && stand(member).0 != 0)
            && members.iter().all(|member| member.shared.machine().leases().next().is_none())
            && self.hosts.iter().all(|host| {
                lock(&host.seen).last().map_or(0, |(revision, ..)| *revision)
                    == members[0].shared.machine().revision().max(0)
            })
    }

    /// How all stand, for whoever looks for the reason.
    fn stand(&self) -> String {
        let of = |host: &Host| {
            let Some(up) = host.member() else { return format!("{}: down", host.number) };
            let status = up.node.status();
            let machine = up.shared.machine();
            let seen = lock(&host.seen).last().map_or(0, |(revision, ..)| *revision);
            format!(
                "{} ({:x}): leader {:x}, term {}, applied {}, revision {}, watched {seen}, {} leases",
                host.number,
                status.member_id,
                status.leader,
                status.term,
                status.applied,
                machine.revision(),
                machine.leases().count()
            )
        };
        let hosts: Vec<String> = self.hosts.iter().map(of).collect();
        hosts.join("; ")
    }

    /// All changes that the first member has.
    fn truth(&self) -> Result<Vec<Change>, String> {
        let up = self.hosts[0].member().ok_or("the first member is down")?;
        let machine = up.shared.machine();
        let (range, mut from, mut truth) = (KeyRange::new(&vec![0].into(), &vec![0].into()), 1, Vec::new());
        while from <= machine.revision() {
            let (batches, next) = machine.history(&range, from, 1000).map_err(|error| error.to_string())?;
            for event in batches.iter().flat_map(|batch| &batch.events) {
                let kv = &event.record.kv;
                let value = if event.record.tombstone { None } else { clients::value(&kv.value) };
                truth.push((kv.mod_revision, String::from_utf8_lossy(&kv.key).into_owned(), value));
            }
            from = next;
        }
        Ok(truth)
    }

    fn check(&mut self, truth: &[Change]) -> Result<(), String> {
        let hashes: Vec<u32> =
            self.hosts.iter().filter_map(Host::member).map(|up| up.shared.machine().hash_kv(0)).collect();
        if hashes.iter().any(|hash| *hash != hashes[0]) {
            return Err(format!("members differ: {hashes:x?}"));
        }
        lock(&self.notes).history.check(truth)?;
        for host in &self.hosts {
            let seen = lock(&host.seen);
            if *seen != truth {
                let at = seen.iter().zip(truth).position(|(seen, truth)| seen != truth);
                let at = at.unwrap_or(seen.len().min(truth.len()));
                return Err(format!(
                    "the watcher of member {} was told {:?} in the place of {:?}",
                    host.number,
                    seen.get(at),
                    truth.get(at)
                ));
            }
        }
        self.check_leases(truth)
    }

    /// No lease that was held ended before its time.
    fn check_leases(&mut self, truth: &[Change]) -> Result<(), String> {
        let ends: BTreeMap<&str, i64> = truth
            .iter()
            .filter(|(_, key, value)| value.is_none() && key.starts_with("/lease/"))
            .map(|(revision, key, _)| (key.as_str(), *revision))
            .collect();
        for held in lock(&self.notes).leases.iter().filter(|held| held.put && !held.revoked) {
            let key = clients::lease_key(held.id);
            let Some(revision) = ends.get(key.as_str()) else {
                return Err(format!("{key} outlives its lease"));
            };
            let ended = self.first_seen.get(revision).copied().unwrap_or(0);
            let least = held.since + u64::try_from(LEASE_SECONDS).unwrap_or(0) * 1000 - LEASE_SLACK;
            if ended < least {
                return Err(format!("{key} is gone at {ended} ms, held since {}", held.since));
            }
            self.summary.lease_ends += 1;
        }
        Ok(())
    }
}
