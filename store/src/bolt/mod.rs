//! bbolt's database files, as far as etcd's snapshots need them: [`write`] makes one of sorted input, [`Database`] reads one.
//!
//! A file is pages of one size. Pages 0 and 1 are meta pages, of which the one with a fitting checksum and the higher
//! transaction counts: it says where the root is. All else are leaves and branches of B+ trees, and a list of free pages. The
//! root's tree has buckets by name, each with a tree of its own. Numbers are little-endian. A page that does not suffice
//! overflows into those behind it.
//!
//! Invariants: writing needs memory for one page of each level of a tree; reading needs memory for one page of each level,
//! believes no number that leads out of the file or out of a page, and ends on files that lead in circles.

mod page;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use read::{BoltError, Database};
pub use write::{Buckets, Layout, measure, write};
