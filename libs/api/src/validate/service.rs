//! Service, Endpoints and EndpointSlice.

use super::node::{Faults, Node};
use crate::labels;
use serde_json::{Value, json};
use std::net::IpAddr;

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const ONLY_BALANCED: &str = "may only be used when `type` is 'LoadBalancer'";
const MAX_AFFINITY_SECONDS: i64 = 86_400;
const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_SLICE_PORTS: usize = 20_000;

pub(super) fn create(service: &Node<'_, '_>, out: &mut Faults) {
    let spec = service.get("spec");
    let kind = spec.get("type");
    let headless = spec.get("clusterIP").text() == "None";
    let ports = spec.get("ports");
    if ports.is_empty() && !headless && kind.text() != "ExternalName" {
        ports.required("", out);
    }
    type_rules(&spec, out);
    let single = ports.len() == 1;
    let mut seen: Vec<&str> = Vec::new();
    for port in ports.items() {
        service_port(&port, single, &mut seen, out);
    }
    if spec.get("selector").is_set() {
        super::meta::labels(&spec.get("selector"), out);
    }
    affinity(&spec, out);
    cluster_ips(&spec, out);
    spec.get("externalIPs").items().for_each(|ip| {
        ip.text_must(labels::is_valid_ip, out);
        not_special(&ip, out);
    });
    kind.required_one_of(&TYPES, out);
    port_clashes(&ports, kind.text(), out);
    only_balanced(&spec, out);
    traffic(&spec, out);
}

fn type_rules(spec: &Node<'_, '_>, out: &mut Faults) {
    let ips = spec.get("clusterIPs");
    match spec.get("type").text() {
        kind @ ("LoadBalancer" | "NodePort") if spec.get("clusterIP").text() == "None" => {
            ips.items()
                .take(1)
                .for_each(|ip| ip.invalid(format!("may not be set to 'None' for {kind} services"), out));
        }
        "ExternalName" => {
            for key in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if !spec.get(key).is_empty() {
                    spec.get(key).forbidden("may not be set for ExternalName services", out);
                }
            }
            let name = spec.get("externalName");
            match name.text().strip_suffix('.').unwrap_or(name.text()) {
                "" => name.required("", out),
                host => name.text_must(|_| labels::is_dns1123_subdomain(host), out),
            }
        }
        _ => {}
    }
}

fn service_port<'v>(port: &Node<'v, '_>, single: bool, seen: &mut Vec<&'v str>, out: &mut Faults) {
    let name = port.get("name");
    match name.text() {
        "" if !single => name.required("", out),
        "" => {}
        text => {
            name.text_must(labels::is_dns1123_label, out);
            if seen.contains(&text) {
                name.duplicate(out);
            }
            seen.push(text);
        }
    }
    port.get("port").port(out);
    port.get("protocol").required_one_of(&PROTOCOLS, out);
    let target = port.get("targetPort");
    match target.value {
        Value::String(_) => target.text_must(labels::is_valid_port_name, out),
        _ => target.port(out),
    }
    port.get("appProtocol").text_may(labels::is_qualified_name, out);
}

fn affinity(spec: &Node<'_, '_>, out: &mut Faults) {
    let kind = spec.get("sessionAffinity");
    kind.required_one_of(&["ClientIP", "None"], out);
    let config = spec.get("sessionAffinityConfig");
    match kind.text() {
        "ClientIP" => {
            let timeout = config.get("clientIP.timeoutSeconds");
            if !timeout.is_set() {
                timeout.required("when session affinity type is ClientIP", out);
            } else if !(1..=MAX_AFFINITY_SECONDS).contains(&timeout.int()) {
                timeout.invalid(format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}"), out);
            }
        }
        "None" if config.is_set() => config.forbidden("must not be set when session affinity is None", out),
        _ => {}
    }
}

