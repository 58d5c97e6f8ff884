//! Which of the nodes that can take a pod is the best: Kubernetes' default scores, with its weights.

use crate::filter::counted;
use crate::pod::PodInfo;
use crate::snapshot::{NodeInfo, Snapshot};
use coracle_client::placement::tolerates;
use std::collections::HashMap;
use std::sync::Arc;

/// The best that a single score can be.
const BEST: f64 = 100.0;
const TAINT_WEIGHT: f64 = 3.0;
const NODE_AFFINITY_WEIGHT: f64 = 2.0;
const POD_AFFINITY_WEIGHT: f64 = 2.0;
const SPREAD_WEIGHT: f64 = 2.0;
const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
/// (label, skew that is allowed for): how the pods of one controller are spread when they do not say.
const DEFAULT_SPREAD: [(&str, i64); 2] = [(HOSTNAME, 3), (ZONE, 5)];

/// A score for each node, higher is better.
pub fn scores(snapshot: &Snapshot, pod: &PodInfo, nodes: &[Arc<NodeInfo>]) -> Vec<f64> {
    let mut totals: Vec<f64> = nodes.iter().map(|node| room(node, pod) + balance(node, pod)).collect();
    let mut add = |weight: f64, scores: Vec<f64>| {
        for (total, score) in totals.iter_mut().zip(scores) {
            *total += weight * score;
        }
    };
    let unwelcoming = nodes.iter().map(|node| {
        let soft = node.taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
        count(soft.filter(|taint| !tolerates(&pod.tolerations, taint)).count())
    });
    add(TAINT_WEIGHT, fewer_is_better(unwelcoming.collect()));
    if !pod.node_terms.preferred.is_empty() {
        let preferred = nodes.iter().map(|node| to_f64(pod.node_terms.preference(&node.name, &node.labels)));
        add(NODE_AFFINITY_WEIGHT, more_is_better(preferred.collect()));
    }
    if !pod.preferred.is_empty() {
        add(POD_AFFINITY_WEIGHT, between(company(snapshot, pod, nodes)));
    }
    if let Some(crowding) = crowding(snapshot, pod, nodes) {
        add(SPREAD_WEIGHT, fewer_is_better_between(crowding));
    }
    totals
}

/// How much of CPU and memory would stay free.
fn room(node: &NodeInfo, pod: &PodInfo) -> f64 {
    let free = used_fractions(node, pod).map(|used| (1.0 - used).max(0.0));
    BEST * (free[0] + free[1]) / 2.0
}

/// How evenly CPU and memory would be used.
fn balance(node: &NodeInfo, pod: &PodInfo) -> f64 {
    let [cpu, memory] = used_fractions(node, pod).map(|used| used.min(1.0));
    BEST * (1.0 - (cpu - memory).abs() / 2.0)
}

fn used_fractions(node: &NodeInfo, pod: &PodInfo) -> [f64; 2] {
    ["cpu", "memory"].map(|name| {
        let whole = node.allocatable.get(name);
        let used = node.used_for_scores.get(name) + pod.requests.for_scores.get(name);
        if whole == 0 { 1.0 } else { to_f64(used) / to_f64(whole) }
    })
}

/// For each node, the weights of the terms whose company it offers.
fn company(snapshot: &Snapshot, pod: &PodInfo, nodes: &[Arc<NodeInfo>]) -> Vec<f64> {
    let mut offered: HashMap<(&str, &str), i64> = HashMap::new();
    for node in snapshot.nodes() {
        for (weight, term) in &pod.preferred {
            let Some(value) = node.labels.get(&term.topology_key) else { continue };
            let matching = node
                .pods
                .values()
                .filter(|other| term.matches(&other.key.namespace, &other.labels, &snapshot.namespaces))
                .count();
            *offered.entry((&term.topology_key, value)).or_default() +=
                weight * i64::try_from(matching).unwrap_or(i64::MAX);
        }
    }
    let keys: std::collections::BTreeSet<_> =
        pod.preferred.iter().map(|(_, term)| term.topology_key.as_str()).collect();
    let score = |node: &Arc<NodeInfo>| {
        let values = keys.iter().filter_map(|key| offered.get(&(*key, node.labels.get(*key)?.as_str())));
        to_f64(values.sum())
    };
    nodes.iter().map(score).collect()
}

