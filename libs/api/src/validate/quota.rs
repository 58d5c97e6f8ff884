//! ResourceQuota and LimitRange.

use super::node::{Faults, IMMUTABLE, Node};
use super::pod::resources;
use crate::quantity::Quantity;
use crate::strategy::same;

const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];
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
    let spec = object.get("spec");
    hard(&spec.get("hard"), out);
    scopes(&spec, out);
    scope_selector(&spec.get("scopeSelector"), out);
}

fn hard(list: &Node<'_, '_>, out: &mut Faults) {
    for (name, amount) in list.entries() {
        let huge = resources::is_huge_pages(name) || name.starts_with("requests.hugepages-");
        if !name.contains('/') && !QUOTA_RESOURCES.contains(&name) && !huge {
            amount.invalid_as(&name.into(), "must be a standard resource for quota", out);
        }
        resources::amount(&amount, name, out);
    }
}

fn scopes(spec: &Node<'_, '_>, out: &mut Faults) {
    let list = spec.get("scopes");
    for scope in list.items() {
        if !SCOPES.contains(&scope.text()) {
            list.invalid("unsupported scope", out);
        }
        let pods_only = spec.get("hard").entries().any(|(name, _)| !applies(scope.text(), name));
        if pods_only {
            list.invalid("unsupported scope applied to resource", out);
        }
    }
    let has = |name: &str| list.items().any(|scope| scope.text() == name);
    if CONFLICTS.iter().any(|(a, b)| has(a) && has(b)) {
        list.invalid("conflicting scopes", out);
    }
}

/// Whether a quota of that scope can count the resource.
fn applies(scope: &str, resource: &str) -> bool {
    match scope {
        "BestEffort" => resource == "pods",
        "Terminating"
        | "NotTerminating"
        | "NotBestEffort"
        | "PriorityClass"
        | "CrossNamespacePodAffinity" => {
            let compute = ["cpu", "memory", "ephemeral-storage"];
            let plain = resource
                .strip_prefix("requests.")
                .or_else(|| resource.strip_prefix("limits."))
                .unwrap_or(resource);
            resource == "pods" || compute.contains(&plain) || plain.starts_with("hugepages-")
        }
        _ => true,
    }
}

fn scope_selector(selector: &Node<'_, '_>, out: &mut Faults) {
    let expressions = selector.get("matchExpressions");
    for expression in expressions.items() {
        let (scope, operator, values) =
            (expression.get("scopeName"), expression.get("operator"), expression.get("values"));
        if !SCOPES.contains(&scope.text()) {
            scope.invalid("unsupported scope", out);
        }
        if !matches!(scope.text(), "PriorityClass" | "VolumeAttributesClass") && operator.text() != "Exists" {
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
            _ => operator.invalid("not a valid selector operator", out),
        }
    }
}

pub(super) fn quota_update(new: &Node<'_, '_>, old: &Node<'_, '_>, subresource: &str, out: &mut Faults) {
    if subresource == "status" {
        for list in ["status.hard", "status.used"] {
            hard(&new.get(list), out);
        }
        return;
    }
    quota(new, out);
    let (scopes, before) = (new.get("spec.scopes"), old.get("spec.scopes"));
    let sorted = |list: &Node<'_, '_>| {
        let mut names: Vec<String> = list.items().map(|scope| scope.text().to_owned()).collect();
        names.sort();
        names
    };
    if sorted(&scopes) != sorted(&before) {
        scopes.invalid(IMMUTABLE, out);
    }
    let (selector, before) = (new.get("spec.scopeSelector"), old.get("spec.scopeSelector"));
    if !same(selector.value, before.value) {
        selector.invalid(IMMUTABLE, out);
    }
}

pub(super) fn limit_range(object: &Node<'_, '_>, out: &mut Faults) {
    let limits = object.get("spec.limits");
    let mut seen: Vec<&str> = Vec::new();
    for limit in limits.items() {
        let kind = limit.get("type");
        if !matches!(kind.text(), "Pod" | "Container" | "PersistentVolumeClaim") && !kind.text().contains('/')
        {
            kind.invalid("must be a standard limit type or fully qualified", out);
        }
        if seen.contains(&kind.text()) {
            kind.duplicate(out);
        }
        seen.push(kind.text());
        if kind.text() == "Pod" {
            for key in ["default", "defaultRequest"] {
                if !limit.get(key).is_empty() {
                    limit.get(key).forbidden("may not be specified when `type` is 'Pod'", out);
                }
            }
        }
        let (min, max) = (limit.get("min"), limit.get("max"));
        if kind.text() == "PersistentVolumeClaim"
            && !min.key("storage").is_set()
            && !max.key("storage").is_set()
        {
            limit.get("limits").required(
                "either minimum or maximum storage value is required, but neither was provided",
                out,
            );
        }
        limit_bounds(&limit, out);
    }
}

const BOUNDS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

fn limit_bounds(limit: &Node<'_, '_>, out: &mut Faults) {
    let lists = BOUNDS.map(|key| limit.get(key));
    let mut names: Vec<&str> = lists.iter().flat_map(|list| list.entries().map(|(name, _)| name)).collect();
    names.sort_unstable();
    names.dedup();
    for list in &lists {
        for (name, amount) in list.entries() {
            resources::known_name(&amount, name, out);
            resources::amount(&amount, name, out);
        }
    }
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
    }
}

pub(super) fn limit_range_update(new: &Node<'_, '_>, _: &Node<'_, '_>, _: &str, out: &mut Faults) {
    limit_range(new, out);
}
