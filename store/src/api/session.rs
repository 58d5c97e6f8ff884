//! One stream of watchers: their ids, what each wants, and the answers they are sent.
//!
//! Invariants: a watcher's answers are in the order of revisions, each event once; a revision is split only for a client that
//! takes fragments; progress is told only when all before it was.

use super::Api;
use super::wire::WatchResponse;
use crate::error::StoreError;
use crate::machine::{Event, KeyRange};
use crate::watch::{Outlet, Pulled, WatcherId};
use bytes::Bytes;
use coracle_etcd::proto::watch_create_request::FilterType;
use coracle_etcd::proto::watch_request::RequestUnion;
use coracle_etcd::proto::{WatchCreateRequest, WatchRequest};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Bytes of events after which an answer is sent, when its last revision is whole.
const ANSWER_BYTES: usize = 1 << 20;
/// Watchers that one stream may have.
const WATCHERS_MAX: usize = 100_000;
/// What a refused watcher is called, and answers that concern all watchers of the stream.
const NO_WATCHER: i64 = -1;

struct Watcher {
    watch_id: i64,
    range: KeyRange,
    prev_kv: bool,
    fragment: bool,
    puts: bool,
    deletes: bool,
    /// Whether it asked to be told how far it is, when it was not told anything for a while.
    notify: bool,
    told: bool,
}

impl Watcher {
    fn wants(&self, event: &Event) -> bool {
        self.range.contains(event.key()) && if event.record.tombstone { self.deletes } else { self.puts }
    }
}

/// See the module. Dropping it removes its watchers.
pub(super) struct Session {
    api: Api,
    outlet: Arc<Outlet>,
    /// Answers that the client has not taken.
    out: VecDeque<WatchResponse>,
    ids: HashMap<i64, WatcherId>,
    watchers: HashMap<WatcherId, Watcher>,
    next_id: i64,
    /// The client asked how far all of its watchers are.
    progress_owed: bool,
}

impl Drop for Session {
    fn drop(&mut self) {
        for id in self.watchers.keys() {
            self.api.shared.hub().remove(*id);
        }
    }
}

impl Session {
    /// Without watchers.
    pub fn new(api: Api) -> Self {
        Self {
            api,
            outlet: Arc::default(),
            out: VecDeque::new(),
            ids: HashMap::new(),
            watchers: HashMap::new(),
            next_id: 0,
            progress_owed: false,
        }
    }

    /// Waits until a watcher may have something to read.
    pub async fn woken(&self) {
        self.outlet.woken().await;
    }

    /// The next answer for the client.
    pub fn next_answer(&mut self) -> Option<WatchResponse> {
        self.out.pop_front()
    }

    fn answer(&self, watch_id: i64, revision: i64) -> WatchResponse {
        WatchResponse { header: self.api.header_at(revision), watch_id, ..WatchResponse::default() }
    }

