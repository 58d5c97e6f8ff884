//! watch: every event of a selection after a resourceVersion, once and in order, until the client or its time is gone.

use super::read::{integer, no_revision, revision};
use super::select::Selection;
use super::{Call, Conversion, Registry, Reply, ReplyBody, conversion};
use crate::meters::watch::{Sent, Watches};
use crate::storage::Store;
use crate::storage::cache::{Change, Cursor, Event, Gone};
use crate::storage::encode::{self, Format, Shape};
use crate::storage::{Resource, entry::Entry};
use bytes::{Bytes, BytesMut};
use coracle_api::kinds::Kind;
use coracle_api::status::{FieldError, GroupResource, Status};
use coracle_daemon::clock::{self, Instant};
use coracle_daemon::random;
use futures::StreamExt;
use serde_json::json;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

/// No clock goes on for ever.
const TIMEOUT_MAX: u64 = 365 * 24 * 3600;
/// Bookmarks are about a minute apart, at whole ten seconds of the clock: the watches of a client then wake it once and not
/// each by itself, while those that began at other times have other turns.
const BOOKMARK_AFTER: Duration = Duration::from_secs(50);
const BOOKMARK_AT: Duration = Duration::from_secs(10);

/// What all watches share.
pub struct Watching {
    /// Ends them.
    pub stop: CancellationToken,
    /// Counts what they send.
    pub sent: Watches,
    /// How long a watch lasts at least that names no time, and at most twice as long; 0: nothing ends it.
    pub seconds_min: u64,
}

/// One client's watch.
struct Watch {
    store: Arc<Store>,
    conversion: Arc<Conversion>,
    resource: Arc<Resource>,
    kind: Arc<Kind>,
    selection: Selection,
    format: Format,
    cursor: Cursor,
    /// What goes out before any event.
    opening: Option<Bytes>,
    /// When the next bookmark is due, for a client that wants them.
    bookmark_due: Option<Instant>,
    /// The last revision that the client was told.
    told: u64,
    /// The client knows of what happened up to it, which may be in the future.
    after: u64,
    /// Tables tell their columns once.
    columns_owed: bool,
    deadline: Instant,
    /// Ends when a bookmark is due, or the watch.
    timer: Pin<Box<Sleep>>,
    stop: CancellationToken,
    over: bool,
    sent: Sent,
}

/// Where a watch begins.
struct Start {
    /// `None`: as fresh as the store.
    at: Option<u64>,
    initial_events: bool,
    marks_end: bool,
}

