//! The apiserver: HTTP in, store out. decode → authenticate → authorize → admit → registry → encode.
//!
//!     serve ─► pipeline ─► registry ─► storage ─► Kv
//!               └─► endpoints, streaming, aggregator
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
mod flags;
pub mod flowcontrol;
pub mod http;
mod meters;
pub mod outbound;
mod policies;
pub mod reader;
pub mod registry;
pub mod request;
mod serve;
mod served;
pub mod storage;
pub mod streaming;
#[cfg(test)]
mod tests;

pub use args::Args;

use self::http::crossing::Crossing;
use ::http::{Request, Response};
use admission::{Admission, Plugins};
use aggregator::Aggregator;
use anyhow::Context;
use audit::Audit;
use authentication::{Authentication, AuthenticationArgs, Peer};
use authorization::Authorization;
use axum::body::Body;
use coracle_api::kinds;
use coracle_api::validate::Policy;
use coracle_daemon::Tasks;
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
use serve::drain::InFlight;
use served::Served;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use storage::Store;
use storage::encryption::AtRest;
use storage::root::{Root, Rooted};
use streaming::Streaming;

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
    /// The part of requests after which a client connects anew.
    goaway_chance: f64,
    /// Requests at once on a connection; 0: as usual.
    streams_max: u32,
    /// Whether debuggers may look in.
    profiling: bool,
    /// Which built-in kinds there are for clients.
    served: Arc<Served>,
}

impl Server {
    /// Puts the parts together over `kv`; nothing runs yet.
    ///
    /// # Errors
    /// A certificate or key file is missing or unusable.
    pub fn new(args: &Args, kv: Arc<dyn Kv>, tasks: &Tasks) -> anyhow::Result<Arc<Self>> {
        args.check()?;
        let served = Arc::new(Served::new(&args.runtime_config, args.limits.enable_priority_and_fairness)?);
        let mut metrics = Metrics::default();
        args::gates::tell(metrics.registry());
        let store = store(args, kv, tasks, &mut metrics)?;
        let serving = tasks.child();
        let direct = Direct::new(store.clone());
        let objects: Arc<dyn Objects> = direct.clone();
        let known = authenticating(args);
        let authentication = Arc::new(Authentication::new(&known, store.clone(), objects.clone())?);
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
        let shared = Duration::from_secs(args.lease_reuse_duration_seconds);
        let allocator = Allocator::new(store.clone(), range, ports, args.event_ttl, shared);
        let registry = Arc::new(Registry {
            store: store.clone(),
            authentication: authentication.clone(),
            authorization: authorization.clone(),
            admission,
            allocator,
            conversion: Arc::new(Conversion::new(store.clone(), tasks.clone())),
            watching: Watching {
                stop: serving.stopping(),
                sent: Watches::new(metrics.registry()),
                seconds_min: args.limits.min_request_timeout,
            },
            policy: Policy { allow_privileged: args.allow_privileged },
        });
        direct.bind(&registry);
        let streaming = Streaming::new(&args.streaming, store.clone(), objects.clone(), tasks.clone())?;
        let aggregator =
            Aggregator::new(&args.aggregator, store.clone(), objects.clone(), served.clone(), tasks.clone())?;
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
            external: args.external(),
            goaway_chance: args.serving.goaway_chance,
            streams_max: args.serving.http2_max_streams_per_connection,
            profiling: args.limits.profiling,
            served,
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
        if !args.etcd_compaction_interval.is_zero() {
            let compaction = bootstrap::compact(self.store.clone(), args.etcd_compaction_interval);
            tasks.spawn_loop("compaction", compaction);
        }
    }

    /// Answers one request of a client with that verified certificate (DER leaf).
    pub async fn answer(self: &Arc<Self>, peer: Option<Arc<[u8]>>, request: Request<Body>) -> Response<Body> {
        serve::pipeline::answer(self, &peer.as_deref().map(Peer::client).unwrap_or_default(), request).await
    }
}

/// How requests are authenticated: where everybody may do everything, nobody is anonymous.
fn authenticating(args: &Args) -> AuthenticationArgs {
    let mut known = args.authentication.clone();
    if known.anonymous_auth && args.authorization.allows_all() {
        tracing::warn!(
            "--anonymous-auth is off, as --authorization-mode has AlwaysAllow; name other modes to have it"
        );
        known.anonymous_auth = false;
    }
    known
}

/// The store over `kv`, measured, below the prefix, with values sealed where that is asked for.
fn store(args: &Args, kv: Arc<dyn Kv>, tasks: &Tasks, metrics: &mut Metrics) -> anyhow::Result<Arc<Store>> {
    let root = Root::new(&args.etcd_prefix);
    let kv: Arc<dyn Kv> = Arc::new(Measured::new(Rooted::over(kv, &root, tasks), metrics.registry()));
    Ok(match AtRest::new(&args.encryption, &kv, root, tasks)? {
        Some(at_rest) => Store::encrypted(at_rest, kinds::builtin()),
        None => Store::new(kv, kinds::builtin()),
    })
}

/// Runs an apiserver: listens, connects to the store, and answers until the process stops.
///
/// # Errors
/// An address cannot be bound, or a file is missing or unusable.
pub async fn run(args: Args, tasks: Tasks) -> anyhow::Result<()> {
    if let Some(level) = args.v
        && let Err(why) = coracle_daemon::logging::set_verbosity(level)
    {
        tracing::warn!(why, "cannot log as much as --v says");
    }
    let files = match (&args.etcd_cafile, &args.etcd_certfile, &args.etcd_keyfile) {
        (Some(ca), Some(cert), Some(key)) => {
            Some(ClientTls { ca: ca.clone(), cert: cert.clone(), key: key.clone() })
        }
        _ => None,
    };
    let kv = Client::connect(&args.etcd_servers, files).await.context("cannot use --etcd-servers")?;
    let names = serve::names(&[args.bound(), vec![args.advertised()]].concat(), &args.external_hostname);
    let acceptor = args.serving.acceptor(&args.authentication.authorities(), names)?;
    let server = Server::new(&args, Arc::new(kv), &tasks)?;
    for address in args.bound() {
        let at = SocketAddr::new(address, args.secure_port);
        let listener = args.serving.listen(at).with_context(|| format!("cannot listen on {at}"))?;
        let listens = serve::listen(server.clone(), listener, acceptor.clone());
        server.serving.spawn(format!("listener {at}"), listens);
    }
    server.start(&args, &tasks);
    tasks.before_stop(server.clone().drain(args));
    tracing::info!(address = server.external, "listening");
    Ok(())
}
