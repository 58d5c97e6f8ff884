//! Ingress, IngressClass, NetworkPolicy, IPAddress, ServiceCIDR.

use super::node::{Faults, IMMUTABLE, Node};
use super::selectors;
use crate::labels;
use serde_json::{Value, json};
use std::net::IpAddr;

const LEGACY_CLASS: &str = "kubernetes.io/ingress.class";
const CONTROLLER_MAX: usize = 250;

pub(super) fn ingress(object: &Node<'_, '_>, out: &mut Faults) {
    let spec = object.get("spec");
    ingress_spec(&spec, &Value::Null, out);
    let annotations = object.get("metadata.annotations");
    let (legacy, class) = (annotations.key(LEGACY_CLASS), spec.get("ingressClassName"));
    if legacy.is_set() && class.is_set() && legacy.value != class.value {
        let told = format!("annotations.{LEGACY_CLASS}");
        object
            .named(&told, legacy.value)
            .invalid("must match `ingressClassName` when both are specified", out);
    }
}

pub(super) fn ingress_update(new: &Node<'_, '_>, old: &Node<'_, '_>, subresource: &str, out: &mut Faults) {
    if subresource == "status" {
        for point in new.get("status.loadBalancer.ingress").items() {
            point.get("ip").text_may(labels::is_valid_ip, out);
            super::service::host_name(&point.get("hostname"), out);
        }
        return;
    }
    ingress_spec(&new.get("spec"), old.value, out);
}

/// What a stored Ingress gets wrong that new ones may not.
struct Tolerated {
    /// Names of secrets.
    secrets: bool,
    /// Rules for hosts with a wildcard, which were not looked at.
    wildcards: bool,
}

impl Tolerated {
    fn by(stored: &Value) -> Self {
        let root = Node::root(stored);
        let spec = root.get("spec");
        let mut wildcards = false;
        for rule in spec.get("rules").items().filter(|rule| rule.get("host").text().contains('*')) {
            let mut faults = Faults::new();
            rule.get("http.paths").items().for_each(|path| ingress_path(&path, &mut faults));
            wildcards |= !faults.is_empty();
        }
        let secrets = spec.get("tls").items().any(|tls| {
            let name = tls.get("secretName");
            !name.is_empty() && !labels::is_dns1123_subdomain(name.text()).is_empty()
        });
        Self { secrets, wildcards }
    }
}

fn ingress_spec(spec: &Node<'_, '_>, stored: &Value, out: &mut Faults) {
    let tolerated = Tolerated::by(stored);
    let (rules, backend) = (spec.get("rules"), spec.get("defaultBackend"));
    if rules.is_empty() && !backend.is_set() {
        spec.invalid_as(&Value::Null, "either `defaultBackend` or `rules` must be specified", out);
    }
    if backend.is_set() {
        ingress_backend(&backend, out);
    }
    for rule in rules.items() {
        let host = rule.get("host");
        if host.text().parse::<IpAddr>().is_ok() {
            host.invalid("must be a DNS name, not an IP address", out);
        }
        host.text_may(host_name, out);
        let http = rule.get("http");
        if !http.is_set() || (tolerated.wildcards && host.text().contains('*')) {
            continue;
        }
        let paths = http.get("paths");
        paths.must_be_given(out);
        paths.items().for_each(|path| ingress_path(&path, out));
    }
    for tls in spec.get("tls").items() {
        tls.get("hosts").items().for_each(|host| host.text_must(host_name, out));
        if !tolerated.secrets {
            tls.get("secretName").text_may(labels::is_dns1123_subdomain, out);
        }
    }
    let class = spec.get("ingressClassName");
    if class.is_set() {
        class.text_must(labels::is_dns1123_subdomain, out);
    }
}

fn host_name(text: &str) -> Vec<String> {
    if text.contains('*') {
        labels::is_wildcard_dns1123_subdomain(text)
    } else {
        labels::is_dns1123_subdomain(text)
    }
}

