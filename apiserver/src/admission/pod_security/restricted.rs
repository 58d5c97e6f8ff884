//! The restricted standard: what is left when a pod gives up all that it does not need.

use super::{
    Check, Violation, containers, containers_must, counted, distinct, forbidden_capabilities, names, quoted,
    violation,
};
use coracle_api::meta;
use serde_json::Value;

/// In upstream's order of names, with the minor version of the standard that they begin with.
pub const CHECKS: &[(u16, Check)] = &[
    (8, privilege_escalation),
    (22, capabilities),
    (0, volume_types),
    (0, run_as_non_root),
    (23, run_as_user),
    (19, seccomp),
];

const VOLUME_TYPES: [&str; 8] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// Rules about Linux that mean nothing to Windows pods, which the standard knows since its version 1.25.
fn is_windows(pod: &Value, minor: u16) -> bool {
    minor >= 25 && pod["spec"]["os"]["name"] == "windows"
}

fn privilege_escalation(pod: &Value, minor: u16) -> Option<Violation> {
    let rule = "must set securityContext.allowPrivilegeEscalation=false";
    containers_must(pod, "allowPrivilegeEscalation != false", rule, |container| {
        !is_windows(pod, minor) && container["securityContext"]["allowPrivilegeEscalation"] != false
    })
}

fn capabilities(pod: &Value, minor: u16) -> Option<Violation> {
    if is_windows(pod, minor) {
        return None;
    }
    let keeps = names(pod, |container| {
        !meta::strings(&container["securityContext"]["capabilities"]["drop"]).any(|one| one == "ALL")
    });
    let mut details = Vec::new();
    if !keeps.is_empty() {
        details.push(format!(
            "{} must set securityContext.capabilities.drop=[\"ALL\"]",
            counted("container", &keeps)
        ));
    }
    details.extend(forbidden_capabilities(pod, &["NET_BIND_SERVICE"]));
    (!details.is_empty()).then(|| violation("unrestricted capabilities", details.join("; "))).flatten()
}

fn volume_types(pod: &Value, _: u16) -> Option<Violation> {
    let kind = |volume: &Value| {
        let keys = volume
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(key, value)| *key != "name" && !value.is_null());
        keys.map(|(key, _)| key.clone()).next().filter(|key| !VOLUME_TYPES.contains(&key.as_str()))
    };
    let volumes = || pod["spec"]["volumes"].as_array().into_iter().flatten();
    let bad = volumes().filter(|volume| kind(volume).is_some());
    let names: Vec<String> =
        bad.map(|volume| volume["name"].as_str().unwrap_or_default().to_owned()).collect();
    let kinds = distinct(volumes().filter_map(kind).collect());
    if names.is_empty() {
        return None;
    }
    let verb = if names.len() == 1 { "uses" } else { "use" };
    let who = counted("volume", &names);
    violation(
        "restricted volume types",
        format!(
            "{who} {verb} restricted volume {} {}",
            if kinds.len() == 1 { "type" } else { "types" },
            quoted(&kinds)
        ),
    )
}

/// The rules that a pod may keep for its containers: who breaks it outright, and who is left without.
fn pod_or_container(
    pod: &Value,
    reason: &str,
    set: impl Fn(&Value) -> Option<bool>,
    forbidden: impl Fn(&[&Value]) -> String,
    required: &str,
) -> Option<Violation> {
    let of_pod = set(&pod["spec"]);
    let mut who = Vec::new();
    let mut bad: Vec<&Value> = Vec::new();
    if of_pod == Some(false) {
        who.push("pod".to_owned());
        bad.push(&pod["spec"]);
    }
    let broken = names(pod, |container| set(container) == Some(false));
    if !broken.is_empty() {
        who.push(counted("container", &broken));
        bad.extend(containers(pod).filter(|container| set(container) == Some(false)));
    }
    if !who.is_empty() {
        return violation(reason, format!("{} {}", who.join(" and "), forbidden(&bad)));
    }
    let without = names(pod, |container| set(container).is_none());
    if of_pod.is_some() || without.is_empty() {
        return None;
    }
    violation(reason, format!("pod or {} {required}", counted("container", &without)))
}

fn run_as_non_root(pod: &Value, _: u16) -> Option<Violation> {
    pod_or_container(
        pod,
        "runAsNonRoot != true",
        |holder| holder["securityContext"]["runAsNonRoot"].as_bool(),
        |_| "must not set securityContext.runAsNonRoot=false".to_owned(),
        "must set securityContext.runAsNonRoot=true",
    )
}

fn run_as_user(pod: &Value, _: u16) -> Option<Violation> {
    let root = |holder: &Value| holder["securityContext"]["runAsUser"] == 0;
    let mut who = Vec::new();
    if root(&pod["spec"]) {
        who.push("pod".to_owned());
    }
    let names = names(pod, root);
    if !names.is_empty() {
        who.push(counted("container", &names));
    }
    (!who.is_empty())
        .then(|| violation("runAsUser=0", format!("{} must not set runAsUser=0", who.join(" and "))))
        .flatten()
}

fn seccomp(pod: &Value, minor: u16) -> Option<Violation> {
    if is_windows(pod, minor) {
        return None;
    }
    let kind =
        |holder: &Value| holder["securityContext"]["seccompProfile"]["type"].as_str().map(str::to_owned);
    pod_or_container(
        pod,
        "seccompProfile",
        |holder| kind(holder).map(|kind| ["RuntimeDefault", "Localhost"].contains(&kind.as_str())),
        |bad| {
            let kinds = distinct(bad.iter().filter_map(|holder| kind(holder)).collect());
            format!("must not set securityContext.seccompProfile.type to {}", quoted(&kinds))
        },
        "must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
    )
}
