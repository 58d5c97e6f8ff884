//! Warnings: what is accepted and yet likely a mistake, or soon not accepted any more. In: an object, and the stored one on
//! update. Out: Kubernetes' texts. network.rs knows of addresses, pod.rs of pods and their templates, paths.rs
//! of files in their volumes, secret.rs of certificates.

mod network;
mod paths;
mod pod;
mod secret;
#[cfg(test)]
mod tests;

use super::node::Node;
use crate::labels;
use serde_json::Value;

/// What is said of node labels that moved.
const DEPRECATED_NODE_LABELS: [(&str, &str); 8] = [
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    (
        "scheduler.alpha.kubernetes.io/preferAvoidPods",
        "deprecated since v1.22; use Taints and Tolerations instead",
    ),
    ("node-role.kubernetes.io/master", "use \"node-role.kubernetes.io/control-plane\" instead"),
];
const MANY_INDEXES: &str = "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail";
const MOUNTABLE_SECRETS: &str = "kubernetes.io/enforce-mountable-secrets";
const STORAGE_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// Volume sources that lead nowhere any more.
const GONE_VOLUMES: [(&str, &str); 6] = [
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
];

/// Warnings that are made at most, and their bytes: an answer has room for a few of them, and two lists of a body may be at odds
/// in more ways than memory holds.
const COUNT_MAX: usize = 4096;
const BYTES_MAX: usize = 1 << 20;

/// Whether no more is told.
fn is_full(out: &[String]) -> bool {
    out.len() >= COUNT_MAX || out.iter().map(String::len).sum::<usize>() >= BYTES_MAX
}

/// The way to something, as Kubernetes shows it in a warning.
fn warn(place: &Node<'_, '_>, text: &str, out: &mut Vec<String>) {
    out.push(format!("{}: {text}", place.path()));
}

fn moved(label: &str) -> Option<&'static str> {
    DEPRECATED_NODE_LABELS.iter().find(|(own, _)| *own == label).map(|(_, text)| *text)
}

pub(super) fn all(new: &Value, old: Option<&Value>, kind: &str) -> Vec<String> {
    let root = Node::root(new);
    let mut out = Vec::new();
    if old.is_none() {
        on_create(&root, kind, &mut out);
    }
    // Controllers change templates' objects again and again; people look at what they have changed.
    let differs = |at: &str| old.is_none_or(|old| old.pointer(at) != new.pointer(at));
    let is_new = match kind {
        "Deployment" => differs("/spec") || differs("/metadata/annotations"),
        "DaemonSet" => differs("/spec/template"),
        "PodTemplate" => differs("/template"),
        _ => differs("/spec"),
    };
    match kind {
        // Nobody looks at updates of pods.
        "Pod" if old.is_none() => pod::new_pod(&root, &mut out),
        "Deployment" | "ReplicaSet" | "DaemonSet" | "ReplicationController" if is_new => {
            pod::template(&root.get("spec.template"), &mut out);
        }
        "StatefulSet" if is_new => stateful_set(&root.get("spec"), &mut out),
        "Job" if is_new => job(&root.get("spec"), &mut out),
        "CronJob" if is_new => {
            job(&root.get("spec.jobTemplate.spec"), &mut out);
            let schedule = root.get("spec.schedule");
            if schedule.text().contains("TZ") {
                out.push(format!("CRON_TZ or TZ used in {} is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details", schedule.path()));
            }
        }
        "PodTemplate" if is_new => pod::template(&root.get("template"), &mut out),
        "Endpoints" => network::endpoints(&root, &mut out),
        "EndpointSlice" => network::endpoint_slice(&root, old.is_none(), &mut out),
        "Service" => network::service(&root, &mut out),
        "Secret" if root.get("type").text() == "kubernetes.io/tls" => {
            secret::key_pair(&root.get("data"), &mut out);
        }
        "NetworkPolicy" => network::policy(&root.get("spec"), &mut out),
        "Node" => node(&root.get("spec"), &mut out),
        "PersistentVolume" => volume(&root, &mut out),
        "PersistentVolumeClaim" => {
            storage_class_annotation(&root, &mut out);
            claim(&root.get("spec"), &mut out);
        }
        "StorageClass" => storage_class(&root, &mut out),
        "CSIStorageCapacity" => label_selector(&root.get("nodeTopology"), &mut out),
        "RuntimeClass" => {
            let selector = root.get("scheduling.nodeSelector");
            for text in selector.entries().filter_map(|(label, _)| moved(label)) {
                warn(&selector, text, &mut out);
            }
        }
        "ServiceAccount" => {
            let annotation = root.get("metadata.annotations");
            let annotation = annotation.key(MOUNTABLE_SECRETS);
            let known =
                old.is_some_and(|old| old["metadata"]["annotations"].get(MOUNTABLE_SECRETS).is_some());
            if annotation.is_set() && !known {
                warn(
                    &annotation,
                    "deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets",
                    &mut out,
                );
            }
        }
        _ => {}
    }
    out
}

