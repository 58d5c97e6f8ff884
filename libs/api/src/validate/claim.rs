//! PersistentVolumeClaim and PersistentVolume.

use super::node::{Faults, IMMUTABLE, Node};
use super::pod::{self, sources};
use super::{diff, selectors};
use crate::labels;
use crate::quantity::Quantity;
use crate::status::FieldError;
use crate::strategy::same;
use serde_json::{Value, json};

const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const INLINE: &str = "may not be specified in the context of inline volumes";
/// How a resize of a claim's volume fares.
const RESIZES: [&str; 5] = [
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];
/// Labels of nodes that left beta, which affinities may follow.
const RENAMED_LABELS: [(&str, &str); 5] = [
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
];

fn access_modes(modes: &Node<'_, '_>, out: &mut Faults) {
    let known = |mode: &Node<'_, '_>| ACCESS_MODES.contains(&mode.text());
    for mode in modes.items().filter(|mode| !known(mode)) {
        modes.named("", mode.value).not_supported(&ACCESS_MODES, out);
    }
    let alone = |mode: &Node<'_, '_>| mode.text() == "ReadWriteOncePod";
    if modes.items().any(|mode| alone(&mode)) && modes.items().any(|mode| known(&mode) && !alone(&mode)) {
        modes.forbidden("may not use ReadWriteOncePod with other access modes", out);
    }
}

pub(super) fn claim(object: &Node<'_, '_>, out: &mut Faults) {
    claim_spec(&object.get("spec"), out);
}

/// The spec of a new claim, or of a template for one.
pub(super) fn claim_spec(spec: &Node<'_, '_>, out: &mut Faults) {
    judge_claim(spec, &Value::Null, out);
}

fn judge_claim(spec: &Node<'_, '_>, stored: &Value, out: &mut Faults) {
    let stored = Node::root(stored);
    let modes = spec.get("accessModes");
    if modes.is_empty() {
        modes.required("at least 1 access mode is required", out);
    }
    let odd = !selectors::is_readable(&stored.get("selector"));
    selectors::labels_but_values(&spec.get("selector"), odd, out);
    access_modes(&modes, out);
    let requests = spec.get("resources.requests");
    let asked = requests.key("storage");
    // Kubernetes leaves `requests` out of this path.
    let resources = spec.get("resources");
    let told = resources.key("storage");
    if !asked.is_set() {
        told.required("", out);
    } else if asked.amount() <= Quantity::ZERO {
        told.invalid_as(asked.value, "must be greater than zero", out);
    }
    spec.get("storageClassName").text_may(labels::is_dns1123_subdomain, out);
    spec.get("volumeMode").if_set_one_of(&VOLUME_MODES, out);
    let any_group =
        ["dataSource.apiGroup", "dataSourceRef.apiGroup"].iter().any(|path| stored.get(path).is_set());
    let (source, reference) = (spec.get("dataSource"), spec.get("dataSourceRef"));
    for source in [&source, &reference] {
        data_source(source, any_group, out);
    }
    let equal =
        ["apiGroup", "kind", "name"].iter().all(|key| source.get(key).value == reference.get(key).value);
    // The value that is shown is a path, which has nothing to show.
    if source.is_set() && !reference.get("namespace").is_empty() {
        spec.invalid_as(&json!({}), "may not be specified when dataSourceRef.namespace is specified", out);
    } else if source.is_set() && reference.is_set() && !equal {
        spec.invalid_as(&json!({}), "must match dataSourceRef", out);
    }
    spec.get("volumeAttributesClassName").text_may(labels::is_dns1123_subdomain, out);
}

fn data_source(source: &Node<'_, '_>, any_group: bool, out: &mut Faults) {
    if !source.is_set() {
        return;
    }
    source.get("name").must_be_given(out);
    source.get("kind").must_be_given(out);
    let (group, kind) = (source.get("apiGroup"), source.get("kind"));
    if group.is_empty() && kind.text() != "PersistentVolumeClaim" {
        let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        source.invalid_as(&json!(kind.text()), detail, out);
    }
    if !any_group {
        group.text_may(labels::is_dns1123_subdomain, out);
    }
    source.get("namespace").text_may(labels::is_dns1123_label, out);
}

