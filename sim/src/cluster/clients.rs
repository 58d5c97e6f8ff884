//! The clients of a member, which live and die with it: some read and write few keys, one holds leases, one watches all.

use super::history::{Asked, History, Told, Value};
use crate::dice::Dice;
use bytes::Bytes;
use coracle_daemon::clock;
use coracle_etcd::proto::compare::{CompareResult, CompareTarget, TargetUnion};
use coracle_etcd::proto::request_op::Request;
use coracle_etcd::proto::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest,
    RangeResponse, RequestOp, ResponseHeader, TxnRequest,
};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use store::command::{Op, Outcome};
use store::consensus::Consensus;
use store::error::StoreError;
use store::machine::KeyRange;
use store::raft::Node;
use store::shared::Shared;
use store::watch::Outlet;

const KEYS: u64 = 5;
const PAUSE_MAX_MILLIS: u64 = 60;
pub const LEASE_SECONDS: i64 = 2;

/// A lease that somebody held.
#[derive(Clone, Debug)]
pub struct Held {
    pub id: i64,
    /// When the last request began that gave it its full time and was answered: the world's milliseconds.
    pub since: u64,
    /// Whether its key was put.
    pub put: bool,
    /// Whether its holder may have ended it.
    pub revoked: bool,
}

/// What clients of all members write down.
#[derive(Default)]
pub struct Notes {
    pub history: History,
    pub leases: Vec<Held>,
    /// Clients ask for no more.
    pub quiet: bool,
    /// When a client of each member was last answered.
    pub answered: BTreeMap<usize, u64>,
    last_value: Value,
    last_lease: i64,
}

/// A member and what its clients need besides.
#[derive(Clone)]
pub struct Client {
    pub node: Arc<Node>,
    pub shared: Arc<Shared>,
    pub notes: Arc<Mutex<Notes>>,
    /// The world's milliseconds.
    pub now: Arc<AtomicU64>,
    /// The member's number, and its own.
    pub host: usize,
    pub number: usize,
}

/// The key that a lease of a holder holds.
pub fn lease_key(id: i64) -> String {
    format!("/lease/{id}")
}

/// A value as it is stored.
pub fn value(bytes: &[u8]) -> Option<Value> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

fn bytes(value: Value) -> Bytes {
    // Long enough for several sectors now and then.
    let width = if value.is_multiple_of(7) { 900 } else { 20 };
    format!("{value:0width$}").into()
}

fn revision(header: Option<&ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

fn put(key: &str, value: Value) -> PutRequest {
    PutRequest { key: key.to_owned().into(), value: bytes(value), ..PutRequest::default() }
}

/// What is asked, as a request: a read.
pub fn get(key: &str) -> RangeRequest {
    RangeRequest { key: key.to_owned().into(), ..RangeRequest::default() }
}

/// What a read told.
pub fn told_range(found: &RangeResponse) -> Told {
    Told::Value(found.kvs.first().and_then(|kv| value(&kv.value)), revision(found.header.as_ref()))
}

/// What is asked, as a request: a change; `None` for a read.
pub fn change(key: &str, asked: Asked) -> Option<Op> {
    Some(match asked {
        Asked::Get => return None,
        Asked::Put(value) => Op::Put(put(key, value)),
        Asked::Delete => {
            Op::DeleteRange(DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() })
        }
        Asked::Swap(from, to) => {
            let (target, union) = match from {
                Some(value) => (CompareTarget::Value, TargetUnion::Value(bytes(value))),
                None => (CompareTarget::Create, TargetUnion::CreateRevision(0)),
            };
            let compare = Compare {
                result: CompareResult::Equal as i32,
                target: target as i32,
                key: key.to_owned().into(),
                target_union: Some(union),
                ..Compare::default()
            };
            let then = RequestOp { request: Some(Request::RequestPut(put(key, to))) };
            Op::Txn(TxnRequest { compare: vec![compare], success: vec![then], failure: Vec::new() })
        }
    })
}

/// What a change told.
pub fn told(outcome: &Outcome) -> Told {
    let (done, header) = match outcome {
        Outcome::Put(put) => (true, &put.header),
        Outcome::DeleteRange(delete) => (delete.deleted > 0, &delete.header),
        Outcome::Txn(txn) => (txn.succeeded, &txn.header),
        _ => (false, &None),
    };
    let revision = revision(header.as_ref());
    if done { Told::Done(revision) } else { Told::Otherwise(revision) }
}

