//! Answers as HTTP: headers that every answer has, warnings, compression, and failures as Status objects.

use crate::audit;
use crate::registry::{Reply, ReplyBody};
use crate::served::Served;
use crate::storage::encode::{self, Format};
use axum::body::Body;
use bytes::Bytes;
use coracle_api::status::Status;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::StreamExt;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, VARY, WARNING,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Uri};
use std::collections::HashSet;
use std::convert::Infallible;
use std::io::Write;

/// Smaller answers are sent as they are.
const GZIP_MIN: usize = 128 << 10;
const WARNINGS_MAX: usize = 4096;
const WARNING_CUT: usize = 256;

/// An answer with a body and a content type.
#[must_use]
pub fn plain(code: u16, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::from(body.into()));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// What is served at no such path.
#[must_use]
pub fn page_not_found() -> Response<Body> {
    error(404, "404 page not found\n")
}

/// A failure as plain text.
#[must_use]
pub fn error(code: u16, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = plain(code, "text/plain; charset=utf-8", text);
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The same for `path`: below a group that is served Kubernetes says it as a Status.
#[must_use]
pub fn no_such_path(refusals: Format, path: &str, all: &Served) -> Response<Body> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let served = match parts.as_slice() {
        ["api" | "version", _, ..] => true,
        ["apis", group, _, ..] => !group.is_empty() && all.has_group(group),
        _ => false,
    };
    if served { failure(refusals, &Status::no_such_resource()) } else { page_not_found() }
}

/// A failure as its Status object.
#[must_use]
pub fn failure(format: Format, status: &Status) -> Response<Body> {
    audit::status(status);
    let format = Format { shape: encode::Shape::Whole, ..format };
    let body = encode::value(format, &status.to_value());
    let (format, body) = match body {
        Ok(body) => (format, body),
        Err(_) => (Format::JSON, status.to_value().to_string().into_bytes()),
    };
    let mut response = plain(status.code, format.content_type(false), body);
    warn(response.headers_mut(), &status.warnings);
    if let Some(seconds) = status.details["retryAfterSeconds"].as_u64() {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Nothing to say.
#[must_use]
pub fn no_content() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// A HEAD where there is none.
#[must_use]
pub fn no_head() -> Response<Body> {
    audit::status(&Status::no_such_method());
    plain(405, "application/json", Bytes::new())
}

/// What authorization says to who may not ask for `uri`, or to whom it could not tell.
#[must_use]
pub fn unauthorized(format: Format, uri: &Uri, status: &Status) -> Response<Body> {
    if status.code == 500 {
        let asked = uri.path_and_query().map_or("", |asked| asked.as_str());
        return error(500, format!("Internal Server Error: {asked:?}: {}\n", status.message));
    }
    let mut response = failure(format, status);
    if status.code == 403 {
        response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
    response
}

/// The registry's answer.
#[must_use]
pub fn reply(request: &HeaderMap, reply: Reply) -> Response<Body> {
    let mut response = match reply.body {
        ReplyBody::Bytes(bytes) => {
            compressed(request, plain(reply.code, reply.content_type, Bytes::new()), bytes)
        }
        ReplyBody::Stream(stream) => {
            let mut response = plain(reply.code, reply.content_type, Bytes::new());
            *response.body_mut() = Body::from_stream(stream.map(Ok::<Bytes, Infallible>));
            response
        }
    };
    warn(response.headers_mut(), &reply.warnings);
    response
}

fn compressed(request: &HeaderMap, response: Response<Body>, bytes: Bytes) -> Response<Body> {
    if bytes.len() <= GZIP_MIN {
        return response.map(|_| Body::from(bytes));
    }
    let mut response = packed(request, response, bytes);
    if response.headers().contains_key(CONTENT_ENCODING) {
        response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    response
}

/// An answer with this body, packed for a client that takes it so.
#[must_use]
pub fn packed(request: &HeaderMap, mut response: Response<Body>, bytes: Bytes) -> Response<Body> {
    let accepted = request.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !bytes.is_empty() && accepted.split(',').any(takes_gzip) {
        // The fastest level, as in Kubernetes: the wire is near.
        let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
        if encoder.write_all(&bytes).is_ok()
            && let Ok(packed) = encoder.finish()
        {
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            return response.map(|_| Body::from(packed));
        }
    }
    response.map(|_| Body::from(bytes))
}

/// Whether an encoding that is accepted is gzip, and not refused by its weight.
fn takes_gzip(accepted: &str) -> bool {
    let (name, quality) = accepted.split_once(';').unwrap_or((accepted, ""));
    name.trim() == "gzip" && quality.trim() != "q=0"
}

/// `Warning: 299` headers: each text once; when they are too long together, each is cut, and what still is too much is left
/// out.
pub fn warn(headers: &mut HeaderMap, warnings: &[String]) {
    let total: usize = warnings.iter().map(|text| text.chars().count()).sum();
    let keep = if total > WARNINGS_MAX { WARNING_CUT } else { usize::MAX };
    let (mut told, mut written) = (HashSet::new(), 0);
    for warning in warnings {
        if written >= WARNINGS_MAX {
            return;
        }
        // A text with a line end can be in no header, and is none for one who would have to guess where it ends.
        if warning.is_empty() || warning.contains(char::is_control) || !told.insert(warning) {
            continue;
        }
        let text: String = warning.chars().take(keep).collect();
        written += text.chars().count();
        let text = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{text}\"").as_bytes()) {
            headers.append(WARNING, value);
        }
    }
}
