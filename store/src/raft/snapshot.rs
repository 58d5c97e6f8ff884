//! Snapshots as files: all state at one entry of the log, made without stopping writes, sent to members that are too far
//! behind, and read at the start.
//!
//! A file is written under a `.part` name, synced, and only then given its own name, so a file with that name is whole.
//!
//! | bytes | what |
//! |---|---|
//! | 0–7 | `CORACLES` |
//! | 8–11 | version of the format: 1 |
//! | 12–15 | length of the description |
//! | 16– | description: last entry and membership |
//! | 4 | CRC-32C of everything before |
//! | … | chunks of rows: length (4), CRC-32C of number (8) and rows (4), rows |
//! | 16 | end: 0 (4), CRC-32C of the count (4), number of chunks (8) |

use super::types::SnapshotMeta;
use crate::machine::{Machine, Restore, RestoreError, View};
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const MAGIC: &[u8; 8] = b"CORACLES";
const VERSION: u32 = 1;
/// Bytes of a chunk of rows, about.
const CHUNK: usize = 256 << 10;
/// Longest chunk or description that is believed: a chunk may end with one large row.
const CHUNK_MAX: u32 = 64 << 20;

/// Why a snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The disk fails or is full.
    #[error("cannot {what} snapshot {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Checksums do not fit.
    #[error("snapshot {} is damaged at byte {at}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        at: u64,
    },
    /// The log begins after it, and no snapshot has what is before.
    #[error("{} has no snapshot of what was before log entry {index}", path.display())]
    Gone {
        /// The data folder.
        path: PathBuf,
        /// The first entry that is missing.
        index: u64,
    },
    /// Checksums fit, but the rows make no state.
    #[error("snapshot {} cannot be read", path.display())]
    Rows {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: RestoreError,
    },
}

impl From<SnapshotError> for io::Error {
    fn from(error: SnapshotError) -> Self {
        match &error {
            SnapshotError::Io { source, .. } => Self::new(source.kind(), error),
            _ => Self::other(error),
        }
    }
}

/// Whether a disk, or the share of it that this process may use, has no room.
#[must_use]
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A snapshot on the disk. The file stays readable while someone holds this, even once it is replaced.
#[derive(Clone, Debug)]
pub struct SnapshotFile {
    file: Arc<File>,
    path: PathBuf,
}

impl SnapshotFile {
    /// Bytes at `offset`, fewer at the end; none past it.
    ///
    /// # Errors
    /// The disk fails.
    pub fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(&*self.file, bytes, offset)
    }

    /// What it covers.
    ///
    /// # Errors
    /// It is damaged.
    pub fn meta(&self) -> Result<SnapshotMeta, SnapshotError> {
        Reader::new(self)?.meta()
    }

    /// The machine in it.
    ///
    /// # Errors
    /// It is damaged.
    pub fn restore(&self) -> Result<Machine, SnapshotError> {
        let mut reader = Reader::new(self)?;
        reader.meta()?;
        let mut restore = Restore::new();
        while let Some(rows) = reader.chunk()? {
            restore.chunk(&rows).map_err(|source| SnapshotError::Rows { path: self.path.clone(), source })?;
        }
        Ok(restore.finish())
    }
}

/// The folder of snapshots, of which the newest counts.
#[derive(Clone, Debug)]
pub struct Snapshots {
    folder: Arc<PathBuf>,
    parts: Arc<AtomicU64>,
}

