//! The HTTPS server of the kubelet: health and the list of pods. Clients must show a certificate of our CA.

use crate::args::Args;
use anyhow::{Context, Result};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use coracle_client::Store;
use coracle_daemon::tls::{self, ClientAuth, Identity};
use coracle_daemon::{Tasks, clock};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

/// How long a client may take to agree on TLS.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Connections served at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 512;

/// Binds and serves until the process stops.
///
/// # Errors
/// The certificates or the address cannot be used.
pub async fn start(args: &Args, pods: Store<Pod>, tasks: &Tasks) -> Result<()> {
    let identity = Identity { cert: args.tls_cert_file.clone(), key: args.tls_private_key_file.clone() };
    let clients = Some((args.client_ca_file.as_path(), ClientAuth::Required));
    let config =
        tls::server(&identity, clients, &[b"http/1.1"]).context("cannot set up the kubelet's TLS")?;
    let listen = SocketAddr::new(args.address, args.port);
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let app = router(pods);
    let owner = tasks.clone();
    tasks.spawn("kubelet's server", async move {
        accept(&listener, &TlsAcceptor::from(config), &app, &owner).await;
        Ok(())
    });
    Ok(())
}

fn router(pods: Store<Pod>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/pods", get(list))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs))
        .route("/exec/{*rest}", any(without_containers))
        .route("/attach/{*rest}", any(without_containers))
        .route("/portForward/{*rest}", any(without_containers))
        .with_state(pods)
}

async fn accept(listener: &TcpListener, acceptor: &TlsAcceptor, app: &Router, tasks: &Tasks) {
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

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, app: Router) {
    let Ok(Ok(stream)) = clock::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await else { return };
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

async fn logs(
    State(pods): State<Store<Pod>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
) -> Response {
    let known = pods.get(&coracle_client::Key::new(namespace, pod.clone()));
    let spec = known.as_ref().and_then(|pod| pod.spec.as_ref());
    let containers =
        spec.into_iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    match spec {
        None => (StatusCode::NOT_FOUND, format!("pod {pod:?} not found")).into_response(),
        Some(_) if containers.into_iter().any(|known| known.name == container) => {
            String::new().into_response()
        }
        Some(_) => (StatusCode::BAD_REQUEST, format!("container {container} is not valid for pod {pod}"))
            .into_response(),
    }
}

async fn without_containers() -> Response {
    (StatusCode::NOT_IMPLEMENTED, "this node is simulated: its pods have no containers to enter")
        .into_response()
}
