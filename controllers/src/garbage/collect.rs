//! Looks at one object and does what its owners' state calls for.

use super::Garbage;
use super::decide::{Owner, Verdict, decide};
use super::graph::{FOREGROUND, Node, ORPHAN};
use coracle_client::controller::{Next, ReconcileError};
use coracle_client::{EventType, Key, errors};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::core::ApiResource;
use serde_json::json;

pub async fn look_at(garbage: &Garbage, uid: &str) -> Result<Next, ReconcileError> {
    let Some(node) = garbage.graph.lock().get(uid).cloned() else { return Ok(Next::Change) };
    if node.orphans_dependents() {
        return orphan(garbage, uid, &node).await;
    }
    if node.waits_for_dependents() {
        return release_when_alone(garbage, uid, &node).await;
    }
    if node.deleting || node.owners.is_empty() {
        return Ok(Next::Change);
    }
    let Some(live) = read(garbage, &node, uid).await? else { return Ok(Next::Change) };
    if live.deletion_timestamp.is_some() {
        return Ok(Next::Change);
    }
    let mut owners = Vec::new();
    for owner in live.owner_references.iter().flatten() {
        owners.push((owner.clone(), inspect(garbage, owner, &node).await?));
    }
    let has_dependents = !garbage.graph.lock().dependents(uid).is_empty();
    match decide(&owners, &live.finalizers.clone().unwrap_or_default(), has_dependents) {
        Verdict::Keep => {}
        Verdict::Trim(owners) => patch(garbage, &node, &live, json!({ "ownerReferences": owners })).await?,
        Verdict::Delete(policy) => {
            tracing::debug!(kind = node.resource.kind, key = %node.key, ?policy, "no owner left: deleting");
            let params = DeleteParams {
                propagation_policy: Some(policy),
                preconditions: Some(Preconditions {
                    uid: Some(uid.to_owned()),
                    resource_version: live.resource_version.clone(),
                }),
                ..DeleteParams::default()
            };
            ignore_missing(
                api(garbage, &node.resource, &node.key.namespace).delete(&node.key.name, &params).await,
            )?;
        }
    }
    Ok(Next::Change)
}

/// Lets an object go that waited for dependents, once none is left that holds it up.
async fn release_when_alone(garbage: &Garbage, uid: &str, node: &Node) -> Result<Next, ReconcileError> {
    let blockers = garbage.graph.lock().blockers(uid);
    if blockers.is_empty() {
        drop_finalizer(garbage, uid, node, FOREGROUND).await?;
        return Ok(Next::Change);
    }
    // Those that are going away are looked at when they change.
    for (blocker, _) in blockers.into_iter().filter(|(_, state)| !state.deleting) {
        garbage.queue.add(blocker);
    }
    Ok(Next::Change)
}

/// Takes an object's name off its dependents, then lets it go.
async fn orphan(garbage: &Garbage, uid: &str, node: &Node) -> Result<Next, ReconcileError> {
    let dependents = garbage.graph.lock().dependents(uid);
    for (dependent_uid, dependent) in dependents {
        let Some(live) = read(garbage, &dependent, &dependent_uid).await? else { continue };
        let owners: Vec<_> =
            live.owner_references.iter().flatten().filter(|owner| owner.uid != uid).collect();
        patch(garbage, &dependent, &live, json!({ "ownerReferences": owners })).await?;
    }
    drop_finalizer(garbage, uid, node, ORPHAN).await?;
    Ok(Next::Change)
}

async fn drop_finalizer(garbage: &Garbage, uid: &str, node: &Node, finalizer: &str) -> kube::Result<()> {
    let Some(live) = read(garbage, node, uid).await? else { return Ok(()) };
    let finalizers: Vec<_> = live.finalizers.iter().flatten().filter(|own| *own != finalizer).collect();
    if finalizers.len() == live.finalizers.iter().flatten().count() {
        return Ok(());
    }
    patch(garbage, node, &live, json!({ "finalizers": finalizers })).await
}

/// What became of an owner: the graph knows most, the apiserver decides about the rest.
async fn inspect(
    garbage: &Garbage,
    owner: &OwnerReference,
    dependent: &Node,
) -> Result<Owner, ReconcileError> {
    let namespace = &dependent.key.namespace;
    let known = garbage.graph.lock().get(&owner.uid).cloned();
    if let Some(node) = known {
        if !node.may_own_in(namespace) {
            garbage.recorder.event(
                &dependent.id(),
                EventType::Warning,
                "OwnerRefInvalidNamespace",
                format!(
                    "ownerRef [{}/{}, namespace: {namespace}, name: {}, uid: {}] does not exist in namespace \"{namespace}\"",
                    owner.api_version, owner.kind, owner.name, owner.uid
                ),
            );
            // One that is nowhere in a namespace names an owner that lives in one: nothing may be concluded.
            return Ok(if namespace.is_empty() { Owner::Solid } else { Owner::Absent });
        }
        let waits = node.waits_for_dependents() && owner.block_owner_deletion == Some(true);
        return Ok(if waits { Owner::Waiting } else { Owner::Solid });
    }
    // A kind that is not served now may be served later: nothing may be concluded.
    let Some((resource, namespaced)) = garbage.graph.lock().resource_of(&owner.api_version, &owner.kind)
    else {
        return Ok(Owner::Solid);
    };
    if namespaced && namespace.is_empty() {
        return Ok(Owner::Solid);
    }
    let namespace = if namespaced { namespace } else { "" };
    let live = api(garbage, &resource, namespace).get_metadata_opt(&owner.name).await?;
    Ok(match live {
        Some(live) if live.metadata.uid.as_ref() == Some(&owner.uid) => Owner::Solid,
        _ => Owner::Absent,
    })
}

/// The object's metadata as the apiserver has it; `None` when that object is gone.
async fn read(garbage: &Garbage, node: &Node, uid: &str) -> kube::Result<Option<ObjectMeta>> {
    let live = api(garbage, &node.resource, &node.key.namespace).get_metadata_opt(&node.key.name).await?;
    let live = live.map(|object| object.metadata).filter(|meta| meta.uid.as_deref() == Some(uid));
    if live.is_none() {
        for uid in garbage.graph.lock().lost(uid) {
            garbage.queue.add(uid);
        }
    }
    Ok(live)
}

async fn patch(
    garbage: &Garbage,
    node: &Node,
    live: &ObjectMeta,
    mut metadata: serde_json::Value,
) -> kube::Result<()> {
    metadata["uid"] = json!(live.uid);
    metadata["resourceVersion"] = json!(live.resource_version);
    let api = api(garbage, &node.resource, &node.key.namespace);
    let patch = Patch::Merge(json!({ "metadata": metadata }));
    ignore_missing(api.patch_metadata(&node.key.name, &PatchParams::default(), &patch).await)
}

fn ignore_missing<T>(result: kube::Result<T>) -> kube::Result<()> {
    match result {
        Err(error) if errors::is_not_found(&error) => Ok(()),
        other => other.map(|_| ()),
    }
}

fn api(garbage: &Garbage, resource: &ApiResource, namespace: &str) -> Api<DynamicObject> {
    let client = garbage.client.clone();
    if namespace.is_empty() {
        Api::all_with(client, resource)
    } else {
        Api::namespaced_with(client, namespace, resource)
    }
}

/// The key under which the graph files an object.
pub fn uid_of(meta: &ObjectMeta) -> String {
    meta.uid.clone().unwrap_or_else(|| Key::of(meta).to_string())
}
