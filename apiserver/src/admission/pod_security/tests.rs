//! The standards by table: a pod's spec in, the sentence of its refusal out.

use super::*;
use serde_json::json;

fn judge(level: &'static str, spec: &Value) -> String {
    let policy = Policy { level, version: LATEST.to_owned() };
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

#[test]
fn older_versions_of_a_standard_have_fewer_rules() {
    let spec = json!({"os": {"name": "windows"}, "containers": [{"name": "c", "securityContext": {"runAsUser": 0}}],
        "securityContext": {"runAsNonRoot": true, "sysctls": [{"name": "net.ipv4.tcp_rmem"}], "seLinuxOptions": {"type": "container_engine_t"}}});
    let reasons = |version: &str| -> Vec<String> {
        let policy = Policy { level: "restricted", version: version.to_owned() };
        policy.violations(&json!({"spec": spec})).into_iter().map(|one| one.reason).collect()
    };
    let (options, sysctls) = ("seLinuxOptions", "forbidden sysctls");
    let (escalation, drop, user, seccomp) =
        ("allowPrivilegeEscalation != false", "unrestricted capabilities", "runAsUser=0", "seccompProfile");
    for (version, want) in [
        ("latest", &[user][..]),
        ("v1.99", &[user]),
        ("v1.31", &[sysctls, user]),
        ("v1.25", &[options, sysctls, user]),
        ("v1.24", &[options, sysctls, escalation, drop, user, seccomp]),
        ("v1.22", &[options, sysctls, escalation, drop, seccomp]),
        ("v1.21", &[options, sysctls, escalation, seccomp]),
        ("v1.18", &[options, sysctls, escalation]),
        ("v1.7", &[options, sysctls]),
    ] {
        assert_eq!(reasons(version), want, "{version}");
    }
}

#[test]
fn a_namespace_that_enforces_a_standard_warns_of_it() {
    let of = |labels: &[(&str, &str)], mode: &str| {
        let labels: serde_json::Map<String, Value> =
            labels.iter().map(|(key, value)| (format!("{LABEL}{key}"), json!(value))).collect();
        let policy = Policy::of(&json!({"metadata": {"labels": labels}}), mode, &Settings::default());
        format!("{}:{}", policy.level, policy.version)
    };
    let enforced = &[("enforce", "restricted"), ("enforce-version", "v1.25")][..];
    for (labels, mode, want) in [
        (&[][..], "warn", "privileged:latest"),
        (enforced, "warn", "restricted:v1.25"),
        (enforced, "audit", "privileged:latest"),
        (&[("enforce", "restricted"), ("warn-version", "v1.20")], "warn", "restricted:v1.20"),
        (&[("enforce", "restricted"), ("warn", "privileged")], "warn", "privileged:latest"),
        (&[("enforce", "odd")], "enforce", "restricted:latest"),
        (&[("enforce", "odd")], "warn", "privileged:latest"),
        (&[("audit", "odd"), ("audit-version", "odd")], "audit", "privileged:latest"),
    ] {
        assert_eq!(of(labels, mode), want, "{labels:?} {mode}");
    }
}

#[test]
fn profiles_of_app_armor_stand_in_annotations_too() {
    let policy = Policy { level: "baseline", version: LATEST.to_owned() };
    let pod = json!({"metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/c": "unconfined"}},
        "spec": {"containers": [{"name": "c", "securityContext": {"appArmorProfile": {"type": "Unconfined"}}}]}});
    assert_eq!(
        policy.told(&pod).unwrap_or_default(),
        r#"PodSecurity "baseline:latest": forbidden AppArmor profiles (container "c" and annotation must not set AppArmor profile type to "Unconfined", "container.apparmor.security.beta.kubernetes.io/c="unconfined"")"#
    );
}
