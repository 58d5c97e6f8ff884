//! Rules of ObjectMeta that every kind shares.

use super::node::{Faults, IMMUTABLE, NOT_NEGATIVE, Node};
use crate::kinds::Kind;
use crate::labels;
use serde_json::{Value, json};

const ANNOTATIONS_MAX_BYTES: usize = 256 * 1024;
/// Finalizers that need no domain.
const STANDARD_FINALIZERS: [&str; 3] = ["orphan", "foregroundDeletion", "kubernetes"];

/// How names of a kind must look.
pub(super) fn name_check(kind: &Kind) -> fn(&str) -> Vec<String> {
    match kind.kind.as_str() {
        _ if kind.custom.is_some() => labels::is_dns1123_subdomain,
        "Service" => labels::is_dns1035_label,
        "Namespace" => labels::is_dns1123_label,
        "Role"
        | "ClusterRole"
        | "RoleBinding"
        | "ClusterRoleBinding"
        | "CertificateSigningRequest"
        | "IPAddress" => labels::is_path_segment_name,
        "APIService" => labels::is_path_segment_name,
        _ => labels::is_dns1123_subdomain,
    }
}

pub(super) fn create(object: &Value, kind: &Kind, out: &mut Faults) {
    let root = Node::root(object);
    let metadata = root.get("metadata");
    let check = name_check(kind);
    // A prefix may end in a dash: what comes after it makes the name whole.
    let prefix = metadata.get("generateName");
    let masked = |text: &str| match text.strip_suffix('-') {
        Some(start) if !start.is_empty() => check(&format!("{start}a")),
        _ => check(text),
    };
    prefix.text_may(masked, out);
    let name = metadata.get("name");
    if name.is_empty() {
        name.required("name or generateName is required", out);
    } else {
        name.text_must(check, out);
    }
    let namespace = metadata.get("namespace");
    match (kind.namespaced, namespace.is_empty()) {
        (true, true) => namespace.required("", out),
        (true, false) => namespace.text_must(labels::is_dns1123_label, out),
        (false, false) => namespace.forbidden("not allowed on this type", out),
        (false, true) => {}
    }
    common(&metadata, out);
}

/// What holds on create and on update.
fn common(metadata: &Node<'_, '_>, out: &mut Faults) {
    let generation = metadata.get("generation");
    if generation.int() < 0 {
        generation.invalid(NOT_NEGATIVE, out);
    }
    labels(&metadata.get("labels"), out);
    annotations(&metadata.get("annotations"), out);
    owners(&metadata.get("ownerReferences"), out);
    finalizers(&metadata.get("finalizers"), out);
    managed_fields(&metadata.get("managedFields"), out);
}

pub(super) fn labels(labels: &Node<'_, '_>, out: &mut Faults) {
    for (key, value) in labels.entries() {
        for complaint in labels::is_qualified_name(key) {
            labels.invalid_as(&json!(key), complaint, out);
        }
        for complaint in labels::is_valid_label_value(value.text()) {
            labels.invalid_as(value.value, complaint, out);
        }
    }
}

pub(super) fn annotations(annotations: &Node<'_, '_>, out: &mut Faults) {
    let mut size = 0;
    for (key, value) in annotations.entries() {
        for complaint in labels::is_qualified_name(&key.to_lowercase()) {
            annotations.invalid_as(&json!(key), complaint, out);
        }
        size += key.len() + value.text().len();
    }
    if size > ANNOTATIONS_MAX_BYTES {
        annotations.too_long(i64::try_from(ANNOTATIONS_MAX_BYTES).unwrap_or(i64::MAX), out);
    }
}

fn owners(owners: &Node<'_, '_>, out: &mut Faults) {
    let mut controller: Option<Value> = None;
    for owner in owners.items() {
        for (key, text) in [("apiVersion", "version"), ("kind", "kind"), ("name", "name"), ("uid", "uid")] {
            let field = owner.get(key);
            if field.is_empty() {
                field.invalid_as(&json!(field.text()), format!("{text} must not be empty"), out);
            }
        }
        if owner.get("apiVersion").text() == "v1" && owner.get("kind").text() == "Event" {
            owner.invalid("/v1, Kind=Event is disallowed from being an owner", out);
        }
        if owner.get("controller").is_true() {
            let name = owner.get("name");
            match &controller {
                Some(first) => {
                    let first = first.as_str().unwrap_or_default();
                    let detail = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {}",
                        name.text()
                    );
                    owners.invalid(detail, out);
                }
                None => controller = Some(name.value.clone()),
            }
        }
    }
}

fn finalizers(finalizers: &Node<'_, '_>, out: &mut Faults) {
    for finalizer in finalizers.items() {
        for complaint in labels::is_qualified_name(finalizer.text()) {
            finalizers.invalid_as(finalizer.value, complaint, out);
        }
    }
    let has = |name: &str| finalizers.items().any(|finalizer| finalizer.text() == name);
    if has("orphan") && has("foregroundDeletion") {
        finalizers.invalid("finalizer orphan and foregroundDeletion cannot be both set", out);
    }
}

/// Finalizers of namespaces must be standard or carry a domain.
pub(super) fn namespace_finalizer(finalizer: &Node<'_, '_>, place: &Node<'_, '_>, out: &mut Faults) {
    let complaints = labels::is_qualified_name(finalizer.text());
    let fine = complaints.is_empty();
    for complaint in complaints {
        place.invalid_as(finalizer.value, complaint, out);
    }
    if fine && !finalizer.text().contains('/') && !STANDARD_FINALIZERS.contains(&finalizer.text()) {
        place.invalid_as(
            finalizer.value,
            "name is neither a standard finalizer name nor is it fully qualified",
            out,
        );
    }
}

fn managed_fields(list: &Node<'_, '_>, out: &mut Faults) {
    for entry in list.items() {
        let operation = entry.get("operation");
        if !matches!(operation.text(), "Apply" | "Update") {
            operation.invalid_as(&json!(operation.text()), "must be `Apply` or `Update`", out);
        }
        let kind = entry.get("fieldsType");
        if !matches!(kind.text(), "" | "FieldsV1") {
            kind.invalid("must be `FieldsV1`", out);
        }
        let manager = entry.get("manager");
        if manager.text().chars().count() > 128 {
            manager.too_long(128, out);
        }
    }
}

pub(super) fn update(new: &Value, old: &Value, out: &mut Faults) {
    let (new, old) = (Node::root(new), Node::root(old));
    let (metadata, stored) = (new.get("metadata"), old.get("metadata"));
    let version = metadata.get("resourceVersion");
    if version.is_empty() {
        version.invalid_as(&json!(""), "must be specified for an update", out);
    }
    common(&metadata, out);
    let generation = metadata.get("generation");
    if generation.int() < stored.get("generation").int() {
        generation.invalid("must not be decremented", out);
    }
    for key in
        ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"]
    {
        let (field, before) = (metadata.get(key), stored.get(key));
        if field.value != before.value && !(field.is_empty() && before.is_empty()) {
            field.invalid(IMMUTABLE, out);
        }
    }
    if stored.get("deletionTimestamp").is_set() {
        let before = stored.get("finalizers");
        let list = metadata.get("finalizers");
        let fresh: Vec<&str> = list
            .items()
            .map(|item| item.text())
            .filter(|name| !before.items().any(|old| old.text() == *name))
            .collect();
        if !fresh.is_empty() {
            let detail =
                "no new finalizers can be added if the object is being deleted, found new finalizers";
            let fresh = super::node::quoted_list(&fresh);
            list.forbidden(format!("{detail} []string{{{fresh}}}"), out);
        }
    }
}
