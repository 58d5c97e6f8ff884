//! update: PUT of an object or a subresource; and the loop in which every change of a stored object is made.
//!
//! Invariants: a change is made from the revision it replaces; one that changes nothing writes nothing, and is nothing to
//! what the store holds, whatever a cache does.

use super::allocate::Claims;
use super::options::WriteOptions;
use super::{At, Call, Outcome, Registry, Reply, TRIES, body};
use crate::storage::convert;
use crate::storage::entry::Entry;
use crate::storage::write::Written;
use coracle_api::apply::{self, Writer};
use coracle_api::kinds::Kind;
use coracle_api::status::{FieldError, GroupResource, Status};
use coracle_api::{decode, defaults, meta, strategy, validate};
use coracle_daemon::clock;
use serde_json::Value;
use std::sync::Arc;

const UPDATE: &str = "UPDATE";

/// What a change makes of the current object.
pub(super) struct Made {
    /// The new object, canonical, in the version of the request.
    pub object: Value,
    /// For the writer.
    pub warnings: Vec<String>,
    /// Apply has noted the owners of fields already.
    pub owned: bool,
    /// It told something that is not left in it, which raises the generation.
    pub raises: bool,
    /// What was written is the object's Scale, and this is it.
    pub scale: Option<Value>,
}

impl Made {
    /// Of who writes; who owns what is noted later.
    pub fn unowned(object: Value) -> Self {
        Self { object, warnings: Vec::new(), owned: false, raises: false, scale: None }
    }

    /// With owners.
    pub fn owned(object: Value) -> Self {
        Self { owned: true, ..Self::unowned(object) }
    }
}

/// Makes the new object from the current one.
pub(super) type Make<'a> = dyn Fn(&Value) -> Result<Made, Status> + Send + Sync + 'a;

impl Registry {
    pub(super) async fn update(&self, call: &Call) -> Result<Reply, Status> {
        let kind = call.kind()?.clone();
        let options = WriteOptions::read(call, "UpdateOptions", false)?;
        let mut read = body::read(&call.content_type, &call.body, &kind, options.validation)?;
        let at = At::new(call, self.resource(&kind)?, options)?;
        let mut object = read.object;
        read.warnings.extend(body::dedup_owners(&mut object, false));
        fits_url(&mut object, &at)?;
        let make = |_: &Value| {
            Ok(Made { warnings: read.warnings.clone(), raises: read.raises, ..Made::unowned(object.clone()) })
        };
        match self.change(&at, &make).await {
            Err(status) if self.creates_on_update(&at, &status, &object) => {
                self.may_create(&at).await?;
                let mut warnings = read.warnings.clone();
                let outcome = self.create_object(&at, object, false, &mut warnings).await?;
                Ok(Reply::bytes(201, call.format, self.encoded(&outcome, call.format, &kind).await?)
                    .warned(warnings))
            }
            // Who knows the object's uid means one that is there.
            Err(status) if is_absent(&at, &status) && !meta::uid(&object).is_empty() => {
                Err(other_uid(&at, meta::uid(&object), &Value::Null))
            }
            Err(status) => Err(status),
            Ok((outcome, warnings)) => {
                Ok(Reply::bytes(200, call.format, self.encoded(&outcome, call.format, &kind).await?)
                    .warned(warnings))
            }
        }
    }

    /// Whoever creates by a PUT or an apply must be allowed to create.
    pub(super) async fn may_create(&self, at: &At) -> Result<(), Status> {
        if at.own {
            return Ok(());
        }
        let info = crate::request::RequestInfo { verb: "create".to_owned(), ..at.info.clone() };
        self.authorization.authorize(&at.user, &info).await
    }

    fn creates_on_update(&self, at: &At, status: &Status, object: &Value) -> bool {
        is_absent(at, status)
            && matches!(at.info.subresource.as_str(), "" | "status")
            && at.strategy().allow_create_on_update
            && meta::field(object, "resourceVersion").is_empty()
            && meta::uid(object).is_empty()
    }

