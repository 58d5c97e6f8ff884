//! Keeps a [`Zone`] equal to what the API holds: one changed object changes one entry.

use crate::zone::{Entry, Zone};
use coracle_client::{Key, Reflector, Scope, Store};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Resource, ResourceExt};
use parking_lot::RwLock;
use std::sync::Arc;

/// Label by which a slice names its Service.
pub const SERVICE_LABEL: &str = "kubernetes.io/service-name";
const BY_SERVICE: &str = "service";

/// What the API told so far.
#[derive(Clone)]
pub struct Followed {
    /// The names; not to be believed before [`Followed::synced`].
    pub zone: Arc<RwLock<Zone>>,
    services: Store<Service>,
    namespaces: Store<Namespace>,
    /// All slices.
    pub slices: Store<EndpointSlice>,
}

/// Starts following, until the scope ends.
pub fn start(client: &kube::Client, zone: Zone, scope: &Scope) -> Followed {
    let services: Store<Service> = Reflector::new(Api::all(client.clone())).start(scope);
    let namespaces: Store<Namespace> = Reflector::new(Api::all(client.clone())).start(scope);
    let slices: Store<EndpointSlice> = Reflector::new(Api::all(client.clone()))
        .index(BY_SERVICE, |slice| service_of(slice).map(|key| key.to_string()).into_iter().collect())
        .start(scope);
    let followed = Followed { zone: Arc::new(RwLock::new(zone)), services, namespaces, slices };
    let this = followed.clone();
    followed.services.on_change(move |change| this.update(&change.key));
    let this = followed.clone();
    followed.slices.on_change(move |change| {
        let old = change.old.as_deref().and_then(service_of);
        let new = change.new.as_deref().and_then(service_of);
        if old != new {
            old.iter().for_each(|key| this.update(key));
        }
        new.iter().for_each(|key| this.update(key));
    });
    let zone = followed.zone.clone();
    followed
        .namespaces
        .on_change(move |change| zone.write().set_namespace(&change.key.name, change.new.is_some()));
    followed
}

impl Followed {
    /// Waits until the first lists are in.
    pub async fn synced(&self) {
        self.services.synced().await;
        self.namespaces.synced().await;
        self.slices.synced().await;
    }

    /// The lock is held while the caches are read: of two changes at once, the later one must write last.
    fn update(&self, key: &Key) {
        let mut zone = self.zone.write();
        let service = self.services.get(key);
        let entry = service
            .and_then(|service| Entry::of(&service, &self.slices.by_index(BY_SERVICE, &key.to_string())));
        zone.set_service(&key.namespace, &key.name, entry);
    }
}

fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let name = slice.labels().get(SERVICE_LABEL)?;
    Some(Key::new(slice.meta().namespace.clone().unwrap_or_default(), name.clone()))
}
