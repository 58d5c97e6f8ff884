//! Authorization: Node and RBAC, deny by default; impersonation; the access reviews; the bootstrap roles.
//!
//!     system:masters ─► yes
//!     node::NodeAuthorizer ─► yes, or a reason ─┐
//!     rbac::Rbac ───────────► yes, or a reason ─┼─► 403 with the reasons
//!     webhook::Webhook ─────► yes, no, or a reason ─┘   (where configured)
//!
//! In: who, what, and the cached roles, bindings and pods. Invariants: nobody is allowed what no rule says; only webhooks are
//! I/O. What cannot wait ([`Authorization::decide_now`]) knows of them what is remembered.

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
pub use review::check_review;
pub use rule::Rule;

use crate::audit;
use crate::meters::access::Outcome;
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

/// Why something is not allowed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// To be told after the 403's own text; mostly empty.
    pub reason: String,
    /// Somebody said no, so that others were not asked.
    denied: bool,
    /// Somebody could not tell.
    pub failure: Option<String>,
}

impl Refused {
    /// What an authorizer says that does not settle it.
    fn hear(&mut self, decision: Decision) {
        let join = |all: &mut String, more: String| {
            if !more.is_empty() {
                all.push_str(if all.is_empty() { "" } else { "\n" });
                all.push_str(&more);
            }
        };
        match decision {
            Decision::Allow(reason) | Decision::NoOpinion(reason) => join(&mut self.reason, reason),
            Decision::Deny(reason) => *self = Self { reason, denied: true, failure: None },
            Decision::Failed { denies, why } => {
                self.denied = denies;
                match &mut self.failure {
                    Some(all) if !denies => join(all, why),
                    failure => *failure = Some(why),
                }
            }
        }
    }
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

    /// Ok when allowed.
    ///
    /// # Errors
    /// The 403 that Kubernetes would send.
    pub async fn authorize(&self, user: &UserInfo, request: &RequestInfo) -> Result<(), Status> {
        let decided = self.judge(user, request).await;
        decided.map(drop).map_err(|refused| refusal(user, request, &refused.reason))
    }

    /// Like [`Authorization::authorize`], of the request itself: the audit log is told of it.
    ///
    /// # Errors
    /// The 403 that Kubernetes would send; 500 where somebody could not tell. And what that was.
    pub async fn admit(&self, user: &UserInfo, request: &RequestInfo) -> Result<(), (Outcome, Status)> {
        let decided = self.judge(user, request).await;
        let failure = decided.as_ref().err().and_then(|refused| refused.failure.as_ref());
        if let Some(failure) = failure {
            audit::annotate("authorization.k8s.io/reason", || "internal error".to_owned());
            return Err((Outcome::Error, Status::new(500, "InternalError", failure)));
        }
        let word = if decided.is_ok() { "allow" } else { "forbid" };
        audit::annotate("authorization.k8s.io/decision", || word.to_owned());
        audit::annotate("authorization.k8s.io/reason", || match &decided {
            Ok(why) => self.reason(why, user, request),
            Err(refused) => refused.reason.clone(),
        });
        decided.map(drop).map_err(|refused| {
            let outcome = if refused.denied { Outcome::Denied } else { Outcome::NoOpinion };
            (outcome, refusal(user, request, &refused.reason))
        })
    }

    /// Why a request is allowed, in words.
    fn reason(&self, why: &Why, user: &UserInfo, request: &RequestInfo) -> String {
        match why {
            Why::Unsaid => String::new(),
            Why::Rbac => self.rbac.reason(user, request),
            Why::Told(reason) => reason.clone(),
        }
    }

    /// Whether it is allowed.
    pub async fn allows(&self, user: &UserInfo, request: &RequestInfo) -> bool {
        self.judge(user, request).await.is_ok()
    }

    /// Ok when allowed; webhooks are asked.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn decide(&self, user: &UserInfo, request: &RequestInfo) -> Result<(), Refused> {
        self.judge(user, request).await.map(drop)
    }

    /// Whether a decision may have to wait for other servers.
    #[must_use]
    pub fn asks_others(&self) -> bool {
        self.modes.iter().any(|mode| matches!(mode, Mode::Webhook(_)))
    }

    /// Ok when allowed, by what is known now.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn decide_now(&self, user: &UserInfo, request: &RequestInfo) -> Result<(), Refused> {
        if is_master(user) {
            return Ok(());
        }
        let mut refused = Refused::default();
        for mode in &self.modes {
            let opinion = match mode {
                Mode::Webhook(webhook) => webhook.remembered(user, request),
                mode => self.opinion(mode, user, request),
            };
            if settled(mode, opinion, &mut refused).is_some() {
                return Ok(());
            }
            if refused.denied {
                break;
            }
        }
        Err(refused)
    }

    async fn judge(&self, user: &UserInfo, request: &RequestInfo) -> Result<Why, Refused> {
        if is_master(user) {
            return Ok(Why::Unsaid);
        }
        let mut refused = Refused::default();
        for mode in &self.modes {
            let opinion = match mode {
                Mode::Webhook(webhook) => webhook.decide(user, request).await,
                mode => self.opinion(mode, user, request),
            };
            if let Some(why) = settled(mode, opinion, &mut refused) {
                return Ok(why);
            }
            if refused.denied {
                break;
            }
        }
        Err(refused)
    }

    /// What an authorizer of this process says.
    fn opinion(&self, mode: &Mode, user: &UserInfo, request: &RequestInfo) -> Decision {
        let told = |allowed: Result<(), String>| match allowed {
            Ok(()) => Decision::Allow(String::new()),
            Err(reason) => Decision::NoOpinion(reason),
        };
        match mode {
            Mode::Node => told(self.node.allows(user, request).unwrap_or_else(|| Err(String::new()))),
            Mode::Rbac => told(self.rbac.allows(user, request)),
            Mode::Webhook(_) => Decision::NoOpinion(String::new()),
            Mode::AlwaysAllow => Decision::Allow(String::new()),
            Mode::AlwaysDeny => Decision::NoOpinion("Everything is forbidden.".to_owned()),
        }
    }
}

/// Why an opinion allows it; what else it says is heard.
fn settled(mode: &Mode, opinion: Decision, refused: &mut Refused) -> Option<Why> {
    match (opinion, mode) {
        (Decision::Allow(_), Mode::Rbac) => Some(Why::Rbac),
        (Decision::Allow(reason), _) => Some(Why::Told(reason)),
        (other, _) => {
            refused.hear(other);
            None
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
