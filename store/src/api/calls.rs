//! Counts every call by how it ended, under the names that gRPC's servers in Go use: what is refused is seen there by its code.

use futures::FutureExt;
use futures::future::BoxFuture;
use http_body_util::BodyExt;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tonic::body::Body;
use tonic::codegen::http::header::{CONTENT_TYPE, HeaderMap};
use tonic::codegen::http::{Request, Response};

/// How the content type of every call begins.
const GRPC: &[u8] = b"application/grpc";

/// A method as metrics call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Method {
    grpc_type: &'static str,
    grpc_service: &'static str,
    grpc_method: &'static str,
}

/// A method and how a call of it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    grpc_type: &'static str,
    grpc_service: &'static str,
    grpc_method: &'static str,
    grpc_code: &'static str,
}

/// Counts of calls; clones count together.
#[derive(Clone)]
pub struct Calls {
    started: Family<Method, Counter>,
    ended: Family<Ended, Counter>,
    /// By path: a call looks its counters up once.
    methods: Arc<HashMap<String, Arc<Counters>>>,
    unknown: Arc<Counters>,
}

/// What is counted of a method.
struct Counters {
    method: Method,
    started: Counter,
    /// Calls that ended well; the other ends are rare.
    ok: Counter,
    ended: Family<Ended, Counter>,
}

impl Counters {
    fn ended(&self, grpc_code: &'static str) {
        if grpc_code == OK {
            self.ok.inc();
        } else {
            self.ended.get_or_create(&self.method.ended(grpc_code)).inc();
        }
    }
}

impl Method {
    fn ended(self, grpc_code: &'static str) -> Ended {
        let Self { grpc_type, grpc_service, grpc_method } = self;
        Ended { grpc_type, grpc_service, grpc_method, grpc_code }
    }
}

impl Default for Calls {
    fn default() -> Self {
        let (started, ended) = (Family::<Method, Counter>::default(), Family::<Ended, Counter>::default());
        let counters = |method: Method| {
            let started = started.get_or_create(&method).clone();
            let ok = ended.get_or_create(&method.ended(OK)).clone();
            Arc::new(Counters { method, started, ok, ended: ended.clone() })
        };
        let known = methods().map(|method| {
            let path = format!("/{}/{}", method.grpc_service, method.grpc_method);
            (path, counters(method))
        });
        let methods = Arc::new(known.collect());
        Self { methods, unknown: counters(UNKNOWN), started, ended }
    }
}

impl Calls {
    /// Counts that a call begins; `None` for requests that are no gRPC, such as those of pages.
    pub(super) fn begin(&self, request: &Request<Body>) -> Option<Running> {
        let content = request.headers().get(CONTENT_TYPE)?.as_bytes();
        content.starts_with(GRPC).then(|| {
            let counters = self.of(request.uri().path()).clone();
            counters.started.inc();
            Running { counters, ended: false }
        })
    }

    /// The counters of the method that a path names. All that nobody serves count as one: names are not the caller's to make.
    fn of(&self, path: &str) -> &Arc<Counters> {
        self.methods.get(path).unwrap_or(&self.unknown)
    }

    /// Makes them part of what `registry` tells.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("grpc_server_started", "Calls that began", self.started.clone());
        registry.register("grpc_server_handled", "Calls that ended, by how", self.ended.clone());
    }
}

/// The code of calls that ended well.
const OK: &str = "OK";
const UNARY: &str = "unary";

