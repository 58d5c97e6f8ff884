//! Commands, one at a time: checked first, then done, so that a refused one changes nothing.

use super::record::own;
use super::{Batch, Change, Event, KeyRange, Machine, Record};
use crate::command::{Command, Op, Outcome};
use crate::error::StoreError;
use coracle_etcd::proto::alarm_request::AlarmAction;
use coracle_etcd::proto::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DeleteRangeRequest, DeleteRangeResponse, KeyValue,
    PutRequest, PutResponse, ResponseHeader,
};
use std::sync::Arc;

/// A header with what the machine knows.
#[expect(clippy::unnecessary_wraps, reason = "messages hold optional headers")]
pub(super) fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}

impl Machine {
    /// Applies one committed command.
    ///
    /// # Errors
    /// What etcd refuses; nothing has changed then.
    pub fn apply(&mut self, command: &Command) -> Result<Outcome, StoreError> {
        self.admit(&command.op)?;
        match &command.op {
            Op::Put(put) => {
                self.check_put(put)?;
                let mut answer = self.put(put);
                self.finish();
                answer.header = header(self.revision);
                Ok(Outcome::Put(answer))
            }
            Op::DeleteRange(delete) => {
                let mut answer = self.delete_range(delete);
                self.finish();
                answer.header = header(self.revision);
                Ok(Outcome::DeleteRange(answer))
            }
            Op::Txn(txn) => self.txn(txn).map(Outcome::Txn),
            Op::Compact(compact) => self.compact(compact.revision).map(Outcome::Compact),
            Op::LeaseGrant(grant) => self.grant(grant.id, grant.ttl).map(Outcome::LeaseGrant),
            Op::LeaseRevoke(revoke) => self.revoke(revoke.id).map(Outcome::LeaseRevoke),
            Op::Alarm(alarm) => Ok(Outcome::Alarm(self.alarm(alarm))),
        }
    }

    /// Refuses what alarms forbid: all but alarms when corrupt, all that grows the store when it is full.
    fn admit(&self, op: &Op) -> Result<(), StoreError> {
        if self.alarms.is_empty() || matches!(op, Op::Alarm(_)) {
            return Ok(());
        }
        if self.has_alarm(AlarmType::Corrupt) {
            return Err(StoreError::Corrupt);
        }
        let grows = match op {
            Op::Put(_) | Op::LeaseGrant(_) => true,
            Op::Txn(txn) => super::txn::has_puts(txn),
            Op::DeleteRange(_) | Op::Compact(_) | Op::LeaseRevoke(_) | Op::Alarm(_) => false,
        };
        if grows && self.has_alarm(AlarmType::Nospace) { Err(StoreError::NoSpace) } else { Ok(()) }
    }

    pub(super) fn check_put(&self, put: &PutRequest) -> Result<(), StoreError> {
        if put.lease != 0 && !self.leases.contains_key(&put.lease) {
            return Err(StoreError::LeaseNotFound);
        }
        if (put.ignore_value || put.ignore_lease) && self.live(&put.key).is_none() {
            return Err(StoreError::KeyNotFound);
        }
        Ok(())
    }

    /// The key's state now, this transaction's changes included.
    fn live(&self, key: &[u8]) -> Option<&Arc<Record>> {
        self.index.get(key)?.records.last().filter(|record| !record.tombstone)
    }

    /// Puts a key whose request was checked.
    pub(super) fn put(&mut self, put: &PutRequest) -> PutResponse {
        let previous = self.live(&put.key).cloned();
        let old = previous.as_ref().map(|record| &record.kv);
        let mod_revision = self.revision + 1;
        let kv = KeyValue {
            key: old.map_or_else(|| own(&put.key), |old| old.key.clone()),
            create_revision: old.map_or(mod_revision, |old| old.create_revision),
            mod_revision,
            version: old.map_or(1, |old| old.version + 1),
            value: old
                .filter(|_| put.ignore_value)
                .map_or_else(|| put.value.clone(), |old| old.value.clone()),
            lease: old.filter(|_| put.ignore_lease).map_or(put.lease, |old| old.lease),
        };
        let old_lease = old.map_or(0, |old| old.lease);
        if old_lease != kv.lease {
            self.detach(old_lease, &kv.key);
            self.attach(kv.lease, &kv.key);
        }
        let prev_kv = old.filter(|_| put.prev_kv).cloned();
        self.change(Record { kv, sub: 0, tombstone: false }, previous);
        PutResponse { header: None, prev_kv }
    }

