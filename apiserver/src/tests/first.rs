//! What holds from the first moment at which a server says that it is ready.

use super::{Fixture, certificate};
use axum::body::Body;
use coracle_etcd::memory::MemoryKv;
use http::Request;
use serde_json::json;

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
