//! gRPC connections whose certificates are those that the files have when a connection is made.
//!
//! In: a URL, `http://host:port` or `https://…`, and a TLS configuration for the latter. Out: an endpoint to set up further, and
//! the connector that opens its connections.

use crate::gathered::Gathered;
use coracle_daemon::tls::{self, Identity, TlsError};
use http::Uri;
use http::uri::Scheme;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::Endpoint;

/// A stream of bytes both ways.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Why a URL cannot be connected to.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    /// It is no `http` or `https` URL.
    #[error("{0} is no URL: write http://HOST:PORT or https://HOST:PORT")]
    Malformed(String),
    /// It is `https`, and there are no certificates to trust.
    #[error("{0} needs the CA certificate of the server")]
    Untrusted(String),
}

/// The client's side of gRPC over TLS.
///
/// # Errors
/// A file is unusable.
pub fn client_tls(ca: &Path, identity: Option<&Identity>) -> Result<Arc<ClientConfig>, TlsError> {
    tls::client(ca, identity, &[b"h2"])
}

/// Opens connections to one URL.
#[derive(Clone)]
pub struct Connector {
    tls: Option<TlsConnector>,
}

/// An endpoint and what opens its connections, which go without Nagle's delay.
///
/// # Errors
/// The URL is malformed, or `https` without TLS.
pub fn endpoint(url: &str, tls: Option<&Arc<ClientConfig>>) -> Result<(Endpoint, Connector), UrlError> {
    let malformed = || UrlError::Malformed(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| malformed())?;
    let tls = match (uri.scheme_str(), tls) {
        (Some("http"), _) => None,
        (Some("https"), Some(tls)) => Some(TlsConnector::from(tls.clone())),
        (Some("https"), None) => return Err(UrlError::Untrusted(url.to_owned())),
        _ => return Err(malformed()),
    };
    // The connector does TLS; tonic would insist on its own.
    let mut parts = uri.into_parts();
    parts.scheme = Some(Scheme::HTTP);
    let uri = Uri::from_parts(parts).map_err(|_| malformed())?;
    Ok((Endpoint::from(uri), Connector { tls }))
}

impl Connector {
    async fn open(self, uri: Uri) -> io::Result<Gathered<Box<dyn Stream>>> {
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let tcp = TcpStream::connect((host.as_str(), port)).await?;
        tcp.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Gathered::new(Box::new(tcp))) };
        let name =
            ServerName::try_from(host).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        Ok(Gathered::new(Box::new(tls.connect(name, tcp).await?)))
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Gathered<Box<dyn Stream>>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let opening = self.clone().open(uri);
        Box::pin(async move { opening.await.map(TokioIo::new) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_that_can_be_connected_to_are_taken() {
        for (url, complaint) in [
            ("http://h:1", None),
            ("http://[::1]:1/", None),
            ("https://h:1", Some("https://h:1 needs the CA certificate of the server")),
            ("h:1", Some("h:1 is no URL: write http://HOST:PORT or https://HOST:PORT")),
            ("unix:///x", Some("unix:///x is no URL: write http://HOST:PORT or https://HOST:PORT")),
            ("http://", Some("http:// is no URL: write http://HOST:PORT or https://HOST:PORT")),
        ] {
            let refused = endpoint(url, None).err().map(|error| error.to_string());
            assert_eq!(refused.as_deref(), complaint, "{url}");
        }
    }
}