impl Snapshots {
    /// Opens `folder`, making it when it is not there, and removes what was never finished.
    ///
    /// # Errors
    /// The disk fails.
    pub fn open(folder: &Path) -> Result<Self, SnapshotError> {
        use std::os::unix::fs::DirBuilderExt;
        let failed = |what| move |source| SnapshotError::Io { what, path: folder.to_owned(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed("create"))?;
        let this = Self { folder: Arc::new(folder.to_owned()), parts: Arc::default() };
        for name in this.names().map_err(failed("list"))? {
            if name.ends_with(".part") {
                std::fs::remove_file(folder.join(name)).map_err(failed("clean"))?;
            }
        }
        Ok(this)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = std::fs::read_dir(&*self.folder)?
            .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    /// The newest snapshot, if there is any.
    ///
    /// # Errors
    /// The disk fails or the file is damaged.
    pub fn newest(&self) -> Result<Option<(SnapshotMeta, SnapshotFile)>, SnapshotError> {
        let failed = |source| SnapshotError::Io { what: "find", path: self.folder.to_path_buf(), source };
        let names = self.names().map_err(failed)?;
        let Some(name) = names.iter().rev().find(|name| name.ends_with(".snap")) else { return Ok(None) };
        let path = self.folder.join(name);
        let file = File::open(&path).map_err(failed)?;
        let file = SnapshotFile { file: Arc::new(file), path };
        Ok(Some((file.meta()?, file)))
    }

    /// Writes `view` as the newest snapshot.
    ///
    /// # Errors
    /// The disk fails or is full; the one before stays.
    pub fn write(&self, meta: &SnapshotMeta, view: &View) -> Result<SnapshotFile, SnapshotError> {
        let mut part = self.part()?;
        let write = |part: &mut Part| -> io::Result<()> {
            let mut out = BufWriter::with_capacity(CHUNK, &part.file);
            let description = postcard::to_stdvec(meta).map_err(io::Error::other)?;
            let mut head = MAGIC.to_vec();
            head.extend_from_slice(&VERSION.to_le_bytes());
            head.extend_from_slice(
                &u32::try_from(description.len()).map_err(io::Error::other)?.to_le_bytes(),
            );
            head.extend_from_slice(&description);
            head.extend_from_slice(&crc32c::crc32c(&head).to_le_bytes());
            out.write_all(&head)?;
            let mut count = 0_u64;
            for rows in view.chunks(CHUNK) {
                out.write_all(&u32::try_from(rows.len()).map_err(io::Error::other)?.to_le_bytes())?;
                out.write_all(&chunk_crc(count, &rows).to_le_bytes())?;
                out.write_all(&rows)?;
                count += 1;
            }
            out.write_all(&0_u32.to_le_bytes())?;
            out.write_all(&crc32c::crc32c(&count.to_le_bytes()).to_le_bytes())?;
            out.write_all(&count.to_le_bytes())?;
            out.flush()
        };
        write(&mut part).map_err(|source| SnapshotError::Io {
            what: "write",
            path: part.path.clone(),
            source,
        })?;
        self.adopt(meta, part)
    }

    /// Makes a whole snapshot the newest; one of another folder is copied.
    ///
    /// # Errors
    /// The disk fails or is full.
    pub fn keep(&self, meta: &SnapshotMeta, file: SnapshotFile) -> Result<SnapshotFile, SnapshotError> {
        if file.path.parent() == Some(&*self.folder) {
            return Ok(file);
        }
        let mut part = self.part()?;
        let mut from = At { file: &file, at: 0 };
        io::copy(&mut from, &mut part.file).map_err(|source| SnapshotError::Io {
            what: "copy",
            path: part.path.clone(),
            source,
        })?;
        self.adopt(meta, part)
    }

    /// A file to receive a snapshot into.
    ///
    /// # Errors
    /// The disk fails or is full.
    pub fn part(&self) -> Result<Part, SnapshotError> {
        let path = self.folder.join(format!("{}.part", self.parts.fetch_add(1, Ordering::Relaxed)));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        match file {
            Ok(file) => Ok(Part { file, path, keep: false }),
            Err(source) => Err(SnapshotError::Io { what: "create", path, source }),
        }
    }

    /// Makes a finished part the newest snapshot, on stable storage, and removes older ones.
    ///
    /// # Errors
    /// The disk fails.
    pub fn adopt(&self, meta: &SnapshotMeta, mut part: Part) -> Result<SnapshotFile, SnapshotError> {
        let (term, index) = meta.last_log_id.as_ref().map_or((0, 0), |id| (id.leader_id.term, id.index));
        let name = format!("{index:020}-{term:020}.snap");
        let path = self.folder.join(&name);
        let adopt = || -> io::Result<File> {
            part.file.sync_all()?;
            std::fs::rename(&part.path, &path)?;
            File::open(&*self.folder)?.sync_all()?;
            for old in self.names()?.iter().filter(|old| old.ends_with(".snap") && **old < name) {
                std::fs::remove_file(self.folder.join(old))?;
            }
            File::open(&path)
        };
        let file =
            adopt().map_err(|source| SnapshotError::Io { what: "finish", path: path.clone(), source })?;
        part.keep = true;
        Ok(SnapshotFile { file: Arc::new(file), path })
    }
}

/// A snapshot in the making; dropping it removes the file.
#[derive(Debug)]
pub struct Part {
    file: File,
    path: PathBuf,
    keep: bool,
}

impl Part {
    /// Appends bytes that another member sent.
    ///
    /// # Errors
    /// The disk fails or is full.
    pub fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// For reading back what was pushed.
    ///
    /// # Errors
    /// The process has too many files open.
    pub fn reader(&self) -> io::Result<SnapshotFile> {
        Ok(SnapshotFile { file: Arc::new(self.file.try_clone()?), path: self.path.clone() })
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.keep {
            // It is removed at the next start otherwise.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn chunk_crc(number: u64, rows: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&number.to_le_bytes()), rows)
}

/// Reads a snapshot from its beginning.
struct Reader<'a> {
    from: BufReader<At<'a>>,
    path: &'a Path,
    chunks: u64,
}

/// Reads at its own place, as clones of a file share theirs.
struct At<'a> {
    file: &'a SnapshotFile,
    at: u64,
}

impl Read for At<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(self.at, bytes)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl<'a> Reader<'a> {
    fn new(file: &'a SnapshotFile) -> Result<Self, SnapshotError> {
        let from = BufReader::with_capacity(CHUNK, At { file, at: 0 });
        Ok(Self { from, path: &file.path, chunks: 0 })
    }

    fn damaged(&self) -> SnapshotError {
        let at = self.from.get_ref().at - self.from.buffer().len() as u64;
        SnapshotError::Damaged { path: self.path.to_owned(), at }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), SnapshotError> {
        self.from.read_exact(bytes).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged(),
            _ => SnapshotError::Io { what: "read", path: self.path.to_owned(), source },
        })
    }

