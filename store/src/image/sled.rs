//! The image in sled.
//!
//! sled's `flush` leaves data in the page cache of the disk's file, so every file is synced after it. Only then a *mark* is
//! written beside the database: the description, and the number of the sync. The same number is a row of the database,
//! written with the last batch. An image whose numbers differ was changed after its last sync, and is not trusted.
//!
//! A row's value carries a checksum, and the mark the number of records, so a lost or damaged row is noticed too.

use super::{Image, ImageError};
use crate::machine::{Change, Machine, Restore, Row, View};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The row that holds the number of the sync. It sorts before all rows of state.
const NUMBER: &[u8] = b"\0number";
/// The row that is written only to be written. It sorts before all rows of state, too.
const NUDGE: &[u8] = b"\0nudge";
const NUDGES: u8 = 20;
/// How long a flush may take.
const FLUSH_MAX: Duration = Duration::from_millis(500);
/// First byte of the keys of records, which are counted.
const RECORD: u8 = b'r';
/// Rows of a batch when all state is written.
const BATCH: usize = 512;
const CACHE_BYTES: u64 = 16 << 20;

/// See the module.
#[derive(Debug)]
pub struct SledImage {
    folder: PathBuf,
    /// Opened when first needed, and closed when it failed.
    database: Option<::sled::Db>,
    number: u64,
    records: u64,
}

struct Mark {
    number: u64,
    records: u64,
    description: Vec<u8>,
}

impl Mark {
    /// Number, records and length (8 bytes each), description, CRC-32C of all (4).
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(28 + self.description.len());
        for number in [self.number, self.records, self.description.len() as u64] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.description);
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let (number, rest) = body.split_first_chunk::<8>()?;
        let (records, rest) = rest.split_first_chunk::<8>()?;
        let (length, description) = rest.split_first_chunk::<8>()?;
        (u64::from_le_bytes(*length) == description.len() as u64).then(|| Self {
            number: u64::from_le_bytes(*number),
            records: u64::from_le_bytes(*records),
            description: description.to_vec(),
        })
    }
}

fn sealed(key: &[u8], value: &[u8]) -> Vec<u8> {
    let crc = crc32c::crc32c_append(crc32c::crc32c(key), value);
    [&crc.to_le_bytes(), value].concat()
}

fn unsealed<'a>(key: &[u8], sealed: &'a [u8]) -> Option<&'a [u8]> {
    let (crc, value) = sealed.split_first_chunk::<4>()?;
    (crc32c::crc32c_append(crc32c::crc32c(key), value) == u32::from_le_bytes(*crc)).then_some(value)
}