impl Start {
    fn read(call: &Call) -> Result<Self, Status> {
        let (send, rule) = (call.says("sendInitialEvents"), call.query("resourceVersionMatch"));
        let mut faults = Vec::new();
        let mut forbidden = |why: &str| faults.push(FieldError::forbidden("resourceVersionMatch", why));
        if send && rule != "NotOlderThan" {
            forbidden("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
        }
        if !send && !rule.is_empty() {
            forbidden("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided");
        }
        if !matches!(rule, "" | "NotOlderThan") {
            faults.push(FieldError::not_supported("resourceVersionMatch", &json!(rule), &["NotOlderThan"]));
        }
        if !rule.is_empty() && !call.query("continue").is_empty() {
            let why = "resourceVersionMatch is forbidden when continue is provided";
            faults.push(FieldError::forbidden("resourceVersionMatch", why));
        }
        if !faults.is_empty() {
            return Err(Status::invalid(&GroupResource::new("meta.k8s.io", "ListOptions"), "", &faults));
        }
        let version = call.query("resourceVersion");
        let at = revision(version).map_err(|_| Status::new(500, "", no_revision(version)))?;
        let asked = call.flag("sendInitialEvents");
        let initial_events = if send { asked } else { at.is_none_or(|at| at == 0) };
        Ok(Self { at, initial_events, marks_end: asked && call.flag("allowWatchBookmarks") })
    }
}

impl Registry {
    pub(super) async fn watch(&self, call: &Call) -> Result<Reply, Status> {
        let kind = call.kind()?.clone();
        let resource = self.resource(&kind)?;
        let selection = Selection::read(call, &kind)?;
        let seconds = integer(call.query("timeoutSeconds"))?;
        let start = Start::read(call)?;
        let seconds = match seconds.unwrap_or_default() {
            0 if self.watching.seconds_min == 0 => TIMEOUT_MAX,
            0 => self.watching.seconds_min + random::below(self.watching.seconds_min),
            // What is over before it begins ends at once.
            asked => u64::try_from(asked).unwrap_or_default().min(TIMEOUT_MAX),
        };
        match start.at {
            None => self.store.fresh().await?,
            Some(at) if start.initial_events => self.store.reach(at).await?,
            // Who knows of a later revision hears of what comes after that one.
            Some(_) => {}
        }
        let sent = self.watching.sent.of(&kind);
        let mut columns_owed = matches!(call.format.shape, Shape::Table(_));
        let (opening, told, cursor) = if start.initial_events {
            let progress = self.store.progress();
            let asks = conversion::asks(&kind);
            let wanted = |entry: &Entry| if asks { selection.names(entry) } else { selection.matches(entry) };
            let (entries, revision, cursor) =
                resource.cache.list_and_cursor(&selection.namespace, progress, wanted);
            let mut entries = self.shown(&kind, entries).await?;
            entries.retain(|entry| !asks || selection.matches(entry));
            let end = start.marks_end.then_some(revision);
            let opening = opening(call.format, &kind, &entries, end, &sent)?;
            columns_owed &= entries.is_empty();
            (Some(opening), revision, cursor)
        } else {
            let at = start.at.filter(|at| *at > 0).unwrap_or_else(|| self.store.progress());
            match resource.cache.cursor(at) {
                Ok(cursor) => (None, at, cursor),
                Err(gone) => return over(call.format, &expired(gone, at)),
            }
        };
        let bookmark_due = call.flag("allowWatchBookmarks").then(next_bookmark);
        let deadline = Instant::now() + Duration::from_secs(seconds);
        let watch = Watch {
            store: self.store.clone(),
            conversion: self.conversion.clone(),
            resource,
            kind,
            selection,
            format: call.format,
            cursor,
            opening,
            bookmark_due,
            told,
            after: told,
            columns_owed,
            deadline,
            timer: Box::pin(clock::sleep_until(first(bookmark_due, deadline))),
            stop: self.watching.stop.clone(),
            over: false,
            sent,
        };
        let stream = futures::stream::unfold(watch, |mut watch| async move {
            // What cannot be told as is asked ends the stream.
            let chunk = watch.next().await.filter(|_| watch.format.shape != Shape::Partials)?;
            Some((chunk, watch))
        });
        let content_type = call.format.content_type(true);
        Ok(Reply { code: 200, content_type, warnings: Vec::new(), body: ReplyBody::Stream(stream.boxed()) })
    }
}

fn next_bookmark() -> Instant {
    Instant::now() + BOOKMARK_AFTER + clock::until_whole(BOOKMARK_AT)
}

/// When a watch has something to do by itself.
fn first(bookmark_due: Option<Instant>, deadline: Instant) -> Instant {
    bookmark_due.map_or(deadline, |due| due.min(deadline))
}

/// A watch that cannot begin: clients are told in the stream, as of a watch that cannot go on.
fn over(format: Format, status: &Status) -> Result<Reply, Status> {
    let frame = encode::told(format, "ERROR", &status.to_value())?;
    let body = ReplyBody::Stream(futures::stream::iter([frame]).boxed());
    Ok(Reply { code: 200, content_type: format.content_type(true), warnings: Vec::new(), body })
}

/// The objects that are there already, and the mark of their end.
fn opening(
    format: Format,
    kind: &Kind,
    entries: &[Arc<Entry>],
    end: Option<u64>,
    sent: &Sent,
) -> Result<Bytes, Status> {
    let mut out = BytesMut::new();
    let mut add = |frame: &[u8]| {
        sent.event(frame.len());
        out.extend_from_slice(frame);
    };
    for (index, entry) in entries.iter().enumerate() {
        add(&encode::frame(format, kind, Change::Added, entry, index == 0)?);
    }
    if let Some(revision) = end {
        let mark = encode::bookmark(format, kind, revision, true);
        add(&encode::told(format, "BOOKMARK", &mark)?);
    }
    Ok(out.freeze())
}

fn expired(gone: Gone, at: u64) -> Status {
    match gone {
        Gone::TooOld(oldest) => Status::expired(format!("too old resource version: {at} ({oldest})")),
        Gone::Lost => Status::expired("The resourceVersion for the provided watch is too old."),
    }
}

impl Watch {
    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(opening) = self.opening.take().filter(|opening| !opening.is_empty()) {
            return Some(opening);
        }
        while !self.over {
            match self.pending().await {
                Ok(Some(chunk)) => return Some(chunk),
                Ok(None) => {}
                Err(status) => {
                    self.over = true;
                    return encode::told(self.format, "ERROR", &status.to_value()).ok();
                }
            }
            tokio::select! {
                () = self.cursor.moved() => {}
                () = &mut self.timer => {
                    if Instant::now() >= self.deadline {
                        self.over = true;
                    } else {
                        let due = Some(next_bookmark());
                        self.bookmark_due = due;
                        self.timer.as_mut().reset(first(due, self.deadline));
                        if let Some(mark) = self.bookmark().await {
                            return Some(mark);
                        }
                    }
                }
                () = self.stop.cancelled() => self.over = true,
            }
        }
        // The last word, once: under steady writes there would always be another one.
        self.bookmark_due.take()?;
        self.bookmark().await
    }

