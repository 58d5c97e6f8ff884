//! Objects as the server itself reads and writes them: for bootstrap, admission and authentication.

use super::delete::DeleteOptions;
use super::options::WriteOptions;
use super::update::Made;
use super::{At, Registry};
use crate::reader::Objects;
use crate::request::{RequestInfo, UserInfo};
use crate::storage::{Store, keys};
use coracle_api::kinds::Kind;
use coracle_api::status::{GroupResource, Status};
use coracle_api::{decode, meta};
use serde_json::Value;
use std::sync::{Arc, OnceLock, Weak};

/// Reads from the store at once; writes through the registry, once there is one.
pub struct Direct {
    store: Arc<Store>,
    registry: OnceLock<Weak<Registry>>,
}

impl Direct {
    /// Over the store.
    #[must_use]
    pub fn new(store: Arc<Store>) -> Arc<Self> {
        Arc::new(Self { store, registry: OnceLock::new() })
    }

    /// From now on writes go through `registry`.
    pub fn bind(&self, registry: &Arc<Registry>) {
        let _ = self.registry.set(Arc::downgrade(registry));
    }

    fn registry(&self) -> Result<Arc<Registry>, Status> {
        let registry = self.registry.get().and_then(Weak::upgrade);
        registry.ok_or_else(|| Status::unavailable("the server is starting or stopping"))
    }
}

/// The kind that a resource is stored as.
fn kind_of(store: &Store, of: &GroupResource) -> Result<Arc<Kind>, Status> {
    store.stored_kind(of).ok_or_else(|| Status::internal(format!("no kind {of}")))
}

fn at(
    registry: &Registry,
    of: &GroupResource,
    verb: &str,
    namespace: &str,
    name: &str,
) -> Result<At, Status> {
    let kind = kind_of(&registry.store, of)?;
    let info = RequestInfo {
        is_resource: true,
        verb: verb.to_owned(),
        group: kind.group.clone(),
        version: kind.version.clone(),
        resource: kind.plural.clone(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        kind: Some(kind.clone()),
        ..RequestInfo::default()
    };
    let user = UserInfo {
        name: "system:apiserver".to_owned(),
        groups: vec!["system:masters".to_owned(), "system:authenticated".to_owned()],
        ..UserInfo::default()
    };
    let resource = registry.resource(&kind)?;
    let namespace = namespace.to_owned();
    let options = WriteOptions::of_server();
    Ok(At { kind, resource, info, asked: None, namespace, user, options, own: true })
}

impl Registry {
    /// Deletes the object that has this name and uid.
    ///
    /// # Errors
    /// 404 and 409 when it is not there (any more), or the store cannot be reached.
    pub async fn remove(
        &self,
        of: &GroupResource,
        namespace: &str,
        name: &str,
        uid: &str,
    ) -> Result<(), Status> {
        let options = DeleteOptions { uid: Some(uid.to_owned()), ..DeleteOptions::default() };
        let at = at(self, of, "delete", namespace, name)?;
        self.delete_object(&at, &options, &mut Vec::new()).await.map(drop)
    }

    /// Deletes every object of a resource; tells whether none is left.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub async fn remove_all(&self, of: &GroupResource) -> Result<bool, Status> {
        let Some(resource) = self.store.resource(&of.group, &of.resource) else { return Ok(true) };
        self.store.fresh().await?;
        let (entries, _) = resource.cache.list("", 0, |_| true);
        let options =
            DeleteOptions { propagation: Some("Background".to_owned()), ..DeleteOptions::default() };
        let mut left = false;
        for entry in entries {
            let (namespace, name) = keys::split(&entry.tail);
            let at = at(self, of, "delete", namespace, name)?;
            match self.delete_object(&at, &options, &mut Vec::new()).await {
                Err(status) if status.code == 404 => {}
                Err(status) => return Err(status),
                Ok((_, gone)) => left |= !gone,
            }
        }
        Ok(!left)
    }
}

#[async_trait::async_trait]
impl Objects for Direct {
    async fn get_fresh(
        &self,
        of: &GroupResource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Value>, Status> {
        let Some(resource) = self.store.resource(&of.group, &of.resource) else { return Ok(None) };
        let entry = self.store.get(&resource, &keys::tail(namespace, name)).await?;
        Ok(entry.map(|entry| entry.value().as_ref().clone()))
    }

    async fn apply(
        &self,
        of: &GroupResource,
        subresource: &str,
        mut config: Value,
        manager: &str,
    ) -> Result<Value, Status> {
        let registry = self.registry()?;
        let (namespace, name) = (meta::namespace(&config).to_owned(), meta::name(&config).to_owned());
        let mut at = at(&registry, of, "patch", &namespace, &name)?;
        at.info.subresource = subresource.to_owned();
        at.options.manager = manager.to_owned();
        at.options.force = true;
        let (_, outcome, _) = registry.apply_config(&at, &mut config, Vec::new()).await?;
        Ok(outcome.object(&at.kind).as_ref().clone())
    }

    async fn create(
        &self,
        of: &GroupResource,
        namespace: &str,
        object: Value,
        manager: &str,
    ) -> Result<Value, Status> {
        let registry = self.registry()?;
        let mut at = at(&registry, of, "create", namespace, meta::name(&object))?;
        at.options.manager = manager.to_owned();
        let mut warnings = Vec::new();
        // As if it had been sent: with every field that Go writes, set or not.
        let object = decode::canonical(object, &at.kind).map_err(Status::internal)?.object;
        let outcome = registry.create_object(&at, object, false, &mut warnings).await?;
        Ok(outcome.object(&at.kind).as_ref().clone())
    }

    async fn modify(
        &self,
        of: &GroupResource,
        namespace: &str,
        name: &str,
        manager: &str,
        change: &(dyn for<'a> Fn(&'a Value) -> Option<Value> + Send + Sync),
    ) -> Result<Value, Status> {
        let registry = self.registry()?;
        let mut at = at(&registry, of, "update", namespace, name)?;
        at.options.manager = manager.to_owned();
        let make = |old: &Value| {
            let object = change(old).unwrap_or_else(|| old.clone());
            Ok(Made::unowned(object))
        };
        // A change of the status alone goes through the status path, which keeps it.
        let current = at.resource.cache.get(&keys::tail(namespace, name));
        if let Some(current) = current.map(|entry| entry.value().clone())
            && let Some(changed) = change(&current)
            && changed["status"] != current["status"]
            && changed["spec"] == current["spec"]
        {
            at.info.subresource = "status".to_owned();
        }
        let (outcome, _) = registry.change(&at, &make).await?;
        Ok(outcome.object(&at.kind).as_ref().clone())
    }
}
