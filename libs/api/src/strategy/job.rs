//! Jobs: the selector and labels that tie pods to their Job.

use super::put;
use crate::meta;
use serde_json::{Value, json};

/// Unless the user manages the selector, pods are selected by the Job's uid; the legacy labels go along.
pub(super) fn prepare_create(job: &mut Value) {
    let (name, uid) = (meta::name(job).to_owned(), meta::uid(job).to_owned());
    if job["spec"]["manualSelector"] == true {
        return;
    }
    let labels = &mut job["spec"]["template"]["metadata"]["labels"];
    let mine = [
        ("controller-uid", &uid),
        ("job-name", &name),
        ("batch.kubernetes.io/controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
    ];
    for (key, value) in mine {
        // A label the user set to something else stays, for validation to refuse.
        if labels.get(key).is_none_or(Value::is_null) {
            put(labels, key, Some(json!(value)));
        }
    }
    let selector = &mut job["spec"]["selector"]["matchLabels"];
    // One of another Job stays, for validation to refuse.
    if selector.get("batch.kubernetes.io/controller-uid").is_none_or(Value::is_null) {
        put(selector, "batch.kubernetes.io/controller-uid", Some(json!(uid)));
    }
}
