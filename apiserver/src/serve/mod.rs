//! Listening: TLS with ALPN, HTTP/1.1 and HTTP/2, upgrades, and a stop that lets running requests end.

mod args;
pub mod drain;
pub mod pipeline;

pub use args::{ServingArgs, names};

use crate::Server;
use crate::audit::Remote;
use crate::http::lenient::Lenient;
use crate::http::{contained, leftover};
use coracle_daemon::Tasks;
use coracle_daemon::tls::Acceptor;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::server::TlsStream;

const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// How long a client may take to begin its first request.
const FIRST_MAX: Duration = Duration::from_secs(32);
/// Requests at once on a connection, where no flag says how many.
const STREAMS_MAX: u32 = 1000;
/// A chance is this fine.
const CHANCES: f64 = 1e9;
/// Pause after a failed accept, which mostly means that files have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until the server is asked to stop serving.
pub async fn listen(server: Arc<Server>, listener: TcpListener, acceptor: Acceptor) -> anyhow::Result<()> {
    let tasks = server.serving.clone();
    let stop = tasks.stopping();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return Ok(()),
        };
        match accepted {
            Ok((stream, from)) => {
                let work = connection(server.clone(), stream, from, acceptor.clone(), tasks.clone());
                tasks.run("connection", contained::connection(work));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                coracle_daemon::clock::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(
    server: Arc<Server>,
    stream: TcpStream,
    from: SocketAddr,
    acceptor: Acceptor,
    tasks: Tasks,
) {
    // Without it small answers wait for acknowledgements.
    let _ = stream.set_nodelay(true);
    let Some(stream) = agreed(stream, &acceptor).await else {
        server.metrics.access.unagreed.inc();
        return;
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let peer = server.authentication.peer(certificates.unwrap_or_default());
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let stream = Lenient::new(stream, http2);
    let first = Arc::new(Notify::new());
    let asked = first.clone();
    let leaves = Arc::new(Notify::new());
    let streams = server.streams_max;
    let (leave, chance) = (leaves.clone(), if http2 { server.goaway_chance } else { 0.0 });
    let service = service_fn(move |mut request: Request<Incoming>| {
        asked.notify_one();
        if is_drawn(chance) {
            leave.notify_one();
        }
        if server.audit.is_some() {
            request.extensions_mut().insert(Remote(from.ip()));
        }
        let (server, peer) = (server.clone(), peer.clone());
        async move {
            let (request, left) = leftover::lend(request);
            let response = pipeline::answer(&server, &peer, request).await;
            leftover::settle(left).await;
            Ok::<_, Infallible>(response)
        }
    });
    let mut builder = Builder::new(contained::Streams::default());
    builder.http1().timer(TokioTimer::new()).max_buf_size(1 << 20);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(if streams == 0 { STREAMS_MAX } else { streams })
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .keep_alive_interval(Some(Duration::from_secs(30)));
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let stop = tasks.stopping();
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        // What runs is finished; the client connects anew for what follows.
        () = leaves.notified() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = silent(&first) => return tracing::debug!("no request came in time"),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

/// A connection with keys; `None` where none were agreed on in time.
async fn agreed(stream: TcpStream, acceptor: &Acceptor) -> Option<TlsStream<TcpStream>> {
    match tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => tracing::debug!("TLS handshake took too long"),
    }
    None
}

/// Whether one of so many is this one.
fn is_drawn(chance: f64) -> bool {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small part of a whole")]
    let drawn = (chance * CHANCES) as u64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number")]
    let all = CHANCES as u64;
    drawn > 0 && coracle_daemon::random::below(all) < drawn
}

/// Returns when no request has begun in time.
async fn silent(first: &Notify) {
    if tokio::time::timeout(FIRST_MAX, first.notified()).await.is_ok() {
        std::future::pending::<()>().await;
    }
}
