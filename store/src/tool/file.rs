//! A backup file: a snapshot as etcd's clients save it, which is etcd's database and its SHA-256.

use crate::database::{self, ReadError};
use crate::machine::Machine;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

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
    /// It is damaged, or something else.
    #[error("{} is no snapshot that can be used", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: ReadError,
    },
}

/// Checks a snapshot from its first byte to its last, the hash at its end included where it is wanted, and reads the state
/// in it.
pub(super) fn read(path: &Path, check_hash: bool) -> Result<Machine, BackupError> {
    let failed = |source| BackupError::Io { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    database::split_hash(&mut file, length, check_hash)
        .and_then(|length| database::read(file, length))
        .map_err(|source| BackupError::Content { path: path.to_owned(), source })
}
