//! Compare-and-swap on one key, with other keys written or freed in the same transaction.
//!
//! Invariant: each call has at most one effect. Where the store's answer was lost, a change is sent once more: no key is at
//! the same revision twice, so that one of both has no effect. What must not exist may come and go, and come again by the
//! first that was late: such a key is only read back.

use super::entry::{Entry, stored};
use super::{Resource, Store, unreachable};
use bytes::Bytes;
use coracle_api::status::Status;
use coracle_etcd::KvError;
use coracle_etcd::proto::compare::{CompareResult, CompareTarget, TargetUnion};
use coracle_etcd::proto::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, request_op, response_op,
};
use serde_json::Value;
use std::sync::Arc;

/// Keys beside the object's own that a write claims or frees.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    /// Keys that must not exist, and then do, with these values.
    pub claim: Vec<(Bytes, Bytes)>,
    /// Keys that go.
    pub free: Vec<Bytes>,
}

/// How a write went.
#[derive(Debug)]
pub enum Written {
    /// Done: the object as it is now (for a removal: was, with the revision of the deletion).
    Done(Arc<Entry>),
    /// Not done: the key is not at the expected revision but like this.
    Moved(Option<Arc<Entry>>),
    /// Not done: a key to claim is taken.
    Taken,
}

/// One write of one key.
struct Write<'a> {
    tail: &'a str,
    key: Bytes,
    /// The revision that the key must have; 0: it must not exist.
    expected: u64,
    /// `None` removes.
    raw: Option<Bytes>,
    lease: i64,
}

