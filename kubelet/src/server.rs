//! The HTTPS server of the kubelet: health, the list of pods, figures, and what clients do inside containers.
//!
//! Only the apiserver and administrators may ask: a client must show a certificate of our CA that names one of them.

mod identity;

use crate::args::Args;
use crate::streaming::{self, Streaming};
use anyhow::{Context, Result};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use coracle_client::Store;
use coracle_daemon::tls::{self, ClientAuth, Identity};
use coracle_daemon::{Tasks, clock};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use identity::Client;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// How long a client may take to agree on TLS.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Connections served at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 512;

/// Binds and serves until the process stops.
///
/// # Errors
/// The certificates or the address cannot be used.
pub async fn start(args: &Args, pods: Store<Pod>, streaming: Streaming, tasks: &Tasks) -> Result<()> {
    let identity = Identity { cert: args.tls_cert_file.clone(), key: args.tls_private_key_file.clone() };
    let authorities = [args.client_ca_file.as_path()];
    let clients = Some((&authorities[..], ClientAuth::Required));
    let acceptor =
        tls::server(&identity, clients, &[b"http/1.1"]).context("cannot set up the kubelet's TLS")?;
    let listen = SocketAddr::new(args.address, args.port);
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let app = router(pods, streaming);
    let owner = tasks.clone();
    tasks.spawn("kubelet's server", async move {
        accept(&listener, &acceptor, &app, &owner).await;
        Ok(())
    });
    Ok(())
}

fn router(pods: Store<Pod>, streaming: Streaming) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/pods", get(list))
        .route("/metrics", get(metrics))
        .with_state(pods)
        .merge(streaming::router(streaming))
        .layer(middleware::from_fn(authorize))
}

/// Lets nobody through but the apiserver and administrators.
async fn authorize(Extension(client): Extension<Client>, request: Request, next: Next) -> Response {
    if client.may_ask() {
        return next.run(request).await;
    }
    let path = request.uri().path();
    let text = format!("Forbidden (user={}, verb={}, path={path})", client.name, request.method());
    (StatusCode::FORBIDDEN, text).into_response()
}

async fn accept(listener: &TcpListener, acceptor: &tls::Acceptor, app: &Router, tasks: &Tasks) {
    let (stop, slots) = (tasks.stopping(), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let (acceptor, app, stop) = (acceptor.clone(), app.clone(), stop.clone());
        match accepted {
            Ok((stream, peer)) => tasks.run(format!("connection of {peer}"), async move {
                let _slot = slot;
                stop.run_until_cancelled(serve(stream, acceptor, app)).await;
            }),
            Err(error) => {
                // Most often out of file descriptors: a pause lets connections end.
                tracing::warn!(%error, "cannot accept");
                clock::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, acceptor: tls::Acceptor, app: Router) {
    // Keystrokes must not wait for acknowledgements; a socket that cannot be told so still works.
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = clock::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await else { return };
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let client = certificates.first().map(|certificate| Client::of(certificate)).unwrap_or_default();
    let app = app.layer(Extension(client));
    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_MAX);
    let service = TowerToHyperService::new(app);
    if let Err(error) = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
        tracing::debug!(error, "connection broke off");
    }
}

async fn list(State(pods): State<Store<Pod>>) -> Response {
    let items = pods.list();
    Json(json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items })).into_response()
}

/// A few figures, named as upstream names them.
async fn metrics(State(pods): State<Store<Pod>>) -> String {
    let (mut running, mut restarts) = (BTreeMap::<&str, u64>::new(), 0_i64);
    let pods = pods.list();
    for status in pods.iter().filter_map(|pod| pod.status.as_ref()) {
        for container in status.container_statuses.iter().flatten() {
            let state = container.state.as_ref();
            let state = match state {
                Some(state) if state.running.is_some() => "running",
                Some(state) if state.terminated.is_some() => "exited",
                _ => "created",
            };
            *running.entry(state).or_default() += 1;
            restarts += i64::from(container.restart_count);
        }
    }
    let up = pods.iter().filter(|pod| crate::step::phase_of(pod) == "Running").count();
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(out, "# TYPE kubelet_running_pods gauge\nkubelet_running_pods {up}");
    let _ = writeln!(out, "# TYPE kubelet_running_containers gauge");
    for (state, count) in running {
        let _ = writeln!(out, "kubelet_running_containers{{container_state=\"{state}\"}} {count}");
    }
    let _ = writeln!(out, "# TYPE kubelet_container_restarts gauge\nkubelet_container_restarts {restarts}");
    out
}
