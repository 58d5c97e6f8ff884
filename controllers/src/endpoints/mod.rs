//! Which pods stand behind each Service: its EndpointSlices and its Endpoints.
//!
//! In: a Service with a selector, the pods that it selects, the slices and Endpoints that exist. Out: the changes to
//! make them true. Both controllers wake on the same changes and run side by side.
//!
//!     mod.rs     who is woken, which pods count, at which ports
//!     slices.rs  EndpointSlice
//!     legacy.rs  Endpoints
//!     mirror.rs  EndpointSlices of Endpoints that somebody else writes

mod legacy;
mod mirror;
mod slices;

use crate::context::Context;
use crate::pods;
use coracle_client::{Change, Key, Queue, Store};
use k8s_openapi::api::core::v1::{Pod, Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub const CONTROLLER: &str = "endpointslice-controller.k8s.io";

pub fn start(ctx: &Context) {
    start_mirror(ctx);
    let (slices, endpoints) = (Queue::new(), Queue::new());
    let both = {
        let (slices, endpoints) = (slices.clone(), endpoints.clone());
        move |key: Key| {
            slices.add(key.clone());
            endpoints.add(key);
        }
    };
    let selected = Arc::new(Selected::default());
    let (wake, index) = (both.clone(), selected.clone());
    ctx.stores.services.on_change(move |change| {
        index.service_changed(change);
        wake(change.key.clone());
    });
    let (wake, services) = (both, ctx.stores.services.clone());
    ctx.stores.pods.on_change(move |change| {
        if !matters(change.old.as_deref(), change.new.as_deref()) {
            return;
        }
        let mut woken = HashSet::new();
        for pod in [&change.old, &change.new].into_iter().flatten() {
            woken.extend(selected.services_of(&services, pod));
        }
        woken.into_iter().for_each(&wake);
    });
    let wake = endpoints.clone();
    ctx.stores.endpoints.on_change(move |change| wake.add(change.key.clone()));
    let wake = slices.clone();
    ctx.stores.endpoint_slices.on_change(move |change| {
        let labels = change.latest().and_then(|slice| slice.metadata.labels.clone()).unwrap_or_default();
        if let Some(service) = labels
            .get(SERVICE_NAME)
            .filter(|_| labels.get(MANAGED_BY).map(String::as_str) == Some(CONTROLLER))
        {
            wake.add(Key::new(change.key.namespace.clone(), service.clone()));
        }
    });
    ctx.control("endpointslice", slices, 8, |ctx, key| async move { slices::sync(&ctx, &key).await });
    ctx.control("endpoints", endpoints, 4, |ctx, key| async move { legacy::sync(&ctx, &key).await });
}

fn start_mirror(ctx: &Context) {
    let queue = Queue::new();
    let wake = queue.clone();
    ctx.stores.services.on_change(move |change| wake.add(change.key.clone()));
    let wake = queue.clone();
    ctx.stores.endpoints.on_change(move |change| wake.add(change.key.clone()));
    let wake = queue.clone();
    ctx.stores.endpoint_slices.on_change(move |change| {
        if let Some(service) = change.latest().and_then(|slice| mirror::service_of(slice)) {
            wake.add(Key::new(change.key.namespace.clone(), service));
        }
    });
    ctx.control("endpointslicemirroring", queue, 2, |ctx, key| async move { mirror::sync(&ctx, &key).await });
}

/// Services by namespace and one pair of their selector, so that a pod's change looks at few of them.
#[derive(Default)]
struct Selected {
    by_pair: Mutex<HashMap<(String, String, String), HashSet<Key>>>,
}

impl Selected {
    fn service_changed(&self, change: &Change<Service>) {
        let mut by_pair = self.by_pair.lock();
        if let Some(pair) = change.old.as_deref().and_then(pair)
            && let Some(keys) = by_pair.get_mut(&pair)
        {
            keys.remove(&change.key);
            if keys.is_empty() {
                by_pair.remove(&pair);
            }
        }
        if let Some(pair) = change.new.as_deref().and_then(pair) {
            by_pair.entry(pair).or_default().insert(change.key.clone());
        }
    }

    fn services_of(&self, services: &Store<Service>, pod: &Pod) -> Vec<Key> {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let by_pair = self.by_pair.lock();
        let pairs = pod
            .metadata
            .labels
            .iter()
            .flatten()
            .map(|(key, value)| (namespace.clone(), key.clone(), value.clone()));
        let keys = pairs.filter_map(|pair| by_pair.get(&pair)).flatten();
        keys.filter(|key| {
            services
                .get(key)
                .is_some_and(|service| selector(&service).is_some_and(|wanted| matches(wanted, pod)))
        })
        .cloned()
        .collect()
    }
}

fn pair(service: &Service) -> Option<(String, String, String)> {
    let (key, value) = selector(service)?.iter().next()?;
    Some((service.metadata.namespace.clone().unwrap_or_default(), key.clone(), value.clone()))
}

fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref().filter(|spec| spec.type_.as_deref() != Some("ExternalName"))?;
    spec.selector.as_ref().filter(|selector| !selector.is_empty())
}

