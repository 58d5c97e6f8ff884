//! Which writes a webhook or a policy is about: rules, selectors, and other versions of the same resource.
//!
//! In: `rules` and selectors as in the configuration, and a write. Out: the resource as the configuration speaks of it.

use super::{Attributes, Context};
use crate::storage::convert;
use crate::storage::keys;
use coracle_api::kinds::{self, Kind};
use coracle_api::meta;
use coracle_api::selector::LabelSelector;
use coracle_api::status::Status;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::sync::Arc;

pub const GROUP: &str = "admissionregistration.k8s.io";
/// Whoever could refuse changes of these could never be removed again.
const EXEMPT: [&str; 6] = [
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
    "mutatingwebhookconfigurations",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "validatingwebhookconfigurations",
];

/// A resource in the version in which a configuration speaks of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub group: String,
    pub version: String,
    /// The row of a built-in kind in that version, when it is another than the request's.
    pub other: Option<Arc<Kind>>,
}

/// Whether a write is kept from all webhooks and policies.
pub fn is_exempt(attributes: &Attributes<'_>) -> bool {
    attributes.request.group == GROUP && EXEMPT.contains(&attributes.request.resource.as_str())
}

fn has(list: &Value, wanted: &str) -> bool {
    meta::strings(list).any(|own| own == "*" || own == wanted)
}

/// Whether `resources` name this one: `pods`, `pods/status`, `*`, `*/*`, `pods/*`, `*/scale`.
fn names(list: &Value, resource: &str, subresource: &str) -> bool {
    meta::strings(list).any(|own| {
        let (name, sub) = own.split_once('/').unwrap_or((own, ""));
        (name == "*" || name == resource) && (sub == subresource || sub == "*")
    })
}

/// Whether a rule speaks of a write, taken as one of `group` and `version`.
fn rule_matches(
    rule: &Value,
    attributes: &Attributes<'_>,
    name: &str,
    (group, version): (&str, &str),
) -> bool {
    let request = attributes.request;
    let namespaced = !request.namespace.is_empty() && request.resource != "namespaces";
    let scope = match rule["scope"].as_str() {
        Some("Cluster") => !namespaced,
        Some("Namespaced") => namespaced,
        _ => true,
    };
    let named = rule["resourceNames"].as_array().is_none_or(Vec::is_empty)
        || meta::strings(&rule["resourceNames"]).any(|own| own == name);
    scope
        && named
        && has(&rule["operations"], attributes.operation)
        && has(&rule["apiGroups"], group)
        && has(&rule["apiVersions"], version)
        && names(&rule["resources"], &request.resource, &request.subresource)
}

/// Every group and version in which the resource of a write is served, the request's apart.
fn equivalents(context: &Context, attributes: &Attributes<'_>) -> Vec<Target> {
    let request = attributes.request;
    let Some(kind) = &request.kind else { return Vec::new() };
    if kind.custom.is_some() {
        let name = format!("{}.{}", kind.plural, kind.group);
        let definition = context.get("apiextensions.k8s.io", "customresourcedefinitions", "", &name);
        let versions = definition.as_ref().and_then(|definition| definition["spec"]["versions"].as_array());
        let served = versions.into_iter().flatten().filter(|version| version["served"] == true);
        let names = served.filter_map(|version| version["name"].as_str());
        let others = names.filter(|name| *name != kind.version);
        return others
            .map(|version| Target { group: kind.group.clone(), version: version.to_owned(), other: None })
            .collect();
    }
    let stored = keys::stored_as(&kind.group, &kind.plural);
    let others = kinds::builtin().iter().filter(|other| {
        keys::stored_as(&other.group, &other.plural) == stored && other.api_version() != kind.api_version()
    });
    others
        .map(|other| Target {
            group: other.group.clone(),
            version: other.version.clone(),
            other: Some(other.clone()),
        })
        .collect()
}

