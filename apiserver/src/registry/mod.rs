//! The one registry of all kinds: every verb on every resource, driven by the kind's rows.
//!
//!     Call ─► decode ─► patch ─► default ─► mutate ─► prepare ─► validate ─► admit ─► compare-and-swap ─► encode ─► Reply

pub mod allocate;
mod binding;
mod body;
pub mod call;
mod components;
mod conversion;
mod create;
mod delete;
pub mod direct;
mod eviction;
mod families;
mod options;
mod patch;
mod read;
mod review;
mod scale;
mod select;
mod shown;
pub mod streamed;
mod update;
mod watch;

pub use call::{Call, Reply, ReplyBody};
pub use conversion::Conversion;
pub use watch::Watching;

use crate::admission::{Admission, Attributes};
use crate::authentication::Authentication;
use crate::authorization::Authorization;
use crate::request::{RequestInfo, UserInfo};
use crate::storage::encode::{self, Format};
use crate::storage::entry::Entry;
use crate::storage::{Resource, Store, convert, keys};
use allocate::{Allocator, Claims};
use bytes::Bytes;
use coracle_api::kinds::{self, Kind};
use coracle_api::status::{Status, go_quoted};
use coracle_api::strategy::{self, Strategy};
use coracle_api::validate::{self, Policy};
use coracle_api::{labels, meta};
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use options::WriteOptions;
use serde_json::Value;
use std::sync::Arc;

/// Tries of a write that others get in the way of.
const TRIES: usize = 5;

/// Objects, by the verbs of the API.
pub struct Registry {
    pub(crate) store: Arc<Store>,
    pub(crate) authentication: Arc<Authentication>,
    pub(crate) authorization: Arc<Authorization>,
    pub(crate) admission: Admission,
    pub(crate) allocator: Allocator,
    pub(crate) conversion: Arc<Conversion>,
    /// Ends watches.
    pub(crate) watching: Watching,
    /// What objects may ask for.
    pub(crate) policy: Policy,
}

/// What a write is about.
struct At {
    kind: Arc<Kind>,
    resource: Arc<Resource>,
    info: RequestInfo,
    /// As admission is told, where that is something else.
    asked: Option<RequestInfo>,
    /// Where the object lives: empty for cluster-scoped kinds, whatever the URL says.
    namespace: String,
    user: UserInfo,
    options: WriteOptions,
    /// The server's own writes pass no admission.
    own: bool,
}

/// A write's result.
enum Outcome {
    /// Written, or found as it should be.
    Stored(Arc<Entry>),
    /// A dry run's object, in the version of the request.
    Dry(Value),
}

impl Outcome {
    /// The object in the version of `kind`.
    fn object(&self, kind: &Kind) -> Arc<Value> {
        match self {
            Self::Stored(entry) => convert::to(kind, entry.value()),
            Self::Dry(object) => Arc::new(object.clone()),
        }
    }

    fn encoded(&self, format: Format, kind: &Kind) -> Result<Bytes, Status> {
        match self {
            Self::Stored(entry) => encode::entry(format, kind, entry),
            Self::Dry(object) => encode::object(format, kind, object).map(Bytes::from),
        }
    }
}

fn pods() -> Result<Arc<Kind>, Status> {
    kinds::by_resource("", "v1", "pods").cloned().ok_or_else(|| Status::internal("no pods"))
}

/// The namespace that an object of `kind` lives in; a Namespace's own URL names one too.
fn home<'a>(kind: &Kind, info: &'a RequestInfo) -> &'a str {
    if kind.namespaced { &info.namespace } else { "" }
}

/// Where an object that a URL names is kept.
///
/// # Errors
/// Nothing can be kept under such a name.
fn tail(namespace: &str, name: &str) -> Result<String, Status> {
    let faults = labels::is_path_segment_name(name);
    if faults.is_empty() {
        return Ok(keys::tail(namespace, name));
    }
    let name = go_quoted(name);
    Err(Status::bad_request(format!("Name parameter invalid: {name}: {}", faults.join(";"))))
}

/// Whether anything at all can be asked at a URL of a kind: of a place that nothing is at, there is no telling what it
/// allows. Custom kinds have one handler for all of theirs.
pub fn is_routed(kind: &Kind, info: &RequestInfo) -> bool {
    // A resource has one place in URLs, and what is no proxy has nothing behind it.
    let elsewhere = !kind.namespaced && !info.namespace.is_empty() && kind.kind != "Namespace";
    let of_all = kind.namespaced && info.namespace.is_empty();
    // What lists may take a name from its field selector.
    let lists = matches!(info.verb.as_str(), "list" | "watch" | "deletecollection");
    let named = !lists && !info.name.is_empty();
    if elsewhere || !info.rest.is_empty() || (of_all && named) {
        return false;
    }
    if kind.custom.is_some() || info.verb == "watch" {
        return true;
    }
    let offers = |verbs: &[&str]| verbs.iter().any(|verb| kind.offers(verb));
    match (info.subresource.as_str(), named) {
        ("", true) => offers(&["get", "update", "patch", "delete"]),
        ("", false) if of_all => offers(&["list"]),
        ("", false) => offers(&["list", "create", "deletecollection"]),
        (subresource, _) => kind.subresource(subresource).is_some(),
    }
}

