//! Pods: what new ones are refused for, and what existing ones may become.

use super::*;

/// A pod of one container with these fields.
fn with(path: &str, value: Value) -> Value {
    let mut object = pod(&json!({}));
    let mut at = &mut object["spec"];
    for key in path.split('.') {
        at = match key.parse::<usize>() {
            Ok(index) => &mut at[index],
            Err(_) => &mut at[key],
        };
    }
    *at = value;
    object
}

#[test]
fn volumes_are_told_at_the_places_kubernetes_tells_them() {
    let rows: &[(Value, &[&str])] = &[
        (
            json!([{"name": "v", "emptyDir": {"sizeLimit": "-1"}}]),
            &[
                "spec.volumes[0].emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity",
            ],
        ),
        (
            json!([{"name": "v", "gcePersistentDisk": {"partition": 300}}]),
            &[
                "spec.volumes[0].persistentDisk.pdName: Required value",
                "spec.volumes[0].persistentDisk.partition: Invalid value: 300: must be between 1 and 255, inclusive",
            ],
        ),
        (
            json!([{"name": "v", "emptyDir": {}, "cephfs": {}, "downwardAPI": {}}]),
            &[
                "spec.volumes[0].cephFS: Forbidden: may not specify more than 1 volume type",
                "spec.volumes[0].downwarAPI: Forbidden: may not specify more than 1 volume type",
            ],
        ),
        (
            json!([{"name": "v", "nfs": {"server": "s"}}]),
            &[
                "spec.volumes[0].nfs.path: Required value",
                r#"spec.volumes[0].nfs.path: Invalid value: "": must be an absolute path"#,
            ],
        ),
        (
            json!([{"name": "v", "iscsi": {"targetPortal": "p", "iqn": "x", "lun": 0, "chapAuthSession": true}}]),
            &[
                r#"spec.volumes[0].iscsi.iqn: Invalid value: "x": must be valid format starting with iqn, eui, or naa"#,
                "spec.volumes[0].iscsi.secretRef: Required value",
            ],
        ),
        (
            json!([{"name": "v", "flexVolume": {"driver": "d", "options": {"a.k8s.io/x": "1"}}}]),
            &[
                r#"spec.volumes[0].flexVolume.options[a.k8s.io/x]: Invalid value: "a.k8s.io/x": kubernetes.io and k8s.io namespaces are reserved"#,
            ],
        ),
    ];
    for (volumes, want) in rows {
        refuses("Pod", with("volumes", volumes.clone()), want);
    }
}

#[test]
fn bundles_are_judged_where_they_are_in_use_already() {
    let set = |bundle: Value| {
        let mut template = template(&json!({"a": "b"}));
        template["spec"]["volumes"] =
            json!([{"name": "v", "projected": {"sources": [{"clusterTrustBundle": bundle}]}}]);
        json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}})
    };
    refuses_write(
        "Deployment",
        "",
        set(json!({"name": "b", "path": "p"})),
        set(json!({"name": "b", "labelSelector": {}, "path": "p"})),
        &[
            "spec.template.spec.volumes[0].projected.sources[0].clusterTrustBundle.labelSelector: Invalid value: {}: labelSelector must be unset if name is specified",
        ],
    );
}