    /// Changes the object that `at` names, again from fresh state while others get in the way.
    pub(super) async fn change(&self, at: &At, make: &Make<'_>) -> Result<(Outcome, Vec<String>), Status> {
        let tail = super::tail(&at.namespace, &at.info.name)?;
        // What the cache holds is most often current; whatever it is refused for is asked again of the store.
        let (mut current, mut fresh) = match at.resource.cache.get(&tail) {
            Some(entry) if entry.fault().is_none() => (entry, false),
            _ => (self.store.get(&at.resource, &tail).await?.ok_or_else(|| at.not_found())?, true),
        };
        let mut tries = 0;
        loop {
            let seen = current.revision;
            let unsure = match self.change_once(at, &current, make).await {
                Ok(Changed::Done(outcome, warnings)) => return Ok((outcome, warnings)),
                Ok(Changed::Moved(found)) => {
                    tries += usize::from(fresh);
                    if tries >= TRIES {
                        return Err(Status::stale(&at.kind.group_resource(), &at.info.name));
                    }
                    (current, fresh) = (Entry::readable(found.ok_or_else(|| at.not_found())?)?, true);
                    continue;
                }
                // It may have been done: making it again from fresh state could do it twice.
                Ok(Changed::Unwritten(status)) => return Err(status),
                Ok(Changed::Same(outcome, warnings)) => Ok((outcome, warnings)),
                Err(status) => Err(status),
            };
            if fresh {
                return unsure;
            }
            // No write has told whether the cache is behind. What it holds is no older: nobody is asked about it twice.
            current = self.store.get(&at.resource, &tail).await?.ok_or_else(|| at.not_found())?;
            if current.revision == seen {
                return unsure;
            }
            fresh = true;
        }
    }

    async fn change_once(&self, at: &At, current: &Arc<Entry>, make: &Make<'_>) -> Result<Changed, Status> {
        let old = convert::to(&at.kind, self.shown_one(&at.kind, current.clone()).await?.value());
        let mut made = make(&old)?;
        let mut warnings = std::mem::take(&mut made.warnings);
        let changed = self.changed(at, (current, &old), made, &mut warnings).await;
        changed.map_err(|status| status.warned(warnings))
    }

    /// Writes what was made of `old`, as far as it may be.
    async fn changed(
        &self,
        at: &At,
        (current, old): (&Arc<Entry>, &Arc<Value>),
        made: Made,
        warnings: &mut Vec<String>,
    ) -> Result<Changed, Status> {
        let Made { mut object, owned, raises, scale, .. } = made;
        let kind = &at.kind;
        self.check_version(at, &object, old)?;
        defaults::apply(&mut object, kind);
        strategy::converted(&mut object, kind);
        let now = clock::rfc3339_seconds(clock::now());
        if !owned {
            own(at, &mut object, old, &now);
        }
        decode::settle(&mut object, kind);
        let told;
        match scale {
            None => told = self.mutate(at, UPDATE, Some(old), &mut object).await?,
            Some(scale) => (object, told) = self.mutate_scale(at, old, scale).await?,
        }
        warnings.extend(told);
        if matches!(meta::field(&object, "resourceVersion"), "" | "0") {
            meta::set(&mut object, "resourceVersion", meta::field(old, "resourceVersion"));
        }
        apply::keep_times(&mut object, old, kind);
        strategy::prepare_update(&mut object, old, kind, &at.info.subresource);
        if raises && at.info.subresource.is_empty() {
            strategy::raise_generation(&mut object, old);
        }
        strategy::stamp(&mut object, old, kind, &at.info.subresource, &now);
        let claims = if at.info.subresource.is_empty() {
            self.claim(at, &mut object, Some(old)).await?
        } else {
            Claims::default()
        };
        let faults = validate::update(&object, old, kind, &at.info.subresource, self.policy, warnings);
        if !faults.is_empty() {
            return Err(Status::invalid(&of_object(kind, &object), &at.info.name, &faults));
        }
        // Subresources are written by controllers, which nobody need warn.
        if at.info.subresource.is_empty() {
            warnings.extend(validate::warnings(&object, Some(old), kind));
        }
        warnings.extend(self.admit(at, UPDATE, Some(old), &object).await?);
        if at.options.dry_run {
            return Ok(Changed::Same(Outcome::Dry(object), std::mem::take(warnings)));
        }
        self.write(at, (current, old), object, &claims, warnings).await
    }

