//! Who depends on whom, by uid, as far as the watches tell.
//!
//! In: objects seen and gone. Out: for each change, the uids to look at.

use coracle_client::{Key, ObjectId};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::core::ApiResource;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

pub const FOREGROUND: &str = "foregroundDeletion";
pub const ORPHAN: &str = "orphan";

/// One object.
#[derive(Clone, Debug)]
pub struct Node {
    pub resource: Arc<ApiResource>,
    pub key: Key,
    pub uid: String,
    pub owners: Vec<OwnerReference>,
    pub deleting: bool,
    pub finalizers: Vec<String>,
}

impl Node {
    pub fn new(resource: Arc<ApiResource>, meta: &ObjectMeta) -> Self {
        Self {
            resource,
            key: Key::of(meta),
            uid: meta.uid.clone().unwrap_or_default(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
            finalizers: meta.finalizers.clone().unwrap_or_default(),
        }
    }

    fn has(&self, finalizer: &str) -> bool {
        self.finalizers.iter().any(|own| own == finalizer)
    }

    /// How events name it.
    pub fn id(&self) -> ObjectId {
        ObjectId {
            api_version: self.resource.api_version.clone(),
            kind: self.resource.kind.clone(),
            namespace: self.key.namespace.clone(),
            name: self.key.name.clone(),
            uid: self.uid.clone(),
        }
    }

    /// Owners own in their own namespace; those outside of namespaces, everywhere.
    pub fn may_own_in(&self, namespace: &str) -> bool {
        self.key.namespace.is_empty() || self.key.namespace == namespace
    }

    /// Going away, once its dependents are gone.
    pub fn waits_for_dependents(&self) -> bool {
        self.deleting && self.has(FOREGROUND)
    }

    /// Going away, once its dependents no longer name it.
    pub fn orphans_dependents(&self) -> bool {
        self.deleting && self.has(ORPHAN)
    }
}

#[derive(Default)]
pub struct Graph {
    nodes: HashMap<String, Node>,
    /// By owner.
    dependents: HashMap<String, HashSet<String>>,
    /// What is served, and whether it lives in namespaces.
    served: Vec<(ApiResource, bool)>,
}

impl Graph {
    /// Takes note of what is served.
    pub fn serve(&mut self, served: Vec<(ApiResource, bool)>) {
        self.served = served;
    }

    /// The resource that an owner reference means, whatever version it names.
    pub fn resource_of(&self, api_version: &str, kind: &str) -> Option<(ApiResource, bool)> {
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        self.served.iter().find(|(resource, _)| resource.group == group && resource.kind == kind).cloned()
    }

