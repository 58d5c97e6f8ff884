//! What a reconcile decides, as a value, and the one executor that carries it out.
//!
//! In: a [`Plan`], steps in order, the actions of a step side by side. Out: API calls and events. A step that fails ends
//! the plan; the key is then reconciled again from fresh state.
//!
//! Invariants: typed objects are never written back (they drop fields they do not know): objects are created from
//! JSON and changed by merge patches, which carry the resourceVersion that was observed when they depend on it.

use crate::expectations::Expectations;
use coracle_client::controller::ReconcileError;
use coracle_client::{EventType, Key, ObjectId, Recorder, errors};
use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{
    Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy,
};
use kube::core::ApiResource;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Calls of one plan under way at a time.
const PARALLEL: usize = 16;

/// A resource as its path needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
}

macro_rules! resources {
    ($($name:ident = $group:literal $version:literal $kind:literal $plural:literal;)*) => {
        $(pub const $name: Resource = Resource { group: $group, version: $version, kind: $kind, plural: $plural };)*
    };
}

resources! {
    POD = "" "v1" "Pod" "pods";
    NAMESPACE = "" "v1" "Namespace" "namespaces";
    NODE = "" "v1" "Node" "nodes";
    SERVICE_ACCOUNT = "" "v1" "ServiceAccount" "serviceaccounts";
    CONFIG_MAP = "" "v1" "ConfigMap" "configmaps";
    ENDPOINTS = "" "v1" "Endpoints" "endpoints";
    PERSISTENT_VOLUME_CLAIM = "" "v1" "PersistentVolumeClaim" "persistentvolumeclaims";
    REPLICATION_CONTROLLER = "" "v1" "ReplicationController" "replicationcontrollers";
    PERSISTENT_VOLUME = "" "v1" "PersistentVolume" "persistentvolumes";
    RESOURCE_QUOTA = "" "v1" "ResourceQuota" "resourcequotas";
    ENDPOINT_SLICE = "discovery.k8s.io" "v1" "EndpointSlice" "endpointslices";
    DEPLOYMENT = "apps" "v1" "Deployment" "deployments";
    REPLICA_SET = "apps" "v1" "ReplicaSet" "replicasets";
    STATEFUL_SET = "apps" "v1" "StatefulSet" "statefulsets";
    DAEMON_SET = "apps" "v1" "DaemonSet" "daemonsets";
    CONTROLLER_REVISION = "apps" "v1" "ControllerRevision" "controllerrevisions";
    JOB = "batch" "v1" "Job" "jobs";
    CRON_JOB = "batch" "v1" "CronJob" "cronjobs";
    POD_DISRUPTION_BUDGET = "policy" "v1" "PodDisruptionBudget" "poddisruptionbudgets";
    SECRET = "" "v1" "Secret" "secrets";
    CERTIFICATE_SIGNING_REQUEST = "certificates.k8s.io" "v1" "CertificateSigningRequest" "certificatesigningrequests";
    CLUSTER_ROLE = "rbac.authorization.k8s.io" "v1" "ClusterRole" "clusterroles";
}

impl Resource {
    /// `apps/v1`, `v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    pub fn api(&self, client: &kube::Client, namespace: &str) -> Api<DynamicObject> {
        let resource = ApiResource {
            group: self.group.into(),
            version: self.version.into(),
            api_version: self.api_version(),
            kind: self.kind.into(),
            plural: self.plural.into(),
        };
        if namespace.is_empty() {
            Api::all_with(client.clone(), &resource)
        } else {
            Api::namespaced_with(client.clone(), namespace, &resource)
        }
    }
}

/// One call.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Creates `body`, which says where and what. `owner` hears of it in an event and in its expectations.
    Create { resource: &'static Resource, body: Value, owner: Option<ObjectId> },
    /// Creates `body` unless it exists.
    Ensure { resource: &'static Resource, body: Value },
    /// Merges `patch`, into a subresource unless that is empty.
    Patch { resource: &'static Resource, key: Key, subresource: &'static str, patch: Value },
    /// Applies `config` in the name of `manager`, taking over what it sets; a server that knows no applies gets the merge
    /// patch `otherwise`.
    Apply { resource: &'static Resource, key: Key, manager: &'static str, config: Value, otherwise: Value },
    /// Deletes the object with this uid.
    Delete {
        resource: &'static Resource,
        key: Key,
        uid: Option<String>,
        how: Deletion,
        owner: Option<ObjectId>,
    },
    /// Records an event.
    Event { about: ObjectId, kind: EventType, reason: &'static str, message: String },
}

/// How to delete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deletion {
    pub background: bool,
    /// At once, without waiting for the kubelet: for pods whose node is gone.
    pub force: bool,
}

/// Steps to take one after the other, and when to look again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub steps: Vec<Vec<Action>>,
    pub after: Option<Duration>,
}

