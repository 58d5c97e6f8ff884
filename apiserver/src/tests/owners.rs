//! Who owns the fields of what the server itself makes.

use super::{Fixture, MAPS};
use coracle_etcd::memory::MemoryKv;
use serde_json::{Value, json};
use std::time::Duration;

/// Manager, operation and subresource of each owner.
fn owners(object: &Value) -> Vec<Value> {
    let owners = object["metadata"]["managedFields"].as_array().expect("owners");
    owners.iter().map(|owner| json!([owner["manager"], owner["operation"], owner["subresource"]])).collect()
}

#[tokio::test]
async fn flow_schemas_are_made_by_one_part_and_told_of_their_level_by_another() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let path = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/probes";
    let told = async {
        loop {
            let (_, schema) = fixture.call("GET", path, Value::Null).await;
            if schema["status"]["conditions"].is_array() {
                return schema;
            }
            tokio::task::yield_now().await;
        }
    };
    let schema = tokio::time::timeout(Duration::from_secs(20), told).await.expect("told");
    assert_eq!(
        owners(&schema),
        [
            json!(["api-priority-and-fairness-config-consumer-v1", "Apply", "status"]),
            json!(["api-priority-and-fairness-config-producer-v1", "Update", null]),
        ]
    );
    fixture.stop().await;
}

#[tokio::test]
async fn who_writes_an_empty_list_owns_it_though_it_is_stored_as_none() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let role = json!({"metadata": {"name": "r"}, "rules": []});
    let (code, made) = fixture.call("POST", roles, role.clone()).await;
    assert_eq!((code, &made["rules"]), (201, &Value::Null), "{made}");
    assert_eq!(made["metadata"]["managedFields"][0]["fieldsV1"], json!({"f:rules": {}}));
    // Written again it is what it was.
    let (code, same) = fixture.call("PUT", &format!("{roles}/r"), role).await;
    assert_eq!((code, same), (200, made));
    fixture.stop().await;
}

#[tokio::test]
async fn what_is_taken_away_and_comes_back_is_a_change_all_the_same() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let (map, dry) = (format!("{MAPS}/m"), format!("{MAPS}/m?dryRun=All&fieldManager=other"));
    fixture.call("POST", MAPS, super::map("m", "1")).await;
    for (namespace, wrote) in [(json!("default"), false), (json!(""), true), (Value::Null, true)] {
        let mut config = super::map("m", "1");
        config["apiVersion"] = json!("v1");
        config["kind"] = json!("ConfigMap");
        config["metadata"]["namespace"] = namespace.clone();
        let (code, told) = fixture.typed("PATCH", &dry, "application/apply-patch+yaml", config).await;
        assert_eq!((code, &told["metadata"]["namespace"]), (200, &json!("default")), "{told}");
        let owner = &told["metadata"]["managedFields"][0];
        assert_eq!(
            (owner["operation"].as_str(), owner["time"].is_string()),
            (Some("Apply"), wrote),
            "{told}"
        );
    }
    // A dry run shows what storing drops.
    let link = || json!({"metadata": {"selfLink": "/x"}});
    for (path, want) in [(&dry, json!("/x")), (&map, Value::Null)] {
        let (_, told) = fixture.typed("PATCH", path, "application/merge-patch+json", link()).await;
        assert_eq!(told["metadata"]["selfLink"], want, "{path}");
    }
    let (_, range) =
        fixture.call("GET", "/apis/networking.k8s.io/v1/servicecidrs/kubernetes", Value::Null).await;
    assert_eq!(
        owners(&range),
        [
            json!(["kubernetes-service-cidr-controller", "Apply", "status"]),
            json!(["kube-apiserver", "Update", null])
        ]
    );
    fixture.stop().await;
}

#[tokio::test]
async fn owners_that_are_named_twice_are_kept_once_and_warned_of() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "u", "controller": true});
    let owned = |twice: bool| {
        let mut map = super::map("m", "1");
        map["metadata"]["ownerReferences"] = json!(vec![owner.clone(); if twice { 2 } else { 1 }]);
        map
    };
    let path = format!("{MAPS}/m");
    for (method, path, kind, admitted) in [
        ("POST", MAPS, "application/json", false),
        ("PUT", &path, "application/json", false),
        ("PATCH", &path, "application/merge-patch+json", true),
    ] {
        for twice in [true, false] {
            let path = format!("{path}?dryRun={}", if method == "POST" && !twice { "All" } else { "" });
            let path = path.trim_end_matches("?dryRun=");
            let response = fixture.send(method, path, kind, owned(twice)).await;
            let told =
                response.headers().get("warning").map_or("", |told| told.to_str().expect("text")).to_owned();
            assert_eq!(told.contains("duplicate UID(s) observed: u"), twice, "{method} {told}");
            assert_eq!(told.contains("after mutating admission"), twice && admitted, "{method} {told}");
        }
        let (_, kept) = fixture.call("GET", &format!("{MAPS}/m"), Value::Null).await;
        assert_eq!(kept["metadata"]["ownerReferences"].as_array().map(Vec::len), Some(1), "{method} {kept}");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn the_status_of_a_range_is_anybodys() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let ranges = "/apis/networking.k8s.io/v1/servicecidrs";
    let range = json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.9.0.0/24"]},
        "status": {"conditions": [{"type": "Ready", "status": "False", "reason": "R", "message": "m",
            "lastTransitionTime": "2020-01-02T03:04:05Z"}]}});
    let (code, made) = fixture.call("POST", ranges, range).await;
    assert_eq!((code, &made["status"]["conditions"][0]["reason"]), (201, &json!("R")), "{made}");
    let patch = json!({"status": {"conditions": null}});
    let kind = "application/merge-patch+json";
    let (_, changed) = fixture.typed("PATCH", &format!("{ranges}/more"), kind, patch).await;
    assert!(changed["status"]["conditions"].is_null(), "{changed}");
    fixture.stop().await;
}

