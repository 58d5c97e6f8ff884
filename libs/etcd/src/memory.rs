//! A store in memory, for tests of whoever uses [`Kv`]: revisions, transactions, watches and compaction, but no leases' expiry.

use crate::error::KvError;
use crate::kv::Kv;
use crate::proto::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::proto::{
    Compare, DeleteRangeResponse, Event, EventType, KeyValue, PutResponse, RangeRequest, RangeResponse,
    RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse, request_op, response_op,
};
use crate::watch::{BATCHES_WAITING, WatchBatch, WatchStream};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, watch};

/// The store; clones share it.
#[derive(Clone)]
pub struct MemoryKv {
    state: Arc<Mutex<State>>,
    revisions: Arc<watch::Sender<i64>>,
}

#[derive(Default)]
struct State {
    revision: i64,
    compacted: i64,
    leases: i64,
    /// All events since the beginning, in order.
    history: Vec<Event>,
}

impl Default for MemoryKv {
    fn default() -> Self {
        Self {
            state: Arc::new(Mutex::new(State { revision: 1, ..State::default() })),
            revisions: Arc::new(watch::Sender::new(1)),
        }
    }
}

fn inside(key: &[u8], from: &[u8], end: &[u8]) -> bool {
    match end {
        [] => key == from,
        [0] => key >= from,
        end => key >= from && key < end,
    }
}

impl State {
    fn header(&self) -> Option<ResponseHeader> {
        Some(ResponseHeader { revision: self.revision, ..ResponseHeader::default() })
    }

    /// The keys of a range as of `revision` (0: now), by key.
    fn at(&self, from: &[u8], end: &[u8], revision: i64) -> BTreeMap<Bytes, KeyValue> {
        let mut live = BTreeMap::new();
        for event in &self.history {
            let Some(kv) = event
                .kv
                .as_ref()
                .filter(|kv| inside(&kv.key, from, end) && (revision == 0 || kv.mod_revision <= revision))
            else {
                continue;
            };
            match event.r#type() {
                EventType::Put => live.insert(kv.key.clone(), kv.clone()),
                EventType::Delete => live.remove(&kv.key),
            };
        }
        live
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, KvError> {
        if request.revision > self.revision {
            return Err(KvError::FutureRevision);
        }
        if request.revision > 0 && request.revision < self.compacted {
            return Err(KvError::Compacted { compact_revision: self.compacted });
        }
        let mut kvs: Vec<KeyValue> =
            self.at(&request.key, &request.range_end, request.revision).into_values().collect();
        let count = i64::try_from(kvs.len()).unwrap_or(i64::MAX);
        let limit = usize::try_from(request.limit).unwrap_or(0);
        let more = limit > 0 && kvs.len() > limit;
        if more {
            kvs.truncate(limit);
        }
        if request.count_only {
            kvs.clear();
        }
        Ok(RangeResponse { header: self.header(), kvs, more, count })
    }

    fn holds(&self, compare: &Compare) -> bool {
        let found = self.at(&compare.key, &[], 0).into_values().next();
        // A key that is not there has no value to compare, not even an empty one.
        if found.is_none() && compare.target() == CompareTarget::Value {
            return false;
        }
        let found = found.unwrap_or_default();
        let order = match (compare.target(), &compare.target_union) {
            (CompareTarget::Version, Some(TargetUnion::Version(wanted))) => found.version.cmp(wanted),
            (CompareTarget::Create, Some(TargetUnion::CreateRevision(wanted))) => {
                found.create_revision.cmp(wanted)
            }
            (CompareTarget::Mod, Some(TargetUnion::ModRevision(wanted))) => found.mod_revision.cmp(wanted),
            (CompareTarget::Value, Some(TargetUnion::Value(wanted))) => found.value.cmp(wanted),
            (CompareTarget::Lease, Some(TargetUnion::Lease(wanted))) => found.lease.cmp(wanted),
            _ => found.mod_revision.cmp(&0),
        };
        match compare.result() {
            CompareResult::Equal => order.is_eq(),
            CompareResult::Greater => order.is_gt(),
            CompareResult::Less => order.is_lt(),
            CompareResult::NotEqual => order.is_ne(),
        }
    }

