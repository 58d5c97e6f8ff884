//! Volumes and their sources; paths inside volumes.

use super::super::node::{Faults, Node};
use super::env;
use crate::labels;
use serde_json::json;

/// Every source, in the order they are checked: the second one given is one too many.
pub(in super::super) const SOURCES: [&str; 30] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];
const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;

/// Whether the pod has a volume of that name.
pub(super) fn exists(spec: &Node<'_, '_>, name: &str) -> bool {
    spec.get("volumes").items().any(|volume| volume.get("name").text() == name)
}

/// Whether it is a claim, the only kind of volume with raw blocks.
pub(super) fn is_claim(spec: &Node<'_, '_>, name: &str) -> bool {
    spec.get("volumes").items().any(|volume| {
        volume.get("name").text() == name
            && (volume.get("persistentVolumeClaim").is_set() || volume.get("ephemeral").is_set())
    })
}

pub(super) fn all(volumes: &Node<'_, '_>, out: &mut Faults) {
    let mut seen: Vec<&str> = Vec::new();
    for volume in volumes.items() {
        one_source(&volume, &SOURCES, out);
        let name = volume.get("name");
        name.required_text(labels::is_dns1123_label, out);
        if !name.is_empty() && seen.contains(&name.text()) {
            name.duplicate(out);
        }
        seen.push(name.text());
    }
}

/// Exactly one of `sources`, itself valid.
pub(in super::super) fn one_source(volume: &Node<'_, '_>, sources: &[&str], out: &mut Faults) {
    let mut count = 0;
    for kind in sources {
        let source = volume.get(kind);
        if !source.is_set() {
            continue;
        }
        count += 1;
        if count > 1 {
            source.forbidden("may not specify more than 1 volume type", out);
        } else {
            check_source(kind, &source, out);
        }
    }
    if count == 0 {
        volume.required("must specify a volume type", out);
    }
}

/// Fields that a source cannot do without.
fn needed(kind: &str) -> &'static [&'static str] {
    match kind {
        "hostPath" | "local" => &["path"],
        "gitRepo" => &["repository"],
        "gcePersistentDisk" => &["pdName"],
        "awsElasticBlockStore" | "cinder" | "portworxVolume" => &["volumeID"],
        "secret" => &["secretName"],
        "configMap" => &["name"],
        "nfs" => &["server", "path"],
        "iscsi" => &["targetPortal", "iqn"],
        "glusterfs" => &["endpoints", "path"],
        "persistentVolumeClaim" => &["claimName"],
        "rbd" => &["monitors", "image"],
        "cephfs" => &["monitors"],
        "flexVolume" => &["driver"],
        "azureFile" => &["secretName", "shareName"],
        "azureDisk" => &["diskName", "diskURI"],
        "vsphereVolume" => &["volumePath"],
        "photonPersistentDisk" => &["pdID"],
        "scaleIO" => &["gateway", "system", "volumeName"],
        "quobyte" => &["volume"],
        "storageos" => &["volumeName"],
        _ => &[],
    }
}

fn check_source(kind: &str, source: &Node<'_, '_>, out: &mut Faults) {
    for key in needed(kind) {
        source.get(key).must_be_given(out);
    }
    match kind {
        "emptyDir" => source.get("sizeLimit").amount_not_negative(out),
        "hostPath" => {
            no_backsteps(&source.get("path"), out);
            source.get("type").may_be_one_of(&HOST_PATH_TYPES, out);
        }
        "local" => no_backsteps(&source.get("path"), out),
        "secret" | "configMap" => {
            mode(&source.get("defaultMode"), out);
            items(&source.get("items"), out);
        }
        "downwardAPI" => {
            mode(&source.get("defaultMode"), out);
            downward_items(&source.get("items"), out);
        }
        "projected" => projected(source, out),
        "nfs" if !source.get("path").is_empty() && !source.get("path").text().starts_with('/') => {
            source.get("path").invalid("must be an absolute path", out);
        }
        "csi" => {
            driver(&source.get("driver"), out);
            let secret = source.get("nodePublishSecretRef");
            if secret.is_set() {
                secret.get("name").required_text(labels::is_dns1123_subdomain, out);
            }
        }
        "iscsi" => source.get("lun").between(0, 255, out),
        "flocker" => flocker(source, out),
        "fc" => fibre_channel(source, out),
        "ephemeral" => ephemeral(source, out),
        _ => {}
    }
}

/// The name of a CSI driver.
pub(in super::super) fn driver(driver: &Node<'_, '_>, out: &mut Faults) {
    if !driver.must_be_given(out) {
        return;
    }
    if driver.text().len() > 63 {
        driver.too_long(63, out);
    }
    let text = driver.text().to_lowercase();
    driver.text_must(|_| labels::is_dns1123_subdomain(&text), out);
}

