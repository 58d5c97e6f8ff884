//! One seed: what happens when, a phase of faults, and then everything heals and must come together.

use crate::commands;
use crate::dice::Dice;
use crate::invariants;
use crate::watcher::Watcher;
use crate::world::{MEMBERS, World};
use std::collections::VecDeque;
use std::fmt;
use std::ops::AddAssign;
use store::machine::KeyRange;

/// Steps that a violation shows.
const LAST_STEPS: usize = 12;
/// Rounds in which all must come together once nothing fails any more.
const HEALING_ROUNDS: usize = 8;

/// What a seed did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub decided: usize,
    pub power_cuts: usize,
    pub snapshots: usize,
    pub events_told: usize,
    /// Of everything: two runs of a seed must agree in it.
    pub fingerprint: u64,
}

impl AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.decided += other.decided;
        self.power_cuts += other.power_cuts;
        self.snapshots += other.snapshots;
        self.events_told += other.events_told;
        self.fingerprint = self.fingerprint.rotate_left(1) ^ other.fingerprint;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { decided, power_cuts, snapshots, events_told, .. } = self;
        write!(
            f,
            "{decided} commands decided, {power_cuts} power cuts, {snapshots} snapshots, {events_told} events told"
        )
    }
}

/// What went wrong, where, and what led to it.
#[derive(Debug)]
pub struct Violation {
    pub seed: u64,
    pub step: usize,
    pub what: String,
    pub last: VecDeque<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}, step {}: {}", self.seed, self.step, self.what)?;
        self.last.iter().try_for_each(|step| writeln!(f, "  {step}"))
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Elect(usize),
    Propose,
    Replicate(usize, u64),
    Apply(usize, u64),
    CutPower { member: usize, after: u64 },
    Start { member: usize, cut_after: Option<u64> },
    Snapshot(usize),
    Watch(usize),
    Read(usize),
}

fn draw(dice: &mut Dice) -> Step {
    let member = dice.index(MEMBERS);
    match dice.below(100) {
        0..6 => Step::Elect(member),
        6..28 => Step::Propose,
        28..56 => Step::Replicate(member, 1 + dice.below(12)),
        56..76 => Step::Apply(member, 1 + dice.below(12)),
        76..80 => Step::CutPower { member, after: dice.below(6) },
        80..88 => Step::Start { member, cut_after: dice.percent(15).then(|| dice.below(4)) },
        88..91 => Step::Snapshot(member),
        91..93 => Step::Watch(member),
        _ => Step::Read(member),
    }
}

/// Plays a seed.
pub fn play(seed: u64, steps: usize, trace: bool) -> Result<Summary, Violation> {
    play_to_the_end(seed, steps, trace).map(|(_, summary)| summary)
}

/// Plays a seed, and shows what the world has become.
pub fn play_to_the_end(seed: u64, steps: usize, trace: bool) -> Result<(World, Summary), Violation> {
    let mut dice = Dice::new(seed);
    let mut world = World::new(&mut dice, trace);
    let (mut summary, mut last) = (Summary::default(), VecDeque::new());
    let fail = |step: usize, what: String, last: &VecDeque<String>| Violation {
        seed,
        step,
        what,
        last: last.clone(),
    };
    for name in 0..MEMBERS {
        start(&mut world, name).map_err(|what| fail(0, what, &last))?;
    }
    for at in 0..steps {
        let step = draw(&mut dice);
        if trace {
            println!("{at:5} {step:?}");
        }
        if last.len() == LAST_STEPS {
            last.pop_front();
        }
        last.push_back(format!("{at:5} {step:?}"));
        take(&mut world, step, &mut dice, &mut summary)
            .and_then(|()| invariants::check(&world, &mut dice))
            .map_err(|what| fail(at, what, &last))?;
    }
    heal(&mut world, &mut dice)
        .and_then(|()| invariants::check_healed(&world, &mut dice))
        .map_err(|what| fail(steps, format!("after healing: {what}"), &last))?;
    summary.decided = world.decided.len();
    summary.events_told = world.watchers.iter().map(|watcher| watcher.seen.len()).sum();
    summary.fingerprint = fingerprint(&world, &mut dice);
    Ok((world, summary))
}

