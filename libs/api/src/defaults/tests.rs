//! Objects before and after defaulting.

use super::table;
use serde_json::{Value, json};

#[track_caller]
fn becomes(kind: &str, mut object: Value, want: &[(&str, Value)]) {
    table::apply(&mut object, kind);
    for (pointer, value) in want {
        assert_eq!(object.pointer(pointer).unwrap_or(&Value::Null), value, "{pointer} of {object}");
    }
    let mut again = object.clone();
    table::apply(&mut again, kind);
    assert_eq!(again, object, "applying twice changes nothing");
}

#[test]
fn pods_get_what_a_bare_container_lacks() {
    let pod = json!({"spec": {"hostNetwork": true, "containers": [{"name": "c", "image": "nginx",
        "resources": {"limits": {"cpu": "1"}}, "ports": [{"containerPort": 80}], "livenessProbe": {"httpGet": {"port": 80}}}],
        "volumes": [{"name": "v"}, {"name": "s", "secret": {"secretName": "s"}}]}});
    becomes(
        "Pod",
        pod,
        &[
            ("/spec/restartPolicy", json!("Always")),
            ("/spec/dnsPolicy", json!("ClusterFirst")),
            ("/spec/enableServiceLinks", json!(true)),
            ("/spec/securityContext", json!({})),
            ("/spec/containers/0/imagePullPolicy", json!("Always")),
            ("/spec/containers/0/resources/requests/cpu", json!("1")),
            ("/spec/containers/0/ports/0/protocol", json!("TCP")),
            ("/spec/containers/0/ports/0/hostPort", json!(80)),
            ("/spec/containers/0/livenessProbe/periodSeconds", json!(10)),
            ("/spec/containers/0/livenessProbe/httpGet/scheme", json!("HTTP")),
            ("/spec/volumes/0/emptyDir", json!({})),
            ("/spec/volumes/1/emptyDir", Value::Null),
            ("/spec/volumes/1/secret/defaultMode", json!(420)),
        ],
    );
}

#[test]
fn an_image_is_pulled_again_only_when_its_name_may_move() {
    for (image, policy) in [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("host:5000/nginx", "Always"),
        ("nginx:1", "IfNotPresent"),
        ("nginx@sha256:0123", "IfNotPresent"),
        ("host:5000/nginx:1", "IfNotPresent"),
        // These are no references.
        ("Nginx", "IfNotPresent"),
        ("-nginx", "IfNotPresent"),
        ("a..b", "IfNotPresent"),
    ] {
        let container = json!({"image": image});
        becomes("Container", container, &[("/imagePullPolicy", json!(policy))]);
    }
}

#[test]
fn workloads_get_their_rows() {
    becomes(
        "Deployment",
        json!({"spec": {"strategy": {}}}),
        &[
            ("/spec/replicas", json!(1)),
            (
                "/spec/strategy",
                json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}),
            ),
        ],
    );
    becomes(
        "Deployment",
        json!({"spec": {"strategy": {"type": "Recreate"}, "replicas": 0}}),
        &[("/spec/replicas", json!(0)), ("/spec/strategy", json!({"type": "Recreate"}))],
    );
    becomes(
        "Job",
        json!({"spec": {"template": {"spec": {}}}}),
        &[
            ("/spec/completions", json!(1)),
            ("/spec/backoffLimit", json!(6)),
            ("/spec/podReplacementPolicy", json!("TerminatingOrFailed")),
        ],
    );
    becomes("Job", json!({"spec": {"parallelism": 2}}), &[("/spec/completions", Value::Null)]);
    becomes(
        "StatefulSet",
        json!({"spec": {"updateStrategy": {}}}),
        &[("/spec/updateStrategy", json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}))],
    );
    becomes(
        "HorizontalPodAutoscaler",
        json!({"apiVersion": "autoscaling/v2", "spec": {}}),
        &[("/spec/metrics/0/resource/target/averageUtilization", json!(80))],
    );
    becomes(
        "HorizontalPodAutoscaler",
        json!({"apiVersion": "autoscaling/v1", "spec": {}}),
        &[("/spec/minReplicas", json!(1)), ("/spec/targetCPUUtilizationPercentage", Value::Null)],
    );
}

#[test]
fn other_kinds_get_their_rows() {
    becomes(
        "Service",
        json!({"spec": {"ports": [{"port": 80, "targetPort": 0}]}}),
        &[
            ("/spec/type", json!("ClusterIP")),
            ("/spec/ports/0", json!({"port": 80, "targetPort": 80, "protocol": "TCP"})),
            ("/spec/internalTrafficPolicy", json!("Cluster")),
            ("/spec/externalTrafficPolicy", Value::Null),
        ],
    );
    becomes(
        "Secret",
        json!({"stringData": {"a": "b"}}),
        &[("/data/a", json!("Yg==")), ("/type", json!("Opaque")), ("/stringData", Value::Null)],
    );
    becomes(
        "Namespace",
        json!({"metadata": {"name": "n"}, "status": {}}),
        &[
            ("/metadata/labels", json!({"kubernetes.io/metadata.name": "n"})),
            ("/status/phase", json!("Active")),
        ],
    );
    becomes(
        "LimitRange",
        json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}}]}}),
        &[("/spec/limits/0/default/cpu", json!("2")), ("/spec/limits/0/defaultRequest/cpu", json!("2"))],
    );
    becomes(
        "NetworkPolicy",
        json!({"spec": {"egress": [{}]}}),
        &[("/spec/policyTypes", json!(["Ingress", "Egress"]))],
    );
}
