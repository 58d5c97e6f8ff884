//! Security contexts of pods and containers, and what a pod's operating system rules out.

use super::super::node::{Faults, Node};
use super::MAX_INT32;
use crate::labels;
use serde_json::json;

/// Settings that mean nothing on Windows, from the pod's spec.
const NOT_ON_WINDOWS: [&str; 14] = [
    "hostUsers",
    "hostPID",
    "hostIPC",
    "shareProcessNamespace",
    "securityContext.appArmorProfile",
    "securityContext.seLinuxOptions",
    "securityContext.seccompProfile",
    "securityContext.fsGroup",
    "securityContext.fsGroupChangePolicy",
    "securityContext.sysctls",
    "securityContext.runAsUser",
    "securityContext.runAsGroup",
    "securityContext.supplementalGroups",
    "securityContext.supplementalGroupsPolicy",
];
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

pub(super) fn pod(spec: &Node<'_, '_>, out: &mut Faults) {
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
    sysctls(&context.get("sysctls"), spec, out);
    context.get("fsGroupChangePolicy").may_be_one_of(&["Always", "OnRootMismatch"], out);
    context.get("supplementalGroupsPolicy").may_be_one_of(&["Merge", "Strict"], out);
    context.get("seLinuxChangePolicy").may_be_one_of(&["MountOption", "Recursive"], out);
    seccomp(&context.get("seccompProfile"), out);
    app_armor(&context.get("appArmorProfile"), out);
    if *spec.get("hostUsers").value == false {
        for (key, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
            if spec.get(key).is_true() {
                context.get(shown).forbidden("when `pod.Spec.HostUsers` is false", out);
            }
        }
    }
    match spec.get("os.name").text() {
        "windows" => forbid_all(spec, &NOT_ON_WINDOWS, out),
        "linux" if context.get("windowsOptions").is_set() => {
            context.get("windowsOptions").forbidden("windows options cannot be set for a linux pod", out);
        }
        _ => {}
    }
}

fn forbid_all(node: &Node<'_, '_>, keys: &[&str], out: &mut Faults) {
    for key in keys {
        let field = node.get(key);
        if !field.is_empty() && *field.value != false {
            field.forbidden("cannot be set for a windows pod", out);
        }
    }
}

fn sysctls(sysctls: &Node<'_, '_>, spec: &Node<'_, '_>, out: &mut Faults) {
    let mut seen: Vec<String> = Vec::new();
    for sysctl in sysctls.items() {
        let name = sysctl.get("name");
        let plain = name.text().replace('/', ".");
        if name.is_empty() {
            name.required("", out);
        } else {
            name.text_must(sysctl_name, out);
            if seen.contains(&plain) {
                name.duplicate(out);
            }
        }
        if plain.starts_with("net.") && spec.get("hostNetwork").is_true() {
            name.invalid("may not be specified when 'hostNetwork' is true", out);
        }
        let ipc = plain.starts_with("fs.mqueue.")
            || ["kernel.shm", "kernel.msg", "kernel.sem"].iter().any(|p| plain.starts_with(p));
        if ipc && spec.get("hostIPC").is_true() {
            name.invalid("may not be specified when 'hostIPC' is true", out);
        }
        seen.push(plain);
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
        (_, true) => local.invalid("can only be set when seccomp type is Localhost", out),
        (_, false) => {}
    }
}

fn app_armor(profile: &Node<'_, '_>, out: &mut Faults) {
    if !profile.is_set() {
        return;
    }
    let (kind, local) = (profile.get("type"), profile.get("localhostProfile"));
    match kind.text() {
        "" => kind.required("type is required when appArmorProfile is set", out),
        "Localhost" | "RuntimeDefault" | "Unconfined" => {}
        _ => kind.not_supported(&["Localhost", "RuntimeDefault", "Unconfined"], out),
    }
    match (kind.text(), local.is_set()) {
        ("Localhost", _) if local.text().trim().is_empty() => {
            local.required("must be set when AppArmor type is Localhost", out);
        }
        ("Localhost", _) if local.text().trim() != local.text() => {
            local.invalid("must not be padded with whitespace", out);
        }
        (kind, true) if kind != "Localhost" => {
            local.invalid("can only be set when AppArmor type is Localhost", out);
        }
        _ => {}
    }
}

pub(super) fn container(context: &Node<'_, '_>, spec: &Node<'_, '_>, out: &mut Faults) {
    for key in ["runAsUser", "runAsGroup"] {
        context.get(key).between(0, MAX_INT32, out);
    }
    let mount = context.get("procMount");
    mount.may_be_one_of(&["Default", "Unmasked"], out);
    if mount.text() == "Unmasked" && *spec.get("hostUsers").value != false {
        mount.invalid("`hostUsers` must be false to use `Unmasked`", out);
    }
    if *context.get("allowPrivilegeEscalation").value == false {
        if context.get("privileged").is_true() {
            context.invalid("cannot set `allowPrivilegeEscalation` to false and `privileged` to true", out);
        }
        if context.get("capabilities.add").items().any(|capability| capability.text() == "CAP_SYS_ADMIN") {
            context.invalid(
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
                out,
            );
        }
    }
    seccomp(&context.get("seccompProfile"), out);
    app_armor(&context.get("appArmorProfile"), out);
    windows(&context.get("windowsOptions"), out);
    match spec.get("os.name").text() {
        "windows" => forbid_all(context, &CONTAINER_NOT_ON_WINDOWS, out),
        "linux" if context.get("windowsOptions").is_set() => {
            context.get("windowsOptions").forbidden("windows options cannot be set for a linux pod", out);
        }
        _ => {}
    }
}

fn windows(options: &Node<'_, '_>, out: &mut Faults) {
    options.get("gmsaCredentialSpecName").text_may(labels::is_dns1123_subdomain, out);
    for key in ["gmsaCredentialSpec", "runAsUserName"] {
        let field = options.get(key);
        if field.is_set() && field.text().is_empty() {
            field.invalid_as(&json!(""), format!("{key} cannot be an empty string"), out);
        }
    }
}
