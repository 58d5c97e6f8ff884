//! What pods say about which other pods they want to be near to, or away from.

use k8s_openapi::api::core::v1::{PodAffinityTerm, TopologySpreadConstraint, WeightedPodAffinityTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};
use std::collections::{BTreeMap, BTreeSet};

pub use coracle_client::placement::Labels;

/// Pods near which, or away from which, a pod wants to be.
#[derive(Clone, Debug)]
pub struct PodTerm {
    selector: Option<Selector>,
    namespaces: BTreeSet<String>,
    namespace_selector: Option<Selector>,
    pub topology_key: String,
}

impl PodTerm {
    fn parse(term: &PodAffinityTerm, own_namespace: &str) -> Self {
        let mut namespaces: BTreeSet<_> = term.namespaces.iter().flatten().cloned().collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.insert(own_namespace.to_owned());
        }
        Self {
            selector: selector(term.label_selector.as_ref()),
            namespaces,
            namespace_selector: selector(term.namespace_selector.as_ref()),
            topology_key: term.topology_key.clone(),
        }
    }

    /// Whether a pod in `namespace` with `labels` is meant; `namespaces`: the labels of each.
    pub fn matches(&self, namespace: &str, labels: &Labels, namespaces: &BTreeMap<String, Labels>) -> bool {
        let empty = Labels::new();
        let by_labels = || {
            let own = namespaces.get(namespace).unwrap_or(&empty);
            self.namespace_selector.as_ref().is_some_and(|selector| selector.matches(own))
        };
        (self.namespaces.contains(namespace) || by_labels())
            && self.selector.as_ref().is_some_and(|selector| selector.matches(labels))
    }
}

/// An absent selector matches nothing, an empty one everything.
fn selector(selector: Option<&LabelSelector>) -> Option<Selector> {
    selector.and_then(|selector| Selector::try_from(selector.clone()).ok())
}

pub fn parse_pod_terms(terms: Option<&[PodAffinityTerm]>, namespace: &str) -> Vec<PodTerm> {
    terms.unwrap_or_default().iter().map(|term| PodTerm::parse(term, namespace)).collect()
}

pub fn parse_weighted_terms(
    terms: Option<&[WeightedPodAffinityTerm]>,
    sign: i64,
    namespace: &str,
) -> Vec<(i64, PodTerm)> {
    terms
        .unwrap_or_default()
        .iter()
        .map(|term| (sign * i64::from(term.weight), PodTerm::parse(&term.pod_affinity_term, namespace)))
        .collect()
}

/// How evenly pods want to be spread over the values of a node label.
#[derive(Clone, Debug)]
pub struct SpreadConstraint {
    selector: Option<Selector>,
    /// The incoming pod's values of `matchLabelKeys`.
    also: Labels,
    pub topology_key: String,
    pub max_skew: i64,
    pub min_domains: usize,
    pub hard: bool,
    pub honours_taints: bool,
    pub honours_node_terms: bool,
}

impl SpreadConstraint {
    pub fn parse(constraint: &TopologySpreadConstraint, labels: &Labels) -> Self {
        let keys = constraint.match_label_keys.iter().flatten();
        Self {
            selector: selector(constraint.label_selector.as_ref()),
            also: keys.filter_map(|key| Some((key.clone(), labels.get(key)?.clone()))).collect(),
            topology_key: constraint.topology_key.clone(),
            max_skew: i64::from(constraint.max_skew),
            min_domains: constraint.min_domains.and_then(|count| usize::try_from(count).ok()).unwrap_or(1),
            hard: constraint.when_unsatisfiable == "DoNotSchedule",
            honours_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
            honours_node_terms: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
        }
    }

    /// Whether a pod of the same namespace counts.
    pub fn counts(&self, labels: &Labels) -> bool {
        self.selector.as_ref().is_some_and(|selector| selector.matches(labels))
            && self.also.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}