#[test]
fn volumes_made_for_the_pod_are_told_so_too() {
    let rows: &[(Value, &[&str])] = &[
        (
            json!([{"name": "v", "projected": {"sources": [
                {"secret": {"name": "s", "items": [{"key": "k", "path": "p"}]}},
                {"configMap": {"name": "c", "items": [{"key": "k", "path": "p"}]}},
                {"serviceAccountToken": {"path": "../t", "expirationSeconds": 10}}]}}]),
            &[
                r#"spec.volumes[0].projected: Invalid value: "c": conflicting duplicate paths"#,
                "spec.volumes[0].projected.sources[2].serviceAccountToken.expirationSeconds: Invalid value: 10: may not specify a duration less than 10 minutes",
                r#"spec.volumes[0].projected.path: Invalid value: "../t": must not contain '..'"#,
                "spec.volumes[0].projected.sources[2].serviceAccountToken: Forbidden: must not be specified when serviceAccountName is not set",
            ],
        ),
        (
            json!([{"name": "v", "csi": {"driver": ""}}]),
            &[
                "spec.volumes[0].csi.driver: Required value",
                r#"spec.volumes[0].csi.driver: Invalid value: "": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"#,
            ],
        ),
        (
            json!([
                {"name": "e", "ephemeral": {"volumeClaimTemplate": {"metadata": {"name": "n"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1"}}}}}},
                {"name": "v", "persistentVolumeClaim": {"claimName": "x-e"}}]),
            &[
                "spec.volumes[0].ephemeral.volumeClaimTemplate.metadata.name: Forbidden: cannot be set",
                r#"spec.volumes[1].persistentVolumeClaim.claimName: Invalid value: "x-e": must not reference a PVC that gets created for an ephemeral volume"#,
            ],
        ),
    ];
    for (volumes, want) in rows {
        refuses("Pod", with("volumes", volumes.clone()), want);
    }
}

#[test]
fn containers_are_judged_in_the_order_of_kubernetes() {
    let rows: &[(&str, Value, &[&str])] = &[
        (
            "containers.0.envFrom",
            json!([{}]),
            &[
                r#"spec.containers[0].envFrom: Invalid value: "": must specify one of: `configMapRef` or `secretRef`"#,
            ],
        ),
        (
            "containers.0.env",
            json!([
                {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.hostNetwork"}}},
                {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name['x']"}}},
                {"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "2"}}}]),
            &[
                r#"spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: "spec.hostNetwork": error converting fieldPath: field label not supported: spec.hostNetwork"#,
                r#"spec.containers[0].env[1].valueFrom.fieldRef.fieldPath: Invalid value: "metadata.name['x']": error converting fieldPath: field label does not support subscript: metadata.name['x']"#,
                r#"spec.containers[0].env[2].valueFrom.resourceFieldRef.divisor: Invalid value: "limits.memory": only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the memory resource"#,
            ],
        ),
        (
            "containers.0.volumeMounts",
            json!([{"mountPath": "/a", "subPath": "/b"}]),
            &[
                "spec.containers[0].volumeMounts[0].name: Required value",
                r#"spec.containers[0].volumeMounts[0].name: Not found: """#,
                r#"spec.containers[0].volumeMounts.subPath: Invalid value: "/b": must be a relative path"#,
            ],
        ),
        (
            "containers.0.resources",
            json!({"requests": {"hugepages-2Mi": "3Mi", "foo": "1"}}),
            &[
                r#"spec.containers[0].resources.requests[foo]: Invalid value: foo: must be a standard resource type or fully qualified"#,
                r#"spec.containers[0].resources.requests[foo]: Invalid value: foo: must be a standard resource for containers"#,
                "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
                r#"spec.containers[0].resources.requests[hugepages-2Mi]: Invalid value: "3Mi": 3Mi is not positive integer multiple of hugepages-2Mi"#,
                "spec.containers[0].resources: Forbidden: HugePages require cpu or memory",
            ],
        ),
        (
            "containers.0.resizePolicy",
            json!([{"resourceName": "gpu", "restartPolicy": ""}]),
            &[
                r#"spec.containers[0].resizePolicy: Unsupported value: gpu: supported values: "cpu", "memory""#,
                "spec.containers[0].resizePolicy: Required value",
            ],
        ),
        (
            "containers.0.securityContext",
            json!({"allowPrivilegeEscalation": false, "privileged": true, "seccompProfile": {"type": "RuntimeDefault", "localhostProfile": "x"}}),
            &[
                r#"spec.containers[0].securityContext.seccompProfile.localhostProfile: Invalid value: {"Type":"RuntimeDefault","LocalhostProfile":"x"}: can only be set when seccomp type is Localhost"#,
                r#"spec.containers[0].securityContext: Invalid value: {"Capabilities":null,"Privileged":true,"SELinuxOptions":null,"WindowsOptions":null,"RunAsUser":null,"RunAsGroup":null,"RunAsNonRoot":null,"ReadOnlyRootFilesystem":null,"AllowPrivilegeEscalation":false,"ProcMount":null,"SeccompProfile":{"Type":"RuntimeDefault","LocalhostProfile":"x"},"AppArmorProfile":null}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true"#,
            ],
        ),
        (
            "containers.0.lifecycle",
            json!({"preStop": {"sleep": {"seconds": 31}}}),
            &[
                "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)",
            ],
        ),
    ];
    for (path, value, want) in rows {
        refuses("Pod", with(path, value.clone()), want);
    }
}

#[test]
fn fields_of_pod_specs_are_judged_in_the_order_of_kubernetes() {
    let rows: &[(Value, &[&str])] = &[
        (
            json!({"preemptionPolicy": "x", "hostname": "a.b", "runtimeClassName": ""}),
            &[
                r#"spec.hostname: Invalid value: "a.b": must not contain dots"#,
                r#"spec.runtimeClassName: Invalid value: "": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"#,
                r#"spec.preemptionPolicy: Unsupported value: "x": supported values: "PreemptLowerPriority", "Never""#,
            ],
        ),
        (
            json!({"topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "k", "whenUnsatisfiable": "ScheduleAnyway", "minDomains": 1, "matchLabelKeys": ["a"]},
                {"maxSkew": 1, "topologyKey": "k", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}, "matchLabelKeys": ["a"]}]}),
            &[
                r#"spec.topologySpreadConstraints[0].{topologyKey, whenUnsatisfiable}: Duplicate value: "{k, ScheduleAnyway}""#,
                "spec.topologySpreadConstraints[0].minDomains: Invalid value: 1: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway",
                "spec.topologySpreadConstraints[0].matchLabelKeys: Forbidden: must not be specified when labelSelector is not set",
                r#"spec.topologySpreadConstraints[1].matchLabelKeys[0]: Invalid value: "a": exists in both matchLabelKeys and labelSelector"#,
            ],
        ),
        (
            json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": "k", "labelSelector": {}, "matchLabelKeys": ["a"], "mismatchLabelKeys": ["a"]}]}}}),
            &[
                r#"spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].matchLabelKeys[0]: Invalid value: "a": exists in both matchLabelKeys and mismatchLabelKeys"#,
            ],
        ),
        (
            json!({"os": {"name": "windows"}, "hostPID": true, "securityContext": {"runAsUser": 1, "windowsOptions": {"hostProcess": true, "runAsUserName": "a\\"}}}),
            &[
                r#"spec.securityContext.windowsOptions.runAsUserName: Invalid value: "a\\": runAsUserName's User cannot be empty"#,
                "spec.hostNetwork: Invalid value: false: hostNetwork must be true if pod contains any hostProcess containers",
                "spec.hostPID: Forbidden: cannot be set for a windows pod",
                "spec.securityContext.runAsUser: Forbidden: cannot be set for a windows pod",
            ],
        ),
        (
            json!({"hostUsers": false, "hostPID": true, "securityContext": {"seLinuxChangePolicy": "MountOption"}}),
            &[
                r#"spec.securityContext.seLinuxChangePolicy: Unsupported value: "MountOption": supported values: "Recursive""#,
                "spec.HostPID: Forbidden: when `pod.Spec.HostUsers` is false",
            ],
        ),
        (
            json!({"hostNetwork": true, "securityContext": {"sysctls": [{"name": "net/x", "value": "1"}, {"name": "A", "value": "1"}]}}),
            &[
                r#"spec.securityContext.sysctls[0].name: Invalid value: "net/x": may not be specified when 'hostNetwork' is true"#,
                r#"spec.securityContext.sysctls[1].name: Invalid value: "A": must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"#,
            ],
        ),
        (
            json!({"dnsConfig": {"searches": ["_a.b", "A"], "options": [{}]}}),
            &[
                r#"spec.dnsConfig.searches[1]: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"#,
                "spec.dnsConfig.options[0]: Required value: must not be empty",
            ],
        ),
        (json!({"imagePullSecrets": [{"name": ""}]}), &[]),
    ];
    for (fields, want) in rows {
        refuses("Pod", pod(fields), want);
    }
}

#[test]
fn annotations_say_what_the_fields_say() {
    let rows: &[(Value, Value, &[&str])] = &[
        (
            json!({"container.apparmor.security.beta.kubernetes.io/x": "odd"}),
            json!({}),
            &[
                r#"metadata.annotations[container.apparmor.security.beta.kubernetes.io/x]: Invalid value: "x": container not found"#,
                r#"metadata.annotations[container.apparmor.security.beta.kubernetes.io/x]: Invalid value: "odd": invalid AppArmor profile name: "odd""#,
            ],
        ),
        (
            json!({"container.apparmor.security.beta.kubernetes.io/c": "unconfined", "seccomp.security.alpha.kubernetes.io/pod": "localhost/a"}),
            json!({"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "b"}},
                "containers": [{"name": "c", "image": "i", "securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}}]}),
            &[
                "spec.securityContext.seccompProfile.localhostProfile: Forbidden: seccomp profile in annotation and field must match",
                "spec.containers[0].securityContext.appArmorProfile.type: Forbidden: apparmor type in annotation and field must match",
            ],
        ),
        (
            json!({"seccomp.security.alpha.kubernetes.io/pod": "x", "controller.kubernetes.io/pod-deletion-cost": "+1"}),
            json!({}),
            &[
                r#"metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: "+1": must be a 32bit integer"#,
                r#"metadata.annotations.seccomp.security.alpha.kubernetes.io/pod: Invalid value: "x": must be a valid seccomp profile"#,
            ],
        ),
    ];
    for (notes, fields, want) in rows {
        let mut object = pod(fields);
        object["metadata"] = json!({"name": "x", "annotations": notes});
        refuses("Pod", object, want);
    }
}

fn gated(fields: &Value) -> Value {
    let mut object = pod(&json!({"schedulingGates": [{"name": "a.b/c"}]}));
    for (key, value) in fields.as_object().into_iter().flatten() {
        object["spec"][key] = value.clone();
    }
    object
}

#[test]
fn gated_pods_can_only_be_narrowed() {
    let terms = |expressions: Value| {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": expressions}]}}}})
    };
    let (a, b) = (json!({"key": "a", "operator": "Exists"}), json!({"key": "b", "operator": "Exists"}));
    let rows: &[(Value, Value, &[&str])] = &[
        (json!({}), json!({"nodeSelector": {"a": "b"}}), &[]),
        (
            json!({"nodeSelector": {"a": "b"}}),
            json!({"nodeSelector": {"a": "c"}}),
            &[
                r#"spec.nodeSelector: Invalid value: {"a":"c"}: only additions to spec.nodeSelector are allowed (no mutations or deletions)"#,
            ],
        ),
        (json!({}), terms(json!([a])), &[]),
        (terms(json!([a])), terms(json!([a, b])), &[]),
        (
            terms(json!([a])),
            terms(json!([b])),
            &[
                r#"spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]: Invalid value: {"MatchExpressions":[{"Key":"b","Operator":"Exists","Values":null}],"MatchFields":null}: only additions are allowed (no mutations or deletions)"#,
            ],
        ),
        (
            terms(json!([a])),
            json!({}),
            &[
                "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Invalid value: null: no additions/deletions to non-empty NodeSelectorTerms list are allowed",
            ],
        ),
    ];
    for (old, new, want) in rows {
        refuses_change("Pod", gated(old), gated(new), want);
    }
}

#[test]
fn what_a_stored_pod_gets_wrong_does_not_keep_it_from_change() {
    let odd = json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "k", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"a": "-"}}}],
        "securityContext": {"seLinuxChangePolicy": "MountOption"}});
    refuses_change("Pod", pod(&odd), pod(&odd), &[]);
    assert!(super::super::create(&whole("Pod", pod(&odd)), &kind("Pod"), ALL).len() > 1);
}

#[test]
fn static_pods_take_no_ephemeral_containers_and_no_resize() {
    let mut mirror = pod(&json!({"nodeName": "n"}));
    mirror["metadata"] = json!({"name": "x", "annotations": {"kubernetes.io/config.mirror": "m"}});
    let mut more = mirror.clone();
    more["spec"]["ephemeralContainers"] = json!([{"name": "e", "image": "i"}]);
    let told = "[]: Forbidden: static pods do not support ephemeral containers";
    refuses_write("Pod", "ephemeralcontainers", mirror.clone(), more, &[told]);
    refuses_write("Pod", "resize", mirror.clone(), mirror, &["[]: Forbidden: static pods cannot be resized"]);
}

#[test]
fn a_resize_changes_cpu_and_memory_that_were_there() {
    let of =
        |resources: Value| pod(&json!({"containers": [{"name": "c", "image": "i", "resources": resources}]}));
    let old = json!({"requests": {"cpu": "1", "memory": "1Gi"}});
    let rows: &[(Value, &[&str])] = &[
        (json!({"requests": {"cpu": "2", "memory": "1Gi"}}), &[]),
        (
            json!({"requests": {"cpu": "2"}}),
            &["spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"],
        ),
        (
            json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "2Gi"}}),
            &[
                "spec.containers[0].resources.limits[memory]: Forbidden: memory limits cannot be added unless resizePolicy is RestartContainer",
            ],
        ),
        (
            json!({"requests": {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "1"}}),
            &["spec: Forbidden: only cpu and memory resources are mutable"],
        ),
        (
            json!({}),
            &[
                "spec: Invalid value: \"\": Pod QOS Class may not change as a result of resizing",
                "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
            ],
        ),
    ];
    for (new, want) in rows {
        refuses_write("Pod", "resize", of(old.clone()), of(new.clone()), want);
    }
    let mut more = of(old.clone());
    more["spec"]["containers"] = json!([{"name": "c", "image": "i"}, {"name": "d", "image": "i"}]);
    let told = "spec.containers: Forbidden: containers may not be added or removed on resize";
    let class = "spec: Invalid value: \"\": Pod QOS Class may not change as a result of resizing";
    refuses_write("Pod", "resize", of(old.clone()), more, &[class, told]);
    let mut policy = of(old.clone());
    policy["spec"]["containers"][0]["resizePolicy"] =
        json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
    refuses_write(
        "Pod",
        "resize",
        of(old.clone()),
        policy,
        &["spec: Forbidden: only cpu and memory resources are mutable"],
    );
    let mut old_node = of(old);
    old_node["status"] = json!({"containerStatuses": [{"name": "c", "state": {"running": {}}}]});
    let told = "spec: Forbidden: Pod running on node without support for resize";
    refuses_write("Pod", "resize", old_node.clone(), old_node, &[told]);
}

#[test]
fn the_status_of_a_pod_makes_sense() {
    let of = |status: Value| {
        let mut object = pod(
            &json!({"restartPolicy": "Never", "resourceClaims": [{"name": "m", "resourceClaimName": "x"}]}),
        );
        object["status"] = status;
        object
    };
    let rows: &[(Value, Value, &[&str])] = &[
        (
            json!({"containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": 1}}}]}),
            json!({"containerStatuses": [{"name": "c", "state": {"running": {}}}]}),
            &[
                "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state",
            ],
        ),
        (
            json!({}),
            json!({"hostIP": "10.0.0.1", "hostIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]}),
            &[
                r#"status.hostIPs: Invalid value: [{"IP":"10.0.0.1"},{"IP":"10.0.0.2"}]: may specify no more than one IP for each IP family"#,
            ],
        ),
        (
            // Features that are off are judged where they were in use.
            json!({"observedGeneration": 1}),
            json!({"conditions": [{"type": "-", "status": "True"}], "observedGeneration": -1,
                "resourceClaimStatuses": [{"name": "n"}]}),
            &[
                r#"status.conditions[0].Type: Invalid value: "-": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"#,
                "status.observedGeneration: Invalid value: -1: must be a non-negative integer",
                r#"status.resourceClaimStatuses[0].name: Invalid value: "n": must match the name of an entry in `spec.resourceClaims`"#,
            ],
        ),
    ];
    for (old, new, want) in rows {
        refuses_write("Pod", "status", of(old.clone()), of(new.clone()), want);
    }
}

#[test]
fn templates_are_told_without_the_word_metadata() {
    let mut spec = template(&json!({"a": "b"}));
    spec["metadata"]["annotations"] = json!({"-": "x"});
    let object = json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": spec}});
    let told = r#"spec.template.annotations: Invalid value: "-": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"#;
    refuses("Deployment", object, &[told]);
}
