//! API aggregation: group versions that other servers answer, as APIServices name them.
//!
//!     APIServices ─► remotes ──► proxy: requests go on to the Service's endpoints, in the caller's name
//!        ▲  ▲    └─► groups ───► discovery, local and remote versions in one order
//!        │  └ registration: one for each group version of this server and of definitions
//!        └ availability ◄─ probe: what each remote server answers
//!
//! Invariants: nobody but this server says who asks (`authentication::identity`); a group version is either local or remote, never half;
//! several apiservers do all of it at once, and write only what is not there already.

mod availability;
mod groups;
mod priorities;
mod probe;
mod proxy;
mod registration;
mod remote;
pub mod trust;

pub use availability::run as availability;
pub use proxy::Route;
pub use registration::run as registration;

use crate::outbound::{Relay, Trust};
use crate::reader::{Objects, Reader};
use crate::served::Served;
use crate::storage::{Resource, Store};
use anyhow::Context;
use arc_swap::ArcSwap;
use coracle_api::discovery::{self, Group};
use coracle_api::kinds::Kind;
use coracle_api::status::GroupResource;
use coracle_daemon::Tasks;
use coracle_daemon::panics::Mutex;
use coracle_daemon::tls::Identity;
use remote::Remotes;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

const GROUP: &str = "apiregistration.k8s.io";
const PLURAL: &str = "apiservices";

fn api_services() -> GroupResource {
    GroupResource::new(GROUP, PLURAL)
}

/// How this server shows itself to aggregated servers, named as kube-apiserver's flags.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct AggregatorArgs {
    /// PEM client certificate shown to aggregated servers.
    #[arg(long, requires = "proxy_client_key_file")]
    pub proxy_client_cert_file: Option<PathBuf>,
    /// Its PEM private key.
    #[arg(long, requires = "proxy_client_cert_file")]
    pub proxy_client_key_file: Option<PathBuf>,
}

/// What a remote server has told of its group version.
#[derive(Clone, Debug, Default)]
struct Told {
    discovery: discovery::Remote,
    /// Its document's place in the OpenAPI v3 index.
    openapi: Option<String>,
}

/// Knows the remote group versions, and carries requests to them.
pub struct Aggregator {
    store: Arc<Store>,
    objects: Arc<dyn Objects>,
    services: Arc<Resource>,
    remotes: ArcSwap<Remotes>,
    /// By the APIService's name.
    told: Mutex<HashMap<String, Told>>,
    trust: Trust,
    relay: Relay,
    shows_itself: bool,
    served: Arc<Served>,
}

impl Aggregator {
    /// Over the caches; nothing runs yet.
    ///
    /// # Errors
    /// APIServices are no kind of this server.
    pub fn new(
        args: &AggregatorArgs,
        store: Arc<Store>,
        objects: Arc<dyn Objects>,
        served: Arc<Served>,
        tasks: Tasks,
    ) -> anyhow::Result<Arc<Self>> {
        let identity = match (&args.proxy_client_cert_file, &args.proxy_client_key_file) {
            (Some(cert), Some(key)) => Some(Identity { cert: cert.clone(), key: key.clone() }),
            _ => None,
        };
        let services = store.resource(GROUP, PLURAL).context("there is no kind APIService")?;
        Ok(Arc::new(Self {
            store,
            objects,
            services,
            remotes: ArcSwap::default(),
            told: Mutex::default(),
            shows_itself: identity.is_some(),
            trust: Trust::with_identity(identity),
            relay: Relay::new(tasks),
            served,
        }))
    }

    /// Whether it has a certificate for aggregated servers.
    #[must_use]
    pub fn shows_itself(&self) -> bool {
        self.shows_itself
    }

    /// The remote group versions as of now.
    fn remotes(&self) -> Arc<Remotes> {
        let version = self.services.cache.version();
        let known = self.remotes.load_full();
        if known.version == version {
            return known;
        }
        let services = Reader::list(self.store.as_ref(), &api_services(), "");
        let remotes = Arc::new(Remotes::of(version, &services));
        self.remotes.store(remotes.clone());
        remotes
    }

    /// Every group but the core one, as discovery tells them.
    #[must_use]
    pub fn groups(&self, custom: &[Arc<Kind>]) -> Vec<Group> {
        let services = Reader::list(self.store.as_ref(), &api_services(), "");
        let told = self.told.lock();
        let told = |name: &str| told.get(name).map(|told| told.discovery.clone()).unwrap_or_default();
        groups::groups(&self.served(custom), &services, told)
    }

    /// Every group version that this server itself serves.
    fn served<'a>(&self, custom: &'a [Arc<Kind>]) -> Vec<(&'a str, &'a str)> {
        let mut all = discovery::served(custom);
        all.retain(|(group, version)| !self.served.hides(group, version));
        all
    }

    /// Brings remote group versions into an OpenAPI v3 index.
    pub fn describe(&self, index: &mut Value) {
        let Some(paths) = index["paths"].as_object_mut() else { return };
        let told = self.told.lock();
        for remote in self.remotes().all() {
            let path = remote.root().trim_start_matches('/').to_owned();
            paths.remove(&path);
            if let Some(url) = told.get(&remote.name).and_then(|told| told.openapi.as_ref()) {
                paths.insert(path, json!({"serverRelativeURL": url}));
            }
        }
    }
}
