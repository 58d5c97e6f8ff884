//! Validation: every fault of an object, with Kubernetes' paths, types and texts.
//!
//! In: canonical, defaulted objects that `strategy` has prepared. Out: faults; none means valid. `RULES` says which
//! functions judge a kind; the rules themselves stand in a file for each family of kinds, on the small combinators of
//! `node`. A kind without a row is judged by its metadata alone, and so are custom resources: their schema is not here.

mod admission;
mod aggregation;
mod autoscale;
mod claim;
mod cluster;
mod config;
mod crd;
mod crd_defaults;
mod crd_lists;
mod crd_nested;
mod crd_rules;
mod crd_schema;
mod diff;
mod endpoints;
mod event;
mod flow;
mod hooks;
mod indexes;
mod job;
mod job_status;
mod meta;
mod network;
mod node;
mod pod;
mod quota;
mod rbac;
mod selectors;
mod service;
mod shapes;
mod signing;
mod storage;
mod warn;
mod workload;

#[cfg(test)]
mod tests;

pub use pod::resources::is_extended as is_extended_resource;

use crate::kinds::Kind;
use crate::status::FieldError;
use node::{Faults, Node};
use serde_json::Value;

/// What the maker of a cluster lets its objects ask for; by default no more than Kubernetes does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Policy {
    /// Privileged containers.
    pub allow_privileged: bool,
}

type Create = fn(&Node<'_, '_>, &mut Faults);
/// New, old, subresource.
type Update = fn(&Node<'_, '_>, &Node<'_, '_>, &str, &mut Faults);

/// Tells faults once as those of a new object, and once more as those of an update, which Kubernetes does for some kinds.
fn twice(judge: impl Fn(&mut Faults), out: &mut Faults) {
    judge(out);
    judge(out);
}

/// Metadata is all there is to judge.
fn nothing(_: &Node<'_, '_>, _: &mut Faults) {}
fn no_change(_: &Node<'_, '_>, _: &Node<'_, '_>, _: &str, _: &mut Faults) {}

const RULES: &[(&str, Create, Update)] = &[
    ("Pod", pod::create, pod::update),
    ("PodTemplate", workload::pod_template, workload::pod_template_update),
    ("Deployment", workload::deployment, workload::deployment_update),
    ("ReplicaSet", workload::replica_set, workload::replica_set_update),
    ("StatefulSet", workload::stateful_set, workload::stateful_set_update),
    ("DaemonSet", workload::daemon_set, workload::daemon_set_update),
    ("ReplicationController", workload::replication_controller, workload::replication_controller_update),
    ("ControllerRevision", workload::revision, workload::revision_update),
    ("Job", job::create, job::update),
    ("CronJob", job::cron_job, job::cron_job_update),
    ("Service", service::create, service::update),
    ("Endpoints", endpoints::endpoints, endpoints::endpoints_update),
    ("EndpointSlice", endpoints::slice, endpoints::slice_update),
    ("ConfigMap", config::config_map, config::config_map_update),
    ("Secret", config::secret, config::secret_update),
    ("Namespace", cluster::namespace, cluster::namespace_update),
    ("Node", cluster::node, cluster::node_update),
    ("PriorityClass", cluster::priority_class, cluster::priority_class_update),
    ("RuntimeClass", cluster::runtime_class, cluster::runtime_class_update),
    ("Lease", cluster::lease, cluster::lease_update),
    ("Event", event::create, event::update),
    ("CertificateSigningRequest", signing::request, signing::request_update),
    ("PersistentVolumeClaim", claim::claim, claim::claim_update),
    ("PersistentVolume", claim::volume, claim::volume_update),
    ("StorageClass", storage::class, storage::class_update),
    ("VolumeAttachment", storage::attachment, storage::attachment_update),
    ("CSIDriver", storage::driver, storage::driver_update),
    ("CSINode", storage::node_drivers, storage::node_drivers_update),
    ("CSIStorageCapacity", storage::capacity, storage::capacity_update),
    ("Ingress", network::ingress, network::ingress_update),
    ("IngressClass", network::class, network::class_update),
    ("NetworkPolicy", network::policy, network::policy_update),
    ("IPAddress", network::address, network::address_update),
    ("ServiceCIDR", network::service_cidr, network::service_cidr_update),
    ("Role", rbac::role, rbac::role_update),
    ("ClusterRole", rbac::cluster_role, rbac::cluster_role_update),
    ("RoleBinding", rbac::binding, rbac::binding_update),
    ("ClusterRoleBinding", rbac::cluster_binding, rbac::cluster_binding_update),
    ("ResourceQuota", quota::quota, quota::quota_update),
    ("LimitRange", quota::limit_range, quota::limit_range_update),
    ("HorizontalPodAutoscaler", autoscale::autoscaler, autoscale::autoscaler_update),
    ("PodDisruptionBudget", autoscale::budget, autoscale::budget_update),
    ("ValidatingWebhookConfiguration", hooks::webhooks, hooks::webhooks_update),
    ("MutatingWebhookConfiguration", hooks::webhooks, hooks::webhooks_update),
    ("ValidatingAdmissionPolicy", admission::policy, admission::policy_update),
    ("ValidatingAdmissionPolicyBinding", admission::binding, admission::binding_update),
    ("FlowSchema", flow::schema, flow::schema_update),
    ("PriorityLevelConfiguration", flow::level, flow::level_update),
    ("CustomResourceDefinition", crd::create, crd::update),
    ("APIService", aggregation::service, aggregation::service_update),
];

