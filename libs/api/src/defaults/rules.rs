//! Defaults that depend on several fields at once. Each function gets the object its path in `data/defaults.txt` leads to.

use crate::quantity::Quantity;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use regex::Regex;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

/// The function that the table calls `name`.
pub(super) fn by_name(name: &str) -> Option<fn(&mut Value)> {
    Some(match name {
        "allocatable" => allocatable,
        "autoscaler_v2" => autoscaler_v2,
        "image_pull_policy" => image_pull_policy,
        "labels_from_template" => labels_from_template,
        "limits" => limits,
        "name_label" => name_label,
        "pod_only" => pod_only,
        "policy_types" => policy_types,
        "resource_names" => resource_names,
        "round_quantities" => round_quantities,
        "selector_from_template" => selector_from_template,
        "service_account" => service_account,
        "session_affinity_config" => session_affinity_config,
        "stored_version" => stored_version,
        "string_data" => string_data,
        "target_port" => target_port,
        "volume_source" => volume_source,
        _ => return None,
    })
}

fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn is_empty(object: &Value, key: &str) -> bool {
    match object.get(key) {
        None | Some(Value::Null) => true,
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(_) => false,
    }
}

/// `Always` for images that may move under the same name: tag `latest`, or neither tag nor digest.
fn image_pull_policy(container: &mut Value) {
    if !text(container, "imagePullPolicy").is_empty() {
        return;
    }
    let image = text(container, "image");
    let last = image.rsplit('/').next().unwrap_or_default();
    // What is no reference has no tag that could move.
    let moving = !image.contains('@')
        && is_reference(image)
        && last.split_once(':').is_none_or(|(_, tag)| tag == "latest");
    container["imagePullPolicy"] = json!(if moving { "Always" } else { "IfNotPresent" });
}

/// Whether it may be an image's name with a registry before it and a tag behind it, as the distribution specification has them.
fn is_reference(image: &str) -> bool {
    static REFERENCE: LazyLock<Option<Regex>> = LazyLock::new(|| {
        const PART: &str = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*";
        const HOST: &str = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])";
        const TAG: &str = r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}";
        let registry = format!(r"(?:{HOST}(?:\.{HOST})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?");
        Regex::new(&format!(r"^(?:{registry}/)?{PART}(?:/{PART})*(?::{TAG})?$")).ok()
    });
    // Longer names are none, wherever they come from.
    let name = image.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(image, |(name, _)| name);
    name.len() <= 255 && REFERENCE.as_ref().is_some_and(|reference| reference.is_match(image))
}

/// The deprecated `serviceAccount` always shows what `serviceAccountName` says.
fn service_account(spec: &mut Value) {
    let name = [text(spec, "serviceAccountName"), text(spec, "serviceAccount")]
        .into_iter()
        .find(|name| !name.is_empty());
    if let Some(name) = name.map(str::to_owned) {
        spec["serviceAccountName"] = json!(name);
        spec["serviceAccount"] = json!(name);
    }
}

/// A volume that names no source is an empty directory.
fn volume_source(volume: &mut Value) {
    if let Some(map) = volume.as_object_mut()
        && !map.iter().any(|(key, source)| key != "name" && !source.is_null())
    {
        map.insert("emptyDir".to_owned(), json!({}));
    }
}

/// What Pods get and templates do not.
fn pod_only(spec: &mut Value) {
    if spec.get("enableServiceLinks").is_none_or(Value::is_null) {
        spec["enableServiceLinks"] = json!(true);
    }
    let host_network = spec.get("hostNetwork").and_then(Value::as_bool).unwrap_or(false);
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            requests_from_limits(container);
            if host_network {
                host_ports(container);
            }
        }
    }
}

fn requests_from_limits(container: &mut Value) {
    let Some(limits) = container.pointer("/resources/limits").and_then(Value::as_object).cloned() else {
        return;
    };
    let Some(resources) = container.get_mut("resources").and_then(Value::as_object_mut) else { return };
    if limits.is_empty() {
        return;
    }
    let requests = resources.entry("requests").or_insert_with(|| json!({}));
    if requests.is_null() {
        *requests = json!({});
    }
    for (name, limit) in limits {
        requests.as_object_mut().map(|requests| requests.entry(name).or_insert(limit));
    }
}

fn host_ports(container: &mut Value) {
    for port in container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        let set = |key: &str| port.get(key).and_then(Value::as_i64).filter(|number| *number != 0);
        if let (None, Some(number)) = (set("hostPort"), set("containerPort")) {
            port["hostPort"] = json!(number);
        }
    }
}

/// Kubernetes keeps no resource amount finer than a thousandth.
fn round_quantities(resources: &mut Value) {
    for amount in resources.as_object_mut().into_iter().flat_map(Map::values_mut) {
        let parsed = amount.as_str().and_then(|text| Quantity::parse(text).ok());
        if let Some(fine) = parsed.filter(|amount| *amount != Quantity::from_milli(amount.milli_value())) {
            *amount = json!(Quantity::from_milli(fine.milli_value()).to_string());
        }
    }
}

