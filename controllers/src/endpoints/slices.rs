//! EndpointSlices of one Service: at most a hundred endpoints each, changed as little as possible.

use super::{Backend, CONTROLLER, MANAGED_BY, Port, SERVICE_NAME, backends, ports, target_ref};
use crate::context::Context;
use crate::plan::{Action, Deletion, ENDPOINT_SLICE, Plan, merge_diff};
use crate::pods::owner_reference;
use crate::stores::BY_SERVICE;
use coracle_client::controller::{Next, ReconcileError};
use coracle_client::{Key, ObjectId, Store};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Endpoints in one slice.
const MOST: usize = 100;
const HEADLESS: &str = "service.kubernetes.io/headless";

pub async fn sync(ctx: &Context, key: &Key) -> Result<Next, ReconcileError> {
    // A deleted Service's slices go with it, by their owner reference.
    let Some(service) = ctx.stores.services.get(key) else { return Ok(Next::Change) };
    let existing = ctx.stores.endpoint_slices.by_index(BY_SERVICE, &key.to_string());
    let pods = ctx.stores.pods.list_in(&key.namespace);
    ctx.execute(reconcile(&service, &pods, &ctx.stores.nodes, &existing), None).await
}

/// Slices with the same addresses' family and ports are one group.
pub type Group = (String, Vec<Port>);

pub fn reconcile(
    service: &Service,
    pods: &[Arc<Pod>],
    nodes: &Store<Node>,
    existing: &[Arc<EndpointSlice>],
) -> Plan {
    let mut plan = Plan::default();
    if super::selector(service).is_none() || service.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let mut wanted = wanted(service, pods, nodes);
    let mine = existing.iter().filter(|slice| {
        let labels = slice.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get(MANAGED_BY)).map(String::as_str) == Some(CONTROLLER)
            && slice.metadata.deletion_timestamp.is_none()
    });
    let mut groups: BTreeMap<Group, Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in mine {
        groups.entry(group_of(slice)).or_default().push(slice);
    }
    let mut actions = Vec::new();
    for (group, slices) in &groups {
        let endpoints = wanted.remove(group);
        let placed = place(slices, endpoints.unwrap_or_default());
        // One empty slice says that there is no endpoint; more would say nothing.
        let mut keep_empty = placed.iter().all(|(_, endpoints)| endpoints.is_empty())
            && wanted.is_empty()
            && actions.is_empty();
        for (slice, endpoints) in placed {
            match slice {
                Some(slice) if endpoints.is_empty() && !std::mem::take(&mut keep_empty) => {
                    actions.push(delete(slice));
                }
                Some(slice) => actions.extend(change(service, slice, &endpoints)),
                None => actions.push(create(service, group, &endpoints)),
            }
        }
    }
    for (group, endpoints) in &wanted {
        for part in endpoints.chunks(MOST) {
            actions.push(create(service, group, part));
        }
    }
    if groups.is_empty() && wanted.is_empty() {
        for family in families(service) {
            actions.push(create(service, &(family, Vec::new()), &[]));
        }
    }
    plan.then(actions);
    plan
}

fn families(service: &Service) -> Vec<String> {
    let families = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ip_families.clone())
        .filter(|families| !families.is_empty());
    families.unwrap_or_else(|| vec!["IPv4".into()])
}

/// What the slices should hold, together.
fn wanted(service: &Service, pods: &[Arc<Pod>], nodes: &Store<Node>) -> BTreeMap<Group, Vec<Value>> {
    let mut groups: BTreeMap<Group, Vec<Value>> = BTreeMap::new();
    let Some(spec) = &service.spec else { return groups };
    for backend in backends(service, pods) {
        let ports = ports(spec, &backend.pod);
        for family in families(service) {
            let addresses = addresses(&backend.pod, &family);
            if !addresses.is_empty() {
                groups
                    .entry((family, ports.clone()))
                    .or_default()
                    .push(endpoint(&backend, &addresses, nodes));
            }
        }
    }
    groups
}

fn addresses(pod: &Pod, family: &str) -> Vec<String> {
    let status = pod.status.clone().unwrap_or_default();
    let all = status.pod_ips.map_or_else(
        || status.pod_ip.into_iter().collect(),
        |ips| ips.into_iter().map(|ip| ip.ip).collect::<Vec<_>>(),
    );
    all.into_iter().filter(|ip| ip.contains(':') == (family == "IPv6")).collect()
}

