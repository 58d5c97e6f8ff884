//! Rules of ObjectMeta that every kind shares.

use super::node::{Faults, IMMUTABLE, Node, Seen};
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
        "Namespace" | "StatefulSet" => labels::is_dns1123_label,
        "Role"
        | "ClusterRole"
        | "RoleBinding"
        | "ClusterRoleBinding"
        | "CertificateSigningRequest"
        | "PodDisruptionBudget" => labels::is_path_segment_name,
        "Event" if kind.group.is_empty() => labels::is_path_segment_name,
        // Its own rules say all that there is to say of it.
        "IPAddress" => |_| Vec::new(),
        "APIService" => labels::is_path_segment_name,
        _ => labels::is_dns1123_subdomain,
    }
}

pub(super) fn create(object: &Value, kind: &Kind, out: &mut Faults) {
    let root = Node::root(object);
    let metadata = root.get("metadata");
    of_new(&metadata, kind, name_check(kind), out);
    standard_finalizers(&metadata, kind, out);
}

/// What holds of a new object, and of one that is updated.
fn of_new(metadata: &Node<'_, '_>, kind: &Kind, check: fn(&str) -> Vec<String>, out: &mut Faults) {
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
    metadata.get("generation").not_negative(out);
    common(metadata, out);
    finalizers(&metadata.get("finalizers"), out);
    managed_fields(&metadata.get("managedFields"), out);
}

fn common(metadata: &Node<'_, '_>, out: &mut Faults) {
    labels(&metadata.get("labels"), out);
    annotations(&metadata.get("annotations"), out);
    owners(&metadata.get("ownerReferences"), out);
}

/// Objects of these groups, and custom ones, may carry finalizers of any name.
const FREE_FINALIZERS: [&str; 5] = [
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
];

fn standard_finalizers(metadata: &Node<'_, '_>, kind: &Kind, out: &mut Faults) {
    if kind.custom.is_none() && !FREE_FINALIZERS.contains(&kind.group.as_str()) {
        let list = metadata.get("finalizers");
        list.items().for_each(|finalizer| standard_finalizer(&finalizer, &finalizer, out));
    }
}