fn cluster_ips(spec: &Node<'_, '_>, out: &mut Faults) {
    if spec.get("type").text() == "ExternalName" {
        return;
    }
    let (ip, ips) = (spec.get("clusterIP"), spec.get("clusterIPs"));
    match (ip.text(), ips.items().next()) {
        ("", Some(_)) => ips.invalid("must be empty when `clusterIP` is not specified", out),
        (text, None) if !text.is_empty() => ips.required("", out),
        (text, Some(first)) if first.text() != text => ips.invalid("first value must match `clusterIP`", out),
        _ => {}
    }
    families(spec, out);
    for ip in ips.items() {
        if ip.text() == "None" {
            if ips.len() > 1 {
                ips.invalid("'None' must be the first and only value", out);
            }
        } else {
            ip.text_must(labels::is_valid_ip, out);
        }
    }
    if ips.len() > 2 {
        ips.invalid("may only hold up to 2 values", out);
    }
    let four = |ip: &Node<'_, '_>| ip.text().parse::<IpAddr>().ok().map(|ip| ip.is_ipv4());
    if ips.len() == 2 {
        let families: Vec<Option<bool>> = ips.items().map(|ip| four(&ip)).collect();
        if families[0].is_some() && families[0] == families[1] {
            ips.invalid("may specify no more than one IP for each IP family", out);
        }
    }
    let wanted = spec.get("ipFamilies");
    for (i, (ip, family)) in ips.items().zip(wanted.items()).enumerate() {
        let matches = match family.text() {
            "IPv4" => four(&ip) != Some(false),
            "IPv6" => four(&ip) != Some(true),
            _ => true,
        };
        if !matches {
            ip.invalid(format!("expected an {} value as indicated by `ipFamilies[{i}]`", family.text()), out);
        }
    }
}

fn families(spec: &Node<'_, '_>, out: &mut Faults) {
    let families = spec.get("ipFamilies");
    let mut seen: Vec<&str> = Vec::new();
    for family in families.items() {
        family.must_be_one_of(&["IPv4", "IPv6"], out);
        if seen.contains(&family.text()) {
            family.duplicate(out);
        }
        seen.push(family.text());
    }
    spec.get("ipFamilyPolicy").may_be_one_of(&["SingleStack", "PreferDualStack", "RequireDualStack"], out);
}

/// Addresses that never lead to another host.
fn not_special(ip: &Node<'_, '_>, out: &mut Faults) {
    let Ok(address) = ip.text().parse::<IpAddr>() else { return };
    if address.is_unspecified() {
        ip.invalid(format!("may not be unspecified ({address})"), out);
    }
    if address.is_loopback() {
        ip.invalid("may not be in the loopback range (127.0.0.0/8, ::1/128)", out);
    }
    let (link_local, multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] == 0xff02),
    };
    if link_local {
        ip.invalid("may not be in the link-local range (169.254.0.0/16, fe80::/10)", out);
    }
    if multicast {
        ip.invalid("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)", out);
    }
}

fn port_clashes(ports: &Node<'_, '_>, kind: &str, out: &mut Faults) {
    let (mut node_ports, mut numbers) = (Vec::new(), Vec::new());
    for port in ports.items() {
        let (protocol, node) = (port.get("protocol"), port.get("nodePort"));
        if node.int() != 0 {
            if kind == "ClusterIP" {
                node.forbidden("may not be used when `type` is 'ClusterIP'", out);
            }
            let key = (protocol.text(), node.int());
            if node_ports.contains(&key) {
                node.duplicate(out);
            }
            node_ports.push(key);
        }
        let key = (protocol.text(), port.get("port").int());
        if numbers.contains(&key) {
            port.duplicate_as(&json!({"protocol": key.0, "port": key.1}), out);
        }
        numbers.push(key);
    }
}

fn only_balanced(spec: &Node<'_, '_>, out: &mut Faults) {
    let ranges = spec.get("loadBalancerSourceRanges");
    let balanced = spec.get("type").text() == "LoadBalancer";
    if !balanced {
        for key in ["loadBalancerSourceRanges", "allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if !spec.get(key).is_empty() {
                spec.get(key).forbidden(ONLY_BALANCED, out);
            }
        }
        return;
    }
    for range in ranges.items() {
        let text = range.text().trim().to_owned();
        range.text_must(|_| labels::is_valid_cidr(&text), out);
    }
    if !spec.get("allocateLoadBalancerNodePorts").is_set() {
        spec.get("allocateLoadBalancerNodePorts").required("", out);
    }
    spec.get("loadBalancerClass").text_may(labels::is_qualified_name, out);
}

