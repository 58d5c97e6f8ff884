//! FlowSchema and PriorityLevelConfiguration.

use super::node::{Faults, Node};
use crate::labels;

const MAX_PRECEDENCE: i64 = 10_000;
const MAX_QUEUES: i64 = 10_000_000;
const VERBS: [&str; 9] =
    ["*", "create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const URL_VERBS: [&str; 10] =
    ["*", "connect", "delete", "get", "head", "options", "patch", "post", "put", "trace"];

pub(super) fn schema(object: &Node<'_, '_>, out: &mut Faults) {
    let spec = object.get("spec");
    let (precedence, level) = (spec.get("matchingPrecedence"), spec.get("priorityLevelConfiguration.name"));
    if precedence.int() <= 0 {
        precedence.invalid_as(&precedence.int().into(), "must be a positive value", out);
    } else if precedence.int() > MAX_PRECEDENCE {
        precedence.invalid(format!("must not be greater than {MAX_PRECEDENCE}"), out);
    } else if precedence.int() == 1 && object.get("metadata.name").text() != "exempt" {
        precedence.invalid("only the schema named 'exempt' may have matchingPrecedence 1", out);
    }
    let method = spec.get("distinguisherMethod");
    if method.is_set() {
        method.get("type").must_be_one_of(&["ByNamespace", "ByUser"], out);
    }
    if level.is_empty() {
        level.required("must reference a priority level", out);
    } else {
        level.text_must(labels::is_dns1123_subdomain, out);
    }
    spec.get("rules").items().for_each(|rule| rules(&rule, out));
}

pub(super) fn schema_update(new: &Node<'_, '_>, _: &Node<'_, '_>, subresource: &str, out: &mut Faults) {
    if subresource.is_empty() {
        schema(new, out);
    }
}

fn rules(rule: &Node<'_, '_>, out: &mut Faults) {
    let subjects = rule.get("subjects");
    if subjects.is_empty() {
        subjects.required("subjects must contain at least one value", out);
    }
    subjects.items().for_each(|subject| self::subject(&subject, out));
    let (resources, urls) = (rule.get("resourceRules"), rule.get("nonResourceRules"));
    if resources.is_empty() && urls.is_empty() {
        rule.required("at least one of resourceRules and nonResourceRules has to be non-empty", out);
    }
    for rule in resources.items() {
        verbs(&rule.get("verbs"), &VERBS, out);
        list(&rule.get("apiGroups"), "resource rules must supply at least one api group", "api groups", out);
        list(&rule.get("resources"), "resource rules must supply at least one resource", "resources", out);
        let namespaces = rule.get("namespaces");
        if namespaces.is_empty() && !rule.get("clusterScope").is_true() {
            namespaces.required(
                "resource rules that are not cluster scoped must supply at least one namespace",
                out,
            );
        }
        star_alone(&namespaces, "namespaces", out);
    }
    for rule in urls.items() {
        verbs(&rule.get("verbs"), &URL_VERBS, out);
        list(
            &rule.get("nonResourceURLs"),
            "nonResourceURLs must contain at least one value",
            "non-resource URLs",
            out,
        );
    }
}

fn verbs(verbs: &Node<'_, '_>, known: &[&str], out: &mut Faults) {
    list(verbs, "verbs must contain at least one value", "verbs", out);
    if verbs.items().any(|verb| !known.contains(&verb.text())) {
        verbs.not_supported(known, out);
    }
}

fn list(list: &Node<'_, '_>, absent: &str, others: &str, out: &mut Faults) {
    if list.is_empty() {
        list.required(absent, out);
    }
    star_alone(list, others, out);
}

fn star_alone(list: &Node<'_, '_>, others: &str, out: &mut Faults) {
    if list.len() > 1 && list.items().any(|item| item.text() == "*") {
        list.invalid(format!("if '*' is present, must not specify other {others}"), out);
    }
}

fn subject(subject: &Node<'_, '_>, out: &mut Faults) {
    let kind = subject.get("kind");
    for (name, field) in [("User", "user"), ("Group", "group"), ("ServiceAccount", "serviceAccount")] {
        let given = subject.get(field);
        match (kind.text() == name, given.is_set()) {
            (true, false) => {
                given.required(format!("{field} is required when subject kind is '{name}'"), out);
            }
            (false, true) => {
                given.forbidden(format!("{field} is forbidden when subject kind is not '{name}'"), out);
            }
            (true, true) => {
                given.get("name").must_be_given(out);
                if name == "ServiceAccount" && given.get("namespace").is_empty() {
                    given.get("namespace").required("must specify namespace for service account", out);
                }
            }
            (false, false) => {}
        }
    }
    kind.must_be_one_of(&["Group", "ServiceAccount", "User"], out);
}

pub(super) fn level(object: &Node<'_, '_>, out: &mut Faults) {
    let spec = object.get("spec");
    let (kind, limited, exempt) = (spec.get("type"), spec.get("limited"), spec.get("exempt"));
    let named = object.get("metadata.name").text() == "exempt";
    if named != (kind.text() == "Exempt") {
        kind.invalid("type must be 'Exempt' if and only if name is 'exempt'", out);
    }
    match kind.text() {
        "Exempt" => {
            if limited.is_set() {
                limited.forbidden("must be nil if the type is not Limited", out);
            }
            shares(&exempt, out);
        }
        "Limited" => {
            if exempt.is_set() {
                exempt.forbidden("must be nil if the type is Limited", out);
            }
            if limited.is_set() {
                self::limited(&limited, out);
            } else {
                limited.required("must not be empty when type is Limited", out);
            }
        }
        _ => kind.not_supported(&["Exempt", "Limited"], out),
    }
}

fn shares(part: &Node<'_, '_>, out: &mut Faults) {
    let (shares, lendable) = (part.get("nominalConcurrencyShares"), part.get("lendablePercent"));
    if shares.int() < 0 {
        shares.invalid("must be a non-negative integer", out);
    }
    if !(0..=100).contains(&lendable.int()) {
        lendable.invalid("must be between 0 and 100, inclusive", out);
    }
}

fn limited(limited: &Node<'_, '_>, out: &mut Faults) {
    shares(limited, out);
    let borrowing = limited.get("borrowingLimitPercent");
    if borrowing.int() < 0 {
        borrowing.invalid("if specified, must be a non-negative integer", out);
    }
    let (kind, queuing) = (limited.get("limitResponse.type"), limited.get("limitResponse.queuing"));
    match kind.text() {
        "Reject" if queuing.is_set() => {
            queuing.forbidden("must be nil if limited.limitResponse.type is not Limited", out);
        }
        "Reject" => {}
        "Queue" if !queuing.is_set() => {
            queuing.required("must not be empty if limited.limitResponse.type is Limited", out);
        }
        "Queue" => self::queuing(&queuing, out),
        _ => kind.not_supported(&["Queue", "Reject"], out),
    }
}

fn queuing(queuing: &Node<'_, '_>, out: &mut Faults) {
    let (queues, hand) = (queuing.get("queues"), queuing.get("handSize"));
    for field in [&queuing.get("queueLengthLimit"), &queues, &hand] {
        if field.int() <= 0 {
            field.invalid("must be positive", out);
        }
    }
    if queues.int() > MAX_QUEUES {
        queues.invalid(format!("must not be greater than {MAX_QUEUES}"), out);
    }
    if hand.int() > queues.int() {
        hand.invalid(format!("should not be greater than queues ({})", queues.int()), out);
    }
}

pub(super) fn level_update(new: &Node<'_, '_>, _: &Node<'_, '_>, subresource: &str, out: &mut Faults) {
    if subresource.is_empty() {
        level(new, out);
    }
}
