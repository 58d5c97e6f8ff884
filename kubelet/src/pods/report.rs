//! Tells the API what a step found: the status when it changed, and at the very end that the object may go.

use super::{Entry, Pods, node_of};
use crate::admission::Refusal;
use crate::launch::text;
use crate::step;
use coracle_client::controller::ReconcileError;
use coracle_client::{EventType, ObjectId, errors};
use coracle_daemon::clock;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Map, Value, json};
use std::sync::Arc;

impl Pods {
    fn api(&self, entry: &Entry) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &entry.key.namespace)
    }

    /// Writes the status if it is news; `true` if it was.
    pub(super) async fn report(
        &self,
        entry: &Entry,
        pod: &Arc<Pod>,
        status: &PodStatus,
    ) -> Result<bool, ReconcileError> {
        let known = pod.status.clone().unwrap_or_default();
        if known == *status {
            return Ok(false);
        }
        self.tell(pod, &known, status);
        // Whoever simulates thousands of pods saves the last word about those that go anyway.
        let going = pod.metadata.deletion_timestamp.is_some()
            && pod.metadata.finalizers.as_ref().is_none_or(Vec::is_empty);
        if self.ground.is_none() && going {
            let written = Pod { status: Some(status.clone()), ..(**pod).clone() };
            entry.work.lock().written = Some(Arc::new(written));
            return Ok(true);
        }
        // The uid keeps the status from a new pod of the same name.
        let patch = json!({ "metadata": { "uid": entry.uid }, "status": difference(&known, status)? });
        let patched = self
            .api(entry)
            .patch_status(&entry.key.name, &PatchParams::default(), &Patch::Strategic(patch))
            .await;
        match patched {
            Ok(mut written) => {
                written.metadata.managed_fields = None;
                // Not everything that is sent is kept (times are cut): our own view counts, or we would write for ever.
                written.status = Some(status.clone());
                entry.work.lock().written = Some(Arc::new(written));
                Ok(true)
            }
            // Another pod, or none: the watch will tell.
            Err(error) if errors::is_not_found(&error) || errors::is_conflict(&error) => {
                Err(ReconcileError::NotYet(format!("pod {} changed meanwhile", entry.key)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Fails a pod that may not run on its node.
    pub(super) async fn reject(
        &self,
        entry: &Entry,
        pod: &Arc<Pod>,
        refusal: Refusal,
    ) -> Result<(), ReconcileError> {
        let known = pod.status.clone().unwrap_or_default();
        let status = PodStatus {
            phase: Some("Failed".to_owned()),
            message: Some(format!("Pod was rejected: {}", refusal.message)),
            reason: Some(refusal.reason.clone()),
            start_time: Some(step::seconds(clock::now())),
            observed_generation: pod.metadata.generation,
            ..known
        };
        self.report(entry, pod, &status).await?;
        self.warn(pod, "", &refusal.reason, refusal.message);
        Ok(())
    }

    /// Events that follow from a change of the status.
    fn tell(&self, pod: &Pod, known: &PodStatus, status: &PodStatus) {
        for (old, new) in pairs(known, status) {
            let reason = |status: Option<&ContainerStatus>| {
                let waiting = status?.state.as_ref()?.waiting.as_ref()?;
                waiting.reason.clone().map(|reason| (reason, waiting.message.clone().unwrap_or_default()))
            };
            let Some((now, _)) = reason(Some(new)) else { continue };
            if reason(old).is_some_and(|(before, _)| before == now) {
                continue;
            }
            match now.as_str() {
                "CrashLoopBackOff" => {
                    let meta = &pod.metadata;
                    let text = format!(
                        "Back-off restarting failed container {} in pod {}_{}({})",
                        new.name,
                        text(meta.name.as_ref()),
                        text(meta.namespace.as_ref()),
                        text(meta.uid.as_ref())
                    );
                    self.warn(pod, &new.name, "BackOff", text);
                }
                "ImagePullBackOff" => {
                    self.note(pod, &new.name, "BackOff", format!("Back-off pulling image {:?}", new.image));
                    self.warn(pod, &new.name, "Failed", "Error: ImagePullBackOff");
                }
                _ => {}
            }
        }
    }

    /// The last word: the object goes, if it is still this one.
    pub(super) async fn finish(&self, entry: &Arc<Entry>, pod: &Pod) -> Result<(), ReconcileError> {
        self.clean(entry, true).await?;
        self.release(&entry.uid);
        if std::mem::replace(&mut entry.work.lock().deleted, true) {
            return Ok(());
        }
        let exactly = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams::default().grace_period(0).preconditions(exactly);
        match self.api(entry).delete(&entry.key.name, &params).await {
            Ok(_) => Ok(()),
            Err(error) if errors::is_not_found(&error) || errors::is_conflict(&error) => Ok(()),
            Err(error) => {
                entry.work.lock().deleted = false;
                Err(error.into())
            }
        }
    }

    /// A normal event about a container.
    pub(super) fn note(&self, pod: &Pod, container: &str, reason: &str, message: impl Into<String>) {
        self.event(pod, container, (EventType::Normal, reason), message.into());
    }

    /// A warning about a container.
    pub(super) fn warn(&self, pod: &Pod, container: &str, reason: &str, message: impl Into<String>) {
        self.event(pod, container, (EventType::Warning, reason), message.into());
    }

    fn event(&self, pod: &Pod, container: &str, (kind, reason): (EventType, &str), message: String) {
        let field = if container.is_empty() { String::new() } else { field_path(pod, container) };
        let about = ObjectId::of(pod);
        tracing::debug!(pod = about.name, node = node_of(pod), reason, message);
        self.recorder.event_on_part(&about, &field, kind, reason, message);
    }
}

fn field_path(pod: &Pod, container: &str) -> String {
    let spec = pod.spec.as_ref();
    let inits = spec.and_then(|spec| spec.init_containers.as_ref());
    let ephemeral = spec.and_then(|spec| spec.ephemeral_containers.as_ref());
    let list = if inits.into_iter().flatten().any(|one| one.name == container) {
        "initContainers"
    } else if ephemeral.into_iter().flatten().any(|one| one.name == container) {
        "ephemeralContainers"
    } else {
        "containers"
    };
    format!("spec.{list}{{{container}}}")
}

fn pairs<'a>(
    known: &'a PodStatus,
    status: &'a PodStatus,
) -> impl Iterator<Item = (Option<&'a ContainerStatus>, &'a ContainerStatus)> {
    let all = |status: &'a PodStatus| {
        let lists = [
            &status.init_container_statuses,
            &status.container_statuses,
            &status.ephemeral_container_statuses,
        ];
        lists.into_iter().flatten().flatten()
    };
    all(status).map(move |new| (all(known).find(|old| old.name == new.name), new))
}

/// The fields that changed, for a strategic merge patch.
fn difference(known: &PodStatus, status: &PodStatus) -> Result<Value, kube::Error> {
    let value = |status: &PodStatus| serde_json::to_value(status).map_err(kube::Error::SerdeError);
    let (old, mut new) = (value(known)?, value(status)?);
    let (Value::Object(old), Value::Object(new)) = (old, &mut new) else { return Ok(json!({})) };
    let mut patch: Map<String, Value> = Map::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in std::mem::take(new) {
        if old.get(&key) != Some(&value) {
            let gone = dropped(old.get(&key), &value);
            let mut value = with_nulls(value);
            if let Value::Array(items) = &mut value {
                items.extend(gone);
            }
            patch.insert(key, value);
        }
    }
    Ok(Value::Object(patch))
}

/// Conditions and addresses are merged one by one: those that are not there any more must be taken away.
fn dropped(old: Option<&Value>, new: &Value) -> Vec<Value> {
    let named = |value: Option<&Value>| -> Vec<(&'static str, Value)> {
        let items = value.and_then(Value::as_array).into_iter().flatten();
        let name = |item: &Value| {
            ["type", "ip"].into_iter().find(|key| item[*key].is_string()).map(|key| (key, item[key].clone()))
        };
        items.filter_map(name).collect()
    };
    let left = named(Some(new));
    let gone = named(old).into_iter().filter(|name| !left.contains(name));
    gone.map(|(key, name)| json!({ key: name, "$patch": "delete" })).collect()
}

/// Conditions are merged one by one: what a condition no longer says must be told.
fn with_nulls(mut value: Value) -> Value {
    for condition in value.as_array_mut().into_iter().flatten().filter(|one| one["type"].is_string()) {
        if let Some(fields) = condition.as_object_mut() {
            for name in ["reason", "message"] {
                fields.entry(name).or_insert(Value::Null);
            }
            fields.entry("lastProbeTime").or_insert(Value::Null);
        }
    }
    value
}

/// Whether the pod has ended for good in the eyes of the API.
pub(super) fn is_over(pod: &Pod) -> bool {
    step::is_over(pod)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_sent() {
        let status = |value: Value| serde_json::from_value::<PodStatus>(value).unwrap();
        let known = status(json!({ "phase": "Pending", "hostIP": "1.1.1.1", "reason": "x",
            "conditions": [{ "type": "Ready", "status": "False", "reason": "r" }, { "type": "Gone", "status": "True" }] }));
        let now = status(json!({ "phase": "Running", "hostIP": "1.1.1.1",
            "conditions": [{ "type": "Ready", "status": "True" }] }));
        let expected = json!({ "phase": "Running", "reason": null, "conditions": [
            { "type": "Ready", "status": "True", "reason": null, "message": null, "lastProbeTime": null },
            { "type": "Gone", "$patch": "delete" } ] });
        assert_eq!(difference(&known, &now).unwrap(), expected);
        let at = |ip: &str| status(json!({ "podIP": ip, "podIPs": [{ "ip": ip }] }));
        let moved = json!({ "podIP": "b", "podIPs": [{ "ip": "b" }, { "ip": "a", "$patch": "delete" }] });
        assert_eq!(difference(&at("a"), &at("b")).unwrap(), moved);
    }
}
