//! Where objects live in the store: `/registry/<plural>[/<namespace>]/<name>`, as kube-apiserver keeps them.

use coracle_api::kinds::Kind;
use coracle_api::status::GroupResource;

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
