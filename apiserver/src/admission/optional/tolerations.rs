//! PodTolerationRestriction: pods of a namespace get the tolerations that its annotation, or the configuration, has by default,
//! and may have no others than those that it allows.

use super::super::{Attributes, CREATE, Context};
use super::failed;
use coracle_api::status::Status;
use coracle_api::strategy::quality_of_service;
use serde_json::{Value, json};

const DEFAULT: &str = "scheduler.alpha.kubernetes.io/defaultTolerations";
const ALLOWED: &str = "scheduler.alpha.kubernetes.io/tolerationsWhitelist";

/// What namespaces have that say nothing.
#[derive(Clone, Debug, Default)]
pub struct Tolerations {
    /// Of every pod.
    pub default: Vec<Value>,
    /// That pods may have; any when there is none.
    pub allowed: Vec<Value>,
}

/// Adds what is missing.
pub async fn mutate(context: &Context, attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
    if !attributes.writes("pods") {
        return Ok(());
    }
    let mut more = Vec::new();
    if attributes.operation == CREATE {
        let own = told(context, attributes, DEFAULT).await?;
        more = own.unwrap_or_else(|| context.plugins.tolerations.default.clone());
    }
    if quality_of_service(&pod["spec"]) != "BestEffort" {
        more.push(json!({"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule"}));
    }
    if !more.is_empty() {
        let own = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
        pod["spec"]["tolerations"] = Value::Array(merged(&own.into_iter().chain(more).collect::<Vec<_>>()));
    }
    validate(context, attributes, pod).await
}

/// Refuses a pod that tolerates more than it may.
pub async fn validate(context: &Context, attributes: &Attributes<'_>, pod: &Value) -> Result<(), Status> {
    let own = pod["spec"]["tolerations"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !attributes.writes("pods") || own.is_empty() {
        return Ok(());
    }
    let (allowed, whose) = match told(context, attributes, ALLOWED).await? {
        Some(allowed) => (allowed, "namespace"),
        None => (context.plugins.tolerations.allowed.clone(), "cluster"),
    };
    if allowed.is_empty() || own.iter().all(|one| allowed.iter().any(|allowed| includes(allowed, one))) {
        return Ok(());
    }
    Err(failed(format!(
        "pod tolerations (possibly merged with namespace default tolerations) conflict with its {whose} whitelist"
    )))
}

/// The tolerations in an annotation of the namespace, if it has that one.
async fn told(
    context: &Context,
    attributes: &Attributes<'_>,
    annotation: &str,
) -> Result<Option<Vec<Value>>, Status> {
    let namespace = super::namespace(context, attributes).await?;
    match namespace["metadata"]["annotations"][annotation].as_str() {
        None => Ok(None),
        Some("") => Ok(Some(Vec::new())),
        Some(text) => serde_json::from_str(text).map(Some).map_err(|error| failed(error.to_string())),
    }
}

/// Without those that others include.
fn merged(all: &[Value]) -> Vec<Value> {
    let mut kept: Vec<Value> = Vec::new();
    for (index, one) in all.iter().enumerate() {
        let later = all.iter().skip(index + 1);
        // Of equal ones the first stays.
        let mut over = kept.iter().chain(later.filter(|other| !same(other, one)));
        if !over.any(|other| includes(other, one)) {
            kept.push(one.clone());
        }
    }
    kept
}

fn text<'a>(toleration: &'a Value, key: &str) -> &'a str {
    toleration[key].as_str().unwrap_or_default()
}

fn same(a: &Value, b: &Value) -> bool {
    ["key", "operator", "value", "effect"].iter().all(|key| text(a, key) == text(b, key))
        && a["tolerationSeconds"].as_i64() == b["tolerationSeconds"].as_i64()
}

/// Whether whoever has the first tolerates all that the second does.
fn includes(wide: &Value, one: &Value) -> bool {
    if same(wide, one) {
        return true;
    }
    let (key, operator, effect) = (text(wide, "key"), text(wide, "operator"), text(wide, "effect"));
    let any_key = key.is_empty() && operator == "Exists";
    if (text(one, "key") != key && !any_key) || (text(one, "effect") != effect && !effect.is_empty()) {
        return false;
    }
    if effect == "NoExecute"
        && let Some(most) = wide["tolerationSeconds"].as_i64()
        && one["tolerationSeconds"].as_i64().is_none_or(|seconds| seconds > most)
    {
        return false;
    }
    match operator {
        "Equal" | "" => text(one, "operator") == "Equal" && text(one, "value") == text(wide, "value"),
        operator => operator == "Exists",
    }
}