impl SledImage {
    /// The image in `folder`, whether it is there or not.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), database: None, number: 0, records: 0 }
    }

    fn mark_path(&self) -> PathBuf {
        self.folder.join("mark")
    }

    fn database(&mut self) -> Result<&::sled::Db, ImageError> {
        match self.database {
            Some(ref database) => Ok(database),
            None => {
                std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(
                    |source| ImageError::File { what: "create", path: self.folder.clone(), source },
                )?;
                let database = ::sled::Config::new()
                    .path(self.folder.join("rows"))
                    .cache_capacity(CACHE_BYTES)
                    // Syncs are ours to time.
                    .flush_every_ms(None)
                    .open()?;
                Ok(self.database.insert(database))
            }
        }
    }

    fn file_error(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> ImageError {
        let path = path.to_owned();
        move |source| ImageError::File { what, path, source }
    }

    /// Everything it held is gone, and so is the right to be trusted.
    fn clear(&mut self) -> Result<(), ImageError> {
        self.database = None;
        self.records = 0;
        // First the mark: what is left of the database then counts for nothing.
        for path in [self.mark_path(), self.folder.join("rows")] {
            let removed =
                if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Self::file_error(&path, "remove")(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn read(&mut self) -> Result<Option<(Machine, Vec<u8>)>, ImageError> {
        let path = self.mark_path();
        // Should reading a damaged database end the process, the next start must not try again.
        let reading = self.folder.join("mark.reading");
        match std::fs::rename(&path, &reading) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Self::file_error(&path, "read")(error)),
        }
        let bytes = std::fs::read(&reading).map_err(Self::file_error(&reading, "read"))?;
        let Some(mark) = Mark::decode(&bytes) else { return Ok(None) };
        let database = self.database()?;
        let number = database.get(NUMBER)?;
        if number.as_deref() != Some(&mark.number.to_le_bytes()) {
            return Ok(None);
        }
        let (mut restore, mut records) = (Restore::new(), 0);
        for row in database.iter() {
            let (key, value) = row?;
            if key == NUMBER || key == NUDGE {
                continue;
            }
            let Some(value) = unsealed(&key, &value) else { return Ok(None) };
            records += u64::from(key.first() == Some(&RECORD));
            restore.row(&key, value)?;
        }
        if records != mark.records {
            return Ok(None);
        }
        (self.number, self.records) = (mark.number, records);
        std::fs::rename(&reading, &path).map_err(Self::file_error(&path, "write"))?;
        Ok(Some((restore.finish(), mark.description)))
    }

    fn put(&mut self, batch: &mut ::sled::Batch, row: Row, change: &Change) {
        match row.value {
            Some(value) => batch.insert(&*row.key, sealed(&row.key, &value)),
            None => batch.remove(&*row.key),
        }
        match change {
            Change::Record(_) => self.records += 1,
            Change::Forget(_) => self.records = self.records.saturating_sub(1),
            _ => {}
        }
    }

    /// Makes sled write everything to its files.
    ///
    /// Now and then, depending on how many bytes were written before, `flush` of sled 0.34.7 waits for bytes that nobody
    /// is going to write. Any further write ends that, so one is made when it takes long.
    fn flush(&mut self) -> Result<(), ImageError> {
        for nudge in 0..NUDGES {
            let database = self.database()?.clone();
            let (flushed, wait) = std::sync::mpsc::channel();
            let flush = move || {
                // Nobody waits for a flush that took too long.
                let _ = flushed.send(database.flush());
            };
            let thread = std::thread::Builder::new().name("image-flush".to_owned()).spawn(flush);
            thread.map_err(Self::file_error(&self.folder, "start a thread for"))?;
            match wait.recv_timeout(FLUSH_MAX) {
                Ok(flushed) => return flushed.map(drop).map_err(ImageError::Database),
                Err(_) => drop(self.database()?.insert(NUDGE, vec![nudge; usize::from(nudge) * 8 + 1])?),
            }
        }
        Err(ImageError::Stuck)
    }

    /// Syncs every file of the database, and the folders that name them.
    fn sync_files(&self) -> Result<(), ImageError> {
        let mut folders = vec![self.folder.join("rows")];
        while let Some(folder) = folders.pop() {
            let failed = |source| ImageError::File { what: "sync", path: folder.clone(), source };
            for entry in std::fs::read_dir(&folder).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                if entry.file_type().map_err(failed)?.is_dir() {
                    folders.push(entry.path());
                    continue;
                }
                match File::open(entry.path()).and_then(|file| file.sync_data()) {
                    // sled replaces some of its files.
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                    _ => {}
                }
            }
            File::open(&folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        }
        Ok(())
    }
}

impl Image for SledImage {
    fn load(&mut self) -> Result<Option<(Machine, Vec<u8>)>, ImageError> {
        match self.read() {
            Ok(Some(loaded)) => Ok(Some(loaded)),
            Err(error @ ImageError::File { .. }) => Err(error),
            doubtful => {
                if let Err(error) = doubtful {
                    tracing::warn!(%error, "the image is not used");
                }
                self.clear()?;
                Ok(None)
            }
        }
    }

    fn update(&mut self, changes: &[Change]) -> Result<(), ImageError> {
        let mut batch = ::sled::Batch::default();
        for change in changes {
            self.put(&mut batch, change.row(), change);
        }
        // From here on, and until the next sync, it differs from its mark.
        batch.insert(NUMBER, &(self.number + 1).to_le_bytes());
        self.database()?.apply_batch(batch)?;
        Ok(())
    }

    fn replace(&mut self, view: &View) -> Result<(), ImageError> {
        self.clear()?;
        let mut changes = Vec::with_capacity(BATCH);
        for change in view.changes() {
            changes.push(change);
            if changes.len() == BATCH {
                self.update(&changes)?;
                changes.clear();
            }
        }
        self.update(&changes)
    }

    fn sync(&mut self, description: &[u8]) -> Result<(), ImageError> {
        self.flush()?;
        self.sync_files()?;
        self.number += 1;
        let mark = Mark { number: self.number, records: self.records, description: description.to_vec() };
        let (path, part) = (self.mark_path(), self.folder.join("mark.part"));
        let write = || -> io::Result<()> {
            let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
            file.write_all(&mark.encode())?;
            file.sync_all()?;
            std::fs::rename(&part, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(Self::file_error(&path, "write"))
    }
}
