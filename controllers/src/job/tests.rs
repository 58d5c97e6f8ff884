//! What a Job plans next, and how it counts its pods.

use super::*;
use crate::plan::{Action, POD};
use crate::testing::{at, object, pod};
use serde_json::{Value, json};

const NOW: &str = "2026-01-01T01:00:00Z";

fn job(extra: &Value, status: &Value) -> Job {
    let mut spec = json!({ "selector": { "matchLabels": { "of": "j" } }, "template": { "spec": { "containers": [{ "name": "c" }], "restartPolicy": "Never" } } });
    for (key, value) in extra.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    object(
        json!({ "metadata": { "name": "j", "namespace": "ns", "uid": "j" }, "spec": spec, "status": status }),
    )
}

/// `name phase`, with the finalizer unless `freed`, and its index if any; owned by the Job unless `orphan`, selected unless
/// `stray`.
fn member(words: &str) -> Arc<Pod> {
    let words: Vec<_> = words.split(' ').collect();
    let finalizers = if words.contains(&"freed") { json!([]) } else { json!([pod::FINALIZER]) };
    let mut notes = json!({});
    for (prefix, annotation) in [("index=", pod::INDEX), ("failures=", index::FAILURES)] {
        if let Some(value) = words.iter().find_map(|word| word.strip_prefix(prefix)) {
            notes[annotation] = json!(value);
        }
    }
    let labels = if words.contains(&"stray") { json!({}) } else { json!({ "of": "j" }) };
    let owner =
        json!({ "apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "j", "controller": true });
    let owners = if words.contains(&"orphan") { json!([]) } else { json!([owner]) };
    let forced = words.contains(&"forced");
    let leaves = (forced || words.contains(&"leaving")).then_some("2026-01-01T00:30:00Z");
    let grace = if forced { Some(0) } else { leaves.map(|_| 30) };
    let terminated = json!([{ "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": { "terminated": { "exitCode": 1, "finishedAt": "2026-01-01T00:00:00Z" } } }]);
    Arc::new(pod(json!({
        "metadata": { "name": words[0], "namespace": "ns", "uid": words[0], "labels": labels, "ownerReferences": owners, "finalizers": finalizers, "annotations": notes, "deletionTimestamp": leaves, "deletionGracePeriodSeconds": grace },
        "status": { "phase": words[1], "containerStatuses": terminated },
    })))
}

/// What happens to pods, and what the status then says.
fn steps(job: &Job, pods: &[&str]) -> Vec<String> {
    let mut steps = in_order(job, pods);
    steps.sort_by_key(|step| !step.starts_with(['+', '-']));
    steps
}

fn in_order(job: &Job, pods: &[&str]) -> Vec<String> {
    let pods: Vec<_> = pods.iter().map(|words| member(words)).collect();
    let plan = reconcile(job, pods, true, at(NOW));
    let words = plan.actions().filter_map(|action| match action {
        Action::Create { body, .. } => {
            let notes = &body["metadata"]["annotations"];
            let failures = notes[index::FAILURES].as_str().filter(|count| *count != "0");
            let failures = failures.map(|count| format!(" after {count}")).unwrap_or_default();
            Some(format!("+{}{failures}", notes[pod::INDEX].as_str().unwrap_or("")))
        }
        Action::Delete { key, .. } => Some(format!("-{}", key.name)),
        Action::Patch { resource, key, patch, .. } if **resource == POD => {
            let meta = &patch["metadata"];
            let verb = match meta["ownerReferences"].as_array() {
                None => "free",
                Some(owners) if owners.is_empty() => "release",
                Some(_) => "adopt",
            };
            let kept = meta["finalizers"].as_array().is_some_and(|all| all.contains(&json!(pod::FINALIZER)));
            Some(format!("{verb}{} {}", if kept { " and keep" } else { "" }, key.name))
        }
        Action::Patch { patch, .. } => {
            let status = &patch["status"];
            let ends = status["conditions"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|condition| condition["type"].as_str().unwrap_or(""));
            let mut told: Vec<String> = ends.map(str::to_owned).collect();
            for field in ["succeeded", "failed", "completedIndexes", "failedIndexes"] {
                if !status[field].is_null() {
                    told.push(format!("{field}={}", status[field]).replace('"', ""));
                }
            }
            (!told.is_empty()).then(|| told.join(" "))
        }
        Action::Event { .. } | Action::Ensure { .. } | Action::Apply { .. } => None,
    });
    words.collect()
}

#[test]
fn as_many_run_as_may() {
    assert_eq!(steps(&job(&json!({ "completions": 5, "parallelism": 2 }), &json!({})), &[]), ["+", "+"]);
    assert_eq!(
        steps(&job(&json!({ "completions": 5, "parallelism": 2 }), &json!({ "succeeded": 4 })), &[]),
        ["+"]
    );
}

#[test]
fn selected_orphans_are_adopted_and_kept_until_counted_and_strays_are_let_go() {
    let two = job(&json!({ "completions": 4, "parallelism": 2 }), &json!({}));
    let pods = ["a Running", "b Running orphan freed", "c Running stray", "d Running stray orphan"];
    assert_eq!(in_order(&two, &pods), ["adopt and keep b", "release c"]);
    let done = json!({ "conditions": [{ "type": "Complete", "status": "True", "lastTransitionTime": NOW }] });
    assert_eq!(in_order(&job(&json!({}), &done), &["a Succeeded", "b Succeeded orphan"]), ["free a"]);
}

#[test]
fn a_pod_is_written_down_then_freed_then_counted() {
    let spec = json!({ "completions": 1, "parallelism": 1 });
    assert_eq!(steps(&job(&spec, &json!({})), &["a Succeeded"]), ["SuccessCriteriaMet"]);
    let written = json!({ "uncountedTerminatedPods": { "succeeded": ["a"] } });
    assert_eq!(steps(&job(&spec, &written), &["a Succeeded"]), ["free a", "SuccessCriteriaMet"]);
    assert_eq!(
        steps(&job(&spec, &written), &["a Succeeded freed"]),
        ["SuccessCriteriaMet Complete succeeded=1"]
    );
    assert_eq!(steps(&job(&spec, &written), &[]), ["SuccessCriteriaMet Complete succeeded=1"]);
}

#[test]
fn too_many_failures_end_it() {
    let spec = json!({ "completions": 1, "parallelism": 1, "backoffLimit": 1 });
    assert_eq!(steps(&job(&spec, &json!({ "failed": 1 })), &[]), ["+"]);
    assert_eq!(steps(&job(&spec, &json!({ "failed": 2 })), &[]), ["FailureTarget Failed"]);
}

#[test]
fn a_deadline_ends_it() {
    let started = json!({ "startTime": "2026-01-01T00:00:00Z" });
    let overdue = job(&json!({ "activeDeadlineSeconds": 60, "completions": 1 }), &started);
    assert_eq!(steps(&overdue, &["a Running"]), ["-a", "FailureTarget"]);
    assert_eq!(steps(&overdue, &[]), ["FailureTarget Failed"]);
}

#[test]
fn indexes_are_filled_from_the_lowest() {
    let spec = json!({ "completions": 4, "parallelism": 2, "completionMode": "Indexed" });
    let told = steps(
        &job(&spec, &json!({ "completedIndexes": "0" })),
        &["a Running index=1", "b Succeeded index=2"],
    );
    assert_eq!(told, ["+3", "succeeded=2 completedIndexes=0,2"]);
}

#[test]
fn a_suspended_job_has_no_pods() {
    assert_eq!(steps(&job(&json!({ "suspend": true }), &json!({})), &["a Running"]), ["-a", "Suspended"]);
}

#[test]
fn indexes_are_told_in_runs() {
    let told = |text| index::tell_indexes(&index::parse_indexes(text));
    assert_eq!((told("1,3-5,7"), told("0,1"), told("")), ("1,3-5,7".into(), "0,1".into(), String::new()));
}

#[test]
fn an_index_has_a_limit_of_its_own() {
    let spec = json!({ "completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 1, "backoffLimit": 99 });
    let none = json!({ "failedIndexes": "" });
    // The failed pod stays uncounted until the next one of its index exists.
    assert_eq!(steps(&job(&spec, &none), &["a Failed index=0", "b Running index=1"]), ["+0 after 1"]);
    let retried = ["a Failed index=0", "c Running index=0 failures=1", "b Running index=1"];
    assert!(steps(&job(&spec, &none), &retried).is_empty(), "written down, not counted yet");
    let failed_again = ["c Failed index=0 failures=1", "b Running index=1"];
    assert_eq!(steps(&job(&spec, &none), &failed_again), ["failedIndexes=0"]);
    let rest_done = json!({ "failedIndexes": "0", "completedIndexes": "1", "failed": 2 });
    assert_eq!(steps(&job(&spec, &rest_done), &[]), ["FailureTarget Failed succeeded=1"]);
}

#[test]
fn too_many_failed_indexes_end_it() {
    let spec = json!({ "completions": 9, "completionMode": "Indexed", "backoffLimitPerIndex": 0, "maxFailedIndexes": 1, "backoffLimit": 99 });
    let status = json!({ "failedIndexes": "0,1", "failed": 2 });
    assert_eq!(steps(&job(&spec, &status), &["x Running index=3"]), ["-x", "FailureTarget"]);
}

#[test]
fn a_success_policy_ends_it_early() {
    let spec = json!({ "completions": 3, "parallelism": 3, "completionMode": "Indexed", "successPolicy": { "rules": [{ "succeededIndexes": "0,2", "succeededCount": 1 }] } });
    let status = json!({ "completedIndexes": "1", "succeeded": 1 });
    assert_eq!(
        steps(&job(&spec, &status), &["a Running index=0", "c Running index=2"]),
        Vec::<String>::new()
    );
    let status = json!({ "completedIndexes": "0", "succeeded": 1 });
    assert_eq!(steps(&job(&spec, &status), &["b Running index=1"]), ["-b", "SuccessCriteriaMet"]);
    assert_eq!(steps(&job(&spec, &status), &[]), ["SuccessCriteriaMet Complete"]);
}

#[test]
fn a_pod_that_leaves_is_replaced_at_once_or_when_it_ended() {
    let spec = |policy: &str| json!({ "completions": 1, "parallelism": 1, "backoffLimit": 9, "podReplacementPolicy": policy });
    let leaving = ["a Running leaving freed"];
    assert_eq!(steps(&job(&spec("TerminatingOrFailed"), &json!({})), &leaving), ["+"]);
    assert!(steps(&job(&spec("Failed"), &json!({})), &leaving).is_empty());
    assert_eq!(steps(&job(&spec("Failed"), &json!({ "failed": 1 })), &["a Failed leaving freed"]), ["+"]);
}

#[test]
fn the_end_waits_for_pods_that_leave() {
    let spec = json!({ "completions": 1, "parallelism": 1, "backoffLimit": 0 });
    assert_eq!(steps(&job(&spec, &json!({ "failed": 1 })), &["a Running leaving freed"]), ["FailureTarget"]);
}

#[test]
fn a_job_of_another_controller_is_left_alone() {
    assert!(steps(&job(&json!({ "managedBy": "example.com/other" }), &json!({})), &[]).is_empty());
}

#[test]
fn a_pod_removed_by_force_is_not_waited_for() {
    let spec = json!({ "completions": 1, "podReplacementPolicy": "Failed", "backoffLimit": 9 });
    let written = json!({ "uncountedTerminatedPods": { "failed": ["a"] } });
    assert_eq!(steps(&job(&spec, &written), &["a Pending forced"]), ["+", "free a"]);
}

#[test]
fn counting_comes_before_pods_that_may_be_refused() {
    let written = json!({ "uncountedTerminatedPods": { "failed": ["a"] } });
    let job = job(&json!({ "parallelism": 1, "backoffLimit": 9 }), &written);
    assert_eq!(in_order(&job, &["a Failed", "b Failed freed"]), ["free a", "+"]);
}
