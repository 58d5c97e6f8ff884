//! Resource lists of containers and pods, as LimitRanger and ResourceQuota add them up. Pure.

use coracle_api::quantity::Quantity;
use serde_json::Value;
use std::collections::BTreeMap;

/// Amounts by resource name.
pub type Amounts = BTreeMap<String, Quantity>;

/// A JSON resource list; what is no quantity is left out (validation refuses it).
pub fn amounts(list: &Value) -> Amounts {
    let entries = list.as_object().into_iter().flatten();
    entries.filter_map(|(name, text)| Some((name.clone(), Quantity::parse(text.as_str()?).ok()?))).collect()
}

/// Adds every amount of `more`.
pub fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        *sum.entry(name.clone()).or_default() += *amount;
    }
}

fn raise(peak: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let own = peak.entry(name.clone()).or_insert(*amount);
        *own = (*own).max(*amount);
    }
}

/// The containers of a list in a pod's spec.
pub fn containers<'a>(spec: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    spec[list].as_array().into_iter().flatten()
}

/// What a pod needs at its peak of `requests` or `limits`: init containers run one after the other before the others, those
/// that restart always keep running beside them.
pub fn pod_total(spec: &Value, which: &str) -> Amounts {
    let of = |container: &Value| amounts(&container["resources"][which]);
    let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
    for container in containers(spec, "initContainers") {
        let own = of(container);
        if container["restartPolicy"] == "Always" {
            add(&mut sidecars, &own);
            raise(&mut peak, &sidecars);
        } else {
            let mut with_sidecars = sidecars.clone();
            add(&mut with_sidecars, &own);
            raise(&mut peak, &with_sidecars);
        }
    }
    let mut running = sidecars;
    containers(spec, "containers").for_each(|container| add(&mut running, &of(container)));
    raise(&mut running, &peak);
    for (name, amount) in amounts(&spec["overhead"]) {
        // Overhead counts to a limit only where there is one.
        if which == "requests" || running.contains_key(&name) {
            *running.entry(name).or_default() += amount;
        }
    }
    running
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_needs_its_peak() {
        let container =
            |cpu: &str, more: Value| json!({"resources": {"requests": {"cpu": cpu}}, "restartPolicy": more});
        let spec = json!({
            "initContainers": [container("100m", json!("Always")), container("2", Value::Null)],
            "containers": [container("500m", Value::Null), container("500m", Value::Null)],
            "overhead": {"cpu": "50m"},
        });
        assert_eq!(pod_total(&spec, "requests")["cpu"].to_string(), "2150m");
        assert!(pod_total(&spec, "limits").is_empty());
    }
}
