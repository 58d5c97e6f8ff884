//! Deployment, ReplicaSet, StatefulSet, DaemonSet, ReplicationController, ControllerRevision, PodTemplate.

use super::node::{Faults, IMMUTABLE, Node};
use super::{pod, selectors};
use crate::labels;
use serde_json::{Value, json};

/// How a workload's texts name it.
struct Workload {
    kind: &'static str,
    /// What an empty selector is told to be wrong for.
    empty: &'static str,
}

const DEPLOYMENT: Workload = Workload { kind: "ReplicaSet", empty: "deployment" };
const STATEFUL_SET: Workload = Workload { kind: "StatefulSet", empty: "statefulset" };
const DAEMON_SET: Workload = Workload { kind: "DaemonSet", empty: "daemonset" };

/// Selector, its match with the template, and the template as long-running workloads need it.
fn selected_template(spec: &Node<'_, '_>, stored: &Value, workload: &Workload, out: &mut Faults) {
    let selector = spec.get("selector");
    if !selector.is_set() {
        selector.required("", out);
    } else {
        selectors::labels_but_values(&selector, odd_selector(stored), out);
        if selectors::is_empty(&selector) {
            selector.invalid(format!("empty selector is invalid for {}", workload.empty), out);
        }
    }
    if !selectors::is_readable(&selector) {
        // Without a selector there is nothing to hold the template against.
        let told = if workload.kind == STATEFUL_SET.kind { "" } else { "invalid label selector" };
        return selector.invalid(told, out);
    }
    template_matches(spec, out);
    long_running_template(&spec.get("template"), &stored["template"], workload.kind, out);
}

/// Whether the stored spec's selector is one that is refused today.
fn odd_selector(stored: &Value) -> bool {
    let (stored, mut faults) = (Node::root(stored), Faults::new());
    selectors::labels(&stored.get("selector"), &mut faults);
    !faults.is_empty()
}

fn template_matches(spec: &Node<'_, '_>, out: &mut Faults) {
    let selector = spec.get("selector");
    let labels = spec.get("template.metadata.labels");
    // Without a selector nothing matches; one that is refused is not asked.
    let mut faults = Faults::new();
    selectors::labels(&selector, &mut faults);
    let asked = faults.is_empty() && !selectors::is_empty(&selector);
    if !selector.is_set() || asked && !selectors::matches(&selector, &labels) {
        labels.invalid("`selector` does not match template `labels`", out);
    }
}

fn long_running_template(template: &Node<'_, '_>, stored: &Value, kind: &str, out: &mut Faults) {
    if kind == STATEFUL_SET.kind {
        // Its pods get volumes that the template does not name: their spec is judged when each is made.
        pod::template_metadata(template, stored, out);
    } else {
        pod::template(template, stored, out);
    }
    let restart = template.get("spec.restartPolicy");
    restart.must_be_one_of(&["Always"], out);
    let deadline = template.get("spec.activeDeadlineSeconds");
    if deadline.is_set() {
        deadline.forbidden(format!("activeDeadlineSeconds in {kind} is not Supported"), out);
    }
}

fn counts(spec: &Node<'_, '_>, keys: &[&str], out: &mut Faults) {
    keys.iter().for_each(|key| spec.get(key).not_negative(out));
}

pub(super) fn deployment(object: &Node<'_, '_>, out: &mut Faults) {
    deployment_spec(&object.get("spec"), &Value::Null, out);
}

fn deployment_spec(spec: &Node<'_, '_>, stored: &Value, out: &mut Faults) {
    counts(spec, &["replicas"], out);
    selected_template(spec, stored, &DEPLOYMENT, out);
    deployment_strategy(&spec.get("strategy"), out);
    counts(spec, &["minReadySeconds", "revisionHistoryLimit"], out);
    let progress = spec.get("progressDeadlineSeconds");
    progress.not_negative(out);
    if progress.is_set() && progress.int() <= spec.get("minReadySeconds").int() {
        progress.invalid("must be greater than minReadySeconds", out);
    }
}

