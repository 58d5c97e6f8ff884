//! What memory has is on the disk, or will be.

use super::*;

#[test]
fn what_was_read_after_a_kill_survives_a_power_cut() {
    let disk = MemoryDisk::default();
    let (wal, _) = open(&disk).expect("opens");
    write(&wal, vec![entry(1, 20)]).expect("stable");
    *disk.syncs_left.lock() = Some(0);
    write(&wal, vec![entry(2, 20)]).expect_err("killed before it was stable");
    drop(wal);
    *disk.syncs_left.lock() = None;
    let (_wal, state) = open(&disk).expect("opens");
    assert_eq!(indexes(&state), [1, 2]);
    let after = disk.copy();
    after.power_cut();
    assert_eq!(indexes(&open(&after).expect("opens").1), [1, 2]);
}

#[test]
fn of_records_that_do_not_fit_none_is_taken() {
    let disk = MemoryDisk::default();
    let (wal, _) = open(&disk).expect("opens");
    write(&wal, vec![entry(1, 20)]).expect("stable");
    let refused = write(&wal, vec![entry(2, 20), entry(4, 20)]).expect_err("a gap");
    assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
    assert_eq!(wal.head().last, Some(id(1)));
    write(&wal, vec![entry(2, 30)]).expect("stable");
    drop(wal);
    assert_eq!(open(&disk).expect("opens").1.entries[1].payload.len(), 30);
}

#[test]
fn a_first_entry_that_cannot_be_read_is_not_left_out() {
    let disk = MemoryDisk::default();
    let (wal, _) = open(&disk).expect("opens");
    for index in 0..10 {
        let decided = Record::Committed(Some(id(index)));
        write(&wal, vec![entry(index, 300), decided]).expect("stable");
    }
    let mut bytes = disk.bytes(&file_name(1));
    bytes[HEADER + 200] ^= 1;
    disk.set(&file_name(1), bytes);
    assert_eq!(wal.read(0, 9, 1 << 20).expect_err("damage").kind(), io::ErrorKind::InvalidData);
}

#[test]
fn entries_that_left_memory_are_read_from_the_disk_until_they_are_purged() {
    let disk = MemoryDisk::default();
    let (wal, _) = open(&disk).expect("opens");
    for index in 1..=60 {
        let decided = Record::Committed(Some(id(index)));
        write(&wal, vec![entry(index, 300), decided]).expect("stable");
    }
    let found = |entries: Vec<Entry>| -> Vec<u64> { entries.iter().map(|entry| entry.id.index).collect() };
    assert!(wal.resident(1, 3, 9000).is_none());
    assert_eq!(found(wal.resident(60, 99, 9000).expect("the newest is in memory")), [60]);
    assert_eq!(wal.whole().expect("reads").entries.len(), 60);
    assert_eq!(found(wal.read(10, 20, 900).expect("reads")), [10, 11, 12]);
    let read = wal.read(59, 61, 1 << 20).expect("reads");
    assert_eq!((read[0].kind, read[0].payload.as_ref()), (1, &[59; 300][..]), "as it was written");
    let mut first = disk.bytes(&file_name(1));
    first[HEADER + 700] ^= 1;
    disk.set(&file_name(1), first);
    assert_eq!(wal.read(1, 9, 1 << 20).expect_err("damage").kind(), io::ErrorKind::InvalidData);
    disk.remove(&file_name(1)).expect("removes");
    write(&wal, vec![Record::Purge(id(30))]).expect("stable");
    assert_eq!(found(wal.read(1, 33, 1 << 20).expect("reads")), [31, 32], "whatever became of the others");
}
