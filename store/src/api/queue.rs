//! Keys that stand in a queue, as etcd's locks and elections make them: `NAME/LEASE`, in the order of their creation. Whose key
//! is first has the lock, or leads; a key goes when its owner gives up, or when the owner's lease ends.

use super::Api;
use super::context::mismatch;
use crate::command::{Op, Outcome};
use crate::error::StoreError;
use crate::machine::KeyRange;
use crate::watch::{Outlet, WatcherId};
use bytes::Bytes;
use coracle_daemon::clock;
use coracle_etcd::proto::compare::{CompareResult, CompareTarget, TargetUnion};
use coracle_etcd::proto::range_request::{SortOrder, SortTarget};
use coracle_etcd::proto::request_op::Request;
use coracle_etcd::proto::response_op::Response;
use coracle_etcd::proto::{
    Compare, DeleteRangeRequest, KeyValue, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp,
    ResponseHeader, TxnRequest, TxnResponse,
};
use std::sync::Arc;
use std::time::Duration;
use tonic::Status;

/// Seconds of a lease that is granted to who brings none, as in etcd.
const LEASE_TTL: i64 = 60;

/// A key in a queue.
pub(super) struct Place {
    /// `NAME/LEASE`.
    pub key: Bytes,
    /// The lease that it goes with.
    pub lease: i64,
    /// The revision that made it.
    pub created: i64,
    /// Its value.
    pub value: Bytes,
    /// Of the answer that told.
    pub header: Option<ResponseHeader>,
}

/// All keys of a queue.
fn prefix(name: &[u8]) -> (Bytes, Bytes) {
    let from = [name, b"/"].concat();
    // The slash is followed by the zero.
    let end = [name, b"0"].concat();
    (from.into(), end.into())
}

/// The condition that a key was made by revision `created`; 0 that it is not there.
fn created_by(key: &Bytes, created: i64) -> Compare {
    Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Create as i32,
        key: key.clone(),
        target_union: Some(TargetUnion::CreateRevision(created)),
        ..Compare::default()
    }
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

/// Reads on what a watcher of one key or range is told; dropping it ends the watcher.
pub(super) struct Watched {
    api: Api,
    range: KeyRange,
    outlet: Arc<Outlet>,
    id: WatcherId,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.api.shared.hub().remove(self.id);
    }
}

impl Watched {
    pub fn new(api: &Api, range: KeyRange, from: i64) -> Self {
        let outlet = Arc::<Outlet>::default();
        let (id, _) = api.shared.hub().add(&outlet, range.clone(), from);
        Self { api: api.clone(), range, outlet, id }
    }

    /// The next states of keys: the new one, or that it is gone, with the revision.
    pub async fn next(&self) -> Result<Vec<(KeyValue, bool)>, StoreError> {
        let hub = self.api.shared.hub();
        loop {
            let Some((id, from)) = hub.next_unread(&self.outlet) else {
                tokio::select! {
                    () = self.outlet.woken() => continue,
                    () = self.api.stop.cancelled() => return Err(StoreError::Stopped),
                }
            };
            let pulled = hub.pull(id, &self.range, from, || self.api.shared.machine())?;
            let events = pulled.batches.iter().flat_map(|batch| &batch.events);
            let events = events.filter(|event| self.range.contains(event.key()));
            let states: Vec<_> =
                events.map(|event| (event.record.kv.clone(), event.record.tombstone)).collect();
            if !states.is_empty() {
                return Ok(states);
            }
        }
    }
}

/// Gives up a place in a queue unless it is kept.
pub(super) struct Waiting {
    api: Api,
    key: Bytes,
    keep: bool,
}

impl Waiting {
    fn new(api: &Api, key: Bytes) -> Self {
        Self { api: api.clone(), key, keep: false }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.keep || self.api.stop.is_cancelled() {
            return;
        }
        let (api, key) = (self.api.clone(), std::mem::take(&mut self.key));
        #[expect(clippy::disallowed_methods, reason = "one write, which ends by itself")]
        tokio::spawn(async move {
            // Where it fails the key goes with its lease.
            let _ = api.commit(Op::DeleteRange(DeleteRangeRequest { key, ..Default::default() })).await;
        });
    }
}

impl Api {
    async fn write_txn(&self, txn: TxnRequest) -> Result<TxnResponse, Status> {
        let Outcome::Txn(mut answer) = self.commit(Op::Txn(txn)).await? else { return Err(mismatch()) };
        answer.header = self.complete(answer.header);
        Ok(answer)
    }

