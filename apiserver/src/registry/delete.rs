//! delete and deletecollection: at once, after a grace period, or when finalizers have gone.

use super::options::{FieldValidation, WriteOptions, dry_run};
use super::{At, Call, Outcome, Registry, Reply, TRIES, body, convert};
use crate::storage::customs;
use crate::storage::encode::{self, Shape};
use crate::storage::entry::Entry;
use crate::storage::keys;
use crate::storage::write::Written;
use coracle_api::custom::names::{self, Ending};
use coracle_api::kinds::Kind;
use coracle_api::meta;
use coracle_api::status::{FieldError, GroupResource, Status};
use coracle_daemon::clock;
use futures::{FutureExt, StreamExt, TryStreamExt};
use serde_json::{Value, json};
use std::sync::Arc;

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

/// What the caller of a delete wants.
#[derive(Clone, Debug, Default)]
pub(super) struct DeleteOptions {
    pub dry_run: bool,
    /// Seconds.
    pub grace: Option<i64>,
    pub uid: Option<String>,
    pub revision: Option<String>,
    /// `Orphan`, `Background` or `Foreground`; `None` leaves it to the kind.
    pub propagation: Option<String>,
    /// As admission is shown them.
    pub sent: Value,
}

impl DeleteOptions {
    fn read(call: &Call) -> Result<Self, Status> {
        let sent = if call.body.is_empty() {
            Value::Null
        } else {
            let kind = body::loose_kind("meta.k8s.io", "v1", "DeleteOptions");
            match body::media(&call.content_type)? {
                encode::Media::Protobuf => {
                    body::read(&call.content_type, &call.body, &kind, FieldValidation::Ignore)?.object
                }
                encode::Media::Yaml => coracle_api::decode::any(&call.body).map_err(untold)?,
                encode::Media::Json => coracle_api::decode::document_of_json(&call.body).map_err(untold)?,
            }
        };
        check_types(&sent)?;
        // Who sends a body says everything there.
        let query: &[_] = if call.body.is_empty() { &call.query } else { &[] };
        let options = Self::of(&sent, query)?;
        if !call.body.is_empty() {
            crate::audit::options(&options.sent);
        }
        Ok(options)
    }

    /// What was sent in a body, or in a query.
    ///
    /// # Errors
    /// 422 that names the option, 400 for what is no number.
    pub(super) fn of(sent: &Value, query: &[(String, String)]) -> Result<Self, Status> {
        let mut faults = Vec::new();
        let grace = query.iter().find(|(key, _)| key == "gracePeriodSeconds");
        let grace = super::read::integer(grace.map_or("", |(_, value)| value))?;
        let in_query = query.iter().filter(|(key, _)| key == "dryRun").map(|(_, value)| value.as_str());
        let dry_run = dry_run(meta::strings(&sent["dryRun"]).chain(in_query), &mut faults);
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let asked = |name: &str| {
            let found = query.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.clone()).filter(|text| !text.is_empty())
        };
        let propagation =
            sent["propagationPolicy"].as_str().map(str::to_owned).or_else(|| asked("propagationPolicy"));
        if let Some(policy) = &propagation
            && !["Background", "Foreground", "Orphan"].contains(&policy.as_str())
        {
            faults.push(FieldError::not_supported(
                "propagationPolicy",
                &json!(policy),
                &["Foreground", "Background", "Orphan", "nil"],
            ));
        }
        let orphans = sent["orphanDependents"]
            .as_bool()
            .or_else(|| asked("orphanDependents").map(|text| !matches!(text.as_str(), "false" | "0")));
        if orphans.is_some() && propagation.is_some() {
            faults.push(FieldError::invalid(
                "propagationPolicy",
                &json!(propagation),
                "orphanDependents and deletionPropagation cannot be both set",
            ));
        }
        if !faults.is_empty() {
            return Err(Status::invalid(&GroupResource::new("meta.k8s.io", "DeleteOptions"), "", &faults));
        }
        let mut shown = if sent.is_object() { sent.clone() } else { json!({}) };
        (shown["kind"], shown["apiVersion"]) = (json!("DeleteOptions"), json!("meta.k8s.io/v1"));
        if !query.is_empty() {
            let rows = [
                ("gracePeriodSeconds", grace.map(Value::from)),
                ("dryRun", dry_run.then(|| json!(["All"]))),
                ("orphanDependents", orphans.map(Value::from)),
                ("propagationPolicy", propagation.clone().map(Value::from)),
            ];
            say(&mut shown, rows);
        }
        let by_flag = orphans.map(|orphans| if orphans { "Orphan" } else { "Background" }.to_owned());
        Ok(Self {
            dry_run,
            grace: sent["gracePeriodSeconds"].as_i64().or(grace),
            uid: text(&sent["preconditions"]["uid"]).or_else(|| asked("uid")),
            revision: text(&sent["preconditions"]["resourceVersion"]).or_else(|| asked("resourceVersion")),
            propagation: propagation.or(by_flag),
            sent: shown,
        })
    }
}

