//! The one watch on the store that feeds every resource's cache.
//!
//! First all keys, page by page at one revision; then every change after it. A broken watch goes on from the last
//! revision; only when the store has forgotten that is everything read anew, and clients' watches end.

use super::cache::Told;
use super::entry::Entry;
use super::{Resource, Store, customs, keys};
use bytes::Bytes;
use coracle_api::status::GroupResource;
use coracle_etcd::kv::prefix_end;
use coracle_etcd::proto::{Event, EventType, RangeRequest};
use coracle_etcd::{KvError, WatchBatch};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

const PAGE: i64 = 1000;
/// Between tries to reach the store.
const RETRY: Duration = Duration::from_millis(200);

/// Feeds the caches; without end.
pub async fn run(store: Arc<Store>) {
    let store = &*store;
    let mut next: Option<u64> = None;
    // What goes on failing is told once.
    let mut told = false;
    loop {
        let from = match next {
            Some(revision) => revision,
            None => match load(store).await {
                Ok(revision) => revision,
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(%error, "cannot read the store; trying again");
                    }
                    coracle_daemon::clock::sleep(RETRY).await;
                    continue;
                }
            },
        };
        let error = follow(store, from).await;
        told &= !store.set_connected(false);
        next = match error {
            KvError::Compacted { .. } => {
                tracing::warn!(
                    "the store has forgotten what this server had not seen; reading everything again"
                );
                None
            }
            error => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(%error, "the watch on the store broke; going on");
                }
                coracle_daemon::clock::sleep(RETRY / 4).await;
                Some(store.progress())
            }
        };
    }
}

/// Reads the objects of one resource at `revision`.
pub(super) async fn read(
    store: &Store,
    resource: &Resource,
    revision: u64,
) -> Result<BTreeMap<String, Arc<Entry>>, KvError> {
    let mut objects = BTreeMap::new();
    let end = prefix_end(resource.prefix.as_bytes());
    let mut from = Bytes::from(resource.prefix.clone());
    loop {
        let request = RangeRequest {
            key: from.clone(),
            range_end: end.clone(),
            limit: PAGE,
            revision: i64::try_from(revision).unwrap_or(i64::MAX),
            ..RangeRequest::default()
        };
        let page = store.kv().range(request).await?;
        for kv in &page.kvs {
            let tail = String::from_utf8_lossy(&kv.key[resource.prefix.len()..]).into_owned();
            let entry = Entry::new(&tail, unsigned(kv.mod_revision), kv.value.clone());
            objects.insert(tail, Arc::new(entry));
        }
        match page.kvs.last().filter(|_| page.more) {
            Some(last) => from = [last.key.as_ref(), b"\0"].concat().into(),
            None => return Ok(objects),
        }
    }
}

type Loaded = HashMap<GroupResource, BTreeMap<String, Arc<Entry>>>;

/// Reads everything; returns the revision of the reading.
async fn load(store: &Store) -> Result<u64, KvError> {
    let end = prefix_end(keys::ROOT.as_bytes());
    let mut from = Bytes::from_static(keys::ROOT.as_bytes());
    let mut revision = 0;
    let mut loaded = Loaded::new();
    loop {
        let request = RangeRequest {
            key: from.clone(),
            range_end: end.clone(),
            limit: PAGE,
            revision,
            ..RangeRequest::default()
        };
        let page = store.kv().range(request).await?;
        if revision == 0 {
            revision = page.header.as_ref().map_or(0, |header| header.revision);
        }
        for kv in &page.kvs {
            let Some((resource, tail)) = store.route(&kv.key) else { continue };
            let entry = Entry::new(tail, unsigned(kv.mod_revision), kv.value.clone());
            loaded.entry(resource.of.clone()).or_default().insert(tail.to_owned(), Arc::new(entry));
        }
        match page.kvs.last().filter(|_| page.more) {
            Some(last) => from = [last.key.as_ref(), b"\0"].concat().into(),
            None => break,
        }
    }
    let revision = unsigned(revision);
    for resource in store.resources().values() {
        resource.cache.install(loaded.remove(&resource.of).unwrap_or_default(), revision);
    }
    store.follow_definitions(revision).await?;
    store.advance(revision);
    Ok(revision)
}

/// Applies every change after `from` until the watch ends.
async fn follow(store: &Store, from: u64) -> KvError {
    let root = Bytes::from_static(keys::ROOT.as_bytes());
    let start = i64::try_from(from + 1).unwrap_or(i64::MAX);
    let mut watch = match store.kv().watch(root, prefix_end(keys::ROOT.as_bytes()), start, false).await {
        Ok(watch) => watch,
        Err(error) => return error,
    };
    store.set_connected(true);
    loop {
        let batch = tokio::select! {
            batch = watch.next() => batch,
            () = store.progress_wanted() => {
                watch.request_progress();
                continue;
            }
        };
        match batch {
            Ok(WatchBatch::Events { revision, events }) => {
                let revision = unsigned(revision);
                if apply(store, events)
                    && let Err(error) = store.follow_definitions(revision).await
                {
                    return lost(&error);
                }
                store.advance(revision);
            }
            Ok(WatchBatch::Progress { revision }) => store.advance(unsigned(revision)),
            Err(error) => return error,
        }
    }
}

/// Objects of new kinds that cannot be read at their revision: nothing but reading everything helps.
fn lost(error: &KvError) -> KvError {
    tracing::warn!(%error, "cannot read the objects of a new kind; reading everything again");
    KvError::Compacted { compact_revision: 0 }
}

/// Tells whether a definition of custom kinds is among the events.
fn apply(store: &Store, events: Vec<Event>) -> bool {
    let mut changes: HashMap<GroupResource, (Arc<Resource>, Vec<Told>)> = HashMap::new();
    for event in events {
        let deleted = event.r#type() == EventType::Delete;
        let Some(kv) = event.kv else { continue };
        let Some((resource, tail)) = store.route(&kv.key) else { continue };
        let told = Told {
            tail: tail.to_owned(),
            revision: unsigned(kv.mod_revision),
            raw: (!deleted).then_some(kv.value),
        };
        changes.entry(resource.of.clone()).or_insert_with(|| (resource, Vec::new())).1.push(told);
    }
    let defines = changes.keys().any(|of| of.group == customs::GROUP && of.resource == customs::PLURAL);
    for (resource, changes) in changes.into_values() {
        resource.cache.apply(changes);
    }
    defines
}

/// Revisions are never negative.
fn unsigned(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or(0)
}
