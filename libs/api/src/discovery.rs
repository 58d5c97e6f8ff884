//! Discovery documents: legacy (`/api`, `/apis`, `/apis/G`, `/apis/G/V`) and aggregated (`apidiscovery.k8s.io` v2, v2beta1).

use crate::kinds::{Kind, Subresource, builtin};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::cmp::Reverse;
use std::sync::Arc;

/// A group with its versions, the preferred one first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    /// Never the core group's.
    pub name: String,
    /// In order of preference.
    pub versions: Vec<Version>,
    /// The higher, the earlier it is listed.
    pub priority: i64,
    /// The first by name of the APIServices that give it this priority.
    pub service: String,
}

/// A version of a group.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    /// Such as `v1`.
    pub name: String,
    /// What another server told of it; `None` for what this one serves.
    pub remote: Option<Remote>,
}

/// A group version of another server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Remote {
    /// Its resources in the aggregated form, as last told.
    pub resources: Vec<Value>,
    /// Whether it could be asked the last time.
    pub fresh: bool,
}

/// All kinds, built-in ones first.
fn all(custom: &[Arc<Kind>]) -> impl Iterator<Item = &Arc<Kind>> {
    builtin().iter().chain(custom)
}

/// Every group version that this server itself serves.
#[must_use]
pub fn served(custom: &[Arc<Kind>]) -> Vec<(&str, &str)> {
    let mut served: Vec<(&str, &str)> = Vec::new();
    for kind in all(custom) {
        let known = (kind.group.as_str(), kind.version.as_str());
        if !served.contains(&known) {
            served.push(known);
        }
    }
    served
}

/// `APIVersions` for `/api`; `server` is `host:port` for `serverAddressByClientCIDRs`.
#[must_use]
pub fn api_versions(server: &str) -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server}]})
}

fn api_group(group: &Group) -> Value {
    let Group { name, versions, .. } = group;
    let told: Vec<Value> = versions
        .iter()
        .map(|version| json!({"groupVersion": format!("{name}/{}", version.name), "version": version.name}))
        .collect();
    let preferred = told.first().cloned().unwrap_or_default();
    json!({"name": name, "versions": told, "preferredVersion": preferred})
}

