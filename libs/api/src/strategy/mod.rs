//! What create and update keep or drop for each kind (Kubernetes' PrepareForCreate and PrepareForUpdate), as rows.
//!
//! In: canonical, defaulted objects. Out: the objects as they go to validation. Pure: the registry sets uid and
//! creationTimestamp *before* `prepare_create` (a Job's selector and a PersistentVolume's status need them), and
//! allocates addresses and ports after it. Rows are in `rows`, single kinds' own rules in the files beside it.

mod app_armor;
mod disabled;
mod equal;
mod job;
mod pod;
mod rows;
mod service;
mod special;
#[cfg(test)]
mod tests;

pub use pod::quality_of_service;

pub(crate) use equal::same_field;

use crate::autoscaling;
use crate::kinds::Kind;
use crate::meta;
use rows::{Generation, Row, StatusWrite};
use serde_json::{Map, Value, json};

/// The per-kind switches of the generic registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strategy {
    /// PUT of a missing object creates it.
    pub allow_create_on_update: bool,
    /// PUT without resourceVersion is let through.
    pub allow_unconditional_update: bool,
    /// `metadata.generation` counts spec changes.
    pub has_generation: bool,
    /// Delete waits `terminationGracePeriodSeconds` (pods).
    pub graceful_delete: bool,
    /// `Orphan`, `Background`: what DELETE does with dependents when the caller says nothing.
    pub default_propagation: &'static str,
}

/// The row of `kind`.
#[must_use]
pub fn of(kind: &Kind) -> Strategy {
    let row = rows::of(kind);
    Strategy {
        allow_create_on_update: row.create_on_update,
        allow_unconditional_update: row.unconditional_update,
        has_generation: row.generation != Generation::None,
        graceful_delete: row.kind == "Pod",
        default_propagation: row.propagation,
    }
}

/// The fields that nobody comes to own by a write through `subresource` (`""` for the main resource).
#[must_use]
pub fn unowned(kind: &Kind, subresource: &str) -> &'static [&'static [&'static str]] {
    match subresource {
        "" if kind.subresource("status").is_some() => rows::unowned(rows::of(kind).kind),
        "status" => rows::unowned_by_status(rows::of(kind).kind),
        "approval" => rows::UNOWNED_BY_APPROVAL,
        // Whoever names something else here comes to own it, though it is not written.
        "ephemeralcontainers" | "resize" => rows::unowned(rows::of(kind).kind),
        _ => &[],
    }
}

/// Whether nobody comes to own what a write through `subresource` does not change.
#[must_use]
pub fn is_prepared_first(kind: &Kind, subresource: &str) -> bool {
    match subresource {
        "" | "ephemeralcontainers" | "resize" => false,
        "status" => !unowned(kind, subresource).is_empty(),
        _ => true,
    }
}

/// Whether an object has the labels of its pods because it was sent without any. Of a Job they stay one thing: what the
/// server adds for its pods, it gets too.
#[must_use]
pub fn shares_labels(sent: &Value, kind: &Kind) -> bool {
    let count = |pointer: &str| sent.pointer(pointer).and_then(Value::as_object).map_or(0, Map::len);
    let is_job = rows::of(kind).kind == "Job";
    is_job && count("/metadata/labels") == 0 && count("/spec/template/metadata/labels") > 0
}

/// Gives a new object what reading it back from the store adds to it. Nobody owns that, and nobody has judged it.
pub fn read_back(object: &mut Value, kind: &Kind) {
    let labels = object["metadata"]["labels"].as_object();
    if rows::of(kind).kind == "Job" && labels.is_none_or(Map::is_empty) {
        share_labels(object);
    }
}

/// Gives a Job the labels of its pods.
pub fn share_labels(object: &mut Value) {
    if let Some(labels) = object.pointer("/spec/template/metadata/labels").cloned() {
        object["metadata"]["labels"] = labels;
    }
}