/// The kind that a call is of.
///
/// # Errors
/// Its URL is no place of the kind, or the kind does not offer what is asked there.
fn offered(call: &Call) -> Result<&Kind, Status> {
    let kind = call.kind()?;
    let (verb, subresource) = (call.info.verb.as_str(), call.info.subresource.as_str());
    if !is_routed(kind, &call.info) {
        return Err(Status::no_such_resource());
    }
    let named = matches!(verb, "get" | "update" | "patch" | "delete");
    if !subresource.is_empty() {
        let Some(offered) = kind.subresource(subresource) else { return Err(no_subresource(call, kind)) };
        if !offered.verbs.iter().any(|offered| offered == verb) {
            return Err(not_offered(call, kind));
        }
    }
    let misplaced = match verb {
        "create" => {
            (subresource.is_empty() && !call.info.name.is_empty() && kind.custom.is_none())
                || (kind.namespaced && call.info.namespace.is_empty())
        }
        // Nothing deletes from all namespaces at once.
        "deletecollection" => kind.namespaced && call.info.namespace.is_empty(),
        _ => named && (call.info.name.is_empty() || (kind.namespaced && call.info.namespace.is_empty())),
    };
    // A custom kind that goes takes changes to the end, though discovery does not tell.
    let taken = kind.offers(verb) || (kind.custom.is_some() && matches!(verb, "update" | "patch"));
    if misplaced || (subresource.is_empty() && !taken) {
        return Err(not_offered(call, kind));
    }
    Ok(kind)
}

/// A subresource that a kind does not have: the handler of custom kinds looks for an object, built-in kinds have no route.
fn no_subresource(call: &Call, kind: &Kind) -> Status {
    if kind.custom.is_some() && call.info.rest.is_empty() {
        return Status::not_found(&kind.group_resource(), &call.info.name);
    }
    Status::no_such_resource()
}

/// What a kind does not do, or not there. The handler of custom kinds takes every method and then looks for a name.
fn not_offered(call: &Call, kind: &Kind) -> Status {
    let unsupported = || Status::method_not_allowed(&kind.group_resource(), &call.info.verb);
    match call.info.verb.as_str() {
        "watch" if kind.offers("list") => unsupported(),
        "" if kind.custom.is_some() => unsupported(),
        _ if kind.custom.is_some() && !call.info.subresource.is_empty() => unsupported(),
        "create" if kind.custom.is_some() && call.info.name.is_empty() => Status {
            message: "create not allowed while custom resource definition is terminating".to_owned(),
            ..unsupported()
        },
        "patch" if kind.custom.is_some() && call.info.name.is_empty() => patch::check_media(kind, call)
            .err()
            .unwrap_or_else(|| Status::bad_request("name must be provided")),
        "update" if kind.custom.is_some() && call.info.name.is_empty() => {
            Status::bad_request("name must be provided")
        }
        _ => Status::no_such_method(),
    }
}

impl At {
    fn new(call: &Call, resource: Arc<Resource>, options: WriteOptions) -> Result<Self, Status> {
        let kind = call.kind()?.clone();
        let namespace = home(&kind, &call.info).to_owned();
        let (info, user) = (call.info.clone(), call.user.clone());
        Ok(Self { kind, resource, info, asked: None, namespace, user, options, own: false })
    }

    fn strategy(&self) -> Strategy {
        strategy::of(&self.kind)
    }

    fn attributes<'a>(&'a self, operation: &'static str, old: Option<&'a Value>) -> Attributes<'a> {
        let (dry_run, options) = (self.options.dry_run, &self.options.sent);
        let request = self.asked.as_ref().unwrap_or(&self.info);
        Attributes { request, user: &self.user, operation, old, dry_run, options }
    }

    fn not_found(&self) -> Status {
        Status::not_found(&self.kind.group_resource(), &self.info.name)
    }
}

impl Registry {
    /// Answers an authorized request for a resource.
    ///
    /// # Errors
    /// The Status to send.
    pub fn handle<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<Reply, Status>> {
        match offered(call) {
            Ok(kind) => self.dispatch(kind, call),
            Err(status) => ready(Err(status)).boxed(),
        }
    }

