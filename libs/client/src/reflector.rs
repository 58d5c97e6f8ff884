//! List once, then watch for ever: keeps a [`Store`] equal to what the apiserver holds.
//!
//!     List ──ok──► Watch(rv) ──event, bookmark──► Watch(rv')
//!      ▲  ▲           │  └──stream ends, error──► Watch(rv), after a back-off
//!      └──┼──────410──┘
//!         └── error: back-off
//!
//! A stream that breaks is resumed at the last resourceVersion seen, on whichever apiserver answers; only 410 Gone
//! makes a new list, so that a restart of an apiserver costs its clients one request each. An object that cannot be read is
//! passed over (`readable.rs`): whoever may write one must not be able to keep others from being seen.

use crate::readable::{self, Readable};
use crate::store::IndexFn;
use crate::{Key, Scope, Store, errors};
use coracle_daemon::backoff::Backoff;
use coracle_daemon::{clock, random};
use futures::stream::BoxStream;
use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use kube::api::{Api, ApiResource, DynamicObject, ListParams, ObjectList, WatchEvent, WatchParams};
use kube::core::PartialObjectMeta;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::time::Duration;

/// Watches end at whole multiples of this, by the clock: those of an idle cluster then wake its processes together, and not one
/// after the other.
const WATCH_ENDS_AT: Duration = Duration::from_secs(10);
/// A watch lasts so many of them, and fewer than so many more, which are drawn: not all of a process end together. With the way
/// to the first it is less than the 295 seconds that kube takes.
const WATCH_MIN: u32 = 20;
const WATCH_SPREAD: u64 = 8;
const RETRY_FIRST: Duration = Duration::from_millis(50);
/// Short, for a cluster that starts must not wait for clients that asked too early.
const RETRY_MOST: Duration = Duration::from_secs(2);
/// Objects asked for at a time by a list.
const PAGE: u32 = 2000;

/// What a reflector may keep in its store.
pub trait Reflected: kube::Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static {}
impl<K: kube::Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static> Reflected for K {}

type Listed<K> = kube::Result<ObjectList<Readable<K>>>;
type Watched<K> = kube::Result<BoxStream<'static, kube::Result<WatchEvent<Readable<K>>>>>;

/// Where objects come from: whole, or their metadata alone.
struct Source {
    client: kube::Client,
    request: kube::core::Request,
    metadata: bool,
}

impl Source {
    async fn list<K: Reflected>(&self, params: &ListParams) -> Listed<K> {
        let list = if self.metadata { self.request.list_metadata(params) } else { self.request.list(params) };
        self.client.request(list.map_err(kube::Error::BuildRequest)?).await
    }

    async fn watch<K: Reflected>(&self, params: &WatchParams, version: &str) -> Watched<K> {
        let watch = if self.metadata {
            self.request.watch_metadata(params, version)
        } else {
            self.request.watch(params, version)
        };
        let body = self.client.request_stream(watch.map_err(kube::Error::BuildRequest)?).await?;
        let events = body.lines().map(|line| match line {
            Ok(line) => readable::event(&line).map_err(kube::Error::SerdeError),
            Err(error) => Err(kube::Error::ReadEvents(error)),
        });
        Ok(events.boxed())
    }
}

/// A reflector about to start.
pub struct Reflector<K: Reflected> {
    source: Source,
    name: String,
    fields: Option<String>,
    labels: Option<String>,
    indexes: Vec<(&'static str, IndexFn<K>)>,
    trim: fn(&mut K),
}

impl Reflector<PartialObjectMeta<DynamicObject>> {
    /// Reflects the metadata of all objects of a resource.
    #[must_use]
    pub fn metadata(client: kube::Client, resource: &ApiResource) -> Self {
        let api: Api<DynamicObject> = Api::all_with(client, resource);
        let name = format!("{} (metadata)", api.resource_url());
        Self::of(api, name, true)
    }
}

impl<K: Reflected> Reflector<K> {
    /// Reflects what `api` serves.
    #[must_use]
    pub fn new(api: Api<K>) -> Self {
        let name = api.resource_url().to_owned();
        Self::of(api, name, false)
    }

    fn of<T: kube::Resource>(api: Api<T>, name: String, metadata: bool) -> Self {
        let request = kube::core::Request::new(api.resource_url());
        let source = Source { client: api.into_client(), request, metadata };
        Self { source, name, fields: None, labels: None, indexes: Vec::new(), trim: drop_managed_fields }
    }

