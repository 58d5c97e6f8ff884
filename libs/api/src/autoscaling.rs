//! HorizontalPodAutoscalers of version 1, which know CPU utilization only: the rest travels in annotations.
//!
//! In: an object of one version. Out: the same in the other. The annotations hold metrics in words of version 1, in the
//! order of Go's types; one that cannot be read is dropped, as are all that version 2 is sent with.

mod metrics;

use crate::json::as_go;
use crate::kinds::Kind;
use serde_json::{Map, Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const ALL: [&str; 4] = [METRICS, BEHAVIOR, CURRENT, CONDITIONS];
/// Those that hold parts of the spec, and of the status.
pub(crate) const OF_SPEC: [&str; 2] = [METRICS, BEHAVIOR];
pub(crate) const OF_STATUS: [&str; 2] = [CURRENT, CONDITIONS];

const TARGET: &str = "targetCPUUtilizationPercentage";
const MEASURED: &str = "currentCPUUtilizationPercentage";
/// What is wanted where nothing is said.
const USUAL_PERCENT: i64 = 80;

/// Whether objects of a kind are autoscalers of version 1.
#[must_use]
pub fn is_v1(kind: &Kind) -> bool {
    kind.custom.is_none() && kind.kind == "HorizontalPodAutoscaler" && kind.version == "v1"
}

/// What the way through the inner form makes of what a client sent.
pub(crate) fn converted(object: &mut Value, kind: &Kind) {
    if is_v1(kind) {
        from_v1(object);
        to_v1(object);
    } else {
        drop_annotations(object, &ALL);
    }
}

/// Takes annotations of another state of an object of version 1.
pub(crate) fn keep(new: &mut Value, old: Option<&Value>, annotations: &[&str]) {
    drop_annotations(new, annotations);
    for name in annotations {
        let kept = old.and_then(|old| old["metadata"]["annotations"].get(*name));
        if let Some(kept) = kept {
            annotate(new, name, kept.clone());
        }
    }
}

fn annotate(object: &mut Value, name: &str, value: Value) {
    let annotations = &mut object["metadata"]["annotations"];
    if !annotations.is_object() {
        *annotations = json!({});
    }
    annotations[name] = value;
}

fn drop_annotations(object: &mut Value, names: &[&str]) {
    let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else {
        return;
    };
    annotations.retain(|name, _| !names.contains(&name.as_str()));
    if annotations.is_empty() {
        crate::meta::remove(object, "annotations");
    }
}

fn cpu_percent<'v>(metric: &'v Value, part: &str) -> Option<&'v Value> {
    let resource = &metric["resource"];
    let percent = &resource[part]["averageUtilization"];
    (metric["type"] == "Resource" && resource["name"] == "cpu" && percent.is_i64()).then_some(percent)
}

/// Takes a field out of a part of the object.
fn take(object: &mut Value, part: &str, field: &str) -> Value {
    object
        .get_mut(part)
        .and_then(Value::as_object_mut)
        .and_then(|part| part.remove(field))
        .unwrap_or_default()
}

fn set(object: &mut Value, part: &str, field: &str, value: Value) {
    if let Some(part) = object.get_mut(part).and_then(Value::as_object_mut) {
        part.insert(field.to_owned(), value);
    }
}

/// Makes version 1 of version 2.
pub fn to_v1(object: &mut Value) {
    drop_annotations(object, &ALL);
    let list = |value: Value| if let Value::Array(items) = value { items } else { Vec::new() };
    let wanted = list(take(object, "spec", "metrics"));
    let current = list(take(object, "status", "currentMetrics"));
    if let Some(percent) = wanted.iter().find_map(|metric| cpu_percent(metric, "target")) {
        set(object, "spec", TARGET, percent.clone());
    }
    if let Some(percent) = current.iter().rev().find_map(|metric| cpu_percent(metric, "current")) {
        set(object, "status", MEASURED, percent.clone());
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        status.entry("currentReplicas").or_insert(json!(0));
    }
    let others: Vec<Value> =
        wanted.into_iter().filter(|metric| cpu_percent(metric, "target").is_none()).collect();
    let (behavior, conditions) =
        (take(object, "spec", "behavior"), list(take(object, "status", "conditions")));
    let written = [
        (METRICS, (!others.is_empty()).then(|| metrics::written(&others, &metrics::WANTED))),
        (CURRENT, (!current.is_empty()).then(|| metrics::written(&current, &metrics::CURRENT))),
        (BEHAVIOR, behavior.is_object().then(|| behavior_written(&behavior))),
        (CONDITIONS, (!conditions.is_empty()).then(|| conditions_written(&conditions))),
    ];
    for (name, text) in written {
        if let Some(text) = text {
            annotate(object, name, json!(text));
        }
    }
}

