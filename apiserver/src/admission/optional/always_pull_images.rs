//! AlwaysPullImages: every pod pulls its images anew, so that only those who may pull an image run it.

use super::super::{Attributes, UPDATE};
use super::failed;
use coracle_api::status::{FieldError, Status};
use serde_json::{Value, json};

const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];
const ALWAYS: &str = "Always";

fn containers(pod: &Value) -> impl Iterator<Item = (&'static str, usize, &Value)> {
    LISTS.into_iter().flat_map(|list| {
        let all = pod["spec"][list].as_array().into_iter().flatten();
        all.enumerate().map(move |(index, container)| (list, index, container))
    })
}

/// Whether the write is about what a pod runs: an update that brings no image is not.
fn is_about(attributes: &Attributes<'_>, pod: &Value) -> bool {
    let known = |image: &Value| {
        let old = attributes.old.filter(|_| attributes.operation == UPDATE);
        old.is_some_and(|old| containers(old).any(|(_, _, own)| own["image"] == *image))
    };
    attributes.writes("pods")
        && (attributes.operation != UPDATE || !containers(pod).all(|(_, _, own)| known(&own["image"])))
}

/// Lets a pod pull.
pub fn mutate(attributes: &Attributes<'_>, pod: &mut Value) {
    if !is_about(attributes, pod) {
        return;
    }
    for list in LISTS {
        for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            container["imagePullPolicy"] = json!(ALWAYS);
        }
    }
    for volume in pod["spec"].get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(image) = volume.get_mut("image").and_then(Value::as_object_mut) {
            image.insert("pullPolicy".to_owned(), json!(ALWAYS));
        }
    }
}

/// Refuses a pod that would not pull, whoever changed it so.
pub fn validate(attributes: &Attributes<'_>, pod: &Value) -> Result<(), Status> {
    if !is_about(attributes, pod) {
        return Ok(());
    }
    let told = |field: String, policy: &Value| {
        let policy = json!(policy.as_str().unwrap_or_default());
        let fault = FieldError::not_supported(field, &policy, &[ALWAYS]);
        attributes.forbidden(pod, &fault.to_string()).message
    };
    let mut faults: Vec<String> = containers(pod)
        .filter(|(_, _, container)| container["imagePullPolicy"] != ALWAYS)
        .map(|(list, index, own)| {
            told(format!("spec.{list}[{index}].imagePullPolicy"), &own["imagePullPolicy"])
        })
        .collect();
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten().enumerate();
    for (index, volume) in volumes.filter(|(_, volume)| volume["image"].is_object()) {
        let policy = &volume["image"]["pullPolicy"];
        if policy != ALWAYS {
            faults.push(told(format!("spec.volumes[{index}].image.pullPolicy"), policy));
        }
    }
    match faults.as_slice() {
        [] => Ok(()),
        [fault] => Err(failed(fault)),
        all => Err(failed(format!("[{}]", all.join(", ")))),
    }
}
