//! The addresses behind a Service, by its EndpointSlices, and which addresses may be dialled at all.

use crate::reader::Reader;
use coracle_api::meta;
use coracle_api::status::GroupResource;
use serde_json::Value;
use std::net::IpAddr;

/// Whether an address may be dialled for a client: never this machine itself or its link, which a forged status could name
/// (Services of this server's own host included).
pub fn is_proxyable(host: &str) -> bool {
    match host.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V4(v4)) => {
            !(v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_multicast()
                || v4.is_broadcast())
        }
        Ok(IpAddr::V6(v6)) => {
            !(v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified() || v6.is_multicast())
        }
        Err(_) => false,
    }
}

/// A port by number or name; the only one when none is named.
fn service_port<'a>(service: &'a Value, wanted: &str) -> Option<&'a Value> {
    let ports = service["spec"]["ports"].as_array()?;
    match (wanted, ports.as_slice()) {
        ("", [only]) => Some(only),
        ("", _) => ports.iter().find(|port| port["name"].as_str().unwrap_or_default().is_empty()),
        _ => {
            let number: Option<u64> = wanted.parse().ok();
            ports
                .iter()
                .find(|port| port["name"] == wanted || (number.is_some() && port["port"].as_u64() == number))
        }
    }
}

/// The ready addresses of a slice with the port of that name.
fn addresses(slice: &Value, port_name: &str) -> Vec<(String, u16)> {
    let ports = slice["ports"].as_array();
    let port =
        ports.into_iter().flatten().find(|port| port["name"].as_str().unwrap_or_default() == port_name);
    let Some(port) = port.and_then(|port| u16::try_from(port["port"].as_u64()?).ok()) else {
        return Vec::new();
    };
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false);
    let addresses = ready.flat_map(|endpoint| meta::strings(&endpoint["addresses"]));
    addresses.map(|address| (address.to_owned(), port)).collect()
}

/// The ready addresses that serve a Service's port, named or numbered as asked.
///
/// # Errors
/// There is no such Service or port.
pub fn ready(
    reader: &dyn Reader,
    namespace: &str,
    name: &str,
    wanted: &str,
) -> Result<Vec<(String, u16)>, String> {
    let service = reader.get(&GroupResource::new("", "services"), namespace, name);
    let service = service.ok_or_else(|| format!("service {name:?} not found"))?;
    let Some(port) = service_port(&service, wanted) else {
        return Err(match wanted.parse::<u16>() {
            Ok(number) => format!("no service port {number} found for service {name:?}"),
            Err(_) => format!("no service port {wanted:?} found for service {name:?}"),
        });
    };
    let port_name = port["name"].as_str().unwrap_or_default();
    let slices = reader.list(&GroupResource::new("discovery.k8s.io", "endpointslices"), namespace);
    let own = slices.iter().filter(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == name);
    Ok(own.flat_map(|slice| addresses(slice, port_name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn this_machine_is_not_reachable_through_a_forged_address() {
        for (host, allowed) in [
            ("10.244.0.5", true),
            ("fd00::5", true),
            ("127.0.0.1", false),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
            ("169.254.169.254", false),
            ("0.0.0.0", false),
            ("localhost", false),
        ] {
            assert_eq!(is_proxyable(host), allowed, "{host}");
        }
    }

    #[test]
    fn ports_and_addresses_are_found_by_name() {
        let service =
            json!({"spec": {"ports": [{"name": "http", "port": 80}, {"name": "admin", "port": 81}]}});
        assert_eq!(service_port(&service, "81").map(|port| &port["name"]), Some(&json!("admin")));
        assert_eq!(service_port(&service, "").map(|port| &port["name"]), None);
        let slice = json!({"ports": [{"name": "http", "port": 8080}], "endpoints": [
            {"addresses": ["10.0.0.1"], "conditions": {"ready": true}}, {"addresses": ["10.0.0.2"], "conditions": {"ready": false}}]});
        assert_eq!(addresses(&slice, "http"), [("10.0.0.1".to_owned(), 8080)]);
    }
}
