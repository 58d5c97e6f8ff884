//! Each warning by an object that earns it.

use super::all;
use serde_json::{Value, json};

fn check(kind: &str, object: &Value, want: &[&str]) {
    assert_eq!(all(object, None, kind), want, "{object}");
}

fn pod(spec: &Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": spec})
}

#[test]
fn pods_are_warned_of_labels_that_moved_and_selectors_that_select_nothing() {
    let term = json!({"matchExpressions": [{"key": "beta.kubernetes.io/os", "operator": "Exists"}]});
    let spec = json!({
        "nodeSelector": {"node-role.kubernetes.io/master": ""},
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]},
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": term}]},
            "podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "x"}],
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": {"topologyKey": "x"}}]}},
        "topologySpreadConstraints": [{"topologyKey": "failure-domain.beta.kubernetes.io/zone"}]});
    let moved = "beta.kubernetes.io/os is deprecated since v1.14; use \"kubernetes.io/os\" instead";
    check(
        "Pod",
        &pod(&spec),
        &[
            "spec.nodeSelector[node-role.kubernetes.io/master]: use \"node-role.kubernetes.io/control-plane\" instead",
            &format!(
                "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].key: {moved}"
            ),
            &format!(
                "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].key: {moved}"
            ),
            "spec.topologySpreadConstraints[0].topologyKey: failure-domain.beta.kubernetes.io/zone is deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
            "spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
            "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector: a null labelSelector results in matching no pod",
            "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.labelSelector: a null labelSelector results in matching no pod",
        ],
    );
}