fn deployment_strategy(strategy: &Node<'_, '_>, out: &mut Faults) {
    let rolling = strategy.get("rollingUpdate");
    match strategy.get("type").text() {
        "Recreate" if rolling.is_set() => {
            rolling.forbidden("may not be specified when strategy `type` is 'Recreate'", out);
        }
        "Recreate" => {}
        "RollingUpdate" if !rolling.is_set() => {
            rolling.required("this should be defaulted and never be nil", out);
        }
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
            count_or_percent(&unavailable, out);
            count_or_percent(&surge, out);
            at_most_all(&unavailable, out);
            if number(unavailable.value) == Some(0) && number(surge.value) == Some(0) {
                unavailable.invalid_count("may not be 0 when `maxSurge` is 0", out);
            }
        }
        other => strategy.named("", &json!(other)).not_supported(&["Recreate", "RollingUpdate"], out),
    }
}

/// The number of a count or a percentage.
fn number(value: &Value) -> Option<i64> {
    match value {
        // What is no percentage counts as none.
        Value::String(text) => text.strip_suffix('%').and_then(|digits| digits.parse().ok()).or(Some(0)),
        number => number.as_i64().or(Some(0)),
    }
}

/// A count of at least 0, or a percentage.
pub(super) fn count_or_percent(value: &Node<'_, '_>, out: &mut Faults) {
    match value.value {
        Value::String(text) => {
            let digits = text.strip_suffix('%').unwrap_or_default();
            if digits.is_empty() || !digits.bytes().all(|c| c.is_ascii_digit()) {
                let detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
                value.invalid_count(detail, out);
            }
        }
        _ => value.not_negative(out),
    }
}

pub(super) fn at_most_all(value: &Node<'_, '_>, out: &mut Faults) {
    if value.value.is_string() && number(value.value).is_some_and(|percent| percent > 100) {
        value.invalid_count("must not be greater than 100%", out);
    }
}

pub(super) fn deployment_update(new: &Node<'_, '_>, old: &Node<'_, '_>, subresource: &str, out: &mut Faults) {
    if subresource == "status" {
        return deployment_status(new, old, out);
    }
    deployment_spec(&new.get("spec"), &old.value["spec"], out);
    new.get("spec.selector").same_as(&old.get("spec.selector"), out);
}

fn deployment_status(new: &Node<'_, '_>, old: &Node<'_, '_>, out: &mut Faults) {
    let status = new.get("status");
    counts(
        &status,
        &[
            "observedGeneration",
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
            "collisionCount",
        ],
        out,
    );
    at_most(
        &status,
        &["updatedReplicas", "readyReplicas", "availableReplicas"],
        "replicas",
        "cannot be greater than status.replicas",
        out,
    );
    at_most(&status, &["availableReplicas"], "readyReplicas", "cannot be greater than readyReplicas", out);
    collisions(new, old, out);
}

/// Each of `keys` is at most `bound`.
fn at_most(status: &Node<'_, '_>, keys: &[&str], bound: &str, detail: &str, out: &mut Faults) {
    for key in keys {
        let count = status.get(key);
        if count.int() > status.get(bound).int() {
            count.invalid_as(&json!(count.int()), detail, out);
        }
    }
}

fn collisions(new: &Node<'_, '_>, old: &Node<'_, '_>, out: &mut Faults) {
    let (count, before) = (new.get("status.collisionCount"), old.get("status.collisionCount"));
    if before.is_set() && count.int() < before.int() {
        count.invalid_as(&json!(count.int()), "cannot be decremented", out);
    }
}

pub(super) fn replica_set(object: &Node<'_, '_>, out: &mut Faults) {
    replica_set_spec(&object.get("spec"), &Value::Null, out);
}

fn replica_set_spec(spec: &Node<'_, '_>, stored: &Value, out: &mut Faults) {
    counts(spec, &["replicas", "minReadySeconds"], out);
    selected_template(spec, stored, &DEPLOYMENT, out);
}

pub(super) fn replica_set_update(
    new: &Node<'_, '_>,
    old: &Node<'_, '_>,
    subresource: &str,
    out: &mut Faults,
) {
    if subresource == "status" {
        return replica_status(new, out);
    }
    super::twice(|out| replica_set_spec(&new.get("spec"), &old.value["spec"], out), out);
    new.get("spec.selector").same_as(&old.get("spec.selector"), out);
}

