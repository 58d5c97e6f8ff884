//! Addresses to listen on, with TLS or without, and connections from them.

use super::authority::{Lenient, Open};
use super::metrics::Counts;
use crate::Args;
use anyhow::{Context, bail};
use coracle_daemon::tls::{self, ClientAuth, Identity};
use coracle_daemon::{Tasks, clock};
use rustls::ServerConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;

/// How long a client may take to agree on keys.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Clients that agree on keys at once; more wait.
const HANDSHAKES_MAX: usize = 256;
/// How long to wait when the process can open no more files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections that wait to be accepted; one more waits a second before it tries again. Linux bounds it further, at 4096.
const BACKLOG: u32 = 65_535;
/// Bytes that a client may send on one request, and on a connection, before this side has read them.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// A bound address.
pub(super) struct Listener {
    /// As it was bound.
    pub address: SocketAddr,
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
}

impl Listener {
    /// Binds all of these URLs.
    pub async fn bind_all(urls: &[String], args: &Args) -> anyhow::Result<Vec<Self>> {
        let mut all = Vec::new();
        for url in urls.iter().filter(|url| !url.is_empty()) {
            all.push(Self::bind(url, args).await.with_context(|| format!("cannot listen on {url}"))?);
        }
        Ok(all)
    }

    async fn bind(url: &str, args: &Args) -> anyhow::Result<Self> {
        let (scheme, address) = url.split_once("://").context("it is no URL: write http://HOST:PORT")?;
        let tls = match scheme {
            "http" => None,
            "https" => Some(client_tls(args)?),
            _ => bail!("its scheme is neither http nor https"),
        };
        let mut failed = None;
        for address in tokio::net::lookup_host(address.trim_end_matches('/')).await? {
            match listen(address) {
                Ok(listener) => return Ok(Self { address: listener.local_addr()?, listener, tls }),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| std::io::ErrorKind::AddrNotAvailable.into()).into())
    }

    /// Serves until the process stops.
    pub fn serve(self, routes: Routes, args: &Args, counts: &Counts, tasks: &Tasks) {
        let (ping, pong) = (args.grpc_keepalive_interval, args.grpc_keepalive_timeout);
        let server = Server::builder()
            .accept_http1(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(args.max_concurrent_streams)
            .http2_keepalive_interval((!ping.is_zero()).then_some(ping))
            .http2_keepalive_timeout(Some(pong))
            .add_routes(routes);
        let stop = tasks.stopping();
        let stopped = stop.clone().cancelled_owned();
        match self.tls {
            None => {
                let connections = counts.connections.clone();
                let incoming = futures::stream::unfold(self.listener, move |listener| {
                    let connections = connections.clone();
                    async move {
                        let (stream, _) = next(&listener).await;
                        let open = Open::new(&connections);
                        Some((Ok::<_, std::io::Error>(Lenient::new(stream, open)), listener))
                    }
                });
                tasks.spawn("client server", async move {
                    Ok(server.serve_with_incoming_shutdown(incoming, stopped).await?)
                });
            }
            Some(tls) => {
                let (ready, incoming) = mpsc::channel(HANDSHAKES_MAX);
                let (accepting, listener, counts) = (tasks.clone(), self.listener, counts.clone());
                tasks.spawn("client listener", async move {
                    accept(&listener, &TlsAcceptor::from(tls), &ready, &counts, &accepting, stop).await;
                    Ok(())
                });
                tasks.spawn("client server", async move {
                    let incoming = ReceiverStream::new(incoming);
                    Ok(server.serve_with_incoming_shutdown(incoming, stopped).await?)
                });
            }
        }
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A member that comes back takes its address over from connections that are not quite gone.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn client_tls(args: &Args) -> anyhow::Result<Arc<ServerConfig>> {
    let (Some(cert), Some(key)) = (&args.cert_file, &args.key_file) else {
        bail!("https:// needs --cert-file and --key-file");
    };
    let identity = Identity { cert: cert.clone(), key: key.clone() };
    let auth = if args.client_cert_auth { ClientAuth::Required } else { ClientAuth::Optional };
    let clients = args.trusted_ca_file.as_deref().map(|ca| (ca, auth));
    Ok(tls::server(&identity, clients, &[b"h2", b"http/1.1"])?)
}

/// The next connection. When the process can open no more files, those who come wait.
async fn next(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                // Without it answers wait for acknowledgements of earlier ones; it is only slower then.
                let _ = stream.set_nodelay(true);
                return (stream, from);
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection");
                clock::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Hands over connections that have agreed on keys.
async fn accept(
    listener: &TcpListener,
    tls: &TlsAcceptor,
    ready: &mpsc::Sender<std::io::Result<Lenient<TlsStream<TcpStream>>>>,
    counts: &Counts,
    tasks: &Tasks,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let (stream, from) = tokio::select! {
            () = stop.cancelled() => return,
            accepted = next(listener) => accepted,
        };
        // It is never closed.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (tls, ready, failed) = (tls.clone(), ready.clone(), counts.handshakes_failed.clone());
        let open = Open::new(&counts.connections);
        tasks.run("client handshake", async move {
            let _place = place;
            match clock::timeout(HANDSHAKE_MAX, tls.accept(stream)).await {
                // The server is gone when the process stops.
                Ok(Ok(stream)) => {
                    drop(ready.send(Ok(Lenient::new(stream, open))).await);
                    return;
                }
                Ok(Err(error)) => tracing::debug!(%from, %error, "no TLS connection came about"),
                Err(_) => tracing::debug!(%from, "the client took too long to agree on keys"),
            }
            failed.inc();
        });
    }
}
