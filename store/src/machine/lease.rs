//! Leases as they are replicated: id, granted time to live, attached keys. Time left is the leader's business.

use super::apply::header;
use super::{Change, Machine, Record};
use crate::error::StoreError;
use bytes::Bytes;
use coracle_etcd::proto::{LeaseGrantResponse, LeaseRevokeResponse};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The longest lease, in seconds: about 285 years, as in etcd.
pub(super) const TTL_SECONDS_MAX: i64 = 9_000_000_000;

#[derive(Debug, Default)]
pub(super) struct Lease {
    /// Granted time to live in seconds.
    pub ttl: i64,
    /// Keys that go with it.
    pub keys: BTreeSet<Bytes>,
}

impl Machine {
    /// Ids and granted times to live in seconds, by id.
    pub fn leases(&self) -> impl Iterator<Item = (i64, i64)> {
        self.leases.iter().map(|(id, lease)| (*id, lease.ttl))
    }

    /// A lease's granted time to live in seconds, and its keys in order.
    #[must_use]
    pub fn lease(&self, id: i64) -> Option<(i64, impl Iterator<Item = &Bytes>)> {
        self.leases.get(&id).map(|lease| (lease.ttl, lease.keys.iter()))
    }

    pub(super) fn grant(&mut self, id: i64, ttl: i64) -> Result<LeaseGrantResponse, StoreError> {
        // The proposer has drawn an id; a client that asks for 0 asks for any.
        if id == 0 {
            return Err(StoreError::LeaseNotFound);
        }
        if ttl > TTL_SECONDS_MAX {
            return Err(StoreError::LeaseTtlTooLarge);
        }
        if self.leases.contains_key(&id) {
            return Err(StoreError::LeaseExists);
        }
        self.leases.insert(id, Lease { ttl, keys: BTreeSet::new() });
        self.effects.changes.push(Change::Lease { id, ttl });
        Ok(LeaseGrantResponse { header: header(self.revision), id, ttl, error: String::new() })
    }

    /// Ends a lease and deletes its keys in one transaction.
    pub(super) fn revoke(&mut self, id: i64) -> Result<LeaseRevokeResponse, StoreError> {
        let lease = self.leases.remove(&id).ok_or(StoreError::LeaseNotFound)?;
        let attached: Vec<Arc<Record>> = lease
            .keys
            .iter()
            .filter_map(|key| self.index.get(key)?.records.last())
            .filter(|record| !record.tombstone)
            .cloned()
            .collect();
        for record in attached {
            self.delete(record);
        }
        self.effects.changes.push(Change::LeaseGone(id));
        self.finish();
        Ok(LeaseRevokeResponse { header: header(self.revision) })
    }

    pub(super) fn attach(&mut self, id: i64, key: &Bytes) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.keys.insert(key.clone());
        }
    }

    pub(super) fn detach(&mut self, id: i64, key: &Bytes) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.keys.remove(key);
        }
    }
}
