//! The durable image of the state machine: what lets a restart begin close to where the member was, however seldom
//! snapshots are made.
//!
//! In: the changes of applied commands. Out: after a restart, the machine as of some entry, or nothing. A thread of its own
//! writes every few seconds while there is something to write; applying commands never waits for it.
//!
//! Invariants: the log and its snapshots are the authority. The image is used only when it is exactly what its last sync
//! left, to the row; in any doubt it is made anew from the machine.

mod packs;
mod redb;
#[cfg(test)]
mod tests;
mod writer;

pub use redb::RedbImage;
pub use writer::ImageWriter;

use crate::machine::{Change, Machine, RestoreError, View};
use std::io;
use std::path::PathBuf;

/// Where state that survives restarts is kept.
pub trait Image: Send + 'static {
    /// The machine as of the last [`Image::sync`], and the description given then. `None` when there is none, or when it
    /// cannot be trusted.
    ///
    /// # Errors
    /// The disk fails.
    fn load(&mut self) -> Result<Option<(Machine, Vec<u8>)>, ImageError>;
    /// Makes changes; they count once [`Image::sync`] has returned.
    fn update(&mut self, changes: Vec<Change>);
    /// Begins anew with all of `view`; it counts once [`Image::sync`] has returned.
    fn replace(&mut self, view: View);
    /// Puts all changes so far on stable storage, under a description of where they stand.
    ///
    /// # Errors
    /// The disk fails or is full; the image counts no more.
    fn sync(&mut self, description: &[u8]) -> Result<(), ImageError>;
}

/// Why the image failed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A file of the image.
    #[error("cannot {what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The database.
    #[error("the image's database failed")]
    Database(#[source] Box<::redb::Error>),
    /// The rows make no state.
    #[error("the image holds what is no state")]
    Rows(#[from] RestoreError),
}

impl From<::redb::Error> for ImageError {
    fn from(error: ::redb::Error) -> Self {
        Self::Database(Box::new(error))
    }
}
