//! Both ways, against what kube-apiserver v1.33 answers.

use super::*;

fn v2() -> Value {
    let metric = |name: &str, source: Value| json!({"type": "T", name: source});
    json!({"metadata": {"name": "h", "annotations": {"x": "1"}},
        "spec": {"maxReplicas": 5, "metrics": [
            metric("pods", json!({"metric": {"name": "pm", "selector": {"matchLabels": {"a": "b"}}},
                "target": {"type": "AverageValue", "averageValue": "10"}})),
            metric("resource", json!({"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}})),
            metric("object", json!({"metric": {"name": "om"}, "target": {"type": "Value", "value": "3"},
                "describedObject": {"kind": "Service", "name": "s", "apiVersion": "v1"}})),
            metric("external", json!({"metric": {"name": "em", "selector": {"matchExpressions":
                [{"key": "k", "operator": "In", "values": ["<1>"]}]}}, "target": {"type": "Value", "value": "7"}})),
            metric("containerResource", json!({"name": "cpu", "container": "c",
                "target": {"type": "Utilization", "averageUtilization": 60}})),
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}],
        "behavior": {"scaleUp": {"stabilizationWindowSeconds": 5, "selectPolicy": "Max",
            "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}]}}},
        "status": {"currentReplicas": 1, "desiredReplicas": 2,
            "conditions": [{"type": "AbleToScale", "status": "True", "reason": "R", "message": "m",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            "currentMetrics": [
                {"type": "Resource", "resource": {"name": "cpu",
                    "current": {"averageUtilization": 33, "averageValue": "100m"}}},
                {"type": "Object", "object": {"metric": {"name": "om"},
                    "describedObject": {"kind": "Service", "name": "s"},
                    "current": {"value": "3", "averageValue": "1"}}}]}})
}

#[test]
fn what_version_1_cannot_hold_travels_in_annotations() {
    let mut object = v2();
    to_v1(&mut object);
    assert_eq!(object["spec"], json!({"maxReplicas": 5, "targetCPUUtilizationPercentage": 50}));
    let status = json!({"currentReplicas": 1, "desiredReplicas": 2, "currentCPUUtilizationPercentage": 33});
    assert_eq!(object["status"], status);
    let annotations = &object["metadata"]["annotations"];
    for (name, text) in [
        ("x", "1"),
        (
            METRICS,
            r#"[{"type":"T","pods":{"metricName":"pm","targetAverageValue":"10","selector":{"matchLabels":{"a":"b"}}}},{"type":"T","resource":{"name":"memory","targetAverageValue":"1Gi"}},{"type":"T","object":{"target":{"kind":"Service","name":"s","apiVersion":"v1"},"metricName":"om","targetValue":"3"}},{"type":"T","external":{"metricName":"em","metricSelector":{"matchExpressions":[{"key":"k","operator":"In","values":["\u003c1\u003e"]}]},"targetValue":"7"}},{"type":"T","containerResource":{"name":"cpu","targetAverageUtilization":60,"container":"c"}}]"#,
        ),
        (
            BEHAVIOR,
            r#"{"ScaleUp":{"StabilizationWindowSeconds":5,"SelectPolicy":"Max","Policies":[{"Type":"Pods","Value":4,"PeriodSeconds":15}],"Tolerance":null},"ScaleDown":null}"#,
        ),
        (
            CURRENT,
            r#"[{"type":"Resource","resource":{"name":"cpu","currentAverageUtilization":33,"currentAverageValue":"100m"}},{"type":"Object","object":{"target":{"kind":"Service","name":"s"},"metricName":"om","currentValue":"3","averageValue":"1"}}]"#,
        ),
        (
            CONDITIONS,
            r#"[{"type":"AbleToScale","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z","reason":"R","message":"m"}]"#,
        ),
    ] {
        assert_eq!(annotations[name], text, "{name}");
    }
    assert_eq!(annotations.as_object().map(Map::len), Some(5));
    from_v1(&mut object);
    assert_eq!(object, v2());
}

#[test]
fn annotations_that_cannot_be_read_are_dropped() {
    let cpu = |percent: i64| {
        json!({"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": percent}}})
    };
    let pods = json!({"type": "Pods", "pods": {"metric": {"name": "x"},
        "target": {"type": "AverageValue", "averageValue": "10"}}});
    let about = r#"[{"type":"Pods","pods":{"metricName":"x","targetAverageValue":"10"}}]"#;
    for (annotations, percent, metrics) in [
        (json!({}), Value::Null, json!([cpu(80)])),
        (json!({}), json!(7), json!([cpu(7)])),
        (json!({METRICS: "junk"}), Value::Null, json!([cpu(80)])),
        (json!({METRICS: r#"{"a":1}"#}), json!(7), json!([cpu(7)])),
        (json!({METRICS: about}), Value::Null, json!([pods])),
        (json!({METRICS: about}), json!(7), json!([pods, cpu(7)])),
        (json!({BEHAVIOR: "{}", CONDITIONS: "1", CURRENT: "{}"}), json!(7), json!([cpu(7)])),
        (json!({BEHAVIOR: r#"{"ScaleUp":{"SelectPolicy":1}}"#}), json!(7), json!([cpu(7)])),
    ] {
        let mut object = json!({"metadata": {"annotations": annotations}, "spec": {}, "status": {"currentReplicas": 0, "desiredReplicas": 0}});
        if !percent.is_null() {
            object["spec"][TARGET] = percent;
        }
        from_v1(&mut object);
        let status = json!({"desiredReplicas": 0, "currentMetrics": null});
        let wanted = json!({"metadata": {}, "spec": {"metrics": metrics}, "status": status});
        assert_eq!(object, wanted, "{annotations}");
    }
}
