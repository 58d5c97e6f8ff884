//! An apiserver in memory, for tests of controllers and schedulers: lists, watches, conflicts, finalizers, owner-less
//! deletion, bindings and discovery as Kubernetes has them; no validation, defaulting or authorization.
//!
//! In: requests of a [`kube::Client`] that never leaves the process. Out: what the real one would answer.
//!
//!     mod.rs    routes a request and encodes the answer
//!     state.rs  the objects, their history, and what each verb does to them

mod state;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use state::{Address, Refusal, State, Wanted};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::watch;

type Answer = UnsyncBoxBody<Bytes, Infallible>;

/// A running fake; clones share its objects.
#[derive(Clone)]
pub struct FakeApi {
    state: Arc<Mutex<State>>,
    /// The latest resourceVersion, for watches to wait on.
    changed: Arc<watch::Sender<u64>>,
    /// How often all watches were cut.
    cuts: Arc<watch::Sender<u64>>,
}

impl Default for FakeApi {
    fn default() -> Self {
        Self {
            state: Arc::default(),
            changed: Arc::new(watch::Sender::new(0)),
            cuts: Arc::new(watch::Sender::new(0)),
        }
    }
}

impl FakeApi {
    /// A client of it.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        let this = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let this = this.clone();
            async move { Ok::<_, Infallible>(this.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    /// Creates an object, as `POST path` would; panics when it is refused.
    pub fn create(&self, path: &str, object: Value) {
        if let Err(refusal) = self.act(|state| state.create(&Address::parse(path)?, object)) {
            panic!("{path}: {}", refusal.body());
        }
    }

    /// Merges a patch into an object or its status; panics when it is refused.
    pub fn patch(&self, path: &str, patch: &Value) {
        if let Err(refusal) = self.act(|state| state.patch(&Address::parse(path)?, patch)) {
            panic!("{path}: {}", refusal.body());
        }
    }

    /// Deletes an object; panics when it is refused.
    pub fn delete(&self, path: &str) {
        if let Err(refusal) = self.act(|state| state.delete(&Address::parse(path)?, &json!({}))) {
            panic!("{path}: {}", refusal.body());
        }
    }

    /// Ends every watch, as a restarted apiserver does; a new watch goes on where the old one ended.
    pub fn cut_watches(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Forgets all history: a watch from before now is answered 410 Gone.
    pub fn compact(&self) {
        self.state.lock().compact();
    }

    /// The object at a path, or `Null`.
    #[must_use]
    pub fn get(&self, path: &str) -> Value {
        Address::parse(path).and_then(|address| self.state.lock().get(&address)).unwrap_or_default()
    }

    /// All objects of a resource path.
    #[must_use]
    pub fn list(&self, path: &str) -> Vec<Value> {
        Address::parse(path)
            .map(|address| self.state.lock().list(&address, &Wanted::default()))
            .unwrap_or_default()
    }

    /// Waits until `holds` of this fake; panics with `what` when that takes more than ten seconds.
    pub async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        self.until_within(std::time::Duration::from_secs(10), what, holds).await;
    }

    /// Like [`Self::until`], with another limit.
    pub async fn until_within(&self, limit: std::time::Duration, what: &str, holds: impl Fn(&Self) -> bool) {
        let mut changes = self.changed.subscribe();
        let wait = async {
            while !holds(self) {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        let waited = coracle_daemon::clock::timeout(limit, wait).await;
        assert!(waited.is_ok(), "did not happen: {what}");
    }

    /// Waits until nobody has written anything for `quiet`; panics when someone still writes after ten seconds.
    pub async fn settled(&self, quiet: std::time::Duration) {
        let mut changes = self.changed.subscribe();
        let still = async { while coracle_daemon::clock::timeout(quiet, changes.changed()).await.is_ok() {} };
        let waited = coracle_daemon::clock::timeout(std::time::Duration::from_secs(10), still).await;
        assert!(waited.is_ok(), "someone writes without end");
    }

    fn act(&self, change: impl FnOnce(&mut State) -> Result<Value, Refusal>) -> Result<Value, Refusal> {
        let mut state = self.state.lock();
        let done = change(&mut state);
        self.changed.send_replace(state.version);
        done
    }

    async fn answer(&self, request: Request<Body>) -> Response<Answer> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let query: Vec<(String, String)> =
            url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
                .into_owned()
                .collect();
        let accept = parts.headers.get("accept").and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        let wanted = Wanted::new(&query, accept.contains("PartialObjectMetadata"));
        let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if path == "/api" || path == "/apis" {
            return respond(Ok(state::discovery(&path)));
        }
        let address = match Address::parse(&path) {
            Ok(address) => address,
            Err(refusal) => return respond(Err(refusal)),
        };
        if query.iter().any(|(key, value)| key == "watch" && value == "true") {
            let from = query
                .iter()
                .find(|(key, _)| key == "resourceVersion")
                .and_then(|(_, value)| value.parse().ok());
            if let Err(gone) = self.state.lock().check_history(from.unwrap_or(0)) {
                return respond(Err(gone));
            }
            return Response::new(UnsyncBoxBody::new(StreamBody::new(self.watch(
                address,
                wanted,
                from.unwrap_or(0),
            ))));
        }
        let named = !address.name.is_empty();
        respond(self.act(|state| match (&parts.method, named) {
            (&Method::GET, false) => Ok(state.list_object(&address, &wanted)),
            (&Method::GET, true) => state.get(&address).map(|object| wanted.shape(object)),
            (&Method::POST, true) if address.subresource == "binding" => state.bind(&address, &body),
            (&Method::POST, _) => state.create(&address, body),
            (&Method::PUT, _) => state.replace(&address, body),
            (&Method::PATCH, _) => state.patch(&address, &body).map(|object| wanted.shape(object)),
            (&Method::DELETE, true) => state.delete(&address, &body),
            (&Method::DELETE, false) => state.delete_all(&address, &wanted, &body),
            _ => Err(Refusal::new(405, "MethodNotAllowed", "not here")),
        }))
    }

    fn watch(
        &self,
        address: Address,
        wanted: Wanted,
        from: u64,
    ) -> BoxStream<'static, Result<Frame<Bytes>, Infallible>> {
        let (state, changes, mut cuts) =
            (self.state.clone(), self.changed.subscribe(), self.cuts.subscribe());
        let next = move |(at, mut changes): (u64, watch::Receiver<u64>)| {
            let (state, address, wanted) = (state.clone(), address.clone(), wanted.clone());
            async move {
                changes.wait_for(|version| *version > at).await.ok()?;
                let (events, now) = state.lock().events(&address, &wanted, at);
                let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
                Some((Ok(Frame::data(Bytes::from(lines))), (now, changes)))
            }
        };
        let cut = async move {
            // The sender lives as long as the fake; without it there is nothing left to watch.
            let _ = cuts.changed().await;
        };
        futures::stream::unfold((from, changes), next).take_until(Box::pin(cut)).boxed()
    }
}

fn respond(done: Result<Value, Refusal>) -> Response<Answer> {
    let (code, body) = done.map_or_else(|refusal| (refusal.code, refusal.body()), |body| (200, body));
    let mut response = Response::new(UnsyncBoxBody::new(Full::from(body.to_string())));
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
    response
}
