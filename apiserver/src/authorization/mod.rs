//! Authorization: Node and RBAC, deny by default; impersonation; the access reviews; the bootstrap roles.
//!
//!     system:masters ─► yes
//!     node::NodeAuthorizer ─► yes, or a reason ─┐
//!     rbac::Rbac ───────────► yes, or a reason ─┴─► 403 with the reasons
//!
//! In: who, what, and the cached roles, bindings and pods. Invariants: nobody is allowed what no rule says; no I/O.

mod aggregate;
mod bootstrap;
mod escalation;
mod impersonation;
mod node;
mod rbac;
mod review;
mod rule;
#[cfg(test)]
mod tests;

pub use aggregate::aggregate;
pub use bootstrap::bootstrap;
pub use node::node_of;
pub use rule::Rule;

use crate::audit;
use crate::reader::Reader;
use crate::request::{RequestInfo, UserInfo};
use coracle_api::status::{GroupResource, Status};
use std::sync::Arc;

/// Who may do everything, whatever the roles say: the way back into a cluster with broken RBAC.
const MASTERS: &str = "system:masters";

/// Decides who may do what.
pub struct Authorization {
    rbac: rbac::Rbac,
    node: node::NodeAuthorizer,
}

impl Authorization {
    /// From the caches.
    #[must_use]
    pub fn new(reader: Arc<dyn Reader>) -> Self {
        let node = node::NodeAuthorizer::new(reader.clone(), bootstrap::node_rules());
        Self { rbac: rbac::Rbac::new(reader), node }
    }

    /// Ok when allowed.
    ///
    /// # Errors
    /// The 403 that Kubernetes would send.
    pub fn authorize(&self, user: &UserInfo, request: &RequestInfo) -> Result<(), Status> {
        self.decide(user, request).map_err(|reason| refusal(user, request, &reason))
    }

    /// Like [`Authorization::authorize`], of the request itself: the audit log is told of it.
    ///
    /// # Errors
    /// The 403 that Kubernetes would send.
    pub fn admit(&self, user: &UserInfo, request: &RequestInfo) -> Result<(), Status> {
        let decided = self.decide(user, request);
        let word = if decided.is_ok() { "allow" } else { "forbid" };
        audit::annotate("authorization.k8s.io/decision", || word.to_owned());
        audit::annotate("authorization.k8s.io/reason", || match &decided {
            Ok(()) => self.reason(user, request),
            Err(reason) => reason.clone(),
        });
        decided.map_err(|reason| refusal(user, request, &reason))
    }

    /// Why a request is allowed.
    fn reason(&self, user: &UserInfo, request: &RequestInfo) -> String {
        if user.groups.iter().any(|group| group == MASTERS) {
            return String::new();
        }
        self.rbac.reason(user, request)
    }

    /// Ok when allowed; the reason otherwise, mostly empty.
    ///
    /// # Errors
    /// The reason, to be told after the 403's own text.
    pub fn decide(&self, user: &UserInfo, request: &RequestInfo) -> Result<(), String> {
        if user.groups.iter().any(|group| group == MASTERS) {
            return Ok(());
        }
        let of_node = match self.node.allows(user, request) {
            Some(Ok(())) => return Ok(()),
            Some(Err(reason)) => reason,
            None => String::new(),
        };
        self.rbac.allows(user, request).map_err(|reason| match (of_node.is_empty(), reason.is_empty()) {
            (true, _) => reason,
            (false, true) => of_node,
            (false, false) => format!("{of_node}\n{reason}"),
        })
    }
}

/// The 403 for what `user` may not do.
fn refusal(user: &UserInfo, request: &RequestInfo, reason: &str) -> Status {
    let RequestInfo { verb, group, resource, subresource, namespace, name, path, .. } = request;
    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let who = &user.name;
    if !request.is_resource {
        let cause = format!("User {who:?} cannot {verb} path {path:?}{reason}");
        return Status::forbidden(&GroupResource::default(), "", &cause);
    }
    let slash = if subresource.is_empty() { "" } else { "/" };
    let place = if namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {namespace:?}")
    };
    let cause = format!(
        "User {who:?} cannot {verb} resource \"{resource}{slash}{subresource}\" in API group {group:?} {place}{reason}"
    );
    Status::forbidden(&GroupResource::new(group, resource), name, &cause)
}
