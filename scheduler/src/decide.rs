//! The decision: which node a pod goes to, or why to none, or which pods must leave for it.
//!
//! Pure: the same snapshot, pod and seed give the same answer.

use crate::filter::{Cure, Filter, Refused, tell};
use crate::pod::PodInfo;
use crate::score::scores;
use crate::snapshot::{NodeInfo, Snapshot};
use coracle_client::Key;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq)]
pub enum Placement {
    Bind(String),
    Refused(Refusal),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Refusal {
    /// As the pod's condition and event tell it.
    pub message: String,
    /// Changes after which it is worth trying again.
    pub cures: BTreeSet<Cure>,
    pub preemption: Option<Preemption>,
}

/// Pods that must leave a node for a more important one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preemption {
    pub node: String,
    pub victims: Vec<Key>,
}

/// A PodDisruptionBudget, as far as preemption heeds it: the pods it covers and how many of them may be disrupted.
pub struct Budget {
    pub pods: BTreeSet<Key>,
    pub allowed: i64,
}

pub fn decide(snapshot: &Snapshot, pod: &PodInfo, budgets: &[Budget], seed: u64) -> Placement {
    let filter = Filter::new(snapshot, pod);
    let (mut able, mut refused) = (Vec::new(), Vec::new());
    // The node that room was made on is taken without looking further.
    if let Some(node) = snapshot.node(&pod.nominated)
        && filter.check(node).is_ok()
    {
        return Placement::Bind(node.name.clone());
    }
    for node in snapshot.nodes() {
        match filter.check(node) {
            Ok(()) => able.push(node.clone()),
            Err(why) => refused.push((node.clone(), why)),
        }
    }
    match best(snapshot, pod, &able, seed) {
        Some(node) => Placement::Bind(node),
        None => Placement::Refused(refuse(snapshot, pod, &refused, budgets)),
    }
}

fn best(snapshot: &Snapshot, pod: &PodInfo, able: &[Arc<NodeInfo>], seed: u64) -> Option<String> {
    let scores = scores(snapshot, pod, able);
    let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let ties: Vec<_> =
        able.iter().zip(&scores).filter(|(_, score)| **score >= top).map(|(node, _)| node).collect();
    let count = u64::try_from(ties.len()).ok().filter(|count| *count > 0)?;
    ties.get(usize::try_from(seed % count).ok()?).map(|node| node.name.clone())
}

fn refuse(
    snapshot: &Snapshot,
    pod: &PodInfo,
    refused: &[(Arc<NodeInfo>, Refused)],
    budgets: &[Budget],
) -> Refusal {
    if refused.is_empty() {
        let message = "no nodes available to schedule pods".to_owned();
        return Refusal { message, cures: BTreeSet::from([Cure::Node]), preemption: None };
    }
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut cures = BTreeSet::from([Cure::Node]);
    for (_, why) in refused {
        for reason in &why.reasons {
            *reasons.entry(reason.clone()).or_default() += 1;
        }
        cures.extend(&why.cures);
    }
    let told = tell(refused.len(), &reasons);
    if !pod.may_preempt {
        return Refusal {
            message: format!("{told} preemption: not eligible due to preemptionPolicy=Never."),
            cures,
            preemption: None,
        };
    }
    let preemption = preempt(snapshot, pod, refused, budgets);
    let mut without: BTreeMap<String, usize> = BTreeMap::new();
    for (_, why) in refused {
        let reason = if why.preemption_helps {
            "No preemption victims found for incoming pod"
        } else {
            "Preemption is not helpful for scheduling"
        };
        *without.entry(reason.to_owned()).or_default() += 1;
    }
    let message = if preemption.is_some() {
        told
    } else {
        format!("{told} preemption: {}", tell(refused.len(), &without))
    };
    Refusal { message, cures, preemption }
}

/// The node where making room costs least, and who must leave it.
fn preempt(
    snapshot: &Snapshot,
    pod: &PodInfo,
    refused: &[(Arc<NodeInfo>, Refused)],
    budgets: &[Budget],
) -> Option<Preemption> {
    // Room is being made already: wait for it.
    if let Some(node) = snapshot.node(&pod.nominated)
        && node.pods.values().any(|other| other.terminating && other.priority < pod.priority)
    {
        return None;
    }
    let candidates = refused.iter().filter(|(_, why)| why.preemption_helps);
    let found = candidates.filter_map(|(node, _)| {
        let victims = victims(snapshot, pod, node, budgets)?;
        Some((cost(&victims, budgets), node, victims))
    });
    let (_, node, victims) = found.min_by(|(one, ..), (other, ..)| one.cmp(other))?;
    Some(Preemption {
        node: node.name.clone(),
        victims: victims.iter().map(|victim| victim.key.clone()).collect(),
    })
}

/// The fewest less important pods whose leaving lets the pod in, `None` when none does.
fn victims(
    snapshot: &Snapshot,
    pod: &PodInfo,
    node: &NodeInfo,
    budgets: &[Budget],
) -> Option<Vec<Arc<PodInfo>>> {
    let mut lower: Vec<_> =
        node.pods.values().filter(|other| other.priority < pod.priority).cloned().collect();
    let mut gone: BTreeSet<Key> = lower.iter().map(|victim| victim.key.clone()).collect();
    if gone.is_empty() || !fits(snapshot, pod, &node.name, &gone) {
        return None;
    }
    // Whoever can stay, stays: those that a budget protects first, then the more important.
    lower.sort_by_key(|victim| {
        (!is_protected(victim, budgets), std::cmp::Reverse(victim.priority), victim.created)
    });
    let mut victims = Vec::new();
    for candidate in lower {
        gone.remove(&candidate.key);
        if !fits(snapshot, pod, &node.name, &gone) {
            gone.insert(candidate.key.clone());
            victims.push(candidate);
        }
    }
    Some(victims).filter(|victims| !victims.is_empty())
}

fn fits(snapshot: &Snapshot, pod: &PodInfo, node: &str, gone: &BTreeSet<Key>) -> bool {
    let after = snapshot.without(gone);
    after.node(node).is_some_and(|node| Filter::new(&after, pod).check(node).is_ok())
}

fn is_protected(pod: &PodInfo, budgets: &[Budget]) -> bool {
    budgets.iter().any(|budget| budget.allowed <= 0 && budget.pods.contains(&pod.key))
}

/// Less is better: budgets broken, the most important victim, importance in all, victims.
fn cost(victims: &[Arc<PodInfo>], budgets: &[Budget]) -> (usize, i32, i64, usize) {
    let broken = victims.iter().filter(|victim| is_protected(victim, budgets)).count();
    let most = victims.iter().map(|victim| victim.priority).max().unwrap_or(i32::MIN);
    (broken, most, victims.iter().map(|victim| i64::from(victim.priority)).sum(), victims.len())
}

#[cfg(test)]
pub mod tests;
