//! Authorization: Node and RBAC, deny by default; impersonation; the access reviews; the bootstrap roles.
//!
//!     system:masters ─► yes
//!     node::NodeAuthorizer ─► yes, or a reason ─┐
//!     rbac::Rbac ───────────► yes, or a reason ─┼─► 403 with the reasons
//!     webhook::Webhook ─────► yes, no, or a reason ─┘   (where configured)
//!
//! In: who, what, and the cached roles, bindings and pods. Invariants: nobody is allowed what no rule says; deciding does no
//! I/O: webhooks are asked before ([`Authorization::ask`]), and their answers remembered.

mod aggregate;
mod bootstrap;
mod config;
mod escalation;
mod impersonation;
mod node;
mod rbac;
mod review;
mod rule;
#[cfg(test)]
mod tests;
mod webhook;

pub use aggregate::aggregate;
pub use bootstrap::bootstrap;
pub use config::{AuthorizationArgs, Mode};
pub use node::node_of;
pub use rule::Rule;

use crate::audit;
use crate::reader::Reader;
use crate::request::{RequestInfo, UserInfo};
use coracle_api::status::{GroupResource, Status};
use std::sync::Arc;
use webhook::Decision;

/// Who may do everything, whatever the roles say: the way back into a cluster with broken RBAC.
const MASTERS: &str = "system:masters";

/// Decides who may do what.
pub struct Authorization {
    rbac: rbac::Rbac,
    node: node::NodeAuthorizer,
    /// In the order in which they are asked.
    modes: Vec<Mode>,
}

/// Why something is allowed.
enum Why {
    /// Nothing is said of it.
    Unsaid,
    /// A role says so.
    Rbac,
    /// Another server says so.
    Told(String),
}

impl Authorization {
    /// From the caches.
    #[must_use]
    pub fn new(reader: Arc<dyn Reader>) -> Self {
        Self::with_modes(reader, vec![Mode::Node, Mode::Rbac])
    }

    /// The same with other authorizers.
    #[must_use]
    pub fn with_modes(reader: Arc<dyn Reader>, modes: Vec<Mode>) -> Self {
        let node = node::NodeAuthorizer::new(reader.clone(), bootstrap::node_rules());
        Self { rbac: rbac::Rbac::new(reader), node, modes }
    }

    /// Asks the webhooks whose opinion counts of such a request, so that it can be decided.
    pub async fn ask(&self, user: &UserInfo, request: &RequestInfo) {
        if is_master(user) {
            return;
        }
        // What the others behind the last webhook say is looked at once, when it is decided.
        let last = self.modes.iter().rposition(|mode| matches!(mode, Mode::Webhook(_)));
        for mode in self.modes.iter().take(last.map_or(0, |last| last + 1)) {
            if let Mode::Webhook(webhook) = mode {
                webhook.ask(user, request).await;
            }
            if !matches!(self.opinion(mode, user, request), Decision::NoOpinion(_)) {
                return;
            }
        }
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
    pub async fn admit(&self, user: &UserInfo, request: &RequestInfo) -> Result<(), Status> {
        self.ask(user, request).await;
        let decided = self.judge(user, request);
        let word = if decided.is_ok() { "allow" } else { "forbid" };
        audit::annotate("authorization.k8s.io/decision", || word.to_owned());
        audit::annotate("authorization.k8s.io/reason", || match &decided {
            Ok(why) => self.reason(why, user, request),
            Err(reason) => reason.clone(),
        });
        decided.map(drop).map_err(|reason| refusal(user, request, &reason))
    }

    /// Why a request is allowed, in words.
    fn reason(&self, why: &Why, user: &UserInfo, request: &RequestInfo) -> String {
        match why {
            Why::Unsaid => String::new(),
            Why::Rbac => self.rbac.reason(user, request),
            Why::Told(reason) => reason.clone(),
        }
    }

    /// Ok when allowed; the reason otherwise, mostly empty.
    ///
    /// # Errors
    /// The reason, to be told after the 403's own text.
    pub fn decide(&self, user: &UserInfo, request: &RequestInfo) -> Result<(), String> {
        self.judge(user, request).map(drop)
    }

    fn judge(&self, user: &UserInfo, request: &RequestInfo) -> Result<Why, String> {
        if is_master(user) {
            return Ok(Why::Unsaid);
        }
        let mut reasons = Vec::new();
        for mode in &self.modes {
            match (self.opinion(mode, user, request), mode) {
                (Decision::Allow(_), Mode::Rbac) => return Ok(Why::Rbac),
                (Decision::Allow(reason), _) => return Ok(Why::Told(reason)),
                (Decision::Deny(reason), _) => return Err(reason),
                (Decision::NoOpinion(reason), _) if reason.is_empty() => {}
                (Decision::NoOpinion(reason), _) => reasons.push(reason),
            }
        }
        Err(reasons.join("\n"))
    }

    fn opinion(&self, mode: &Mode, user: &UserInfo, request: &RequestInfo) -> Decision {
        let told = |allowed: Result<(), String>| match allowed {
            Ok(()) => Decision::Allow(String::new()),
            Err(reason) => Decision::NoOpinion(reason),
        };
        match mode {
            Mode::Node => told(self.node.allows(user, request).unwrap_or_else(|| Err(String::new()))),
            Mode::Rbac => told(self.rbac.allows(user, request)),
            Mode::Webhook(webhook) => webhook.remembered(user, request),
            Mode::AlwaysAllow => Decision::Allow(String::new()),
            Mode::AlwaysDeny => Decision::NoOpinion("Everything is forbidden.".to_owned()),
        }
    }
}

fn is_master(user: &UserInfo) -> bool {
    user.groups.iter().any(|group| group == MASTERS)
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
