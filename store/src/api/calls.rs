//! Counts every call by how it ended, under the names that gRPC's servers in Go use: what is refused is seen there by its code.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::BodyExt;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

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
#[derive(Clone, Default)]
pub struct Calls {
    started: Family<Method, Counter>,
    ended: Family<Ended, Counter>,
}

impl Calls {
    /// Makes them part of what `registry` tells.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("grpc_server_started", "Calls that began", self.started.clone());
        registry.register("grpc_server_handled", "Calls that ended, by how", self.ended.clone());
    }
}

const UNARY: &str = "unary";

/// A service with its methods: those that answer once, and those that stream.
type Service = (&'static str, &'static [&'static str], &'static [(&'static str, &'static str)]);

/// All services.
const SERVICES: [Service; 7] = [
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

/// The method that a path names. All that nobody serves count as one: names are not the caller's to make.
fn method(path: &str) -> Method {
    let unknown = Method { grpc_type: UNARY, grpc_service: "unknown", grpc_method: "unknown" };
    let Some((service, name)) = path.strip_prefix('/').and_then(|path| path.split_once('/')) else {
        return unknown;
    };
    let Some((grpc_service, unary, streams)) = SERVICES.iter().find(|(known, ..)| *known == service) else {
        return unknown;
    };
    if let Some(grpc_method) = unary.iter().find(|known| **known == name) {
        return Method { grpc_type: UNARY, grpc_service, grpc_method };
    }
    let stream = streams.iter().find(|(known, _)| *known == name);
    stream.map_or(unknown, |(grpc_method, grpc_type)| Method { grpc_type, grpc_service, grpc_method })
}

/// gRPC's codes, by number.
const CODES: [&str; 17] = [
    "OK",
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

fn code(headers: &axum::http::HeaderMap) -> Option<&'static str> {
    let number = headers.get("grpc-status")?.to_str().ok()?.parse::<usize>().ok()?;
    Some(CODES.get(number).copied().unwrap_or("Unknown"))
}

/// A call that has not ended. One that is dropped was given up by its client.
struct Running {
    calls: Calls,
    method: Method,
    ended: bool,
}

impl Running {
    fn end(&mut self, grpc_code: &'static str) {
        if !std::mem::replace(&mut self.ended, true) {
            let Method { grpc_type, grpc_service, grpc_method } = self.method;
            let ended = Ended { grpc_type, grpc_service, grpc_method, grpc_code };
            self.calls.ended.get_or_create(&ended).inc();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end("Canceled");
    }
}

/// Counts a call.
pub(super) async fn count(State(calls): State<Calls>, request: Request, next: Next) -> Response {
    let method = method(request.uri().path());
    calls.started.get_or_create(&method).inc();
    let mut running = Running { calls, method, ended: false };
    let response = next.run(request).await;
    if let Some(code) = code(response.headers()) {
        running.end(code);
        return response;
    }
    if method.grpc_type == UNARY {
        running.end("OK");
        return response;
    }
    // How a stream ended stands behind it.
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            if let Some(code) = frame.trailers_ref().and_then(code) {
                running.end(code);
            }
            frame
        }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_counted_as_the_methods_that_there_are() {
        let told = |path: &str| {
            let Method { grpc_type, grpc_service, grpc_method } = method(path);
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
