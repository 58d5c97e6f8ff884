//! The apiserver: HTTP in, store out. decode → authenticate → authorize → admit → registry → encode.
//!
//!     serve ─► http::pipeline ─► registry ─► storage ─► Kv
//!                    └─► endpoints, streaming, aggregator
//!
//! Stateless but for its watch cache; any number run side by side.

pub mod admission;
pub mod aggregator;
mod args;
pub mod audit;
pub mod authentication;
pub mod authorization;
pub mod bootstrap;
pub mod definitions;
mod endpoints;
pub mod flowcontrol;
pub mod http;
mod meters;
pub mod outbound;
mod policies;
pub mod reader;
pub mod registry;
pub mod request;
mod serve;
pub mod storage;
pub mod streaming;
#[cfg(test)]
mod tests;

pub use args::Args;

use self::http::crossing::Crossing;
use self::http::drain::InFlight;
use ::http::{Request, Response};
use admission::{Admission, Plugins};
use aggregator::Aggregator;
use anyhow::Context;
use audit::Audit;
use authentication::{Authentication, Peer};
use authorization::Authorization;
use axum::body::Body;
use coracle_api::kinds;
use coracle_api::validate::Policy;
use coracle_daemon::Tasks;
use coracle_daemon::tls::{self, Identity};
use coracle_etcd::{Client, ClientTls, Kv};
use endpoints::health::Health;
use endpoints::metrics::Metrics;
use flowcontrol::FlowControl;
use meters::storage::Measured;
use meters::watch::Watches;
use reader::Objects;
use registry::allocate::Allocator;
use registry::direct::Direct;
use registry::{Conversion, Registry, Watching};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use storage::Store;
use storage::encryption::AtRest;
use storage::root::{Root, Rooted};
use streaming::Streaming;
use tokio::net::TcpListener;

/// Everything that a request passes through.
pub struct Server {
    store: Arc<Store>,
    registry: Arc<Registry>,
    authentication: Arc<Authentication>,
    authorization: Arc<Authorization>,
    streaming: Streaming,
    aggregator: Arc<Aggregator>,
    /// `None`: nothing is noted.
    audit: Option<Arc<Audit>>,
    /// What the server itself reads and writes through.
    objects: Arc<dyn Objects>,
    health: Health,
    metrics: Metrics,
    flow: FlowControl,
    /// How long a request may take.
    request_timeout: Duration,
    crossing: Crossing,
    /// Connections and listeners; they stop before what requests need.
    serving: Tasks,
    in_flight: InFlight,
    /// `host:port` as clients are told.
    external: String,
}

impl Server {
    /// Puts the parts together over `kv`; nothing runs yet.
    ///
    /// # Errors
    /// A certificate or key file is missing or unusable.
    pub fn new(args: &Args, kv: Arc<dyn Kv>, tasks: &Tasks) -> anyhow::Result<Arc<Self>> {
        let mut metrics = Metrics::default();
        let root = Root::new(&args.etcd_prefix);
        let kv: Arc<dyn Kv> = Arc::new(Measured::new(Rooted::over(kv, &root, tasks), metrics.registry()));
        let store = match AtRest::new(&args.encryption, &kv, root, tasks)? {
            Some(at_rest) => Store::encrypted(at_rest, kinds::builtin()),
            None => Store::new(kv, kinds::builtin()),
        };
        let serving = tasks.child();
        let direct = Direct::new(store.clone());
        let objects: Arc<dyn Objects> = direct.clone();
        let authentication =
            Arc::new(Authentication::new(&args.authentication, store.clone(), objects.clone())?);
        let modes = args.authorization.modes()?;
        let authorization = Arc::new(Authorization::with_modes(store.clone(), modes));
        let admission = Admission::with_authorization(
            store.clone(),
            objects.clone(),
            authorization.clone(),
            tasks.clone(),
            meters::admission::Meters::new(metrics.registry()),
            Plugins::new(&args.admission)?,
        );
        let range = args.service_cluster_ip_range;
        let ports = args.service_node_port_range.clone();
        let allocator = Allocator::new(store.clone(), range, ports, args.event_ttl);
        let registry = Arc::new(Registry {
            store: store.clone(),
            authentication: authentication.clone(),
            authorization: authorization.clone(),
            admission,
            allocator,
            conversion: Arc::new(Conversion::new(store.clone(), tasks.clone())),
            watching: Watching { stop: serving.stopping(), sent: Watches::new(metrics.registry()) },
            policy: Policy { allow_privileged: args.allow_privileged },
        });
        direct.bind(&registry);
        let streaming = Streaming::new(&args.streaming, store.clone(), objects.clone(), tasks.clone())?;
        let aggregator = Aggregator::new(&args.aggregator, store.clone(), objects.clone(), tasks.clone())?;
        let external = SocketAddr::new(args.advertised(), args.secure_port).to_string();
        let flow = FlowControl::new(args.limits.seats(), args.limits.request_timeout, metrics.registry());
        let flow = flow.bounded(args.limits.bounds());
        let audit = Audit::new(&args.audit, tasks, metrics.registry())?;
        Ok(Arc::new(Self {
            store,
            registry,
            authentication,
            authorization,
            streaming,
            aggregator,
            audit,
            objects,
            health: Health::default(),
            metrics,
            flow,
            request_timeout: args.limits.request_timeout,
            crossing: Crossing::new(&args.crossing)?,
            serving,
            in_flight: InFlight::default(),
            external,
        }))
    }