/// `APIGroupList` for `/apis`.
#[must_use]
pub fn group_list(groups: &[Group]) -> Value {
    // Unlike the aggregated form, this one has groups of one priority in the order of their APIServices.
    let mut groups: Vec<&Group> = groups.iter().collect();
    groups.sort_by_key(|group| (Reverse(group.priority), &group.service));
    let groups: Vec<Value> = groups.into_iter().map(api_group).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `APIGroup` for `/apis/G`.
#[must_use]
pub fn group(name: &str, groups: &[Group]) -> Option<Value> {
    let mut told = api_group(groups.iter().find(|group| group.name == name)?);
    told["kind"] = json!("APIGroup");
    told["apiVersion"] = json!("v1");
    Some(told)
}

/// Changes when objects are stored in another version.
fn storage_version_hash(kind: &Kind) -> String {
    // The core group counts as a group without a name; definitions themselves are stored as they were in their first version.
    let slash = if kind.storage_version.contains('/') { "" } else { "/" };
    let stored = match kind.group.as_str() {
        "apiextensions.k8s.io" => "apiextensions.k8s.io/v1beta1",
        _ => kind.storage_version.as_str(),
    };
    let digest = Sha256::digest(format!("{slash}{stored}/{}", kind.kind));
    BASE64_STANDARD.encode(&digest[..8])
}

fn legacy(kind: &Kind) -> Vec<Value> {
    let mut row = json!({"name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced,
        "kind": kind.kind, "verbs": kind.verbs});
    for (key, list) in [("shortNames", &kind.short_names), ("categories", &kind.categories)] {
        if !list.is_empty() {
            row[key] = json!(list);
        }
    }
    if kind.offers("get") && (kind.offers("create") || kind.custom.is_some()) {
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

/// Group and version are told where they differ from the document's, and of custom kinds.
fn response_kind(of: &Kind, group: &str, version: &str, kind: &str) -> Value {
    if of.custom.is_none() && (group, version) == (of.group.as_str(), of.version.as_str()) {
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

/// An `APIResourceList`'s resources in the aggregated form.
#[must_use]
pub fn of_resource_list(list: &Value) -> Vec<Value> {
    let mut resources: Vec<Value> = Vec::new();
    let kind = |row: &Value| {
        let text = |key: &str| row[key].as_str().unwrap_or_default();
        json!({"group": text("group"), "version": text("version"), "kind": text("kind")})
    };
    for row in list["resources"].as_array().into_iter().flatten() {
        let name = row["name"].as_str().unwrap_or_default();
        let (plural, sub) = name.split_once('/').unwrap_or((name, ""));
        let scope = if row["namespaced"] == true { "Namespaced" } else { "Cluster" };
        let mut told = json!({"resource": plural, "responseKind": kind(row), "scope": scope,
            "singularResource": row["singularName"].as_str().unwrap_or_default(), "verbs": row["verbs"]});
        if sub.is_empty() {
            for key in ["shortNames", "categories"] {
                if row[key].is_array() {
                    told[key] = row[key].clone();
                }
            }
            resources.push(told);
            continue;
        }
        let parent = resources.iter().position(|parent| parent["resource"] == plural);
        let at = parent.unwrap_or_else(|| {
            // A subresource of nothing: its resource cannot be used, but is named.
            told["verbs"] = json!([]);
            told["responseKind"] = json!({"group": "", "version": "", "kind": ""});
            resources.push(told);
            resources.len() - 1
        });
        let told = json!({"subresource": sub, "responseKind": kind(row), "verbs": row["verbs"]});
        match resources[at]["subresources"].as_array_mut() {
            Some(subresources) => subresources.push(told),
            None => resources[at]["subresources"] = json!([told]),
        }
    }
    resources
}

fn aggregated_version(group: &str, version: &Version, custom: &[Arc<Kind>]) -> Value {
    if let Some(Remote { resources, fresh }) = &version.remote {
        let freshness = if *fresh { "Current" } else { "Stale" };
        let mut told = json!({"version": version.name, "freshness": freshness});
        if !resources.is_empty() {
            told["resources"] = json!(resources);
        }
        return told;
    }
    let kinds = all(custom).filter(|kind| kind.group == group && kind.version == version.name);
    let resources: Vec<Value> = kinds.map(|kind| aggregated_kind(kind)).collect();
    json!({"version": version.name, "freshness": "Current", "resources": resources})
}

fn aggregated_group(group: &Group, custom: &[Arc<Kind>]) -> Value {
    let Group { name, versions, .. } = group;
    let versions: Vec<Value> =
        versions.iter().map(|version| aggregated_version(name, version, custom)).collect();
    let metadata = if name.is_empty() { json!({}) } else { json!({"name": name}) };
    json!({"metadata": metadata, "versions": versions})
}

/// `APIGroupDiscoveryList` in `version` (`v2` or `v2beta1`), for `/apis`.
#[must_use]
pub fn aggregated(version: &str, groups: &[Group], custom: &[Arc<Kind>]) -> Value {
    let items: Vec<Value> = groups.iter().map(|group| aggregated_group(group, custom)).collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {}, "items": items})
}

/// The same for `/api`.
#[must_use]
pub fn aggregated_core(version: &str) -> Value {
    let core = Version { name: "v1".to_owned(), remote: None };
    aggregated(version, &[Group { versions: vec![core], ..Group::default() }], &[])
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
        let served = served(&[]);
        assert!(served.contains(&("autoscaling", "v1")) && served.contains(&("", "v1")));
        let group_of = |remote| Group {
            name: "apps".to_owned(),
            versions: vec![Version { name: "v1".to_owned(), remote }],
            ..Group::default()
        };
        let apps = aggregated("v2", &[group_of(None)], &[]);
        assert_eq!(apps["items"][0]["versions"][0]["resources"].as_array().map(Vec::len), Some(5));
        assert_eq!(
            group("apps", &[group_of(None)]).expect("group")["preferredVersion"]["groupVersion"],
            "apps/v1"
        );
        let mut widget = crate::shape::tests::kind("a.io/v1", "Widget", "io.a.v1.Widget");
        widget.custom = Some(Arc::new(crate::custom::Version::new(json!({}))));
        assert_eq!(
            aggregated_kind(&widget)["responseKind"],
            json!({"group": "a.io", "version": "v1", "kind": "Widget"})
        );
        let stale = aggregated("v2", &[group_of(Some(Remote::default()))], &[]);
        assert_eq!(stale["items"][0]["versions"], json!([{"version": "v1", "freshness": "Stale"}]));
    }

    #[test]
    fn the_old_form_of_another_server_becomes_the_new_one() {
        let list = json!({"resources": [
            {"name": "widgets", "singularName": "widget", "namespaced": true, "kind": "Widget", "verbs": ["get"], "shortNames": ["w"]},
            {"name": "widgets/scale", "namespaced": true, "group": "autoscaling", "version": "v1", "kind": "Scale", "verbs": ["get"]},
            {"name": "lonely/status", "kind": "Lonely", "verbs": ["get"]}]});
        assert_eq!(
            json!(of_resource_list(&list)),
            json!([
                {"resource": "widgets", "singularResource": "widget", "scope": "Namespaced", "verbs": ["get"], "shortNames": ["w"],
                    "responseKind": {"group": "", "version": "", "kind": "Widget"},
                    "subresources": [{"subresource": "scale", "verbs": ["get"],
                        "responseKind": {"group": "autoscaling", "version": "v1", "kind": "Scale"}}]},
                {"resource": "lonely", "singularResource": "", "scope": "Cluster", "verbs": [],
                    "responseKind": {"group": "", "version": "", "kind": ""},
                    "subresources": [{"subresource": "status", "verbs": ["get"], "responseKind": {"group": "", "version": "", "kind": "Lonely"}}]}
            ])
        );
    }
}