fn ingress_path(path: &Node<'_, '_>, out: &mut Faults) {
    let (text, kind) = (path.get("path"), path.get("pathType"));
    match kind.text() {
        "" if !kind.is_set() => return kind.required("pathType must be specified", out),
        "Exact" | "Prefix" => {
            if !text.text().starts_with('/') {
                text.invalid_as(&json!(text.text()), "must be an absolute path", out);
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"].iter().filter(|part| text.text().contains(**part))
            {
                text.invalid(format!("must not contain '{part}'"), out);
            }
            for end in ["/..", "/."].iter().filter(|end| text.text().ends_with(**end)) {
                text.invalid(format!("cannot end with '{end}'"), out);
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !text.text().starts_with('/') {
                text.invalid("must be an absolute path", out);
            }
        }
        _ => kind.not_supported(&["Exact", "ImplementationSpecific", "Prefix"], out),
    }
    ingress_backend(&path.get("backend"), out);
}

fn ingress_backend(backend: &Node<'_, '_>, out: &mut Faults) {
    let (service, resource) = (backend.get("service"), backend.get("resource"));
    if resource.is_set() && service.is_set() {
        backend.invalid_as(&json!(""), "cannot set both resource and service backends", out);
    } else if resource.is_set() {
        typed_reference(&resource, out);
    } else if service.is_set() {
        service.get("name").required_text(labels::is_dns1035_label, out);
        let (name, number) = (service.get("port.name"), service.get("port.number"));
        match (name.is_empty(), number.int() == 0) {
            (false, false) => backend.invalid_as(&json!(""), "cannot set both port name & port number", out),
            (false, true) => name.text_must(labels::is_valid_port_name, out),
            (true, false) => number.port(out),
            (true, true) => backend.required("port name or number is required", out),
        }
    } else {
        backend.invalid_as(&json!(""), "resource or service backend is required", out);
    }
}

/// A reference to some object: a backend, or the parameters of a class.
fn typed_reference(reference: &Node<'_, '_>, out: &mut Faults) {
    let group = reference.get("apiGroup");
    if group.is_set() {
        group.text_must(labels::is_dns1123_subdomain, out);
    }
    for (key, text) in [("kind", "kind is required"), ("name", "name is required")] {
        let field = reference.get(key);
        if field.is_empty() {
            field.required(text, out);
        } else {
            field.text_must(labels::is_path_segment_name, out);
        }
    }
}

pub(super) fn class(object: &Node<'_, '_>, out: &mut Faults) {
    let controller = object.get("spec.controller");
    if controller.text().len() > CONTROLLER_MAX {
        controller.too_long(250, out);
    }
    controller.domain_prefixed_path(out);
    let parameters = object.get("spec.parameters");
    if !parameters.is_set() {
        return;
    }
    typed_reference(&parameters, out);
    let (scope, namespace) = (parameters.get("scope"), parameters.get("namespace"));
    match (scope.text(), namespace.is_set()) {
        ("", _) if !scope.is_set() => scope.required("", out),
        ("Namespace", false) => namespace.required("`parameters.scope` is set to 'Namespace'", out),
        ("Namespace", true) => namespace.text_must(labels::is_dns1123_label, out),
        ("Cluster", true) => namespace.forbidden("`parameters.scope` is set to 'Cluster'", out),
        ("Cluster", false) => {}
        _ => scope.not_supported(&["Cluster", "Namespace"], out),
    }
}

pub(super) fn class_update(new: &Node<'_, '_>, old: &Node<'_, '_>, _: &str, out: &mut Faults) {
    new.get("spec.controller").same_as(&old.get("spec.controller"), out);
    class(new, out);
}

pub(super) fn policy(object: &Node<'_, '_>, out: &mut Faults) {
    let spec = object.get("spec");
    selectors::labels(&spec.get("podSelector"), out);
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.get(rules).items() {
            rule.get("ports").items().for_each(|port| policy_port(&port, out));
            rule.get(peers).items().for_each(|peer| policy_peer(&peer, out));
        }
    }
    let types = spec.get("policyTypes");
    if types.len() > 2 {
        return types.invalid("may not specify more than two policyTypes", out);
    }
    types.items().for_each(|kind| kind.must_be_one_of(&["Ingress", "Egress"], out));
}

pub(super) fn policy_update(new: &Node<'_, '_>, _: &Node<'_, '_>, _: &str, out: &mut Faults) {
    super::twice(|out| policy(new, out), out);
}

fn policy_port(port: &Node<'_, '_>, out: &mut Faults) {
    port.get("protocol").if_set_one_of(&["TCP", "UDP", "SCTP"], out);
    let (number, end) = (port.get("port"), port.get("endPort"));
    match number.value {
        Value::Null if end.is_set() => end.invalid("may not be specified when `port` is not specified", out),
        Value::Null => {}
        Value::String(_) => {
            if end.is_set() {
                end.invalid("may not be specified when `port` is non-numeric", out);
            }
            number.text_must(labels::is_valid_port_name, out);
        }
        _ => {
            number.port(out);
            if end.is_set() {
                if end.int() < number.int() {
                    // Kubernetes shows the port.
                    end.invalid_as(number.value, "must be greater than or equal to `port`", out);
                }
                end.port(out);
            }
        }
    }
}

fn policy_peer(peer: &Node<'_, '_>, out: &mut Faults) {
    let (pods, namespaces, block) =
        (peer.get("podSelector"), peer.get("namespaceSelector"), peer.get("ipBlock"));
    selectors::labels(&pods, out);
    selectors::labels(&namespaces, out);
    if block.is_set() {
        ip_block(&block, out);
    }
    let selects = pods.is_set() || namespaces.is_set();
    match (selects, block.is_set()) {
        (false, false) => peer.required("must specify a peer", out),
        (true, true) => peer.forbidden("may not specify both ipBlock and another peer", out),
        _ => {}
    }
}

fn ip_block(block: &Node<'_, '_>, out: &mut Faults) {
    let cidr = block.get("cidr");
    if cidr.is_empty() {
        return cidr.required("", out);
    }
    cidr.text_must(labels::is_valid_cidr, out);
    let Ok(whole) = cidr.text().parse::<ipnet::IpNet>() else { return };
    for except in block.get("except").items() {
        except.text_must(labels::is_valid_cidr, out);
        let Ok(part) = except.text().parse::<ipnet::IpNet>() else { return };
        if !whole.trunc().contains(&part.trunc()) || part.prefix_len() <= whole.prefix_len() {
            except.invalid("must be a strict subset of `cidr`", out);
        }
    }
}

pub(super) fn address(object: &Node<'_, '_>, out: &mut Faults) {
    object.get("metadata.name").text_may(labels::is_canonical_ip, out);
    let parent = object.get("spec.parentRef");
    if !parent.is_set() {
        return parent.required("", out);
    }
    parent.get("resource").required_text(labels::is_path_segment_name, out);
    parent.get("name").required_text(labels::is_path_segment_name, out);
    parent.get("group").text_may(labels::is_dns1123_subdomain, out);
    parent.get("namespace").text_may(labels::is_path_segment_name, out);
}

pub(super) fn address_update(new: &Node<'_, '_>, old: &Node<'_, '_>, _: &str, out: &mut Faults) {
    address(new, out);
    new.get("spec.parentRef").same_as(&old.get("spec.parentRef"), out);
}

pub(super) fn service_cidr(object: &Node<'_, '_>, out: &mut Faults) {
    let cidrs = object.get("spec.cidrs");
    if cidrs.is_empty() {
        cidrs.required("at least one CIDR required", out);
    }
    if cidrs.len() > 2 {
        return cidrs.invalid("may only hold up to 2 values", out);
    }
    cidrs.items().for_each(|cidr| cidr.text_must(labels::is_canonical_cidr, out));
    // What is no range is of no family.
    let known = cidrs.items().all(|cidr| labels::is_valid_cidr(cidr.text()).is_empty());
    let six = cidrs.items().filter(|cidr| cidr.text().contains(':')).count();
    if known && (six > 1 || cidrs.len() - six > 1) {
        let detail =
            "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        cidrs.invalid(detail, out);
    }
}

pub(super) fn service_cidr_update(
    new: &Node<'_, '_>,
    old: &Node<'_, '_>,
    subresource: &str,
    out: &mut Faults,
) {
    let (cidrs, before) = (new.get("spec.cidrs"), old.get("spec.cidrs"));
    if !subresource.is_empty() {
        return;
    }
    let pairs = || cidrs.items().zip(before.items()).filter(|(now, was)| now.value != was.value);
    match (before.len(), cidrs.len()) {
        (was, now) if was == now => pairs().for_each(|(now, _)| now.invalid(IMMUTABLE, out)),
        // A second range may join the first, for the family it lacks.
        (1, 2) => {
            pairs().for_each(|(now, _)| now.invalid(IMMUTABLE, out));
            service_cidr(new, out);
        }
        _ => cidrs.invalid(IMMUTABLE, out),
    }
}
