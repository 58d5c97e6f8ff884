//! What goes wrong, and when: drawn from the seed, with some faults aimed at the moments that matter.

use super::World;
use crate::dice::Dice;
use std::sync::atomic::Ordering;
use store::consensus::Consensus;

/// Milliseconds between faults, at most.
const PAUSE_MAX: u64 = 400;

/// The hand that breaks things.
pub struct Faults {
    dice: Dice,
    next: u64,
    /// When each member that is down starts again.
    start_at: Vec<u64>,
    /// When the network is whole again.
    heal_at: Option<u64>,
}

impl Faults {
    pub fn new(mut dice: Dice, members: usize) -> Self {
        // A cluster forms first.
        let next = 600 + dice.below(1000);
        Self { dice, next, start_at: vec![0; members], heal_at: None }
    }

    /// What happens in this millisecond.
    pub fn step(&mut self, world: &mut World) -> Result<(), String> {
        let now = world.now();
        for at in 0..world.hosts.len() {
            if !world.hosts[at].is_up() && now >= self.start_at[at] {
                world.tell(format_args!("member {at} starts"));
                world.hosts[at].start()?;
            }
        }
        if self.heal_at.is_some_and(|at| at <= now) {
            world.tell("the network heals");
            world.net.heal();
            self.heal_at = None;
        }
        self.aim(world);
        if now >= self.next {
            self.next = now + self.dice.below(PAUSE_MAX);
            self.draw(world);
        }
        Ok(())
    }

    fn kill(&mut self, world: &mut World, at: usize, whole: bool) {
        if !world.hosts[at].is_up() {
            return;
        }
        world.tell(format_args!("member {at} is killed{}", if whole { " with its machine" } else { "" }));
        world.hosts[at].kill(whole);
        world.summary.kills += 1;
        let away = if self.dice.percent(50) { 5 } else { 1500 };
        self.start_at[at] = world.now() + self.dice.below(away);
    }

    /// Members that have just voted or come to know a new term may die at once, and be back at once.
    fn aim(&mut self, world: &mut World) {
        for at in 0..world.hosts.len() {
            let Some(up) = world.hosts[at].member() else { continue };
            let term = up.node.status().term;
            if term > world.terms[at] {
                world.terms[at] = term;
                if term > 1 && self.dice.percent(25) {
                    let whole = self.dice.percent(50);
                    self.kill(world, at, whole);
                }
            }
        }
    }

    fn leader(world: &World) -> Option<usize> {
        world
            .hosts
            .iter()
            .position(|host| host.member().is_some_and(|up| up.node.leadership().borrow().is_me))
    }

    fn draw(&mut self, world: &mut World) {
        let members = world.hosts.len();
        let mut at = self.dice.index(members);
        // Leaders are more interesting.
        if self.dice.percent(40) {
            at = Self::leader(world).unwrap_or(at);
        }
        let other = (at + 1 + self.dice.index(members - 1)) % members;
        let (now, long) = (world.now(), 50 + self.dice.below(2000));
        match self.dice.below(100) {
            0..12 => {
                let whole = self.dice.percent(50);
                self.kill(world, at, whole);
            }
            12..22 => {
                world.tell(format_args!("member {at} will lose power"));
                world.hosts[at].disk.cut_after(self.dice.below(12));
            }
            22..26 => {
                for at in 0..members {
                    self.kill(world, at, true);
                }
            }
            26..42 => {
                world.tell(format_args!("member {at} stands still for {long} ms"));
                world.hosts[at].paused_until = now + long;
                world.summary.pauses += 1;
            }
            42..60 => {
                world.tell(format_args!("member {at} is alone for {long} ms"));
                for other in (0..members).filter(|other| *other != at) {
                    world.net.cut(at, other);
                    world.net.cut(other, at);
                }
                self.cut_for(world, long);
            }
            60..75 => {
                world.tell(format_args!("nothing gets from member {at} to {other} for {long} ms"));
                world.net.cut(at, other);
                if self.dice.percent(50) {
                    world.net.cut(other, at);
                }
                self.cut_for(world, long);
            }
            75..88 => {
                let (delay, lossy) = (self.dice.below(80), self.dice.below(15));
                world.tell(format_args!("the network delays by {delay} ms and loses {lossy} %"));
                world.net.quality(delay, lossy);
                self.heal_at = Some(now + long);
            }
            _ => {
                let slow = [1, 3, 3, 60, 300][self.dice.index(5)];
                world.tell(format_args!("the disk of member {at} takes up to {slow} ms"));
                world.hosts[at].sync_millis.store(slow, Ordering::Relaxed);
            }
        }
    }

    fn cut_for(&mut self, world: &mut World, millis: u64) {
        world.summary.cuts += 1;
        self.heal_at = Some(world.now() + millis);
    }
}
