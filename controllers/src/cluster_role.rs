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

/// Who owns the rules, as upstream.
const MANAGER: &str = "clusterrole-aggregation-controller";

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

fn selectors(role: &ClusterRole) -> impl Iterator<Item = Selector> {
    let selectors =
        role.aggregation_rule.iter().flat_map(|rule| rule.cluster_role_selectors.iter().flatten());
    selectors.filter_map(|selector| Selector::try_from(selector.clone()).ok())
}

fn is_chosen(role: &ClusterRole, other: &ClusterRole, selector: &Selector) -> bool {
    other.metadata.name != role.metadata.name && selects(Some(selector), &other.metadata)
}

fn is_part(role: &ClusterRole, other: &ClusterRole) -> bool {
    selectors(role).any(|selector| is_chosen(role, other, &selector))
}

/// `all` are ordered by name, and so are the rules of the parts that one selector chooses.
pub fn reconcile(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Plan {
    let mut plan = Plan::default();
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in selectors(role) {
        let parts = all.iter().filter(|other| is_chosen(role, other, &selector));
        for rule in parts.flat_map(|part| part.rules.iter().flatten()) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    if role.aggregation_rule.is_some() && role.rules.clone().unwrap_or_default() != rules {
        let meta = &role.metadata;
        plan.then([Action::Apply {
            resource: &CLUSTER_ROLE,
            key: Key::of(meta),
            manager: MANAGER,
            // The uid keeps a role that has just been deleted from coming back.
            config: json!({ "metadata": { "name": meta.name, "uid": meta.uid }, "rules": rules }),
            otherwise: json!({ "metadata": { "resourceVersion": meta.resource_version }, "rules": rules }),
        }]);
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::object;

    #[test]
    fn rules_are_gathered_by_label_once_each_and_applied() {
        let rule = |verb: &str| json!({ "apiGroups": [""], "resources": ["pods"], "verbs": [verb] });
        let part = |name: &str, to: &str, verb: &str| {
            let labels = json!({ to: "view" });
            Arc::new(object::<ClusterRole>(
                json!({ "metadata": { "name": name, "labels": labels }, "rules": [rule(verb)] }),
            ))
        };
        let of = |label: &str| json!({ "matchLabels": { label: "view" } });
        let view = object::<ClusterRole>(json!({
            "metadata": { "name": "view", "uid": "u", "resourceVersion": "7" },
            "aggregationRule": { "clusterRoleSelectors": [of("first"), of("second")] },
        }));
        let all = [
            part("a", "second", "list"),
            part("b", "first", "get"),
            part("c", "first", "get"),
            part("d", "other", "delete"),
        ];
        let plan = reconcile(&view, &all);
        let Some(Action::Apply { manager, config, otherwise, .. }) = plan.actions().next() else {
            panic!("rules are applied")
        };
        let rules = json!([rule("get"), rule("list")]);
        assert_eq!(*manager, "clusterrole-aggregation-controller");
        assert_eq!(*config, json!({ "metadata": { "name": "view", "uid": "u" }, "rules": rules }));
        assert_eq!(*otherwise, json!({ "metadata": { "resourceVersion": "7" }, "rules": rules }));
        let done = ClusterRole { rules: serde_json::from_value(rules).expect("rules"), ..view };
        assert!(reconcile(&done, &all).steps.is_empty());
    }
}