    fn body(&mut self, length: u32) -> Result<Vec<u8>, SnapshotError> {
        if length > CHUNK_MAX {
            return Err(self.damaged());
        }
        let mut body = vec![0; length as usize];
        self.fill(&mut body)?;
        Ok(body)
    }

    fn meta(&mut self) -> Result<SnapshotMeta, SnapshotError> {
        let head: [u8; 16] = self.take()?;
        let (begin, length) = head.split_at(12);
        if begin != [&MAGIC[..], &VERSION.to_le_bytes()].concat() {
            return Err(self.damaged());
        }
        let length = u32::from_le_bytes(length.try_into().unwrap_or_default());
        let description = self.body(length)?;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&head), &description);
        if u32::from_le_bytes(self.take()?) != crc {
            return Err(self.damaged());
        }
        postcard::from_bytes(&description).map_err(|_| self.damaged())
    }

    /// The next chunk; `None` at the end.
    fn chunk(&mut self) -> Result<Option<Vec<u8>>, SnapshotError> {
        let length = u32::from_le_bytes(self.take()?);
        let crc = u32::from_le_bytes(self.take()?);
        if length == 0 {
            let count: [u8; 8] = self.take()?;
            let whole = crc == crc32c::crc32c(&count) && u64::from_le_bytes(count) == self.chunks;
            return if whole { Ok(None) } else { Err(self.damaged()) };
        }
        let rows = self.body(length)?;
        if crc != chunk_crc(self.chunks, &rows) {
            return Err(self.damaged());
        }
        self.chunks += 1;
        Ok(Some(rows))
    }
}
