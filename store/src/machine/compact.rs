//! Forgetting: a compaction takes away what no revision from it on shows.

use super::apply::header;
use super::{Change, Machine, Place};
use crate::error::StoreError;
use bytes::Bytes;
use coracle_etcd::proto::CompactionResponse;
use std::collections::HashSet;

impl Machine {
    /// Forgets all below `revision`. Deletions of `revision` itself stay, for watches that start there.
    pub(super) fn compact(&mut self, revision: i64) -> Result<CompactionResponse, StoreError> {
        if revision <= self.compacted {
            return Err(StoreError::Compacted);
        }
        if revision > self.revision {
            return Err(StoreError::FutureRevision);
        }
        self.compacted = revision;
        self.effects.changes.push(Change::Compacted(revision));
        // A key's history is cut once for all that goes of it: one key may have most of the changes there are.
        let mut keys = HashSet::new();
        while let Some((_, place)) = self.superseded.pop_front_if(|(replaced_at, _)| *replaced_at <= revision)
        {
            keys.extend(self.forget(place));
        }
        while let Some(place) = self.tombstones.pop_front_if(|place| place.main < revision) {
            keys.extend(self.forget(place));
        }
        for key in keys {
            self.cut_history(&key);
        }
        Ok(CompactionResponse { header: header(self.revision) })
    }

    /// Takes a record away, but from its key's history; tells the key.
    fn forget(&mut self, place: Place) -> Option<Bytes> {
        // A deletion that was followed by a put is on both lists.
        let record = self.records.remove(&place)?;
        self.size = self.size.saturating_sub(record.size());
        self.effects.changes.push(Change::Forget(place));
        Some(record.kv.key.clone())
    }

    /// Takes what was forgotten out of a key's history: its oldest records.
    fn cut_history(&mut self, key: &[u8]) {
        let Some(history) = self.index.get_mut(key) else { return };
        let gone = history.records.partition_point(|record| !self.records.contains_key(&record.place()));
        history.records.drain(..gone);
        history.records.shrink_to_fit();
        if history.records.is_empty() {
            self.index.remove(key);
        }
    }
}
