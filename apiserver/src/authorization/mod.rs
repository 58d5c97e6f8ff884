//! Authorization: Node and RBAC, deny by default; the access reviews; the bootstrap roles.

use crate::reader::{Objects, Reader};
use crate::request::{RequestInfo, UserInfo};
use coracle_api::status::Status;
use std::sync::Arc;

/// Decides who may do what.
pub struct Authorization {
    _private: (),
}

impl Authorization {
    /// From the caches.
    #[must_use]
    pub fn new(reader: Arc<dyn Reader>) -> Self {
        let _ = reader;
        Self { _private: () }
    }

    /// Ok when allowed.
    ///
    /// # Errors
    /// The 403 that Kubernetes would send.
    pub fn authorize(&self, user: &UserInfo, request: &RequestInfo) -> Result<(), Status> {
        let _ = (user, request);
        Err(Status::forbidden(&Default::default(), "", "stub"))
    }

    /// The user that the request is to be run as, after checking `Impersonate-*` headers.
    ///
    /// # Errors
    /// 400 or 403.
    pub fn impersonated(&self, user: UserInfo, headers: &http::HeaderMap) -> Result<UserInfo, Status> {
        let _ = headers;
        Ok(user)
    }
}

/// Creates and reconciles the bootstrap ClusterRoles, Roles and bindings. Safe to run from several apiservers at once.
///
/// # Errors
/// The store cannot be written.
pub async fn bootstrap(objects: &dyn Objects) -> Result<(), Status> {
    let _ = objects;
    Ok(())
}
