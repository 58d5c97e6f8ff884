//! What a cluster is made of. Written once to `spec.json`; everything that must stay the same over restarts follows from it.

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// TCP ports that one cluster may use, from its first on.
pub const PORTS_PER_CLUSTER: u16 = 32;
/// Most members of a store.
pub const STORES_MAX: u16 = 5;
/// Most apiservers.
pub const APISERVERS_MAX: u16 = 4;
/// Most nodes with containers.
pub const NODES_MAX: u16 = 20;
/// Clusters with nodes side by side; [`Spec::cluster_cidr`] gives each a network below 10.89 (nodes) and 10.96 (Services).
pub const SUBNETS: u8 = 80;
/// Schedulers and controller managers: one leads, one waits.
pub const STANDBYS: u16 = 2;

const STORE_PORTS_AT: u16 = 5;
const METRICS_PORTS_AT: u16 = STORE_PORTS_AT + 2 * STORES_MAX;
const SCHEDULER_PORTS_AT: u16 = METRICS_PORTS_AT + STORES_MAX;
const CONTROLLERS_PORTS_AT: u16 = SCHEDULER_PORTS_AT + STANDBYS;
const SIMULATOR_PORT_AT: u16 = CONTROLLERS_PORTS_AT + STANDBYS;
const _: () = assert!(
    APISERVERS_MAX < STORE_PORTS_AT && SIMULATOR_PORT_AT < PORTS_PER_CLUSTER,
    "port blocks must not overlap"
);

/// A cluster's unchanging facts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The cluster's name.
    pub name: String,
    /// Members of the store.
    pub stores: u16,
    /// Apiservers.
    pub apiservers: u16,
    /// Nodes with containers.
    pub nodes: u16,
    /// Simulated nodes.
    pub simulated_nodes: u16,
    /// First of [`PORTS_PER_CLUSTER`] ports.
    pub base_port: u16,
    /// Third byte of the node network `10.89.SUBNET.0/24`.
    pub subnet: u8,
    /// A real etcd that stands in for our store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd: Option<PathBuf>,
}

impl Spec {
    /// The one address of the API.
    #[must_use]
    pub fn balancer_port(&self) -> u16 {
        self.base_port
    }
    /// Port of apiserver `i`.
    #[must_use]
    pub fn apiserver_port(&self, i: u16) -> u16 {
        self.base_port + 1 + i
    }
    /// Client port of store `i`.
    #[must_use]
    pub fn store_client_port(&self, i: u16) -> u16 {
        self.base_port + STORE_PORTS_AT + 2 * i
    }
    /// Peer port of store `i`.
    #[must_use]
    pub fn store_peer_port(&self, i: u16) -> u16 {
        self.store_client_port(i) + 1
    }
    /// Plain-HTTP health and metrics port of store `i`.
    #[must_use]
    pub fn store_metrics_port(&self, i: u16) -> u16 {
        self.base_port + METRICS_PORTS_AT + i
    }
    /// Health port of scheduler `i`.
    #[must_use]
    pub fn scheduler_port(&self, i: u16) -> u16 {
        self.base_port + SCHEDULER_PORTS_AT + i
    }
    /// Health port of controller manager `i`.
    #[must_use]
    pub fn controllers_port(&self, i: u16) -> u16 {
        self.base_port + CONTROLLERS_PORTS_AT + i
    }
    /// Port of the process that runs the simulated nodes.
    #[must_use]
    pub fn simulator_port(&self) -> u16 {
        self.base_port + SIMULATOR_PORT_AT
    }
    /// Whether nodes with containers exist, and with them a bridge.
    #[must_use]
    pub fn has_network(&self) -> bool {
        self.nodes > 0
    }
    /// The host's address on the bridge.
    #[must_use]
    pub fn bridge_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 89, self.subnet, 1)
    }
    /// The bridge's name in the host's network.
    #[must_use]
    pub fn bridge(&self) -> String {
        format!("coracle{}", self.subnet)
    }
    /// The host's nftables table.
    #[must_use]
    pub fn host_table(&self) -> String {
        format!("coracle{}", self.subnet)
    }
    /// The host side of node `i`'s cable.
    #[must_use]
    pub fn cable(&self, i: u16) -> String {
        format!("coracle{}n{i}", self.subnet)
    }
    /// Address of node `i`.
    #[must_use]
    pub fn node_address(&self, i: u16) -> Ipv4Addr {
        let host = u8::try_from(10 + i).unwrap_or(u8::MAX);
        Ipv4Addr::new(10, 89, self.subnet, host)
    }
    /// Addresses of all pods: its own for each cluster, so that the host can route to the pods of all of them.
    #[must_use]
    pub fn cluster_cidr(&self) -> Ipv4Net {
        let network = if self.subnet == 0 { 244 } else { self.subnet };
        Ipv4Net::new_assert(Ipv4Addr::new(10, network, 0, 0), 16)
    }
    /// Pods of node `i`.
    #[must_use]
    pub fn pod_cidr(&self, i: u16) -> Ipv4Net {
        let [a, b, _, _] = self.cluster_cidr().addr().octets();
        Ipv4Net::new_assert(Ipv4Addr::new(a, b, u8::try_from(i).unwrap_or(u8::MAX), 0), 24)
    }
    /// Name of node `i`.
    #[must_use]
    pub fn node_name(&self, i: u16) -> String {
        format!("{}-node-{i}", self.name)
    }
    /// Address that apiservers tell clients inside the cluster.
    #[must_use]
    pub fn advertise_address(&self) -> Ipv4Addr {
        if self.has_network() { self.bridge_address() } else { Ipv4Addr::LOCALHOST }
    }
    /// cgroup of node `i`, below each hierarchy's root.
    #[must_use]
    pub fn cgroup(&self, i: u16) -> String {
        format!("/coracle/{}/{}", self.name, self.node_name(i))
    }
    /// Context, cluster and user name in kubeconfigs.
    #[must_use]
    pub fn context(&self) -> String {
        format!("coracle-{}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_largest_cluster_uses_no_port_twice() {
        let spec = Spec {
            name: "x".into(),
            stores: STORES_MAX,
            apiservers: APISERVERS_MAX,
            nodes: 0,
            simulated_nodes: 1,
            base_port: 100,
            subnet: 0,
            etcd: None,
        };
        let mut ports = vec![spec.balancer_port(), spec.simulator_port()];
        ports.extend(
            (0..STORES_MAX).flat_map(|i| {
                [spec.store_client_port(i), spec.store_peer_port(i), spec.store_metrics_port(i)]
            }),
        );
        ports.extend((0..APISERVERS_MAX).map(|i| spec.apiserver_port(i)));
        ports.extend((0..STANDBYS).flat_map(|i| [spec.scheduler_port(i), spec.controllers_port(i)]));
        let distinct: BTreeSet<u16> = ports.iter().copied().collect();
        assert_eq!(distinct.len(), ports.len());
        assert!(distinct.iter().all(|port| (100..100 + PORTS_PER_CLUSTER).contains(port)));
    }
}
