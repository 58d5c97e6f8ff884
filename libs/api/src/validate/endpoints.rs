//! Endpoints and EndpointSlice.

use super::meta;
use super::node::{Faults, Node, Seen};
use super::service::{PROTOCOLS, not_special};
use crate::labels;
use serde_json::json;

const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_SLICE_PORTS: usize = 20_000;
const MAX_TOPOLOGY: usize = 16;
const MAX_ZONES: usize = 8;

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
                let node = address.get("nodeName");
                if node.is_set() {
                    node.text_must(labels::is_dns1123_subdomain, out);
                }
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
            port.get("protocol").must_be_one_of(&PROTOCOLS, out);
            application(&port.get("appProtocol"), out);
        }
    }
}

fn application(protocol: &Node<'_, '_>, out: &mut Faults) {
    if protocol.is_set() {
        protocol.text_must(labels::is_qualified_name, out);
    }
}

pub(super) fn endpoints_update(new: &Node<'_, '_>, _: &Node<'_, '_>, _: &str, out: &mut Faults) {
    endpoints(new, out);
}

pub(super) fn slice(object: &Node<'_, '_>, out: &mut Faults) {
    let kind = object.get("addressType");
    kind.required_one_of(&["FQDN", "IPv4", "IPv6"], out);
    endpoints_of_slice(&object.get("endpoints"), kind.text(), out);
    slice_ports(&object.get("ports"), out);
}

fn endpoints_of_slice(endpoints: &Node<'_, '_>, kind: &str, out: &mut Faults) {
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
            slice_address(&addresses, &address, kind, out);
        }
        let (node, host) = (endpoint.get("nodeName"), endpoint.get("hostname"));
        if node.is_set() {
            node.text_must(labels::is_dns1123_subdomain, out);
        }
        let topology = endpoint.get("deprecatedTopology");
        if topology.len() > MAX_TOPOLOGY {
            topology.too_many(MAX_TOPOLOGY, out);
        }
        meta::labels(&topology, out);
        if host.is_set() {
            host.text_must(labels::is_dns1123_label, out);
        }
        zones(&endpoint.get("hints.forZones"), out);
    }
}

fn zones(zones: &Node<'_, '_>, out: &mut Faults) {
    if zones.len() > MAX_ZONES {
        return zones.too_many(MAX_ZONES, out);
    }
    let mut seen = Seen::new();
    for zone in zones.items() {
        let name = zone.get("name");
        if seen.contains(&name.text()) {
            name.duplicate(out);
        }
        seen.insert(name.text());
        name.text_must(labels::is_valid_label_value, out);
    }
}

fn slice_address(addresses: &Node<'_, '_>, address: &Node<'_, '_>, kind: &str, out: &mut Faults) {
    match kind {
        "IPv4" | "IPv6" => {
            let check = if kind == "IPv4" { labels::is_valid_ip } else { labels::is_canonical_ip };
            let before = out.len();
            address.text_must(check, out);
            if out.len() > before {
                return;
            }
            let fits = labels::lenient_ip(address.text()).is_some_and(|ip| ip.is_ipv4() == (kind == "IPv4"));
            if !fits {
                // The family is told of the list.
                addresses.invalid_as(&json!(address.text()), format!("must be an {kind} address"), out);
            }
            not_special(address, out);
        }
        "FQDN" => address.domain_name(out),
        _ => {}
    }
}

fn slice_ports(ports: &Node<'_, '_>, out: &mut Faults) {
    if ports.len() > MAX_SLICE_PORTS {
        return ports.too_many(MAX_SLICE_PORTS, out);
    }
    let mut seen = Seen::new();
    for port in ports.items() {
        let name = port.get("name");
        name.text_may(labels::is_dns1123_label, out);
        if seen.contains(&name.text()) {
            name.duplicate_as(&json!(name.text()), out);
        }
        seen.insert(name.text());
        let protocol = port.get("protocol");
        // An empty one is given, and is none.
        match protocol.value.as_str() {
            Some("") => protocol.must_be_one_of(&PROTOCOLS, out),
            _ => protocol.required_one_of(&PROTOCOLS, out),
        }
        application(&port.get("appProtocol"), out);
    }
}

pub(super) fn slice_update(new: &Node<'_, '_>, old: &Node<'_, '_>, _: &str, out: &mut Faults) {
    let (kind, ports) = (new.get("addressType"), new.get("ports"));
    kind.required_one_of(&["FQDN", "IPv4", "IPv6"], out);
    // What stays as it was is not judged again.
    if new.get("endpoints").value != old.get("endpoints").value {
        endpoints_of_slice(&new.get("endpoints"), kind.text(), out);
    }
    slice_ports(&ports, out);
    new.get("addressType").same_as(&old.get("addressType"), out);
}