fn fingerprint(world: &World, dice: &mut Dice) -> u64 {
    let hash = world.members[0].running.as_ref().map_or(0, |running| running.machine.hash_kv(0));
    let seen = world.watchers.iter().map(|watcher| watcher.seen.len() as u64).sum::<u64>();
    dice.next() ^ (u64::from(hash) << 16) ^ seen ^ ((world.decided.len() as u64) << 48) ^ world.term
}

fn start(world: &mut World, name: usize) -> Result<(), String> {
    let member = &mut world.members[name];
    if member.running.is_some() {
        return Ok(());
    }
    match member.start()? {
        Some(log) => invariants::acknowledged_write_kept(member, &log),
        None => Ok(()),
    }
}

fn take(world: &mut World, step: Step, dice: &mut Dice, summary: &mut Summary) -> Result<(), String> {
    match step {
        Step::Elect(candidate) => world.elect(candidate)?,
        Step::Propose => world.propose(dice)?,
        Step::Replicate(follower, at_most) => {
            world.replicate(follower, at_most)?;
            world.notice_deaths();
            world.decide()?;
        }
        Step::Apply(member, at_most) => world.apply(member, at_most)?,
        Step::CutPower { member, after } => {
            if world.members[member].running.is_some() {
                summary.power_cuts += 1;
                world.members[member].disk.cut_after(after);
                if after == 0 {
                    world.members[member].stop();
                }
            }
        }
        Step::Start { member, cut_after } => {
            if world.members[member].running.is_none() {
                world.members[member].disk.power_on();
                if let Some(operations) = cut_after {
                    world.members[member].disk.cut_after(operations);
                }
                start(world, member)?;
            }
        }
        Step::Snapshot(member) => {
            summary.snapshots += usize::from(world.members[member].running.is_some());
            world.members[member].take_snapshot()?;
        }
        Step::Watch(member) => watch(world, member, dice),
        Step::Read(member) => read(world, member, dice.index(4))?,
    }
    world.notice_deaths();
    Ok(())
}

/// A watcher begins at a member, or one without a member goes on there.
fn watch(world: &mut World, member: usize, dice: &mut Dice) {
    let Some(running) = &world.members[member].running else { return };
    match world.watchers.iter_mut().find(|watcher| watcher.at.is_none() && !watcher.compacted) {
        Some(watcher) => watcher.move_to(member, running),
        None => {
            let (from, end) = commands::range(dice);
            let range = KeyRange { from, end };
            if !range.is_empty() {
                world.watchers.push(Watcher::start(range, member, running));
            }
        }
    }
}

fn read(world: &mut World, member: usize, pulls: usize) -> Result<(), String> {
    let Some(running) = &world.members[member].running else { return Ok(()) };
    for watcher in world.watchers.iter_mut().filter(|w| w.at.as_ref().is_some_and(|at| at.member == member)) {
        watcher.read(running, pulls)?;
    }
    Ok(())
}

/// Power everywhere, a leader, and all that is asked for is done.
fn heal(world: &mut World, dice: &mut Dice) -> Result<(), String> {
    for name in 0..MEMBERS {
        if world.members[name].running.is_none() {
            world.members[name].disk.power_on();
            start(world, name)?;
        } else {
            world.members[name].disk.cut_after(u64::MAX);
        }
    }
    for _ in 0..HEALING_ROUNDS {
        if world.leader.is_none() {
            for name in 0..MEMBERS {
                if world.leader.is_none() {
                    world.elect(name)?;
                }
            }
        }
        // A leader decides what others left only together with something of its own.
        world.propose(dice)?;
        for name in 0..MEMBERS {
            world.replicate(name, u64::MAX >> 1)?;
            world.decide()?;
        }
        for name in 0..MEMBERS {
            world.apply(name, u64::MAX)?;
        }
    }
    while world.watchers.iter().any(|watcher| watcher.at.is_none() && !watcher.compacted) {
        watch(world, 0, dice);
    }
    for name in 0..MEMBERS {
        read(world, name, usize::MAX)?;
    }
    Ok(())
}
