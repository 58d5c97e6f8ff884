//! All members, who leads them, and what is decided: Raft's rules in their simplest form.
//!
//! A leader is a member whose log is not behind that of any in some majority; an entry is decided once a majority has it on disk
//! and it is of the leader's own term. What is decided is applied to the oracle at once, and to the members when they get to it.

use crate::commands;
use crate::dice::Dice;
use crate::disk::SimDisk;
use crate::member::Member;
use crate::oracle::Oracle;
use crate::watcher::Watcher;
use store::command::Command;
use store::wal::{Entry, EntryId, Record, Vote};

pub const MEMBERS: usize = 3;
const MAJORITY: usize = MEMBERS / 2 + 1;

/// Everything there is.
pub struct World {
    pub members: Vec<Member>,
    pub leader: Option<usize>,
    pub term: u64,
    /// The decided entries, from index 1.
    pub decided: Vec<Entry>,
    pub oracle: Oracle,
    pub watchers: Vec<Watcher>,
    /// Whether decided commands are told.
    pub trace: bool,
}

impl World {
    pub fn new(dice: &mut Dice, trace: bool) -> Self {
        let members = (0..MEMBERS).map(|name| Member::new(name, SimDisk::new(dice.fork()))).collect();
        let (decided, watchers) = (Vec::new(), Vec::new());
        Self { members, leader: None, term: 0, decided, oracle: Oracle::new(), watchers, trace }
    }

    pub fn up(&self) -> Vec<usize> {
        (0..MEMBERS).filter(|name| self.members[*name].running.is_some()).collect()
    }

    /// Forgets the leader if it is down, and lets watchers of dead members know.
    pub fn notice_deaths(&mut self) {
        self.leader = self.leader.filter(|name| self.members[*name].running.is_some());
        for watcher in &mut self.watchers {
            if watcher.at.as_ref().is_some_and(|place| self.members[place.member].running.is_none()) {
                watcher.leave(None);
            }
        }
    }

    /// Elects `candidate`, if a majority may follow it.
    pub fn elect(&mut self, candidate: usize) -> Result<(), String> {
        let last = self.members[candidate].last();
        let voters: Vec<usize> =
            self.up().into_iter().filter(|name| self.members[*name].last() <= last).collect();
        if self.members[candidate].running.is_none() || voters.len() < MAJORITY {
            return Ok(());
        }
        let term = self.term + 1;
        let mut votes = 0;
        for voter in voters {
            let vote = Vote { term, member: candidate as u64, committed: false };
            votes += usize::from(self.members[voter].write(vec![Record::Vote(vote)])?);
        }
        self.notice_deaths();
        if votes >= MAJORITY && self.members[candidate].running.is_some() {
            (self.leader, self.term) = (Some(candidate), term);
        }
        Ok(())
    }

    /// The leader takes commands into its log.
    pub fn propose(&mut self, dice: &mut Dice) -> Result<(), String> {
        let Some(leader) = self.leader else { return Ok(()) };
        let count = 1 + dice.below(4);
        let (_, last) = self.members[leader].last();
        let entries = (1..=count).map(|n| {
            let payload = commands::draw(dice, self.oracle.revision).encode();
            let id = EntryId { term: self.term, leader: leader as u64, index: last + n };
            Record::Entry(Entry { id, kind: 1, payload })
        });
        let records = entries.collect();
        self.members[leader].write(records)?;
        self.notice_deaths();
        Ok(())
    }

    /// The leader brings a follower's log in line with its own, as far as `at_most` entries.
    pub fn replicate(&mut self, follower: usize, at_most: u64) -> Result<(), String> {
        let Some(leader) = self.leader.filter(|leader| *leader != follower) else { return Ok(()) };
        if self.members[follower].running.is_none() {
            return Ok(());
        }
        let Some(running) = &self.members[leader].running else { return Ok(()) };
        let head = running.log.head;
        let purged = head.purged.map_or(0, |id| id.index);
        let last = head.last.map_or(0, |id| id.index);
        // The last entry that both have.
        let mut common = self.members[follower].last().1.min(last);
        while common > purged && self.id_at(follower, common) != self.id_at(leader, common) {
            common -= 1;
        }
        let theirs = self.id_at(follower, common);
        if common < purged || (common > 0 && theirs != self.id_at(leader, common)) {
            return match self.members[leader].snapshot.clone() {
                Some(snapshot) => self.members[follower].install(&snapshot),
                None => Err(format!("member {leader} has neither entry {common} nor a snapshot")),
            };
        }
        let mut records = Vec::new();
        if self.members[follower].last().1 > common {
            records.push(Record::TruncateAfter(theirs));
        }
        let end = last.min(common + at_most);
        records.extend(
            (common + 1..=end)
                .filter_map(|index| self.members[leader].entry(index))
                .cloned()
                .map(Record::Entry),
        );
        if !records.is_empty() {
            self.members[follower].write(records)?;
        }
        Ok(())
    }

    /// The name of a member's entry at `index`, which may be the last that it dropped.
    fn id_at(&self, member: usize, index: u64) -> Option<EntryId> {
        let running = self.members[member].running.as_ref()?;
        let purged = running.log.head.purged.filter(|id| id.index == index);
        purged.or_else(|| self.members[member].entry(index).map(|entry| entry.id))
    }

    /// Decides what a majority has on disk.
    pub fn decide(&mut self) -> Result<(), String> {
        let Some(leader) = self.leader else { return Ok(()) };
        let mut matching: Vec<u64> = (0..MEMBERS).map(|member| self.agreed(leader, member)).collect();
        matching.sort_unstable();
        let upto = matching[MEMBERS - MAJORITY];
        if self.id_at(leader, upto).is_none_or(|id| id.term != self.term) {
            return Ok(());
        }
        for index in self.decided.len() as u64 + 1..=upto {
            let entry = self.members[leader].entry(index).cloned();
            let entry = entry.ok_or_else(|| format!("the leader has dropped entry {index} undecided"))?;
            let command = Command::decode(entry.payload.clone()).map_err(|error| error.to_string())?;
            self.oracle.apply(&command.op)?;
            if self.trace {
                println!("      decided {index}, revision {}: {:?}", self.oracle.revision, command.op);
            }
            self.decided.push(entry);
        }
        Ok(())
    }

    /// The last entry up to which a member's log is the leader's.
    fn agreed(&self, leader: usize, member: usize) -> u64 {
        let last = self.members[member].last().1.min(self.members[leader].last().1);
        let same =
            |index: u64| self.id_at(member, index).is_some_and(|id| Some(id) == self.id_at(leader, index));
        (1..=last).rev().find(|index| same(*index)).unwrap_or(0)
    }

    /// A member applies up to `at_most` decided entries.
    pub fn apply(&mut self, name: usize, at_most: u64) -> Result<(), String> {
        let decided = self.decided.len() as u64;
        for _ in 0..at_most {
            let member = &mut self.members[name];
            let Some(next) = member.running.as_ref().map(|running| running.applied + 1) else {
                return Ok(());
            };
            let ours = member.entry(next).map(|entry| entry.id);
            if next > decided || ours != Some(self.decided[usize::try_from(next - 1).unwrap_or(0)].id) {
                return Ok(());
            }
            member.apply_next()?;
        }
        Ok(())
    }
}
