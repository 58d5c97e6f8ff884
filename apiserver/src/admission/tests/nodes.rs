//! What nodes may write.

use super::*;

const SERVING: &str = "kubernetes.io/kubelet-serving";

#[tokio::test(start_paused = true)]
async fn a_node_writes_only_about_itself() {
    let fake = world();
    let theirs = json!({"metadata": {"namespace": "a", "name": "theirs"}, "spec": {"nodeName": "n2"}});
    let node = |name: &str, labels: Value| json!({"metadata": {"name": name, "labels": labels}, "spec": {}});
    let cases = [
        (
            write(CREATE, "", "pods", "a", ""),
            pod("p", json!({"containers": []})),
            r#"pods "p" is forbidden: pod does not have "kubernetes.io/config.mirror" annotation, node "n1" can only create mirror pods"#,
        ),
        (
            write(DELETE, "", "pods", "a", "theirs").over(theirs.clone()),
            Value::Null,
            r#"pods "theirs" is forbidden: node "n1" can only delete pods with spec.nodeName set to itself"#,
        ),
        (
            write(UPDATE, "", "pods/status", "a", "theirs").over(theirs.clone()),
            theirs,
            r#"pods "theirs" is forbidden: node "n1" can only update pod status for pods with spec.nodeName set to itself"#,
        ),
        (
            write(CREATE, "", "nodes", "", ""),
            node("n2", json!({})),
            r#"nodes "n2" is forbidden: node "n1" is not allowed to modify node "n2""#,
        ),
        (
            write(CREATE, "", "nodes", "", ""),
            node(
                "n1",
                json!({"kubernetes.io/os": "linux", "node-role.kubernetes.io/control-plane": "", "mine/x": ""}),
            ),
            r#"nodes "n1" is forbidden: node "n1" is not allowed to set the following labels: node-role.kubernetes.io/control-plane"#,
        ),
        (
            write(UPDATE, "", "nodes", "", "n1")
                .over(json!({"metadata": {"name": "n1"}, "spec": {"taints": [{"key": "k"}]}})),
            node("n1", Value::Null),
            r#"nodes "n1" is forbidden: node "n1" is not allowed to modify taints"#,
        ),
        (
            write(CREATE, "coordination.k8s.io", "leases", "kube-node-lease", ""),
            json!({"metadata": {"name": "n2"}}),
            r#"leases.coordination.k8s.io "n2" is forbidden: can only access node lease with the same name as the requesting node"#,
        ),
        (
            write(CREATE, "", "serviceaccounts/token", "a", "default"),
            json!({"spec": {}}),
            r#"serviceaccounts "default" is forbidden: node requested token not bound to a pod"#,
        ),
    ];
    for (write, object, message) in cases {
        assert_eq!(write.by_node("n1").refused(&fake, object).await, message);
    }
    let own = write(CREATE, "", "nodes", "", "").by_node("n1");
    assert!(own.run(&fake, node("n1", json!({"kubernetes.io/os": "linux"}))).await.is_ok());
}

fn slice(node: &str) -> Value {
    json!({"metadata": {"name": "s"}, "spec": {"nodeName": node}})
}

fn claim(volume: &str, status: Value) -> Value {
    json!({"metadata": {"namespace": "a", "name": "c"}, "spec": {"volumeName": volume}, "status": status})
}

