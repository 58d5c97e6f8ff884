//! The pages beside gRPC: `/health`, `/livez`, `/readyz`, `/version` and `/metrics`.

use super::metrics::Metrics;
use super::{Api, CLUSTER_VERSION, VERSION};
use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use coracle_daemon::clock;
use coracle_etcd::proto::AlarmType;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::time::Duration;

/// How long a health check may wait for a majority.
const CHECK_MAX: Duration = Duration::from_secs(5);
/// The pages' content type, as Prometheus wants it.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What pages are made of.
pub(super) struct Pages {
    api: Api,
    metrics: Metrics,
    registry: Registry,
}

impl Pages {
    pub fn new(api: Api, metrics: Metrics, mut registry: Registry) -> Arc<Self> {
        Metrics::register_counts(&api.counts, &mut registry);
        Arc::new(Self { api, metrics, registry })
    }

    /// Why this member is not healthy, in etcd's words.
    async fn sickness(&self, query: &[(String, String)]) -> Option<String> {
        let asked = |name: &str, value: &str| query.iter().any(|(n, v)| n == name && v == value);
        for alarm in [AlarmType::Nospace, AlarmType::Corrupt] {
            let name = alarm.as_str_name();
            if self.api.shared.machine().has_alarm(alarm) && !asked("exclude", name) {
                return Some(format!("ALARM {name}"));
            }
        }
        if asked("serializable", "true") {
            return None;
        }
        if self.api.leadership().leader == 0 {
            return Some("RAFT NO LEADER".to_owned());
        }
        match clock::timeout(CHECK_MAX, self.api.barrier()).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("QGET ERROR:{error}")),
            Err(_) => Some("QGET ERROR:timed out".to_owned()),
        }
    }
}

/// All pages as a router.
pub(super) fn router(pages: Arc<Pages>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/version", get(version))
        .route("/metrics", get(metrics))
        .with_state(pages)
}

fn json(status: StatusCode, body: &serde_json::Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

async fn health(State(pages): State<Arc<Pages>>, Query(query): Query<Vec<(String, String)>>) -> Response {
    match pages.sickness(&query).await {
        None => json(StatusCode::OK, &serde_json::json!({"health": "true", "reason": ""})),
        Some(reason) => {
            json(StatusCode::SERVICE_UNAVAILABLE, &serde_json::json!({"health": "false", "reason": reason}))
        }
    }
}

async fn livez() -> &'static str {
    "ok\n"
}

async fn readyz(State(pages): State<Arc<Pages>>, Query(query): Query<Vec<(String, String)>>) -> Response {
    match pages.sickness(&query).await {
        None => "ok\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn version() -> Response {
    json(StatusCode::OK, &serde_json::json!({"etcdserver": VERSION, "etcdcluster": CLUSTER_VERSION}))
}

async fn metrics(State(pages): State<Arc<Pages>>) -> Response {
    let told = tokio::task::spawn_blocking(move || {
        pages.metrics.update(&pages.api);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &pages.registry).map(|()| text)
    });
    match told.await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
