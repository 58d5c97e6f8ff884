//! Services: one address in two fields, and which allocations survive a change of type.

use super::put;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};

fn text<'a>(spec: &'a Value, key: &str) -> &'a str {
    spec[key].as_str().unwrap_or_default()
}

fn empty(value: &Value) -> bool {
    value.as_array().is_none_or(Vec::is_empty)
}

fn needs_cluster_ip(spec: &Value) -> bool {
    text(spec, "type") != "ExternalName"
}

fn needs_node_port(spec: &Value) -> bool {
    // Who wants none given keeps those that are there.
    matches!(text(spec, "type"), "NodePort" | "LoadBalancer")
}

/// Whether a PUT that leaves them out keeps its ports of nodes.
fn keeps_node_ports(spec: &Value) -> bool {
    needs_node_port(spec)
        && (text(spec, "type") == "NodePort" || spec["allocateLoadBalancerNodePorts"] != false)
}

fn needs_health_port(spec: &Value) -> bool {
    text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local"
}

fn externally_reachable(spec: &Value) -> bool {
    matches!(text(spec, "type"), "NodePort" | "LoadBalancer")
        || (text(spec, "type") == "ClusterIP" && !empty(&spec["externalIPs"]))
}

pub(super) fn prepare_create(service: &mut Value) {
    let spec = &mut service["spec"];
    if !text(spec, "clusterIP").is_empty() && empty(&spec["clusterIPs"]) {
        let ip = spec["clusterIP"].clone();
        put(spec, "clusterIPs", Some(json!([ip])));
    }
}

pub(super) fn prepare_update(new: &mut Value, old: &Value) {
    let old_spec = &old["spec"];
    patch_in(&mut new["spec"], old_spec);
    normalize_cluster_ips(&mut new["spec"], old_spec);
    drop_unused(&mut new["spec"], old_spec);
    if text(&new["spec"], "type") != "LoadBalancer" {
        put(&mut new["status"], "loadBalancer", Some(json!({})));
    }
}

/// A writer who knows only `clusterIP` changes or clears both fields with it.
fn normalize_cluster_ips(new: &mut Value, old: &Value) {
    if new["clusterIP"] == old["clusterIP"] || new["clusterIPs"] != old["clusterIPs"] {
        return;
    }
    if text(new, "clusterIP").is_empty() {
        put(new, "clusterIPs", None);
    } else {
        let ip = new["clusterIP"].clone();
        put(new, "clusterIPs", Some(json!([ip])));
    }
}

/// A PUT that leaves allocated values out keeps them.
fn patch_in(new: &mut Value, old: &Value) {
    if needs_cluster_ip(old) && needs_cluster_ip(new) {
        if text(new, "clusterIP").is_empty() {
            put(new, "clusterIP", old.get("clusterIP").cloned());
        }
        if empty(&new["clusterIPs"]) {
            put(new, "clusterIPs", old.get("clusterIPs").cloned());
        }
        if new["ipFamilyPolicy"].is_null() {
            put(new, "ipFamilyPolicy", old.get("ipFamilyPolicy").cloned());
        }
        normalize_cluster_ips(new, old);
        // Another address may be of another family.
        if empty(&new["ipFamilies"]) && new["clusterIPs"] == old["clusterIPs"] {
            put(new, "ipFamilies", old.get("ipFamilies").cloned());
        }
    }
    if keeps_node_ports(old) && keeps_node_ports(new) {
        patch_node_ports(new, old);
    }
    if needs_health_port(old)
        && needs_health_port(new)
        && new["healthCheckNodePort"].as_i64().unwrap_or(0) == 0
    {
        put(new, "healthCheckNodePort", old.get("healthCheckNodePort").cloned());
    }
}

fn patch_node_ports(new: &mut Value, old: &Value) {
    let ports = old["ports"].as_array().into_iter().flatten();
    let by_name: HashMap<&str, &Value> = ports.map(|port| (text(port, "name"), &port["nodePort"])).collect();
    let used: HashSet<Value> =
        new["ports"].as_array().into_iter().flatten().map(|port| port["nodePort"].clone()).collect();
    for port in new.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if port["nodePort"].as_i64().unwrap_or(0) != 0 {
            continue;
        }
        let found = by_name.get(text(port, "name"));
        let number = found.copied().filter(|number| !number.is_null() && !used.contains(number)).cloned();
        if number.is_some() {
            put(port, "nodePort", number);
        }
    }
}

/// Values that only the old type needed go, unless the writer touched them (then validation has its say).
fn drop_unused(new: &mut Value, old: &Value) {
    let unchanged = |new: &Value, key: &str| new[key] == old[key];
    if needs_cluster_ip(old)
        && !needs_cluster_ip(new)
        && unchanged(new, "clusterIP")
        && unchanged(new, "clusterIPs")
    {
        for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            put(new, key, None);
        }
    }
    if needs_node_port(old) && !needs_node_port(new) && same_node_ports(new, old) {
        for port in new.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            put(port, "nodePort", None);
        }
    }
    let gone = |needed: fn(&Value) -> bool, new: &Value| needed(old) && !needed(new);
    if gone(needs_health_port, new) && unchanged(new, "healthCheckNodePort") {
        put(new, "healthCheckNodePort", None);
    }
    if gone(|spec| text(spec, "type") == "LoadBalancer", new) {
        for key in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if unchanged(new, key) {
                put(new, key, None);
            }
        }
    }
    if gone(externally_reachable, new) && unchanged(new, "externalTrafficPolicy") {
        put(new, "externalTrafficPolicy", None);
    }
    if text(new, "type") == "ExternalName" && unchanged(new, "internalTrafficPolicy") {
        put(new, "internalTrafficPolicy", None);
    }
}

/// Whether nothing has been added to the ports of nodes.
fn same_node_ports(new: &Value, old: &Value) -> bool {
    let ports = |spec: &Value| -> HashSet<i64> {
        let ports = spec["ports"].as_array().into_iter().flatten();
        ports.filter_map(|port| port["nodePort"].as_i64()).filter(|port| *port != 0).collect()
    };
    ports(new).is_subset(&ports(old))
}
