//! Ranges of keys as etcd's requests write them, and the history of one key.

use super::Record;
use bytes::Bytes;
use smallvec::SmallVec;
use std::ops::Bound;
use std::sync::Arc;

/// Keys `[from, end)`: an empty end stands for the one key, `\0` for no end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key.
    pub from: Bytes,
    /// The key behind the last.
    pub end: Bytes,
}

impl KeyRange {
    /// From a request's two fields.
    #[must_use]
    pub fn new(key: &Bytes, range_end: &Bytes) -> Self {
        Self { from: key.clone(), end: range_end.clone() }
    }

    /// Whether it stands for one key.
    #[must_use]
    pub fn is_one_key(&self) -> bool {
        self.end.is_empty()
    }

    /// Whether it has no end.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.end.as_ref() == [0]
    }

    /// Whether no key is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.is_one_key() && !self.is_open() && self.from >= self.end
    }

    /// Whether `key` is in it.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        match self.end.as_ref() {
            [] => key == self.from,
            [0] => key >= self.from.as_ref(),
            end => key >= self.from.as_ref() && key < end,
        }
    }

    /// Whether some key is in both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let before = |a: &Self, b: &Self| match a.end.as_ref() {
            [] => a.from < b.from,
            [0] => false,
            end => end <= b.from.as_ref(),
        };
        !self.is_empty() && !other.is_empty() && !before(self, other) && !before(other, self)
    }

    /// As bounds of an ordered map; never panics there.
    #[must_use]
    pub fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let from = self.from.as_ref();
        match self.end.as_ref() {
            [] => (Bound::Included(from), Bound::Included(from)),
            [0] => (Bound::Included(from), Bound::Unbounded),
            end if end <= from => (Bound::Included(from), Bound::Excluded(from)),
            end => (Bound::Included(from), Bound::Excluded(end)),
        }
    }
}

/// All that is kept of one key: oldest first, never empty.
#[derive(Debug, Default)]
pub(super) struct History {
    pub records: SmallVec<[Arc<Record>; 1]>,
}

impl History {
    /// The key's state at `revision`, if it was there.
    pub fn at(&self, revision: i64) -> Option<&Arc<Record>> {
        let newest = self.records.last()?;
        let record = if newest.kv.mod_revision <= revision {
            newest
        } else {
            let later = self.records.partition_point(|record| record.kv.mod_revision <= revision);
            self.records.get(later.checked_sub(1)?)?
        };
        (!record.tombstone).then_some(record)
    }

    /// What stood before the record of `revision`, if history still has it and the key was there.
    pub fn before(&self, revision: i64) -> Option<&Arc<Record>> {
        let at = self.records.partition_point(|record| record.kv.mod_revision < revision);
        self.records.get(at.checked_sub(1)?).filter(|record| !record.tombstone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(from: &'static str, end: &'static str) -> KeyRange {
        KeyRange { from: from.into(), end: end.into() }
    }

    #[test]
    fn ranges_hold_one_key_or_all_from_a_key_or_up_to_another() {
        assert!(range("a", "").contains(b"a") && !range("a", "").contains(b"aa"));
        assert!(range("a", "\0").contains(b"\xff") && !range("b", "\0").contains(b"a"));
        assert!(range("a", "c").contains(b"b") && !range("a", "c").contains(b"c"));
        assert!(range("c", "a").is_empty() && !range("a", "\0").is_empty());
    }

    #[test]
    fn ranges_overlap_when_they_share_a_key() {
        for (a, b, wanted) in [
            (range("a", ""), range("a", ""), true),
            (range("a", ""), range("b", ""), false),
            (range("a", "c"), range("b", ""), true),
            (range("a", "c"), range("c", ""), false),
            (range("a", "\0"), range("z", ""), true),
            (range("c", "a"), range("b", ""), false),
            (range("a", "c"), range("b", "d"), true),
        ] {
            assert_eq!((a.overlaps(&b), b.overlaps(&a)), (wanted, wanted), "{a:?} {b:?}");
        }
    }
}
