//! StorageClass, VolumeAttachment and the kinds of CSI: drivers, nodes, capacities.

use super::node::{Faults, IMMUTABLE, Node, Seen};
use super::pod::sources;
use super::{claim, selectors};
use crate::labels;
use crate::strategy::same;
use serde_json::{Value, json};

const MAX_PARAMETERS: usize = 512;
const MAX_PARAMETER_BYTES: usize = 256 * 1024;
const MAX_MESSAGE_BYTES: usize = 1024;
const NODE_ID_MAX: usize = 192;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;

pub(super) fn class(object: &Node<'_, '_>, out: &mut Faults) {
    let provisioner = object.get("provisioner");
    if provisioner.must_be_given(out) {
        let text = provisioner.text().to_lowercase();
        provisioner.named("", &json!(text)).text_must(labels::is_qualified_name, out);
    }
    parameters(&object.get("parameters"), out);
    object.get("reclaimPolicy").may_be_one_of(&["Delete", "Retain"], out);
    let mode = object.get("volumeBindingMode");
    match mode.value {
        Value::Null => mode.required("", out),
        // An empty one is given.
        _ => mode.must_be_one_of(&["Immediate", "WaitForFirstConsumer"], out),
    }
    let terms = object.get("allowedTopologies");
    for (i, term) in terms.items().enumerate() {
        topology(&term.get("matchLabelExpressions"), out);
        let like = terms.items().take(i).filter(|other| same_topology(other, &term)).count();
        // Kubernetes compares with as many terms of nothing besides.
        let nothing = if term.get("matchLabelExpressions").is_empty() { terms.len() } else { 0 };
        for _ in 0..like + nothing {
            term.get("matchLabelExpressions").duplicate_as(&json!(""), out);
        }
    }
}

fn topology(requirements: &Node<'_, '_>, out: &mut Faults) {
    let mut keys = Seen::new();
    for requirement in requirements.items() {
        let (key, values) = (requirement.get("key"), requirement.get("values"));
        values.must_be_given(out);
        let mut seen = Seen::new();
        for value in values.items() {
            if seen.contains(&value.text()) {
                value.duplicate(out);
            }
            seen.insert(value.text());
        }
        key.text_must(labels::is_qualified_name, out);
        if keys.contains(&key.text()) {
            key.duplicate(out);
        }
        keys.insert(key.text());
    }
}

/// Whether two terms ask for the same values of the same labels, in whatever order.
fn same_topology(one: &Node<'_, '_>, other: &Node<'_, '_>) -> bool {
    let sorted = |term: &Node<'_, '_>| {
        let mut all: Vec<(String, Vec<String>)> = Vec::new();
        for requirement in term.get("matchLabelExpressions").items() {
            let mut values: Vec<String> =
                requirement.get("values").items().map(|value| value.text().to_owned()).collect();
            values.sort_unstable();
            all.push((requirement.get("key").text().to_owned(), values));
        }
        all.sort_unstable();
        all
    };
    sorted(one) == sorted(other)
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
    attachment_itself(object, out);
    // Later versions of the API say more.
    sources::driver(&object.get("spec.attacher"), out);
    let name = object.get("spec.source.persistentVolumeName");
    if name.is_set() {
        name.text_must(labels::is_dns1123_subdomain, out);
    }
}

fn attachment_itself(object: &Node<'_, '_>, out: &mut Faults) {
    const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    let spec = object.get("spec");
    spec.get("attacher").must_be_given(out);
    let source = spec.get("source");
    let (inline, name) = (source.get("inlineVolumeSpec"), source.get("persistentVolumeName"));
    match (inline.is_set(), name.is_set()) {
        (false, false) => source.required(ONE, out),
        (true, true) => source.forbidden(ONE, out),
        (false, true) if name.is_empty() => name.required("must specify non empty persistentVolumeName", out),
        (true, false) => claim::inline_volume(&inline, out),
        (false, true) => {}
    }
    spec.get("nodeName").text_must(labels::is_dns1123_subdomain, out);
    let status = object.get("status");
    let metadata = status.get("attachmentMetadata");
    let size: usize = metadata.entries().map(|(key, value)| key.len() + value.text().len()).sum();
    if size > MAX_PARAMETER_BYTES {
        metadata.too_long(262_144, out);
    }
    for key in ["attachError", "detachError"] {
        let message = status.get(key);
        if message.get("message").text().len() > MAX_MESSAGE_BYTES {
            message.get("message").too_long(262_144, out);
        }
    }
}