/// The version in which `rules` speak of a write, if they do.
pub fn target(
    context: &Context,
    rules: &Value,
    match_policy: &Value,
    attributes: &Attributes<'_>,
    object: &Value,
) -> Option<Target> {
    let (request, name) = (attributes.request, attributes.name(object));
    let matches = |group: &str, version: &str| {
        let mut rules = rules.as_array().into_iter().flatten();
        rules.any(|rule| rule_matches(rule, attributes, name, (group, version)))
    };
    if matches(&request.group, &request.version) {
        return Some(Target { group: request.group.clone(), version: request.version.clone(), other: None });
    }
    if match_policy == "Exact" {
        return None;
    }
    equivalents(context, attributes).into_iter().find(|target| matches(&target.group, &target.version))
}

fn selector(selector: &Value) -> Result<LabelSelector, Status> {
    let all = json!({});
    LabelSelector::from_object(if selector.is_null() { &all } else { selector }).map_err(Status::internal)
}

/// Whether the write is in a namespace with such labels. What lives in none always is.
///
/// # Errors
/// The namespace is not there.
pub async fn in_namespace(
    context: &Context,
    labels: &Value,
    attributes: &Attributes<'_>,
    object: &Value,
) -> Result<bool, Status> {
    let selector = selector(labels)?;
    if selector.is_empty() {
        return Ok(true);
    }
    if attributes.is("namespaces") && object.is_object() {
        return Ok(selector.matches(&object["metadata"]["labels"]));
    }
    match namespace(context, attributes).await? {
        Some(namespace) => Ok(selector.matches(&namespace["metadata"]["labels"])),
        None => Ok(true),
    }
}

/// The namespace of a write; `None` for what lives in none.
///
/// # Errors
/// It is not there.
pub async fn namespace(context: &Context, attributes: &Attributes<'_>) -> Result<Option<Arc<Value>>, Status> {
    let of_itself = attributes.request.resource == "namespaces" && attributes.request.group.is_empty();
    let name = if of_itself { &attributes.request.name } else { &attributes.request.namespace };
    if name.is_empty() {
        return Ok(None);
    }
    let found = context.find("", "namespaces", "", name).await?;
    let missing = || Status::not_found(&coracle_api::status::GroupResource::new("", "namespaces"), name);
    found.map(Some).ok_or_else(missing)
}

/// Whether the object, as it was or will be, has such labels.
///
/// # Errors
/// The selector cannot be read.
pub fn of_object(labels: &Value, attributes: &Attributes<'_>, object: &Value) -> Result<bool, Status> {
    let selector = selector(labels)?;
    let carries =
        |object: &Value| object["metadata"].is_object() && selector.matches(&object["metadata"]["labels"]);
    Ok(selector.is_empty() || carries(object) || attributes.old.is_some_and(carries))
}

/// An object in the version of the target.
pub fn converted<'a>(target: &Target, attributes: &Attributes<'_>, object: &'a Value) -> Cow<'a, Value> {
    let asked = &attributes.request.kind;
    match (&target.other, asked) {
        _ if !object.is_object() => Cow::Borrowed(object),
        (Some(other), Some(kind)) if is_of(object, kind) => {
            let stored = Arc::new(convert::from(kind, object.clone()));
            Cow::Owned(convert::to(other, &stored).as_ref().clone())
        }
        (None, Some(kind)) if target.version != kind.version && is_of(object, kind) => {
            let mut object = object.clone();
            object["apiVersion"] = json!(format!("{}/{}", target.group, target.version));
            Cow::Owned(object)
        }
        _ => Cow::Borrowed(object),
    }
}

/// The way back.
pub fn converted_back(target: &Target, attributes: &Attributes<'_>, mut object: Value) -> Value {
    match (&target.other, &attributes.request.kind) {
        (Some(other), Some(kind)) if is_of(&object, other) => {
            let stored = Arc::new(convert::from(other, object));
            convert::to(kind, &stored).as_ref().clone()
        }
        (None, Some(kind)) if kind.custom.is_some() => {
            object["apiVersion"] = json!(kind.api_version());
            object
        }
        _ => object,
    }
}

/// Whether an object is of that kind: bodies of subresources are of others.
pub fn is_of(object: &Value, kind: &Kind) -> bool {
    object["kind"] == kind.kind.as_str() && object["apiVersion"] == kind.api_version().as_str()
}
