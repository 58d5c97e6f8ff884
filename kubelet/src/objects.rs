//! The ConfigMaps and Secrets that our pods refer to, and no others: one watch for each, shared by the pods that use it.
//!
//! In: which pod refers to what. Out: the objects, and a call for every pod whose object came, changed or went.
//! Invariant: a kubelet asks for single objects by name only, which is all that the Node authorizer lets it read.

use crate::launch::{Found, Lookup};
use coracle_client::reflector::Reflected;
use coracle_client::{Key, Reflector, Scope, Store};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, PodSpec, Secret};
use kube::Api;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Called with a pod whose objects changed.
pub type Wake = Arc<dyn Fn(&Key) + Send + Sync>;

/// All objects that are watched; clones share them.
#[derive(Clone)]
pub struct Objects {
    config_maps: Arc<Watches<ConfigMap>>,
    secrets: Arc<Watches<Secret>>,
}

struct Watches<K> {
    client: kube::Client,
    scope: Scope,
    wake: Wake,
    by_key: Mutex<HashMap<Key, Watch<K>>>,
}

struct Watch<K> {
    store: Store<K>,
    scope: Scope,
    /// Pods that refer to it.
    users: Arc<Mutex<BTreeSet<Key>>>,
}

/// Names of what a pod refers to, in its own namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// ConfigMaps.
    pub config_maps: BTreeSet<String>,
    /// Secrets.
    pub secrets: BTreeSet<String>,
}

/// What a pod refers to.
pub fn references(spec: &PodSpec) -> References {
    let mut all = References::default();
    for volume in spec.volumes.iter().flatten() {
        all.config_maps.extend(volume.config_map.as_ref().map(|source| source.name.clone()));
        all.secrets.extend(volume.secret.as_ref().and_then(|source| source.secret_name.clone()));
        let sources = volume.projected.as_ref().and_then(|projected| projected.sources.as_ref());
        for source in sources.into_iter().flatten() {
            all.config_maps.extend(source.config_map.as_ref().map(|source| source.name.clone()));
            all.secrets.extend(source.secret.as_ref().map(|source| source.name.clone()));
        }
    }
    let ephemeral: Vec<_> = crate::step::ephemeral_of(spec).collect();
    for container in crate::step::containers_of(spec).chain(&ephemeral) {
        for from in container.env_from.iter().flatten() {
            all.config_maps.extend(from.config_map_ref.as_ref().map(|source| source.name.clone()));
            all.secrets.extend(from.secret_ref.as_ref().map(|source| source.name.clone()));
        }
        for from in container.env.iter().flatten().filter_map(|var| var.value_from.as_ref()) {
            all.config_maps.extend(from.config_map_key_ref.as_ref().map(|source| source.name.clone()));
            all.secrets.extend(from.secret_key_ref.as_ref().map(|source| source.name.clone()));
        }
    }
    all.secrets.extend(spec.image_pull_secrets.iter().flatten().map(|secret| secret.name.clone()));
    all.secrets.remove("");
    all.config_maps.remove("");
    all
}

impl Objects {
    /// Nothing is watched yet.
    pub fn new(client: &kube::Client, scope: &Scope, wake: &Wake) -> Self {
        Self {
            config_maps: Arc::new(Watches::new(client, scope, wake)),
            secrets: Arc::new(Watches::new(client, scope, wake)),
        }
    }

    /// Watches what the pod refers to, and no longer what it alone referred to.
    pub fn hold(&self, pod: &Key, references: &References) {
        self.config_maps.hold(pod, &references.config_maps);
        self.secrets.hold(pod, &references.secrets);
    }

    /// The pod is gone.
    pub fn release(&self, pod: &Key) {
        self.hold(pod, &References::default());
    }

    /// The objects of one namespace, as a pod in it sees them.
    pub fn of(&self, namespace: &str) -> InNamespace {
        InNamespace { objects: self.clone(), namespace: namespace.to_owned() }
    }
}

/// The objects of a pod.
pub fn of_pod(objects: &Objects, pod: &Pod) -> InNamespace {
    objects.of(pod.metadata.namespace.as_deref().unwrap_or_default())
}

/// The objects of one namespace.
pub struct InNamespace {
    objects: Objects,
    namespace: String,
}

impl Lookup for InNamespace {
    fn config_map(&self, name: &str) -> Found<ConfigMap> {
        self.objects.config_maps.get(&Key::new(&*self.namespace, name))
    }

    fn secret(&self, name: &str) -> Found<Secret> {
        self.objects.secrets.get(&Key::new(&*self.namespace, name))
    }
}

impl<K> Watches<K>
where
    K: Reflected + DeserializeOwned + kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    fn new(client: &kube::Client, scope: &Scope, wake: &Wake) -> Self {
        Self { client: client.clone(), scope: scope.clone(), wake: wake.clone(), by_key: Mutex::default() }
    }

    fn hold(&self, pod: &Key, names: &BTreeSet<String>) {
        let mut all = self.by_key.lock();
        all.retain(|key, watch| {
            if key.namespace == pod.namespace && !names.contains(&key.name) {
                let mut users = watch.users.lock();
                users.remove(pod);
                if users.is_empty() {
                    watch.scope.cancel();
                    return false;
                }
            }
            true
        });
        for name in names {
            let key = Key::new(&*pod.namespace, &**name);
            let watch = all.entry(key).or_insert_with_key(|key| self.start(key));
            watch.users.lock().insert(pod.clone());
        }
    }

    fn start(&self, key: &Key) -> Watch<K> {
        let scope = self.scope.child();
        let api: Api<K> = Api::namespaced(self.client.clone(), &key.namespace);
        let store = Reflector::new(api).fields(format!("metadata.name={}", key.name)).start(&scope);
        let users: Arc<Mutex<BTreeSet<Key>>> = Arc::default();
        let (known, wake) = (users.clone(), self.wake.clone());
        let tell = move || {
            let users = known.lock().clone();
            users.iter().for_each(|pod| wake(pod));
        };
        let (listed, told) = (store.clone(), tell.clone());
        store.on_change(move |_| tell());
        // An object that does not exist makes no change, yet pods wait to hear so.
        scope.spawn(format!("first sight of {key}"), async move {
            listed.synced().await;
            told();
        });
        Watch { store, scope, users }
    }

    fn get(&self, key: &Key) -> Found<K> {
        let all = self.by_key.lock();
        let Some(watch) = all.get(key) else { return Found::NotYet };
        match watch.store.get(key) {
            Some(object) => Found::Here(object),
            None if watch.store.is_synced() => Found::Missing,
            None => Found::NotYet,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_refers_to_objects_in_many_places() {
        let spec: PodSpec = serde_json::from_value(json!({
            "imagePullSecrets": [{ "name": "pull" }],
            "volumes": [
                { "name": "a", "configMap": { "name": "m1" } }, { "name": "b", "secret": { "secretName": "s1" } },
                { "name": "c", "projected": { "sources": [{ "configMap": { "name": "m2" } }, { "secret": { "name": "s2" } }] } },
            ],
            "initContainers": [{ "name": "i", "envFrom": [{ "configMapRef": { "name": "m3" } }] }],
            "containers": [{ "name": "c", "env": [{ "name": "X", "valueFrom": { "secretKeyRef": { "name": "s3", "key": "k" } } }] }],
        }))
        .unwrap();
        let got = references(&spec);
        assert_eq!(got.config_maps.into_iter().collect::<Vec<_>>(), ["m1", "m2", "m3"]);
        assert_eq!(got.secrets.into_iter().collect::<Vec<_>>(), ["pull", "s1", "s2", "s3"]);
    }
}
