//! Where objects live in the store: `/registry/<plural>[/<namespace>]/<name>`, as kube-apiserver keeps them.

use coracle_api::kinds::{self, Kind};
use coracle_api::status::GroupResource;
use std::collections::HashMap;
use std::sync::OnceLock;

/// All keys of this server stand below it.
pub const ROOT: &str = "/registry/";

/// Resources whose keys have other names, for history's sake.
const OVERRIDES: &[(&str, &str, &str)] = &[
    ("", "replicationcontrollers", "controllers"),
    ("", "endpoints", "services/endpoints"),
    ("", "nodes", "minions"),
    ("", "services", "services/specs"),
    ("networking.k8s.io", "ingresses", "ingress"),
    ("apiextensions.k8s.io", "customresourcedefinitions", "apiextensions.k8s.io/customresourcedefinitions"),
    ("apiregistration.k8s.io", "apiservices", "apiregistration.k8s.io/apiservices"),
];

/// The resource under which a kind is stored: Events of both groups are one.
#[must_use]
pub fn stored_as(group: &str, plural: &str) -> GroupResource {
    match (group, plural) {
        ("events.k8s.io", "events") => GroupResource::new("", "events"),
        _ => GroupResource::new(group, plural),
    }
}

/// The prefix of all keys of a kind, `/` included.
#[must_use]
pub fn prefix(kind: &Kind) -> String {
    if kind.custom.is_some() {
        return format!("{ROOT}{}/{}/", kind.group, kind.plural);
    }
    let other = OVERRIDES.iter().find(|(group, plural, _)| kind.group == *group && kind.plural == *plural);
    format!("{ROOT}{}/", other.map_or(kind.plural.as_str(), |(_, _, path)| path))
}

/// The resource that a key belongs to; `None` for keys that hold no object.
#[must_use]
pub fn resource_of(key: &str) -> Option<GroupResource> {
    static PATHS: OnceLock<HashMap<String, GroupResource>> = OnceLock::new();
    let paths = PATHS.get_or_init(|| {
        let stored = kinds::builtin().iter().filter(|kind| kind.offers("get") || kind.offers("list"));
        let stored = stored.filter(|kind| stored_as(&kind.group, &kind.plural).group == kind.group);
        stored.map(|kind| (prefix(kind)[ROOT.len()..].to_owned(), kind.group_resource())).collect()
    });
    let path = key.strip_prefix(ROOT)?;
    let mut slashes = path.match_indices('/').map(|(at, _)| at + 1).take(2);
    if let Some(of) = slashes.find_map(|at| paths.get(&path[..at])) {
        return Some(of.clone());
    }
    // Groups of custom kinds have a dot, plurals have none.
    let (group, rest) = path.split_once('/').filter(|(group, _)| group.contains('.'))?;
    rest.split_once('/').map(|(plural, _)| GroupResource::new(group, plural))
}

/// What stands after the prefix.
#[must_use]
pub fn tail(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}

/// Namespace (empty for none) and name of a tail.
#[must_use]
pub fn split(tail: &str) -> (&str, &str) {
    tail.split_once('/').unwrap_or(("", tail))
}
