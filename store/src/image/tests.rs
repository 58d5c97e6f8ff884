//! The image against the machine: what was written is read back, whatever was cut off; the mark never runs ahead.

use super::*;
use crate::command::{Command, Op};
use coracle_etcd::proto::{
    AlarmRequest, CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest,
};
use proptest::prelude::*;
use std::path::Path;

const PACKS: ::redb::TableDefinition<'_, &[u8], &[u8]> = ::redb::TableDefinition::new("packs");

struct Source {
    machine: Machine,
}

impl Source {
    fn new() -> Self {
        Self { machine: Machine::new() }
    }

    fn apply(&mut self, op: Op) -> Vec<Change> {
        self.machine.apply(&Command { proposed_at_millis: 0, op }).expect("applies");
        self.machine.take_effects().changes
    }

    fn put(&mut self, key: &str, value: &str) -> Vec<Change> {
        self.apply(Op::Put(PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..Default::default()
        }))
    }

    /// Some of everything that a machine can hold.
    fn fill(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        for number in 0..50 {
            changes.extend(self.put(&format!("k{}", number % 9), &number.to_string()));
        }
        changes.extend(self.apply(Op::LeaseGrant(LeaseGrantRequest { ttl: 60, id: 7 })));
        changes.extend(self.apply(Op::LeaseGrant(LeaseGrantRequest { ttl: 60, id: 8 })));
        changes.extend(self.apply(Op::LeaseRevoke(LeaseRevokeRequest { id: 8 })));
        changes.extend(self.apply(Op::Compact(CompactionRequest { revision: 30, physical: false })));
        changes
    }
}

fn assert_loads(folder: &Path, wanted: &Machine, description: &[u8]) {
    let (machine, stood) = RedbImage::new(folder).load().expect("reads").expect("is trusted");
    assert_eq!(stood, description);
    assert_eq!(machine.hash_kv(0), wanted.hash_kv(0));
    assert_eq!((machine.revision(), machine.compacted()), (wanted.revision(), wanted.compacted()));
    assert_eq!(machine.leases().collect::<Vec<_>>(), wanted.leases().collect::<Vec<_>>());
    assert!(machine.alarms().eq(wanted.alarms()));
}

#[test]
fn what_was_synced_comes_back() {
    let folder = tempfile::tempdir().expect("folder");
    let mut source = Source::new();
    let mut image = RedbImage::new(folder.path());
    assert!(image.load().expect("reads").is_none());
    image.update(source.fill());
    image.sync(b"one").expect("syncs");
    image.update(source.put("more", "v"));
    image.sync(b"two").expect("syncs");
    drop(image);
    assert_loads(folder.path(), &source.machine, b"two");
    let mut image = RedbImage::new(folder.path());
    image.load().expect("reads").expect("is trusted");
    let alarm = Op::Alarm(AlarmRequest { action: 1, member_id: 3, alarm: 1 });
    image.update(source.apply(alarm));
    image.sync(b"three").expect("syncs");
    drop(image);
    assert_loads(folder.path(), &source.machine, b"three");
}

#[test]
fn changes_after_the_last_sync_are_not_there() {
    let folder = tempfile::tempdir().expect("folder");
    let mut source = Source::new();
    let mut image = RedbImage::new(folder.path());
    image.update(source.fill());
    image.sync(b"one").expect("syncs");
    let synced = source.machine.hash_kv(0);
    image.update(source.put("more", "v"));
    drop(image);
    let (machine, stood) = RedbImage::new(folder.path()).load().expect("reads").expect("is trusted");
    assert_eq!((machine.hash_kv(0), stood), (synced, b"one".to_vec()));
}

