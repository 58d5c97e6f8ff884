//! delete and deletecollection: at once, after a grace period, or when finalizers have gone.

mod options;

use super::{At, Call, Outcome, Registry, Reply, TRIES};
use crate::admission::Attributes;
use crate::request::RequestInfo;
use crate::storage::convert;
use crate::storage::customs;
use crate::storage::encode::{self, Shape};
use crate::storage::entry::Entry;
use crate::storage::keys;
use crate::storage::write::{Beside, Written};
use coracle_api::custom::names::{self, Ending};
use coracle_api::kinds::Kind;
use coracle_api::meta;
use coracle_api::status::Status;
use coracle_daemon::clock;
use futures::{FutureExt, StreamExt, TryStreamExt};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::sync::Arc;

pub(super) use options::DeleteOptions;

const DELETE: &str = "DELETE";
const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
/// Objects of a collection that are deleted at a time.
const AT_ONCE: usize = 16;
/// Kinds whose DELETE answers with the object itself.
const ANSWERED_WITH_OBJECT: &[&str] = &[
    "pods",
    "podtemplates",
    "services",
    "serviceaccounts",
    "persistentvolumes",
    "persistentvolumeclaims",
    "resourcequotas",
    "storageclasses",
    "csidrivers",
    "csinodes",
    "volumeattachments",
    "volumeattributesclasses",
    "deviceclasses",
    "resourceclaims",
    "resourceclaimtemplates",
    "resourceslices",
    "namespaces",
];

/// PriorityClasses that the cluster itself needs.
const SYSTEM_CLASSES: [&str; 2] = ["system-cluster-critical", "system-node-critical"];

/// What a delete does to an object now.
enum Step {
    /// It goes, and is told of like this.
    Remove(Value),
    /// It has no time left: watches see it marked like this, and then it goes.
    End(Value),
    /// It stays, marked like this.
    Mark(Value),
    /// It is being deleted already.
    Nothing,
}

impl Registry {
    pub(super) async fn delete(&self, call: &Call) -> Result<Reply, Status> {
        let kind = call.kind()?.clone();
        let options = DeleteOptions::read(call)?;
        let write = options.as_write();
        let at = At::new(call, self.resource(&kind)?, write)?;
        if kind.group == "scheduling.k8s.io" && SYSTEM_CLASSES.contains(&at.info.name.as_str()) {
            let cause = "this is a system priority class and cannot be deleted";
            return Err(Status::forbidden(&kind.group_resource(), &at.info.name, cause));
        }
        let mut told = warnings(&kind, &options);
        if kind.custom.as_ref().is_some_and(|version| version.conversion().is_some()) {
            // What cannot be shown does not go.
            self.shown_one(&kind, self.find(call).await?).await?;
        }
        let (outcome, gone) = match self.delete_object(&at, &options, &mut told).await {
            Ok(done) => done,
            Err(status) => return Err(status.warned(told)),
        };
        if !gone || ANSWERED_WITH_OBJECT.contains(&kind.plural.as_str()) {
            let reply = Reply::bytes(200, call.format, self.encoded(&outcome, call.format, &kind).await?);
            return Ok(reply.warned(told));
        }
        let object = outcome.object(&kind);
        let mut details =
            json!({"name": meta::name(&object), "kind": kind.plural, "uid": meta::uid(&object)});
        if !kind.group.is_empty() {
            details["group"] = json!(kind.group);
        }
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
        Ok(Reply::value(200, call.format, &status)?.warned(told))
    }

