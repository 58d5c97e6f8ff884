//! The write-ahead log: any files, and any records with right checksums. What opens can be opened again, to the same state.
#![no_main]

use coracle_fuzz::disk::{MemoryDisk, segments};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;
use std::time::Duration;
use store::wal::{Observer, Options, Wal, inspect};

struct Nobody;

impl Observer for Nobody {
    fn synced(&self, _: Duration) {}
    fn has_room(&self, _: bool) {}
}

fuzz_target!(|data: &[u8]| {
    let Some((how, data)) = data.split_first() else { return };
    let disk = if how % 4 == 0 {
        let disk = MemoryDisk::default();
        disk.put("00000000000000000001.wal", data.to_vec());
        disk
    } else {
        segments(data)
    };
    let seen = inspect(&disk).expect("this disk never fails");
    let options = Options { segment_bytes: 4096, batch_bytes: 4096, resident_bytes: usize::from(*how) };
    let open = || Wal::open_driven(Arc::new(disk.clone()), options, Nobody);
    if let Ok((wal, ..)) = open() {
        let state = wal.whole().expect("what was opened can be read");
        assert!(seen.damage.is_none(), "opened, though inspection tells of damage: {seen:?}");
        let again = open().and_then(|(wal, ..)| Ok(wal.whole().expect("reads")));
        assert_eq!(again.expect("what was opened opens again"), state);
        let _ = state.range(0, u64::MAX).count();
    }
});