    /// Starts what runs beside requests: the caches' feed, bootstrap, compaction.
    pub fn start(self: &Arc<Self>, args: &Args, tasks: &Tasks) {
        if let Some(encryption) = self.store.encryption() {
            encryption.start();
        }
        tasks.spawn_loop("watch cache", storage::feed(self.store.clone()));
        tasks.spawn("bootstrap", bootstrap::run(self.clone(), args.clone(), tasks.clone()));
        tasks.spawn_loop("priority levels", bootstrap::priority_levels(self.clone()));
        tasks.spawn_loop("policies", policies::run(self.clone()));
        tasks.spawn_loop("custom kinds", definitions::run(self.clone()));
        tasks.spawn_loop("API registration", aggregator::registration(self.clone()));
        tasks.spawn_loop("availability of APIs", aggregator::availability(self.aggregator.clone()));
        tasks.spawn_loop("compaction", bootstrap::compact(self.store.clone()));
    }

    /// Answers one request of a client with that verified certificate (DER leaf).
    pub async fn answer(self: &Arc<Self>, peer: Option<Arc<[u8]>>, request: Request<Body>) -> Response<Body> {
        http::pipeline::answer(self, &peer.as_deref().map(Peer::client).unwrap_or_default(), request).await
    }
}

/// Runs an apiserver: listens, connects to the store, and answers until the process stops.
///
/// # Errors
/// An address cannot be bound, or a file is missing or unusable.
pub async fn run(args: Args, tasks: Tasks) -> anyhow::Result<()> {
    let files = match (&args.etcd_cafile, &args.etcd_certfile, &args.etcd_keyfile) {
        (Some(ca), Some(cert), Some(key)) => {
            Some(ClientTls { ca: ca.clone(), cert: cert.clone(), key: key.clone() })
        }
        _ => None,
    };
    let kv = Client::connect(&args.etcd_servers, files).await.context("cannot use --etcd-servers")?;
    let identity = Identity { cert: args.tls_cert_file.clone(), key: args.tls_private_key_file.clone() };
    let authorities = args.authentication.authorities();
    let clients = (!authorities.is_empty()).then_some((&authorities[..], tls::ClientAuth::Optional));
    let alpn: &[&[u8]] = &[b"h2", b"http/1.1"];
    let acceptor = tls::server(&identity, clients, alpn).context("cannot set up TLS")?;
    let server = Server::new(&args, Arc::new(kv), &tasks)?;
    for address in &args.bind_address {
        let at = SocketAddr::new(*address, args.secure_port);
        let listener = TcpListener::bind(at).await.with_context(|| format!("cannot listen on {at}"))?;
        let listens = serve::listen(server.clone(), listener, acceptor.clone());
        server.serving.spawn(format!("listener {at}"), listens);
    }
    server.start(&args, &tasks);
    tasks.before_stop(server.clone().drain(args));
    tracing::info!(address = server.external, "listening");
    Ok(())
}
