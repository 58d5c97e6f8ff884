//! The image in redb: one file, whose transactions are whole after any crash.
//!
//! Changes wait in memory for [`Image::sync`], which writes them and the description in one transaction. So what the file holds
//! is always exactly what some sync left. A row's value carries a checksum, and the description the number of rows and the sum
//! of their checksums, so that a lost, stale or damaged row is noticed while all rows are read once, at the start.

use super::{Image, ImageError};
use crate::machine::{Change, Machine, Restore, View};
use coracle_daemon::panics;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
/// One row: where the state stands.
const STANDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("stands");
const CACHE_BYTES: usize = 8 << 20;

/// See the module.
pub struct RedbImage {
    path: PathBuf,
    /// Opened when first needed.
    database: Option<Database>,
    tally: Tally,
    waiting: Waiting,
}

/// What tells one set of rows from another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    rows: u64,
    /// Of their checksums, which say nothing about their order: keys do.
    sum: u64,
}

impl Tally {
    const LENGTH: usize = 16;

    fn checksum(sealed: &[u8]) -> u64 {
        sealed.first_chunk().map_or(0, |crc| u64::from(u32::from_le_bytes(*crc)))
    }

    fn add(&mut self, sealed: &[u8]) {
        self.rows += 1;
        self.sum = self.sum.wrapping_add(Self::checksum(sealed));
    }

    fn take(&mut self, sealed: &[u8]) {
        self.rows = self.rows.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(Self::checksum(sealed));
    }

    fn bytes(self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[..8].copy_from_slice(&self.rows.to_le_bytes());
        bytes[8..].copy_from_slice(&self.sum.to_le_bytes());
        bytes
    }
}

/// What the next sync writes.
enum Waiting {
    Changes(Vec<Change>),
    /// All state anew.
    All(View, Vec<Change>),
}

impl std::fmt::Debug for RedbImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedbImage").field("path", &self.path).finish_non_exhaustive()
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

