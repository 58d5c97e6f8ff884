//! A folder in memory for the write-ahead log, and segments made of any records.

use crate::{byte, number, piece};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use store::wal::{Disk, DiskFile};

/// Files by name.
#[derive(Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl MemoryDisk {
    fn files<T>(&self, with: impl FnOnce(&mut BTreeMap<String, Vec<u8>>) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts a file.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        self.files(|files| files.insert(name.to_owned(), bytes));
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    name: String,
}

impl Disk for MemoryDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files(|files| files.keys().cloned().collect()))
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(MemoryFile { disk: self.clone(), name: name.to_owned() }))
    }
    fn create(&self, name: &str, size: u64) -> io::Result<Box<dyn DiskFile>> {
        self.put(name, vec![0; size as usize]);
        self.open(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.files(|files| {
            let bytes = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
            files.insert(to.to_owned(), bytes);
            Ok(())
        })
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.files(|files| files.remove(name));
        Ok(())
    }
}

impl DiskFile for MemoryFile {
    fn read_all(&self) -> io::Result<Vec<u8>> {
        self.disk.files(|files| files.get(&self.name).cloned().ok_or(io::ErrorKind::NotFound.into()))
    }
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.files(|files| {
            let file = files.get_mut(&self.name).ok_or(io::ErrorKind::NotFound)?;
            let offset = offset as usize;
            if file.len() < offset + bytes.len() {
                file.resize(offset + bytes.len(), 0);
            }
            file[offset..offset + bytes.len()].copy_from_slice(bytes);
            Ok(())
        })
    }
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn size(&self) -> io::Result<u64> {
        self.read_all().map(|bytes| bytes.len() as u64)
    }
}

/// The header of a segment, as `store::wal` describes it.
fn header(segment: u64, previous_end: u64) -> Vec<u8> {
    let mut bytes = b"CORACLEW\x01\0\0\0".to_vec();
    bytes.extend(segment.to_le_bytes());
    bytes.extend(previous_end.to_le_bytes());
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

fn record(out: &mut Vec<u8>, segment: u64, batch: u32, kind: u8, body: &[u8]) {
    let length = (body.len() as u32).to_le_bytes();
    let rest = [&batch.to_le_bytes()[..], &[kind, 0, 0, 0], body].concat();
    let crc = [&segment.to_le_bytes()[..], &length, &rest].concat();
    out.extend(length);
    out.extend(crc32c::crc32c(&crc).to_le_bytes());
    out.extend(rest);
    out.resize(out.len().next_multiple_of(8), 0);
}

fn id(data: &mut &[u8], out: &mut Vec<u8>) {
    for _ in 0..3 {
        out.extend(number(data).to_le_bytes());
    }
}

fn optional(data: &mut &[u8], out: &mut Vec<u8>) {
    let there = byte(data) & 1;
    out.push(there);
    if there == 1 {
        id(data, out);
    }
}

fn vote(data: &mut &[u8], out: &mut Vec<u8>) {
    out.extend(number(data).to_le_bytes());
    out.extend(number(data).to_le_bytes());
    out.push(byte(data) & 1);
}

/// The body of a record of that kind, from whatever numbers `data` has.
fn body(data: &mut &[u8], kind: u8) -> Vec<u8> {
    let mut out = Vec::new();
    match kind {
        1 => vote(data, &mut out),
        2 => {
            id(data, &mut out);
            out.push(byte(data) % 4);
            out.extend(piece(data, 16));
        }
        3 | 5 => optional(data, &mut out),
        4 => id(data, &mut out),
        6 => {
            let there = byte(data) & 1;
            out.push(there);
            if there == 1 {
                vote(data, &mut out);
            }
            (0..3).for_each(|_| optional(data, &mut out));
        }
        _ => out.extend(piece(data, 16)),
    }
    out
}

/// Segments of records whose checksums fit, with damage here and there.
pub fn segments(mut data: &[u8]) -> MemoryDisk {
    let disk = MemoryDisk::default();
    let data = &mut data;
    let mut previous_end = 0;
    let first = u64::from(byte(data) % 4);
    for segment in first..first + 1 + u64::from(byte(data) % 3) {
        let mut bytes = header(segment, previous_end);
        for _ in 0..byte(data) % 12 {
            let at = bytes.len() as u32;
            let batch = if byte(data).is_multiple_of(2) { at } else { 32 };
            let kind = byte(data) % 8;
            let body = body(data, kind);
            record(&mut bytes, segment, batch, kind, &body);
        }
        previous_end = bytes.len() as u64;
        bytes.resize(bytes.len() + 64, 0);
        if byte(data) > 192 {
            let at = usize::from(byte(data)) * 4 % bytes.len();
            bytes[at] ^= 1 << (byte(data) % 8);
        }
        disk.put(&format!("{segment:020}.wal"), bytes);
    }
    disk
}
