//! The replicated state: keys with their history, leases and alarms. Commands go in; outcomes, events and changes come out.
//!
//! Invariants: no I/O, no clock, no randomness, so that the same commands make the same state everywhere; a refused command
//! changes nothing; a revision belongs to exactly one transaction, and each transaction that changes a key takes the next one,
//! with etcd's numbers (an empty store is at 1).

mod apply;
mod compact;
mod event;
mod keys;
mod lease;
mod read;
mod record;
mod snapshot;
#[cfg(test)]
mod tests;
mod txn;

pub use event::{Batch, Event};
pub use keys::KeyRange;
pub use read::Found;
pub use record::{Change, Place, Record, Row};
pub use snapshot::{Restore, RestoreError, View, put_row, take_row};
pub use txn::{has_puts, is_read_only, is_serializable};

use bytes::Bytes;
use coracle_etcd::proto::AlarmType;
use keys::History;
use lease::Lease;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// The revision of a store that was never written.
pub const FIRST_REVISION: i64 = 1;

/// See the module.
#[derive(Debug, Default)]
pub struct Machine {
    revision: i64,
    /// Revisions below this are gone; 0 when none are.
    compacted: i64,
    index: BTreeMap<Bytes, History>,
    /// The same records by place, which is the order of events.
    records: BTreeMap<Place, Arc<Record>>,
    /// What a compaction takes away: records with the revision that replaced them, oldest first.
    superseded: VecDeque<(i64, Place)>,
    /// Deletions, oldest first.
    tombstones: VecDeque<Place>,
    leases: BTreeMap<i64, Lease>,
    alarms: BTreeSet<(u64, i32)>,
    size: u64,
    effects: Effects,
    /// Changes of the transaction that is being applied.
    events: Vec<Event>,
}

/// What commands did since effects were last taken.
#[derive(Debug, Default)]
pub struct Effects {
    /// Events, a batch for each revision.
    pub batches: Vec<Arc<Batch>>,
    /// What the image has to take over.
    pub changes: Vec<Change>,
}

impl Machine {
    /// Empty.
    #[must_use]
    pub fn new() -> Self {
        Self { revision: FIRST_REVISION, ..Self::default() }
    }

    /// The last transaction's revision.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Revisions below this are gone; 0 when none are.
    #[must_use]
    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    /// Bytes of keys, values and their history, roughly.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Keys that have any history.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.index.len()
    }

    /// Alarms that are raised: member and etcd's number of the alarm.
    pub fn alarms(&self) -> impl Iterator<Item = (u64, i32)> {
        self.alarms.iter().copied()
    }

    /// Whether some member raised `alarm`.
    #[must_use]
    pub fn has_alarm(&self, alarm: AlarmType) -> bool {
        self.alarms.iter().any(|(_, raised)| *raised == alarm as i32)
    }

    /// Takes what the commands since the last call did.
    pub fn take_effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }
}
