//! What this process keeps of each pod: its memory for `step`, and the work under way.

use crate::step::{Memory, Volumes};
use crate::volumes::Paths;
use crate::volumes::token::Tokens;
use coracle_client::{Key, Scope};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// One pod, as long as anything of it is on this node.
pub struct Entry {
    pub key: Key,
    pub uid: String,
    pub memory: Mutex<Memory>,
    pub work: Mutex<Work>,
    /// Its background tasks.
    pub scope: Scope,
    /// Something that it waits for may be there now.
    poked: AtomicBool,
}

#[derive(Default)]
pub struct Work {
    /// The pod as the last answer to our own writes showed it.
    pub written: Option<Arc<Pod>>,
    /// The pod as it last was.
    pub last: Option<Arc<Pod>>,
    /// Tasks that stop a container, by its id.
    pub stops: HashMap<String, Scope>,
    /// Tasks that probe a container, by its id.
    pub probes: HashMap<String, Scope>,
    pub tokens: Tokens,
    /// Where its volumes are.
    pub paths: Paths,
    /// The final delete was sent.
    pub deleted: bool,
}

impl Entry {
    /// The fresher of what the watch and our own writes showed.
    pub fn freshest(&self, seen: Arc<Pod>) -> Arc<Pod> {
        let version = |pod: &Pod| {
            pod.metadata.resource_version.as_deref().and_then(|version| version.parse::<u64>().ok())
        };
        let mut work = self.work.lock();
        let fresh = match &work.written {
            Some(written) if version(written) >= version(&seen) => written.clone(),
            _ => seen,
        };
        work.last = Some(fresh.clone());
        fresh
    }

    /// Lets it try again what it waited for.
    pub fn poke(&self) {
        self.poked.store(true, Ordering::Relaxed);
    }

    /// Before a round: what waits for others' changes is looked at anew.
    pub fn begin(&self) {
        let poked = self.poked.swap(false, Ordering::Relaxed);
        let mut memory = self.memory.lock();
        memory.blocked.retain(|_, blocked| blocked.retry.is_some() && !poked);
        if poked && matches!(memory.volumes, Volumes::Failed(_)) {
            memory.volumes = Volumes::Unknown;
        }
    }
}

/// All pods of this process.
#[derive(Default)]
pub struct Entries {
    all: Mutex<All>,
}

#[derive(Default)]
struct All {
    by_key: HashMap<Key, Vec<Arc<Entry>>>,
    keys: HashMap<String, Key>,
}

impl Entries {
    /// The pod's entry, made if there is none.
    pub fn of(&self, key: &Key, uid: &str, scope: &Scope) -> Arc<Entry> {
        let mut all = self.all.lock();
        all.keys.insert(uid.to_owned(), key.clone());
        let entries = all.by_key.entry(key.clone()).or_default();
        if let Some(entry) = entries.iter().find(|entry| entry.uid == uid) {
            return entry.clone();
        }
        let entry = Arc::new(Entry {
            key: key.clone(),
            uid: uid.to_owned(),
            memory: Mutex::default(),
            work: Mutex::default(),
            scope: scope.child(),
            poked: AtomicBool::new(false),
        });
        entries.push(entry.clone());
        entry
    }

    /// Entries of one name: more than one while a pod is made that replaces another.
    pub fn under(&self, key: &Key) -> Vec<Arc<Entry>> {
        self.all.lock().by_key.get(key).cloned().unwrap_or_default()
    }

    /// The name of the pod with this uid.
    pub fn key_of(&self, uid: &str) -> Option<Key> {
        self.all.lock().keys.get(uid).cloned()
    }

    /// Forgets a pod and ends its tasks.
    pub fn forget(&self, entry: &Entry) {
        entry.scope.cancel();
        let mut all = self.all.lock();
        all.keys.remove(&entry.uid);
        if let Some(entries) = all.by_key.get_mut(&entry.key) {
            entries.retain(|known| known.uid != entry.uid);
            if entries.is_empty() {
                all.by_key.remove(&entry.key);
            }
        }
    }
}
