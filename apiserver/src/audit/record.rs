//! One request's event while the request runs. Whoever serves it tells through the task that it runs in.

use super::Audit;
use super::event::Event;
use super::policy::{Level, Stage, Verdict};
use crate::request::UserInfo;
use axum::body::Body;
use bytes::Bytes;
use coracle_api::kinds::Kind;
use coracle_api::status::Status;
use coracle_api::{decode, defaults, protobuf};
use coracle_daemon::clock;
use http::Response;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

/// No Status of a success is larger.
const STATUS_MAX: usize = 16 << 10;

tokio::task_local! {
    static RECORD: Arc<Record>;
}

/// The event of a request.
pub struct Record {
    audit: Arc<Audit>,
    verdict: Verdict,
    event: Mutex<Event>,
    over: AtomicBool,
}

/// Runs `work` with its record.
pub async fn scope<T>(record: Arc<Record>, work: impl Future<Output = T>) -> T {
    RECORD.scope(record, work).await
}

fn with(level: Level, tell: impl FnOnce(&mut Event, &Verdict)) {
    // Outside of a noted request there is nothing to tell.
    let _ = RECORD.try_with(|record| {
        if record.verdict.level >= level {
            tell(&mut record.event.lock(), &record.verdict);
        }
    });
}

/// Adds an annotation; the first of a name stays.
pub fn annotate(key: &str, value: impl FnOnce() -> String) {
    with(Level::Metadata, |event, _| {
        event.annotations.entry(key.to_owned()).or_insert_with(value);
    });
}

/// The same for what tells as much as the request's body does.
pub fn annotate_body(key: &str, value: impl FnOnce() -> String) {
    with(Level::Request, |event, _| {
        event.annotations.entry(key.to_owned()).or_insert_with(value);
    });
}

/// Tells the object that was sent, with its defaults.
pub fn request(object: &Value, kind: &Kind) {
    with(Level::Metadata, |event, verdict| {
        event.refer(object);
        if verdict.level >= Level::Request {
            let mut object = object.clone();
            defaults::apply(&mut object, kind);
            event.request_object = Some(shown(object, verdict));
        }
    });
}

/// Tells a patch that was sent, as JSON or YAML.
pub fn sent(body: &[u8]) {
    with(Level::Request, |event, _| {
        let read = serde_json::from_slice(body).ok().or_else(|| decode::any(body).ok());
        event.request_object = read;
    });
}

/// Tells the options of a deletion, which Kubernetes notes in its internal version.
pub fn options(sent: &Value) {
    with(Level::Request, |event, _| {
        let mut sent = sent.clone();
        sent["apiVersion"] = json!("meta.k8s.io/__internal");
        event.request_object = Some(sent);
    });
}

/// Tells how the request failed.
pub fn status(status: &Status) {
    with(Level::Metadata, |event, verdict| event.failed(status, verdict.level));
}

/// Tells as whom the request runs.
pub fn impersonated(user: &UserInfo) {
    with(Level::Metadata, |event, _| event.impersonated_user = Some(user.into()));
}

/// Tells what is answered, encoded as `content_type`.
pub fn answered(content_type: &str, body: &Bytes) {
    with(Level::Metadata, |event, verdict| {
        let whole = verdict.level >= Level::RequestResponse;
        if !whole && !may_be_status(body) {
            return;
        }
        let object: Option<Value> = match content_type {
            media if media.starts_with("application/json") => serde_json::from_slice(body).ok(),
            "application/yaml" => serde_yaml_ng::from_slice(body).ok(),
            _ => protobuf::decode(body).ok().map(with_items),
        };
        let Some(object) = object else { return };
        if object["kind"] == "Status" {
            event.ended(&object);
        }
        if whole {
            event.response_object = Some(shown(object, verdict));
        }
    });
}

/// Whether a body is worth decoding for what a Status in it says.
fn may_be_status(body: &[u8]) -> bool {
    const NAME: &[u8] = b"Status";
    body.len() <= STATUS_MAX && body.windows(NAME.len()).any(|window| window == NAME)
}

/// An empty list has no items in protobuf.
fn with_items(mut object: Value) -> Value {
    let is_list = object["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
    if is_list && let Some(list) = object.as_object_mut() {
        let items = list.entry("items").or_insert_with(|| json!([]));
        if items.is_null() {
            *items = json!([]);
        }
    }
    object
}

/// Without managedFields, where the policy does not want them.
fn shown(mut object: Value, verdict: &Verdict) -> Value {
    fn strip(object: &mut Value) {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    }
    if verdict.omit_managed_fields {
        strip(&mut object);
        for list in ["items", "rows"] {
            for item in object.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                strip(if list == "rows" { &mut item["object"] } else { item });
            }
        }
    }
    object
}

impl Record {
    pub(super) fn new(audit: Arc<Audit>, verdict: Verdict, event: Event) -> Arc<Self> {
        Arc::new(Self { audit, verdict, event: Mutex::new(event), over: AtomicBool::new(false) })
    }

    /// Writes the event as of a stage; whether the request may go on.
    pub(super) fn emit(&self, stage: Stage) -> bool {
        let mut event = self.event.lock();
        event.stage = stage;
        if self.verdict.omit_stages.contains(&stage) {
            return true;
        }
        if stage != Stage::RequestReceived {
            event.stage_timestamp = clock::rfc3339_micros(clock::now());
        }
        let told = event.clone();
        drop(event);
        self.audit.note(&told)
    }

    /// Nothing more is told of the request.
    pub(super) fn forget(&self) {
        self.over.store(true, Ordering::Release);
    }

    /// The last stage, once.
    pub(super) fn end(&self, stage: Stage) {
        if !self.over.swap(true, Ordering::AcqRel) {
            self.emit(stage);
        }
    }

    /// Notes the answer. One that takes long is complete when its body is.
    pub fn answer(self: &Arc<Self>, response: Response<Body>, long: bool) -> Response<Body> {
        self.event.lock().code(response.status().as_u16());
        if !long {
            self.end(Stage::ResponseComplete);
            return response;
        }
        self.emit(Stage::ResponseStarted);
        let record = self.clone();
        response.map(|body| Body::new(Noted { body, _record: Completing(record) }))
    }
}

/// A request that nobody waits for any more, or that the server failed on, has an end too.
impl Drop for Record {
    fn drop(&mut self) {
        if self.over.load(Ordering::Acquire) {
            return;
        }
        if std::thread::panicking() {
            self.event.lock().response_status = Some(json!({"metadata": {}, "status": "Failure",
                "message": "APIServer panic'd", "reason": "InternalError", "code": 500}));
            return self.end(Stage::Panic);
        }
        {
            let mut event = self.event.lock();
            let early = || json!({"metadata": {}, "status": "Success", "message": "Connection closed early", "code": 200});
            event.response_status.get_or_insert_with(early);
        }
        self.end(Stage::ResponseComplete);
    }
}

struct Completing(Arc<Record>);

impl Drop for Completing {
    fn drop(&mut self) {
        self.0.end(Stage::ResponseComplete);
    }
}

/// A body whose end is noted.
struct Noted {
    body: Body,
    _record: Completing,
}

impl http_body::Body for Noted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
