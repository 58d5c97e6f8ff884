//! Tests against a disk in memory that can lose what was not synced.

use super::segment::{HEADER, file_name, framed_len, header, put, scan};
use super::*;
use bytes::Bytes;
use parking_lot::Mutex;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

mod here;
mod stable;

#[derive(Clone, Default)]
struct MemoryDisk {
    files: Arc<Mutex<BTreeMap<String, Bytes2>>>,
    /// Syncs that still succeed; `None` when all do.
    syncs_left: Arc<Mutex<Option<u32>>>,
    writes: Arc<Mutex<u32>>,
    sync_takes: Arc<Mutex<Duration>>,
}

/// What a reader sees, and what a power cut leaves.
#[derive(Clone, Default)]
struct Bytes2 {
    seen: Vec<u8>,
    stable: Vec<u8>,
}

impl MemoryDisk {
    fn power_cut(&self) {
        for file in self.files.lock().values_mut() {
            file.seen = file.stable.clone();
        }
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        self.files.lock()[name].seen.clone()
    }

    fn set(&self, name: &str, bytes: Vec<u8>) {
        self.files.lock().insert(name.to_owned(), Bytes2 { stable: bytes.clone(), seen: bytes });
    }

    fn copy(&self) -> Self {
        Self { files: Arc::new(Mutex::new(self.files.lock().clone())), ..Self::default() }
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    name: String,
}

impl Disk for MemoryDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files.lock().keys().cloned().collect())
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(MemoryFile { disk: self.clone(), name: name.to_owned() }))
    }
    fn create(&self, name: &str, size: u64) -> io::Result<Box<dyn DiskFile>> {
        self.set(name, vec![0; size as usize]);
        self.open(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files.lock();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.lock().remove(name);
        Ok(())
    }
}

impl DiskFile for MemoryFile {
    fn read_all(&self) -> io::Result<Vec<u8>> {
        Ok(self.disk.bytes(&self.name))
    }
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        *self.disk.writes.lock() += 1;
        let mut files = self.disk.files.lock();
        let seen = &mut files.get_mut(&self.name).ok_or(io::ErrorKind::NotFound)?.seen;
        seen[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
    fn sync(&mut self) -> io::Result<()> {
        let takes = *self.disk.sync_takes.lock();
        std::thread::park_timeout(takes);
        if let Some(left) = self.disk.syncs_left.lock().as_mut() {
            *left = left.checked_sub(1).ok_or_else(|| io::Error::other("broken disk"))?;
        }
        let mut files = self.disk.files.lock();
        let file = files.get_mut(&self.name).ok_or(io::ErrorKind::NotFound)?;
        file.stable = file.seen.clone();
        Ok(())
    }
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.bytes(&self.name).len() as u64)
    }
}

struct Ignore;

impl Observer for Ignore {
    fn synced(&self, _: std::time::Duration) {}
    fn has_room(&self, _: bool) {}
}

const SMALL: Options = Options { segment_bytes: 4096, batch_bytes: 1 << 20, resident_bytes: 500 };

fn open(disk: &MemoryDisk) -> Result<(Wal, LogState), WalError> {
    let wal = Wal::open(Arc::new(disk.clone()), SMALL, Ignore)?;
    let state = wal.whole().expect("reads");
    Ok((wal, state))
}

fn id(index: u64) -> EntryId {
    EntryId { term: 1, leader: 7, index }
}

fn entry(index: u64, size: usize) -> Record {
    Record::Entry(Entry { id: id(index), kind: 1, payload: Bytes::from(vec![index as u8 | 1; size]) })
}

/// Writes and waits until it is stable.
fn write(wal: &Wal, records: Vec<Record>) -> io::Result<()> {
    let (done, wait) = channel();
    wal.write(records, Durability::Now, Some(Box::new(move |result| done.send(result).expect("waits"))))?;
    wait.recv().expect("called")
}

fn indexes(state: &LogState) -> Vec<u64> {
    state.entries.iter().map(|entry| entry.id.index).collect()
}

#[test]
fn what_was_acknowledged_survives_a_power_cut() {
    let disk = MemoryDisk::default();
    let (wal, state) = open(&disk).expect("opens");
    assert_eq!(state, LogState::default());
    let vote = Vote { term: 3, member: 7, committed: true };
    write(&wal, vec![Record::Vote(vote)]).expect("stable");
    write(&wal, (1..=5).map(|index| entry(index, 100)).collect()).expect("stable");
    write(&wal, vec![Record::TruncateAfter(Some(id(3))), entry(4, 9)]).expect("stable");
    write(&wal, vec![Record::Committed(Some(id(4))), Record::Purge(id(1))]).expect("stable");
    let after = disk.copy();
    drop(wal);
    after.power_cut();
    let (_wal, state) = open(&after).expect("opens");
    let head = Head { vote: Some(vote), committed: Some(id(4)), purged: Some(id(1)), last: Some(id(4)) };
    assert_eq!(state.head, head);
    assert_eq!(indexes(&state), [2, 3, 4]);
    assert_eq!(state.entries[2].payload.len(), 9);
    assert_eq!(state.range(3, 99).count(), 2);
    assert_eq!(state.range(0, 3).count(), 1);
}

