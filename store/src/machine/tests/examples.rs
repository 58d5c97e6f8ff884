//! By example.

use super::{apply, compact, delete, grant, op, put, range, revoke};
use crate::command::{Op, Outcome};
use crate::error::StoreError;
use crate::machine::{KeyRange, Machine, Restore, RestoreError};
use coracle_etcd::proto::alarm_request::AlarmAction;
use coracle_etcd::proto::compare::{CompareResult, CompareTarget, TargetUnion};
use coracle_etcd::proto::range_request::{SortOrder, SortTarget};
use coracle_etcd::proto::request_op::Request;
use coracle_etcd::proto::response_op::Response;
use coracle_etcd::proto::{
    AlarmRequest, AlarmType, Compare, PutRequest, RangeRequest, TxnRequest, TxnResponse,
};

fn with(puts: &[(&str, &str)]) -> Machine {
    let mut machine = Machine::new();
    for (key, value) in puts {
        apply(&mut machine, Op::Put(put(key, value))).expect("puts");
    }
    machine
}

fn keys(machine: &Machine, request: &RangeRequest) -> Vec<String> {
    let found = machine.range(request).expect("reads");
    found.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect()
}

fn value(machine: &Machine, key: &str, revision: i64) -> Option<String> {
    let found = machine.range(&range(key, "", revision)).expect("reads");
    found.kvs.first().map(|kv| String::from_utf8_lossy(&kv.value).into_owned())
}

fn txn(machine: &mut Machine, txn: TxnRequest) -> Result<TxnResponse, StoreError> {
    match apply(machine, Op::Txn(txn))? {
        Outcome::Txn(answer) => Ok(answer),
        other => panic!("a transaction's outcome: {other:?}"),
    }
}

#[test]
fn revisions_and_versions_are_etcds() {
    let mut machine = with(&[("a", "1"), ("b", "1"), ("a", "2")]);
    assert_eq!(machine.revision(), 4, "an empty store is at 1");
    let a = machine.range(&range("a", "", 0)).expect("reads").kvs.remove(0);
    assert_eq!((a.create_revision, a.mod_revision, a.version), (2, 4, 2));
    apply(&mut machine, Op::DeleteRange(delete("a", ""))).expect("deletes");
    apply(&mut machine, Op::DeleteRange(delete("a", ""))).expect("nothing to delete");
    assert_eq!(machine.revision(), 5, "what changes nothing takes no revision");
    apply(&mut machine, Op::Put(put("a", "3"))).expect("puts");
    let a = machine.range(&range("a", "", 0)).expect("reads").kvs.remove(0);
    assert_eq!((a.create_revision, a.mod_revision, a.version), (6, 6, 1), "a new life");
    let values: Vec<_> = (1..=6).map(|revision| value(&machine, "a", revision)).collect();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(values, [None, text("1"), text("1"), text("2"), None, text("3")]);
    assert_eq!(machine.range(&range("a", "", 7)), Err(StoreError::FutureRevision));
}

#[test]
fn ranges_count_all_and_limit_sort_and_filter() {
    let machine = with(&[("a", "3"), ("b", "2"), ("c", "1"), ("b", "9")]);
    let all = range("a", "\0", 0);
    let limited = machine.range(&RangeRequest { limit: 2, ..all.clone() }).expect("reads");
    assert_eq!((limited.kvs.len(), limited.more, limited.count), (2, true, 3));
    let counted = machine.range(&RangeRequest { count_only: true, ..all.clone() }).expect("reads");
    assert_eq!((counted.kvs.len(), counted.more, counted.count), (0, false, 3));
    let bare = machine.range(&RangeRequest { keys_only: true, ..all.clone() }).expect("reads");
    assert!(bare.kvs.iter().all(|kv| kv.value.is_empty() && kv.mod_revision > 0));
    let sorted = |target: SortTarget, order: SortOrder, limit| {
        let (sort_target, sort_order) = (target as i32, order as i32);
        keys(&machine, &RangeRequest { sort_target, sort_order, limit, ..all.clone() })
    };
    assert_eq!(sorted(SortTarget::Key, SortOrder::Descend, 0), ["c", "b", "a"]);
    assert_eq!(sorted(SortTarget::Value, SortOrder::Ascend, 2), ["c", "a"], "sorted first, then limited");
    assert_eq!(
        sorted(SortTarget::Mod, SortOrder::None, 0),
        ["a", "c", "b"],
        "a target alone means ascending"
    );
    assert_eq!(sorted(SortTarget::Version, SortOrder::Descend, 1), ["b"]);
    let late = RangeRequest { min_mod_revision: 4, limit: 1, ..all.clone() };
    assert_eq!(machine.range(&late).map(|found| (found.more, found.count)), Ok((true, 3)));
    assert_eq!(keys(&machine, &RangeRequest { max_create_revision: 3, ..all }), ["a", "b"]);
    assert!(keys(&machine, &range("c", "a", 0)).is_empty(), "an end before the beginning");
}

