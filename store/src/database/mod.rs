//! A member's state as etcd's own database, which is what etcd's users take for a snapshot, and back.
//!
//! In: a view of the machine and who the members are. Out: a bbolt file with etcd's buckets, of which `key`, `lease`, `alarm`
//! and `meta` hold all state; or a machine from such a file, whoever wrote it. A snapshot is the file and its SHA-256.
//!
//! | bucket | key | value |
//! |---|---|---|
//! | `key` | revision (8 bytes), `_`, place in it (8), `t` for a deletion | `mvccpb.KeyValue`; of a deletion just the key |
//! | `lease` | id (8) | `leasepb.Lease` |
//! | `alarm` | `AlarmMember` | nothing |
//! | `meta` | `consistent_index`, `term`, `scheduledCompactRev`, `finishedCompactRev` | numbers (8), or as in `key` |
//! | `members` | id in hexadecimal | JSON |
//! | `auth`, `cluster`, `members_removed` … | | there, as etcd expects |
//!
//! Invariant: a machine that is written and read is the same.

mod read;
#[cfg(test)]
mod tests;
mod write;

pub use read::{ReadError, read, split_hash};
pub use write::{Dump, HASH};

/// etcd's numbers of transactions, changes and leases: big-endian, so that they sort.
fn number(bytes: &[u8]) -> Option<i64> {
    Some(i64::from_be_bytes(bytes.try_into().ok()?))
}

/// A change's key: revision and place in it.
fn revision_key(main: i64, sub: i64) -> [u8; 17] {
    let mut key = [b'_'; 17];
    key[..8].copy_from_slice(&main.to_be_bytes());
    key[9..].copy_from_slice(&sub.to_be_bytes());
    key
}

/// What stands behind the key of a deletion.
const TOMBSTONE: u8 = b't';

/// `leasepb.Lease`. etcd's checkpoints of what is left are not read: the leader gives leases their full time.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct LeaseRow {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(int64, tag = "2")]
    ttl: i64,
}

mod bucket {
    pub const ALARM: &str = "alarm";
    pub const AUTH: &str = "auth";
    pub const KEY: &str = "key";
    pub const LEASE: &str = "lease";
    pub const MEMBERS: &str = "members";
    pub const META: &str = "meta";
    /// Those that hold nothing here.
    pub const EMPTY: [&str; 4] = ["authRoles", "authUsers", "cluster", "members_removed"];
}

mod meta {
    pub const APPLIED: &str = "consistent_index";
    pub const FINISHED: &str = "finishedCompactRev";
    pub const SCHEDULED: &str = "scheduledCompactRev";
    pub const TERM: &str = "term";
}

const AUTH_ENABLED: &[u8] = b"authEnabled";
