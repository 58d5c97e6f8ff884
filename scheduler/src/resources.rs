//! Amounts of resources: what a pod requests, what a node can give.

use coracle_api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use std::collections::BTreeMap;

/// What a container without a request counts for in scores, so that such containers do not all end up on one node.
const UNTOLD_CPU_MILLI: i64 = 100;
const UNTOLD_MEMORY_BYTES: i64 = 200 << 20;

/// CPU in thousandths of a core, all else in whole units (bytes, devices).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts(BTreeMap<String, i64>);

impl Amounts {
    pub fn parse(texts: Option<&BTreeMap<String, Text>>) -> Self {
        let amount = |(name, text): (&String, &Text)| {
            let quantity = Quantity::parse(&text.0).ok()?;
            Some((name.clone(), if name == "cpu" { quantity.milli_value() } else { quantity.value() }))
        };
        Self(texts.into_iter().flatten().filter_map(amount).collect())
    }

    pub fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    pub fn add(&mut self, other: &Self) {
        self.combine(other, |own, others| own + others);
    }

    pub fn subtract(&mut self, other: &Self) {
        self.combine(other, |own, others| own - others);
    }

    fn at_least(&mut self, other: &Self) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Self, with: impl Fn(i64, i64) -> i64) {
        for (name, amount) in &other.0 {
            let own = self.0.entry(name.clone()).or_default();
            *own = with(*own, *amount);
        }
    }
}

/// What a pod requests, and what it counts for in scores.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Requests {
    pub asked: Amounts,
    pub for_scores: Amounts,
}

impl Requests {
    /// The most that the pod uses at any time: its containers and sidecars together, or an init container with the
    /// sidecars started before it; plus the pod's overhead.
    pub fn of(spec: &PodSpec) -> Self {
        Self { asked: total(spec, asked), for_scores: total(spec, for_scores) }
    }
}

fn total(spec: &PodSpec, of: fn(&Container) -> Amounts) -> Amounts {
    let (mut sidecars, mut at_start) = (Amounts::default(), Amounts::default());
    for init in spec.init_containers.iter().flatten() {
        let mut now = of(init);
        if init.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&now);
            at_start.at_least(&sidecars);
        } else {
            now.add(&sidecars);
            at_start.at_least(&now);
        }
    }
    let mut running = sidecars;
    for container in &spec.containers {
        running.add(&of(container));
    }
    running.at_least(&at_start);
    // A request for the pod as a whole stands above its containers'.
    if let Some(whole) = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()) {
        for (name, amount) in Amounts::parse(Some(whole)).0 {
            running.0.insert(name, amount);
        }
    }
    running.add(&Amounts::parse(spec.overhead.as_ref()));
    running
}

fn asked(container: &Container) -> Amounts {
    Amounts::parse(container.resources.as_ref().and_then(|resources| resources.requests.as_ref()))
}

fn for_scores(container: &Container) -> Amounts {
    let mut amounts = asked(container);
    for (name, untold) in [("cpu", UNTOLD_CPU_MILLI), ("memory", UNTOLD_MEMORY_BYTES)] {
        amounts.0.entry(name.to_owned()).or_insert(untold);
    }
    amounts
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn cpu(spec: Value) -> i64 {
        Requests::of(&serde_json::from_value(spec).expect("a spec")).asked.get("cpu")
    }

    fn container(cpu: &str) -> Value {
        json!({ "name": "c", "resources": { "requests": { "cpu": cpu } } })
    }

    #[test]
    fn containers_add_up_and_init_containers_take_turns() {
        assert_eq!(cpu(json!({ "containers": [container("100m"), container("1")] })), 1100);
        assert_eq!(
            cpu(
                json!({ "containers": [container("1")], "initContainers": [container("2"), container("500m")] })
            ),
            2000
        );
    }

    #[test]
    fn sidecars_stay() {
        let mut sidecar = container("300m");
        sidecar["restartPolicy"] = json!("Always");
        assert_eq!(
            cpu(json!({ "containers": [container("1")], "initContainers": [sidecar, container("500m")] })),
            1300
        );
    }

    #[test]
    fn overhead_is_added() {
        assert_eq!(cpu(json!({ "containers": [container("1")], "overhead": { "cpu": "50m" } })), 1050);
    }
}
