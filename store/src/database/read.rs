//! Reading state from etcd's database.

use super::{AUTH_ENABLED, HASH, LeaseRow, TOMBSTONE, bucket, meta, number};
use crate::bolt::{BoltError, Database};
use crate::machine::{Change, Machine, Record, Restore, RestoreError};
use coracle_etcd::proto::{AlarmMember, AlarmType, KeyValue};
use prost::Message;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::sync::Arc;

/// Pages of databases are whole numbers of these; what is more is a hash.
const SECTOR: u64 = 512;
const BUFFER: usize = 256 << 10;

/// Why a file is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It was not written to its end, or is something else.
    #[error("it has {0} bytes, which no snapshot has: it is cut off, or none")]
    Length(u64),
    /// It is a database as members have it, which nobody vouches for.
    #[error(
        "it has no hash at its end: cut off, or copied from a data folder, which --skip-hash-check takes"
    )]
    NoHash,
    /// The checksum does not fit.
    #[error("it is damaged: its SHA-256 does not fit")]
    Hash,
    /// It is no database, or a damaged one.
    #[error("it is no whole database")]
    Bolt(#[from] BoltError),
    /// It is a database of something else.
    #[error("it is no database of etcd: it has no bucket {0:?}")]
    Bucket(&'static str),
    /// A row is not what etcd writes.
    #[error("it has a row in bucket {bucket:?} that cannot be read")]
    Row {
        /// The bucket.
        bucket: &'static str,
    },
    /// Rows make no state.
    #[error("its rows make no state")]
    State(#[from] RestoreError),
    /// Keys that only some may see would be everybody's.
    #[error("authentication is enabled in it, which this store does not have: disable it before you save")]
    Auth,
}

/// Bytes of the database in a snapshot. Checks the hash behind it, from the first byte to the last.
///
/// # Errors
/// The hash does not fit, or there is none though it is `required`.
pub fn split_hash(file: &mut File, length: u64, required: bool) -> Result<u64, ReadError> {
    let database = match length % SECTOR {
        HASH if length > HASH => length - HASH,
        0 if length > 0 && !required => return Ok(length),
        0 if length > 0 => return Err(ReadError::NoHash),
        _ => return Err(ReadError::Length(length)),
    };
    if !required {
        return Ok(database);
    }
    let mut hash = Sha256::new();
    let mut bytes = vec![0; BUFFER];
    let mut from = Read::by_ref(file).take(database);
    loop {
        let read = from.read(&mut bytes).map_err(BoltError::Io)?;
        if read == 0 {
            break;
        }
        hash.update(&bytes[..read]);
    }
    let mut wanted = [0; HASH as usize];
    file.read_exact(&mut wanted).map_err(BoltError::Io)?;
    if hash.finalize()[..] == wanted { Ok(database) } else { Err(ReadError::Hash) }
}

/// The state in the database of `length` bytes that `file` begins with.
///
/// # Errors
/// It is damaged, or no database of etcd.
pub fn read(file: File, length: u64) -> Result<Machine, ReadError> {
    let database = Database::open(file, length)?;
    let mut restore = Restore::new();
    let (mut finished, mut scheduled, mut auth) = (0, 0, false);
    let there = each(&database, bucket::META, |key, value| {
        match key {
            key if key == meta::FINISHED.as_bytes() => finished = revision(value)?.0,
            key if key == meta::SCHEDULED.as_bytes() => scheduled = revision(value)?.0,
            _ => {}
        }
        Some(())
    })?;
    if !there {
        return Err(ReadError::Bucket(bucket::META));
    }
    each(&database, bucket::AUTH, |key, value| {
        auth |= key == AUTH_ENABLED && value == [1];
        Some(())
    })?;
    if auth {
        return Err(ReadError::Auth);
    }
    if finished > 0 {
        restore.change(Change::Compacted(finished))?;
    }
    each(&database, bucket::ALARM, |key, _| {
        let AlarmMember { member_id: member, alarm } = AlarmMember::decode(key).ok()?;
        AlarmType::try_from(alarm).ok().filter(|alarm| *alarm != AlarmType::None)?;
        restore.change(Change::Alarm { member, alarm }).ok()
    })?;
    each(&database, bucket::LEASE, |key, value| {
        let LeaseRow { id, ttl } = LeaseRow::decode(value).ok().filter(|row| Some(row.id) == number(key))?;
        restore.change(Change::Lease { id, ttl }).ok()
    })?;
    let there = each(&database, bucket::KEY, |key, value| {
        restore.change(Change::Record(Arc::new(record(key, value)?))).ok()
    })?;
    if !there {
        return Err(ReadError::Bucket(bucket::KEY));
    }
    // A member that stopped in the middle of a compaction would go on with it.
    restore.compact(scheduled);
    Ok(restore.finish())
}

/// Shows all rows of a bucket; one that `take` has no use for is an error. Tells whether there is such a bucket.
fn each(
    database: &Database,
    bucket: &'static str,
    mut take: impl FnMut(&[u8], &[u8]) -> Option<()>,
) -> Result<bool, ReadError> {
    database.each(bucket, &mut |key, value| take(key, value).ok_or(ReadError::Row { bucket }))
}

/// Revision and place.
fn revision(bytes: &[u8]) -> Option<(i64, i64)> {
    let (main, rest) = bytes.split_at_checked(8)?;
    let sub = number(rest.strip_prefix(b"_")?)?;
    number(main).filter(|main| *main > 0).map(|main| (main, sub))
}

fn record(key: &[u8], value: &[u8]) -> Option<Record> {
    let (place, mark) = key.split_at_checked(17)?;
    let (main, sub) = revision(place)?;
    let tombstone = match mark {
        [] => false,
        [TOMBSTONE] => true,
        _ => return None,
    };
    // Key and value get memory of their own: a slice would keep a whole page alive.
    let mut kv = KeyValue::decode(value).ok()?;
    if tombstone {
        kv = KeyValue { key: kv.key, mod_revision: main, ..KeyValue::default() };
    }
    let fits = kv.mod_revision == main && !kv.key.is_empty();
    fits.then_some(Record { kv, sub: u32::try_from(sub).ok()?, tombstone })
}