/// What Kubernetes' conversion to its inner form and back adds to what a client sent. It belongs to the writer.
pub fn converted(object: &mut Value, kind: &Kind) {
    match rows::of(kind).kind {
        "DaemonSet" => special::told_template_generation(object),
        "Pod" => pod::converted(object),
        "StatefulSet" => special::claim_templates(object),
        "Node" => special::node(object),
        "HorizontalPodAutoscaler" => autoscaling::converted(object, kind),
        _ => {}
    }
}

/// Why an object cannot be converted to Kubernetes' inner form, in its words.
#[must_use]
pub fn inconvertible(object: &Value, kind: &Kind) -> Option<String> {
    (rows::of(kind).kind == "DaemonSet").then(|| special::wrong_template_generation(object)).flatten()
}

/// Takes from what is sent to be made the metadata that only the server writes.
pub fn wipe(object: &mut Value) {
    for key in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
        meta::remove(object, key);
    }
}

/// Before validation of a create: clears status, sets generation 1, and the kind's own rules. Server-allocated
/// values (uid, clusterIP, node ports, tokens) are not set here. Out: what there is to warn of.
pub fn prepare_create(object: &mut Value, kind: &Kind) -> Vec<String> {
    let row = rows::of(kind);
    disabled::drop_disabled(object, None, row.kind);
    wipe(object);
    if kind.subresource("status").is_some() && !rows::has_free_status(row.kind) && row.kind != "Node" {
        clear_status(object, row, kind);
    }
    if row.generation != Generation::None {
        meta::set(object, "generation", 1);
    }
    match row.kind {
        "Pod" => {
            pod::prepare_create(object);
            return app_armor::mirror(object);
        }
        "Job" => job::prepare_create(object),
        "Service" => service::prepare_create(object),
        "DaemonSet" => special::template_generation(object, None),
        "Namespace" => special::namespace(object),
        "Node" => special::node_config_source(object, None),
        "PersistentVolume" => special::volume_phase_time(object, None),
        "PersistentVolumeClaim" => special::claim_data_source(object, None),
        "ServiceAccount" => special::secret_names_only(object),
        // Changes count, the first state does not.
        "CSIDriver" => meta::remove(object, "generation"),
        "CustomResourceDefinition" => special::one_more_stored_version(object),
        "APIService" => special::local_api_service(object),
        "EndpointSlice" => special::old_topology(object, None),
        _ if autoscaling::is_v1(kind) => autoscaling::keep(object, None, &autoscaling::OF_STATUS),
        _ => {}
    }
    Vec::new()
}

/// Before validation of an update of `subresource` (`""` for the main resource): takes from `old` what this path may not
/// change (status, or everything but status; immutable metadata), and bumps generation when the spec changed.
pub fn prepare_update(new: &mut Value, old: &Value, kind: &Kind, subresource: &str) {
    let row = rows::of(kind);
    match subresource {
        "" | "scale" => prepare_main(new, old, row, kind),
        "status" => {
            keep_all_but_status(new, old, row);
            if autoscaling::is_v1(kind) {
                autoscaling::keep(new, Some(old), &autoscaling::OF_SPEC);
            }
        }
        "ephemeralcontainers" => keep_all_but(new, old, &["/spec/ephemeralContainers"]),
        "finalize" => copy(new, old, "status"),
        "approval" => {
            let metadata = new["metadata"].take();
            keep_all_but(new, old, &["/status/conditions"]);
            new["metadata"] = metadata;
        }
        "resize" => pod::keep_all_but_resources(new, old),
        _ => {}
    }
    keep_identity(new, old);
    // A pod's node comes to it beside its own updates.
    if !matches!(subresource, "status" | "binding") {
        bump_generation(new, old, row, kind);
    }
}

/// After the last `prepare_update`: writes into the object when it came to what has changed, and drops what was never to
/// be kept. `now` is RFC 3339.
pub fn stamp(new: &mut Value, old: &Value, kind: &Kind, subresource: &str, now: &str) {
    if subresource == "status" {
        disabled::drop_status_fields(new, old, rows::of(kind).kind);
    }
    match (rows::of(kind).kind, subresource) {
        // Who sends what belongs to features that are off comes to own it.
        ("Pod", "status") => disabled::drop_status(new, old),
        ("CertificateSigningRequest", "approval" | "status") => special::condition_times(new, old, now),
        ("PersistentVolume", "status") => special::volume_phase_began(new, old, now),
        ("DaemonSet", "status") => special::keep_template_generation(new, old),
        // What is dropped has counted as changed.
        ("EndpointSlice", "") => special::old_topology(new, Some(old)),
        _ => {}
    }
}