    fn run(&mut self, ops: &[RequestOp], revision: i64) -> Result<Vec<ResponseOp>, KvError> {
        let mut answers = Vec::new();
        for op in ops {
            let answer = match &op.request {
                Some(request_op::Request::RequestRange(range)) => {
                    response_op::Response::ResponseRange(self.range(range)?)
                }
                Some(request_op::Request::RequestPut(put)) => {
                    let old = self.at(&put.key, &[], 0).into_values().next();
                    let kv = KeyValue {
                        key: put.key.clone(),
                        create_revision: old.as_ref().map_or(revision, |old| old.create_revision),
                        mod_revision: revision,
                        version: old.as_ref().map_or(1, |old| old.version + 1),
                        value: put.value.clone(),
                        lease: put.lease,
                    };
                    self.history.push(Event {
                        r#type: EventType::Put as i32,
                        kv: Some(kv),
                        prev_kv: old.clone(),
                    });
                    response_op::Response::ResponsePut(PutResponse {
                        header: None,
                        prev_kv: old.filter(|_| put.prev_kv),
                    })
                }
                Some(request_op::Request::RequestDeleteRange(delete)) => {
                    let gone: Vec<KeyValue> =
                        self.at(&delete.key, &delete.range_end, 0).into_values().collect();
                    for old in &gone {
                        let kv =
                            KeyValue { key: old.key.clone(), mod_revision: revision, ..KeyValue::default() };
                        self.history.push(Event {
                            r#type: EventType::Delete as i32,
                            kv: Some(kv),
                            prev_kv: Some(old.clone()),
                        });
                    }
                    let deleted = i64::try_from(gone.len()).unwrap_or(i64::MAX);
                    response_op::Response::ResponseDeleteRange(DeleteRangeResponse {
                        header: None,
                        deleted,
                        prev_kvs: if delete.prev_kv { gone } else { Vec::new() },
                    })
                }
                Some(request_op::Request::RequestTxn(txn)) => {
                    response_op::Response::ResponseTxn(self.txn(txn, revision)?)
                }
                None => continue,
            };
            answers.push(ResponseOp { response: Some(answer) });
        }
        Ok(answers)
    }

    fn txn(&mut self, txn: &TxnRequest, revision: i64) -> Result<TxnResponse, KvError> {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        let responses = self.run(if succeeded { &txn.success } else { &txn.failure }, revision)?;
        Ok(TxnResponse { header: None, succeeded, responses })
    }
}

impl MemoryKv {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held fails its own test.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait::async_trait]
impl Kv for MemoryKv {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, KvError> {
        self.lock().range(&request)
    }

    async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, KvError> {
        let mut state = self.lock();
        let (events, revision) = (state.history.len(), state.revision + 1);
        let mut answer = state.txn(&request, revision)?;
        if state.history.len() > events {
            state.revision = revision;
            self.revisions.send_replace(revision);
        }
        answer.header = state.header();
        Ok(answer)
    }

    async fn compact(&self, revision: i64) -> Result<(), KvError> {
        let mut state = self.lock();
        if revision > state.revision {
            return Err(KvError::FutureRevision);
        }
        state.compacted = state.compacted.max(revision);
        Ok(())
    }

    async fn lease_grant(&self, _ttl_seconds: i64) -> Result<i64, KvError> {
        let mut state = self.lock();
        state.leases += 1;
        Ok(state.leases)
    }

    async fn lease_keep_alive(&self, _lease: i64) -> Result<i64, KvError> {
        Ok(1)
    }

