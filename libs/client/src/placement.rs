//! Which nodes a pod may go to, by what it says of labels, taints and ports: asked by the scheduler for all pods, and by
//! whoever places pods itself.

use k8s_openapi::api::core::v1::{
    Container, NodeAffinity, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration,
};
use std::collections::{BTreeMap, BTreeSet};

/// A port of the node that a pod takes: address, protocol, number.
pub type HostPort = (String, String, i32);

/// The ports of its node that a pod with these containers takes.
#[must_use]
pub fn host_ports(containers: &[Container]) -> BTreeSet<HostPort> {
    let ports = containers.iter().flat_map(|container| container.ports.iter().flatten());
    let taken = ports.filter_map(|port| {
        let number = port.host_port.filter(|number| *number > 0)?;
        let address = port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".into());
        Some((address, port.protocol.clone().unwrap_or_else(|| "TCP".into()), number))
    });
    taken.collect()
}

/// Whether two pods want the same port of one node.
#[must_use]
pub fn ports_clash(one: &BTreeSet<HostPort>, other: &BTreeSet<HostPort>) -> bool {
    let any = |address: &str| address == "0.0.0.0" || address == "::";
    one.iter().any(|(ip, protocol, port)| {
        other.iter().any(|(ip2, protocol2, port2)| {
            port == port2 && protocol == protocol2 && (ip == ip2 || any(ip) || any(ip2))
        })
    })
}

/// An object's labels.
pub type Labels = BTreeMap<String, String>;

/// What a pod asks of its node.
#[derive(Clone, Debug, Default)]
pub struct NodeTerms {
    /// Labels that the node must have.
    pub selector: Labels,
    /// One of these must match; an empty list matches nothing.
    pub required: Option<Vec<NodeSelectorTerm>>,
    /// Terms that it would like, with their weights.
    pub preferred: Vec<(i64, NodeSelectorTerm)>,
}

impl NodeTerms {
    /// What a pod's spec says of nodes.
    #[must_use]
    pub fn of(spec: &PodSpec) -> Self {
        let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.clone());
        let NodeAffinity {
            required_during_scheduling_ignored_during_execution: required,
            preferred_during_scheduling_ignored_during_execution: preferred,
        } = affinity.unwrap_or_default();
        let weighted = preferred.into_iter().flatten().map(|term| (i64::from(term.weight), term.preference));
        Self {
            selector: spec.node_selector.clone().unwrap_or_default(),
            required: required.map(|required| required.node_selector_terms),
            preferred: weighted.collect(),
        }
    }

    /// Whether the node of this name with these labels will do.
    #[must_use]
    pub fn allow(&self, name: &str, labels: &Labels) -> bool {
        let selected = self.selector.iter().all(|(key, value)| labels.get(key) == Some(value));
        selected
            && self
                .required
                .as_ref()
                .is_none_or(|terms| terms.iter().any(|term| term_matches(term, name, labels)))
    }

    /// The sum of the weights of what the pod prefers and the node has.
    #[must_use]
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

/// Whether one of the tolerations covers the taint.
#[must_use]
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn allowed(spec: Value, labels: Value) -> bool {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let terms = NodeTerms::of(&serde_json::from_value(spec).expect("a spec"));
        terms.allow("node-1", &serde_json::from_value(labels).expect("labels"))
    }

    #[expect(clippy::needless_pass_by_value, reason = "tests read better with json! in place")]
    fn required(expression: Value) -> Value {
        let terms = json!({ "nodeSelectorTerms": [{ "matchExpressions": [expression] }] });
        json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": terms } } })
    }

    #[test]
    fn operators_mean_what_kubernetes_says() {
        let cases = [
            (json!({ "key": "disk", "operator": "In", "values": ["ssd"] }), true),
            (json!({ "key": "disk", "operator": "NotIn", "values": ["ssd"] }), false),
            (json!({ "key": "other", "operator": "NotIn", "values": ["x"] }), true),
            (json!({ "key": "cores", "operator": "Gt", "values": ["3"] }), true),
            (json!({ "key": "cores", "operator": "Lt", "values": ["3"] }), false),
            (json!({ "key": "other", "operator": "Exists" }), false),
            (json!({ "key": "other", "operator": "DoesNotExist" }), true),
        ];
        for (expression, want) in cases {
            assert_eq!(
                allowed(required(expression.clone()), json!({ "disk": "ssd", "cores": "4" })),
                want,
                "{expression}"
            );
        }
    }

    #[test]
    fn a_toleration_covers_what_it_names() {
        let taint: Taint =
            serde_json::from_value(json!({ "key": "k", "value": "v", "effect": "NoSchedule" }))
                .expect("a taint");
        let cases = [
            (json!({ "operator": "Exists" }), true),
            (json!({ "key": "k", "operator": "Exists" }), true),
            (json!({ "key": "k", "value": "v" }), true),
            (json!({ "key": "k", "value": "w" }), false),
            (json!({ "key": "k", "operator": "Exists", "effect": "NoExecute" }), false),
        ];
        for (toleration, want) in cases {
            let list = [serde_json::from_value(toleration.clone()).expect("a toleration")];
            assert_eq!(tolerates(&list, &taint), want, "{toleration}");
        }
    }
}
