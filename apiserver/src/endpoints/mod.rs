//! Paths that are no resources: health, version, metrics, discovery, OpenAPI, and the keys of ServiceAccount tokens.

pub mod debug;
pub mod health;
pub mod metrics;
mod schema;

use crate::Server;
use crate::http::negotiate;
use crate::http::request_info::Pairs;
use crate::http::respond::{failure, no_head, no_such_path, packed, plain};
use crate::request::RequestInfo;
use crate::served::Served;
use crate::storage::encode::{self, Format};
use axum::body::Body;
use coracle_api::status::Status;
use http::header::{ACCEPT, CACHE_CONTROL};
use http::{HeaderMap, HeaderValue, Response};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The version that clients are told.
pub const VERSION: &str = "v1.33.6+coracle";

/// What `/` lists besides groups, versions and checks.
const PATHS: [&str; 15] = [
    "/.well-known/openid-configuration",
    "/api",
    "/api/v1",
    "/apis",
    "/apis/",
    "/healthz",
    "/livez",
    "/metrics",
    "/metrics/slis",
    "/openapi/v2",
    "/openapi/v3",
    "/openapi/v3/",
    "/openid/v1/jwks",
    "/readyz",
    "/version",
];

/// What `/` lists.
fn paths(server: &Server) -> BTreeSet<String> {
    let mut paths: BTreeSet<String> = PATHS.into_iter().map(str::to_owned).collect();
    for group in server.aggregator.groups(server.store.customs().kinds()) {
        let versions = group.versions.iter().map(|version| format!("/apis/{}/{}", group.name, version.name));
        paths.extend(versions);
        paths.insert(format!("/apis/{}", group.name));
    }
    let checks = health::results(server).into_iter();
    paths.extend(checks.map(|(name, path, _)| format!("/{path}/{name}")));
    paths
}

const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const KEY_SET: &str = "application/jwk-set+json";

/// What clients may keep for an hour.
fn kept(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}

/// Answers an authorized request for a path.
pub async fn answer(
    server: &Arc<Server>,
    info: &RequestInfo,
    query: &Pairs,
    headers: &HeaderMap,
) -> Response<Body> {
    if let Some(response) = health::answer(server, &info.path, query) {
        return response;
    }
    let path = match info.path.as_str() {
        path if path.starts_with("/openapi/") || path.starts_with("/metrics/") => path,
        path => path.trim_end_matches('/'),
    };
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let refusals = negotiate::refusals(accept, query, "");
    if let Some(refusal) = refused(info, path, accept, refusals, &server.served) {
        return refusal;
    }
    match path {
        "" | "/index.html" => shown(&json!({"paths": paths(server)})),
        "/version" => shown(&version()),
        "/metrics" if info.verb == "delete" => {
            server.metrics.reset();
            plain(200, "text/plain; charset=utf-8", "metrics reset\n")
        }
        "/metrics" => packed(headers, plain(200, METRICS, ""), server.metrics.text(server).into()),
        "/metrics/slis" => packed(headers, plain(200, METRICS, ""), server.metrics.objectives(server).into()),
        "/.well-known/openid-configuration" => {
            let told = server.authentication.openid_configuration(&server.external);
            kept(plain(200, "application/json", told.to_string()))
        }
        "/openid/v1/jwks" => {
            let keys = server.authentication.jwks().to_string();
            kept(plain(200, KEY_SET, keys))
        }
        _ => schema::answer(server, path, query, headers)
            .unwrap_or_else(|| no_such_path(refusals, path, &server.served)),
    }
}

/// What only reads are for is refused to other methods, and to clients that want what it never is.
fn refused(
    info: &RequestInfo,
    path: &str,
    accept: &str,
    refusals: Format,
    served: &Served,
) -> Option<Response<Body>> {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let routed = match parts.as_slice() {
        ["api"] | ["api", "v1"] | ["version"] | ["openid", "v1", "jwks"] => true,
        // What definitions make has no route of its own.
        ["apis", group, version] => !group.is_empty() && served.has(group, version),
        [well_known, _] => *well_known == ".well-known",
        _ => false,
    };
    if !routed {
        return None;
    }
    match info.verb.as_str() {
        "get" => {}
        "head" => return Some(no_head()),
        _ => return Some(failure(refusals, &Status::no_such_method())),
    }
    let produced: &[&str] = match parts.as_slice() {
        ["api" | "apis", ..] => &negotiate::TYPES,
        ["version"] | [".well-known", _] => &negotiate::TYPES[..1],
        ["openid", "v1", "jwks"] => &[KEY_SET],
        _ => return None,
    };
    negotiate::produces(accept, produced).err().map(|status| failure(refusals, &status))
}

fn shown(object: &Value) -> Response<Body> {
    let format = Format { pretty: true, ..Format::JSON };
    let body = encode::value(format, object).unwrap_or_default();
    plain(200, "application/json", body)
}

/// What `/version` tells.
pub fn version() -> Value {
    json!({"major": "1", "minor": "33", "emulationMajor": "1", "emulationMinor": "33", "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "32", "gitVersion": VERSION, "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc", "platform": platform()})
}

/// What this program was built for, as Go calls it.
fn platform() -> String {
    let machine = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{}/{machine}", std::env::consts::OS)
}
