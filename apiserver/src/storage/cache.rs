//! The watch cache of one resource: its objects as of now, and the last events in a window.
//!
//! In: the store's events, in order. Out: snapshots with their exact resourceVersion, and cursors that read every event
//! after a resourceVersion once, in order. A cursor that the window has left behind is told so and never skips.

use super::entry::Entry;
use super::keys;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

/// Events that a window keeps at most, by number and by bytes.
const EVENTS_MAX: usize = 4096;
const BYTES_MAX: usize = 32 << 20;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// It is there now.
    Added,
    /// It has changed.
    Modified,
    /// It is gone; the entry is its last state with the revision of the deletion.
    Deleted,
}

impl Change {
    /// As watch events name it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// Which encoding of an event: the change as told, media type, shape and version.
pub type FrameKey = (Change, super::encode::Format, String);

/// One event with its encodings, which all watchers share.
#[derive(Debug)]
pub struct Event {
    /// What happened.
    pub change: Change,
    /// The object after it.
    pub entry: Arc<Entry>,
    /// The object before it.
    pub before: Option<Arc<Entry>>,
    frames: Mutex<Vec<(FrameKey, Bytes)>>,
}

impl Event {
    /// An event that nobody has been told of.
    pub fn new(change: Change, entry: Arc<Entry>, before: Option<Arc<Entry>>) -> Arc<Self> {
        Arc::new(Self { change, entry, before, frames: Mutex::new(Vec::new()) })
    }

    /// An object that left a selection, whose watchers are told of a deletion: its last state that was in it, at this revision.
    #[must_use]
    pub fn left(&self, told: Change) -> Option<Entry> {
        let before = self.before.as_ref().filter(|_| told == Change::Deleted && self.change != told);
        before.map(|before| before.at(self.entry.revision))
    }

    /// The frame for `key`, encoded by the first who asks.
    pub fn frame(&self, key: FrameKey, encode: impl FnOnce() -> Bytes) -> Bytes {
        if let Some((_, frame)) = self.frames.lock().iter().find(|(own, _)| *own == key) {
            return frame.clone();
        }
        let frame = encode();
        self.frames.lock().push((key, frame.clone()));
        frame
    }
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Arc<Entry>>,
    /// How many there are in each namespace.
    counts: HashMap<String, usize>,
    window: VecDeque<Arc<Event>>,
    window_bytes: usize,
    /// Number of the window's first event since the beginning.
    first: u64,
    /// All events after this revision are in the window.
    since: u64,
    /// The last event's revision, or that of the load.
    revision: u64,
    /// Counts losses of continuity; cursors of an earlier era are over.
    era: u64,
}

/// Objects and recent events of one resource.
pub struct Cache {
    state: RwLock<State>,
    version: AtomicU64,
    moved: watch::Sender<u64>,
    received: AtomicU64,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            state: RwLock::default(),
            version: AtomicU64::new(0),
            moved: watch::Sender::new(0),
            received: AtomicU64::new(0),
        }
    }
}

/// One change as the store tells it: the key's tail, the revision, and the bytes unless it was deleted.
pub struct Told {
    /// The key after the prefix.
    pub tail: String,
    /// Its revision.
    pub revision: u64,
    /// The new value; `None` for a deletion.
    pub raw: Option<Bytes>,
}

/// Why a cursor cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// The window begins later; the oldest revision it can go on from.
    TooOld(u64),
    /// Continuity with the store was lost.
    Lost,
}

/// A reader's place in the window.
pub struct Cursor {
    next: u64,
    era: u64,
    moved: watch::Receiver<u64>,
}

impl Cache {
    /// Replaces everything by what the store held at `revision`; cursors are over.
    pub fn install(&self, objects: BTreeMap<String, Arc<Entry>>, revision: u64) {
        let mut state = self.state.write();
        let first = state.first + state.window.len() as u64;
        let era = state.era + 1;
        let mut counts = HashMap::new();
        for tail in objects.keys() {
            *counts.entry(keys::split(tail).0.to_owned()).or_default() += 1;
        }
        *state = State {
            objects,
            counts,
            first,
            since: revision,
            revision,
            era,
            window: VecDeque::new(),
            window_bytes: 0,
        };
        drop(state);
        self.version.fetch_add(1, Ordering::Release);
        self.moved.send_modify(|moved| *moved += 1);
    }

    /// How many changes the store has told of it.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// The last revision that it heard of, and how often it was read anew.
    pub fn progress(&self) -> (u64, u64) {
        let state = self.state.read();
        (state.revision, state.era)
    }