#[test]
fn lost_stale_and_damaged_packs_are_noticed() {
    let mut source = Source::new();
    let changes = source.fill();
    for (what, change) in [
        ("lost", (|_, _| None) as fn(&[u8], &[u8]) -> Option<Vec<u8>>),
        ("damaged", |_, value| {
            let mut value = value.to_vec();
            value[9] ^= 1;
            Some(value)
        }),
        // As a page that was not written would bring it back.
        ("stale", |key, value| {
            let mut value = value[4..].to_vec();
            value[9] ^= 1;
            let crc = crc32c::crc32c_append(crc32c::crc32c(key), &value);
            Some([&crc.to_le_bytes()[..], &value].concat())
        }),
    ] {
        let folder = tempfile::tempdir().expect("folder");
        let mut image = RedbImage::new(folder.path());
        image.update(changes.clone());
        image.sync(b"one").expect("syncs");
        drop(image);
        let database = ::redb::Database::open(folder.path().join("state.redb")).expect("opens");
        let transaction = database.begin_write().expect("begins");
        {
            let mut packs = transaction.open_table(PACKS).expect("opens");
            let (key, value) = packs
                .pop_last()
                .expect("reads")
                .map(|(k, v)| (k.value().to_vec(), v.value().to_vec()))
                .expect("packs");
            if let Some(value) = change(&key, &value) {
                packs.insert(&*key, &*value).expect("writes");
            }
        }
        transaction.commit().expect("commits");
        drop(database);
        assert!(RedbImage::new(folder.path()).load().expect("reads").is_none(), "{what}");
    }
}

#[test]
fn a_damaged_file_only_costs_the_image() {
    const DAMAGE: usize = 40;
    let mut source = Source::new();
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("state.redb");
    let mut image = RedbImage::new(folder.path());
    image.update(source.fill());
    image.sync(b"one").expect("syncs");
    drop(image);
    let whole = std::fs::read(&path).expect("reads");
    let used = |at: &usize| whole[*at..].iter().take(DAMAGE).any(|byte| *byte != 0);
    for at in (0..whole.len()).step_by(512).filter(used) {
        let mut bytes = whole.clone();
        let end = bytes.len().min(at + DAMAGE);
        bytes[at..end].fill(0xa5);
        std::fs::write(&path, bytes).expect("writes");
        let mut image = RedbImage::new(folder.path());
        // Not every byte is used; those that are used are checked.
        match image.load().expect("reads") {
            Some((machine, _)) => assert_eq!(machine.hash_kv(0), source.machine.hash_kv(0), "{at}"),
            None => assert!(!path.exists(), "{at}"),
        }
        image.replace(source.machine.view());
        image.sync(b"new").expect("syncs");
        drop(image);
        assert_loads(folder.path(), &source.machine, b"new");
    }
}

#[test]
fn a_start_that_died_over_the_image_does_not_try_it_again() {
    let folder = tempfile::tempdir().expect("folder");
    let mut source = Source::new();
    let mut image = RedbImage::new(folder.path());
    image.update(source.fill());
    image.sync(b"one").expect("syncs");
    drop(image);
    std::fs::rename(folder.path().join("state.redb"), folder.path().join("state.reading")).expect("renames");
    assert!(RedbImage::new(folder.path()).load().expect("reads").is_none());
    assert_eq!(std::fs::read_dir(folder.path()).expect("reads").count(), 0);
}

#[test]
fn the_writer_writes_what_waits_when_it_is_dropped() {
    let folder = tempfile::tempdir().expect("folder");
    let mut source = Source::new();
    source.fill();
    let mut writer = ImageWriter::start(RedbImage::new(folder.path()), false).expect("starts");
    // The image is new, so it needs all state first.
    let changes = source.put("first", "v");
    writer.update(changes, b"a".to_vec(), || source.machine.view());
    for number in 0..500 {
        let changes = source.put("same", &number.to_string());
        writer.update(changes, number.to_string().into_bytes(), || unreachable!("it has all state"));
    }
    let revision = source.machine.revision();
    let changes = source.apply(Op::Compact(CompactionRequest { revision, physical: false }));
    writer.update(changes, b"end".to_vec(), || unreachable!("it has all state"));
    drop(writer);
    assert_loads(folder.path(), &source.machine, b"end");
}

#[test]
fn values_as_large_as_requests_may_be_are_kept() {
    let folder = tempfile::tempdir().expect("folder");
    let mut source = Source::new();
    let mut image = RedbImage::new(folder.path());
    let large = "x".repeat(1_500_000);
    let mut changes = Vec::new();
    for number in 0..20 {
        changes.extend(source.put(&format!("k{}", number % 3), &large));
    }
    image.update(changes.clone());
    image.sync(b"one").expect("syncs");
    let revision = source.machine.revision();
    image.update(source.apply(Op::Compact(CompactionRequest { revision, physical: false })));
    image.sync(b"two").expect("syncs");
    drop(image);
    assert_loads(folder.path(), &source.machine, b"two");
}

