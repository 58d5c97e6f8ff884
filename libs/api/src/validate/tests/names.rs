//! Names, and what objects are labelled and annotated with.

use super::refuses;
use crate::labels;
use serde_json::{Value, json};

#[test]
fn names_are_judged_as_each_kind_has_them() {
    let fault = |name: &str, why: &str| vec![format!("metadata.name: Invalid value: {name:?}: {why}")];
    let percent = "may not contain '%'";
    let subdomain = labels::is_dns1123_subdomain("A b").remove(0);
    let rows = [
        (
            "APIService",
            json!({"group": "a.io", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1}),
            "a%b",
            fault("a%b", percent),
        ),
        (
            "IPAddress",
            json!({"parentRef": {"resource": "services", "name": "x"}}),
            "a%b",
            fault("a%b", "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
        ),
        (
            "PersistentVolume",
            json!({"capacity": {"storage": "1"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/"}}),
            "A b",
            fault("A b", &subdomain),
        ),
    ];
    for (name, spec, given, want) in rows {
        let want: Vec<&str> = want.iter().map(String::as_str).collect();
        refuses(name, json!({"metadata": {"name": given}, "spec": spec}), &want);
    }
    let event = json!({"apiVersion": "events.k8s.io/v1", "type": "Normal", "eventTime": "2024-01-01T00:00:00.000000Z",
        "reportingController": "a.b/c", "reportingInstance": "i", "action": "a", "reason": "r",
        "metadata": {"name": "A b", "namespace": "ns"}, "regarding": {"kind": "Pod", "namespace": "ns"}});
    let modern = crate::kinds::by_gvk("events.k8s.io/v1", "Event").expect("events");
    let told: Vec<String> =
        super::super::create(&event, modern, super::ALL).iter().map(ToString::to_string).collect();
    assert_eq!(told, fault("A b", &subdomain));
}

#[test]
fn volumes_without_mounts_have_no_options_for_them() {
    let volume = |source: Value| {
        let mut volume = json!({"metadata": {"name": "v", "annotations": {"volume.beta.kubernetes.io/mount-options": "ro"}},
            "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]}});
        for (key, value) in source.as_object().into_iter().flatten() {
            volume["spec"][key] = value.clone();
        }
        volume
    };
    refuses("PersistentVolume", volume(json!({"nfs": {"server": "a", "path": "/b"}})), &[]);
    refuses(
        "PersistentVolume",
        volume(json!({"hostPath": {"path": "/b"}})),
        &[
            "metadata.annotations.volume.beta.kubernetes.io/mount-options: Forbidden: may not specify mount options for this volume type",
        ],
    );
}

#[test]
fn what_jobs_are_labelled_with_is_judged_once() {
    let long = "a".repeat(64);
    let job = json!({"metadata": {"name": long, "uid": "u"}, "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
    let fault =
        format!(r#"spec.template.labels: Invalid value: "{long}": must be no more than 63 characters"#);
    refuses("Job", job, &[&fault, &fault]);
}
