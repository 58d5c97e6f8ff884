//! Claims that pods use and volumes that claims hold do not go before they are free.

use crate::plan::{Action, PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, Resource};
use crate::pods;
use coracle_client::Key;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

/// Whether a pod that names a claim keeps it: it has a node and has not ended.
pub fn uses(pod: &Pod) -> bool {
    !pods::is_finished(pod) && !pods::node_name(pod).is_empty()
}

pub fn release_claim(claim: &PersistentVolumeClaim, in_use: bool) -> Option<Action> {
    if in_use { None } else { release(&PERSISTENT_VOLUME_CLAIM, &claim.metadata, CLAIM_FINALIZER) }
}

pub fn release_volume(volume: &PersistentVolume) -> Option<Action> {
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    if phase == Some("Bound") {
        None
    } else {
        release(&PERSISTENT_VOLUME, &volume.metadata, VOLUME_FINALIZER)
    }
}

/// Removes the finalizer of what is to go.
fn release(resource: &'static Resource, meta: &ObjectMeta, finalizer: &str) -> Option<Action> {
    let own = meta.finalizers.iter().flatten();
    let kept: Vec<_> = own.clone().filter(|name| *name != finalizer).collect();
    if meta.deletion_timestamp.is_none() || kept.len() == own.count() {
        return None;
    }
    let meta_patch = json!({ "uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": kept });
    let patch = json!({ "metadata": meta_patch });
    Some(Action::Patch { resource, key: Key::of(meta), subresource: "", patch })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{object, pod};

    #[test]
    fn a_deleted_claim_goes_once_no_pod_runs_with_it() {
        let claim = |deleted: Option<&str>| {
            object(
                json!({ "metadata": { "name": "c", "deletionTimestamp": deleted, "finalizers": [CLAIM_FINALIZER, "mine"] } }),
            )
        };
        let deleted = claim(Some("2026-01-01T00:00:00Z"));
        assert_eq!(release_claim(&deleted, true), None);
        assert_eq!(release_claim(&claim(None), false), None);
        let Some(Action::Patch { patch, .. }) = release_claim(&deleted, false) else { panic!("released") };
        assert_eq!(patch["metadata"]["finalizers"], json!(["mine"]));
    }

    #[test]
    fn pods_that_ended_or_have_no_node_use_nothing() {
        let with = |node: &str, phase: &str| {
            uses(&pod(
                json!({ "spec": { "nodeName": node, "containers": [] }, "status": { "phase": phase } }),
            ))
        };
        assert!(with("n", "Running") && with("n", "Pending"));
        assert!(!with("n", "Succeeded") && !with("", "Pending"));
    }
}
