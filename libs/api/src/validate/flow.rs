//! FlowSchema and PriorityLevelConfiguration.

use super::node::{Faults, Node, Seen};
use super::shapes;
use crate::labels;
use crate::strategy::same;
use serde_json::Value;

const MAX_PRECEDENCE: i64 = 10_000;
const MAX_QUEUES: i64 = 10_000_000;
const MAX_HASH_BITS: i64 = 60;
const VERBS: [&str; 9] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
const ROUND_TRIP: &str = "flowcontrol.k8s.io/preserve-zero-concurrency-shares";
/// Every cluster has these, and nobody changes them.
const MANDATORY: &str = include_str!("../../data/mandatory-flow.json");

fn is_mandatory(kind: &str, name: &str) -> Option<Value> {
    let all: Value = serde_json::from_str(MANDATORY).unwrap_or_default();
    all[kind].get(name).cloned()
}

pub(super) fn schema(object: &Node<'_, '_>, out: &mut Faults) {
    let (spec, name) = (object.get("spec"), object.get("metadata.name").text());
    let (precedence, level) = (spec.get("matchingPrecedence"), spec.get("priorityLevelConfiguration.name"));
    if precedence.int() <= 0 {
        precedence.invalid_as(&precedence.int().into(), "must be a positive value", out);
    }
    if precedence.int() > MAX_PRECEDENCE {
        precedence.invalid(format!("must not be greater than {MAX_PRECEDENCE}"), out);
    }
    if precedence.int() == 1 && name != "exempt" {
        precedence.invalid("only the schema named 'exempt' may have matchingPrecedence 1", out);
    }
    let method = spec.get("distinguisherMethod");
    if method.is_set() && !matches!(method.get("type").text(), "ByNamespace" | "ByUser") {
        method.get("type").not_supported(&["ByNamespace", "ByUser"], out);
        show_last(shapes::compact(method.value, "FlowMethod"), out);
    }
    if level.is_empty() {
        level.required("must reference a priority level", out);
    } else {
        level.text_must(labels::is_dns1123_subdomain, out);
    }
    spec.get("rules").items().for_each(|rule| rules(&rule, out));
    if is_mandatory("FlowSchema", name).is_some_and(|fixed| !same(spec.value, &fixed)) {
        spec.invalid_inside("FlowSchemaSpec", format!("spec of '{name}' must equal the fixed value"), out);
    }
    conditions(object, out);
}

/// The last fault shows its value so.
fn show_last(shown: String, out: &mut Faults) {
    if let Some(fault) = out.last_mut() {
        fault.value = Some(shown);
    }
}

fn conditions(object: &Node<'_, '_>, out: &mut Faults) {
    let mut seen = Seen::new();
    for condition in object.get("status.conditions").items() {
        let kind = condition.get("type");
        if seen.contains(&kind.text()) {
            kind.duplicate_as(&kind.text().into(), out);
        }
        seen.insert(kind.text());
        if kind.is_empty() {
            kind.required("must not be empty", out);
        }
    }
}

pub(super) fn schema_update(new: &Node<'_, '_>, _: &Node<'_, '_>, subresource: &str, out: &mut Faults) {
    match subresource {
        "status" => conditions(new, out),
        _ => schema(new, out),
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
        verbs(&rule.get("verbs"), out);
        list(&rule.get("apiGroups"), "resource rules must supply at least one api group", "api groups", out);
        list(&rule.get("resources"), "resource rules must supply at least one resource", "resources", out);
        let namespaces = rule.get("namespaces");
        if namespaces.is_empty() && !rule.get("clusterScope").is_true() {
            namespaces.required(
                "resource rules that are not cluster scoped must supply at least one namespace",
                out,
            );
        } else if !star_alone(&namespaces, "namespaces", out) {
            for namespace in namespaces.items() {
                for complaint in labels::is_dns1123_label(namespace.text()) {
                    let told =
                        format!("each member of this list must be '*' or a DNS-1123 label; {complaint}");
                    namespace.invalid(told, out);
                }
            }
        }
    }
    for rule in urls.items() {
        verbs(&rule.get("verbs"), out);
        let urls = rule.get("nonResourceURLs");
        if !list(&urls, "nonResourceURLs must contain at least one value", "non-resource URLs", out) {
            urls.items().for_each(|url| path(&url, out));
        }
    }
}

/// A path that starts with a slash, and may end in one and a star.
fn path(url: &Node<'_, '_>, out: &mut Faults) {
    let text = url.text();
    let fault = match text.matches('*').count() {
        _ if text.is_empty() => "must not be empty",
        _ if text == "/" => return,
        _ if !text.starts_with('/') => "must start with slash",
        _ if text.contains(' ') => "must not contain white-space",
        _ if text.contains("//") => "must not contain double slash",
        0 => return,
        1 if text.ends_with("/*") => return,
        _ => "wildcard can only do suffix matching",
    };
    url.invalid(fault, out);
}

fn verbs(verbs: &Node<'_, '_>, out: &mut Faults) {
    let stars = list(verbs, "verbs must contain at least one value", "verbs", out);
    if !stars && verbs.items().any(|verb| !VERBS.contains(&verb.text())) {
        verbs.not_supported(&VERBS, out);
    }
}

/// Tells of an empty list and of stars beside others; whether it holds a star.
fn list(list: &Node<'_, '_>, absent: &str, others: &str, out: &mut Faults) -> bool {
    if list.is_empty() {
        list.required(absent, out);
    }
    star_alone(list, others, out)
}

