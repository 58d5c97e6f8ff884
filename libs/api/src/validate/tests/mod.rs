//! One check, many rows: an object after defaulting and preparing, and the faults it must be told.

mod admission;
mod cluster;
mod definitions;
mod jobs;
mod long;
mod names;
mod networks;
mod pods;
mod policies;
mod privileged;
mod storage;

use super::Policy;
use crate::kinds::{Kind, Subresource};
use crate::{defaults, strategy};
use serde_json::{Value, json};

fn kind(name: &str) -> Kind {
    let cluster_scoped = [
        "Node",
        "Namespace",
        "PersistentVolume",
        "StorageClass",
        "PriorityClass",
        "ClusterRole",
        "APIService",
        "VolumeAttachment",
        "CSIDriver",
        "CSINode",
        "CertificateSigningRequest",
        "ServiceCIDR",
        "IPAddress",
        "IngressClass",
        "RuntimeClass",
        "FlowSchema",
        "PriorityLevelConfiguration",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "ValidatingWebhookConfiguration",
        "MutatingWebhookConfiguration",
        "CustomResourceDefinition",
    ];
    let text = |text: &str| text.to_owned();
    let status = Subresource {
        name: text("status"),
        group: text(""),
        version: text("v1"),
        kind: text(name),
        verbs: Vec::new(),
    };
    let with_status =
        !["ConfigMap", "Secret", "Role", "RoleBinding", "LimitRange", "StorageClass"].contains(&name);
    Kind {
        group: text(""),
        version: text("v1"),
        kind: text(name),
        plural: text(""),
        singular: text(""),
        short_names: Vec::new(),
        categories: Vec::new(),
        namespaced: !cluster_scoped.contains(&name),
        verbs: Vec::new(),
        subresources: if with_status { vec![status] } else { Vec::new() },
        storage_version: text(""),
        definition: text(""),
        custom: None,
    }
}

const ALL: Policy = Policy { allow_privileged: true };

fn whole(name: &str, mut object: Value) -> Value {
    if !object["metadata"].is_object() {
        object["metadata"] = json!({"name": "x"});
    }
    if kind(name).namespaced {
        object["metadata"]["namespace"] = json!("ns");
    }
    object["metadata"]["uid"] = json!("u");
    object
}

#[track_caller]
fn refuses(name: &str, object: Value, want: &[&str]) {
    let shown = object.to_string();
    assert_eq!(complaints(name, object), want, "{shown}");
}

/// What there is to say against an object that is to be made.
fn complaints(name: &str, object: Value) -> Vec<String> {
    let (kind, mut object) = (kind(name), whole(name, object));
    defaults::apply(&mut object, &kind);
    strategy::prepare_create(&mut object, &kind);
    super::create(&object, &kind, ALL).iter().map(ToString::to_string).collect()
}

#[track_caller]
fn refuses_change(name: &str, old: Value, new: Value, want: &[&str]) {
    let kind = kind(name);
    let mut old = whole(name, old);
    defaults::apply(&mut old, &kind);
    strategy::prepare_create(&mut old, &kind);
    refuses_write(name, "", old, new, want);
}

/// A write to a subresource of an object that is stored as it is given.
#[track_caller]
fn refuses_write(name: &str, subresource: &str, old: Value, new: Value, want: &[&str]) {
    let kind = kind(name);
    let (mut old, mut new) = (whole(name, old), whole(name, new));
    defaults::apply(&mut old, &kind);
    new["metadata"]["resourceVersion"] = json!("1");
    defaults::apply(&mut new, &kind);
    strategy::prepare_update(&mut new, &old, &kind, subresource);
    let told: Vec<String> = super::update(&new, &old, &kind, subresource, ALL, &mut Vec::new())
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(told, want, "{new}");
}

