//! Objects in the store: reads and compare-and-swap writes by key, and a watch cache for every resource.
//!
//!     registry ── get, create, replace, remove ──► Kv (etcd v3)
//!        ▲                                          │ one watch over /registry/
//!        └── list, cursor ◄── Cache per resource ◄── feed
//!
//! Invariants: a write happens only on the revision it was made from; a list is a snapshot at its resourceVersion.

pub mod cache;
pub mod convert;
pub mod customs;
pub mod encode;
pub mod encryption;
pub mod entry;
mod feed;
mod foreign;
pub mod keys;
pub mod order;
pub mod root;
mod rounds;
pub mod write;
mod yaml;

pub use feed::run as feed;

use crate::reader::Reader;
use arc_swap::ArcSwap;
use bytes::Bytes;
use cache::Cache;
use coracle_api::kinds::Kind;
use coracle_api::status::{GroupResource, Status};
use coracle_etcd::proto::RangeRequest;
use coracle_etcd::{Kv, KvError};
use encryption::{AtRest, Plain};
use entry::Entry;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How long a request waits for the cache to come up to the store.
const FRESH_MAX: Duration = Duration::from_secs(3);
/// After this the store is asked how far its watch is: usually the next event tells.
const PROGRESS_AFTER: Duration = Duration::from_millis(50);

/// One stored resource.
pub struct Resource {
    /// Group and plural.
    pub of: GroupResource,
    /// The prefix of its keys.
    pub prefix: String,
    /// Whether it comes from a CustomResourceDefinition.
    pub custom: bool,
    /// Its objects.
    pub cache: Cache,
}

impl Resource {
    /// The whole key of an object.
    #[must_use]
    pub fn key(&self, namespace: &str, name: &str) -> Bytes {
        Bytes::from(format!("{}{}", self.prefix, keys::tail(namespace, name)))
    }
}

type Resources = HashMap<GroupResource, Arc<Resource>>;

/// The store behind its caches.
pub struct Store {
    kv: Arc<dyn Kv>,
    resources: ArcSwap<Resources>,
    /// By the key's path between root and namespace or name.
    routes: ArcSwap<HashMap<String, Arc<Resource>>>,
    customs: ArcSwap<customs::Customs>,
    /// Every event up to this revision is in the caches; 0 before the first load.
    progress: watch::Sender<u64>,
    wanted: Notify,
    connected: AtomicBool,
    rounds: Arc<rounds::Rounds>,
    encryption: Option<Arc<AtRest>>,
}

impl Store {
    /// With caches for `kinds`, empty until [`feed`] runs.
    #[must_use]
    pub fn new(kv: Arc<dyn Kv>, kinds: &[Arc<Kind>]) -> Arc<Self> {
        Self::over(kv, None, kinds)
    }

    /// The same behind encryption at rest.
    #[must_use]
    pub fn encrypted(at_rest: Arc<AtRest>, kinds: &[Arc<Kind>]) -> Arc<Self> {
        Self::over(Arc::new(Plain(at_rest.clone())), Some(at_rest), kinds)
    }

    fn over(kv: Arc<dyn Kv>, encryption: Option<Arc<AtRest>>, kinds: &[Arc<Kind>]) -> Arc<Self> {
        let store = Self {
            resources: ArcSwap::default(),
            routes: ArcSwap::default(),
            customs: ArcSwap::default(),
            progress: watch::Sender::new(0),
            wanted: Notify::new(),
            connected: AtomicBool::new(false),
            rounds: rounds::Rounds::over(&kv),
            kv,
            encryption,
        };
        let (mut resources, mut routes) = (Resources::new(), HashMap::new());
        for kind in kinds.iter().filter(|kind| kind.offers("get") || kind.offers("list")) {
            let of = keys::stored_as(&kind.group, &kind.plural);
            if resources.contains_key(&of) || of.group != kind.group {
                continue;
            }
            let prefix = keys::prefix(kind);
            let resource = Arc::new(Resource {
                of: of.clone(),
                prefix: prefix.clone(),
                custom: false,
                cache: Cache::default(),
            });
            routes.insert(prefix[keys::ROOT.len()..].to_owned(), resource.clone());
            resources.insert(of, resource);
        }
        store.resources.store(Arc::new(resources));
        store.routes.store(Arc::new(routes));
        Arc::new(store)
    }

    /// The store itself.
    #[must_use]
    pub fn kv(&self) -> &Arc<dyn Kv> {
        &self.kv
    }

    /// How values are kept in the store; `None`: as they are.
    #[must_use]
    pub fn encryption(&self) -> Option<&Arc<AtRest>> {
        self.encryption.as_ref()
    }

