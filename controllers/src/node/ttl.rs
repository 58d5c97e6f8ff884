//! How long a node may keep secrets and config maps before it asks anew: the larger the cluster, the longer.
//!
//! In: the number of nodes. Out: the annotation of each, as upstream's kubelets read it. The bounds of neighbouring steps
//! overlap, so that a cluster at a bound does not write all its nodes again and again.

use crate::context::Context;
use crate::plan::{Action, NODE, Plan};
use coracle_client::controller::Next;
use coracle_client::{Key, Queue};
use k8s_openapi::api::core::v1::Node;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const ANNOTATION: &str = "node.alpha.kubernetes.io/ttl";

/// Nodes at least and at most, and seconds.
const STEPS: [(usize, usize, u32); 5] =
    [(0, 100, 0), (90, 500, 15), (450, 1000, 30), (900, 2000, 60), (1800, usize::MAX, 300)];

pub fn start(ctx: &Context) {
    let queue = Queue::new();
    let (wake, nodes, step) = (queue.clone(), ctx.stores.nodes.clone(), Arc::new(AtomicUsize::new(0)));
    let (current, count) = (step.clone(), AtomicUsize::new(0));
    ctx.stores.nodes.on_change(move |change| {
        wake.add(change.key.clone());
        let number = match (&change.old, &change.new) {
            (None, Some(_)) => count.fetch_add(1, Ordering::Relaxed) + 1,
            (Some(_), None) => count.fetch_sub(1, Ordering::Relaxed).saturating_sub(1),
            _ => return,
        };
        let before = step.load(Ordering::Relaxed);
        let now = step_for(number, before);
        if now != before {
            step.store(now, Ordering::Relaxed);
            nodes.keys().into_iter().for_each(|key| wake.add(key));
        }
    });
    ctx.control("ttl", queue, 8, move |ctx, key| {
        let seconds = STEPS[current.load(Ordering::Relaxed)].2;
        async move {
            let Some(node) = ctx.stores.nodes.get(&key) else { return Ok(Next::Change) };
            ctx.execute(reconcile(&node, seconds), None).await
        }
    });
}

/// The step of a cluster of so many nodes that was at the step `at`.
fn step_for(nodes: usize, mut at: usize) -> usize {
    while nodes > STEPS[at].1 {
        at += 1;
    }
    while nodes < STEPS[at].0 {
        at -= 1;
    }
    at
}

fn reconcile(node: &Node, seconds: u32) -> Plan {
    let (mut plan, wanted) = (Plan::default(), seconds.to_string());
    let told = node.metadata.annotations.as_ref().and_then(|notes| notes.get(ANNOTATION));
    if told != Some(&wanted) {
        let patch = json!({ "metadata": { "annotations": { ANNOTATION: wanted } } });
        plan.then([Action::Patch { resource: &NODE, key: Key::of(&node.metadata), subresource: "", patch }]);
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::object;

    #[test]
    fn larger_clusters_keep_longer_and_bounds_are_crossed_late() {
        for (nodes, before, after) in
            [(1, 0, 0), (100, 0, 0), (101, 0, 1), (95, 1, 1), (89, 1, 0), (5000, 0, 4), (3, 4, 0)]
        {
            assert_eq!(step_for(nodes, before), after, "{nodes} nodes at step {before}");
        }
    }

    #[test]
    fn a_node_is_told_once() {
        let node = |notes| object::<Node>(json!({ "metadata": { "name": "n", "annotations": notes } }));
        assert_eq!(reconcile(&node(json!({})), 0).actions().count(), 1);
        assert_eq!(reconcile(&node(json!({ ANNOTATION: "15" })), 0).actions().count(), 1);
        assert_eq!(reconcile(&node(json!({ ANNOTATION: "0" })), 0).actions().count(), 0);
    }
}