impl Plan {
    /// Adds a step, unless there is nothing in it.
    pub fn then(&mut self, actions: impl IntoIterator<Item = Action>) -> &mut Self {
        let actions: Vec<_> = actions.into_iter().collect();
        if !actions.is_empty() {
            self.steps.push(actions);
        }
        self
    }

    /// Looks again after `delay`, or sooner when something else asks for it.
    pub fn look_again(&mut self, delay: Option<Duration>) -> &mut Self {
        self.after = match (self.after, delay) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        self
    }

    #[cfg(test)]
    pub fn actions(&self) -> impl Iterator<Item = &Action> {
        self.steps.iter().flatten()
    }
}

/// Carries plans out.
#[derive(Clone)]
pub struct Executor {
    client: kube::Client,
    recorder: Recorder,
}

/// Whose expectations a plan's pod creations and deletions count towards.
pub struct Tracked<'a> {
    pub expectations: &'a Expectations,
    pub owner: &'a Key,
}

impl Executor {
    pub const fn new(client: kube::Client, recorder: Recorder) -> Self {
        Self { client, recorder }
    }

    /// The same, whose events are those of another component.
    #[must_use]
    pub fn reporting_as(&self, component: &str) -> Self {
        Self { client: self.client.clone(), recorder: self.recorder.of(component) }
    }

    /// Takes all steps, or those before the first that fails. Pods created and deleted are expected to show up in the cache.
    pub async fn execute_tracked(
        &self,
        plan: Plan,
        tracked: Option<Tracked<'_>>,
    ) -> Result<(), ReconcileError> {
        for step in plan.steps {
            self.step(step, tracked.as_ref()).await?;
        }
        Ok(())
    }

    /// Runs actions in batches of 1, 2, 4 …, so that what fails for all (a quota, an invalid template) fails once.
    async fn step(
        &self,
        mut actions: Vec<Action>,
        tracked: Option<&Tracked<'_>>,
    ) -> Result<(), ReconcileError> {
        let mut batch = 1;
        while !actions.is_empty() {
            let now: Vec<_> = actions.drain(..batch.min(actions.len())).collect();
            if let Some(tracked) = tracked {
                tracked.expectations.expect(tracked.owner, &now);
            }
            let results: Vec<_> =
                futures::stream::iter(now.into_iter().map(|action| self.act(action, tracked)))
                    .buffer_unordered(PARALLEL)
                    .collect()
                    .await;
            for result in results {
                result?;
            }
            batch *= 2;
        }
        Ok(())
    }

    async fn act(&self, action: Action, tracked: Option<&Tracked<'_>>) -> kube::Result<()> {
        let result = self.call(&action).await;
        if let (Err(_), Some(tracked)) = (&result, tracked) {
            tracked.expectations.failed(tracked.owner, &action);
        }
        self.announce(&action, &result);
        match (action, result) {
            // Gone is what a deletion wants, and makes a change pointless.
            (Action::Delete { .. } | Action::Patch { .. } | Action::Apply { .. }, Err(error))
                if errors::is_not_found(&error) =>
            {
                Ok(())
            }
            (Action::Ensure { .. }, Err(error)) if errors::is_already_exists(&error) => Ok(()),
            (_, result) => result.map(|_| ()),
        }
    }