fn star_alone(list: &Node<'_, '_>, others: &str, out: &mut Faults) -> bool {
    let stars = list.items().any(|item| item.text() == "*");
    if list.len() > 1 && stars {
        list.invalid(format!("if '*' is present, must not specify other {others}"), out);
    }
    stars
}

const SUBJECTS: [(&str, &str); 3] =
    [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];

/// The field of the subject's kind is there and sound, the others are not.
fn subject(subject: &Node<'_, '_>, out: &mut Faults) {
    let kind = subject.get("kind");
    let Some((name, field)) = SUBJECTS.into_iter().find(|(name, _)| *name == kind.text()) else {
        return kind.must_be_one_of(&["Group", "ServiceAccount", "User"], out);
    };
    let given = subject.get(field);
    if given.is_set() {
        account(&given, name, out);
    } else {
        given.required(format!("{field} is required when subject kind is '{name}'"), out);
    }
    for (name, field) in SUBJECTS.into_iter().filter(|(other, _)| *other != name) {
        if subject.get(field).is_set() {
            let told = format!("{field} is forbidden when subject kind is not '{name}'");
            subject.get(field).forbidden(told, out);
        }
    }
}

fn account(given: &Node<'_, '_>, kind: &str, out: &mut Faults) {
    let (name, namespace) = (given.get("name"), given.get("namespace"));
    if name.must_be_given(out) && kind == "ServiceAccount" && name.text() != "*" {
        name.text_must(labels::is_dns1123_subdomain, out);
    }
    if kind == "ServiceAccount" && namespace.is_empty() {
        namespace.required("must specify namespace for service account", out);
    } else if kind == "ServiceAccount" {
        namespace.text_must(labels::is_dns1123_label, out);
    }
}

pub(super) fn level(object: &Node<'_, '_>, out: &mut Faults) {
    let notes = object.get("metadata.annotations");
    if notes.key(ROUND_TRIP).is_set() {
        notes.forbidden(format!("annotation '{ROUND_TRIP}' is forbidden"), out);
    }
    let spec = object.get("spec");
    let name = object.get("metadata.name").text();
    level_spec(&spec, name, out);
    if let Some(mut fixed) = is_mandatory("PriorityLevelConfiguration", name) {
        let mut but = "";
        if name == "exempt" {
            fixed["exempt"] = spec.value["exempt"].clone();
            but = " except the 'spec.exempt' field";
        }
        if !same(spec.value, &fixed) {
            let told = format!("spec of '{name}'{but} must equal the fixed value");
            spec.invalid_inside("PriorityLevelSpec", told, out);
        }
    }
    conditions(object, out);
}

fn level_spec(spec: &Node<'_, '_>, name: &str, out: &mut Faults) {
    let (kind, limited, exempt) = (spec.get("type"), spec.get("limited"), spec.get("exempt"));
    if (name == "exempt") != (kind.text() == "Exempt") {
        kind.invalid_as(&kind.text().into(), "type must be 'Exempt' if and only if name is 'exempt'", out);
    }
    match kind.text() {
        "Exempt" => {
            if limited.is_set() {
                limited.forbidden("must be nil if the type is not Limited", out);
            }
            shares(&exempt, out);
            lendable(&exempt, out);
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
    let shares = part.get("nominalConcurrencyShares");
    if shares.int() < 0 {
        shares.invalid("must be a non-negative integer", out);
    }
}

fn lendable(part: &Node<'_, '_>, out: &mut Faults) {
    let percent = part.get("lendablePercent");
    if !(0..=100).contains(&percent.int()) {
        percent.invalid("must be between 0 and 100, inclusive", out);
    }
}

fn limited(limited: &Node<'_, '_>, out: &mut Faults) {
    shares(limited, out);
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
    lendable(limited, out);
    let borrowing = limited.get("borrowingLimitPercent");
    if borrowing.int() < 0 {
        borrowing.invalid("if specified, must be a non-negative integer", out);
    }
}

fn queuing(queuing: &Node<'_, '_>, out: &mut Faults) {
    let [length, queues, hand] = ["queueLengthLimit", "queues", "handSize"].map(|key| queuing.get(key));
    for field in [&length, &queues] {
        if field.int() <= 0 {
            field.invalid_as(&field.int().into(), "must be positive", out);
        }
    }
    if queues.int() > MAX_QUEUES {
        queues.invalid(format!("must not be greater than {MAX_QUEUES}"), out);
    }
    let (deck, size) = (queues.int(), hand.int());
    if size <= 0 {
        hand.invalid_as(&size.into(), "must be positive", out);
    } else if size > deck {
        hand.invalid(format!("should not be greater than queues ({deck})"), out);
    } else if too_random(deck, size) {
        let told = format!(
            "required entropy bits of deckSize {deck} and handSize {size} should not be greater than {MAX_HASH_BITS}"
        );
        hand.invalid(told, out);
    }
}

/// Whether a hand of that size takes more bits than a hash has: `deck` to the power of `hand` is above 2 to that of bits.
fn too_random(deck: i64, hand: i64) -> bool {
    let most = 1_i64 << MAX_HASH_BITS;
    let hands = u32::try_from(hand).ok().and_then(|hand| deck.checked_pow(hand));
    hands.is_none_or(|hands| hands > most)
}

pub(super) fn level_update(new: &Node<'_, '_>, _: &Node<'_, '_>, subresource: &str, out: &mut Faults) {
    match subresource {
        "status" => conditions(new, out),
        _ => level(new, out),
    }
}