/// For each node, how many similar pods are near it; `None` when the pod does not care.
fn crowding(snapshot: &Snapshot, pod: &PodInfo, nodes: &[Arc<NodeInfo>]) -> Option<Vec<f64>> {
    let soft: Vec<_> = pod.spread.iter().filter(|constraint| !constraint.hard).collect();
    if !soft.is_empty() {
        let per_constraint = soft.iter().map(|constraint| {
            near(snapshot, nodes, &constraint.topology_key, constraint.max_skew, |node| {
                counted(node, pod, constraint)
            })
        });
        return Some(sum(per_constraint, nodes.len()));
    }
    let owner = pod.owner_uid.as_ref().filter(|_| pod.spread.is_empty())?;
    let siblings = |node: &NodeInfo| {
        let sibling = |other: &&Arc<PodInfo>| {
            other.owner_uid.as_ref() == Some(owner) && !other.terminating && other.key != pod.key
        };
        i64::try_from(node.pods.values().filter(sibling).count()).unwrap_or(i64::MAX)
    };
    Some(sum(
        DEFAULT_SPREAD.iter().map(|(key, skew)| near(snapshot, nodes, key, *skew, siblings)),
        nodes.len(),
    ))
}

fn sum(parts: impl Iterator<Item = Vec<f64>>, nodes: usize) -> Vec<f64> {
    parts.fold(vec![0.0; nodes], |sum, part| sum.iter().zip(part).map(|(one, other)| one + other).collect())
}

/// For each node, the pods in its domain; a label with few values weighs less, for its domains are large.
fn near(
    snapshot: &Snapshot,
    nodes: &[Arc<NodeInfo>],
    key: &str,
    skew: i64,
    count_on: impl Fn(&NodeInfo) -> i64,
) -> Vec<f64> {
    let mut counts: HashMap<&str, i64> = HashMap::new();
    for node in snapshot.nodes() {
        if let Some(value) = node.labels.get(key) {
            *counts.entry(value).or_default() += count_on(node);
        }
    }
    let weight = (count(counts.len()) + 2.0).ln();
    let score = |node: &Arc<NodeInfo>| {
        let value = node.labels.get(key);
        value.map_or(0.0, |value| {
            to_f64(counts.get(value.as_str()).copied().unwrap_or(0)) * weight + to_f64(skew - 1)
        })
    };
    nodes.iter().map(score).collect()
}

fn more_is_better(raw: Vec<f64>) -> Vec<f64> {
    let most = raw.iter().copied().fold(0.0, f64::max);
    raw.into_iter().map(|score| if most > 0.0 { BEST * score / most } else { 0.0 }).collect()
}

fn fewer_is_better(raw: Vec<f64>) -> Vec<f64> {
    more_is_better(raw).into_iter().map(|score| BEST - score).collect()
}

fn fewer_is_better_between(raw: Vec<f64>) -> Vec<f64> {
    let least = raw.iter().copied().fold(f64::INFINITY, f64::min);
    let most = raw.iter().copied().fold(0.0, f64::max);
    raw.into_iter()
        .map(|score| if most > 0.0 { BEST * (most + least - score) / most } else { BEST })
        .collect()
}

fn between(raw: Vec<f64>) -> Vec<f64> {
    let least = raw.iter().copied().fold(f64::INFINITY, f64::min);
    let most = raw.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    raw.into_iter()
        .map(|score| if most > least { BEST * (score - least) / (most - least) } else { 0.0 })
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "scores need no exactness")]
const fn to_f64(number: i64) -> f64 {
    number as f64
}

#[expect(clippy::cast_precision_loss, reason = "scores need no exactness")]
const fn count(number: usize) -> f64 {
    number as f64
}
