//! create: POST of an object, with a name given or generated.

use super::allocate::Claims;
use super::options::WriteOptions;
use super::update::of_object;
use super::{At, Call, Outcome, Registry, Reply, body};
use crate::storage::entry::Entry;
use crate::storage::keys;
use crate::storage::write::Written;
use coracle_api::apply::{self, Writer};
use coracle_api::kinds::Kind;
use coracle_api::status::Status;
use coracle_api::{decode, defaults, meta, strategy, validate};
use coracle_daemon::{clock, random};
use serde_json::{Value, json};

/// Tries of a generated name that is taken.
const NAMES: usize = 8;
const SUFFIX: usize = 5;
/// Names are cut to this before the suffix.
const BASE_MAX: usize = 63 - SUFFIX;
const CREATE: &str = "CREATE";

/// Names the object after its namespace's URL, or tells that it does not fit.
///
/// # Errors
/// 400.
pub(super) fn place(object: &mut Value, kind: &Kind, namespace: &str) -> Result<(), Status> {
    if !kind.namespaced {
        meta::remove(object, "namespace");
        return Ok(());
    }
    match meta::namespace(object) {
        "" => meta::set(object, "namespace", namespace),
        given if given == namespace => {}
        _ => {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    }
    Ok(())
}

/// What the server says of each new object, whatever a client or admission has said: who it is and since when.
fn identify(object: &mut Value) {
    let base: String = meta::field(object, "generateName").chars().take(BASE_MAX).collect();
    if !base.is_empty() && meta::name(object).is_empty() {
        meta::set(object, "name", format!("{base}{}", random::name_suffix(SUFFIX)));
    }
    meta::set(object, "uid", random::uuid());
    meta::set(object, "creationTimestamp", clock::rfc3339_seconds(clock::now()));
}

impl Registry {
    pub(super) async fn create(&self, call: &Call) -> Result<Reply, Status> {
        let kind = call.kind()?.clone();
        let options = WriteOptions::read(call, "CreateOptions", false)?;
        let read = body::read(&call.content_type, &call.body, &kind, options.validation)?;
        let at = At::new(call, self.resource(&kind)?, options)?;
        let (mut object, mut warnings) = (read.object, read.warnings);
        meta::remove(&mut object, "selfLink");
        warnings.extend(body::dedup_owners(&mut object, false));
        let outcome = match self.create_object(&at, object, false, &mut warnings).await {
            Ok(outcome) => outcome,
            Err(status) => return Err(status.warned(warnings)),
        };
        Ok(Reply::bytes(201, call.format, self.encoded(&outcome, call.format, &kind).await?).warned(warnings))
    }

    /// Creates a decoded object; `owned` when its managedFields are made already.
    pub(super) async fn create_object(
        &self,
        at: &At,
        mut object: Value,
        owned: bool,
        warnings: &mut Vec<String>,
    ) -> Result<Outcome, Status> {
        place(&mut object, &at.kind, &at.namespace)?;
        let versioned = !matches!(meta::field(&object, "resourceVersion"), "" | "0");
        if versioned && !at.options.dry_run {
            return Err(Status::new(500, "", "resourceVersion should not be set on objects to be created"));
        }
        if at.kind.kind == "LimitRange" && at.kind.custom.is_none() && meta::name(&object).is_empty() {
            // They have always had a name made up.
            meta::set(&mut object, "name", random::uuid());
        }
        let base = meta::field(&object, "generateName").to_owned();
        let generated = !base.is_empty() && meta::name(&object).is_empty();
        if !(versioned && at.options.dry_run) {
            meta::remove(&mut object, "resourceVersion");
        }
        for attempt in 1.. {
            // Only a generated name is tried again.
            let object = if generated { object.clone() } else { object.take() };
            match self.create_named(at, object, owned, warnings).await {
                Err(mut status) if !base.is_empty() && status.reason == "AlreadyExists" => {
                    if attempt >= NAMES || !generated {
                        let text = ", the server was not able to generate a unique name for the object";
                        status.message.push_str(text);
                        status.details["retryAfterSeconds"] = json!(1);
                        return Err(status);
                    }
                }
                done => return done,
            }
        }
        Err(Status::internal("no name was tried"))
    }

    async fn create_named(
        &self,
        at: &At,
        mut object: Value,
        owned: bool,
        warnings: &mut Vec<String>,
    ) -> Result<Outcome, Status> {
        let kind = &at.kind;
        let shares_labels = strategy::shares_labels(&object, kind);
        defaults::apply(&mut object, kind);
        strategy::converted(&mut object, kind);
        for given in ["uid", "creationTimestamp"] {
            meta::remove(&mut object, given);
        }
        strategy::wipe(&mut object);
        // What admission adds has no owner.
        if !owned {
            own_fields(&mut object, at);
        }
        decode::settle(&mut object, kind);
        warnings.extend(self.mutate(at, CREATE, None, &mut object).await?);
        place(&mut object, kind, &at.namespace)?;
        identify(&mut object);
        if kind.kind == "Namespace" && kind.custom.is_none() {
            // Its label is of the name that it has by now.
            defaults::apply(&mut object, kind);
        }
        warnings.extend(strategy::prepare_create(&mut object, kind));
        if shares_labels {
            strategy::share_labels(&mut object);
        }
        strategy::prepare_create_by(&mut object, kind, || at.user.fields());
        // What a status makes gets addresses by its first update.
        let claims = match at.info.subresource.as_str() {
            "" => self.claim(at, &mut object, None).await?,
            _ => Claims::default(),
        };
        let faults = validate::create(&object, kind, self.policy);
        let name = meta::name(&object).to_owned();
        if !faults.is_empty() {
            return Err(Status::invalid(&of_object(kind, &object), &name, &faults));
        }
        warnings.extend(validate::warnings(&object, None, kind));
        warnings.extend(self.admit(at, CREATE, None, &object).await?);
        strategy::read_back(&mut object, kind);
        if at.options.dry_run {
            return self.dry_create(at, object).await;
        }
        self.store_new(at, object, claims).await
    }

    async fn dry_create(&self, at: &At, object: Value) -> Result<Outcome, Status> {
        let tail = keys::tail(meta::namespace(&object), meta::name(&object));
        match self.store.get(&at.resource, &tail).await? {
            Some(found) => Err(already_exists(at, meta::name(&object), Some(&found))),
            None => Ok(Outcome::Dry(object)),
        }
    }

    async fn store_new(&self, at: &At, object: Value, mut claims: Claims) -> Result<Outcome, Status> {
        let kind = &at.kind;
        let (namespace, name) = (meta::namespace(&object).to_owned(), meta::name(&object).to_owned());
        let tail = keys::tail(&namespace, &name);
        let mut stored = self.to_store(kind, object).await?;
        let lease = self.allocator.lease(&at.resource).await?;
        for _ in 0..TRIES_TO_ALLOCATE {
            // Nothing but a claim can be taken.
            let kept = if claims.beside.claim.is_empty() { Value::Null } else { stored.clone() };
            let written = self.store.create(&at.resource, &tail, stored, lease, &claims.beside).await?;
            stored = kept;
            match written {
                Written::Done(entry) => return Ok(Outcome::Stored(entry)),
                Written::Moved(found) => return Err(already_exists(at, &name, found.as_deref())),
                Written::Taken => claims = self.allocator.again(kind, &mut stored, claims).await?,
            }
        }
        Err(Status::internal("no free address or port was found in time"))
    }
}

/// 409, which tells whether what is there goes.
fn already_exists(at: &At, name: &str, found: Option<&Entry>) -> Status {
    let mut status = Status::already_exists(&at.kind.group_resource(), name);
    if found.is_some_and(|found| !meta::field(found.value(), "deletionTimestamp").is_empty()) {
        status.message = format!("object is being deleted: {}", status.message);
    }
    status
}

const TRIES_TO_ALLOCATE: usize = 16;

/// Notes who owns the fields of a new object. What the server itself fills in (status) has no owner.
fn own_fields(object: &mut Value, at: &At) {
    let subresource = at.info.subresource.as_str();
    let fills = subresource.is_empty() && !strategy::unowned(&at.kind, subresource).is_empty();
    let status = object.as_object_mut().filter(|_| fills).and_then(|fields| fields.remove("status"));
    let now = clock::rfc3339_seconds(clock::now());
    let writer = Writer { manager: &at.options.manager, subresource, now: &now };
    apply::update(object, None, &at.kind, &writer);
    if let (Some(status), Some(fields)) = (status, object.as_object_mut()) {
        fields.insert("status".to_owned(), status);
    }
    if object["metadata"]["managedFields"].as_array().is_none_or(Vec::is_empty) {
        meta::remove(object, "managedFields");
    }
}
