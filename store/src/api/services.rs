//! All services behind one door. Nearly all calls are of KV and Watch: those are called as they are, without the router's
//! way through boxes that each call would have to be packed into.

use super::calls::{Calls, Counted};
use super::wire::watch_server::WatchServer;
use super::{Api, MESSAGE_OVERHEAD, auth};
use coracle_etcd::proto::cluster_server::ClusterServer;
use coracle_etcd::proto::kv_server::KvServer;
use coracle_etcd::proto::lease_server::LeaseServer;
use coracle_etcd::proto::maintenance_server::MaintenanceServer;
use coracle_etcd::proto::v3electionpb::election_server::ElectionServer;
use coracle_etcd::proto::v3lockpb::lock_server::LockServer;
use futures::FutureExt;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;
use tonic::service::Routes;
use tower::Service;

/// See the module; clones share it.
#[derive(Clone)]
pub(super) struct Services(Arc<Parts>);

struct Parts {
    kv: KvServer<Api>,
    watch: WatchServer<Api>,
    /// The other services, and the pages.
    others: Routes,
    calls: Calls,
}

impl Services {
    /// The services of `api`, and `pages`.
    pub fn new(api: &Api, pages: axum::Router) -> Self {
        let bytes_max = api.limits.request_bytes_max + MESSAGE_OVERHEAD;
        let mut others = Routes::default()
            .add_service(LeaseServer::new(api.clone()).max_decoding_message_size(bytes_max))
            .add_service(ClusterServer::new(api.clone()).max_decoding_message_size(bytes_max))
            .add_service(MaintenanceServer::new(api.clone()).max_decoding_message_size(bytes_max))
            .add_service(LockServer::new(api.clone()).max_decoding_message_size(bytes_max))
            .add_service(ElectionServer::new(api.clone()).max_decoding_message_size(bytes_max));
        let auth =
            axum::Router::new().route(auth::PATH, axum::routing::post(auth::answer)).with_state(api.clone());
        // The services' own answer to paths that nobody serves is gRPC's, which stays.
        let services = std::mem::take(others.axum_router_mut()).merge(auth);
        *others.axum_router_mut() = services.merge(pages);
        Self(Arc::new(Parts {
            kv: KvServer::new(api.clone()).max_decoding_message_size(bytes_max),
            watch: WatchServer::new(api.clone()).max_decoding_message_size(bytes_max),
            others: others.prepare(),
            calls: api.counts.calls.clone(),
        }))
    }
}

impl Service<Request<Body>> for Services {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Counted;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Counted {
        let parts = &*self.0;
        let running = parts.calls.begin(&request);
        let path = request.uri().path().strip_prefix('/');
        let service = path.and_then(|path| path.split_once('/')).map(|(service, _)| service);
        let answer = match service {
            Some(<KvServer<Api> as NamedService>::NAME) => parts.kv.clone().call(request),
            Some(<WatchServer<Api> as NamedService>::NAME) => parts.watch.clone().call(request),
            _ => parts.others.clone().call(request).boxed(),
        };
        Counted::new(answer, running)
    }
}
