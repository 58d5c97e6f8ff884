//! Services and EndpointSlices in, a ruleset out. Pure.

use crate::ruleset::{Endpoint, Front, Protocol, Ruleset, Target};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// The label by which a slice names its Service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// Kubernetes' default for `sessionAffinityConfig.clientIP.timeoutSeconds`.
const AFFINITY_SECONDS: i32 = 10_800;

type SlicesByService<'a> = BTreeMap<(&'a str, &'a str), Vec<&'a EndpointSlice>>;

/// One endpoint of a Service port, as far as routing goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    endpoint: Endpoint,
    local: bool,
    ready: bool,
    serving_while_terminating: bool,
}

/// The rules of node `node`.
#[must_use]
pub fn compile<S: Borrow<Service>, E: Borrow<EndpointSlice>>(
    services: &[S],
    slices: &[E],
    node: &str,
) -> Ruleset {
    let mut by_service = SlicesByService::new();
    for slice in slices.iter().map(Borrow::borrow).filter(|slice| slice.address_type == "IPv4") {
        let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
        let name = slice
            .metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(SERVICE_LABEL))
            .map_or("", String::as_str);
        by_service.entry((namespace, name)).or_default().push(slice);
    }
    let mut rules = Ruleset::default();
    for service in services.iter().map(Borrow::borrow) {
        let key = (
            service.metadata.namespace.as_deref().unwrap_or_default(),
            service.metadata.name.as_deref().unwrap_or_default(),
        );
        let slices = by_service.get(&key).map_or(&[][..], Vec::as_slice);
        if let Some(spec) = service.spec.as_ref().filter(|spec| is_proxied(spec)) {
            rules.clusters.extend(internal_addresses(spec));
            for port in spec.ports.iter().flatten() {
                add_port(&mut rules, service, spec, port, slices, node);
            }
        }
    }
    rules
}

/// Headless Services and ExternalName have nothing to route.
fn is_proxied(spec: &ServiceSpec) -> bool {
    spec.type_.as_deref() != Some("ExternalName")
        && spec.cluster_ip.as_deref().is_some_and(|ip| !ip.is_empty() && ip != "None")
}

fn add_port(
    rules: &mut Ruleset,
    service: &Service,
    spec: &ServiceSpec,
    port: &ServicePort,
    slices: &[&EndpointSlice],
    node: &str,
) {
    let (Some(protocol), Ok(number)) = (Protocol::parse(port.protocol.as_deref()), u16::try_from(port.port))
    else {
        return;
    };
    let candidates = candidates(slices, port.name.as_deref().unwrap_or_default(), protocol, node);
    let publish_not_ready = spec.publish_not_ready_addresses == Some(true);
    let everywhere = usable(&candidates, false, publish_not_ready);
    let here = usable(&candidates, true, publish_not_ready);
    rules.hairpins.extend(here.iter().map(|endpoint| endpoint.0));
    let affinity_seconds = affinity(spec);

    let internal_local = spec.internal_traffic_policy.as_deref() == Some("Local");
    let external_local = spec.external_traffic_policy.as_deref() == Some("Local");
    for address in internal_addresses(spec) {
        let chosen = if internal_local { &here } else { &everywhere };
        add_front(
            rules,
            Front::Address(address, protocol, number),
            chosen,
            internal_local && !everywhere.is_empty(),
            affinity_seconds,
        );
    }
    let chosen = if external_local { &here } else { &everywhere };
    let drop_when_empty = external_local && !everywhere.is_empty();
    let mut outside: Vec<Front> = external_addresses(service, spec)
        .into_iter()
        .map(|address| Front::Address(address, protocol, number))
        .collect();
    let node_port = port.node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
    outside.extend(node_port.map(|port| Front::NodePort(protocol, port)));
    for front in outside {
        if external_local {
            rules.preserving.insert(front);
        }
        add_front(rules, front, chosen, drop_when_empty, affinity_seconds);
    }
}

fn add_front(
    rules: &mut Ruleset,
    front: Front,
    endpoints: &BTreeSet<Endpoint>,
    drop_when_empty: bool,
    affinity_seconds: u32,
) {
    if endpoints.is_empty() && drop_when_empty {
        rules.dropped.insert(front);
        return;
    }
    rules.services.insert(front, Target { endpoints: endpoints.len(), affinity_seconds });
    for (number, endpoint) in endpoints.iter().enumerate() {
        rules.endpoints.insert((front, number), *endpoint);
    }
}

fn affinity(spec: &ServiceSpec) -> u32 {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return 0;
    }
    let seconds = spec
        .session_affinity_config
        .as_ref()
        .and_then(|config| config.client_ip.as_ref())
        .and_then(|client| client.timeout_seconds)
        .unwrap_or(AFFINITY_SECONDS);
    u32::try_from(seconds).unwrap_or(0)
}

fn internal_addresses(spec: &ServiceSpec) -> BTreeSet<Ipv4Addr> {
    spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip).filter_map(|ip| ip.parse().ok()).collect()
}

fn external_addresses(service: &Service, spec: &ServiceSpec) -> BTreeSet<Ipv4Addr> {
    let ingress = service
        .status
        .iter()
        .filter_map(|status| status.load_balancer.as_ref())
        .filter_map(|balancer| balancer.ingress.as_ref())
        .flatten()
        .filter_map(|point| point.ip.as_ref());
    spec.external_ips.iter().flatten().chain(ingress).filter_map(|ip| ip.parse().ok()).collect()
}

