//! Rows in packs, as the image's database holds them: what one of its entries costs is a search, a place in a page and a copy of
//! the path to it, and is paid for many rows at once. Rows come behind all others, and go many together.
//!
//! In: rows and what goes. Out: packs, each under the key of its first row. Invariant: packs do not overlap, so that the rows of
//! one are all before the next one's key.
//!
//! A pack is sealed with a checksum; a [`Tally`] of all of them tells whether one is missing or stale.

use crate::machine::{RestoreError, Row, put_row, take_row};
use redb::{Error, ReadableTable, Table};
use std::iter::Peekable;
use std::ops::Bound;

/// Bytes of a pack, unless one row has more: with its key and what the database adds it has room in pages of 16 KiB.
const PACK: usize = 15 << 10;
/// Bytes of the checksum that a pack begins with.
const SEAL: usize = 4;

/// What tells one set of packs from another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    packs: u64,
    /// Of their checksums, which say nothing about their order: keys do.
    sum: u64,
}

impl Tally {
    /// Bytes of its flat form.
    pub const LENGTH: usize = 16;

    fn checksum(sealed: &[u8]) -> u64 {
        sealed.first_chunk().map_or(0, |crc| u64::from(u32::from_le_bytes(*crc)))
    }

    /// A sealed pack was added.
    pub fn add(&mut self, sealed: &[u8]) {
        self.packs += 1;
        self.sum = self.sum.wrapping_add(Self::checksum(sealed));
    }

    fn take(&mut self, sealed: &[u8]) {
        self.packs = self.packs.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(Self::checksum(sealed));
    }

    /// Its flat form.
    #[must_use]
    pub fn bytes(self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[..8].copy_from_slice(&self.packs.to_le_bytes());
        bytes[8..].copy_from_slice(&self.sum.to_le_bytes());
        bytes
    }
}

fn seal(key: &[u8], content: &[u8]) -> [u8; SEAL] {
    crc32c::crc32c_append(crc32c::crc32c(key), content).to_le_bytes()
}

/// `content` with a checksum of it and its key before it.
#[must_use]
pub fn sealed(key: &[u8], content: &[u8]) -> Vec<u8> {
    [&seal(key, content), content].concat()
}

/// The content; `None` when it is damaged or stands under another's key.
#[must_use]
pub fn unsealed<'a>(key: &[u8], sealed: &'a [u8]) -> Option<&'a [u8]> {
    let (crc, content) = sealed.split_first_chunk::<SEAL>()?;
    (seal(key, content) == *crc).then_some(content)
}

/// A pack that stands in the database.
struct Pack {
    key: Vec<u8>,
    rows: Vec<u8>,
}

/// All packs, while they are changed.
pub struct Packs<'t> {
    table: Table<'t, &'static [u8], &'static [u8]>,
    tally: Tally,
    /// Key and bytes of the pack that is being made, with room for its checksum; empty when there is none.
    key: Vec<u8>,
    making: Vec<u8>,
    /// The key of a pack whose rows are being made anew, until one of the new ones has taken it.
    replaced: Option<Vec<u8>>,
    /// Bytes of packs that were made.
    made: usize,
}

/// Whether a row is behind the last one, and before the next pack.
fn follows(row: &Row, last: &[u8], end: Option<&[u8]>) -> bool {
    *row.key > *last && end.is_none_or(|end| *row.key < *end)
}

fn damaged(error: &RestoreError) -> Error {
    Error::Corrupted(error.to_string())
}

impl<'t> Packs<'t> {
    /// Those in `table`, of which `tally` tells.
    pub fn new(table: Table<'t, &'static [u8], &'static [u8]>, tally: Tally) -> Self {
        Self { table, tally, key: Vec::new(), making: Vec::new(), replaced: None, made: 0 }
    }

    /// Puts and takes rows until `most` bytes of packs were made; tells whether there are more rows. A pack is made once for all
    /// that follow each other in order.
    ///
    /// # Errors
    /// The database fails.
    pub fn change(
        &mut self,
        rows: &mut Peekable<impl Iterator<Item = Row>>,
        most: usize,
    ) -> Result<bool, Error> {
        self.made = 0;
        while self.made < most
            && let Some(first) = rows.peek()
        {
            let (old, end) = self.pack_for(&first.key)?;
            let (key, old) = old.map_or_else(Default::default, |old| (Some(old.key), old.rows));
            self.replaced = key;
            let (mut old, mut last) = (&old[..], Vec::new());
            while self.made < most
                && let Some(row) = rows.next_if(|row| follows(row, &last, end.as_deref()))
            {
                old = self.keep(old, Some(&row.key))?;
                if let Some(value) = row.value {
                    self.push(&row.key, &value)?;
                }
                last = row.key;
            }
            self.keep(old, None)?;
            self.put()?;
            if let Some(gone) = self.replaced.take()
                && let Some(sealed) = self.table.remove(&*gone)?
            {
                self.tally.take(sealed.value());
            }
        }
        Ok(rows.peek().is_some())
    }

    /// What tells of them now.
    #[must_use]
    pub fn tally(self) -> Tally {
        self.tally
    }

    /// The pack that a row belongs to, and the key of the next one.
    fn pack_for(&self, key: &[u8]) -> Result<(Option<Pack>, Option<Vec<u8>>), Error> {
        let found = match self.table.range::<&[u8]>(..=key)?.next_back() {
            Some(found) => Some(found?),
            None => self.table.first()?,
        };
        let Some((key, sealed)) = found else { return Ok((None, None)) };
        let after = (Bound::Excluded(key.value()), Bound::Unbounded);
        let end = self.table.range::<&[u8]>(after)?.next().transpose()?.map(|(key, _)| key.value().to_vec());
        let rows = sealed.value().get(SEAL..).unwrap_or_default().to_vec();
        Ok((Some(Pack { key: key.value().to_vec(), rows }), end))
    }

    /// Takes over the rows of a pack that are before `until`, and passes over that one. Returns those behind it.
    fn keep<'a>(&mut self, mut rows: &'a [u8], until: Option<&[u8]>) -> Result<&'a [u8], Error> {
        while !rows.is_empty() {
            let mut rest = rows;
            let (key, value) = take_row(&mut rest).map_err(|error| damaged(&error))?;
            match until {
                Some(until) if key > until => break,
                Some(until) if key == until => {}
                _ => self.push(key, value)?,
            }
            rows = rest;
        }
        Ok(rows)
    }

    /// Adds a row to the pack that is being made, or to the next if that one is full.
    fn push(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        if self.making.len() + key.len() + value.len() > PACK {
            self.put()?;
        }
        if self.making.is_empty() {
            self.key.clear();
            self.key.extend_from_slice(key);
            self.making.extend_from_slice(&[0; SEAL]);
        }
        put_row(&mut self.making, key, value);
        Ok(())
    }

    /// Puts the pack that is being made into the database.
    fn put(&mut self) -> Result<(), Error> {
        if self.making.is_empty() {
            return Ok(());
        }
        let (crc, content) = self.making.split_at_mut(SEAL);
        crc.copy_from_slice(&seal(&self.key, content));
        self.tally.add(&self.making);
        self.made += self.making.len();
        if let Some(before) = self.table.insert(&*self.key, &*self.making)? {
            self.tally.take(before.value());
        }
        if self.replaced.as_ref() == Some(&self.key) {
            self.replaced = None;
        }
        self.making.clear();
        Ok(())
    }
}