    pub(super) async fn delete_collection(&self, call: &Call) -> Result<Reply, Status> {
        let kind = call.kind()?.clone();
        let (entries, mut about) = self.asked_for(call).await?;
        let options = DeleteOptions::read(call)?;
        let resource = self.resource(&kind)?;
        // What cannot be shown does not go.
        let shown = self.shown(&kind, entries.clone()).await?;
        let deletions = entries.iter().map(|entry| {
            let (namespace, name) = keys::split(&entry.tail);
            let write = options.as_write();
            let at = At::new(call, resource.clone(), write).map(|mut at| {
                // No one of them was named.
                at.asked = Some(RequestInfo { name: String::new(), ..call.info.clone() });
                at.info.name = name.to_owned();
                if at.kind.namespaced {
                    at.info.namespace = namespace.to_owned();
                }
                at.namespace = namespace.to_owned();
                at
            });
            let options = options.clone();
            async move {
                match self.delete_object(&at?, &options, &mut Vec::new()).await {
                    // Somebody else was faster.
                    Err(status) if status.code == 404 => Ok(()),
                    done => done.map(drop),
                }
            }
            .boxed()
        });
        let deletions: Vec<_> = deletions.collect();
        let told = warnings(&kind, &options);
        let done = futures::stream::iter(deletions).buffer_unordered(AT_ONCE).try_collect::<()>().await;
        done.map_err(|status| status.warned(told.clone()))?;
        about.says_end = kind.custom.is_some() && call.format.shape == Shape::Whole;
        Ok(Reply::bytes(200, call.format, encode::list(call.format, &kind, &shown, &about)?).warned(told))
    }

    /// Deletes, or begins to; tells whether the object is gone.
    pub(super) async fn delete_object(
        &self,
        at: &At,
        options: &DeleteOptions,
        warnings: &mut Vec<String>,
    ) -> Result<(Outcome, bool), Status> {
        let tail = super::tail(&at.namespace, &at.info.name)?;
        let mut current = self.store.get(&at.resource, &tail).await?.ok_or_else(|| at.not_found())?;
        let (mut options, mut ended) = (Cow::Borrowed(options), false);
        for _ in 0..TRIES {
            let old = current.value().clone();
            check(at, &options, &old)?;
            if is_ending(at, &options, &old) {
                return Ok((Outcome::Stored(current), false));
            }
            let shown = options.shown(stays(at, &options, &old));
            warnings.extend(self.judge(at, &old, &shown).await?);
            let mut told = Value::Null;
            let (written, gone) = match step(at, &options, &old) {
                Step::Nothing => return Ok((Outcome::Stored(current), false)),
                Step::End(last) | Step::Remove(last) if options.dry_run => {
                    return Ok((Outcome::Dry(convert::to(&at.kind, &Arc::new(last)).as_ref().clone()), true));
                }
                Step::Mark(object) if options.dry_run => return Ok((Outcome::Dry(object), false)),
                Step::Remove(last) => {
                    let beside = self.allocator.freed(&at.kind, &old);
                    told = last;
                    (self.store.remove(&at.resource, &current, &beside).await?, true)
                }
                Step::Mark(object) => (self.mark(at, &current, object).await?, false),
                Step::End(object) => match self.mark(at, &current, object).await? {
                    Written::Done(marked) => {
                        // What goes is asked about once more, and is the one that was meant.
                        options.to_mut().hurry(&marked);
                        (current, ended) = (marked, true);
                        continue;
                    }
                    other => (other, false),
                },
            };
            match written {
                // A deletion tells of the object as it was.
                Written::Done(_) if gone => {
                    let last = crate::storage::entry::stored(&told).into();
                    let entry = Entry::new(&current.tail, current.revision, last);
                    return Ok((Outcome::Stored(Arc::new(entry)), true));
                }
                Written::Done(entry) => return Ok((Outcome::Stored(entry), false)),
                // Somebody else took away what was marked to go.
                Written::Moved(None) if ended => return Ok((Outcome::Stored(current), true)),
                Written::Moved(found) => {
                    current = Entry::readable(found.ok_or_else(|| at.not_found())?)?;
                }
                Written::Taken => {}
            }
        }
        Err(Status::stale(&at.kind.group_resource(), &at.info.name))
    }
}

impl Registry {
    async fn mark(&self, at: &At, current: &Entry, object: Value) -> Result<Written, Status> {
        let lease = self.allocator.lease(&at.resource).await?;
        self.store.replace(&at.resource, current, object, lease, &Beside::default()).await
    }

