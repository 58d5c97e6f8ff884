//! log, exec, attach, port-forward and proxy: through to the kubelet (or a pod or service address), upgrades tunnelled.
//!
//!     client ── request ──► options: what is asked, checked ──► target: which container, which kubelet
//!            ◄─ answer, chunk by chunk, or 101 and bytes both ways ── relay ◄─► kubelet
//!
//! Invariants: a client's credentials never go further than this server; the body is never held in memory; a tunnel ends
//! when either end does.

mod links;
pub mod proxy;
mod target;
#[cfg(test)]
mod tests;

use crate::http::{messages, respond};
use crate::outbound::relay::{self, Destination, Relay};
use crate::reader::{Objects, Reader};
use crate::registry::streamed as options;
use crate::request::RequestInfo;
use anyhow::Context;
use axum::body::Body;
use coracle_api::status::{GroupResource, Status};
use coracle_daemon::Tasks;
use coracle_daemon::tls::{self, Identity};
use http::{Request, Response};
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;

/// How this server shows itself to kubelets, named as kube-apiserver's flags.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct StreamingArgs {
    /// PEM client certificate shown to kubelets.
    #[arg(long, requires = "kubelet_client_key")]
    pub kubelet_client_certificate: Option<PathBuf>,
    /// Its PEM private key.
    #[arg(long, requires = "kubelet_client_certificate")]
    pub kubelet_client_key: Option<PathBuf>,
    /// CA that signs kubelets' serving certificates.
    #[arg(long)]
    pub kubelet_certificate_authority: Option<PathBuf>,
    /// Types of addresses of Nodes at which kubelets are asked, the best first.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "Hostname,InternalDNS,InternalIP,ExternalDNS,ExternalIP"
    )]
    pub kubelet_preferred_address_types: Vec<String>,
}

/// Carries requests on to kubelets, pods and Services.
pub struct Streaming {
    reader: Arc<dyn Reader>,
    objects: Arc<dyn Objects>,
    /// None when no certificate authority was given: kubelets are then out of reach.
    kubelet: Option<Arc<rustls::ClientConfig>>,
    address_types: Vec<String>,
    /// For pods and Services that are asked over TLS.
    backends: Arc<rustls::ClientConfig>,
    relay: Relay,
    tasks: Tasks,
}

impl Streaming {
    /// Reads certificates.
    ///
    /// # Errors
    /// A file is missing or unusable.
    pub fn new(
        args: &StreamingArgs,
        reader: Arc<dyn Reader>,
        objects: Arc<dyn Objects>,
        tasks: Tasks,
    ) -> anyhow::Result<Self> {
        let identity = match (&args.kubelet_client_certificate, &args.kubelet_client_key) {
            (Some(cert), Some(key)) => Some(Identity { cert: cert.clone(), key: key.clone() }),
            _ => None,
        };
        let authority = args.kubelet_certificate_authority.as_deref();
        let kubelet = authority
            .map(|authority| tls::client(authority, identity.as_ref(), &[b"http/1.1"]))
            .transpose()
            .context("cannot set up TLS to kubelets")?;
        let address_types = args.kubelet_preferred_address_types.clone();
        let backends =
            rustls::ClientConfig::builder().dangerous().with_custom_certificate_verifier(tls::any_server());
        let backends = Arc::new(backends.with_no_client_auth());
        Ok(Self {
            reader,
            objects,
            kubelet,
            address_types,
            backends,
            relay: Relay::new(tasks.clone()),
            tasks,
        })
    }

    /// Answers `pods/{log,exec,attach,portforward,proxy}`, `services/proxy` and `nodes/proxy` (authorized and admitted).
    ///
    /// The request must come from a hyper server that allows upgrades, for those that ask for one.
    ///
    /// # Errors
    /// 400 for bad options or a pod that cannot be streamed from, 404, 422 for bad log options, 500 when the kubelet cannot
    /// be reached, 503 when a pod or Service cannot.
    pub async fn proxy(&self, info: &RequestInfo, request: Request<Body>) -> Result<Response<Body>, Status> {
        match (info.resource.as_str(), info.subresource.as_str()) {
            ("pods", "log") => self.log(info, request).await,
            ("pods", "exec" | "attach" | "portforward") => self.stream(info, request).await,
            ("nodes", "proxy") => self.node_proxy(info, request).await,
            ("pods", "proxy") => self.pod_proxy(info, request).await,
            ("services", "proxy") => self.service_proxy(info, request).await,
            _ => {
                Err(Status::method_not_allowed(&GroupResource::new(&info.group, &info.resource), &info.verb))
            }
        }
    }