    /// Applies changes in order.
    pub fn apply(&self, changes: Vec<Told>) {
        self.received.fetch_add(changes.len() as u64, Ordering::Relaxed);
        let mut state = self.state.write();
        for told in changes {
            if told.revision > state.revision
                || state.window.back().is_some_and(|e| e.entry.revision == told.revision)
            {
                state.apply(told);
            }
        }
        drop(state);
        self.version.fetch_add(1, Ordering::Release);
        self.moved.send_modify(|moved| *moved += 1);
    }

    /// A number that changes with the objects.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Tells of changes.
    #[must_use]
    pub fn moved(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    /// One object.
    #[must_use]
    pub fn get(&self, tail: &str) -> Option<Arc<Entry>> {
        self.state.read().objects.get(tail).cloned()
    }

    /// The objects of a namespace (all when empty) that `wanted` takes, and the revision of this snapshot: at least
    /// `progress`, up to which the caller knows that everything was applied.
    pub fn list(
        &self,
        namespace: &str,
        progress: u64,
        wanted: impl Fn(&Entry) -> bool,
    ) -> (Vec<Arc<Entry>>, u64) {
        let state = self.state.read();
        let entries: Vec<Arc<Entry>> = state.within(namespace).cloned().collect();
        let revision = state.revision.max(progress);
        drop(state);
        (entries.into_iter().filter(|entry| wanted(entry)).collect(), revision)
    }

    /// The first objects of a namespace (of all when empty), how many come after them, and the revision of this snapshot
    /// as in [`Cache::list`]. What it costs depends on `limit` alone.
    pub fn first(&self, namespace: &str, progress: u64, limit: usize) -> (Vec<Arc<Entry>>, usize, u64) {
        let state = self.state.read();
        let entries: Vec<Arc<Entry>> = state.within(namespace).take(limit).cloned().collect();
        let all = match namespace {
            "" => state.objects.len(),
            _ => state.counts.get(namespace).copied().unwrap_or_default(),
        };
        let remaining = all.saturating_sub(entries.len());
        (entries, remaining, state.revision.max(progress))
    }

    /// How many objects there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.state.read().objects.len()
    }

    /// A cursor that will read all events after `revision`.
    ///
    /// # Errors
    /// The window no longer reaches back so far.
    pub fn cursor(&self, revision: u64) -> Result<Cursor, Gone> {
        let state = self.state.read();
        if revision < state.since {
            return Err(Gone::TooOld(state.since));
        }
        let before = state.window.partition_point(|event| event.entry.revision <= revision);
        Ok(Cursor { next: state.first + before as u64, era: state.era, moved: self.moved.subscribe() })
    }

    /// A snapshot like [`Cache::list`] and the cursor that goes on from it.
    pub fn list_and_cursor(
        &self,
        namespace: &str,
        progress: u64,
        wanted: impl Fn(&Entry) -> bool,
    ) -> (Vec<Arc<Entry>>, u64, Cursor) {
        loop {
            let (entries, revision) = self.list(namespace, progress, &wanted);
            if let Ok(cursor) = self.cursor(revision) {
                return (entries, revision, cursor);
            }
        }
    }

    /// The events since the last call; empty when there are none yet.
    ///
    /// # Errors
    /// The window has gone on without this cursor.
    pub fn read(&self, cursor: &mut Cursor) -> Result<Vec<Arc<Event>>, Gone> {
        cursor.moved.borrow_and_update();
        let state = self.state.read();
        if cursor.era != state.era {
            return Err(Gone::Lost);
        }
        let Some(skip) = cursor.next.checked_sub(state.first) else { return Err(Gone::TooOld(state.since)) };
        let events: Vec<Arc<Event>> =
            state.window.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX)).cloned().collect();
        cursor.next += events.len() as u64;
        Ok(events)
    }
}

impl Cursor {
    /// Ends when there may be something to read.
    pub async fn moved(&mut self) {
        // The cache outlives its cursors.
        let _ = self.moved.changed().await;
    }
}

impl State {
    /// The objects of a namespace, of all when empty.
    fn within(&self, namespace: &str) -> impl Iterator<Item = &Arc<Entry>> {
        let bounds = match namespace {
            "" => (Bound::Unbounded, Bound::Unbounded),
            // '0' comes after '/'.
            _ => (Bound::Included(format!("{namespace}/")), Bound::Excluded(format!("{namespace}0"))),
        };
        self.objects.range::<String, _>(bounds).map(|(_, entry)| entry)
    }

    fn count(&mut self, tail: &str, added: bool) {
        let namespace = keys::split(tail).0;
        match self.counts.get_mut(namespace) {
            Some(count) if added => *count += 1,
            Some(count) if *count > 1 => *count -= 1,
            Some(_) => drop(self.counts.remove(namespace)),
            None => drop(self.counts.insert(namespace.to_owned(), 1)),
        }
    }