fn prepare_main(new: &mut Value, old: &Value, row: &Row, kind: &Kind) {
    disabled::drop_disabled(new, Some(old), row.kind);
    if kind.subresource("status").is_some() && !rows::has_free_status(row.kind) {
        copy(new, old, "status");
    }
    match row.kind {
        "Service" => service::prepare_update(new, old),
        "DaemonSet" => special::template_generation(new, Some(old)),
        "Namespace" => copy_in_spec(new, old, "finalizers"),
        "CertificateSigningRequest" => copy(new, old, "spec"),
        "Node" => special::node_config_source(new, Some(old)),
        "PersistentVolumeClaim" => special::claim_data_source(new, Some(old)),
        "ServiceAccount" => special::secret_names_only(new),
        "Secret" if new["type"].as_str().is_none_or(str::is_empty) => copy(new, old, "type"),
        "CustomResourceDefinition" => special::one_more_stored_version(new),
        _ if autoscaling::is_v1(kind) => autoscaling::keep(new, Some(old), &autoscaling::OF_STATUS),
        _ => {}
    }
}

/// Writes into an object for whom it is made, where that is a part of it: a user's name, uid, groups and extra attributes.
pub fn prepare_create_by(object: &mut Value, kind: &Kind, user: impl FnOnce() -> Map<String, Value>) {
    if kind.kind == "CertificateSigningRequest" {
        let user = user();
        for key in ["username", "uid", "groups", "extra"] {
            put(&mut object["spec"], key, user.get(key).cloned());
        }
    }
}

/// A write to `status` keeps the rest of the stored object; which metadata it may touch is the kind's choice.
fn keep_all_but_status(new: &mut Value, old: &Value, row: &Row) {
    if row.kind == "PersistentVolume" {
        special::volume_phase_time(new, Some(old));
    }
    if row.kind == "CertificateSigningRequest" {
        special::keep_decisions(new, old);
    }
    if row.kind == "Pod" && new["status"].is_object() {
        pod::mirror_addresses(&mut new["status"]);
        if new["status"]["qosClass"].as_str().is_none_or(str::is_empty) {
            put(&mut new["status"], "qosClass", old["status"].get("qosClass").cloned());
        }
    }
    let managed = new["metadata"].get("managedFields").cloned();
    let keys: Vec<String> =
        [&*new, old].into_iter().filter_map(Value::as_object).flat_map(Map::keys).cloned().collect();
    for key in
        keys.iter().filter(|key| !matches!(key.as_str(), "apiVersion" | "kind" | "metadata" | "status"))
    {
        copy(new, old, key);
    }
    match row.status_write {
        StatusWrite::MetadataToo => {}
        StatusWrite::Keeps(key) => put(&mut new["metadata"], key, old["metadata"].get(key).cloned()),
        StatusWrite::StatusOnly => {
            let version = new["metadata"].get("resourceVersion").cloned();
            copy(new, old, "metadata");
            put(&mut new["metadata"], "managedFields", managed);
            put(&mut new["metadata"], "resourceVersion", version);
        }
    }
}

/// Keeps the stored object except at `pointers`, and except the metadata that says who asks for what.
fn keep_all_but(new: &mut Value, old: &Value, pointers: &[&str]) {
    let mut kept = old.clone();
    for pointer in pointers {
        let Some((parent, key)) = pointer.rsplit_once('/') else { continue };
        let value = new.pointer(pointer).cloned();
        let Some((_, parent)) = parent.split_once('/') else { continue };
        put(&mut kept[parent], key, value);
    }
    carry_request_metadata(&mut kept, new);
    *new = kept;
}

fn carry_request_metadata(kept: &mut Value, new: &Value) {
    for key in ["managedFields", "resourceVersion", "uid"] {
        put(&mut kept["metadata"], key, new["metadata"].get(key).cloned());
    }
}

