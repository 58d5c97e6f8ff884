//! Who writes: the log's thread, or a caller that has nothing better to do.

use super::*;
use std::thread::{self, ThreadId};

const ROOMY: Options = Options { segment_bytes: 4096, batch_bytes: 512, resident_bytes: 500 };

/// Writes, and tells on which thread that was.
fn writer(wal: &Wal, records: Vec<Record>, durability: Durability) -> ThreadId {
    let (done, wait) = channel();
    let done =
        move |result: io::Result<()>| done.send(result.map(|()| thread::current().id())).expect("waits");
    wal.write(records, durability, Some(Box::new(done))).expect("fits");
    wait.recv().expect("called").expect("stable")
}

#[test]
fn callers_write_while_syncs_are_quick_and_the_segment_has_room() {
    let disk = MemoryDisk::default();
    let wal = Wal::open(Arc::new(disk.clone()), ROOMY, Ignore).expect("opens");
    let (here, mut next) = (thread::current().id(), 0);
    let mut write = |durability, size| {
        next += 1;
        writer(&wal, vec![entry(next, size)], durability)
    };
    assert_ne!(write(Durability::Here, 5), here, "nothing is known of the disk yet");
    // A machine that has other things to do may make a sync slow: then the thread writes until some were quick again.
    while write(Durability::Here, 5) != here {}
    assert_ne!(write(Durability::Now, 5), here);
    *disk.sync_takes.lock() = Duration::from_millis(20);
    write(Durability::Here, 5);
    assert_ne!(write(Durability::Here, 5), here, "the last sync was slow");
    *disk.sync_takes.lock() = Duration::ZERO;
    while write(Durability::Here, 5) != here {}
    while write(Durability::Here, 3500) != here {}
    assert_ne!(write(Durability::Here, 5), here, "a new segment takes long");
    drop(wal);
    let (_, state) = open(&disk).expect("opens");
    assert_eq!(state.entries.len() as u64, next);
}

proptest! {
    #[test]
    fn whoever_writes_calls_back_in_order_once_it_is_stable(
        durabilities in proptest::collection::vec(0..3_u8, 1..60),
    ) {
        let disk = MemoryDisk::default();
        let wal = Wal::open(Arc::new(disk.clone()), ROOMY, Ignore).expect("opens");
        let (done, wait) = channel();
        let mut asked = Vec::new();
        for (index, durability) in (1..).zip(durabilities.into_iter().chain([0])) {
            let done = done.clone();
            let stable = Box::new(move |result: io::Result<()>| done.send((index, result.is_ok())).expect("waits"));
            match durability {
                0 => wal.write(vec![entry(index, 40)], Durability::Now, Some(stable)),
                1 => wal.write(vec![entry(index, 40)], Durability::Here, Some(stable)),
                _ => {
                    wal.write(vec![Record::Committed(None)], Durability::Later, None).expect("fits");
                    wal.write(vec![entry(index, 40)], Durability::Here, Some(stable))
                }
            }
            .expect("fits");
            asked.push((index, true));
        }
        let called: Vec<_> = wait.iter().take(asked.len()).collect();
        prop_assert_eq!(&called, &asked);
        // Everything was acknowledged, so nothing may be lost.
        let after = disk.copy();
        after.power_cut();
        let (_, state) = open(&after).expect("opens");
        prop_assert_eq!(state.entries.len(), asked.len());
    }
}
