//! PodSecurity: the Pod Security Standards (baseline, restricted) that a namespace's labels ask for.
//!
//! `enforce` refuses pods; `warn` tells whoever writes a pod or a workload with a template, `audit` the audit log. A label may pin an
//! older version of the standards, which had fewer rules.

mod baseline;
mod restricted;
#[cfg(test)]
mod tests;

use super::{Attributes, CREATE, Context, UPDATE};
use crate::audit;
use coracle_api::meta;
use coracle_api::status::{FieldError, GroupResource, Status};
use serde_json::Value;
use std::collections::BTreeMap;

const LABEL: &str = "pod-security.kubernetes.io/";

/// What a pod does that a standard forbids.
struct Violation {
    reason: String,
    detail: String,
}

/// Judges a pod by the standard's version 1.x.
type Check = fn(&Value, u16) -> Option<Violation>;

fn violation(reason: &str, detail: String) -> Option<Violation> {
    Some(Violation { reason: reason.to_owned(), detail })
}

/// From the most lenient to the strictest.
const LEVELS: [&str; 3] = ["privileged", "baseline", "restricted"];
const LATEST: &str = "latest";

/// A level and version, as a namespace's labels name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// `privileged`, `baseline` or `restricted`.
    pub level: &'static str,
    /// `latest` or `v1.x`.
    pub version: String,
}

impl Default for Policy {
    fn default() -> Self {
        Self { level: LEVELS[0], version: LATEST.to_owned() }
    }
}

/// What holds where no label says so, and whom the standards are not for.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    enforce: Policy,
    audit: Policy,
    warn: Policy,
    /// Everything in these namespaces.
    pub namespaces: Vec<String>,
    /// Pods of these runtime classes.
    pub runtime_classes: Vec<String>,
    /// What these users write.
    pub users: Vec<String>,
}

