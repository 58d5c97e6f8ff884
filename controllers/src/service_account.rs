//! What every namespace is furnished with: the ServiceAccount `default`, and the ConfigMap with the cluster's CA.

use crate::context::Context;
use crate::plan::{Action, CONFIG_MAP, Plan, SERVICE_ACCOUNT};
use crate::stores::{DEFAULT_SERVICE_ACCOUNT, ROOT_CA_CONFIG_MAP};
use coracle_client::{Key, Queue};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use serde_json::json;
use std::sync::Arc;

const CA_KEY: &str = "ca.crt";
const CA_DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

/// `root_ca`: the CA's PEM text; without it the ConfigMap is left to others.
pub fn start(ctx: &Context, root_ca: Option<Arc<str>>) {
    let queue = Queue::new();
    let wake = queue.clone();
    ctx.stores.namespaces.on_change(move |change| wake.add(change.key.clone()));
    let wake = queue.clone();
    ctx.stores.service_accounts.on_change(move |change| {
        if change.new.is_none() {
            wake.add(Key::cluster(change.key.namespace.clone()));
        }
    });
    let wake = queue.clone();
    ctx.stores.config_maps.on_change(move |change| wake.add(Key::cluster(change.key.namespace.clone())));
    ctx.control("namespace-furniture", queue, 4, move |ctx, key| {
        let root_ca = root_ca.clone();
        async move {
            let Some(namespace) = ctx.stores.namespaces.get(&key) else {
                return Ok(coracle_client::controller::Next::Change);
            };
            let has_account =
                ctx.stores.service_accounts.get(&Key::new(&*key.name, DEFAULT_SERVICE_ACCOUNT)).is_some();
            let config_map = ctx.stores.config_maps.get(&Key::new(&*key.name, ROOT_CA_CONFIG_MAP));
            ctx.execute(reconcile(&namespace, has_account, config_map.as_deref(), root_ca.as_deref()), None)
                .await
        }
    });
}

pub fn reconcile(
    namespace: &Namespace,
    has_account: bool,
    config_map: Option<&ConfigMap>,
    root_ca: Option<&str>,
) -> Plan {
    let mut plan = Plan::default();
    if namespace.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let name = namespace.metadata.name.as_deref().unwrap_or_default();
    let mut actions = Vec::new();
    if !has_account {
        let body = json!({ "metadata": { "name": DEFAULT_SERVICE_ACCOUNT, "namespace": name } });
        actions.push(Action::Ensure { resource: &SERVICE_ACCOUNT, body });
    }
    if let Some(root_ca) = root_ca {
        let known = config_map.map(|map| {
            map.data.iter().flatten().map(|(key, value)| (key.as_str(), value.as_str())).collect::<Vec<_>>()
        });
        match known {
            None => {
                let meta = json!({ "name": ROOT_CA_CONFIG_MAP, "namespace": name, "annotations": { "kubernetes.io/description": CA_DESCRIPTION } });
                actions.push(Action::Ensure {
                    resource: &CONFIG_MAP,
                    body: json!({ "metadata": meta, "data": { CA_KEY: root_ca } }),
                });
            }
            Some(data) if data == [(CA_KEY, root_ca)] => {}
            Some(data) => {
                let mut wanted: serde_json::Map<_, _> =
                    data.iter().map(|(key, _)| ((*key).to_owned(), json!(null))).collect();
                wanted.insert(CA_KEY.into(), json!(root_ca));
                let key = Key::new(name, ROOT_CA_CONFIG_MAP);
                actions.push(Action::Patch {
                    resource: &CONFIG_MAP,
                    key,
                    subresource: "",
                    patch: json!({ "data": wanted }),
                });
            }
        }
    }
    plan.then(actions);
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::object;

    #[expect(clippy::needless_pass_by_value, reason = "tests read better with json! in place")]
    fn planned(
        namespace: serde_json::Value,
        has_account: bool,
        data: Option<serde_json::Value>,
    ) -> Vec<String> {
        let map = data.map(|data| object::<ConfigMap>(json!({ "data": data })));
        let plan =
            reconcile(&object(json!({ "metadata": namespace })), has_account, map.as_ref(), Some("PEM"));
        let words = plan.actions().map(|action| match action {
            Action::Ensure { resource, .. } => format!("ensure {}", resource.kind),
            Action::Patch { patch, .. } => patch.to_string(),
            other => format!("{other:?}"),
        });
        words.collect()
    }

    #[test]
    fn a_new_namespace_is_furnished_and_a_leaving_one_is_not() {
        assert_eq!(
            planned(json!({ "name": "a" }), false, None),
            ["ensure ServiceAccount", "ensure ConfigMap"]
        );
        assert!(
            planned(json!({ "name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z" }), false, None)
                .is_empty()
        );
    }

    #[test]
    fn a_changed_ca_is_put_right() {
        assert!(planned(json!({ "name": "a" }), true, Some(json!({ "ca.crt": "PEM" }))).is_empty());
        assert_eq!(
            planned(json!({ "name": "a" }), true, Some(json!({ "x": "1" }))),
            [r#"{"data":{"ca.crt":"PEM","x":null}}"#]
        );
    }
}
