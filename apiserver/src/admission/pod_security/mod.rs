//! PodSecurity: the Pod Security Standards (baseline, restricted) that a namespace's labels ask for.
//!
//! `enforce` refuses pods; `warn` tells whoever writes a pod or a workload with a template, `audit` the audit log. Only the latest version of the
//! standards is known: a label that pins an older one is judged by it too.

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

type Check = fn(&Value) -> Option<Violation>;

fn violation(reason: &str, detail: String) -> Option<Violation> {
    Some(Violation { reason: reason.to_owned(), detail })
}

/// A level and version, as a namespace's label names it.
struct Policy {
    level: String,
    version: String,
}

impl Policy {
    /// The policy of a mode (`enforce`, `warn`); `None` where it allows everything.
    fn of(namespace: &Value, mode: &str) -> Option<Self> {
        let label = |key: String| namespace["metadata"]["labels"][key].as_str().map(str::to_owned);
        let level = label(format!("{LABEL}{mode}"))?;
        if level == "privileged" {
            return None;
        }
        let version = label(format!("{LABEL}{mode}-version")).unwrap_or_else(|| "latest".to_owned());
        // As upstream: a level that nobody knows must not open the door.
        let level = if level == "baseline" { level } else { "restricted".to_owned() };
        Some(Self { level, version })
    }

    fn violations(&self, pod: &Value) -> Vec<Violation> {
        let lists: [&[Check]; 2] = match self.level.as_str() {
            "baseline" => [baseline::ALWAYS, baseline::UNLESS_RESTRICTED],
            _ => [baseline::ALWAYS, restricted::CHECKS],
        };
        lists.iter().copied().flatten().filter_map(|check| check(pod)).collect()
    }

    /// `PodSecurity "restricted:latest": check (detail), …`, when the pod violates it.
    fn told(&self, pod: &Value) -> Option<String> {
        let violations = self.violations(pod);
        let texts: Vec<String> =
            violations.iter().map(|one| format!("{} ({})", one.reason, one.detail)).collect();
        let name = format!("{}:{}", self.level, self.version);
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
        if !faults.is_empty() && attributes.old.is_none_or(|old| label_faults(old).is_empty()) {
            return Err(Status::invalid(&GroupResource::new("", "Namespace"), meta::name(object), &faults));
        }
        return Ok(relabelled(context, attributes, object));
    }
    let is_pod = attributes.is("pods") || attributes.is("pods/ephemeralcontainers");
    let judged = if is_pod {
        (attributes.old.is_none_or(|old| old["spec"] != object["spec"])).then_some(object)
    } else {
        template(attributes, object).filter(|_| request.subresource.is_empty())
    };
    let (Some(judged), Some(namespace)) = (judged, context.get("", "namespaces", "", &request.namespace))
    else {
        return Ok(Vec::new());
    };
    let enforced = Policy::of(&namespace, "enforce");
    if is_pod {
        audit::annotate("pod-security.kubernetes.io/enforce-policy", || {
            let named = enforced.as_ref().map(|policy| format!("{}:{}", policy.level, policy.version));
            named.unwrap_or_else(|| "privileged:latest".to_owned())
        });
    }
    if let Some(told) = Policy::of(&namespace, "audit").and_then(|policy| policy.told(judged)) {
        audit::annotate("pod-security.kubernetes.io/audit-violations", || format!("would violate {told}"));
    }
    if is_pod && let Some(told) = enforced.and_then(|policy| policy.told(judged)) {
        return Err(attributes.forbidden(object, &format!("violates {told}")));
    }
    let warned = Policy::of(&namespace, "warn").and_then(|policy| policy.told(judged));
    Ok(warned.map(|told| format!("would violate {told}")).into_iter().collect())
}

/// Labels of a namespace that name no level or version.
fn label_faults(namespace: &Value) -> Vec<FieldError> {
    let mut faults = Vec::new();
    for mode in ["enforce", "audit", "warn"] {
        for (key, valid, why) in [
            (
                format!("{LABEL}{mode}"),
                is_level as fn(&str) -> bool,
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

fn is_level(text: &str) -> bool {
    ["privileged", "baseline", "restricted"].contains(&text)
}

fn is_version(text: &str) -> bool {
    text == "latest" || text.strip_prefix("v1.").is_some_and(|minor| minor.parse::<u16>().is_ok())
}

/// Tells of the pods that a namespace's new `enforce` label would not have let in. They stay.
fn relabelled(context: &Context, attributes: &Attributes<'_>, namespace: &Value) -> Vec<String> {
    let labels = |namespace: &Value| namespace["metadata"]["labels"][format!("{LABEL}enforce")].clone();
    let Some(policy) = Policy::of(namespace, "enforce") else { return Vec::new() };
    if attributes.old.is_none_or(|old| labels(old) == labels(namespace)) {
        return Vec::new();
    }
    let name = meta::name(namespace);
    let mut by_reasons: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pod in context.list("", "pods", name) {
        let reasons: Vec<String> = policy.violations(&pod).into_iter().map(|one| one.reason).collect();
        if !reasons.is_empty() {
            by_reasons.entry(reasons.join(", ")).or_default().push(meta::name(&pod).to_owned());
        }
    }
    if by_reasons.is_empty() {
        return Vec::new();
    }
    let level = format!("{}:{}", policy.level, policy.version);
    let mut warnings = vec![format!(
        "existing pods in namespace {name:?} violate the new PodSecurity enforce level {level:?}"
    )];
    warnings.extend(by_reasons.into_iter().map(|(reasons, pods)| match pods.as_slice() {
        [first, _] => format!("{first} (and 1 other pod): {reasons}"),
        [first, others @ ..] if !others.is_empty() => {
            format!("{first} (and {} other pods): {reasons}", others.len())
        }
        pods => format!("{}: {reasons}", pods.concat()),
    }));
    warnings
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