    /// Each verb in a place of its own: a read would otherwise take as much memory as the largest of writes.
    fn dispatch<'a>(&'a self, kind: &Kind, call: &'a Call) -> BoxFuture<'a, Result<Reply, Status>> {
        match (call.info.verb.as_str(), call.info.subresource.as_str()) {
            ("create", "") if call.info.is_review() => self.review(call).boxed(),
            ("create", "") if kind.kind == "Binding" => self.bind(call).boxed(),
            ("create", "binding") => self.bind(call).boxed(),
            ("create", "eviction") => self.evict(call).boxed(),
            ("create", "token") => self.issue_token(call).boxed(),
            ("create", "") => self.create(call).boxed(),
            ("get", "") if components::is_component(kind) => ready(self.get_component(call)).boxed(),
            ("list", "") if components::is_component(kind) => ready(self.list_components(call)).boxed(),
            ("get", "scale") => self.get_scale(call).boxed(),
            ("update" | "patch", "scale") => self.write_scale(call).boxed(),
            ("get", _) => self.get(call).boxed(),
            ("list", "") => self.list(call).boxed(),
            ("watch", "") => self.watch(call).boxed(),
            ("update", _) => self.update(call).boxed(),
            ("patch", _) => self.patch(call).boxed(),
            ("delete", "") => self.delete(call).boxed(),
            ("deletecollection", "") => self.delete_collection(call).boxed(),
            _ => ready(Err(Status::no_such_method())).boxed(),
        }
    }

    /// A write's result as it is sent.
    async fn encoded(&self, outcome: &Outcome, format: Format, kind: &Kind) -> Result<Bytes, Status> {
        match outcome {
            Outcome::Stored(entry) => {
                let shown = self.shown_one(kind, entry.clone()).await?;
                encode::entry(format, kind, &shown)
            }
            Outcome::Dry(_) => outcome.encoded(format, kind),
        }
    }

    /// Lets admission refuse a request that connects to what is behind an object: reading a log is none. Returns warnings.
    ///
    /// # Errors
    /// The Status that refuses it.
    pub async fn connect(
        &self,
        info: &RequestInfo,
        user: &UserInfo,
        query: &str,
    ) -> Result<Vec<String>, Status> {
        if info.subresource == "log" {
            return Ok(Vec::new());
        }
        let rest = info.rest.trim_matches('/');
        let (before, after) =
            (if rest.is_empty() { "" } else { "/" }, if info.path.ends_with('/') { "/" } else { "" });
        let path = format!("{before}{rest}{after}");
        let asked = streamed::pairs(query);
        let mut object = streamed::connected(&info.resource, &info.subresource, &asked, &path);
        let attributes = Attributes {
            request: info,
            user,
            operation: "CONNECT",
            old: None,
            dry_run: false,
            options: &Value::Null,
        };
        self.admission.connect(&attributes, &mut object).await
    }

    /// For what is asked and not stored: where pods are, as it needs some place.
    fn unstored(&self, call: &Call, options: WriteOptions) -> Result<At, Status> {
        At::new(call, self.resource(&*pods()?)?, options)
    }

    fn resource(&self, kind: &Kind) -> Result<Arc<Resource>, Status> {
        self.store.resource(&kind.group, &kind.plural).ok_or_else(Status::no_such_resource)
    }

    /// Lets mutating admission change an object; returns warnings.
    async fn mutate(
        &self,
        at: &At,
        operation: &'static str,
        old: Option<&Value>,
        object: &mut Value,
    ) -> Result<Vec<String>, Status> {
        let mut warnings = Vec::new();
        if !at.own {
            warnings = self.admission.mutate(&at.attributes(operation, old), object).await?;
        }
        warnings.extend(body::dedup_owners(object, true));
        Ok(warnings)
    }

    /// Claims what is to be allotted to an object, if it can be.
    async fn claim(&self, at: &At, object: &mut Value, old: Option<&Value>) -> Result<Claims, Status> {
        let kind = &at.kind;
        let faults = validate::before_allotment(object, kind);
        if !faults.is_empty() {
            return Err(Status::invalid(&kind.group_kind(), meta::name(object), &faults));
        }
        self.allocator.claim(kind, object, old, at.options.dry_run).await
    }

    /// Asks validating admission; returns warnings.
    async fn admit(
        &self,
        at: &At,
        operation: &'static str,
        old: Option<&Value>,
        object: &Value,
    ) -> Result<Vec<String>, Status> {
        if at.own {
            return Ok(Vec::new());
        }
        match scale::shown(at, old, object) {
            None => self.admission.validate(&at.attributes(operation, old), object).await,
            Some((old, seen)) => self.admission.validate(&at.attributes(operation, Some(&old)), &seen).await,
        }
    }
}