/// The next thing to ask, with a value that was never written.
pub fn draw(dice: &mut Dice, seen: Option<Value>, fresh: impl FnOnce() -> Value) -> Asked {
    match dice.below(100) {
        0..40 => Asked::Get,
        40..75 => Asked::Put(fresh()),
        75..92 => Asked::Swap(seen, fresh()),
        _ => Asked::Delete,
    }
}

impl Client {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        // A panic while it was held fails its own seed.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn pause(dice: &mut Dice, most: u64) {
        clock::sleep(Duration::from_millis(1 + dice.below(most))).await;
    }

    /// Reads and writes for ever, or only reads.
    pub async fn ask_on(self, mut dice: Dice, only_reads: bool) {
        let seen = Cell::new(None);
        loop {
            Self::pause(&mut dice, PAUSE_MAX_MILLIS).await;
            if self.notes().quiet {
                return;
            }
            let key = format!("/k/{}", dice.below(KEYS));
            let fresh = || {
                let mut notes = self.notes();
                notes.last_value += 1;
                notes.last_value
            };
            let asked = if only_reads { Asked::Get } else { draw(&mut dice, seen.get(), fresh) };
            let request = self.notes().history.begin(self.number, &key, asked);
            match self.ask(&key, asked).await {
                Ok(told) => {
                    if let Told::Value(value, _) = told {
                        seen.set(value);
                    }
                    let now = self.now.load(Ordering::Relaxed);
                    let mut notes = self.notes();
                    notes.history.end(request, told);
                    notes.answered.insert(self.host, now);
                }
                Err(error) if error.may_have_happened() => {}
                Err(_) => self.notes().history.end(request, Told::Refused),
            }
        }
    }

    async fn ask(&self, key: &str, asked: Asked) -> Result<Told, StoreError> {
        match change(key, asked) {
            Some(op) => self.node.commit(op).await.map(|committed| told(&committed.outcome)),
            None => {
                self.node.read_barrier().await?;
                let found = self.shared.machine().range(&get(key))?;
                Ok(told_range(&found))
            }
        }
    }

    /// Holds one lease after the other, each for as long as it likes.
    pub async fn hold_leases(self, mut dice: Dice) {
        loop {
            Self::pause(&mut dice, 500).await;
            if self.notes().quiet {
                return;
            }
            // A lease that may have been granted without an answer is not held by anybody.
            let _ = self.hold_lease(&mut dice).await;
        }
    }

    async fn hold_lease(&self, dice: &mut Dice) -> Result<(), StoreError> {
        let now = || self.now.load(Ordering::Relaxed);
        let id = {
            let mut notes = self.notes();
            notes.last_lease += 1;
            notes.last_lease
        };
        let mut since = now();
        self.node.commit(Op::LeaseGrant(LeaseGrantRequest { id, ttl: LEASE_SECONDS })).await?;
        let held = {
            let mut notes = self.notes();
            notes.leases.push(Held { id, since, put: false, revoked: false });
            notes.leases.len() - 1
        };
        let request = PutRequest { lease: id, ..put(&lease_key(id), 0) };
        self.node.commit(Op::Put(request)).await?;
        self.notes().leases[held].put = true;
        for _ in 0..dice.below(6) {
            Self::pause(dice, 1200).await;
            since = now();
            self.node.renew_lease(id).await?;
            self.notes().leases[held].since = since;
        }
        if dice.percent(20) {
            self.notes().leases[held].revoked = true;
            self.node.commit(Op::LeaseRevoke(LeaseRevokeRequest { id })).await?;
        }
        Ok(())
    }

    /// Watches everything from where `seen` ends.
    pub async fn watch(self, seen: Arc<Mutex<Vec<super::history::Change>>>, mut dice: Dice) {
        let seen = || seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (outlet, hub) = (Arc::new(Outlet::default()), self.shared.hub());
        let range = KeyRange::new(&Bytes::from_static(&[0]), &Bytes::from_static(&[0]));
        let next = seen().last().map_or(0, |(revision, ..)| *revision) + 1;
        hub.add(&outlet, range.clone(), next);
        loop {
            while let Some((id, from)) = hub.next_unread(&outlet) {
                // Nothing is compacted here.
                let Ok(pulled) = hub.pull(id, &range, from, || self.shared.machine()) else { return };
                for event in pulled.batches.iter().flat_map(|batch| &batch.events) {
                    let kv = &event.record.kv;
                    let key = String::from_utf8_lossy(&kv.key).into_owned();
                    let value = if event.record.tombstone { None } else { value(&kv.value) };
                    seen().push((kv.mod_revision, key, value));
                }
                Self::pause(&mut dice, 20).await;
            }
            outlet.woken().await;
        }
    }
}
