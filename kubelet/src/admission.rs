//! Whether a pod that was put on a node may run there: what it asks for must be free, and the node must be one it wants.
//!
//! In: pods as they come, and what their nodes have. Out: upstream's reason and words for those that are turned away. What
//! the others ask for is held until they end, so that of two that come at once only one gets the last of it.

use crate::node::Node;
use coracle_api::quantity::Quantity;
use coracle_client::placement::{HostPort, NodeTerms, host_ports, ports_clash, tolerates};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Why a pod is turned away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// `OutOfcpu`, `NodeAffinity`, `NodePorts`.
    pub reason: String,
    /// In a sentence.
    pub message: String,
}

/// What the pods of each node hold.
#[derive(Default)]
pub struct Admission {
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// By uid.
    pods: HashMap<String, Hold>,
    /// Sums and numbers of pods, by node.
    nodes: HashMap<String, (Requests, i64)>,
    /// Pods that would hold more than there is now.
    deferred: BTreeSet<String>,
}

/// What one pod holds.
struct Hold {
    node: String,
    asked: Requests,
    ports: BTreeSet<HostPort>,
}

/// Millicores and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Requests {
    cpu: i64,
    memory: i64,
    disk: i64,
}

impl Admission {
    /// Lets the pod in, unless it does not fit; `shown` is its node as the API shows it. Who is in stays in.
    pub fn admit(
        &self,
        uid: &str,
        pod: &Pod,
        node: &Node,
        shown: Option<&core::Node>,
    ) -> Result<(), Refusal> {
        let mut held = self.held.lock();
        if held.pods.contains_key(uid) {
            return Ok(());
        }
        let asked = pod.spec.as_ref().map(requests).unwrap_or_default();
        let ports = pod.spec.as_ref().map(|spec| host_ports(&spec.containers)).unwrap_or_default();
        // What runs was let in by the process before this one.
        if pod.status.as_ref().is_none_or(|status| status.start_time.is_none()) {
            let (used, pods) = held.nodes.get(&node.name).copied().unwrap_or_default();
            fits(asked, used, pods, node)?;
            if let (Some(spec), Some(shown)) = (&pod.spec, shown) {
                wanted(spec, shown)?;
            }
            let mut others = held.pods.values().filter(|other| other.node == node.name);
            if others.any(|other| ports_clash(&ports, &other.ports)) {
                return refuse("NodePorts", "node(s) didn't have free ports for the requested pod ports");
            }
        }
        let (sum, pods) = held.nodes.entry(node.name.clone()).or_default();
        *sum = sum.each(asked, i64::saturating_add);
        *pods += 1;
        held.pods.insert(uid.to_owned(), Hold { node: node.name.clone(), asked, ports });
        Ok(())
    }

    /// Lets a pod that is in hold what its spec asks for now, or tells whether it ever can, and why not.
    pub fn resize(&self, uid: &str, pod: &Pod, node: &Node) -> Result<(), (&'static str, String)> {
        let mut held = self.held.lock();
        let asked = pod.spec.as_ref().map(requests).unwrap_or_default();
        let around = node.surroundings();
        for (name, asked, capacity) in
            [("memory", asked.memory, around.memory_bytes), ("cpu", asked.cpu, around.cpu_millis)]
        {
            if asked > capacity {
                let message = format!(
                    "Node didn't have enough capacity: {name}, requested: {asked}, capacity: {capacity}"
                );
                return Err(("Infeasible", message));
            }
        }
        let own = held.pods.get(uid).map(|own| own.asked).unwrap_or_default();
        let (used, pods) = held.nodes.get(&node.name).copied().unwrap_or_default();
        let used = used.each(own, i64::saturating_sub);
        if let Err(refusal) = fits(asked, used, pods - 1, node) {
            held.deferred.insert(uid.to_owned());
            return Err(("Deferred", refusal.message));
        }
        let (sum, _) = held.nodes.entry(node.name.clone()).or_default();
        *sum = used.each(asked, i64::saturating_add);
        let ports = held.pods.remove(uid).map(|own| own.ports).unwrap_or_default();
        held.pods.insert(uid.to_owned(), Hold { node: node.name.clone(), asked, ports });
        Ok(())
    }

    /// Those who wait for room, who should ask again now.
    pub fn deferred(&self) -> Vec<String> {
        std::mem::take(&mut self.held.lock().deferred).into_iter().collect()
    }

    /// The pod holds nothing any more.
    pub fn release(&self, uid: &str) {
        let mut held = self.held.lock();
        held.deferred.remove(uid);
        let Some(Hold { node, asked, .. }) = held.pods.remove(uid) else { return };
        if let Some((sum, pods)) = held.nodes.get_mut(&node) {
            *sum = sum.each(asked, i64::saturating_sub);
            *pods -= 1;
        }
    }
}

