//! Jobs and CronJobs: their specs, and statuses that others than the own controller may write.

use super::*;

fn job(fields: &Value) -> Value {
    let mut pod = template(&json!({}));
    pod["spec"]["restartPolicy"] = json!("Never");
    let mut object = json!({"spec": {"template": pod}});
    for (key, value) in fields.as_object().into_iter().flatten() {
        object["spec"][key] = value.clone();
    }
    object
}

#[test]
fn policies_of_jobs_are_judged_in_the_order_of_kubernetes() {
    let indexed = |fields: Value| {
        let mut all = json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3});
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        all
    };
    let rows: &[(Value, &[&str])] = &[
        (
            json!({"podFailurePolicy": {"rules": [{"action": "", "onExitCodes": {"operator": "In", "values": [2, 0]}, "onPodConditions": [{"type": "x", "status": "y"}]}]}}),
            &[
                r#"spec.podFailurePolicy.rules[0].action: Required value: valid values: ["Count" "FailIndex" "FailJob" "Ignore"]"#,
                "spec.podFailurePolicy.rules[0].onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator",
                "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [2,0]: must be ordered",
                r#"spec.podFailurePolicy.rules[0].onPodConditions[0].status: Unsupported value: "y": supported values: "False", "True", "Unknown""#,
                "spec.podFailurePolicy.rules[0]: Invalid value: specifying both OnExitCodes and OnPodConditions is not supported",
            ],
        ),
        (
            indexed(json!({"successPolicy": {"rules": [{"succeededIndexes": "0,5", "succeededCount": 4}]}})),
            &[
                r#"spec.successPolicy.rules[0].succeededIndexes: Invalid value: "0,5": error parsing succeededIndexes: too large index: "5""#,
                "spec.successPolicy.rules[0].succeededCount: Invalid value: 4: must be less than or equal to 3 (the number of specified completions)",
                "spec.successPolicy.rules[0].succeededCount: Invalid value: 4: must be less than or equal to 0 (the number of indexes in the specified succeededIndexes field)",
            ],
        ),
        (
            json!({"successPolicy": {"rules": [{"succeededCount": 1}]}, "managedBy": "x"}),
            &[
                r#"spec.managedBy: Invalid value: "x": must be a domain-prefixed path (such as "acme.io/foo")"#,
                r#"spec.successPolicy: Invalid value: {"Rules":[{"SucceededIndexes":null,"SucceededCount":1}]}: requires indexed completion mode"#,
            ],
        ),
    ];
    for (fields, want) in rows {
        refuses("Job", job(fields), want);
    }
}

#[test]
fn cron_jobs_run_in_zones_that_exist() {
    let cron = |schedule: &str, zone: Value| json!({"spec": {"schedule": schedule, "timeZone": zone, "jobTemplate": job(&json!({}))}});
    refuses(
        "CronJob",
        cron("TZ=Etc/UTC * * * * *", json!("Nowhere/At-All-Of-It-All")),
        &[
            r#"spec.schedule: Invalid value: "TZ=Etc/UTC * * * * *": cannot use TZ or CRON_TZ in schedule, use timeZone field instead"#,
            r#"spec.timeZone: Invalid value: "Nowhere/At-All-Of-It-All": unknown time zone Nowhere/At-All-Of-It-All"#,
        ],
    );
    let old = cron("TZ=Etc/UTC * * * * *", Value::Null);
    refuses_write("CronJob", "", old.clone(), old.clone(), &[]);
    refuses_write(
        "CronJob",
        "",
        old,
        cron("TZ=Etc/UTC * * * * *", json!("Etc/UTC")),
        &[
            r#"spec.schedule: Invalid value: "TZ=Etc/UTC * * * * *": cannot use both timeZone field and TZ or CRON_TZ in schedule"#,
        ],
    );
}

