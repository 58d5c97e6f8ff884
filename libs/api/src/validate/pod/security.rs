//! Security contexts of pods and containers, and what a pod's operating system rules out.

use super::super::node::{Faults, Node, Seen};
use super::super::shapes;
use super::{Allowed, MAX_INT32, each_container, windows};
use serde_json::json;

const PROFILE_MAX: usize = 4095;

/// Settings that mean nothing on Windows, from the pod's spec.
const NOT_ON_WINDOWS: [&str; 15] = [
    "securityContext.appArmorProfile",
    "securityContext.seLinuxOptions",
    "hostUsers",
    "hostPID",
    "hostIPC",
    "securityContext.seccompProfile",
    "securityContext.fsGroup",
    "securityContext.fsGroupChangePolicy",
    "securityContext.sysctls",
    "shareProcessNamespace",
    "securityContext.runAsUser",
    "securityContext.runAsGroup",
    "securityContext.supplementalGroups",
    "securityContext.supplementalGroupsPolicy",
    "securityContext.seLinuxChangePolicy",
];
/// Those of them that are off unless set: `false` is no setting.
const SWITCHES: [&str; 2] = ["hostPID", "hostIPC"];
const CONTAINER_NOT_ON_WINDOWS: [&str; 10] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

const SYSCTL: &str = r"([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?";

/// Segments of lower-case letters, digits, dashes and underscores, with dots or slashes between.
fn sysctl_name(name: &str) -> Vec<String> {
    let good = |part: &str| {
        let edge = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'_');
        edge(part.bytes().next()) && edge(part.bytes().last()) && part.bytes().all(inner)
    };
    if name.len() <= 253 && name.split(['.', '/']).all(good) {
        return Vec::new();
    }
    vec![format!("must have at most 253 characters and match regex ^{SYSCTL}$")]
}

pub(super) fn pod(spec: &Node<'_, '_>, allowed: Allowed, out: &mut Faults) {
    let context = spec.get("securityContext");
    for key in ["fsGroup", "runAsUser", "runAsGroup"] {
        context.get(key).between(0, MAX_INT32, out);
    }
    context.get("supplementalGroups").items().for_each(|group| group.between(0, MAX_INT32, out));
    let share = spec.get("shareProcessNamespace");
    if share.is_true() && spec.get("hostPID").is_true() {
        context.get("shareProcessNamespace").invalid_as(
            share.value,
            "ShareProcessNamespace and HostPID cannot both be enabled",
            out,
        );
    }
    sysctls(spec, allowed, out);
    context.get("fsGroupChangePolicy").if_set_one_of(&["Always", "OnRootMismatch"], out);
    seccomp(&context.get("seccompProfile"), out);
    windows::options(&context.get("windowsOptions"), out);
    app_armor(&context.get("appArmorProfile"), out);
    context.get("supplementalGroupsPolicy").if_set_one_of(&["Merge", "Strict"], out);
    // Mounting with a context is off by default in 1.33; who has it may keep it.
    let change: &[&str] = if allowed.selinux_change { &["MountOption", "Recursive"] } else { &["Recursive"] };
    context.get("seLinuxChangePolicy").if_set_one_of(change, out);
}

/// With users of their own, pods have none of the host's other namespaces.
pub(super) fn host_users(spec: &Node<'_, '_>, out: &mut Faults) {
    if *spec.get("hostUsers").value == false {
        for (key, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
            if spec.get(key).is_true() {
                spec.get(shown).forbidden("when `pod.Spec.HostUsers` is false", out);
            }
        }
    }
}

/// What the pod's operating system rules out.
pub(super) fn operating_system(spec: &Node<'_, '_>, out: &mut Faults) {
    const NO_WINDOWS: &str = "windows options cannot be set for a linux pod";
    let os = spec.get("os");
    let name = os.get("name");
    match name.text() {
        _ if !os.is_set() => {}
        "" => name.required("cannot be empty", out),
        "linux" => {
            let pod = spec.get("securityContext.windowsOptions");
            if pod.is_set() {
                pod.forbidden(NO_WINDOWS, out);
            }
            each_container(spec, |container| {
                let own = container.get("securityContext.windowsOptions");
                if own.is_set() {
                    own.forbidden(NO_WINDOWS, out);
                }
            });
        }
        "windows" => {
            forbid_all(spec, &NOT_ON_WINDOWS, out);
            each_container(spec, |container| {
                forbid_all(&container.get("securityContext"), &CONTAINER_NOT_ON_WINDOWS, out);
            });
        }
        _ => os.named("", name.value).not_supported(&["linux", "windows"], out),
    }
}

fn forbid_all(node: &Node<'_, '_>, keys: &[&str], out: &mut Faults) {
    for key in keys {
        let field = node.get(key);
        let off = *field.value == false && SWITCHES.contains(key);
        if field.is_set() && !off && *field.value != json!([]) {
            field.forbidden("cannot be set for a windows pod", out);
        }
    }
}

