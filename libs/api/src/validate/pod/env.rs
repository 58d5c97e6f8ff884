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
/// Fields of a pod that can be told by name, whether or not a variable may hold them.
const CONVERTIBLE: [&str; 14] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.phase",
    "status.podIP",
    "status.podIPs",
];

pub(super) fn all(container: &Node<'_, '_>, out: &mut Faults) {
    for variable in container.get("env").items() {
        variable.get("name").required_text(labels::is_env_var_name, out);
        let source = variable.get("valueFrom");
        if source.is_set() {
            value_from(&variable, &source, out);
        }
    }
    let sources = container.get("envFrom");
    for source in sources.items() {
        source.get("prefix").text_may(labels::is_env_var_name, out);
        let given: Vec<&str> =
            ["configMapRef", "secretRef"].into_iter().filter(|key| source.get(key).is_set()).collect();
        for key in &given {
            source.get(key).get("name").required_text(labels::is_dns1123_subdomain, out);
        }
        // What is wrong with one of them is told of the list.
        match given.len() {
            0 => sources.invalid_as(&json!(""), "must specify one of: `configMapRef` or `secretRef`", out),
            1 => {}
            _ => sources.invalid_as(&json!(""), "may not have more than one field specified at a time", out),
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
                reference.get("name").text_must(labels::is_dns1123_subdomain, out);
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
    let inside =
        |why: String, out: &mut Faults| path.invalid(format!("error converting fieldPath: {why}"), out);
    if version.text() != "v1" {
        return inside(format!("unsupported pod version: {}", version.text()), out);
    }
    let subscript = path.text().split_once("['").filter(|(name, _)| !name.is_empty());
    let subscript = subscript.and_then(|(name, rest)| Some((name, rest.strip_suffix("']")?)));
    match subscript {
        Some(("metadata.annotations", key)) => {
            for complaint in labels::is_qualified_name(&key.to_lowercase()) {
                reference.invalid_as(&json!(key.to_lowercase()), complaint, out);
            }
        }
        Some(("metadata.labels", key)) => {
            for complaint in labels::is_qualified_name(key) {
                reference.invalid_as(&json!(key), complaint, out);
            }
        }
        Some(_) => inside(format!("field label does not support subscript: {}", path.text()), out),
        None => {
            // An old name that old clients still send.
            let name = if path.text() == "spec.host" { "spec.nodeName" } else { path.text() };
            if !CONVERTIBLE.contains(&name) {
                inside(format!("field label not supported: {name}"), out);
            } else if !supported.contains(&name) {
                path.named("", &json!(name)).not_supported(supported, out);
            }
        }
    }
}

/// A reference to a container's resources; a volume must name the container.
pub(super) fn resource(reference: &Node<'_, '_>, in_volume: bool, out: &mut Faults) {
    let (container, resource, divisor) =
        (reference.get("containerName"), reference.get("resource"), reference.get("divisor"));
    let name = resource.text();
    let huge = ["limits.hugepages-", "requests.hugepages-"].iter().any(|prefix| name.starts_with(prefix));
    if in_volume && container.is_empty() {
        container.required("", out);
    } else if resource.is_empty() {
        resource.required("", out);
    } else if !ENV_RESOURCES.contains(&name) && !huge {
        resource.not_supported(&ENV_RESOURCES, out);
    }
    let (what, allowed): (&str, &[&str]) = match name.rsplit('.').next() {
        _ if divisor.is_empty() || divisor.amount() == Quantity::ZERO => return,
        _ if huge => ("hugepages", BYTES),
        _ if !ENV_RESOURCES.contains(&name) => return,
        Some("cpu") => ("cpu", &["1m", "1"]),
        Some("memory") => ("memory", BYTES),
        _ => ("local ephemeral storage", BYTES),
    };
    if !allowed.contains(&divisor.text()) {
        let list = if what == "cpu" { "1m and 1".to_owned() } else { allowed.join(", ") };
        let detail = format!("only divisor's values {list} are supported with the {what} resource");
        divisor.invalid_as(&json!(name), detail, out);
    }
}

const BYTES: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
