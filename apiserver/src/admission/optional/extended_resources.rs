//! ExtendedResourceToleration: a pod that asks for a resource of special nodes tolerates the taint of its name, which keeps
//! others off them.

use super::super::Attributes;
use super::super::resources::containers;
use coracle_api::validate::is_extended_resource;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Adds the tolerations.
pub fn mutate(attributes: &Attributes<'_>, pod: &mut Value) {
    if !attributes.writes("pods") {
        return;
    }
    let lists = ["containers", "initContainers"];
    let asked: BTreeSet<String> = lists
        .into_iter()
        .flat_map(|list| containers(&pod["spec"], list))
        .filter_map(|container| container["resources"]["requests"].as_object())
        .flat_map(|requests| requests.keys().filter(|name| is_extended_resource(name)).cloned())
        .collect();
    for name in asked {
        let wanted = json!({"key": name, "operator": "Exists", "effect": "NoSchedule"});
        let same = |own: &Value| {
            ["key", "operator", "effect"].iter().all(|part| own[*part] == wanted[*part])
                && own["value"].as_str().unwrap_or_default().is_empty()
        };
        match pod["spec"]["tolerations"].as_array_mut() {
            None => pod["spec"]["tolerations"] = json!([wanted]),
            Some(all) => match all.iter_mut().find(|own| same(own)) {
                Some(own) => *own = wanted,
                None => all.push(wanted),
            },
        }
    }
}