#[test]
fn compaction_cuts_a_long_history_of_one_key_to_its_newest_change() {
    let mut machine = Machine::new();
    let changes = 600_000;
    for _ in 0..changes {
        apply(&mut machine, Op::Put(put("a", ""))).expect("puts");
        drop(machine.take_effects());
    }
    // A walk through all of the history for each change would take minutes here.
    apply(&mut machine, compact(changes + 1)).expect("compacts");
    let (events, _) =
        machine.history(&KeyRange::new(&"a".into(), &"".into()), changes + 1, 10).expect("kept");
    assert_eq!(events.len(), 1);
    assert_eq!(value(&machine, "a", changes + 1), Some(String::new()));
    assert_eq!(machine.size(), Machine::new().size() + events[0].events[0].record.size());
}

#[test]
fn compaction_takes_away_what_nobody_can_see_any_more() {
    let mut machine = with(&[("a", "1"), ("a", "2"), ("b", "1")]);
    apply(&mut machine, Op::DeleteRange(delete("b", ""))).expect("deletes");
    apply(&mut machine, Op::Put(put("c", "1"))).expect("puts");
    apply(&mut machine, compact(5)).expect("compacts");
    assert_eq!(machine.range(&range("a", "", 4)), Err(StoreError::Compacted));
    assert_eq!(value(&machine, "a", 5), Some("2".to_owned()));
    let (events, next) = machine.history(&KeyRange::new(&"a".into(), &"\0".into()), 5, 100).expect("kept");
    assert_eq!((events.len(), events[0].events[0].record.tombstone, next), (2, true, 7));
    for (revision, wanted) in [(5, StoreError::Compacted), (9, StoreError::FutureRevision)] {
        assert_eq!(apply(&mut machine, compact(revision)), Err(wanted));
    }
    apply(&mut machine, compact(6)).expect("compacts");
    assert_eq!(machine.keys(), 2, "the deleted key is gone for good");
    let everything: u64 = machine.size();
    apply(&mut machine, Op::DeleteRange(delete("a", "\0"))).expect("deletes");
    apply(&mut machine, Op::Put(put("d", "1"))).expect("puts");
    apply(&mut machine, compact(8)).expect("compacts");
    assert!(machine.size() < everything && machine.keys() == 1, "{} bytes", machine.size());
}

#[test]
fn a_put_may_keep_the_value_or_the_lease() {
    let mut machine = with(&[]);
    apply(&mut machine, grant(7)).expect("grants");
    let keep_value = PutRequest { ignore_value: true, ..put("a", "") };
    assert_eq!(apply(&mut machine, Op::Put(keep_value.clone())), Err(StoreError::KeyNotFound));
    apply(&mut machine, Op::Put(PutRequest { lease: 7, ..put("a", "1") })).expect("puts");
    let keep_lease = PutRequest { ignore_lease: true, prev_kv: true, ..put("a", "2") };
    let Ok(Outcome::Put(answer)) = apply(&mut machine, Op::Put(keep_lease)) else { panic!("puts") };
    assert_eq!(answer.prev_kv.map(|kv| (kv.value, kv.lease)), Some(("1".into(), 7)));
    assert_eq!(machine.lease(7).map(|(_, keys)| keys.count()), Some(1));
    apply(&mut machine, Op::Put(keep_value)).expect("puts");
    assert_eq!(value(&machine, "a", 0), Some("2".to_owned()));
    assert_eq!(machine.lease(7).map(|(_, keys)| keys.count()), Some(0), "a put without a lease lets it go");
}

