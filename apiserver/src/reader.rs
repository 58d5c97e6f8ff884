//! Reads of current objects for authorization and admission, served from the watch caches without I/O.

use coracle_api::status::GroupResource;
use serde_json::Value;
use std::sync::Arc;

/// Who owns the fields of what the server itself writes.
pub const SERVER: &str = "kube-apiserver";

/// The objects that this server knows now. May lag the store by a watch event.
pub trait Reader: Send + Sync {
    /// One object; `namespace` empty for cluster scope.
    fn get(&self, of: &GroupResource, namespace: &str, name: &str) -> Option<Arc<Value>>;
    /// All objects of a namespace, or of all namespaces when empty.
    fn list(&self, of: &GroupResource, namespace: &str) -> Vec<Arc<Value>>;
    /// A number that changes whenever an object of that resource does (for caches of derived data such as RBAC indexes).
    fn version(&self, of: &GroupResource) -> u64;
}

/// Reads that must be as fresh as the store, and the writes that security needs (bootstrap objects, quota, last use).
#[async_trait::async_trait]
pub trait Objects: Send + Sync {
    /// The object as the store has it now, or `None`.
    async fn get_fresh(
        &self,
        of: &GroupResource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Value>, coracle_api::status::Status>;
    /// Creates through the registry (no admission) in the name of `manager`, a part of the control plane that is noted as the
    /// owner of the fields; AlreadyExists comes back as 409.
    async fn create(
        &self,
        of: &GroupResource,
        namespace: &str,
        object: Value,
        manager: &str,
    ) -> Result<Value, coracle_api::status::Status>;
    /// Applies a configuration to an object or its subresource, taking over what it sets.
    async fn apply(
        &self,
        of: &GroupResource,
        subresource: &str,
        config: Value,
        manager: &str,
    ) -> Result<Value, coracle_api::status::Status>;
    /// Read, change, compare-and-swap, retried on conflict; `change` returns None to leave the object alone. `manager` owns
    /// what it changes.
    async fn modify(
        &self,
        of: &GroupResource,
        namespace: &str,
        name: &str,
        manager: &str,
        change: &(dyn for<'a> Fn(&'a Value) -> Option<Value> + Send + Sync),
    ) -> Result<Value, coracle_api::status::Status>;
}

#[cfg(test)]
pub mod fake;
