//! The baseline standard: no known way to break out of a container.

use super::{
    Check, Violation, containers, containers_must, counted, distinct, forbidden_capabilities, names, quoted,
    violation,
};
use serde_json::Value;

/// Checks of every level.
pub const ALWAYS: &[Check] =
    &[app_armor, host_namespaces, host_ports, privileged, proc_mount, se_linux, sysctls, host_process];

/// Checks that the restricted standard replaces by its own, since its version 1.x.
pub const UNLESS_RESTRICTED: &[(u16, Check)] = &[(22, capabilities), (0, host_path_volumes), (19, seccomp)];

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Sysctls that a namespace has of its own, and the minor version of the standard that found them safe.
const SYSCTLS: [(u16, &str); 12] = [
    (0, "kernel.shm_rmid_forced"),
    (0, "net.ipv4.ip_local_port_range"),
    (0, "net.ipv4.tcp_syncookies"),
    (0, "net.ipv4.ping_group_range"),
    (0, "net.ipv4.ip_unprivileged_port_start"),
    (27, "net.ipv4.ip_local_reserved_ports"),
    (29, "net.ipv4.tcp_keepalive_time"),
    (29, "net.ipv4.tcp_fin_timeout"),
    (29, "net.ipv4.tcp_keepalive_intvl"),
    (29, "net.ipv4.tcp_keepalive_probes"),
    (32, "net.ipv4.tcp_rmem"),
    (32, "net.ipv4.tcp_wmem"),
];

const SE_LINUX_TYPES: [(u16, &str); 5] = [
    (0, ""),
    (0, "container_t"),
    (0, "container_init_t"),
    (0, "container_kvm_t"),
    (31, "container_engine_t"),
];

fn app_armor(pod: &Value, _: u16) -> Option<Violation> {
    const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
    let kind = |holder: &Value| {
        let kind = holder["securityContext"]["appArmorProfile"]["type"].as_str().map(str::to_owned);
        kind.filter(|kind| !["RuntimeDefault", "Localhost"].contains(&kind.as_str()))
    };
    let mut who = Vec::new();
    if kind(&pod["spec"]).is_some() {
        who.push("pod".to_owned());
    }
    let names = names(pod, |holder| kind(holder).is_some());
    if !names.is_empty() {
        who.push(counted("container", &names));
    }
    let mut values =
        distinct(std::iter::once(&pod["spec"]).chain(containers(pod)).filter_map(kind).collect());
    let notes =
        pod["metadata"]["annotations"].as_object().into_iter().flatten().filter_map(|(key, value)| {
            let value = value.as_str().unwrap_or_default();
            let allowed = value.is_empty() || value == "runtime/default" || value.starts_with("localhost/");
            (key.starts_with(ANNOTATION) && !allowed).then(|| format!("{key}={value:?}"))
        });
    let notes = distinct(notes.collect());
    if !notes.is_empty() {
        who.push(if notes.len() == 1 { "annotation" } else { "annotations" }.to_owned());
        values.extend(notes);
    }
    let reason = if values.len() == 1 { "forbidden AppArmor profile" } else { "forbidden AppArmor profiles" };
    // Without escapes, whatever the texts hold.
    let told: Vec<String> = values.iter().map(|value| format!("\"{value}\"")).collect();
    let rule = format!("must not set AppArmor profile type to {}", told.join(", "));
    (!who.is_empty()).then(|| violation(reason, format!("{} {rule}", who.join(" and ")))).flatten()
}

fn capabilities(pod: &Value, _: u16) -> Option<Violation> {
    forbidden_capabilities(pod, &CAPABILITIES)
        .and_then(|detail| violation("non-default capabilities", detail))
}

fn host_namespaces(pod: &Value, _: u16) -> Option<Violation> {
    let set = ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|key| pod["spec"][key] == true);
    let texts: Vec<String> = set.map(|key| format!("{key}=true")).collect();
    (!texts.is_empty()).then(|| violation("host namespaces", texts.join(", "))).flatten()
}

fn host_path_volumes(pod: &Value, _: u16) -> Option<Violation> {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let of_host = volumes.filter(|volume| volume["hostPath"].is_object());
    let names: Vec<String> =
        of_host.map(|volume| volume["name"].as_str().unwrap_or_default().to_owned()).collect();
    (!names.is_empty()).then(|| violation("hostPath volumes", counted("volume", &names))).flatten()
}

