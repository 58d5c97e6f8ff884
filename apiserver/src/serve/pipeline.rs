//! The way of every request: authenticate → impersonate → authorize → handler.

use crate::Server;
use crate::aggregator::Route;
use crate::audit::{self, Record, Sender};
use crate::authentication::{Peer, bearer_token, websocket};
use crate::endpoints::{self, metrics};
use crate::flowcontrol::{self, Told};
use crate::http::contained::{self, Asked};
use crate::http::limits::time_limit;
use crate::http::request_info::{self, Pairs};
use crate::http::{deprecation, messages, negotiate, respond};
use crate::meters::access::Outcome;
use crate::registry::{Call, Reply, ReplyBody, is_routed};
use crate::request::{RequestInfo, UserInfo};
use crate::storage::encode::{Format, Media};
use axum::body::Body;
use bytes::Bytes;
use coracle_api::kinds::Kind;
use coracle_api::status::Status;
use coracle_daemon::random;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use http::header::{
    ACCEPT, ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, UPGRADE,
    USER_AGENT,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Largest body.
const BODY_MAX: usize = 3 << 20;
/// How long a body may take to come.
const BODY_TIME_MAX: Duration = Duration::from_secs(60);
/// How long the first requests wait for the caches.
const LOAD_MAX: Duration = Duration::from_secs(10);
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
const FLOW_SCHEMA: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const PRIORITY_LEVEL: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

fn text(headers: &HeaderMap, name: HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Answers a request.
pub fn answer<'a>(
    server: &'a Arc<Server>,
    peer: &'a Peer,
    request: Request<Body>,
) -> BoxFuture<'a, Response<Body>> {
    answered(server, peer, request).boxed()
}

async fn answered(server: &Arc<Server>, peer: &Peer, request: Request<Body>) -> Response<Body> {
    let began = Instant::now();
    let query = request_info::pairs(request.uri().query());
    let mut info = request_info::parse(request.method(), request.uri().path(), &query);
    server.served.hide(&mut info);
    find_custom(server, &mut info);
    let given = text(request.headers(), AUDIT_ID).to_owned();
    let dry_run = query.iter().any(|(key, _)| key == "dryRun");
    let counted = metrics::timed(&info, dry_run);
    let _running = (info.verb != "watch" && !streams(&info)).then(|| server.in_flight.begin());
    let id = if given.is_empty() { random::uuid() } else { given };
    let head = request.method() == Method::HEAD;
    let asked = Asked { method: request.method().clone(), uri: request.uri().clone(), id: &id };
    let (accept, agent) = (text(request.headers(), ACCEPT), text(request.headers(), USER_AGENT));
    let refusals = negotiate::refusals(accept, &query, agent);
    let crossing = server.crossing.headers(request.headers());
    let preflight = request.method() == Method::OPTIONS && crossing.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN);
    let work = async {
        if preflight {
            return respond::no_content();
        }
        let response = handle(server, peer, info, query, request, (&id, refusals)).await;
        response.unwrap_or_else(|status| respond::failure(refusals, &status))
    };
    let mut response = contained::answer(asked, work).await;
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(AUDIT_ID, id);
    }
    response.headers_mut().extend(crossing);
    // Of what says nothing else, too: nothing here is for caches between.
    let cached = response.headers_mut().entry(CACHE_CONTROL);
    cached.or_insert(HeaderValue::from_static("no-cache, private"));
    let bytes = http_body::Body::size_hint(response.body()).exact();
    if head {
        headed(&mut response, bytes);
    }
    server.metrics.observe(counted, response.status().as_u16(), began.elapsed(), bytes);
    response
}

/// Of a HEAD only the length of its answer is told.
fn headed(response: &mut Response<Body>, bytes: Option<u64>) {
    if let Some(bytes) = bytes {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(bytes));
    }
    *response.body_mut() = Body::empty();
}

/// Custom kinds are known to the store only.
fn find_custom(server: &Server, info: &mut RequestInfo) {
    if info.is_resource && info.kind.is_none() && !info.group.is_empty() {
        info.kind = server.store.custom(&info.group, &info.version, &info.resource);
    }
}

