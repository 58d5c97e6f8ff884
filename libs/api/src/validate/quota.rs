//! ResourceQuota and LimitRange.

use super::node::{Faults, IMMUTABLE, Node, Seen};
use super::pod::resources;
use crate::labels;
use crate::quantity::Quantity;
use serde_json::Value;
use std::collections::BTreeSet;

const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];
/// Scopes that are there or not, and have no values.
const BARE: [&str; 5] =
    ["Terminating", "NotTerminating", "BestEffort", "NotBestEffort", "CrossNamespacePodAffinity"];
/// What quotas of pods' scopes can count beside pods.
const COMPUTE: [&str; 6] =
    ["cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];
const CONFLICTS: [(&str, &str); 2] = [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")];
const EXISTS_ONLY: &str = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
/// Unqualified names that a quota may count.
const QUOTA_RESOURCES: [&str; 19] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];

pub(super) fn quota(object: &Node<'_, '_>, out: &mut Faults) {
    quota_spec(&object.get("spec"), out);
}

fn quota_spec(spec: &Node<'_, '_>, out: &mut Faults) {
    hard(&spec.get("hard"), out);
    scopes(spec, out);
    scope_selector(spec, out);
}

fn is_standard(name: &str) -> bool {
    QUOTA_RESOURCES.contains(&name)
        || resources::is_huge_pages(name)
        || name.starts_with("requests.hugepages-")
}

fn hard(list: &Node<'_, '_>, out: &mut Faults) {
    for (name, amount) in list.entries() {
        resources::known_name(&amount, name, out);
        if !name.contains('/') && !is_standard(name) {
            amount.invalid_shown(name.to_owned(), "must be a standard resource for quota", out);
        }
        resources::amount(&amount, name, out);
    }
}

/// How many of the resources a quota of that scope cannot count.
fn strangers(spec: &Node<'_, '_>, scope: &str) -> usize {
    let fits = |name: &str| match scope {
        "BestEffort" => name == "pods",
        "VolumeAttributesClass" => ["persistentvolumeclaims", "requests.storage"].contains(&name),
        _ if SCOPES.contains(&scope) => name == "pods" || COMPUTE.contains(&name),
        _ => true,
    };
    spec.get("hard").entries().filter(|(name, _)| is_standard(name) && !fits(name)).count()
}

fn conflicts(names: &[&str], place: &Node<'_, '_>, shown: &Node<'_, '_>, out: &mut Faults) {
    for _ in CONFLICTS.iter().filter(|(a, b)| names.contains(a) && names.contains(b)) {
        place.invalid_as(shown.value, "conflicting scopes", out);
    }
}

fn scopes(spec: &Node<'_, '_>, out: &mut Faults) {
    let list = spec.get("scopes");
    for scope in list.items() {
        if !SCOPES.contains(&scope.text()) {
            list.invalid("unsupported scope", out);
        }
        for _ in 0..strangers(spec, scope.text()) {
            list.invalid("unsupported scope applied to resource", out);
        }
    }
    let names: Vec<&str> = list.items().map(|scope| scope.text()).collect();
    conflicts(&names, &list, &list, out);
}

/// Faults name the list of expressions, not the expression.
fn scope_selector(spec: &Node<'_, '_>, out: &mut Faults) {
    let selector = spec.get("scopeSelector");
    let expressions = selector.get("matchExpressions");
    let mut names: Vec<&str> = Vec::new();
    for expression in expressions.items() {
        let expression = expressions.named("", expression.value);
        let (scope, operator, values) =
            (expression.get("scopeName"), expression.get("operator"), expression.get("values"));
        if !SCOPES.contains(&scope.text()) {
            scope.invalid("unsupported scope", out);
        }
        for _ in 0..strangers(spec, scope.text()) {
            let shown = super::shapes::compact(selector.value, "ScopeSelector");
            expressions.invalid_shown(shown, "unsupported scope applied to resource", out);
        }
        if BARE.contains(&scope.text()) && operator.text() != "Exists" {
            operator.invalid(EXISTS_ONLY, out);
        }
        match operator.text() {
            "In" | "NotIn" if values.is_empty() => {
                values.required(
                    "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
                    out,
                );
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                values.invalid(
                    "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
                    out,
                );
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => operator.invalid_as(&operator.text().into(), "not a valid selector operator", out),
        }
        names.push(expression.value["scopeName"].as_str().unwrap_or_default());
    }
    conflicts(&names, &expressions, &spec.get("scopes"), out);
}

pub(super) fn quota_update(new: &Node<'_, '_>, old: &Node<'_, '_>, subresource: &str, out: &mut Faults) {
    if subresource == "status" {
        if new.get("metadata.resourceVersion").is_empty() {
            new.get("resourceVersion").required("", out);
        }
        for list in ["status.hard", "status.used"] {
            hard(&new.get(list), out);
        }
        return;
    }
    quota_spec(&new.get("spec"), out);
    let (scopes, before) = (new.get("spec.scopes"), old.get("spec.scopes"));
    let set = |list: &Node<'_, '_>| -> BTreeSet<String> {
        list.items().map(|scope| scope.text().to_owned()).collect()
    };
    if set(&scopes) != set(&before) {
        scopes.invalid(IMMUTABLE, out);
    }
}

pub(super) fn limit_range(object: &Node<'_, '_>, out: &mut Faults) {
    let limits = object.get("spec.limits");
    let mut seen = Seen::new();
    for limit in limits.items() {
        let kind = limit.get("type");
        let complaints = labels::is_qualified_name(kind.text());
        let standard = matches!(kind.text(), "Pod" | "Container" | "PersistentVolumeClaim");
        if complaints.is_empty() && !standard && !kind.text().contains('/') {
            kind.invalid("must be a standard limit type or fully qualified", out);
        }
        kind.text_must(|_| complaints.clone(), out);
        if seen.contains(&kind.text()) {
            kind.duplicate(out);
        }
        seen.insert(kind.text());
        let of_pod = kind.text() == "Pod";
        let (min, max) = (limit.get("min"), limit.get("max"));
        names_of(&max, kind.text(), out);
        names_of(&min, kind.text(), out);
        for key in ["default", "defaultRequest"] {
            let list = limit.get(key);
            if !of_pod {
                names_of(&list, kind.text(), out);
            } else if !list.is_empty() {
                list.forbidden("may not be specified when `type` is 'Pod'", out);
            }
        }
        if kind.text() == "PersistentVolumeClaim"
            && !min.key("storage").is_set()
            && !max.key("storage").is_set()
        {
            limit.get("limits").required(
                "either minimum or maximum storage value is required, but neither was provided",
                out,
            );
        }
        names_of(&limit.get("maxLimitRequestRatio"), kind.text(), out);
        limit_bounds(&limit, of_pod, out);
    }
}

/// Names of resources that a limit of that type may have.
fn names_of(list: &Node<'_, '_>, kind: &str, out: &mut Faults) {
    for (name, amount) in list.entries() {
        if matches!(kind, "Pod" | "Container") {
            resources::container_name(&amount, name, out);
        } else {
            resources::known_name(&amount, name, out);
        }
    }
}

const BOUNDS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

fn limit_bounds(limit: &Node<'_, '_>, of_pod: bool, out: &mut Faults) {
    let lists = BOUNDS.map(|key| {
        let list = limit.get(key);
        if of_pod && key.starts_with("default") { limit.named(key, &Value::Null) } else { list }
    });
    let mut names: Vec<&str> = lists.iter().flat_map(|list| list.entries().map(|(name, _)| name)).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let [max, min, default, request, ratio] =
            [&lists[0], &lists[1], &lists[2], &lists[3], &lists[4]].map(|list| list.key(name));
        // The place that is blamed, the value shown there, the lesser, the greater, and what both are called.
        let pairs = [
            (&min, &min, &min, &max, "min value", "max value"),
            (&request, &request, &min, &request, "min value", "default request value"),
            (&request, &request, &request, &max, "default request value", "max value"),
            (&request, &request, &request, &default, "default request value", "default limit value"),
            (&default, &min, &min, &default, "min value", "default value"),
            (&default, &max, &default, &max, "default value", "max value"),
        ];
        for (place, shown, less, more, less_name, more_name) in pairs {
            if less.is_set() && more.is_set() && less.amount() > more.amount() {
                let detail =
                    format!("{less_name} {} is greater than {more_name} {}", less.text(), more.text());
                place.invalid_as(shown.value, detail, out);
            }
        }
        if ratio.is_set() && ratio.amount() < Quantity::from_units(1) {
            ratio.invalid(format!("ratio {} is less than 1", ratio.text()), out);
        }
        if ratio.is_set() && min.is_set() && max.is_set() && !min.amount().is_zero() {
            let bound = max.amount().fraction_of(min.amount());
            if ratio.amount().fraction_of(Quantity::from_units(1)) > bound {
                ratio.invalid(format!("ratio {} is greater than max/min = {bound:.6}", ratio.text()), out);
            }
        }
        let overcommits = resources::is_native(name) && !resources::is_huge_pages(name);
        if !overcommits && default.is_set() && request.is_set() && default.amount() != request.amount() {
            let detail = format!(
                "default value {} must equal to defaultRequest value {} in {name}",
                default.text(),
                request.text()
            );
            request.invalid(detail, out);
        }
    }
}

pub(super) fn limit_range_update(new: &Node<'_, '_>, _: &Node<'_, '_>, _: &str, out: &mut Faults) {
    limit_range(new, out);
}