    pub fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    pub fn dependents(&self, uid: &str) -> Vec<(String, Node)> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| Some((uid.clone(), self.nodes.get(uid)?.clone()))).collect()
    }

    /// Dependents that `owner`, which waits, waits for. Not those that in turn wait for it, over however many others: none
    /// of a circle could ever go.
    pub fn blockers(&self, owner: &str) -> Vec<(String, Node)> {
        let blocks = |owner: &str, node: &Node| {
            node.owners.iter().any(|own| own.uid == owner && own.block_owner_deletion == Some(true))
        };
        let waits_for_owner = |dependent: &str| {
            let (mut seen, mut next) = (HashSet::new(), vec![dependent]);
            while let Some(uid) = next.pop() {
                if uid == owner {
                    return true;
                }
                if self.nodes.get(uid).is_some_and(Node::waits_for_dependents) && seen.insert(uid) {
                    let dependents = self.dependents.get(uid).into_iter().flatten();
                    next.extend(
                        dependents
                            .filter(|dependent| {
                                self.nodes.get(*dependent).is_some_and(|node| blocks(uid, node))
                            })
                            .map(String::as_str),
                    );
                }
            }
            false
        };
        let mut blockers = self.dependents(owner);
        blockers.retain(|(uid, node)| blocks(owner, node) && !waits_for_owner(uid));
        blockers
    }

    /// An object was added or changed; returns whom to look at.
    pub fn saw(&mut self, uid: &str, node: &Node) -> Vec<String> {
        let before = self.nodes.insert(uid.to_owned(), node.clone());
        let owners_of =
            |node: &Node| node.owners.iter().map(|owner| owner.uid.clone()).collect::<HashSet<_>>();
        let (old, new) = (before.as_ref().map(owners_of).unwrap_or_default(), owners_of(node));
        for owner in old.difference(&new) {
            self.forget_dependent(owner, uid);
        }
        for owner in new.difference(&old) {
            self.dependents.entry(owner.clone()).or_default().insert(uid.to_owned());
        }
        let mut look_at = Vec::new();
        let doubtful = |owner: &String| {
            let owner = self.nodes.get(owner);
            owner.is_none_or(|owner| owner.waits_for_dependents() || !owner.may_own_in(&node.key.namespace))
        };
        if node.waits_for_dependents() || node.orphans_dependents() || new.iter().any(doubtful) {
            look_at.push(uid.to_owned());
        }
        // An owner that waited for this dependent may wait no longer.
        look_at.extend(
            old.into_iter().filter(|owner| self.nodes.get(owner).is_some_and(Node::waits_for_dependents)),
        );
        look_at
    }

    /// An object is gone; returns whom to look at.
    pub fn lost(&mut self, uid: &str) -> Vec<String> {
        let Some(node) = self.nodes.remove(uid) else { return Vec::new() };
        let mut look_at: Vec<String> = self.dependents.get(uid).into_iter().flatten().cloned().collect();
        for owner in &node.owners {
            self.forget_dependent(&owner.uid, uid);
            if self.nodes.get(&owner.uid).is_some_and(Node::waits_for_dependents) {
                look_at.push(owner.uid.clone());
            }
        }
        look_at
    }

    /// Forgets a resource that is no longer served, without drawing conclusions.
    pub fn forget_resource(&mut self, resource: &ApiResource) {
        let gone: Vec<_> = self
            .nodes
            .iter()
            .filter(|(_, node)| *node.resource == *resource)
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in gone {
            self.lost(&uid);
        }
    }

    fn forget_dependent(&mut self, owner: &str, dependent: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::object;
    use kube::core::GroupVersionKind;
    use serde_json::{Value, json};

    fn node(meta: Value) -> Node {
        Node::new(
            Arc::new(ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "ConfigMap"))),
            &object(meta),
        )
    }

    fn owned_by(uid: &str) -> Value {
        json!({ "ownerReferences": [{ "apiVersion": "v1", "kind": "ConfigMap", "name": uid, "uid": uid }] })
    }

    #[test]
    fn dependents_are_looked_at_when_their_owner_goes() {
        let mut graph = Graph::default();
        graph.saw("owner", &node(json!({})));
        assert!(graph.saw("child", &node(owned_by("owner"))).is_empty());
        assert_eq!(graph.lost("owner"), ["child"]);
    }

    #[test]
    fn an_owner_in_another_namespace_is_doubted_and_one_outside_of_them_is_not() {
        let mut graph = Graph::default();
        graph.saw("elsewhere", &node(json!({ "namespace": "b" })));
        graph.saw("everywhere", &node(json!({})));
        let child = |owner: &str| {
            let mut meta = owned_by(owner);
            meta["namespace"] = json!("a");
            node(meta)
        };
        assert_eq!(graph.saw("child", &child("elsewhere")), ["child"]);
        assert!(graph.saw("child", &child("everywhere")).is_empty());
    }

    #[test]
    fn an_object_with_an_unknown_owner_is_looked_at() {
        assert_eq!(Graph::default().saw("child", &node(owned_by("nobody"))), ["child"]);
    }

    #[test]
    fn a_circle_of_waiting_objects_does_not_wait_for_itself() {
        let waiting = |owner: &str, waits: bool| {
            let mut meta = owned_by(owner);
            meta["ownerReferences"][0]["blockOwnerDeletion"] = json!(true);
            if waits {
                meta["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
                meta["finalizers"] = json!([FOREGROUND]);
            }
            node(meta)
        };
        let mut graph = Graph::default();
        let blockers = |graph: &Graph, owner: &str| -> Vec<String> {
            let mut uids: Vec<_> = graph.blockers(owner).into_iter().map(|(uid, _)| uid).collect();
            uids.sort();
            uids
        };
        graph.saw("a", &waiting("c", true));
        graph.saw("b", &waiting("a", true));
        graph.saw("c", &waiting("b", false));
        graph.saw("leaf", &waiting("b", true));
        assert_eq!(
            (blockers(&graph, "a"), blockers(&graph, "b")),
            (vec!["b".into()], vec!["c".into(), "leaf".into()])
        );
        assert_eq!(graph.saw("c", &waiting("b", true)), ["c", "b"]);
        assert_eq!((blockers(&graph, "c"), blockers(&graph, "b")), (vec![], vec!["leaf".to_owned()]));
        graph.saw("self", &waiting("self", true));
        assert_eq!(blockers(&graph, "self"), [""; 0]);
    }

    #[test]
    fn an_owner_that_waits_is_looked_at_when_a_dependent_goes() {
        let mut graph = Graph::default();
        graph.saw(
            "owner",
            &node(json!({ "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [FOREGROUND] })),
        );
        graph.saw("child", &node(owned_by("owner")));
        assert_eq!(graph.lost("child"), ["owner"]);
    }
}
