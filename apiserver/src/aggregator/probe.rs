//! Asking remote servers: whether they serve their group version, and what is in it.

use super::remote::Remote;
use super::{Aggregator, Told};
use crate::authentication::identity;
use crate::outbound::{self, Destination, RelayError};
use crate::request::UserInfo;
use axum::body::Body;
use bytes::Bytes;
use coracle_api::discovery;
use coracle_daemon::clock;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::Request;
use http::header::ACCEPT;
use http_body_util::{BodyExt, Limited};
use rustls::ClientConfig;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(5);
/// Endpoints that are asked at once.
const ENDPOINTS_MAX: usize = 5;
const ANSWER_MAX: usize = 8 << 20;
/// Whom servers let see everything.
const PROBER: &str = "system:kube-aggregator";
const MASTERS: &str = "system:masters";

/// Host and port.
pub type Address = (String, u16);

/// Why a server gave no answer.
enum Fault {
    /// It is not who it should be.
    Untrusted(String),
    Other(String),
}

impl Aggregator {
    /// Asks a server's endpoints at once; the first good answer counts. `None` where a server answers that cannot be trusted:
    /// as in Kubernetes that counts as available, but it has nothing to say.
    ///
    /// # Errors
    /// What the first endpoint did wrong when all do.
    pub(super) async fn probe(&self, remote: &Remote, addresses: &[Address]) -> Result<Option<Told>, String> {
        let asked = addresses.iter().take(ENDPOINTS_MAX).enumerate();
        let mut asked: FuturesUnordered<_> =
            asked.map(|(at, address)| async move { (at, self.ask(remote, address).await) }).collect();
        let mut faults: Vec<(usize, String)> = Vec::new();
        while let Some((at, answer)) = asked.next().await {
            match answer {
                Ok(told) => return Ok(told),
                Err(fault) => faults.push((at, fault)),
            }
        }
        let first = faults.into_iter().min().map(|(_, fault)| fault);
        Err(first.unwrap_or_else(|| format!("no endpoints available for service {:?}", remote.service)))
    }

    async fn ask(&self, remote: &Remote, address: &Address) -> Result<Option<Told>, String> {
        let root = remote.root();
        let url = format!("https://{}{root}", destination(remote, address, None).authority());
        let failing = |text: &str| format!("failing or missing response from {url}: {text}");
        let verified = match self.verified(remote) {
            Ok(tls) => self.get(remote, address, tls, &root).await,
            Err(error) => Err(Fault::Untrusted(error)),
        };
        let (answer, trusted) = match verified {
            Err(Fault::Untrusted(_)) => {
                let tls = self.unverified().map_err(|error| failing(&error))?;
                (self.get(remote, address, tls, &root).await, false)
            }
            answer => (answer, true),
        };
        let (code, body) = answer.map_err(|fault| match fault {
            Fault::Untrusted(text) | Fault::Other(text) => failing(&format!("Get {url:?}: {text}")),
        })?;
        if !(200..300).contains(&code) {
            return Err(failing(&format!("bad status from {url}: {code}")));
        }
        let list: Value = serde_json::from_slice(&body).unwrap_or_default();
        if !trusted || list["kind"] != "APIResourceList" {
            return Ok(None);
        }
        let discovery = discovery::Remote { resources: discovery::of_resource_list(&list), fresh: true };
        Ok(Some(Told { discovery, openapi: self.openapi(remote, address).await }))
    }

    /// Where a server's index of OpenAPI v3 has its group version; servers need not have one.
    async fn openapi(&self, remote: &Remote, address: &Address) -> Option<String> {
        let tls = self.verified(remote).ok()?;
        let (code, body) = self.get(remote, address, tls, "/openapi/v3").await.ok()?;
        let index: Value = serde_json::from_slice(&body).ok().filter(|_| code == 200)?;
        let url = &index["paths"][remote.root().trim_start_matches('/')]["serverRelativeURL"];
        let url = url.as_str()?;
        url.starts_with(&format!("/openapi/v3{}", remote.root())).then(|| url.to_owned())
    }

    async fn get(
        &self,
        remote: &Remote,
        address: &Address,
        tls: Arc<ClientConfig>,
        path: &str,
    ) -> Result<(u16, Bytes), Fault> {
        let asking = async {
            let request = Request::get("/").header(ACCEPT, "application/json").body(Body::empty());
            let mut request = request.map_err(|error| Fault::Other(error.to_string()))?;
            let user =
                UserInfo { name: PROBER.to_owned(), groups: vec![MASTERS.to_owned()], ..UserInfo::default() };
            identity::set(request.headers_mut(), &user).map_err(|status| Fault::Other(status.message))?;
            let destination = destination(remote, address, Some(tls));
            let response =
                self.relay.send(&destination, request, path).await.map_err(|error| fault(&error))?;
            let code = response.status().as_u16();
            let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
            let body = body.map_err(|error| Fault::Other(error.to_string()))?;
            Ok((code, body.to_bytes()))
        };
        let late = |_| Err(Fault::Other("context deadline exceeded".to_owned()));
        clock::timeout(WITHIN, asking).await.unwrap_or_else(late)
    }
}

fn destination(remote: &Remote, at: &Address, tls: Option<Arc<ClientConfig>>) -> Destination {
    Destination { host: at.0.clone(), port: at.1, tls, name: Some(remote.host()) }
}

fn fault(error: &RelayError) -> Fault {
    let text = outbound::told(error);
    let RelayError::Connect { source, .. } = error else { return Fault::Other(text) };
    let tls = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(_)) => Fault::Untrusted(text),
        _ => Fault::Other(text),
    }
}
