//! Versions that Kubernetes knows, though it does not serve them (any more), and the kinds in them that other versions have.

const RETIRED: &[(&[&str], &[&str])] = &[
    (&["apps/v1beta1"], &["ControllerRevision", "Deployment", "StatefulSet"]),
    (&["apps/v1beta2"], &["ControllerRevision", "DaemonSet", "Deployment", "ReplicaSet", "StatefulSet"]),
    (&["extensions/v1beta1"], &["DaemonSet", "Deployment", "Ingress", "NetworkPolicy", "ReplicaSet"]),
    (&["autoscaling/v2beta1", "autoscaling/v2beta2"], &["HorizontalPodAutoscaler"]),
    (&["batch/v1beta1"], &["CronJob"]),
    (&["policy/v1beta1"], &["Eviction", "PodDisruptionBudget"]),
    (&["networking.k8s.io/v1beta1"], &["IPAddress", "Ingress", "IngressClass", "ServiceCIDR"]),
    (
        &["rbac.authorization.k8s.io/v1alpha1", "rbac.authorization.k8s.io/v1beta1"],
        &["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"],
    ),
    (
        &["storage.k8s.io/v1beta1"],
        &["CSIDriver", "CSINode", "CSIStorageCapacity", "StorageClass", "VolumeAttachment"],
    ),
    (&["storage.k8s.io/v1alpha1"], &["CSIStorageCapacity", "VolumeAttachment"]),
    (&["scheduling.k8s.io/v1alpha1", "scheduling.k8s.io/v1beta1"], &["PriorityClass"]),
    (&["coordination.k8s.io/v1beta1"], &["Lease"]),
    (&["discovery.k8s.io/v1beta1"], &["EndpointSlice"]),
    (&["events.k8s.io/v1beta1"], &["Event"]),
    (
        &[
            "flowcontrol.apiserver.k8s.io/v1beta1",
            "flowcontrol.apiserver.k8s.io/v1beta2",
            "flowcontrol.apiserver.k8s.io/v1beta3",
        ],
        &["FlowSchema", "PriorityLevelConfiguration"],
    ),
    (&["certificates.k8s.io/v1beta1"], &["CertificateSigningRequest"]),
    (&["node.k8s.io/v1alpha1", "node.k8s.io/v1beta1"], &["RuntimeClass"]),
    (
        &["admissionregistration.k8s.io/v1alpha1"],
        &["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"],
    ),
    (
        &["admissionregistration.k8s.io/v1beta1"],
        &[
            "MutatingWebhookConfiguration",
            "ValidatingAdmissionPolicy",
            "ValidatingAdmissionPolicyBinding",
            "ValidatingWebhookConfiguration",
        ],
    ),
    (&["authentication.k8s.io/v1alpha1"], &["SelfSubjectReview"]),
    (&["authentication.k8s.io/v1beta1"], &["SelfSubjectReview", "TokenReview"]),
    (
        &["authorization.k8s.io/v1beta1"],
        &[
            "LocalSubjectAccessReview",
            "SelfSubjectAccessReview",
            "SelfSubjectRulesReview",
            "SubjectAccessReview",
        ],
    ),
];

/// Whether a version knows a kind.
pub(super) fn is_known(version: &str, kind: &str) -> bool {
    RETIRED.iter().any(|(versions, kinds)| versions.contains(&version) && kinds.contains(&kind))
}
