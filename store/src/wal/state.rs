//! What all records of a log together say. Pure: the same steps replay a log and keep the copy in memory.

use super::record::{Entry, EntryId, Head, Record};
use std::collections::VecDeque;

/// What stands for an entry: all of it, or where it is found.
pub trait Named: From<Entry> {
    /// The entry's name.
    fn id(&self) -> EntryId;
}

impl Named for Entry {
    fn id(&self) -> EntryId {
        self.id
    }
}

/// The log as its records made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogState<E = Entry> {
    /// Everything but the entries.
    pub head: Head,
    /// Every entry after `head.purged` up to `head.last`, without gaps.
    pub entries: VecDeque<E>,
}

impl<E> Default for LogState<E> {
    fn default() -> Self {
        Self { head: Head::default(), entries: VecDeque::new() }
    }
}

impl Head {
    /// Whether `record` may come next.
    ///
    /// # Errors
    /// It would leave a gap; the text says which.
    pub(super) fn admit(&self, record: &Record) -> Result<(), String> {
        match record {
            Record::Entry(entry) => {
                if let Some(last) = self.last
                    && last.index.checked_add(1) != Some(entry.id.index)
                {
                    return Err(format!("entry {} follows entry {}", entry.id.index, last.index));
                }
            }
            // A head either begins the oldest segment there is, or repeats what the segments before it said.
            Record::Head(head) if *self != Self::default() && self.last != head.last => {
                let (ended, begins) = (self.last, head.last);
                return Err(format!(
                    "it begins after {begins:?}, and the segment before it ended with {ended:?}"
                ));
            }
            _ => {}
        }
        Ok(())
    }

    /// What is true after `record`.
    pub(super) fn note(&mut self, record: &Record) {
        match record {
            Record::Vote(vote) => self.vote = Some(*vote),
            Record::Committed(id) => self.committed = *id,
            Record::Entry(entry) => self.last = Some(entry.id),
            Record::TruncateAfter(to) => {
                if self.last.is_some_and(|last| to.is_none_or(|to| last.index > to.index)) {
                    self.last = to.or(self.purged);
                }
            }
            Record::Purge(id) => {
                self.purged = Some(*id);
                if self.last.is_none_or(|last| last.index <= id.index) {
                    self.last = Some(*id);
                }
            }
            Record::Head(head) => *self = *head,
        }
    }
}

impl<E: Named> LogState<E> {
    /// Makes one change.
    ///
    /// # Errors
    /// The change would leave a gap; the text says which.
    pub fn apply(&mut self, record: Record) -> Result<(), String> {
        self.head.admit(&record)?;
        self.head.note(&record);
        match record {
            Record::Entry(entry) => self.entries.push_back(E::from(entry)),
            Record::TruncateAfter(to) => {
                let goes = |entry: &E| to.is_none_or(|to| entry.id().index > to.index);
                while self.entries.back().is_some_and(goes) {
                    self.entries.pop_back();
                }
            }
            Record::Purge(id) => {
                while self.entries.front().is_some_and(|entry| entry.id().index <= id.index) {
                    self.entries.pop_front();
                }
            }
            Record::Vote(_) | Record::Committed(_) | Record::Head(_) => {}
        }
        Ok(())
    }

    /// Whether nothing was ever recorded.
    #[must_use]
    pub fn is_pristine(&self) -> bool {
        self.head == Head::default() && self.entries.is_empty()
    }

    /// Where in `entries` the entry with an index is, or would be.
    pub(super) fn position(&self, index: u64) -> usize {
        let first = self.entries.front().map_or(0, |entry| entry.id().index);
        usize::try_from(index.saturating_sub(first)).unwrap_or(usize::MAX).min(self.entries.len())
    }

    /// Whether entries reach from `purged` to `last`: else the oldest segments are missing.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        match (self.entries.front(), self.head.purged) {
            (Some(first), Some(purged)) => purged.index.checked_add(1) == Some(first.id().index),
            (Some(_), None) => true,
            (None, purged) => purged.map(|id| id.index) == self.head.last.map(|id| id.index),
        }
    }

    /// The entries with an index in `start..end`, as far as there are any.
    pub fn range(&self, start: u64, end: u64) -> impl Iterator<Item = &E> {
        let (from, to) = (self.position(start), self.position(end));
        self.entries.range(from..to.max(from))
    }
}
