//! Service: how it is reached, from inside and from outside.

use super::node::{Faults, Node, Seen, addresses_by_family};
use super::pod::probe;
use crate::labels;
use serde_json::json;
use std::collections::HashSet;
use std::net::IpAddr;

pub(super) const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const ONLY_BALANCED: &str = "may only be used when `type` is 'LoadBalancer'";
const MAX_AFFINITY_SECONDS: i64 = 86_400;
const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const MODE: &str = "service.kubernetes.io/topology-mode";
const RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

fn is_headless(spec: &Node<'_, '_>) -> bool {
    let ips = spec.get("clusterIPs");
    ips.len() == 1 && ips.items().all(|ip| ip.text() == "None")
}

fn is_balanced(spec: &Node<'_, '_>) -> bool {
    spec.get("type").text() == "LoadBalancer"
}

pub(super) fn create(service: &Node<'_, '_>, out: &mut Faults) {
    let (spec, notes) = (service.get("spec"), service.get("metadata.annotations"));
    let (hints, mode) = (notes.key(HINTS), notes.key(MODE));
    if hints.is_set() && mode.is_set() && hints.value != mode.value {
        mode.invalid(format!("must match annotations[{HINTS}] when both are specified"), out);
    }
    let kind = spec.get("type");
    let ports = spec.get("ports");
    if ports.is_empty() && !is_headless(&spec) && kind.text() != "ExternalName" {
        ports.required("", out);
    }
    type_rules(&spec, out);
    let single = ports.len() == 1;
    let mut seen = Seen::new();
    for port in ports.items() {
        service_port(&port, single, &mut seen, out);
    }
    super::meta::labels(&spec.get("selector"), out);
    affinity(&spec, out);
    cluster_ips(&spec, out);
    for ip in spec.get("externalIPs").items() {
        let before = out.len();
        ip.text_must(labels::is_valid_ip, out);
        if out.len() == before {
            not_special(&ip, out);
        }
    }
    kind.required_one_of(&TYPES, out);
    port_clashes(&ports, kind.text(), out);
    source_ranges(&spec, &notes.key(RANGES), out);
    balanced(&spec, out);
    traffic(&spec, out);
}

fn type_rules(spec: &Node<'_, '_>, out: &mut Faults) {
    match spec.get("type").text() {
        kind @ ("LoadBalancer" | "NodePort") if is_headless(spec) => {
            let ips = spec.get("clusterIPs");
            let told = format!("may not be set to 'None' for {kind} services");
            ips.items().take(1).for_each(|ip| ip.invalid(told.as_str(), out));
        }
        "ExternalName" => {
            let (ips, families, policy) =
                (spec.get("clusterIPs"), spec.get("ipFamilies"), spec.get("ipFamilyPolicy"));
            for field in [&ips, &families, &policy] {
                if !field.is_empty() {
                    field.forbidden("may not be set for ExternalName services", out);
                }
            }
            let name = spec.get("externalName");
            match name.text().strip_suffix('.').unwrap_or(name.text()) {
                "" => name.required("", out),
                host => name.named("", &json!(host)).text_must(labels::is_dns1123_subdomain, out),
            }
        }
        _ => {}
    }
}

fn service_port<'v>(port: &Node<'v, '_>, single: bool, seen: &mut Seen<'v>, out: &mut Faults) {
    let name = port.get("name");
    match name.text() {
        "" if !single => name.required("", out),
        "" => {}
        text => {
            name.text_must(labels::is_dns1123_label, out);
            if seen.contains(&text) {
                name.duplicate(out);
            }
            seen.insert(text);
        }
    }
    port.get("port").port(out);
    port.get("protocol").required_one_of(&PROTOCOLS, out);
    probe::port_or_name(&port.get("targetPort"), out);
    let application = port.get("appProtocol");
    if application.is_set() {
        application.text_must(labels::is_qualified_name, out);
    }
}

fn affinity(spec: &Node<'_, '_>, out: &mut Faults) {
    let kind = spec.get("sessionAffinity");
    kind.required_one_of(&["ClientIP", "None"], out);
    let config = spec.get("sessionAffinityConfig");
    match kind.text() {
        "ClientIP" => {
            let (client, timeout) = (config.get("clientIP"), config.get("clientIP.timeoutSeconds"));
            if let Some(absent) = [&config, &client, &timeout].into_iter().find(|field| !field.is_set()) {
                absent.required("when session affinity type is ClientIP", out);
            } else if !(1..=MAX_AFFINITY_SECONDS).contains(&timeout.int()) {
                timeout.invalid(format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}"), out);
            }
        }
        "None" if config.is_set() => config.forbidden("must not be set when session affinity is None", out),
        _ => {}
    }
}

