//! Which nodes can take a pod, and for those that cannot, why.
//!
//! Reasons are told in Kubernetes' words, one plugin's a node, in its order of plugins.

use crate::pod::PodInfo;
use crate::snapshot::{NodeInfo, Snapshot};
use crate::terms::{PodTerm, SpreadConstraint};
use coracle_client::placement::{ports_clash, tolerates};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What kind of change may cure a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cure {
    /// A node appears, or changes its labels, taints or cordon.
    Node,
    /// A node gives more, or a pod leaves.
    Room,
    /// A pod appears somewhere.
    Company,
    /// A claim or volume changes.
    Volume,
}

/// Why a node is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Each told and counted on its own.
    pub reasons: Vec<String>,
    pub cures: Vec<Cure>,
    /// Whether removing pods from the node could help.
    pub preemption_helps: bool,
}

impl Refused {
    fn because(reason: impl Into<String>, cures: &[Cure], preemption_helps: bool) -> Self {
        Self { reasons: vec![reason.into()], cures: cures.to_vec(), preemption_helps }
    }
}

/// What is computed once for a pod, and asked for each node.
pub struct Filter<'a> {
    snapshot: &'a Snapshot,
    pod: &'a PodInfo,
    spread: Vec<Spread<'a>>,
    /// For each affinity term of the pod: where pods are that it wants to be with.
    wanted: Vec<(&'a PodTerm, BTreeSet<String>)>,
    /// Values of labels where the pod must not be, by its own terms and by others'.
    avoided: Places,
    forbidden: Places,
    /// Nobody to be with exists, and the pod would be such company itself.
    is_first: bool,
}

/// Values by label.
type Places = BTreeMap<String, BTreeSet<String>>;

struct Spread<'a> {
    constraint: &'a SpreadConstraint,
    counts: HashMap<String, i64>,
    least: i64,
    counts_itself: bool,
}

impl<'a> Filter<'a> {
    pub fn new(snapshot: &'a Snapshot, pod: &'a PodInfo) -> Self {
        let wanted: Vec<_> = pod.affinity.iter().map(|term| (term, domains(snapshot, term))).collect();
        let matches_itself = pod
            .affinity
            .iter()
            .all(|term| term.matches(&pod.key.namespace, &pod.labels, &snapshot.namespaces));
        let is_first = matches_itself && wanted.iter().all(|(_, domains)| domains.is_empty());
        let mut avoided = Places::new();
        for term in &pod.anti_affinity {
            avoided.entry(term.topology_key.clone()).or_default().extend(domains(snapshot, term));
        }
        let spread = pod
            .spread
            .iter()
            .filter(|constraint| constraint.hard)
            .map(|constraint| count(snapshot, pod, constraint))
            .collect();
        Self { snapshot, pod, spread, avoided, forbidden: forbidden(snapshot, pod), wanted, is_first }
    }

    pub fn check(&self, node: &NodeInfo) -> Result<(), Refused> {
        self.check_node(node)?;
        self.check_room(node)?;
        self.check_volumes(node)?;
        self.check_spread(node)?;
        self.check_company(node)
    }

    fn check_node(&self, node: &NodeInfo) -> Result<(), Refused> {
        let pod = self.pod;
        let unschedulable = k8s_openapi::api::core::v1::Taint {
            key: "node.kubernetes.io/unschedulable".into(),
            effect: "NoSchedule".into(),
            ..Default::default()
        };
        if node.unschedulable && !tolerates(&pod.tolerations, &unschedulable) {
            return Err(Refused::because("node(s) were unschedulable", &[Cure::Node], false));
        }
        let repels = |taint: &&k8s_openapi::api::core::v1::Taint| {
            matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute") && !tolerates(&pod.tolerations, taint)
        };
        if let Some(taint) = node.taints.iter().find(repels) {
            let value = taint.value.as_deref().unwrap_or_default();
            return Err(Refused::because(
                format!("node(s) had untolerated taint {{{}: {value}}}", taint.key),
                &[Cure::Node],
                false,
            ));
        }
        if !pod.node_terms.allow(&node.name, &node.labels) {
            return Err(Refused::because(
                "node(s) didn't match Pod's node affinity/selector",
                &[Cure::Node],
                false,
            ));
        }
        Ok(())
    }

    fn check_room(&self, node: &NodeInfo) -> Result<(), Refused> {
        let pod = self.pod;
        let nominated: Vec<_> = self
            .snapshot
            .nominated_to(&node.name, pod)
            .filter(|other| !node.pods.contains_key(&other.key))
            .collect();
        if node
            .pods
            .values()
            .chain(nominated.iter().copied())
            .any(|other| ports_clash(&pod.host_ports, &other.host_ports))
        {
            return Err(Refused::because(
                "node(s) didn't have free ports for the requested pod ports",
                &[Cure::Room, Cure::Node],
                true,
            ));
        }
        let mut used = node.used.clone();
        for other in &nominated {
            used.add(&other.requests.asked);
        }
        let (mut reasons, mut helps) = (Vec::new(), true);
        if node.pods.len() + nominated.len() + 1 > node.pods_max() {
            reasons.push("Too many pods".to_owned());
        }
        for (name, asked) in pod.requests.asked.iter().filter(|(name, asked)| *asked > 0 && *name != "pods") {
            let whole = node.allocatable.get(name);
            if used.get(name) + asked > whole {
                reasons.push(format!("Insufficient {name}"));
                helps &= asked <= whole;
            }
        }
        if reasons.is_empty() {
            Ok(())
        } else {
            Err(Refused { reasons, cures: vec![Cure::Room, Cure::Node], preemption_helps: helps })
        }
    }

