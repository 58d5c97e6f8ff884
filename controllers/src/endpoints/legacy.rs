//! The Endpoints object of one Service: ready and unready addresses, grouped by ports.

use super::{backends, ports, target_ref};
use crate::context::Context;
use crate::plan::{Action, Deletion, ENDPOINTS, Plan, merge_diff};
use coracle_client::Key;
use coracle_client::controller::{Next, ReconcileError};
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Addresses in one Endpoints object; the rest is in EndpointSlices only.
const MOST: usize = 1000;
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const HEADLESS: &str = "service.kubernetes.io/headless";

pub async fn sync(ctx: &Context, key: &Key) -> Result<Next, ReconcileError> {
    let (service, endpoints) = (ctx.stores.services.get(key), ctx.stores.endpoints.get(key));
    let plan = match service {
        None => forget(key, endpoints.as_deref()),
        Some(service) => reconcile(&service, &ctx.stores.pods.list_in(&key.namespace), endpoints.as_deref()),
    };
    ctx.execute(plan, None).await
}

/// Endpoints name no owner: they go when their Service is gone, if they were ours.
fn forget(key: &Key, existing: Option<&Endpoints>) -> Plan {
    let mut plan = Plan::default();
    let ours = |endpoints: &&Endpoints| {
        endpoints.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(MANAGED_BY))
    };
    plan.then(existing.filter(ours).map(|endpoints| Action::Delete {
        resource: &ENDPOINTS,
        key: key.clone(),
        uid: endpoints.metadata.uid.clone(),
        how: Deletion::default(),
        owner: None,
    }));
    plan
}

pub fn reconcile(service: &Service, pods: &[Arc<Pod>], existing: Option<&Endpoints>) -> Plan {
    let mut plan = Plan::default();
    if super::selector(service).is_none() || service.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let key = Key::of(&service.metadata);
    let (subsets, labels) = (Value::Array(subsets(service, pods)), Value::Object(labels(service)));
    let Some(known) = existing else {
        let meta = json!({ "name": key.name, "namespace": key.namespace, "labels": labels });
        let mut body = json!({ "metadata": meta });
        if subsets != json!([]) {
            body["subsets"] = subsets;
        }
        plan.then([Action::Create { resource: &ENDPOINTS, body, owner: None }]);
        return plan;
    };
    let known_subsets = serde_json::to_value(known.subsets.clone().unwrap_or_default()).unwrap_or_default();
    let new_labels = merge_diff(&json!(known.metadata.labels.clone().unwrap_or_default()), &labels);
    if known_subsets == subsets && new_labels.is_none() {
        return plan;
    }
    let mut patch =
        json!({ "metadata": { "resourceVersion": known.metadata.resource_version }, "subsets": subsets });
    if let Some(labels) = new_labels {
        patch["metadata"]["labels"] = labels;
    }
    plan.then([Action::Patch { resource: &ENDPOINTS, key, subresource: "", patch }]);
    plan
}

fn subsets(service: &Service, pods: &[Arc<Pod>]) -> Vec<Value> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let mut groups: BTreeMap<_, (Vec<Value>, Vec<Value>)> = BTreeMap::new();
    for backend in
        backends(service, pods).into_iter().filter(|backend| backend.ready || !backend.terminating).take(MOST)
    {
        let Some(ip) = backend.pod.status.as_ref().and_then(|status| status.pod_ip.clone()) else { continue };
        let mut address = json!({ "ip": ip, "targetRef": target_ref(&backend.pod) });
        let node_name = crate::pods::node_name(&backend.pod);
        if !node_name.is_empty() {
            address["nodeName"] = json!(node_name);
        }
        if let Some(hostname) = &backend.hostname {
            address["hostname"] = json!(hostname);
        }
        let (ready, unready) = groups.entry(ports(spec, &backend.pod)).or_default();
        if backend.ready { ready.push(address) } else { unready.push(address) }
    }
    let subset = |(ports, (mut ready, mut unready)): (Vec<super::Port>, (Vec<Value>, Vec<Value>))| {
        let mut subset = json!({});
        for (name, addresses) in [("addresses", &mut ready), ("notReadyAddresses", &mut unready)] {
            addresses.sort_by_key(|address| address["ip"].to_string());
            if !addresses.is_empty() {
                subset[name] = json!(addresses);
            }
        }
        if !ports.is_empty() {
            let unnamed_left_out = |mut port: Value| {
                if port["name"] == "" {
                    port.as_object_mut().map(|port| port.remove("name"));
                }
                port
            };
            subset["ports"] = ports.iter().map(|port| unnamed_left_out(port.to_json())).collect();
        }
        subset
    };
    groups.into_iter().map(subset).collect()
}

fn labels(service: &Service) -> Map<String, Value> {
    let mut labels: Map<String, Value> =
        service.metadata.labels.iter().flatten().map(|(key, value)| (key.clone(), json!(value))).collect();
    labels.insert(MANAGED_BY.into(), json!("endpoint-controller"));
    if service.spec.as_ref().is_some_and(|spec| spec.cluster_ip.as_deref() == Some("None")) {
        labels.insert(HEADLESS.into(), json!(""));
    }
    labels
}