    fn apply(&mut self, told: Told) {
        self.revision = told.revision;
        let event = match told.raw {
            Some(raw) => {
                let entry = Arc::new(Entry::new(&told.tail, told.revision, raw));
                let before = self.objects.insert(told.tail, entry.clone());
                if before.is_none() {
                    self.count(&entry.tail, true);
                }
                let change = if before.is_some() { Change::Modified } else { Change::Added };
                Event::new(change, entry, before)
            }
            None => {
                // A key that came and went in one revision was never there for anyone.
                let Some(before) = self.objects.remove(&told.tail) else { return };
                self.count(&told.tail, false);
                Event::new(Change::Deleted, Arc::new(before.at(told.revision)), Some(before))
            }
        };
        self.window_bytes += event.entry.raw().len();
        self.window.push_back(event);
        while self.window.len() > EVENTS_MAX || (self.window_bytes > BYTES_MAX && self.window.len() > 1) {
            let Some(oldest) = self.window.pop_front() else { break };
            self.window_bytes -= oldest.entry.raw().len();
            self.first += 1;
            self.since = oldest.entry.revision;
        }
    }
}

/// Whether an entry is of that namespace (any when empty).
#[must_use]
pub fn in_namespace(entry: &Entry, namespace: &str) -> bool {
    namespace.is_empty() || keys::split(&entry.tail).0 == namespace
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(tail: &str, revision: u64, raw: Option<&'static str>) -> Told {
        Told { tail: tail.to_owned(), revision, raw: raw.map(|raw| Bytes::from_static(raw.as_bytes())) }
    }

    fn seen(events: &[Arc<Event>]) -> Vec<(Change, u64)> {
        events.iter().map(|event| (event.change, event.entry.revision)).collect()
    }

    #[test]
    fn a_cursor_reads_each_event_once_from_where_it_begins() {
        let cache = Cache::default();
        cache.install(BTreeMap::new(), 5);
        cache.apply(vec![told("n/a", 6, Some("{}")), told("n/b", 7, Some("{}"))]);
        let mut cursor = cache.cursor(6).map_err(|_| ()).expect("cursor");
        assert_eq!(seen(&cache.read(&mut cursor).expect("read")), [(Change::Added, 7)]);
        cache.apply(vec![told("n/a", 8, Some("{}")), told("n/b", 9, None)]);
        assert_eq!(
            seen(&cache.read(&mut cursor).expect("read")),
            [(Change::Modified, 8), (Change::Deleted, 9)]
        );
        assert!(cache.read(&mut cursor).expect("read").is_empty());
        assert_eq!(cache.cursor(4).err(), Some(Gone::TooOld(5)));
        let (entries, revision) = cache.list("n", 9, |_| true);
        assert_eq!((entries.len(), revision), (1, 9));
        cache.install(BTreeMap::new(), 20);
        assert_eq!(cache.read(&mut cursor).err(), Some(Gone::Lost));
    }

    #[test]
    fn the_first_of_a_namespace_come_with_the_number_of_those_after_them() {
        let cache = Cache::default();
        let old = Arc::new(Entry::new("n/a", 3, Bytes::from_static(b"{}")));
        cache.install(BTreeMap::from([("n/a".to_owned(), old)]), 5);
        let first = |namespace: &str, limit: usize| {
            let (entries, remaining, revision) = cache.first(namespace, 0, limit);
            let tails: Vec<String> = entries.iter().map(|entry| entry.tail.clone()).collect();
            (tails.join(" "), remaining, revision)
        };
        cache.apply(vec![
            told("n/b", 6, Some("{}")),
            told("n/b", 7, Some("{}")),
            told("n0/c", 8, Some("{}")),
        ]);
        assert_eq!(first("n", 1), ("n/a".to_owned(), 1, 8));
        assert_eq!(first("", 2), ("n/a n/b".to_owned(), 1, 8));
        cache.apply(vec![told("n/a", 9, None), told("n/x", 10, None)]);
        assert_eq!(first("n", 1), ("n/b".to_owned(), 0, 10));
        cache.apply(vec![told("n/b", 11, None)]);
        assert_eq!(first("n", 1), (String::new(), 0, 11));
        assert_eq!(first("", 9), ("n0/c".to_owned(), 0, 11));
    }

    #[test]
    fn a_slow_cursor_is_told_that_the_window_went_on() {
        let cache = Cache::default();
        cache.install(BTreeMap::new(), 1);
        let mut cursor = cache.cursor(1).map_err(|_| ()).expect("cursor");
        cache.apply((0..EVENTS_MAX as u64 + 3).map(|n| told("a", n + 2, Some("{}"))).collect());
        assert_eq!(cache.read(&mut cursor).err(), Some(Gone::TooOld(4)));
    }
}
