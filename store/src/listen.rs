//! Connections that a listener accepts, once they have agreed on keys where there is TLS.
//!
//! Invariants: handshakes are bounded in number and time, and one that fails or hangs holds back nobody else.

use coracle_daemon::tls::Acceptor;
use coracle_daemon::{Tasks, clock};
use prometheus_client::metrics::counter::Counter;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;

/// How long the other side may take to agree on keys.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// How many agree on keys at once; more wait.
const HANDSHAKES_MAX: usize = 256;
/// How long to wait when the process can open no more files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections that wait to be accepted; one more waits a second before it tries again. Linux bounds it further, at 4096.
const BACKLOG: u32 = 65_535;

/// Listens on the first of the addresses of `host:port` that can be bound.
///
/// # Errors
/// None can.
pub async fn bind(address: &str) -> io::Result<TcpListener> {
    let mut failed = None;
    for address in tokio::net::lookup_host(address).await? {
        match listen(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A member that comes back takes its address over from connections that are not quite gone.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The next connection. When the process can open no more files, those who come wait.
pub async fn next(listener: &TcpListener) -> (TcpStream, SocketAddr) {
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

/// Who comes over TLS: `begun` is called for each connection, and what it returns once both sides have agreed on keys.
pub fn secured<S, F>(
    listener: TcpListener,
    acceptor: Acceptor,
    failed: Counter,
    tasks: &Tasks,
    begun: impl Fn() -> F + Send + Sync + 'static,
) -> ReceiverStream<io::Result<S>>
where
    S: Send + 'static,
    F: FnOnce(TlsStream<TcpStream>) -> S + Send + 'static,
{
    let (ready, incoming) = mpsc::channel(HANDSHAKES_MAX);
    let (owner, stop, places) = (tasks.clone(), tasks.stopping(), Arc::new(Semaphore::new(HANDSHAKES_MAX)));
    tasks.spawn("TLS listener", async move {
        loop {
            let (stream, from) = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                accepted = next(&listener) => accepted,
            };
            // It is never closed.
            let Ok(place) = places.clone().acquire_owned().await else { return Ok(()) };
            let (acceptor, ready, failed, agreed) =
                (acceptor.clone(), ready.clone(), failed.clone(), begun());
            owner.run("TLS handshake", async move {
                let _place = place;
                match clock::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
                    // The server is gone when the process stops.
                    Ok(Ok(stream)) => return drop(ready.send(Ok(agreed(stream))).await),
                    Ok(Err(error)) => tracing::debug!(%from, %error, "no TLS connection came about"),
                    Err(_) => tracing::debug!(%from, "the other side took too long to agree on keys"),
                }
                failed.inc();
            });
        }
    });
    ReceiverStream::new(incoming)
}
