//! PersistentVolumeClaim, PersistentVolume, StorageClass, VolumeAttachment, CSIDriver, CSINode and the classes beside them.

use super::node::{Faults, IMMUTABLE, Node, unique};
use super::{diff, pod, selectors};
use crate::labels;
use crate::quantity::Quantity;
use crate::strategy::same;
use serde_json::{Value, json};

const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];
const MAX_PARAMETERS: usize = 512;
const MAX_PARAMETER_BYTES: usize = 256 * 1024;
/// Sources that a PersistentVolume may have.
const SOURCES: [&str; 22] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

fn access_modes(modes: &Node<'_, '_>, absent: &str, out: &mut Faults) {
    if modes.is_empty() {
        modes.required(absent, out);
    }
    for mode in modes.items() {
        if !ACCESS_MODES.contains(&mode.text()) {
            modes.named("", mode.value).not_supported(&ACCESS_MODES, out);
        }
    }
    if modes.len() > 1 && modes.items().any(|mode| mode.text() == "ReadWriteOncePod") {
        modes.forbidden("may not use ReadWriteOncePod with other access modes", out);
    }
}

pub(super) fn claim(object: &Node<'_, '_>, out: &mut Faults) {
    claim_spec(&object.get("spec"), out);
}

/// The spec of a claim, or of a template for one.
pub(super) fn claim_spec(spec: &Node<'_, '_>, out: &mut Faults) {
    access_modes(&spec.get("accessModes"), "at least 1 access mode is required", out);
    selectors::labels(&spec.get("selector"), out);
    let resources = spec.get("resources");
    let requests = resources.get("requests");
    let asked = requests.key("storage");
    // Kubernetes leaves `requests` out of this path.
    let told = resources.key("storage");
    if !asked.is_set() {
        told.required("", out);
    } else if asked.amount() <= Quantity::ZERO {
        told.invalid_as(asked.value, "must be greater than zero", out);
    } else if !asked.amount().is_whole() {
        told.invalid_as(asked.value, "must be an integer", out);
    }
    spec.get("storageClassName").text_may(labels::is_dns1123_subdomain, out);
    spec.get("volumeMode").may_be_one_of(&VOLUME_MODES, out);
    spec.get("volumeAttributesClassName").text_may(labels::is_dns1123_subdomain, out);
    for key in ["dataSource", "dataSourceRef"] {
        data_source(&spec.get(key), out);
    }
    let (source, reference) = (spec.get("dataSource"), spec.get("dataSourceRef"));
    let scoped = !reference.get("namespace").is_empty();
    if source.is_set() && scoped {
        spec.invalid_as(source.value, "may not be specified when dataSourceRef.namespace is specified", out);
    } else if source.is_set() && reference.is_set() && !same(source.value, reference.value) {
        spec.invalid_as(source.value, "must match dataSourceRef", out);
    }
}

fn data_source(source: &Node<'_, '_>, out: &mut Faults) {
    if !source.is_set() {
        return;
    }
    source.get("name").must_be_given(out);
    source.get("kind").must_be_given(out);
    let group = source.get("apiGroup");
    if group.is_empty() && source.get("kind").text() != "PersistentVolumeClaim" {
        source.invalid("must be 'PersistentVolumeClaim' when referencing the default apiGroup", out);
    }
    group.text_may(labels::is_dns1123_subdomain, out);
    source.get("namespace").text_may(labels::is_dns1123_label, out);
}

pub(super) fn claim_update(new: &Node<'_, '_>, old: &Node<'_, '_>, subresource: &str, out: &mut Faults) {
    if subresource == "status" {
        for (name, amount) in new.get("status.capacity").entries() {
            pod::resources::amount(&amount, name, out);
        }
        return;
    }
    claim(new, out);
    let (spec, stored) = (new.get("spec"), old.get("spec"));
    let bound = old.get("status.phase").text() == "Bound";
    let mut allowed = spec.value.clone();
    // The volume, and a class where none was, are settled once.
    for key in ["volumeName", "storageClassName", "volumeAttributesClassName"] {
        let settable = match key {
            "volumeName" => stored.get(key).is_empty(),
            "storageClassName" => !stored.get(key).is_set(),
            _ => bound,
        };
        if settable {
            put_back(&mut allowed, stored.value, key);
        }
    }
    let (asked, before) = (spec.get("resources.requests.storage"), stored.get("resources.requests.storage"));
    if bound && asked.is_set() {
        allowed["resources"]["requests"]["storage"] = before.value.clone();
        let grown = asked.amount() >= before.amount();
        let capacity = old.get("status.capacity.storage");
        if !grown && asked.amount() <= capacity.amount() {
            let place = new.named("spec.resources.requests.storage", asked.value);
            let detail = if capacity.is_set() {
                "field can not be less than status.capacity"
            } else {
                "field can not be less than previous value"
            };
            place.forbidden(detail, out);
        }
    }
    if !same(&allowed, stored.value) {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        spec.forbidden(format!("{detail}\n{}", diff::claim_spec(stored.value, spec.value)), out);
    }
    let mode = spec.get("volumeMode");
    if mode.value != stored.get("volumeMode").value {
        new.named("volumeMode", mode.value).invalid(IMMUTABLE, out);
    }
}