fn template_labels(object: &Value) -> Option<Value> {
    object
        .pointer("/spec/template/metadata/labels")
        .filter(|labels| labels.as_object().is_some_and(|map| !map.is_empty()))
        .cloned()
}

fn labels_from_template(object: &mut Value) {
    if let Some(labels) = template_labels(object)
        && object.get("metadata").is_some_and(|metadata| is_empty(metadata, "labels"))
    {
        object["metadata"]["labels"] = labels;
    }
}

fn selector_from_template(object: &mut Value) {
    if let Some(labels) = template_labels(object)
        && is_empty(&object["spec"], "selector")
    {
        object["spec"]["selector"] = labels;
    }
}

/// Affinity settings mean nothing without affinity.
fn session_affinity_config(service: &mut Value) {
    if let Some(spec) = service.get_mut("spec").and_then(Value::as_object_mut)
        && spec.get("sessionAffinity").and_then(Value::as_str) == Some("None")
    {
        spec.remove("sessionAffinityConfig");
    }
}

fn target_port(port: &mut Value) {
    let unset = match port.get("targetPort") {
        None | Some(Value::Null) => true,
        Some(Value::String(name)) => name.is_empty(),
        Some(number) => number.as_i64() == Some(0),
    };
    if unset && port.is_object() {
        port["targetPort"] = port["port"].clone();
    }
}

/// Every namespace carries its own name as a label, so that selectors can name it.
fn name_label(namespace: &mut Value) {
    let name = crate::meta::name(namespace).to_owned();
    if name.is_empty() {
        return;
    }
    let metadata = &mut namespace["metadata"];
    if !metadata["labels"].is_object() {
        metadata["labels"] = json!({});
    }
    metadata["labels"]["kubernetes.io/metadata.name"] = json!(name);
}

fn allocatable(node: &mut Value) {
    if let Some(status) = node
        .get_mut("status")
        .filter(|status| is_empty(status, "allocatable") && !is_empty(status, "capacity"))
    {
        status["allocatable"] = status["capacity"].clone();
    }
}

/// `stringData` is written only: its entries go over `data`, encoded.
fn string_data(secret: &mut Value) {
    let Some(map) = secret.as_object_mut() else { return };
    let Some(Value::Object(plain)) = map.remove("stringData") else { return };
    if plain.is_empty() {
        return;
    }
    let data = map.entry("data").or_insert_with(|| json!({}));
    if !data.is_object() {
        *data = json!({});
    }
    for (key, value) in plain {
        data[key] = json!(BASE64.encode(value.as_str().unwrap_or_default()));
    }
}

/// Container limits: `default` from `max`, then `defaultRequest` from `default`, then from `min`.
fn limits(item: &mut Value) {
    if text(item, "type") != "Container" {
        return;
    }
    for (to, from) in [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")] {
        let Some(source) = item.get(from).and_then(Value::as_object).filter(|map| !map.is_empty()).cloned()
        else {
            continue;
        };
        if !item[to].is_object() {
            item[to] = json!({});
        }
        let Some(target) = item[to].as_object_mut() else { continue };
        for (name, amount) in source {
            target.entry(name).or_insert(amount);
        }
    }
}

fn autoscaler_v2(autoscaler: &mut Value) {
    // Version 1 gets its own on the way through the inner form, which knows all metrics.
    let first = text(autoscaler, "apiVersion") == "autoscaling/v1";
    if let Some(spec) = autoscaler.get_mut("spec").filter(|_| !first) {
        super::table::apply(spec, "AutoscalerV2");
    }
}

fn policy_types(policy: &mut Value) {
    if let Some(spec) = policy.get_mut("spec").filter(|spec| is_empty(spec, "policyTypes")) {
        let egress = !is_empty(spec, "egress");
        spec["policyTypes"] = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
    }
}

fn resource_names(names: &mut Value) {
    let kind = text(names, "kind").to_owned();
    for (key, value) in [("singular", kind.to_lowercase()), ("listKind", format!("{kind}List"))] {
        if text(names, key).is_empty() && !kind.is_empty() {
            names[key] = json!(value);
        }
    }
}

/// Objects are stored in the version that is marked so, until somebody says more.
fn stored_version(definition: &mut Value) {
    let versions = definition["spec"]["versions"].as_array();
    let storage = versions.into_iter().flatten().find(|version| version["storage"] == true);
    let Some(name) = storage.map(|version| version["name"].clone()) else { return };
    let status = &definition["status"];
    if (status.is_object() || status.is_null()) && is_empty(status, "storedVersions") {
        definition["status"]["storedVersions"] = json!([name]);
    }
}
