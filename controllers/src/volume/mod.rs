//! PersistentVolumes and the claims on them: who gets which, what phase both are in, and when they may go.
//!
//! In: claims, volumes, storage classes, and the pods that use claims. Out: bindings, phases, volumes made for claims of
//! our own kind of class, finalizers removed.
//!
//!     bind.rs     which volume fits a claim, and the phases of both
//!     ephemeral.rs claims that are made for a pod
//!     protect.rs  what is in use is kept until it is not
//!     folders.rs  the folders of volumes that we make

mod bind;
mod ephemeral;
mod folders;
mod protect;

use crate::context::Context;
use crate::pods;
use bind::Setting;
use coracle_client::controller::{Next, ReconcileError};
use coracle_client::{Key, Queue};
use coracle_daemon::clock;
use folders::Folders;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::Api;
use std::path::Path;
use std::sync::Arc;

/// `folder`: where volumes of our own are made; `None` where none are.
pub fn start(ctx: &Context, folder: Option<&Path>) {
    let (claims, volumes) = (Queue::new(), Queue::new());
    let folders = folder.map(Folders::new);
    ephemeral::start(ctx);
    watch(ctx, &claims, &volumes);
    let of_claims = folders.clone();
    ctx.control("persistentvolumeclaim", claims, 4, move |ctx, key| {
        let folders = of_claims.clone();
        async move { sync_claim(&ctx, &key, folders.as_ref()).await }
    });
    ctx.control("persistentvolume", volumes, 4, move |ctx, key| {
        let folders = folders.clone();
        async move { sync_volume(&ctx, &key, folders.as_ref()).await }
    });
}

async fn sync_claim(ctx: &Context, key: &Key, folders: Option<&Folders>) -> Result<Next, ReconcileError> {
    let Some(claim) = ctx.stores.claims.get(key) else { return Ok(Next::Change) };
    let users = users(ctx, key);
    let setting = Setting {
        class: ctx.stores.storage_classes.get(&Key::cluster(bind::class_of(&claim))),
        default_class: bind::default_class(&ctx.stores.storage_classes.list()),
        folders,
        unscheduled: unscheduled(&users),
    };
    let mut plan = bind::reconcile_claim(&claim, &ctx.stores.volumes.list(), &setting);
    if let Some(folders) = folders.filter(|_| bind::makes_volume(&plan)) {
        let made = folders.make(&bind::volume_of(&claim)).await;
        made.map_err(|error| ReconcileError::NotYet(format!("cannot make the folder of a volume: {error}")))?;
    }
    plan.then(protect::release_claim(&claim, users.iter().any(|pod| protect::uses(pod))));
    ctx.execute(plan, None).await
}

async fn sync_volume(ctx: &Context, key: &Key, folders: Option<&Folders>) -> Result<Next, ReconcileError> {
    let Some(volume) = ctx.stores.volumes.get(key) else { return Ok(Next::Change) };
    let claim = bind::claim_key(&volume).and_then(|key| ctx.stores.claims.get(&key));
    let mut plan = bind::reconcile_volume(&volume, claim.as_deref(), clock::now());
    if let Some(folders) = folders.filter(|_| bind::is_discarded(&volume, claim.as_deref())) {
        // Data is not lost to a cache that is behind: what is gone is gone in the API too.
        let claim = match bind::claim_key(&volume) {
            Some(key) => {
                let api = Api::<PersistentVolumeClaim>::namespaced(ctx.client.clone(), &key.namespace);
                api.get_opt(&key.name).await?
            }
            None => None,
        };
        if !bind::is_discarded(&volume, claim.as_ref()) {
            return Err(ReconcileError::NotYet(format!("the claim of volume {} is not seen yet", key.name)));
        }
        let removed = folders.remove(&key.name).await;
        removed
            .map_err(|error| ReconcileError::NotYet(format!("cannot remove a volume's folder: {error}")))?;
    }
    plan.then(protect::release_volume(&volume));
    ctx.execute(plan, None).await
}

fn watch(ctx: &Context, claims: &Queue<Key>, volumes: &Queue<Key>) {
    let (wake, wake_volume) = (claims.clone(), volumes.clone());
    ctx.stores.claims.on_change(move |change| {
        wake.add(change.key.clone());
        for claim in [&change.old, &change.new].into_iter().flatten() {
            if let Some(name) = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()) {
                wake_volume.add(Key::cluster(name));
            }
        }
    });
    let (wake, wake_volume, all) = (claims.clone(), volumes.clone(), ctx.stores.claims.clone());
    ctx.stores.volumes.on_change(move |change| {
        wake_volume.add(change.key.clone());
        let of = |volume: &PersistentVolume| bind::claim_key(volume);
        for key in [&change.old, &change.new].into_iter().flatten().filter_map(|volume| of(volume)) {
            wake.add(key);
        }
        let is_free = change.new.as_ref().is_some_and(|volume| of(volume).is_none());
        for claim in all.list().into_iter().filter(|claim| is_free && is_open(claim)) {
            wake.add(Key::of(&claim.metadata));
        }
    });
    let (wake, all) = (claims.clone(), ctx.stores.claims.clone());
    ctx.stores.storage_classes.on_change(move |_| {
        all.list()
            .into_iter()
            .filter(|claim| is_open(claim))
            .for_each(|claim| wake.add(Key::of(&claim.metadata)));
    });
    let wake = claims.clone();
    ctx.stores.pods.on_change(move |change| {
        let seen = |pod: &Pod| (pods::is_finished(pod), pods::node_name(pod).is_empty());
        if change.old.as_deref().map(seen) == change.new.as_deref().map(seen) {
            return;
        }
        for name in change.latest().map(|pod| claims_of(pod)).unwrap_or_default() {
            wake.add(Key::new(change.key.namespace.clone(), name));
        }
    });
}

/// The pods that name a claim.
fn users(ctx: &Context, claim: &Key) -> Vec<Arc<Pod>> {
    let pods = ctx.stores.pods.list_in(&claim.namespace).into_iter();
    pods.filter(|pod| claims_of(pod).contains(&claim.name)).collect()
}

/// The names of those that wait for a node.
fn unscheduled(users: &[Arc<Pod>]) -> Vec<String> {
    let waiting = users.iter().filter(|pod| !pods::is_finished(pod) && pods::node_name(pod).is_empty());
    waiting.filter_map(|pod| pod.metadata.name.clone()).collect()
}

/// Waits for a volume.
fn is_open(claim: &PersistentVolumeClaim) -> bool {
    claim.spec.as_ref().is_some_and(|spec| spec.volume_name.as_deref().unwrap_or_default().is_empty())
}

/// The claims that a pod names, those that are made for it included.
fn claims_of(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let claim = |volume: &k8s_openapi::api::core::v1::Volume| {
        let named = volume.persistent_volume_claim.as_ref().map(|claim| claim.claim_name.clone());
        named.or_else(|| volume.ephemeral.as_ref().map(|_| ephemeral_claim(pod, volume)))
    };
    volumes.filter_map(claim).collect()
}

/// The claim that is made for an ephemeral volume of a pod.
fn ephemeral_claim(pod: &Pod, volume: &k8s_openapi::api::core::v1::Volume) -> String {
    format!("{}-{}", pod.metadata.name.as_deref().unwrap_or_default(), volume.name)
}
