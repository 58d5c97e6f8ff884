//! RuntimeClass: a pod's class brings overhead, node selector and tolerations.

use super::{Attributes, Context};
use coracle_api::status::Status;
use serde_json::{Value, json};
use std::sync::Arc;

fn has_overhead(spec: &Value) -> bool {
    spec["overhead"].as_object().is_some_and(|overhead| !overhead.is_empty())
}

async fn class_of(
    context: &Context,
    attributes: &Attributes<'_>,
    pod: &Value,
) -> Result<Option<Arc<Value>>, Status> {
    let Some(name) = pod["spec"]["runtimeClassName"].as_str() else { return Ok(None) };
    if name.is_empty() {
        return Err(Status::new(500, "", "resource name may not be empty"));
    }
    match context.find("node.k8s.io", "runtimeclasses", "", name).await? {
        None => Err(attributes.forbidden(pod, &format!("pod rejected: RuntimeClass {name:?} not found"))),
        found => Ok(found),
    }
}

/// A new pod has no overhead but that of its class.
pub async fn validate(context: &Context, attributes: &Attributes<'_>, pod: &Value) -> Result<(), Status> {
    if !attributes.creates("pods") || !has_overhead(&pod["spec"]) {
        return Ok(());
    }
    let class = class_of(context, attributes, pod).await?;
    if class.is_some_and(|class| !class["overhead"]["podFixed"].is_null()) {
        return Ok(());
    }
    let cause = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
    Err(attributes.forbidden(pod, cause))
}

/// Merges the class of a new pod into it.
pub async fn mutate(context: &Context, attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
    if !attributes.creates("pods") {
        return Ok(());
    }
    let Some(class) = class_of(context, attributes, pod).await? else { return Ok(()) };
    let spec = &pod["spec"];
    let overhead = &class["overhead"]["podFixed"];
    if !overhead.is_null() && has_overhead(spec) && spec["overhead"] != *overhead {
        let cause = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
        return Err(attributes.forbidden(pod, cause));
    }
    let mut selector = spec["nodeSelector"].as_object().cloned().unwrap_or_default();
    for (key, value) in class["scheduling"]["nodeSelector"].as_object().into_iter().flatten() {
        match selector.get(key) {
            Some(own) if own != value => {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let cause = format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                    text(value),
                    text(own)
                );
                return Err(attributes.forbidden(pod, &cause));
            }
            _ => selector.insert(key.clone(), value.clone()),
        };
    }
    let mut tolerations = spec["tolerations"].as_array().cloned().unwrap_or_default();
    for toleration in class["scheduling"]["tolerations"].as_array().into_iter().flatten() {
        if !tolerations.contains(toleration) {
            tolerations.push(toleration.clone());
        }
    }
    let spec = &mut pod["spec"];
    if !overhead.is_null() {
        spec["overhead"] = overhead.clone();
    }
    if !selector.is_empty() {
        spec["nodeSelector"] = Value::Object(selector);
    }
    if !tolerations.is_empty() {
        spec["tolerations"] = json!(tolerations);
    }
    Ok(())
}