async fn handle(
    server: &Arc<Server>,
    peer: &Peer,
    info: RequestInfo,
    query: Pairs,
    mut request: Request<Body>,
    (id, refusals): (&str, Format),
) -> Result<Response<Body>, Status> {
    if let Some(why) = request_info::fault(&info) {
        let asked = request.uri().path_and_query().map_or("", |asked| asked.as_str());
        let text = format!("Internal Server Error: {asked:?}: failed to create RequestInfo: {why}\n");
        return Ok(respond::error(500, text));
    }
    time_of(server, &info, &query)?;
    // Before the store is read nobody is known, and probes want to hear of that.
    if endpoints::health::is_open(&info.path)
        && server.store.progress() == 0
        && let Some(response) = endpoints::health::answer(server, &info.path, &query)
    {
        return Ok(response);
    }
    if tokio::time::timeout(LOAD_MAX, server.store.loaded()).await.is_err() {
        return Err(Status::unavailable("the server has not read its store yet; please try again"));
    }
    let began = Instant::now();
    let user = server.authentication.authenticate(request.headers(), peer).await;
    let user = user.and_then(|user| server.authentication.lets_in(user, &info.path));
    let tried = bearer_token(request.headers()).is_some();
    websocket::without_token(request.headers_mut());
    server.metrics.access.authenticated(&user, tried, began.elapsed(), peer.left());
    let from = server.audit.as_ref().map(|audit| (audit, Sender::of(id, &request)));
    let user = user.inspect_err(|status| {
        if let Some((audit, from)) = &from {
            audit.refused(from, &info, status);
        }
    })?;
    let record = match from {
        Some((audit, from)) => audit.begin(&from, &user, &info)?,
        None => None,
    };
    match record {
        Some(record) => noted(server, record, user, info, query, request, refusals).boxed().await,
        None => served(server, user, info, query, request, refusals).await,
    }
}

/// The same under the eyes of the audit log.
async fn noted(
    server: &Arc<Server>,
    record: Arc<Record>,
    user: UserInfo,
    info: RequestInfo,
    query: Pairs,
    request: Request<Body>,
    refusals: Format,
) -> Result<Response<Body>, Status> {
    let long = info.verb == "watch" || streams(&info);
    let work = async {
        let response = served(server, user, info, query, request, refusals).await;
        response.unwrap_or_else(|status| respond::failure(refusals, &status))
    };
    let response = audit::scope(record.clone(), work).await;
    Ok(record.answer(response, long))
}

/// How long a request may take; for those that may take as long as they like nothing is asked.
///
/// # Errors
/// What the client asks for is no duration.
fn time_of(server: &Server, info: &RequestInfo, query: &Pairs) -> Result<Duration, Status> {
    let asked = query.iter().find(|(name, _)| name == "timeout" && info.verb != "watch" && !streams(info));
    time_limit(asked.map_or("", |(_, asked)| asked), server.request_timeout)
}

/// What follows when it is known who asks.
async fn served(
    server: &Arc<Server>,
    user: UserInfo,
    info: RequestInfo,
    query: Pairs,
    request: Request<Body>,
    refusals: Format,
) -> Result<Response<Body>, Status> {
    let user = match server.authorization.impersonated(user, request.headers()).await {
        Ok(run_as) => run_as,
        Err(status) => return Ok(respond::unauthorized(refusals, request.uri(), &status)),
    };
    // What lives as long as its connection waits more than it works.
    if streams(&info) {
        let running = server.metrics.long_running(&info);
        return Ok(held(routed(server, user, info, query, request, refusals).boxed().await?, running));
    }
    let running = (info.verb == "watch").then(|| server.metrics.long_running(&info));
    let permit = match server.flow.admit(&user, &info, seats(server, &info, &query)).await {
        Ok(permit) => permit,
        Err(told) => {
            let mut response = respond::error(429, "Too many requests, please try again later.\n");
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            if let Some(told) = told {
                tell(&mut response, &told);
            }
            return Ok(response);
        }
    };
    let response = routed(server, user, info, query, request, refusals).await;
    let mut response = response.unwrap_or_else(|status| respond::failure(refusals, &status));
    if let Some(told) = permit.told() {
        tell(&mut response, told);
    }
    Ok(match running {
        Some(running) => held(response, running),
        None => response,
    })
}

/// An answer that counts as running until its body has ended.
fn held(response: Response<Body>, running: metrics::LongRunning) -> Response<Body> {
    // What becomes another protocol has no body, and what is there as a whole runs no more.
    let whole = http_body::Body::size_hint(response.body()).exact().is_some();
    if whole || response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return response;
    }
    response.map(|body| {
        Body::from_stream(body.into_data_stream().inspect(move |_| {
            let _counted = &running;
        }))
    })
}

/// Tells clients where their request belongs.
fn tell(response: &mut Response<Body>, told: &Told) {
    for (name, uid) in [(FLOW_SCHEMA, &told.schema_uid), (PRIORITY_LEVEL, &told.level_uid)] {
        response.headers_mut().insert(name, uid.clone());
    }
}

