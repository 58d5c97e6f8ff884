//! The rows: one a kind, as Kubernetes 1.33 has them.

use crate::kinds::Kind;
use serde_json::{Value, json};

/// What makes `metadata.generation` grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Generation {
    /// Not kept.
    None,
    /// 1 for ever.
    Once,
    Spec,
    SpecOrAnnotations,
    /// A top-level field other than spec.
    Field(&'static str),
    /// The same, where even a list or a map without items is something else than none.
    Told(&'static str),
    /// Anything but metadata, and but status where status is a subresource.
    Content,
    /// Anything but metadata, or labels.
    ContentOrLabels,
}

/// Which metadata a write to `status` may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StatusWrite {
    MetadataToo,
    /// All but this key.
    Keeps(&'static str),
    StatusOnly,
}

pub(super) struct Row {
    pub kind: &'static str,
    pub unconditional_update: bool,
    pub create_on_update: bool,
    pub generation: Generation,
    pub status_write: StatusWrite,
    pub propagation: &'static str,
}

/// Letters: `u` unconditional update, `c` create on update.
const fn row(kind: &'static str, flags: &str, generation: Generation) -> Row {
    let (mut unconditional_update, mut create_on_update) = (false, false);
    let flags = flags.as_bytes();
    let mut i = 0;
    while i < flags.len() {
        unconditional_update |= flags[i] == b'u';
        create_on_update |= flags[i] == b'c';
        i += 1;
    }
    let status_write = StatusWrite::MetadataToo;
    Row { kind, unconditional_update, create_on_update, generation, status_write, propagation: "Background" }
}

impl Row {
    const fn status(self, status_write: StatusWrite) -> Self {
        Self { status_write, ..self }
    }
    const fn orphans(self) -> Self {
        Self { propagation: "Orphan", ..self }
    }
}

use Generation::{Content, ContentOrLabels, Field, None as Not, Once, Spec, SpecOrAnnotations, Told};
use StatusWrite::{Keeps, StatusOnly};

const ROWS: &[Row] = &[
    row("Pod", "u", Spec).status(Keeps("ownerReferences")),
    row("Deployment", "u", SpecOrAnnotations).status(Keeps("labels")),
    row("ReplicaSet", "u", Spec),
    row("StatefulSet", "u", Spec),
    row("DaemonSet", "u", Spec),
    row("ReplicationController", "u", Spec).orphans(),
    row("Job", "u", Spec).orphans(),
    row("CronJob", "u", Spec),
    row("ControllerRevision", "u", Not),
    row("Service", "uc", Not),
    row("Endpoints", "uc", Not),
    row("EndpointSlice", "u", ContentOrLabels),
    row("Namespace", "u", Not),
    row("Node", "u", Not),
    row("PersistentVolume", "u", Not),
    row("PersistentVolumeClaim", "u", Not),
    row("Secret", "u", Not),
    row("ConfigMap", "u", Not),
    row("ServiceAccount", "u", Not),
    row("Event", "uc", Not),
    row("LimitRange", "uc", Not),
    row("ResourceQuota", "u", Not),
    row("PodTemplate", "u", Field("template")),
    row("HorizontalPodAutoscaler", "u", Not),
    row("PodDisruptionBudget", "", Spec),
    row("Ingress", "u", Spec),
    row("IngressClass", "u", Spec),
    row("NetworkPolicy", "u", Told("spec")),
    row("ServiceCIDR", "u", Not).status(StatusOnly),
    row("IPAddress", "u", Not),
    row("Role", "uc", Not),
    row("ClusterRole", "uc", Not),
    row("RoleBinding", "uc", Not),
    row("ClusterRoleBinding", "uc", Not),
    row("StorageClass", "u", Not),
    row("VolumeAttachment", "", Not).status(StatusOnly),
    row("CSIDriver", "", Spec),
    row("CSINode", "", Not),
    row("CSIStorageCapacity", "", Not),
    row("VolumeAttributesClass", "u", Not),
    row("PriorityClass", "u", Once),
    row("RuntimeClass", "c", Not),
    row("Lease", "c", Not),
    row("LeaseCandidate", "c", Not),
    row("CertificateSigningRequest", "u", Not),
    row("ClusterTrustBundle", "", Not),
    row("ValidatingWebhookConfiguration", "", Told("webhooks")),
    row("MutatingWebhookConfiguration", "", Told("webhooks")),
    row("ValidatingAdmissionPolicy", "", Spec).status(StatusOnly),
    row("ValidatingAdmissionPolicyBinding", "", Spec),
    row("FlowSchema", "u", Spec).status(StatusOnly),
    row("PriorityLevelConfiguration", "u", Spec).status(StatusOnly),
    row("CustomResourceDefinition", "", Spec),
    row("APIService", "", Not).status(StatusOnly),
    row("ResourceClaim", "u", Not).status(StatusOnly),
    row("DeviceClass", "u", Spec),
    row("ResourceClaimTemplate", "u", Not),
    row("ResourceSlice", "u", Spec),
];

const CUSTOM: Row = row("", "", Content).status(StatusOnly);
/// For a built-in kind that no row names: the strictest switches.
const OTHER: Row = row("", "", Not);

pub(super) fn of(kind: &Kind) -> &'static Row {
    if kind.custom.is_some() {
        return &CUSTOM;
    }
    ROWS.iter().find(|row| row.kind == kind.kind).unwrap_or(&OTHER)
}

