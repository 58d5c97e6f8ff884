//! Nodes, namespaces, classes, secrets, events, and the shares of requests.

use super::*;

#[test]
fn nodes_tell_taints_under_metadata_and_resources_after_dots() {
    let taint = json!({"key": "a", "effect": "NoSchedule"});
    let new = json!({
        "metadata": {"name": "n", "annotations": {
            "scheduler.alpha.kubernetes.io/taints": "[",
            "scheduler.alpha.kubernetes.io/preferAvoidPods": "{\"preferAvoidPods\": [{}, {\"podSignature\": {\"podController\": {\"kind\": \"k\"}}}]}"}},
        "spec": {"taints": [taint, taint], "podCIDRs": ["10.0.0.0/24", "10.0.1.0/24"]},
        "status": {"capacity": {"x": "-1"}, "addresses": [{"type": "InternalIP", "address": "::1"}, {"type": "InternalIP", "address": "::1"}]},
    });
    let duplicate = r#"metadata.taints[1]: Duplicate value: {"Key":"a","Value":"","Effect":"NoSchedule","TimeAdded":null}: taints must be unique by key and effect pair"#;
    let families = r#"spec.podCIDRs: Invalid value: ["10.0.0.0/24","10.0.1.0/24"]: may specify no more than one CIDR for each IP family"#;
    let notes = [
        r#"metadata.annotations: Invalid value: "scheduler.alpha.kubernetes.io/taints": unexpected end of JSON input"#,
        "metadata.annotations.scheduler.alpha.kubernetes.io/preferAvoidPods[0].PodSignature: Required value",
        r#"metadata.annotations.scheduler.alpha.kubernetes.io/preferAvoidPods[1].PodSignature.PodController.Controller: Invalid value: "null": must point to a controller"#,
    ];
    let amounts = ["capacity", "allocatable"]
        .map(|list| format!(r#"status.{list}.x: Invalid value: "-1": must be greater than or equal to 0"#));
    let amounts = amounts.each_ref().map(String::as_str);
    let mut want = notes.to_vec();
    want.extend([duplicate, amounts[0], amounts[1], families]);
    refuses("Node", new.clone(), &want);
    let mut new = new;
    new["status"]["allocatable"] = json!({"x": "-1"});
    let mut want = notes.to_vec();
    want.extend(amounts);
    want.extend([
        r#"status.addresses[1]: Duplicate value: {"Type":"InternalIP","Address":"::1"}"#,
        duplicate,
    ]);
    refuses_write("Node", "status", new.clone(), new, &want);
}

#[test]
fn classes_of_the_system_are_as_every_cluster_has_them() {
    let class = |name: &str, value: i64, global: bool| json!({"metadata": {"name": name}, "value": value, "globalDefault": global});
    for (name, value, global, told) in [
        ("system-x", 1, false, "system-x is not a known system priority class"),
        ("system-node-critical", 1, false, "value of system-node-critical PriorityClass must be 2000001000"),
        (
            "system-cluster-critical",
            2_000_000_000,
            true,
            "globalDefault of system-cluster-critical PriorityClass must be false",
        ),
    ] {
        let want = format!(
            "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: {told}"
        );
        refuses("PriorityClass", class(name, value, global), &[&want]);
    }
    let runtime = json!({"metadata": {"name": "r"}, "handler": "h", "overhead": {"podFixed": {"x": "1", "hugepages-2Mi": "2Mi"}}});
    refuses(
        "RuntimeClass",
        runtime,
        &[
            r#"overhead.limits[x]: Invalid value: x: must be a standard resource type or fully qualified"#,
            r#"overhead.limits[x]: Invalid value: x: must be a standard resource for containers"#,
            "overhead: Forbidden: HugePages require cpu or memory",
        ],
    );
}

#[test]
fn docker_secrets_hold_an_object() {
    // `[]` and `{` in base64.
    for (data, told) in [
        ("W10=", "json: cannot unmarshal array into Go value of type map[string]interface {}"),
        ("ew==", "unexpected end of JSON input"),
    ] {
        let want = format!(r#"data[.dockercfg]: Invalid value: "<secret contents redacted>": {told}"#);
        refuses("Secret", json!({"type": "kubernetes.io/dockercfg", "data": {".dockercfg": data}}), &[&want]);
    }
}

#[test]
fn events_of_the_newer_api_are_complete_and_stay_as_they_are() {
    let event = |fields: Value| {
        let mut object = json!({
            "apiVersion": "events.k8s.io/v1", "metadata": {"name": "e", "namespace": "ns"}, "type": "Normal",
            "eventTime": "2024-01-01T00:00:00.000000Z", "reportingController": "a.b/c", "reportingInstance": "i",
            "action": "a", "reason": "r", "regarding": {"kind": "Pod", "namespace": "ns"}});
        for (key, value) in fields.as_object().into_iter().flatten() {
            object[key] = value.clone();
        }
        object
    };
    let long = "x".repeat(129);
    refuses(
        "Event",
        event(
            json!({"eventTime": null, "type": "x", "series": {"count": 1}, "deprecatedCount": 3, "deprecatedSource": {"component": "c"}}),
        ),
        &[
            r#"series.count: Invalid value: "": should be at least 2"#,
            "series.lastObservedTime: Required value",
            "eventTime: Required value",
            r#"type: Invalid value: "": has invalid value: x"#,
            r#"count: Invalid value: "": needs to be unset"#,
            r#"source: Invalid value: "": needs to be unset"#,
        ],
    );
    refuses_change(
        "Event",
        event(json!({})),
        event(
            json!({"action": long, "reason": "", "regarding": {"kind": "Node", "namespace": "ns"}, "deprecatedCount": 2}),
        ),
        &[
            r#"action: Invalid value: "": can have at most 128 characters"#,
            "reason: Required value",
            r#"involvedObject: Invalid value: {"Kind":"Node","Namespace":"ns","Name":"","UID":"","APIVersion":"","ResourceVersion":"","FieldPath":""}: field is immutable"#,
            r#"reason: Invalid value: "": field is immutable"#,
            "count: Invalid value: 2: field is immutable",
            r#"reason: Invalid value: "": field is immutable"#,
            &format!(r#"action: Invalid value: "{long}": field is immutable"#),
        ],
    );
}

#[test]
fn flow_schemas_and_levels_name_the_field_at_fault() {
    let schema = |name: &str, fields: Value| {
        let mut object = json!({"metadata": {"name": name}, "spec": {
            "matchingPrecedence": 7, "priorityLevelConfiguration": {"name": "l"}}});
        for (key, value) in fields.as_object().into_iter().flatten() {
            object["spec"][key] = value.clone();
        }
        object
    };
    let urls = json!(["", "a", "/a b", "/a//b", "/a*", "/a/*", "/"]);
    refuses(
        "FlowSchema",
        schema(
            "s",
            json!({"distinguisherMethod": {"type": "x"}, "rules": [{
            "subjects": [{"kind": "ServiceAccount", "user": {"name": "u"}}, {"kind": "x"}],
            "resourceRules": [{"verbs": ["*", "get"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["A"]}],
            "nonResourceRules": [{"verbs": ["post"], "nonResourceURLs": urls}]}]}),
        ),
        &[
            r#"spec.distinguisherMethod.type: Unsupported value: {"Type":"x"}: supported values: "ByNamespace", "ByUser""#,
            "spec.rules[0].subjects[0].serviceAccount: Required value: serviceAccount is required when subject kind is 'ServiceAccount'",
            "spec.rules[0].subjects[0].user: Forbidden: user is forbidden when subject kind is not 'User'",
            r#"spec.rules[0].subjects[1].kind: Unsupported value: "x": supported values: "Group", "ServiceAccount", "User""#,
            r#"spec.rules[0].resourceRules[0].verbs: Invalid value: ["*","get"]: if '*' is present, must not specify other verbs"#,
            r#"spec.rules[0].resourceRules[0].namespaces[0]: Invalid value: "A": each member of this list must be '*' or a DNS-1123 label; a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"#,
            r#"spec.rules[0].nonResourceRules[0].verbs: Unsupported value: ["post"]: supported values: "create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch""#,
            r#"spec.rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid value: "": must not be empty"#,
            r#"spec.rules[0].nonResourceRules[0].nonResourceURLs[1]: Invalid value: "a": must start with slash"#,
            r#"spec.rules[0].nonResourceRules[0].nonResourceURLs[2]: Invalid value: "/a b": must not contain white-space"#,
            r#"spec.rules[0].nonResourceRules[0].nonResourceURLs[3]: Invalid value: "/a//b": must not contain double slash"#,
            r#"spec.rules[0].nonResourceRules[0].nonResourceURLs[4]: Invalid value: "/a*": wildcard can only do suffix matching"#,
        ],
    );
    refuses(
        "FlowSchema",
        schema("exempt", json!({"matchingPrecedence": 1})),
        &[
            r#"spec: Invalid value: {"PriorityLevelConfiguration":{"Name":"l"},"MatchingPrecedence":1,"DistinguisherMethod":null,"Rules":null}: spec of 'exempt' must equal the fixed value"#,
        ],
    );
    let level = |queues: i64, hand: i64| {
        json!({"metadata": {"name": "l"}, "spec": {"type": "Limited", "limited": {"lendablePercent": 101, "limitResponse": {
            "type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": -1}}}}})
    };
    let lendable = "spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive";
    let length = "spec.limited.limitResponse.queuing.queueLengthLimit: Invalid value: -1: must be positive";
    for (queues, hand, told) in [
        (8, 9, "should not be greater than queues (8)"),
        (1024, 7, "required entropy bits of deckSize 1024 and handSize 7 should not be greater than 60"),
    ] {
        let want = format!("spec.limited.limitResponse.queuing.handSize: Invalid value: {hand}: {told}");
        refuses("PriorityLevelConfiguration", level(queues, hand), &[length, &want, lendable]);
    }
    refuses("PriorityLevelConfiguration", level(1024, 6), &[length, lendable]);
    let fixed = json!({"metadata": {"name": "exempt"}, "spec": {"type": "Exempt", "exempt": {"lendablePercent": 50}}});
    refuses("PriorityLevelConfiguration", fixed, &[]);
    let catch_all = json!({"metadata": {"name": "catch-all"}, "spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}});
    let want = r#"spec: Invalid value: {"Type":"Limited","Limited":{"NominalConcurrencyShares":30,"LimitResponse":{"Type":"Reject","Queuing":null},"LendablePercent":0,"BorrowingLimitPercent":null},"Exempt":null}: spec of 'catch-all' must equal the fixed value"#;
    refuses("PriorityLevelConfiguration", catch_all, &[want]);
    let status = json!({"metadata": {"name": "l"}, "spec": {}, "status": {"conditions": [{"type": ""}, {"type": ""}]}});
    let wants = [
        "status.conditions[0].type: Required value: must not be empty",
        r#"status.conditions[1].type: Duplicate value: """#,
        "status.conditions[1].type: Required value: must not be empty",
    ];
    refuses_write("FlowSchema", "status", schema("l", json!({})), status, &wants);
}

#[test]
fn aggregated_roles_select_by_selectors_that_can_be_read() {
    let role = json!({"metadata": {"name": "r"}, "aggregationRule": {"clusterRoleSelectors": [
        {"matchLabels": {"a": "b"}}, {"matchExpressions": [{"key": "a", "operator": "x"}]}]}});
    let place = "aggregationRule.clusterRoleSelectors[1]";
    refuses(
        "ClusterRole",
        role,
        &[
            &format!(
                r#"{place}.matchExpressions[0].operator: Invalid value: "x": not a valid selector operator"#
            ),
            &format!(r#"{place}: Invalid value: "null": invalid label selector."#),
        ],
    );
}