    /// The name of the object acted on.
    async fn call(&self, action: &Action) -> kube::Result<String> {
        match action {
            Action::Create { resource, body, .. } | Action::Ensure { resource, body } => {
                let namespace = body["metadata"]["namespace"].as_str().unwrap_or_default();
                let mut body = body.clone();
                body["apiVersion"] = json!(resource.api_version());
                body["kind"] = json!(resource.kind);
                let object = serde_json::from_value(body).map_err(kube::Error::SerdeError)?;
                let created =
                    resource.api(&self.client, namespace).create(&PostParams::default(), &object).await?;
                Ok(created.metadata.name.unwrap_or_default())
            }
            Action::Patch { resource, key, subresource, patch } => {
                let (api, params, patch) =
                    (resource.api(&self.client, &key.namespace), PatchParams::default(), Patch::Merge(patch));
                match *subresource {
                    "" => api.patch(&key.name, &params, &patch).await?,
                    "status" => api.patch_status(&key.name, &params, &patch).await?,
                    other => api.patch_subresource(other, &key.name, &params, &patch).await?,
                };
                Ok(key.name.clone())
            }
            Action::Apply { resource, key, manager, config, otherwise } => {
                let api = resource.api(&self.client, &key.namespace);
                let mut config = config.clone();
                config["apiVersion"] = json!(resource.api_version());
                config["kind"] = json!(resource.kind);
                let params = PatchParams::apply(manager).force();
                match api.patch(&key.name, &params, &Patch::Apply(&config)).await {
                    Err(kube::Error::Api(status)) if status.code == 415 => {
                        api.patch(&key.name, &PatchParams::default(), &Patch::Merge(otherwise)).await?
                    }
                    done => done?,
                };
                Ok(key.name.clone())
            }
            Action::Delete { resource, key, uid, how, .. } => {
                let params = DeleteParams {
                    grace_period_seconds: how.force.then_some(0),
                    propagation_policy: how.background.then_some(PropagationPolicy::Background),
                    preconditions: uid
                        .clone()
                        .map(|uid| Preconditions { uid: Some(uid), resource_version: None }),
                    ..DeleteParams::default()
                };
                resource.api(&self.client, &key.namespace).delete(&key.name, &params).await?;
                Ok(key.name.clone())
            }
            Action::Event { about, kind, reason, message } => {
                self.recorder.event(about, *kind, reason, message.clone());
                Ok(String::new())
            }
        }
    }

    fn announce(&self, action: &Action, result: &kube::Result<String>) {
        let (owner, resource, verb, done) = match action {
            Action::Create { owner: Some(owner), resource, .. } => (owner, resource, "Create", "Created"),
            Action::Delete { owner: Some(owner), resource, .. } => (owner, resource, "Delete", "Deleted"),
            _ => return,
        };
        let what = if resource.kind == "Pod" { "pod" } else { resource.kind };
        match result {
            Ok(name) => {
                let reason = if verb == "Create" { "SuccessfulCreate" } else { "SuccessfulDelete" };
                self.recorder.event(owner, EventType::Normal, reason, format!("{done} {what}: {name}"));
            }
            Err(error) if errors::is_namespace_terminating(error) || errors::is_not_found(error) => {}
            // A pod of a settled name that still ends or that someone else made: upstream keeps quiet too.
            Err(error) if errors::is_already_exists(error) => {}
            Err(error) => {
                let reason = if verb == "Create" { "FailedCreate" } else { "FailedDelete" };
                let doing = if verb == "Create" { "creating" } else { "deleting" };
                self.recorder.event(
                    owner,
                    EventType::Warning,
                    reason,
                    format!("Error {doing}: {}", text_of(error)),
                );
            }
        }
    }
}

fn text_of(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// The merge patch that turns `old` into `new`; `None` when they are equal.
pub fn merge_diff(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return Some(new.clone()) };
    let mut diff = Map::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        diff.insert(key.clone(), Value::Null);
    }
    for (key, value) in new {
        if let Some(change) = merge_diff(old.get(key).unwrap_or(&Value::Null), value) {
            diff.insert(key.clone(), change);
        }
    }
    Some(Value::Object(diff))
}

/// The action that makes an object's status `new`, based on the version that was observed; `None` when it already is.
pub fn status_patch(
    resource: &'static Resource,
    meta: &ObjectMeta,
    old: &impl Serialize,
    new: &impl Serialize,
) -> Option<Action> {
    let old = serde_json::to_value(old).ok().filter(|old| !old.is_null()).unwrap_or_else(|| json!({}));
    let status = merge_diff(&old, &serde_json::to_value(new).ok()?)?;
    let patch = json!({ "metadata": { "resourceVersion": meta.resource_version }, "status": status });
    Some(Action::Patch { resource, key: Key::of(meta), subresource: "status", patch })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_removes_sets_and_descends() {
        let old = json!({ "a": 1, "b": { "x": 1, "y": 2 }, "c": [1], "same": true });
        let new = json!({ "b": { "x": 1, "y": 3 }, "c": [1, 2], "d": "n", "same": true });
        assert_eq!(
            merge_diff(&old, &new),
            Some(json!({ "a": null, "b": { "y": 3 }, "c": [1, 2], "d": "n" }))
        );
        assert_eq!(merge_diff(&new, &new), None);
    }

    #[test]
    fn the_sooner_look_wins() {
        let mut plan = Plan::default();
        plan.look_again(Some(Duration::from_secs(9)))
            .look_again(None)
            .look_again(Some(Duration::from_secs(3)));
        assert_eq!(plan.after, Some(Duration::from_secs(3)));
    }
}
