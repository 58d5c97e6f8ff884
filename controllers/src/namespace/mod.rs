//! Namespaces that are going away: deletes everything in them, whatever it is, then lets them go.
//!
//! What there is to delete comes from discovery, so custom resources are found too.

use crate::context::Context;
use crate::discovery::{self, Discovered};
use crate::plan::Plan;
use coracle_client::controller::{Next, ReconcileError};
use coracle_client::{Key, Queue, errors};
use coracle_daemon::clock;
use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use remains::{Emptied, status, text_of};
use std::time::Duration;

mod remains;

/// Resources looked at at a time.
const PARALLEL: usize = 8;
/// How long to wait for pods that stop; their end is seen at once, this is for what is not watched.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// A namespace waits for servers that are away, and nothing tells when they are back.
const RETRY_MOST: Duration = Duration::from_secs(60);

/// The resource of pods, by its full name.
const PODS: &str = "pods.";

pub fn start(ctx: &Context) {
    let queue = Queue::retrying_within(RETRY_MOST);
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
    let emptied = empty_all(ctx, &key.name).await;
    if emptied.is_empty() {
        finalize(ctx, &key.name).await?;
        return Ok(Next::Change);
    }
    let mut plan = Plan::default();
    plan.then(status(&namespace, &emptied, clock::now()));
    ctx.execute(plan, None).await?;
    // Pods may take their grace period, and finalizers as long as they like; all else is gone as soon as it is asked for.
    if emptied.failures.is_empty() && (emptied.finalizers.is_empty() && !emptied.remaining.contains_key(PODS))
    {
        return Err(ReconcileError::NotYet("the namespace still has content".into()));
    }
    Ok(Next::After(LOOK_AGAIN))
}

/// Empties a namespace: pods first, for what they are kept from (network policies, say) must not go before them.
async fn empty_all(ctx: &Context, namespace: &str) -> Emptied {
    let mut emptied = Emptied::default();
    let served = match discovery::discover(&ctx.client).await {
        Ok(served) => served,
        Err(error) => {
            emptied.discovery = Some(text_of(&error));
            return emptied;
        }
    };
    let in_namespaces = served
        .resources
        .into_iter()
        .filter(|resource| resource.namespaced && resource.can("list") && resource.can("delete"));
    let (pods, others): (Vec<_>, Vec<_>) = in_namespaces.partition(|resource| full_name(resource) == PODS);
    for resources in [pods, others] {
        let emptying: Vec<_> =
            resources.into_iter().map(|resource| empty(ctx, resource, namespace)).collect();
        let all: Vec<_> = futures::stream::iter(emptying).buffer_unordered(PARALLEL).collect().await;
        all.into_iter().for_each(|(name, outcome)| emptied.note(name, outcome));
        if !emptied.is_empty() {
            break;
        }
    }
    emptied.discovery = remains::unknown(&served.silent);
    emptied
}

/// Asks for all of a resource's objects in a namespace to be deleted; returns what there was.
async fn empty(
    ctx: &Context,
    resource: Discovered,
    namespace: &str,
) -> (String, kube::Result<Vec<ObjectMeta>>) {
    let outcome = delete_all(ctx, &resource, namespace).await;
    (full_name(&resource), outcome)
}

async fn delete_all(ctx: &Context, resource: &Discovered, namespace: &str) -> kube::Result<Vec<ObjectMeta>> {
    let api: Api<DynamicObject> = Api::namespaced_with(ctx.client.clone(), namespace, &resource.resource);
    let present = match api.list_metadata(&ListParams::default()).await {
        Ok(list) => list.items.into_iter().map(|object| object.metadata).collect::<Vec<_>>(),
        // The resource went away between discovery and now.
        Err(error) if errors::is_not_found(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    if present.iter().all(|object| object.deletion_timestamp.is_some()) {
        return Ok(present);
    }
    if resource.can("deletecollection") {
        api.delete_collection(&DeleteParams::background(), &ListParams::default()).await?;
        return Ok(present);
    }
    for name in present.iter().filter_map(|object| object.name.as_ref()) {
        match api.delete(name, &DeleteParams::background()).await {
            Err(error) if !errors::is_not_found(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(present)
}

/// `deployments.apps`; resources without a group end in a dot.
fn full_name(resource: &Discovered) -> String {
    format!("{}.{}", resource.resource.plural, resource.resource.group)
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