pub(super) fn claim_update(new: &Node<'_, '_>, old: &Node<'_, '_>, subresource: &str, out: &mut Faults) {
    if subresource == "status" {
        return claim_status(new, out);
    }
    let (spec, stored) = (new.get("spec"), old.get("spec"));
    super::twice(|out| judge_claim(&spec, stored.value, out), out);
    let bound = new.get("status.phase").text() == "Bound";
    let mut allowed = spec.value.clone();
    if stored.get("volumeName").is_empty() {
        put_back(&mut allowed, stored.value, "volumeName");
    }
    class_kept(new, old, &mut allowed, out);
    let (asked, before) = (spec.get("resources.requests.storage"), stored.get("resources.requests.storage"));
    if bound && spec.get("resources.requests").is_set() {
        allowed["resources"]["requests"]["storage"] = before.value.clone();
    }
    if bound && spec.get("volumeAttributesClassName").is_set() {
        put_back(&mut allowed, stored.value, "volumeAttributesClassName");
    }
    if !same(&allowed, stored.value) {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        spec.forbidden(format!("{detail}\n{}", diff::claim_spec(stored.value, spec.value)), out);
    }
    // What could not be grown may be asked for less again, but never less than there is.
    if asked.amount() < before.amount() && asked.amount() <= old.get("status.capacity.storage").amount() {
        let place = new.named("spec.resources.requests.storage", asked.value);
        place.forbidden("field can not be less than status.capacity", out);
    }
    let mode = spec.get("volumeMode");
    if mode.value != stored.get("volumeMode").value {
        new.named("volumeMode", mode.value).invalid(IMMUTABLE, out);
    }
}

/// The class, once an annotation, may move to its field or be set where there was none.
fn class_kept(new: &Node<'_, '_>, old: &Node<'_, '_>, allowed: &mut Value, out: &mut Faults) {
    let (notes, old_notes) = (new.get("metadata.annotations"), old.get("metadata.annotations"));
    let (note, old_note) = (notes.key(CLASS), old_notes.key(CLASS));
    let (class, before) = (new.get("spec.storageClassName"), old.get("spec.storageClassName"));
    let moves = old_note.is_set()
        && !before.is_set()
        && class.value == old_note.value
        && (!note.is_set() || note.value == old_note.value);
    if moves {
        return put_back(allowed, old.get("spec").value, "storageClassName");
    }
    if note.text() != old_note.text() {
        // Its name stands in the path after a dot.
        let place = format!("metadata.annotations.{CLASS}");
        new.named(&place, &json!(note.text())).invalid(IMMUTABLE, out);
    }
    if class.is_set() && !before.is_set() && (!old_note.is_set() || class.value == old_note.value) {
        put_back(allowed, old.get("spec").value, "storageClassName");
    }
}

fn claim_status(new: &Node<'_, '_>, out: &mut Faults) {
    let status = new.get("status");
    if new.get("metadata.resourceVersion").is_empty() {
        new.get("resourceVersion").required("", out);
    }
    if new.get("spec.accessModes").is_empty() {
        new.get("Spec.accessModes").required("", out);
    }
    for (_, amount) in status.get("capacity").entries() {
        basic(&amount, out);
    }
    let resizes = status.get("allocatedResourceStatuses");
    let place = status.named("allocatedResourceStatus", resizes.value);
    for (name, state) in resizes.entries() {
        resource_key(&place, name, out);
        if !RESIZES.contains(&state.text()) {
            place.unsupported_shown(name, &RESIZES, out);
        }
    }
    let allocated = status.get("allocatedResources");
    for (name, amount) in allocated.entries() {
        if resource_key(&allocated, name, out) {
            basic(&amount, out);
        }
    }
}

fn basic(amount: &Node<'_, '_>, out: &mut Faults) {
    if amount.amount() < Quantity::ZERO {
        amount.invalid_as(&json!(amount.amount().value()), "must be a valid resource quantity", out);
    }
}

/// Of Kubernetes' own resources, claims have storage alone.
fn resource_key(place: &Node<'_, '_>, name: &str, out: &mut Faults) -> bool {
    let complaints = labels::is_qualified_name(name);
    let other = pod::resources::is_native(name) && name != "storage";
    if complaints.is_empty() && other {
        place.named("", &json!(name)).not_supported(&["storage"], out);
    }
    let fine = complaints.is_empty() && !other;
    complaints.into_iter().for_each(|complaint| place.invalid_as(&json!(name), complaint, out));
    fine
}