    async fn log(&self, info: &RequestInfo, mut request: Request<Body>) -> Result<Response<Body>, Status> {
        let messages = messages::of_log(&mut request)?;
        let options = options::log(&info.name, request.uri().query().unwrap_or_default())?;
        let pod = self.find("pods", &info.namespace, &info.name).await?;
        let container = target::container(&pod, &options.container)?;
        let Some(node) = target::node(&pod) else {
            // Nothing can have been said yet.
            return Ok(respond::no_content());
        };
        let path = format!("/containerLogs/{}/{}/{container}", info.namespace, info.name);
        let destination = self.kubelet_of_pod(node).await?;
        let answer =
            self.relay.send(&destination, request, &options::path_and_query(&path, &options.query)).await;
        let response = answer
            .map_err(|error| Status::new(500, "", format!("Get {:?}: {error}", destination.url(&path))))?;
        let response = relay::checked(response, &info.name).await?;
        Ok(match messages {
            Some(messages) => messages.carry(response, &self.tasks),
            None => response,
        })
    }

    async fn stream(&self, info: &RequestInfo, request: Request<Body>) -> Result<Response<Body>, Status> {
        let asked = options::pairs(request.uri().query().unwrap_or_default());
        let pod = self.find("pods", &info.namespace, &info.name).await?;
        let (namespace, name) = (&info.namespace, &info.name);
        let (path, query) = if info.subresource == "portforward" {
            (format!("/portForward/{namespace}/{name}"), options::port_forward(&asked))
        } else {
            let container = target::container(&pod, options::first(&asked, "container"))?;
            let path = format!("/{}/{namespace}/{name}/{container}", info.subresource);
            (path, options::exec(&asked))
        };
        let Some(node) = target::node(&pod) else {
            return Err(Status::bad_request(format!("pod {name} does not have a host assigned")));
        };
        let destination = self.kubelet_of_pod(node).await?;
        let answer = self.relay.send(&destination, request, &options::path_and_query(&path, &query)).await;
        answer.map_err(|error| Status::new(500, "", format!("error dialing backend: {error}")))
    }

    async fn node_proxy(&self, info: &RequestInfo, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (_, name, port) = proxy::split_name(&info.name)?;
        let destination = self.kubelet(&name).await?;
        let port: Option<u16> = if port.is_empty() { None } else { port.parse().ok() };
        let destination = Destination { port: port.unwrap_or(destination.port), ..destination };
        self.carry(&destination, info, request).await
    }

    /// The same for who asks about a pod, and is told of no other kind.
    async fn kubelet_of_pod(&self, node: &str) -> Result<Destination, Status> {
        self.kubelet(node).await.map_err(|status| match status.code {
            404 => Status::not_found(&GroupResource::new("", "pods"), node),
            _ => status,
        })
    }

    /// Where the kubelet of `node` listens.
    async fn kubelet(&self, node: &str) -> Result<Destination, Status> {
        let object = self.find("nodes", "", node).await?;
        let (host, port) = target::kubelet_address(&object, &self.address_types)?;
        let tls = self.kubelet.clone().ok_or_else(|| {
            Status::internal("this server has no --kubelet-certificate-authority and cannot reach kubelets")
        })?;
        Ok(Destination { host, port, tls: Some(tls), name: None })
    }

    /// The object, from the store when the cache has not seen it (yet).
    async fn find(&self, plural: &str, namespace: &str, name: &str) -> Result<Arc<Value>, Status> {
        let of = GroupResource::new("", plural);
        if let Some(object) = self.reader.get(&of, namespace, name) {
            return Ok(object);
        }
        let fresh = self.objects.get_fresh(&of, namespace, name).await?;
        fresh.map(Arc::new).ok_or_else(|| Status::not_found(&of, name))
    }
}
