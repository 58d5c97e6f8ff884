//! A backup file: rows, zeros up to a whole number of sectors, and the SHA-256 of both, as `Maintenance.Snapshot` streams them.

use crate::machine::{Machine, Restore, RestoreError};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

/// Bytes of the hash at the end.
pub(super) const HASH: u64 = 32;
/// What state is filled up to.
const SECTOR: u64 = 512;
/// Longest key or value that is believed.
const FIELD_MAX: u32 = 64 << 20;
const BUFFER: usize = 256 << 10;

/// Why a file is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The disk fails, or there is no such file.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It was not written to its end, or is something else.
    #[error("{} has {length} bytes, which no backup has: it is cut off, or none", path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// Its length.
        length: u64,
    },
    /// The checksum does not fit.
    #[error("{} is damaged: its SHA-256 does not fit", path.display())]
    Hash {
        /// The file.
        path: PathBuf,
    },
    /// The checksum fits, but it is not our state; etcd's own snapshots end here.
    #[error("{} is no backup of this store", path.display())]
    Rows {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: RestoreError,
    },
}

/// Checks a backup from its first byte to its last, and reads the state in it.
pub(super) fn read(path: &Path) -> Result<Machine, BackupError> {
    let failed = |source| BackupError::Io { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    if length < HASH || length % SECTOR != HASH {
        return Err(BackupError::Length { path: path.to_owned(), length });
    }
    let state = length - HASH;
    let mut hash = Sha256::new();
    let mut bytes = vec![0; BUFFER];
    let mut from = (&mut file).take(state);
    loop {
        let read = from.read(&mut bytes).map_err(failed)?;
        if read == 0 {
            break;
        }
        hash.update(&bytes[..read]);
    }
    let mut wanted = [0; HASH as usize];
    file.read_exact(&mut wanted).map_err(failed)?;
    if hash.finalize()[..] != wanted {
        return Err(BackupError::Hash { path: path.to_owned() });
    }
    let file = File::open(path).map_err(failed)?;
    rows(BufReader::with_capacity(BUFFER, file).take(state)).map_err(|error| match error {
        RowsError::Io(source) => failed(source),
        RowsError::State(source) => BackupError::Rows { path: path.to_owned(), source },
    })
}

enum RowsError {
    Io(io::Error),
    State(RestoreError),
}

impl From<io::Error> for RowsError {
    fn from(error: io::Error) -> Self {
        // A row that goes on after the end is none.
        if error.kind() == io::ErrorKind::UnexpectedEof {
            Self::State(RestoreError::Cut)
        } else {
            Self::Io(error)
        }
    }
}

fn rows(mut from: impl Read) -> Result<Machine, RowsError> {
    let mut restore = Restore::new();
    // Keys are never empty: where one is, the zeros begin.
    while let Some(key) = field(&mut from)?.filter(|key| !key.is_empty()) {
        let value = field(&mut from)?.ok_or(RowsError::State(RestoreError::Cut))?;
        restore.row(&key, &value).map_err(RowsError::State)?;
    }
    let mut rest = Vec::new();
    from.take(SECTOR).read_to_end(&mut rest)?;
    if rest.len() as u64 >= SECTOR || rest.iter().any(|byte| *byte != 0) {
        return Err(RowsError::State(RestoreError::BadRow));
    }
    Ok(restore.finish())
}

/// The next field; `None` at the end, or before a few zeros.
fn field(from: &mut impl Read) -> Result<Option<Vec<u8>>, RowsError> {
    let mut length = Vec::with_capacity(4);
    from.take(4).read_to_end(&mut length)?;
    let Ok(bytes) = <[u8; 4]>::try_from(length.as_slice()) else {
        let zeros = length.iter().all(|byte| *byte == 0);
        return if zeros { Ok(None) } else { Err(RowsError::State(RestoreError::Cut)) };
    };
    let length = u32::from_be_bytes(bytes);
    if length > FIELD_MAX {
        return Err(RowsError::State(RestoreError::BadRow));
    }
    let mut field = vec![0; length as usize];
    from.read_exact(&mut field)?;
    Ok(Some(field))
}