#[test]
fn the_status_of_a_job_follows_the_stored_one() {
    let holds = |kinds: &[&str]| -> Value {
        kinds.iter().map(|kind| json!({"type": kind, "status": "True"})).collect()
    };
    let of = |spec: &Value, status: &Value| {
        let mut object = job(spec);
        object["status"] = status.clone();
        object
    };
    let (start, end) = ("2024-01-01T00:00:01Z", "2024-01-01T00:00:02Z");
    let rows: &[(Value, Value, Value, &[&str])] = &[
        (
            json!({}),
            json!({"startTime": start}),
            json!({"startTime": start, "completionTime": end, "conditions": holds(&["SuccessCriteriaMet", "Complete"]), "succeeded": 1}),
            &[],
        ),
        (
            json!({}),
            json!({}),
            json!({"conditions": holds(&["Complete"]), "active": 1, "ready": 2, "terminating": 1, "uncountedTerminatedPods": {"failed": ["a", "a"]}}),
            &[
                r#"status.uncountedTerminatedPods.failed[1]: Duplicate value: "a""#,
                "status.completionTime: Required value: completionTime is required for Complete jobs",
                "status.conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
                "status.active: Invalid value: 1: active>0 is invalid for finished job",
                "status.startTime: Required value: startTime is required for finished job",
                r#"status.uncountedTerminatedPods: Invalid value: {"Succeeded":null,"Failed":["a","a"]}: uncountedTerminatedPods needs to be empty for finished job"#,
                "status.terminating: Invalid value: 1: terminating>0 is invalid for finished job",
                "status.ready: Invalid value: 2: cannot set more ready pods than active",
            ],
        ),
        (
            json!({"completions": 2, "parallelism": 1}),
            json!({"startTime": start, "failed": 2, "succeeded": 2, "conditions": holds(&["FailureTarget"])}),
            json!({"startTime": end, "failed": 1, "succeeded": 1, "completedIndexes": "0", "failedIndexes": "1"}),
            &[
                r#"status.completedIndexes: Invalid value: "0": cannot set non-empty completedIndexes when non-indexed completion mode"#,
                r#"status.failedIndexes: Invalid value: "1": cannot set non-null failedIndexes when backoffLimitPerIndex is null"#,
                "status.conditions: Invalid value: cannot disable the terminal FailureTarget=True condition",
                "status.failed: Invalid value: 1: cannot decrease the failed counter",
                "status.succeeded: Invalid value: 1: cannot decrease the succeeded counter",
                "status.startTime: Required value: startTime cannot be removed for unsuspended job",
            ],
        ),
        (
            json!({"completionMode": "Indexed", "completions": 3, "backoffLimitPerIndex": 1}),
            json!({}),
            json!({"completedIndexes": "0-1", "failedIndexes": "1,9"}),
            &[
                r#"status.failedIndexes: Invalid value: "1,9": error parsing failedIndexes: too large index: "9""#,
                r#"status.failedIndexes: Invalid value: "1,9": failedIndexes and completedIndexes overlap at index: 1"#,
            ],
        ),
        // What was wrong before may stay so.
        (
            json!({}),
            json!({"conditions": holds(&["Complete"]), "active": 1}),
            json!({"conditions": holds(&["Complete"]), "active": 1}),
            &[],
        ),
    ];
    for (spec, old, new, want) in rows {
        refuses_write("Job", "status", of(spec, old), of(spec, new), want);
    }
}

#[test]
fn an_empty_list_of_failed_indexes_is_one() {
    let of = |status: Value| {
        let mut object = job(&json!({}));
        object["status"] = status;
        object
    };
    let want = r#"status.failedIndexes: Invalid value: "": cannot set non-null failedIndexes when backoffLimitPerIndex is null"#;
    refuses_write("Job", "status", of(json!({})), of(json!({"failedIndexes": ""})), &[want]);
}

#[test]
fn times_are_shown_as_go_prints_them() {
    let pod = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
    let job = |status: Value| json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": pod}, "status": status});
    let (start, end) = ("2024-01-01T00:00:01Z", "2024-01-01T00:00:02Z");
    refuses_write(
        "Job",
        "status",
        job(json!({"startTime": start})),
        job(json!({"startTime": start, "completionTime": end})),
        &[
            "status.completionTime: Invalid value: 2024-01-01 00:00:02 +0000 UTC: cannot set completionTime when there is no Complete=True condition",
        ],
    );
}

#[test]
fn daemon_sets_take_pods_away_or_add_them_not_both() {
    for (down, more, field) in [(1, -1, "maxSurge"), (-1, 1, "maxUnavailable")] {
        let rolling = json!({"maxUnavailable": down, "maxSurge": more});
        let set = json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template(&json!({"a": "b"})),
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling}}});
        let at = "spec.updateStrategy.rollingUpdate";
        let negative = format!("{at}.{field}: Invalid value: -1: must be greater than or equal to 0");
        let both = format!(
            "{at}.maxSurge: Invalid value: intstr.IntOrString{{Type:0, IntVal:{more}, StrVal:\"\"}}: may not be set when maxUnavailable is non-zero"
        );
        refuses("DaemonSet", set, &[&negative, &both]);
    }
}

#[test]
fn addresses_of_a_pod_are_one_of_each_family() {
    let status = |ips: &[&str]| {
        let ips: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        json!({"spec": {}, "status": {"podIPs": ips}})
    };
    let told = |ips: &[&str]| {
        let kind = kind("Pod");
        let (old, new) = (whole("Pod", status(&[])), whole("Pod", status(ips)));
        let faults = super::super::update(&new, &old, &kind, "status", ALL, &mut Vec::new());
        let fields = faults.iter().map(|fault| fault.field.clone());
        fields.filter(|field| field.starts_with("status")).collect::<Vec<_>>()
    };
    assert_eq!(told(&["1.2.3.4", "fd00::1"]), Vec::<String>::new());
    assert_eq!(told(&["1.2.3.4", "1.2.3.4"]), ["status.podIPs"]);
    assert_eq!(told(&["1.2.3.4", "x"]), ["status.podIPs[1]", "status.podIPs", "status.podIPs"]);
}
