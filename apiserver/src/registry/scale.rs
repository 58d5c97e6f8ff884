//! The scale subresource: replicas of whatever has `spec.replicas`, as an autoscaling/v1 Scale.

use super::options::WriteOptions;
use super::update::Made;
use super::{At, Call, Registry, Reply, body, patch};
use coracle_api::meta;
use coracle_api::selector::LabelSelector;
use coracle_api::status::{FieldError, GroupResource, Status};
use serde_json::{Value, json};

/// The Scale of an object.
fn of(object: &Value) -> Value {
    let from = &object["metadata"];
    let mut metadata = json!({"name": from["name"], "namespace": from["namespace"], "uid": from["uid"],
        "resourceVersion": from["resourceVersion"], "creationTimestamp": from["creationTimestamp"]});
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.retain(|_, value| !value.is_null());
    }
    let selector = &object["spec"]["selector"];
    let selector = if object["kind"] == "ReplicationController" {
        LabelSelector::from_map(selector).to_string()
    } else {
        LabelSelector::from_object(selector).map(|selector| selector.to_string()).unwrap_or_default()
    };
    let mut spec = json!({});
    if let Some(replicas) = object["spec"]["replicas"].as_i64().filter(|replicas| *replicas != 0) {
        spec["replicas"] = json!(replicas);
    }
    let mut status = json!({"replicas": object["status"]["replicas"].as_i64().unwrap_or(0)});
    if !selector.is_empty() {
        status["selector"] = json!(selector);
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}

impl Registry {
    pub(super) async fn get_scale(&self, call: &Call) -> Result<Reply, Status> {
        let entry = self.find(call).await?;
        Reply::value(200, call.format, &of(entry.value()))
    }

    pub(super) async fn write_scale(&self, call: &Call) -> Result<Reply, Status> {
        let kind = call.kind()?.clone();
        let scale_kind = body::loose_kind("autoscaling", "v1", "Scale");
        let patches = call.info.verb == "patch";
        let options =
            WriteOptions::read(call, if patches { "PatchOptions" } else { "UpdateOptions" }, false)?;
        let validation = options.validation;
        let at = At::new(call, self.resource(&kind)?, options)?;
        let sent = if patches {
            None
        } else {
            Some(body::read(&call.content_type, &call.body, &scale_kind, validation)?.object)
        };
        let make = |old: &Value| {
            let scale = match &sent {
                Some(scale) => scale.clone(),
                None => {
                    patch::patched(&of(old), &call.content_type, &call.body, &scale_kind, validation)?.object
                }
            };
            let object = scaled(old, &scale, &at)?;
            Ok(Made { object, warnings: Vec::new(), owned: false })
        };
        let (outcome, warnings) = self.change(&at, &make).await?;
        Ok(Reply::value(200, call.format, &of(&outcome.object(&kind)))?.warned(warnings))
    }
}

fn scaled(old: &Value, scale: &Value, at: &At) -> Result<Value, Status> {
    let of = GroupResource::new("autoscaling", "Scale");
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    if replicas < 0 {
        let fault =
            FieldError::invalid("spec.replicas", &json!(replicas), "must be greater than or equal to 0");
        return Err(Status::invalid(&of, &at.info.name, &[fault]));
    }
    let name = meta::name(scale);
    if !name.is_empty() && name != at.info.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            at.info.name
        )));
    }
    let mut object = old.clone();
    object["spec"]["replicas"] = json!(replicas);
    let seen = meta::field(scale, "resourceVersion");
    if !seen.is_empty() {
        meta::set(&mut object, "resourceVersion", seen);
    }
    let uid = meta::uid(scale);
    if !uid.is_empty() {
        meta::set(&mut object, "uid", uid);
    }
    Ok(object)
}
