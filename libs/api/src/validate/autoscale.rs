//! HorizontalPodAutoscaler (v1 and v2) and PodDisruptionBudget.

use super::node::{Faults, Node};
use super::{selectors, workload};
use crate::labels;
use crate::quantity::Quantity;

const MAX_WINDOW_SECONDS: i64 = 3600;
const MAX_PERIOD_SECONDS: i64 = 1800;
/// Metric types, the field that holds each.
const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
    ("External", "external"),
];

pub(super) fn autoscaler(object: &Node<'_, '_>, out: &mut Faults) {
    let spec = object.get("spec");
    let (min, max) = (spec.get("minReplicas"), spec.get("maxReplicas"));
    if min.is_set() && min.int() < 1 {
        min.invalid("must be greater than or equal to 1", out);
    }
    if max.int() < 1 {
        max.invalid_as(&max.int().into(), "must be greater than 0", out);
    }
    if min.is_set() && max.int() < min.int() {
        max.invalid_as(&max.int().into(), "must be greater than or equal to `minReplicas`", out);
    }
    let target = spec.get("scaleTargetRef");
    for key in ["kind", "name"] {
        target.get(key).required_text(labels::is_path_segment_name, out);
    }
    spec.get("metrics").items().for_each(|metric| self::metric(&metric, out));
    for direction in ["behavior.scaleUp", "behavior.scaleDown"] {
        let rules = spec.get(direction);
        if rules.is_set() {
            scaling(&rules, out);
        }
    }
}

fn metric(metric: &Node<'_, '_>, out: &mut Faults) {
    let kind = metric.get("type");
    if kind.is_empty() {
        kind.required("must specify a metric source type", out);
    }
    if !kind.is_empty() && !SOURCES.iter().any(|(name, _)| *name == kind.text()) {
        kind.not_supported(&["ContainerResource", "External", "Object", "Pods", "Resource"], out);
    }
    for (name, field) in SOURCES {
        let source = metric.get(field);
        match (kind.text() == name, source.is_set()) {
            (true, false) => source.required("must populate information for the given metric source", out),
            (true, true) => metric_source(name, &source, out),
            (false, true) => source.forbidden("must populate the given metric source only", out),
            (false, false) => {}
        }
    }
}

fn metric_source(kind: &str, source: &Node<'_, '_>, out: &mut Faults) {
    let target = source.get("target");
    let (value, average, utilization) =
        (target.get("value"), target.get("averageValue"), target.get("averageUtilization"));
    target_kind(&target, out);
    match kind {
        "Object" | "External" if !value.is_set() && !average.is_set() => {
            let detail = if kind == "Object" {
                "must set either a target value or averageValue"
            } else {
                "must set either a target value for metric or a per-pod target"
            };
            average.required(detail, out);
        }
        "External" if value.is_set() && average.is_set() => {
            value.forbidden("may not set both a target value for metric and a per-pod target", out);
        }
        "Pods" if !average.is_set() => average.required("must specify a positive target averageValue", out),
        "Resource" | "ContainerResource" => {
            if source.get("name").is_empty() {
                source.get("name").required("must specify a resource name", out);
            }
            if kind == "ContainerResource" && source.get("container").is_empty() {
                source.get("container").required("must specify a container", out);
            }
            match (utilization.is_set(), average.is_set()) {
                (false, false) => {
                    utilization.required("must set either a target raw value or a target utilization", out);
                }
                (true, true) => {
                    average.forbidden("may not set both a target raw value and a target utilization", out);
                }
                _ => {}
            }
        }
        _ => {}
    }
    if matches!(kind, "Object" | "External" | "Pods") {
        let name = source.get("metric.name");
        if name.is_empty() {
            name.required("must specify a metric name", out);
        } else {
            name.text_must(labels::is_path_segment_name, out);
        }
    }
}

fn target_kind(target: &Node<'_, '_>, out: &mut Faults) {
    let kind = target.get("type");
    match kind.text() {
        "" => kind.required("must specify a metric target type", out),
        "Utilization" | "Value" | "AverageValue" => {}
        _ => kind.invalid("must be either Utilization, Value, or AverageValue", out),
    }
    for key in ["value", "averageValue"] {
        let amount = target.get(key);
        if amount.is_set() && amount.amount() <= Quantity::ZERO {
            amount.invalid("must be positive", out);
        }
    }
    let utilization = target.get("averageUtilization");
    if utilization.is_set() && utilization.int() < 1 {
        utilization.invalid("must be greater than 0", out);
    }
}

fn scaling(rules: &Node<'_, '_>, out: &mut Faults) {
    let window = rules.get("stabilizationWindowSeconds");
    if window.int() < 0 {
        window.invalid("must be greater than or equal to zero", out);
    } else if window.int() > MAX_WINDOW_SECONDS {
        window.invalid(format!("must be less than or equal to {MAX_WINDOW_SECONDS}"), out);
    }
    rules.get("selectPolicy").may_be_one_of(&["Disabled", "Max", "Min"], out);
    let policies = rules.get("policies");
    if policies.is_empty() {
        policies.required("must specify at least one Policy", out);
    }
    for policy in policies.items() {
        policy.get("type").must_be_one_of(&["Percent", "Pods"], out);
        for key in ["value", "periodSeconds"] {
            if policy.get(key).int() <= 0 {
                policy.get(key).invalid_as(&policy.get(key).int().into(), "must be greater than zero", out);
            }
        }
        let period = policy.get("periodSeconds");
        if period.int() > MAX_PERIOD_SECONDS {
            period.invalid(format!("must be less than or equal to {MAX_PERIOD_SECONDS}"), out);
        }
    }
}

pub(super) fn autoscaler_update(new: &Node<'_, '_>, _: &Node<'_, '_>, subresource: &str, out: &mut Faults) {
    if subresource == "status" {
        for key in ["currentReplicas", "desiredReplicas"] {
            new.get("status").get(key).not_negative(out);
        }
        return;
    }
    autoscaler(new, out);
}

pub(super) fn budget(object: &Node<'_, '_>, out: &mut Faults) {
    let spec = object.get("spec");
    let (min, max) = (spec.get("minAvailable"), spec.get("maxUnavailable"));
    if min.is_set() && max.is_set() {
        spec.invalid("minAvailable and maxUnavailable cannot be both set", out);
    }
    for value in [&min, &max] {
        if value.is_set() {
            workload::count_or_percent(value, out);
            workload::at_most_all(value, out);
        }
    }
    selectors::labels(&spec.get("selector"), out);
    spec.get("unhealthyPodEvictionPolicy").may_be_one_of(&["AlwaysAllow", "IfHealthyBudget"], out);
}

pub(super) fn budget_update(new: &Node<'_, '_>, _: &Node<'_, '_>, subresource: &str, out: &mut Faults) {
    if subresource == "status" {
        for key in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
            new.get("status").get(key).not_negative(out);
        }
        return;
    }
    budget(new, out);
}
