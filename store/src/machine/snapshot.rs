//! All state as rows: a consistent view that is made at once and read at leisure, and the way back.

use super::{Change, FIRST_REVISION, Machine, Record, Row};
use std::sync::Arc;

/// All state of a moment. It shares the records, so it costs a pointer for each.
#[derive(Debug)]
pub struct View {
    revision: i64,
    compacted: i64,
    leases: Vec<(i64, i64)>,
    alarms: Vec<(u64, i32)>,
    records: Vec<Arc<Record>>,
}

/// Why bytes are no state.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RestoreError {
    #[error("the snapshot holds a row that is damaged or of another version")]
    BadRow,
    #[error("the snapshot's rows are out of order")]
    OutOfOrder,
    #[error("the snapshot ends within a row")]
    Cut,
}

impl Machine {
    /// See [`View`].
    #[must_use]
    pub fn view(&self) -> View {
        View {
            revision: self.revision,
            compacted: self.compacted,
            leases: self.leases().collect(),
            alarms: self.alarms().collect(),
            records: self.records.values().cloned().collect(),
        }
    }

    /// CRC-32C of all records up to `revision` (0: all), the same on every member.
    #[must_use]
    pub fn hash_kv(&self, revision: i64) -> u32 {
        hash(self.records.values(), revision)
    }
}

fn hash<'a>(records: impl Iterator<Item = &'a Arc<Record>>, revision: i64) -> u32 {
    let last = if revision == 0 { i64::MAX } else { revision };
    records
        .take_while(|record| record.kv.mod_revision <= last)
        .fold(crc32c::crc32c(b"key"), |crc, record| crc32c::crc32c_append(crc, &record.encode()))
}

impl View {
    /// As [`Machine::hash_kv`].
    #[must_use]
    pub fn hash(&self, revision: i64) -> u32 {
        hash(self.records.iter(), revision)
    }

    /// Revisions below this are gone; 0 when none are.
    #[must_use]
    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    /// The last revision in it.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Members and their alarms.
    pub fn alarms(&self) -> impl Iterator<Item = (u64, i32)> + '_ {
        self.alarms.iter().copied()
    }

    /// Leases and their times to live.
    pub fn leases(&self) -> impl Iterator<Item = (i64, i64)> + '_ {
        self.leases.iter().copied()
    }

    /// Records, in the order of their places.
    pub fn records(&self) -> impl Iterator<Item = &Arc<Record>> + '_ {
        self.records.iter()
    }

    /// All state as changes to an empty machine, in the order of their rows' keys.
    pub fn changes(&self) -> impl Iterator<Item = Change> + '_ {
        let alarms = self.alarms().map(|(member, alarm)| Change::Alarm { member, alarm });
        let compacted = (self.compacted > 0).then_some(Change::Compacted(self.compacted));
        let leases = self.leases().map(|(id, ttl)| Change::Lease { id, ttl });
        let records = self.records().cloned().map(Change::Record);
        alarms.chain(compacted).chain(leases).chain(records)
    }

    /// All rows, in the order of their keys.
    pub fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        self.changes().map(|change| change.row())
    }

    /// All rows, packed into chunks of about `bytes`; a chunk holds whole rows.
    pub fn chunks(&self, bytes: usize) -> impl Iterator<Item = Vec<u8>> + '_ {
        let mut rows = self.rows().peekable();
        std::iter::from_fn(move || {
            rows.peek()?;
            let mut chunk = Vec::with_capacity(bytes);
            while chunk.len() < bytes
                && let Some(row) = rows.next()
            {
                put_row(&mut chunk, &row.key, row.value.as_deref().unwrap_or_default());
            }
            Some(chunk)
        })
    }
}

fn put(chunk: &mut Vec<u8>, field: &[u8]) {
    // A field is a part of a request, which is far below 4 GiB.
    chunk.extend_from_slice(&u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
    chunk.extend_from_slice(field);
}

fn take<'a>(chunk: &mut &'a [u8]) -> Result<&'a [u8], RestoreError> {
    let (length, rest) = chunk.split_first_chunk::<4>().ok_or(RestoreError::Cut)?;
    let length = u32::from_be_bytes(*length) as usize;
    let (field, rest) = rest.split_at_checked(length).ok_or(RestoreError::Cut)?;
    *chunk = rest;
    Ok(field)
}

/// Adds a row to a chunk.
pub fn put_row(chunk: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    put(chunk, key);
    put(chunk, value);
}

/// Takes the first row, key and value, off a chunk.
///
/// # Errors
/// It ends within the row.
pub fn take_row<'a>(chunk: &mut &'a [u8]) -> Result<(&'a [u8], &'a [u8]), RestoreError> {
    Ok((take(chunk)?, take(chunk)?))
}

/// A machine in the making, from rows in the order of their keys.
#[derive(Debug)]
pub struct Restore {
    machine: Machine,
    last: Vec<u8>,
}

impl Default for Restore {
    fn default() -> Self {
        Self { machine: Machine::new(), last: Vec::new() }
    }
}

impl Restore {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one row.
    ///
    /// # Errors
    /// It is damaged, or does not follow the one before.
    pub fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), RestoreError> {
        if key <= self.last.as_slice() {
            return Err(RestoreError::OutOfOrder);
        }
        self.last.clear();
        self.last.extend_from_slice(key);
        self.change(Change::from_row(key, value).ok_or(RestoreError::BadRow)?)
    }

    /// Takes one change: records in the order of their places, and leases before what they hold.
    ///
    /// # Errors
    /// It is none that makes state.
    pub fn change(&mut self, change: Change) -> Result<(), RestoreError> {
        let machine = &mut self.machine;
        match change {
            Change::Record(record) => {
                let previous = machine
                    .index
                    .get(&record.kv.key)
                    .and_then(|history| history.records.last())
                    .map_or(0, |previous| previous.kv.lease);
                if previous != record.kv.lease {
                    machine.detach(previous, &record.kv.key);
                    machine.attach(record.kv.lease, &record.kv.key);
                }
                machine.revision = machine.revision.max(record.kv.mod_revision);
                machine.keep(record);
            }
            Change::Compacted(revision) => {
                machine.compacted = revision;
                machine.revision = machine.revision.max(revision);
            }
            Change::Lease { id, ttl } => {
                machine.leases.insert(id, super::lease::Lease { ttl, ..Default::default() });
            }
            Change::Alarm { member, alarm } => {
                machine.alarms.insert((member, alarm));
            }
            Change::Forget(_) | Change::LeaseGone(_) | Change::AlarmGone { .. } => {
                return Err(RestoreError::BadRow);
            }
        }
        Ok(())
    }

    /// Takes a chunk of [`View::chunks`].
    ///
    /// # Errors
    /// It is damaged, or does not follow the one before.
    pub fn chunk(&mut self, mut chunk: &[u8]) -> Result<(), RestoreError> {
        while !chunk.is_empty() {
            let (key, value) = take_row(&mut chunk)?;
            self.row(key, value)?;
        }
        Ok(())
    }

    /// Forgets all below `revision`, where that was not done yet. The last records may be gone already.
    pub fn compact(&mut self, revision: i64) {
        if revision > self.machine.compacted {
            self.machine.revision = self.machine.revision.max(revision);
            // It refuses only revisions that are compacted or yet to come.
            let _ = self.machine.compact(revision);
            drop(self.machine.take_effects());
        }
    }

    /// The machine.
    #[must_use]
    pub fn finish(self) -> Machine {
        debug_assert!(self.machine.revision >= FIRST_REVISION);
        self.machine
    }
}