impl Requests {
    fn each(self, other: Self, with: fn(i64, i64) -> i64) -> Self {
        Self {
            cpu: with(self.cpu, other.cpu),
            memory: with(self.memory, other.memory),
            disk: with(self.disk, other.disk),
        }
    }

    fn of(
        amounts: Option<&BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>,
    ) -> Self {
        let amount = |name: &str| Quantity::parse(&amounts?.get(name)?.0).ok();
        Self {
            cpu: amount("cpu").map_or(0, |amount| amount.milli_value()),
            memory: amount("memory").map_or(0, |amount| amount.value()),
            disk: amount("ephemeral-storage").map_or(0, |amount| amount.value()),
        }
    }
}

/// What a pod asks for: the main containers and sidecars together, or an init container and the sidecars before it, if
/// that is more.
fn requests(spec: &PodSpec) -> Requests {
    let of = |container: &Container| {
        Requests::of(container.resources.as_ref().and_then(|resources| resources.requests.as_ref()))
    };
    let (mut sidecars, mut most) = (Requests::default(), Requests::default());
    for init in spec.init_containers.iter().flatten() {
        let with = sidecars.each(of(init), i64::saturating_add);
        most = most.each(with, i64::max);
        if crate::step::is_sidecar(init) {
            sidecars = with;
        }
    }
    let main = spec.containers.iter().map(of).fold(sidecars, |sum, one| sum.each(one, i64::saturating_add));
    main.each(most, i64::max).each(Requests::of(spec.overhead.as_ref()), i64::saturating_add)
}

fn fits(asked: Requests, used: Requests, pods: i64, node: &Node) -> Result<(), Refusal> {
    let around = node.surroundings();
    for (name, asked, used, capacity) in [
        ("pods", 1, pods, i64::from(node.max_pods)),
        ("cpu", asked.cpu, used.cpu, around.cpu_millis),
        ("memory", asked.memory, used.memory, around.memory_bytes),
        ("ephemeral-storage", asked.disk, used.disk, around.disk_bytes),
    ] {
        if asked > 0 && asked > capacity.saturating_sub(used) {
            let message = format!(
                "Node didn't have enough resource: {name}, requested: {asked}, used: {used}, capacity: {capacity}"
            );
            return Err(Refusal { reason: format!("OutOf{name}"), message });
        }
    }
    Ok(())
}

fn refuse(predicate: &str, why: &str) -> Result<(), Refusal> {
    Err(Refusal { reason: predicate.to_owned(), message: format!("Predicate {predicate} failed: {why}") })
}

