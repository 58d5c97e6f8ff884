//! The connection to the apiserver: one HTTP/2 connection per process, all requests and watches multiplexed on it.
//!
//! In: a kubeconfig file. Out: a [`kube::Client`] without client-side throttling. kube's own stack speaks HTTP/1.1
//! only, which costs a socket and a TLS session for each watch; this one offers `h2` first and falls back.
//! Its first request waits until the server is ready. Pings while requests are open notice an apiserver that died without closing its connection.

use crate::ready::WhenReady;
use coracle_daemon::tls::Identity;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kube::client::ConfigExt;
use kube::config::{KubeConfigOptions, Kubeconfig};
use rustls::pki_types::ServerName;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long a quiet connection with open requests goes unprobed.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// How long a probe may take before the connection counts as dead.
const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// How long connecting and the TLS handshake may take together.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Bytes the server may send ahead on one stream, and on all together.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig cannot be read or names something that it lacks.
    #[error("cannot use the kubeconfig {}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: kube::config::KubeconfigError,
    },
    /// Its certificates or credentials do not fit.
    #[error("cannot set up TLS from the kubeconfig {}", path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The name is no legal header value.
    #[error("`{0}` cannot be a User-Agent")]
    UserAgent(String),
}

/// A client for the kubeconfig's current context. Nothing is sent yet; the first request waits for a server that is ready.
///
/// # Errors
/// The kubeconfig is unreadable, incomplete, or its certificates are unusable.
pub async fn connect(kubeconfig: &Path, user_agent: &str) -> Result<kube::Client, ConnectError> {
    let path = || kubeconfig.to_owned();
    let parsed = Kubeconfig::read_from(kubeconfig)
        .map_err(|source| ConnectError::Kubeconfig { path: path(), source })?;
    let mut config = kube::Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default())
        .await
        .map_err(|source| ConnectError::Kubeconfig { path: path(), source })?;
    let agent = user_agent.parse().map_err(|_| ConnectError::UserAgent(user_agent.to_owned()))?;
    config.headers.push((http::header::USER_AGENT, agent));
    build(&config).map_err(|source| ConnectError::Tls { path: path(), source })
}

fn build(config: &kube::Config) -> Result<kube::Client, Box<dyn std::error::Error + Send + Sync>> {
    let mut tls = config.rustls_client_config()?;
    // Files may be replaced while this process runs.
    if let (Some(cert), Some(key)) = (&config.auth_info.client_certificate, &config.auth_info.client_key) {
        let identity = Identity { cert: cert.into(), key: key.into() };
        tls.client_auth_cert_resolver = coracle_daemon::tls::shown(&identity)?;
    }
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let connector = Connector { tls: Arc::new(tls).into(), server_name: config.tls_server_name.clone() };
    let http = hyper_util::client::legacy::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
        .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .build::<_, kube::client::Body>(connector);
    let service = tower::ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(tower::BoxError::from)
        .service(http);
    Ok(kube::Client::new(WhenReady::new(service), config.default_namespace.clone()))
}

/// Opens TCP, and TLS for `https`.
#[derive(Clone)]
struct Connector {
    tls: TlsConnector,
    server_name: Option<String>,
}

impl tower::Service<http::Uri> for Connector {
    type Response = Transport;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Transport>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: http::Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            coracle_daemon::clock::timeout(CONNECT_MAX, this.open(&uri)).await.unwrap_or_else(|_| {
                Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no connection to {uri} in {CONNECT_MAX:?}"),
                ))
            })
        })
    }
}

impl Connector {
    async fn open(&self, uri: &http::Uri) -> io::Result<Transport> {
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let secure = uri.scheme_str() != Some("http");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let tcp = TcpStream::connect((host, port)).await?;
        // Small requests must not wait for acknowledgements of earlier ones.
        tcp.set_nodelay(true)?;
        if !secure {
            return Ok(Transport { io: TokioIo::new(Box::new(tcp)), h2: false });
        }
        let name = self.server_name.clone().unwrap_or_else(|| host.to_owned());
        let name =
            ServerName::try_from(name).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let stream = self.tls.connect(name, tcp).await?;
        let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Transport { io: TokioIo::new(Box::new(stream)), h2 })
    }
}

trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// An open connection that knows which HTTP was agreed.
struct Transport {
    io: TokioIo<Box<dyn ByteStream>>,
    h2: bool,
}

impl Connection for Transport {
    fn connected(&self) -> Connected {
        if self.h2 { Connected::new().negotiated_h2() } else { Connected::new() }
    }
}

impl Read for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buf)
    }
}

impl Write for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
