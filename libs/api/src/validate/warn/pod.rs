//! Warnings of pods and of templates of pods.

use super::{claim, expressions, is_full, moved, network, paths, warn, whole_bytes};
use crate::status::go_quoted;
use crate::validate::node::Node;
use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// Annotations that do nothing any more.
const GONE_ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
];
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const SECCOMP_GONE: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const APP_ARMOR_GONE: &str = "deprecated since v1.30; use the \"appArmorProfile\" field instead";
const NO_SELECTOR: &str = "a null labelSelector results in matching no pod";

/// Volume sources that lead nowhere any more.
const GONE_VOLUMES: [(&str, &str); 9] = [
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// A volume source as upstream names it.
pub fn shown_source<'s, 'v>(of: &'s Node<'v, 's>, source: &'s str) -> Node<'v, 's> {
    of.named(if source == "storageos" { "storageOS" } else { source }, of.get(source).value)
}

/// Of a pod. It is told of its `AppArmor` annotations before, when they become fields.
pub fn new_pod(pod: &Node<'_, '_>, out: &mut Vec<String>) {
    all(pod, false, out);
}

/// Of a template.
pub fn template(template: &Node<'_, '_>, out: &mut Vec<String>) {
    all(template, true, out);
}

fn all(pod: &Node<'_, '_>, is_template: bool, out: &mut Vec<String>) {
    let spec = pod.get("spec");
    let selector = spec.get("nodeSelector");
    for (label, _) in selector.entries() {
        if let Some(text) = moved(label) {
            warn(&selector.key(label), text, out);
        }
    }
    let affinity = spec.get("affinity.nodeAffinity");
    let required = "requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    for term in affinity.get(required).items() {
        expressions(&term, out);
    }
    for term in affinity.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
        expressions(&term.get("preference"), out);
    }
    for constraint in spec.get("topologySpreadConstraints").items() {
        let key = constraint.get("topologyKey");
        if let Some(text) = moved(key.text()) {
            warn(&key, &format!("{} is {text}", key.text()), out);
        }
        no_selector(&constraint.get("labelSelector"), out);
    }
    let annotations = pod.get("metadata.annotations");
    for (annotation, text) in GONE_ANNOTATIONS {
        if annotations.key(annotation).is_set() {
            warn(&annotations.key(annotation), text, out);
        }
    }
    volumes(&spec.get("volumes"), out);
    duplicates(&spec, out);
    for resource in ["memory", "ephemeral-storage"] {
        whole_bytes(&spec.get("overhead"), resource, out);
    }
    if !spec.get("securityContext.seccompProfile").is_set() && annotations.key(SECCOMP_POD).is_set() {
        warn(&annotations.key(SECCOMP_POD), SECCOMP_GONE, out);
    }
    containers(&spec, &annotations, is_template, out);
    ports(&spec, out);
    port_names(&spec, out);
    let grace = spec.get("terminationGracePeriodSeconds");
    if grace.int() < 0 {
        warn(&grace, "must be >= 0; negative values are invalid and will be treated as 1", out);
    }
    for affinity in ["affinity.podAffinity", "affinity.podAntiAffinity"] {
        let affinity = spec.get(affinity);
        for term in affinity.get("requiredDuringSchedulingIgnoredDuringExecution").items() {
            no_selector(&term.get("labelSelector"), out);
        }
        for term in affinity.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
            no_selector(&term.get("podAffinityTerm.labelSelector"), out);
        }
    }
    spec.get("dnsConfig.nameservers").items().for_each(|server| network::ip(&server, out));
    spec.get("hostAliases").items().for_each(|alias| network::ip(&alias.get("ip"), out));
}

fn no_selector(selector: &Node<'_, '_>, out: &mut Vec<String>) {
    if !selector.is_set() {
        warn(selector, NO_SELECTOR, out);
    }
}

fn volumes(volumes: &Node<'_, '_>, out: &mut Vec<String>) {
    for volume in volumes.items() {
        for (source, text) in GONE_VOLUMES {
            if volume.get(source).is_set() {
                warn(&shown_source(&volume, source), text, out);
            }
        }
        claim(&volume.get("ephemeral.volumeClaimTemplate.spec"), out);
    }
    paths::overlaps(volumes, out);
}

/// What stands twice in lists.
fn duplicates(spec: &Node<'_, '_>, out: &mut Vec<String>) {
    for (list, key) in [("hostAliases", "ip"), ("imagePullSecrets", "name")] {
        let mut seen = HashSet::new();
        for item in spec.get(list).items() {
            let named = item.get(key);
            if !seen.insert(named.text()) {
                warn(&named, &format!("duplicate {key} {}", go_quoted(named.text())), out);
            }
        }
    }
    for secret in spec.get("imagePullSecrets").items() {
        let name = secret.get("name");
        if name.is_empty() {
            warn(&name, "invalid empty name \"\"", out);
        }
    }
}

