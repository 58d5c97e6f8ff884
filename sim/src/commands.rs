//! Commands as clients send them, over few keys, so that they meet each other often.

use crate::dice::Dice;
use bytes::Bytes;
use coracle_etcd::proto::compare::{CompareResult, CompareTarget, TargetUnion};
use coracle_etcd::proto::request_op::Request;
use coracle_etcd::proto::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest,
    RangeRequest, RequestOp, TxnRequest,
};
use store::command::{Command, Op};

const KEYS: u64 = 12;
const LEASES: u64 = 4;

fn key(dice: &mut Dice) -> Bytes {
    Bytes::from(format!("/k/{:02}", dice.below(KEYS)))
}

/// A range: one key, all from one on, or some between.
pub fn range(dice: &mut Dice) -> (Bytes, Bytes) {
    let (a, b) = (key(dice), key(dice));
    match dice.below(4) {
        0 => (a, Bytes::new()),
        1 => (a, Bytes::from_static(&[0])),
        2 => (Bytes::from_static(b"/k/"), Bytes::from_static(b"/k0")),
        _ => (a.clone().min(b.clone()), a.max(b)),
    }
}

fn put(key: Bytes, dice: &mut Dice) -> PutRequest {
    let lease = if dice.percent(20) { i64::try_from(1 + dice.below(LEASES)).unwrap_or(1) } else { 0 };
    let size = dice.index(120);
    let value = Bytes::from(vec![b'a' + u8::try_from(dice.below(26)).unwrap_or(0); size]);
    PutRequest { key, value, lease, prev_kv: dice.percent(50), ..PutRequest::default() }
}

fn delete(dice: &mut Dice) -> DeleteRangeRequest {
    let (key, range_end) = range(dice);
    DeleteRangeRequest { key, range_end, prev_kv: dice.percent(50) }
}

/// A comparison that holds about as often as not.
fn compare(dice: &mut Dice, revision: i64) -> Compare {
    let revisions = u64::try_from(revision).unwrap_or(1).min(20);
    let recent = revision - i64::try_from(dice.below(revisions)).unwrap_or(0);
    let (target, union) = match dice.below(4) {
        0 => (CompareTarget::Version, TargetUnion::Version(i64::try_from(dice.below(3)).unwrap_or(0))),
        1 => (CompareTarget::Create, TargetUnion::CreateRevision(if dice.percent(50) { 0 } else { recent })),
        2 => (CompareTarget::Value, TargetUnion::Value(Bytes::from_static(b"mmmm"))),
        _ => (CompareTarget::Mod, TargetUnion::ModRevision(recent)),
    };
    let results =
        [CompareResult::Equal, CompareResult::Greater, CompareResult::Less, CompareResult::NotEqual];
    Compare {
        result: results[dice.index(results.len())] as i32,
        target: target as i32,
        key: key(dice),
        target_union: Some(union),
        ..Compare::default()
    }
}

/// Operations on keys of their own: no transaction may write a key twice.
fn operations(dice: &mut Dice) -> Vec<RequestOp> {
    let first = dice.below(KEYS);
    let count = dice.below(4);
    let op = |n: u64, dice: &mut Dice| {
        let key = Bytes::from(format!("/k/{:02}", (first + n) % KEYS));
        let request = match dice.below(3) {
            0 => Request::RequestRange(RangeRequest { key, ..RangeRequest::default() }),
            1 => Request::RequestDeleteRange(DeleteRangeRequest { key, ..DeleteRangeRequest::default() }),
            _ => Request::RequestPut(put(key, dice)),
        };
        RequestOp { request: Some(request) }
    };
    (0..count).map(|n| op(n, dice)).collect()
}

/// A command; `revision` is about where the store stands.
pub fn draw(dice: &mut Dice, revision: i64) -> Command {
    let lease = i64::try_from(1 + dice.below(LEASES)).unwrap_or(1);
    let op = match dice.below(100) {
        0..50 => {
            let key = key(dice);
            Op::Put(put(key, dice))
        }
        50..62 => Op::DeleteRange(delete(dice)),
        62..84 => Op::Txn(TxnRequest {
            compare: (0..dice.below(3)).map(|_| compare(dice, revision)).collect(),
            success: operations(dice),
            failure: operations(dice),
        }),
        84..92 => Op::LeaseGrant(LeaseGrantRequest { id: lease, ttl: 60 }),
        92..97 => Op::LeaseRevoke(LeaseRevokeRequest { id: lease }),
        _ => {
            let kept = i64::try_from(dice.below(40)).unwrap_or(0);
            Op::Compact(CompactionRequest { revision: (revision - kept).max(1), physical: false })
        }
    };
    Command { proposed_at_millis: 0, op }
}
