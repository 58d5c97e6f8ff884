//! Where pods may go: affinity, topology spread, tolerations, scheduling gates.

use super::super::node::{Faults, Node, Seen};
use super::super::selectors;
use super::Allowed;
use crate::labels;
use crate::status::FieldError;
use serde_json::json;
use std::collections::HashMap;

pub(in super::super) const TAINT_EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
const NO_SELECTOR: &str = "must not be specified when labelSelector is not set";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(super) fn affinity(affinity: &Node<'_, '_>, allowed: Allowed, out: &mut Faults) {
    required_nodes(affinity, allowed, out);
    for term in affinity.get("nodeAffinity").get(PREFERRED).items() {
        weight(&term, out);
        // Odd values may match nothing, which a preference may.
        selectors::node_term(&term.get("preference"), true, out);
    }
    pods_affinity(affinity, allowed, out);
}

pub(super) fn required_nodes(affinity: &Node<'_, '_>, allowed: Allowed, out: &mut Faults) {
    selectors::nodes(&affinity.get("nodeAffinity").get(REQUIRED), allowed.node_values, out);
}

pub(super) fn pods_affinity(affinity: &Node<'_, '_>, allowed: Allowed, out: &mut Faults) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        let pods = affinity.get(kind);
        pods.get(REQUIRED).items().for_each(|term| pod_term(&term, allowed, out));
        for term in pods.get(PREFERRED).items() {
            weight(&term, out);
            pod_term(&term.get("podAffinityTerm"), allowed, out);
        }
    }
}

fn weight(term: &Node<'_, '_>, out: &mut Faults) {
    let weight = term.get("weight");
    if !(1..=100).contains(&weight.int()) {
        weight.invalid_as(&json!(weight.int()), "must be in the range 1-100", out);
    }
}

fn pod_term(term: &Node<'_, '_>, allowed: Allowed, out: &mut Faults) {
    let selector = term.get("labelSelector");
    for selector in [&selector, &term.get("namespaceSelector")] {
        selectors::labels_but_values(selector, allowed.selector_values, out);
    }
    for name in term.get("namespaces").items() {
        term.get("namespace").named("", name.value).text_must(labels::is_dns1123_label, out);
    }
    label_keys(term, &selector, out);
    let topology = term.get("topologyKey");
    if topology.is_empty() {
        topology.required("can not be empty", out);
    }
    topology.text_must(labels::is_qualified_name, out);
}

/// Labels by whose values the pods of a term are told apart.
fn label_keys(term: &Node<'_, '_>, selector: &Node<'_, '_>, out: &mut Faults) {
    let (same, other) = (term.get("matchLabelKeys"), term.get("mismatchLabelKeys"));
    for list in [&same, &other] {
        if !list.is_empty() && !selector.is_set() {
            list.forbidden(NO_SELECTOR, out);
        } else {
            list.items().for_each(|key| key.text_must(labels::is_qualified_name, out));
        }
    }
    // By now the selector holds what the keys have become: a key found before that was given twice.
    let mut seen: Seen<'_> = selector.get("matchLabels").entries().map(|(key, _)| key).collect();
    for requirement in selector.get("matchExpressions").items() {
        let key = requirement.get("key").text();
        if let Some(at) = same.items().rposition(|own| own.text() == key)
            && seen.contains(&key)
        {
            let place = format!("{}[{at}]", term.path());
            let detail = "exists in both matchLabelKeys and labelSelector";
            out.push(FieldError::invalid(place, &json!(key), detail));
        }
        seen.insert(key);
    }
    let others: Seen<'_> = other.items().map(|key| key.text()).collect();
    for key in same.items().filter(|key| others.contains(key.text())) {
        key.invalid("exists in both matchLabelKeys and mismatchLabelKeys", out);
    }
}

/// What no two constraints have in common.
fn pair<'v>(constraint: &Node<'v, '_>) -> (&'v str, &'v str) {
    (constraint.get("topologyKey").text(), constraint.get("whenUnsatisfiable").text())
}

pub(super) fn spread(constraints: &Node<'_, '_>, allowed: Allowed, out: &mut Faults) {
    // Where each pair stands last: all that stand before it are repeated.
    let last: HashMap<(&str, &str), usize> =
        constraints.items().enumerate().map(|(i, constraint)| (pair(&constraint), i)).collect();
    for (i, constraint) in constraints.items().enumerate() {
        let (skew, topology) = (constraint.get("maxSkew"), constraint.get("topologyKey"));
        if skew.int() <= 0 {
            skew.invalid_as(&json!(skew.int()), "must be greater than zero", out);
        }
        if topology.is_empty() {
            topology.required("can not be empty", out);
        }
        let unsatisfiable = constraint.get("whenUnsatisfiable");
        unsatisfiable.must_be_one_of(&["DoNotSchedule", "ScheduleAnyway"], out);
        if last.get(&pair(&constraint)).is_some_and(|last| *last > i) {
            let shown = format!("{{{}, {}}}", topology.text(), unsatisfiable.text());
            constraint.named("{topologyKey, whenUnsatisfiable}", &json!(shown)).duplicate(out);
        }
        domains(&constraint.get("minDomains"), unsatisfiable.text(), out);
        for key in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            constraint.get(key).if_set_one_of(&["Honor", "Ignore"], out);
        }
        spread_keys(&constraint, out);
        if !allowed.spread_selectors {
            selectors::labels(&constraint.get("labelSelector"), out);
        }
    }
}

pub(super) fn spread_selectors(constraints: &Node<'_, '_>, out: &mut Faults) {
    constraints.items().for_each(|constraint| selectors::labels(&constraint.get("labelSelector"), out));
}

fn domains(domains: &Node<'_, '_>, unsatisfiable: &str, out: &mut Faults) {
    if !domains.is_set() {
        return;
    }
    if domains.int() <= 0 {
        domains.invalid("must be greater than zero", out);
    }
    if unsatisfiable != "DoNotSchedule" {
        let detail = "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not";
        domains.invalid(format!("{detail} {unsatisfiable}"), out);
    }
}

fn spread_keys(constraint: &Node<'_, '_>, out: &mut Faults) {
    let (selector, keys) = (constraint.get("labelSelector"), constraint.get("matchLabelKeys"));
    if !keys.is_empty() && !selector.is_set() {
        keys.forbidden(NO_SELECTOR, out);
    }
    let expressions = selector.get("matchExpressions");
    let expressed: Seen<'_> = expressions.items().map(|requirement| requirement.get("key").text()).collect();
    for key in keys.items() {
        key.text_must(labels::is_qualified_name, out);
        if expressed.contains(key.text()) || selector.get("matchLabels").key(key.text()).is_set() {
            key.invalid("exists in both matchLabelKeys and labelSelector", out);
        }
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
    let mut seen = Seen::new();
    for gate in gates.items() {
        let name = gate.get("name");
        for complaint in labels::is_qualified_name(name.text()) {
            gate.invalid_as(&json!(name.text()), complaint, out);
        }
        if seen.contains(&name.text()) {
            gate.duplicate_as(name.value, out);
        }
        seen.insert(name.text());
    }
}
