//! `proxy` subresources: plain HTTP to a pod, a Service's endpoint, or a kubelet.
//!
//! Pods of real nodes live in network namespaces that this process may not reach; that is a 503, as a broken pod is.

use super::Streaming;
use super::relay::{Destination, RelayError};
use crate::reader::Reader;
use crate::request::RequestInfo;
use axum::body::Body;
use coracle_api::meta;
use coracle_api::status::{GroupResource, Status};
use coracle_daemon::random;
use http::{Request, Response};
use serde_json::Value;
use std::net::IpAddr;

/// `[scheme:]name[:port]` in its parts, the scheme and port empty when absent.
///
/// # Errors
/// 400 for another form.
pub fn split_name(text: &str) -> Result<(String, String, String), Status> {
    let parts: Vec<&str> = text.split(':').collect();
    let (scheme, name, port) = match parts.as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme @ ("http" | "https" | ""), name, port] => (*scheme, *name, *port),
        _ => return Err(Status::bad_request(format!("invalid proxy request {text:?}"))),
    };
    Ok((scheme.to_owned(), name.to_owned(), port.to_owned()))
}

/// The path and query to ask the other side for.
pub fn path(info: &RequestInfo, query: Option<&str>) -> String {
    let path = if info.rest.starts_with('/') { info.rest.clone() } else { format!("/{}", info.rest) };
    encoded(&path, query)
}

/// A decoded path, what cannot stand in one encoded again, with a query as it was sent.
pub fn encoded(path: &str, query: Option<&str>) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~!$&'()*+,;=:@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    match query {
        Some(query) if !query.is_empty() => format!("{out}?{query}"),
        _ => out,
    }
}

/// 503, as for an aggregated API that does not answer.
#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
pub fn unreachable(error: RelayError) -> Status {
    Status::unavailable(format!("error trying to reach service: {error}"))
}

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

/// The port that a pod proxy means when it names none: the first that a container declares.
fn default_port(pod: &Value) -> Option<u16> {
    let containers = pod["spec"]["containers"].as_array();
    let mut ports =
        containers.into_iter().flatten().flat_map(|container| container["ports"].as_array()).flatten();
    ports.find_map(|port| u16::try_from(port["containerPort"].as_u64()?).ok())
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
pub fn endpoints(
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

impl Streaming {
    pub(super) async fn pod_proxy(
        &self,
        info: &RequestInfo,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let (_, name, port) = split_name(&info.name)?;
        let pod = self.find("pods", &info.namespace, &name).await?;
        let Some(host) = pod["status"]["podIP"].as_str().filter(|address| !address.is_empty()) else {
            return Err(Status::bad_request("address not allowed"));
        };
        let port = if port.is_empty() { default_port(&pod) } else { port.parse().ok() };
        let destination =
            Destination { host: host.to_owned(), port: port.unwrap_or(80), tls: None, name: None };
        self.pass(&destination, info, request).await
    }

    pub(super) async fn service_proxy(
        &self,
        info: &RequestInfo,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let (_, name, wanted) = split_name(&info.name)?;
        self.find("services", &info.namespace, &name).await?;
        let mut addresses =
            endpoints(self.reader.as_ref(), &info.namespace, &name, &wanted).map_err(Status::unavailable)?;
        if addresses.is_empty() {
            // A Service without even empty Endpoints counts as none.
            let missing = |_| Status::not_found(&GroupResource::new("", "services"), &name);
            self.find("endpoints", &info.namespace, &name).await.map_err(missing)?;
            return Err(Status::unavailable(format!("no endpoints available for service {name:?}")));
        }
        let chosen = usize::try_from(random::below(addresses.len() as u64)).unwrap_or(0);
        let (host, port) = addresses.swap_remove(chosen);
        self.pass(&Destination { host, port, tls: None, name: None }, info, request).await
    }

    async fn pass(
        &self,
        to: &Destination,
        info: &RequestInfo,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        if !is_proxyable(&to.host) {
            return Err(Status::bad_request("address not allowed"));
        }
        let path = path(info, request.uri().query());
        self.relay.send(to, request, &path).await.map_err(unreachable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_carry_scheme_and_port() {
        let cases = [
            ("web", ("", "web", "")),
            ("web:80", ("", "web", "80")),
            ("https:web:x", ("https", "web", "x")),
            (":web:", ("", "web", "")),
        ];
        for (text, (scheme, name, port)) in cases {
            assert_eq!(split_name(text).expect(text), (scheme.to_owned(), name.to_owned(), port.to_owned()));
        }
        assert_eq!(split_name("a:b:c").expect_err("scheme").code, 400);
    }

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
        assert_eq!(
            default_port(&json!({"spec": {"containers": [{}, {"ports": [{"containerPort": 9}]}]}})),
            Some(9)
        );
    }

    #[test]
    fn paths_are_encoded_again() {
        let info = RequestInfo { rest: "a b/ü".to_owned(), ..RequestInfo::default() };
        assert_eq!(path(&info, Some("q=1")), "/a%20b/%C3%BC?q=1");
    }
}