/// Makes version 2 of version 1.
pub fn from_v1(object: &mut Value) {
    let read = |name: &str| -> Option<Value> {
        serde_json::from_str(object["metadata"]["annotations"][name].as_str()?).ok()
    };
    let metrics = read(METRICS).and_then(|metrics| metrics::read(&metrics, &metrics::WANTED));
    let current = read(CURRENT).and_then(|metrics| metrics::read(&metrics, &metrics::CURRENT));
    let behavior = read(BEHAVIOR).and_then(|behavior| behavior_read(&behavior));
    let conditions = read(CONDITIONS).filter(Value::is_array);
    drop_annotations(object, &ALL);
    let mut wanted = metrics.unwrap_or_default();
    let percent = take(object, "spec", TARGET);
    let percent = if wanted.is_empty() && percent.is_null() { json!(USUAL_PERCENT) } else { percent };
    if !percent.is_null() {
        let target = json!({"type": "Utilization", "averageUtilization": percent});
        wanted.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
    }
    set(object, "spec", "metrics", json!(wanted));
    // Only version 1 writes that there are none.
    if object["status"]["currentReplicas"] == 0 {
        take(object, "status", "currentReplicas");
    }
    let percent = take(object, "status", MEASURED);
    let current = current.or_else(|| {
        let cpu = json!({"name": "cpu", "current": {"averageUtilization": percent}});
        (!percent.is_null()).then(|| vec![json!({"type": "Resource", "resource": cpu})])
    });
    set(object, "status", "currentMetrics", json!(current));
    for (part, field, value) in [("spec", "behavior", behavior), ("status", "conditions", conditions)] {
        if let Some(value) = value {
            set(object, part, field, value);
        }
    }
}

/// An object whose fields stand in this order.
fn in_order(fields: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let fields: Vec<String> = fields.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", fields.join(","))
}

fn list_of(items: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", items.into_iter().collect::<Vec<_>>().join(","))
}

/// Names that behavior has in its annotation and in version 2: the annotation holds Kubernetes' inner form.
const RULES: [(&str, &str); 4] = [
    ("StabilizationWindowSeconds", "stabilizationWindowSeconds"),
    ("SelectPolicy", "selectPolicy"),
    ("Policies", "policies"),
    ("Tolerance", "tolerance"),
];
const POLICY: [(&str, &str); 3] = [("Type", "type"), ("Value", "value"), ("PeriodSeconds", "periodSeconds")];
const DIRECTIONS: [(&str, &str); 2] = [("ScaleUp", "scaleUp"), ("ScaleDown", "scaleDown")];

fn behavior_written(behavior: &Value) -> String {
    let policy = |policy: &Value| in_order(POLICY.map(|(inner, name)| (inner, as_go(&policy[name]))));
    let rules = |rules: &Value| {
        if rules.is_null() {
            return "null".to_owned();
        }
        in_order(RULES.map(|(inner, name)| match &rules[name] {
            Value::Array(policies) => (inner, list_of(policies.iter().map(policy))),
            value => (inner, as_go(value)),
        }))
    };
    in_order(DIRECTIONS.map(|(inner, name)| (inner, rules(&behavior[name]))))
}

/// The fields of an object by these names, in any case, as Go reads them; `None` when it is no object.
fn renamed(of: &Value, names: &[(&str, &str)]) -> Option<Map<String, Value>> {
    let of = of.as_object()?;
    let found = |(inner, name): &(&str, &str)| {
        let value = of.iter().find(|(key, _)| key.eq_ignore_ascii_case(inner))?.1;
        (!value.is_null()).then(|| ((*name).to_owned(), value.clone()))
    };
    Some(names.iter().filter_map(found).collect())
}

fn behavior_read(behavior: &Value) -> Option<Value> {
    let mut out = renamed(behavior, &DIRECTIONS)?;
    for rules in out.values_mut() {
        let mut read = renamed(rules, &RULES)?;
        if let Some(policies) = read.get_mut("policies") {
            let all: Option<Vec<Value>> = policies
                .as_array()?
                .iter()
                .map(|policy| renamed(policy, &POLICY).map(Value::Object))
                .collect();
            *policies = json!(all?);
        }
        let fits = |name: &str, is: fn(&Value) -> bool| read.get(name).is_none_or(is);
        if !fits("stabilizationWindowSeconds", Value::is_i64) || !fits("selectPolicy", Value::is_string) {
            return None;
        }
        *rules = Value::Object(read);
    }
    (!out.is_empty()).then_some(Value::Object(out))
}

fn conditions_written(conditions: &[Value]) -> String {
    list_of(conditions.iter().map(|condition| {
        let always = ["type", "status", "lastTransitionTime"].map(|name| (name, true));
        let some = ["reason", "message"].map(|name| (name, false));
        let given = |(name, always): &(&str, bool)| {
            *always || condition[*name].as_str().is_some_and(|text| !text.is_empty())
        };
        let fields = always.into_iter().chain(some).filter(given);
        in_order(fields.map(|(name, _)| (name, as_go(&condition[name]))))
    }))
}

#[cfg(test)]
mod tests;