/// Whether the node is one that the pod wants and bears.
fn wanted(spec: &PodSpec, shown: &core::Node) -> Result<(), Refusal> {
    let labels = shown.metadata.labels.clone().unwrap_or_default();
    if !NodeTerms::of(spec).allow(shown.metadata.name.as_deref().unwrap_or_default(), &labels) {
        return refuse("NodeAffinity", "node(s) didn't match Pod's node affinity/selector");
    }
    let taints = shown.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    if taints.filter(|taint| taint.effect == "NoExecute").any(|taint| !tolerates(tolerations, taint)) {
        return refuse("TaintToleration", "node(s) had taints that the pod didn't tolerate");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node(cpus: usize, max_pods: u16) -> Node {
        let facts = crate::machine::Facts { cpus, ..crate::machine::Facts::default() };
        let node = crate::node::simulated(&crate::tests::args("1"), &facts).pop_first().unwrap().1;
        Node { max_pods, ..node }
    }

    fn pod(spec: &Value) -> Pod {
        serde_json::from_value(json!({ "spec": spec })).unwrap()
    }

    fn asking(cpu: &str) -> Pod {
        pod(&json!({ "containers": [{ "name": "c", "resources": { "requests": { "cpu": cpu } } }] }))
    }

    fn reason(admitted: Result<(), Refusal>) -> String {
        admitted.err().map(|refusal| refusal.reason).unwrap_or_default()
    }

    #[test]
    fn what_is_held_is_not_given_again_until_it_is_released() {
        let (admission, node) = (Admission::default(), node(2, 3));
        let admit = |uid: &str, cpu: &str| admission.admit(uid, &asking(cpu), &node, None);
        assert_eq!(reason(admit("a", "1500m")), "");
        let refused = admit("b", "600m").unwrap_err();
        assert_eq!(refused.reason, "OutOfcpu");
        let words = "Node didn't have enough resource: cpu, requested: 600, used: 1500, capacity: 2000";
        assert_eq!(refused.message, words);
        assert_eq!(reason(admit("a", "1500m")), "", "who is in stays in");
        assert_eq!(reason(admit("b", "500m")), "");
        assert_eq!(reason(admit("c", "0")), "", "who asks for nothing always fits");
        assert_eq!(reason(admit("d", "0")), "OutOfpods");
        admission.release("a");
        assert_eq!(reason(admit("d", "1")), "");
    }

    #[test]
    fn a_port_of_the_node_is_one_pods_at_a_time() {
        let (admission, node) = (Admission::default(), node(2, 9));
        let admit = |uid: &str, port: Value| {
            let pod = pod(&json!({ "containers": [{ "name": "c", "ports": [port] }] }));
            reason(admission.admit(uid, &pod, &node, None))
        };
        let local = json!({ "containerPort": 80, "hostPort": 80, "hostIP": "127.0.0.1" });
        assert_eq!(admit("a", local.clone()), "");
        assert_eq!(admit("b", local), "NodePorts");
        assert_eq!(admit("b", json!({ "containerPort": 80, "hostPort": 80 })), "NodePorts");
        assert_eq!(admit("b", json!({ "containerPort": 80, "hostPort": 80, "hostIP": "10.0.0.1" })), "");
        assert_eq!(admit("c", json!({ "containerPort": 80, "hostPort": 80, "protocol": "UDP" })), "");
        assert_eq!(admit("d", json!({ "containerPort": 80 })), "");
        admission.release("a");
        admission.release("b");
        assert_eq!(admit("e", json!({ "containerPort": 80, "hostPort": 80 })), "");
    }

    #[test]
    fn what_runs_already_is_not_turned_away() {
        let (admission, node) = (Admission::default(), node(1, 9));
        let mut running = asking("4");
        running.status = serde_json::from_value(json!({ "startTime": "2026-01-01T00:00:00Z" })).unwrap();
        assert_eq!(reason(admission.admit("a", &running, &node, None)), "");
        assert_eq!(reason(admission.admit("b", &asking("1m"), &node, None)), "OutOfcpu");
    }

    #[test]
    fn init_containers_count_with_the_sidecars_before_them() {
        let one = |cpu: &str, restart: Value| json!({ "name": cpu, "restartPolicy": restart, "resources": { "requests": { "cpu": cpu } } });
        let always = json!("Always");
        for (inits, expected) in [
            (json!([one("3", Value::Null)]), 3000),
            (json!([one("3", always.clone())]), 4000),
            (json!([one("2", always.clone()), one("3", Value::Null)]), 5000),
            (json!([one("3", Value::Null), one("2", always)]), 3000),
        ] {
            let spec = json!({ "initContainers": inits, "containers": [one("1", Value::Null)] });
            assert_eq!(requests(&pod(&spec).spec.unwrap()).cpu, expected);
        }
    }

    #[test]
    fn a_node_must_be_one_that_the_pod_wants_and_bears() {
        let shown: core::Node = serde_json::from_value(json!({
            "metadata": { "name": "n", "labels": { "disk": "ssd" } },
            "spec": { "taints": [{ "key": "old", "effect": "NoExecute" }, { "key": "full", "effect": "NoSchedule" }] },
        }))
        .unwrap();
        let bears = json!([{ "key": "old", "operator": "Exists" }]);
        for (selector, tolerations, expected) in [
            (json!({ "disk": "ssd" }), bears.clone(), ""),
            (json!({ "disk": "hdd" }), bears, "NodeAffinity"),
            (json!({}), json!([]), "TaintToleration"),
        ] {
            let spec = json!({ "containers": [], "nodeSelector": selector, "tolerations": tolerations });
            let found = wanted(&pod(&spec).spec.unwrap(), &shown);
            assert_eq!(reason(found), expected);
        }
    }

    #[test]
    fn a_resize_waits_for_room_or_can_never_be() {
        let (admission, node) = (Admission::default(), node(2, 9));
        for uid in ["a", "b"] {
            assert_eq!(admission.admit(uid, &asking("1"), &node, None), Ok(()));
        }
        let refused = |cpu: &str| admission.resize("a", &asking(cpu), &node);
        let words = "Node didn't have enough capacity: cpu, requested: 3000, capacity: 2000";
        assert_eq!(refused("3"), Err(("Infeasible", words.to_owned())));
        let words = "Node didn't have enough resource: cpu, requested: 1500, used: 1000, capacity: 2000";
        assert_eq!(refused("1500m"), Err(("Deferred", words.to_owned())));
        admission.release("b");
        assert_eq!(admission.deferred(), ["a"]);
        assert_eq!(refused("1500m"), Ok(()));
        assert!(admission.deferred().is_empty());
        assert!(admission.admit("c", &asking("600m"), &node, None).is_err(), "it holds more now");
    }
}