#[test]
fn a_lease_that_ends_takes_its_keys_in_one_revision() {
    let mut machine = with(&[("free", "1")]);
    apply(&mut machine, grant(7)).expect("grants");
    assert_eq!(apply(&mut machine, grant(7)), Err(StoreError::LeaseExists));
    for key in ["b", "a", "c"] {
        apply(&mut machine, Op::Put(PutRequest { lease: 7, ..put(key, "1") })).expect("puts");
    }
    apply(&mut machine, Op::DeleteRange(delete("c", ""))).expect("deletes");
    let before = machine.revision();
    let _ = machine.take_effects();
    apply(&mut machine, revoke(7)).expect("revokes");
    assert_eq!(machine.revision(), before + 1);
    let effects = machine.take_effects();
    let gone: Vec<_> = effects.batches[0].events.iter().map(|event| event.key().clone()).collect();
    assert_eq!(gone, ["a", "b"]);
    assert_eq!(keys(&machine, &range("a", "\0", 0)), ["free"]);
    assert_eq!(apply(&mut machine, revoke(7)), Err(StoreError::LeaseNotFound));
    let lost = Op::Put(PutRequest { lease: 7, ..put("a", "1") });
    assert_eq!(apply(&mut machine, lost), Err(StoreError::LeaseNotFound));
}

#[test]
fn a_transaction_compares_before_it_writes_and_sees_its_own_writes() {
    let mut machine = with(&[("a", "1")]);
    let is_absent = |key: &str| Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Create as i32,
        key: key.to_owned().into(),
        target_union: Some(TargetUnion::CreateRevision(0)),
        ..Compare::default()
    };
    let inner = TxnRequest {
        compare: vec![is_absent("b")],
        success: vec![op(Request::RequestRange(range("a", "\0", 0)))],
        failure: vec![],
    };
    let request = TxnRequest {
        compare: vec![],
        success: vec![op(Request::RequestPut(put("b", "1"))), op(Request::RequestTxn(inner))],
        failure: vec![],
    };
    let answer = txn(&mut machine, request).expect("done");
    let Some(Response::ResponseTxn(inner)) = &answer.responses[1].response else { panic!("an inner answer") };
    assert!(inner.succeeded, "compared with the state before the transaction");
    let Some(Response::ResponseRange(seen)) = &inner.responses[0].response else { panic!("a range") };
    assert_eq!((seen.count, seen.header.map(|header| header.revision)), (2, Some(3)));
    assert_eq!(answer.header.map(|header| header.revision), Some(3));
}

#[test]
fn a_transaction_that_cannot_be_done_changes_nothing() {
    let mut machine = with(&[("a", "1")]);
    let first = op(Request::RequestPut(put("b", "1")));
    for (second, wanted) in [
        (Request::RequestPut(PutRequest { lease: 9, ..put("c", "") }), StoreError::LeaseNotFound),
        (Request::RequestPut(PutRequest { ignore_value: true, ..put("c", "") }), StoreError::KeyNotFound),
        (Request::RequestRange(range("a", "", 9)), StoreError::FutureRevision),
    ] {
        let nested = TxnRequest { success: vec![op(second.clone())], ..TxnRequest::default() };
        for last in [op(second), op(Request::RequestTxn(nested))] {
            let request = TxnRequest { success: vec![first.clone(), last], ..TxnRequest::default() };
            assert_eq!(txn(&mut machine, request), Err(wanted.clone()));
        }
    }
    assert_eq!(machine.revision(), 2);
    assert_eq!(value(&machine, "b", 0), None);
}

