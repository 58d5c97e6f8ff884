//! A `Reader` and `Objects` over a map, for the tests of this crate.

use super::{Objects, Reader};
use coracle_api::meta;
use coracle_api::status::{GroupResource, Status};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

type Key = (GroupResource, String, String);

/// Objects by resource, namespace and name; counts its writes.
#[derive(Default)]
pub struct Fake {
    objects: Mutex<BTreeMap<Key, Arc<Value>>>,
    version: AtomicU64,
}

impl Fake {
    /// With these `(group, plural, object)` in it.
    pub fn with(objects: impl IntoIterator<Item = (&'static str, &'static str, Value)>) -> Arc<Self> {
        let fake = Arc::new(Self::default());
        for (group, plural, object) in objects {
            fake.put(group, plural, object);
        }
        fake
    }

    /// Adds or replaces an object.
    pub fn put(&self, group: &str, plural: &str, object: Value) {
        let key = (
            GroupResource::new(group, plural),
            meta::namespace(&object).to_owned(),
            meta::name(&object).to_owned(),
        );
        self.objects.lock().insert(key, Arc::new(object));
        self.version.fetch_add(1, Ordering::Relaxed);
    }

    /// Removes an object.
    pub fn remove(&self, group: &str, plural: &str, namespace: &str, name: &str) {
        self.objects.lock().remove(&(
            GroupResource::new(group, plural),
            namespace.to_owned(),
            name.to_owned(),
        ));
        self.version.fetch_add(1, Ordering::Relaxed);
    }

    /// How many writes there were.
    pub fn writes(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }
}

impl Reader for Fake {
    fn get(&self, of: &GroupResource, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.objects.lock().get(&(of.clone(), namespace.to_owned(), name.to_owned())).cloned()
    }

    fn list(&self, of: &GroupResource, namespace: &str) -> Vec<Arc<Value>> {
        let objects = self.objects.lock();
        let wanted =
            objects.iter().filter(|((at, ns, _), _)| at == of && (namespace.is_empty() || ns == namespace));
        wanted.map(|(_, object)| object.clone()).collect()
    }

    fn version(&self, _of: &GroupResource) -> u64 {
        self.version.load(Ordering::Relaxed)
    }
}

#[async_trait::async_trait]
impl Objects for Fake {
    async fn get_fresh(
        &self,
        of: &GroupResource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Value>, Status> {
        Ok(self.get(of, namespace, name).map(|object| object.as_ref().clone()))
    }

    async fn apply(
        &self,
        of: &GroupResource,
        subresource: &str,
        config: Value,
        _: &str,
    ) -> Result<Value, Status> {
        if subresource.is_empty() {
            self.put(&of.group, &of.resource, config.clone());
            return Ok(config);
        }
        let status = config["status"].clone();
        let change = |current: &Value| {
            let mut current = current.clone();
            current["status"] = status.clone();
            Some(current)
        };
        self.modify(of, meta::namespace(&config), meta::name(&config), "", &change).await
    }

    async fn create(
        &self,
        of: &GroupResource,
        namespace: &str,
        mut object: Value,
        _: &str,
    ) -> Result<Value, Status> {
        let name = meta::name(&object).to_owned();
        if self.get(of, namespace, &name).is_some() {
            return Err(Status::already_exists(of, &name));
        }
        if !namespace.is_empty() {
            meta::set(&mut object, "namespace", namespace);
        }
        self.put(&of.group, &of.resource, object.clone());
        Ok(object)
    }

    async fn modify(
        &self,
        of: &GroupResource,
        namespace: &str,
        name: &str,
        _: &str,
        change: &(dyn for<'a> Fn(&'a Value) -> Option<Value> + Send + Sync),
    ) -> Result<Value, Status> {
        let Some(current) = self.get(of, namespace, name) else { return Err(Status::not_found(of, name)) };
        match change(&current) {
            None => Ok(current.as_ref().clone()),
            Some(changed) => {
                self.put(&of.group, &of.resource, changed.clone());
                Ok(changed)
            }
        }
    }
}