impl DeleteOptions {
    fn as_write(&self) -> WriteOptions {
        WriteOptions { dry_run: self.dry_run, sent: self.sent.clone(), ..WriteOptions::of_server() }
    }
}

/// Shows admission what a query has asked for.
fn say(shown: &mut Value, rows: [(&str, Option<Value>); 4]) {
    for (key, value) in rows {
        if let Some(value) = value {
            shown[key] = value;
        }
    }
}

/// Refuses options of the wrong types: what was meant cannot be known, and a deletion cannot be taken back.
fn check_types(sent: &Value) -> Result<(), Status> {
    let conditions = &sent["preconditions"];
    let rows: [(&str, &Value, &str, bool); 7] = [
        ("gracePeriodSeconds", &sent["gracePeriodSeconds"], "int64", sent["gracePeriodSeconds"].is_i64()),
        ("orphanDependents", &sent["orphanDependents"], "bool", sent["orphanDependents"].is_boolean()),
        ("propagationPolicy", &sent["propagationPolicy"], "string", sent["propagationPolicy"].is_string()),
        ("dryRun", &sent["dryRun"], "[]string", sent["dryRun"].is_array()),
        ("preconditions", conditions, "v1.Preconditions", conditions.is_object()),
        ("preconditions.uid", &conditions["uid"], "types.UID", conditions["uid"].is_string()),
        (
            "preconditions.resourceVersion",
            &conditions["resourceVersion"],
            "string",
            conditions["resourceVersion"].is_string(),
        ),
    ];
    if !sent.is_object() && !sent.is_null() {
        let found = coracle_api::decode::found(sent);
        return Err(untold(format!(
            "json: cannot unmarshal {found} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}"
        )));
    }
    let text = |key: &str| sent[key].as_str().filter(|text| !text.is_empty());
    if let Some(other) = text("kind").filter(|kind| *kind != "DeleteOptions") {
        let version = text("apiVersion").unwrap_or("meta.k8s.io/v1");
        return Err(Status::new(
            500,
            "",
            format!(
                "no kind {other:?} is registered for version {version:?} in scheme \"pkg/apis/meta/internalversion/scheme/register.go:27\""
            ),
        ));
    }
    match rows.into_iter().find(|(_, value, _, fits)| !value.is_null() && !fits) {
        None => Ok(()),
        Some((field, value, of, _)) => {
            let found = match value {
                // Go shows numbers that do not fit.
                Value::Number(number) if of == "int64" => format!("number {number}"),
                other => coracle_api::decode::found(other).to_owned(),
            };
            let text = format!(
                "json: cannot unmarshal {found} into Go struct field DeleteOptions.{field} of type {of}"
            );
            Err(Status::new(500, "", text))
        }
    }
}

