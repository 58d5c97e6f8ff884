//! A member: the store's own log, machine and hub, and what this simulation promises in its name.

use crate::disk::SimDisk;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;
use store::command::Command;
use store::machine::{Machine, Restore};
use store::wal::{Durability, Entry, EntryId, LogState, Observer, Options, Record, Wal, WalError};
use store::watch::Hub;

/// Small segments, so that they change often.
const OPTIONS: Options = Options { segment_bytes: 4096, batch_bytes: 1 << 20, resident_bytes: 512 };
/// Bytes of a snapshot's chunk: small, so that there are several.
const CHUNK: usize = 512;

/// All state up to an entry.
#[derive(Clone)]
pub struct Snapshot {
    pub id: EntryId,
    pub chunks: Vec<Vec<u8>>,
}

/// What runs while the member is up.
pub struct Running {
    wal: Wal,
    /// The log as the member knows it.
    pub log: LogState,
    pub machine: Machine,
    pub hub: Hub,
    /// The last entry that the machine has.
    pub applied: u64,
}

/// A member, up or down.
pub struct Member {
    pub name: usize,
    pub disk: SimDisk,
    /// On the same disk, whole or not at all: it is made beside the old one and renamed.
    pub snapshot: Option<Snapshot>,
    pub running: Option<Running>,
    /// The log as it was acknowledged, and the records whose fate is open: of them any first few may have stayed.
    pub promised: LogState,
    pub open: Vec<Record>,
    /// What its wall clock shows next; any number will do.
    clock: u32,
}

/// Nobody wants to know how a simulated disk does.
struct NoOneAsks;

impl Observer for NoOneAsks {
    fn synced(&self, _: Duration) {}
    fn has_room(&self, _: bool) {}
}

impl Member {
    pub fn new(name: usize, disk: SimDisk) -> Self {
        Self {
            name,
            disk,
            snapshot: None,
            running: None,
            promised: LogState::default(),
            open: Vec::new(),
            clock: 0,
        }
    }

    /// Starts the member from what its disk has. `None`: the power went again meanwhile.
    ///
    /// # Errors
    /// The log refuses to open though nothing but the power failed, or the snapshot cannot be restored.
    pub fn start(&mut self) -> Result<Option<LogState>, String> {
        let opened = Wal::open(Arc::new(self.disk.clone()), OPTIONS, NoOneAsks);
        let wal = match opened {
            Ok(opened) => opened,
            Err(WalError::Folder { .. } | WalError::Segment { .. }) => return Ok(None),
            Err(error) => return Err(format!("member {} cannot open its log: {error}", self.name)),
        };
        let Ok(log) = wal.whole() else { return Ok(None) };
        let mut restore = Restore::new();
        for chunk in self.snapshot.iter().flat_map(|snapshot| &snapshot.chunks) {
            restore.chunk(chunk).map_err(|error| format!("member {}: {error}", self.name))?;
        }
        let machine = restore.finish();
        let applied = self.snapshot.as_ref().map_or(0, |snapshot| snapshot.id.index);
        let hub = Hub::new(machine.revision());
        self.running = Some(Running { wal, log: log.clone(), machine, hub, applied });
        Ok(Some(log))
    }

    /// The power is gone; what runs is lost.
    pub fn stop(&mut self) {
        self.disk.cut_after(0);
        self.running = None;
    }

    /// Writes records and waits. Returns whether they are stable; if not, the member is down.
    pub fn write(&mut self, records: Vec<Record>) -> Result<bool, String> {
        let Some(running) = &mut self.running else { return Ok(false) };
        let (done, wait) = mpsc::channel();
        let tell = move |result: io::Result<()>| {
            // Whoever waits is right below.
            let _ = done.send(result);
        };
        let fits = running.wal.write(records.clone(), Durability::Now, Some(Box::new(tell)));
        fits.map_err(|error| error.to_string())?;
        let written = wait.recv().map_err(|_| "the log never called back".to_owned())?;
        if written.is_err() {
            self.open = records;
            self.stop();
            return Ok(false);
        }
        for record in records {
            running.log.apply(record.clone())?;
            self.promised.apply(record)?;
        }
        Ok(true)
    }

    /// The last entry of the log, `0, 0` of none: what elections compare.
    pub fn last(&self) -> (u64, u64) {
        let last = self.running.as_ref().and_then(|running| running.log.head.last);
        last.map_or((0, 0), |id| (id.term, id.index))
    }

    /// The entry at `index`, if the log has it.
    pub fn entry(&self, index: u64) -> Option<&Entry> {
        let log = &self.running.as_ref()?.log;
        let first = log.head.purged.map_or(1, |id| id.index + 1);
        log.entries.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }

    /// Applies the entry that is next.
    pub fn apply_next(&mut self) -> Result<(), String> {
        let Some(next) = self.running.as_ref().map(|running| running.applied + 1) else { return Ok(()) };
        let Some(entry) = self.entry(next) else { return Ok(()) };
        let command = Command::decode(entry.payload.clone()).map_err(|error| error.to_string())?;
        let Some(running) = &mut self.running else { return Ok(()) };
        // No two members have the same clock, nor one when it applies an entry for the second time.
        self.clock = self.clock.wrapping_mul(5).wrapping_add(self.name as u32 + 1);
        coracle_daemon::clock::simulate(i64::from(self.clock) * 1000);
        // A refusal is an outcome like any other.
        let _ = running.machine.apply(&command);
        let effects = running.machine.take_effects();
        running.hub.publish(running.machine.revision(), effects.batches);
        running.applied = next;
        Ok(())
    }

    /// Takes a snapshot of what is applied, and drops those entries from the log.
    pub fn take_snapshot(&mut self) -> Result<(), String> {
        let Some(running) = &self.running else { return Ok(()) };
        let Some(id) = self.entry(running.applied).map(|entry| entry.id) else { return Ok(()) };
        let chunks = running.machine.view().chunks(CHUNK).collect();
        self.snapshot = Some(Snapshot { id, chunks });
        self.write(vec![Record::Purge(id)]).map(|_| ())
    }

    /// Takes another member's snapshot in the place of all that is here.
    pub fn install(&mut self, snapshot: &Snapshot) -> Result<(), String> {
        self.snapshot = Some(snapshot.clone());
        if !self.write(vec![Record::TruncateAfter(None), Record::Purge(snapshot.id)])? {
            return Ok(());
        }
        let mut restore = Restore::new();
        for chunk in &snapshot.chunks {
            restore.chunk(chunk).map_err(|error| error.to_string())?;
        }
        let Some(running) = &mut self.running else { return Ok(()) };
        running.machine = restore.finish();
        running.applied = snapshot.id.index;
        running.hub.jump(running.machine.revision());
        Ok(())
    }

    /// Leases with their keys, in words: what a hash over keys does not show.
    pub fn leases(&self) -> BTreeMap<i64, Vec<String>> {
        let Some(running) = &self.running else { return BTreeMap::new() };
        let machine = &running.machine;
        let keys = |id: i64| {
            let keys =
                machine.lease(id).map(|(_, keys)| keys.map(|key| String::from_utf8_lossy(key).into_owned()));
            keys.into_iter().flatten().collect()
        };
        machine.leases().map(|(id, _)| (id, keys(id))).collect()
    }
}
