//! Discovery and OpenAPI, as documents with an ETag.

use crate::Server;
use crate::audit;
use crate::http::negotiate::{self, Asked};
use crate::http::request_info::Pairs;
use crate::http::respond::{failure, packed, plain};
use crate::storage::encode::{self, Format, Media};
use crate::storage::order::Ordered;
use axum::body::Body;
use bytes::Bytes;
use coracle_api::kinds::Kind;
use coracle_api::{discovery, openapi};
use coracle_daemon::clock;
use http::header::{
    ACCEPT, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_TYPE, ETAG, EXPIRES, IF_NONE_MATCH, LOCATION, VARY,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use jiff::SignedDuration;
use serde_json::Value;
use sha2::{Digest, Sha512};
use std::sync::Arc;

const JSON: &str = "application/json";
/// How clients ask for OpenAPI v2 as protobuf, and how that is told: not quite the same, with Kubernetes too.
const V2_PROTOBUF_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const V3_PROTOBUF_ASKED: &str = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf";
const V3_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";
const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The document at `path`, if there is one.
pub fn answer(
    server: &Arc<Server>,
    path: &str,
    query: &Pairs,
    headers: &HeaderMap,
) -> Option<Response<Body>> {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let customs = server.store.customs();
    let custom = customs.kinds();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let document = match parts.as_slice() {
        ["api"] | ["apis"] => {
            if let Some(version) = aggregated(accept) {
                let document = whole(server, version, parts == ["api"], custom);
                let told =
                    format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
                let mut response = tagged(headers, &document, &told);
                response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public"));
                return Some(response);
            }
            if parts == ["api"] {
                discovery::api_versions(&server.external)
            } else {
                discovery::group_list(&server.aggregator.groups(custom))
            }
        }
        ["api", version] => resource_list(server, "", version, custom)?,
        ["apis", group] => discovery::group(group, &server.aggregator.groups(custom))?,
        ["apis", group, version] if !group.is_empty() => resource_list(server, group, version, custom)?,
        ["openapi", "v2"] if !accepts(accept, &[JSON, V2_PROTOBUF_ASKED, V2_PROTOBUF]) => {
            return Some(varied(headers, silent(406), Bytes::new()));
        }
        ["openapi", "v2"] => {
            let version_2 = customs.documents().v2(server.served.documents());
            let (document, told) = if accept.contains(V2_PROTOBUF_ASKED) {
                (&version_2.protobuf, V2_PROTOBUF)
            } else {
                (&version_2.json, "application/json")
            };
            let response = tagged_bytes(headers, Bytes::new(), &document.hash, told);
            return Some(varied(headers, response, document.bytes.clone()));
        }
        ["openapi", "v3"] => {
            let mut index = openapi::v3_index(server.served.documents(), customs.documents());
            server.aggregator.describe(&mut index);
            // Kubernetes does not say what it is.
            let mut response = tagged(headers, &index, "text/plain; charset=utf-8");
            response.headers_mut().remove(VARY);
            response.headers_mut().insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
            return Some(response);
        }
        ["openapi", "v3", rest @ ..] => {
            let (builtin, custom) = (server.served.documents(), customs.documents());
            let Some(document) = openapi::v3_document(&rest.join("/"), builtin, custom) else {
                return Some(silent(404));
            };
            if !accepts(accept, &[JSON, V3_PROTOBUF_ASKED, V3_PROTOBUF]) {
                return Some(unacceptable());
            }
            return Some(addressed(path, query, headers, document));
        }
        _ => return None,
    };
    Some(negotiated(accept, query, &document))
}

/// Aggregated discovery: of the core group, or of all others.
fn whole(server: &Server, version: &str, is_core: bool, custom: &[Arc<Kind>]) -> Value {
    let mut document = if is_core {
        discovery::aggregated_core(version)
    } else {
        discovery::aggregated(version, &server.aggregator.groups(custom), custom)
    };
    server.served.prune_aggregated(&mut document);
    document
}

/// What is served of a group version, if anything is.
fn resource_list(server: &Server, group: &str, version: &str, custom: &[Arc<Kind>]) -> Option<Value> {
    let mut list = discovery::resource_list(group, version, custom)?;
    server.served.prune(group, version, &mut list);
    (!server.served.hides(group, version)).then_some(list)
}

/// The one document that is packed for whoever takes it so, and differs by that too.
fn varied(request: &HeaderMap, mut response: Response<Body>, bytes: Bytes) -> Response<Body> {
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    response.headers_mut().append(VARY, HeaderValue::from_static("Accept"));
    let is_known = response.status() == StatusCode::NOT_MODIFIED;
    packed(request, response, if is_known { Bytes::new() } else { bytes })
}

/// What a document that is not one of several forms is refused to: nothing is said.
fn unacceptable() -> Response<Body> {
    let mut response = silent(406);
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    response
}

fn silent(code: u16) -> Response<Body> {
    let mut response = plain(code, JSON, Bytes::new());
    response.headers_mut().remove(CONTENT_TYPE);
    response
}

/// Whether a document in one of `types` will do.
fn accepts(accept: &str, types: &[&str]) -> bool {
    let clauses = negotiate::clauses(accept);
    let fits = |media: &str| matches!(media, "*/*" | "application/*") || types.contains(&media);
    clauses.is_empty() || clauses.iter().any(|clause| fits(&clause.media))
}

/// The version of aggregated discovery that the client likes best; `None` when it likes the old form better.
fn aggregated(accept: &str) -> Option<&'static str> {
    for clause in negotiate::clauses(accept) {
        let is_list = clause.get("as") == "APIGroupDiscoveryList" && clause.get("g") == "apidiscovery.k8s.io";
        match (clause.media.as_str(), is_list, clause.get("v")) {
            ("application/json", true, "v2") => return Some("v2"),
            ("application/json", true, "v2beta1") => return Some("v2beta1"),
            ("application/json" | "*/*", false, _) => return None,
            _ => {}
        }
    }
    None
}

