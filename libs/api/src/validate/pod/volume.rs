//! Volumes of pods, and paths inside volumes.

use super::super::node::{Faults, Node, Seen};
use super::super::{meta, selectors};
use super::{Setting, container, env, sources};
use crate::labels;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;

/// The volumes without faults, those that containers can mount; the first of each name.
pub(super) struct Volumes<'v>(HashMap<&'v str, &'v Value>);

impl Volumes<'_> {
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Whether it is a claim, the only kind of volume with raw blocks.
    pub fn is_claim(&self, name: &str) -> bool {
        let claim =
            |volume: &Value| ["persistentVolumeClaim", "ephemeral"].iter().any(|key| !volume[*key].is_null());
        self.0.get(name).is_some_and(|volume| claim(volume))
    }
}

pub(super) fn all<'v>(volumes: &Node<'v, '_>, setting: Setting<'_>, out: &mut Faults) -> Volumes<'v> {
    let mut fine = Volumes(HashMap::new());
    let pod = setting.pod.filter(|name| !name.is_empty());
    let made: HashSet<String> = volumes
        .items()
        .filter(|volume| volume.get("ephemeral").is_set())
        .filter_map(|volume| Some(format!("{}-{}", pod?, volume.get("name").text())))
        .collect();
    for volume in volumes.items() {
        let (before, name) = (out.len(), volume.get("name"));
        source(&volume, setting, out);
        name.required_text(labels::is_dns1123_label, out);
        if fine.has(name.text()) {
            name.duplicate(out);
        }
        if out.len() == before {
            fine.0.insert(name.text(), volume.value);
        }
        let claim = volume.get("persistentVolumeClaim.claimName");
        if made.contains(claim.text()) {
            claim.invalid("must not reference a PVC that gets created for an ephemeral volume", out);
        }
    }
    fine
}

/// Exactly one source, itself valid.
fn source(volume: &Node<'_, '_>, setting: Setting<'_>, out: &mut Faults) {
    let mut count = 0;
    for kind in sources::OF_PODS {
        let source = volume.get(kind);
        if !source.is_set() {
            continue;
        }
        count += 1;
        if count > 1 {
            sources::one_too_many(volume, kind, out);
        } else {
            let place = sources::inside(volume, kind);
            sources::needed(kind, &place, out);
            own_source(kind, &place, volume, setting, out);
        }
        if *kind == "iscsi" {
            sources::iscsi_name(&volume.get("name"), &source, volume.get("name").text(), out);
        }
    }
    if count == 0 {
        volume.required("must specify a volume type", out);
    }
}

/// Rules of the sources that only pods have; `sources` knows the others.
fn own_source(
    kind: &str,
    source: &Node<'_, '_>,
    volume: &Node<'_, '_>,
    setting: Setting<'_>,
    out: &mut Faults,
) {
    match kind {
        "emptyDir" => {
            if source.get("sizeLimit").amount() < crate::quantity::Quantity::ZERO {
                source.get("sizeLimit").forbidden("SizeLimit field must be a valid resource quantity", out);
            }
        }
        "gitRepo" => descending_path(&source.get("directory"), out),
        "secret" | "configMap" => {
            mode(&source.get("defaultMode"), out);
            source.get("items").items().for_each(|item| key_to_path(&item, out));
        }
        "downwardAPI" => {
            mode(&source.get("defaultMode"), out);
            downward_files(source, out);
        }
        "projected" => projected(source, setting, out),
        "csi" => {
            sources::driver(&source.get("driver"), out);
            let secret = source.get("nodePublishSecretRef");
            if secret.is_set() && secret.get("name").must_be_given(out) {
                let name = secret.get("name");
                source.named("name", name.value).text_must(labels::is_dns1123_subdomain, out);
            }
        }
        "ephemeral" => ephemeral(source, volume, setting, out),
        "image" => {
            if setting.pod.is_some() {
                source.get("reference").must_be_given(out);
            }
            container::pull_policy(&source.get("pullPolicy"), out);
        }
        _ => sources::shared(kind, source, out),
    }
}

/// A template for a claim, whose metadata is labels and annotations only, and the name its claim will have.
fn ephemeral(source: &Node<'_, '_>, volume: &Node<'_, '_>, setting: Setting<'_>, out: &mut Faults) {
    let template = source.get("volumeClaimTemplate");
    if template.is_set() {
        let metadata = template.get("metadata");
        meta::annotations(&metadata.get("annotations"), out);
        meta::labels(&metadata.get("labels"), out);
        let others = metadata
            .entries()
            .filter(|(key, value)| !matches!(*key, "annotations" | "labels") && !value.is_empty());
        for (key, value) in others {
            metadata.named(key, value.value).forbidden("cannot be set", out);
        }
        super::super::claim::claim_spec(&template.get("spec"), out);
    } else {
        template.required("", out);
    }
    let (pod, name) = (setting.pod.unwrap_or_default(), volume.get("name"));
    if pod.is_empty() || name.is_empty() {
        return;
    }
    let claim = format!("{pod}-{}", name.text());
    for complaint in labels::is_dns1123_subdomain(&claim) {
        name.invalid(format!("PVC name {}: {complaint}", crate::status::go_quoted(&claim)), out);
    }
}

fn mode(mode: &Node<'_, '_>, out: &mut Faults) {
    if mode.is_set() && !(0..=0o777).contains(&mode.int()) {
        mode.invalid(MODE, out);
    }
}