fn put_back(object: &mut Value, stored: &Value, key: &str) {
    let Some(map) = object.as_object_mut() else { return };
    match stored.get(key) {
        Some(value) => drop(map.insert(key.to_owned(), value.clone())),
        None => drop(map.remove(key)),
    }
}

pub(super) fn volume(object: &Node<'_, '_>, out: &mut Faults) {
    volume_spec(&object.get("spec"), object.get("metadata.name").text(), &Value::Null, out);
    const MOUNTED: [&str; 13] = [
        "gcePersistentDisk",
        "awsElasticBlockStore",
        "glusterfs",
        "nfs",
        "rbd",
        "quobyte",
        "iscsi",
        "cinder",
        "cephfs",
        "azureFile",
        "vsphereVolume",
        "azureDisk",
        "photonPersistentDisk",
    ];
    let notes = object.get("metadata.annotations");
    let options = notes.key("volume.beta.kubernetes.io/mount-options");
    if options.is_set() && !MOUNTED.iter().any(|source| object.get("spec").get(source).is_set()) {
        let field = "metadata.annotations.volume.beta.kubernetes.io/mount-options";
        out.push(FieldError::forbidden(field, "may not specify mount options for this volume type"));
    }
}

fn volume_spec(spec: &Node<'_, '_>, name: &str, stored: &Value, out: &mut Faults) {
    spec.get("accessModes").must_be_given(out);
    access_modes(&spec.get("accessModes"), out);
    let capacity = spec.get("capacity");
    capacity.must_be_given(out);
    if !capacity.key("storage").is_set() || capacity.len() > 1 {
        let shown = if capacity.is_set() { capacity.value.clone() } else { Value::Null };
        capacity.named("", &shown).told_unsupported(&["storage"], out);
    }
    for (_, amount) in capacity.entries() {
        basic(&amount, out);
        if amount.amount() <= Quantity::ZERO {
            amount.invalid("must be greater than zero", out);
        }
    }
    let reclaim = spec.get("persistentVolumeReclaimPolicy");
    reclaim.may_be_one_of(&["Delete", "Recycle", "Retain"], out);
    let affinity = spec.get("nodeAffinity");
    if affinity.is_set() {
        let required = affinity.get("required");
        if required.is_set() {
            selectors::nodes(&required, odd_affinity(stored), out);
        } else {
            required.required("must specify required node constraints", out);
        }
    }
    one_source(spec, name, out);
    if sources::is_root(spec.get("hostPath.path").text()) && reclaim.text() == "Recycle" {
        reclaim.forbidden("may not be 'recycle' for a hostPath mount of '/'", out);
    }
    spec.get("storageClassName").text_may(labels::is_dns1123_subdomain, out);
    spec.get("volumeMode").if_set_one_of(&VOLUME_MODES, out);
    attributes(spec, out);
}

/// The class of a volume's attributes, which only CSI volumes have.
fn attributes(spec: &Node<'_, '_>, out: &mut Faults) {
    let class = spec.get("volumeAttributesClassName");
    if !class.is_set() {
        return;
    }
    if class.is_empty() {
        class.required("an empty string is disallowed", out);
    }
    class.text_may(labels::is_dns1123_subdomain, out);
    if !spec.get("csi").is_set() {
        spec.get("csi").required("has to be specified when using volumeAttributesClassName", out);
    }
}

/// Whether the stored volume asks for labels of nodes with values that are refused today.
fn odd_affinity(stored: &Value) -> bool {
    let (stored, mut faults) = (Node::root(stored), Faults::new());
    selectors::nodes(&stored.get("nodeAffinity.required"), false, &mut faults);
    !faults.is_empty()
}

/// Exactly one source, itself valid. Only flexVolume may stand beside another.
fn one_source(spec: &Node<'_, '_>, name: &str, out: &mut Faults) {
    let mut count = 0;
    for kind in sources::OF_VOLUMES {
        if !spec.get(kind).is_set() {
            continue;
        }
        count += 1;
        if count > 1 && *kind != "flexVolume" {
            sources::one_too_many(spec, kind, out);
            continue;
        }
        let place = sources::inside(spec, kind);
        sources::needed(kind, &place, out);
        sources::persistent(kind, &place, name, out);
        if *kind == "local" && !spec.get("nodeAffinity").is_set() {
            spec.get("nodeAffinity").required("Local volume requires node affinity", out);
        }
    }
    if count == 0 {
        spec.required("must specify a volume type", out);
    }
}

