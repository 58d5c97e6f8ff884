use super::*;
use crate::command::{Command, Op};
use coracle_etcd::proto::{
    AlarmRequest, CompactionRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest,
};
use std::path::Path;

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
    let (machine, stood) = SledImage::new(folder).load().expect("reads").expect("is trusted");
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
    let mut image = SledImage::new(folder.path());
    assert!(image.load().expect("reads").is_none());
    image.update(&source.fill()).expect("writes");
    image.sync(b"one").expect("syncs");
    image.update(&source.put("more", "v")).expect("writes");
    image.sync(b"two").expect("syncs");
    drop(image);
    assert_loads(folder.path(), &source.machine, b"two");
    let mut image = SledImage::new(folder.path());
    image.load().expect("reads").expect("is trusted");
    let alarm = Op::Alarm(AlarmRequest { action: 1, member_id: 3, alarm: 1 });
    image.update(&source.apply(alarm)).expect("writes");
    image.sync(b"three").expect("syncs");
    drop(image);
    assert_loads(folder.path(), &source.machine, b"three");
}

#[test]
fn changes_after_the_last_sync_are_not_trusted() {
    let folder = tempfile::tempdir().expect("folder");
    let mut source = Source::new();
    let mut image = SledImage::new(folder.path());
    image.update(&source.fill()).expect("writes");
    image.sync(b"one").expect("syncs");
    image.update(&source.put("more", "v")).expect("writes");
    // sled writes it out when it is dropped.
    drop(image);
    let mut image = SledImage::new(folder.path());
    assert!(image.load().expect("reads").is_none());
    image.replace(&source.machine.view()).expect("writes");
    image.sync(b"new").expect("syncs");
    drop(image);
    assert_loads(folder.path(), &source.machine, b"new");
}

#[test]
fn lost_and_damaged_rows_are_noticed() {
    let mut source = Source::new();
    let changes = source.fill();
    let damage: [fn(&::sled::Db); 2] = [
        |rows| drop(rows.remove(rows.last().expect("reads").expect("rows").0).expect("removes")),
        |rows| {
            let (key, value) = rows.last().expect("reads").expect("rows");
            let mut value = value.to_vec();
            value[9] ^= 1;
            rows.insert(key, value).expect("writes");
        },
    ];
    for damage in damage {
        let folder = tempfile::tempdir().expect("folder");
        let mut image = SledImage::new(folder.path());
        image.update(&changes).expect("writes");
        image.sync(b"one").expect("syncs");
        drop(image);
        let rows = ::sled::open(folder.path().join("rows")).expect("opens");
        damage(&rows);
        rows.flush().expect("flushes");
        drop(rows);
        assert!(SledImage::new(folder.path()).load().expect("reads").is_none());
    }
}

#[test]
fn a_damaged_mark_or_database_only_costs_the_image() {
    let mut source = Source::new();
    let changes = source.fill();
    for file in ["mark", "rows/db", "rows/conf"] {
        let folder = tempfile::tempdir().expect("folder");
        let mut image = SledImage::new(folder.path());
        image.update(&changes).expect("writes");
        image.sync(b"one").expect("syncs");
        drop(image);
        let path = folder.path().join(file);
        let mut bytes = std::fs::read(&path).expect("reads");
        let length = bytes.len().min(4096);
        bytes[..length].fill(0xa5);
        std::fs::write(&path, bytes).expect("writes");
        let mut image = SledImage::new(folder.path());
        assert!(image.load().expect("reads").is_none(), "{file}");
        image.replace(&source.machine.view()).expect("writes");
        image.sync(b"new").expect("syncs");
        drop(image);
        assert_loads(folder.path(), &source.machine, b"new");
    }
}

#[test]
fn the_writer_writes_what_waits_when_it_is_dropped() {
    let folder = tempfile::tempdir().expect("folder");
    let mut source = Source::new();
    source.fill();
    let mut writer = ImageWriter::start(SledImage::new(folder.path()), false).expect("starts");
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
    let mut image = SledImage::new(folder.path());
    let large = "x".repeat(1_500_000);
    let mut changes = Vec::new();
    for number in 0..20 {
        changes.extend(source.put(&format!("k{}", number % 3), &large));
    }
    image.update(&changes).expect("writes");
    image.sync(b"one").expect("syncs");
    let revision = source.machine.revision();
    image
        .update(&source.apply(Op::Compact(CompactionRequest { revision, physical: false })))
        .expect("writes");
    image.sync(b"two").expect("syncs");
    drop(image);
    assert_loads(folder.path(), &source.machine, b"two");
}
