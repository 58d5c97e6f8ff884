//! What a Job plans next, and how it counts its pods.

use super::*;
use crate::plan::{Action, POD};
use crate::testing::{at, object, pod};
use serde_json::{Value, json};

const NOW: &str = "2026-01-01T01:00:00Z";

fn job(extra: &Value, status: &Value) -> Job {
    let mut spec =
        json!({ "template": { "spec": { "containers": [{ "name": "c" }], "restartPolicy": "Never" } } });
    for (key, value) in extra.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    object(
        json!({ "metadata": { "name": "j", "namespace": "ns", "uid": "j" }, "spec": spec, "status": status }),
    )
}

/// `name phase`, with the finalizer unless `freed`, and its index if any.
fn member(words: &str) -> Arc<Pod> {
    let words: Vec<_> = words.split(' ').collect();
    let finalizers = if words.contains(&"freed") { json!([]) } else { json!([pod::FINALIZER]) };
    let notes = words
        .iter()
        .find_map(|word| word.strip_prefix("index="))
        .map_or(json!({}), |index| json!({ pod::INDEX: index }));
    let terminated = json!([{ "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": { "terminated": { "exitCode": 1, "finishedAt": "2026-01-01T00:00:00Z" } } }]);
    Arc::new(pod(json!({
        "metadata": { "name": words[0], "namespace": "ns", "uid": words[0], "finalizers": finalizers, "annotations": notes },
        "status": { "phase": words[1], "containerStatuses": terminated },
    })))
}

/// What happens to pods, and what the status then says.
fn steps(job: &Job, pods: &[&str]) -> Vec<String> {
    let pods: Vec<_> = pods.iter().map(|words| member(words)).collect();
    let plan = reconcile(job, &pods, true, at(NOW));
    let words = plan.actions().filter_map(|action| match action {
        Action::Create { body, .. } => {
            Some(format!("+{}", body["metadata"]["annotations"][pod::INDEX].as_str().unwrap_or("")))
        }
        Action::Delete { key, .. } => Some(format!("-{}", key.name)),
        Action::Patch { resource, key, .. } if **resource == POD => Some(format!("free {}", key.name)),
        Action::Patch { patch, .. } => {
            let status = &patch["status"];
            let ends = status["conditions"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|condition| condition["type"].as_str().unwrap_or(""));
            let mut told: Vec<String> = ends.map(str::to_owned).collect();
            for field in ["succeeded", "failed", "completedIndexes"] {
                if !status[field].is_null() {
                    told.push(format!("{field}={}", status[field]).replace('"', ""));
                }
            }
            (!told.is_empty()).then(|| told.join(" "))
        }
        Action::Event { .. } | Action::Ensure { .. } => None,
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
fn a_pod_is_written_down_then_freed_then_counted() {
    let spec = json!({ "completions": 1, "parallelism": 1 });
    assert!(steps(&job(&spec, &json!({})), &["a Succeeded"]).is_empty());
    let written = json!({ "uncountedTerminatedPods": { "succeeded": ["a"] } });
    assert_eq!(steps(&job(&spec, &written), &["a Succeeded"]), ["free a"]);
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
    let told = |text| count::tell_indexes(&count::parse_indexes(text));
    assert_eq!((told("1,3-5,7"), told("0,1"), told("")), ("1,3-5,7".into(), "0,1".into(), String::new()));
}
