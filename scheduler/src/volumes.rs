//! What a pod's claims say of nodes, and which volumes they get when it has one.
//!
//!     claims, volumes, classes ──► look ──► trouble, or Volumes ──► on(node) ──► what to write before the pod is bound
//!
//! A claim of a class that waits for its first consumer is bound only once its pod has a node: to a volume that can be
//! reached from there, or to one that is made for that node. As upstream (the plugin VolumeBinding).

use coracle_api::quantity::Quantity;
use coracle_client::placement::{Labels, NodeTerms};
use coracle_client::{Key, Store};
use k8s_openapi::api::core::v1::{
    NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume, PersistentVolumeClaim,
};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::core::{Selector, SelectorExt};
use serde_json::{Value, json};
use std::sync::Arc;

const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// Tells whoever makes volumes for which node one is wanted.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Of classes whose volumes nobody makes.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// Everything that is known of volumes.
pub struct Known<'a> {
    pub claims: &'a Store<PersistentVolumeClaim>,
    pub volumes: &'a Store<PersistentVolume>,
    pub classes: &'a Store<StorageClass>,
}

/// What a pod's claims say of nodes.
#[derive(Clone, Debug, Default)]
pub struct Volumes {
    /// Where each bound volume can be reached from.
    bound: Vec<NodeTerms>,
    /// Claims that wait for the pod's node, the smallest first.
    waiting: Vec<Waiting>,
}

#[derive(Clone, Debug)]
struct Waiting {
    claim: Arc<PersistentVolumeClaim>,
    /// Free volumes that fit, the smallest first.
    fitting: Vec<(Arc<PersistentVolume>, NodeTerms)>,
    /// Where a volume can be made; `None` where nobody makes any.
    made: Option<NodeTerms>,
    /// The node for which one is being made already.
    selected: Option<String>,
}

/// One write before a pod is bound: a merge patch.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Gives a volume to a claim.
    Volume { name: String, patch: Value },
    /// Asks for a volume that can be reached from the node.
    Claim { key: Key, patch: Value },
}

/// Whether a claim has its volume, and both know.
pub fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    let noted = |notes: &std::collections::BTreeMap<String, String>| notes.contains_key(BIND_COMPLETED);
    !volume_of(claim).is_empty() && claim.metadata.annotations.as_ref().is_some_and(noted)
}

fn volume_of(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default()
}

fn note<'a>(claim: &'a PersistentVolumeClaim, key: &str) -> Option<&'a String> {
    claim.metadata.annotations.as_ref()?.get(key)
}

/// What the claims of a pod say; `ephemeral` tells which of them are made for it.
///
/// # Errors
/// What keeps the pod from any node.
pub fn look(
    known: &Known<'_>,
    namespace: &str,
    claims: &[String],
    ephemeral: impl Fn(&str) -> bool,
) -> Result<Volumes, String> {
    let mut volumes = Volumes::default();
    let mut immediate = false;
    for name in claims {
        let Some(claim) = known.claims.get(&Key::new(namespace, name.clone())) else {
            return Err(if ephemeral(name) {
                format!(
                    "waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}"
                )
            } else {
                format!("persistentvolumeclaim {name:?} not found")
            });
        };
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
        }
        let named = volume_of(&claim);
        if claim.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Lost")) {
            return Err(format!(
                "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {named:?}"
            ));
        }
        if is_bound(&claim) {
            volumes.bound.extend(known.volumes.get(&Key::cluster(named.to_owned())).map(|one| terms(&one)));
            continue;
        }
        match class_that_waits(known, &claim).filter(|_| named.is_empty()) {
            Some(class) => volumes.waiting.push(Waiting::of(known, claim, &class)),
            None => immediate = true,
        }
    }
    if immediate {
        return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
    }
    // Small ones first, so that they leave the large volumes to the others.
    volumes.waiting.sort_by_key(|waiting| asked(&waiting.claim));
    Ok(volumes)
}

fn class_that_waits(known: &Known<'_>, claim: &PersistentVolumeClaim) -> Option<Arc<StorageClass>> {
    let name = claim.spec.as_ref()?.storage_class_name.clone().filter(|name| !name.is_empty())?;
    let class = known.classes.get(&Key::cluster(name))?;
    (class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")).then_some(class)
}

fn terms(volume: &PersistentVolume) -> NodeTerms {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required.as_ref());
    NodeTerms {
        required: required.map(|required| required.node_selector_terms.clone()),
        ..NodeTerms::default()
    }
}

fn asked(claim: &PersistentVolumeClaim) -> Quantity {
    let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    let asked = requests.and_then(|requests| Quantity::parse(&requests.get("storage")?.0).ok());
    asked.unwrap_or(Quantity::ZERO)
}

fn size(volume: &PersistentVolume) -> Option<Quantity> {
    Quantity::parse(&volume.spec.as_ref()?.capacity.as_ref()?.get("storage")?.0).ok()
}

