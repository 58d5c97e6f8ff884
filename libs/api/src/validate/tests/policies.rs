//! What bounds others: autoscalers, disruption budgets, quotas, limits.

use super::*;

#[test]
fn autoscalers_name_the_field_at_fault() {
    let scaler = json!({"spec": {
        "scaleTargetRef": {"kind": "", "name": "a/b"},
        "minReplicas": 0,
        "maxReplicas": 0,
        "metrics": [
            {"type": "Resource"},
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization"}}},
            {"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "Value", "value": "-1"}}},
        ],
        "behavior": {"scaleUp": {"stabilizationWindowSeconds": 3601, "policies": []}}}});
    refuses(
        "HorizontalPodAutoscaler",
        scaler,
        &[
            "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1",
            "spec.maxReplicas: Invalid value: 0: must be greater than 0",
            "spec.scaleTargetRef.kind: Required value",
            r#"spec.scaleTargetRef.name: Invalid value: "a/b": may not contain '/'"#,
            "spec.metrics[0].resource: Required value: must populate information for the given metric source",
            "spec.metrics[1].resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization",
            r#"spec.metrics[2].pods.target.value: Invalid value: "-1": must be positive"#,
            "spec.metrics[2].pods.target.averageValue: Required value: must specify a positive target averageValue",
            "spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas",
            "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
            "spec.behavior.scaleUp.policies: Required value: must specify at least one Policy",
        ],
    );
}

#[test]
fn budgets_name_the_field_at_fault() {
    let budget = |fields: Value| json!({"spec": fields});
    refuses(
        "PodDisruptionBudget",
        budget(json!({"minAvailable": "101%", "unhealthyPodEvictionPolicy": ""})),
        &[
            r#"spec.minAvailable: Invalid value: intstr.IntOrString{Type:1, IntVal:0, StrVal:"101%"}: must not be greater than 100%"#,
            r#"spec.unhealthyPodEvictionPolicy: Unsupported value: "": supported values: "AlwaysAllow", "IfHealthyBudget""#,
        ],
    );
    let odd = json!({"minAvailable": 1, "selector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["%"]}]}});
    let fine = json!({"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}});
    let told = r#"spec.selector.matchExpressions[0].values[0]: Invalid value: "%": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"#;
    refuses("PodDisruptionBudget", budget(odd.clone()), &[told]);
    refuses_change("PodDisruptionBudget", budget(fine), budget(odd.clone()), &[told]);
    refuses_change("PodDisruptionBudget", budget(odd.clone()), budget(odd), &[]);
    let status = |fields: Value| json!({"spec": {"minAvailable": 1}, "status": fields});
    refuses_write(
        "PodDisruptionBudget",
        "status",
        status(json!({})),
        status(json!({"disruptionsAllowed": -1, "conditions": [{"type": "", "status": "x"}]})),
        &[
            r#"status.conditions[0].type: Invalid value: "": name part must be non-empty"#,
            r#"status.conditions[0].type: Invalid value: "": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"#,
            r#"status.conditions[0].status: Unsupported value: "x": supported values: "False", "True", "Unknown""#,
            "status.conditions[0].lastTransitionTime: Required value: must be set",
            "status.conditions[0].reason: Required value: must be set",
            "status.disruptionsAllowed: Invalid value: -1: must be greater than or equal to 0",
        ],
    );
}

#[test]
fn quotas_and_limits_name_the_field_at_fault() {
    refuses(
        "ResourceQuota",
        json!({"spec": {"hard": {"x": "1", "pods": "1500m", "services": "1"}, "scopes": ["BestEffort", "NotBestEffort", "y"]}}),
        &[
            r#"spec.hard[pods]: Invalid value: "1500m": must be an integer"#,
            r#"spec.hard[x]: Invalid value: x: must be a standard resource type or fully qualified"#,
            r#"spec.hard[x]: Invalid value: x: must be a standard resource for quota"#,
            r#"spec.scopes: Invalid value: ["BestEffort","NotBestEffort","y"]: unsupported scope applied to resource"#,
            r#"spec.scopes: Invalid value: ["BestEffort","NotBestEffort","y"]: unsupported scope applied to resource"#,
            r#"spec.scopes: Invalid value: ["BestEffort","NotBestEffort","y"]: unsupported scope"#,
            r#"spec.scopes: Invalid value: ["BestEffort","NotBestEffort","y"]: conflicting scopes"#,
        ],
    );
    refuses(
        "ResourceQuota",
        json!({"spec": {"scopeSelector": {"matchExpressions": [
            {"scopeName": "Terminating", "operator": "In", "values": ["a"]},
            {"scopeName": "PriorityClass", "operator": "In"},
            {"scopeName": "PriorityClass", "operator": "Exists", "values": ["a"]}]}}}),
        &[
            r#"spec.scopeSelector.matchExpressions.operator: Invalid value: "In": must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"#,
            "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            r#"spec.scopeSelector.matchExpressions.values: Invalid value: ["a"]: must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"#,
        ],
    );
    refuses(
        "LimitRange",
        json!({"spec": {"limits": [
            {"type": "Pod", "default": {"cpu": "1"}, "max": {"cpu": "1"}, "min": {"cpu": "2"}},
            {"type": "Pod", "maxLimitRequestRatio": {"memory": "500m"}},
            {"type": "PersistentVolumeClaim"},
            {"type": "Container", "default": {"a.b/c": "1"}, "defaultRequest": {"a.b/c": "2"}}]}}),
        &[
            "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
            r#"spec.limits[0].min[cpu]: Invalid value: "2": min value 2 is greater than max value 1"#,
            r#"spec.limits[1].type: Duplicate value: "Pod""#,
            r#"spec.limits[1].maxLimitRequestRatio[memory]: Invalid value: "500m": ratio 500m is less than 1"#,
            "spec.limits[2].limits: Required value: either minimum or maximum storage value is required, but neither was provided",
            r#"spec.limits[3].defaultRequest[a.b/c]: Invalid value: "2": default request value 2 is greater than default limit value 1"#,
            r#"spec.limits[3].defaultRequest[a.b/c]: Invalid value: "2": default value 1 must equal to defaultRequest value 2 in a.b/c"#,
        ],
    );
}

#[test]
fn faults_of_some_kinds_are_told_twice_of_an_update() {
    let labels = json!({"a": "b"});
    let workload = |restart: &str| {
        let mut template = template(&labels);
        template["spec"]["restartPolicy"] = json!(restart);
        json!({"spec": {"selector": {"matchLabels": labels}, "template": template}})
    };
    let role = |verbs: Value| json!({"rules": [{"verbs": verbs, "apiGroups": [""], "resources": ["pods"]}]});
    let policy = |kind: &str| json!({"spec": {"podSelector": {}, "policyTypes": [kind]}});
    let wrong_start =
        [r#"spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always""#; 2];
    refuses_change("ReplicaSet", workload("Always"), workload("Never"), &wrong_start);
    refuses_change("DaemonSet", workload("Always"), workload("Never"), &wrong_start);
    refuses_change("Deployment", workload("Always"), workload("Never"), &wrong_start[..1]);
    let no_verbs = ["rules[0].verbs: Required value: verbs must contain at least one value"; 2];
    refuses_change("ClusterRole", role(json!(["get"])), role(json!([])), &no_verbs);
    let odd_type =
        [r#"spec.policyTypes[0]: Unsupported value: "x": supported values: "Ingress", "Egress""#; 2];
    refuses_change("NetworkPolicy", policy("Ingress"), policy("x"), &odd_type);
}
