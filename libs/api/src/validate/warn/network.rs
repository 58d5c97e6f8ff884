//! Warnings of addresses, and of the kinds that are about them.

use super::warn;
use crate::labels::lenient_ip;
use crate::status::go_quoted;
use crate::validate::node::Node;
use std::net::IpAddr;

const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";

/// An address without IPv6 around an IPv4 one.
fn plain(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(six) => six.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    }
}

fn is_standard(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok_and(|ip| plain(ip) == ip)
}

/// Of an address in an uncommon form.
pub fn ip(place: &Node<'_, '_>, out: &mut Vec<String>) {
    let text = place.text();
    let Some(ip) = lenient_ip(text) else { return };
    let shown = go_quoted(text);
    if !is_standard(text) {
        let better = plain(ip);
        warn(
            place,
            &format!(
                "non-standard IP address {shown} will be considered invalid in a future Kubernetes release: use \"{better}\""
            ),
            out,
        );
    } else if ip.is_ipv6() && ip.to_string() != text {
        warn(place, &format!("IPv6 address {shown} should be in RFC 5952 canonical format (\"{ip}\")"), out);
    }
}

/// Of a network in an uncommon form.
pub fn cidr(place: &Node<'_, '_>, out: &mut Vec<String>) {
    let text = place.text();
    let Some((address, length)) = text.split_once('/') else { return };
    let (Some(read), Ok(mut prefix)) = (lenient_ip(address), length.parse::<u8>()) else { return };
    let ip = plain(read);
    if ip.is_ipv4() && read.is_ipv6() {
        prefix = prefix.saturating_sub(96);
    }
    let Ok(net) = ipnet::IpNet::new(ip, prefix) else { return };
    let (shown, better) = (go_quoted(text), net.trunc());
    if net.network() != ip {
        let single = format!("{ip}/{}", net.max_prefix_len());
        warn(
            place,
            &format!(
                "CIDR value {shown} is ambiguous in this context (should be \"{better}\" or \"{single}\"?)"
            ),
            out,
        );
    }
    if !is_standard(address) || length.len() > 1 && length.starts_with('0') {
        warn(
            place,
            &format!(
                "non-standard CIDR value {shown} will be considered invalid in a future Kubernetes release: use \"{better}\""
            ),
            out,
        );
    } else if ip.is_ipv6() && net.to_string() != text {
        warn(
            place,
            &format!("IPv6 CIDR value {shown} should be in RFC 5952 canonical format (\"{net}\")"),
            out,
        );
    }
}

pub fn endpoints(root: &Node<'_, '_>, out: &mut Vec<String>) {
    out.push("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".to_owned());
    let labels = root.get("metadata.labels");
    if labels.key("endpoints.kubernetes.io/managed-by").text() == "endpoint-controller" {
        return;
    }
    for subset in root.get("subsets").items() {
        for list in ["addresses", "notReadyAddresses"] {
            subset.get(list).items().for_each(|address| ip(&address.get("ip"), out));
        }
    }
}

pub fn endpoint_slice(root: &Node<'_, '_>, is_new: bool, out: &mut Vec<String>) {
    if is_new && root.get("addressType").text() == "FQDN" {
        out.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
    }
    let labels = root.get("metadata.labels");
    let by = labels.key("endpointslice.kubernetes.io/managed-by").text();
    let ours = ["endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"].contains(&by);
    if ours || root.get("addressType").text() == "FQDN" {
        return;
    }
    for endpoint in root.get("endpoints").items() {
        endpoint.get("addresses").items().for_each(|address| ip(&address, out));
    }
}

pub fn service(root: &Node<'_, '_>, out: &mut Vec<String>) {
    let (spec, annotations) = (root.get("spec"), root.get("metadata.annotations"));
    if annotations.key(TOPOLOGY_HINTS).is_set() {
        out.push(format!(
            "annotation {TOPOLOGY_HINTS} is deprecated, please use service.kubernetes.io/topology-mode instead"
        ));
    }
    let is_external = spec.get("type").text() == "ExternalName";
    if !is_external && !matches!(spec.get("clusterIP").text(), "" | "None") {
        spec.get("clusterIPs").items().for_each(|address| ip(&address, out));
    }
    spec.get("externalIPs").items().for_each(|address| ip(&address, out));
    ip(&spec.get("loadBalancerIP"), out);
    spec.get("loadBalancerSourceRanges").items().for_each(|range| cidr(&range, out));
    if is_external && !spec.get("externalIPs").is_empty() {
        out.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if !is_external && !spec.get("externalName").is_empty() {
        out.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
}

pub fn policy(spec: &Node<'_, '_>, out: &mut Vec<String>) {
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.get(rules).items() {
            for peer in rule.get(peers).items() {
                cidr(&peer.get("ipBlock.cidr"), out);
                peer.get("ipBlock.except").items().for_each(|range| cidr(&range, out));
            }
        }
    }
}
