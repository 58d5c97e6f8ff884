//! Wakes the owners of pods: the one that controls a changed pod, or those that may adopt one that nobody controls.

use crate::expectations::Expectations;
use crate::ownership::selects;
use coracle_client::{Key, Queue, Store, controller_of};
use k8s_openapi::api::core::v1::Pod;
use kube::core::Selector;
use std::sync::Arc;

/// Adds to `queue` the owners of kind `kind` whose pods change. `selector_of`: how an owner selects pods.
pub fn owners_of_pods<K>(
    pods: &Store<Pod>,
    queue: &Queue<Key>,
    kind: &'static str,
    expectations: &Arc<Expectations>,
    owners: &Store<K>,
    selector_of: fn(&K) -> Option<Option<Selector>>,
) where
    K: kube::Resource + Send + Sync + 'static,
{
    let (wake, seen, owners) = (queue.clone(), expectations.clone(), owners.clone());
    pods.on_change(move |change| {
        // The owner before matters as well: a released pod must be replaced.
        if let Some(owner) = change
            .old
            .as_ref()
            .and_then(|pod| controller_of(&pod.metadata))
            .filter(|owner| owner.kind == kind)
        {
            wake.add(Key::new(change.key.namespace.clone(), owner.name.clone()));
        }
        if let Some(owner) = seen.observe(kind, change) {
            wake.add(owner);
            return;
        }
        let Some(pod) = change.new.as_ref().filter(|pod| controller_of(&pod.metadata).is_none()) else {
            return;
        };
        for owner in owners.list_in(&change.key.namespace) {
            let wanted = selector_of(&owner).flatten();
            if selects(wanted.as_ref(), &pod.metadata) {
                wake.add(Key::of(owner.meta()));
            }
        }
    });
}