fn traffic(spec: &Node<'_, '_>, out: &mut Faults) {
    let (external, internal) = (spec.get("externalTrafficPolicy"), spec.get("internalTrafficPolicy"));
    let kind = spec.get("type").text();
    let reachable = matches!(kind, "NodePort" | "LoadBalancer")
        || (kind == "ClusterIP" && !spec.get("externalIPs").is_empty());
    if reachable {
        external.required_one_of(&["Cluster", "Local"], out);
    } else if !external.is_empty() {
        external.invalid("may only be set for externally-accessible services", out);
    }
    let health = spec.get("healthCheckNodePort");
    let wanted = kind == "LoadBalancer" && external.text() == "Local";
    if !wanted && health.int() != 0 {
        health.invalid(
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
            out,
        );
    } else if wanted && health.int() != 0 {
        health.port(out);
    }
    if matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer") {
        internal.required_one_of(&["Cluster", "Local"], out);
    }
    let distribution = spec.get("trafficDistribution");
    if distribution.is_set() {
        distribution.must_be_one_of(&["PreferClose"], out);
    }
}

pub(super) fn update(new: &Node<'_, '_>, old: &Node<'_, '_>, subresource: &str, out: &mut Faults) {
    if subresource == "status" {
        return balancer_status(new, out);
    }
    let (spec, stored) = (new.get("spec"), old.get("spec"));
    let external = |spec: &Node<'_, '_>| spec.get("type").text() == "ExternalName";
    if !external(&spec) && !external(&stored) {
        for key in ["clusterIPs", "ipFamilies"] {
            primary_kept(&spec.get(key), &stored.get(key), &spec, out);
        }
    }
    let (class, before) = (spec.get("loadBalancerClass"), stored.get("loadBalancerClass"));
    let balanced = |spec: &Node<'_, '_>| spec.get("type").text() == "LoadBalancer";
    if balanced(&spec) && balanced(&stored) && class.value != before.value {
        class.invalid("may not change once set", out);
    }
    let needs_health =
        |spec: &Node<'_, '_>| balanced(spec) && spec.get("externalTrafficPolicy").text() == "Local";
    let (health, before) = (spec.get("healthCheckNodePort"), stored.get("healthCheckNodePort"));
    if needs_health(&spec) && needs_health(&stored) && health.value != before.value {
        health.forbidden("field is immutable", out);
    }
    create(new, out);
}

/// The first address and family stay for the life of the service; the second may come and go.
fn primary_kept(list: &Node<'_, '_>, old: &Node<'_, '_>, spec: &Node<'_, '_>, out: &mut Faults) {
    let (first, before) = (list.items().next(), old.items().next());
    let Some(before) = before else { return };
    let what = if list.path().ends_with("clusterIPs") { "clusterIP" } else { "ipFamily" };
    match first {
        None => list.named("[0]", &Value::Null).invalid_as(
            list.value,
            format!("primary {what} can not be unset"),
            out,
        ),
        Some(first) if first.text() != before.text() => {
            first.invalid_as(list.value, "may not change once set", out);
        }
        Some(_) => {}
    }
    if old.len() == 2 && list.len() == 1 && spec.get("ipFamilyPolicy").text() != "SingleStack" {
        let policy = spec.get("ipFamilyPolicy");
        policy.invalid(format!("must be set to 'SingleStack' when releasing the secondary {what}"), out);
    }
}

fn balancer_status(service: &Node<'_, '_>, out: &mut Faults) {
    let ingress = service.get("status.loadBalancer.ingress");
    if !ingress.is_empty() && service.get("spec.type").text() != "LoadBalancer" {
        ingress.forbidden("may only be used when `spec.type` is 'LoadBalancer'", out);
    }
    for point in ingress.items() {
        let (ip, host, mode) = (point.get("ip"), point.get("hostname"), point.get("ipMode"));
        ip.text_may(labels::is_valid_ip, out);
        match (ip.is_empty(), mode.is_set()) {
            (false, false) => mode.required("must be specified when `ip` is set", out),
            (true, true) => mode.forbidden("may not be specified when `ip` is not set", out),
            (false, true) => mode.must_be_one_of(&["Proxy", "VIP"], out),
            (true, false) => {}
        }
        host.text_may(labels::is_dns1123_subdomain, out);
        if host.text().parse::<IpAddr>().is_ok() {
            host.invalid("must be a DNS name, not an IP address", out);
        }
    }
}

