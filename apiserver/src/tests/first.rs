//! What holds from the first moment at which a server says that it is ready.

use super::{Fixture, certificate};
use axum::body::Body;
use coracle_etcd::memory::MemoryKv;
use http::Request;
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test]
async fn whoever_waited_for_readiness_has_the_roles_of_the_addons() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("addons.json");
    let rbac = "rbac.authorization.k8s.io";
    let addons = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": "b"},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "r"},
            "subjects": [{"apiGroup": rbac, "kind": "User", "name": "part"}]},
        {"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRole", "metadata": {"name": "r"},
            "rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]}]},
    ]});
    std::fs::write(&file, addons.to_string()).expect("written");
    let kv = MemoryKv::default();
    let flags = [format!("--addons-file={}", file.display())];
    // Two that make them at once, and one that finds them made.
    let (one, other) = tokio::join!(Fixture::flagged(&kv, &flags), Fixture::flagged(&kv, &flags));
    let third = Fixture::flagged(&kv, &flags).await;
    for server in [one, other, third] {
        let request = Request::get("/api/v1/nodes").body(Body::empty()).expect("request");
        let answer = server.server.answer(Some(certificate("part", "parts")), request).await;
        assert_eq!(answer.status(), 200);
        let (_, role) = server.call("GET", &format!("/apis/{rbac}/v1/clusterroles/r"), json!(null)).await;
        assert_eq!(role["metadata"]["managedFields"][0]["manager"], "coracle");
        server.stop().await;
    }
}

#[tokio::test]
async fn a_server_tells_that_it_lives_and_since_when_uses_of_old_tokens_are_noted() {
    let kv = MemoryKv::default();
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
    let maps = "/api/v1/namespaces/kube-system/configmaps";
    let name = "kube-apiserver-legacy-service-account-token-tracking";
    let before = Fixture::over(&kv).await;
    let gone = json!({"metadata": {"name": "apiserver-gone",
        "labels": {"apiserver.kubernetes.io/identity": "kube-apiserver"}},
        "spec": {"holderIdentity": "x", "leaseDurationSeconds": 1, "renewTime": "2026-01-01T00:00:00.000000Z"}});
    assert_eq!(before.call("POST", leases, gone).await.0, 201);
    let stale = json!({"data": {"since": "yesterday"}});
    let merge = "application/merge-patch+json";
    let changed = async || before.typed("PATCH", &format!("{maps}/{name}"), merge, stale.clone()).await.0;
    until(async || changed().await == 200).await;
    before.stop().await;
    // One of another port is another one; what nobody renews goes.
    let port = ["--secure-port=7443".to_owned()];
    let (one, two) = tokio::join!(Fixture::over(&kv), Fixture::flagged(&kv, &port));
    let told = async || {
        one.call("GET", leases, Value::Null).await.1["items"].as_array().cloned().unwrap_or_default()
    };
    let label =
        |lease: &Value| lease["metadata"]["labels"]["apiserver.kubernetes.io/identity"] == "kube-apiserver";
    until(async || {
        let told = told().await;
        told.len() == 2 && told.iter().all(label)
    })
    .await;
    for lease in told().await {
        let (name, spec) = (lease["metadata"]["name"].as_str().unwrap_or_default(), &lease["spec"]);
        assert!(name.starts_with("apiserver-") && name.len() == 36, "{lease}");
        assert!(spec["holderIdentity"].as_str().is_some_and(|holder| holder.starts_with(name)), "{lease}");
        assert_eq!(spec["leaseDurationSeconds"], 3600);
        let entries = lease["metadata"]["managedFields"].as_array().map(Vec::len);
        assert_eq!(
            (entries, &lease["metadata"]["managedFields"][0]["manager"]),
            (Some(1), &json!("kube-apiserver"))
        );
    }
    let since =
        async || one.call("GET", &format!("{maps}/{name}"), Value::Null).await.1["data"]["since"].clone();
    until(async || since().await.as_str().is_some_and(|day| day.parse::<jiff::civil::Date>().is_ok())).await;
    one.stop().await;
    two.stop().await;
}

/// Waits until something holds.
async fn until(holds: impl AsyncFn() -> bool) {
    let held = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), held).await.expect("holds in time");
}
