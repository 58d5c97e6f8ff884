//! State goes through etcd's database unchanged; what others wrote differently is understood.

use super::{Dump, LeaseRow, ReadError, bucket, meta, read, revision_key};
use crate::bolt;
use crate::command::{Command, Op};
use crate::consensus::Member;
use crate::machine::{Machine, View};
use coracle_etcd::proto::{
    AlarmMember, AlarmRequest, CompactionRequest, DeleteRangeRequest, KeyValue, LeaseGrantRequest, PutRequest,
};
use prost::Message;
use sha2::{Digest, Sha256};
use std::io::Write;

fn apply(machine: &mut Machine, op: Op) {
    machine.apply(&Command { proposed_at_millis: 0, op }).expect("is done");
    drop(machine.take_effects());
}

fn put(key: &str, value: usize, lease: i64) -> Op {
    Op::Put(PutRequest {
        key: key.to_owned().into(),
        value: vec![5; value].into(),
        lease,
        ..PutRequest::default()
    })
}

fn delete(key: &str) -> Op {
    Op::DeleteRange(DeleteRangeRequest { key: key.to_owned().into(), ..DeleteRangeRequest::default() })
}

fn compact(revision: i64) -> Op {
    Op::Compact(CompactionRequest { revision, physical: false })
}

/// With leases, alarms, deletions, a compaction, and values beyond a page.
fn machine() -> Machine {
    let mut machine = Machine::new();
    for id in [7, i64::MAX, 300] {
        apply(&mut machine, Op::LeaseGrant(LeaseGrantRequest { id, ttl: 60 + id % 9 }));
    }
    for n in 0..500 {
        apply(&mut machine, put(&format!("k{}", n % 90), n * 20, if n % 3 == 0 { 7 } else { 0 }));
    }
    let all = DeleteRangeRequest { key: "k1".into(), range_end: "k2".into(), ..Default::default() };
    apply(&mut machine, Op::DeleteRange(all));
    apply(&mut machine, compact(300));
    apply(&mut machine, delete("k5"));
    apply(&mut machine, Op::Alarm(AlarmRequest { action: 1, member_id: u64::MAX, alarm: 1 }));
    apply(&mut machine, Op::Alarm(AlarmRequest { action: 1, member_id: 2, alarm: 2 }));
    machine
}

fn dump(machine: &Machine) -> Dump {
    let member = Member { id: 0xAB, name: "m".to_owned(), ..Member::default() };
    Dump::new(machine.view(), vec![member], 9, 2).expect("is measured")
}

fn rows(view: &View) -> Vec<Vec<u8>> {
    view.chunks(1 << 20).collect()
}

fn taken(bytes: &[u8]) -> Result<Machine, ReadError> {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(bytes).expect("writes");
    read(file, bytes.len() as u64)
}

#[test]
fn a_machine_that_is_written_and_read_is_the_same() {
    for machine in [Machine::new(), machine()] {
        let dump = dump(&machine);
        let mut bytes = Vec::new();
        let hash = dump.write(&mut bytes).expect("is written");
        assert_eq!((bytes.len() as u64, hash), (dump.bytes(), Sha256::digest(&bytes).into()));
        let back = taken(&bytes).expect("is read");
        assert_eq!(rows(&back.view()), rows(&machine.view()));
        assert_eq!((back.revision(), back.compacted()), (machine.revision(), machine.compacted()));
        let keys = |machine: &Machine| machine.lease(7).map(|(_, keys)| keys.cloned().collect::<Vec<_>>());
        assert_eq!(keys(&back), keys(&machine), "leases hold the same keys");
    }
}

/// A database as an etcd might have it.
fn database(metas: &[(&str, i64)], keys: &[(i64, &str, bool)], auth: bool) -> Vec<u8> {
    let rows = keys.iter().map(|(revision, key, gone)| {
        let mut place = revision_key(*revision, 0).to_vec();
        let key = key.as_bytes().to_vec().into();
        if *gone {
            place.push(b't');
            return (place, KeyValue { key, ..KeyValue::default() }.encode_to_vec());
        }
        (place, KeyValue { key, mod_revision: *revision, version: 1, ..KeyValue::default() }.encode_to_vec())
    });
    let rows: Vec<_> = rows.collect();
    let lease = LeaseRow { id: 5, ttl: 10 }.encode_to_vec();
    let fill = |buckets: &mut bolt::Buckets<'_>| {
        buckets.bucket(bucket::AUTH, [("authEnabled", [u8::from(auth)])])?;
        buckets.bucket(bucket::KEY, rows.iter().map(|(key, value)| (key, value)))?;
        buckets.bucket(bucket::LEASE, [(5_i64.to_be_bytes(), &lease)])?;
        buckets.bucket(bucket::META, metas.iter().map(|(name, number)| (name, revision_key(*number, 0))))
    };
    let mut bytes = Vec::new();
    bolt::write(&bolt::measure(fill).expect("is measured"), &mut bytes, fill).expect("is written");
    bytes
}

#[test]
fn a_compaction_that_was_begun_is_done() {
    let keys = [(2, "a", false), (3, "a", false), (4, "b", false), (5, "b", true)];
    let begun = [(meta::FINISHED, 2), (meta::SCHEDULED, 5)];
    let machine = taken(&database(&begun, &keys, false)).expect("is read");
    assert_eq!((machine.compacted(), machine.revision(), machine.keys()), (5, 5, 2));
    // Its deletion was the last change, and is gone already.
    let begun = [(meta::FINISHED, 2), (meta::SCHEDULED, 9)];
    let machine = taken(&database(&begun, &keys[..2], false)).expect("is read");
    assert_eq!((machine.compacted(), machine.revision(), machine.keys()), (9, 9, 1));
}

#[test]
fn databases_that_would_lose_something_are_refused() {
    let refused = |bytes: &[u8]| taken(bytes).expect_err("is refused").to_string();
    assert!(refused(&database(&[], &[], true)).starts_with("authentication is enabled in it"));
    let negative = refused(&database(&[], &[(-2, "a", false)], false));
    assert_eq!(negative, "it has a row in bucket \"key\" that cannot be read");
    let nameless = refused(&database(&[], &[(2, "", false)], false));
    assert_eq!(nameless, "it has a row in bucket \"key\" that cannot be read");
    let fill = |buckets: &mut bolt::Buckets<'_>| buckets.bucket("other", [("a", "b")]);
    let mut bytes = Vec::new();
    bolt::write(&bolt::measure(fill).expect("is measured"), &mut bytes, fill).expect("is written");
    assert_eq!(refused(&bytes), "it is no database of etcd: it has no bucket \"meta\"");
}

#[test]
fn an_alarm_of_no_kind_is_refused() {
    for alarm in [0, 3] {
        let key = AlarmMember { member_id: 7, alarm }.encode_to_vec();
        let fill = |out: &mut bolt::Buckets<'_>| {
            out.bucket(bucket::ALARM, [(&key, "")])?;
            out.bucket(bucket::KEY, [("", ""); 0])?;
            out.bucket(bucket::META, [("", ""); 0])
        };
        let mut bytes = Vec::new();
        bolt::write(&bolt::measure(fill).expect("is measured"), &mut bytes, fill).expect("is written");
        let refused = taken(&bytes).expect_err("is refused").to_string();
        assert_eq!(refused, "it has a row in bucket \"alarm\" that cannot be read");
    }
}