/// What is judged before addresses are allotted, and alone where it is wrong.
pub(super) fn cluster_ips(spec: &Node<'_, '_>, out: &mut Faults) {
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
    let before = out.len();
    for (i, ip) in ips.items().enumerate() {
        if i == 0 && ip.text() == "None" {
            if ips.len() > 1 {
                ips.invalid("'None' must be the first and only value", out);
            }
        } else {
            ip.text_must(labels::is_valid_ip, out);
        }
    }
    let odd = out.len() > before;
    if ips.len() > 2 {
        ips.invalid("may only hold up to 2 values", out);
    }
    // What is not even an address says nothing of families.
    if odd || is_headless(spec) {
        return;
    }
    let all: Vec<&str> = ips.items().map(|ip| ip.text()).collect();
    if all.len() > 1 && !addresses_by_family(&all) {
        ips.invalid("may specify no more than one IP for each IP family", out);
    }
    for (i, (ip, family)) in ips.items().zip(spec.get("ipFamilies").items()).enumerate() {
        let six = ip.text().contains(':');
        if matches!((family.text(), six), ("IPv4", true) | ("IPv6", false)) {
            ip.invalid(format!("expected an {} value as indicated by `ipFamilies[{i}]`", family.text()), out);
        }
    }
}

fn families(spec: &Node<'_, '_>, out: &mut Faults) {
    let families = spec.get("ipFamilies");
    let mut seen = Seen::new();
    for family in families.items() {
        family.must_be_one_of(&["IPv4", "IPv6"], out);
        if seen.contains(&family.text()) {
            family.duplicate(out);
        }
        seen.insert(family.text());
    }
    spec.get("ipFamilyPolicy").if_set_one_of(&["PreferDualStack", "RequireDualStack", "SingleStack"], out);
}

