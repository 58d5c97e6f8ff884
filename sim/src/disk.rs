//! A disk that loses power: what was synced stays, of what was only written each sector stays or not, as the dice fall.

use crate::dice::Dice;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use store::wal::{Disk, DiskFile};

/// What a disk writes at once, whatever happens.
const SECTOR: usize = 512;

/// The disk of one member. It outlives the member's processes; clones share it.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

struct State {
    files: BTreeMap<String, Content>,
    dice: Dice,
    /// Writes and syncs until the power goes.
    until_cut: Option<u64>,
    powered: bool,
}

#[derive(Clone, Default)]
struct Content {
    seen: Vec<u8>,
    stable: Vec<u8>,
}

impl SimDisk {
    pub fn new(dice: Dice) -> Self {
        Self(Arc::new(Mutex::new(State { files: BTreeMap::new(), dice, until_cut: None, powered: true })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while it was held fails its own seed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The power goes at the write or sync after `operations` more of them.
    pub fn cut_after(&self, operations: u64) {
        self.state().until_cut = Some(operations);
    }

    /// Whether the power is on.
    pub fn is_powered(&self) -> bool {
        self.state().powered
    }

    /// The power is back: unsynced sectors have stayed or not.
    pub fn power_on(&self) {
        let state = &mut *self.state();
        (state.until_cut, state.powered) = (None, true);
        for content in state.files.values_mut() {
            let (seen, stable) = (&mut content.seen, &mut content.stable);
            for (seen, stable) in seen.chunks_mut(SECTOR).zip(stable.chunks_mut(SECTOR)) {
                if seen != stable && state.dice.percent(50) {
                    stable.copy_from_slice(seen);
                }
            }
            content.seen.clone_from(&content.stable);
        }
    }
}

fn no_power() -> io::Error {
    io::Error::other("no power")
}

impl State {
    /// Counts a write or sync. The one during which the power goes fails, and so do all after it.
    fn count(&mut self) -> io::Result<()> {
        if let Some(left) = self.until_cut.as_mut() {
            match left.checked_sub(1) {
                Some(less) => *left = less,
                None => self.powered = false,
            }
        }
        self.check()
    }

    fn check(&self) -> io::Result<()> {
        if self.powered { Ok(()) } else { Err(no_power()) }
    }

    fn file(&mut self, name: &str) -> io::Result<&mut Content> {
        self.files.get_mut(name).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, name.to_owned()))
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let state = self.state();
        state.check()?;
        Ok(state.files.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.check()?;
        state.file(name)?;
        Ok(Box::new(SimFile { disk: self.clone(), name: name.to_owned() }))
    }

    fn create(&self, name: &str, size: u64) -> io::Result<Box<dyn DiskFile>> {
        let size = usize::try_from(size).map_err(io::Error::other)?;
        let mut state = self.state();
        state.check()?;
        state.files.insert(name.to_owned(), Content { seen: vec![0; size], stable: vec![0; size] });
        drop(state);
        self.open(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.check()?;
        let content = state.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.files.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.check()?;
        state.files.remove(name);
        Ok(())
    }
}

struct SimFile {
    disk: SimDisk,
    name: String,
}

impl DiskFile for SimFile {
    fn read_all(&self) -> io::Result<Vec<u8>> {
        let mut state = self.disk.state();
        state.check()?;
        Ok(state.file(&self.name)?.seen.clone())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        // A write that the power is cut under may have reached the disk in parts.
        state.check()?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let seen = &mut state.file(&self.name)?.seen;
        let end = start + bytes.len();
        let place =
            seen.get_mut(start..end).ok_or_else(|| io::Error::other("a write beyond the end of the file"))?;
        place.copy_from_slice(bytes);
        state.count()
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.check()?;
        let counted = state.count();
        // The power may go after the last byte is stable and before anybody is told.
        if counted.is_ok() || state.dice.percent(50) {
            let content = state.file(&self.name)?;
            content.stable.clone_from(&content.seen);
        }
        counted
    }

    fn size(&self) -> io::Result<u64> {
        let mut state = self.disk.state();
        state.check()?;
        Ok(state.file(&self.name)?.seen.len() as u64)
    }
}
