//! Addresses to listen on, with TLS or without, and connections from them.

use crate::Args;
use anyhow::{Context, bail};
use coracle_daemon::tls::{self, ClientAuth, Identity};
use coracle_daemon::{Tasks, clock};
use rustls::ServerConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

/// How long a client may take to agree on keys.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Clients that agree on keys at once; more wait.
const HANDSHAKES_MAX: usize = 256;
/// How long to wait when the process can open no more files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
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
        let listener = TcpListener::bind(address.trim_end_matches('/')).await?;
        Ok(Self { address: listener.local_addr()?, listener, tls })
    }

    /// Serves until the process stops.
    pub fn serve(self, routes: Routes, args: &Args, tasks: &Tasks) {
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
                let incoming = TcpIncoming::from(self.listener).with_nodelay(Some(true));
                tasks.spawn("client server", async move {
                    Ok(server.serve_with_incoming_shutdown(incoming, stopped).await?)
                });
            }
            Some(tls) => {
                let (ready, incoming) = mpsc::channel(HANDSHAKES_MAX);
                let (accepting, listener) = (tasks.clone(), self.listener);
                tasks.spawn("client listener", async move {
                    accept(&listener, &TlsAcceptor::from(tls), &ready, &accepting, stop).await;
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

fn client_tls(args: &Args) -> anyhow::Result<Arc<ServerConfig>> {
    let (Some(cert), Some(key)) = (&args.cert_file, &args.key_file) else {
        bail!("https:// needs --cert-file and --key-file");
    };
    let identity = Identity { cert: cert.clone(), key: key.clone() };
    let auth = if args.client_cert_auth { ClientAuth::Required } else { ClientAuth::Optional };
    let clients = args.trusted_ca_file.as_deref().map(|ca| (ca, auth));
    Ok(tls::server(&identity, clients, &[b"h2", b"http/1.1"])?)
}

/// Hands over connections that have agreed on keys.
async fn accept(
    listener: &TcpListener,
    tls: &TlsAcceptor,
    ready: &mpsc::Sender<std::io::Result<TlsStream<TcpStream>>>,
    tasks: &Tasks,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection");
                clock::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // It is never closed.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (tls, ready) = (tls.clone(), ready.clone());
        tasks.run("client handshake", async move {
            let _place = place;
            // Without it answers wait for acknowledgements of earlier ones; it is only slower then.
            let _ = stream.set_nodelay(true);
            match clock::timeout(HANDSHAKE_MAX, tls.accept(stream)).await {
                // The server is gone when the process stops.
                Ok(Ok(stream)) => drop(ready.send(Ok(stream)).await),
                Ok(Err(error)) => tracing::debug!(%from, %error, "no TLS connection came about"),
                Err(_) => tracing::debug!(%from, "the client took too long to agree on keys"),
            }
        });
    }
}