impl Settings {
    /// What holds in each mode.
    pub fn modes(&mut self) -> [(&'static str, &mut Policy); 3] {
        [("enforce", &mut self.enforce), ("audit", &mut self.audit), ("warn", &mut self.warn)]
    }

    fn default_of(&self, mode: &str) -> &Policy {
        match mode {
            "enforce" => &self.enforce,
            "audit" => &self.audit,
            _ => &self.warn,
        }
    }

    /// Why a write is not judged, as the audit log is told.
    fn exempts(&self, attributes: &Attributes<'_>, pod: &Value) -> Option<&'static str> {
        let has = |list: &[String], name: &str| list.iter().any(|own| own == name);
        let class = pod["spec"]["runtimeClassName"].as_str();
        if has(&self.namespaces, &attributes.request.namespace) {
            return Some("namespace");
        }
        if has(&self.users, &attributes.user.name) {
            return Some("user");
        }
        class.filter(|class| has(&self.runtime_classes, class)).map(|_| "runtimeClass")
    }
}

impl Policy {
    /// The policy of a mode (`enforce`, `warn`, `audit`).
    fn of(namespace: &Value, mode: &str, settings: &Settings) -> Self {
        let label = |key: String| namespace["metadata"]["labels"][key].as_str().map(str::to_owned);
        let level = label(format!("{LABEL}{mode}"));
        let version = label(format!("{LABEL}{mode}-version"));
        let default = settings.default_of(mode);
        if mode == "warn" && level.is_none() {
            // What would be refused of a pod is a warning to whoever writes a workload.
            let enforced = Self::of(namespace, "enforce", settings);
            let asked = label(format!("{LABEL}enforce")).is_some_and(|level| is_level(&level).is_some());
            if asked && enforced.rank() > default.rank() {
                let version = version.filter(|version| is_version(version)).unwrap_or(enforced.version);
                return Self { level: enforced.level, version };
            }
        }
        // As upstream: a level that nobody knows must not open the door, but neither tells of it.
        let unknown = if mode == "enforce" { LEVELS[2] } else { LEVELS[0] };
        let level = level.map_or(default.level, |level| is_level(&level).unwrap_or(unknown));
        let version = match version {
            None => default.version.clone(),
            Some(version) if is_version(&version) => version,
            Some(_) => LATEST.to_owned(),
        };
        Self { level, version }
    }

    /// `restricted:latest`.
    fn shown(&self) -> String {
        format!("{}:{}", self.level, self.version)
    }

    fn rank(&self) -> usize {
        LEVELS.iter().position(|level| *level == self.level).unwrap_or(0)
    }

    fn minor(&self) -> u16 {
        self.version.strip_prefix("v1.").and_then(|minor| minor.parse().ok()).unwrap_or(u16::MAX)
    }

    fn violations(&self, pod: &Value) -> Vec<Violation> {
        let minor = self.minor();
        let replaced = |since: u16| self.level == "restricted" && since <= minor;
        let always = baseline::ALWAYS.iter();
        let own = baseline::UNLESS_RESTRICTED.iter().filter(|(since, _)| !replaced(*since));
        let more = restricted::CHECKS.iter().filter(|(since, _)| replaced(*since));
        let checks = always.chain(own.chain(more).map(|(_, check)| check));
        if self.rank() == 0 { Vec::new() } else { checks.filter_map(|check| check(pod, minor)).collect() }
    }

    /// `PodSecurity "restricted:latest": check (detail), …`, when the pod violates it.
    fn told(&self, pod: &Value) -> Option<String> {
        let violations = self.violations(pod);
        let texts: Vec<String> =
            violations.iter().map(|one| format!("{} ({})", one.reason, one.detail)).collect();
        let name = self.shown();
        (!texts.is_empty()).then(|| format!("PodSecurity {name:?}: {}", texts.join(", ")))
    }
}

/// The pod, or the pod template, that a write is about.
fn template<'a>(attributes: &Attributes<'_>, object: &'a Value) -> Option<&'a Value> {
    let request = attributes.request;
    match (request.group.as_str(), request.resource.as_str()) {
        ("", "podtemplates") => Some(&object["template"]),
        ("", "replicationcontrollers") | ("batch", "jobs") => Some(&object["spec"]["template"]),
        ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets") => {
            Some(&object["spec"]["template"])
        }
        ("batch", "cronjobs") => Some(&object["spec"]["jobTemplate"]["spec"]["template"]),
        _ => None,
    }
}

/// Refuses pods that the namespace's labels forbid; returns warnings.
pub fn validate(
    context: &Context,
    attributes: &Attributes<'_>,
    object: &Value,
) -> Result<Vec<String>, Status> {
    let request = attributes.request;
    if ![CREATE, UPDATE].contains(&attributes.operation) || !object.is_object() {
        return Ok(Vec::new());
    }
    if attributes.is("namespaces") {
        let faults = label_faults(object);
        // A fault from before this rule must not keep people from changing the rest.
        if !faults.is_empty() && attributes.old.is_none_or(|old| label_faults(old) != faults) {
            return Err(Status::invalid(&GroupResource::new("", "Namespace"), meta::name(object), &faults));
        }
        return Ok(relabelled(context, attributes, object));
    }
    let is_pod = attributes.is("pods") || attributes.is("pods/ephemeralcontainers");
    let judged = if is_pod {
        attributes.old.is_none_or(|old| is_significant(object, old)).then_some(object)
    } else {
        template(attributes, object).filter(|_| request.subresource.is_empty())
    };
    let (Some(judged), Some(namespace)) = (judged, context.get("", "namespaces", "", &request.namespace))
    else {
        return Ok(Vec::new());
    };
    let settings = &context.plugins.pod_security;
    if let Some(reason) = settings.exempts(attributes, judged) {
        audit::annotate("pod-security.kubernetes.io/exempt", || reason.to_owned());
        return Ok(Vec::new());
    }
    let enforced = Policy::of(&namespace, "enforce", settings);
    if is_pod {
        audit::annotate("pod-security.kubernetes.io/enforce-policy", || enforced.shown());
    }
    if let Some(told) = Policy::of(&namespace, "audit", settings).told(judged) {
        audit::annotate("pod-security.kubernetes.io/audit-violations", || format!("would violate {told}"));
    }
    if is_pod && let Some(told) = enforced.told(judged) {
        return Err(attributes.forbidden(object, &format!("violates {told}")));
    }
    let warned = Policy::of(&namespace, "warn", settings).told(judged);
    Ok(warned.map(|told| format!("would violate {told}")).into_iter().collect())
}

/// Whether an update changes what the standards are about: of all that may change, only images, and new containers.
fn is_significant(pod: &Value, old: &Value) -> bool {
    let images = |pod: &Value, list: &str| -> Vec<Value> {
        let containers = pod["spec"][list].as_array().into_iter().flatten();
        containers.map(|own| own["image"].clone()).collect()
    };
    let lists = ["containers", "initContainers", "ephemeralContainers"];
    lists.into_iter().any(|list| images(pod, list) != images(old, list))
}

/// Labels of a namespace that name no level or version.
fn label_faults(namespace: &Value) -> Vec<FieldError> {
    let mut faults = Vec::new();
    for mode in ["enforce", "audit", "warn"] {
        for (key, valid, why) in [
            (
                format!("{LABEL}{mode}"),
                (|text| is_level(text).is_some()) as fn(&str) -> bool,
                "must be one of privileged, baseline, restricted",
            ),
            (format!("{LABEL}{mode}-version"), is_version, "must be \"latest\" or \"v1.x\""),
        ] {
            let label = &namespace["metadata"]["labels"][key.as_str()];
            if label.as_str().is_some_and(|label| !valid(label)) {
                faults.push(FieldError::invalid(format!("metadata.labels[{key}]"), label, why));
            }
        }
    }
    faults
}

/// The level of that name.
pub fn is_level(text: &str) -> Option<&'static str> {
    LEVELS.into_iter().find(|own| *own == text)
}

/// Whether the standards have such a version.
pub fn is_version(text: &str) -> bool {
    text == LATEST || text.strip_prefix("v1.").is_some_and(|minor| minor.parse::<u16>().is_ok())
}