/// A volume that stands in an attachment alone: a CSI volume, and what a claim would say of it left out.
pub(super) fn inline_volume(spec: &Node<'_, '_>, out: &mut Faults) {
    let forbid = |key: &str, is_given: bool, out: &mut Faults| {
        if is_given {
            spec.get(key).forbidden(INLINE, out);
        }
    };
    forbid("claimRef", spec.get("claimRef").is_set(), out);
    forbid("capacity", !spec.get("capacity").is_empty(), out);
    if !spec.get("csi").is_set() {
        spec.get("csi").required("has to be specified in the context of inline volumes", out);
    }
    spec.get("accessModes").must_be_given(out);
    access_modes(&spec.get("accessModes"), out);
    let reclaim = spec.get("persistentVolumeReclaimPolicy");
    if !matches!(reclaim.text(), "" | "Retain") {
        reclaim.forbidden("may only be Retain in the context of inline volumes", out);
    }
    forbid("nodeAffinity", spec.get("nodeAffinity").is_set(), out);
    one_source(spec, "", out);
    forbid("storageClassName", !spec.get("storageClassName").is_empty(), out);
    let mode = spec.get("volumeMode");
    if mode.is_set() && mode.text() != "Filesystem" {
        let detail = "may not specify volumeMode other than Filesystem in the context of inline volumes";
        mode.forbidden(detail, out);
    }
    attributes(spec, out);
}

pub(super) fn volume_update(new: &Node<'_, '_>, old: &Node<'_, '_>, subresource: &str, out: &mut Faults) {
    if subresource == "status" {
        if new.get("metadata.resourceVersion").is_empty() {
            new.get("resourceVersion").required("", out);
        }
        return;
    }
    let (spec, stored) = (new.get("spec"), old.get("spec"));
    // Kubernetes looks at it twice, and tells its faults twice.
    for _ in 0..2 {
        volume_spec(&spec, new.get("metadata.name").text(), stored.value, out);
    }
    let mut allowed = spec.value.clone();
    // The secret to grow a volume with may be told later.
    const GROWS: &str = "controllerExpandSecretRef";
    if stored.value["csi"].is_object() && stored.value["csi"][GROWS].is_null() && allowed["csi"].is_object() {
        put_back(&mut allowed["csi"], &stored.value["csi"], GROWS);
    }
    let changed = |source: &str| {
        let (new, old) = (&allowed[source], &stored.value[source]);
        // One that says nothing is one more all the same.
        new.is_null() != old.is_null() || !same(new, old)
    };
    if sources::OF_VOLUMES.iter().any(|source| changed(source)) {
        let detail = "spec.persistentvolumesource is immutable after creation";
        let text = diff::volume_source(stored.value, spec.value);
        new.named("spec.persistentvolumesource", spec.value).forbidden(format!("{detail}\n{text}"), out);
    }
    let mode = spec.get("volumeMode");
    if mode.value != stored.get("volumeMode").value {
        new.named("volumeMode", mode.value).invalid(IMMUTABLE, out);
    }
    let (affinity, before) = (spec.get("nodeAffinity"), stored.get("nodeAffinity"));
    if before.is_set() && !same(affinity.value, before.value) && !only_renamed(affinity.value, before.value) {
        let told = new.named("nodeAffinity", affinity.value);
        let detail = "field is immutable, except for updating from beta label to GA";
        told.invalid_inside("VolumeNodeAffinity", detail, out);
    }
}

/// Whether two affinities differ in nothing but labels that left beta.
fn only_renamed(new: &Value, old: &Value) -> bool {
    let terms =
        |affinity: &Value| affinity["required"]["nodeSelectorTerms"].as_array().cloned().unwrap_or_default();
    let (new, mut old) = (terms(new), terms(old));
    for (old, new) in old.iter_mut().zip(&new) {
        let requirements =
            old.get_mut("matchExpressions").and_then(Value::as_array_mut).into_iter().flatten();
        for (old, new) in requirements.zip(new["matchExpressions"].as_array().into_iter().flatten()) {
            if RENAMED_LABELS.iter().any(|(beta, stable)| old["key"] == *beta && new["key"] == *stable) {
                old["key"] = new["key"].clone();
            }
        }
    }
    same(&json!(new), &json!(old))
}