fn endpoint(backend: &Backend, addresses: &[String], nodes: &Store<Node>) -> Value {
    let node_name = crate::pods::node_name(&backend.pod);
    let mut endpoint = json!({
        "addresses": addresses,
        "conditions": { "ready": backend.ready, "serving": backend.serving, "terminating": backend.terminating },
        "targetRef": target_ref(&backend.pod),
    });
    if !node_name.is_empty() {
        endpoint["nodeName"] = json!(node_name);
        let node = nodes.get(&Key::cluster(node_name));
        if let Some(zone) =
            node.as_ref().and_then(|node| node.metadata.labels.as_ref()?.get("topology.kubernetes.io/zone"))
        {
            endpoint["zone"] = json!(zone);
        }
    }
    if let Some(hostname) = &backend.hostname {
        endpoint["hostname"] = json!(hostname);
    }
    endpoint
}

/// A slice's group.
pub fn group_of(slice: &EndpointSlice) -> Group {
    let port = |port: &k8s_openapi::api::discovery::v1::EndpointPort| Port {
        name: port.name.clone().unwrap_or_default(),
        port: port.port.unwrap_or(0),
        protocol: port.protocol.clone().unwrap_or_default(),
        app_protocol: port.app_protocol.clone(),
    };
    let mut ports: Vec<_> = slice.ports.iter().flatten().map(port).collect();
    ports.sort();
    (slice.address_type.clone(), ports)
}

/// Leaves endpoints in the slices where they are, fills gaps with new ones, and opens slices for the rest.
fn place<'a>(
    slices: &[&'a EndpointSlice],
    endpoints: Vec<Value>,
) -> Vec<(Option<&'a EndpointSlice>, Vec<Value>)> {
    let uid = |endpoint: &Value| endpoint["targetRef"]["uid"].as_str().unwrap_or_default().to_owned();
    let mut waiting: BTreeMap<String, Value> =
        endpoints.into_iter().map(|endpoint| (uid(&endpoint), endpoint)).collect();
    let mut placed: Vec<(Option<&EndpointSlice>, Vec<Value>)> = Vec::new();
    for slice in slices {
        let uids = slice.endpoints.iter().filter_map(|endpoint| endpoint.target_ref.as_ref()?.uid.clone());
        placed.push((Some(slice), uids.filter_map(|uid| waiting.remove(&uid)).collect()));
    }
    let mut waiting = waiting.into_values();
    for (_, held) in &mut placed {
        let room = MOST.saturating_sub(held.len());
        held.extend(waiting.by_ref().take(room));
    }
    let rest: Vec<_> = waiting.collect();
    placed.extend(rest.chunks(MOST).map(|part| (None, part.to_vec())));
    placed
}

fn labels(service: &Service) -> Map<String, Value> {
    let mut labels: Map<String, Value> =
        service.metadata.labels.iter().flatten().map(|(key, value)| (key.clone(), json!(value))).collect();
    labels.insert(SERVICE_NAME.into(), json!(service.metadata.name));
    labels.insert(MANAGED_BY.into(), json!(CONTROLLER));
    labels.remove(HEADLESS);
    if service.spec.as_ref().is_some_and(|spec| spec.cluster_ip.as_deref() == Some("None")) {
        labels.insert(HEADLESS.into(), json!(""));
    }
    labels
}

fn create(service: &Service, (family, ports): &Group, endpoints: &[Value]) -> Action {
    let owner = ObjectId::of(service);
    let prefix: String = owner.name.chars().take(57).collect();
    let body = json!({
        "metadata": {
            "generateName": format!("{prefix}-"), "namespace": owner.namespace, "labels": labels(service),
            "ownerReferences": [owner_reference(&owner)],
        },
        "addressType": family, "endpoints": endpoints, "ports": ports.iter().map(Port::to_json).collect::<Vec<_>>(),
    });
    Action::Create { resource: &ENDPOINT_SLICE, body, owner: None }
}

fn change(service: &Service, slice: &EndpointSlice, endpoints: &[Value]) -> Option<Action> {
    let known_labels = json!(slice.metadata.labels.clone().unwrap_or_default());
    let new_labels = merge_diff(&known_labels, &Value::Object(labels(service)));
    let same = serde_json::to_value(&slice.endpoints).ok() == Some(json!(endpoints));
    if same && new_labels.is_none() {
        return None;
    }
    let mut patch =
        json!({ "metadata": { "resourceVersion": slice.metadata.resource_version }, "endpoints": endpoints });
    if let Some(labels) = new_labels {
        patch["metadata"]["labels"] = labels;
    }
    Some(Action::Patch { resource: &ENDPOINT_SLICE, key: Key::of(&slice.metadata), subresource: "", patch })
}

fn delete(slice: &EndpointSlice) -> Action {
    Action::Delete {
        resource: &ENDPOINT_SLICE,
        key: Key::of(&slice.metadata),
        uid: slice.metadata.uid.clone(),
        how: Deletion::default(),
        owner: None,
    }
}