fn flocker(source: &Node<'_, '_>, out: &mut Faults) {
    let (name, uuid) = (source.get("datasetName"), source.get("datasetUUID"));
    match (name.is_empty(), uuid.is_empty()) {
        (true, true) => source.required("one of datasetName and datasetUUID is required", out),
        (false, false) => {
            source.invalid("datasetName and datasetUUID can not be specified simultaneously", out);
        }
        _ => {}
    }
    if name.text().contains('/') {
        name.invalid("must not contain '/'", out);
    }
}

fn fibre_channel(source: &Node<'_, '_>, out: &mut Faults) {
    let (names, ids, lun) = (source.get("targetWWNs"), source.get("wwids"), source.get("lun"));
    match (names.is_empty(), ids.is_empty()) {
        (true, true) => names.required("must specify either targetWWNs or wwids, but not both", out),
        (false, false) => names.invalid("targetWWNs and wwids can not be specified simultaneously", out),
        (false, true) if !lun.is_set() => lun.required("lun is required if targetWWNs is specified", out),
        (false, true) => lun.between(0, 255, out),
        (true, false) => {}
    }
}

fn ephemeral(source: &Node<'_, '_>, out: &mut Faults) {
    let template = source.get("volumeClaimTemplate");
    if template.is_set() {
        super::super::storage::claim_spec(&template.get("spec"), out);
    } else {
        template.required("", out);
    }
}

fn mode(mode: &Node<'_, '_>, out: &mut Faults) {
    if mode.is_set() && !(0..=0o777).contains(&mode.int()) {
        mode.invalid(MODE, out);
    }
}

fn items(items: &Node<'_, '_>, out: &mut Faults) {
    for item in items.items() {
        let (key, path) = (item.get("key"), item.get("path"));
        key.must_be_given(out);
        if path.must_be_given(out) {
            file_path(&path, out);
        }
        mode(&item.get("mode"), out);
    }
}

fn downward_items(items: &Node<'_, '_>, out: &mut Faults) {
    for item in items.items() {
        let path = item.get("path");
        if path.must_be_given(out) {
            file_path(&path, out);
        }
        let (field, resource) = (item.get("fieldRef"), item.get("resourceFieldRef"));
        match (field.is_set(), resource.is_set()) {
            (true, true) => {
                let shown = json!("resource");
                item.invalid_as(
                    &shown,
                    "fieldRef and resourceFieldRef can not be specified simultaneously",
                    out,
                );
            }
            (true, false) => env::field(&field, &env::VOLUME_FIELDS, out),
            (false, true) => env::resource(&resource, true, out),
            (false, false) => item.required("one of fieldRef and resourceFieldRef is required", out),
        }
        mode(&item.get("mode"), out);
    }
}

fn projected(source: &Node<'_, '_>, out: &mut Faults) {
    mode(&source.get("defaultMode"), out);
    let sources = source.get("sources");
    for source in sources.items() {
        let mut count = 0;
        for kind in ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle"] {
            let projection = source.get(kind);
            if !projection.is_set() {
                continue;
            }
            count += 1;
            if count > 1 {
                source.forbidden("may not specify more than 1 volume type per source", out);
            }
            match kind {
                "secret" | "configMap" => {
                    projection.get("name").must_be_given(out);
                    items(&projection.get("items"), out);
                }
                "downwardAPI" => downward_items(&projection.get("items"), out),
                "serviceAccountToken" => token(&projection, out),
                _ => trust_bundle(&projection, out),
            }
        }
    }
}

fn token(token: &Node<'_, '_>, out: &mut Faults) {
    let seconds = token.get("expirationSeconds");
    if seconds.is_set() && seconds.int() < TOKEN_SECONDS_MIN {
        seconds.invalid("may not specify a duration less than 10 minutes", out);
    } else if seconds.int() > TOKEN_SECONDS_MAX {
        seconds.invalid("may not specify a duration larger than 2^32 seconds", out);
    }
    let path = token.get("path");
    if path.must_be_given(out) {
        file_path(&path, out);
    }
}

fn trust_bundle(bundle: &Node<'_, '_>, out: &mut Faults) {
    let (name, signer) = (bundle.get("name"), bundle.get("signerName"));
    match (name.is_set(), signer.is_set()) {
        (true, true) => bundle.invalid("only one of name and signerName may be used", out),
        (false, false) => bundle.required("either name or signerName must be specified", out),
        _ => {}
    }
    let path = bundle.get("path");
    if path.must_be_given(out) {
        file_path(&path, out);
    }
}

fn no_backsteps(path: &Node<'_, '_>, out: &mut Faults) {
    if path.text().split('/').any(|part| part == "..") {
        path.invalid("must not contain '..'", out);
    }
}

/// A relative path without `..`.
pub(super) fn descending_path(path: &Node<'_, '_>, out: &mut Faults) {
    if path.text().starts_with('/') {
        path.invalid("must be a relative path", out);
    }
    no_backsteps(path, out);
}

/// A relative path that does not start with `..` either, as those names belong to the kubelet.
fn file_path(path: &Node<'_, '_>, out: &mut Faults) {
    descending_path(path, out);
    if path.text().starts_with("..") && !path.text().starts_with("../") {
        path.invalid("must not start with '..'", out);
    }
}