/// A body whose type cannot be told.
fn untold(fault: impl std::fmt::Display) -> Status {
    Status::new(500, "", format!("couldn't get version/kind; json parse error: {fault}"))
}

/// What a delete does to an object now.
enum Step {
    /// It goes, and is told of like this.
    Remove(Value),
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
        for _ in 0..TRIES {
            let old = current.value().clone();
            check(at, options, &old)?;
            warnings.extend(self.mutate(at, DELETE, Some(&old), &mut Value::Null).await?);
            warnings.extend(self.admit(at, DELETE, Some(&old), &Value::Null).await?);
            let mut told = Value::Null;
            let written = match step(at, options, &old) {
                Step::Nothing => return Ok((Outcome::Stored(current), false)),
                Step::Remove(last) if options.dry_run => {
                    return Ok((Outcome::Dry(convert::to(&at.kind, &Arc::new(last)).as_ref().clone()), true));
                }
                Step::Mark(object) if options.dry_run => return Ok((Outcome::Dry(object), false)),
                Step::Remove(last) => {
                    let beside = self.allocator.freed(&at.kind, &old);
                    let removed = self.store.remove(&at.resource, &current, &beside).await?;
                    told = last;
                    (removed, true)
                }
                Step::Mark(object) => {
                    let lease = self.allocator.lease(&at.resource).await?;
                    let beside = crate::storage::write::Beside::default();
                    (self.store.replace(&at.resource, &current, object, lease, &beside).await?, false)
                }
            };
            match written {
                // A deletion tells of the object as it was.
                (Written::Done(_), true) => {
                    let last = crate::storage::entry::stored(&told).into();
                    let entry = Entry::new(&current.tail, current.revision, last);
                    return Ok((Outcome::Stored(Arc::new(entry)), true));
                }
                (Written::Done(entry), false) => return Ok((Outcome::Stored(entry), false)),
                (Written::Moved(found), _) => {
                    current = Entry::readable(found.ok_or_else(|| at.not_found())?)?;
                }
                (Written::Taken, _) => {}
            }
        }
        Err(Status::stale(&at.kind.group_resource(), &at.info.name))
    }
}

/// Whoever deletes a Job and says nothing of its pods is told what becomes of them.
fn warnings(kind: &Kind, options: &DeleteOptions) -> Vec<String> {
    const TEXT: &str = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning";
    let warned = kind.kind == "Job" && options.propagation.is_none();
    if warned { vec![TEXT.to_owned()] } else { Vec::new() }
}

fn check(at: &At, options: &DeleteOptions, object: &Value) -> Result<(), Status> {
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

/// Seconds that an object has left when it is deleted so.
fn grace(at: &At, options: &DeleteOptions, object: &Value) -> i64 {
    if !at.strategy().graceful_delete {
        return 0;
    }
    let never_ran = object["spec"]["nodeName"].as_str().is_none_or(str::is_empty);
    let ended = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if never_ran || ended {
        return 0;
    }
    let seconds =
        options.grace.or_else(|| object["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(30);
    if seconds < 0 { 1 } else { seconds }
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
        mark(&mut object, clock::now(), left);
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
        return if removed { Step::Remove(object) } else { Step::Mark(object) };
    };
    let before = old["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    let shortened = left < before && (options.grace.is_some() || left == 0);
    if shortened {
        let since = marked - jiff::SignedDuration::from_secs(before);
        mark(&mut object, since, left);
    }
    if !held && (left == 0 || before == 0) {
        return Step::Remove(object);
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

/// The time at which a deleted object should be gone.
fn mark(object: &mut Value, since: jiff::Timestamp, grace: i64) {
    let end = since.checked_add(jiff::SignedDuration::from_secs(grace)).unwrap_or(jiff::Timestamp::MAX);
    meta::set(object, "deletionTimestamp", clock::rfc3339_seconds(end));
    meta::set(object, "deletionGracePeriodSeconds", grace);
}
