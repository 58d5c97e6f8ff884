//! What survives create and update, kind by kind.

use super::*;
use crate::kinds::{Kind, Subresource};

fn kind(name: &str, subresources: &[&str]) -> Kind {
    let sub = |name: &&str| Subresource {
        name: (*name).to_owned(),
        group: String::new(),
        version: "v1".to_owned(),
        kind: String::new(),
        verbs: Vec::new(),
    };
    Kind {
        group: String::new(),
        version: "v1".to_owned(),
        kind: name.to_owned(),
        plural: String::new(),
        singular: String::new(),
        short_names: Vec::new(),
        categories: Vec::new(),
        namespaced: true,
        verbs: Vec::new(),
        subresources: subresources.iter().map(sub).collect(),
        storage_version: String::new(),
        definition: String::new(),
        custom: None,
    }
}

#[test]
fn status_is_the_servers_on_create_and_kept_on_update() {
    let deployment = kind("Deployment", &["status"]);
    let mut new = json!({"metadata": {"name": "d"}, "spec": {"replicas": 1}, "status": {"replicas": 9}});
    prepare_create(&mut new, &deployment);
    assert_eq!(
        new,
        json!({"metadata": {"name": "d", "generation": 1}, "spec": {"replicas": 1}, "status": {}})
    );
    let old = json!({"metadata": {"uid": "u", "generation": 1}, "spec": {"replicas": 1}, "status": {"replicas": 1}});
    let mut new = json!({"metadata": {}, "spec": {"replicas": 2}, "status": {}});
    prepare_update(&mut new, &old, &deployment, "");
    assert_eq!(
        new,
        json!({"metadata": {"uid": "u", "generation": 2}, "spec": {"replicas": 2}, "status": {"replicas": 1}})
    );
}

#[test]
fn a_status_write_leaves_the_spec_alone() {
    let old = json!({"metadata": {"generation": 3, "labels": {"a": "b"}}, "spec": {"replicas": 1}});
    let mut new =
        json!({"metadata": {"labels": {"a": "c"}}, "spec": {"replicas": 5}, "status": {"replicas": 1}});
    prepare_update(&mut new, &old, &kind("Deployment", &["status"]), "status");
    assert_eq!(
        new,
        json!({"metadata": {"generation": 3, "labels": {"a": "b"}}, "spec": {"replicas": 1}, "status": {"replicas": 1}})
    );
}

#[test]
fn absent_null_and_empty_are_the_same_spec() {
    assert!(same(&json!({"a": null, "b": [], "c": {"d": null}}), &json!({})));
    assert!(!same(&json!({"a": 0}), &json!({})));
}

#[test]
fn pods_start_pending_with_their_class() {
    let pod = kind("Pod", &["status"]);
    for (resources, class) in [
        (json!({}), "BestEffort"),
        (json!({"requests": {"cpu": "1"}}), "Burstable"),
        (
            json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1000m", "memory": "1Gi"}}),
            "Guaranteed",
        ),
    ] {
        let mut object = json!({"metadata": {}, "spec": {"containers": [{"resources": resources}]}});
        prepare_create(&mut object, &pod);
        assert_eq!(object["status"], json!({"phase": "Pending", "qosClass": class}));
    }
}