    /// Asks admission about a deletion; returns warnings.
    async fn judge(&self, at: &At, old: &Value, options: &Value) -> Result<Vec<String>, Status> {
        if at.own {
            return Ok(Vec::new());
        }
        let attributes = Attributes { options, ..at.attributes(DELETE, Some(old)) };
        let mut warnings = self.admission.mutate(&attributes, &mut Value::Null).await?;
        warnings.extend(self.admission.validate(&attributes, &Value::Null).await?);
        Ok(warnings)
    }
}

/// Whoever deletes a Job and says nothing of its pods is told what becomes of them.
fn warnings(kind: &Kind, options: &DeleteOptions) -> Vec<String> {
    const TEXT: &str = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning";
    let warned = kind.kind == "Job" && options.propagation.is_none();
    if warned { vec![TEXT.to_owned()] } else { Vec::new() }
}

pub(super) fn check(at: &At, options: &DeleteOptions, object: &Value) -> Result<(), Status> {
    let told = [
        ("UID", &options.uid, meta::uid(object)),
        ("ResourceVersion", &options.revision, meta::field(object, "resourceVersion")),
    ];
    for (what, wanted, stored) in told {
        if let Some(wanted) = wanted
            && wanted != stored
        {
            // These have always been deleted in a way of their own, one by one.
            if (is_definition(at) && at.info.verb == "delete")
                || (at.kind.kind == "Namespace" && at.kind.custom.is_none())
            {
                let cause = format!(
                    "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {stored}"
                );
                return Err(Status::conflict(&at.kind.group_resource(), &at.info.name, &cause));
            }
            let end = if what == "UID" { "deleted and then recreated" } else { "modified" };
            let cause = format!(
                "the {what} in the precondition ({wanted}) does not match the {what} in record ({stored}). The object might have been {end}"
            );
            return Err(Status::conflict(&at.kind.group_kind(), &at.info.name, &cause));
        }
    }
    Ok(())
}

/// Finalizers with those of the propagation policy in or out.
fn finalizers(at: &At, options: &DeleteOptions, object: &Value) -> Vec<String> {
    let mut list: Vec<String> = meta::strings(&object["metadata"]["finalizers"]).map(str::to_owned).collect();
    let has = |list: &[String], what: &str| list.iter().any(|own| own == what);
    let wanted = match options.propagation.as_deref() {
        Some(policy) => policy,
        None if has(&list, ORPHAN) => "Orphan",
        None if has(&list, FOREGROUND) => "Foreground",
        None => at.strategy().default_propagation,
    };
    // Events have nothing that depends on them.
    let wanted = if at.kind.plural == "events" { "Background" } else { wanted };
    list.retain(|own| own != ORPHAN && own != FOREGROUND);
    match wanted {
        "Orphan" => list.push(ORPHAN.to_owned()),
        "Foreground" => list.push(FOREGROUND.to_owned()),
        _ => {}
    }
    list
}

/// Seconds that the caller gives an object.
fn given(options: &DeleteOptions) -> Option<i64> {
    options.grace.map(|seconds| if seconds < 0 { 1 } else { seconds })
}

