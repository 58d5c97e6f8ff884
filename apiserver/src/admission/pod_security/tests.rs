//! The standards by table: a pod's spec in, the sentence of its refusal out.

use super::*;
use serde_json::json;

fn judge(level: &str, spec: &Value) -> String {
    let policy = Policy { level: level.to_owned(), version: "latest".to_owned() };
    policy.told(&json!({"spec": spec})).unwrap_or_default()
}

#[test]
fn baseline_forbids_ways_out_of_a_container() {
    let with =
        |key: &str, value: Value| json!({"containers": [{"name": "c", "securityContext": {key: value}}]});
    let cases = [
        (json!({"containers": [{"name": "c"}]}), ""),
        (json!({"hostNetwork": true, "hostPID": true}), "host namespaces (hostNetwork=true, hostPID=true)"),
        (
            with("privileged", json!(true)),
            r#"privileged (container "c" must not set securityContext.privileged=true)"#,
        ),
        (
            with("capabilities", json!({"add": ["NET_ADMIN", "CHOWN"]})),
            r#"non-default capabilities (container "c" must not include "NET_ADMIN" in securityContext.capabilities.add)"#,
        ),
        (
            with("seccompProfile", json!({"type": "Unconfined"})),
            r#"seccompProfile (container "c" must not set securityContext.seccompProfile.type to "Unconfined")"#,
        ),
        (
            with("procMount", json!("Unmasked")),
            r#"procMount (container "c" must not set securityContext.procMount to "Unmasked")"#,
        ),
        (
            with("seLinuxOptions", json!({"type": "x", "user": "u"})),
            r#"seLinuxOptions (container "c" set forbidden securityContext.seLinuxOptions: type "x"; user may not be set)"#,
        ),
        (
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "hostPath": {"path": "/"}}]}),
            r#"hostPath volumes (volumes "v", "w")"#,
        ),
        (
            json!({"containers": [{"name": "a", "ports": [{"hostPort": 80}]}, {"name": "b", "ports": [{"hostPort": 81}]}]}),
            r#"hostPort (containers "a", "b" use hostPorts 80, 81)"#,
        ),
        (
            json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax"}, {"name": "net.ipv4.tcp_syncookies"}]}}),
            "forbidden sysctls (kernel.msgmax)",
        ),
    ];
    for (spec, want) in cases {
        let want =
            if want.is_empty() { String::new() } else { format!("PodSecurity \"baseline:latest\": {want}") };
        assert_eq!(judge("baseline", &spec), want);
    }
}

#[test]
fn restricted_asks_for_every_lock() {
    let bare = json!({"containers": [{"name": "c"}], "volumes": [{"name": "v", "nfs": {}}, {"name": "ok", "emptyDir": {}}]});
    assert_eq!(
        judge("restricted", &bare),
        r#"PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"]), restricted volume types (volume "v" uses restricted volume type "nfs"), runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#
    );
    let locked = json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "c", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}}],
    });
    assert_eq!(judge("restricted", &locked), "");
    let mut root = locked;
    root["securityContext"]["runAsUser"] = json!(0);
    root["containers"][0]["securityContext"]["runAsNonRoot"] = json!(false);
    assert_eq!(
        judge("restricted", &root),
        r#"PodSecurity "restricted:latest": runAsNonRoot != true (container "c" must not set securityContext.runAsNonRoot=false), runAsUser=0 (pod must not set runAsUser=0)"#
    );
}
