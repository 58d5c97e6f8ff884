//! Where pods may go: affinity, topology spread, tolerations, scheduling gates.

use super::super::node::{Faults, Node};
use super::super::selectors;
use crate::labels;
use serde_json::json;

pub(in super::super) const TAINT_EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(super) fn affinity(affinity: &Node<'_, '_>, out: &mut Faults) {
    let node = affinity.get("nodeAffinity");
    selectors::nodes(&node.get(REQUIRED), out);
    for term in node.get(PREFERRED).items() {
        weight(&term, out);
        selectors::node_term(&term.get("preference"), out);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let pods = affinity.get(kind);
        pods.get(REQUIRED).items().for_each(|term| pod_term(&term, out));
        for term in pods.get(PREFERRED).items() {
            weight(&term, out);
            pod_term(&term.get("podAffinityTerm"), out);
        }
    }
}

fn weight(term: &Node<'_, '_>, out: &mut Faults) {
    let weight = term.get("weight");
    if !(1..=100).contains(&weight.int()) {
        weight.invalid_as(&json!(weight.int()), "must be in the range 1-100", out);
    }
}

fn pod_term(term: &Node<'_, '_>, out: &mut Faults) {
    let selector = term.get("labelSelector");
    selectors::labels(&selector, out);
    selectors::labels(&term.get("namespaceSelector"), out);
    for name in term.get("namespaces").items() {
        for complaint in labels::is_dns1123_label(name.text()) {
            term.get("namespace").invalid_as(name.value, complaint, out);
        }
    }
    for keys in ["matchLabelKeys", "mismatchLabelKeys"] {
        let list = term.get(keys);
        if !list.is_empty() && !selector.is_set() {
            list.forbidden("must not be specified when labelSelector is not set", out);
        }
        list.items().for_each(|key| key.text_must(labels::is_qualified_name, out));
    }
    let topology = term.get("topologyKey");
    if topology.is_empty() {
        topology.required("can not be empty", out);
    }
    topology.text_must(labels::is_qualified_name, out);
}

pub(super) fn spread(constraints: &Node<'_, '_>, out: &mut Faults) {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for constraint in constraints.items() {
        let skew = constraint.get("maxSkew");
        if skew.int() <= 0 {
            skew.invalid_as(&json!(skew.int()), "must be greater than zero", out);
        }
        let key = constraint.get("topologyKey");
        if key.is_empty() {
            key.required("can not be empty", out);
        } else {
            key.text_must(labels::is_qualified_name, out);
        }
        let unsatisfiable = constraint.get("whenUnsatisfiable");
        unsatisfiable.must_be_one_of(&["DoNotSchedule", "ScheduleAnyway"], out);
        let pair = (key.text(), unsatisfiable.text());
        if seen.contains(&pair) {
            let shown = format!("{{{}, {}}}", pair.0, pair.1);
            constraint.named("{topologyKey, whenUnsatisfiable}", &json!(shown)).duplicate(out);
        }
        seen.push(pair);
        let domains = constraint.get("minDomains");
        if domains.is_set() && domains.int() <= 0 {
            domains.invalid("must be greater than zero", out);
        }
        if domains.is_set() && unsatisfiable.text() != "DoNotSchedule" {
            let detail = format!(
                "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}",
                unsatisfiable.text()
            );
            domains.invalid(detail, out);
        }
        for key in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            constraint.get(key).may_be_one_of(&["Honor", "Ignore"], out);
        }
        let selector = constraint.get("labelSelector");
        let keys = constraint.get("matchLabelKeys");
        if !keys.is_empty() && !selector.is_set() {
            keys.forbidden("must not be specified when labelSelector is not set", out);
        }
        for key in keys.items() {
            key.text_must(labels::is_qualified_name, out);
            let labels = selector.get("matchLabels");
            if labels.key(key.text()).is_set() {
                key.invalid("exists in both matchLabelKeys and labelSelector", out);
            }
        }
        selectors::labels(&selector, out);
    }
}

pub(in super::super) fn tolerations(tolerations: &Node<'_, '_>, out: &mut Faults) {
    for toleration in tolerations.items() {
        let (key, operator, effect) =
            (toleration.get("key"), toleration.get("operator"), toleration.get("effect"));
        key.text_may(labels::is_qualified_name, out);
        if key.is_empty() && operator.text() != "Exists" {
            let detail =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            operator.invalid_as(&json!(operator.text()), detail, out);
        }
        if toleration.get("tolerationSeconds").is_set() && effect.text() != "NoExecute" {
            effect.invalid_as(
                &json!(effect.text()),
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
                out,
            );
        }
        let value = toleration.get("value");
        match operator.text() {
            "" | "Equal" => {
                let complaints = labels::is_valid_label_value(value.text());
                if !complaints.is_empty() {
                    operator.invalid_as(value.value, complaints.join(";"), out);
                }
            }
            "Exists" if !value.is_empty() => {
                operator.invalid_as(value.value, "value must be empty when `operator` is 'Exists'", out);
            }
            "Exists" => {}
            _ => operator.not_supported(&["Equal", "Exists"], out),
        }
        effect.may_be_one_of(&TAINT_EFFECTS, out);
    }
}

pub(super) fn gates(gates: &Node<'_, '_>, out: &mut Faults) {
    let mut seen: Vec<&str> = Vec::new();
    for gate in gates.items() {
        let name = gate.get("name");
        for complaint in labels::is_qualified_name(name.text()) {
            gate.invalid_as(&json!(name.text()), complaint, out);
        }
        if seen.contains(&name.text()) {
            gate.duplicate_as(name.value, out);
        }
        seen.push(name.text());
    }
}
