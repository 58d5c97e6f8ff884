//! What replication tells monitoring, under etcd's names.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// See the module; clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Seconds that each sync of the write-ahead log took.
    pub wal_syncs: Histogram,
    /// Seconds that this member's proposals took from the request to the answer.
    pub proposals: Histogram,
    /// Calls that came from no member of this cluster, or were meant for another one.
    pub peers_refused: Counter,
    /// Connections of members that came to nothing, as no TLS came about.
    pub peer_handshakes_failed: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let histogram = || Histogram::new(exponential_buckets(0.000_1, 2.0, 17));
        Self {
            wal_syncs: histogram(),
            proposals: histogram(),
            peers_refused: Counter::default(),
            peer_handshakes_failed: Counter::default(),
        }
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
        registry.register(
            "coracle_store_peer_calls_refused",
            "Calls from no member of this cluster, or meant for another one",
            self.peers_refused.clone(),
        );
        registry.register(
            "coracle_store_peer_handshakes_failed",
            "Connections to the peer URLs that were refused, as no TLS came about",
            self.peer_handshakes_failed.clone(),
        );
    }
}
