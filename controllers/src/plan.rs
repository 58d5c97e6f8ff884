//! What a reconcile decides, as a value.
//!
//! A [`Plan`] is steps in order, the actions of a step side by side.
//!
//! Invariants: typed objects are never written back (they drop fields they do not know): objects are created from
//! JSON and changed by merge patches, which carry the resourceVersion that was observed when they depend on it.

use coracle_client::{EventType, Key, ObjectId};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DynamicObject};
use kube::core::ApiResource;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::time::Duration;

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