#[test]
fn a_torn_tail_is_cut_off_wherever_the_last_record_ended() {
    let disk = MemoryDisk::default();
    let (wal, _) = open(&disk).expect("opens");
    write(&wal, vec![entry(1, 20), entry(2, 20)]).expect("stable");
    let before = scan(&disk.bytes(&file_name(1)), 1).expect("whole").end as usize;
    write(&wal, vec![entry(3, 61)]).expect("stable");
    let whole = disk.bytes(&file_name(1));
    let after = scan(&whole, 1).expect("whole").end as usize;
    drop(wal);
    for cut in before..after {
        let torn = disk.copy();
        let mut bytes = whole.clone();
        bytes[cut..].fill(0);
        torn.set(&file_name(1), bytes);
        let (wal, state) = open(&torn).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        // The last bytes are padding.
        let complete = cut >= before + 16 + 25 + 61;
        assert_eq!(indexes(&state), if complete { vec![1, 2, 3] } else { vec![1, 2] }, "cut at {cut}");
        // What follows is not confused by what was cut off.
        let next = if complete { 4 } else { 3 };
        write(&wal, vec![entry(next, 5)]).expect("stable");
        drop(wal);
        let (_wal, state) = open(&torn).expect("opens");
        assert_eq!(indexes(&state).last(), Some(&next), "cut at {cut}");
    }
}

#[test]
fn a_batch_whose_pages_arrived_out_of_order_is_torn_not_damaged() {
    let disk = MemoryDisk::default();
    let (wal, _) = open(&disk).expect("opens");
    write(&wal, vec![entry(1, 20)]).expect("stable");
    let before = scan(&disk.bytes(&file_name(1)), 1).expect("whole").end as usize;
    write(&wal, vec![entry(2, 200), entry(3, 200)]).expect("stable");
    drop(wal);
    let mut bytes = disk.bytes(&file_name(1));
    bytes[before..before + 100].fill(0);
    disk.set(&file_name(1), bytes);
    let (_wal, state) = open(&disk).expect("opens");
    assert_eq!(indexes(&state), [1]);
}

#[test]
fn a_flipped_bit_in_acknowledged_data_is_refused() {
    let disk = MemoryDisk::default();
    let (wal, _) = open(&disk).expect("opens");
    write(&wal, vec![entry(1, 20)]).expect("stable");
    let end = scan(&disk.bytes(&file_name(1)), 1).expect("whole").end as usize;
    write(&wal, vec![entry(2, 20)]).expect("stable");
    drop(wal);
    let whole = disk.bytes(&file_name(1));
    let padding = |at: usize| (HEADER + 16 + 4..HEADER + 24).contains(&at) || (end - 3..end).contains(&at);
    for at in (0..end).filter(|at| !padding(*at)) {
        for bit in [0, 7] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            let broken = disk.copy();
            broken.set(&file_name(1), bytes);
            let refused = open(&broken).map(|(_, state)| state);
            assert!(
                matches!(refused, Err(WalError::Damaged { segment: 1, .. })),
                "bit {bit} of byte {at}: {refused:?}"
            );
        }
    }
}

