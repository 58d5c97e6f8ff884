//! HorizontalPodAutoscaler (v1 and v2) and PodDisruptionBudget.

use super::node::{Faults, Node};
use super::pod::resources;
use super::{selectors, workload};
use crate::autoscaling;
use crate::labels;
use crate::quantity::Quantity;

const MAX_WINDOW_SECONDS: i64 = 3600;
const MAX_PERIOD_SECONDS: i64 = 1800;
/// Metric types and the field that holds each, in the order they are looked for.
const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];

pub(super) fn autoscaler(object: &Node<'_, '_>, out: &mut Faults) {
    autoscaler_spec(object, 1, out);
}

/// Faults are told at the places of version 2, which everything is checked in.
fn autoscaler_spec(object: &Node<'_, '_>, lowest: i64, out: &mut Faults) {
    if object.get("apiVersion").text() == "autoscaling/v1" {
        let mut inner = object.value.clone();
        autoscaling::from_v1(&mut inner);
        return spec(&Node::root(&inner).get("spec"), lowest, out);
    }
    spec(&object.get("spec"), lowest, out);
}

fn spec(spec: &Node<'_, '_>, lowest: i64, out: &mut Faults) {
    let (min, max) = (spec.get("minReplicas"), spec.get("maxReplicas"));
    if min.is_set() && min.int() < lowest {
        min.invalid(format!("must be greater than or equal to {lowest}"), out);
    }
    if max.int() < 1 {
        max.invalid_as(&max.int().into(), "must be greater than 0", out);
    }
    if min.is_set() && max.int() < min.int() {
        max.invalid_as(&max.int().into(), "must be greater than or equal to `minReplicas`", out);
    }
    reference(&spec.get("scaleTargetRef"), out);
    let metrics = spec.get("metrics");
    metrics.items().for_each(|metric| self::metric(&metric, out));
    let from_outside = |metric: Node<'_, '_>| matches!(metric.get("type").text(), "Object" | "External");
    if min.value.as_i64() == Some(0) && !metrics.items().any(from_outside) {
        let detail =
            "must specify at least one Object or External metric to support scaling to zero replicas";
        metrics.forbidden(detail, out);
    }
    for direction in ["behavior.scaleUp", "behavior.scaleDown"] {
        let rules = spec.get(direction);
        if rules.is_set() {
            scaling(&rules, out);
        }
    }
}

fn reference(target: &Node<'_, '_>, out: &mut Faults) {
    for key in ["kind", "name"] {
        target.get(key).required_text(labels::is_path_segment_name, out);
    }
}

fn metric(metric: &Node<'_, '_>, out: &mut Faults) {
    const TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
    let kind = metric.get("type");
    if kind.is_empty() {
        kind.required("must specify a metric source type", out);
    }
    kind.must_be_one_of(&TYPES, out);
    let mut given = SOURCES.iter().filter(|(_, field)| metric.get(field).is_set());
    if let Some((name, field)) = given.next() {
        metric_source(name, &metric.get(field), out);
    }
    let more = given.next().is_some();
    let expected = SOURCES.iter().find(|(name, _)| *name == kind.text()).map(|(_, field)| *field);
    match expected.map(|field| metric.get(field)) {
        Some(source) if !source.is_set() => {
            source.required("must populate information for the given metric source", out);
        }
        Some(_) => {}
        // Kubernetes looks at the type twice.
        None => kind.must_be_one_of(&TYPES, out),
    }
    if more {
        for (_, field) in SOURCES.iter().filter(|(_, field)| Some(*field) != expected) {
            if metric.get(field).is_set() {
                metric.get(field).forbidden("must populate the given metric source only", out);
            }
        }
    }
}