fn put_back(object: &mut Value, stored: &Value, key: &str) {
    let Some(map) = object.as_object_mut() else { return };
    match stored.get(key) {
        Some(value) => drop(map.insert(key.to_owned(), value.clone())),
        None => drop(map.remove(key)),
    }
}

pub(super) fn volume(object: &Node<'_, '_>, out: &mut Faults) {
    let spec = object.get("spec");
    access_modes(&spec.get("accessModes"), "", out);
    let capacity = spec.get("capacity");
    if capacity.is_empty() {
        capacity.required("", out);
    }
    if !capacity.is_empty() && (!capacity.key("storage").is_set() || capacity.len() > 1) {
        capacity.not_supported(&["storage"], out);
    }
    for (name, amount) in capacity.entries() {
        if amount.amount() <= Quantity::ZERO {
            amount.invalid("must be greater than zero", out);
        }
        pod::resources::known_name(&amount, name, out);
    }
    let reclaim = spec.get("persistentVolumeReclaimPolicy");
    reclaim.may_be_one_of(&["Delete", "Recycle", "Retain"], out);
    let affinity = spec.get("nodeAffinity");
    if affinity.is_set() {
        let required = affinity.get("required");
        if required.is_set() {
            selectors::nodes(&required, out);
        } else {
            required.required("must specify required node constraints", out);
        }
    }
    pod::volume::one_source(&spec, &SOURCES, out);
    if spec.get("local").is_set() && !affinity.is_set() {
        affinity.required("Local volume requires node affinity", out);
    }
    if spec.get("hostPath.path").text() == "/" && reclaim.text() == "Recycle" {
        reclaim.forbidden("may not be 'recycle' for a hostPath mount of '/'", out);
    }
    let csi = spec.get("csi");
    if csi.is_set() {
        csi.get("volumeHandle").must_be_given(out);
    }
    spec.get("storageClassName").text_may(labels::is_dns1123_subdomain, out);
    spec.get("volumeMode").may_be_one_of(&VOLUME_MODES, out);
}

pub(super) fn volume_update(new: &Node<'_, '_>, old: &Node<'_, '_>, subresource: &str, out: &mut Faults) {
    if subresource == "status" {
        return;
    }
    volume(new, out);
    let (spec, stored) = (new.get("spec"), old.get("spec"));
    if SOURCES.iter().any(|source| !same(spec.get(source).value, stored.get(source).value)) {
        let detail = "spec.persistentvolumesource is immutable after creation";
        let text = diff::volume_source(stored.value, spec.value);
        new.named("spec.persistentvolumesource", spec.value).forbidden(format!("{detail}\n{text}"), out);
    }
    let mode = spec.get("volumeMode");
    if mode.value != stored.get("volumeMode").value {
        new.named("volumeMode", mode.value).invalid(IMMUTABLE, out);
    }
    let (affinity, before) = (spec.get("nodeAffinity"), stored.get("nodeAffinity"));
    if before.is_set() && !same(affinity.value, before.value) {
        affinity.invalid("field is immutable, except for updating from beta label to GA", out);
    }
}

pub(super) fn class(object: &Node<'_, '_>, out: &mut Faults) {
    let provisioner = object.get("provisioner");
    if provisioner.must_be_given(out) {
        let text = provisioner.text().to_lowercase();
        provisioner.text_must(|_| labels::is_qualified_name(&text), out);
    }
    parameters(&object.get("parameters"), out);
    object.get("reclaimPolicy").may_be_one_of(&["Delete", "Retain"], out);
    object.get("volumeBindingMode").required_one_of(&["Immediate", "WaitForFirstConsumer"], out);
    for term in object.get("allowedTopologies").items() {
        for requirement in term.get("matchLabelExpressions").items() {
            requirement.get("key").text_must(labels::is_qualified_name, out);
            let values = requirement.get("values");
            values.must_be_given(out);
            let all: Vec<Node<'_, '_>> = values.items().collect();
            unique(all.iter().copied(), out);
        }
    }
}

fn parameters(parameters: &Node<'_, '_>, out: &mut Faults) {
    if parameters.len() > MAX_PARAMETERS {
        return parameters.too_long(512, out);
    }
    let mut size = 0;
    for (key, value) in parameters.entries() {
        if key.is_empty() {
            parameters.invalid_as(&json!(key), "field can not be empty.", out);
        }
        size += key.len() + value.text().len();
    }
    if size > MAX_PARAMETER_BYTES {
        parameters.too_long(262_144, out);
    }
}

pub(super) fn class_update(new: &Node<'_, '_>, old: &Node<'_, '_>, _: &str, out: &mut Faults) {
    class(new, out);
    for key in ["parameters", "provisioner", "reclaimPolicy"] {
        if !same(new.get(key).value, old.get(key).value) {
            new.get(key).forbidden(format!("updates to {key} are forbidden."), out);
        }
    }
    new.get("volumeBindingMode").same_as(&old.get("volumeBindingMode"), out);
}

