//! Endpoints that somebody writes by hand, for a Service without selector, as EndpointSlices, for those who read only these.

use super::{MANAGED_BY, Port, SERVICE_NAME};
use crate::context::Context;
use crate::plan::{Action, Deletion, ENDPOINT_SLICE, Plan};
use crate::stores::BY_SERVICE;
use coracle_client::controller::{Next, ReconcileError};
use coracle_client::{Key, ObjectId};
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

const CONTROLLER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Addresses of one subset that are mirrored.
const MOST: usize = 1000;

/// Family and ports.
type Group = (&'static str, Vec<Port>);

pub async fn sync(ctx: &Context, key: &Key) -> Result<Next, ReconcileError> {
    let (service, endpoints) = (ctx.stores.services.get(key), ctx.stores.endpoints.get(key));
    let existing = ctx.stores.endpoint_slices.by_index(BY_SERVICE, &key.to_string());
    ctx.execute(reconcile(service.as_deref(), endpoints.as_deref(), &existing), None).await
}

pub fn reconcile(
    service: Option<&Service>,
    endpoints: Option<&Endpoints>,
    existing: &[Arc<EndpointSlice>],
) -> Plan {
    let mut plan = Plan::default();
    let mut wanted = BTreeMap::new();
    let source = endpoints.filter(|endpoints| service.is_some_and(is_manual) && is_mirrored(endpoints));
    for subset in source.iter().flat_map(|endpoints| endpoints.subsets.iter().flatten()) {
        add(subset, &mut wanted);
    }
    let mut actions = Vec::new();
    let mine = existing
        .iter()
        .filter(|slice| service_of(slice).is_some() && slice.metadata.deletion_timestamp.is_none());
    for slice in mine {
        let (family, ports) = super::slices::group_of(slice);
        let family = if family == "IPv6" { "IPv6" } else { "IPv4" };
        match wanted.remove(&(family, ports)) {
            Some(endpoints) => actions.extend(change(slice, &endpoints)),
            None => actions.push(delete(slice)),
        }
    }
    if let Some(source) = source {
        actions.extend(wanted.iter().map(|(group, endpoints)| create(source, group, endpoints)));
    }
    plan.then(actions);
    plan
}

/// The Service of a slice that is a mirror.
pub fn service_of(slice: &EndpointSlice) -> Option<String> {
    let labels = slice.metadata.labels.as_ref()?;
    labels
        .get(SERVICE_NAME)
        .filter(|_| labels.get(MANAGED_BY).is_some_and(|name| name == CONTROLLER))
        .cloned()
}

/// A Service whose endpoints nobody else looks after.
fn is_manual(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.is_some_and(|spec| spec.selector.as_ref().is_none_or(BTreeMap::is_empty))
        && service.metadata.deletion_timestamp.is_none()
}

fn is_mirrored(endpoints: &Endpoints) -> bool {
    let skipped = endpoints.metadata.labels.as_ref().and_then(|labels| labels.get(SKIP));
    let elects = endpoints.metadata.annotations.as_ref().is_some_and(|notes| notes.contains_key(LEADER));
    skipped.is_none_or(|skipped| skipped != "true")
        && !elects
        && endpoints.metadata.deletion_timestamp.is_none()
}

fn add(subset: &EndpointSubset, wanted: &mut BTreeMap<Group, Vec<Value>>) {
    let port = |port: &k8s_openapi::api::core::v1::EndpointPort| Port {
        name: port.name.clone().unwrap_or_default(),
        port: port.port,
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
        app_protocol: port.app_protocol.clone(),
    };
    let mut ports: Vec<_> = subset.ports.iter().flatten().map(port).collect();
    ports.sort();
    let ready = subset.addresses.iter().flatten().map(|address| (address, true));
    let unready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
    for (address, ready) in ready.chain(unready).take(MOST) {
        let family = if address.ip.contains(':') { "IPv6" } else { "IPv4" };
        wanted.entry((family, ports.clone())).or_default().push(endpoint(address, ready));
    }
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Value {
    let mut endpoint = json!({ "addresses": [address.ip], "conditions": { "ready": ready } });
    if let Some(hostname) = address.hostname.as_ref().filter(|name| !name.is_empty()) {
        endpoint["hostname"] = json!(hostname);
    }
    if let Some(node) = &address.node_name {
        endpoint["nodeName"] = json!(node);
    }
    if let Some(target) = &address.target_ref {
        endpoint["targetRef"] = json!(target);
    }
    endpoint
}

fn create(source: &Endpoints, (family, ports): &Group, endpoints: &[Value]) -> Action {
    let owner = ObjectId::of(source);
    let own = source.metadata.labels.iter().flatten().map(|(key, value)| (key.clone(), json!(value)));
    let mut labels: Map<String, Value> = own.collect();
    labels.insert(SERVICE_NAME.into(), json!(owner.name));
    labels.insert(MANAGED_BY.into(), json!(CONTROLLER));
    let prefix: String = owner.name.chars().take(57).collect();
    let body = json!({
        "metadata": {
            "generateName": format!("{prefix}-"), "namespace": owner.namespace, "labels": labels,
            "ownerReferences": [crate::pods::owner_reference(&owner)],
        },
        "addressType": family, "endpoints": endpoints, "ports": ports.iter().map(Port::to_json).collect::<Vec<_>>(),
    });
    Action::Create { resource: &ENDPOINT_SLICE, body, owner: None }
}

fn change(slice: &EndpointSlice, endpoints: &[Value]) -> Option<Action> {
    if serde_json::to_value(&slice.endpoints).ok() == Some(json!(endpoints)) {
        return None;
    }
    let meta = json!({ "resourceVersion": slice.metadata.resource_version });
    let patch = json!({ "metadata": meta, "endpoints": endpoints });
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::object;

    fn service(selector: &Value) -> Service {
        object(json!({ "metadata": { "name": "db", "namespace": "ns" }, "spec": { "selector": selector } }))
    }

    fn endpoints(labels: &Value, ip: &str) -> Endpoints {
        let subsets =
            json!([{ "addresses": [{ "ip": ip }], "ports": [{ "port": 5432, "protocol": "TCP" }] }]);
        object(
            json!({ "metadata": { "name": "db", "namespace": "ns", "uid": "e", "labels": labels }, "subsets": subsets }),
        )
    }

    fn created(plan: &Plan) -> Option<Value> {
        plan.actions().find_map(|action| match action {
            Action::Create { body, .. } => Some(body.clone()),
            _ => None,
        })
    }

    #[test]
    fn endpoints_of_a_service_without_selector_get_a_slice() {
        let plan = reconcile(Some(&service(&json!({}))), Some(&endpoints(&json!({}), "192.0.2.7")), &[]);
        let slice = created(&plan).expect("a slice");
        assert_eq!(slice["endpoints"][0]["addresses"], json!(["192.0.2.7"]));
        assert_eq!(slice["metadata"]["labels"][SERVICE_NAME], "db");
        let others = [
            (service(&json!({ "app": "db" })), endpoints(&json!({}), "192.0.2.7")),
            (service(&json!({})), endpoints(&json!({ SKIP: "true" }), "192.0.2.7")),
        ];
        for (service, endpoints) in others {
            assert_eq!(created(&reconcile(Some(&service), Some(&endpoints), &[])), None);
        }
    }

    #[test]
    fn a_mirrored_slice_follows_and_goes() {
        let own = service(&json!({}));
        let mut slice =
            created(&reconcile(Some(&own), Some(&endpoints(&json!({}), "192.0.2.7")), &[])).expect("a slice");
        slice["metadata"]["name"] = json!("db-1");
        let slice: Arc<EndpointSlice> = Arc::new(object(slice));
        let existing = std::slice::from_ref(&slice);
        assert!(reconcile(Some(&own), Some(&endpoints(&json!({}), "192.0.2.7")), existing).steps.is_empty());
        let moved = reconcile(Some(&own), Some(&endpoints(&json!({}), "192.0.2.8")), existing);
        assert!(matches!(moved.actions().next(), Some(Action::Patch { .. })));
        let gone = reconcile(Some(&own), None, existing);
        assert!(matches!(gone.actions().next(), Some(Action::Delete { .. })));
    }
}