#[test]
fn comparisons_are_etcds() {
    let mut machine = with(&[("a", "1"), ("b", "2"), ("b", "3")]);
    let holds = |machine: &mut Machine, key: &str, end: &str, result: CompareResult, union: TargetUnion| {
        let target = match union {
            TargetUnion::Version(_) => CompareTarget::Version,
            TargetUnion::CreateRevision(_) => CompareTarget::Create,
            TargetUnion::ModRevision(_) => CompareTarget::Mod,
            TargetUnion::Value(_) => CompareTarget::Value,
            TargetUnion::Lease(_) => CompareTarget::Lease,
        };
        let compare = Compare {
            result: result as i32,
            target: target as i32,
            key: key.to_owned().into(),
            range_end: end.to_owned().into(),
            target_union: Some(union),
        };
        txn(machine, TxnRequest { compare: vec![compare], ..TxnRequest::default() })
            .expect("compares")
            .succeeded
    };
    use CompareResult::{Equal, Greater, Less, NotEqual};
    for (key, end, result, union, wanted) in [
        ("b", "", Equal, TargetUnion::Version(2), true),
        ("b", "", Greater, TargetUnion::ModRevision(3), true),
        ("b", "", Less, TargetUnion::CreateRevision(3), false),
        ("a", "", NotEqual, TargetUnion::Value("2".into()), true),
        ("none", "", Equal, TargetUnion::Version(0), true),
        ("none", "", NotEqual, TargetUnion::Value("x".into()), false),
        ("none", "", Equal, TargetUnion::Value("".into()), false),
        ("a", "\0", Greater, TargetUnion::Value("0".into()), true),
        ("a", "\0", Less, TargetUnion::Value("3".into()), false),
        ("a", "", Equal, TargetUnion::Lease(0), true),
    ] {
        assert_eq!(
            holds(&mut machine, key, end, result, union.clone()),
            wanted,
            "{key} {result:?} {union:?}"
        );
    }
}

#[test]
fn alarms_refuse_what_would_make_it_worse() {
    let mut machine = with(&[("a", "1")]);
    let alarm = |machine: &mut Machine, action: AlarmAction, alarm: AlarmType| {
        let request = AlarmRequest { action: action as i32, member_id: 5, alarm: alarm as i32 };
        match apply(machine, Op::Alarm(request)) {
            Ok(Outcome::Alarm(answer)) => answer.alarms.len(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(alarm(&mut machine, AlarmAction::Activate, AlarmType::Nospace), 1);
    assert_eq!(apply(&mut machine, Op::Put(put("b", "1"))), Err(StoreError::NoSpace));
    assert_eq!(apply(&mut machine, grant(1)), Err(StoreError::NoSpace));
    let puts = TxnRequest { failure: vec![op(Request::RequestPut(put("b", "")))], ..TxnRequest::default() };
    assert_eq!(txn(&mut machine, puts), Err(StoreError::NoSpace), "even in the branch not taken");
    apply(&mut machine, Op::DeleteRange(delete("a", ""))).expect("deleting helps");
    apply(&mut machine, compact(3)).expect("so does compacting");
    assert_eq!(alarm(&mut machine, AlarmAction::Activate, AlarmType::Corrupt), 1);
    assert_eq!(apply(&mut machine, Op::DeleteRange(delete("a", ""))), Err(StoreError::Corrupt));
    assert_eq!(alarm(&mut machine, AlarmAction::Get, AlarmType::None), 2);
    assert_eq!(alarm(&mut machine, AlarmAction::Get, AlarmType::Corrupt), 1);
    for kind in [AlarmType::Nospace, AlarmType::Corrupt] {
        assert_eq!(alarm(&mut machine, AlarmAction::Deactivate, kind), 1);
    }
    assert_eq!(alarm(&mut machine, AlarmAction::Deactivate, AlarmType::Corrupt), 0, "it is gone already");
    apply(&mut machine, Op::Put(put("b", "1"))).expect("puts");
}

#[test]
fn a_read_only_transaction_needs_no_log() {
    let machine = with(&[("a", "1"), ("a", "2")]);
    let reads = vec![op(Request::RequestRange(range("a", "", 2)))];
    let answer = machine.read_txn(&TxnRequest { success: reads, ..TxnRequest::default() }).expect("reads");
    let Some(Response::ResponseRange(found)) = &answer.responses[0].response else { panic!("a range") };
    assert_eq!(found.kvs[0].value, "1");
    assert_eq!(answer.header.map(|header| header.revision), Some(3));
}

#[test]
fn damaged_snapshots_are_refused() {
    let machine = with(&[("a", "1"), ("b", "2")]);
    let view = machine.view();
    let rows: Vec<_> = view.rows().map(|row| (row.key, row.value.expect("a value"))).collect();
    let mut backwards = Restore::new();
    backwards.row(&rows[1].0, &rows[1].1).expect("a row");
    assert_eq!(backwards.row(&rows[0].0, &rows[0].1), Err(RestoreError::OutOfOrder));
    let chunk = view.chunks(1 << 20).next().expect("a chunk");
    assert_eq!(Restore::new().chunk(&chunk[..chunk.len() - 1]), Err(RestoreError::Cut));
    assert_eq!(Restore::new().row(b"?", b""), Err(RestoreError::BadRow));
}
