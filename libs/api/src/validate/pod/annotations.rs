//! Annotations of pods that Kubernetes reads, and whether they say what the fields that followed them say.

use super::super::node::{Faults, Node};
use super::{Setting, each_container, volume};
use crate::status::go_quoted;
use serde_json::{Value, json};

pub(super) use crate::meta::MIRROR;
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const TOLERATIONS: &str = "scheduler.alpha.kubernetes.io/tolerations";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

pub(super) fn all(notes: &Node<'_, '_>, spec: &Node<'_, '_>, setting: Setting<'_>, out: &mut Faults) {
    let mirror = notes.key(MIRROR);
    if mirror.is_set() && spec.get("nodeName").is_empty() {
        mirror.invalid("must set spec.nodeName if mirror pod annotation is set", out);
    }
    tolerations(notes, out);
    if !setting.allowed.deletion_cost {
        deletion_cost(notes, out);
    }
    if notes.key(SECCOMP_POD).is_set() {
        seccomp(&notes.named(SECCOMP_POD, notes.key(SECCOMP_POD).value), out);
    }
    for (key, value) in notes.entries().filter(|(key, _)| key.starts_with(SECCOMP_CONTAINER)) {
        seccomp(&notes.named(key, value.value), out);
    }
    for (key, value) in notes.entries() {
        if let Some(container) = key.strip_prefix(APP_ARMOR) {
            app_armor(&value, container, spec, out);
        }
    }
}

/// How cheap it is to delete the pod: a 32-bit number without leading zeroes or plus.
pub(super) fn deletion_cost(notes: &Node<'_, '_>, out: &mut Faults) {
    let cost = notes.key(DELETION_COST);
    let digits = cost.text().as_bytes();
    let plain = matches!(digits, [b'0'] | [b'1'..=b'9' | b'-', ..]);
    if cost.is_set() && !(plain && cost.text().parse::<i32>().is_ok()) {
        cost.invalid("must be a 32bit integer", out);
    }
}

fn tolerations(notes: &Node<'_, '_>, out: &mut Faults) {
    let text = notes.key(TOLERATIONS);
    if text.is_empty() {
        return;
    }
    match serde_json::from_str::<Value>(text.text()) {
        Ok(list) => super::tolerations(&notes.named(TOLERATIONS, &list), out),
        Err(error) => notes.invalid_as(&json!(TOLERATIONS), error.to_string(), out),
    }
}

fn seccomp(profile: &Node<'_, '_>, out: &mut Faults) {
    let text = profile.text();
    if matches!(text, "runtime/default" | "docker/default" | "unconfined") {
        return;
    }
    match text.strip_prefix("localhost/") {
        Some(path) => volume::descending_path(&profile.named("", &json!(path)), out),
        None => profile.invalid("must be a valid seccomp profile", out),
    }
}

fn app_armor(profile: &Node<'_, '_>, container: &str, spec: &Node<'_, '_>, out: &mut Faults) {
    let mut found = false;
    each_container(spec, |own| found |= own.get("name").text() == container);
    if !found {
        profile.invalid_as(&json!(container), "container not found", out);
    }
    let text = profile.text();
    if !matches!(text, "" | "runtime/default" | "unconfined") && !text.starts_with("localhost/") {
        profile.invalid(format!("invalid AppArmor profile name: {}", go_quoted(text)), out);
    }
}

/// The annotation of a profile and the field that followed it say the same where both are given.
pub(super) fn agree(notes: &Node<'_, '_>, spec: &Node<'_, '_>, out: &mut Faults) {
    let context = spec.get("securityContext");
    let pod = context.get("seccompProfile");
    let same = |note: &Node<'_, '_>, place: &Node<'_, '_>, what: [&str; 2], out: &mut Faults| {
        if note.is_set() {
            profiles_agree(note.text(), place, what, out);
        }
    };
    same(&notes.key(SECCOMP_POD), &pod, ["seccomp", "seccomp"], out);
    each_container(spec, |container| {
        let key = format!("{SECCOMP_CONTAINER}{}", container.get("name").text());
        let own = container.get("securityContext");
        same(&notes.key(&key), &own.get("seccompProfile"), ["seccomp", "seccomp"], out);
    });
    if spec.get("os.name").text() == "windows" {
        return;
    }
    each_container(spec, |container| {
        let key = format!("{APP_ARMOR}{}", container.get("name").text());
        let own = container.get("securityContext");
        let field = own.get("appArmorProfile");
        let inherited = own.named("appArmorProfile", context.get("appArmorProfile").value);
        let field = if field.is_set() { field } else { inherited };
        same(&notes.key(&key), &field, ["apparmor", "apparmor"], out);
    });
}

fn profiles_agree(note: &str, field: &Node<'_, '_>, [kind, profile]: [&str; 2], out: &mut Faults) {
    let types_match = match field.get("type").text() {
        "Unconfined" => note == "unconfined",
        "RuntimeDefault" => note == "runtime/default" || (kind == "seccomp" && note == "docker/default"),
        "Localhost" => note.starts_with("localhost/"),
        _ => return,
    };
    if !types_match {
        field.get("type").forbidden(format!("{kind} type in annotation and field must match"), out);
    } else if field.get("type").text() == "Localhost" {
        let local = field.get("localhostProfile");
        if note.strip_prefix("localhost/") != local.value.as_str() {
            local.forbidden(format!("{profile} profile in annotation and field must match"), out);
        }
    }
}
