//! What pods say about where they want to be: node selectors, pod terms, spread constraints, tolerations.

use k8s_openapi::api::core::v1::{
    NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, Taint, Toleration, TopologySpreadConstraint,
    WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};
use std::collections::{BTreeMap, BTreeSet};

pub type Labels = BTreeMap<String, String>;

/// What a pod asks of its node.
#[derive(Clone, Debug, Default)]
pub struct NodeTerms {
    pub selector: Labels,
    /// One of these must match; an empty list matches nothing.
    pub required: Option<Vec<NodeSelectorTerm>>,
    pub preferred: Vec<(i64, NodeSelectorTerm)>,
}

impl NodeTerms {
    pub fn allow(&self, name: &str, labels: &Labels) -> bool {
        let selected = self.selector.iter().all(|(key, value)| labels.get(key) == Some(value));
        selected
            && self
                .required
                .as_ref()
                .is_none_or(|terms| terms.iter().any(|term| term_matches(term, name, labels)))
    }

    /// The sum of the weights of what the pod prefers and the node has.
    pub fn preference(&self, name: &str, labels: &Labels) -> i64 {
        self.preferred
            .iter()
            .filter(|(_, term)| term_matches(term, name, labels))
            .map(|(weight, _)| weight)
            .sum()
    }
}

fn term_matches(term: &NodeSelectorTerm, name: &str, labels: &Labels) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let field = |requirement: &NodeSelectorRequirement| (requirement.key == "metadata.name").then_some(name);
    expressions.iter().all(|requirement| holds(requirement, labels.get(&requirement.key).map(String::as_str)))
        && fields.iter().all(|requirement| holds(requirement, field(requirement)))
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|value| values.iter().any(|listed| listed == value));
    let numbers = || Some((value?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(own, bound)| own > bound),
        "Lt" => numbers().is_some_and(|(own, bound)| own < bound),
        _ => false,
    }
}

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

pub fn tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| {
        let effect = toleration.effect.as_deref().unwrap_or_default();
        let key = toleration.key.as_deref().unwrap_or_default();
        let value = toleration.value.as_deref().unwrap_or_default();
        let exists = toleration.operator.as_deref() == Some("Exists");
        (effect.is_empty() || effect == taint.effect)
            && if key.is_empty() {
                exists
            } else {
                key == taint.key && (exists || value == taint.value.as_deref().unwrap_or_default())
            }
    })
}