/// Key and rows of each pack, in order.
fn packs(folder: &Path) -> Vec<(Vec<u8>, Vec<Vec<u8>>)> {
    use ::redb::{ReadableDatabase, ReadableTable};
    let database = ::redb::Database::open(folder.join("state.redb")).expect("opens");
    let transaction = database.begin_read().expect("begins");
    let table = transaction.open_table(PACKS).expect("opens");
    let rows = |mut pack: &[u8]| {
        let mut rows = Vec::new();
        while !pack.is_empty() {
            rows.push(crate::machine::take_row(&mut pack).expect("a row").0.to_vec());
        }
        rows
    };
    let packs = table.iter().expect("reads").map(|pack| pack.expect("reads"));
    packs.map(|(key, pack)| (key.value().to_vec(), rows(&pack.value()[4..]))).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Put {
        key: u8,
        bytes: usize,
    },
    Delete {
        key: u8,
    },
    Grant {
        id: i64,
    },
    Revoke {
        id: i64,
    },
    /// So many revisions before the last.
    Compact {
        back: i64,
    },
    Sync,
    /// Begin anew with all state.
    Replace,
}

fn steps() -> impl Strategy<Value = Step> {
    let key = || 0..20_u8;
    prop_oneof![
        8 => (key(), 0..6000_usize).prop_map(|(key, bytes)| Step::Put { key, bytes }),
        1 => (key(), 14_000..40_000_usize).prop_map(|(key, bytes)| Step::Put { key, bytes }),
        2 => key().prop_map(|key| Step::Delete { key }),
        2 => (1..9_i64).prop_map(|id| Step::Grant { id }),
        1 => (1..9_i64).prop_map(|id| Step::Revoke { id }),
        2 => (0..20_i64).prop_map(|back| Step::Compact { back }),
        2 => Just(Step::Sync),
        1 => Just(Step::Replace),
    ]
}

fn op(step: &Step, revision: i64) -> Option<Op> {
    Some(match *step {
        Step::Put { key, bytes } => Op::Put(PutRequest {
            key: vec![key].into(),
            value: vec![key; bytes].into(),
            ..Default::default()
        }),
        Step::Delete { key } => {
            Op::DeleteRange(DeleteRangeRequest { key: vec![key].into(), ..Default::default() })
        }
        Step::Grant { id } => Op::LeaseGrant(LeaseGrantRequest { ttl: 60, id }),
        Step::Revoke { id } => Op::LeaseRevoke(LeaseRevokeRequest { id }),
        Step::Compact { back } => {
            Op::Compact(CompactionRequest { revision: revision - back, physical: false })
        }
        Step::Sync | Step::Replace => return None,
    })
}

proptest::proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn packs_hold_each_row_of_the_state_once_and_in_order(steps in proptest::collection::vec(steps(), 0..200)) {
        let folder = tempfile::tempdir().expect("folder");
        let mut source = Source::new();
        let mut image = RedbImage::new(folder.path());
        for step in &steps {
            match op(step, source.machine.revision()) {
                Some(op) => {
                    // Some are refused, as the compaction of what is compacted.
                    let _ = source.machine.apply(&Command { proposed_at_millis: 0, op });
                    image.update(source.machine.take_effects().changes);
                }
                None if matches!(step, Step::Replace) => image.replace(source.machine.view()),
                None => image.sync(b"here").expect("syncs"),
            }
        }
        image.sync(b"end").expect("syncs");
        drop(image);
        let packs = packs(folder.path());
        let rows: Vec<_> = packs.iter().flat_map(|(_, rows)| rows.clone()).collect();
        let wanted: Vec<_> = source.machine.view().rows().map(|row| row.key).collect();
        prop_assert_eq!(rows, wanted);
        prop_assert!(packs.iter().all(|(key, rows)| rows.first() == Some(key)));
        assert_loads(folder.path(), &source.machine, b"end");
    }
}
