//! Which objects belong to a controller's object: those it controls and selects, those it should adopt, those it should let go.

use crate::plan::{Action, Resource};
use crate::pods::owner_reference;
use coracle_client::{Key, ObjectId, controller_of};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::core::{Selector, SelectorExt};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is owned now, and the adoptions and releases to make.
pub struct Claimed<K> {
    pub mine: Vec<Arc<K>>,
    pub actions: Vec<Action>,
}

/// A label selector ready to match. One that cannot be understood, and an empty one, match nothing.
pub fn selector(selector: &LabelSelector) -> Option<Selector> {
    Selector::try_from(selector.clone()).ok().filter(|selector| !selector.selects_all())
}

/// Whether an object with this metadata is selected.
pub fn selects(selector: Option<&Selector>, meta: &ObjectMeta) -> bool {
    let none = BTreeMap::new();
    selector.is_some_and(|selector| selector.matches(meta.labels.as_ref().unwrap_or(&none)))
}

/// Sorts `candidates` (what `owner` controls, and what nobody controls in its namespace). An owner that is going away
/// adopts and releases nothing. With `finalizer`, what is adopted gets it and what is let go loses it.
pub fn claim<K>(
    resource: &'static Resource,
    owner: &ObjectId,
    owner_meta: &ObjectMeta,
    wanted: Option<&Selector>,
    candidates: Vec<Arc<K>>,
    finalizer: Option<&str>,
) -> Claimed<K>
where
    K: kube::Resource,
{
    let leaving = owner_meta.deletion_timestamp.is_some();
    let mut claimed = Claimed { mine: Vec::new(), actions: Vec::new() };
    for candidate in candidates {
        let meta = candidate.meta();
        let matches = selects(wanted, meta);
        match controller_of(meta) {
            Some(controller) if controller.uid != owner.uid => {}
            Some(_) if matches => claimed.mine.push(candidate),
            Some(_) if leaving => {}
            Some(_) => claimed.actions.push(change(resource, meta, finalizer, |owners, _| {
                owners.retain(|other| other.uid != owner.uid);
            })),
            None if leaving || !matches || meta.deletion_timestamp.is_some() => {}
            None => {
                let reference = serde_json::from_value(owner_reference(owner)).unwrap_or_default();
                claimed.actions.push(change(resource, meta, finalizer, |owners, finalizers| {
                    owners.push(reference);
                    finalizers.extend(finalizer.map(str::to_owned));
                }));
                claimed.mine.push(candidate);
            }
        }
    }
    claimed
}

/// Finalizers are written only where the controller has one.
fn change(
    resource: &'static Resource,
    meta: &ObjectMeta,
    finalizer: Option<&str>,
    change: impl FnOnce(&mut Vec<OwnerReference>, &mut Vec<String>),
) -> Action {
    let mut owners = meta.owner_references.clone().unwrap_or_default();
    let mut finalizers = meta.finalizers.clone().unwrap_or_default();
    finalizers.retain(|other| finalizer != Some(other));
    change(&mut owners, &mut finalizers);
    let mut changed =
        json!({ "uid": meta.uid, "resourceVersion": meta.resource_version, "ownerReferences": owners });
    if finalizer.is_some() {
        changed["finalizers"] = json!(finalizers);
    }
    Action::Patch { resource, key: Key::of(meta), subresource: "", patch: json!({ "metadata": changed }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::POD;
    use crate::testing::{object, pod};
    use serde_json::Value;

    fn claimed(owner_meta: Value, pods: &[Value]) -> (Vec<String>, Vec<String>) {
        let owner = ObjectId {
            kind: "ReplicaSet".into(),
            name: "rs".into(),
            uid: "me".into(),
            ..ObjectId::default()
        };
        let wanted = selector(&object(json!({ "matchLabels": { "app": "web" } })));
        let pods = pods.iter().map(|value| Arc::new(pod(json!({ "metadata": value })))).collect();
        let claimed = claim(&POD, &owner, &object(owner_meta), wanted.as_ref(), pods, None);
        let patched = claimed.actions.iter().map(|action| match action {
            Action::Patch { key, patch, .. } => format!(
                "{} {}",
                key.name,
                patch["metadata"]["ownerReferences"].as_array().map_or(0, Vec::len)
            ),
            other => format!("{other:?}"),
        });
        (claimed.mine.iter().filter_map(|pod| pod.metadata.name.clone()).collect(), patched.collect())
    }

    fn controlled_by(uid: &str) -> Value {
        json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": uid, "controller": true }])
    }

    #[test]
    fn selected_orphans_are_adopted_and_strays_released() {
        let pods = [
            json!({ "name": "mine", "labels": { "app": "web" }, "ownerReferences": controlled_by("me") }),
            json!({ "name": "other", "labels": { "app": "web" }, "ownerReferences": controlled_by("you") }),
            json!({ "name": "orphan", "labels": { "app": "web" } }),
            json!({ "name": "stray", "labels": { "app": "db" }, "ownerReferences": controlled_by("me") }),
            json!({ "name": "unrelated", "labels": { "app": "db" } }),
        ];
        assert_eq!(
            claimed(json!({}), &pods),
            (vec!["mine".into(), "orphan".into()], vec!["orphan 1".into(), "stray 0".into()])
        );
    }

    #[test]
    fn an_owner_that_is_leaving_adopts_nothing() {
        let pods = [json!({ "name": "orphan", "labels": { "app": "web" } })];
        assert_eq!(claimed(json!({ "deletionTimestamp": "2026-01-01T00:00:00Z" }), &pods), (vec![], vec![]));
    }
}