    /// Stands in the queue `name` with `value`, or finds the key that the lease has there already.
    pub(super) async fn stand(&self, name: &[u8], lease: i64, value: Bytes) -> Result<Place, Status> {
        if name.is_empty() {
            return Err(StoreError::EmptyKey.into());
        }
        let lease = match lease {
            0 => self.grant(LeaseGrantRequest { ttl: LEASE_TTL, id: 0 }).await?.id,
            lease => lease,
        };
        let key = Bytes::from([name, format!("/{lease:x}").as_bytes()].concat());
        let put = PutRequest { key: key.clone(), value: value.clone(), lease, ..PutRequest::default() };
        let get = RangeRequest { key: key.clone(), ..RangeRequest::default() };
        let answer = self
            .write_txn(TxnRequest {
                compare: vec![created_by(&key, 0)],
                success: vec![op(Request::RequestPut(put))],
                failure: vec![op(Request::RequestRange(get))],
            })
            .await?;
        let header = answer.header;
        if answer.succeeded {
            let created = header.map_or(0, |header| header.revision);
            return Ok(Place { key, lease, created, value, header });
        }
        let found = answer.responses.into_iter().next().and_then(|answer| answer.response);
        let Some(Response::ResponseRange(found)) = found else { return Err(mismatch()) };
        let kv = found.kvs.into_iter().next().ok_or_else(mismatch)?;
        Ok(Place { key, lease, created: kv.create_revision, value: kv.value, header })
    }

    /// Waits until nobody stands before `place`; its lease is prolonged meanwhile. Who goes away before gives up the place.
    pub(super) async fn wait_turn(
        &self,
        name: &[u8],
        place: &Place,
    ) -> Result<Option<ResponseHeader>, Status> {
        let mut waiting = Waiting::new(self, place.key.clone());
        tokio::select! {
            passed = self.nobody_before(name, place.created - 1) => passed?,
            lost = self.prolong(place.lease) => return Err(lost.into()),
        }
        // The lease may have ended, and the key with it, in the last moment.
        self.barrier().await?;
        let (there, header) = {
            let machine = self.shared.machine();
            let get = RangeRequest { key: place.key.clone(), count_only: true, ..RangeRequest::default() };
            (machine.find(&get)?.answer(&get).count > 0, self.header_at(machine.revision()))
        };
        if !there {
            return Err(Status::unknown("mutex: session is expired"));
        }
        waiting.keep = true;
        Ok(header)
    }

    /// Waits until all keys of the queue that revision `last` or one before made are gone.
    async fn nobody_before(&self, name: &[u8], last: i64) -> Result<(), StoreError> {
        let (key, range_end) = prefix(name);
        loop {
            self.barrier().await?;
            let newest = RangeRequest {
                key: key.clone(),
                range_end: range_end.clone(),
                limit: 1,
                sort_order: SortOrder::Descend as i32,
                sort_target: SortTarget::Create as i32,
                max_create_revision: last,
                ..RangeRequest::default()
            };
            let (found, revision) = {
                let machine = self.shared.machine();
                // No bound stands for any revision.
                let found = if last <= 0 { None } else { machine.find(&newest)?.answer(&newest).kvs.pop() };
                (found, machine.revision())
            };
            let Some(before) = found else { return Ok(()) };
            let range = KeyRange { from: before.key, end: Bytes::new() };
            let watched = Watched::new(self, range, revision + 1);
            while !watched.next().await?.iter().any(|(_, gone)| *gone) {}
        }
    }

    /// Prolongs a lease until that fails.
    async fn prolong(&self, lease: i64) -> StoreError {
        loop {
            match self.consensus.renew_lease(lease).await {
                Ok(ttl) => {
                    let third = Duration::from_secs(u64::try_from(ttl).unwrap_or(1).max(1)) / 3;
                    tokio::select! {
                        () = clock::sleep(third) => {}
                        () = self.stop.cancelled() => return StoreError::Stopped,
                    }
                }
                Err(error) => return error,
            }
        }
    }

    /// The key that is first in a queue.
    pub(super) async fn first(
        &self,
        name: &[u8],
    ) -> Result<(Option<KeyValue>, Option<ResponseHeader>), Status> {
        if name.is_empty() {
            return Err(StoreError::EmptyKey.into());
        }
        self.barrier().await?;
        let (key, range_end) = prefix(name);
        let oldest = RangeRequest {
            key,
            range_end,
            limit: 1,
            sort_order: SortOrder::Ascend as i32,
            sort_target: SortTarget::Create as i32,
            ..RangeRequest::default()
        };
        let machine = self.shared.machine();
        let found = machine.find(&oldest)?.answer(&oldest).kvs.pop();
        Ok((found, self.header_at(machine.revision())))
    }

    /// Does `request` if the key was made by revision `created`. Tells whether it was.
    pub(super) async fn if_created_by(
        &self,
        key: &Bytes,
        created: i64,
        request: Request,
    ) -> Result<(bool, Option<ResponseHeader>), Status> {
        if key.is_empty() {
            return Err(StoreError::EmptyKey.into());
        }
        let success = vec![op(request)];
        let compare = vec![created_by(key, created)];
        let answer = self.write_txn(TxnRequest { compare, success, failure: Vec::new() }).await?;
        Ok((answer.succeeded, answer.header))
    }

    /// The watcher of a whole queue, from revision `from` on.
    pub(super) fn watch_queue(&self, name: &[u8], from: i64) -> Watched {
        let (from_key, end) = prefix(name);
        Watched::new(self, KeyRange { from: from_key, end }, from)
    }
}
