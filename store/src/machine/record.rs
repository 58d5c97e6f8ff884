//! What the machine keeps of a key at one revision, and its flat form of rows for disk and snapshots.

use bytes::Bytes;
use coracle_etcd::proto::KeyValue;
use prost::Message;
use std::sync::Arc;

/// Where a change stands: the transaction's revision, and its place within the transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The revision.
    pub main: i64,
    /// 0 for the transaction's first change.
    pub sub: u32,
}

/// A key's state from one revision on: its value, or that it is gone.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Key, value and counts. A tombstone has only key and mod revision.
    pub kv: KeyValue,
    /// Place within the revision.
    pub sub: u32,
    /// Whether the key is gone.
    pub tombstone: bool,
}

impl Record {
    /// Where it stands.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { main: self.kv.mod_revision, sub: self.sub }
    }

    /// Bytes it takes, roughly: what quotas count.
    #[must_use]
    pub fn size(&self) -> u64 {
        /// Row key, revisions and lengths.
        const OVERHEAD: usize = 48;
        (self.kv.key.len() + self.kv.value.len() + OVERHEAD) as u64
    }
}

/// A change that the durable image has to take over.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A new record.
    Record(Arc<Record>),
    /// A record was compacted away.
    Forget(Place),
    /// Revisions below this are gone.
    Compacted(i64),
    /// A lease was granted.
    Lease {
        /// Its id.
        id: i64,
        /// Its time to live in seconds.
        ttl: i64,
    },
    /// A lease ended.
    LeaseGone(i64),
    /// A member raised an alarm.
    Alarm {
        /// The member.
        member: u64,
        /// etcd's number of the alarm.
        alarm: i32,
    },
    /// An alarm was taken back.
    AlarmGone {
        /// The member.
        member: u64,
        /// etcd's number of the alarm.
        alarm: i32,
    },
}

/// One key and value of the flat form; no value deletes the key.
///
/// All state is a set of rows: the image keeps them, a snapshot lists them in the order of their keys, and
/// [`super::Machine::restore`] takes them back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// A letter for the kind, then the number it stands for, big-endian.
    pub key: Vec<u8>,
    /// The content.
    pub value: Option<Vec<u8>>,
}

/// The kinds of rows.
pub(super) mod kind {
    pub const ALARM: u8 = b'a';
    pub const COMPACTED: u8 = b'c';
    pub const LEASE: u8 = b'l';
    pub const RECORD: u8 = b'r';
}

/// Signed numbers sort as their bytes do.
pub(super) fn ordered(number: i64) -> [u8; 8] {
    (number.cast_unsigned() ^ (1 << 63)).to_be_bytes()
}

fn record_key(place: Place) -> Vec<u8> {
    [&[kind::RECORD][..], &ordered(place.main), &place.sub.to_be_bytes()].concat()
}

impl Record {
    /// Its row's value: one byte that tells tombstones, then protobuf.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1 + self.kv.encoded_len());
        out.push(u8::from(self.tombstone));
        self.kv.encode_raw(&mut out);
        out
    }
}

impl Change {
    /// The key of the row that it changes.
    #[must_use]
    pub fn key(&self) -> Vec<u8> {
        let number = |kind: u8, number: i64| [&[kind][..], &ordered(number)].concat();
        match self {
            Self::Record(record) => record_key(record.place()),
            Self::Forget(place) => record_key(*place),
            Self::Compacted(_) => vec![kind::COMPACTED],
            Self::Lease { id, .. } | Self::LeaseGone(id) => number(kind::LEASE, *id),
            Self::Alarm { member, alarm } | Self::AlarmGone { member, alarm } => {
                [&[kind::ALARM][..], &member.to_be_bytes(), &alarm.to_be_bytes()].concat()
            }
        }
    }

    /// What it does to the rows.
    #[must_use]
    pub fn row(&self) -> Row {
        let value = match self {
            Self::Record(record) => Some(record.encode()),
            Self::Compacted(revision) => Some(ordered(*revision).to_vec()),
            Self::Lease { ttl, .. } => Some(ordered(*ttl).to_vec()),
            Self::Alarm { .. } => Some(Vec::new()),
            Self::Forget(_) | Self::LeaseGone(_) | Self::AlarmGone { .. } => None,
        };
        Row { key: self.key(), value }
    }

    /// The change that made a row of a snapshot or image; `None` for bytes that are no such row.
    #[must_use]
    pub fn from_row(key: &[u8], value: &[u8]) -> Option<Self> {
        let number = |bytes: &[u8]| -> Option<i64> {
            Some((u64::from_be_bytes(bytes.try_into().ok()?) ^ (1 << 63)).cast_signed())
        };
        let (kind, key) = key.split_first()?;
        Some(match *kind {
            kind::RECORD => {
                let (main, sub) = key.split_at_checked(8)?;
                let (tombstone, kv) = value.split_first()?;
                // Key and value get memory of their own: a slice would keep all of `value` alive.
                let kv = KeyValue::decode(kv).ok()?;
                let record =
                    Record { kv, sub: u32::from_be_bytes(sub.try_into().ok()?), tombstone: *tombstone != 0 };
                if record.kv.mod_revision != number(main)? {
                    return None;
                }
                Self::Record(Arc::new(record))
            }
            kind::COMPACTED => Self::Compacted(number(value)?),
            kind::LEASE => Self::Lease { id: number(key)?, ttl: number(value)? },
            kind::ALARM => {
                let (member, alarm) = key.split_at_checked(8)?;
                Self::Alarm {
                    member: u64::from_be_bytes(member.try_into().ok()?),
                    alarm: i32::from_be_bytes(alarm.try_into().ok()?),
                }
            }
            _ => return None,
        })
    }
}

/// A copy that does not keep the request's buffer alive: a key may outlive many values.
#[must_use]
pub fn own(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_the_changes_they_were() {
        let kv = KeyValue { key: "k".into(), value: "v".into(), mod_revision: 7, ..KeyValue::default() };
        for change in [
            Change::Record(Arc::new(Record { kv, sub: 3, tombstone: true })),
            Change::Compacted(5),
            Change::Lease { id: -9, ttl: 60 },
            Change::Alarm { member: u64::MAX, alarm: 1 },
        ] {
            let row = change.row();
            assert_eq!(Change::from_row(&row.key, &row.value.expect("a value")), Some(change));
        }
        for (key, value) in [(&b""[..], &b""[..]), (b"r", b""), (b"x1", b""), (b"rrrrrrrrrrrrr", b"\0")] {
            assert_eq!(Change::from_row(key, value), None, "{key:?}");
        }
    }

    #[test]
    fn rows_of_records_sort_by_revision_and_place() {
        let key = |main, sub| record_key(Place { main, sub });
        assert!(key(1, 9) < key(2, 0) && key(2, 0) < key(2, 1) && key(255, 0) < key(256, 0));
    }
}
