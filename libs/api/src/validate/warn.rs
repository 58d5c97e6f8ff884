//! Warnings: what is accepted and yet likely a mistake. In: an object, and the stored one on update. Out: texts.

use super::node::Node;
use crate::labels;
use serde_json::Value;

/// Node labels that moved out of beta.
const DEPRECATED_NODE_LABELS: [(&str, &str); 5] = [
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
];

/// Volume sources that lead nowhere any more.
const GONE_VOLUMES: [(&str, &str); 6] = [
    ("gitRepo", "deprecated in v1.11"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
];

pub(super) fn all(new: &Value, old: Option<&Value>, kind: &str) -> Vec<String> {
    let root = Node::root(new);
    let mut out = Vec::new();
    if old.is_none() {
        on_create(&root, kind, &mut out);
    }
    match kind {
        "Pod" => pod_spec(&root.get("spec"), &mut out),
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" | "Job" | "ReplicationController" => {
            pod_spec(&root.get("spec.template.spec"), &mut out);
        }
        "CronJob" => pod_spec(&root.get("spec.jobTemplate.spec.template.spec"), &mut out),
        "PodTemplate" => pod_spec(&root.get("template.spec"), &mut out),
        "Endpoints" => {
            out.push(
                "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".to_owned(),
            );
        }
        "Service"
            if !root.get("spec.externalIPs").is_empty() && root.get("spec.type").text() == "ExternalName" =>
        {
            out.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
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
        "ReplicaSet" | "Deployment" | "DaemonSet" | "Job" | "CronJob" | "ReplicationController" => {
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

/// Custom objects may carry any finalizer; built-in ones are refused those without a domain.
pub(super) fn finalizers(object: &Value) -> Vec<String> {
    let root = Node::root(object);
    let list = root.get("metadata.finalizers");
    let odd = list.items().map(|finalizer| finalizer.text()).filter(|name| {
        !name.contains('/') && !matches!(*name, "orphan" | "foregroundDeletion" | "kubernetes")
    });
    let tail = "prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with other finalizer writers";
    odd.map(|name| format!("metadata.finalizers: {}: {tail}", crate::status::go_quoted(name))).collect()
}

fn pod_spec(spec: &Node<'_, '_>, out: &mut Vec<String>) {
    for (label, instead) in DEPRECATED_NODE_LABELS {
        if spec.get("nodeSelector").key(label).is_set() {
            let path = spec.get("nodeSelector").key(label).path();
            out.push(format!("{path}: deprecated since v1.14; use \"{instead}\" instead"));
        }
    }
    for volume in spec.get("volumes").items() {
        for (source, text) in GONE_VOLUMES {
            if volume.get(source).is_set() {
                out.push(format!("{}: {text}", volume.get(source).path()));
            }
        }
    }
    for list in ["containers", "initContainers"] {
        for container in spec.get(list).items() {
            duplicate_names(&container, out);
        }
    }
    if spec.get("terminationGracePeriodSeconds").int() < 0 {
        let path = spec.get("terminationGracePeriodSeconds").path();
        out.push(format!("{path}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
}

/// The last variable of a name wins, which is rarely meant.
fn duplicate_names(container: &Node<'_, '_>, out: &mut Vec<String>) {
    let variables = container.get("env");
    let mut seen: Vec<&str> = Vec::new();
    for variable in variables.items() {
        let name = variable.get("name");
        if seen.contains(&name.text())
            && !variable.get("value").text().contains(&format!("$({})", name.text()))
        {
            let shown = crate::status::go_quoted(name.text());
            out.push(format!(
                "{}: hides previous definition of {shown}, which may be dropped when using apply",
                variable.path()
            ));
        }
        seen.push(name.text());
    }
}