/// A service with its methods: those that answer once, and those that stream.
type Service = (&'static str, &'static [&'static str], &'static [(&'static str, &'static str)]);

/// All services.
static SERVICES: [Service; 7] = [
    ("etcdserverpb.KV", &["Range", "Put", "Txn", "DeleteRange", "Compact"], &[]),
    ("etcdserverpb.Watch", &[], &[("Watch", "bidi_stream")]),
    (
        "etcdserverpb.Lease",
        &["LeaseGrant", "LeaseRevoke", "LeaseTimeToLive", "LeaseLeases"],
        &[("LeaseKeepAlive", "bidi_stream")],
    ),
    (
        "etcdserverpb.Cluster",
        &["MemberAdd", "MemberRemove", "MemberUpdate", "MemberList", "MemberPromote"],
        &[],
    ),
    (
        "etcdserverpb.Maintenance",
        &["Alarm", "Status", "Defragment", "Hash", "HashKV", "MoveLeader", "Downgrade"],
        &[("Snapshot", "server_stream")],
    ),
    ("v3lockpb.Lock", &["Lock", "Unlock"], &[]),
    ("v3electionpb.Election", &["Campaign", "Proclaim", "Leader", "Resign"], &[("Observe", "server_stream")]),
];

/// What no service has.
const UNKNOWN: Method = Method { grpc_type: UNARY, grpc_service: "unknown", grpc_method: "unknown" };

/// All methods of all services.
fn methods() -> impl Iterator<Item = Method> {
    SERVICES.iter().flat_map(|&(grpc_service, unary, streams)| {
        let unary = unary.iter().map(|grpc_method| (*grpc_method, UNARY));
        let all = unary.chain(streams.iter().copied());
        all.map(move |(grpc_method, grpc_type)| Method { grpc_type, grpc_service, grpc_method })
    })
}

/// gRPC's codes, by number.
const CODES: [&str; 17] = [
    OK,
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

fn code(headers: &HeaderMap) -> Option<&'static str> {
    let number = headers.get("grpc-status")?.to_str().ok()?.parse::<usize>().ok()?;
    Some(CODES.get(number).copied().unwrap_or("Unknown"))
}

/// A call that has not ended. One that is dropped was given up by its client.
pub(super) struct Running {
    counters: Arc<Counters>,
    ended: bool,
}

impl Running {
    fn end(&mut self, grpc_code: &'static str) {
        if !std::mem::replace(&mut self.ended, true) {
            self.counters.ended(grpc_code);
        }
    }

    /// What the client is answered; a stream is counted at its end.
    fn answered(mut self, response: Response<Body>) -> Response<Body> {
        if let Some(code) = code(response.headers()) {
            self.end(code);
            return response;
        }
        if self.counters.method.grpc_type == UNARY {
            self.end(OK);
            return response;
        }
        response.map(|body| {
            Body::new(body.map_frame(move |frame| {
                if let Some(code) = frame.trailers_ref().and_then(code) {
                    self.end(code);
                }
                frame
            }))
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end("Canceled");
    }
}

/// An answer to come, which is counted when it is there, or else when nobody waits for it any more.
pub(super) struct Counted {
    answer: BoxFuture<'static, Result<Response<Body>, Infallible>>,
    running: Option<Running>,
}

impl Counted {
    /// `running` is none for what is no call.
    pub fn new(
        answer: BoxFuture<'static, Result<Response<Body>, Infallible>>,
        running: Option<Running>,
    ) -> Self {
        Self { answer, running }
    }
}

impl Future for Counted {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(self.answer.poll_unpin(context));
        Poll::Ready(answer.map(|response| match self.running.take() {
            Some(running) => running.answered(response),
            None => response,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_counted_as_the_methods_that_there_are() {
        let calls = Calls::default();
        let told = |path: &str| {
            let Method { grpc_type, grpc_service, grpc_method } = calls.of(path).method;
            format!("{grpc_type} {grpc_service} {grpc_method}")
        };
        for (path, wanted) in [
            ("/etcdserverpb.KV/Put", "unary etcdserverpb.KV Put"),
            ("/etcdserverpb.Watch/Watch", "bidi_stream etcdserverpb.Watch Watch"),
            ("/etcdserverpb.KV/Watch", "unary unknown unknown"),
            ("/made.up/Put", "unary unknown unknown"),
            ("", "unary unknown unknown"),
        ] {
            assert_eq!(told(path), wanted);
        }
    }
}
