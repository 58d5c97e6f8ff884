//! Environment variables and what they are taken from; field references, which volumes use too.

use super::super::node::{Faults, Node};
use crate::labels;
use crate::quantity::Quantity;
use serde_json::json;

const SOURCES: [&str; 4] = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef"];
pub(super) const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
pub(super) const VOLUME_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const ENV_RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
/// Fields of a pod that have a label form, whether or not a variable may hold them.
const CONVERTIBLE: [&str; 17] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.nominatedNodeName",
    "status.podIP",
    "status.podIPs",
    "spec.host",
];

pub(super) fn all(container: &Node<'_, '_>, out: &mut Faults) {
    for variable in container.get("env").items() {
        variable.get("name").required_text(labels::is_env_var_name, out);
        let source = variable.get("valueFrom");
        if source.is_set() {
            value_from(&variable, &source, out);
        }
    }
    for source in container.get("envFrom").items() {
        source.get("prefix").text_may(labels::is_env_var_name, out);
        let given: Vec<&str> =
            ["configMapRef", "secretRef"].into_iter().filter(|key| source.get(key).is_set()).collect();
        for key in &given {
            source.get(key).get("name").required_text(labels::is_dns1123_subdomain, out);
        }
        match given.len() {
            0 => source.invalid_as(&json!(""), "must specify one of: `configMapRef` or `secretRef`", out),
            1 => {}
            _ => source.invalid_as(&json!(""), "may not have more than one field specified at a time", out),
        }
    }
}

fn value_from(variable: &Node<'_, '_>, source: &Node<'_, '_>, out: &mut Faults) {
    let given: Vec<&str> = SOURCES.into_iter().filter(|key| source.get(key).is_set()).collect();
    for key in &given {
        let reference = source.get(key);
        match *key {
            "fieldRef" => field(&reference, &ENV_FIELDS, out),
            "resourceFieldRef" => resource(&reference, false, out),
            _ => {
                reference.get("name").text_may(labels::is_dns1123_subdomain, out);
                reference.get("key").required_text(labels::is_config_map_key, out);
            }
        }
    }
    if given.is_empty() {
        let detail =
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`";
        source.invalid_as(&json!(""), detail, out);
    } else if !variable.get("value").is_empty() {
        source.invalid_as(&json!(""), "may not be specified when `value` is not empty", out);
    } else if given.len() > 1 {
        source.invalid_as(&json!(""), "may not have more than one field specified at a time", out);
    }
}

/// A reference to a field of the pod itself; `metadata.labels['k']` reaches into maps.
pub(super) fn field(reference: &Node<'_, '_>, supported: &[&str], out: &mut Faults) {
    let (version, path) = (reference.get("apiVersion"), reference.get("fieldPath"));
    if version.is_empty() {
        return version.required("", out);
    }
    if path.is_empty() {
        return path.required("", out);
    }
    let (name, subscript) = match path.text().split_once('[') {
        Some((name, rest)) => (name, rest.strip_prefix('\'').and_then(|rest| rest.strip_suffix("']"))),
        None => (path.text(), None),
    };
    if !CONVERTIBLE.contains(&name) {
        let detail = format!("error converting fieldPath: field label not supported: {}", path.text());
        return path.invalid(detail, out);
    }
    match (name, subscript) {
        ("metadata.annotations", Some(key)) => {
            labels::is_qualified_name(&key.to_lowercase())
                .into_iter()
                .for_each(|complaint| reference.invalid_as(path.value, complaint, out));
        }
        ("metadata.labels", Some(key)) => {
            labels::is_qualified_name(key)
                .into_iter()
                .for_each(|complaint| reference.invalid_as(path.value, complaint, out));
        }
        (_, Some(_)) => reference.invalid_as(path.value, "does not support subscript", out),
        (name, None) if !supported.contains(&name) => path.not_supported(supported, out),
        _ => {}
    }
}

/// A reference to a container's resources; a volume must name the container.
pub(super) fn resource(reference: &Node<'_, '_>, in_volume: bool, out: &mut Faults) {
    let (container, resource, divisor) =
        (reference.get("containerName"), reference.get("resource"), reference.get("divisor"));
    if in_volume && container.is_empty() {
        return container.required("", out);
    }
    if resource.is_empty() {
        return resource.required("", out);
    }
    let name = resource.text();
    let huge = ["limits.hugepages-", "requests.hugepages-"].iter().any(|prefix| name.starts_with(prefix));
    if !ENV_RESOURCES.contains(&name) && !huge {
        return resource.not_supported(&ENV_RESOURCES, out);
    }
    let amount = divisor.amount();
    if divisor.is_empty() || amount == Quantity::ZERO {
        return;
    }
    let (what, allowed): (&str, &[&str]) = match name.rsplit('.').next() {
        Some("cpu") => ("cpu", &["1m", "1"]),
        Some("memory") => ("memory", BYTES),
        Some("ephemeral-storage") => ("local ephemeral storage", BYTES),
        _ => ("hugepages", BYTES),
    };
    if !allowed.iter().any(|text| Quantity::parse(text).is_ok_and(|other| other == amount)) {
        let list = if what == "cpu" { "1m and 1".to_owned() } else { allowed.join(", ") };
        divisor.invalid(format!("only divisor's values {list} are supported with the {what} resource"), out);
    }
}

const BYTES: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