/// Whether writes to the main resource change the status, too.
pub(super) fn has_free_status(kind: &str) -> bool {
    kind == "ServiceCIDR"
}

/// The fields that nobody comes to own by a write to the main resource, as paths of managedFields.
pub(super) fn unowned(kind: &str) -> &'static [&'static [&'static str]] {
    match kind {
        kind if has_free_status(kind) => &[],
        "CertificateSigningRequest" => &[&["f:spec"], &["f:status"]],
        _ => &[&["f:status"]],
    }
}

/// The fields that nobody comes to own by a decision about a request for a certificate.
pub(super) const UNOWNED_BY_APPROVAL: &[&[&str]] = &[&["f:spec"], &["f:status", "f:certificate"]];

/// The fields that nobody comes to own by a write to `status`, as paths of managedFields.
pub(super) fn unowned_by_status(kind: &str) -> &'static [&'static [&'static str]] {
    match kind {
        // Upstream names a version that is none.
        "ServiceCIDR" => &[],
        "Deployment" => &[&["f:spec"], &["f:metadata", "f:labels"]],
        "CertificateSigningRequest" => &[&["f:spec"], &["f:status", "f:conditions"]],
        "Pod" => &[&["f:spec"], &["f:metadata", "f:deletionTimestamp"], &["f:metadata", "f:ownerReferences"]],
        "APIService"
        | "CustomResourceDefinition"
        | "FlowSchema"
        | "PriorityLevelConfiguration"
        | "ValidatingAdmissionPolicy"
        | "VolumeAttachment" => &[&["f:spec"], &["f:metadata"]],
        _ => &[&["f:spec"]],
    }
}

/// A status that says nothing yet, with the zero values that Go writes.
pub(super) fn empty_status(kind: &str, version: &str) -> Value {
    match (kind, version) {
        ("ReplicaSet" | "ReplicationController", _) => json!({"replicas": 0}),
        ("StatefulSet", _) => json!({"replicas": 0, "availableReplicas": 0}),
        ("DaemonSet", _) => {
            json!({"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0})
        }
        ("HorizontalPodAutoscaler", "v1") => json!({"currentReplicas": 0, "desiredReplicas": 0}),
        ("HorizontalPodAutoscaler", _) => json!({"desiredReplicas": 0, "currentMetrics": null}),
        ("PodDisruptionBudget", _) => {
            json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0})
        }
        ("Service" | "Ingress", _) => json!({"loadBalancer": {}}),
        ("Namespace", _) => json!({"phase": "Active"}),
        ("PersistentVolume" | "PersistentVolumeClaim" | "Pod", _) => json!({"phase": "Pending"}),
        ("VolumeAttachment", _) => json!({"attached": false}),
        ("CustomResourceDefinition", _) => {
            json!({"conditions": null, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": []})
        }
        _ => json!({}),
    }
}
