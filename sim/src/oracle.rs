//! What the store must say: the plain model of [`MemoryKv`], which keeps every event and computes the rest from them.

use coracle_etcd::memory::MemoryKv;
use coracle_etcd::proto::request_op::Request;
use coracle_etcd::proto::response_op::Response;
use coracle_etcd::proto::{DeleteRangeRequest, KeyValue, RangeRequest, RequestOp, TxnRequest};
use coracle_etcd::{Kv, KvError};
use futures::executor::block_on;
use std::collections::BTreeSet;
use store::command::Op;

/// The model.
#[derive(Default)]
pub struct Oracle {
    kv: MemoryKv,
    leases: BTreeSet<i64>,
    pub revision: i64,
    pub compacted: i64,
    /// Everything that ever happened: revision, key, and the new value, none for a deletion.
    pub events: Vec<Event>,
}

/// A change as a watcher is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub revision: i64,
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
}

impl Oracle {
    pub fn new() -> Self {
        Self { revision: 1, ..Self::default() }
    }

    /// Applies a committed command, as etcd would.
    pub fn apply(&mut self, op: &Op) -> Result<(), String> {
        match op {
            Op::Put(put) => self.txn(vec![Request::RequestPut(put.clone())]),
            Op::DeleteRange(delete) => self.txn(vec![Request::RequestDeleteRange(delete.clone())]),
            Op::Txn(txn) => self.whole_txn(txn),
            Op::LeaseGrant(grant) => {
                self.leases.insert(grant.id);
                Ok(())
            }
            Op::LeaseRevoke(revoke) if self.leases.remove(&revoke.id) => {
                let attached = self.live()?.into_iter().filter(|kv| kv.lease == revoke.id);
                let delete = |kv: KeyValue| {
                    Request::RequestDeleteRange(DeleteRangeRequest {
                        key: kv.key,
                        ..DeleteRangeRequest::default()
                    })
                };
                self.txn(attached.map(delete).collect())
            }
            Op::Compact(compact)
                if compact.revision > self.compacted && compact.revision <= self.revision =>
            {
                self.compacted = compact.revision;
                block_on(self.kv.compact(compact.revision)).map_err(|error| error.to_string())
            }
            Op::LeaseRevoke(_) | Op::Compact(_) | Op::Alarm(_) => Ok(()),
        }
    }

    fn txn(&mut self, requests: Vec<Request>) -> Result<(), String> {
        let success = requests.into_iter().map(|request| RequestOp { request: Some(request) }).collect();
        self.whole_txn(&TxnRequest { success, ..TxnRequest::default() })
    }

    fn whole_txn(&mut self, txn: &TxnRequest) -> Result<(), String> {
        let chosen = if self.holds(txn)? { &txn.success } else { &txn.failure };
        let needs_lease = |op: &RequestOp| match &op.request {
            Some(Request::RequestPut(put)) => put.lease != 0 && !self.leases.contains(&put.lease),
            _ => false,
        };
        // A put with a lease that is not there refuses the whole.
        if chosen.iter().any(needs_lease) {
            return Ok(());
        }
        let before = self.live()?;
        let answer = block_on(self.kv.txn(txn.clone())).map_err(|error| error.to_string())?;
        let revision = answer.header.map_or(self.revision, |header| header.revision);
        if revision > self.revision {
            self.revision = revision;
            self.note(chosen.clone(), &before);
        }
        Ok(())
    }

    /// Whether a transaction's comparisons hold, asked of the model by a transaction that changes nothing.
    fn holds(&self, txn: &TxnRequest) -> Result<bool, String> {
        let question = TxnRequest { compare: txn.compare.clone(), ..TxnRequest::default() };
        block_on(self.kv.txn(question)).map(|answer| answer.succeeded).map_err(|error| error.to_string())
    }

    /// Writes down what the operations changed, in their order.
    fn note(&mut self, ops: Vec<RequestOp>, before: &[KeyValue]) {
        let revision = self.revision;
        for request in ops.into_iter().filter_map(|op| op.request) {
            match request {
                Request::RequestPut(put) => {
                    self.events.push(Event {
                        revision,
                        key: put.key.to_vec(),
                        value: Some(put.value.to_vec()),
                    });
                }
                Request::RequestDeleteRange(delete) => {
                    let range = store::machine::KeyRange::new(&delete.key, &delete.range_end);
                    let gone = before.iter().filter(|kv| range.contains(&kv.key));
                    self.events.extend(gone.map(|kv| Event { revision, key: kv.key.to_vec(), value: None }));
                }
                Request::RequestRange(_) | Request::RequestTxn(_) => {}
            }
        }
    }

    fn live(&self) -> Result<Vec<KeyValue>, String> {
        let all = RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..RangeRequest::default() };
        self.range(&all).map_err(|error| error.to_string())
    }

    /// The keys of a range at a revision.
    pub fn range(&self, request: &RangeRequest) -> Result<Vec<KeyValue>, KvError> {
        let read = RequestOp { request: Some(Request::RequestRange(request.clone())) };
        let answer = block_on(self.kv.txn(TxnRequest { success: vec![read], ..TxnRequest::default() }))?;
        let found = answer.responses.into_iter().find_map(|op| match op.response {
            Some(Response::ResponseRange(found)) => Some(found.kvs),
            _ => None,
        });
        Ok(found.unwrap_or_default())
    }
}
