//! Reading single entries back from the disk.

use super::disk::{Disk, DiskFile};
use super::record::{Entry, Record};
use super::segment::{entry_len, file_name, record_at};
use super::tail::{Slot, Spot};
use std::fmt;
use std::io;
use std::sync::Arc;

/// Reads what the log's thread wrote, from any thread.
pub(super) struct Reader {
    disk: Arc<dyn Disk>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Reader")
    }
}

impl Reader {
    pub(super) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk }
    }

    /// All of these entries; those that are not in memory from the disk.
    ///
    /// # Errors
    /// The disk fails, or what it has is damaged.
    pub(super) fn entries(&self, slots: Vec<Slot>) -> io::Result<Vec<Entry>> {
        let mut open: Option<(u64, Box<dyn DiskFile>)> = None;
        let entry = |slot: Slot| {
            let Slot { id, kind, payload, .. } = slot;
            if let Some(payload) = payload {
                return Ok(Entry { id, kind, payload });
            }
            let damaged = || {
                let what = format!("log entry {} cannot be read back from the disk", id.index);
                io::Error::new(io::ErrorKind::InvalidData, what)
            };
            let Spot { segment, at } = slot.spot.ok_or_else(damaged)?;
            let file = match &mut open {
                Some((number, file)) if *number == segment => file,
                other => &mut other.insert((segment, self.disk.open(&file_name(segment))?)).1,
            };
            let mut bytes = vec![0; entry_len(slot.length)];
            file.read_at(at, &mut bytes)?;
            match record_at(&bytes, at, segment) {
                Some(Record::Entry(entry)) if entry.id == id => Ok(entry),
                _ => Err(damaged()),
            }
        };
        slots.into_iter().map(entry).collect()
    }
}
