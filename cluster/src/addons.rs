//! The few objects that a cluster needs before its first workload: name service, storage class, and roles of our own
//! components. Its apiservers make them before they are ready, so no component ever starts without its role.

use crate::spec::Spec;
use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};

const DNS: &str = include_str!("../addons/dns.yaml");
const ROUTES: &str = include_str!("../addons/routes.yaml");
const STORAGE: &str = include_str!("../addons/storage.yaml");
const SIMULATOR: &str = include_str!("../addons/simulator.yaml");
const CONTROLLERS: &str = include_str!("../addons/controllers.yaml");

/// Bootstrap roles `system:controller:NAME` that the controller manager works under.
const CONTROLLER_ROLES: [&str; 16] = [
    "clusterrole-aggregation-controller",
    "cronjob-controller",
    "daemon-set-controller",
    "deployment-controller",
    "disruption-controller",
    "endpoint-controller",
    "endpointslice-controller",
    "generic-garbage-collector",
    "job-controller",
    "namespace-controller",
    "node-controller",
    "pod-garbage-collector",
    "replicaset-controller",
    "resourcequota-controller",
    "service-account-controller",
    "statefulset-controller",
];
/// These are named apart from the list above, whose entries manage pods or nodes.
const MORE_ROLES: [&str; 10] = [
    "ephemeral-volume-controller",
    "ttl-controller",
    "root-ca-cert-publisher",
    "ttl-after-finished-controller",
    "replication-controller",
    "certificate-controller",
    "persistent-volume-binder",
    "pvc-protection-controller",
    "pv-protection-controller",
    "endpointslicemirroring-controller",
];

/// The objects of a cluster with that spec, as a JSON List for its apiservers.
///
/// # Errors
/// One of them is no YAML.
pub fn list(spec: &Spec) -> Result<Vec<u8>> {
    let mut texts: Vec<String> = CONTROLLER_ROLES
        .iter()
        .chain(&MORE_ROLES)
        .map(|name| CONTROLLERS.replace("CONTROLLER", name))
        .collect();
    texts.push(STORAGE.to_owned());
    if spec.nodes > 0 {
        texts.extend([DNS.to_owned(), ROUTES.to_owned()]);
    }
    if spec.simulated_nodes > 0 {
        texts.push(SIMULATOR.to_owned());
    }
    let mut items = Vec::new();
    for text in &texts {
        for document in serde_yaml_ng::Deserializer::from_str(text) {
            items.push(Value::deserialize(document).context("an addon is no YAML")?);
        }
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    serde_json::to_vec_pretty(&list).context("cannot encode the addons")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_may_read_each_other_where_there_are_any() {
        for (nodes, named) in [(0, false), (1, true)] {
            let spec = Spec {
                name: "a".to_owned(),
                stores: 1,
                apiservers: 1,
                nodes,
                simulated_nodes: 1,
                base_port: 7000,
                subnet: 1,
                etcd: None,
            };
            let list: Value = serde_json::from_slice(&list(&spec).expect("list")).expect("JSON");
            let items = list["items"].as_array().expect("items");
            let grant = items.iter().find(|item| {
                item["kind"] == "ClusterRoleBinding" && item["subjects"][0]["name"] == "system:nodes"
            });
            assert_eq!(grant.is_some(), named, "{nodes} nodes");
        }
    }
}