fn fits(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let (Some(own), Some(spec)) = (&volume.spec, &claim.spec) else { return false };
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".into());
    let modes = own.access_modes.clone().unwrap_or_default();
    let labels = volume.metadata.labels.clone().unwrap_or_default();
    let selected = spec.selector.as_ref().is_none_or(|selector| {
        Selector::try_from(selector.clone()).is_ok_and(|selector| selector.matches(&labels))
    });
    volume.metadata.deletion_timestamp.is_none()
        && own.claim_ref.is_none()
        && own.storage_class_name.clone().unwrap_or_default()
            == spec.storage_class_name.clone().unwrap_or_default()
        && mode(&own.volume_mode) == mode(&spec.volume_mode)
        && spec.access_modes.iter().flatten().all(|wanted| modes.contains(wanted))
        && selected
        && size(volume).is_some_and(|size| size >= asked(claim))
}

impl Waiting {
    fn of(known: &Known<'_>, claim: Arc<PersistentVolumeClaim>, class: &StorageClass) -> Self {
        let mut fitting: Vec<_> =
            known.volumes.list().into_iter().filter(|volume| fits(volume, &claim)).collect();
        fitting.sort_by_key(|volume| (size(volume), volume.metadata.name.clone()));
        let topologies = class.allowed_topologies.as_ref().filter(|topologies| !topologies.is_empty());
        let term = |topology: &k8s_openapi::api::core::v1::TopologySelectorTerm| {
            let expressions = topology.match_label_expressions.iter().flatten();
            let requirement = |expression: &k8s_openapi::api::core::v1::TopologySelectorLabelRequirement| {
                NodeSelectorRequirement {
                    key: expression.key.clone(),
                    operator: "In".into(),
                    values: Some(expression.values.clone()),
                }
            };
            NodeSelectorTerm {
                match_expressions: Some(expressions.map(requirement).collect()),
                ..NodeSelectorTerm::default()
            }
        };
        let required = topologies.map(|topologies| topologies.iter().map(term).collect());
        let made =
            (class.provisioner != NO_PROVISIONER).then(|| NodeTerms { required, ..NodeTerms::default() });
        let selected = note(&claim, SELECTED_NODE).cloned();
        let fitting = fitting.into_iter().map(|volume| (volume.clone(), terms(&volume))).collect();
        Self { claim, fitting, made, selected }
    }
}

impl Volumes {
    /// Says that the bound volumes can be reached from these nodes only.
    #[cfg(test)]
    pub fn bound_to(terms: Vec<NodeTerms>) -> Self {
        Self { bound: terms, waiting: Vec::new() }
    }

    /// The claims that wait.
    pub fn waiting(&self) -> impl Iterator<Item = Key> {
        self.waiting.iter().map(|waiting| Key::of(&waiting.claim.metadata))
    }

    /// What to write when the pod goes to that node.
    ///
    /// # Errors
    /// Why the node is none for the pod, in upstream's words.
    pub fn on(&self, node: &str, labels: &Labels) -> Result<Vec<Write>, &'static str> {
        if !self.bound.iter().all(|terms| terms.allow(node, labels)) {
            return Err("node(s) had volume node affinity conflict");
        }
        let mut writes = Vec::new();
        let mut taken: Vec<&str> = Vec::new();
        for waiting in &self.waiting {
            let write = waiting.on(node, labels, &mut taken);
            writes.push(write.ok_or("node(s) didn't find available persistent volumes to bind")?);
        }
        Ok(writes)
    }
}

impl Waiting {
    fn on<'a>(&'a self, node: &str, labels: &Labels, taken: &mut Vec<&'a str>) -> Option<Write> {
        let meta = &self.claim.metadata;
        let makes = || Write::Claim {
            key: Key::of(meta),
            patch: json!({"metadata": {"uid": meta.uid, "annotations": {SELECTED_NODE: node}}}),
        };
        if let Some(selected) = &self.selected {
            return (selected == node).then(makes);
        }
        let name = |volume: &'a PersistentVolume| volume.metadata.name.as_deref().unwrap_or_default();
        let mut reachable = self.fitting.iter().filter(|(_, terms)| terms.allow(node, labels));
        if let Some((volume, _)) = reachable.find(|(volume, _)| !taken.contains(&name(volume))) {
            taken.push(name(volume));
            let patch = json!({
                "metadata": {
                    "resourceVersion": volume.metadata.resource_version,
                    "annotations": {BOUND_BY_CONTROLLER: "yes"},
                },
                "spec": {"claimRef": {
                    "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": meta.namespace,
                    "name": meta.name, "uid": meta.uid, "resourceVersion": meta.resource_version,
                }},
            });
            return Some(Write::Volume { name: name(volume).to_owned(), patch });
        }
        self.made.as_ref().filter(|terms| terms.allow(node, labels)).map(|_| makes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        claims: Store<PersistentVolumeClaim>,
        volumes: Store<PersistentVolume>,
        classes: Store<StorageClass>,
    }

    fn object<K: k8s_openapi::serde::de::DeserializeOwned>(value: Value) -> K {
        serde_json::from_value(value).expect("an object")
    }