fn metric_source(kind: &str, source: &Node<'_, '_>, out: &mut Faults) {
    let target = source.get("target");
    let (value, average, utilization) =
        (target.get("value"), target.get("averageValue"), target.get("averageUtilization"));
    if kind == "Object" {
        reference(&source.get("describedObject"), out);
    }
    if matches!(kind, "Object" | "External" | "Pods") {
        let name = source.get("metric.name");
        if name.is_empty() {
            name.required("must specify a metric name", out);
        } else {
            name.text_must(labels::is_path_segment_name, out);
        }
    } else if source.get("name").is_empty() {
        source.get("name").required("must specify a resource name", out);
    }
    if kind == "ContainerResource" {
        let (name, container) = (source.get("name"), source.get("container"));
        if !name.is_empty() {
            resources::container_name(&name, name.text(), out);
        }
        if container.is_empty() {
            container.required("must specify a container", out);
        } else {
            container.text_must(labels::is_dns1123_label, out);
        }
    }
    target_kind(&target, out);
    match (kind, value.is_set(), average.is_set(), utilization.is_set()) {
        ("Object", false, false, _) => {
            average.required("must set either a target value or averageValue", out);
        }
        ("External", false, false, _) => {
            average.required("must set either a target value for metric or a per-pod target", out);
        }
        ("External", true, true, _) => {
            value.forbidden("may not set both a target value for metric and a per-pod target", out);
        }
        ("Pods", _, false, _) => {
            average.required("must specify a positive target averageValue", out);
        }
        ("Resource" | "ContainerResource", _, false, false) => {
            utilization.required("must set either a target raw value or a target utilization", out);
        }
        ("Resource" | "ContainerResource", _, true, true) => {
            average.forbidden("may not set both a target raw value and a target utilization", out);
        }
        _ => {}
    }
}

fn target_kind(target: &Node<'_, '_>, out: &mut Faults) {
    let kind = target.get("type");
    if kind.is_empty() {
        kind.required("must specify a metric target type", out);
    }
    if !matches!(kind.text(), "Utilization" | "Value" | "AverageValue") {
        let detail = "must be either Utilization, Value, or AverageValue";
        kind.invalid_as(&kind.text().into(), detail, out);
    }
    let positive = |amount: &Node<'_, '_>, out: &mut Faults| {
        if amount.is_set() && amount.amount() <= Quantity::ZERO {
            amount.invalid("must be positive", out);
        }
    };
    positive(&target.get("value"), out);
    let utilization = target.get("averageUtilization");
    if utilization.is_set() && utilization.int() < 1 {
        utilization.invalid("must be greater than 0", out);
    }
    positive(&target.get("averageValue"), out);
}

fn scaling(rules: &Node<'_, '_>, out: &mut Faults) {
    let window = rules.get("stabilizationWindowSeconds");
    if window.int() < 0 {
        window.invalid("must be greater than or equal to zero", out);
    } else if window.int() > MAX_WINDOW_SECONDS {
        window.invalid(format!("must be less than or equal to {MAX_WINDOW_SECONDS}"), out);
    }
    rules.get("selectPolicy").if_set_one_of(&["Disabled", "Max", "Min"], out);
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

pub(super) fn autoscaler_update(new: &Node<'_, '_>, old: &Node<'_, '_>, subresource: &str, out: &mut Faults) {
    if subresource == "status" {
        for key in ["currentReplicas", "desiredReplicas"] {
            new.get("status").get(key).not_negative(out);
        }
        return;
    }
    let had_none = old.get("spec.minReplicas").value.as_i64() == Some(0);
    autoscaler_spec(new, i64::from(!had_none), out);
}

pub(super) fn budget(object: &Node<'_, '_>, out: &mut Faults) {
    budget_spec(&object.get("spec"), false, out);
}

fn budget_spec(spec: &Node<'_, '_>, any_value: bool, out: &mut Faults) {
    let (min, max) = (spec.get("minAvailable"), spec.get("maxUnavailable"));
    if min.is_set() && max.is_set() {
        let detail = "minAvailable and maxUnavailable cannot be both set";
        spec.invalid_inside("PodDisruptionBudgetSpec", detail, out);
    }
    for value in [&min, &max] {
        if value.is_set() {
            workload::count_or_percent(value, out);
            workload::at_most_all(value, out);
        }
    }
    selectors::labels_but_values(&spec.get("selector"), any_value, out);
    spec.get("unhealthyPodEvictionPolicy").if_set_one_of(&["AlwaysAllow", "IfHealthyBudget"], out);
}

pub(super) fn budget_update(new: &Node<'_, '_>, old: &Node<'_, '_>, subresource: &str, out: &mut Faults) {
    if subresource == "status" {
        let status = new.get("status");
        super::meta::conditions(&status.get("conditions"), out);
        for key in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
            status.get(key).not_negative(out);
        }
        return;
    }
    let any_value = !selectors::is_readable(&old.get("spec.selector"));
    budget_spec(&new.get("spec"), any_value, out);
}
