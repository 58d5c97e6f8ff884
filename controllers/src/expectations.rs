//! What a controller did but its cache does not show yet, so that it does not do it twice.
//!
//! A reconcile that creates three pods may run again before the watch has told of all three; it must wait, or there
//! will be more. In: the actions about to be taken, those that failed, and the changes seen. Out: whether an owner's
//! view is complete. What is not seen within five minutes is given up: better a pod too many than a controller stuck.

use crate::plan::{Action, POD};
use coracle_client::{Change, Key, controller_of};
use coracle_daemon::clock::Instant;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

const GIVEN_UP_AFTER: Duration = Duration::from_secs(300);

#[derive(Default)]
pub struct Expectations {
    owners: Mutex<HashMap<Key, Expected>>,
}

struct Expected {
    creations: u32,
    /// Uids.
    deletions: HashSet<String>,
    since: Instant,
}

impl Expectations {
    /// These are about to be done for `owner`.
    pub fn expect(&self, owner: &Key, actions: &[Action]) {
        let mut owners = self.owners.lock();
        let fresh = || Expected { creations: 0, deletions: HashSet::new(), since: Instant::now() };
        for action in actions {
            match action {
                Action::Create { resource, .. } if **resource == POD => {
                    owners.entry(owner.clone()).or_insert_with(fresh).creations += 1;
                }
                Action::Delete { resource, uid: Some(uid), .. } if **resource == POD => {
                    owners.entry(owner.clone()).or_insert_with(fresh).deletions.insert(uid.clone());
                }
                _ => {}
            }
        }
    }

    /// This one was not done after all.
    pub fn failed(&self, owner: &Key, action: &Action) {
        match action {
            Action::Create { resource, .. } if **resource == POD => self.created(owner),
            Action::Delete { resource, uid: Some(uid), .. } if **resource == POD => self.deleted(owner, uid),
            _ => {}
        }
    }

    /// A pod changed; `kind` is the kind of the controller's objects. Returns the owner to wake.
    pub fn observe(&self, kind: &str, change: &Change<Pod>) -> Option<Key> {
        let pod = change.latest()?;
        let owner = controller_of(&pod.metadata).filter(|owner| owner.kind == kind)?;
        let key = Key::new(change.key.namespace.clone(), owner.name.clone());
        match (uid_of(change.old.as_deref()), uid_of(change.new.as_deref())) {
            (None, Some(_)) => self.created(&key),
            // A cache that was away sees the next pod of a name in place of the one before.
            (Some(old), Some(new)) if old != new => {
                self.deleted(&key, old);
                self.created(&key);
            }
            _ => {}
        }
        if change.new.is_none() || pod.metadata.deletion_timestamp.is_some() {
            self.deleted(&key, uid_of(Some(pod)).unwrap_or_default());
        }
        Some(key)
    }

    /// Whether all that was done for `owner` has been seen.
    pub fn are_met(&self, owner: &Key) -> bool {
        let mut owners = self.owners.lock();
        let met = owners.get(owner).is_none_or(|expected| {
            (expected.creations == 0 && expected.deletions.is_empty())
                || expected.since.elapsed() > GIVEN_UP_AFTER
        });
        if met {
            owners.remove(owner);
        }
        met
    }

    fn created(&self, owner: &Key) {
        if let Some(expected) = self.owners.lock().get_mut(owner) {
            expected.creations = expected.creations.saturating_sub(1);
        }
    }

    fn deleted(&self, owner: &Key, uid: &str) {
        if let Some(expected) = self.owners.lock().get_mut(owner) {
            expected.deletions.remove(uid);
        }
    }
}

fn uid_of(pod: Option<&Pod>) -> Option<&str> {
    pod?.metadata.uid.as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Deletion;
    use crate::testing::pod;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn create() -> Action {
        Action::Create { resource: &POD, body: Value::Null, owner: None }
    }

    fn delete(uid: &str) -> Action {
        Action::Delete {
            resource: &POD,
            key: Key::default(),
            uid: Some(uid.into()),
            how: Deletion::default(),
            owner: None,
        }
    }

    fn owned(uid: &str) -> Arc<Pod> {
        let owner = json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "u", "controller": true }]);
        Arc::new(pod(
            json!({ "metadata": { "namespace": "ns", "name": uid, "uid": uid, "ownerReferences": owner } }),
        ))
    }

    #[tokio::test(start_paused = true)]
    async fn an_owner_waits_until_all_is_seen_or_failed() {
        let (seen, owner) = (Expectations::default(), Key::new("ns", "rs"));
        seen.expect(&owner, &[create(), create(), delete("d")]);
        let added = |uid| Change { key: Key::new("ns", uid), old: None, new: Some(owned(uid)) };
        assert_eq!(seen.observe("ReplicaSet", &added("a")), Some(owner.clone()));
        seen.failed(&owner, &create());
        assert!(!seen.are_met(&owner));
        seen.observe("ReplicaSet", &Change { key: Key::new("ns", "d"), old: Some(owned("d")), new: None });
        assert!(seen.are_met(&owner));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_seen_in_place_of_another_is_a_deletion_and_a_creation() {
        let (seen, owner) = (Expectations::default(), Key::new("ns", "rs"));
        seen.expect(&owner, &[create(), delete("before")]);
        let (old, new) = (Some(owned("before")), Some(owned("after")));
        seen.observe("ReplicaSet", &Change { key: Key::new("ns", "p"), old, new });
        assert!(seen.are_met(&owner));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_never_seen_is_given_up() {
        let (seen, owner) = (Expectations::default(), Key::new("ns", "rs"));
        seen.expect(&owner, &[create()]);
        tokio::time::advance(GIVEN_UP_AFTER + Duration::from_secs(1)).await;
        assert!(seen.are_met(&owner));
    }
}