fn sysctls(spec: &Node<'_, '_>, allowed: Allowed, out: &mut Faults) {
    let sysctls = spec.get("securityContext.sysctls");
    let mut seen = Seen::new();
    for sysctl in sysctls.items() {
        let name = sysctl.get("name");
        let complaints = sysctl_name(name.text());
        if name.is_empty() {
            name.required("", out);
        } else if !complaints.is_empty() {
            name.text_must(|_| complaints.clone(), out);
        } else if seen.contains(&name.text()) {
            name.duplicate(out);
        }
        if !allowed.host_sysctls {
            host_sysctl(&name, spec, out);
        }
        seen.insert(name.text());
    }
}

/// Of sysctls, only whether they reach into the host.
pub(super) fn host_sysctls(spec: &Node<'_, '_>, out: &mut Faults) {
    let sysctls = spec.get("securityContext.sysctls");
    sysctls.items().for_each(|sysctl| host_sysctl(&sysctl.get("name"), spec, out));
}

fn host_sysctl(name: &Node<'_, '_>, spec: &Node<'_, '_>, out: &mut Faults) {
    let text = name.text();
    // The first separator says which of the two stands between the parts.
    let plain = match text.find(['.', '/']) {
        Some(at) if text[at..].starts_with('/') => text
            .chars()
            .map(|c| {
                if c == '/' {
                    '.'
                } else if c == '.' {
                    '/'
                } else {
                    c
                }
            })
            .collect(),
        _ => text.to_owned(),
    };
    let ipc = plain == "kernel.sem"
        || ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|prefix| plain.starts_with(prefix));
    if plain.starts_with("net.") && spec.get("hostNetwork").is_true() {
        name.invalid("may not be specified when 'hostNetwork' is true", out);
    } else if ipc && spec.get("hostIPC").is_true() {
        name.invalid("may not be specified when 'hostIPC' is true", out);
    }
}

fn seccomp(profile: &Node<'_, '_>, out: &mut Faults) {
    if !profile.is_set() {
        return;
    }
    let (kind, local) = (profile.get("type"), profile.get("localhostProfile"));
    match kind.text() {
        "" => kind.required("type is required when seccompProfile is set", out),
        "Localhost" | "RuntimeDefault" | "Unconfined" => {}
        _ => kind.not_supported(&["Localhost", "RuntimeDefault", "Unconfined"], out),
    }
    match (kind.text(), local.is_set()) {
        ("Localhost", false) => local.required("must be set when seccomp type is Localhost", out),
        ("Localhost", true) => super::volume::descending_path(&local, out),
        (_, true) => {
            let shown = shapes::compact(profile.value, "Profile");
            local.invalid_shown(shown, "can only be set when seccomp type is Localhost", out);
        }
        (_, false) => {}
    }
}

fn app_armor(profile: &Node<'_, '_>, out: &mut Faults) {
    if !profile.is_set() {
        return;
    }
    let (kind, local) = (profile.get("type"), profile.get("localhostProfile"));
    match kind.text() {
        "Localhost" => {
            if local.is_set() && local.text().trim() != local.text() {
                local.invalid("must not be padded with whitespace", out);
            } else if local.is_empty() {
                local.required("must be set when AppArmor type is Localhost", out);
            }
            if local.text().len() > PROFILE_MAX {
                local.too_long(4095, out);
            }
        }
        "RuntimeDefault" | "Unconfined" => {
            if local.is_set() {
                local.invalid("can only be set when AppArmor type is Localhost", out);
            }
        }
        "" => kind.required("type is required when appArmorProfile is set", out),
        _ => kind.not_supported(&["Localhost", "RuntimeDefault", "Unconfined"], out),
    }
}

pub(super) fn container(context: &Node<'_, '_>, spec: &Node<'_, '_>, out: &mut Faults) {
    let privileged = context.get("privileged");
    if privileged.is_true() && !context.policy().allow_privileged {
        privileged.forbidden("disallowed by cluster policy", out);
    }
    for key in ["runAsUser", "runAsGroup"] {
        context.get(key).between(0, MAX_INT32, out);
    }
    let mount = context.get("procMount");
    mount.if_set_one_of(&["Default", "Unmasked"], out);
    if mount.text() == "Unmasked" && *spec.get("hostUsers").value != false {
        mount.invalid("`hostUsers` must be false to use `Unmasked`", out);
    }
    seccomp(&context.get("seccompProfile"), out);
    if *context.get("allowPrivilegeEscalation").value == false {
        let refuse = |what: &str, out: &mut Faults| {
            let detail = format!("cannot set `allowPrivilegeEscalation` to false and {what}");
            context.invalid_inside("SecurityContext", detail, out);
        };
        if privileged.is_true() {
            refuse("`privileged` to true", out);
        }
        if context.get("capabilities.add").items().any(|capability| capability.text() == "CAP_SYS_ADMIN") {
            refuse("`capabilities.Add` CAP_SYS_ADMIN", out);
        }
    }
    windows::options(&context.get("windowsOptions"), out);
    app_armor(&context.get("appArmorProfile"), out);
}