const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

fn containers(spec: &Node<'_, '_>, annotations: &Node<'_, '_>, is_template: bool, out: &mut Vec<String>) {
    let of_pod = !is_template || spec.get("securityContext.appArmorProfile").is_set();
    for list in LISTS {
        for container in spec.get(list).items() {
            let name = container.get("name").text();
            let seccomp = format!("{SECCOMP_CONTAINER}{name}");
            if !container.get("securityContext.seccompProfile").is_set() && annotations.key(&seccomp).is_set()
            {
                warn(&annotations.key(&seccomp), SECCOMP_GONE, out);
            }
            let armor = format!("{APP_ARMOR}{name}");
            let has_field = of_pod || container.get("securityContext.appArmorProfile").is_set();
            if !has_field && annotations.key(&armor).is_set() {
                warn(&annotations.key(&armor), APP_ARMOR_GONE, out);
            }
            for resource in ["memory", "ephemeral-storage"] {
                whole_bytes(&container.get("resources.limits"), resource, out);
                whole_bytes(&container.get("resources.requests"), resource, out);
            }
            duplicate_names(&container, out);
        }
    }
}

/// The last variable of a name wins, which is rarely meant.
fn duplicate_names(container: &Node<'_, '_>, out: &mut Vec<String>) {
    let variables = container.get("env");
    let mut seen = HashSet::new();
    for variable in variables.items() {
        let (name, value) = (variable.get("name").text(), variable.get("value").text());
        let itself = format!("$({name})");
        let hides = variable.get("valueFrom").is_set() || value == itself || !value.contains(&itself);
        if !seen.insert(name) && hides {
            let shown = go_quoted(name);
            warn(
                &variable,
                &format!("hides previous definition of {shown}, which may be dropped when using apply"),
                out,
            );
        }
    }
}

struct Port<'v> {
    path: String,
    host: i64,
    address: &'v str,
}

/// Ports of all containers that get in each other's way.
fn ports(spec: &Node<'_, '_>, out: &mut Vec<String>) {
    let mut known: HashMap<(i64, &str), Vec<Port<'_>>> = HashMap::new();
    for list in LISTS {
        for container in spec.get(list).items() {
            for port in container.get("ports").items() {
                let own = Port {
                    path: port.path(),
                    host: port.get("hostPort").int(),
                    address: port.get("hostIP").text(),
                };
                if !own.address.is_empty() && own.host == 0 {
                    out.push(format!("{}: hostIP set without hostPort: {}", own.path, go_struct(port.value)));
                }
                let same = (port.get("containerPort").int(), port.get("protocol").text());
                let known = known.entry(same).or_default();
                for other in &*known {
                    if is_full(out) {
                        return;
                    }
                    if let Some(how) = clash(&own, other) {
                        out.push(format!("{}: {how} port definition with {}", own.path, other.path));
                    }
                }
                known.push(own);
            }
        }
    }
}

fn clash(one: &Port<'_>, other: &Port<'_>) -> Option<&'static str> {
    if one.address == other.address && one.host == other.host {
        Some("duplicate")
    } else if one.host == 0 || other.host == 0 {
        Some("overlapping")
    } else if one.host == other.host && one.address.is_empty() != other.address.is_empty() {
        Some("dangerously ambiguous")
    } else {
        None
    }
}

/// Names of ports that several containers use: the first is found by them.
fn port_names(spec: &Node<'_, '_>, out: &mut Vec<String>) {
    let mut known: HashMap<&str, String> = HashMap::new();
    for list in LISTS {
        for container in spec.get(list).items() {
            for port in container.get("ports").items().filter(|port| !port.get("name").is_empty()) {
                let name = port.get("name").text();
                let Some(first) = known.get(name) else {
                    known.insert(name, port.path());
                    continue;
                };
                let shown = go_quoted(name);
                let text = format!(
                    "duplicate port name {shown} with {first}, services and probes that select ports by name will use {first}"
                );
                warn(&port, &text, out);
            }
        }
    }
}

/// A port as Go prints its struct.
fn go_struct(port: &Value) -> String {
    let text = |key: &str| port[key].as_str().unwrap_or_default();
    let number = |key: &str| port[key].as_i64().unwrap_or_default();
    format!(
        "{{Name:{} HostPort:{} ContainerPort:{} Protocol:{} HostIP:{}}}",
        text("name"),
        number("hostPort"),
        number("containerPort"),
        text("protocol"),
        text("hostIP")
    )
}