fn key_to_path(item: &Node<'_, '_>, out: &mut Faults) {
    let (key, path) = (item.get("key"), item.get("path"));
    key.must_be_given(out);
    path.must_be_given(out);
    file_path(&path, out);
    mode(&item.get("mode"), out);
}

/// Faults of a file name the source, not the file.
fn downward_files(source: &Node<'_, '_>, out: &mut Faults) {
    for file in source.get("items").items() {
        downward_file(&source.named("", file.value), out);
    }
}

fn downward_file(file: &Node<'_, '_>, out: &mut Faults) {
    let (path, field, resource) = (file.get("path"), file.get("fieldRef"), file.get("resourceFieldRef"));
    path.must_be_given(out);
    file_path(&path, out);
    if field.is_set() {
        env::field(&field, &env::VOLUME_FIELDS, out);
        if resource.is_set() {
            let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
            file.invalid_as(&json!("resource"), detail, out);
        }
    } else if resource.is_set() {
        env::resource(&resource, true, out);
    } else {
        file.required("one of fieldRef and resourceFieldRef is required", out);
    }
    mode(&file.get("mode"), out);
}

fn projected(volume: &Node<'_, '_>, setting: Setting<'_>, out: &mut Faults) {
    mode(&volume.get("defaultMode"), out);
    let mut paths = Seen::new();
    for source in volume.get("sources").items() {
        let mut count = 0;
        for kind in ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle"] {
            let projection = source.get(kind);
            if !projection.is_set() {
                continue;
            }
            count += 1;
            match kind {
                "secret" | "configMap" | "downwardAPI" => {
                    projected_files(volume, &projection, kind, &mut paths, out);
                }
                "serviceAccountToken" => token(volume, &projection, setting, out),
                _ => {
                    trust_bundle(&projection, out);
                    let path = projection.get("path");
                    taken(volume, path.text(), path.text(), &mut paths, out);
                }
            }
        }
        if count > 1 {
            source.forbidden("may not specify more than 1 volume type per source", out);
        }
    }
}

fn projected_files<'v>(
    volume: &Node<'_, '_>,
    projection: &Node<'v, '_>,
    kind: &str,
    paths: &mut Seen<'v>,
    out: &mut Faults,
) {
    let name = projection.get("name");
    if kind != "downwardAPI" {
        name.must_be_given(out);
    }
    for item in projection.get("items").items() {
        let path = item.get("path").text();
        let shown = if kind == "downwardAPI" {
            downward_file(&projection.named("", item.value), out);
            path
        } else {
            key_to_path(&item, out);
            name.text()
        };
        if !path.is_empty() {
            taken(volume, path, shown, paths, out);
        }
    }
}

/// Two files of a projected volume cannot have one path.
fn taken<'v>(volume: &Node<'_, '_>, path: &'v str, shown: &str, paths: &mut Seen<'v>, out: &mut Faults) {
    if paths.contains(&path) {
        volume.invalid_as(&json!(shown), "conflicting duplicate paths", out);
    } else {
        paths.insert(path);
    }
}

fn token(volume: &Node<'_, '_>, token: &Node<'_, '_>, setting: Setting<'_>, out: &mut Faults) {
    let seconds = token.get("expirationSeconds");
    if seconds.int() < TOKEN_SECONDS_MIN {
        let detail = "may not specify a duration less than 10 minutes";
        seconds.invalid_as(&json!(seconds.int()), detail, out);
    }
    if seconds.int() > TOKEN_SECONDS_MAX {
        seconds.invalid("may not specify a duration larger than 2^32 seconds", out);
    }
    let path = volume.named("path", token.get("path").value);
    if path.must_be_given(out) && !setting.allowed.token_paths {
        file_path(&path, out);
    }
}

/// The paths of tokens only: older pods may have odd ones.
pub(super) fn token_paths(volumes: &Node<'_, '_>, out: &mut Faults) {
    for volume in volumes.items() {
        for source in volume.get("projected.sources").items() {
            file_path(&source.get("serviceAccountToken.path"), out);
        }
    }
}

fn trust_bundle(bundle: &Node<'_, '_>, out: &mut Faults) {
    let (name, signer, selector) =
        (bundle.get("name"), bundle.get("signerName"), bundle.get("labelSelector"));
    match (name.is_set(), signer.is_set()) {
        (true, true) => {
            bundle.invalid_inside("TrustProjection", "only one of name and signerName may be used", out);
        }
        (true, false) => {
            if name.is_empty() {
                name.required("must be a valid object name", out);
            }
            bundle_name(&name, out);
            if selector.is_set() {
                selector.invalid("labelSelector must be unset if name is specified", out);
            }
        }
        (false, true) => {
            if signer.is_empty() {
                signer.required("must be a valid signer name", out);
            }
            super::super::signing::signer_name(&signer, out);
            selectors::labels(&selector, out);
        }
        (false, false) => bundle.required("either name or signerName must be specified", out),
    }
    let path = bundle.get("path");
    path.must_be_given(out);
    file_path(&path, out);
}

/// `SIGNER DOMAIN:SIGNER PATH:NAME`, or a name without a signer.
fn bundle_name(name: &Node<'_, '_>, out: &mut Faults) {
    let text = name.text();
    let complaints = match text.rsplit_once(':') {
        Some((_, own)) => labels::is_dns1123_subdomain(own),
        None => labels::is_dns1123_subdomain(text),
    };
    for complaint in complaints {
        name.invalid(format!("not a valid clustertrustbundlename: {complaint}"), out);
    }
}

pub(super) fn no_backsteps(path: &Node<'_, '_>, out: &mut Faults) {
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