#[tokio::test(start_paused = true)]
async fn a_node_does_not_widen_what_it_may_read() {
    let fake = world();
    let theirs = json!({"metadata": {"namespace": "a", "name": "theirs"}, "spec": {"nodeName": "n2"}});
    let claiming = |claim: &str| {
        json!({"metadata": {"namespace": "a", "name": "mine"}, "spec": {"nodeName": "n1"},
        "status": {"resourceClaimStatuses": [{"name": "r", "resourceClaimName": claim}]}})
    };
    let cases = [
        (
            write(CREATE, "", "pods/eviction", "a", "gone"),
            json!({"metadata": {"name": "gone"}}),
            r#"pods "gone" not found"#,
        ),
        (
            write(UPDATE, "", "pods", "a", "mine").over(theirs.clone()),
            theirs,
            r#"pods "theirs" is forbidden: unexpected operation "UPDATE", node "n1" can only create and delete mirror pods"#,
        ),
        (
            write(UPDATE, "", "pods/status", "a", "mine").over(claiming("c1")),
            claiming("c2"),
            r#"pods "mine" is forbidden: node "n1" cannot update resource claim statues"#,
        ),
        (
            write(UPDATE, "", "persistentvolumeclaims/status", "a", "c").over(claim("v", json!({}))),
            claim("other", json!({"capacity": {"storage": "1Gi"}})),
            r#"persistentvolumeclaims "c" is forbidden: node "n1" is not allowed to update fields other than status.quantity and status.conditions"#,
        ),
        (
            write(CREATE, "resource.k8s.io", "resourceslices", "", ""),
            slice("n2"),
            r#"resourceslices.resource.k8s.io "s" is forbidden: can only create ResourceSlice with the same NodeName as the requesting node"#,
        ),
        (
            write(DELETE, "resource.k8s.io", "resourceslices", "", "s").over(slice("n2")),
            Value::Null,
            r#"resourceslices.resource.k8s.io "s" is forbidden: can only delete ResourceSlice with the same NodeName as the requesting node"#,
        ),
        (
            write(CREATE, "certificates.k8s.io", "certificatesigningrequests", "", ""),
            certificate(SERVING, rcgen::DnType::CommonName, "system:node:n2"),
            r#"certificatesigningrequests.certificates.k8s.io "c" is forbidden: can only create a node CSR with CN=system:node:n1"#,
        ),
    ];
    for (write, object, message) in cases {
        assert_eq!(write.by_node("n1").refused(&fake, object).await, message);
    }
    for (write, object) in [
        (
            write(UPDATE, "", "persistentvolumeclaims/status", "a", "c").over(claim("v", json!({}))),
            claim("v", json!({"capacity": {"storage": "1Gi"}})),
        ),
        (write(CREATE, "resource.k8s.io", "resourceslices", "", ""), slice("n1")),
        (
            write(CREATE, "certificates.k8s.io", "certificatesigningrequests", "", ""),
            certificate(SERVING, rcgen::DnType::CommonName, "system:node:n1"),
        ),
    ] {
        let told = write.by_node("n1").run(&fake, object).await;
        assert!(told.is_ok(), "{told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_gets_tokens_for_what_its_pods_name() {
    let fake = world();
    fake.put(
        "",
        "pods",
        json!({"metadata": {"namespace": "a", "name": "mine", "uid": "u"}, "spec": {"nodeName": "n1", "volumes": [
            {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}, {"serviceAccountToken": {"path": "v", "audience": "vault"}}]}},
            {"name": "c", "csi": {"driver": "d"}}]}}),
    );
    let driver = json!({"metadata": {"name": "d"}, "spec": {"tokenRequests": [{"audience": "driven"}]}});
    fake.put("storage.k8s.io", "csidrivers", driver);
    let asked = |audiences: &[&str]| {
        json!({"spec": {"audiences": audiences,
        "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "mine", "uid": "u"}}})
    };
    let cases: [(&[&str], &str); 5] = [
        (&[], ""),
        (&["vault"], ""),
        (&["driven"], ""),
        (&["x", "y"], "node may only request 0 or 1 audiences"),
        (
            &["x"],
            r#"audience "x" not found in pod spec volume, system:node:n1 is not authorized to request tokens for this audience"#,
        ),
    ];
    for (audiences, cause) in cases {
        let write = write(CREATE, "", "serviceaccounts/token", "a", "default").by_node("n1");
        let told = write.run(&fake, asked(audiences)).await.map(drop).map_err(|status| status.message);
        let refused = format!(r#"serviceaccounts "default" is forbidden: {cause}"#);
        assert_eq!(told, if cause.is_empty() { Ok(()) } else { Err(refused) }, "{audiences:?}");
    }
}