fn negotiated(accept: &str, query: &Pairs, document: &Value) -> Response<Body> {
    let format = match negotiate::chosen(accept, query, "", Asked::default()) {
        Ok(chosen) => chosen.format,
        Err(status) => return failure(Format::JSON, &status),
    };
    match encode::value(format, document) {
        Ok(body) => {
            let body = Bytes::from(body);
            audit::answered(format.content_type(false), &body);
            plain(200, format.content_type(false), body)
        }
        Err(_) => {
            let body = encode::value(Format { media: Media::Json, ..format }, document).unwrap_or_default();
            plain(200, "application/json", body)
        }
    }
}

/// A document of version 3. Who asks for it by its hash may keep it; who asks by another hash is shown the way to what it is now.
fn addressed(path: &str, query: &Pairs, headers: &HeaderMap, document: &openapi::Document) -> Response<Body> {
    let asked = query.iter().find(|(name, value)| name == "hash" && !value.is_empty());
    if asked.is_some_and(|(_, hash)| *hash != document.hash) {
        let mut response = plain(301, "text/html; charset=utf-8", Vec::new());
        if let Ok(to) = HeaderValue::from_str(&format!("{path}?hash={}", document.hash)) {
            response.headers_mut().insert(LOCATION, to);
        }
        return response;
    }
    let mut response = tagged_bytes(headers, document.bytes.clone(), &document.hash, "application/json");
    if response.status() == StatusCode::OK {
        response.headers_mut().insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    }
    if asked.is_some() {
        let told = response.headers_mut();
        told.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        let year = clock::now() + SignedDuration::from_hours(365 * 24);
        let expires = year.strftime("%a, %d %b %Y %H:%M:%S UTC").to_string();
        if let Ok(expires) = HeaderValue::from_str(&expires) {
            told.insert(EXPIRES, expires);
        }
    }
    response
}

/// The document, or 304 when the client has it.
fn tagged(headers: &HeaderMap, document: &Value, content_type: &str) -> Response<Body> {
    let body = Bytes::from(serde_json::to_vec(&Ordered::new(document)).unwrap_or_default());
    let hash = hex::encode_upper(Sha512::digest(&body));
    tagged_bytes(headers, body, &hash, content_type)
}

fn tagged_bytes(headers: &HeaderMap, body: Bytes, hash: &str, content_type: &str) -> Response<Body> {
    let tag = format!("\"{hash}\"");
    let known = headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response = plain(200, "application/json", if known { Bytes::new() } else { body });
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let told = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        told.insert(ETAG, tag);
    }
    if let Ok(content_type) = HeaderValue::from_str(content_type) {
        told.insert(http::header::CONTENT_TYPE, content_type);
    }
    told.insert(VARY, HeaderValue::from_static("Accept"));
    response
}
