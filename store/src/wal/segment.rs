//! A segment's bytes: framing, checksums, and telling a torn tail from damage.

use super::record::{ENTRY_HEAD, Record};

/// Bytes before the first record.
pub(super) const HEADER: usize = 32;
/// Bytes of a record before its body.
const FRAME: usize = 16;
const MAGIC: &[u8; 8] = b"CORACLEW";
const VERSION: u32 = 1;
/// Longest body that is believed.
const BODY_MAX: usize = 1 << 30;

/// Name of the file of segment `number`.
pub(super) fn file_name(number: u64) -> String {
    format!("{number:020}.wal")
}

/// The number in a file's name; `None` for other files.
pub(super) fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal")?;
    (digits.len() == 20).then(|| digits.parse().ok()).flatten()
}

/// The first bytes of segment `number`.
pub(super) fn header(number: u64, previous_end: u64) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..20].copy_from_slice(&number.to_le_bytes());
    bytes[20..28].copy_from_slice(&previous_end.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..28]);
    bytes[28..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// What a header says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderRead {
    /// Readable: where the previous segment ends.
    Good { previous_end: u64 },
    /// Not readable.
    Bad,
    /// Of another format.
    Version(u32),
}

/// Reads the header of segment `number`.
pub(super) fn read_header(bytes: &[u8], number: u64) -> HeaderRead {
    let Some((head, _)) = bytes.split_first_chunk::<HEADER>() else { return HeaderRead::Bad };
    if &head[..8] != MAGIC || u32_at(head, 28) != crc32c::crc32c(&head[..28]) || u64_at(head, 12) != number {
        return HeaderRead::Bad;
    }
    match u32_at(head, 8) {
        VERSION => HeaderRead::Good { previous_end: u64_at(head, 20) },
        other => HeaderRead::Version(other),
    }
}

/// Bytes that a record takes.
pub(super) fn framed_len(record: &Record) -> usize {
    padded(FRAME + record.body_len())
}

fn padded(length: usize) -> usize {
    length.next_multiple_of(8)
}

/// Appends `record` to `out`; `batch` is where in segment `number` its batch begins.
pub(super) fn put(out: &mut Vec<u8>, record: &Record, number: u64, batch: u32) {
    let at = out.len();
    let length = record.body_len();
    out.reserve(padded(FRAME + length));
    #[expect(
        clippy::cast_possible_truncation,
        reason = "bodies are far below BODY_MAX: requests are bounded"
    )]
    out.extend_from_slice(&(length as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&batch.to_le_bytes());
    out.extend_from_slice(&[record.kind(), 0, 0, 0]);
    record.put_body(out);
    let crc = checksum(number, &out[at..]);
    out[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
    out.resize(at + padded(FRAME + length), 0);
}

/// `framed` holds one record without padding.
fn checksum(number: u64, framed: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&number.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &framed[..4]);
    crc32c::crc32c_append(crc, &framed[8..])
}

struct Framed<'a> {
    batch: u64,
    kind: u8,
    body: &'a [u8],
    next: usize,
}

/// The frame at `at`, when it is whole and its checksum fits.
fn frame(bytes: &[u8], at: usize, number: u64) -> Option<Framed<'_>> {
    let head = bytes.get(at..at + FRAME)?;
    let length = u32_at(head, 0) as usize;
    let batch = u64::from(u32_at(head, 8));
    if length == 0 || length > BODY_MAX || batch > at as u64 {
        return None;
    }
    let framed = bytes.get(at..at + FRAME + length)?;
    (checksum(number, framed) == u32_at(head, 4)).then(|| Framed {
        batch,
        kind: head[12],
        body: &framed[FRAME..],
        next: at + padded(FRAME + length),
    })
}

/// Bytes that the record of an entry takes whose payload has `length` bytes, without what pads it.
pub(super) fn entry_len(length: usize) -> usize {
    FRAME + ENTRY_HEAD + length
}

/// The record in `bytes`, which are all of it and begin at `at` in segment `number`; `None` when they are damaged.
pub(super) fn record_at(bytes: &[u8], at: u64, number: u64) -> Option<Record> {
    let batch = u64::from(u32_at(bytes, 8));
    if batch > at || bytes.len() < FRAME || u32_at(bytes, 0) as usize != bytes.len() - FRAME {
        return None;
    }
    (checksum(number, bytes) == u32_at(bytes, 4)).then(|| Record::from_body(bytes[12], &bytes[FRAME..]))?
}

/// What a segment holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scan {
    /// Every record with its place.
    pub(super) records: Vec<(u64, Record)>,
    /// Where the last one ends.
    pub(super) end: u64,
    /// Whether bytes of an unfinished batch follow.
    pub(super) torn: bool,
}

/// Reads every record of segment `number`, or says at which byte acknowledged data is damaged.
pub(super) fn scan(bytes: &[u8], number: u64) -> Result<Scan, u64> {
    let mut records = Vec::new();
    let mut at = HEADER;
    while let Some(framed) = frame(bytes, at, number) {
        // A checksum that fits over a body that does not parse was written so: no torn write does that.
        let record = Record::from_body(framed.kind, framed.body).ok_or(at as u64)?;
        records.push((at as u64, record));
        at = framed.next;
    }
    let torn = bytes.get(at..).is_some_and(|rest| rest.iter().any(|byte| *byte != 0));
    if torn && later_batch(bytes, at, number) {
        return Err(at as u64);
    }
    Ok(Scan { records, end: at as u64, torn })
}

/// Whether a readable record of a batch that began after `broken` stands after it.
pub(super) fn later_batch(bytes: &[u8], broken: usize, number: u64) -> bool {
    let mut at = broken;
    while at + FRAME <= bytes.len() {
        if frame(bytes, at, number).is_some_and(|framed| framed.batch > broken as u64) {
            return true;
        }
        at += 8;
    }
    false
}

/// Every readable record from `from` on, with its place, whatever is unreadable between.
pub(super) fn readable(bytes: &[u8], from: usize, number: u64) -> impl Iterator<Item = (usize, Record)> {
    let mut at = from.next_multiple_of(8);
    std::iter::from_fn(move || {
        while at + FRAME <= bytes.len() {
            let place = at;
            let framed = frame(bytes, at, number);
            at = framed.as_ref().map_or(at + 8, |framed| framed.next);
            if let Some(record) = framed.and_then(|framed| Record::from_body(framed.kind, framed.body)) {
                return Some((place, record));
            }
        }
        None
    })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u32::from_le_bytes(*chunk))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u64::from_le_bytes(*chunk))
}
