//! PodNodeSelector: pods of a namespace go to the nodes that its annotation, or the cluster's default, names, and to those
//! only that the configuration allows the namespace.

use super::super::{Attributes, CREATE, Context};
use super::failed;
use coracle_api::labels;
use coracle_api::status::{FieldError, GroupResource, Status};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const ANNOTATION: &str = "scheduler.alpha.kubernetes.io/node-selector";
const DEFAULT: &str = "clusterDefaultNodeSelector";

/// Selectors by namespace, and the default of those that say nothing.
pub type Selectors = BTreeMap<String, String>;

type Labels = BTreeMap<String, String>;

/// `a=b,c=d` as labels.
fn parsed(selector: &str) -> Result<Labels, Status> {
    let mut found = Labels::new();
    for part in selector.split(',').filter(|_| !selector.is_empty()) {
        let words: Vec<&str> = part.split('=').collect();
        let [key, value] = words[..] else {
            return Err(failed(format!("invalid selector: [{}]", words.join(" "))));
        };
        let (key, value) = (key.trim(), value.trim());
        let told = |place: String, text: &str, complaints: Vec<String>| match complaints.is_empty() {
            true => Ok(()),
            false => Err(failed(FieldError::invalid(place, &json!(text), complaints.join("; ")).to_string())),
        };
        told("<nil>".to_owned(), key, labels::is_qualified_name(key))?;
        told(format!("[{key}]"), value, labels::is_valid_label_value(value))?;
        found.insert(key.to_owned(), value.to_owned());
    }
    Ok(found)
}

fn of_pod(pod: &Value) -> Labels {
    let own = pod["spec"]["nodeSelector"].as_object().into_iter().flatten();
    own.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
}

async fn of_namespace(context: &Context, attributes: &Attributes<'_>) -> Result<Labels, Status> {
    let namespace = super::namespace(context, attributes).await?;
    let own = namespace["metadata"]["annotations"][ANNOTATION].as_str();
    parsed(own.or(context.plugins.node_selectors.get(DEFAULT).map(String::as_str)).unwrap_or_default())
}

fn refused(pod: &Value, cause: &str) -> Status {
    Status::forbidden(&GroupResource::new("", "pods"), coracle_api::meta::name(pod), cause)
}

/// Adds the namespace's selector to a new pod's.
pub async fn mutate(context: &Context, attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
    if attributes.operation != CREATE || !attributes.is("pods") {
        return Ok(());
    }
    let (own, mut merged) = (of_pod(pod), of_namespace(context, attributes).await?);
    agree(&merged, pod)?;
    merged.extend(own);
    if !merged.is_empty() {
        pod["spec"]["nodeSelector"] = json!(merged);
    }
    allowed(context, attributes, pod)
}

/// Refuses a pod that names other nodes.
pub async fn validate(context: &Context, attributes: &Attributes<'_>, pod: &Value) -> Result<(), Status> {
    if attributes.operation != CREATE || !attributes.is("pods") {
        return Ok(());
    }
    agree(&of_namespace(context, attributes).await?, pod)?;
    allowed(context, attributes, pod)
}

fn agree(namespace: &Labels, pod: &Value) -> Result<(), Status> {
    let own = of_pod(pod);
    if namespace.iter().any(|(key, value)| own.get(key).is_some_and(|own| own != value)) {
        return Err(refused(pod, "pod node label selector conflicts with its namespace node label selector"));
    }
    Ok(())
}

fn allowed(context: &Context, attributes: &Attributes<'_>, pod: &Value) -> Result<(), Status> {
    let selectors = &context.plugins.node_selectors;
    let own = selectors.get(&attributes.request.namespace).map(String::as_str).unwrap_or_default();
    let allowed = parsed(own)?;
    if allowed.is_empty() || of_pod(pod).iter().all(|(key, value)| allowed.get(key) == Some(value)) {
        return Ok(());
    }
    Err(refused(pod, "pod node label selector labels conflict with its namespace whitelist"))
}
