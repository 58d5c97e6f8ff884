//! Binding: the scheduler's answer, which puts a pod on a node.

use super::call::warned;
use super::create::place;
use super::options::WriteOptions;
use super::review::own;
use super::update::{Made, other_uid, other_version};
use super::{At, Call, Registry, Reply, body, pods};
use coracle_api::kinds::Kind;
use coracle_api::meta;
use coracle_api::status::{FieldError, GroupResource, Status};
use coracle_daemon::clock;
use serde_json::{Value, json};

impl Registry {
    pub(super) async fn bind(&self, call: &Call) -> Result<Reply, Status> {
        let options = WriteOptions::read(call, "CreateOptions", false)?;
        let of = body::loose_kind("", "v1", "Binding");
        let body::Read { object, warnings, .. } =
            body::read(&call.content_type, &call.body, &of, options.validation)?;
        warned(self.bound(call, &of, object, options).await, warnings)
    }

    async fn bound(
        &self,
        call: &Call,
        of: &Kind,
        mut binding: Value,
        options: WriteOptions,
    ) -> Result<Reply, Status> {
        place(&mut binding, of, &call.info.namespace)?;
        own(&mut binding, of, &options, &call.info.subresource);
        let pods = pods()?;
        let mut at = self.unstored(call, options)?;
        let mut warnings = self.mutate(&at, "CREATE", None, &mut binding).await?;
        let by_url = !call.info.subresource.is_empty();
        if !by_url {
            // An object of its own has no uid before it is made.
            meta::remove(&mut binding, "uid");
        }
        if by_url && meta::name(&binding) != call.info.name {
            return Err(Status::bad_request("name in URL does not match name in Binding object"));
        }
        let target = &binding["target"];
        let node = target["name"].as_str().unwrap_or_default();
        let mut faults = Vec::new();
        if !matches!(target["kind"].as_str(), None | Some("" | "Node")) {
            faults.push(FieldError::not_supported("target.kind", &target["kind"], &["Node", "<empty>"]));
        }
        if node.is_empty() {
            faults.push(FieldError::required("target.name", ""));
        }
        let name = meta::name(&binding).to_owned();
        if !faults.is_empty() {
            let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
            let told =
                if let [one] = told.as_slice() { one.clone() } else { format!("[{}]", told.join(", ")) };
            return Err(Status::new(500, "", told));
        }
        warnings.extend(self.admit(&at, "CREATE", None, &binding).await?);
        // The pod itself changes past admission.
        at.own = true;
        (at.kind, at.namespace) = (pods, call.info.namespace.clone());
        (at.info.resource, at.info.name) = ("pods".to_owned(), name);
        at.info.subresource = "binding".to_owned();
        let make = |old: &Value| {
            // Nobody owns what a binding sets.
            Ok(Made::owned(bound(old, &binding, node, &at)?))
        };
        self.change(&at, &make).await?;
        let done =
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
        Ok(Reply::value(201, call.format, &done)?.warned(warnings))
    }
}

fn bound(old: &Value, binding: &Value, node: &str, at: &At) -> Result<Value, Status> {
    let conflict =
        |cause: String| Status::conflict(&GroupResource::new("", "pods/binding"), &at.info.name, &cause);
    let uid = meta::uid(binding);
    if !uid.is_empty() && uid != meta::uid(old) {
        return Err(other_uid(at, uid, old));
    }
    let seen = meta::field(binding, "resourceVersion");
    if !seen.is_empty() && seen != meta::field(old, "resourceVersion") {
        return Err(other_version(at, seen, old));
    }
    if !meta::field(old, "deletionTimestamp").is_empty() {
        return Err(conflict(format!("pod {} is being deleted, cannot be assigned to a host", at.info.name)));
    }
    if let Some(on) = old["spec"]["nodeName"].as_str().filter(|on| !on.is_empty()) {
        return Err(conflict(format!("pod {} is already assigned to node {on:?}", at.info.name)));
    }
    let gates = old["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty());
    if gates {
        return Err(conflict(format!("pod {} has non-empty .spec.schedulingGates", at.info.name)));
    }
    let mut pod = old.clone();
    pod["spec"]["nodeName"] = json!(node);
    for (key, value) in binding["metadata"]["annotations"].as_object().into_iter().flatten() {
        if !pod["metadata"]["annotations"].is_object() {
            pod["metadata"]["annotations"] = json!({});
        }
        pod["metadata"]["annotations"][key] = value.clone();
    }
    schedule(&mut pod);
    Ok(pod)
}

/// Sets the condition PodScheduled.
fn schedule(pod: &mut Value) {
    let now = clock::rfc3339_seconds(clock::now());
    let condition =
        json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
    if !pod["status"]["conditions"].is_array() {
        pod["status"]["conditions"] = json!([]);
    }
    let Some(conditions) = pod["status"]["conditions"].as_array_mut() else { return };
    match conditions.iter_mut().find(|condition| condition["type"] == "PodScheduled") {
        Some(own) => *own = condition,
        None => conditions.push(condition),
    }
}
