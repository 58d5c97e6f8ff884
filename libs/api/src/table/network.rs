//! The cells of services, endpoints and ingresses.

use super::Row;
use super::rules::{Cell, first_three, plain};
use serde_json::Value;
use std::collections::BTreeSet;

pub(super) const CELLS: &[(&str, Cell)] = &[
    ("external_ip", |row| external_ip(row).into()),
    ("service_ports", |row| service_ports(row).into()),
    ("ingress_hosts", |row| ingress_hosts(row).into()),
    ("ingress_address", |row| balancer(row).join(",").into()),
    ("ingress_ports", |row| if row.list("/spec/tls").is_empty() { "80" } else { "80, 443" }.into()),
    ("class_parameters", |row| class_parameters(row).into()),
    ("endpoints", |row| endpoints(row).into()),
    ("slice_ports", |row| or_unset(slice_ports(row)).into()),
    ("slice_endpoints", |row| or_unset(slice_addresses(row)).into()),
    ("parent_ref", |row| parent_ref(row).into()),
];

fn balancer<'a>(row: &'a Row<'_>) -> Vec<&'a str> {
    let addresses = row.list("/status/loadBalancer/ingress").iter().filter_map(|ingress| {
        ingress["ip"].as_str().filter(|ip| !ip.is_empty()).or_else(|| ingress["hostname"].as_str())
    });
    addresses.filter(|address| !address.is_empty()).collect::<BTreeSet<_>>().into_iter().collect()
}

fn external_ip(row: &Row<'_>) -> String {
    let listed = row.list("/spec/externalIPs").iter().filter_map(Value::as_str);
    let join = |addresses: Vec<&str>, none: &str| {
        if addresses.is_empty() { none.to_owned() } else { addresses.join(",") }
    };
    match row.text("/spec/type") {
        "ClusterIP" | "NodePort" => join(listed.collect(), "<none>"),
        "LoadBalancer" => join(balancer(row).into_iter().chain(listed).collect(), "<pending>"),
        "ExternalName" => row.text("/spec/externalName").to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

fn service_ports(row: &Row<'_>) -> String {
    let ports = row.list("/spec/ports").iter().map(|port| {
        let (number, protocol) = (plain(&port["port"]), plain(&port["protocol"]));
        match port["nodePort"].as_i64() {
            Some(node) if node > 0 => format!("{number}:{node}/{protocol}"),
            _ => format!("{number}/{protocol}"),
        }
    });
    let ports: Vec<String> = ports.collect();
    if ports.is_empty() { "<none>".to_owned() } else { ports.join(",") }
}

fn ingress_hosts(row: &Row<'_>) -> String {
    let rules = row.list("/spec/rules");
    let hosts = rules.iter().filter_map(|rule| rule["host"].as_str()).filter(|host| !host.is_empty());
    let shown = hosts.take(3).collect::<Vec<_>>().join(",");
    match (shown.as_str(), rules.len()) {
        ("", _) => "*".to_owned(),
        (_, 0..=3) => shown,
        (_, count) => format!("{shown} + {} more...", count - 3),
    }
}

fn class_parameters(row: &Row<'_>) -> String {
    let parameters = &row.object["spec"]["parameters"];
    if parameters.is_null() {
        return "<none>".to_owned();
    }
    let group = parameters["apiGroup"].as_str().map_or_else(String::new, |group| format!(".{group}"));
    format!("{}{group}/{}", plain(&parameters["kind"]), plain(&parameters["name"]))
}

fn endpoints(row: &Row<'_>) -> String {
    let subsets = row.list("/subsets");
    if subsets.is_empty() {
        return "<none>".to_owned();
    }
    let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut all = Vec::new();
    for subset in subsets {
        let (addresses, ports) = (items(&subset["addresses"]), items(&subset["ports"]));
        if ports.is_empty() {
            all.extend(addresses.iter().map(|address| plain(&address["ip"])));
        }
        for port in &ports {
            all.extend(addresses.iter().map(|address| {
                let ip = plain(&address["ip"]);
                let ip = if ip.contains(':') { format!("[{ip}]") } else { ip };
                format!("{ip}:{}", port["port"])
            }));
        }
    }
    first_three(&all)
}

fn slice_ports(row: &Row<'_>) -> String {
    let ports = row.list("/ports").iter().map(|port| match (&port["port"], &port["name"]) {
        (Value::Null, Value::String(name)) => name.clone(),
        (Value::Null, _) => "*".to_owned(),
        (number, _) => number.to_string(),
    });
    first_three(&ports.collect::<Vec<_>>())
}

fn slice_addresses(row: &Row<'_>) -> String {
    let addresses =
        row.list("/endpoints").iter().flat_map(|one| one["addresses"].as_array().into_iter().flatten());
    first_three(&addresses.map(plain).collect::<Vec<_>>())
}

fn or_unset(text: String) -> String {
    if text.is_empty() { "<unset>".to_owned() } else { text }
}

fn parent_ref(row: &Row<'_>) -> String {
    let parent = &row.object["spec"]["parentRef"];
    if parent.is_null() {
        return "<none>".to_owned();
    }
    let part = |key: &str, before: &str| match plain(&parent[key]) {
        text if text.is_empty() => text,
        text => format!("{before}{text}"),
    };
    let resource = format!("{}{}", part("resource", ""), part("group", ".")).to_lowercase();
    format!("{resource}{}{}", part("namespace", "/"), part("name", "/"))
}