#[tokio::test]
async fn what_is_told_without_items_raises_the_generation_each_time_and_leaves_nothing() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let (json_type, merge) = ("application/json", "application/merge-patch+json");
    let apply = "application/apply-patch+yaml";
    let policies = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";
    let policy = |spec: Value| json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "n"}, "spec": spec});
    let bare = || policy(json!({"podSelector": {}}));
    assert_eq!(fixture.call("POST", policies, bare()).await.0, 201);
    let hooks = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    assert_eq!(fixture.call("POST", hooks, json!({"metadata": {"name": "h"}})).await.0, 201);
    let (one, hook) = (format!("{policies}/n"), format!("{hooks}/h"));
    let applied = format!("{one}?fieldManager=a&force=true");
    let empty = || json!({"podSelector": {}, "egress": []});
    let rows = [
        ("PUT", &one, json_type, policy(empty()), 2),
        ("PUT", &one, json_type, policy(empty()), 3),
        ("PUT", &one, json_type, bare(), 3),
        ("PATCH", &one, merge, json!({"spec": {"podSelector": {"matchLabels": {}}}}), 4),
        ("PATCH", &one, merge, json!({"metadata": {"labels": {"a": "b"}}}), 4),
        ("PATCH", &applied, apply, policy(empty()), 5),
        ("PATCH", &applied, apply, bare(), 5),
        ("PATCH", &hook, merge, json!({"webhooks": []}), 2),
        ("PATCH", &hook, merge, json!({"webhooks": []}), 3),
        ("PATCH", &hook, merge, json!({"webhooks": null}), 3),
    ];
    for (method, path, kind, body, want) in rows {
        let (code, changed) = fixture.typed(method, path, kind, body.clone()).await;
        assert_eq!((code, &changed["metadata"]["generation"]), (200, &json!(want)), "{body}: {changed}");
        assert!(changed["spec"].get("egress").is_none() && changed.get("webhooks").is_none(), "{changed}");
        let owned = changed["metadata"]["managedFields"].to_string();
        // Who applies owns all that it names.
        assert!(
            kind == apply || !owned.contains("f:egress") && !owned.contains("f:webhooks"),
            "{body}: {owned}"
        );
    }
    fixture.stop().await;
}

#[tokio::test]
async fn a_status_makes_services_and_nothing_else() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let conditions = json!([{"type": "A", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2020-01-01T00:00:00Z"}]);
    let apply = "application/apply-patch+yaml";
    let services = "/api/v1/namespaces/default/services";
    let config = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"ports": [{"port": 80}]}, "status": {"conditions": conditions}});
    let path = format!("{services}/s/status?fieldManager=a");
    let (code, made) = fixture.typed("PATCH", &path, apply, config).await;
    assert_eq!((code, owners(&made)), (201, vec![json!(["a", "Apply", "status"])]), "{made}");
    let owned = &made["metadata"]["managedFields"][0]["fieldsV1"];
    assert!(owned["f:status"]["f:conditions"].is_object() && owned["f:spec"].is_null(), "{made}");
    assert_eq!(made["spec"]["clusterIP"], Value::Null);
    // Its first update gives it an address.
    let (code, got) = fixture.call("PUT", &format!("{services}/s"), made).await;
    assert!(code == 200 && got["spec"]["clusterIP"].is_string(), "{got}");
    // What is wrong with a configuration is told of what is there.
    for (kind, plural) in [("PersistentVolumeClaim", "persistentvolumeclaims"), ("Pod", "pods")] {
        let config =
            json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "other"}, "status": {"odd": 1}});
        let path = format!("/api/v1/namespaces/default/{plural}/none/status?fieldManager=a");
        let (code, told) = fixture.typed("PATCH", &path, apply, config).await;
        assert_eq!((code, &told["reason"]), (404, &json!("NotFound")), "{told}");
    }
    fixture.stop().await;
}
