//! Makes this server an endpoint of the Service `kube-dns`, by EndpointSlices of its own that go when it stops.
//!
//! Each belongs to the Node, so that the garbage collector removes those of a node that is deleted.

use crate::follow::SERVICE_LABEL;
use anyhow::{Context, Result};
use coracle_client::{Key, Store, errors};
use coracle_daemon::backoff::Backoff;
use coracle_daemon::clock;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, ObjectMeta, PostParams};
use kube::{Resource, ResourceExt};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const NAMESPACE: &str = "kube-system";
const SERVICE: &str = "kube-dns";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// How long the farewell may take.
const FAREWELL_MAX: Duration = Duration::from_secs(2);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(5);

/// What is published, and how to see whether it stands.
pub struct Publisher {
    /// All listeners; those on loopback are nobody else's business.
    pub listen: Vec<SocketAddr>,
    /// This node's name.
    pub node_name: String,
    /// This node.
    pub nodes: Store<Node>,
    /// All slices.
    pub slices: Store<EndpointSlice>,
    /// Writes them.
    pub api: Api<EndpointSlice>,
}

impl Publisher {
    /// An API for the slices.
    pub fn api(client: kube::Client) -> Api<EndpointSlice> {
        Api::namespaced(client, NAMESPACE)
    }

    /// Keeps the slices as they should be until `stop`, then removes them.
    pub async fn run(self, stop: CancellationToken) {
        let wake = Arc::new(Notify::new());
        let woken = wake.clone();
        self.nodes.on_change(move |_| woken.notify_one());
        let (woken, prefix) = (wake.clone(), format!("{SERVICE}-{}", self.node_name));
        self.slices.on_change(move |change| {
            if change.key.namespace == NAMESPACE && change.key.name.starts_with(&prefix) {
                woken.notify_one();
            }
        });
        stop.run_until_cancelled(self.keep(&wake)).await;
        if clock::timeout(FAREWELL_MAX, self.remove()).await.is_err() {
            tracing::warn!("could not take the server off its Service in time");
        }
    }

    async fn keep(&self, wake: &Notify) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MOST);
        loop {
            match self.publish().await {
                Ok(()) => {
                    backoff.reset();
                    wake.notified().await;
                }
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "cannot join the Service kube-dns");
                    clock::sleep(backoff.next_delay()).await;
                }
            }
        }
    }

    async fn publish(&self) -> Result<()> {
        let Some(node) = self.nodes.get(&Key::cluster(self.node_name.clone())) else { return Ok(()) };
        for wanted in wanted(&node, &self.listen) {
            let name = wanted.name_any();
            let params = PostParams::default();
            let written = match self.slices.get(&Key::new(NAMESPACE, name.clone())) {
                None => self.api.create(&params, &wanted).await,
                Some(known) if same(&known, &wanted) => continue,
                Some(known) => {
                    let mut next = wanted;
                    next.metadata.resource_version.clone_from(&known.metadata.resource_version);
                    self.api.replace(&name, &params, &next).await
                }
            };
            match written {
                Ok(_) => {}
                // The cache is behind; the event that it waits for wakes us.
                Err(error) if errors::is_conflict(&error) || errors::is_already_exists(&error) => {}
                Err(error) if errors::is_not_found(&error) => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot write EndpointSlice {name}"));
                }
            }
        }
        Ok(())
    }

    async fn remove(&self) {
        let families = [false, true].map(|v6| slice_name(&self.node_name, v6));
        for name in families {
            if self.slices.get(&Key::new(NAMESPACE, name.clone())).is_none() {
                continue;
            }
            match self.api.delete(&name, &DeleteParams::default()).await {
                Err(error) if !errors::is_not_found(&error) => {
                    tracing::warn!(error = format!("{error:#}"), name, "cannot remove the EndpointSlice");
                }
                _ => {}
            }
        }
    }
}

fn slice_name(node: &str, v6: bool) -> String {
    format!("{SERVICE}-{node}{}", if v6 { "-ipv6" } else { "" })
}

/// One slice for each address family.
fn wanted(node: &Node, listen: &[SocketAddr]) -> Vec<EndpointSlice> {
    let usable = |address: &&SocketAddr| !address.ip().is_loopback() && !address.ip().is_unspecified();
    let of_family = |v6: bool| listen.iter().filter(usable).filter(move |address| address.is_ipv6() == v6);
    [false, true]
        .into_iter()
        .filter_map(|v6| {
            let port = of_family(v6).next()?.port();
            let addresses = of_family(v6).filter(|address| address.port() == port).map(SocketAddr::ip);
            Some(slice(node, v6, addresses.collect(), port))
        })
        .collect()
}

fn slice(node: &Node, v6: bool, addresses: Vec<IpAddr>, port: u16) -> EndpointSlice {
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.name_any(),
        uid: node.meta().uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    };
    let labels = BTreeMap::from([
        (SERVICE_LABEL.to_owned(), SERVICE.to_owned()),
        (MANAGED_BY.to_owned(), "coracle-dns".to_owned()),
    ]);
    let serving = EndpointConditions { ready: Some(true), serving: Some(true), terminating: Some(false) };
    let endpoint = |address: IpAddr| Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(serving.clone()),
        node_name: Some(node.name_any()),
        ..Endpoint::default()
    };
    let port = |name: &str, protocol: &str| EndpointPort {
        name: Some(name.to_owned()),
        protocol: Some(protocol.to_owned()),
        port: Some(i32::from(port)),
        ..EndpointPort::default()
    };
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(slice_name(&node.name_any(), v6)),
            namespace: Some(NAMESPACE.to_owned()),
            labels: Some(labels),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        address_type: if v6 { "IPv6" } else { "IPv4" }.to_owned(),
        endpoints: addresses.into_iter().map(endpoint).collect(),
        ports: Some(vec![port("dns", "UDP"), port("dns-tcp", "TCP")]),
    }
}

fn same(a: &EndpointSlice, b: &EndpointSlice) -> bool {
    a.endpoints == b.endpoints
        && a.ports == b.ports
        && a.address_type == b.address_type
        && a.labels() == b.labels()
        && a.owner_references() == b.owner_references()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_not_published_and_families_have_slices_of_their_own() {
        let node = Node {
            metadata: ObjectMeta { name: Some("n".into()), uid: Some("u".into()), ..ObjectMeta::default() },
            ..Node::default()
        };
        let listen = ["127.0.0.1:53", "172.30.0.10:53", "[fd00::1]:53", "0.0.0.0:53"];
        let slices = wanted(&node, &listen.map(|address| address.parse().unwrap()));
        let told: Vec<_> = slices
            .iter()
            .map(|slice| (slice.name_any(), slice.endpoints[0].addresses[0].clone(), slice.endpoints.len()))
            .collect();
        let own = |name: &str, address: &str| (name.to_owned(), address.to_owned(), 1);
        assert_eq!(told, [own("kube-dns-n", "172.30.0.10"), own("kube-dns-n-ipv6", "fd00::1")]);
    }
}