    /// Brings a change that is allowed to the store.
    async fn write(
        &self,
        at: &At,
        (current, old): (&Arc<Entry>, &Value),
        mut object: Value,
        claims: &Claims,
        warnings: &mut Vec<String>,
    ) -> Result<Changed, Status> {
        let kind = &at.kind;
        meta::set(&mut object, "resourceVersion", current.revision.to_string());
        let unchanged = object == *old && !self.store.stale(&at.resource, current).await?;
        let finished = is_finished(&object);
        let stored = self.to_store(kind, object).await?;
        // A definition may want another version stored by now, and a webhook may make something else on the way there.
        if unchanged && (kind.custom.is_none() || stored == **current.value()) {
            return Ok(Changed::Same(Outcome::Stored(current.clone()), std::mem::take(warnings)));
        }
        let written = if finished {
            let beside = self.allocator.freed(kind, &stored);
            let lost =
                Entry::new(&current.tail, current.revision, crate::storage::entry::stored(&stored).into());
            self.store.remove(&at.resource, &lost, &beside).await
        } else {
            let lease = self.allocator.lease(&at.resource).await?;
            self.store.replace(&at.resource, current, stored, lease, &claims.beside).await
        };
        Ok(match written {
            Ok(Written::Done(entry)) => Changed::Done(Outcome::Stored(entry), std::mem::take(warnings)),
            Ok(Written::Moved(found)) => Changed::Moved(found),
            // Another candidate is chosen when the change is made again.
            Ok(Written::Taken) => Changed::Moved(Some(current.clone())),
            Err(status) => Changed::Unwritten(status),
        })
    }

    /// Optimistic concurrency: the resourceVersion and uid that the writer has seen must be the stored ones.
    fn check_version(&self, at: &At, object: &Value, old: &Value) -> Result<(), Status> {
        let of = at.kind.group_resource();
        let stored = meta::field(old, "resourceVersion");
        let uid = meta::uid(object);
        // Of a patch, validation tells it.
        let by_patch = at.info.verb == "patch" && at.info.subresource != "scale";
        if !by_patch && !uid.is_empty() && uid != meta::uid(old) {
            return Err(other_uid(at, uid, old));
        }
        match meta::field(object, "resourceVersion") {
            "" | "0" if at.strategy().allow_unconditional_update || at.own => Ok(()),
            "" | "0" => {
                let why = "must be specified for an update";
                let mut fault = FieldError::invalid("metadata.resourceVersion", &Value::Null, why);
                fault.value = Some("0x0".to_owned());
                Err(Status::invalid(&of, &at.info.name, &[fault]))
            }
            version if version == stored => Ok(()),
            version if version.parse::<u64>().is_err() => {
                Err(Status::new(500, "", format!("strconv.ParseUint: parsing {version:?}: invalid syntax")))
            }
            _ => Err(Status::stale(&of, &at.info.name)),
        }
    }
}

