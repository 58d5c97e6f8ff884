//! Forgetting: a compaction takes away what no revision from it on shows.

use super::apply::header;
use super::{Change, Machine, Place};
use crate::error::StoreError;
use coracle_etcd::proto::CompactionResponse;

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
        while let Some((_, place)) = self.superseded.pop_front_if(|(replaced_at, _)| *replaced_at <= revision)
        {
            self.forget(place);
        }
        while let Some(place) = self.tombstones.pop_front_if(|place| place.main < revision) {
            self.forget(place);
        }
        Ok(CompactionResponse { header: header(self.revision) })
    }

    fn forget(&mut self, place: Place) {
        // A deletion that was followed by a put is on both lists.
        let Some(record) = self.records.remove(&place) else { return };
        self.size = self.size.saturating_sub(record.size());
        self.effects.changes.push(Change::Forget(place));
        let Some(history) = self.index.get_mut(&record.kv.key) else { return };
        if let Some(at) = history.records.iter().position(|kept| kept.place() == place) {
            history.records.remove(at);
            history.records.shrink_to_fit();
        }
        if history.records.is_empty() {
            self.index.remove(&record.kv.key);
        }
    }
}