    fn check_volumes(&self, node: &NodeInfo) -> Result<(), Refused> {
        let fits = self.pod.volumes.on(&node.name, &node.labels);
        fits.map(drop).map_err(|reason| Refused::because(reason, &[Cure::Node, Cure::Volume], false))
    }

    fn check_spread(&self, node: &NodeInfo) -> Result<(), Refused> {
        for spread in &self.spread {
            let Some(value) = node.labels.get(&spread.constraint.topology_key) else {
                let reason = "node(s) didn't match pod topology spread constraints (missing required label)";
                return Err(Refused::because(reason, &[Cure::Node], false));
            };
            let here = spread.counts.get(value).copied().unwrap_or(0) + i64::from(spread.counts_itself);
            if here - spread.least > spread.constraint.max_skew {
                let cures = [Cure::Node, Cure::Room, Cure::Company];
                return Err(Refused::because(
                    "node(s) didn't match pod topology spread constraints",
                    &cures,
                    true,
                ));
            }
        }
        Ok(())
    }

    fn check_company(&self, node: &NodeInfo) -> Result<(), Refused> {
        let is_in = |places: &Places| {
            places
                .iter()
                .any(|(label, values)| node.labels.get(label).is_some_and(|value| values.contains(value)))
        };
        let with_wanted = self.wanted.iter().all(|(term, domains)| {
            let value = node.labels.get(&term.topology_key);
            value.is_some_and(|value| self.is_first || domains.contains(value))
        });
        if !with_wanted {
            return Err(Refused::because(
                "node(s) didn't match pod affinity rules",
                &[Cure::Company, Cure::Node],
                false,
            ));
        }
        if is_in(&self.avoided) {
            return Err(Refused::because(
                "node(s) didn't match pod anti-affinity rules",
                &[Cure::Room, Cure::Node],
                true,
            ));
        }
        if is_in(&self.forbidden) {
            return Err(Refused::because(
                "node(s) didn't satisfy existing pods anti-affinity rules",
                &[Cure::Room, Cure::Node],
                true,
            ));
        }
        Ok(())
    }
}

/// The values of the term's label on nodes that have a pod it matches.
fn domains(snapshot: &Snapshot, term: &PodTerm) -> BTreeSet<String> {
    let matches = |node: &NodeInfo| {
        node.pods.values().any(|pod| term.matches(&pod.key.namespace, &pod.labels, &snapshot.namespaces))
    };
    let nodes = snapshot.nodes().filter(|node| node.labels.contains_key(&term.topology_key) && matches(node));
    nodes.filter_map(|node| node.labels.get(&term.topology_key).cloned()).collect()
}

/// Where placed pods do not want this one.
fn forbidden(snapshot: &Snapshot, pod: &PodInfo) -> Places {
    let mut found = Places::new();
    for other in snapshot.repelling().filter(|other| other.key != pod.key) {
        let Some(node) = snapshot.place_of(&other.key).and_then(|node| snapshot.node(node)) else { continue };
        for term in &other.anti_affinity {
            if let Some(value) = node.labels.get(&term.topology_key)
                && term.matches(&pod.key.namespace, &pod.labels, &snapshot.namespaces)
            {
                found.entry(term.topology_key.clone()).or_default().insert(value.clone());
            }
        }
    }
    found
}

fn count<'a>(snapshot: &Snapshot, pod: &PodInfo, constraint: &'a SpreadConstraint) -> Spread<'a> {
    let mut counts: HashMap<String, i64> = HashMap::new();
    let keys: Vec<_> =
        pod.spread.iter().filter(|other| other.hard).map(|other| &other.topology_key).collect();
    for node in snapshot.nodes() {
        let Some(value) = node.labels.get(&constraint.topology_key) else { continue };
        let all_keys = keys.iter().all(|key| node.labels.contains_key(*key));
        let allowed = !constraint.honours_node_terms || pod.node_terms.allow(&node.name, &node.labels);
        let repels = |taint: &k8s_openapi::api::core::v1::Taint| {
            taint.effect != "PreferNoSchedule" && !tolerates(&pod.tolerations, taint)
        };
        if all_keys && allowed && !(constraint.honours_taints && node.taints.iter().any(repels)) {
            *counts.entry(value.clone()).or_default() += counted(node, pod, constraint);
        }
    }
    let least =
        if counts.len() < constraint.min_domains { 0 } else { counts.values().min().copied().unwrap_or(0) };
    Spread { constraint, counts, least, counts_itself: constraint.counts(&pod.labels) }
}

/// How many pods on the node the constraint counts.
pub fn counted(node: &NodeInfo, pod: &PodInfo, constraint: &SpreadConstraint) -> i64 {
    let counts = |other: &&std::sync::Arc<PodInfo>| {
        other.key.namespace == pod.key.namespace
            && other.key != pod.key
            && !other.terminating
            && constraint.counts(&other.labels)
    };
    i64::try_from(node.pods.values().filter(counts).count()).unwrap_or(i64::MAX)
}

/// Counts of reasons, told as Kubernetes tells them.
pub fn tell(total: usize, reasons: &BTreeMap<String, usize>) -> String {
    let mut told: Vec<_> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    told.sort();
    format!("0/{total} nodes are available: {}.", told.join(", "))
}
