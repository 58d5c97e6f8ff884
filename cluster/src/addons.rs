//! The few objects that a cluster needs before its first workload: name service, storage class, and roles of our own components.

use crate::spec::Spec;
use anyhow::{Context, Result};
use coracle_daemon::clock;
use futures::future::try_join_all;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde::Deserialize;
use std::time::Duration;

const DNS: &str = include_str!("../addons/dns.yaml");
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
const MORE_ROLES: [&str; 9] = [
    "ephemeral-volume-controller",
    "ttl-controller",
    "root-ca-cert-publisher",
    "ttl-after-finished-controller",
    "replication-controller",
    "persistent-volume-binder",
    "pvc-protection-controller",
    "pv-protection-controller",
    "endpointslicemirroring-controller",
];

/// Makes or renews them all, in parallel. Safe to repeat.
///
/// # Errors
/// The apiserver refuses one.
pub async fn apply(client: &kube::Client, spec: &Spec) -> Result<()> {
    let mut texts: Vec<String> = CONTROLLER_ROLES
        .iter()
        .chain(&MORE_ROLES)
        .map(|name| CONTROLLERS.replace("CONTROLLER", name))
        .collect();
    texts.push(STORAGE.to_owned());
    if spec.nodes > 0 {
        texts.push(DNS.to_owned());
    }
    if spec.simulated_nodes > 0 {
        texts.push(SIMULATOR.to_owned());
    }
    let mut objects = Vec::new();
    for text in &texts {
        for document in serde_yaml_ng::Deserializer::from_str(text) {
            objects.push(DynamicObject::deserialize(document).context("an addon is no Kubernetes object")?);
        }
    }
    try_join_all(objects.iter().map(|object| apply_one(client, object))).await.map(drop)
}

async fn apply_one(client: &kube::Client, object: &DynamicObject) -> Result<()> {
    let types = object.types.as_ref().context("an addon has no kind")?;
    let gvk = GroupVersionKind::try_from(types).context("an addon has a bad apiVersion")?;
    let resource = ApiResource::from_gvk(&gvk);
    let name = object.metadata.name.clone().context("an addon has no name")?;
    let api: Api<DynamicObject> = match &object.metadata.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let params = PatchParams::apply("coracle").force();
    // Namespaces are made by the apiservers at the same time: a first answer may still be 404.
    for pause in [50, 100, 200, 400, 800] {
        match api.patch(&name, &params, &Patch::Apply(object)).await {
            Err(kube::Error::Api(status)) if status.code == 404 || status.code >= 500 => {
                clock::sleep(Duration::from_millis(pause)).await;
            }
            done => return done.map(drop).with_context(|| format!("cannot make {} {name}", types.kind)),
        }
    }
    api.patch(&name, &params, &Patch::Apply(object))
        .await
        .map(drop)
        .with_context(|| format!("cannot make {} {name}", types.kind))
}
