//! Label selectors and node selectors.

use super::meta;
use super::node::{Faults, Node};
use crate::labels;

const NEEDS_VALUES: &str = "must be specified when `operator` is 'In' or 'NotIn'";
const FORBIDS_VALUES: &str = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
const NO_OPERATOR: &str = "not a valid selector operator";

/// A `metav1.LabelSelector`; null passes.
pub(super) fn labels(selector: &Node<'_, '_>, out: &mut Faults) {
    labels_but_values(selector, false, out);
}

/// The same where values may be odd, because stored ones are.
pub(super) fn labels_but_values(selector: &Node<'_, '_>, any_value: bool, out: &mut Faults) {
    meta::labels(&selector.get("matchLabels"), out);
    for requirement in selector.get("matchExpressions").items() {
        let (operator, values) = (requirement.get("operator"), requirement.get("values"));
        match operator.text() {
            "In" | "NotIn" if values.is_empty() => values.required(NEEDS_VALUES, out),
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if !values.is_empty() => values.forbidden(FORBIDS_VALUES, out),
            "Exists" | "DoesNotExist" => {}
            other => operator.invalid_as(&other.into(), NO_OPERATOR, out),
        }
        requirement.get("key").text_must(labels::is_qualified_name, out);
        for value in values.items().filter(|_| !any_value) {
            value.text_must(labels::is_valid_label_value, out);
        }
    }
}

/// Whether it selects everything: neither labels nor expressions.
pub(super) fn is_empty(selector: &Node<'_, '_>) -> bool {
    selector.get("matchLabels").is_empty() && selector.get("matchExpressions").is_empty()
}

/// Whether it can be held against labels: its operators and keys are some, with values where they need them.
pub(super) fn is_readable(selector: &Node<'_, '_>) -> bool {
    let mut faults = Faults::new();
    labels(selector, &mut faults);
    faults.is_empty()
}

/// Whether a well-formed selector takes `labels`; a malformed requirement is told elsewhere and takes nothing.
pub(super) fn matches(selector: &Node<'_, '_>, labels: &Node<'_, '_>) -> bool {
    let equal =
        selector.get("matchLabels").entries().all(|(key, value)| labels.key(key).value == value.value);
    equal
        && selector.get("matchExpressions").items().all(|requirement| {
            let value = labels.key(requirement.get("key").text());
            let listed = requirement.get("values").items().any(|wanted| wanted.value == value.value);
            match requirement.get("operator").text() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_set(),
                "DoesNotExist" => !value.is_set(),
                _ => false,
            }
        })
}

/// A `NodeSelector` that, where given, must have a term.
pub(super) fn nodes(selector: &Node<'_, '_>, any_value: bool, out: &mut Faults) {
    let terms = selector.get("nodeSelectorTerms");
    if selector.is_set() && terms.is_empty() {
        terms.required("must have at least one node selector term", out);
    }
    terms.items().for_each(|term| node_term(&term, any_value, out));
}

pub(super) fn node_term(term: &Node<'_, '_>, any_value: bool, out: &mut Faults) {
    for requirement in term.get("matchExpressions").items() {
        let (operator, values) = (requirement.get("operator"), requirement.get("values"));
        match operator.text() {
            "In" | "NotIn" if values.is_empty() => values.required(NEEDS_VALUES, out),
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if !values.is_empty() => values.forbidden(FORBIDS_VALUES, out),
            "Exists" | "DoesNotExist" => {}
            "Gt" | "Lt" if values.len() != 1 => {
                values.required("must be specified single value when `operator` is 'Lt' or 'Gt'", out);
            }
            "Gt" | "Lt" => {}
            other => operator.invalid_as(&other.into(), NO_OPERATOR, out),
        }
        requirement.get("key").text_must(labels::is_qualified_name, out);
        for value in values.items().filter(|_| !any_value) {
            value.text_must(labels::is_valid_label_value, out);
        }
    }
    for requirement in term.get("matchFields").items() {
        let (key, operator, values) =
            (requirement.get("key"), requirement.get("operator"), requirement.get("values"));
        match operator.text() {
            "In" | "NotIn" if values.len() != 1 => {
                values.required(
                    "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
                    out,
                );
            }
            "In" | "NotIn" => {}
            other => operator.invalid_as(&other.into(), NO_OPERATOR, out),
        }
        match key.text() {
            "metadata.name" => {
                values.items().for_each(|value| value.text_must(labels::is_dns1123_subdomain, out));
            }
            other => key.invalid_as(&other.into(), "not a valid field selector key", out),
        }
    }
}
