//! Cells of objects as Kubernetes prints them.

use super::{cells, columns, human_duration};
use crate::shape::tests::kind;
use serde_json::{Value, json};

fn row(api_version: &str, name: &str, object: &Value) -> Vec<Value> {
    cells(&kind(api_version, name, ""), object, "2026-01-01T01:00:00Z".parse().unwrap())
}

#[test]
fn durations() {
    let rows = [
        (-5, "<invalid>"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (150, "2m30s"),
        (600, "10m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 60, "3h1m"),
        (8 * 3600, "8h"),
        (48 * 3600, "2d"),
        (49 * 3600, "2d1h"),
        (8 * 86400, "8d"),
        (729 * 86400, "729d"),
        (730 * 86400, "2y"),
        (731 * 86400, "2y1d"),
        (9 * 365 * 86400, "9y"),
    ];
    for (seconds, want) in rows {
        assert_eq!(human_duration(seconds), want);
    }
}

#[test]
fn pods() {
    let pod = |spec: Value, status: Value| {
        let cells = row(
            "v1",
            "Pod",
            &json!({"metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec, "status": status}),
        );
        (cells[1].clone(), cells[2].clone(), cells[3].clone())
    };
    let one = || json!({"containers": [{"name": "a"}]});
    let with = |container: Value| json!({"phase": "Running", "containerStatuses": [container]});
    let rows = [
        (one(), json!({"phase": "Pending"}), ("0/1", "Pending", "0")),
        (
            one(),
            with(json!({"ready": true, "restartCount": 0, "state": {"running": {}}})),
            ("1/1", "Running", "0"),
        ),
        (
            one(),
            with(
                json!({"restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"finishedAt": "2026-01-01T00:59:00Z"}}}),
            ),
            ("0/1", "CrashLoopBackOff", "3 (60s ago)"),
        ),
        (
            one(),
            with(json!({"restartCount": 0, "state": {"terminated": {"exitCode": 137, "signal": 9}}})),
            ("0/1", "Signal:9", "0"),
        ),
        (
            json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]}),
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "restartCount": 0, "state": {"running": {}}}]}),
            ("0/1", "Init:0/1", "0"),
        ),
        (
            json!({"containers": [{"name": "a"}], "initContainers": [{"name": "s", "restartPolicy": "Always"}]}),
            json!({"phase": "Running", "initContainerStatuses": [{"name": "s", "started": true, "ready": true, "restartCount": 1, "state": {"running": {}}}],
                "containerStatuses": [{"ready": true, "restartCount": 1, "state": {"running": {}}}]}),
            ("2/2", "Running", "2"),
        ),
    ];
    for (spec, status, (ready, word, restarts)) in rows {
        assert_eq!(pod(spec, status), (ready.into(), word.into(), restarts.into()));
    }
}

#[test]
fn other_kinds() {
    let meta = || json!({"name": "x", "creationTimestamp": "2026-01-01T00:00:00Z"});
    let rows = [
        (
            "v1",
            "Service",
            json!({"metadata": meta(), "spec": {"type": "NodePort", "clusterIPs": ["10.0.0.1"], "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}], "selector": {"a": "b"}}}),
            json!(["x", "NodePort", "10.0.0.1", "<none>", "80:30080/TCP", "60m", "a=b"]),
        ),
        (
            "apps/v1",
            "Deployment",
            json!({"metadata": meta(), "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}, "status": {"readyReplicas": 1}}),
            json!(["x", "1/2", 0, 0, "60m", "c", "i", "a=b"]),
        ),
        (
            "v1",
            "ConfigMap",
            json!({"metadata": meta(), "data": {"a": "1"}, "binaryData": {"b": ""}}),
            json!(["x", 2, "60m"]),
        ),
        (
            "rbac.authorization.k8s.io/v1",
            "ClusterRoleBinding",
            json!({"metadata": meta(), "roleRef": {"kind": "ClusterRole", "name": "r"}, "subjects": [{"kind": "Group", "name": "g"}, {"kind": "ServiceAccount", "name": "s", "namespace": "n"}]}),
            json!(["x", "ClusterRole/r", "60m", "", "g", "n/s"]),
        ),
        (
            "rbac.authorization.k8s.io/v1",
            "ClusterRole",
            json!({"metadata": meta()}),
            json!(["x", "2026-01-01T00:00:00Z"]),
        ),
        (
            "scheduling.k8s.io/v1",
            "PriorityClass",
            json!({"metadata": meta(), "value": 7, "preemptionPolicy": "Never"}),
            json!(["x", 7, false, "60m", "Never"]),
        ),
        (
            "batch/v1",
            "Job",
            json!({"metadata": meta(), "spec": {"completions": 3}, "status": {"succeeded": 1, "startTime": "2026-01-01T00:59:00Z"}}),
            json!(["x", "Running", "1/3", "60s", "60m", "", "", "<none>"]),
        ),
        (
            "v1",
            "Node",
            json!({"metadata": {"name": "x", "labels": {"node-role.kubernetes.io/a": ""}}, "spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
            json!([
                "x",
                "Ready,SchedulingDisabled",
                "a",
                "<unknown>",
                "",
                "<none>",
                "<none>",
                "<unknown>",
                "<unknown>",
                "<unknown>"
            ]),
        ),
    ];
    for (version, name, object, want) in rows {
        assert_eq!(Value::from(row(version, name, &object)), want, "{name}");
    }
}

#[test]
fn a_selector_of_parameters_is_shown_as_go_shows_it() {
    let selector = json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "In", "values": ["d", "e"]}]});
    let binding =
        json!({"metadata": {"name": "x"}, "spec": {"policyName": "p", "paramRef": {"selector": selector}}});
    assert_eq!(
        row("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding", &binding)[2],
        "&LabelSelector{MatchLabels:map[string]string{a: b,},MatchExpressions:[]LabelSelectorRequirement{LabelSelectorRequirement{Key:c,Operator:In,Values:[d e],},},}"
    );
}

#[test]
fn headers() {
    let nodes = columns(&kind("v1", "Node", ""));
    assert_eq!(
        nodes[5],
        json!({"name": "Internal-IP", "type": "string", "format": "", "description": "List of addresses reachable to the node. Queried from cloud provider, if available. More info: https://kubernetes.io/docs/reference/node/node-status/#addresses Note: This field is declared as mergeable, but the merge key is not sufficiently unique, which can cause data corruption when it is merged. Callers should instead use a full-replacement patch. See https://pr.k8s.io/79391 for an example. Consumers should assume that addresses can change during the lifetime of a Node. However, there are some exceptions where this may not be possible, such as Pods that inherit a Node's address in its own status or consumers of the downward API (status.hostIP).", "priority": 1})
    );
    let mut custom = kind("a.b/v1", "Thing", "");
    let version = |value: Value| Some(std::sync::Arc::new(crate::custom::Version::new(value)));
    custom.custom = version(json!({}));
    let age = &columns(&custom)[1];
    assert_eq!(age["name"], "Age");
    assert!(
        age["description"].as_str().is_some_and(|told| told.starts_with("CreationTimestamp is")),
        "{age}"
    );
    custom.custom =
        version(json!({"additionalPrinterColumns": [{"name": "N", "type": "string", "jsonPath": ".n"}]}));
    assert_eq!(
        columns(&custom)[1]["description"],
        "Custom resource definition column (in JSONPath format): .n"
    );
}