    /// Deletes all keys of a range.
    pub(super) fn delete_range(&mut self, delete: &DeleteRangeRequest) -> DeleteRangeResponse {
        let range = KeyRange::new(&delete.key, &delete.range_end);
        let gone: Vec<Arc<Record>> = self
            .index
            .range::<[u8], _>(range.bounds())
            .filter_map(|(_, history)| history.records.last().filter(|record| !record.tombstone))
            .cloned()
            .collect();
        let deleted = i64::try_from(gone.len()).unwrap_or(i64::MAX);
        let prev_kvs =
            if delete.prev_kv { gone.iter().map(|record| record.kv.clone()).collect() } else { Vec::new() };
        for record in gone {
            self.delete(record);
        }
        DeleteRangeResponse { header: None, deleted, prev_kvs }
    }

    /// Deletes a key, whose state is `record`.
    pub(super) fn delete(&mut self, record: Arc<Record>) {
        self.detach(record.kv.lease, &record.kv.key);
        let kv =
            KeyValue { key: record.kv.key.clone(), mod_revision: self.revision + 1, ..KeyValue::default() };
        self.change(Record { kv, sub: 0, tombstone: true }, Some(record));
    }

    /// Takes one change of the transaction that is being applied.
    fn change(&mut self, mut record: Record, previous: Option<Arc<Record>>) {
        record.sub = u32::try_from(self.events.len()).unwrap_or(u32::MAX);
        let record = Arc::new(record);
        self.keep(record.clone());
        self.effects.changes.push(Change::Record(record.clone()));
        self.events.push(Event::new(record, previous));
    }

    /// Adds a record to all indexes; its place is behind all others'.
    pub(super) fn keep(&mut self, record: Arc<Record>) {
        let place = record.place();
        self.size += record.size();
        if record.tombstone {
            self.tombstones.push_back(place);
        }
        self.records.insert(place, record.clone());
        let history = self.index.entry(record.kv.key.clone()).or_default();
        if let Some(last) = history.records.last() {
            self.superseded.push_back((place.main, last.place()));
        }
        history.records.push(record);
    }

    /// Ends a transaction: what it changed becomes the next revision.
    pub(super) fn finish(&mut self) {
        if self.events.is_empty() {
            return;
        }
        self.revision += 1;
        let events = std::mem::take(&mut self.events);
        self.effects.batches.push(Arc::new(Batch { revision: self.revision, events }));
    }

    fn alarm(&mut self, request: &AlarmRequest) -> AlarmResponse {
        let alarm = request.alarm();
        let member = AlarmMember { member_id: request.member_id, alarm: request.alarm };
        let raised = (request.member_id, request.alarm);
        let alarms = match request.action() {
            AlarmAction::Get => self
                .alarms
                .iter()
                .filter(|(_, raised)| alarm == AlarmType::None || *raised == request.alarm)
                .map(|(member_id, alarm)| AlarmMember { member_id: *member_id, alarm: *alarm })
                .collect(),
            AlarmAction::Activate if alarm == AlarmType::None => Vec::new(),
            AlarmAction::Activate => {
                if self.alarms.insert(raised) {
                    self.effects.changes.push(Change::Alarm { member: raised.0, alarm: raised.1 });
                }
                vec![member]
            }
            AlarmAction::Deactivate => {
                if self.alarms.remove(&raised) {
                    self.effects.changes.push(Change::AlarmGone { member: raised.0, alarm: raised.1 });
                    vec![member]
                } else {
                    Vec::new()
                }
            }
        };
        AlarmResponse { header: header(self.revision), alarms }
    }
}