#[test]
fn requests_that_wait_share_one_sync_and_are_called_back_in_order() {
    let disk = MemoryDisk::default();
    let (wal, _) = open(&disk).expect("opens");
    let (order, called) = channel();
    let gate = Arc::new(Mutex::new(()));
    let held = gate.lock();
    let (blocked, entered) = channel();
    let wait = gate.clone();
    // The first call back holds the log's thread until everything else waits.
    wal.write(
        vec![entry(1, 5)],
        Durability::Now,
        Some(Box::new(move |_| {
            blocked.send(()).expect("waits");
            drop(wait.lock());
        })),
    )
    .expect("fits");
    entered.recv().expect("entered");
    let before = *disk.writes.lock();
    for index in 2..=50 {
        let order = order.clone();
        wal.write(
            vec![entry(index, 5)],
            Durability::Now,
            Some(Box::new(move |result| order.send((index, result.is_ok())).expect("waits"))),
        )
        .expect("fits");
    }
    drop(held);
    let seen: Vec<_> = (2..=50).map(|_| called.recv().expect("called")).collect();
    assert_eq!(seen, (2..=50).map(|index| (index, true)).collect::<Vec<_>>());
    assert_eq!(*disk.writes.lock() - before, 1, "one batch");
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_any_more() {
    let disk = MemoryDisk::default();
    let (wal, _) = open(&disk).expect("opens");
    *disk.syncs_left.lock() = Some(1);
    write(&wal, vec![entry(1, 5)]).expect("stable");
    assert!(write(&wal, vec![entry(2, 5)]).is_err());
    *disk.syncs_left.lock() = None;
    assert!(write(&wal, vec![entry(3, 5)]).is_err(), "never retried");
    drop(wal);
    disk.power_cut();
    assert_eq!(indexes(&open(&disk).expect("opens").1), [1]);
}

#[test]
fn segments_follow_each_other_and_old_ones_go_once_purged() {
    let disk = MemoryDisk::default();
    let (wal, _) = open(&disk).expect("opens");
    write(&wal, vec![Record::Vote(Vote { term: 9, member: 7, committed: false })]).expect("stable");
    for index in 1..=60 {
        write(&wal, vec![entry(index, 300)]).expect("stable");
    }
    // Larger than a segment.
    write(&wal, vec![entry(61, 9000)]).expect("stable");
    let segments =
        |disk: &MemoryDisk| disk.list().expect("lists").iter().filter(|n| n.ends_with(".wal")).count();
    assert!(segments(&disk) > 4, "{}", segments(&disk));
    let (_, state) = open(&disk.copy()).expect("opens");
    assert_eq!(indexes(&state), (1..=61).collect::<Vec<_>>());
    write(&wal, vec![Record::Purge(id(60))]).expect("stable");
    drop(wal);
    assert!(segments(&disk) <= 2, "{:?}", disk.list());
    let (wal, state) = open(&disk).expect("opens");
    assert_eq!(indexes(&state), [61]);
    assert_eq!(state.head.vote.map(|vote| vote.term), Some(9), "the vote outlives its segment");
    drop(wal);
}

#[test]
fn missing_and_shortened_segments_are_noticed() {
    let disk = MemoryDisk::default();
    let (wal, _) = open(&disk).expect("opens");
    for index in 1..=60 {
        write(&wal, vec![entry(index, 300)]).expect("stable");
    }
    drop(wal);
    let hole = disk.copy();
    hole.remove(&file_name(3)).expect("removed");
    assert!(matches!(open(&hole), Err(WalError::Missing { segment: 3 })));
    let beheaded = disk.copy();
    beheaded.remove(&file_name(1)).expect("removed");
    assert!(matches!(open(&beheaded), Err(WalError::Missing { segment: 1 })));
    let short = disk.copy();
    let mut bytes = short.bytes(&file_name(2));
    let end = scan(&bytes, 2).expect("whole").end as usize;
    bytes[end - 328..].fill(0);
    short.set(&file_name(2), bytes);
    assert!(matches!(open(&short), Err(WalError::Damaged { segment: 2, .. })));
}

#[test]
fn a_segment_that_was_never_finished_is_forgotten() {
    let disk = MemoryDisk::default();
    let (wal, _) = open(&disk).expect("opens");
    write(&wal, vec![entry(1, 20)]).expect("stable");
    drop(wal);
    for bytes in [vec![], vec![0; 4096], [&b"CORACLEW\x01"[..], &[0; 4000]].concat()] {
        let died = disk.copy();
        died.set(&file_name(2), bytes);
        let (wal, state) = open(&died).expect("opens");
        assert_eq!(indexes(&state), [1]);
        write(&wal, vec![entry(2, 4000)]).expect("stable");
        drop(wal);
        assert_eq!(indexes(&open(&died).expect("opens").1), [1, 2]);
    }
}

#[test]
fn what_opens_is_not_called_damaged() {
    let disk = MemoryDisk::default();
    let (wal, _) = open(&disk).expect("opens");
    write(&wal, vec![entry(1, 20)]).expect("stable");
    drop(wal);
    let end = scan(&disk.bytes(&file_name(1)), 1).expect("whole").end;
    // The first batch of a new segment is torn: its head is unreadable, what was written with it is not.
    for previous_end in [end, 0] {
        let mut bytes = header(2, previous_end).to_vec();
        for record in [Record::Head(Head::default()), Record::Committed(None)] {
            put(&mut bytes, &record, 2, HEADER as u32);
        }
        bytes[HEADER + 4] ^= 1;
        bytes.resize(4096, 0);
        let died = disk.copy();
        died.set(&file_name(2), bytes);
        assert!(inspect(&died).expect("reads").damage.is_none());
        assert_eq!(indexes(&open(&died).expect("opens").1), [1]);
    }
}

#[test]
fn a_segment_before_another_cannot_be_torn() {
    let disk = MemoryDisk::default();
    let (wal, _) = open(&disk).expect("opens");
    write(&wal, vec![entry(1, 20), entry(2, 20)]).expect("stable");
    drop(wal);
    let mut bytes = disk.bytes(&file_name(1));
    let end = scan(&bytes, 1).expect("whole").end as usize;
    bytes[end - 30] ^= 1;
    disk.set(&file_name(1), bytes);
    assert_eq!(indexes(&open(&disk.copy()).expect("opens").1), [1]);
    // The next one was begun, so all of it had been acknowledged: at every start.
    disk.set(&file_name(2), vec![0; 4096]);
    for _ in 0..2 {
        assert!(matches!(open(&disk), Err(WalError::Damaged { segment: 1, .. })));
        assert!(inspect(&disk).expect("reads").damage.is_some());
    }
}

#[test]
fn the_greatest_index_is_one_like_others() {
    let mut state = LogState::<Entry>::default();
    let mut apply = |record| state.apply(record);
    assert!(apply(entry(u64::MAX, 1)).is_ok() && apply(entry(0, 1)).is_err());
    assert!(apply(Record::TruncateAfter(Some(id(u64::MAX)))).is_ok());
    assert!(apply(Record::Purge(id(u64::MAX))).is_ok());
    assert!(state.is_whole() && state.entries.is_empty());
}

#[test]
fn records_for_later_go_with_the_next_batch_or_the_end() {
    let disk = MemoryDisk::default();
    let (wal, _) = open(&disk).expect("opens");
    write(&wal, vec![entry(1, 5), entry(2, 5)]).expect("stable");
    let before = *disk.writes.lock();
    wal.write(vec![Record::Committed(Some(id(1)))], Durability::Later, None).expect("fits");
    write(&wal, vec![entry(3, 5)]).expect("stable");
    assert_eq!(*disk.writes.lock() - before, 1);
    wal.write(vec![Record::Committed(Some(id(2)))], Durability::Later, None).expect("fits");
    drop(wal);
    assert_eq!(open(&disk).expect("opens").1.head.committed, Some(id(2)));
}

#[test]
fn a_folder_on_a_real_disk_keeps_a_second_process_out() {
    let temporary = tempfile::tempdir().expect("folder");
    let path = temporary.path().join("wal");
    let folder = Arc::new(Folder::open(&path).expect("opens"));
    assert!(Folder::open(&path).is_err());
    let wal = Wal::open(folder, SMALL, Ignore).expect("opens");
    for index in 1..=60 {
        write(&wal, vec![entry(index, 300)]).expect("stable");
    }
    drop(wal);
    let folder = Arc::new(Folder::open(&path).expect("opens again"));
    let wal = Wal::open(folder, SMALL, Ignore).expect("opens");
    assert_eq!(wal.whole().expect("reads").entries.len(), 60);
}

fn any_id() -> impl Strategy<Value = EntryId> {
    (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(term, leader, index)| EntryId {
        term,
        leader,
        index,
    })
}

fn any_record() -> impl Strategy<Value = Record> {
    let vote = || {
        (any::<u64>(), any::<u64>(), any::<bool>()).prop_map(|(term, member, committed)| Vote {
            term,
            member,
            committed,
        })
    };
    let optional = || proptest::option::of(any_id());
    prop_oneof![
        vote().prop_map(Record::Vote),
        (any_id(), any::<u8>(), proptest::collection::vec(any::<u8>(), 0..200))
            .prop_map(|(id, kind, payload)| Record::Entry(Entry { id, kind, payload: payload.into() })),
        optional().prop_map(Record::TruncateAfter),
        any_id().prop_map(Record::Purge),
        optional().prop_map(Record::Committed),
        (proptest::option::of(vote()), optional(), optional(), optional())
            .prop_map(|(vote, committed, purged, last)| Record::Head(Head { vote, committed, purged, last })),
    ]
}

proptest! {
    #[test]
    fn records_survive_the_disk(records in proptest::collection::vec(any_record(), 0..20), number in any::<u64>()) {
        let mut bytes = vec![0; HEADER];
        let mut places = Vec::new();
        for record in &records {
            places.push(bytes.len() as u64);
            let expected = framed_len(record);
            let before = bytes.len();
            put(&mut bytes, record, number, before as u32);
            prop_assert_eq!(bytes.len() - before, expected);
        }
        let end = bytes.len() as u64;
        bytes.resize(bytes.len() + 512, 0);
        let scanned = scan(&bytes, number).expect("whole");
        prop_assert_eq!((scanned.end, scanned.torn), (end, false));
        let expected: Vec<_> = places.into_iter().zip(records).collect();
        prop_assert_eq!(scanned.records, expected);
        prop_assert!(scan(&bytes, number.wrapping_add(1)).map_or(true, |other| other.records.is_empty()));
    }

    #[test]
    fn no_bytes_make_a_scan_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = scan(&bytes, 1);
        for kind in 0..8 {
            let _ = Record::from_body(kind, &bytes);
        }
    }
}
