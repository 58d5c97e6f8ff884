//! Paths that are no resources: health, version, metrics, discovery, OpenAPI, and the keys of ServiceAccount tokens.

pub mod debug;
pub mod health;
pub mod metrics;
mod schema;

use crate::Server;
use crate::http::negotiate;
use crate::http::request_info::Pairs;
use crate::http::respond::{failure, no_such_path, plain};
use crate::request::RequestInfo;
use crate::storage::encode::{self, Format};
use axum::body::Body;
use coracle_api::status::Status;
use http::header::ACCEPT;
use http::{HeaderMap, Response};
use serde_json::{Value, json};
use std::sync::Arc;

/// The version that clients are told.
pub const VERSION: &str = "v1.33.6+coracle";

/// What `/` lists.
const PATHS: &[&str] = &[
    "/.well-known/openid-configuration",
    "/api",
    "/api/v1",
    "/apis",
    "/healthz",
    "/livez",
    "/metrics",
    "/openapi/v2",
    "/openapi/v3",
    "/openid/v1/jwks",
    "/readyz",
    "/version",
];

/// Answers an authorized request for a path.
pub async fn answer(
    server: &Arc<Server>,
    info: &RequestInfo,
    query: &Pairs,
    headers: &HeaderMap,
) -> Response<Body> {
    let path = info.path.trim_end_matches('/');
    if let Some(refusal) = refused(info, path, headers) {
        return refusal;
    }
    match path {
        "" => shown(&json!({"paths": PATHS})),
        "/version" => shown(&version()),
        "/metrics" => plain(200, "text/plain; version=0.0.4; charset=utf-8", server.metrics.text(server)),
        "/.well-known/openid-configuration" => {
            shown(&server.authentication.openid_configuration(&server.external))
        }
        "/openid/v1/jwks" => {
            let keys = server.authentication.jwks().to_string();
            plain(200, "application/jwk-set+json", keys)
        }
        _ => schema::answer(server, path, query, headers).unwrap_or_else(|| no_such_path(path)),
    }
}

/// What only reads are for is refused to other methods, and to clients that want what it never is.
fn refused(info: &RequestInfo, path: &str, headers: &HeaderMap) -> Option<Response<Body>> {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let routed = match parts.as_slice() {
        ["api"] | ["api", _] | ["apis", _, _] | ["version"] | ["openid", "v1", "jwks"] => true,
        [well_known, _] => *well_known == ".well-known",
        _ => false,
    };
    if !routed {
        return None;
    }
    match info.verb.as_str() {
        "get" => {}
        "head" => return Some(plain(405, "application/json", "")),
        _ => return Some(failure(Format::JSON, &Status::no_such_method())),
    }
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let produced: &[&str] = match parts.as_slice() {
        ["api" | "apis", ..] => &negotiate::TYPES,
        ["version"] => &negotiate::TYPES[..1],
        _ => return None,
    };
    negotiate::produces(accept, produced).err().map(|status| failure(Format::JSON, &status))
}

fn shown(object: &Value) -> Response<Body> {
    let format = Format { pretty: true, ..Format::JSON };
    let body = encode::value(format, object).unwrap_or_default();
    plain(200, "application/json", body)
}

fn version() -> Value {
    json!({"major": "1", "minor": "33", "emulationMajor": "1", "emulationMinor": "33", "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "32", "gitVersion": VERSION, "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc", "platform": "linux/amd64"})
}
