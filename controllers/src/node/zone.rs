//! Zones: how many of their nodes are ready, and whether pods may be driven off those that are not.
//!
//! Where every node of the cluster is silent, more likely nobody hears them than that all are gone: nothing is driven out then.
//! In a small zone with more than half of its nodes gone, those left could not carry the pods: they stay where they are.

use super::health;
use k8s_openapi::api::core::v1::Node;
use parking_lot::Mutex;
use std::collections::BTreeMap;

const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";
/// That many nodes of a zone may always be gone.
const FEW: usize = 2;
/// Above these percent of a zone's nodes, it is the zone that ails (`--unhealthy-zone-threshold`).
const AILING_PERCENT: usize = 55;
/// Zones of so many nodes go on without (`--large-cluster-size-threshold`).
const LARGE: usize = 50;

/// What silence of a node may do to its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evictions {
    /// It drives them out.
    Go,
    /// It drives nobody else out.
    Held,
    /// It drives nobody out, nor those whose time runs.
    Lifted,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    ready: usize,
    gone: usize,
}

/// All zones; kept by the changes of nodes.
#[derive(Default)]
pub struct Zones(Mutex<BTreeMap<String, Count>>);

fn of(node: &Node) -> String {
    let labels = node.metadata.labels.as_ref();
    let label = |key: &str| labels.and_then(|labels| labels.get(key)).map_or("", String::as_str);
    format!("{}/{}", label(REGION), label(ZONE))
}

fn verdicts(zones: &BTreeMap<String, Count>) -> BTreeMap<String, Evictions> {
    let all_gone = zones.values().all(|count| count.ready == 0);
    let verdict = |count: &Count| {
        let size = count.ready + count.gone;
        match count {
            _ if all_gone => Evictions::Lifted,
            // The others can take what this one had.
            Count { ready: 0, .. } => Evictions::Go,
            _ if count.gone > FEW && count.gone * 100 >= size * AILING_PERCENT && size <= LARGE => {
                Evictions::Held
            }
            _ => Evictions::Go,
        }
    };
    zones.iter().map(|(zone, count)| (zone.clone(), verdict(count))).collect()
}

impl Zones {
    /// A node came, changed or went; whether that changes what silence may do anywhere.
    pub fn changed(&self, old: Option<&Node>, new: Option<&Node>) -> bool {
        let seen = |node: Option<&Node>| node.map(|node| (of(node), health::is_ready(node)));
        let (old, new) = (seen(old), seen(new));
        if old == new {
            return false;
        }
        let mut zones = self.0.lock();
        let before = verdicts(&zones);
        for (node, comes) in [(old, false), (new, true)] {
            let Some((zone, ready)) = node else { continue };
            let count = zones.entry(zone).or_default();
            let count = if ready { &mut count.ready } else { &mut count.gone };
            *count = if comes { *count + 1 } else { count.saturating_sub(1) };
        }
        zones.retain(|_, count| count.ready + count.gone > 0);
        before != verdicts(&zones)
    }

    /// What silence of a node may do.
    pub fn evictions(&self, node: &Node) -> Evictions {
        verdicts(&self.0.lock()).get(&of(node)).copied().unwrap_or(Evictions::Go)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::object;
    use serde_json::json;

    fn node(zone: &str, ready: &str) -> Node {
        let labels = json!({ ZONE: zone });
        let conditions = json!([{ "type": "Ready", "status": ready }]);
        object(
            json!({ "metadata": { "name": "n", "labels": labels }, "status": { "conditions": conditions } }),
        )
    }

    #[test]
    fn pods_are_driven_out_unless_a_small_zone_or_the_whole_cluster_ails() {
        use Evictions::{Go, Held, Lifted};
        for (zones, verdict) in [
            (&[("a", 1, 1)][..], Go),
            (&[("a", 0, 1)], Lifted),
            (&[("a", 0, 3), ("b", 0, 1)], Lifted),
            (&[("a", 0, 3), ("b", 1, 0)], Go),
            (&[("a", 1, 2)], Go),
            (&[("a", 2, 3)], Held),
            (&[("a", 3, 3)], Go),
            (&[("a", 20, 30)], Held),
            (&[("a", 20, 31)], Go),
        ] {
            let all = Zones::default();
            for (zone, ready, gone) in zones {
                for state in [vec!["True"; *ready], vec!["Unknown"; *gone]].concat() {
                    all.changed(None, Some(&node(zone, state)));
                }
            }
            assert_eq!(all.evictions(&node("a", "Unknown")), verdict, "{zones:?}");
        }
    }

    #[test]
    fn others_hear_of_a_change_that_concerns_them() {
        let zones = Zones::default();
        let (ready, gone) = (node("a", "True"), node("a", "Unknown"));
        assert!(zones.changed(None, Some(&ready)), "the first node of its zone");
        assert!(!zones.changed(None, Some(&ready)));
        assert!(!zones.changed(Some(&ready), Some(&gone)));
        assert!(zones.changed(Some(&ready), Some(&gone)), "nobody is left");
        assert!(zones.changed(Some(&gone), Some(&ready)));
        assert!(!zones.changed(Some(&gone), None));
        assert!(zones.changed(Some(&ready), None), "the last node of its zone");
    }
}