/// Notes who owns what is written. Of an object that a subresource writes a part of, admission sees all that was sent,
/// though what is not written has no new owner.
fn own(at: &At, object: &mut Value, old: &Value, now: &str) {
    let subresource = at.info.subresource.as_str();
    let writer = Writer { manager: &at.options.manager, subresource, now };
    if !strategy::is_prepared_first(&at.kind, subresource) {
        return apply::update(object, Some(old), &at.kind, &writer);
    }
    let mut written = object.clone();
    strategy::prepare_update(&mut written, old, &at.kind, subresource);
    // Whoever writes the status of a custom object owns metadata that it names there, though it is not written.
    if subresource == "status" && at.kind.custom.is_some() {
        written["metadata"] = object["metadata"].clone();
    }
    apply::update(&mut written, Some(old), &at.kind, &writer);
    match written["metadata"]["managedFields"].take() {
        Value::Null => meta::remove(object, "managedFields"),
        owners => meta::set(object, "managedFields", owners),
    }
}

/// Whether it is the object itself that was not found.
pub(super) fn is_absent(at: &At, status: &Status) -> bool {
    status.code == 404 && status.message == at.not_found().message
}

/// 409 of a writer that means another object of that name.
pub(super) fn other_uid(at: &At, uid: &str, old: &Value) -> Status {
    unmet(at, "UID", uid, meta::uid(old))
}

/// 409 of a writer that means another state of the object.
pub(super) fn other_version(at: &At, version: &str, old: &Value) -> Status {
    unmet(at, "ResourceVersion", version, meta::field(old, "resourceVersion"))
}

fn unmet(at: &At, what: &str, wanted: &str, found: &str) -> Status {
    if at.info.subresource == "scale" && at.kind.custom.is_none() {
        // A Scale is held against what it is of before that is stored.
        let mut of = at.kind.group_resource();
        of.resource.push_str("/scale");
        let cause =
            format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}");
        return Status::conflict(&of, &at.info.name, &cause);
    }
    let key = at.resource.key(&at.namespace, &at.info.name);
    let key = String::from_utf8_lossy(&key);
    // A dry run does not come as far as the prefix.
    let told = key.strip_prefix("/registry").filter(|_| at.options.dry_run).unwrap_or(&key);
    let cause = format!(
        "StorageError: invalid object, Code: 4, Key: {told}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
    );
    Status::conflict(&at.kind.group_resource(), &at.info.name, &cause)
}

/// What an invalid object is said to be: a custom one whatever it says itself.
pub(super) fn of_object(kind: &Kind, object: &Value) -> GroupResource {
    match object["kind"].as_str() {
        Some(name) if kind.custom.is_some() => GroupResource::new(&kind.group, name),
        _ => kind.group_kind(),
    }
}

enum Changed {
    Done(Outcome, Vec<String>),
    /// Nothing was to be written, as far as is known.
    Same(Outcome, Vec<String>),
    Moved(Option<Arc<Entry>>),
    /// The store failed, or its answer was lost.
    Unwritten(Status),
}

/// Whether an update has taken away the last thing that held a deleted object back.
fn is_finished(object: &Value) -> bool {
    let metadata = &object["metadata"];
    let held = |list: &Value| list.as_array().is_some_and(|list| !list.is_empty());
    let namespace_held = object["kind"] == "Namespace" && held(&object["spec"]["finalizers"]);
    metadata["deletionTimestamp"].is_string()
        && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && !held(&metadata["finalizers"])
        && !namespace_held
}

/// Objects say their name themselves.
pub(super) fn nameless(name: &str) -> Status {
    Status::bad_request(format!(
        "the name of the object ({name} based on URL) was undeterminable: name must be provided"
    ))
}

/// Names the object after its URL, or tells that it does not fit.
///
/// # Errors
/// 400.
pub(super) fn fits_url(object: &mut Value, at: &At) -> Result<(), Status> {
    let namespace = meta::namespace(object);
    if at.kind.namespaced && !namespace.is_empty() && namespace != at.info.namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let name = meta::name(object);
    if name.is_empty() {
        return Err(nameless(&at.info.name));
    }
    if name != at.info.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            at.info.name
        )));
    }
    if !at.kind.namespaced {
        meta::remove(object, "namespace");
        return Ok(());
    }
    meta::set(object, "namespace", at.info.namespace.as_str());
    Ok(())
}