pub(super) fn attachment_update(new: &Node<'_, '_>, old: &Node<'_, '_>, _: &str, out: &mut Faults) {
    super::twice(|out| attachment_itself(new, out), out);
    new.get("spec").same_as(&old.get("spec"), out);
}

pub(super) fn driver(object: &Node<'_, '_>, out: &mut Faults) {
    driver_spec(&object.get("spec"), out);
}

fn driver_spec(spec: &Node<'_, '_>, out: &mut Faults) {
    let required = |key: &str, out: &mut Faults| {
        if !spec.get(key).is_set() {
            spec.get(key).required("", out);
        }
    };
    ["attachRequired", "podInfoOnMount", "storageCapacity"].iter().for_each(|key| required(key, out));
    spec.get("fsGroupPolicy").if_set_one_of(&["File", "None", "ReadWriteOnceWithFSType"], out);
    let mut seen = Seen::new();
    for request in spec.get("tokenRequests").items() {
        let (audience, seconds) = (request.get("audience"), request.get("expirationSeconds"));
        if seen.contains(&audience.text()) {
            audience.duplicate(out);
            continue;
        }
        seen.insert(audience.text());
        if seconds.is_set() && seconds.int() < 600 {
            seconds.invalid("may not specify a duration less than 10 minutes", out);
        }
        if seconds.int() > TOKEN_SECONDS_MAX {
            seconds.invalid("may not specify a duration larger than 2^32 seconds", out);
        }
    }
    let modes = spec.get("volumeLifecycleModes");
    for mode in modes.items().filter(|mode| !matches!(mode.text(), "Persistent" | "Ephemeral")) {
        modes.named("", mode.value).not_supported(&["Persistent", "Ephemeral"], out);
    }
    required("seLinuxMount", out);
}

pub(super) fn driver_update(new: &Node<'_, '_>, old: &Node<'_, '_>, _: &str, out: &mut Faults) {
    let (spec, stored) = (new.get("spec"), old.get("spec"));
    driver_spec(&spec, out);
    for (key, told) in
        [("attachRequired", "spec.attachedRequired"), ("volumeLifecycleModes", "spec.volumeLifecycleModes")]
    {
        if !same(spec.get(key).value, stored.get(key).value) {
            new.named(told, spec.get(key).value).invalid(IMMUTABLE, out);
        }
    }
}

pub(super) fn node_drivers(object: &Node<'_, '_>, out: &mut Faults) {
    let mut names = Seen::new();
    for driver in object.get("spec.drivers").items() {
        let (name, id) = (driver.get("name"), driver.get("nodeID"));
        sources::driver(&name, out);
        if id.must_be_given(out) && id.text().len() > NODE_ID_MAX {
            id.invalid(format!("must be {NODE_ID_MAX} characters or less"), out);
        }
        driver.get("allocatable.count").not_negative(out);
        if names.contains(&name.text()) {
            name.duplicate(out);
        }
        names.insert(name.text());
        let mut keys = Seen::new();
        for key in driver.get("topologyKeys").items() {
            // Faults of a key name the driver.
            if key.is_empty() {
                driver.required("", out);
            }
            if keys.contains(&key.text()) {
                driver.duplicate_as(key.value, out);
            }
            keys.insert(key.text());
            for complaint in labels::is_qualified_name(key.text()) {
                driver.invalid_as(&json!(key.text()), complaint, out);
            }
        }
    }
}

pub(super) fn node_drivers_update(new: &Node<'_, '_>, old: &Node<'_, '_>, _: &str, out: &mut Faults) {
    super::twice(|out| node_drivers(new, out), out);
    let drivers = new.get("spec.drivers");
    for before in old.get("spec.drivers").items() {
        let now = drivers.items().find(|driver| driver.get("name").value == before.get("name").value);
        if now.is_some_and(|now| !same(now.value, before.value)) {
            drivers.invalid_inside_list("CSINodeDriver", IMMUTABLE, out);
        }
    }
}

pub(super) fn capacity(object: &Node<'_, '_>, out: &mut Faults) {
    selectors::labels(&object.get("nodeTopology"), out);
    object.get("storageClassName").text_must(labels::is_dns1123_subdomain, out);
    // Nobody judges the largest size of a volume.
    object.get("capacity").amount_not_negative(out);
}

/// What is told of a capacity later is not judged.
pub(super) fn capacity_update(new: &Node<'_, '_>, old: &Node<'_, '_>, _: &str, out: &mut Faults) {
    capacity(new, out);
    for key in ["nodeTopology", "storageClassName"] {
        new.get(key).same_as(&old.get(key), out);
    }
}