fn matches(wanted: &BTreeMap<String, String>, pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    wanted.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

/// Whether a pod's change can change an endpoint.
fn matters(old: Option<&Pod>, new: Option<&Pod>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return true };
    let seen = |pod: &Pod| {
        let status = pod.status.clone().unwrap_or_default();
        let spec = pod.spec.as_ref();
        let place = (
            status.pod_ips,
            pods::node_name(pod).to_owned(),
            spec.and_then(|spec| spec.hostname.clone()),
            spec.and_then(|spec| spec.subdomain.clone()),
        );
        (
            place,
            pods::is_ready(pod),
            pods::is_terminating(pod),
            pods::is_finished(pod),
            pod.metadata.labels.clone(),
        )
    };
    seen(old) != seen(new)
}

/// What one pod contributes to a Service.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    pub pod: Arc<Pod>,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    pub hostname: Option<String>,
}

/// The pods behind a Service that have an address.
pub fn backends(service: &Service, pods: &[Arc<Pod>]) -> Vec<Backend> {
    let (Some(wanted), Some(spec)) = (selector(service), &service.spec) else { return Vec::new() };
    let publish_all = spec.publish_not_ready_addresses == Some(true);
    let counts = |pod: &&Arc<Pod>| {
        matches(wanted, pod)
            && !pods::is_finished(pod)
            && pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some())
    };
    let backend = |pod: &Arc<Pod>| {
        let (serving, terminating) = (pods::is_ready(pod), pods::is_terminating(pod));
        Backend {
            pod: pod.clone(),
            ready: publish_all || (serving && !terminating),
            serving,
            terminating,
            hostname: hostname(pod, service),
        }
    };
    pods.iter().filter(counts).map(backend).collect()
}

/// A pod that names this Service as its subdomain is known by its own name in it.
fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let named = spec.subdomain.is_some() && spec.subdomain == service.metadata.name;
    spec.hostname.clone().filter(|name| named && !name.is_empty())
}

/// A port as endpoints have it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    pub name: String,
    pub port: i32,
    pub protocol: String,
    pub app_protocol: Option<String>,
}

impl Port {
    /// As EndpointSlices write it.
    pub fn to_json(&self) -> Value {
        let mut port = json!({ "name": self.name, "port": self.port, "protocol": self.protocol });
        if let Some(app_protocol) = &self.app_protocol {
            port["appProtocol"] = json!(app_protocol);
        }
        port
    }
}

/// The ports at which a pod answers for a Service; a port named by a target that the pod lacks is left out.
pub fn ports(spec: &ServiceSpec, pod: &Pod) -> Vec<Port> {
    let mut ports: Vec<_> = spec.ports.iter().flatten().filter_map(|port| target(port, pod)).collect();
    ports.sort();
    ports
}

fn target(service_port: &ServicePort, pod: &Pod) -> Option<Port> {
    let protocol = service_port.protocol.clone().unwrap_or_else(|| "TCP".into());
    let port = match &service_port.target_port {
        None | Some(IntOrString::Int(0)) => service_port.port,
        Some(IntOrString::Int(port)) => *port,
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars = spec
                .init_containers
                .iter()
                .flatten()
                .filter(|init| init.restart_policy.as_deref() == Some("Always"));
            let mut declared =
                spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
            let same = |declared: &&k8s_openapi::api::core::v1::ContainerPort| {
                declared.name.as_ref() == Some(name)
                    && declared.protocol.as_deref().unwrap_or("TCP") == protocol
            };
            declared.find(same)?.container_port
        }
    };
    Some(Port {
        name: service_port.name.clone().unwrap_or_default(),
        port,
        protocol,
        app_protocol: service_port.app_protocol.clone(),
    })
}

/// A reference to a pod as endpoints write it.
pub fn target_ref(pod: &Pod) -> Value {
    json!({ "kind": "Pod", "name": pod.metadata.name, "namespace": pod.metadata.namespace, "uid": pod.metadata.uid })
}

#[cfg(test)]
mod tests;