    /// Takes a request of the client.
    pub fn take(&mut self, request: WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => {
                let answer = self.create(&create);
                self.out.push_back(answer);
            }
            Some(RequestUnion::CancelRequest(cancel)) => {
                let Some(id) = self.ids.get(&cancel.watch_id).copied() else { return };
                self.forget(id);
                let revision = self.api.shared.hub().published();
                let answer = WatchResponse { canceled: true, ..self.answer(cancel.watch_id, revision) };
                self.out.push_back(answer);
            }
            Some(RequestUnion::ProgressRequest(_)) => self.progress_owed = true,
            None => {}
        }
    }

    fn create(&mut self, create: &WatchCreateRequest) -> WatchResponse {
        let refused = |reason: &str| WatchResponse {
            created: true,
            canceled: true,
            cancel_reason: reason.to_owned(),
            ..self.answer(NO_WATCHER, self.api.shared.hub().published())
        };
        // The smallest key there is; with an open end, all keys.
        let key = if create.key.is_empty() { Bytes::from_static(&[0]) } else { create.key.clone() };
        let range = KeyRange::new(&key, &create.range_end);
        if range.is_empty() {
            return refused("mvcc: watcher range is empty");
        }
        if create.watch_id != 0 && self.ids.contains_key(&create.watch_id) {
            return refused("mvcc: duplicate watch ID provided on the WatchStream");
        }
        if self.watchers.len() >= WATCHERS_MAX {
            return refused("etcdserver: too many watchers on one stream");
        }
        let watch_id = if create.watch_id == 0 { self.draw_id() } else { create.watch_id };
        let filters = |filter: FilterType| create.filters.contains(&(filter as i32));
        let watcher = Watcher {
            watch_id,
            range: range.clone(),
            prev_kv: create.prev_kv,
            fragment: create.fragment,
            puts: !filters(FilterType::Noput),
            deletes: !filters(FilterType::Nodelete),
            notify: create.progress_notify,
            told: true,
        };
        let (id, revision) = self.api.shared.hub().add(&self.outlet, range, create.start_revision);
        self.ids.insert(watch_id, id);
        self.watchers.insert(id, watcher);
        WatchResponse { created: true, ..self.answer(watch_id, revision) }
    }

    fn draw_id(&mut self) -> i64 {
        while self.ids.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    fn forget(&mut self, id: WatcherId) {
        self.api.shared.hub().remove(id);
        if let Some(watcher) = self.watchers.remove(&id) {
            self.ids.remove(&watcher.watch_id);
        }
    }

    /// Lets the next watcher that has something to read read some of it. Returns whether there was one.
    pub fn read_some(&mut self) -> bool {
        let shared = self.api.shared.clone();
        let hub = shared.hub();
        let Some((id, from)) = hub.next_unread(&self.outlet) else {
            // What was read before is sent before.
            if self.progress_owed
                && let Some(revision) = hub.all_read(&self.outlet)
            {
                self.progress_owed = false;
                self.out.push_back(self.answer(NO_WATCHER, revision));
                return true;
            }
            return false;
        };
        let Some(watcher) = self.watchers.get_mut(&id) else { return true };
        match hub.pull(id, &watcher.range, from, || shared.machine()) {
            Ok(pulled) => {
                let answers = answers(watcher, &pulled, self.api.limits.request_bytes_max);
                watcher.told |= !answers.is_empty();
                let watch_id = watcher.watch_id;
                for WatchAnswer { events, revision, fragment } in answers {
                    let header = self.api.header_at(revision);
                    let answer = WatchResponse { header, watch_id, fragment, events, ..Default::default() };
                    self.out.push_back(answer);
                }
            }
            Err(error) => {
                let (watch_id, revision) = (watcher.watch_id, hub.published());
                let compact_revision =
                    if error == StoreError::Compacted { shared.machine().compacted() } else { 0 };
                self.forget(id);
                let answer = WatchResponse {
                    canceled: true,
                    compact_revision,
                    cancel_reason: error.to_string(),
                    ..self.answer(watch_id, revision)
                };
                self.out.push_back(answer);
            }
        }
        true
    }

    /// Tells watchers that asked for it, and heard nothing since the last time, how far they are.
    pub fn notify_progress(&mut self) {
        let Some(revision) = self.api.shared.hub().all_read(&self.outlet) else { return };
        let mut quiet = Vec::new();
        for watcher in self.watchers.values_mut() {
            if watcher.notify && !std::mem::take(&mut watcher.told) {
                quiet.push(watcher.watch_id);
            }
        }
        for watch_id in quiet {
            self.out.push_back(self.answer(watch_id, revision));
        }
    }
}

/// One answer in the making.
struct WatchAnswer {
    events: Vec<Bytes>,
    revision: i64,
    fragment: bool,
}

/// What a watcher is told of what it read. A client that takes fragments gets answers of at most `fragment_bytes`.
fn answers(watcher: &Watcher, pulled: &Pulled, fragment_bytes: usize) -> Vec<WatchAnswer> {
    let mut all = Vec::new();
    let (mut events, mut bytes) = (Vec::new(), 0);
    for batch in &pulled.batches {
        for event in batch.events.iter().filter(|event| watcher.wants(event)) {
            let encoded = event.encoded(watcher.prev_kv);
            if watcher.fragment && !events.is_empty() && bytes + encoded.len() > fragment_bytes {
                let events = std::mem::take(&mut events);
                all.push(WatchAnswer { events, revision: batch.revision, fragment: true });
                bytes = 0;
            }
            bytes += encoded.len();
            events.push(encoded);
        }
        if bytes >= ANSWER_BYTES {
            let events = std::mem::take(&mut events);
            all.push(WatchAnswer { events, revision: batch.revision, fragment: false });
            bytes = 0;
        }
    }
    if !events.is_empty() {
        all.push(WatchAnswer { events, revision: pulled.revision, fragment: false });
    }
    all
}
