//! Node objects, as plain values: which nodes this process plays, and what each says of itself.

use crate::args::Args;
use crate::launch::Surroundings;
use crate::machine::{self, Facts};
use crate::runtime::Image;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::NodeCondition;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// One node that this process plays.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its address, which its simulated containers share with no one but host-network pods.
    pub address: IpAddr,
    /// Where its pods' addresses come from.
    pub pod_cidr: Ipv4Net,
    /// Port of the server.
    pub port: u16,
    /// Most pods it takes.
    pub max_pods: u16,
    /// Its machine.
    pub facts: Facts,
    /// What runs its containers: `containerd://1.6.20`.
    pub runtime: String,
    /// It has no containers.
    pub simulated: bool,
}

/// Nodes by name.
pub type Nodes = BTreeMap<String, Node>;

/// The nodes that `args` asks to simulate.
pub fn simulated(args: &Args, facts: &Facts) -> Nodes {
    let node = |index: u16| Node {
        name: format!("{}-{index}", args.simulated_node_prefix),
        address: args.node_ip,
        pod_cidr: simulated_cidr(index),
        port: args.port,
        max_pods: args.max_pods,
        facts: facts.clone(),
        runtime: concat!("simulated://", env!("CARGO_PKG_VERSION")).to_owned(),
        simulated: true,
    };
    (0..args.simulated_nodes).map(node).map(|node| (node.name.clone(), node)).collect()
}

/// The one node that this machine is.
pub fn real(args: &Args, facts: &Facts, pod_cidr: Ipv4Net, runtime: String) -> Nodes {
    let name = args.hostname_override.clone().unwrap_or_else(|| facts.hostname.clone());
    let node = Node {
        name: name.clone(),
        address: args.node_ip,
        pod_cidr,
        port: args.port,
        max_pods: args.max_pods,
        facts: facts.clone(),
        runtime,
        simulated: false,
    };
    Nodes::from([(name, node)])
}

/// 10.128.0.0/24 upwards: far from the addresses of real pods, Services and nodes, for the first 29,000 nodes.
fn simulated_cidr(index: u16) -> Ipv4Net {
    let [high, low] = index.to_be_bytes();
    let address = Ipv4Addr::new(10, 128_u8.wrapping_add(high), low, 0);
    Ipv4Net::new_assert(address, 24)
}

