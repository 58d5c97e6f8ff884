//! The plain-HTTP health and metrics listener of a component without a listener of its own.
//!
//! `/healthz`, `/livez`, `/readyz` answer 200 `ok` or 503 with the failing checks; `/metrics` is OpenMetrics text.

use crate::Tasks;
use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use parking_lot::RwLock;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// Names of checks with what is wrong with each; `None` is healthy. Clones share state.
#[derive(Clone, Default)]
pub struct Health {
    checks: Arc<RwLock<BTreeMap<String, Option<String>>>>,
}

impl Health {
    /// Records that `check` holds.
    pub fn ok(&self, check: &str) {
        self.checks.write().insert(check.to_owned(), None);
    }

    /// Records that `check` fails, and why.
    pub fn failing(&self, check: &str, why: impl Into<String>) {
        self.checks.write().insert(check.to_owned(), Some(why.into()));
    }

    /// All failing checks, as `check: why`.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        let checks = self.checks.read();
        checks.iter().filter_map(|(check, why)| why.as_ref().map(|why| format!("{check}: {why}"))).collect()
    }
}

#[derive(Clone)]
struct Served {
    health: Health,
    metrics: Arc<Registry>,
}

/// Serves health and metrics on `listen` until the process stops. Returns the bound address.
///
/// # Errors
/// The address cannot be bound.
pub async fn serve(
    listen: SocketAddr,
    health: Health,
    metrics: Registry,
    tasks: &Tasks,
) -> anyhow::Result<SocketAddr> {
    let listener = tokio::net::TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen} for health checks"))?;
    let bound = listener.local_addr().context("cannot read the bound address")?;
    let app = Router::new()
        .route("/healthz", get(check))
        .route("/livez", get(check))
        .route("/readyz", get(check))
        .route("/metrics", get(show_metrics))
        .with_state(Served { health, metrics: Arc::new(metrics) });
    let stop = tasks.stopping();
    tasks.spawn("health listener", async move {
        axum::serve(listener, app)
            .with_graceful_shutdown(stop.cancelled_owned())
            .await
            .context("health listener failed")
    });
    Ok(bound)
}

async fn check(State(served): State<Served>) -> impl IntoResponse {
    let failures = served.health.failures();
    if failures.is_empty() {
        (StatusCode::OK, "ok".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, failures.join("\n"))
    }
}

async fn show_metrics(State(served): State<Served>) -> impl IntoResponse {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &served.metrics) {
        Ok(()) => (
            StatusCode::OK,
            [("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")],
            text,
        ),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [("content-type", "text/plain; charset=utf-8")],
            error.to_string(),
        ),
    }
}
