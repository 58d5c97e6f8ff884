//! Starting a member as the flags say: certificates, addresses, and its part in the cluster.

use super::identity::{Identity, refuse_second_bootstrap};
use super::node::Node;
use super::open::open;
use super::{NodeConfig, StartError, serve};
use crate::Args;
use crate::shared::Shared;
use coracle_daemon::Tasks;
use futures::Stream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tonic::transport::server::{Connected, TcpIncoming};
use tonic::transport::{Certificate, ClientTlsConfig, Server, ServerTlsConfig};

/// Starts replication as the flags say: opens the data, listens to other members, and takes part.
///
/// # Errors
/// Flags contradict each other, the data is unusable, or an address cannot be bound.
pub async fn start(args: &Args, shared: Arc<Shared>, tasks: &Tasks) -> Result<Arc<Node>, StartError> {
    let config = NodeConfig::from_args(args)?;
    let (server_tls, client_tls) = peer_tls(args).await?;
    if Identity::load(&config.data)?.is_none() {
        config.check_first_start()?;
        if !config.joins {
            refuse_second_bootstrap(&config, client_tls.as_ref()).await?;
        }
    }
    let mut listeners = Vec::new();
    for url in &args.listen_peer_urls {
        listeners.push((url.starts_with("https://"), listen(url).await?));
    }
    let node = open(config, None, client_tls, shared, tasks).await?;
    for (secure, listener) in listeners {
        let tls = server_tls.clone().filter(|_| secure);
        if secure && tls.is_none() {
            return Err(StartError::Flags(
                "--listen-peer-urls has https:// but there is no --peer-cert-file".to_owned(),
            ));
        }
        serve_peers(&node, listener, tls, tasks)?;
    }
    Ok(node)
}

async fn listen(url: &str) -> Result<TcpListener, StartError> {
    let address = url.split_once("://").map_or(url, |(_, rest)| rest).trim_end_matches('/');
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { url: url.to_owned(), source })
}

/// Serves other members on `listener`.
pub(super) fn serve_peers(
    node: &Arc<Node>,
    listener: TcpListener,
    tls: Option<ServerTlsConfig>,
    tasks: &Tasks,
) -> Result<(), StartError> {
    serve_incoming(node, TcpIncoming::from(listener).with_nodelay(Some(true)), tls, tasks)
}

/// Serves other members on connections that `incoming` accepted.
pub(super) fn serve_incoming<I, C>(
    node: &Arc<Node>,
    incoming: I,
    tls: Option<ServerTlsConfig>,
    tasks: &Tasks,
) -> Result<(), StartError>
where
    I: Stream<Item = std::io::Result<C>> + Send + 'static,
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let mut server = Server::builder()
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .http2_keepalive_interval(Some(Duration::from_secs(10)));
    if let Some(tls) = tls {
        server = server.tls_config(tls).map_err(StartError::Tls)?;
    }
    let serving = server.add_service(serve::service(node.clone()));
    let stop = tasks.stopping();
    tasks.spawn("peer server", async move {
        serving.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await?;
        Ok(())
    });
    Ok(())
}

async fn peer_tls(args: &Args) -> Result<(Option<ServerTlsConfig>, Option<ClientTlsConfig>), StartError> {
    let read = async |path: &PathBuf| {
        let bytes = tokio::fs::read(path).await;
        bytes.map_err(|source| StartError::Certificate { path: path.clone(), source })
    };
    let identity = match (&args.peer_cert_file, &args.peer_key_file) {
        (Some(cert), Some(key)) => {
            Some(tonic::transport::Identity::from_pem(read(cert).await?, read(key).await?))
        }
        _ => None,
    };
    let authority = match &args.peer_trusted_ca_file {
        Some(ca) => Some(Certificate::from_pem(read(ca).await?)),
        None => None,
    };
    let server = identity.clone().map(|identity| {
        let server = ServerTlsConfig::new().identity(identity);
        match (&authority, args.peer_client_cert_auth) {
            (Some(ca), must) => server.client_ca_root(ca.clone()).client_auth_optional(!must),
            (None, _) => server,
        }
    });
    let client = authority.map(|ca| {
        let client = ClientTlsConfig::new().ca_certificate(ca);
        match identity {
            Some(identity) => client.identity(identity),
            None => client,
        }
    });
    Ok((server, client))
}
