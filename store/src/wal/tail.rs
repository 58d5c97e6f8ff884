//! The log as a running member has it in memory: all names, but only the payloads that somebody is about to ask for. Those of
//! older entries are on the disk, and are read from there for a follower that lags.

use super::record::{Entry, EntryId, Record};
use super::state::{LogState, Named};
use bytes::Bytes;

/// Where a record stands on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    /// Number of the segment.
    pub(super) segment: u64,
    /// Where in it the record begins.
    pub(super) at: u64,
}

/// An entry in memory.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) id: EntryId,
    pub(super) kind: u8,
    /// Bytes of the payload.
    pub(super) length: usize,
    /// Never none while `spot` is.
    pub(super) payload: Option<Bytes>,
    /// Known once the entry is on stable storage.
    pub(super) spot: Option<Spot>,
}

impl From<Entry> for Slot {
    fn from(entry: Entry) -> Self {
        let Entry { id, kind, payload } = entry;
        Self { id, kind, length: payload.len(), payload: Some(payload), spot: None }
    }
}

impl Named for Slot {
    fn id(&self) -> EntryId {
        self.id
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Tail {
    log: LogState<Slot>,
    /// Bytes of payloads in memory.
    held: usize,
    /// Entries before this one have no payload in memory.
    held_from: u64,
}

impl Tail {
    pub(super) fn log(&self) -> &LogState<Slot> {
        &self.log
    }

    /// Makes one change.
    ///
    /// # Errors
    /// The change would leave a gap; the text says which.
    pub(super) fn apply(&mut self, record: Record) -> Result<(), String> {
        let (grows, cuts) = match &record {
            Record::Entry(entry) => (entry.payload.len(), false),
            Record::TruncateAfter(_) | Record::Purge(_) => (0, true),
            Record::Vote(_) | Record::Committed(_) | Record::Head(_) => (0, false),
        };
        self.log.apply(record)?;
        self.held += grows;
        if cuts {
            self.held =
                self.log.entries.iter().filter_map(|slot| slot.payload.as_ref()).map(Bytes::len).sum();
            self.held_from = 0;
        }
        Ok(())
    }

    /// An entry is on stable storage. One that was cut off meanwhile has no place here any more.
    pub(super) fn settle(&mut self, id: EntryId, spot: Spot) {
        let at = self.log.position(id.index);
        if let Some(slot) = self.log.entries.get_mut(at).filter(|slot| slot.id == id) {
            slot.spot = Some(spot);
        }
    }

    /// Lets go of payloads, oldest first, until at most `bytes` are held: of entries that are stable and decided, for others
    /// are about to be sent or applied.
    pub(super) fn trim(&mut self, bytes: usize) {
        let Some(decided) = self.log.head.committed else { return };
        let mut at = self.log.position(self.held_from);
        while self.held > bytes
            && let Some(slot) = self.log.entries.get_mut(at)
            && slot.spot.is_some()
            && slot.id.index <= decided.index
        {
            self.held -= slot.payload.take().map_or(0, |payload| payload.len());
            self.held_from = slot.id.index.saturating_add(1);
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(term: u64, index: u64) -> EntryId {
        EntryId { term, leader: 1, index }
    }

    fn entry(term: u64, index: u64) -> Record {
        Record::Entry(Entry { id: id(term, index), kind: 1, payload: Bytes::from_static(&[7; 10]) })
    }

    const SPOT: Spot = Spot { segment: 1, at: 64 };

    /// The entries whose payload is in memory.
    fn held(tail: &Tail) -> Vec<u64> {
        let held: Vec<&Slot> = tail.log.entries.iter().filter(|slot| slot.payload.is_some()).collect();
        assert_eq!(held.iter().map(|slot| slot.length).sum::<usize>(), tail.held);
        held.iter().map(|slot| slot.id.index).collect()
    }

    #[test]
    fn payloads_stay_until_they_are_stable_decided_and_too_many() {
        let mut tail = Tail::default();
        for index in 1..=6 {
            tail.apply(entry(1, index)).unwrap();
        }
        tail.trim(0);
        assert_eq!(held(&tail), [1, 2, 3, 4, 5, 6], "nothing is stable");
        (1..=5).for_each(|index| tail.settle(id(1, index), SPOT));
        tail.trim(0);
        assert_eq!(held(&tail), [1, 2, 3, 4, 5, 6], "nothing is decided");
        tail.apply(Record::Committed(Some(id(1, 4)))).unwrap();
        tail.trim(40);
        assert_eq!(held(&tail), [3, 4, 5, 6]);
        tail.trim(0);
        assert_eq!(held(&tail), [5, 6]);
        tail.apply(Record::Purge(id(1, 2))).unwrap();
        tail.apply(Record::Committed(Some(id(1, 6)))).unwrap();
        tail.trim(0);
        assert_eq!(held(&tail), [6], "one that is not stable stays, though it is decided");
    }

    #[test]
    fn an_entry_in_the_place_of_another_is_not_taken_for_it() {
        let mut tail = Tail::default();
        for index in 1..=3 {
            tail.apply(entry(1, index)).unwrap();
        }
        tail.settle(id(1, 1), SPOT);
        tail.apply(Record::Committed(Some(id(1, 1)))).unwrap();
        tail.trim(0);
        tail.apply(Record::TruncateAfter(Some(id(1, 1)))).unwrap();
        tail.apply(entry(2, 2)).unwrap();
        tail.settle(id(1, 2), SPOT);
        tail.apply(Record::Committed(Some(id(2, 2)))).unwrap();
        tail.trim(0);
        assert_eq!(held(&tail), [2], "the old one became stable, not this one");
        tail.settle(id(2, 2), SPOT);
        tail.trim(0);
        assert!(held(&tail).is_empty());
    }
}
