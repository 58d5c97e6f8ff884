//! Starting a member as the flags say: certificates, addresses, and its part in the cluster.

use super::identity::{Identity, refuse_second_bootstrap};
use super::node::Node;
use super::open::open;
use super::{NodeConfig, StartError, serve};
use crate::shared::Shared;
use crate::{Args, listen};
use coracle_daemon::Tasks;
use coracle_daemon::tls::{self, Acceptor, ClientAuth, TlsError};
use coracle_etcd::channel::client_tls;
use coracle_etcd::gathered::Gathered;
use futures::Stream;
use rustls::ClientConfig;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::Connected;

/// Starts replication as the flags say: opens the data, listens to other members, and takes part.
///
/// # Errors
/// Flags contradict each other, the data is unusable, or an address cannot be bound.
pub async fn start(args: &Args, shared: Arc<Shared>, tasks: &Tasks) -> Result<Arc<Node>, StartError> {
    let config = NodeConfig::from_args(args)?;
    let (server_tls, client_tls) = peer_tls(args)?;
    if Identity::load(&config.data)?.is_none() {
        config.check_first_start()?;
        if !config.joins {
            refuse_second_bootstrap(&config, client_tls.as_ref()).await?;
        }
    }
    let mut listeners = Vec::new();
    for url in &args.listen_peer_urls {
        listeners.push((url.starts_with("https://"), bind(url).await?));
    }
    let node = open(config, None, client_tls, shared, tasks).await?;
    for (secure, listener) in listeners {
        let tls = server_tls.clone().filter(|_| secure);
        if secure && tls.is_none() {
            return Err(StartError::Flags(
                "--listen-peer-urls has https:// but there is no --peer-cert-file".to_owned(),
            ));
        }
        serve_peers(&node, listener, tls, tasks);
    }
    Ok(node)
}

async fn bind(url: &str) -> Result<TcpListener, StartError> {
    let address = url.split_once("://").map_or(url, |(_, rest)| rest).trim_end_matches('/');
    listen::bind(address).await.map_err(|source| StartError::Listen { url: url.to_owned(), source })
}

/// Serves other members on `listener`.
pub(super) fn serve_peers(node: &Arc<Node>, listener: TcpListener, tls: Option<Acceptor>, tasks: &Tasks) {
    match tls {
        None => {
            let incoming = futures::stream::unfold(listener, async |listener| {
                let (stream, _) = listen::next(&listener).await;
                Some((Ok::<_, std::io::Error>(Gathered::new(stream)), listener))
            });
            serve_incoming(node, incoming, tasks);
        }
        Some(tls) => {
            let failed = node.metrics().peer_handshakes_failed.clone();
            serve_incoming(node, listen::secured(listener, tls, failed, tasks, || Gathered::new), tasks);
        }
    }
}

/// Serves other members on connections that `incoming` accepted.
pub(super) fn serve_incoming<I, C>(node: &Arc<Node>, incoming: I, tasks: &Tasks)
where
    I: Stream<Item = std::io::Result<C>> + Send + 'static,
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let serving = Server::builder()
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .http2_keepalive_interval(Some(Duration::from_secs(10)));
    let service = serve::service(node.clone());
    let stop = tasks.stopping();
    tasks.spawn("peer server", async move {
        serving.serve_with_incoming_shutdown(service, incoming, stop.cancelled_owned()).await?;
        Ok(())
    });
}

/// Both sides of TLS between members, as far as there are files for them.
fn peer_tls(args: &Args) -> Result<(Option<Acceptor>, Option<Arc<ClientConfig>>), TlsError> {
    let identity = match (&args.peer_cert_file, &args.peer_key_file) {
        (Some(cert), Some(key)) => Some(tls::Identity { cert: cert.clone(), key: key.clone() }),
        _ => None,
    };
    let authorities: Vec<&Path> = args.peer_trusted_ca_file.as_deref().into_iter().collect();
    let auth = if args.peer_client_cert_auth { ClientAuth::Required } else { ClientAuth::Optional };
    let clients = (!authorities.is_empty()).then_some((&authorities[..], auth));
    let server = identity.as_ref().map(|identity| tls::server(identity, clients, &[b"h2"])).transpose()?;
    let client = authorities.first().map(|authority| client_tls(authority, identity.as_ref())).transpose()?;
    Ok((server, client))
}