pub(super) fn attachment(object: &Node<'_, '_>, out: &mut Faults) {
    let spec = object.get("spec");
    let attacher = spec.get("attacher");
    pod::volume::driver(&attacher, out);
    let source = spec.get("source");
    let (inline, name) = (source.get("inlineVolumeSpec"), source.get("persistentVolumeName"));
    match (inline.is_set(), name.is_set()) {
        (false, false) => {
            source.required("must specify exactly one of inlineVolumeSpec and persistentVolumeName", out);
        }
        (true, true) => {
            source.forbidden("must specify exactly one of inlineVolumeSpec and persistentVolumeName", out);
        }
        (false, true) if name.is_empty() => name.required("must specify non empty persistentVolumeName", out),
        _ => {}
    }
    name.text_may(labels::is_dns1123_subdomain, out);
    spec.get("nodeName").text_must(labels::is_dns1123_subdomain, out);
}

pub(super) fn attachment_update(new: &Node<'_, '_>, old: &Node<'_, '_>, _: &str, out: &mut Faults) {
    attachment(new, out);
    new.get("spec").same_as(&old.get("spec"), out);
}

pub(super) fn driver(object: &Node<'_, '_>, out: &mut Faults) {
    let name = object.get("metadata.name");
    if name.text().len() > 63 {
        name.too_long(63, out);
    }
    let spec = object.get("spec");
    for key in ["attachRequired", "podInfoOnMount", "storageCapacity"] {
        if !spec.get(key).is_set() {
            spec.get(key).required("", out);
        }
    }
    spec.get("fsGroupPolicy").may_be_one_of(&["ReadWriteOnceWithFSType", "File", "None"], out);
    for mode in spec.get("volumeLifecycleModes").items() {
        if !matches!(mode.text(), "Persistent" | "Ephemeral") {
            spec.named("volumeLifecycleModes", mode.value).not_supported(&["Ephemeral", "Persistent"], out);
        }
    }
    let mut seen: Vec<&str> = Vec::new();
    let requests = spec.get("tokenRequests");
    for request in requests.items() {
        let (audience, seconds) = (request.get("audience"), request.get("expirationSeconds"));
        if seen.contains(&audience.text()) {
            audience.duplicate(out);
        }
        seen.push(audience.text());
        if seconds.is_set() && seconds.int() < 600 {
            seconds.invalid("may not specify a duration less than 10 minutes", out);
        }
    }
}

pub(super) fn driver_update(new: &Node<'_, '_>, old: &Node<'_, '_>, _: &str, out: &mut Faults) {
    driver(new, out);
    for (key, told) in
        [("attachRequired", "spec.attachedRequired"), ("volumeLifecycleModes", "spec.volumeLifecycleModes")]
    {
        let (spec, stored) = (new.get("spec"), old.get("spec"));
        if !same(spec.get(key).value, stored.get(key).value) {
            new.named(told, spec.get(key).value).invalid(IMMUTABLE, out);
        }
    }
}

pub(super) fn node_drivers(object: &Node<'_, '_>, out: &mut Faults) {
    let drivers = object.get("spec.drivers");
    for driver in drivers.items() {
        pod::volume::driver(&driver.get("name"), out);
        driver.get("nodeID").must_be_given(out);
        let keys = driver.get("topologyKeys");
        keys.items().for_each(|key| key.text_must(labels::is_qualified_name, out));
        let all: Vec<Node<'_, '_>> = keys.items().collect();
        unique(all.iter().copied(), out);
    }
    let all: Vec<Node<'_, '_>> = drivers.items().collect();
    unique(all.iter().map(|driver| driver.get("name")), out);
}

pub(super) fn node_drivers_update(new: &Node<'_, '_>, old: &Node<'_, '_>, _: &str, out: &mut Faults) {
    node_drivers(new, out);
    let drivers = new.get("spec.drivers");
    for before in old.get("spec.drivers").items() {
        let now = drivers.items().find(|driver| driver.get("name").value == before.get("name").value);
        let mut fixed = before.value.clone();
        if let Some(now) = now {
            // Only the count of volumes may be told later.
            put_back(&mut fixed, now.value, "allocatable");
            if !same(&fixed, now.value) {
                drivers.invalid(IMMUTABLE, out);
            }
        }
    }
}

pub(super) fn capacity(object: &Node<'_, '_>, out: &mut Faults) {
    object.get("storageClassName").text_must(labels::is_dns1123_subdomain, out);
    object.get("capacity").amount_not_negative(out);
    selectors::labels(&object.get("nodeTopology"), out);
}

pub(super) fn capacity_update(new: &Node<'_, '_>, old: &Node<'_, '_>, _: &str, out: &mut Faults) {
    capacity(new, out);
    for key in ["nodeTopology", "storageClassName"] {
        new.get(key).same_as(&old.get(key), out);
    }
}
