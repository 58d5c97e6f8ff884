//! Aggregated ClusterRoles: roles whose rules are those of other roles, chosen by labels.

use crate::context::Context;
use crate::ownership::selects;
use crate::plan::{Action, CLUSTER_ROLE, Plan};
use coracle_client::controller::Next;
use coracle_client::{Key, Queue};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::core::Selector;
use serde_json::json;
use std::sync::Arc;

pub fn start(ctx: &Context) {
    let queue = Queue::new();
    let (wake, roles) = (queue.clone(), ctx.stores.cluster_roles.clone());
    ctx.stores.cluster_roles.on_change(move |change| {
        for role in roles.list().into_iter().filter(|role| role.aggregation_rule.is_some()) {
            let touched = [&change.old, &change.new].into_iter().flatten().any(|other| is_part(&role, other));
            if touched || change.key.name == Key::of(&role.metadata).name {
                wake.add(Key::of(&role.metadata));
            }
        }
    });
    ctx.control("clusterrole-aggregation", queue, 1, |ctx, key| async move {
        let Some(role) = ctx.stores.cluster_roles.get(&key) else { return Ok(Next::Change) };
        ctx.execute(reconcile(&role, &ctx.stores.cluster_roles.list()), None).await
    });
}

fn is_part(role: &ClusterRole, other: &ClusterRole) -> bool {
    let selectors =
        role.aggregation_rule.iter().flat_map(|rule| rule.cluster_role_selectors.iter().flatten());
    let mut selectors = selectors.filter_map(|selector| Selector::try_from(selector.clone()).ok());
    other.metadata.name != role.metadata.name
        && selectors.any(|selector| selects(Some(&selector), &other.metadata))
}

pub fn reconcile(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Plan {
    let mut plan = Plan::default();
    let mut rules: Vec<PolicyRule> = Vec::new();
    for rule in all.iter().filter(|other| is_part(role, other)).flat_map(|other| other.rules.iter().flatten())
    {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    if role.aggregation_rule.is_some() && role.rules.clone().unwrap_or_default() != rules {
        let patch =
            json!({ "metadata": { "resourceVersion": role.metadata.resource_version }, "rules": rules });
        plan.then([Action::Patch {
            resource: &CLUSTER_ROLE,
            key: Key::of(&role.metadata),
            subresource: "",
            patch,
        }]);
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::object;

    #[test]
    fn rules_are_gathered_by_label_once_each() {
        let rule = json!({ "apiGroups": [""], "resources": ["pods"], "verbs": ["get"] });
        let part = |name: &str| {
            object::<ClusterRole>(
                json!({ "metadata": { "name": name, "labels": { "to": "view" } }, "rules": [rule] }),
            )
        };
        let other =
            object::<ClusterRole>(json!({ "metadata": { "name": "other" }, "rules": [{ "verbs": ["*"] }] }));
        let view = object::<ClusterRole>(
            json!({ "metadata": { "name": "view" }, "aggregationRule": { "clusterRoleSelectors": [{ "matchLabels": { "to": "view" } }] } }),
        );
        let plan = reconcile(&view, &[Arc::new(part("a")), Arc::new(part("b")), Arc::new(other)]);
        let Some(Action::Patch { patch, .. }) = plan.actions().next() else { panic!("rules are written") };
        assert_eq!(patch["rules"], json!([rule]));
    }
}
