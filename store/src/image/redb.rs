//! The image in redb: one file, whose transactions are whole after any crash.
//!
//! Changes wait in memory for [`Image::sync`], which writes them and the description in one transaction. So what the file holds
//! is always exactly what some sync left. Rows stand in packs. A pack carries a checksum, and the description the number of packs
//! and the sum of their checksums, so that a lost, stale or damaged one is noticed while all are read once, at the start.

use super::packs::{Packs, Tally, sealed, unsealed};
use super::{Image, ImageError};
use crate::machine::{Change, Machine, Restore, Row, View};
use coracle_daemon::panics;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const PACKS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("packs");
/// One row: where the state stands.
const STANDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("stands");
const CACHE_BYTES: usize = 8 << 20;
/// Bytes of packs that are made at once. Half of the cache is for what is written: pages that have no room there are written
/// before their checksums are, and then again.
const PART_BYTES: usize = CACHE_BYTES / 4;

/// See the module.
pub struct RedbImage {
    path: PathBuf,
    /// Opened when first needed.
    database: Option<Database>,
    tally: Tally,
    waiting: Waiting,
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

/// Of several changes of a row, the last stays the last.
fn in_order(mut changes: Vec<Change>) -> impl Iterator<Item = Row> {
    changes.sort_by_cached_key(Change::key);
    changes.into_iter().map(|change| change.row())
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
        let packs = transaction.open_table(PACKS).map_err(redb::Error::from)?;
        let (mut restore, mut read) = (Restore::new(), Tally::default());
        for pack in packs.iter().map_err(redb::Error::from)? {
            let (key, pack) = pack.map_err(redb::Error::from)?;
            read.add(pack.value());
            let Some(rows) = unsealed(key.value(), pack.value()) else { return Ok(None) };
            restore.chunk(rows)?;
        }
        if read.bytes() != *tally {
            return Ok(None);
        }
        let description = description.to_vec();
        drop((packs, transaction));
        // What damage does to writing shows now, not again at each start.
        Self::write(&database, std::iter::empty(), read, &description)?;
        self.tally = read;
        self.database = Some(database);
        Ok(Some((restore.finish(), description)))
    }

    /// Puts and takes rows of packs that `tally` tells of. Returns what tells of the packs then.
    fn write(
        database: &Database,
        rows: impl Iterator<Item = Row>,
        mut tally: Tally,
        description: &[u8],
    ) -> Result<Tally, redb::Error> {
        let mut rows = rows.peekable();
        loop {
            let mut transaction = database.begin_write()?;
            let mut packs = Packs::new(transaction.open_table(PACKS)?, tally);
            let more = packs.change(&mut rows, PART_BYTES)?;
            tally = packs.tally();
            if more {
                // Lost with a crash, as all of it is before the last part.
                transaction.set_durability(Durability::None)?;
                transaction.commit()?;
                continue;
            }
            transaction.set_durability(Durability::Immediate)?;
            // A process that was killed would otherwise read the whole file before it opens it.
            transaction.set_quick_repair(true);
            {
                let mut stands = transaction.open_table(STANDS)?;
                let stood = [&tally.bytes(), description].concat();
                stands.insert(&[][..], &*sealed(&[], &stood))?;
            }
            transaction.commit()?;
            return Ok(tally);
        }
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
        let rows = view.iter().flat_map(View::rows).chain(in_order(changes));
        match Self::write(database, rows, self.tally, description) {
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