    /// A bookmark, when the client has not been told of this revision.
    async fn bookmark(&mut self) -> Option<Bytes> {
        // Read before the events: what comes after it is still to be told.
        let progress = self.store.progress();
        if progress <= self.told {
            return None;
        }
        match self.pending().await {
            Ok(None) => {}
            Ok(chunk) => return chunk,
            Err(_) => return None,
        }
        self.told = progress;
        let mark = encode::bookmark(self.format, &self.kind, progress, false);
        let frame = encode::told(self.format, "BOOKMARK", &mark).ok()?;
        self.sent.event(frame.len());
        Some(frame)
    }

    /// The frames of all events that are there.
    async fn pending(&mut self) -> Result<Option<Bytes>, Status> {
        let events = self.resource.cache.read(&mut self.cursor).map_err(|gone| expired(gone, self.told))?;
        let mut out: Option<BytesMut> = None;
        let mut only: Option<Bytes> = None;
        let after = self.after;
        for event in events.iter().filter(|event| event.entry.revision > after) {
            self.told = self.told.max(event.entry.revision);
            let event = self.in_version(event).await?;
            let Some(change) = seen(&self.selection, &event) else { continue };
            let frame = self.frame(change, &event)?;
            self.sent.event(frame.len());
            match (&mut out, only.take()) {
                (None, None) => only = Some(frame),
                (None, Some(first)) => {
                    let mut joined = BytesMut::from(first.as_ref());
                    joined.extend_from_slice(&frame);
                    out = Some(joined);
                }
                (Some(out), _) => out.extend_from_slice(&frame),
            }
        }
        Ok(out.map(BytesMut::freeze).or(only))
    }

    /// The event in the version that is watched, as far as a webhook makes it: that is what is selected.
    async fn in_version(&self, event: &Arc<Event>) -> Result<Arc<Event>, Status> {
        if !conversion::asks(&self.kind) || !self.selection.names(&event.entry) {
            return Ok(event.clone());
        }
        let both = std::iter::once(&event.entry).chain(&event.before).cloned().collect();
        let mut both = conversion::shown(&self.conversion, &self.kind, both).await?.into_iter();
        let entry = both.next().unwrap_or_else(|| event.entry.clone());
        Ok(Event::new(event.change, entry, both.next()))
    }

    fn frame(&mut self, change: Change, event: &Event) -> Result<Bytes, Status> {
        if conversion::asks(&self.kind) || matches!(self.format.shape, Shape::Table(_)) {
            // What a webhook makes is this watcher's own, and ages differ from watcher to watcher.
            let left = event.left(change);
            let of = left.as_ref().unwrap_or(&event.entry);
            return encode::frame(
                self.format,
                &self.kind,
                change,
                of,
                std::mem::take(&mut self.columns_owed),
            );
        }
        encode::shared_frame(self.format, &self.kind, change, event)
    }
}

/// The event as a watcher of that selection sees it: objects that leave it are deleted, objects that enter it added.
fn seen(selection: &Selection, event: &Event) -> Option<Change> {
    let now = event.change != Change::Deleted && selection.matches(&event.entry);
    let before = event.before.as_ref().is_some_and(|before| selection.matches(before));
    match (before, now) {
        (true, true) => Some(Change::Modified),
        (false, true) => Some(Change::Added),
        (true, false) => Some(Change::Deleted),
        (false, false) => None,
    }
}
