//! Admission in Kubernetes' order, one file a plugin.

use crate::reader::{Objects, Reader};
use crate::request::{RequestInfo, UserInfo};
use coracle_api::status::Status;
use serde_json::Value;
use std::sync::Arc;

/// What a plugin sees of a write.
pub struct Attributes<'a> {
    /// What is asked.
    pub request: &'a RequestInfo,
    /// By whom.
    pub user: &'a UserInfo,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub operation: &'static str,
    /// The stored object, on update and delete.
    pub old: Option<&'a Value>,
    /// Whether nothing will be written.
    pub dry_run: bool,
}

/// The chain of plugins.
pub struct Admission {
    _private: (),
}

impl Admission {
    /// From the caches.
    #[must_use]
    pub fn new(reader: Arc<dyn Reader>, objects: Arc<dyn Objects>) -> Self {
        let _ = (reader, objects);
        Self { _private: () }
    }

    /// Mutating plugins: may change `object` (`Null` on delete and connect), before validation.
    ///
    /// # Errors
    /// The Status that refuses the write.
    pub async fn mutate(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        let _ = (attributes, object);
        Ok(())
    }

    /// Validating plugins: see the final object, right before the store; returns warnings.
    ///
    /// # Errors
    /// The Status that refuses the write.
    pub async fn validate(&self, attributes: &Attributes<'_>, object: &Value) -> Result<Vec<String>, Status> {
        let _ = (attributes, object);
        Ok(Vec::new())
    }
}