    /// Whether an object should be written anew though nothing in it changes: another key should keep it.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub async fn stale(&self, resource: &Resource, entry: &Entry) -> Result<bool, Status> {
        let Some(encryption) = &self.encryption else { return Ok(false) };
        let key = Bytes::from(format!("{}{}", resource.prefix, entry.tail));
        encryption.stale(&key, entry.revision).await.map_err(|error| unreachable(&error))
    }

    /// All resources.
    #[must_use]
    pub fn resources(&self) -> Arc<Resources> {
        self.resources.load_full()
    }

    /// The resource where a kind is stored.
    #[must_use]
    pub fn resource(&self, group: &str, plural: &str) -> Option<Arc<Resource>> {
        self.resources.load().get(&keys::stored_as(group, plural)).cloned()
    }

    /// The resource of a key, and the rest of the key.
    fn route<'a>(&self, key: &'a [u8]) -> Option<(Arc<Resource>, &'a str)> {
        let path = std::str::from_utf8(key).ok()?.strip_prefix(keys::ROOT)?;
        let routes = self.routes.load();
        let slashes = path.match_indices('/').map(|(at, _)| at + 1).take(2);
        slashes.into_iter().find_map(|at| Some((routes.get(&path[..at])?.clone(), &path[at..])))
    }

    /// The revision up to which the caches hold everything.
    #[must_use]
    pub fn progress(&self) -> u64 {
        *self.progress.borrow()
    }

    fn advance(&self, revision: u64) {
        self.progress.send_if_modified(|progress| {
            let on = revision > *progress;
            *progress = (*progress).max(revision);
            on
        });
    }

    /// Whether the store's watch is up.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    /// Returns how it was before.
    fn set_connected(&self, up: bool) -> bool {
        self.connected.swap(up, Ordering::AcqRel)
    }

    async fn progress_wanted(&self) {
        self.wanted.notified().await;
    }

    /// Ends when the caches hold the store's contents for the first time.
    pub async fn loaded(&self) {
        // The sender lives as long as this store.
        let _ = self.progress.subscribe().wait_for(|progress| *progress > 0).await;
    }

    /// Waits until the caches hold everything up to `revision`.
    ///
    /// # Errors
    /// 504 when they do not get there in time.
    pub async fn reach(&self, revision: u64) -> Result<(), Status> {
        let mut progress = self.progress.subscribe();
        let there = |progress: &u64| *progress >= revision;
        if there(&progress.borrow_and_update()) {
            return Ok(());
        }
        if tokio::time::timeout(PROGRESS_AFTER, progress.wait_for(there)).await.is_ok() {
            return Ok(());
        }
        self.wanted.notify_one();
        match tokio::time::timeout(FRESH_MAX, progress.wait_for(there)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Status::too_large_resource_version(revision, self.progress())),
        }
    }

    /// Waits until the caches are as fresh as the store is now.
    ///
    /// # Errors
    /// The store cannot be reached, or the caches cannot catch up in time.
    pub async fn fresh(&self) -> Result<(), Status> {
        let revision = self.rounds.revision().await.map_err(|error| unreachable(&error))?;
        self.reach(revision).await
    }

    /// The object, as fresh as the store is now: from the cache once that has come up to the store, which costs the same
    /// for one reader as for all who ask at the time.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub async fn current(&self, resource: &Resource, tail: &str) -> Result<Option<Arc<Entry>>, Status> {
        match self.fresh().await {
            Ok(()) => resource.cache.get(tail).map(Entry::readable).transpose(),
            // The store answers where its watch does not.
            Err(_) => self.get(resource, tail).await,
        }
    }

    /// The object as the store has it now, from the store itself.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub async fn get(&self, resource: &Resource, tail: &str) -> Result<Option<Arc<Entry>>, Status> {
        let key = Bytes::from(format!("{}{tail}", resource.prefix));
        let request = RangeRequest { key, ..RangeRequest::default() };
        let answer = self.kv.range(request).await.map_err(|error| unreachable(&error))?;
        let Some(kv) = answer.kvs.into_iter().next() else { return Ok(None) };
        let revision = u64::try_from(kv.mod_revision).unwrap_or(0);
        // The cached entry may be parsed and encoded already.
        if let Some(entry) = resource.cache.get(tail).filter(|entry| entry.revision == revision) {
            return Entry::readable(entry).map(Some);
        }
        Entry::readable(Arc::new(Entry::new(tail, revision, kv.value))).map(Some)
    }
}

/// What a client is told of a store that fails.
#[must_use]
pub fn unreachable(error: &KvError) -> Status {
    match error {
        KvError::Unavailable(_) => Status::new(500, "", error.to_string()),
        KvError::Unknown(_) => Status::timeout("request did not complete within the allotted timeout"),
        KvError::NotSent(why) => Status::internal(why),
        other => Status::new(500, "", other.to_string()),
    }
}

impl Reader for Store {
    fn get(&self, of: &GroupResource, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let resource = self.resources.load().get(of)?.clone();
        let entry = resource.cache.get(&keys::tail(namespace, name)).map(Entry::readable)?;
        Some(entry.ok()?.value().clone())
    }

    fn list(&self, of: &GroupResource, namespace: &str) -> Vec<Arc<Value>> {
        let Some(resource) = self.resources.load().get(of).cloned() else { return Vec::new() };
        let (entries, _) = resource.cache.list(namespace, 0, |entry| entry.fault().is_none());
        entries.iter().map(|entry| entry.value().clone()).collect()
    }

    fn version(&self, of: &GroupResource) -> u64 {
        self.resources.load().get(of).map_or(0, |resource| resource.cache.version())
    }
}