#[test]
fn pods_are_warned_of_volumes_annotations_amounts_and_what_stands_twice() {
    let object = json!({
        "metadata": {"name": "p", "annotations": {"scheduler.alpha.kubernetes.io/critical-pod": "",
            "seccomp.security.alpha.kubernetes.io/pod": "x", "container.apparmor.security.beta.kubernetes.io/c": "y"}},
        "spec": {
            "volumes": [{"name": "a", "storageos": {}}, {"name": "g", "gitRepo": {}}],
            "hostAliases": [{"ip": "1.2.3.4"}, {"ip": "1.2.3.4"}],
            "dnsConfig": {"nameservers": ["010.0.0.1"]},
            "imagePullSecrets": [{"name": "s"}, {"name": "s"}, {}],
            "containers": [{"name": "c", "resources": {"limits": {"memory": "100m"}},
                "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}, {"name": "A", "value": "$(A)"}]}],
            "terminationGracePeriodSeconds": -1}});
    check(
        "Pod",
        &object,
        &[
            "metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; use the \"priorityClassName\" field instead",
            "spec.volumes[0].storageOS: deprecated in v1.22, non-functional in v1.25+",
            "spec.volumes[1].gitRepo: deprecated in v1.11, and disabled by default in v1.33+",
            "spec.hostAliases[1].ip: duplicate ip \"1.2.3.4\"",
            "spec.imagePullSecrets[1].name: duplicate name \"s\"",
            "spec.imagePullSecrets[2].name: invalid empty name \"\"",
            "metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]: non-functional in v1.27+; use the \"seccompProfile\" field instead",
            "spec.containers[0].resources.limits[memory]: fractional byte value \"100m\" is invalid, must be an integer",
            "spec.containers[0].env[2]: hides previous definition of \"A\", which may be dropped when using apply",
            "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
            "spec.dnsConfig.nameservers[0]: non-standard IP address \"010.0.0.1\" will be considered invalid in a future Kubernetes release: use \"10.0.0.1\"",
        ],
    );
}

#[test]
fn templates_are_warned_of_profiles_in_annotations_which_pods_are_before() {
    let pod = json!({"metadata": {"name": "p", "annotations": {"container.apparmor.security.beta.kubernetes.io/c": "y"}},
        "spec": {"containers": [{"name": "c"}]}});
    check("Pod", &pod, &[]);
    let warning = "spec.template.metadata.annotations[container.apparmor.security.beta.kubernetes.io/c]: deprecated since v1.30; use the \"appArmorProfile\" field instead";
    check("ReplicaSet", &json!({"metadata": {"name": "s"}, "spec": {"template": pod}}), &[warning]);
}

#[test]
fn pods_are_warned_of_files_of_volumes_that_stand_on_each_other() {
    let items = |paths: &[&str]| -> Value { paths.iter().map(|path| json!({"path": path})).collect() };
    let volumes = json!([
        {"name": "a", "configMap": {"name": "m", "items": items(&["x", "x/y", "xy"])}},
        {"name": "b", "secret": {"secretName": "s", "items": items(&["x/", "x"])}},
        {"name": "c", "downwardAPI": {"items": items(&["x", "x"])}},
        {"name": "d", "projected": {"sources": [
            {"serviceAccountToken": {"path": "t"}},
            {"secret": {"name": "s", "items": items(&["t"])}},
            {"configMap": {"name": "m", "items": items(&["z"])}},
            {"clusterTrustBundle": {"signerName": "e.com/s", "path": "z/c"}},
            {},
            // Without a list of its own it counts as the one before.
            {"configMap": {"name": "whole"}}]}}]);
    check(
        "Pod",
        &pod(&json!({"volumes": volumes})),
        &[
            r#"volume "a" (ConfigMap "m"): overlapping paths: "x/y" with "x""#,
            r#"volume "b" (Secret "s"): overlapping paths: "x" with "x""#,
            r#"volume "c" (DownwardAPI): overlapping paths: "x" with "x""#,
            r#"volume "d" (Projected): overlapping paths: "t" (Secret "s") with "t" (ServiceAccountToken)"#,
            r#"volume "d" (Projected): overlapping paths: "z/c" (ClusterTrustBundle "e.com/s") with "z" (ConfigMap "m")"#,
            r#"volume "d" (Projected) has no sources provided"#,
            r#"volume "d" (Projected): overlapping paths: "z/c" (ClusterTrustBundle "e.com/s") with "z" (ConfigMap "m")"#,
            r#"volume "d" (Projected): overlapping paths: "z/c" (ClusterTrustBundle "e.com/s") with "z/c" (ClusterTrustBundle "e.com/s")"#,
        ],
    );
}

#[test]
fn pods_are_warned_of_ports_that_get_in_each_others_way() {
    let port =
        |host: i64, ip: &str| json!({"containerPort": 80, "protocol": "TCP", "hostPort": host, "hostIP": ip});
    let spec = json!({"containers": [
        {"name": "a", "ports": [port(0, "1.2.3.4"), port(8080, "")]},
        {"name": "b", "ports": [port(8080, "1.2.3.4"), port(8080, "")]},
        {"name": "c", "ports": [{"containerPort": 1, "name": "n"}, {"containerPort": 2, "name": "n"}]}]});
    check(
        "Pod",
        &pod(&spec),
        &[
            "spec.containers[0].ports[0]: hostIP set without hostPort: {Name: HostPort:0 ContainerPort:80 Protocol:TCP HostIP:1.2.3.4}",
            "spec.containers[0].ports[1]: overlapping port definition with spec.containers[0].ports[0]",
            "spec.containers[1].ports[0]: overlapping port definition with spec.containers[0].ports[0]",
            "spec.containers[1].ports[0]: dangerously ambiguous port definition with spec.containers[0].ports[1]",
            "spec.containers[1].ports[1]: overlapping port definition with spec.containers[0].ports[0]",
            "spec.containers[1].ports[1]: duplicate port definition with spec.containers[0].ports[1]",
            "spec.containers[1].ports[1]: dangerously ambiguous port definition with spec.containers[1].ports[0]",
            "spec.containers[2].ports[1]: duplicate port name \"n\" with spec.containers[2].ports[0], services and probes that select ports by name will use spec.containers[2].ports[0]",
        ],
    );
}

#[test]
fn updates_are_warned_of_what_they_change_and_pods_never() {
    let odd = |replicas: i64| json!({"spec": {"replicas": replicas, "template": {"spec": {"terminationGracePeriodSeconds": -1}}}});
    assert_eq!(all(&odd(2), Some(&odd(1)), "Deployment").len(), 1);
    assert_eq!(all(&odd(1), Some(&odd(1)), "Deployment"), Vec::<String>::new());
    let mut noted = odd(1);
    noted["metadata"] = json!({"annotations": {"a": "b"}});
    // As generations go: Deployments count annotations, DaemonSets only what their pods are made of.
    for (kind, replicas, told) in
        [("Deployment", 1, 1), ("ReplicaSet", 1, 0), ("ReplicaSet", 2, 1), ("DaemonSet", 2, 0)]
    {
        assert_eq!(all(&noted, Some(&odd(replicas)), kind).len(), told, "{kind}");
    }
    let pod = pod(&json!({"terminationGracePeriodSeconds": -1}));
    assert_eq!(all(&pod, Some(&json!({"spec": {}})), "Pod"), Vec::<String>::new());
}

#[test]
fn services_and_endpoints_are_warned_of_addresses_and_fields_that_count_for_nothing() {
    let headless = json!({"spec": {"type": "ClusterIP", "clusterIP": "None", "loadBalancerIP": "1.2.3.4",
        "externalIPs": ["010.0.0.1"], "sessionAffinity": "ClientIP", "externalName": "x"},
        "metadata": {"annotations": {"service.kubernetes.io/topology-aware-hints": "auto"}}});
    check(
        "Service",
        &headless,
        &[
            "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use service.kubernetes.io/topology-mode instead",
            "spec.externalIPs[0]: non-standard IP address \"010.0.0.1\" will be considered invalid in a future Kubernetes release: use \"10.0.0.1\"",
            "spec.externalName is ignored when spec.type is not \"ExternalName\"",
        ],
    );
    let dual = json!({"spec": {"type": "LoadBalancer", "clusterIP": "2001:DB8::1", "clusterIPs": ["2001:DB8::1"], "sessionAffinity": "None",
        "loadBalancerSourceRanges": ["10.0.0.1/8", "010.0.0.0/8", "2001:db8:0::/32", "::ffff:10.0.0.0/104"]}});
    check(
        "Service",
        &dual,
        &[
            "spec.clusterIPs[0]: IPv6 address \"2001:DB8::1\" should be in RFC 5952 canonical format (\"2001:db8::1\")",
            "spec.loadBalancerSourceRanges[0]: CIDR value \"10.0.0.1/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \"10.0.0.1/32\"?)",
            "spec.loadBalancerSourceRanges[1]: non-standard CIDR value \"010.0.0.0/8\" will be considered invalid in a future Kubernetes release: use \"10.0.0.0/8\"",
            "spec.loadBalancerSourceRanges[2]: IPv6 CIDR value \"2001:db8:0::/32\" should be in RFC 5952 canonical format (\"2001:db8::/32\")",
            "spec.loadBalancerSourceRanges[3]: non-standard CIDR value \"::ffff:10.0.0.0/104\" will be considered invalid in a future Kubernetes release: use \"10.0.0.0/8\"",
        ],
    );
    let endpoints = json!({"subsets": [{"addresses": [{"ip": "::ffff:1.2.3.4"}]}]});
    check(
        "Endpoints",
        &endpoints,
        &[
            "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
            "subsets[0].addresses[0].ip: non-standard IP address \"::ffff:1.2.3.4\" will be considered invalid in a future Kubernetes release: use \"1.2.3.4\"",
        ],
    );
    let slice = json!({"addressType": "IPv4", "endpoints": [{"addresses": ["1.2.3.04"]}]});
    assert_eq!(all(&slice, None, "EndpointSlice").len(), 1);
    let policy = json!({"spec": {"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.1/8"}}]}]}});
    assert!(
        all(&policy, None, "NetworkPolicy")[0].starts_with("spec.egress[0].to[0].ipBlock.cidr: CIDR value")
    );
}