#[test]
fn jobs_select_by_uid() {
    let mut job = json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": {"metadata": {}}}});
    prepare_create(&mut job, &kind("Job", &["status"]));
    assert_eq!(job["spec"]["selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}}));
    read_back(&mut job, &kind("Job", &["status"]));
    assert_eq!(job["metadata"]["labels"]["job-name"], "j");
}

#[test]
fn a_service_put_without_allocations_keeps_them() {
    let old = json!({"metadata": {}, "spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
        "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}]}});
    let mut new =
        json!({"metadata": {}, "spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]}});
    prepare_update(&mut new, &old, &kind("Service", &["status"]), "");
    assert_eq!(new["spec"], old["spec"]);
    let mut external = json!({"metadata": {}, "spec": {"type": "ClusterIP", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
        "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}]}});
    prepare_update(&mut external, &old, &kind("Service", &["status"]), "");
    assert_eq!(external["spec"]["ports"], json!([{"port": 80, "protocol": "TCP"}]));
    let mut fewer = json!({"metadata": {}, "spec": {"type": "ClusterIP", "ports": []}});
    let mut two = old.clone();
    two["spec"]["ports"] =
        json!([{"name": "a", "port": 80, "nodePort": 30001}, {"name": "b", "port": 81, "nodePort": 30002}]);
    fewer["spec"]["ports"] = json!([{"name": "a", "port": 80, "nodePort": 30001}]);
    prepare_update(&mut fewer, &two, &kind("Service", &["status"]), "");
    assert_eq!(fewer["spec"]["ports"], json!([{"name": "a", "port": 80}]), "the others of them go as well");
    let mut other = json!({"metadata": {}, "spec": {"type": "NodePort", "clusterIP": "10.0.0.2", "ports": [{"name": "other", "port": 80, "protocol": "TCP"}]}});
    prepare_update(&mut other, &old, &kind("Service", &["status"]), "");
    assert_eq!(other["spec"]["ports"][0]["nodePort"], Value::Null, "a port is known by its name");
    assert_eq!(other["spec"]["clusterIPs"], json!(["10.0.0.2"]), "who knows of one address changes both");
    let mut balanced = json!({"metadata": {}, "spec": {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"port": 80, "protocol": "TCP"}]}});
    prepare_update(&mut balanced, &old, &kind("Service", &["status"]), "");
    assert_eq!(balanced["spec"]["ports"][0]["nodePort"], Value::Null, "who wants none is given none back");
    // However many they are: a port is looked for by its name, and found at once.
    let ports = |with: &dyn Fn(usize) -> Value| -> Value { (0..20_000).rev().map(with).collect() };
    let named = |n: usize| json!({"name": format!("p{n}"), "port": n + 1, "protocol": "TCP"});
    let mut old = old;
    old["spec"]["ports"] = ports(&|n| {
        let mut port = named(n);
        port["nodePort"] = json!(n + 30_000);
        port
    });
    let mut new = json!({"metadata": {}, "spec": {"type": "NodePort", "ports": ports(&named)}});
    new["spec"]["ports"][0]["port"] = json!(65_535);
    prepare_update(&mut new, &old, &kind("Service", &["status"]), "");
    old["spec"]["ports"][0]["port"] = json!(65_535);
    assert_eq!(new["spec"]["ports"], old["spec"]["ports"]);
}

#[test]
fn propagation_and_update_switches_come_from_the_rows() {
    assert_eq!(of(&kind("Job", &[])).default_propagation, "Orphan");
    assert!(of(&kind("Pod", &[])).graceful_delete);
    assert!(
        of(&kind("Lease", &[])).allow_create_on_update && !of(&kind("Lease", &[])).allow_unconditional_update
    );
}

#[test]
fn slices_lose_their_own_topology_and_requests_for_certificates_tell_who_asks() {
    let mut slice = json!({"endpoints": [{"addresses": ["1.2.3.4"], "deprecatedTopology": {"a": "b"}}]});
    let old = slice.clone();
    prepare_update(&mut slice, &old, &kind("EndpointSlice", &[]), "");
    assert_eq!(slice["endpoints"], old["endpoints"], "older versions left it");
    prepare_create(&mut slice, &kind("EndpointSlice", &[]));
    assert_eq!(slice["endpoints"], json!([{"addresses": ["1.2.3.4"]}]));

    let user = json!({"username": "jane", "groups": ["dev"]});
    let user = || user.as_object().cloned().expect("fields");
    let mut request = json!({"spec": {"request": "", "username": "admin", "uid": "1"}});
    prepare_create_by(&mut request, &kind("CertificateSigningRequest", &[]), user);
    assert_eq!(request["spec"], json!({"request": "", "username": "jane", "groups": ["dev"]}));
    let mut map = json!({"spec": {"username": "x"}});
    prepare_create_by(&mut map, &kind("ConfigMap", &[]), user);
    assert_eq!(map["spec"], json!({"username": "x"}));
}

#[test]
fn finalizing_keeps_what_is_sent_of_a_namespace_but_its_status() {
    let old = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
    let mut new = json!({"metadata": {"labels": {"c": "d"}}, "spec": {}, "status": {"phase": "Terminating"}});
    prepare_update(&mut new, &old, &kind("Namespace", &["finalize", "status"]), "finalize");
    assert_eq!(new["metadata"]["labels"], json!({"c": "d"}));
    assert_eq!((&new["spec"], &new["status"]), (&json!({}), &old["status"]));
}

#[test]
fn a_resize_that_adds_containers_is_left_to_validation() {
    let pod = |names: &[&str]| {
        let all: Vec<_> = names.iter().map(|name| json!({"name": name, "image": "i"})).collect();
        json!({"metadata": {}, "spec": {"containers": all, "hostname": "h"}})
    };
    for (sent, kept) in [(vec!["a", "b"], vec!["a", "b"]), (vec!["b"], vec!["b"]), (vec!["a"], vec!["a"])] {
        let mut new = pod(&sent);
        prepare_update(&mut new, &pod(&["a"]), &kind("Pod", &["resize"]), "resize");
        let names: Vec<_> = new["spec"]["containers"].as_array().expect("a list").iter().collect();
        assert_eq!(names.iter().map(|own| own["name"].as_str().expect("a name")).collect::<Vec<_>>(), kept);
    }
}

#[test]
fn a_claim_names_its_source_twice_and_forgets_one_that_nobody_knew() {
    let claims = kind("PersistentVolumeClaim", &["status"]);
    let known = json!({"kind": "PersistentVolumeClaim", "name": "c"});
    let other = json!({"apiGroup": "a.b", "kind": "Populator", "name": "p"});
    // Source and reference as sent, whether the stored claim has a source, and what they are kept as.
    for (source, reference, had_one, kept) in [
        (&known, &Value::Null, false, (&known, &known)),
        (&other, &Value::Null, false, (&Value::Null, &Value::Null)),
        (&other, &Value::Null, true, (&other, &other)),
        (&Value::Null, &other, false, (&other, &other)),
        (&json!({}), &Value::Null, false, (&Value::Null, &Value::Null)),
    ] {
        let mut new = json!({"metadata": {}, "spec": {"dataSource": source, "dataSourceRef": reference}});
        if had_one {
            let old = json!({"metadata": {}, "spec": {"dataSource": known}});
            prepare_update(&mut new, &old, &claims, "");
        } else {
            prepare_create(&mut new, &claims);
        }
        assert_eq!((&new["spec"]["dataSource"], &new["spec"]["dataSourceRef"]), kept, "{source} {reference}");
    }
}

#[test]
fn what_belongs_to_features_that_are_off_is_dropped_unless_it_is_there_already() {
    let spec = || {
        json!({"volumes": [{"name": "i", "image": {"reference": "r"}},
                {"name": "p", "projected": {"sources": [{"clusterTrustBundle": {"name": "n", "path": "x"}}]}}],
            "resources": {"limits": {"cpu": "1"}}, "resourceClaims": [{"name": "r", "resourceClaimName": "x"}],
            "containers": [{"name": "c", "volumeMounts": [{"name": "i"}, {"name": "p"}], "lifecycle": {"stopSignal": "SIGINT"}},
                {"name": "d", "volumeMounts": [{"name": "i"}], "resources": {"claims": [{"name": "r"}]}}]})
    };
    let dropped = json!({"volumes": [{"name": "p", "projected": {"sources": [{}]}}],
        "containers": [{"name": "c", "volumeMounts": [{"name": "p"}]}, {"name": "d", "resources": {}}]});
    for (kind, place) in [
        ("Pod", "/spec"),
        ("PodTemplate", "/template/spec"),
        ("Deployment", "/spec/template/spec"),
        ("CronJob", "/spec/jobTemplate/spec/template/spec"),
    ] {
        let object = |spec: Value| {
            place.rsplit('/').filter(|step| !step.is_empty()).fold(spec, |inner, step| json!({step: inner}))
        };
        let mut new = object(spec());
        super::disabled::drop_disabled(&mut new, None, kind);
        assert_eq!(new.pointer(place), Some(&dropped), "{kind}");
        let mut new = object(spec());
        super::disabled::drop_disabled(&mut new, Some(&object(spec())), kind);
        assert_eq!(new.pointer(place), Some(&spec()), "{kind} that has it");
    }
}

#[test]
fn other_statuses_have_nothing_of_features_that_are_off_unless_they_had_it_before() {
    for (name, field) in [("PersistentVolumeClaim", "modifyVolumeStatus"), ("Node", "config")] {
        let kind = crate::kinds::by_gvk("v1", name).expect(name);
        let with = json!({"metadata": {}, "status": {"phase": "x", field: {}}});
        let without = json!({"metadata": {}, "status": {"phase": "x"}});
        for (old, want) in [(&with, &with), (&without, &without)] {
            let mut new = with.clone();
            stamp(&mut new, old, kind, "status", "now");
            assert_eq!(new["status"], want["status"], "{name}");
        }
    }
}

#[test]
fn a_pods_status_has_nothing_of_features_that_are_off_unless_it_had_it_before() {
    let pods = crate::kinds::by_gvk("v1", "Pod").expect("pods");
    let status = json!({"observedGeneration": 2, "qosClass": "BestEffort",
        "conditions": [{"type": "A", "observedGeneration": 2}], "resourceClaimStatuses": [{"name": "r"}],
        "containerStatuses": [{"name": "c", "allocatedResourcesStatus": [{"name": "claim:r"}]}]});
    let dropped = json!({"qosClass": "BestEffort", "conditions": [{"type": "A"}], "containerStatuses": [{"name": "c"}]});
    for (had, want) in [(false, &dropped), (true, &status)] {
        let spec = if had { json!({"resourceClaims": [{"name": "r"}]}) } else { json!({}) };
        let old =
            json!({"metadata": {}, "spec": spec, "status": if had { status.clone() } else { json!({}) }});
        let mut new = json!({"metadata": {}, "spec": spec, "status": status});
        prepare_update(&mut new, &old, pods, "status");
        stamp(&mut new, &old, pods, "status", "");
        let mut want = want.clone();
        want["containerStatuses"] = dropped["containerStatuses"].clone();
        assert_eq!(new["status"], want);
    }
}

#[test]
fn claims_of_a_set_are_claims_whatever_they_say() {
    let mut set = json!({"spec": {"volumeClaimTemplates": [{"apiVersion": "v9", "kind": "Foo"}, {}]}});
    super::special::claim_templates(&mut set);
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim"});
    assert_eq!(set["spec"]["volumeClaimTemplates"], json!([claim, claim]));
}

#[test]
fn a_phase_begins_now_unless_the_writer_knows_better() {
    let volume = kind("PersistentVolume", &["status"]);
    let status = |phase: &str, time: Value| json!({"metadata": {}, "status": {"phase": phase, "lastPhaseTransitionTime": time}});
    for (phase, sent, want) in [
        ("Bound", json!("old"), "now"),
        ("Bound", Value::Null, "now"),
        ("Bound", json!("told"), "told"),
        ("Available", Value::Null, "old"),
        ("Available", json!("told"), "told"),
    ] {
        let (old, mut new) = (status("Available", json!("old")), status(phase, sent));
        prepare_update(&mut new, &old, &volume, "status");
        stamp(&mut new, &old, &volume, "status", "now");
        assert_eq!(new["status"]["lastPhaseTransitionTime"], want, "{phase}");
    }
}

#[test]
fn what_a_slice_loses_counts_as_a_change() {
    let old = json!({"metadata": {"generation": 1}, "endpoints": [{"addresses": ["10.0.0.1"]}]});
    let mut new =
        json!({"metadata": {}, "endpoints": [{"addresses": ["10.0.0.1"], "deprecatedTopology": {"a": "b"}}]});
    for _ in 0..2 {
        prepare_update(&mut new, &old, &kind("EndpointSlice", &[]), "");
    }
    stamp(&mut new, &old, &kind("EndpointSlice", &[]), "", "now");
    assert_eq!(new, json!({"metadata": {"generation": 2}, "endpoints": [{"addresses": ["10.0.0.1"]}]}));
}

#[test]
fn a_job_without_labels_shares_those_of_its_pods() {
    let job = kind("Job", &["status"]);
    let of = |own: Value, pods: Value| json!({"metadata": {"labels": own}, "spec": {"template": {"metadata": {"labels": pods}}}});
    let pods = json!({"a": "b"});
    assert!(shares_labels(&of(Value::Null, pods.clone()), &job));
    assert!(!shares_labels(&of(pods.clone(), pods.clone()), &job));
    assert!(!shares_labels(&of(Value::Null, Value::Null), &job));
    assert!(!shares_labels(&of(Value::Null, pods.clone()), &kind("Deployment", &[])));
    let mut object = of(pods, json!({"a": "b", "job-name": "j"}));
    share_labels(&mut object);
    assert_eq!(object["metadata"]["labels"], json!({"a": "b", "job-name": "j"}));
}

#[test]
fn what_nobody_comes_to_own_depends_on_the_path() {
    let owned = |kind_name: &str, path: &str| unowned(&kind(kind_name, &["status", "resize"]), path);
    assert_eq!(owned("Pod", ""), [["f:status"].as_slice()]);
    assert_eq!(owned("Pod", "resize"), [["f:status"].as_slice()]);
    assert_eq!(owned("Pod", "status").len(), 3);
    assert!(owned("ServiceCIDR", "").is_empty() && owned("ServiceCIDR", "status").is_empty());
    let first =
        |kind_name: &str, path: &str| is_prepared_first(&kind(kind_name, &["status", "resize"]), path);
    assert!(first("Pod", "status") && first("Pod", "binding") && !first("Pod", "resize"));
    assert!(!first("ServiceCIDR", "status"));
}

#[test]
fn a_job_keeps_the_selector_of_another_for_validation_to_refuse() {
    for (given, want) in
        [(Value::Null, "own"), (json!({"batch.kubernetes.io/controller-uid": "other"}), "other")]
    {
        let mut job =
            json!({"metadata": {"name": "j", "uid": "own"}, "spec": {"selector": {"matchLabels": given}}});
        prepare_create(&mut job, &kind("Job", &["status"]));
        assert_eq!(job["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"], want);
    }
}

#[test]
fn a_status_write_leaves_the_count_of_template_changes_alone() {
    const COUNT: &str = "deprecated.daemonset.template.generation";
    let kind = kind("DaemonSet", &["status"]);
    let old = json!({"metadata": {"annotations": {COUNT: "3"}}, "spec": {"template": {}}});
    let mut new = json!({"metadata": {"annotations": {"a": "b"}}, "spec": {"template": {}}, "status": {}});
    converted(&mut new, &kind);
    prepare_update(&mut new, &old, &kind, "status");
    stamp(&mut new, &old, &kind, "status", "");
    assert_eq!(new["metadata"]["annotations"][COUNT], "3");
}

#[test]
fn pods_end_after_a_second_at_least_and_jobs_get_their_labels_last() {
    let mut pod = json!({"spec": {"terminationGracePeriodSeconds": -3}});
    converted(&mut pod, &kind("Pod", &[]));
    assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 1);
    let (of, mut job) =
        (kind("Job", &[]), json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": {}}}));
    prepare_create(&mut job, &of);
    assert!(job["metadata"]["labels"].is_null(), "{job}");
    read_back(&mut job, &of);
    assert_eq!(job["metadata"]["labels"]["batch.kubernetes.io/job-name"], "j");
}

#[test]
fn tolerances_of_autoscalers_are_dropped_unless_there_are_some() {
    let kind = kind("HorizontalPodAutoscaler", &["status"]);
    let with = || json!({"spec": {"behavior": {"scaleUp": {"tolerance": "100m", "selectPolicy": "Max"}}}});
    let mut new = with();
    prepare_create(&mut new, &kind);
    assert_eq!(new["spec"], json!({"behavior": {"scaleUp": {"selectPolicy": "Max"}}}));
    let mut kept = with();
    prepare_update(&mut kept, &with(), &kind, "");
    assert_eq!(kept["spec"], with()["spec"]);
}

#[test]
fn what_belongs_to_features_that_are_off_is_not_kept() {
    let slice =
        |hints: Value| json!({"metadata": {}, "endpoints": [{"addresses": ["10.0.0.1"], "hints": hints}]});
    let mut made = slice(json!({"forNodes": [{"name": "n"}]}));
    prepare_create(&mut made, &kind("EndpointSlice", &[]));
    assert_eq!(made["endpoints"][0]["hints"], json!({}));
    let old = slice(json!({"forNodes": [{"name": "n"}]}));
    let mut kept = old.clone();
    prepare_update(&mut kept, &old, &kind("EndpointSlice", &[]), "");
    assert_eq!(kept["endpoints"], old["endpoints"], "what is there already stays");
    let attachment = |error: Value| json!({"metadata": {}, "spec": {}, "status": {"attached": false, "attachError": error}});
    let old = attachment(json!({"message": "m"}));
    let mut failed = attachment(json!({"message": "m", "errorCode": 7}));
    stamp(&mut failed, &old, &kind("VolumeAttachment", &["status"]), "status", "now");
    assert_eq!(failed, old);
    let set =
        |rolling: Value| json!({"metadata": {}, "spec": {"updateStrategy": {"rollingUpdate": rolling}}});
    let mut made = set(json!({"partition": 1, "maxUnavailable": 2}));
    prepare_create(&mut made, &kind("StatefulSet", &[]));
    assert_eq!(made["spec"], set(json!({"partition": 1}))["spec"]);
    let mut node = json!({"metadata": {}, "spec": {}, "status": {"config": {"error": "e"}}});
    prepare_create(&mut node, &kind("Node", &[]));
    assert_eq!(node["status"], json!({}));
    let replicas = |status: Value| json!({"metadata": {}, "spec": {}, "status": status});
    for name in ["Deployment", "ReplicaSet"] {
        let old = replicas(json!({"replicas": 1}));
        let mut ending = replicas(json!({"replicas": 1, "terminatingReplicas": 1}));
        stamp(&mut ending, &old, &kind(name, &["status"]), "status", "now");
        assert_eq!(ending, old);
    }
}

#[test]
fn a_request_for_a_certificate_has_no_conditions_where_none_are_told() {
    let old = json!({"metadata": {}, "spec": {}, "status": {}});
    let mut new = old.clone();
    prepare_update(&mut new, &old, &kind("CertificateSigningRequest", &["status"]), "status");
    stamp(&mut new, &old, &kind("CertificateSigningRequest", &["status"]), "status", "now");
    assert_eq!(new["status"], json!({}));
}

#[test]
fn nobody_owns_what_a_write_about_a_request_for_a_certificate_leaves() {
    let request = kind("CertificateSigningRequest", &["approval", "status"]);
    let spec: &[&str] = &["f:spec"];
    for (subresource, other) in [
        ("", &["f:status"][..]),
        ("status", &["f:status", "f:conditions"]),
        ("approval", &["f:status", "f:certificate"]),
    ] {
        assert_eq!(unowned(&request, subresource), [spec, other], "{subresource}");
    }
}
