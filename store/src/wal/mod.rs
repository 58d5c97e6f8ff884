//! The write-ahead log: what a member must still know after it was killed at any moment.
//!
//! In: [`Record`]s, in order. Out: a call back for each request once its records are on stable storage, and after a
//! restart the log that all of them made, whose older entries stay on the disk until somebody asks for them.
//!
//! One at a time has the files: the log's thread, or a caller who would only wait for it. Whoever it is takes every request that
//! waits, writes them all with one durable write (group commit), and only then calls back, in order.
//!
//! # Files
//! `00000000000000000001.wal` and so on: segments, numbered without gaps, filled with zeros when made so that
//! appending changes no metadata. `spare` is the next segment in the making. Every number is little-endian.
//!
//! A segment begins with 32 bytes:
//!
//! | bytes | what |
//! |---|---|
//! | 0–7 | `CORACLEW` |
//! | 8–11 | version of the format: 1 |
//! | 12–19 | the segment's number |
//! | 20–27 | where the previous segment's last record ends; 0 when there was none |
//! | 28–31 | CRC-32C of bytes 0–27 |
//!
//! Records follow, each at a multiple of 8 bytes:
//!
//! | bytes | what |
//! |---|---|
//! | 0–3 | length of the body, never 0 |
//! | 4–7 | CRC-32C of the segment's number (8 bytes), bytes 0–3, bytes 8–15 and the body |
//! | 8–11 | where in the segment the batch begins that this record was written in |
//! | 12 | kind |
//! | 13–15 | 0 |
//! | 16– | body, then zeros up to the next multiple of 8 |
//!
//! An entry id is 24 bytes: term, leader, index (8 each). An optional id is one byte (0 or 1) and, after a 1, the id.
//!
//! | kind | body |
//! |---|---|
//! | 1 vote | term (8), member (8), committed (1) |
//! | 2 entry | id, kind of payload (1), payload |
//! | 3 truncate | optional id of the last entry that stays |
//! | 4 purge | id of the last entry that goes |
//! | 5 committed | optional id |
//! | 6 head | optional vote, then optional ids of: committed, purged, last entry |
//!
//! The first record of a segment is its head. Older segments can thus be removed once all their entries are purged.
//!
//! # Torn or damaged
//! A batch is written only after the batch before it is on stable storage. So when a record is unreadable and a
//! readable one follows whose batch began after it, acknowledged data is damaged: opening is refused. Otherwise only
//! the last batch can be incomplete, which nobody was told of: it is cut off. What stays of it counts from then on, and is
//! synced first.
//!
//! # A full disk
//! The next segment is made while half of the current one is free. When that fails, the observer is told, and there is still
//! room for what makes room.
//!
//! Invariants: a call back with `Ok` means stable; after one failed write or sync nothing is ever written again.

mod direct;
mod disk;
mod inspect;
mod open;
mod queue;
mod reader;
mod record;
mod segment;
mod state;
mod tail;
#[cfg(test)]
mod tests;
mod writer;

pub use disk::{Disk, DiskFile, Folder};
pub use inspect::{Damage, Inspection, inspect};
pub use queue::{Done, Driver};
pub use record::{Entry, EntryId, Head, Record, Vote};
pub use state::LogState;
pub use writer::{Durability, Observer, Wal};

use std::io;

/// Bytes of a segment, unless one batch needs more.
pub const SEGMENT_BYTES: u64 = 16 << 20;

/// How to write.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Size of a segment.
    pub segment_bytes: u64,
    /// Most bytes written before a sync, as far as whole requests allow.
    pub batch_bytes: usize,
    /// Bytes of payloads that stay in memory although they are stable and decided.
    pub resident_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: SEGMENT_BYTES, batch_bytes: 4 << 20, resident_bytes: 4 << 20 }
    }
}

/// Why a log cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The folder of the log is unusable.
    #[error("cannot {what} the folder of the write-ahead log")]
    Folder {
        /// What was tried.
        what: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file could not be read or written.
    #[error("cannot {what} log segment {segment}")]
    Segment {
        /// What was tried.
        what: &'static str,
        /// Number of the segment.
        segment: u64,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Acknowledged records are unreadable.
    #[error(
        "log segment {segment} is damaged at byte {at}; remove this member from the cluster and add it again with an empty data folder, or restore a snapshot"
    )]
    Damaged {
        /// Number of the segment.
        segment: u64,
        /// Where in it.
        at: u64,
    },
    /// A segment between others is not there.
    #[error("log segment {segment} is missing")]
    Missing {
        /// Number of the segment.
        segment: u64,
    },
    /// Readable records contradict each other.
    #[error("log segment {segment} contradicts itself at byte {at}: {why}")]
    Contradiction {
        /// Number of the segment.
        segment: u64,
        /// Where in it.
        at: u64,
        /// How.
        why: String,
    },
    /// Another version of the program wrote it.
    #[error("log segment {segment} has format {version}; this program reads format 1")]
    Version {
        /// Number of the segment.
        segment: u64,
        /// The version found.
        version: u32,
    },
}