impl RedbImage {
    /// The image in `folder`, whether it is there or not.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        let path = folder.join("state.redb");
        Self { path, database: None, tally: Tally::default(), waiting: Waiting::Changes(Vec::new()) }
    }

    fn failed(&self, what: &'static str) -> impl FnOnce(io::Error) -> ImageError + use<> {
        let path = self.path.clone();
        move |source| ImageError::File { what, path, source }
    }

    fn open(&self, path: &Path, create: bool) -> Result<Database, ImageError> {
        if let Some(folder) = path.parent() {
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(self.failed("create the folder of"))?;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(create).truncate(false).mode(0o600);
        let file = options.open(path).map_err(self.failed("open"))?;
        let backend = redb::backends::FileBackend::new(file);
        let database = backend.and_then(|file| {
            // Without redb's own check, which reads everything twice more: rows are checked as they are read.
            Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(file)
        });
        database.map_err(|error| ImageError::Database(Box::new(error.into())))
    }

    fn remove(&mut self) -> Result<(), ImageError> {
        self.database = None;
        self.tally = Tally::default();
        for path in [self.path.clone(), self.reading()] {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(self.failed("remove")(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Its name while it is read at the start: should a damaged file end the process, the next start does not try again.
    fn reading(&self) -> PathBuf {
        self.path.with_extension("reading")
    }

    /// `None` when it cannot be trusted.
    fn read(&mut self, reading: &Path) -> Result<Option<(Machine, Vec<u8>)>, ImageError> {
        let database = self.open(reading, false)?;
        let transaction = database.begin_read().map_err(redb::Error::from)?;
        let stands = transaction.open_table(STANDS).map_err(redb::Error::from)?;
        let Some(stands) = stands.get(&[][..]).map_err(redb::Error::from)? else { return Ok(None) };
        let Some(stands) = unsealed(&[], stands.value()) else { return Ok(None) };
        let Some((tally, description)) = stands.split_first_chunk::<{ Tally::LENGTH }>() else {
            return Ok(None);
        };
        let rows = transaction.open_table(ROWS).map_err(redb::Error::from)?;
        let (mut restore, mut read) = (Restore::new(), Tally::default());
        for row in rows.iter().map_err(redb::Error::from)? {
            let (key, value) = row.map_err(redb::Error::from)?;
            read.add(value.value());
            let Some(value) = unsealed(key.value(), value.value()) else { return Ok(None) };
            restore.row(key.value(), value)?;
        }
        if read.bytes() != *tally {
            return Ok(None);
        }
        let description = description.to_vec();
        drop((rows, transaction));
        // What damage does to writing shows now, not again at each start.
        Self::write(&database, std::iter::empty(), read, &description)?;
        self.tally = read;
        self.database = Some(database);
        Ok(Some((restore.finish(), description)))
    }

    /// Makes changes to rows that `tally` tells of, and returns what tells of the rows then.
    fn write(
        database: &Database,
        changes: impl Iterator<Item = Change>,
        mut tally: Tally,
        description: &[u8],
    ) -> Result<Tally, redb::Error> {
        let mut transaction = database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        // A process that was killed would otherwise read the whole file before it opens it.
        transaction.set_quick_repair(true);
        {
            let mut rows = transaction.open_table(ROWS)?;
            for change in changes {
                let row = change.row();
                let before = match row.value {
                    Some(value) => {
                        let sealed = sealed(&row.key, &value);
                        tally.add(&sealed);
                        rows.insert(&*row.key, &*sealed)?
                    }
                    None => rows.remove(&*row.key)?,
                };
                if let Some(before) = before {
                    tally.take(before.value());
                }
            }
            let mut stands = transaction.open_table(STANDS)?;
            let stood = [&tally.bytes(), description].concat();
            stands.insert(&[][..], &*sealed(&[], &stood))?;
        }
        transaction.commit()?;
        Ok(tally)
    }
}

impl Image for RedbImage {
    fn load(&mut self) -> Result<Option<(Machine, Vec<u8>)>, ImageError> {
        let reading = self.reading();
        let loaded = match std::fs::rename(&self.path, &reading) {
            Ok(()) => {
                let read = panics::caught(|| self.read(&reading));
                // A panic that the checksums did not prevent says the same: it is damaged.
                read.unwrap_or_else(|_| {
                    tracing::warn!("the image is damaged");
                    Ok(None)
                })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => return Err(self.failed("read")(error)),
        };
        match loaded {
            Ok(Some(loaded)) => {
                std::fs::rename(&reading, &self.path).map_err(self.failed("read"))?;
                Ok(Some(loaded))
            }
            doubtful => {
                if let Err(error) = doubtful {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the image is not used");
                }
                self.remove()?;
                Ok(None)
            }
        }
    }

    fn update(&mut self, changes: Vec<Change>) {
        match &mut self.waiting {
            Waiting::Changes(waiting) | Waiting::All(_, waiting) => waiting.extend(changes),
        }
    }

    fn replace(&mut self, view: View) {
        self.waiting = Waiting::All(view, Vec::new());
    }

    fn sync(&mut self, description: &[u8]) -> Result<(), ImageError> {
        let waiting = std::mem::replace(&mut self.waiting, Waiting::Changes(Vec::new()));
        let (view, changes) = match waiting {
            Waiting::Changes(changes) => (None, changes),
            Waiting::All(view, changes) => {
                self.remove()?;
                (Some(view), changes)
            }
        };
        let path = self.path.clone();
        let database = match self.database.take() {
            Some(database) => database,
            None => self.open(&path, true)?,
        };
        let database = self.database.insert(database);
        let changes = view.iter().flat_map(View::changes).chain(changes);
        match Self::write(database, changes, self.tally, description) {
            Ok(tally) => self.tally = tally,
            Err(error) => {
                // What is there is not trusted any more, and would only keep a full disk full.
                if let Err(error) = self.remove() {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the image stays");
                }
                return Err(error.into());
            }
        }
        Ok(())
    }
}
