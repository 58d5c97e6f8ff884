//! Sources of volumes that pods and PersistentVolumes share: what they cannot do without, and their own rules.

use super::super::node::{Faults, Node};
use super::volume::no_backsteps;
use crate::labels;
use serde_json::json;

/// Every source of a pod's volume, in the order they are checked: the second one given is one too many.
pub(super) const OF_PODS: &[&str] = &[
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
/// Those of a PersistentVolume, likewise.
pub(in super::super) const OF_VOLUMES: &[&str] = &[
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
const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// Kubernetes spells some sources in its own ways when there is one too many.
pub(in super::super) fn one_too_many(volume: &Node<'_, '_>, kind: &str, out: &mut Faults) {
    let told = match kind {
        "cephfs" => "cephFS",
        "downwardAPI" => "downwarAPI",
        other => other,
    };
    let source = volume.get(kind);
    volume.named(told, source.value).forbidden("may not specify more than 1 volume type", out);
}

/// The source, where its faults are told.
pub(in super::super) fn inside<'v, 's>(volume: &'s Node<'v, '_>, kind: &'s str) -> Node<'v, 's>
where
    'v: 's,
{
    let value = volume.value.get(kind).unwrap_or(&serde_json::Value::Null);
    volume.named(if kind == "gcePersistentDisk" { "persistentDisk" } else { kind }, value)
}

/// Fields that a source cannot do without.
pub(in super::super) fn needed(kind: &str, source: &Node<'_, '_>, out: &mut Faults) {
    let keys: &[&str] = match kind {
        "hostPath" | "local" => &["path"],
        "gitRepo" => &["repository"],
        "gcePersistentDisk" => &["pdName"],
        "awsElasticBlockStore" | "cinder" | "portworxVolume" => &["volumeID"],
        "secret" => &["secretName"],
        "configMap" => &["name"],
        "nfs" => &["server", "path"],
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
        _ => &[],
    };
    for key in keys {
        source.get(key).must_be_given(out);
    }
}

/// Rules of a source of a pod's volume that a PersistentVolume may have too.
pub(super) fn shared(kind: &str, source: &Node<'_, '_>, out: &mut Faults) {
    match kind {
        "hostPath" if !source.get("path").is_empty() => {
            no_backsteps(&source.get("path"), out);
            source.get("type").if_set_one_of(&HOST_PATH_TYPES, out);
        }
        "local" => no_backsteps(&source.get("path"), out),
        "gcePersistentDisk" | "awsElasticBlockStore" => {
            let partition = source.get("partition");
            if !(0..=255).contains(&partition.int()) {
                partition.invalid("must be between 1 and 255, inclusive", out);
            }
        }
        "nfs" if !source.get("path").text().starts_with('/') => {
            let path = source.get("path");
            path.invalid_as(&json!(path.text()), "must be an absolute path", out);
        }
        "iscsi" => {
            source.get("targetPortal").must_be_given(out);
            iscsi(source, false, out);
        }
        "cinder" | "storageos" => {
            if kind == "storageos" {
                storage_os(source, out);
            }
            secret_name(source, out);
        }
        "quobyte" => quobyte(source, out),
        "flocker" => flocker(source, out),
        "fc" => fibre_channel(source, out),
        "flexVolume" => flex_options(&source.get("options"), out),
        "azureDisk" => azure_disk(source, out),
        _ => {}
    }
}

/// Rules of a PersistentVolume's source.
pub(in super::super) fn persistent(kind: &str, source: &Node<'_, '_>, volume_name: &str, out: &mut Faults) {
    match kind {
        "iscsi" => {
            source.get("targetPortal").must_be_given(out);
            let portal = source.get("targetPortal");
            iscsi_name(&source.named("targetportal", portal.value), source, volume_name, out);
            iscsi(source, true, out);
        }
        "cinder" | "storageos" => {
            shared(kind, source, out);
            let secret = source.get("secretRef");
            if secret.is_set() {
                secret.get("namespace").must_be_given(out);
            }
        }
        "azureFile" => {
            let namespace = source.get("secretNamespace");
            if namespace.is_set() {
                namespace.must_be_given(out);
            }
        }
        "glusterfs" => {
            let namespace = source.get("endpointsNamespace");
            if namespace.is_set() && namespace.is_empty() {
                let detail = "if the endpointnamespace is set, it must be a valid namespace name";
                namespace.invalid(detail, out);
            }
            namespace.text_may(labels::is_dns1123_label, out);
        }
        "csi" => persistent_csi(source, out),
        _ => shared(kind, source, out),
    }
}

fn persistent_csi(source: &Node<'_, '_>, out: &mut Faults) {
    driver(&source.get("driver"), out);
    source.get("volumeHandle").must_be_given(out);
    let secrets = ["controllerPublish", "controllerExpand", "nodePublish", "nodeExpand"];
    for secret in secrets.map(|role| format!("{role}SecretRef")) {
        let secret = source.get(&secret);
        if secret.is_set() {
            secret.get("name").required_text(labels::is_dns1123_subdomain, out);
            secret.get("namespace").required_text(labels::is_dns1123_label, out);
        }
    }
}

/// The name of a CSI driver.
pub(in super::super) fn driver(driver: &Node<'_, '_>, out: &mut Faults) {
    driver.must_be_given(out);
    if driver.text().len() > 63 {
        driver.too_long(63, out);
    }
    let text = driver.text().to_lowercase();
    driver.text_must(|_| labels::is_dns1123_subdomain(&text), out);
}

fn secret_name(source: &Node<'_, '_>, out: &mut Faults) {
    let secret = source.get("secretRef");
    if secret.is_set() {
        secret.get("name").must_be_given(out);
    }
}

/// Initiators make a file name of both; `place` is what is told.
pub(in super::super) fn iscsi_name(
    place: &Node<'_, '_>,
    source: &Node<'_, '_>,
    volume: &str,
    out: &mut Faults,
) {
    let length = volume.len() + 1 + source.get("targetPortal").text().len();
    if source.get("initiatorName").is_set() && length > 64 {
        let detail = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
        place.invalid_as(&json!(place.text()), detail, out);
    }
}

fn iscsi(source: &Node<'_, '_>, persistent: bool, out: &mut Faults) {
    let tail = if persistent { "" } else { " starting with iqn, eui, or naa" };
    let name = |name: &Node<'_, '_>, out: &mut Faults| {
        let scheme = ["iqn", "eui", "naa"].iter().any(|scheme| name.text().starts_with(scheme));
        if !scheme {
            name.invalid(format!("must be valid format{tail}"), out);
        } else if !is_iscsi_name(name.text()) {
            name.invalid("must be valid format", out);
        }
    };
    let (iqn, initiator) = (source.get("iqn"), source.get("initiatorName"));
    if iqn.must_be_given(out) {
        name(&iqn, out);
    }
    source.get("lun").between(0, 255, out);
    let secret = source.get("secretRef");
    let chap = ["chapAuthDiscovery", "chapAuthSession"].iter().any(|key| source.get(key).is_true());
    if chap && !secret.is_set() {
        secret.required("", out);
    }
    if persistent {
        secret_name(source, out);
    }
    if initiator.is_set() {
        name(&source.named("initiatorname", initiator.value), out);
    }
}

/// `iqn.YYYY-MM.DOMAIN:NAME`, or `eui.` or `naa.` and 16 or 32 letters.
fn is_iscsi_name(name: &str) -> bool {
    let letters = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    if let Some(rest) = name.strip_prefix("eui").or_else(|| name.strip_prefix("naa")) {
        let length = if name.starts_with("eui") { 16 } else { 32 };
        return rest.get(1..).is_some_and(|rest| letters(rest, length));
    }
    let Some((date, rest)) = name.strip_prefix("iqn.").and_then(|rest| rest.split_once('.')) else {
        return false;
    };
    let digits =
        |text: &str, length: usize| text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
    let dated = date.split_once('-').is_some_and(|(year, month)| digits(year, 4) && digits(month, 2));
    let Some((domain, own)) = rest.split_once(':') else { return false };
    let named = !domain.is_empty()
        && domain.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
    let odd = |c: char| matches!(c, ',' | ';' | '*' | '&' | '$' | '|') || c.is_whitespace();
    dated && named && !own.is_empty() && !own.contains(odd)
}

fn storage_os(source: &Node<'_, '_>, out: &mut Faults) {
    source.get("volumeName").required_text(labels::is_dns1123_label, out);
    source.get("volumeNamespace").text_may(labels::is_dns1123_label, out);
}

fn quobyte(source: &Node<'_, '_>, out: &mut Faults) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let (registry, tenant) = (source.get("registry"), source.get("tenant"));
    if registry.is_empty() {
        registry.required(PAIRS, out);
    } else if tenant.text().len() >= 65 {
        tenant.required("must be a UUID and may not exceed a length of 64 characters", out);
    } else {
        for pair in registry.text().split(',') {
            let host = pair.rsplit_once(':').map(|(host, _)| host);
            if host.is_none_or(|host| host.contains(':') && !(host.starts_with('[') && host.ends_with(']'))) {
                registry.invalid(PAIRS, out);
            }
        }
    }
    source.get("volume").must_be_given(out);
}

fn flocker(source: &Node<'_, '_>, out: &mut Faults) {
    let (name, uuid) = (source.get("datasetName"), source.get("datasetUUID"));
    match (name.is_empty(), uuid.is_empty()) {
        (true, true) => source.required("one of datasetName and datasetUUID is required", out),
        (false, false) => {
            let detail = "datasetName and datasetUUID can not be specified simultaneously";
            source.invalid_as(&json!("resource"), detail, out);
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
        _ => {}
    }
    if !names.is_empty() && !lun.is_set() {
        lun.required("lun is required if targetWWNs is specified", out);
    } else if !names.is_empty() {
        lun.between(0, 255, out);
    }
}

fn flex_options(options: &Node<'_, '_>, out: &mut Faults) {
    for (key, _) in options.entries() {
        let namespace = format!(".{}", key.split('/').next().unwrap_or_default().to_lowercase());
        if [".kubernetes.io", ".k8s.io"].iter().any(|own| namespace.ends_with(own)) {
            options.key(key).invalid_as(&json!(key), "kubernetes.io and k8s.io namespaces are reserved", out);
        }
    }
}

fn azure_disk(source: &Node<'_, '_>, out: &mut Faults) {
    let (kind, uri) = (source.get("kind"), source.get("diskURI"));
    source.get("cachingMode").if_set_one_of(&["None", "ReadOnly", "ReadWrite"], out);
    kind.if_set_one_of(&["Dedicated", "Managed", "Shared"], out);
    if !kind.is_set() {
        return;
    }
    let (start, form) = if kind.text() == "Managed" {
        let form =
            "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
        ("/subscriptions/", form)
    } else {
        ("https://", "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd")
    };
    if !uri.text().starts_with(start) {
        uri.not_supported(&[form], out);
    }
}

/// Whether a path of the host is its root.
pub(in super::super) fn is_root(path: &str) -> bool {
    path.starts_with('/') && path.split('/').all(|part| matches!(part, "" | "."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_iscsi_nodes_have_one_of_three_forms() {
        for (name, good) in [
            ("iqn.2015-02.example.com:test", true),
            ("iqn.2015-02.example.com", false),
            ("iqn.15-02.example.com:test", false),
            ("iqn.2015-02.example.com:te,st", false),
            ("eui.0123456789ABCDEF", true),
            ("eui.0123456789ABCDE", false),
            ("naa.60014053226f0388b8e4b8e6b1ed5e55", true),
            ("naa.1", false),
        ] {
            assert_eq!(is_iscsi_name(name), good, "{name}");
        }
    }
}
