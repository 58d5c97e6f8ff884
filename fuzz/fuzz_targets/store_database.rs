//! etcd's databases: any rows in a sound file, and sound files with bytes changed behind the meta pages, which have a
//! checksum. What is read is written and read again.
#![no_main]

use coracle_fuzz::{byte, number, piece};
use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use store::bolt::{self, Buckets};
use store::database::{Dump, read};
use store::machine::Machine;

/// Where the pages with checksums end.
const BEHIND_META: usize = 2 * 4096;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn rows(data: &mut &[u8]) -> Rows {
    let rows = (0..byte(data) % 8).map(|_| (piece(data, 64).to_vec(), piece(data, 255).to_vec()));
    // No database has an empty key.
    rows.filter(|(key, _)| !key.is_empty()).collect()
}

/// A revision's key, mostly one that can be.
fn revisions(data: &mut &[u8]) -> Rows {
    let row = |data: &mut &[u8]| {
        let mut key = number(data).to_be_bytes().to_vec();
        key.push(b'_');
        key.extend(number(data).to_be_bytes());
        key.extend(piece(data, 1));
        (key, piece(data, 255).to_vec())
    };
    (0..byte(data) % 16).map(|_| row(data)).collect()
}

fn database(buckets: &BTreeMap<&str, Rows>) -> Vec<u8> {
    let fill = |out: &mut Buckets<'_>| buckets.iter().try_for_each(|(name, rows)| out.bucket(name, rows));
    let layout = bolt::measure(fill).expect("rows are in order");
    let mut bytes = Vec::new();
    bolt::write(&layout, &mut bytes, fill).expect("is written");
    bytes
}

/// In memory, without a name.
fn open(bytes: &[u8]) -> File {
    let file =
        File::options().read(true).write(true).create(true).truncate(true).open(scratch()).expect("a file");
    file.write_all_at(bytes, 0).expect("is written");
    file
}

fn scratch() -> String {
    format!("/dev/shm/coracle-fuzz-{}.db", std::process::id())
}

fn state(bytes: &[u8]) -> Option<Machine> {
    read(open(bytes), bytes.len() as u64).ok()
}

fuzz_target!(|data: &[u8]| {
    let data = &mut &*data;
    let how = byte(data);
    let mut buckets: BTreeMap<&str, Rows> =
        [("alarm", rows(data)), ("key", revisions(data)), ("lease", rows(data)), ("meta", rows(data))].into();
    if how & 2 > 0 {
        buckets.insert("auth", rows(data));
    }
    let mut bytes = database(&buckets);
    while how & 1 > 0 && !data.is_empty() {
        let at = BEHIND_META + usize::from(byte(data)) * 128 + usize::from(byte(data));
        let (at, piece) = (at % bytes.len(), piece(data, 16));
        let end = bytes.len().min(at + piece.len());
        bytes[at..end].copy_from_slice(&piece[..end - at]);
    }
    let Some(machine) = state(&bytes) else { return };
    let mut again = Vec::new();
    let dump = Dump::new(machine.view(), Vec::new(), 1, 1).expect("what was read can be written");
    dump.write(&mut again).expect("is written");
    let again = state(&again).expect("what was written can be read");
    assert_eq!(again.hash_kv(0), machine.hash_kv(0));
});
