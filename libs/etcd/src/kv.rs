//! The calls that an apiserver makes of its store, so that it can run on ours, on real etcd and on [`crate::memory`].

use crate::error::KvError;
use crate::proto::{RangeRequest, RangeResponse, TxnRequest, TxnResponse};
use crate::watch::WatchStream;
use bytes::Bytes;

/// A replicated, revisioned map of keys to values.
#[async_trait::async_trait]
pub trait Kv: Send + Sync + 'static {
    /// Reads keys. Retried on other members while that is safe, which for reads is always.
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, KvError>;
    /// Compares and writes at once. [`KvError::Unknown`]: it may have been done.
    async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, KvError>;
    /// Forgets revisions below `revision`.
    async fn compact(&self, revision: i64) -> Result<(), KvError>;
    /// A new lease of `ttl_seconds`; returns its id.
    async fn lease_grant(&self, ttl_seconds: i64) -> Result<i64, KvError>;
    /// Prolongs a lease once; returns the seconds left, 0 or less when it is gone.
    async fn lease_keep_alive(&self, lease: i64) -> Result<i64, KvError>;
    /// All changes in `[key, range_end)` from `start_revision` on (0: from now), in order and none missing, until the stream ends
    /// with an error; the caller then goes on from its last revision + 1.
    async fn watch(
        &self,
        key: Bytes,
        range_end: Bytes,
        start_revision: i64,
        prev_kv: bool,
    ) -> Result<WatchStream, KvError>;
}

/// The end of the range of all keys that start with `prefix` (etcd's clientv3 `GetPrefixRangeEnd`).
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(&[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_one() {
        assert_eq!(prefix_end(b"/a/"), Bytes::from_static(b"/a0"));
        assert_eq!(prefix_end(b"a\xff"), Bytes::from_static(b"b"));
        assert_eq!(prefix_end(b"\xff"), Bytes::from_static(&[0]));
    }
}
