//! A client that lists, watches, is cut off and resumes where it was, on whichever server there is.

use super::servers::Servers;
use super::truth::{self, Object, Objects, Selection};
use super::{Draws, LAST};
use axum::body::Body;
use bytes::Bytes;
use http::Request;
use serde_json::Value;
use std::sync::Arc;

/// Events until a client breaks its watch off, at most.
const EVENTS_MAX: u64 = 120;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Added,
    Modified,
    Deleted,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub what: What,
    pub revision: u64,
    pub key: String,
    pub object: Object,
}

/// What a watcher was told from one list on.
#[derive(Default)]
pub struct Segment {
    /// The list's revision.
    pub from: u64,
    pub listed: Objects,
    pub told: Vec<Arc<Event>>,
}

pub struct Watcher {
    pub number: u64,
    pub selection: Selection,
    pub segments: Vec<Segment>,
    pub resumed: usize,
    draws: Draws,
    /// Where to resume; `None`: a list is due.
    at: Option<u64>,
    over: bool,
}

/// How a watch ended.
enum End {
    Cut,
    Expired,
}

impl Watcher {
    pub fn new(number: u64, selection: Selection) -> Self {
        let draws = Draws::of("watcher", number);
        Self { number, selection, segments: Vec::new(), resumed: 0, draws, at: None, over: false }
    }

    pub async fn run(mut self, servers: Arc<Servers>) -> Self {
        while !self.over {
            let slot = usize::from(self.draws.once_in(2));
            let Some(at) = self.at else {
                if self.draws.once_in(2) {
                    self.list(&servers, slot).await;
                } else {
                    self.stream(&servers, slot).await;
                }
                continue;
            };
            self.resumed += 1;
            let bookmarks = self.draws.once_in(2);
            // Some are ended by the server.
            let seconds = if self.draws.once_in(4) { 1 } else { 60 };
            let query = format!(
                "watch=1&resourceVersion={at}&allowWatchBookmarks={bookmarks}&timeoutSeconds={seconds}"
            );
            self.follow(&servers, slot, &query).await;
        }
        self
    }

    /// The objects as rebuilt from all that was told.
    pub fn rebuilt(&self) -> Objects {
        let Some(segment) = self.segments.last() else { return Objects::new() };
        let mut objects = segment.listed.clone();
        for event in &segment.told {
            match event.what {
                What::Deleted => objects.remove(&event.key),
                _ => objects.insert(event.key.clone(), event.object.clone()),
            };
        }
        objects
    }

    async fn list(&mut self, servers: &Servers, slot: usize) {
        let request = Request::get(self.selection.path()).body(Body::empty()).expect("a request");
        let Ok((200, bytes)) = servers.call(slot, request).await else {
            return tokio::task::yield_now().await;
        };
        let list: Value = serde_json::from_slice(&bytes).expect("a list");
        let from = revision(&list);
        let items = list["items"].as_array().into_iter().flatten();
        let listed: Objects = items.map(|item| (key(item), truth::object(item))).collect();
        self.begin(Segment { from, listed, told: Vec::new() });
    }

    /// Begins with a watch that tells what is there first.
    async fn stream(&mut self, servers: &Servers, slot: usize) {
        let query =
            "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
        let path = format!("{}{query}", self.selection.path());
        let Ok(mut chunks) = servers.watch(slot, &path).await else { return tokio::task::yield_now().await };
        let mut listed = Objects::new();
        while let Some(chunk) = chunks.recv().await {
            let mut lines = lines(&chunk);
            while let Some(line) = lines.next() {
                let (word, object) = read(line);
                if word == "BOOKMARK" {
                    assert_eq!(object["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
                    assert!(lines.next().is_none(), "the opening is a chunk of its own");
                    return self.begin(Segment { from: revision(&object), listed, told: Vec::new() });
                }
                assert_eq!(word, "ADDED", "only what is there comes before the mark");
                assert!(listed.insert(key(&object), truth::object(&object)).is_none(), "told twice");
            }
        }
    }

    fn begin(&mut self, segment: Segment) {
        self.at = Some(segment.from);
        self.over = segment.listed.contains_key(&format!("default/{LAST}"));
        self.segments.push(segment);
    }

    async fn follow(&mut self, servers: &Servers, slot: usize, query: &str) {
        let path = format!("{}{query}", self.selection.path());
        let Ok(mut chunks) = servers.watch(slot, &path).await else { return tokio::task::yield_now().await };
        let mut left = 1 + self.draws.below(EVENTS_MAX);
        while let Some(chunk) = chunks.recv().await {
            match self.take(&chunk, &mut left) {
                None => {}
                Some(End::Cut) => return,
                Some(End::Expired) => {
                    self.at = None;
                    return;
                }
            }
        }
    }

    /// Takes a chunk's events; the rest is lost where the client breaks off.
    fn take(&mut self, chunk: &Bytes, left: &mut u64) -> Option<End> {
        for line in lines(chunk) {
            let (word, object) = read(line);
            let what = match word.as_str() {
                "ADDED" => What::Added,
                "MODIFIED" => What::Modified,
                "DELETED" => What::Deleted,
                "BOOKMARK" => {
                    let marked = revision(&object);
                    assert!(self.at.is_some_and(|at| marked > at), "a bookmark of what is past");
                    self.at = Some(marked);
                    continue;
                }
                _ => {
                    assert_eq!((word.as_str(), &object["code"]), ("ERROR", &Value::from(410)), "{object}");
                    return Some(End::Expired);
                }
            };
            let event = Event {
                what,
                revision: revision(&object),
                key: key(&object),
                object: truth::object(&object),
            };
            assert!(
                self.at.is_some_and(|at| event.revision > at),
                "watcher {} of {:?} was told of the past: {event:?} after {:?}",
                self.number,
                self.selection,
                self.at
            );
            self.at = Some(event.revision);
            let last = event.key == format!("default/{LAST}");
            self.segments.last_mut().expect("a list came first").told.push(Arc::new(event));
            self.over |= last;
            *left -= 1;
            if last || *left == 0 {
                return Some(End::Cut);
            }
        }
        None
    }
}

fn lines(chunk: &Bytes) -> impl Iterator<Item = &[u8]> {
    chunk.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

fn read(line: &[u8]) -> (String, Value) {
    let mut event: Value = serde_json::from_slice(line).expect("one event");
    (event["type"].as_str().unwrap_or_default().to_owned(), event["object"].take())
}

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"]
        .as_str()
        .and_then(|text| text.parse().ok())
        .expect("a resourceVersion")
}

fn key(object: &Value) -> String {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    format!("{}/{}", text("namespace"), text("name"))
}
