//! Discovery documents: legacy (`/api`, `/apis`, `/apis/G`, `/apis/G/V`) and aggregated (`apidiscovery.k8s.io` v2, v2beta1).

use crate::kinds::{Kind, Subresource, builtin};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// All kinds, built-in ones first.
fn all(custom: &[Arc<Kind>]) -> impl Iterator<Item = &Arc<Kind>> {
    builtin().iter().chain(custom)
}

/// Groups but the core one with their versions, the preferred one first.
fn groups(custom: &[Arc<Kind>]) -> Vec<(&str, Vec<&str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for kind in all(custom).filter(|kind| !kind.group.is_empty()) {
        let (group, version) = (kind.group.as_str(), kind.version.as_str());
        match groups.iter_mut().find(|(known, _)| *known == group) {
            Some((_, versions)) if versions.contains(&version) => {}
            Some((_, versions)) => versions.push(version),
            None => groups.push((group, vec![version])),
        }
    }
    groups
}

/// `APIVersions` for `/api`; `server` is `host:port` for `serverAddressByClientCIDRs`.
#[must_use]
pub fn api_versions(server: &str) -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server}]})
}

fn api_group(group: &str, versions: &[&str]) -> Value {
    let told: Vec<Value> = versions
        .iter()
        .map(|version| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
        .collect();
    let preferred = told.first().cloned().unwrap_or_default();
    json!({"name": group, "versions": told, "preferredVersion": preferred})
}

/// `APIGroupList` for `/apis`.
#[must_use]
pub fn group_list(custom: &[Arc<Kind>]) -> Value {
    let groups: Vec<Value> =
        groups(custom).iter().map(|(group, versions)| api_group(group, versions)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `APIGroup` for `/apis/G`.
#[must_use]
pub fn group(name: &str, custom: &[Arc<Kind>]) -> Option<Value> {
    let groups = groups(custom);
    let (group, versions) = groups.iter().find(|(group, _)| *group == name)?;
    let mut told = api_group(group, versions);
    told["kind"] = json!("APIGroup");
    told["apiVersion"] = json!("v1");
    Some(told)
}

/// Changes when objects are stored in another version.
fn storage_version_hash(kind: &Kind) -> String {
    let mut hasher = DefaultHasher::new();
    (&kind.group, &kind.storage_version, &kind.kind).hash(&mut hasher);
    BASE64_STANDARD.encode(hasher.finish().to_be_bytes())
}

fn legacy(kind: &Kind) -> Vec<Value> {
    let mut row = json!({"name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced,
        "kind": kind.kind, "verbs": kind.verbs});
    for (key, list) in [("shortNames", &kind.short_names), ("categories", &kind.categories)] {
        if !list.is_empty() {
            row[key] = json!(list);
        }
    }
    if kind.offers("get") && kind.offers("create") {
        row["storageVersionHash"] = json!(storage_version_hash(kind));
    }
    let subresources = kind.subresources.iter().map(|sub| {
        let mut row = json!({"name": format!("{}/{}", kind.plural, sub.name), "singularName": "",
            "namespaced": kind.namespaced, "kind": sub.kind, "verbs": sub.verbs});
        if (sub.group.as_str(), sub.version.as_str()) != (kind.group.as_str(), kind.version.as_str()) {
            row["group"] = json!(sub.group);
            row["version"] = json!(sub.version);
        }
        row
    });
    std::iter::once(row).chain(subresources).collect()
}

/// `APIResourceList` for `/api/v1` (`""`, `v1`) and `/apis/G/V`.
#[must_use]
pub fn resource_list(group: &str, version: &str, custom: &[Arc<Kind>]) -> Option<Value> {
    let kinds: Vec<&Arc<Kind>> =
        all(custom).filter(|kind| kind.group == group && kind.version == version).collect();
    let first = kinds.first()?;
    let mut list = json!({"kind": "APIResourceList", "groupVersion": first.api_version(),
        "resources": kinds.iter().flat_map(|kind| legacy(kind)).collect::<Vec<Value>>()});
    if !group.is_empty() {
        list["apiVersion"] = json!("v1");
    }
    Some(list)
}

/// Group and version are told where they differ from the document's.
fn response_kind(of: &Kind, group: &str, version: &str, kind: &str) -> Value {
    if (group, version) == (of.group.as_str(), of.version.as_str()) {
        return json!({"group": "", "version": "", "kind": kind});
    }
    json!({"group": group, "version": version, "kind": kind})
}

fn aggregated_kind(kind: &Kind) -> Value {
    let sub = |sub: &Subresource| json!({"subresource": sub.name, "responseKind": response_kind(kind, &sub.group, &sub.version, &sub.kind), "verbs": sub.verbs});
    let mut row = json!({"resource": kind.plural, "singularResource": kind.singular, "verbs": kind.verbs,
        "responseKind": response_kind(kind, &kind.group, &kind.version, &kind.kind),
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" }});
    for (key, list) in [("shortNames", &kind.short_names), ("categories", &kind.categories)] {
        if !list.is_empty() {
            row[key] = json!(list);
        }
    }
    if !kind.subresources.is_empty() {
        row["subresources"] = kind.subresources.iter().map(sub).collect();
    }
    row
}

fn aggregated_group(group: &str, versions: &[&str], custom: &[Arc<Kind>]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| {
            let kinds = all(custom).filter(|kind| kind.group == group && kind.version == *version);
            let resources: Vec<Value> = kinds.map(|kind| aggregated_kind(kind)).collect();
            json!({"version": version, "freshness": "Current", "resources": resources})
        })
        .collect();
    let metadata = if group.is_empty() { json!({}) } else { json!({"name": group}) };
    json!({"metadata": metadata, "versions": versions})
}

/// `APIGroupDiscoveryList` in `version` (`v2` or `v2beta1`), for `/api` (`core`) or `/apis`.
#[must_use]
pub fn aggregated(version: &str, core: bool, custom: &[Arc<Kind>]) -> Value {
    let items: Vec<Value> = if core {
        vec![aggregated_group("", &["v1"], custom)]
    } else {
        groups(custom).iter().map(|(group, versions)| aggregated_group(group, versions, custom)).collect()
    };
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {}, "items": items})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_name_every_kind() {
        let core = resource_list("", "v1", &[]).expect("core");
        let names: Vec<&str> = core["resources"]
            .as_array()
            .expect("list")
            .iter()
            .filter_map(|row| row["name"].as_str())
            .collect();
        assert!(names.contains(&"pods/exec") && names.contains(&"namespaces"));
        assert!(resource_list("no.such", "v1", &[]).is_none());
        let apis = aggregated("v2", false, &[]);
        assert!(apis["items"].as_array().expect("items").len() > 10);
        assert_eq!(group("autoscaling", &[]).expect("group")["preferredVersion"]["version"], "v2");
    }
}
