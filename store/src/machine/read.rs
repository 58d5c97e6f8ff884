//! Reading keys at a revision, and the events since one.

use super::apply::header;
use super::{Batch, Event, KeyRange, Machine, Place, Record};
use crate::error::StoreError;
use coracle_etcd::proto::range_request::{SortOrder, SortTarget};
use coracle_etcd::proto::{KeyValue, RangeRequest, RangeResponse};
use std::sync::Arc;

/// What a range found. It shares the machine's records, so it may be turned into an answer without the machine's lock.
#[derive(Debug)]
pub struct Found {
    records: Vec<Arc<Record>>,
    count: i64,
    revision: i64,
}

impl Machine {
    /// Reads keys as etcd does.
    ///
    /// # Errors
    /// The revision is gone or has not been.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, StoreError> {
        Ok(self.find(request)?.answer(request))
    }

    /// The part of [`Machine::range`] that needs the machine.
    ///
    /// # Errors
    /// The revision is gone or has not been.
    pub fn find(&self, request: &RangeRequest) -> Result<Found, StoreError> {
        self.find_at(request, self.revision)
    }

    /// `current` is the revision that is shown when none is asked for: within a transaction, its own.
    pub(super) fn find_at(&self, request: &RangeRequest, current: i64) -> Result<Found, StoreError> {
        self.check_range(request)?;
        let at = if request.revision <= 0 { current } else { request.revision };
        let range = KeyRange::new(&request.key, &request.range_end);
        let keep = if request.count_only {
            0
        } else if request.limit <= 0 || sorts_or_filters(request) {
            usize::MAX
        } else {
            // One more tells that there are more.
            usize::try_from(request.limit).unwrap_or(usize::MAX).saturating_add(1)
        };
        let (mut records, mut count) = (Vec::new(), 0);
        let found = self.index.range::<[u8], _>(range.bounds()).filter_map(|(_, history)| history.at(at));
        for record in found {
            count += 1;
            if records.len() < keep {
                records.push(record.clone());
            }
        }
        Ok(Found { records, count, revision: current })
    }

    /// Whether the revision asked for can be read.
    pub(super) fn check_range(&self, request: &RangeRequest) -> Result<(), StoreError> {
        if request.revision > self.revision {
            Err(StoreError::FutureRevision)
        } else if request.revision > 0 && request.revision < self.compacted {
            Err(StoreError::Compacted)
        } else {
            Ok(())
        }
    }

    /// Events in `range` from revision `from` on, whole revisions, until `events_max` records were looked at. Returns them with
    /// the revision to go on from.
    ///
    /// # Errors
    /// `from` is gone.
    pub fn history(
        &self,
        range: &KeyRange,
        from: i64,
        events_max: usize,
    ) -> Result<(Vec<Batch>, i64), StoreError> {
        if from < self.compacted {
            return Err(StoreError::Compacted);
        }
        let mut batches: Vec<Batch> = Vec::new();
        let (mut looked_at, mut last) = (0, from - 1);
        for (place, record) in self.records.range(Place { main: from, sub: 0 }..) {
            if place.main != last {
                if looked_at >= events_max {
                    return Ok((batches, place.main));
                }
                last = place.main;
            }
            looked_at += 1;
            if !range.contains(&record.kv.key) {
                continue;
            }
            let previous = self.index.get(&record.kv.key).and_then(|history| history.before(place.main));
            let event = Event::new(record.clone(), previous.cloned());
            match batches.last_mut() {
                Some(batch) if batch.revision == place.main => batch.events.push(event),
                _ => batches.push(Batch { revision: place.main, events: vec![event] }),
            }
        }
        Ok((batches, self.revision + 1))
    }
}

fn sorts_or_filters(request: &RangeRequest) -> bool {
    request.sort_order() != SortOrder::None
        || request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

fn passes(kv: &KeyValue, request: &RangeRequest) -> bool {
    let within = |number: i64, min: i64, max: i64| (min == 0 || number >= min) && (max == 0 || number <= max);
    within(kv.mod_revision, request.min_mod_revision, request.max_mod_revision)
        && within(kv.create_revision, request.min_create_revision, request.max_create_revision)
}

impl Found {
    /// The answer to the request that found this.
    #[must_use]
    pub fn answer(mut self, request: &RangeRequest) -> RangeResponse {
        self.records.retain(|record| passes(&record.kv, request));
        self.sort(request);
        let limit = usize::try_from(request.limit).unwrap_or(0);
        let more = limit > 0 && self.records.len() > limit;
        if more {
            self.records.truncate(limit);
        }
        let kv = |record: &Arc<Record>| {
            let mut kv = record.kv.clone();
            if request.keys_only {
                kv.value.clear();
            }
            kv
        };
        let kvs = self.records.iter().map(kv).collect();
        RangeResponse { header: header(self.revision), kvs, more, count: self.count }
    }

    fn sort(&mut self, request: &RangeRequest) {
        let (order, target) = (request.sort_order(), request.sort_target());
        // They come in the order of their keys, and a target without an order means ascending.
        if target == SortTarget::Key {
            if order == SortOrder::Descend {
                self.records.reverse();
            }
            return;
        }
        self.records.sort_by(|a, b| {
            let (a, b) = (&a.kv, &b.kv);
            let ascending = match target {
                SortTarget::Key => a.key.cmp(&b.key),
                SortTarget::Version => a.version.cmp(&b.version),
                SortTarget::Create => a.create_revision.cmp(&b.create_revision),
                SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
                SortTarget::Value => a.value.cmp(&b.value),
            };
            if order == SortOrder::Descend { ascending.reverse() } else { ascending }
        });
    }
}