fn host_ports(pod: &Value, _: u16) -> Option<Violation> {
    let ports = |container: &Value| -> Vec<i64> {
        let ports = container["ports"].as_array().into_iter().flatten();
        ports.filter_map(|port| port["hostPort"].as_i64().filter(|port| *port != 0)).collect()
    };
    let names = names(pod, |container| !ports(container).is_empty());
    if names.is_empty() {
        return None;
    }
    let mut all: Vec<i64> = containers(pod).flat_map(ports).collect();
    all.sort_unstable();
    all.dedup();
    let texts: Vec<String> = all.iter().map(i64::to_string).collect();
    let (verb, plural) =
        (if names.len() == 1 { "uses" } else { "use" }, if all.len() == 1 { "" } else { "s" });
    violation(
        "hostPort",
        format!("{} {verb} hostPort{plural} {}", counted("container", &names), texts.join(", ")),
    )
}

fn privileged(pod: &Value, _: u16) -> Option<Violation> {
    containers_must(pod, "privileged", "must not set securityContext.privileged=true", |container| {
        container["securityContext"]["privileged"] == true
    })
}

fn proc_mount(pod: &Value, _: u16) -> Option<Violation> {
    let other = |container: &Value| {
        let mount = &container["securityContext"]["procMount"];
        mount.as_str().filter(|mount| *mount != "Default").map(str::to_owned)
    };
    let names = names(pod, |container| other(container).is_some());
    let mounts = distinct(containers(pod).filter_map(other).collect());
    let rule = format!("must not set securityContext.procMount to {}", quoted(&mounts));
    (!names.is_empty())
        .then(|| violation("procMount", format!("{} {rule}", counted("container", &names))))
        .flatten()
}

fn se_linux(pod: &Value, minor: u16) -> Option<Violation> {
    let options = |holder: &Value| holder["securityContext"]["seLinuxOptions"].clone();
    let known = |kind: &str| SE_LINUX_TYPES.iter().any(|(since, own)| *since <= minor && *own == kind);
    let text = |holder: &Value, key: &str| options(holder)[key].as_str().unwrap_or_default().to_owned();
    let bad = |holder: &Value| {
        !known(&text(holder, "type")) || !text(holder, "user").is_empty() || !text(holder, "role").is_empty()
    };
    let spec = &pod["spec"];
    let names = names(pod, bad);
    let mut who = Vec::new();
    if bad(spec) {
        who.push("pod".to_owned());
    }
    if !names.is_empty() {
        who.push(counted("container", &names));
    }
    if who.is_empty() {
        return None;
    }
    let holders = || std::iter::once(spec).chain(containers(pod));
    let mut faults = Vec::new();
    let types = holders().map(|holder| text(holder, "type"));
    let types = distinct(types.filter(|kind| !known(kind)).collect());
    if !types.is_empty() {
        faults.push(format!("type{} {}", if types.len() == 1 { "" } else { "s" }, quoted(&types)));
    }
    for key in ["user", "role"] {
        if holders().any(|holder| !text(holder, key).is_empty()) {
            faults.push(format!("{key} may not be set"));
        }
    }
    let detail =
        format!("{} set forbidden securityContext.seLinuxOptions: {}", who.join(" and "), faults.join("; "));
    violation("seLinuxOptions", detail)
}

fn seccomp(pod: &Value, _: u16) -> Option<Violation> {
    let unconfined = |holder: &Value| holder["securityContext"]["seccompProfile"]["type"] == "Unconfined";
    let mut who = Vec::new();
    if unconfined(&pod["spec"]) {
        who.push("pod".to_owned());
    }
    let names = names(pod, unconfined);
    if !names.is_empty() {
        who.push(counted("container", &names));
    }
    let rule = "must not set securityContext.seccompProfile.type to \"Unconfined\"";
    (!who.is_empty()).then(|| violation("seccompProfile", format!("{} {rule}", who.join(" and ")))).flatten()
}

fn sysctls(pod: &Value, minor: u16) -> Option<Violation> {
    let is_safe = |name: &str| SYSCTLS.iter().any(|(since, own)| *since <= minor && *own == name);
    let set = pod["spec"]["securityContext"]["sysctls"].as_array().into_iter().flatten();
    let names = set.filter_map(|one| one["name"].as_str()).filter(|name| !is_safe(name));
    let names = distinct(names.map(str::to_owned).collect());
    (!names.is_empty()).then(|| violation("forbidden sysctls", names.join(", "))).flatten()
}

fn host_process(pod: &Value, _: u16) -> Option<Violation> {
    let set = |holder: &Value| holder["securityContext"]["windowsOptions"]["hostProcess"] == true;
    let mut who = Vec::new();
    if set(&pod["spec"]) {
        who.push("pod".to_owned());
    }
    let names = names(pod, set);
    if !names.is_empty() {
        who.push(counted("container", &names));
    }
    let rule = "must not set securityContext.windowsOptions.hostProcess=true";
    (!who.is_empty()).then(|| violation("hostProcess", format!("{} {rule}", who.join(" and ")))).flatten()
}