/// Addresses that never lead to another host.
pub(super) fn not_special(ip: &Node<'_, '_>, out: &mut Faults) {
    let Some(address) = labels::lenient_ip(ip.text()) else {
        return ip.invalid_as(&json!(ip.text()), "must be a valid IP address", out);
    };
    if address.is_unspecified() {
        ip.invalid(format!("may not be unspecified ({})", ip.text()), out);
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

/// Each of the three is looked for in all ports before the next.
fn port_clashes(ports: &Node<'_, '_>, kind: &str, out: &mut Faults) {
    for port in ports.items().filter(|_| kind == "ClusterIP") {
        if port.get("nodePort").int() != 0 {
            port.get("nodePort").forbidden("may not be used when `type` is 'ClusterIP'", out);
        }
    }
    let (mut node_ports, mut numbers) = (HashSet::new(), HashSet::new());
    for port in ports.items() {
        let node = port.get("nodePort");
        let key = (port.get("protocol").text(), node.int());
        if node.int() != 0 && node_ports.contains(&key) {
            node.duplicate(out);
        }
        node_ports.insert(key);
    }
    for port in ports.items() {
        let key = (port.get("protocol").text(), port.get("port").int());
        if numbers.contains(&key) {
            let shown = json!({"protocol": key.0, "port": key.1});
            port.duplicate_shown(super::shapes::compact(&shown, "ServicePort"), out);
        }
        numbers.insert(key);
    }
}

/// Who may come through the load balancer: a field, or the annotation it once was.
fn source_ranges(spec: &Node<'_, '_>, note: &Node<'_, '_>, out: &mut Faults) {
    let ranges = spec.get("loadBalancerSourceRanges");
    let told = spec.named("LoadBalancerSourceRanges", ranges.value);
    let range = |place: &Node<'_, '_>, text: &str, out: &mut Faults| {
        place.named("", &json!(text.trim())).text_must(labels::is_valid_cidr, out);
    };
    if !ranges.is_empty() {
        if !is_balanced(spec) {
            told.forbidden(ONLY_BALANCED, out);
        }
        told.items().for_each(|item| range(&item, item.text(), out));
    } else if note.is_set() {
        if !is_balanced(spec) {
            note.forbidden(ONLY_BALANCED, out);
        }
        let texts = note.text().trim();
        texts.split(',').filter(|_| !texts.is_empty()).for_each(|text| range(note, text, out));
    }
}

fn balanced(spec: &Node<'_, '_>, out: &mut Faults) {
    let (ports, class) = (spec.get("allocateLoadBalancerNodePorts"), spec.get("loadBalancerClass"));
    if is_balanced(spec) {
        if !ports.is_set() {
            // Kubernetes leaves out that it is of the spec.
            Node::root(ports.value).get("allocateLoadBalancerNodePorts").required("", out);
        }
        if class.is_set() {
            class.text_must(labels::is_qualified_name, out);
        }
        return;
    }
    for field in [&ports, &class] {
        if field.is_set() {
            field.forbidden(ONLY_BALANCED, out);
        }
    }
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
    if internal.is_set() {
        internal.must_be_one_of(&["Cluster", "Local"], out);
    } else if matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer") {
        internal.required("", out);
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
        if !(is_headless(&spec) && is_headless(&stored)) {
            addresses_kept(&spec, &stored, out);
        }
        if !is_headless(&spec) && !is_headless(&stored) {
            families_kept(&spec, &stored, out);
        }
    }
    let (class, before) = (spec.get("loadBalancerClass"), stored.get("loadBalancerClass"));
    if is_balanced(&spec) && is_balanced(&stored) && class.value != before.value {
        class.invalid_or_null("may not change once set", out);
    }
    if is_balanced(&spec) && class.is_set() {
        class.text_must(labels::is_qualified_name, out);
    } else if class.is_set() {
        class.forbidden(ONLY_BALANCED, out);
    }
    let needs_health =
        |spec: &Node<'_, '_>| is_balanced(spec) && spec.get("externalTrafficPolicy").text() == "Local";
    let (health, before) = (spec.get("healthCheckNodePort"), stored.get("healthCheckNodePort"));
    if needs_health(&spec) && needs_health(&stored) && health.int() != before.int() {
        health.forbidden("field is immutable", out);
    }
    create(new, out);
}

const ONCE: &str = "may not change once set";

fn told_released(spec: &Node<'_, '_>, what: &str, out: &mut Faults) {
    let policy = spec.get("ipFamilyPolicy");
    if policy.text() != "SingleStack" {
        let detail = format!("must be set to 'SingleStack' when releasing the secondary {what}");
        policy.invalid_or_null(detail, out);
    }
}

/// The first address stays for the life of the service; the second may come and go.
fn addresses_kept(spec: &Node<'_, '_>, stored: &Node<'_, '_>, out: &mut Faults) {
    let (list, old) = (spec.get("clusterIPs"), stored.get("clusterIPs"));
    let told = |at: usize, detail: &str, out: &mut Faults| {
        let place = format!("[{at}]");
        list.at(&place).invalid_as(list.value, detail, out);
    };
    if list.len() == old.len() {
        for (i, (ip, before)) in list.items().zip(old.items()).enumerate() {
            if ip.text() != before.text() {
                told(i, ONCE, out);
            }
        }
        return;
    }
    let released = list.len() < old.len();
    if released && list.is_empty() {
        told(0, "primary clusterIP can not be unset", out);
    }
    if let (Some(first), Some(before)) = (list.items().next(), old.items().next())
        && first.text() != before.text()
    {
        told(0, ONCE, out);
    }
    if released && list.len() == 1 {
        told_released(spec, "clusterIP", out);
    }
}

/// So does the first family. Kubernetes tells addresses where families grow or shrink.
fn families_kept(spec: &Node<'_, '_>, stored: &Node<'_, '_>, out: &mut Faults) {
    let (list, old) = (spec.get("ipFamilies"), stored.get("ipFamilies"));
    let first = list.at("[0]");
    if list.len() == old.len() {
        for (family, before) in list.items().zip(old.items()) {
            if family.text() != before.text() {
                first.invalid_as(list.value, ONCE, out);
            }
        }
        return;
    }
    let released = list.len() < old.len();
    if released && spec.get("clusterIPs").is_empty() {
        first.invalid_as(list.value, "primary ipFamily can not be unset", out);
    }
    if let (Some(family), Some(before)) = (list.items().next(), old.items().next())
        && family.text() != before.text()
    {
        first.invalid_as(spec.get("clusterIPs").value, ONCE, out);
    }
    if released && list.len() == 1 {
        told_released(spec, "ipFamily", out);
    }
}

fn balancer_status(service: &Node<'_, '_>, out: &mut Faults) {
    let ingress = service.get("status.loadBalancer.ingress");
    if !ingress.is_empty() && !is_balanced(&service.get("spec")) {
        return ingress.forbidden("may only be used when `spec.type` is 'LoadBalancer'", out);
    }
    for point in ingress.items() {
        let (ip, mode) = (point.get("ip"), point.get("ipMode"));
        ip.text_may(labels::is_valid_ip, out);
        match (ip.is_empty(), mode.is_set()) {
            (false, false) => mode.required("must be specified when `ip` is set", out),
            (true, true) => mode.forbidden("may not be specified when `ip` is not set", out),
            (false, true) => mode.must_be_one_of(&["Proxy", "VIP"], out),
            (true, false) => {}
        }
        host_name(&point.get("hostname"), out);
    }
}

/// The name that a load balancer goes by.
pub(super) fn host_name(host: &Node<'_, '_>, out: &mut Faults) {
    host.text_may(labels::is_dns1123_subdomain, out);
    if host.text().parse::<IpAddr>().is_ok() {
        host.invalid("must be a DNS name, not an IP address", out);
    }
}