/// Tells of the pods that a namespace's new `enforce` label would not have let in. They stay.
fn relabelled(context: &Context, attributes: &Attributes<'_>, namespace: &Value) -> Vec<String> {
    let (settings, name) = (&context.plugins.pod_security, meta::name(namespace));
    let policy = Policy::of(namespace, "enforce", settings);
    let before = attributes.old.map(|old| Policy::of(old, "enforce", settings));
    let relaxed = |before: Policy| policy.version == before.version && policy.rank() <= before.rank();
    if attributes.old.is_some() && (policy.rank() == 0 || before.is_some_and(relaxed)) {
        return Vec::new();
    }
    if settings.namespaces.iter().any(|exempt| exempt == name) {
        return ignored(namespace, settings).into_iter().collect();
    }
    if attributes.old.is_none() {
        return Vec::new();
    }
    let mut by_reasons: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pod in context.list("", "pods", name) {
        if settings.exempts(attributes, &pod) == Some("runtimeClass") {
            continue;
        }
        let reasons: Vec<String> = policy.violations(&pod).into_iter().map(|one| one.reason).collect();
        if !reasons.is_empty() {
            by_reasons.entry(reasons.join(", ")).or_default().push(meta::name(&pod).to_owned());
        }
    }
    if by_reasons.is_empty() {
        return Vec::new();
    }
    let level = policy.shown();
    let mut warnings = vec![format!(
        "existing pods in namespace {name:?} violate the new PodSecurity enforce level {level:?}"
    )];
    let mut told: Vec<String> = by_reasons
        .into_iter()
        .map(|(reasons, pods)| match pods.as_slice() {
            [first, _] => format!("{first} (and 1 other pod): {reasons}"),
            [first, others @ ..] if !others.is_empty() => {
                format!("{first} (and {} other pods): {reasons}", others.len())
            }
            pods => format!("{}: {reasons}", pods.concat()),
        })
        .collect();
    told.sort();
    warnings.extend(told);
    warnings
}

/// Tells that the labels of an exempt namespace mean nothing, where they ask for more than holds without them.
fn ignored(namespace: &Value, settings: &Settings) -> Option<String> {
    let modes = ["enforce", "audit", "warn"];
    let policies = modes.map(|mode| (mode, Policy::of(namespace, mode, settings)));
    let same = |a: &Policy, b: &Policy| a == b || (a.rank() == 0 && b.rank() == 0);
    let is_usual = policies.iter().all(|(mode, policy)| same(policy, settings.default_of(mode)));
    if is_usual || policies.iter().all(|(_, policy)| policy.rank() == 0) {
        return None;
    }
    let has = |label: String| namespace["metadata"]["labels"][label].is_string();
    let labelled = |mode: &str| has(format!("{LABEL}{mode}")) || has(format!("{LABEL}{mode}-version"));
    let told: Vec<String> = policies
        .iter()
        .filter(|(mode, policy)| policy.rank() > 0 && labelled(mode))
        .map(|(mode, policy)| format!("{mode}={}", policy.shown()))
        .collect();
    Some(format!(
        "namespace {:?} is exempt from Pod Security, and the policy ({}) will be ignored",
        meta::name(namespace),
        told.join(", ")
    ))
}

/// Every container of a pod.
fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    lists.into_iter().flat_map(|list| pod["spec"][list].as_array()).flatten()
}

/// The names of the containers that `bad` picks.
fn names(pod: &Value, bad: impl Fn(&Value) -> bool) -> Vec<String> {
    let picked = containers(pod).filter(|container| bad(container));
    picked.map(|container| container["name"].as_str().unwrap_or_default().to_owned()).collect()
}

fn quoted(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    quoted.join(", ")
}

/// `container "a"`, `containers "a", "b"`.
fn counted(word: &str, names: &[String]) -> String {
    format!("{word}{} {}", if names.len() == 1 { "" } else { "s" }, quoted(names))
}

/// The check of one rule about containers: who breaks it, and what they must (not) do.
fn containers_must(pod: &Value, reason: &str, rule: &str, bad: impl Fn(&Value) -> bool) -> Option<Violation> {
    let names = names(pod, bad);
    (!names.is_empty())
        .then(|| violation(reason, format!("{} {rule}", counted("container", &names))))
        .flatten()
}

/// The values of a set of containers, sorted and once each.
fn distinct(mut values: Vec<String>) -> Vec<String> {
    values.sort();
    values.dedup();
    values
}

/// Capabilities that containers add and may not.
fn forbidden_capabilities(pod: &Value, allowed: &[&str]) -> Option<String> {
    let added = |container: &Value| -> Vec<String> {
        let list = meta::strings(&container["securityContext"]["capabilities"]["add"]);
        list.filter(|one| !allowed.contains(one)).map(str::to_owned).collect()
    };
    let names = names(pod, |container| !added(container).is_empty());
    let capabilities = distinct(containers(pod).flat_map(added).collect());
    (!names.is_empty()).then(|| {
        let who = counted("container", &names);
        format!("{who} must not include {} in securityContext.capabilities.add", quoted(&capabilities))
    })
}