fn replica_status(new: &Node<'_, '_>, out: &mut Faults) {
    let status = new.get("status");
    counts(
        &status,
        &["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"],
        out,
    );
    let keys = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
    at_most(&status, &keys, "replicas", "cannot be greater than status.replicas", out);
    at_most(&status, &["availableReplicas"], "readyReplicas", "cannot be greater than readyReplicas", out);
}

pub(super) fn replication_controller(object: &Node<'_, '_>, out: &mut Faults) {
    controller_spec(&object.get("spec"), &Value::Null, out);
}

fn controller_spec(spec: &Node<'_, '_>, stored: &Value, out: &mut Faults) {
    counts(spec, &["minReadySeconds"], out);
    let selector = spec.get("selector");
    selector.must_be_given(out);
    counts(spec, &["replicas"], out);
    let template = spec.get("template");
    if !template.is_set() {
        return template.required("", out);
    }
    let labels = template.get("metadata.labels");
    if !selector.is_empty() && !selector.entries().all(|(key, value)| labels.key(key).value == value.value) {
        labels.invalid("`selector` does not match template `labels`", out);
    }
    long_running_template(&template, &stored["template"], "ReplicationController", out);
}

pub(super) fn replication_controller_update(
    new: &Node<'_, '_>,
    old: &Node<'_, '_>,
    subresource: &str,
    out: &mut Faults,
) {
    if subresource == "status" {
        return replica_status(new, out);
    }
    super::twice(|out| controller_spec(&new.get("spec"), &old.value["spec"], out), out);
}

pub(super) fn stateful_set(object: &Node<'_, '_>, out: &mut Faults) {
    stateful_set_spec(&object.get("spec"), &Value::Null, out);
}

fn stateful_set_spec(spec: &Node<'_, '_>, stored: &Value, out: &mut Faults) {
    let management = spec.get("podManagementPolicy");
    match management.text() {
        "OrderedReady" | "Parallel" => {}
        "" => management.required("", out),
        _ => management.invalid("must be 'OrderedReady' or 'Parallel'", out),
    }
    stateful_strategy(&spec.get("updateStrategy"), out);
    let retention = spec.get("persistentVolumeClaimRetentionPolicy");
    if retention.is_set() {
        for key in ["whenDeleted", "whenScaled"] {
            retention.get(key).must_be_one_of(&["Retain", "Delete"], out);
        }
    }
    counts(spec, &["replicas", "minReadySeconds", "ordinals.start"], out);
    if stored.is_null() {
        // It never changes, so that an odd one stays.
        spec.get("serviceName").text_may(labels::is_dns1123_label, out);
    }
    selected_template(spec, stored, &STATEFUL_SET, out);
}

fn stateful_strategy(strategy: &Node<'_, '_>, out: &mut Faults) {
    let (kind, rolling) = (strategy.get("type"), strategy.get("rollingUpdate"));
    match kind.text() {
        "" => strategy.required("", out),
        "OnDelete" if rolling.is_set() => {
            rolling.invalid("only allowed for updateStrategy 'RollingUpdate'", out);
        }
        "OnDelete" => {}
        "RollingUpdate" => rolling.get("partition").not_negative(out),
        _ => strategy.invalid("must be 'RollingUpdate' or 'OnDelete'", out),
    }
}

const STATEFUL_MUTABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

pub(super) fn stateful_set_update(
    new: &Node<'_, '_>,
    old: &Node<'_, '_>,
    subresource: &str,
    out: &mut Faults,
) {
    if subresource == "status" {
        return stateful_status(new, old, out);
    }
    stateful_set_spec(&new.get("spec"), &old.value["spec"], out);
    let fixed = |object: &Node<'_, '_>| {
        let mut spec = object.get("spec").value.clone();
        if let Some(spec) = spec.as_object_mut() {
            spec.retain(|key, _| !STATEFUL_MUTABLE.contains(&key.as_str()));
        }
        spec
    };
    if !crate::strategy::same(&fixed(new), &fixed(old)) {
        let [first @ .., last] = STATEFUL_MUTABLE.map(|key| format!("'{key}'"));
        let detail = format!(
            "updates to statefulset spec for fields other than {} and {last} are forbidden",
            first.join(", ")
        );
        new.get("spec").forbidden(detail, out);
    }
}

