//! What monitoring is told, under etcd's names.

use super::{Api, VERSION};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;

/// What handlers count.
#[derive(Clone, Default)]
pub struct Counts {
    pub ranges: Counter,
    pub puts: Counter,
    pub deletes: Counter,
    pub txns: Counter,
    pub proposals_failed: Counter,
    /// Calls by how they ended.
    pub calls: super::calls::Calls,
    /// Connections of clients.
    pub connections: Gauge,
    /// Connections on which no TLS came about.
    pub handshakes_failed: Counter,
    proposals_pending: Gauge,
}

impl Counts {
    /// A proposal is pending until the guard is dropped.
    pub fn proposal(&self) -> Pending {
        self.proposals_pending.inc();
        Pending(self.proposals_pending.clone())
    }
}

/// See [`Counts::proposal`].
pub struct Pending(Gauge);

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServerId {
    server_id: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServerVersion {
    server_version: String,
}

type Number = Gauge<u64, AtomicU64>;

/// Numbers that are read when somebody asks.
#[derive(Clone, Default)]
pub(super) struct Metrics {
    has_leader: Gauge,
    is_leader: Gauge,
    is_learner: Gauge,
    committed: Number,
    applied: Number,
    leader_changes: Number,
    quota: Number,
    db_size: Number,
    db_size_in_use: Number,
    revision: Gauge,
    compacted: Gauge,
    keys: Gauge,
    leases: Gauge,
    watchers: Gauge,
    slow_watchers: Gauge,
    id: Family<ServerId, Gauge>,
    version: Family<ServerVersion, Gauge>,
}

impl Metrics {
    /// Makes them part of what `registry` tells.
    pub fn register(registry: &mut Registry) -> Self {
        let all = Self::default();
        let mut gauge = |name: &str, help: &str, gauge: &Gauge| registry.register(name, help, gauge.clone());
        gauge("etcd_server_has_leader", "1 when a leader is known", &all.has_leader);
        gauge("etcd_server_is_leader", "1 when this member leads", &all.is_leader);
        gauge("etcd_server_is_learner", "1 when this member has no vote", &all.is_learner);
        gauge("etcd_debugging_mvcc_current_revision", "Revision of the store", &all.revision);
        gauge("etcd_debugging_mvcc_compact_revision", "Revision of the last compaction", &all.compacted);
        gauge(
            "etcd_debugging_mvcc_keys_total",
            "Keys, those deleted since the last compaction included",
            &all.keys,
        );
        gauge("etcd_debugging_lease_current", "Leases", &all.leases);
        gauge("etcd_debugging_mvcc_watcher_total", "Watchers", &all.watchers);
        gauge("etcd_debugging_mvcc_slow_watcher_total", "Watchers with unread events", &all.slow_watchers);
        let mut number =
            |name: &str, help: &str, gauge: &Number| registry.register(name, help, gauge.clone());
        number("etcd_server_proposals_committed_total", "Index of the last committed entry", &all.committed);
        number("etcd_server_proposals_applied_total", "Index of the last applied entry", &all.applied);
        number(
            "etcd_server_leader_changes_seen_total",
            "Terms whose leader this member saw",
            &all.leader_changes,
        );
        number("etcd_server_quota_backend_bytes", "Bytes of state that may not be passed", &all.quota);
        number("etcd_mvcc_db_total_size_in_bytes", "Bytes that log and image take on the disk", &all.db_size);
        number("etcd_mvcc_db_total_size_in_use_in_bytes", "Bytes of keys and values", &all.db_size_in_use);
        registry.register("etcd_server_id", "This member's id, in hexadecimal", all.id.clone());
        registry.register(
            "etcd_server_version",
            "The version of etcd that this member speaks",
            all.version.clone(),
        );
        all
    }

    /// Makes what handlers counted a part of it.
    pub fn register_counts(counts: &Counts, registry: &mut Registry) {
        let mut counter =
            |name: &str, help: &str, counter: &Counter| registry.register(name, help, counter.clone());
        counter("etcd_mvcc_range", "Ranges served", &counts.ranges);
        counter("etcd_mvcc_put", "Puts served", &counts.puts);
        counter("etcd_mvcc_delete", "Deletions served", &counts.deletes);
        counter("etcd_mvcc_txn", "Transactions served", &counts.txns);
        counter(
            "etcd_server_proposals_failed",
            "Proposals that were not or perhaps not done",
            &counts.proposals_failed,
        );
        counter(
            "coracle_store_client_handshakes_failed",
            "Connections of clients that were refused, as no TLS came about",
            &counts.handshakes_failed,
        );
        registry.register(
            "etcd_server_proposals_pending",
            "Proposals without an answer yet",
            counts.proposals_pending.clone(),
        );
        registry.register(
            "coracle_store_client_connections",
            "Connections of clients that are open",
            counts.connections.clone(),
        );
        counts.calls.register(registry);
    }

    /// Reads all numbers. It asks the disk.
    pub fn update(&self, api: &Api) {
        let status = api.consensus.status();
        let leadership = api.leadership();
        self.has_leader.set(i64::from(leadership.leader != 0));
        self.is_leader.set(i64::from(leadership.is_me));
        self.is_learner.set(i64::from(status.is_learner));
        self.committed.set(status.index);
        self.applied.set(status.applied);
        self.leader_changes.set(status.term);
        self.quota.set(api.limits.quota_bytes.unwrap_or(0));
        self.db_size.set(status.disk_bytes);
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        {
            let machine = api.shared.machine();
            self.db_size_in_use.set(machine.size());
            self.revision.set(machine.revision());
            self.compacted.set(machine.compacted());
            self.keys.set(count(machine.keys()));
            self.leases.set(count(machine.leases().count()));
        }
        self.watchers.set(count(api.shared.hub().watchers()));
        self.slow_watchers.set(count(api.shared.hub().unread_watchers()));
        self.id.get_or_create(&ServerId { server_id: format!("{:x}", status.member_id) }).set(1);
        self.version.get_or_create(&ServerVersion { server_version: VERSION.to_owned() }).set(1);
    }
}