fn on_create(root: &Node<'_, '_>, kind: &str, out: &mut Vec<String>) {
    let annotations = root.get("metadata.annotations");
    if kind == "Ingress" && annotations.key("kubernetes.io/ingress.class").is_set() {
        out.push("annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead".to_owned());
    }
    let name = root.get("metadata.name");
    let used = match kind {
        "Pod" => "this is used in the Pod's hostname",
        "ReplicaSet" | "Deployment" | "Job" | "CronJob" | "ReplicationController" => {
            "this is used in Pod names and hostnames"
        }
        _ => return,
    };
    let complaints = labels::is_dns1123_label(name.text());
    if !name.is_empty() && !complaints.is_empty() {
        let list = complaints.join(" ");
        out.push(format!("metadata.name: {used}, which can result in surprising behavior; a DNS label is recommended: [{list}]"));
    }
}

fn job(spec: &Node<'_, '_>, out: &mut Vec<String>) {
    let indexed = spec.get("completionMode").text() == "Indexed";
    if indexed && spec.get("completions").int() > 100_000 && spec.get("parallelism").int() > 10_000 {
        warn(spec, MANY_INDEXES, out);
    }
    pod::template(&spec.get("template"), out);
}

fn stateful_set(spec: &Node<'_, '_>, out: &mut Vec<String>) {
    pod::template(&spec.get("template"), out);
    for template in spec.get("volumeClaimTemplates").items() {
        // Upstream names it so.
        claim(&template.named("Spec", template.get("spec").value), out);
    }
    let limit = spec.get("revisionHistoryLimit");
    if limit.int() < 0 {
        warn(&limit, "a negative value retains all historical revisions; a value >= 0 is recommended", out);
    }
}

fn storage_class_annotation(root: &Node<'_, '_>, out: &mut Vec<String>) {
    let annotations = root.get("metadata.annotations");
    let annotation = annotations.key(STORAGE_CLASS);
    if annotation.is_set() {
        warn(&annotation, "deprecated since v1.8; use \"storageClassName\" attribute instead", out);
    }
}

/// Bytes are whole.
fn whole_bytes(list: &Node<'_, '_>, resource: &str, out: &mut Vec<String>) {
    let amount = list.key(resource);
    if amount.is_set() && !amount.amount().is_whole() {
        let shown = crate::status::go_quoted(amount.text());
        warn(&amount, &format!("fractional byte value {shown} is invalid, must be an integer"), out);
    }
}

fn claim(spec: &Node<'_, '_>, out: &mut Vec<String>) {
    for list in ["resources.requests", "resources.limits"] {
        whole_bytes(&spec.get(list), "storage", out);
    }
}

fn volume(root: &Node<'_, '_>, out: &mut Vec<String>) {
    storage_class_annotation(root, out);
    let spec = root.get("spec");
    let policy = spec.get("persistentVolumeReclaimPolicy");
    if policy.text() == "Recycle" {
        warn(
            &policy,
            "The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.",
            out,
        );
    }
    for term in spec.get("nodeAffinity.required.nodeSelectorTerms").items() {
        expressions(&term, out);
    }
    for (source, text) in GONE_VOLUMES {
        if spec.get(source).is_set() {
            warn(&pod::shown_source(&spec, source), text, out);
        }
    }
}

/// Labels that moved, in the expressions of a selector.
fn expressions(term: &Node<'_, '_>, out: &mut Vec<String>) {
    for expression in term.get("matchExpressions").items() {
        let key = expression.get("key");
        if let Some(text) = moved(key.text()) {
            warn(&key, &format!("{} is {text}", key.text()), out);
        }
    }
}

fn label_selector(selector: &Node<'_, '_>, out: &mut Vec<String>) {
    expressions(selector, out);
    let wanted = selector.get("matchLabels");
    for (label, _) in wanted.entries() {
        if let Some(text) = moved(label) {
            warn(&wanted.get(label), text, out);
        }
    }
}

fn storage_class(root: &Node<'_, '_>, out: &mut Vec<String>) {
    for topology in root.get("allowedTopologies").items() {
        for expression in topology.get("matchLabelExpressions").items() {
            let key = expression.get("key");
            if let Some(text) = moved(key.text()) {
                warn(&key, text, out);
            }
        }
    }
}

fn node(spec: &Node<'_, '_>, out: &mut Vec<String>) {
    if !spec.get("externalID").is_empty() {
        out.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
    }
    for cidr in spec.get("podCIDRs").items() {
        network::cidr(&cidr, out);
    }
}

/// Custom objects may carry any finalizer; built-in ones are refused those without a domain.
pub(super) fn finalizers(object: &Value) -> Vec<String> {
    let root = Node::root(object);
    let list = root.get("metadata.finalizers");
    let odd = list.items().map(|finalizer| finalizer.text()).filter(|name| {
        !name.contains('/') && !matches!(*name, "orphan" | "foregroundDeletion" | "kubernetes")
    });
    let better = |name: &str| if name.contains('.') { " including a path (/)" } else { "" };
    odd.map(|name| {
        let (shown, better) = (crate::status::go_quoted(name), better(name));
        format!(
            "metadata.finalizers: {shown}: prefer a domain-qualified finalizer name{better} to avoid accidental conflicts with other finalizer writers"
        )
    })
    .collect()
}
