//! Which ReplicaSet holds a Deployment's template, what its revision is, and how a new one is made.

use super::{annotate, scale};
use crate::plan::{Action, REPLICA_SET, merge_diff};
use crate::pods::owner_reference;
use coracle_client::{EventType, Key, ObjectId};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;

pub const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";
pub const HASH_LABEL: &str = "pod-template-hash";
/// Annotations of the Deployment that are its own and not its ReplicaSets'.
const NOT_COPIED: [&str; 5] =
    ["kubectl.kubernetes.io/last-applied-configuration", REVISION, HISTORY, DESIRED, MAX];

/// A Deployment's ReplicaSets.
pub struct Sets {
    /// The one with the Deployment's template.
    pub current: Option<Arc<ReplicaSet>>,
    /// All others, oldest first.
    pub old: Vec<Arc<ReplicaSet>>,
}

impl Sets {
    pub fn sort(deployment: &Deployment, mut sets: Vec<Arc<ReplicaSet>>) -> Self {
        sets.sort_by_key(|set| {
            (set.metadata.creation_timestamp.as_ref().map(|at| at.0), set.metadata.name.clone())
        });
        let template = deployment.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
        let wanted = without_hash(template);
        // The oldest that fits: a retried creation may have made two.
        let fits = |set: &Arc<ReplicaSet>| {
            set.spec.as_ref().and_then(|spec| spec.template.clone()).map(without_hash).as_ref()
                == Some(&wanted)
        };
        let at = sets.iter().position(fits);
        let current = at.map(|at| sets.remove(at));
        Self { current, old: sets }
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.old.iter().chain(&self.current)
    }

    /// The revision that the current template has, or gets.
    pub fn revision(&self) -> i64 {
        let old = self.old.iter().map(|set| number(set)).max().unwrap_or(0);
        let own = self.current.as_ref().map_or(0, |set| number(set));
        if own > old { own } else { old + 1 }
    }
}

fn without_hash(mut template: PodTemplateSpec) -> PodTemplateSpec {
    let meta = template.metadata.get_or_insert_default();
    if let Some(labels) = &mut meta.labels {
        labels.remove(HASH_LABEL);
    }
    meta.labels = meta.labels.take().filter(|labels| !labels.is_empty());
    // Set by clients' own encoders, and of no meaning in a template.
    meta.creation_timestamp = None;
    template
}

/// A ReplicaSet's revision; 0 without one.
pub fn number(set: &ReplicaSet) -> i64 {
    set.metadata.annotations.as_ref().and_then(|all| all.get(REVISION)?.parse().ok()).unwrap_or(0)
}

/// A hash of the template in letters that may stand in a name. `collisions` makes another of the same template.
pub fn hash(template: &PodTemplateSpec, collisions: i32) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut sha = Sha256::new();
    sha.update(serde_json::to_vec(&without_hash(template.clone())).unwrap_or_default());
    if collisions > 0 {
        sha.update(collisions.to_le_bytes());
    }
    sha.finalize()
        .iter()
        .take(10)
        .map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]))
        .collect()
}

pub struct Created {
    pub name: String,
    pub actions: Vec<Action>,
}

/// Makes the ReplicaSet of the current template.
pub fn create_current(deployment: &Deployment, sets: &Sets) -> Created {
    let owner = ObjectId::of(deployment);
    let spec = deployment.spec.clone().unwrap_or_default();
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
    let hash = hash(&spec.template, collisions);
    let name = format!("{}-{hash}", owner.name);
    let mut template = spec.template;
    template
        .metadata
        .get_or_insert_default()
        .labels
        .get_or_insert_default()
        .insert(HASH_LABEL.into(), hash.clone());
    let mut selector = spec.selector;
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.into(), hash);
    let labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone());
    let replicas = scale::size_of_current(deployment, sets, 0);
    let revision = sets.revision();
    let mut annotations = copied(deployment);
    annotations.insert(REVISION.into(), json!(revision.to_string()));
    annotations.extend(scale::annotations(deployment));
    let body = json!({
        "metadata": {
            "name": name, "namespace": owner.namespace, "labels": labels, "annotations": annotations,
            "ownerReferences": [owner_reference(&owner)],
        },
        "spec": { "replicas": replicas, "minReadySeconds": spec.min_ready_seconds.unwrap_or(0), "selector": selector, "template": template },
    });
    let mut actions = vec![Action::Create { resource: &REPLICA_SET, body, owner: None }];
    actions.extend(annotate(deployment, revision));
    if replicas > 0 {
        let message = format!("Scaled up replica set {name} from 0 to {replicas}");
        actions.push(Action::Event {
            about: owner,
            kind: EventType::Normal,
            reason: "ScalingReplicaSet",
            message,
        });
    }
    Created { name, actions }
}

fn copied(deployment: &Deployment) -> Map<String, Value> {
    let own = deployment.metadata.annotations.iter().flatten();
    own.filter(|(key, _)| !NOT_COPIED.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), json!(value)))
        .collect()
}

/// Gives the current ReplicaSet the newest revision (a rollback makes an old one current) and the Deployment's annotations.
pub fn keep_current(deployment: &Deployment, sets: &Sets, current: &ReplicaSet) -> Vec<Action> {
    let known: Map<String, Value> = current
        .metadata
        .annotations
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), json!(value)))
        .collect();
    let mut wanted = known.clone();
    wanted.extend(copied(deployment));
    let (revision, before) = (sets.revision(), number(current));
    if revision != before {
        wanted.insert(REVISION.into(), json!(revision.to_string()));
        if before > 0 {
            let history = known.get(HISTORY).and_then(Value::as_str).filter(|history| !history.is_empty());
            wanted.insert(
                HISTORY.into(),
                json!(history.map_or_else(|| before.to_string(), |history| format!("{history},{before}"))),
            );
        }
    }
    let mut patch = json!({});
    if let Some(diff) = merge_diff(&Value::Object(known), &Value::Object(wanted)) {
        patch["metadata"] = json!({ "annotations": diff });
    }
    let min_ready = |seconds: Option<i32>| seconds.unwrap_or(0);
    let wanted = min_ready(deployment.spec.as_ref().and_then(|spec| spec.min_ready_seconds));
    if min_ready(current.spec.as_ref().and_then(|spec| spec.min_ready_seconds)) != wanted {
        patch["spec"] = json!({ "minReadySeconds": wanted });
    }
    let mut actions = Vec::new();
    if patch != json!({}) {
        actions.push(Action::Patch {
            resource: &REPLICA_SET,
            key: Key::of(&current.metadata),
            subresource: "",
            patch,
        });
    }
    actions.extend(annotate(deployment, revision));
    actions
}