fn rules(kind: &Kind) -> (Create, Update) {
    let row = RULES.iter().find(|(name, ..)| kind.custom.is_none() && *name == kind.kind);
    row.map_or((nothing, no_change), |(_, create, update)| (*create, *update))
}

/// Faults of a custom object: its type, schema and rules.
fn custom(
    object: &Value,
    old: Option<&Value>,
    kind: &Kind,
    version: &crate::custom::Version,
    before: &Faults,
) -> crate::custom::rules::Told {
    let mut told = crate::custom::validate(object, old, version, before);
    if object["kind"] != kind.kind {
        let fault = FieldError::invalid("kind", &object["kind"], format!("must be {}", kind.kind));
        told.faults.insert(0, fault);
    }
    told
}

/// Faults of a new object (metadata rules included).
#[must_use]
pub fn create(object: &Value, kind: &Kind, policy: Policy) -> Vec<FieldError> {
    let mut out = Faults::new();
    meta::create(object, kind, &mut out);
    let (create, _) = rules(kind);
    create(&Node::under(policy, object), &mut out);
    if let Some(version) = &kind.custom {
        let more = custom(object, None, kind, version, &out);
        out.extend(more.faults);
    }
    out
}

/// Faults of what is to be allotted to an object, which are told alone: nothing is allotted then.
#[must_use]
pub fn before_allotment(object: &Value, kind: &Kind) -> Vec<FieldError> {
    let mut out = Faults::new();
    if kind.custom.is_none() && kind.kind == "Service" {
        service::cluster_ips(&Node::root(object).get("spec"), &mut out);
    }
    out
}

/// Faults of an update of the main resource or a subresource (`""`, `status`, `ephemeralcontainers`, `resize`, `approval`, `finalize` …).
/// `warnings` are added to for faults that the update leaves as they were.
#[must_use]
pub fn update(
    new: &Value,
    old: &Value,
    kind: &Kind,
    subresource: &str,
    policy: Policy,
    warnings: &mut Vec<String>,
) -> Vec<FieldError> {
    let mut out = Faults::new();
    meta::update(new, old, kind, subresource, &mut out);
    let (_, update) = rules(kind);
    update(&Node::under(policy, new), &Node::root(old), subresource, &mut out);
    if let Some(version) = &kind.custom {
        let mut more = custom(new, Some(old), kind, version, &out);
        if subresource == "status" {
            more.faults.iter_mut().for_each(within_status);
        }
        warnings.extend(more.tolerated.iter().map(ToString::to_string));
        out.extend(more.faults);
    }
    out
}

/// Whoever judges a status alone names its fields from there.
fn within_status(fault: &mut FieldError) {
    if let Some(name) = fault.field.strip_prefix("status.") {
        fault.detail = fault.detail.replace(&format!("{} in body", fault.field), &format!("{name} in body"));
    }
}

/// Warnings for the writer (`Warning: 299`), e.g. for deprecated fields.
#[must_use]
pub fn warnings(new: &Value, old: Option<&Value>, kind: &Kind) -> Vec<String> {
    if kind.custom.is_some() { warn::finalizers(new) } else { warn::all(new, old, &kind.kind) }
}