/// The seats that a request takes.
fn seats(server: &Server, info: &RequestInfo, query: &Pairs) -> u64 {
    if info.verb != "list" {
        return 1;
    }
    let stored =
        server.store.resource(&info.group, &info.resource).map_or(0, |resource| resource.cache.count());
    let limit = query.iter().find(|(key, _)| key == "limit").and_then(|(_, value)| value.parse().ok());
    flowcontrol::seats(&info.verb, stored, limit)
}

/// What follows when its turn has come.
async fn routed(
    server: &Arc<Server>,
    user: UserInfo,
    mut info: RequestInfo,
    query: Pairs,
    request: Request<Body>,
    refusals: Format,
) -> Result<Response<Body>, Status> {
    let began = Instant::now();
    let judged = server.authorization.admit(&user, &info).await;
    let outcome = judged.as_ref().map_or_else(|(outcome, _)| *outcome, |()| Outcome::Allowed);
    server.metrics.access.authorized(outcome, began.elapsed());
    if let Err((_, status)) = judged {
        return Ok(respond::unauthorized(refusals, request.uri(), &status));
    }
    if info.path.starts_with("//") {
        return Ok(respond::page_not_found());
    }
    if let Some(route) = server.aggregator.route(&info.path) {
        return remote(server, &route, &info, &user, request).boxed().await;
    }
    if info.path.starts_with("/debug/") {
        return Ok(endpoints::debug::answer(server, &info, &query, request.into_body()).boxed().await);
    }
    if !info.is_resource {
        return Ok(endpoints::answer(server, &info, &query, request.headers()).await);
    }
    if info.kind.is_none() {
        // Its definition may be younger than the caches.
        server.store.fresh().await?;
        find_custom(server, &mut info);
    }
    let Some(kind) = info.kind.as_ref().filter(|_| info.verb != "proxy") else {
        return Ok(respond::no_such_path(refusals, &info.path, &server.served));
    };
    // Built-in kinds have no route for it.
    let custom = kind.custom.is_some();
    if custom && misplaced(&info, kind) {
        return Ok(respond::page_not_found());
    }
    if request.method() == Method::HEAD && !custom && info.subresource != "proxy" {
        return if is_routed(kind, &info) { Ok(respond::no_head()) } else { Err(Status::no_such_resource()) };
    }
    if request_info::is_within_nothing(&info) && kind.namespaced {
        within_nothing(&info)?;
    }
    if streams(&info) {
        if !info.rest.is_empty() && info.subresource != "proxy" {
            return Err(Status::no_such_resource());
        }
        let offered = info.kind.as_ref().and_then(|kind| kind.subresource(&info.subresource));
        let offered = &offered.ok_or_else(Status::no_such_resource)?.verbs;
        // Proxies take one method more than there are verbs.
        let asks = request.method() == Method::OPTIONS && info.subresource == "proxy";
        if !asks && !offered.contains(&info.verb) {
            return Err(Status::no_such_method());
        }
        return connected(server, &info, &user, request).boxed().await;
    }
    resource(server, info, user, query, request).await
}

/// Refuses what would be done in a namespace without a name: nothing is there, though everything may be listed.
fn within_nothing(info: &RequestInfo) -> Result<(), Status> {
    match info.verb.as_str() {
        "list" | "watch" => Ok(()),
        "create" if !info.name.is_empty() && info.subresource.is_empty() => Err(Status::no_such_method()),
        "create" if info.name.is_empty() => Ok(()),
        _ => Err(Status::bad_request("Namespace parameter required.")),
    }
}

/// What is behind an object, if admission lets the request through to it.
async fn connected(
    server: &Server,
    info: &RequestInfo,
    user: &UserInfo,
    request: Request<Body>,
) -> Result<Response<Body>, Status> {
    let query = request.uri().query().unwrap_or_default();
    let warnings = server.registry.connect(info, user, query).await?;
    match server.streaming.proxy(info, request).await {
        Ok(mut response) => {
            respond::warn(response.headers_mut(), &warnings);
            Ok(response)
        }
        Err(status) => Err(status.warned(warnings)),
    }
}

/// Custom kinds are nowhere but in their scope; only reads are of all namespaces at once.
fn misplaced(info: &RequestInfo, kind: &Kind) -> bool {
    let of_all = info.namespace.is_empty();
    if kind.namespaced { of_all && !matches!(info.verb.as_str(), "list" | "watch") } else { !of_all }
}

