//! The keyed cache that a reflector fills: objects by namespace/name, secondary indexes, and change notifications.
//!
//! In: upserts, removals and whole replacements, from one writer. Out: shared objects, and for each change either a
//! callback that sees the object before and after (to map it to the keys of a queue), or a coalesced set of keys.
//!
//! Invariants: a callback runs after the cache shows its change, in the order of the changes, one at a time; a
//! callback registered late first sees every object present as an addition, so none is missed or seen twice.
//! Callbacks must be quick, must not block, and must not register callbacks on the same store.

use crate::Key;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use tokio::sync::{Notify, watch};

/// Computes the values under which an object is found in an index.
pub type IndexFn<K> = fn(&K) -> Vec<String>;

/// One object's change; `old` is absent for additions, `new` for removals.
pub struct Change<K> {
    /// Which object.
    pub key: Key,
    /// As it was.
    pub old: Option<Arc<K>>,
    /// As it is.
    pub new: Option<Arc<K>>,
}

impl<K> Change<K> {
    /// The object as it is, or as it last was.
    #[must_use]
    pub fn latest(&self) -> Option<&Arc<K>> {
        self.new.as_ref().or(self.old.as_ref())
    }
}

type Handler<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;

/// A read handle on the cache; clones share it.
pub struct Store<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for Store<K> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

struct Shared<K> {
    state: RwLock<State<K>>,
    /// Held by the writer across one change and its callbacks, and by registrations: see the module's invariants.
    handlers: Mutex<Vec<Handler<K>>>,
    synced: watch::Sender<bool>,
}

struct State<K> {
    objects: BTreeMap<Key, Arc<K>>,
    indexes: Vec<Index<K>>,
}

struct Index<K> {
    name: &'static str,
    values_of: IndexFn<K>,
    keys: HashMap<String, BTreeSet<Key>>,
}

impl<K> Index<K> {
    fn update(&mut self, key: &Key, old: Option<&K>, new: Option<&K>) {
        let before = old.map(self.values_of).unwrap_or_default();
        let after = new.map(self.values_of).unwrap_or_default();
        if before == after {
            return;
        }
        for value in before {
            if let Some(keys) = self.keys.get_mut(&value) {
                keys.remove(key);
                if keys.is_empty() {
                    self.keys.remove(&value);
                }
            }
        }
        for value in after {
            self.keys.entry(value).or_default().insert(key.clone());
        }
    }
}

impl<K: kube::Resource + Send + Sync + 'static> Store<K> {
    /// An empty cache with these indexes. Reflectors make theirs; tests fill one by hand.
    #[must_use]
    pub fn new(indexes: &[(&'static str, IndexFn<K>)]) -> Self {
        let indexes = indexes
            .iter()
            .map(|&(name, values_of)| Index { name, values_of, keys: HashMap::new() })
            .collect();
        Self {
            shared: Arc::new(Shared {
                state: RwLock::new(State { objects: BTreeMap::new(), indexes }),
                handlers: Mutex::default(),
                synced: watch::Sender::new(false),
            }),
        }
    }

    /// The object, if it exists.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.shared.state.read().objects.get(key).cloned()
    }

    /// All objects, by key.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<K>> {
        self.shared.state.read().objects.values().cloned().collect()
    }

    /// All keys, in order.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        self.shared.state.read().objects.keys().cloned().collect()
    }

    /// All objects of a namespace, by name.
    #[must_use]
    pub fn list_in(&self, namespace: &str) -> Vec<Arc<K>> {
        let state = self.shared.state.read();
        let from = Key::new(namespace, "");
        state
            .objects
            .range(from..)
            .take_while(|(key, _)| key.namespace == namespace)
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// The objects that the index `name` files under `value`, by key. An index that was never asked for is empty.
    #[must_use]
    pub fn by_index(&self, name: &str, value: &str) -> Vec<Arc<K>> {
        let state = self.shared.state.read();
        let keys =
            state.indexes.iter().find(|index| index.name == name).and_then(|index| index.keys.get(value));
        keys.into_iter().flatten().filter_map(|key| state.objects.get(key).cloned()).collect()
    }

    /// How many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.state.read().objects.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the first list is in.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        *self.shared.synced.borrow()
    }

    /// Waits until the first list is in.
    pub async fn synced(&self) {
        // The sender lives in `self`: waiting cannot fail.
        let _ = self.shared.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// Calls `handler` for every object present, then for every change. See the module's rules for callbacks.
    pub fn on_change(&self, handler: impl Fn(&Change<K>) + Send + Sync + 'static) {
        let mut handlers = self.shared.handlers.lock();
        let present: Vec<_> = self
            .shared
            .state
            .read()
            .objects
            .iter()
            .map(|(key, object)| (key.clone(), object.clone()))
            .collect();
        for (key, object) in present {
            handler(&Change { key, old: None, new: Some(object) });
        }
        handlers.push(Box::new(handler));
    }

    /// The keys of everything present and of every later change, coalesced.
    #[must_use]
    pub fn changes(&self) -> Changes {
        let changes = Changes::default();
        let sink = changes.clone();
        self.on_change(move |change| sink.add(change.key.clone()));
        changes
    }

    /// Adds or changes an object.
    pub fn upsert(&self, object: K) {
        let handlers = self.shared.handlers.lock();
        self.change(&handlers, Key::of(object.meta()), Some(Arc::new(object)));
    }

    /// Removes an object.
    pub fn remove(&self, key: &Key) {
        let handlers = self.shared.handlers.lock();
        self.change(&handlers, key.clone(), None);
    }

    /// Makes the cache hold exactly `objects`, and counts as the first list. Objects that did not change are kept silent.
    pub fn replace(&self, objects: Vec<K>) {
        let handlers = self.shared.handlers.lock();
        let fresh: BTreeMap<Key, K> =
            objects.into_iter().map(|object| (Key::of(object.meta()), object)).collect();
        let gone: Vec<Key> = self.keys().into_iter().filter(|key| !fresh.contains_key(key)).collect();
        for key in gone {
            self.change(&handlers, key, None);
        }
        for (key, object) in fresh {
            let known = self.get(&key).and_then(|old| old.meta().resource_version.clone());
            if known.is_none() || known != object.meta().resource_version {
                self.change(&handlers, key, Some(Arc::new(object)));
            }
        }
        self.shared.synced.send_replace(true);
    }

    fn change(&self, handlers: &[Handler<K>], key: Key, new: Option<Arc<K>>) {
        let old = {
            let mut state = self.shared.state.write();
            let old = match &new {
                Some(object) => state.objects.insert(key.clone(), object.clone()),
                None => state.objects.remove(&key),
            };
            for index in &mut state.indexes {
                index.update(&key, old.as_deref(), new.as_deref());
            }
            old
        };
        if old.is_none() && new.is_none() {
            return;
        }
        let change = Change { key, old, new };
        for handler in handlers {
            handler(&change);
        }
    }
}