impl Node {
    /// The object to create, status included.
    pub fn object(&self, now: &str) -> Value {
        let mut object = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": self.name, "labels": self.labels() },
            "spec": self.spec(),
            "status": self.status(now, &[], &[], None),
        });
        if self.simulated {
            object["metadata"]["annotations"] = json!({ "coracle.dev/simulated": "true" });
        }
        object
    }

    /// What the node's pods share.
    pub fn surroundings(&self) -> Surroundings {
        let kib = |kib: u64| i64::try_from(kib.saturating_mul(1024)).unwrap_or(i64::MAX);
        Surroundings {
            node: self.name.clone(),
            host: self.address,
            memory_bytes: kib(self.facts.memory_kib),
            cpu_millis: i64::try_from(self.facts.cpus.saturating_mul(1000)).unwrap_or(i64::MAX),
            disk_bytes: kib(self.facts.disk_kib),
            dns: Vec::new(),
            domain: String::new(),
            cgroup_root: "/".to_owned(),
        }
    }

    /// Labels that every node carries.
    pub fn labels(&self) -> Value {
        let arch = machine::architecture();
        json!({
            "kubernetes.io/hostname": self.name, "kubernetes.io/arch": arch, "kubernetes.io/os": "linux",
            "beta.kubernetes.io/arch": arch, "beta.kubernetes.io/os": "linux",
        })
    }

    /// The part of the spec that the kubelet knows.
    pub fn spec(&self) -> Value {
        let cidr = self.pod_cidr.to_string();
        json!({ "podCIDR": cidr, "podCIDRs": [cidr] })
    }

    /// What the node is and how it does. `known` are the conditions that the API shows: what stays as it is keeps its time.
    /// `trouble` is why no pods can be run.
    pub fn status(
        &self,
        now: &str,
        known: &[NodeCondition],
        images: &[Image],
        trouble: Option<&str>,
    ) -> Value {
        let since = |kind: &str, status: &str| {
            let same = known.iter().find(|one| one.type_ == kind && one.status == status);
            same.and_then(|one| one.last_transition_time.clone()).map_or_else(|| json!(now), |at| json!(at))
        };
        let images = images.iter().take(IMAGES_MAX);
        let images: Vec<Value> =
            images.map(|image| json!({ "names": image.names, "sizeBytes": image.size })).collect();
        let resources = json!({
            "cpu": self.facts.cpus.to_string(), "memory": format!("{}Ki", self.facts.memory_kib),
            "ephemeral-storage": format!("{}Ki", self.facts.disk_kib), "pods": self.max_pods.to_string(),
            "hugepages-1Gi": "0", "hugepages-2Mi": "0",
        });
        let arch = machine::architecture();
        json!({
            "capacity": resources, "allocatable": resources,
            "addresses": [
                { "type": "InternalIP", "address": self.address }, { "type": "Hostname", "address": self.name },
            ],
            "daemonEndpoints": { "kubeletEndpoint": { "Port": self.port } },
            "nodeInfo": {
                "architecture": arch, "operatingSystem": "linux", "kernelVersion": self.facts.kernel,
                "osImage": self.facts.os_image, "machineID": self.facts.machine_id, "systemUUID": self.facts.machine_id,
                "bootID": self.facts.boot_id, "kubeletVersion": "v1.33.6+coracle", "kubeProxyVersion": "",
                "containerRuntimeVersion": self.runtime,
            },
            "images": images,
            "conditions": conditions(trouble).map(|(kind, status, reason, message)| json!({
                "type": kind, "status": status, "reason": reason, "message": message,
                "lastHeartbeatTime": now, "lastTransitionTime": since(kind, status),
            })),
        })
    }

    /// Whether the API shows the conditions that hold: someone else may have said otherwise while we were away.
    pub fn is_told(&self, known: &[NodeCondition], trouble: Option<&str>) -> bool {
        conditions(trouble)
            .iter()
            .all(|(kind, status, ..)| known.iter().any(|one| one.type_ == *kind && one.status == *status))
    }

    /// The node's lease, renewed at `now`.
    pub fn lease(&self, now: &str) -> Value {
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": { "name": self.name, "namespace": "kube-node-lease" },
            "spec": { "holderIdentity": self.name, "leaseDurationSeconds": 40, "renewTime": now },
        })
    }
}

/// Images that a node tells of.
const IMAGES_MAX: usize = 50;

/// Type, status, reason and message.
type Condition<'a> = (&'static str, &'static str, &'static str, &'a str);

fn conditions(trouble: Option<&str>) -> [Condition<'_>; 4] {
    let ready = match trouble {
        None => ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
        Some(why) => ("Ready", "False", "KubeletNotReady", why),
    };
    [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ready,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_whose_runtime_is_away_is_not_ready_and_says_since_when() {
        let known = |status: &str| -> Vec<NodeCondition> {
            let since = "2026-01-01T00:00:00Z";
            let ready = json!([{ "type": "Ready", "status": status, "lastTransitionTime": since }]);
            serde_json::from_value(ready).unwrap()
        };
        let node = simulated(&crate::tests::args("1"), &Facts::default()).pop_first().unwrap().1;
        let now = "2026-01-02T00:00:00Z";
        for (before, trouble, status, since) in [
            ("True", None, "True", "2026-01-01T00:00:00Z"),
            ("True", Some("down"), "False", now),
            ("Unknown", None, "True", now),
        ] {
            let shown = &node.status(now, &known(before), &[], trouble)["conditions"][3];
            assert_eq!((&shown["status"], &shown["lastTransitionTime"]), (&json!(status), &json!(since)));
        }
    }

    #[test]
    fn simulated_nodes_have_pod_addresses_of_their_own() {
        for (index, expected) in [(0, "10.128.0.0/24"), (255, "10.128.255.0/24"), (256, "10.129.0.0/24")] {
            assert_eq!(simulated_cidr(index).to_string(), expected);
        }
    }
}
