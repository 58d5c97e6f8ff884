//! Namespaces that are going away: deletes everything in them, whatever it is, then lets them go.
//!
//! What there is to delete comes from discovery, so custom resources are found too.

use crate::context::Context;
use crate::discovery::{self, Discovered};
use coracle_client::controller::{Next, ReconcileError};
use coracle_client::{Key, Queue, errors};
use futures::StreamExt;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use std::time::Duration;

/// Resources looked at at a time.
const PARALLEL: usize = 8;
/// How long to wait for pods that stop; their end is seen at once, this is for what is not watched.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

pub fn start(ctx: &Context) {
    let queue = Queue::new();
    let wake = queue.clone();
    ctx.stores.namespaces.on_change(move |change| {
        if change.new.as_ref().is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some()) {
            wake.add(change.key.clone());
        }
    });
    let (wake, namespaces) = (queue.clone(), ctx.stores.namespaces.clone());
    ctx.stores.pods.on_change(move |change| {
        let key = Key::cluster(change.key.namespace.clone());
        if change.new.is_none()
            && namespaces.get(&key).is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some())
        {
            wake.add(key);
        }
    });
    ctx.control("namespace", queue, 4, |ctx, key| async move { sync(&ctx, &key).await });
}

async fn sync(ctx: &Context, key: &Key) -> Result<Next, ReconcileError> {
    let Some(namespace) = ctx.stores.namespaces.get(key) else { return Ok(Next::Change) };
    let finalizers = namespace.spec.iter().flat_map(|spec| spec.finalizers.iter().flatten());
    if namespace.metadata.deletion_timestamp.is_none() || !finalizers.clone().any(|name| name == "kubernetes")
    {
        return Ok(Next::Change);
    }
    let resources = discovery::discover(&ctx.client).await?;
    let in_namespaces = resources
        .into_iter()
        .filter(|resource| resource.namespaced && resource.can("list") && resource.can("delete"));
    let emptying: Vec<_> = in_namespaces.map(|resource| empty(ctx, resource, &key.name)).collect();
    let emptied: Vec<kube::Result<bool>> =
        futures::stream::iter(emptying).buffer_unordered(PARALLEL).collect().await;
    let mut all_empty = true;
    for emptied in emptied {
        all_empty &= emptied?;
    }
    if !all_empty {
        // Pods may take their grace period; all else is gone as soon as it is asked for.
        if !ctx.stores.pods.list_in(&key.name).is_empty() {
            return Ok(Next::After(LOOK_AGAIN));
        }
        return Err(ReconcileError::NotYet("the namespace still has content".into()));
    }
    finalize(ctx, &key.name).await?;
    Ok(Next::Change)
}

/// Asks for all of a resource's objects in a namespace to be deleted; true when there were none.
async fn empty(ctx: &Context, resource: Discovered, namespace: &str) -> kube::Result<bool> {
    let api: Api<DynamicObject> = Api::namespaced_with(ctx.client.clone(), namespace, &resource.resource);
    let present = match api.list_metadata(&ListParams::default()).await {
        Ok(list) => list.items,
        // The resource went away between discovery and now.
        Err(error) if errors::is_not_found(&error) => return Ok(true),
        Err(error) => return Err(error),
    };
    if present.is_empty() {
        return Ok(true);
    }
    if present.iter().all(|object| object.metadata.deletion_timestamp.is_some()) {
        return Ok(false);
    }
    if resource.can("deletecollection") {
        api.delete_collection(&DeleteParams::background(), &ListParams::default()).await?;
        return Ok(false);
    }
    for name in present.into_iter().filter_map(|object| object.metadata.name) {
        match api.delete(&name, &DeleteParams::background()).await {
            Err(error) if !errors::is_not_found(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(false)
}

async fn finalize(ctx: &Context, name: &str) -> kube::Result<()> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Namespace"));
    let api: Api<DynamicObject> = Api::all_with(ctx.client.clone(), &resource);
    let Some(mut namespace) = api.get_opt(name).await? else { return Ok(()) };
    if let Some(finalizers) = namespace.data["spec"]["finalizers"].as_array_mut() {
        finalizers.retain(|finalizer| finalizer != "kubernetes");
    }
    match api.replace_subresource("finalize", name, &PostParams::default(), &namespace).await {
        Err(error) if errors::is_not_found(&error) => Ok(()),
        other => other.map(|_| ()),
    }
}