pub(super) fn endpoints(object: &Node<'_, '_>, out: &mut Faults) {
    for subset in object.get("subsets").items() {
        let lists = ["addresses", "notReadyAddresses"];
        if lists.iter().all(|list| subset.get(list).is_empty()) {
            subset.required("must specify `addresses` or `notReadyAddresses`", out);
        }
        for list in lists {
            for address in subset.get(list).items() {
                address.get("ip").text_must(labels::is_valid_ip, out);
                address.get("hostname").text_may(labels::is_dns1123_label, out);
                address.get("nodeName").text_may(labels::is_dns1123_subdomain, out);
                not_special(&address.get("ip"), out);
            }
        }
        let ports = subset.get("ports");
        for port in ports.items() {
            let name = port.get("name");
            match name.text() {
                "" if ports.len() > 1 => name.required("", out),
                _ => name.text_may(labels::is_dns1123_label, out),
            }
            port.get("port").port(out);
            port.get("protocol").required_one_of(&PROTOCOLS, out);
            port.get("appProtocol").text_may(labels::is_qualified_name, out);
        }
    }
}

pub(super) fn endpoints_update(new: &Node<'_, '_>, _: &Node<'_, '_>, _: &str, out: &mut Faults) {
    endpoints(new, out);
}

pub(super) fn slice(object: &Node<'_, '_>, out: &mut Faults) {
    let kind = object.get("addressType");
    kind.required_one_of(&["FQDN", "IPv4", "IPv6"], out);
    let endpoints = object.get("endpoints");
    if endpoints.len() > MAX_ENDPOINTS {
        return endpoints.too_many(MAX_ENDPOINTS, out);
    }
    for endpoint in endpoints.items() {
        let addresses = endpoint.get("addresses");
        match addresses.len() {
            0 => addresses.required("must contain at least 1 address", out),
            1..=MAX_ADDRESSES => {}
            _ => addresses.too_many(MAX_ADDRESSES, out),
        }
        for address in addresses.items() {
            slice_address(&address, kind.text(), out);
        }
        endpoint.get("nodeName").text_may(labels::is_dns1123_subdomain, out);
        endpoint.get("hostname").text_may(labels::is_dns1123_label, out);
    }
    slice_ports(&object.get("ports"), out);
}

fn slice_address(address: &Node<'_, '_>, kind: &str, out: &mut Faults) {
    let ip = address.text().parse::<IpAddr>().ok();
    match kind {
        "IPv4" | "IPv6" => {
            address.text_must(labels::is_valid_ip, out);
            if ip.is_some_and(|ip| ip.is_ipv4() != (kind == "IPv4")) {
                address.invalid(format!("must be an {kind} address"), out);
            }
            not_special(address, out);
        }
        "FQDN" => address.text_must(labels::is_dns1123_subdomain, out),
        _ => {}
    }
}

fn slice_ports(ports: &Node<'_, '_>, out: &mut Faults) {
    if ports.len() > MAX_SLICE_PORTS {
        return ports.too_many(MAX_SLICE_PORTS, out);
    }
    let mut seen: Vec<&str> = Vec::new();
    for port in ports.items() {
        let name = port.get("name");
        name.text_may(labels::is_dns1123_label, out);
        if seen.contains(&name.text()) {
            name.duplicate(out);
        }
        seen.push(name.text());
        port.get("protocol").required_one_of(&PROTOCOLS, out);
        port.get("appProtocol").text_may(labels::is_qualified_name, out);
    }
}

pub(super) fn slice_update(new: &Node<'_, '_>, old: &Node<'_, '_>, _: &str, out: &mut Faults) {
    slice(new, out);
    new.get("addressType").same_as(&old.get("addressType"), out);
}