/// Metadata that only the server writes. A uid that differs is left for the precondition check and validation.
fn keep_identity(new: &mut Value, old: &Value) {
    let stored = &old["metadata"];
    for key in ["creationTimestamp", "generation"] {
        put(&mut new["metadata"], key, stored.get(key).cloned());
    }
    // What begins a deletion is left for validation, which knows that it never begins so.
    let grace = "deletionGracePeriodSeconds";
    let keeps = [("deletionTimestamp", true), (grace, new["metadata"][grace].is_null())];
    for (key, keep) in keeps {
        if keep && !stored[key].is_null() {
            put(&mut new["metadata"], key, stored.get(key).cloned());
        }
    }
    if meta::uid(new).is_empty() {
        put(&mut new["metadata"], "uid", stored.get("uid").cloned());
    }
}

fn bump_generation(new: &mut Value, old: &Value, row: &Row, kind: &Kind) {
    let changed = |key: &str| !same_field(kind, key, &new[key], &old[key]);
    let bump = match row.generation {
        Generation::None | Generation::Once => false,
        Generation::Spec => changed("spec"),
        Generation::SpecOrAnnotations => {
            changed("spec") || !same(&new["metadata"]["annotations"], &old["metadata"]["annotations"])
        }
        Generation::Field(key) | Generation::Told(key) => changed(key),
        Generation::ContentOrLabels => {
            !same_content(new, old, &["metadata"])
                || !same(&new["metadata"]["labels"], &old["metadata"]["labels"])
        }
        Generation::Content if kind.subresource("status").is_some() => {
            !same_content(new, old, &["metadata", "status"])
        }
        Generation::Content => !same_content(new, old, &["metadata"]),
    };
    if bump {
        raise_generation(new, old);
    }
}

/// Makes the generation the next one.
pub fn raise_generation(new: &mut Value, old: &Value) {
    let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
    meta::set(new, "generation", generation);
}

/// Whether an object, as it was sent, raises its generation by lists or maps that it tells without items. Nothing is left
/// of them once it is read, so that each time counts.
#[must_use]
pub fn tells_empties(sent: &Value, kind: &Kind) -> bool {
    matches!(rows::of(kind).generation, Generation::Told(key) if equal::tells_empties(kind, key, &sent[key]))
}

fn same_content(new: &Value, old: &Value, but: &[&str]) -> bool {
    let strip = |object: &Value| {
        let mut object = object.clone();
        for key in but {
            put(&mut object, key, None);
        }
        object
    };
    same(&strip(new), &strip(old))
}

/// Equality as Kubernetes' semantic DeepEqual sees it: absent, null and empty lists or maps are one.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            a.iter().all(|(key, value)| same(value, b.get(key).unwrap_or(&Value::Null)))
                && b.iter().all(|(key, value)| a.contains_key(key) || same(value, &Value::Null))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Null, Value::Object(map)) | (Value::Object(map), Value::Null) => {
            map.values().all(|value| same(value, &Value::Null))
        }
        (Value::Null, Value::Array(items)) | (Value::Array(items), Value::Null) => items.is_empty(),
        _ => a == b,
    }
}

fn clear_status(object: &mut Value, row: &Row, kind: &Kind) {
    if kind.custom.is_some() {
        put(object, "status", None);
    } else {
        object["status"] = rows::empty_status(row.kind, &kind.version);
    }
}

/// Sets or, for `None`, removes a key; a parent that is null becomes an object when there is something to set.
fn put(object: &mut Value, key: &str, value: Option<Value>) {
    if object.is_null() && value.is_some() {
        *object = json!({});
    }
    if let Some(map) = object.as_object_mut() {
        match value {
            Some(value) => drop(map.insert(key.to_owned(), value)),
            None => drop(map.remove(key)),
        }
    }
}

fn copy(new: &mut Value, old: &Value, key: &str) {
    put(new, key, old.get(key).cloned());
}

fn copy_in_spec(new: &mut Value, old: &Value, key: &str) {
    put(&mut new["spec"], key, old["spec"].get(key).cloned());
}
