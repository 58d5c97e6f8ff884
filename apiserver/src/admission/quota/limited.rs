//! What may be used only as far as some quota of the namespace counts it (`limitedResources` of the configuration).

use super::super::Attributes;
use super::super::resources::amounts;
use super::usage;
use coracle_api::quantity::Quantity;
use coracle_api::status::Status;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

/// One such rule.
#[derive(Clone, Debug, Default)]
pub struct LimitedResource {
    /// API group of what it is about.
    pub group: String,
    /// Its plural.
    pub resource: String,
    /// Parts of names of what must be counted.
    pub contains: Vec<String>,
    /// Scopes that some quota must have that takes in what these take in.
    pub scopes: Vec<Value>,
}

/// Refuses what no quota of the namespace counts and some must.
pub fn check(
    limited: &[LimitedResource],
    attributes: &Attributes<'_>,
    object: &Value,
    quotas: &[Arc<Value>],
) -> Result<(), Status> {
    let of = attributes.group_resource();
    let new = usage::of(&of, object);
    let old = attributes.old.map(|old| usage::of(&of, old)).unwrap_or_default();
    if limited.is_empty() || new == old {
        return Ok(());
    }
    let rules = limited.iter().filter(|rule| rule.group == of.group && rule.resource == of.resource);
    let parts: Vec<&String> = rules.flat_map(|rule| &rule.contains).collect();
    let used = new.iter().filter(|(_, amount)| **amount > Quantity::ZERO).map(|(name, _)| name);
    let mut names: BTreeSet<&String> =
        used.filter(|name| parts.iter().any(|part| name.contains(part.as_str()))).collect();
    for quota in quotas.iter().filter(|quota| usage::in_scope(quota, &of, object)) {
        let hard = amounts(&quota["spec"]["hard"]);
        names.retain(|name| !hard.contains_key(*name));
    }
    if !names.is_empty() {
        let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
        let cause = format!("insufficient quota to consume: {}", names.join(","));
        return Err(attributes.forbidden(object, &cause));
    }
    let covered: BTreeSet<String> =
        quotas.iter().flat_map(|quota| usage::scopes_that_take(quota, &of, object)).collect();
    let asked = limited.iter().flat_map(|rule| &rule.scopes);
    let without: Vec<String> = asked
        .filter(|scope| usage::takes(scope, &of, object))
        .filter(|scope| !covered.contains(scope["scopeName"].as_str().unwrap_or_default()))
        .map(shown)
        .collect();
    if without.is_empty() {
        return Ok(());
    }
    let scopes = without.join(" ");
    Err(Status::new(500, "", format!("insufficient quota to match these scopes: [{scopes}]")))
}

fn shown(scope: &Value) -> String {
    let text = |key: &str| scope[key].as_str().unwrap_or_default();
    let values: Vec<&str> = coracle_api::meta::strings(&scope["values"]).collect();
    format!("{{{} {} [{}]}}", text("scopeName"), text("operator"), values.join(" "))
}