fn candidates(slices: &[&EndpointSlice], port_name: &str, protocol: Protocol, node: &str) -> Vec<Candidate> {
    let mut found = Vec::new();
    for slice in slices {
        let ports = slice.ports.iter().flatten().filter(|port| {
            port.name.as_deref().unwrap_or_default() == port_name
                && Protocol::parse(port.protocol.as_deref()) == Some(protocol)
        });
        for number in ports.filter_map(|port| port.port).filter_map(|port| u16::try_from(port).ok()) {
            for endpoint in &slice.endpoints {
                let Some(address) = endpoint.addresses.first().and_then(|address| address.parse().ok())
                else {
                    continue;
                };
                let conditions = endpoint.conditions.as_ref();
                let serving = conditions.and_then(|conditions| conditions.serving);
                let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
                let terminating = conditions.and_then(|conditions| conditions.terminating).unwrap_or(false);
                found.push(Candidate {
                    endpoint: (address, number),
                    local: endpoint.node_name.as_deref() == Some(node),
                    ready,
                    serving_while_terminating: terminating && serving.unwrap_or(ready),
                });
            }
        }
    }
    found
}

/// Ready endpoints; where there are none, those that still serve while they terminate (KEP-1669).
fn usable(candidates: &[Candidate], local_only: bool, publish_not_ready: bool) -> BTreeSet<Endpoint> {
    let pick = |wanted: &dyn Fn(&Candidate) -> bool| {
        candidates
            .iter()
            .filter(|candidate| (!local_only || candidate.local) && wanted(candidate))
            .map(|candidate| candidate.endpoint)
            .collect::<BTreeSet<_>>()
    };
    let ready = pick(&|candidate| candidate.ready || publish_not_ready);
    if ready.is_empty() { pick(&|candidate| candidate.serving_while_terminating) } else { ready }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[expect(clippy::needless_pass_by_value, reason = "tests read better with json! in place")]
    fn service(spec: Value) -> Service {
        serde_json::from_value(json!({"metadata": {"namespace": "d", "name": "web"}, "spec": spec}))
            .expect("a Service")
    }

    #[expect(clippy::needless_pass_by_value, reason = "tests read better with json! in place")]
    fn slice(endpoints: Value) -> EndpointSlice {
        let meta = json!({"namespace": "d", "name": "web-1", "labels": {SERVICE_LABEL: "web"}});
        serde_json::from_value(json!({"metadata": meta, "addressType": "IPv4", "ports": [{"name": "", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints})).expect("a slice")
    }

    const FRONT: Front = Front::Address(Ipv4Addr::new(10, 96, 0, 5), Protocol::Tcp, 80);

    fn spec() -> Value {
        json!({"clusterIP": "10.96.0.5", "ports": [{"port": 80}]})
    }

    #[test]
    fn ready_endpoints_are_numbered_from_zero() {
        let rules = compile(
            &[service(spec())],
            &[slice(
                json!([{"addresses": ["10.244.0.9"], "conditions": {"ready": false}}, {"addresses": ["10.244.0.3"]}, {"addresses": ["10.244.0.2"]}]),
            )],
            "n",
        );
        assert_eq!(rules.services[&FRONT].endpoints, 2);
        assert_eq!(rules.endpoints[&(FRONT, 0)], (Ipv4Addr::new(10, 244, 0, 2), 8080));
        assert_eq!(rules.clusters, BTreeSet::from([Ipv4Addr::new(10, 96, 0, 5)]));
    }

    #[test]
    fn a_service_without_endpoints_is_refused_and_a_headless_one_ignored() {
        assert_eq!(compile::<_, EndpointSlice>(&[service(spec())], &[], "n").services[&FRONT].endpoints, 0);
        let headless = service(json!({"clusterIP": "None", "ports": [{"port": 80}]}));
        assert_eq!(compile::<_, EndpointSlice>(&[headless], &[], "n"), Ruleset::default());
    }

    #[test]
    fn local_policy_drops_where_only_other_nodes_have_endpoints() {
        let mut spec = spec();
        spec["externalTrafficPolicy"] = json!("Local");
        spec["type"] = json!("NodePort");
        spec["ports"][0]["nodePort"] = json!(30080);
        let rules = compile(
            &[service(spec)],
            &[slice(json!([{"addresses": ["10.244.1.2"], "nodeName": "other"}]))],
            "n",
        );
        let node_port = Front::NodePort(Protocol::Tcp, 30080);
        assert!(rules.dropped.contains(&node_port) && rules.preserving.contains(&node_port));
        assert_eq!(rules.services[&FRONT].endpoints, 1);
    }

    #[test]
    fn a_terminating_endpoint_serves_until_another_is_ready() {
        let leaving = json!({"addresses": ["10.244.0.2"], "conditions": {"ready": false, "serving": true, "terminating": true}});
        let rules = compile(&[service(spec())], &[slice(json!([leaving]))], "n");
        assert_eq!(rules.services[&FRONT].endpoints, 1);
        let rules =
            compile(&[service(spec())], &[slice(json!([leaving, {"addresses": ["10.244.0.3"]}]))], "n");
        assert_eq!(rules.endpoints[&(FRONT, 0)].0, Ipv4Addr::new(10, 244, 0, 3));
    }
}
