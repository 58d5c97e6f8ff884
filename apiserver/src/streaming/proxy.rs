//! `proxy` subresources: plain HTTP to a pod, a Service's endpoint, or a kubelet.
//!
//! Pods of real nodes live in network namespaces that this process may not reach; that is a 503, as a broken pod is.

use super::Streaming;
use super::links::Shown;
use crate::outbound::endpoints::{self, is_proxyable};
use crate::outbound::relay::{Destination, RelayError};
use crate::request::RequestInfo;
use axum::body::Body;
use coracle_api::status::{GroupResource, Status};
use coracle_daemon::random;
use http::header::UPGRADE;
use http::{Request, Response};
use rustls::ClientConfig;
use serde_json::Value;
use std::sync::Arc;

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

/// The port that a pod proxy means when it names none: the first that a container declares.
fn default_port(pod: &Value) -> Option<u16> {
    let containers = pod["spec"]["containers"].as_array();
    let mut ports =
        containers.into_iter().flatten().flat_map(|container| container["ports"].as_array()).flatten();
    ports.find_map(|port| u16::try_from(port["containerPort"].as_u64()?).ok())
}

impl Streaming {
    pub(super) async fn pod_proxy(
        &self,
        info: &RequestInfo,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let (scheme, name, port) = split_name(&info.name)?;
        let pod = self.find("pods", &info.namespace, &name).await?;
        let Some(host) = pod["status"]["podIP"].as_str().filter(|address| !address.is_empty()) else {
            return Err(Status::bad_request("address not allowed"));
        };
        let port = if port.is_empty() { default_port(&pod) } else { port.parse().ok() };
        let tls = self.backend(&scheme);
        let port = port.unwrap_or(if tls.is_some() { 443 } else { 80 });
        let destination = Destination { host: host.to_owned(), port, tls, name: None };
        self.pass(destination, info, request).await
    }

    pub(super) async fn service_proxy(
        &self,
        info: &RequestInfo,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let (scheme, name, wanted) = split_name(&info.name)?;
        self.find("services", &info.namespace, &name).await?;
        let mut addresses = endpoints::ready(self.reader.as_ref(), &info.namespace, &name, &wanted)
            .map_err(Status::unavailable)?;
        if addresses.is_empty() {
            // A Service without even empty Endpoints counts as none.
            let missing = |_| Status::not_found(&GroupResource::new("", "services"), &name);
            self.find("endpoints", &info.namespace, &name).await.map_err(missing)?;
            return Err(Status::unavailable(format!("no endpoints available for service {name:?}")));
        }
        let chosen = usize::try_from(random::below(addresses.len() as u64)).unwrap_or(0);
        let (host, port) = addresses.swap_remove(chosen);
        self.pass(Destination { host, port, tls: self.backend(&scheme), name: None }, info, request).await
    }

    /// Pods and Services are asked over TLS where the client says so. Who they are, nobody vouches for.
    fn backend(&self, scheme: &str) -> Option<Arc<ClientConfig>> {
        (scheme == "https").then(|| self.backends.clone())
    }

    async fn pass(
        &self,
        to: Destination,
        info: &RequestInfo,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        if !is_proxyable(&to.host) {
            return Err(Status::bad_request("address not allowed"));
        }
        self.carry(&to, info, request).await
    }

    /// To a server that does not know under which path it is seen.
    pub(super) async fn carry(
        &self,
        to: &Destination,
        info: &RequestInfo,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let path = path(info, request.uri().query());
        let shown = Shown::of(info, request.uri(), request.headers(), to.authority());
        if !request.headers().contains_key(UPGRADE) {
            if let Some(redirect) = shown.root(request.method(), request.uri()) {
                return Ok(redirect);
            }
            if let Some(uri) = shown.forwarded(&path) {
                request.headers_mut().insert("x-forwarded-uri", uri);
            }
        }
        self.relay.send(to, request, &path).await.map(|answer| shown.moved(answer)).map_err(unreachable)
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
    fn the_port_of_a_pod_is_the_first_that_a_container_declares() {
        let pod = json!({"spec": {"containers": [{}, {"ports": [{"containerPort": 9}]}]}});
        assert_eq!(default_port(&pod), Some(9));
    }

    #[test]
    fn paths_are_encoded_again() {
        let info = RequestInfo { rest: "a b/ü".to_owned(), ..RequestInfo::default() };
        assert_eq!(path(&info, Some("q=1")), "/a%20b/%C3%BC?q=1");
    }
}
