//! Routes to the pods of other nodes: each node's range of pod addresses goes via the node's own address.
//!
//! In: Node objects. Out: routes, changed when nodes come, move or go. Routes of an earlier life that no node explains any
//! more are removed once all nodes are known.

use crate::runtime::network::{Network, NetworkError};
use coracle_client::controller::{self, Next, ReconcileError};
use coracle_client::{Key, Queue, Scope, Store};
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// What changes routes.
#[async_trait::async_trait]
pub trait Routes: Send + Sync + 'static {
    /// Those that are ours.
    async fn list(&self) -> Result<Vec<(Ipv4Net, Ipv4Addr)>, NetworkError>;
    /// Adds or replaces one.
    async fn add(&self, pods: Ipv4Net, via: Ipv4Addr) -> Result<(), NetworkError>;
    /// Removes one.
    async fn remove(&self, pods: Ipv4Net) -> Result<(), NetworkError>;
}

#[async_trait::async_trait]
impl Routes for Network {
    async fn list(&self) -> Result<Vec<(Ipv4Net, Ipv4Addr)>, NetworkError> {
        self.routes().await
    }

    async fn add(&self, pods: Ipv4Net, via: Ipv4Addr) -> Result<(), NetworkError> {
        self.add_route(pods, via).await
    }

    async fn remove(&self, pods: Ipv4Net) -> Result<(), NetworkError> {
        self.remove_route(pods).await
    }
}

struct Keeper {
    routes: Arc<dyn Routes>,
    nodes: Store<Node>,
    /// This node.
    own: String,
    /// By node; `None` until the earlier life's routes were looked at.
    made: Mutex<Option<BTreeMap<Key, (Ipv4Net, Ipv4Addr)>>>,
}

/// Keeps the routes, until the scope ends.
pub fn start(scope: &Scope, nodes: &Store<Node>, own: &str, routes: Arc<dyn Routes>) {
    let keeper =
        Arc::new(Keeper { routes, nodes: nodes.clone(), own: own.to_owned(), made: Mutex::default() });
    let queue: Queue<Key> = Queue::new();
    let (sink, own) = (queue.clone(), own.to_owned());
    nodes.on_change(move |change| {
        let wanted = |node: &Option<Arc<Node>>| node.as_ref().and_then(|node| route_to(node));
        if change.key.name != own && wanted(&change.old) != wanted(&change.new) {
            sink.add(change.key.clone());
        }
    });
    // A first look even when this is the only node.
    queue.add(Key::cluster(""));
    controller::start(scope, "routes", queue, 1, move |key| {
        let keeper = keeper.clone();
        async move { keeper.keep(&key).await.map(|()| Next::Change) }
    });
}

/// The route to a node's pods, when it has told enough of itself.
fn route_to(node: &Node) -> Option<(Ipv4Net, Ipv4Addr)> {
    let pods = node.spec.as_ref()?.pod_cidr.as_ref()?.parse().ok()?;
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    let internal = addresses.iter().find(|address| address.type_ == "InternalIP")?;
    let simulated =
        node.metadata.annotations.as_ref().is_some_and(|all| all.contains_key("coracle.dev/simulated"));
    // The pods of a simulated node are nowhere.
    if simulated { None } else { Some((pods, internal.address.parse().ok()?)) }
}

impl Keeper {
    async fn keep(&self, key: &Key) -> Result<(), ReconcileError> {
        let told = |error: NetworkError| ReconcileError::NotYet(error.to_string());
        self.nodes.synced().await;
        if self.made.lock().is_none() {
            self.remove_stale().await.map_err(told)?;
            self.made.lock().get_or_insert_default();
        }
        let wanted = self.nodes.get(key).and_then(|node| route_to(&node));
        let made = self.made.lock().as_ref().and_then(|made| made.get(key).copied());
        if wanted == made {
            return Ok(());
        }
        if let Some((pods, _)) = made.filter(|(pods, _)| wanted.is_none_or(|(wanted, _)| wanted != *pods)) {
            self.routes.remove(pods).await.map_err(told)?;
        }
        if let Some((pods, via)) = wanted {
            self.routes.add(pods, via).await.map_err(told)?;
        }
        let mut all = self.made.lock();
        let all = all.get_or_insert_default();
        match wanted {
            Some(route) => all.insert(key.clone(), route),
            None => all.remove(key),
        };
        Ok(())
    }

    async fn remove_stale(&self) -> Result<(), NetworkError> {
        let nodes = self.nodes.list();
        let others = nodes.iter().filter(|node| node.metadata.name.as_ref() != Some(&self.own));
        let wanted: Vec<_> = others.filter_map(|node| route_to(node)).collect();
        for route in self.routes.list().await? {
            if !wanted.contains(&route) {
                self.routes.remove(route.0).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_daemon::{Tasks, clock};
    use serde_json::json;
    use std::time::Duration;
    use tokio::sync::watch;

    struct Fake(watch::Sender<BTreeMap<Ipv4Net, Ipv4Addr>>);

    #[async_trait::async_trait]
    impl Routes for Fake {
        async fn list(&self) -> Result<Vec<(Ipv4Net, Ipv4Addr)>, NetworkError> {
            Ok(self.0.borrow().iter().map(|(pods, via)| (*pods, *via)).collect())
        }
        async fn add(&self, pods: Ipv4Net, via: Ipv4Addr) -> Result<(), NetworkError> {
            self.0.send_modify(|all| {
                all.insert(pods, via);
            });
            Ok(())
        }
        async fn remove(&self, pods: Ipv4Net) -> Result<(), NetworkError> {
            self.0.send_modify(|all| {
                all.remove(&pods);
            });
            Ok(())
        }
    }

    fn node(name: &str, pods: &str, address: &str, version: &str) -> Node {
        serde_json::from_value(json!({
            "metadata": { "name": name, "resourceVersion": version }, "spec": { "podCIDR": pods },
            "status": { "addresses": [{ "type": "InternalIP", "address": address }] },
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn routes_follow_the_other_nodes_and_stale_ones_go() {
        let stale = [("10.9.0.0/24".parse().unwrap(), "10.0.0.9".parse().unwrap())];
        let (sender, mut seen) = watch::channel(BTreeMap::from(stale));
        let (nodes, scope) = (Store::new(&[]), Scope::new(&Tasks::new()));
        nodes.replace(vec![
            node("own", "10.1.0.0/24", "10.0.0.1", "1"),
            node("b", "10.2.0.0/24", "10.0.0.2", "1"),
        ]);
        start(&scope, &nodes, "own", Arc::new(Fake(sender)));
        let mut until = async |expected: &[(&str, &str)]| {
            let expected: BTreeMap<Ipv4Net, Ipv4Addr> =
                expected.iter().map(|(pods, via)| (pods.parse().unwrap(), via.parse().unwrap())).collect();
            let wait = seen.wait_for(|all| *all == expected);
            let waited = clock::timeout(Duration::from_secs(10), wait).await;
            assert!(waited.is_ok(), "{expected:?}");
        };
        until(&[("10.2.0.0/24", "10.0.0.2")]).await;
        nodes.upsert(node("b", "10.2.0.0/24", "10.0.0.7", "2"));
        until(&[("10.2.0.0/24", "10.0.0.7")]).await;
        nodes.upsert(node("c", "10.3.0.0/24", "10.0.0.3", "3"));
        until(&[("10.2.0.0/24", "10.0.0.7"), ("10.3.0.0/24", "10.0.0.3")]).await;
        nodes.remove(&Key::cluster("b"));
        until(&[("10.3.0.0/24", "10.0.0.3")]).await;
        scope.stop().await;
    }
}