/// Whether a request lives as long as its connection.
fn streams(info: &RequestInfo) -> bool {
    info.verb == "proxy"
        || (!info.is_resource && info.path.starts_with(endpoints::debug::PROFILES))
        || matches!(info.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy")
}

/// A request for a group version of another server.
async fn remote(
    server: &Arc<Server>,
    route: &Route,
    info: &RequestInfo,
    user: &UserInfo,
    request: Request<Body>,
) -> Result<Response<Body>, Status> {
    let long = info.verb == "watch" || streams(info) || request.headers().contains_key(UPGRADE);
    server.aggregator.pass(route, &info.path, user, long, request).await
}

async fn resource(
    server: &Arc<Server>,
    info: RequestInfo,
    user: UserInfo,
    query: Pairs,
    request: Request<Body>,
) -> Result<Response<Body>, Status> {
    let (mut parts, body) = request.into_parts();
    let deprecated = info.kind.as_deref().and_then(deprecation::warning);
    if deprecated.is_some() {
        audit::annotate("k8s.io/deprecated", || "true".to_owned());
    }
    let watches = info.verb == "watch";
    let user_agent = text(&parts.headers, USER_AGENT).to_owned();
    let kind = info.kind.clone();
    // The deprecated paths of watches are for reads only.
    if watches && !matches!(parts.method, Method::GET | Method::HEAD) {
        return Err(Status::no_such_method());
    }
    let accept = text(&parts.headers, ACCEPT);
    let lists = watches || matches!(info.verb.as_str(), "list" | "deletecollection");
    let only_answer = kind.as_ref().is_some_and(|kind| kind.only_answers(&info.subresource));
    let asked = negotiate::Asked { lists, watches, kind: kind.as_deref(), only_answer };
    // The handler of custom kinds warns before it looks for a form; others are refused by their route.
    let custom = kind.as_ref().is_some_and(|kind| kind.custom.is_some());
    let chosen = negotiate::chosen(accept, &query, &user_agent, asked)
        .map_err(|status| if custom { status.warned(deprecated.clone()) } else { status })?;
    let content_type = negotiate::sent(text(&parts.headers, CONTENT_TYPE), info.verb == "patch");
    let limit = time_of(server, &info, &query)?;
    let format = chosen.refusals;
    let body = whole(body).await?;
    let call = Call { info, user, query, content_type, body, format: chosen.format, user_agent };
    let answer = tokio::time::timeout(limit, server.registry.handle(&call)).await;
    Ok(match (answer, chosen.late) {
        (Ok(Ok(_)), Some(status)) => respond::failure(format, &status),
        (Ok(Ok(mut reply)), None) => {
            reply.warnings.splice(0..0, deprecated);
            if let ReplyBody::Bytes(body) = &reply.body {
                audit::answered(reply.content_type, body);
            }
            sent(server, &mut parts, reply, chosen.format.media)
        }
        // Where there is no route, nobody warns.
        (Ok(Err(status)), _) if is_unrouted(&status) => respond::failure(format, &status),
        (Ok(Err(status)), _) => respond::failure(format, &status.warned(deprecated)),
        (Err(_), _) => {
            respond::failure(format, &Status::timeout("request did not complete within the allotted timeout"))
        }
    })
}

/// The answer as a body, or a watch as the messages of a WebSocket that was asked for.
fn sent(server: &Server, parts: &mut Parts, reply: Reply, media: Media) -> Response<Body> {
    let messages = match &reply.body {
        ReplyBody::Stream(_) => messages::of_watch(parts, media != Media::Protobuf),
        ReplyBody::Bytes(_) => Ok(None),
    };
    match messages {
        Ok(Some(messages)) => messages.carry(respond::reply(&parts.headers, reply), &server.serving),
        Ok(None) => respond::reply(&parts.headers, reply),
        Err(refusal) => *refusal,
    }
}

fn is_unrouted(status: &Status) -> bool {
    status.code == 415 || (matches!(status.code, 404..=406) && status.details == json!({}))
}

async fn whole(body: Body) -> Result<Bytes, Status> {
    // Whoever sends slowly keeps others from their turn.
    let Ok(read) = tokio::time::timeout(BODY_TIME_MAX, Limited::new(body, BODY_MAX).collect()).await else {
        return Err(Status::new(408, "Timeout", "the body of the request did not come in time"));
    };
    match read {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => {
            Err(Status::too_large(format!("limit is {BODY_MAX}")))
        }
        Err(error) => Err(Status::bad_request(error.to_string())),
    }
}