    /// Two volumes of 1 and 3 Gi on node `a`, and classes that wait: of theirs nobody makes any, of `made` somebody does.
    fn world() -> World {
        let world = World { claims: Store::new(&[]), volumes: Store::new(&[]), classes: Store::new(&[]) };
        for (name, provisioner) in [("local", NO_PROVISIONER), ("made", "x")] {
            world.classes.upsert(object(json!({"metadata": {"name": name}, "provisioner": provisioner,
                "volumeBindingMode": "WaitForFirstConsumer"})));
        }
        world.classes.upsert(object(json!({"metadata": {"name": "zonal"}, "provisioner": "x",
            "volumeBindingMode": "WaitForFirstConsumer", "allowedTopologies": [{"matchLabelExpressions": [{"key": "zone", "values": ["z"]}]}]})));
        world.classes.upsert(object(json!({"metadata": {"name": "now"}, "provisioner": "x"})));
        for (name, size) in [("large", "3Gi"), ("small", "1Gi")] {
            let here = json!([{"key": "host", "operator": "In", "values": ["a"]}]);
            world.volumes.upsert(object(
                json!({"metadata": {"name": name, "resourceVersion": "7"}, "spec": {
                "capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "storageClassName": "local",
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": here}]}}}}),
            ));
        }
        world
    }

    impl World {
        fn claim(&self, name: &str, class: &str, size: &str, more: &Value) {
            let mut claim = json!({"metadata": {"name": name, "namespace": "ns", "uid": "u"},
                "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}});
            for (key, value) in more.as_object().into_iter().flatten() {
                claim["metadata"][key] = value.clone();
            }
            self.claims.upsert(object(claim));
        }

        fn look(&self, claims: &[&str]) -> Result<Volumes, String> {
            let known = Known { claims: &self.claims, volumes: &self.volumes, classes: &self.classes };
            let claims: Vec<String> = claims.iter().map(|name| (*name).to_owned()).collect();
            look(&known, "ns", &claims, |name| name == "own")
        }

        /// What is written for a pod with these claims on a node, in words.
        fn on(&self, claims: &[&str], node: &str) -> Result<Vec<String>, String> {
            let labels = Labels::from([("host".to_owned(), node.to_owned())]);
            let writes = self.look(claims)?.on(node, &labels)?;
            let word = |write: &Write| match write {
                Write::Volume { name, patch } => format!("{} to {name}", patch["spec"]["claimRef"]["name"]),
                Write::Claim { key, patch } => {
                    format!("{} for {}", key.name, patch["metadata"]["annotations"][SELECTED_NODE])
                }
            };
            Ok(writes.iter().map(word).map(|word| word.replace('"', "")).collect())
        }
    }

    #[test]
    fn a_claim_that_waits_gets_a_volume_that_its_pods_node_reaches_or_one_made_for_it() {
        let world = world();
        world.claim("one", "local", "1Gi", &json!({}));
        world.claim("two", "local", "1Gi", &json!({}));
        world.claim("big", "local", "2Gi", &json!({}));
        world.claim("new", "made", "1Gi", &json!({}));
        world.claim("zonal", "zonal", "1Gi", &json!({}));
        let none = Err("node(s) didn't find available persistent volumes to bind".to_owned());
        let gets = |words: &[&str]| Ok(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(world.on(&["one"], "a"), gets(&["one to small"]));
        assert_eq!(world.on(&["one"], "b"), none);
        assert_eq!(
            world.on(&["big", "one"], "a"),
            gets(&["one to small", "big to large"]),
            "small ones first"
        );
        assert_eq!(world.on(&["one", "two", "big"], "a"), none, "two volumes are not enough for three");
        assert_eq!(world.on(&["new"], "b"), gets(&["new for b"]));
        assert_eq!(world.on(&["zonal"], "b"), none);
        world.claim("new", "made", "1Gi", &json!({"annotations": {SELECTED_NODE: "b"}}));
        assert_eq!(world.on(&["new"], "b"), gets(&["new for b"]));
        assert_eq!(world.on(&["new"], "a"), none, "its volume is being made for another node");
    }

    #[test]
    fn a_claim_that_is_not_there_or_should_be_bound_already_keeps_the_pod_from_every_node() {
        let world = world();
        world.claim("now", "now", "1Gi", &json!({}));
        world.claim("odd", "nobody", "1Gi", &json!({}));
        world.claim("going", "made", "1Gi", &json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}));
        let rows = [
            ("now", "pod has unbound immediate PersistentVolumeClaims"),
            ("odd", "pod has unbound immediate PersistentVolumeClaims"),
            ("going", "persistentvolumeclaim \"going\" is being deleted"),
            ("gone", "persistentvolumeclaim \"gone\" not found"),
            ("own", "waiting for ephemeral volume controller to create the persistentvolumeclaim \"own\""),
        ];
        for (name, want) in rows {
            assert_eq!(world.look(&[name]).map(drop), Err(want.to_owned()), "{name}");
        }
    }
}