impl Store {
    /// Claims a key for an object that is as it was read; nothing where somebody has the key, or changed the object.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub async fn claim(&self, of: (Bytes, u64), key: Bytes, value: Bytes) -> Result<(), Status> {
        let (object, revision) = (of.0, i64::try_from(of.1).unwrap_or(i64::MAX));
        let request = TxnRequest {
            compare: vec![at_revision(object, revision), at_revision(key.clone(), 0)],
            success: vec![put(key, value, 0)],
            failure: Vec::new(),
        };
        self.kv.txn(request).await.map(|_| ()).map_err(|error| unreachable(&error))
    }

    /// Writes a new object.
    ///
    /// # Errors
    /// The store failed, or may have.
    pub async fn create(
        &self,
        resource: &Resource,
        tail: &str,
        object: Value,
        lease: i64,
        beside: &Beside,
    ) -> Result<Written, Status> {
        self.put(resource, tail, 0, object, lease, beside).await
    }

    /// Replaces the object of revision `expected`.
    ///
    /// # Errors
    /// The store failed, or may have.
    pub async fn replace(
        &self,
        resource: &Resource,
        current: &Entry,
        object: Value,
        lease: i64,
        beside: &Beside,
    ) -> Result<Written, Status> {
        self.put(resource, &current.tail, current.revision, object, lease, beside).await
    }

    async fn put(
        &self,
        resource: &Resource,
        tail: &str,
        expected: u64,
        object: Value,
        lease: i64,
        beside: &Beside,
    ) -> Result<Written, Status> {
        let raw = Bytes::from(stored(&object));
        let write = Write {
            tail,
            key: Bytes::from(format!("{}{tail}", resource.prefix)),
            expected,
            raw: Some(raw.clone()),
            lease,
        };
        let done = |revision| Written::Done(Arc::new(Entry::new(tail, revision, raw).with_value(object)));
        match self.swap_surely(&write, beside).await? {
            Swapped::At(revision) => Ok(done(revision)),
            Swapped::Not(current) => Ok(refused(current, expected)),
        }
    }

    /// Removes the object of `current`'s revision.
    ///
    /// # Errors
    /// The store failed, or may have.
    pub async fn remove(
        &self,
        resource: &Resource,
        current: &Entry,
        beside: &Beside,
    ) -> Result<Written, Status> {
        let write = Write {
            tail: &current.tail,
            key: Bytes::from(format!("{}{}", resource.prefix, current.tail)),
            expected: current.revision,
            raw: None,
            lease: 0,
        };
        match self.swap_surely(&write, beside).await? {
            Swapped::At(revision) => Ok(Written::Done(Arc::new(current.at(revision)))),
            Swapped::Not(found) => Ok(refused(found, current.revision)),
        }
    }

    /// Swaps, and finds out what came of it should the answer be lost.
    async fn swap_surely(&self, write: &Write<'_>, beside: &Beside) -> Result<Swapped, Status> {
        let lost = match self.swap(write, beside).await {
            Err(error @ KvError::Unknown(_)) => unreachable(&error),
            swapped => return swapped.map_err(|error| unreachable(&error)),
        };
        let found = if write.expected == 0 {
            self.read_back(write).await.map(Arc::new)
        } else {
            match self.swap(write, beside).await {
                Ok(Swapped::Not(found)) => found,
                done => return done.map_err(|_| lost),
            }
        };
        match found {
            Some(entry) if Some(entry.raw()) == write.raw.as_ref() => Ok(Swapped::At(entry.revision)),
            Some(entry) if write.expected > 0 && entry.revision == write.expected => {
                Ok(Swapped::Not(Some(entry)))
            }
            // Done and changed by another since, or not done and changed by another before.
            _ => Err(lost),
        }
    }

    /// The key after a lost answer; `None` also when it cannot be read.
    async fn read_back(&self, write: &Write<'_>) -> Option<Entry> {
        let request = RangeRequest { key: write.key.clone(), ..RangeRequest::default() };
        let kv = self.kv().range(request).await.ok()?.kvs.into_iter().next()?;
        Some(Entry::new(write.tail, u64::try_from(kv.mod_revision).ok()?, kv.value))
    }

    async fn swap(&self, write: &Write<'_>, beside: &Beside) -> Result<Swapped, KvError> {
        let expected = i64::try_from(write.expected).unwrap_or(i64::MAX);
        let mut compare = vec![at_revision(write.key.clone(), expected)];
        compare.extend(beside.claim.iter().map(|(key, _)| at_revision(key.clone(), 0)));
        let own = match &write.raw {
            Some(raw) => put(write.key.clone(), raw.clone(), write.lease),
            None => delete(write.key.clone()),
        };
        let mut success = vec![own];
        success.extend(beside.claim.iter().map(|(key, value)| put(key.clone(), value.clone(), 0)));
        success.extend(beside.free.iter().map(|key| delete(key.clone())));
        let look = RangeRequest { key: write.key.clone(), ..RangeRequest::default() };
        let failure = vec![RequestOp { request: Some(request_op::Request::RequestRange(look)) }];
        let answer = self.kv().txn(TxnRequest { compare, success, failure }).await?;
        if answer.succeeded {
            let revision = answer.header.map_or(0, |header| header.revision);
            return Ok(Swapped::At(u64::try_from(revision).unwrap_or(0)));
        }
        let found = answer.responses.into_iter().find_map(|response| match response.response {
            Some(response_op::Response::ResponseRange(range)) => range.kvs.into_iter().next(),
            _ => None,
        });
        Ok(Swapped::Not(found.map(|kv| {
            let revision = u64::try_from(kv.mod_revision).unwrap_or(0);
            Arc::new(Entry::new(write.tail, revision, kv.value))
        })))
    }
}

enum Swapped {
    At(u64),
    Not(Option<Arc<Entry>>),
}

/// Of a transaction that did nothing: either the object has moved, or only a claimed key was taken.
fn refused(found: Option<Arc<Entry>>, expected: u64) -> Written {
    if found.as_ref().map_or(0, |entry| entry.revision) == expected {
        Written::Taken
    } else {
        Written::Moved(found)
    }
}

fn at_revision(key: Bytes, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Mod as i32,
        key,
        target_union: Some(TargetUnion::ModRevision(revision)),
        range_end: Bytes::new(),
    }
}

fn put(key: Bytes, value: Bytes, lease: i64) -> RequestOp {
    let put = PutRequest { key, value, lease, ..PutRequest::default() };
    RequestOp { request: Some(request_op::Request::RequestPut(put)) }
}

fn delete(key: Bytes) -> RequestOp {
    let delete = DeleteRangeRequest { key, ..DeleteRangeRequest::default() };
    RequestOp { request: Some(request_op::Request::RequestDeleteRange(delete)) }
}
