//! Nodes' health: a node that is no longer heard of is marked and tainted, and its pods move on.
//!
//! In: Nodes, their Leases, and pods. Out: node conditions and taints, pods marked unready, evicted or removed.
//!
//!     health.rs   one node: when it was last heard of, which conditions and taints it should have
//!     zone.rs     whether so many are silent that nobody is driven out
//!     ttl.rs      how long kubelets may keep what they read
//!     eviction.rs one pod: when the taints of its node drive it out, and when it is an orphan

mod eviction;
mod health;
mod ttl;
mod zone;

pub use health::taints;

use crate::context::Context;
use crate::pods;
use coracle_client::controller::Next;
use coracle_client::{Key, Queue};
use coracle_daemon::clock::{self, Instant};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use zone::Zones;

pub fn start(ctx: &Context, grace: Duration) {
    ttl::start(ctx);
    let (nodes, evictions) = (Queue::new(), Queue::new());
    let (heard, zones) = (Arc::new(Heard::default()), Arc::new(Zones::default()));
    watch_nodes(ctx, &nodes, &evictions, &heard);
    watch_zones(ctx, &nodes, &zones);
    let wake = evictions.clone();
    ctx.stores.pods.on_change(move |change| {
        let assigned =
            change.old.as_deref().map(pods::node_name) != change.new.as_deref().map(pods::node_name);
        let left =
            change.new.as_deref().is_some_and(|pod| pods::is_terminating(pod) || pods::is_finished(pod));
        if assigned || left {
            wake.add(change.key.clone());
        }
    });
    ctx.control("node-lifecycle", nodes, 8, move |ctx, key| {
        let (heard, zones) = (heard.clone(), zones.clone());
        async move {
            let Some(node) = ctx.stores.nodes.get(&key) else { return Ok(Next::Change) };
            let pods = ctx.stores.pods.by_index(crate::stores::BY_NODE, &key.name);
            let silent_for = heard.silent_for(&key.name);
            let evictions = zones.evictions(&node);
            ctx.execute(health::reconcile(&node, &pods, silent_for, grace, evictions, clock::now()), None)
                .await
        }
    });
    ctx.control("taint-eviction", evictions, 8, |ctx, key| async move {
        let Some(pod) = ctx.stores.pods.get(&key) else { return Ok(Next::Change) };
        let node_name = pods::node_name(&pod);
        let node = ctx.stores.nodes.get(&Key::cluster(node_name));
        if node.is_none() && !node_name.is_empty() && eviction::may_be_orphan(&pod) {
            return eviction::remove_orphan(&ctx, &pod).await;
        }
        ctx.execute(eviction::reconcile(&pod, node.as_deref(), clock::now()), None).await
    });
}

/// When each node last gave a sign of life, by our own clock.
#[derive(Default)]
struct Heard {
    at: Mutex<HashMap<String, Instant>>,
}

impl Heard {
    fn now(&self, node: &str) {
        self.at.lock().insert(node.to_owned(), Instant::now());
    }

    fn silent_for(&self, node: &str) -> Duration {
        self.at.lock().entry(node.to_owned()).or_insert_with(Instant::now).elapsed()
    }
}

/// Has all nodes looked at when so many are silent, or not any more, that it matters to others.
fn watch_zones(ctx: &Context, nodes: &Queue<Key>, zones: &Arc<Zones>) {
    let (wake, zones, all) = (nodes.clone(), zones.clone(), ctx.stores.nodes.clone());
    ctx.stores.nodes.on_change(move |change| {
        if zones.changed(change.old.as_deref(), change.new.as_deref()) {
            for node in all.list() {
                wake.add(Key::of(&node.metadata));
            }
        }
    });
}

fn watch_nodes(ctx: &Context, nodes: &Queue<Key>, evictions: &Queue<Key>, heard: &Arc<Heard>) {
    let (wake, evict, seen, pods) =
        (nodes.clone(), evictions.clone(), heard.clone(), ctx.stores.pods.clone());
    ctx.stores.nodes.on_change(move |change| {
        match (&change.old, &change.new) {
            (_, None) => {
                seen.at.lock().remove(&change.key.name);
            }
            (Some(old), Some(new)) if health::heartbeat(old) == health::heartbeat(new) => {}
            _ => seen.now(&change.key.name),
        }
        wake.add(change.key.clone());
        let taints = |node: &Option<Arc<k8s_openapi::api::core::v1::Node>>| {
            node.as_ref().map(|node| health::taints(node))
        };
        if taints(&change.old) != taints(&change.new) {
            for pod in pods.by_index(crate::stores::BY_NODE, &change.key.name) {
                evict.add(Key::of(&pod.metadata));
            }
        }
    });
    let (wake, seen, nodes) = (nodes.clone(), heard.clone(), ctx.stores.nodes.clone());
    ctx.stores.leases.on_change(move |change| {
        let renewed = |lease: &Option<Arc<k8s_openapi::api::coordination::v1::Lease>>| {
            lease.as_ref().and_then(|lease| lease.spec.as_ref()?.renew_time.clone())
        };
        if change.new.is_some() && renewed(&change.old) != renewed(&change.new) {
            seen.now(&change.key.name);
            // The node's own timer goes on; only one that was given up must be looked at before.
            let key = Key::cluster(change.key.name.clone());
            if nodes.get(&key).is_some_and(|node| health::is_given_up(&node)) {
                wake.add(key);
            }
        }
    });
}
