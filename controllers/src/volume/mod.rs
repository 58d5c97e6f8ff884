//! PersistentVolumes and the claims on them: who gets which, what phase both are in, and when they may go.
//!
//! In: claims, volumes, storage classes, and the pods that use claims. Out: bindings, phases, volumes made for claims of
//! our own kind of class, finalizers removed.
//!
//!     bind.rs     which volume fits a claim, and the phases of both
//!     protect.rs  what is in use is kept until it is not

mod bind;
mod protect;

use crate::context::Context;
use crate::pods;
use bind::Setting;
use coracle_client::controller::Next;
use coracle_client::{Key, Queue};
use coracle_daemon::clock;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use std::sync::Arc;

pub fn start(ctx: &Context) {
    let (claims, volumes) = (Queue::new(), Queue::new());
    watch(ctx, &claims, &volumes);
    ctx.control("persistentvolumeclaim", claims, 4, |ctx, key| async move {
        let Some(claim) = ctx.stores.claims.get(&key) else { return Ok(Next::Change) };
        let users = users(&ctx, &key);
        let class = bind::class_of(&claim);
        let setting = Setting {
            class: ctx.stores.storage_classes.get(&Key::cluster(class)),
            has_consumer: !users.is_empty(),
        };
        let mut plan = bind::reconcile_claim(&claim, &ctx.stores.volumes.list(), &setting);
        plan.then(protect::release_claim(&claim, users.iter().any(|pod| protect::uses(pod))));
        ctx.execute(plan, None).await
    });
    ctx.control("persistentvolume", volumes, 4, |ctx, key| async move {
        let Some(volume) = ctx.stores.volumes.get(&key) else { return Ok(Next::Change) };
        let claim = bind::claim_key(&volume).and_then(|key| ctx.stores.claims.get(&key));
        let mut plan = bind::reconcile_volume(&volume, claim.as_deref(), clock::now());
        plan.then(protect::release_volume(&volume));
        ctx.execute(plan, None).await
    });
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

/// Waits for a volume.
fn is_open(claim: &PersistentVolumeClaim) -> bool {
    claim.spec.as_ref().is_some_and(|spec| spec.volume_name.as_deref().unwrap_or_default().is_empty())
}

/// The claims that a pod names, those that are made for it included.
fn claims_of(pod: &Pod) -> Vec<String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let claim = |volume: &k8s_openapi::api::core::v1::Volume| {
        let named = volume.persistent_volume_claim.as_ref().map(|claim| claim.claim_name.clone());
        named.or_else(|| volume.ephemeral.as_ref().map(|_| format!("{name}-{}", volume.name)))
    };
    volumes.filter_map(claim).collect()
}