fn stateful_status(new: &Node<'_, '_>, old: &Node<'_, '_>, out: &mut Faults) {
    let status = new.get("status");
    let keys = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
    counts(&status, &["replicas", "observedGeneration", "collisionCount"], out);
    counts(&status, &keys, out);
    at_most(&status, &keys, "replicas", "cannot be greater than status.replicas", out);
    at_most(
        &status,
        &["availableReplicas"],
        "readyReplicas",
        "cannot be greater than status.readyReplicas",
        out,
    );
    collisions(new, old, out);
}

pub(super) fn daemon_set(object: &Node<'_, '_>, out: &mut Faults) {
    daemon_spec(&object.get("spec"), &Value::Null, out);
}

fn daemon_spec(spec: &Node<'_, '_>, stored: &Value, out: &mut Faults) {
    let selector = spec.get("selector");
    selectors::labels_but_values(&selector, odd_selector(stored), out);
    template_matches(spec, out);
    if selector.is_set() && selectors::is_empty(&selector) {
        selector.invalid(format!("empty selector is invalid for {}", DAEMON_SET.empty), out);
    }
    long_running_template(&spec.get("template"), &stored["template"], DAEMON_SET.kind, out);
    counts(spec, &["minReadySeconds"], out);
    daemon_strategy(&spec.get("updateStrategy"), out);
    counts(spec, &["revisionHistoryLimit"], out);
}

fn daemon_strategy(strategy: &Node<'_, '_>, out: &mut Faults) {
    let rolling = strategy.get("rollingUpdate");
    match strategy.get("type").text() {
        "OnDelete" => {}
        "RollingUpdate" if !rolling.is_set() => rolling.required("", out),
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
            for value in [&unavailable, &surge] {
                count_or_percent(value, out);
                at_most_all(value, out);
            }
            match (number(unavailable.value), number(surge.value)) {
                (Some(0), Some(0)) => unavailable.required("cannot be 0 when maxSurge is 0", out),
                (Some(down), Some(more)) if down != 0 && more != 0 => {
                    surge.invalid_count("may not be set when maxUnavailable is non-zero", out);
                }
                _ => {}
            }
        }
        _ => strategy.unsupported_inside("DaemonSetUpdateStrategy", &["RollingUpdate", "OnDelete"], out),
    }
}

pub(super) fn daemon_set_update(new: &Node<'_, '_>, old: &Node<'_, '_>, subresource: &str, out: &mut Faults) {
    if subresource == "status" {
        let status = new.get("status");
        let keys = [
            "currentNumberScheduled",
            "numberMisscheduled",
            "desiredNumberScheduled",
            "numberReady",
            "observedGeneration",
            "updatedNumberScheduled",
            "numberAvailable",
            "numberUnavailable",
            "collisionCount",
        ];
        counts(&status, &keys, out);
        return collisions(new, old, out);
    }
    super::twice(|out| daemon_spec(&new.get("spec"), &old.value["spec"], out), out);
    let (selector, before) = (new.get("spec.selector"), old.get("spec.selector"));
    if !crate::strategy::same(selector.value, before.value) {
        selector.invalid(IMMUTABLE, out);
    }
}

pub(super) fn revision(object: &Node<'_, '_>, out: &mut Faults) {
    let data = object.get("data");
    if !data.is_set() {
        data.required("data is mandatory", out);
    } else if !data.value.is_object() {
        data.required("data must be a valid JSON object", out);
    }
    object.get("revision").not_negative(out);
}

/// Its data is not looked at again: it stays what it was.
pub(super) fn revision_update(new: &Node<'_, '_>, old: &Node<'_, '_>, _: &str, out: &mut Faults) {
    new.get("revision").not_negative(out);
    new.get("data").same_as(&old.get("data"), out);
}

pub(super) fn pod_template(object: &Node<'_, '_>, out: &mut Faults) {
    pod::template(&object.get("template"), &Value::Null, out);
}

pub(super) fn pod_template_update(new: &Node<'_, '_>, old: &Node<'_, '_>, _: &str, out: &mut Faults) {
    pod::template(&new.get("template"), &old.value["template"], out);
}
