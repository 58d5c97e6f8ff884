//! Kinds that come and go with CustomResourceDefinitions: their place in URLs, and their caches.
//!
//! Only the feed changes them, between two changes of the store: whoever sees a definition's change in the caches sees its
//! kinds too, with every object that they had at that revision.

use super::cache::Cache;
use super::{Resource, Store, keys};
use crate::reader::Reader;
use coracle_api::kinds::{self, Kind};
use coracle_api::status::GroupResource;
use coracle_api::{custom, openapi};
use coracle_etcd::KvError;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Where definitions are.
pub const GROUP: &str = "apiextensions.k8s.io";
/// See [`GROUP`].
pub const PLURAL: &str = "customresourcedefinitions";

/// The custom kinds as of now.
#[derive(Default)]
pub struct Customs {
    kinds: Vec<Arc<Kind>>,
    by_resource: HashMap<(String, String, String), Arc<Kind>>,
    documents: OnceLock<Arc<openapi::Documents>>,
    /// Those of the kinds before these.
    earlier: Mutex<Option<Arc<openapi::Documents>>>,
}

impl Customs {
    fn of(definitions: &[Arc<Value>], before: &Self) -> Self {
        let mut kinds: Vec<Arc<Kind>> =
            definitions.iter().flat_map(|definition| custom::kinds(definition)).collect();
        // Groups in the order of their names; within a group the preferred version stays first.
        kinds.sort_by(|a, b| (&a.group, &a.plural).cmp(&(&b.group, &b.plural)));
        let key = |kind: &Kind| (kind.group.clone(), kind.version.clone(), kind.plural.clone());
        let by_resource = kinds.iter().map(|kind| (key(kind), kind.clone())).collect();
        let earlier = before.documents.get().cloned().or_else(|| before.earlier().take());
        Self { kinds, by_resource, documents: OnceLock::new(), earlier: Mutex::new(earlier) }
    }

    /// All of them.
    #[must_use]
    pub fn kinds(&self) -> &[Arc<Kind>] {
        &self.kinds
    }

    /// Their OpenAPI documents, made when they are first asked for.
    #[must_use]
    pub fn documents(&self) -> &openapi::Documents {
        self.documents.get_or_init(|| {
            let earlier = self.earlier().take();
            Arc::new(openapi::Documents::of(&self.kinds, earlier.as_deref()))
        })
    }

    fn earlier(&self) -> MutexGuard<'_, Option<Arc<openapi::Documents>>> {
        self.earlier.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// The custom kinds as of now.
    #[must_use]
    pub fn customs(&self) -> Arc<Customs> {
        self.customs.load_full()
    }

    /// The custom kind at a URL's group, version and plural.
    #[must_use]
    pub fn custom(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
        let key = (group.to_owned(), version.to_owned(), plural.to_owned());
        self.customs.load().by_resource.get(&key).cloned()
    }

    /// The kind, built-in or custom, in which the objects of a resource are stored.
    #[must_use]
    pub fn stored_kind(&self, of: &GroupResource) -> Option<Arc<Kind>> {
        let stored = |kind: &&Arc<Kind>| {
            kind.group == of.group
                && kind.plural == of.resource
                && kind.api_version() == crate::storage::convert::stored_version(kind)
        };
        let customs = self.customs();
        kinds::builtin().iter().chain(customs.kinds()).find(stored).cloned()
    }

    /// Makes the kinds fit the definitions in the cache; what is new is read at `revision`.
    pub(super) async fn follow_definitions(&self, revision: u64) -> Result<(), KvError> {
        let definitions = Reader::list(self, &GroupResource::new(GROUP, PLURAL), "");
        let customs = Customs::of(&definitions, &self.customs());
        let mut resources = self.resources.load().as_ref().clone();
        let mut routes = self.routes.load().as_ref().clone();
        let wanted: BTreeMap<GroupResource, &Arc<Kind>> =
            customs.kinds.iter().map(|kind| (kind.group_resource(), kind)).collect();
        resources.retain(|of, resource| {
            let stays = !resource.custom || wanted.contains_key(of);
            if !stays {
                routes.remove(&resource.prefix[keys::ROOT.len()..]);
                // Its watches are over.
                resource.cache.install(BTreeMap::new(), revision);
            }
            stays
        });
        for (of, kind) in wanted {
            if resources.contains_key(&of) {
                continue;
            }
            let resource = Arc::new(Resource {
                of: of.clone(),
                prefix: keys::prefix(kind),
                custom: true,
                cache: Cache::default(),
            });
            let objects = super::feed::read(self, &resource, revision).await?;
            resource.cache.install(objects, revision);
            routes.insert(resource.prefix[keys::ROOT.len()..].to_owned(), resource.clone());
            resources.insert(of, resource);
        }
        self.resources.store(Arc::new(resources));
        self.routes.store(Arc::new(routes));
        self.customs.store(Arc::new(customs));
        Ok(())
    }
}
