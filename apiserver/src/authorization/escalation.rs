//! Nobody may grant by a role or binding what they do not hold, unless `escalate` or `bind` says so.

use super::rbac::GROUP;
use super::rule::{self, Rule};
use super::{Authorization, MASTERS};
use crate::request::{RequestInfo, UserInfo};
use coracle_api::meta;
use coracle_api::status::{GroupResource, Status};
use serde_json::{Value, json};

impl Authorization {
    /// Ok when `user` may write `object` (a role or binding of the `rbac.authorization.k8s.io` group) over `old`.
    ///
    /// # Errors
    /// 403 that lists what is not held; 404 when a binding's role does not exist.
    pub async fn check_escalation(
        &self,
        user: &UserInfo,
        request: &RequestInfo,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        if user.groups.iter().any(|group| group == MASTERS) {
            return Ok(());
        }
        let unchanged =
            |keys: &[&str]| old.is_some_and(|old| keys.iter().all(|key| old[*key] == object[*key]));
        match request.resource.as_str() {
            "roles" | "clusterroles" if !unchanged(&["rules", "aggregationRule"]) => {
                self.check_role(user, request, object, old).await
            }
            "rolebindings" | "clusterrolebindings" if !unchanged(&["roleRef", "subjects"]) => {
                self.check_binding(user, request, object).await
            }
            _ => Ok(()),
        }
    }

    async fn check_role(
        &self,
        user: &UserInfo,
        request: &RequestInfo,
        role: &Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        let asked =
            RequestInfo { verb: "escalate".to_owned(), name: meta::name(role).to_owned(), ..request.clone() };
        if self.allows(user, &asked).await {
            return Ok(());
        }
        let namespace = request.namespace.as_str();
        self.must_hold(user, request, role, namespace, &Rule::parse_all(&role["rules"]))?;
        // What an aggregating role will hold one day nobody knows, so its author must hold everything.
        let aggregation = &role["aggregationRule"];
        if aggregation.is_object() && old.is_none_or(|old| old["aggregationRule"] != *aggregation) {
            let everything = [
                Rule::parse(&json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]})),
                Rule::parse(&json!({"verbs": ["*"], "nonResourceURLs": ["*"]})),
            ];
            self.must_hold(user, request, role, "", &everything).map_err(|_| {
                let cause = "must have cluster-admin privileges to use the aggregationRule";
                Status::forbidden(&GroupResource::new(GROUP, &request.resource), meta::name(role), cause)
            })?;
        }
        Ok(())
    }

    async fn check_binding(
        &self,
        user: &UserInfo,
        request: &RequestInfo,
        binding: &Value,
    ) -> Result<(), Status> {
        let role_ref = &binding["roleRef"];
        let resource = if role_ref["kind"] == "ClusterRole" { "clusterroles" } else { "roles" };
        let asked = RequestInfo {
            verb: "bind".to_owned(),
            resource: resource.to_owned(),
            name: role_ref["name"].as_str().unwrap_or_default().to_owned(),
            ..request.clone()
        };
        if self.allows(user, &asked).await {
            return Ok(());
        }
        let rules = self.rbac.rules_of(role_ref, &request.namespace)?;
        self.must_hold(user, request, binding, &request.namespace, &rules)
    }

    fn must_hold(
        &self,
        user: &UserInfo,
        request: &RequestInfo,
        object: &Value,
        namespace: &str,
        rules: &[Rule],
    ) -> Result<(), Status> {
        let held = self.rbac.held(user, namespace);
        let missing = rule::missing(&held.rules, rules);
        if missing.is_empty() {
            return Ok(());
        }
        let mut texts: Vec<String> = missing.iter().map(Rule::to_string).collect();
        texts.sort();
        let mut cause = format!(
            "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
            user.name,
            rule::quoted(&user.groups),
            texts.join("\n")
        );
        if !held.errors.is_empty() {
            cause.push_str(&format!("; resolution errors: [{}]", held.errors.join(", ")));
        }
        Err(Status::forbidden(&GroupResource::new(GROUP, &request.resource), meta::name(object), &cause))
    }
}