/// Seconds that an object has left when it is deleted so.
fn grace(at: &At, options: &DeleteOptions, object: &Value) -> i64 {
    if !at.strategy().graceful_delete {
        return 0;
    }
    if is_marked(object) {
        return given(options).unwrap_or(0);
    }
    let never_ran = object["spec"]["nodeName"].as_str().is_none_or(str::is_empty);
    let ended = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if never_ran || ended {
        return 0;
    }
    let own = || object["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30);
    let seconds = options.grace.unwrap_or_else(own);
    if seconds < 0 { 1 } else { seconds }
}

fn is_marked(object: &Value) -> bool {
    !meta::field(object, "deletionTimestamp").is_empty()
}

/// Whether an object ends already, and the caller does not hurry it.
fn is_ending(at: &At, options: &DeleteOptions, object: &Value) -> bool {
    let left = object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    at.strategy().graceful_delete
        && is_marked(object)
        && left > 0
        && given(options).is_none_or(|given| given >= left)
}

/// The seconds that admission is told of: all of a collection are asked about by what was said of the collection.
fn stays(at: &At, options: &DeleteOptions, object: &Value) -> Option<i64> {
    if at.info.verb == "deletecollection" {
        return None;
    }
    let fresh = at.strategy().graceful_delete && !is_marked(object);
    if fresh { Some(grace(at, options, object)) } else { given(options) }
}

fn step(at: &At, options: &DeleteOptions, old: &Value) -> Step {
    let finalizers = finalizers(at, options, old);
    let marked = meta::field(old, "deletionTimestamp").parse::<jiff::Timestamp>().ok();
    if is_definition(at) && marked.is_none() {
        return Step::Mark(ending(old));
    }
    let namespace_held =
        at.kind.kind == "Namespace" && meta::strings(&old["spec"]["finalizers"]).next().is_some();
    let left = grace(at, options, old);
    let mut object = old.clone();
    if finalizers.is_empty() {
        meta::remove(&mut object, "finalizers");
    } else {
        meta::set(&mut object, "finalizers", finalizers.clone());
    }
    let held = !finalizers.is_empty() || namespace_held;
    let graceful = at.strategy().graceful_delete;
    let Some(marked) = marked else {
        let removed = left == 0 && !held;
        if removed && !graceful {
            return Step::Remove(old.clone());
        }
        let left_for = jiff::SignedDuration::from_secs(left);
        let end = clock::now().checked_add(left_for).unwrap_or(jiff::Timestamp::MAX);
        mark(&mut object, end, left);
        if at.kind.kind == "Namespace" {
            // It has always gone by its finalizers alone.
            meta::remove(&mut object, "deletionGracePeriodSeconds");
        }
        let generation = object["metadata"]["generation"].as_i64().filter(|generation| *generation > 0);
        if let Some(generation) = generation {
            meta::set(&mut object, "generation", generation + 1);
        }
        if namespace_held {
            object["status"]["phase"] = json!("Terminating");
        }
        return if removed { Step::End(object) } else { Step::Mark(object) };
    };
    let before = old["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    if left < before {
        hurry(&mut object, marked, before, left);
    }
    if !held && (left == 0 || before == 0) {
        return if left < before { Step::End(object) } else { Step::Remove(object) };
    }
    if is_definition(at) {
        // The second deletion is one like others.
        meta::set(&mut object, "deletionGracePeriodSeconds", 0);
    }
    if object == *old { Step::Nothing } else { Step::Mark(object) }
}

fn is_definition(at: &At) -> bool {
    at.resource.of.group == customs::GROUP && at.resource.of.resource == customs::PLURAL
}

/// A definition that is being deleted, which its objects hold, whatever becomes of dependents.
fn ending(definition: &Value) -> Value {
    let mut object = definition.clone();
    let now = clock::rfc3339_seconds(clock::now());
    let mut finalizers: Vec<&str> = meta::strings(&definition["metadata"]["finalizers"]).collect();
    if !finalizers.contains(&names::CLEANUP) {
        finalizers.push(names::CLEANUP);
    }
    meta::set(&mut object, "finalizers", finalizers);
    if let Some(status) = names::terminating(definition, Ending::Marked, &now) {
        object["status"] = status;
    }
    meta::set(&mut object, "deletionTimestamp", now);
    object
}

/// Gives less time to an object that ends: what should have ended by then ends now, and is not taken away at once unless
/// that was asked for.
fn hurry(object: &mut Value, marked: jiff::Timestamp, before: i64, left: i64) {
    let sooner = jiff::SignedDuration::from_secs(before.saturating_sub(left));
    let (end, now) = (marked.checked_sub(sooner).unwrap_or(jiff::Timestamp::MIN), clock::now());
    if end < now { mark(object, now, left.min(1)) } else { mark(object, end, left) }
}

/// Notes when a deleted object should be gone, and how many seconds it was given.
fn mark(object: &mut Value, end: jiff::Timestamp, grace: i64) {
    meta::set(object, "deletionTimestamp", clock::rfc3339_seconds(end));
    meta::set(object, "deletionGracePeriodSeconds", grace);
}