fn pod(spec: &Value) -> Value {
    let mut object = json!({"spec": {"containers": [{"name": "c", "image": "i", "resources": {}}]}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        object["spec"][key] = value.clone();
    }
    object
}

fn container(fields: &Value) -> Value {
    let mut object = pod(&json!({}));
    for (key, value) in fields.as_object().into_iter().flatten() {
        object["spec"]["containers"][0][key] = value.clone();
    }
    object
}

fn template(labels: &Value) -> Value {
    json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i", "resources": {}}]}})
}

#[test]
fn good_objects_pass() {
    refuses("Pod", pod(&json!({})), &[]);
    let selector = json!({"matchLabels": {"a": "b"}});
    for workload in ["Deployment", "ReplicaSet", "DaemonSet", "StatefulSet"] {
        refuses(
            workload,
            json!({"spec": {"selector": selector, "template": template(&json!({"a": "b"}))}}),
            &[],
        );
    }
    let mut mounting = template(&json!({"a": "b"}));
    mounting["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    let claims = json!([{"metadata": {"name": "data"}, "spec": {}}]);
    refuses(
        "StatefulSet",
        json!({"spec": {"selector": selector, "template": mounting, "volumeClaimTemplates": claims}}),
        &[],
    );
    let mut job = template(&json!({}));
    job["spec"]["restartPolicy"] = json!("Never");
    refuses("Job", json!({"spec": {"template": job}}), &[]);
    refuses(
        "CronJob",
        json!({"spec": {"schedule": "@daily", "jobTemplate": {"spec": {"template": job}}}}),
        &[],
    );
    refuses("Service", json!({"spec": {"ports": [{"port": 80}]}}), &[]);
    refuses("ConfigMap", json!({"data": {"a": "b"}}), &[]);
    refuses("Node", json!({"metadata": {"name": "n"}, "spec": {}}), &[]);
    refuses("Namespace", json!({"metadata": {"name": "n"}, "spec": {}}), &[]);
}

#[test]
fn metadata_is_judged_for_every_kind() {
    refuses(
        "ConfigMap",
        json!({"metadata": {}}),
        &["metadata.name: Required value: name or generateName is required"],
    );
    refuses(
        "ConfigMap",
        json!({"metadata": {"name": "x", "labels": {"a": "-"}}}),
        &[
            r#"metadata.labels: Invalid value: "-": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"#,
        ],
    );
    refuses(
        "ConfigMap",
        json!({"metadata": {"name": "x", "finalizers": ["orphan", "foregroundDeletion"]}}),
        &[
            r#"metadata.finalizers: Invalid value: ["orphan","foregroundDeletion"]: finalizer orphan and foregroundDeletion cannot be both set"#,
        ],
    );
}

#[test]
fn containers_name_the_field_at_fault() {
    let rows: &[(Value, &str)] = &[
        (json!({"image": ""}), "spec.containers[0].image: Required value"),
        (
            json!({"ports": [{"containerPort": 0}]}),
            "spec.containers[0].ports[0].containerPort: Required value",
        ),
        (
            json!({"ports": [{"containerPort": 1, "protocol": "ICMP"}]}),
            r#"spec.containers[0].ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP""#,
        ),
        (json!({"env": [{"name": ""}]}), "spec.containers[0].env[0].name: Required value"),
        (
            json!({"env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}),
            r#"spec.containers[0].env[0].valueFrom: Invalid value: "": may not be specified when `value` is not empty"#,
        ),
        (
            json!({"volumeMounts": [{"name": "v", "mountPath": "/x"}]}),
            r#"spec.containers[0].volumeMounts[0].name: Not found: "v""#,
        ),
        (
            json!({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}),
            r#"spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1"#,
        ),
        (
            json!({"livenessProbe": {}}),
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
        ),
        (
            json!({"readinessProbe": {"httpGet": {"port": 0}}}),
            "spec.containers[0].readinessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
    ];
    for (fields, want) in rows {
        refuses("Pod", container(fields), &[want]);
    }
}

#[test]
fn pod_specs_name_the_field_at_fault() {
    let rows: &[(Value, &str)] = &[
        (
            json!({"volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}]}),
            "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
        ),
        (
            json!({"tolerations": [{"key": "k", "operator": "Exists", "value": "v"}]}),
            r#"spec.tolerations[0].operator: Invalid value: "v": value must be empty when `operator` is 'Exists'"#,
        ),
        (
            json!({"hostAliases": [{"ip": "nope"}]}),
            r#"spec.hostAliases[0].ip: Invalid value: "nope": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"#,
        ),
        (
            json!({"dnsPolicy": "None"}),
            "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
        ),
        (
            json!({"securityContext": {"runAsUser": -1}}),
            "spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
        ),
        (
            json!({"ephemeralContainers": [{"name": "e", "image": "i"}]}),
            "spec.ephemeralContainers: Forbidden: cannot be set on create",
        ),
        (
            json!({"schedulingGates": [{"name": "a.b/c"}], "nodeName": "n"}),
            "spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared",
        ),
    ];
    for (fields, want) in rows {
        refuses("Pod", pod(fields), &[want]);
    }
}

#[test]
fn pods_change_in_few_fields() {
    let mut image = pod(&json!({}));
    image["spec"]["containers"][0]["image"] = json!("j");
    image["spec"]["containers"][0]["imagePullPolicy"] = json!("Always");
    refuses_change("Pod", pod(&json!({})), image, &[]);
    refuses_change(
        "Pod",
        pod(&json!({"activeDeadlineSeconds": 10})),
        pod(&json!({"activeDeadlineSeconds": 20})),
        &["spec.activeDeadlineSeconds: Invalid value: 20: must be less than or equal to previous value"],
    );
}

#[test]
fn a_resize_takes_memory_away_only_where_the_container_starts_anew() {
    let of = |memory: &str, policy: &str| {
        let resources = json!({"limits": {"memory": memory}, "requests": {"memory": "1Mi"}});
        let policy = json!([{"resourceName": "memory", "restartPolicy": policy}]);
        let container = json!({"name": "c", "image": "i", "resources": resources, "resizePolicy": policy});
        let mut pod = whole("Pod", pod(&json!({"containers": [container]})));
        defaults::apply(&mut pod, &kind("Pod"));
        pod["metadata"]["resourceVersion"] = json!("1");
        pod
    };
    let less = "spec.containers[0].resources.limits[memory]: Forbidden: memory limits cannot be decreased unless resizePolicy is RestartContainer";
    for (memory, policy, want) in [
        ("32Mi", "NotRequired", Some(less)),
        ("32Mi", "RestartContainer", None),
        ("0.0625Gi", "NotRequired", None),
        ("128Mi", "NotRequired", None),
    ] {
        let (new, old) = (of(memory, policy), of("64Mi", policy));
        let faults = super::update(&new, &old, &kind("Pod"), "resize", ALL, &mut Vec::new());
        let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(told, want.into_iter().collect::<Vec<_>>(), "{memory} {policy}");
    }
}

#[test]
fn other_kinds_name_the_field_at_fault() {
    let rows: &[(&str, Value, &str)] = &[
        ("ConfigMap", json!({"data": {"..": "x"}}), r#"data[..]: Invalid value: "..": must not be '..'"#),
        (
            "Secret",
            json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}),
            "data[tls.key]: Required value",
        ),
        (
            "Deployment",
            json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template(&json!({"a": "c"}))}}),
            r#"spec.template.metadata.labels: Invalid value: {"a":"c"}: `selector` does not match template `labels`"#,
        ),
        (
            "Service",
            json!({"spec": {"ports": [{"port": 0, "targetPort": 1}]}}),
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        (
            "Role",
            json!({"rules": [{"verbs": ["get"], "resources": ["pods"]}]}),
            "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
        ),
        (
            "Lease",
            json!({"spec": {"leaseDurationSeconds": 0}}),
            "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
        ),
        (
            "Ingress",
            json!({"spec": {}}),
            "spec: Invalid value: null: either `defaultBackend` or `rules` must be specified",
        ),
        (
            "PriorityClass",
            json!({"value": 2_000_000_000}),
            "value: Forbidden: maximum allowed value of a user defined priority is 1000000000",
        ),
    ];
    for (kind, object, want) in rows {
        refuses(kind, object.clone(), &[want]);
    }
    refuses_change(
        "Secret",
        json!({}),
        json!({"type": "other"}),
        &[r#"type: Invalid value: "other": field is immutable"#],
    );
    let frozen = json!({"immutable": true, "data": {"a": "b"}});
    refuses_change(
        "ConfigMap",
        frozen,
        json!({"immutable": true, "data": {"a": "c"}}),
        &["data: Forbidden: field is immutable when `immutable` is set"],
    );
}

#[test]
fn faults_of_an_update_are_told_as_often_as_kubernetes_looks_for_them() {
    let bad = json!({"metadata": {"labels": {"a": "!"}, "finalizers": ["b c"]}});
    // Kinds, and how often labels, finalizers and finalizers without a domain are told.
    for (name, want) in [
        ("ConfigMap", [4, 2, 2]),
        ("Deployment", [3, 1, 1]),
        ("LimitRange", [3, 2, 1]),
        ("PersistentVolumeClaim", [5, 3, 3]),
        ("Role", [5, 3, 3]),
        ("PodDisruptionBudget", [2, 1, 0]),
        ("Lease", [3, 1, 1]),
    ] {
        let mut faults = Vec::new();
        super::meta::update(&bad, &json!({"metadata": {}}), &kind(name), "", &mut faults);
        let told = |field: &str, detail: &str| {
            faults.iter().filter(|fault| fault.field == field && fault.detail.contains(detail)).count()
        };
        let found = [
            told("metadata.labels", "a valid label must"),
            told("metadata.finalizers", "name part must consist"),
            told("metadata.finalizers[0]", "neither a standard"),
        ];
        assert_eq!(found, want, "{name}");
    }
}

#[test]
fn counters_of_a_status_only_grow() {
    refuses_write(
        "DaemonSet",
        "status",
        json!({"status": {"collisionCount": 1}}),
        json!({"status": {"collisionCount": -1}}),
        &[
            "status.collisionCount: Invalid value: -1: must be greater than or equal to 0",
            "status.collisionCount: Invalid value: -1: cannot be decremented",
        ],
    );
    let job = |status: Value| json!({"spec": {"completions": 1, "parallelism": 1}, "status": status});
    refuses_write(
        "Job",
        "status",
        job(json!({"succeeded": 1})),
        job(json!({})),
        &["status.succeeded: Invalid value: 0: cannot decrease the succeeded counter"],
    );
    let class = json!({"provisioner": "a/b", "volumeBindingMode": "Immediate", "reclaimPolicy": "Retain"});
    let mut other = class.clone();
    other["reclaimPolicy"] = json!("Odd");
    refuses_change(
        "StorageClass",
        class,
        other,
        &[
            r#"reclaimPolicy: Unsupported value: "Odd": supported values: "Delete", "Retain""#,
            "reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden.",
        ],
    );
}

#[test]
fn a_selector_that_is_refused_is_not_held_against_the_template_and_none_matches_nothing() {
    let set =
        |selector: Value| json!({"spec": {"selector": selector, "template": template(&json!({"a": "b"}))}});
    let wrong = json!({"matchExpressions": [{"key": "a", "operator": "Odd"}], "matchLabels": {"a": "c"}});
    refuses(
        "DaemonSet",
        set(wrong),
        &[
            r#"spec.selector.matchExpressions[0].operator: Invalid value: "Odd": not a valid selector operator"#,
        ],
    );
    refuses(
        "DaemonSet",
        set(Value::Null),
        &[
            r#"spec.template.metadata.labels: Invalid value: {"a":"b"}: `selector` does not match template `labels`"#,
        ],
    );
}

#[test]
fn doubtful_fields_are_warned_of() {
    let ingress = json!({"metadata": {"name": "i", "annotations": {"kubernetes.io/ingress.class": "x"}}});
    let told = super::warnings(&ingress, None, &kind("Ingress"));
    assert_eq!(
        told,
        [
            "annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead"
        ]
    );
}

#[test]
fn api_services_are_named_after_their_group_version() {
    let service = |spec: Value| json!({"metadata": {"name": "v1.a.io"}, "spec": spec});
    let rows = [
        (
            json!({"group": "b.io", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1}),
            vec![
                r#"metadata.name: Invalid value: "v1.a.io": must be `spec.version+"."+spec.group`: "v1.b.io""#,
            ],
        ),
        (
            json!({"group": "a.io", "version": "v1", "groupPriorityMinimum": 20001, "caBundle": "YWFh"}),
            vec![
                "spec.groupPriorityMinimum: Invalid value: 20001: must be positive and less than 20000",
                "spec.versionPriority: Invalid value: 0: must be positive and less than 1000",
                r#"spec.caBundle: Invalid value: "3 bytes": local APIServices may not have a caBundle"#,
            ],
        ),
        (
            json!({"group": "a.io", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1,
                "service": {"name": "s"}, "caBundle": "YWFh", "insecureSkipTLSVerify": true}),
            vec![
                "spec.service.namespace: Required value",
                "spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present",
            ],
        ),
    ];
    for (spec, want) in rows {
        refuses("APIService", service(spec), &want);
    }
}