/// A set of changed keys that waits to be taken; clones share it.
#[derive(Clone, Default)]
pub struct Changes {
    shared: Arc<ChangesShared>,
}

#[derive(Default)]
struct ChangesShared {
    keys: Mutex<BTreeSet<Key>>,
    wake: Notify,
}

impl Changes {
    /// Waits until something changed, and takes all changed keys.
    pub async fn next(&self) -> BTreeSet<Key> {
        loop {
            let keys = std::mem::take(&mut *self.shared.keys.lock());
            if !keys.is_empty() {
                return keys;
            }
            self.shared.wake.notified().await;
        }
    }

    fn add(&self, key: Key) {
        self.shared.keys.lock().insert(key);
        self.shared.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::ObjectMeta;

    fn config_map(name: &str, version: &str, label: &str) -> ConfigMap {
        let labels = BTreeMap::from([("app".to_owned(), label.to_owned())]);
        ConfigMap {
            metadata: ObjectMeta {
                namespace: Some("ns".into()),
                name: Some(name.into()),
                resource_version: Some(version.into()),
                labels: Some(labels),
                ..Default::default()
            },
            ..Default::default()
        }
    }

    fn by_app(object: &ConfigMap) -> Vec<String> {
        object.metadata.labels.iter().flat_map(|labels| labels.get("app").cloned()).collect()
    }

    fn logged(store: &Store<ConfigMap>) -> Arc<Mutex<Vec<String>>> {
        let log = Arc::new(Mutex::new(Vec::new()));
        let sink = log.clone();
        store.on_change(move |change| {
            let what = match (&change.old, &change.new) {
                (None, _) => "add",
                (_, None) => "delete",
                _ => "change",
            };
            sink.lock().push(format!("{what} {}", change.key));
        });
        log
    }

    #[test]
    fn an_index_follows_the_object() {
        let store = Store::new(&[("app", by_app)]);
        store.upsert(config_map("a", "1", "red"));
        store.upsert(config_map("b", "2", "red"));
        store.upsert(config_map("a", "3", "blue"));
        store.remove(&Key::new("ns", "b"));
        let names = |value| {
            store.by_index("app", value).iter().map(|o| Key::of(&o.metadata).name).collect::<Vec<_>>()
        };
        assert_eq!((names("red"), names("blue")), (vec![], vec!["a".to_owned()]));
    }

    #[test]
    fn a_replacement_tells_differences_only() {
        let store = Store::new(&[]);
        store.replace(vec![config_map("a", "1", "x"), config_map("b", "2", "x"), config_map("c", "3", "x")]);
        let log = logged(&store);
        log.lock().clear();
        store.replace(vec![config_map("a", "1", "x"), config_map("b", "9", "x"), config_map("d", "4", "x")]);
        assert_eq!(*log.lock(), ["delete ns/c", "change ns/b", "add ns/d"]);
        assert!(store.is_synced());
    }

    #[test]
    fn a_late_handler_sees_what_is_there() {
        let store = Store::new(&[]);
        store.upsert(config_map("a", "1", "x"));
        assert_eq!(*logged(&store).lock(), ["add ns/a"]);
    }

    #[tokio::test]
    async fn changed_keys_are_coalesced() {
        let store = Store::new(&[]);
        let changes = store.changes();
        store.upsert(config_map("a", "1", "x"));
        store.upsert(config_map("a", "2", "x"));
        assert_eq!(changes.next().await, BTreeSet::from([Key::new("ns", "a")]));
    }
}
