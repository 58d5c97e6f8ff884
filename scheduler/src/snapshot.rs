//! The cluster as the scheduler knows it: nodes with what is used on each, kept up to date pod by pod.
//!
//! In: nodes and placed pods as they change, and placements assumed but not yet confirmed. Out: a value that `decide`
//! reads, cheap to copy (nodes are shared until changed).

use crate::pod::PodInfo;
use crate::resources::Amounts;
use crate::terms::Labels;
use coracle_client::Key;
use k8s_openapi::api::core::v1::{Node, Taint};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Nodes, and names of nodes that pods are on but that are not known (yet).
    nodes: BTreeMap<String, Arc<NodeInfo>>,
    places: HashMap<Key, String>,
    /// Placed pods that keep others away.
    repelling: BTreeMap<Key, Arc<PodInfo>>,
    /// Pods that wait for their victims to leave a node.
    nominated: BTreeMap<Key, Arc<PodInfo>>,
    pub namespaces: BTreeMap<String, Labels>,
}

#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    pub name: String,
    /// False for a node that only its pods tell of.
    pub known: bool,
    pub labels: Labels,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Amounts,
    pub used: Amounts,
    pub used_for_scores: Amounts,
    pub pods: BTreeMap<Key, Arc<PodInfo>>,
}

impl NodeInfo {
    /// How many pods the node takes.
    pub fn pods_max(&self) -> usize {
        usize::try_from(self.allocatable.get("pods")).unwrap_or(0)
    }

    fn add(&mut self, pod: Arc<PodInfo>) {
        self.used.add(&pod.requests.asked);
        self.used_for_scores.add(&pod.requests.for_scores);
        self.pods.insert(pod.key.clone(), pod);
    }

    fn remove(&mut self, key: &Key) {
        if let Some(pod) = self.pods.remove(key) {
            self.used.subtract(&pod.requests.asked);
            self.used_for_scores.subtract(&pod.requests.for_scores);
        }
    }
}

impl Snapshot {
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<NodeInfo>> {
        self.nodes.values().filter(|node| node.known)
    }

    pub fn node(&self, name: &str) -> Option<&Arc<NodeInfo>> {
        self.nodes.get(name).filter(|node| node.known)
    }

    pub fn repelling(&self) -> impl Iterator<Item = &Arc<PodInfo>> {
        self.repelling.values()
    }

    /// Other pods, at least as important, that are about to take a place on the node.
    pub fn nominated_to(&self, node: &str, pod: &PodInfo) -> impl Iterator<Item = &Arc<PodInfo>> {
        self.nominated.values().filter(move |other| {
            other.nominated == node && other.key != pod.key && other.priority >= pod.priority
        })
    }

    pub fn is_placed(&self, key: &Key) -> bool {
        self.places.contains_key(key)
    }

    pub fn set_node(&mut self, node: &Node) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let spec = node.spec.clone().unwrap_or_default();
        let info = Arc::make_mut(self.nodes.entry(name.clone()).or_default());
        info.name = name;
        info.known = true;
        info.labels = node.metadata.labels.clone().unwrap_or_default();
        info.taints = spec.taints.unwrap_or_default();
        info.unschedulable = spec.unschedulable == Some(true);
        let status = node.status.as_ref();
        info.allocatable = Amounts::parse(
            status.and_then(|status| status.allocatable.as_ref().or(status.capacity.as_ref())),
        );
    }

    pub fn remove_node(&mut self, name: &str) {
        if let Some(info) = self.nodes.get_mut(name) {
            Arc::make_mut(info).known = false;
            if info.pods.is_empty() {
                self.nodes.remove(name);
            }
        }
    }

    /// Puts a pod on a node, from wherever it was.
    pub fn place(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.remove_pod(&pod.key);
        self.places.insert(pod.key.clone(), node.to_owned());
        if !pod.anti_affinity.is_empty() {
            self.repelling.insert(pod.key.clone(), pod.clone());
        }
        let info = Arc::make_mut(self.nodes.entry(node.to_owned()).or_default());
        info.name = node.to_owned();
        info.add(pod);
    }

    pub fn remove_pod(&mut self, key: &Key) {
        self.nominated.remove(key);
        self.repelling.remove(key);
        if let Some(node) = self.places.remove(key)
            && let Some(info) = self.nodes.get_mut(&node)
        {
            Arc::make_mut(info).remove(key);
            if !info.known && info.pods.is_empty() {
                self.nodes.remove(&node);
            }
        }
    }

    /// Where a placed pod is.
    pub fn place_of(&self, key: &Key) -> Option<&str> {
        self.places.get(key).map(String::as_str)
    }

    pub fn nominate(&mut self, pod: Arc<PodInfo>) {
        if pod.nominated.is_empty() {
            self.nominated.remove(&pod.key);
        } else {
            self.nominated.insert(pod.key.clone(), pod);
        }
    }

    /// As it would be without these pods.
    pub fn without(&self, pods: &BTreeSet<Key>) -> Self {
        let mut copy = self.clone();
        for key in pods {
            copy.remove_pod(key);
        }
        copy
    }
}
