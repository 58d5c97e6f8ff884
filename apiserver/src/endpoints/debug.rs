//! `/debug/…`: what runs and waits by priority and fairness, and how much is logged. Whoever may must be allowed to by a
//! `nonResourceURLs` rule; without one only `system:masters` are.

use crate::Server;
use crate::http::request_info::Pairs;
use crate::http::respond::{page_not_found, plain};
use crate::request::RequestInfo;
use axum::body::Body;
use coracle_daemon::logging;
use http::header::X_CONTENT_TYPE_OPTIONS;
use http::{HeaderValue, Response};
use http_body_util::{BodyExt, Limited};
use std::sync::Arc;

const TEXT: &str = "text/plain; charset=utf-8";
/// The longest level that is read.
const LEVEL_MAX: usize = 64;
const FLOWS: &str = "/debug/api_priority_and_fairness/";

/// Answers an authorized request.
pub async fn answer(server: &Arc<Server>, info: &RequestInfo, query: &Pairs, body: Body) -> Response<Body> {
    let path = info.path.as_str();
    let text = match path.strip_prefix(FLOWS).unwrap_or_default() {
        // Nothing waits anywhere.
        _ if path.starts_with(FLOWS) && !server.flow.is_on() => return page_not_found(),
        "dump_priority_levels" => server.flow.dump_levels(),
        "dump_queues" => server.flow.dump_queues(),
        "dump_requests" => {
            let details =
                query.iter().any(|(key, value)| key == "includeRequestDetails" && !value.is_empty());
            server.flow.dump_requests(details)
        }
        _ if path == "/debug/flags/v" && server.profiling => return verbosity(info, body).await,
        _ => return page_not_found(),
    };
    plain(200, TEXT, text)
}

fn spoken(code: u16, text: &str) -> Response<Body> {
    let mut response = plain(code, "text/plain", format!("{text}\n"));
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Takes a new level of logging, in the numbers of Kubernetes' components.
async fn verbosity(info: &RequestInfo, body: Body) -> Response<Body> {
    if info.verb != "put" {
        return spoken(406, "unsupported http method");
    }
    let text = match Limited::new(body, LEVEL_MAX).collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        Err(error) => return spoken(400, &format!("error reading request body: {error}")),
    };
    let Ok(level) = text.parse::<u32>() else {
        return spoken(400, &format!("strconv.ParseUint: parsing {text:?}: invalid syntax"));
    };
    match logging::set_verbosity(level) {
        Ok(()) => spoken(200, &format!("successfully set klog.logging.verbosity to {text}")),
        Err(why) => spoken(400, &format!("failed set klog.logging.verbosity {text}: {why}")),
    }
}
