//! A pod as the scheduler needs it, parsed once when it is seen.

use crate::resources::Requests;
use crate::terms::{PodTerm, SpreadConstraint, parse_pod_terms, parse_weighted_terms};
use crate::volumes::Volumes;
use coracle_client::placement::{HostPort, NodeTerms, host_ports};
use coracle_client::{Key, ObjectId, controller_of};
use k8s_openapi::api::core::v1::{Pod, PodCondition, Toleration};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug)]
pub struct PodInfo {
    pub id: ObjectId,
    pub key: Key,
    pub labels: BTreeMap<String, String>,
    pub priority: i32,
    pub may_preempt: bool,
    /// Empty while pending.
    pub node: String,
    pub nominated: String,
    pub terminating: bool,
    pub gated: bool,
    pub scheduler: String,
    pub owner_uid: Option<String>,
    pub created: Option<jiff::Timestamp>,
    pub requests: Requests,
    pub host_ports: BTreeSet<HostPort>,
    pub tolerations: Vec<Toleration>,
    pub node_terms: NodeTerms,
    pub affinity: Vec<PodTerm>,
    pub anti_affinity: Vec<PodTerm>,
    /// Positive weights attract, negative ones repel.
    pub preferred: Vec<(i64, PodTerm)>,
    pub spread: Vec<SpreadConstraint>,
    pub claims: Vec<String>,
    /// Those of them that are made for it.
    pub own_claims: BTreeSet<String>,
    /// What its claims say of nodes; found out whenever it is tried.
    pub volumes: Volumes,
    pub conditions: Vec<PodCondition>,
}

impl PodInfo {
    pub fn of(pod: &Pod) -> Self {
        let meta = &pod.metadata;
        let spec = pod.spec.clone().unwrap_or_default();
        let status = pod.status.clone().unwrap_or_default();
        let labels = meta.labels.clone().unwrap_or_default();
        let key = Key::of(meta);
        let affinity = spec.affinity.clone().unwrap_or_default();
        let together = affinity.pod_affinity.unwrap_or_default();
        let apart = affinity.pod_anti_affinity.unwrap_or_default();
        let mut preferred = parse_weighted_terms(
            together.preferred_during_scheduling_ignored_during_execution.as_deref(),
            1,
            &key.namespace,
        );
        preferred.extend(parse_weighted_terms(
            apart.preferred_during_scheduling_ignored_during_execution.as_deref(),
            -1,
            &key.namespace,
        ));
        Self {
            id: ObjectId::of(pod),
            priority: spec.priority.unwrap_or(0),
            may_preempt: spec.preemption_policy.as_deref() != Some("Never"),
            node: spec.node_name.clone().unwrap_or_default(),
            nominated: status.nominated_node_name.unwrap_or_default(),
            terminating: meta.deletion_timestamp.is_some(),
            gated: spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()),
            scheduler: spec.scheduler_name.clone().unwrap_or_else(|| "default-scheduler".into()),
            owner_uid: controller_of(meta).map(|owner| owner.uid.clone()),
            created: meta.creation_timestamp.as_ref().map(|at| at.0),
            requests: Requests::of(&spec),
            host_ports: host_ports(&spec.containers),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            node_terms: NodeTerms::of(&spec),
            affinity: parse_pod_terms(
                together.required_during_scheduling_ignored_during_execution.as_deref(),
                &key.namespace,
            ),
            anti_affinity: parse_pod_terms(
                apart.required_during_scheduling_ignored_during_execution.as_deref(),
                &key.namespace,
            ),
            preferred,
            spread: spec
                .topology_spread_constraints
                .iter()
                .flatten()
                .map(|constraint| SpreadConstraint::parse(constraint, &labels))
                .collect(),
            claims: claims(&key.name, spec.volumes.as_deref().unwrap_or_default()),
            own_claims: own_claims(&key.name, spec.volumes.as_deref().unwrap_or_default()),
            volumes: Volumes::default(),
            conditions: status.conditions.unwrap_or_default(),
            labels,
            key,
        }
    }

    /// Waits for this scheduler to give it a node.
    pub fn is_pending(&self, scheduler: &str) -> bool {
        self.node.is_empty() && !self.terminating && !self.gated && self.scheduler == scheduler
    }
}

fn claims(pod: &str, volumes: &[k8s_openapi::api::core::v1::Volume]) -> Vec<String> {
    let claim = |volume: &k8s_openapi::api::core::v1::Volume| {
        let named = volume.persistent_volume_claim.as_ref().map(|claim| claim.claim_name.clone());
        named.or_else(|| own_claim(pod, volume))
    };
    volumes.iter().filter_map(claim).collect()
}

fn own_claims(pod: &str, volumes: &[k8s_openapi::api::core::v1::Volume]) -> BTreeSet<String> {
    volumes.iter().filter_map(|volume| own_claim(pod, volume)).collect()
}

/// The claim that is made for an ephemeral volume.
fn own_claim(pod: &str, volume: &k8s_openapi::api::core::v1::Volume) -> Option<String> {
    volume.ephemeral.as_ref().map(|_| format!("{pod}-{}", volume.name))
}
