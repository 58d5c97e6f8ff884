//! `/debug/…`: what runs and waits by priority and fairness, how much is logged, and which of Go's profiles there are: none of
//! its runtime's. Whoever may must be allowed to by a `nonResourceURLs` rule; without one only `system:masters` are.

use crate::Server;
use crate::http::request_info::Pairs;
use crate::http::respond::{page_not_found, plain};
use crate::request::RequestInfo;
use axum::body::Body;
use coracle_daemon::logging;
use http::header::{LOCATION, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, HeaderValue, Response};
use http_body_util::{BodyExt, Limited};
use std::sync::Arc;

const TEXT: &str = "text/plain; charset=utf-8";
/// The longest level that is read.
const LEVEL_MAX: usize = 64;
const FLOWS: &str = "/debug/api_priority_and_fairness/";
/// Go's profiles, which may take as long as is asked for.
pub const PROFILES: &str = "/debug/pprof/";
const HTML: &str = "text/html; charset=utf-8";
const PROFILE_FAULT: HeaderName = HeaderName::from_static("x-go-pprof");

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
        _ if !server.profiling => return page_not_found(),
        _ if path == "/debug/flags/v" => return verbosity(info, body).await,
        _ if path == "/debug/flags" || path.starts_with("/debug/flags/") => {
            return plain(200, HTML, page("/debug/flags/", "flags:<br>\n<table>\n\n<tr>v<br>\n\n</table>"));
        }
        _ => return path.strip_prefix(PROFILES.trim_end_matches('/')).map_or_else(page_not_found, profile),
    };
    plain(200, TEXT, text)
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<html>\n<head>\n<title>{title}</title>\n</head>\n<body>\n{title}<br>\n<br>\n{body}\n</body>\n</html>\n"
    )
}

/// What is at `name` below the list of profiles: a program that Go has not made has no profiles of its runtime.
fn profile(name: &str) -> Response<Body> {
    match name {
        "" => {
            let mut found = plain(302, HTML, format!("<a href=\"{PROFILES}\">Found</a>.\n\n"));
            found.headers_mut().insert(LOCATION, HeaderValue::from_static(PROFILES));
            found
        }
        "/" => plain(200, HTML, page(PROFILES, "<a href='symbol'>symbol</a>")),
        "/symbol" => nosniff(plain(200, TEXT, "num_symbols: 1\n")),
        name if name.starts_with('/') => {
            let mut unknown = nosniff(plain(404, TEXT, "Unknown profile\n"));
            unknown.headers_mut().insert(PROFILE_FAULT, HeaderValue::from_static("1"));
            unknown
        }
        _ => page_not_found(),
    }
}

fn nosniff(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn spoken(code: u16, text: &str) -> Response<Body> {
    nosniff(plain(code, "text/plain", format!("{text}\n")))
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
