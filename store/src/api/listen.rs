//! Addresses to listen on, with TLS or without, and connections from them.

use super::authority::{Lenient, Open};
use super::metrics::Counts;
use crate::{Args, listen};
use anyhow::{Context, bail};
use coracle_daemon::Tasks;
use coracle_daemon::tls::{self, Acceptor, ClientAuth, Identity};
use coracle_etcd::gathered::Gathered;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::transport::Server;
use tower::Service;

/// Bytes that a client may send on one request, and on a connection, before this side has read them.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// A bound address.
pub(super) struct Listener {
    /// As it was bound.
    pub address: SocketAddr,
    listener: TcpListener,
    tls: Option<Acceptor>,
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
        let listener = listen::bind(address.trim_end_matches('/')).await?;
        Ok(Self { address: listener.local_addr()?, listener, tls })
    }

    /// Serves until the process stops.
    pub fn serve<S>(self, services: S, args: &Args, counts: &Counts, tasks: &Tasks)
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
    {
        let (ping, pong) = (args.grpc_keepalive_interval, args.grpc_keepalive_timeout);
        let server = Server::builder()
            .accept_http1(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(args.max_concurrent_streams)
            .http2_keepalive_interval((!ping.is_zero()).then_some(ping))
            .http2_keepalive_timeout(Some(pong));
        let stopped = tasks.stopping().cancelled_owned();
        match self.tls {
            None => {
                let connections = counts.connections.clone();
                let incoming = futures::stream::unfold(self.listener, move |listener| {
                    let connections = connections.clone();
                    async move {
                        let (stream, _) = listen::next(&listener).await;
                        let open = Open::new(&connections);
                        Some((Ok::<_, std::io::Error>(Lenient::new(Gathered::new(stream), open)), listener))
                    }
                });
                tasks.spawn("client server", async move {
                    Ok(server.serve_with_incoming_shutdown(services, incoming, stopped).await?)
                });
            }
            Some(tls) => {
                let (connections, failed) = (counts.connections.clone(), counts.handshakes_failed.clone());
                let incoming = listen::secured(self.listener, tls, failed, tasks, move || {
                    let open = Open::new(&connections);
                    move |stream| Lenient::new(Gathered::new(stream), open)
                });
                tasks.spawn("client server", async move {
                    Ok(server.serve_with_incoming_shutdown(services, incoming, stopped).await?)
                });
            }
        }
    }
}

fn client_tls(args: &Args) -> anyhow::Result<Acceptor> {
    let (Some(cert), Some(key)) = (&args.cert_file, &args.key_file) else {
        bail!("https:// needs --cert-file and --key-file");
    };
    let identity = Identity { cert: cert.clone(), key: key.clone() };
    let auth = if args.client_cert_auth { ClientAuth::Required } else { ClientAuth::Optional };
    let authorities: Vec<&Path> = args.trusted_ca_file.as_deref().into_iter().collect();
    let clients = (!authorities.is_empty()).then_some((&authorities[..], auth));
    Ok(tls::server(&identity, clients, &[b"h2", b"http/1.1"])?)
}
