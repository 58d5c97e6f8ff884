//! One request carried on to another server and its answer back; an upgrade becomes a tunnel.
//!
//! A connection serves one request: log, exec and their like live as long as their connection anyway.

use super::records::{Records, pass_on};
use axum::body::Body;
use coracle_api::status::{GroupResource, Status};
use coracle_daemon::{Tasks, clock};
use http::header::{self, HeaderName};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How much of an error's text is read.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// Headers that hold for one connection only (RFC 9110, section 7.6.1), those of an upgrade apart.
const HOP_BY_HOP: [HeaderName; 5] = [
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
];

/// A server to carry requests to.
#[derive(Clone)]
pub struct Destination {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// None for plain HTTP.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// What the server calls itself, where that is not `host`.
    pub name: Option<String>,
}

impl Destination {
    /// `host:port`, with brackets around an IPv6 address.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The URL of a path there, for messages.
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", if self.tls.is_some() { "https" } else { "http" }, self.authority())
    }
}

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// No connection.
    #[error("dial tcp {to}: {source}")]
    Connect {
        /// `host:port`.
        to: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A connection, and no answer.
    #[error("{to}: {source}")]
    Http {
        /// `host:port`.
        to: String,
        /// The cause.
        #[source]
        source: hyper::Error,
    },
    /// A path or header that cannot be sent.
    #[error("cannot form the request")]
    Form(#[from] http::Error),
}

/// Sends requests on.
pub struct Relay {
    tasks: Tasks,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Relay {
    /// With an owner for connections and tunnels.
    pub fn new(tasks: Tasks) -> Self {
        Self { tasks }
    }

    /// Sends `request` with another path and without its credentials; answers with what comes back. After a 101, bytes flow
    /// both ways until an end closes.
    pub async fn send(
        &self,
        to: &Destination,
        mut request: Request<Body>,
        path: &str,
    ) -> Result<Response<Body>, RelayError> {
        let wants_upgrade = request.headers().contains_key(header::UPGRADE);
        let theirs = wants_upgrade.then(|| hyper::upgrade::on(&mut request));
        let (parts, body) = request.into_parts();
        let mut onward =
            Request::builder().method(parts.method).uri(path.parse::<Uri>().map_err(http::Error::from)?);
        if let Some(headers) = onward.headers_mut() {
            *headers = carried(&parts.headers, wants_upgrade);
            let host =
                to.name.clone().unwrap_or_else(|| to.authority()).parse().map_err(http::Error::from)?;
            headers.insert(header::HOST, host);
        }
        let onward = onward.body(body)?;
        let authority = to.authority();
        let http_error = |source| RelayError::Http { to: authority.clone(), source };
        let stream =
            self.connect(to).await.map_err(|source| RelayError::Connect { to: to.authority(), source })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(http_error)?;
        self.tasks.run(format!("connection to {authority}"), async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "relayed connection ended");
            }
        });
        let mut response = sender.send_request(onward).await.map_err(http_error)?;
        if let (StatusCode::SWITCHING_PROTOCOLS, Some(theirs)) = (response.status(), theirs) {
            let ours = hyper::upgrade::on(&mut response);
            self.tasks.run(format!("tunnel to {authority}"), tunnel(theirs, ours));
            let (parts, _) = response.into_parts();
            return Ok(Response::from_parts(parts, Body::empty()));
        }
        let (mut parts, body) = response.into_parts();
        parts.headers = carried(&parts.headers, false);
        Ok(Response::from_parts(parts, Body::new(body)))
    }

    async fn connect(&self, to: &Destination) -> io::Result<Box<dyn Stream>> {
        let connect = async {
            let tcp = TcpStream::connect((to.host.as_str(), to.port)).await?;
            // Keystrokes must not wait for more of their kind.
            tcp.set_nodelay(true)?;
            let Some(tls) = &to.tls else { return Ok::<Box<dyn Stream>, io::Error>(Box::new(tcp)) };
            let name = to.name.clone().unwrap_or_else(|| to.host.clone());
            let name = ServerName::try_from(name).map_err(io::Error::other)?;
            Ok(Box::new(Records(TlsConnector::from(tls.clone()).connect(name, tcp).await?)))
        };
        clock::timeout(CONNECT_WITHIN, connect)
            .await
            .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "i/o timeout")))
    }
}

/// Copies bytes both ways until either end closes, then closes the other.
async fn tunnel(theirs: hyper::upgrade::OnUpgrade, ours: hyper::upgrade::OnUpgrade) {
    let copied = async {
        let (theirs, ours) = tokio::try_join!(theirs, ours).map_err(io::Error::other)?;
        let (mut from_client, mut to_client) = tokio::io::split(TokioIo::new(theirs));
        let (mut from_server, mut to_server) = tokio::io::split(TokioIo::new(ours));
        let copied = tokio::select! {
            copied = pass_on(&mut from_server, &mut to_client) => copied,
            copied = tokio::io::copy(&mut from_client, &mut to_server) => copied.map(drop),
        };
        // The other end may be gone already, which is what we want of it.
        let _ = tokio::join!(to_client.shutdown(), to_server.shutdown());
        copied
    };
    if let Err(error) = copied.await {
        tracing::debug!(%error, "tunnel ended");
    }
}

/// The headers that go on: none of this connection's, none of the client's credentials.
fn carried(headers: &HeaderMap, upgrade: bool) -> HeaderMap {
    let mut carried = headers.clone();
    for name in HOP_BY_HOP {
        carried.remove(name);
    }
    if !upgrade {
        for name in [header::CONNECTION, header::UPGRADE] {
            carried.remove(name);
        }
        carried.remove("keep-alive");
    }
    carried.remove(header::AUTHORIZATION);
    let impersonation: Vec<HeaderName> =
        carried.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    for name in impersonation {
        carried.remove(name);
    }
    carried
}

/// A kubelet's answer, its errors made Statuses as kube-apiserver does for logs.
pub async fn checked(response: Response<Body>, name: &str) -> Result<Response<Body>, Status> {
    let code = response.status();
    if code.is_success() || code == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response);
    }
    let read = Limited::new(response.into_body(), ERROR_BYTES_MAX).collect().await;
    let bytes = read.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
    Err(match code.as_u16() {
        500 => Status::internal(text),
        400 => Status::bad_request(text),
        404 => {
            let mut status = Status::not_found(&GroupResource::new("", "pods"), name);
            status.message = format!("the server could not find the requested resource ( pods {name})");
            status
        }
        code => Status::new(code, "", text),
    })
}