/// How often a kind's own rules judge the metadata of an update once more: as that of a new object, and as that of an
/// update. Kubernetes tells its faults each time.
fn again(kind: &Kind, subresource: &str) -> (usize, usize) {
    if kind.custom.is_some() {
        return (0, 1);
    }
    match (kind.kind.as_str(), subresource) {
        ("CertificateSigningRequest", _) => (1, 1),
        ("PodDisruptionBudget", _) | ("CronJob", "status") => (0, 0),
        (_, sub) if !sub.is_empty() => (0, 1),
        ("Event", _) if kind.group.is_empty() => (0, 0),
        (
            "CSIDriver"
            | "CronJob"
            | "CustomResourceDefinition"
            | "Deployment"
            | "Event"
            | "HorizontalPodAutoscaler"
            | "Lease"
            | "PodTemplate"
            | "PriorityClass"
            | "ResourceQuota"
            | "ServiceCIDR"
            | "StatefulSet",
            _,
        ) => (0, 1),
        (
            "EndpointSlice"
            | "FlowSchema"
            | "LimitRange"
            | "MutatingWebhookConfiguration"
            | "PriorityLevelConfiguration"
            | "ValidatingAdmissionPolicy"
            | "ValidatingAdmissionPolicyBinding"
            | "ValidatingWebhookConfiguration",
            _,
        ) => (1, 0),
        ("Role" | "ClusterRole" | "RoleBinding" | "ClusterRoleBinding" | "PersistentVolumeClaim", _) => {
            (2, 1)
        }
        ("PersistentVolume" | "VolumeAttachment" | "CSINode", _) => (2, 0),
        _ => (1, 1),
    }
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
    let mut controller: Option<String> = None;
    for owner in owners.items() {
        // Faults name the list, not the item.
        let told = owners.named("", owner.value);
        let version = told.get("apiVersion");
        // What cannot be taken apart has none.
        if version.text().matches('/').count() > 1 {
            version.invalid_as(&json!(version.text()), "version must not be empty", out);
        }
        for (key, text) in [("apiVersion", "version"), ("kind", "kind"), ("name", "name"), ("uid", "uid")] {
            let field = told.get(key);
            if field.is_empty() {
                field.invalid_as(&json!(field.text()), format!("{text} must not be empty"), out);
            }
        }
        if owner.get("apiVersion").text() == "v1" && owner.get("kind").text() == "Event" {
            told.invalid("/v1, Kind=Event is disallowed from being an owner", out);
        }
        if owner.get("controller").is_true() {
            let name = format!("{}/{}", owner.get("kind").text(), owner.get("name").text());
            match &controller {
                Some(first) => {
                    let detail = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
                    );
                    owners.invalid(detail, out);
                }
                None => controller = Some(name),
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

/// A finalizer of a namespace's spec.
pub(super) fn namespace_finalizer(finalizer: &Node<'_, '_>, place: &Node<'_, '_>, out: &mut Faults) {
    for complaint in labels::is_qualified_name(finalizer.text()) {
        place.invalid_as(finalizer.value, complaint, out);
    }
    standard_finalizer(finalizer, place, out);
}

/// A finalizer is a standard one or carries a domain.
fn standard_finalizer(finalizer: &Node<'_, '_>, place: &Node<'_, '_>, out: &mut Faults) {
    if !finalizer.text().contains('/') && !STANDARD_FINALIZERS.contains(&finalizer.text()) {
        let detail = "name is neither a standard finalizer name nor is it fully qualified";
        place.invalid_as(finalizer.value, detail, out);
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
        manager(&entry.get("manager"), out);
        if entry.get("subresource").text().len() > 256 {
            entry.get("subresource").too_long(256, out);
        }
    }
}

/// Who manages fields: short, and of characters that can be printed.
fn manager(manager: &Node<'_, '_>, out: &mut Faults) {
    if manager.text().len() > 128 {
        manager.too_long(128, out);
    }
    for (at, c) in manager.text().char_indices().filter(|(_, c)| c.is_control()) {
        let detail = format!("invalid character U+{:04X} (at position {at})", u32::from(c));
        manager.invalid(detail, out);
    }
}

pub(super) fn update(new: &Value, old: &Value, kind: &Kind, subresource: &str, out: &mut Faults) {
    let (new, old) = (Node::root(new), Node::root(old));
    let (metadata, stored) = (new.get("metadata"), old.get("metadata"));
    of_new(&metadata, kind, labels::is_path_segment_name, out);
    of_update(&metadata, &stored, out);
    let (as_new, as_update) = again(kind, subresource);
    for _ in 0..as_update {
        of_update(&metadata, &stored, out);
        standard_finalizers(&metadata, kind, out);
    }
    for _ in 0..as_new {
        of_new(&metadata, kind, name_check(kind), out);
        standard_finalizers(&metadata, kind, out);
    }
}

fn of_update(metadata: &Node<'_, '_>, stored: &Node<'_, '_>, out: &mut Faults) {
    if stored.get("deletionTimestamp").is_set() {
        no_new_finalizers(&metadata.get("finalizers"), &stored.get("finalizers"), out);
    }
    let version = metadata.get("resourceVersion");
    if version.is_empty() {
        version.invalid_as(&json!(""), "must be specified for an update", out);
    }
    let generation = metadata.get("generation");
    if generation.int() < stored.get("generation").int() {
        generation.invalid("must not be decremented", out);
    }
    for key in
        ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"]
    {
        let (field, before) = (metadata.get(key), stored.get(key));
        if field.value == before.value || (field.is_empty() && before.is_empty()) {
            continue;
        }
        field.invalid_time(IMMUTABLE, out);
    }
    common(metadata, out);
    managed_fields(&metadata.get("managedFields"), out);
}

/// What is being deleted gains no more reasons to wait.
fn no_new_finalizers(list: &Node<'_, '_>, before: &Node<'_, '_>, out: &mut Faults) {
    let known: Seen<'_> = before.items().map(|old| old.text()).collect();
    let mut fresh: Vec<&str> = list.items().map(|item| item.text()).collect();
    fresh.retain(|name| !known.contains(name));
    fresh.sort_unstable();
    fresh.dedup();
    if !fresh.is_empty() {
        let detail = "no new finalizers can be added if the object is being deleted, found new finalizers";
        let fresh = super::node::quoted_list(&fresh);
        list.forbidden(format!("{detail} []string{{{fresh}}}"), out);
    }
}

/// Conditions as most kinds of late have them: each type once, with a reason and a time.
pub(super) fn conditions(list: &Node<'_, '_>, out: &mut Faults) {
    let mut seen = Seen::new();
    for condition in list.items() {
        let (kind, generation) = (condition.get("type"), condition.get("observedGeneration"));
        if seen.contains(&kind.text()) {
            kind.duplicate(out);
        }
        seen.insert(kind.text());
        kind.text_must(labels::is_qualified_name, out);
        condition.get("status").must_be_one_of(&["False", "True", "Unknown"], out);
        if generation.int() < 0 {
            generation.invalid("must be greater than or equal to zero", out);
        }
        let (time, reason) = (condition.get("lastTransitionTime"), condition.get("reason"));
        if !time.is_set() {
            time.required("must be set", out);
        }
        if reason.is_empty() {
            reason.required("must be set", out);
        } else {
            reason.text_must(labels::is_condition_reason, out);
        }
        for (key, max) in [("reason", 1024), ("message", 32 * 1024)] {
            let text = condition.get(key);
            if i64::try_from(text.text().len()).is_ok_and(|length| length > max) {
                text.too_long(max, out);
            }
        }
    }
}