    async fn watch(
        &self,
        key: Bytes,
        range_end: Bytes,
        start_revision: i64,
        prev_kv: bool,
    ) -> Result<WatchStream, KvError> {
        let (batches, out) = mpsc::channel(BATCHES_WAITING);
        let (progress, mut asked) = mpsc::channel(1);
        let kv = self.clone();
        let mut revisions = self.revisions.subscribe();
        let mut owed = false;
        let mut next = if start_revision == 0 { self.lock().revision + 1 } else { start_revision };
        #[expect(
            clippy::disallowed_methods,
            reason = "a protocol library owns this task: it ends with its reader"
        )]
        tokio::spawn(async move {
            loop {
                let (told, revision) = {
                    let state = kv.lock();
                    if next < state.compacted {
                        (Some(Err(KvError::Compacted { compact_revision: state.compacted })), state.revision)
                    } else {
                        let wanted = |event: &&Event| {
                            event.kv.as_ref().is_some_and(|kv| {
                                kv.mod_revision >= next && inside(&kv.key, &key, &range_end)
                            })
                        };
                        let mut events: Vec<Event> = state.history.iter().filter(wanted).cloned().collect();
                        if !prev_kv {
                            events.iter_mut().for_each(|event| event.prev_kv = None);
                        }
                        let batch = (!events.is_empty())
                            .then_some(Ok(WatchBatch::Events { revision: state.revision, events }));
                        (batch, state.revision)
                    }
                };
                next = next.max(revision + 1);
                if let Some(told) = told {
                    let over = told.is_err();
                    if batches.send(told).await.is_err() || over {
                        return;
                    }
                }
                // Owed progress is told after the events up to it.
                if std::mem::take(&mut owed)
                    && batches.send(Ok(WatchBatch::Progress { revision })).await.is_err()
                {
                    return;
                }
                tokio::select! {
                    changed = revisions.changed() => if changed.is_err() { return },
                    Some(()) = asked.recv() => owed = true,
                    () = batches.closed() => return,
                }
            }
        });
        Ok(WatchStream::new(out, progress))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::PutRequest;

    fn put(key: &'static str, value: &'static str) -> TxnRequest {
        let put = PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() };
        TxnRequest {
            success: vec![RequestOp { request: Some(request_op::Request::RequestPut(put)) }],
            ..TxnRequest::default()
        }
    }

    #[tokio::test]
    async fn no_comparison_with_a_missing_keys_value_holds_but_its_version_is_0() {
        let kv = MemoryKv::default();
        let holds = async |target: CompareTarget, union: TargetUnion, result: CompareResult| {
            let compare = Compare {
                result: result as i32,
                target: target as i32,
                key: "/none".into(),
                target_union: Some(union),
                ..Compare::default()
            };
            let asked = TxnRequest { compare: vec![compare], ..TxnRequest::default() };
            kv.txn(asked).await.expect("txn").succeeded
        };
        for result in [CompareResult::Equal, CompareResult::NotEqual, CompareResult::Less] {
            assert!(!holds(CompareTarget::Value, TargetUnion::Value("".into()), result).await);
        }
        assert!(holds(CompareTarget::Version, TargetUnion::Version(0), CompareResult::Equal).await);
    }

    #[tokio::test]
    async fn a_watch_from_the_past_sees_every_revision_once_and_then_goes_on() {
        let kv = MemoryKv::default();
        kv.txn(put("/a/1", "x")).await.expect("put");
        let mut watch = kv.watch("/a/".into(), "/a0".into(), 2, false).await.expect("watch");
        let Ok(WatchBatch::Events { revision: 2, events }) = watch.next().await else {
            panic!("the past first")
        };
        assert_eq!(events.len(), 1);
        kv.txn(put("/a/2", "y")).await.expect("put");
        let Ok(WatchBatch::Events { revision: 3, events }) = watch.next().await else {
            panic!("then the present")
        };
        assert_eq!(events[0].kv.as_ref().map(|kv| kv.key.clone()), Some("/a/2".into()));
        watch.request_progress();
        assert_eq!(watch.next().await, Ok(WatchBatch::Progress { revision: 3 }));
    }
}