#[test]
fn volumes_claims_classes_nodes_and_jobs_are_warned_of() {
    let class = "volume.beta.kubernetes.io/storage-class";
    let volume = json!({"metadata": {"annotations": {class: "x"}}, "spec": {"persistentVolumeReclaimPolicy": "Recycle", "scaleIO": {},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "beta.kubernetes.io/arch"}]}]}}}});
    check(
        "PersistentVolume",
        &volume,
        &[
            "metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use \"storageClassName\" attribute instead",
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.",
            "spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].key: beta.kubernetes.io/arch is deprecated since v1.14; use \"kubernetes.io/arch\" instead",
            "spec.scaleIO: deprecated in v1.16, non-functional in v1.22+",
        ],
    );
    check(
        "PersistentVolumeClaim",
        &json!({"spec": {"resources": {"requests": {"storage": "1500m"}}}}),
        &["spec.resources.requests[storage]: fractional byte value \"1500m\" is invalid, must be an integer"],
    );
    check(
        "StatefulSet",
        &json!({"spec": {"revisionHistoryLimit": -1, "volumeClaimTemplates": [{"spec": {"resources": {"requests": {"storage": "500m"}}}}]}}),
        &[
            "spec.volumeClaimTemplates[0].Spec.resources.requests[storage]: fractional byte value \"500m\" is invalid, must be an integer",
            "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended",
        ],
    );
    check(
        "RuntimeClass",
        &json!({"scheduling": {"nodeSelector": {"app.kubernetes.io/created-by": "x"}}}),
        &["scheduling.nodeSelector: deprecated since v1.9"],
    );
    check(
        "Node",
        &json!({"spec": {"externalID": "x"}}),
        &["spec.externalID: this field is deprecated, and is unused by Kubernetes"],
    );
    let job = json!({"spec": {"jobTemplate": {"spec": {"completionMode": "Indexed", "completions": 100_001, "parallelism": 10_001}}, "schedule": "TZ=UTC * * * * *"}});
    let told = all(&job, None, "CronJob");
    assert!(told[0].starts_with("spec.jobTemplate.spec: In Indexed Jobs with"), "{told:?}");
    assert!(
        told[1].starts_with("CRON_TZ or TZ used in spec.schedule is not officially supported"),
        "{told:?}"
    );
    check(
        "ServiceAccount",
        &json!({"metadata": {"annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}}}),
        &[
            "metadata.annotations[kubernetes.io/enforce-mountable-secrets]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets",
        ],
    );
}

#[test]
fn files_are_found_above_and_below_each_other_and_no_more_is_told_than_there_is_room_for() {
    let items = |paths: &[&str]| -> Vec<Value> {
        paths.iter().map(|path| json!({"key": "k", "path": path})).collect()
    };
    let volume = |items: Vec<Value>| {
        pod(&json!({"volumes": [{"name": "v", "secret": {"secretName": "s", "items": items}}]}))
    };
    let told = |one: &str, other: &str| {
        format!("volume \"v\" (Secret \"s\"): overlapping paths: {one:?} with {other:?}")
    };
    let all_told = all(&volume(items(&["a/b", "a/bc", "a-", "a/b/c/d", "a/", "a/b"])), None, "Pod");
    let want = [
        told("a/b/c/d", "a/b"),
        told("a", "a/b"),
        told("a", "a/bc"),
        told("a", "a/b/c/d"),
        told("a/b", "a/b"),
        told("a/b", "a/b/c/d"),
        told("a/b", "a"),
    ];
    assert_eq!(all_told, want);
    let paths: Vec<String> = (0..20_000).map(|n| n.to_string()).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    assert!(all(&volume(items(&paths)), None, "Pod").is_empty());
    assert_eq!(all(&volume(items(&vec!["a"; 5000])), None, "Pod").len(), 4096);
    let sources = |first: Vec<Value>| {
        let mut sources = vec![json!({"secret": {"name": "s", "items": first}})];
        sources.extend(vec![json!({"configMap": {"name": "m"}}); 5000]);
        pod(&json!({"volumes": [{"name": "v", "projected": {"sources": sources}}]}))
    };
    assert_eq!(all(&sources(items(&paths)), None, "Pod").len(), 4096);
    let ports = |port: Value| pod(&json!({"containers": [{"name": "c", "ports": vec![port; 5000]}]}));
    assert_eq!(all(&ports(json!({"containerPort": 80, "protocol": "TCP"})), None, "Pod").len(), 4096);
}
