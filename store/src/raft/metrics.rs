//! What replication tells monitoring, under etcd's names.

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// See the module; clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Seconds that each sync of the write-ahead log took.
    pub wal_syncs: Histogram,
    /// Seconds that this member's proposals took from the request to the answer.
    pub proposals: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let histogram = || Histogram::new(exponential_buckets(0.000_1, 2.0, 17));
        Self { wal_syncs: histogram(), proposals: histogram() }
    }
}

impl Metrics {
    /// Makes them part of what `registry` tells.
    pub fn register(&self, registry: &mut Registry) {
        let (syncs, proposals) = (self.wal_syncs.clone(), self.proposals.clone());
        registry.register(
            "etcd_disk_wal_fsync_duration_seconds",
            "Time of each sync of the write-ahead log",
            syncs,
        );
        registry.register(
            "etcd_server_proposal_duration_seconds",
            "Time of each proposal made on this member as leader, until it was applied",
            proposals,
        );
    }
}
