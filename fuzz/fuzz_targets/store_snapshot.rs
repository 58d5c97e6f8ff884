//! Snapshots and images: any bytes, and any rows with right checksums. What is read is written and read again.
#![no_main]

use coracle_etcd::proto::RangeRequest;
use coracle_fuzz::{byte, piece};
use libfuzzer_sys::fuzz_target;
use std::path::PathBuf;
use std::sync::LazyLock;
use store::machine::{Machine, Restore};
use store::raft::Snapshots;

/// In memory: a file is written for each run.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = PathBuf::from(format!("/dev/shm/coracle-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
});

fn use_it(machine: &Machine) {
    let view = machine.view();
    assert_eq!(view.hash(0), machine.hash_kv(0));
    let mut again = Restore::new();
    for chunk in view.chunks(64) {
        again.chunk(&chunk).expect("what was read is written so that it can be read");
    }
    assert_eq!(again.finish().hash_kv(0), machine.hash_kv(0));
    let all = RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..RangeRequest::default() };
    let _ = machine.range(&all);
}

fn snapshot(bytes: &[u8]) {
    std::fs::write(FOLDER.join("00000000000000000001-00000000000000000001.snap"), bytes).expect("written");
    if let Ok(Some((_, file))) = Snapshots::open(&FOLDER).and_then(|snapshots| snapshots.newest())
        && let Ok(machine) = file.restore()
    {
        use_it(&machine);
    }
}

/// A snapshot with right checksums around a description and chunks of rows.
fn framed(mut data: &[u8]) -> Vec<u8> {
    let data = &mut data;
    let meta = if byte(data) < 200 { &[0; 4][..] } else { piece(data, 32) };
    let mut out = b"CORACLES\x01\0\0\0".to_vec();
    out.extend((meta.len() as u32).to_le_bytes());
    out.extend(meta);
    out.extend(crc32c::crc32c(&out).to_le_bytes());
    let mut chunks = 0_u64;
    while !data.is_empty() {
        let rows = rows(data);
        out.extend((rows.len() as u32).to_le_bytes());
        out.extend(crc32c::crc32c_append(crc32c::crc32c(&chunks.to_le_bytes()), &rows).to_le_bytes());
        out.extend(rows);
        chunks += 1;
    }
    out.extend([0; 4]);
    out.extend(crc32c::crc32c(&chunks.to_le_bytes()).to_le_bytes());
    out.extend(chunks.to_le_bytes());
    out
}

/// Keys and values with their lengths.
fn rows(data: &mut &[u8]) -> Vec<u8> {
    let mut rows = Vec::new();
    for _ in 0..=byte(data) % 8 {
        for _ in 0..2 {
            let field = piece(data, 64);
            rows.extend((field.len() as u32).to_be_bytes());
            rows.extend(field);
        }
    }
    rows
}

fuzz_target!(|data: &[u8]| {
    let Some((how, data)) = data.split_first() else { return };
    match how % 3 {
        0 => snapshot(data),
        1 => {
            let mut restore = Restore::new();
            if restore.chunk(data).is_ok() {
                use_it(&restore.finish());
            }
        }
        _ => snapshot(&framed(data)),
    }
});