    /// Only objects that match this field selector.
    #[must_use]
    pub fn fields(mut self, selector: impl Into<String>) -> Self {
        self.fields = Some(selector.into());
        self
    }

    /// Only objects that match this label selector.
    #[must_use]
    pub fn labels(mut self, selector: impl Into<String>) -> Self {
        self.labels = Some(selector.into());
        self
    }

    /// Adds an index.
    #[must_use]
    pub fn index(mut self, name: &'static str, values_of: IndexFn<K>) -> Self {
        self.indexes.push((name, values_of));
        self
    }

    /// Lets `trim` drop what nobody reads before an object is kept. Without it, `managedFields` go.
    #[must_use]
    pub fn trim(mut self, trim: fn(&mut K)) -> Self {
        self.trim = trim;
        self
    }

    /// Starts following, until the scope ends.
    #[must_use]
    pub fn start(self, scope: &Scope) -> Store<K> {
        let store = Store::new(&self.indexes);
        let filled = store.clone();
        scope.spawn(format!("reflector {}", self.name), async move { self.follow(&filled).await });
        store
    }

    async fn follow(&self, store: &Store<K>) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MOST);
        let mut version = None;
        loop {
            let ended = match version.take() {
                None => self.list(store).await.map(Some),
                Some(at) => self.watch(store, at, &mut version, &mut backoff).await.map(|()| None),
            };
            match ended {
                Ok(Some(listed)) => version = Some(listed),
                Ok(None) => {}
                Err(error) => {
                    if errors::is_gone(&error) {
                        tracing::debug!(reflector = self.name, "history is gone: listing anew");
                        version = None;
                    } else {
                        tracing::debug!(reflector = self.name, error = ?error, "will try again");
                    }
                    clock::sleep(backoff.next_delay()).await;
                }
            }
        }
    }

    /// Lists everything into the store; returns the list's resourceVersion.
    async fn list(&self, store: &Store<K>) -> kube::Result<String> {
        let mut params = ListParams {
            label_selector: self.labels.clone(),
            field_selector: self.fields.clone(),
            ..ListParams::default().limit(PAGE)
        };
        let mut objects = Vec::new();
        let version = loop {
            let page = self.source.list(&params).await?;
            objects.extend(page.items.into_iter().filter_map(|item: Readable<K>| item.object(&self.name)));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => break page.metadata.resource_version.unwrap_or_default(),
            }
        };
        objects.iter_mut().for_each(self.trim);
        store.replace(objects);
        Ok(version)
    }

    /// Follows one stream from `at`; `resume` always holds where to go on.
    async fn watch(
        &self,
        store: &Store<K>,
        at: String,
        resume: &mut Option<String>,
        backoff: &mut Backoff,
    ) -> kube::Result<()> {
        #[expect(clippy::cast_possible_truncation, reason = "below WATCH_SPREAD")]
        let whole = WATCH_MIN + random::below(WATCH_SPREAD) as u32;
        let lasts = WATCH_ENDS_AT * whole + clock::until_whole(WATCH_ENDS_AT);
        let params = WatchParams {
            label_selector: self.labels.clone(),
            field_selector: self.fields.clone(),
            timeout: u32::try_from(lasts.as_secs()).ok(),
            bookmarks: true,
            send_initial_events: false,
        };
        let version = resume.insert(at);
        let mut events = self.source.watch(&params, version).await?;
        let began = clock::Instant::now();
        while let Some(event) = events.try_next().await? {
            backoff.reset();
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    remember(version, &object);
                    if let Some(mut object) = object.object(&self.name) {
                        (self.trim)(&mut object);
                        store.upsert(object);
                    }
                }
                WatchEvent::Deleted(object) => {
                    remember(version, &object);
                    store.remove(&Key::of(object.meta()));
                }
                WatchEvent::Bookmark(bookmark) => *version = bookmark.metadata.resource_version,
                WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
            }
        }
        // A server that ends streams at once must not be asked in a tight loop.
        if began.elapsed() < Duration::from_secs(1) {
            clock::sleep(backoff.next_delay()).await;
        }
        Ok(())
    }
}

fn remember<K: Reflected>(version: &mut String, object: &Readable<K>) {
    if let Some(seen) = &object.meta().resource_version {
        version.clone_from(seen);
    }
}

fn drop_managed_fields<K: Reflected>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}
