//! What becomes of a StatefulSet's claims: kept, or given an owner with which they go.
//!
//! Where claims go with the set, the set owns them. Where they go when it shrinks, the pod that is to go owns its own.

use super::Observed;
use crate::plan::{Action, PERSISTENT_VOLUME_CLAIM};
use coracle_client::{Key, ObjectId};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::json;

fn reference(id: &ObjectId) -> OwnerReference {
    OwnerReference {
        api_version: id.api_version.clone(),
        kind: id.kind.clone(),
        name: id.name.clone(),
        uid: id.uid.clone(),
        ..OwnerReference::default()
    }
}

/// The patches that give each claim the owners that the policy asks for.
pub fn owners_of_claims(observed: &Observed<'_>) -> Vec<Action> {
    let policy = observed.spec.persistent_volume_claim_retention_policy.clone().unwrap_or_default();
    let goes = |when: &Option<String>| when.as_deref() == Some("Delete");
    let (with_set, with_pod) = (goes(&policy.when_deleted), goes(&policy.when_scaled));
    let mut actions = Vec::new();
    for (ordinal, pod) in &observed.pods {
        let leaves = !observed.ordinals().contains(ordinal);
        let pod = ObjectId::of(pod.as_ref());
        for template in observed.spec.volume_claim_templates.iter().flatten() {
            let name = observed.claim_name(template.metadata.name.as_deref().unwrap_or_default(), *ordinal);
            let Some(claim) = observed.claims.get(&name) else { continue };
            let pod_owns = with_pod && leaves;
            let set_owns = with_set && !pod_owns;
            actions.extend(give(claim, (&observed.owner, set_owns), (&pod, pod_owns)));
        }
    }
    actions
}

fn give(
    claim: &PersistentVolumeClaim,
    (set, set_owns): (&ObjectId, bool),
    (pod, pod_owns): (&ObjectId, bool),
) -> Option<Action> {
    let known = claim.metadata.owner_references.clone().unwrap_or_default();
    let mut owners = known.clone();
    for (owner, owns) in [(set, set_owns), (pod, pod_owns)] {
        let is_there = owners.iter().any(|known| known.uid == owner.uid);
        if owns && !is_there {
            owners.push(reference(owner));
        } else if !owns {
            owners.retain(|known| known.uid != owner.uid);
        }
    }
    if owners == known || claim.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let patch = json!({ "metadata": {
        "uid": claim.metadata.uid, "resourceVersion": claim.metadata.resource_version, "ownerReferences": owners,
    } });
    let key = Key::of(&claim.metadata);
    Some(Action::Patch { resource: &PERSISTENT_VOLUME_CLAIM, key, subresource: "", patch })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stateful_set::{Cached, Claims, reconcile};
    use crate::testing::{at, object, pod};
    use std::sync::Arc;

    /// The kinds of owners that the claims of ordinals 0 and 1 get in a set of one.
    fn owners(when_deleted: &str, when_scaled: &str) -> Vec<String> {
        let labels = json!({ "app": "db" });
        let set = object(json!({ "metadata": { "name": "db", "namespace": "ns", "uid": "s" }, "spec": {
            "replicas": 1, "serviceName": "db", "selector": { "matchLabels": labels },
            "persistentVolumeClaimRetentionPolicy": { "whenDeleted": when_deleted, "whenScaled": when_scaled },
            "template": { "metadata": { "labels": labels }, "spec": { "containers": [] } },
            "volumeClaimTemplates": [{ "metadata": { "name": "data" }, "spec": {} }],
        } }));
        let owner = json!([{ "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "s", "controller": true }]);
        let pods = ["db-0", "db-1"].map(|name| {
            Arc::new(pod(json!({ "metadata": { "name": name, "namespace": "ns", "uid": name, "labels": labels, "ownerReferences": owner } })))
        });
        let claims: Claims = ["data-db-0", "data-db-1"]
            .map(|name| {
                (
                    name.to_owned(),
                    Arc::new(object(json!({ "metadata": { "name": name, "namespace": "ns" } }))),
                )
            })
            .into();
        let plan = {
            let cached = Cached { pods: pods.to_vec(), revisions: &[], claims: &claims, settled: true };
            reconcile(&set, cached, at("2026-01-01T00:00:00Z"))
        };
        let given = plan.actions().filter_map(|action| match action {
            Action::Patch { resource, key, patch, .. } if **resource == PERSISTENT_VOLUME_CLAIM => {
                Some(format!("{} {}", key.name, patch["metadata"]["ownerReferences"][0]["kind"].as_str()?))
            }
            _ => None,
        });
        given.collect()
    }

    #[test]
    fn claims_get_the_owner_with_which_they_go() {
        assert!(owners("Retain", "Retain").is_empty());
        assert_eq!(owners("Delete", "Retain"), ["data-db-0 StatefulSet", "data-db-1 StatefulSet"]);
        assert_eq!(owners("Retain", "Delete"), ["data-db-1 Pod"]);
        assert_eq!(owners("Delete", "Delete"), ["data-db-0 StatefulSet", "data-db-1 Pod"]);
    }
}
