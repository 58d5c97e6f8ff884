//! A write to a pod's status: what the kubelet may tell, and what stays as it is.

use super::super::node::{Faults, Node, Seen, addresses_by_family};
use super::{MAX_INT32, annotations};
use crate::labels;
use crate::status::FieldError;

const LISTS: [(&str, &str); 3] = [
    ("containerStatuses", "containers"),
    ("initContainerStatuses", "initContainers"),
    ("ephemeralContainerStatuses", "ephemeralContainers"),
];

pub(super) fn update(new: &Node<'_, '_>, old: &Node<'_, '_>, out: &mut Faults) {
    super::update::annotations(new, old, out);
    let status = new.get("status");
    for condition in status.get("conditions").items() {
        let (kind, generation) = (condition.get("type"), condition.get("observedGeneration"));
        if generation.int() < 0 {
            generation.invalid("must be a non-negative integer", out);
        }
        if !matches!(kind.text(), "PodScheduled" | "Ready" | "Initialized") {
            condition.named("Type", kind.value).text_must(labels::is_qualified_name, out);
        }
    }
    if new.get("spec.nodeName").value != old.get("spec.nodeName").value {
        status.get("nodeName").forbidden("may not be changed directly", out);
    }
    let (nominated, before) = (status.get("nominatedNodeName"), old.get("status.nominatedNodeName"));
    if nominated.text() != before.text() {
        nominated.text_may(labels::is_dns1123_subdomain, out);
    }
    let generation = status.get("observedGeneration");
    if generation.int() < 0 {
        generation.invalid("must be a non-negative integer", out);
    }
    status.get("qosClass").same_as(&old.get("status.qosClass"), out);
    for (list, specs) in LISTS {
        transitions(&status.get(list), &old.get("status").get(list), &old.get("spec"), specs, out);
    }
    claims(&status.get("resourceClaimStatuses"), &new.get("spec.resourceClaims"), out);
    addresses(&status, out);
    for (list, _) in LISTS {
        users(&status.get(list), new.get("spec.os.name").text(), out);
    }
    for (list, specs) in LISTS {
        devices(&status.get(list), &new.get("spec").get(specs), out);
    }
}

/// A container that is not to be restarted stays ended.
fn transitions(new: &Node<'_, '_>, old: &Node<'_, '_>, spec: &Node<'_, '_>, specs: &str, out: &mut Faults) {
    // Whoever looks into a pod does so once.
    let policy = if specs == "ephemeralContainers" { "Never" } else { spec.get("restartPolicy").text() };
    if policy == "Always" {
        return;
    }
    let sidecar = |name: &str| {
        specs == "initContainers"
            && spec.get(specs).items().any(|container| {
                container.get("name").text() == name && container.get("restartPolicy").text() == "Always"
            })
    };
    for (i, before) in old.items().enumerate() {
        let (ended, name) = (before.get("state.terminated"), before.get("name").text());
        let tried_again = ended.get("exitCode").int() != 0 && policy == "OnFailure";
        if !ended.is_set() || tried_again || sidecar(name) {
            continue;
        }
        for now in new.items().filter(|now| now.get("name").text() == name) {
            if !now.get("state.terminated").is_set() {
                // The place is that of the stored list.
                let place = format!("{}[{i}].state", new.path());
                let detail = "may not be transitioned to non-terminated state";
                out.push(FieldError::forbidden(place, detail));
            }
        }
    }
}

fn claims(statuses: &Node<'_, '_>, claims: &Node<'_, '_>, out: &mut Faults) {
    let known: Seen<'_> = claims.items().map(|claim| claim.get("name").text()).collect();
    let mut seen = Seen::new();
    for status in statuses.items() {
        let name = status.get("name");
        if !known.contains(name.text()) {
            name.invalid("must match the name of an entry in `spec.resourceClaims`", out);
        }
        if seen.contains(&name.text()) {
            name.duplicate(out);
        }
        seen.insert(name.text());
        let made = status.get("resourceClaimName");
        if made.is_set() {
            status.named("name", made.value).text_must(labels::is_dns1123_subdomain, out);
        }
    }
}

fn addresses(status: &Node<'_, '_>, out: &mut Faults) {
    let (pod, host) = (status.get("podIPs"), status.get("hostIPs"));
    ips(&pod, "PodIP", out);
    if let Some(first) = host.items().next()
        && first.get("ip").text() != status.get("hostIP").text()
    {
        first.get("ip").invalid("must be equal to `hostIP`", out);
    }
    ips(&host, "HostIP", out);
}

fn ips(list: &Node<'_, '_>, shape: &'static str, out: &mut Faults) {
    for entry in list.items() {
        entry.named("", entry.get("ip").value).text_must(labels::is_valid_ip, out);
    }
    let all: Vec<&str> = list.items().map(|entry| entry.get("ip").text()).collect();
    if all.len() < 2 {
        return;
    }
    let bad = all.iter().position(|ip| !labels::is_valid_ip(ip).is_empty());
    if let Some(bad) = bad {
        let why = format!("failed to check for dual stack with error:invalid IP[{bad}]: {}", all[bad]);
        out.push(FieldError::internal(list.path(), why));
    }
    if bad.is_some() || all.len() > 2 || !addresses_by_family(&all) {
        let shown = list.items().map(|entry| super::super::shapes::compact(entry.value, shape));
        let shown = format!("[{}]", shown.collect::<Vec<_>>().join(","));
        list.invalid_shown(shown, "may specify no more than one IP for each IP family", out);
    }
}

/// Who runs in the containers.
fn users(statuses: &Node<'_, '_>, os: &str, out: &mut Faults) {
    for status in statuses.items() {
        let linux = status.get("user.linux");
        if !linux.is_set() {
            continue;
        }
        if os == "windows" {
            linux.forbidden("cannot be set for a windows pod", out);
            continue;
        }
        for key in ["uid", "gid"] {
            linux.get(key).between(0, MAX_INT32, out);
        }
        linux.get("supplementalGroups").items().for_each(|group| group.between(0, MAX_INT32, out));
    }
}

/// How the devices of containers fare.
fn devices(statuses: &Node<'_, '_>, containers: &Node<'_, '_>, out: &mut Faults) {
    let ephemeral = containers.path().ends_with("ephemeralContainers");
    for status in statuses.items() {
        let resources = status.get("allocatedResourcesStatus");
        if ephemeral && !resources.is_empty() {
            resources.forbidden("must not be specified in container status", out);
        }
        let own = containers.items().find(|own| own.get("name").text() == status.get("name").text());
        for resource in resources.items().filter(|_| !ephemeral) {
            if let Some(own) = &own {
                device_name(&resource.get("name"), &own.get("resources"), out);
            }
            let mut seen = Seen::new();
            for device in resource.get("resources").items() {
                device.get("health").must_be_one_of(&["Healthy", "Unhealthy", "Unknown"], out);
                let id = device.get("resourceID");
                if seen.contains(&id.text()) {
                    id.duplicate(out);
                }
                seen.insert(id.text());
            }
        }
    }
}

fn device_name(name: &Node<'_, '_>, resources: &Node<'_, '_>, out: &mut Faults) {
    let claimed = |claim: Node<'_, '_>| {
        let (own, request) = (claim.get("name").text(), claim.get("request").text());
        if request.is_empty() { format!("claim:{own}") } else { format!("claim:{own}/{request}") }
    };
    if !name.text().starts_with("claim:") {
        if !resources.get("requests").key(name.text()).is_set() {
            name.invalid("must match one of the container's resource requests", out);
        }
    } else if !resources.get("claims").items().any(|claim| claimed(claim) == name.text()) {
        let detail = "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty";
        name.invalid(detail, out);
    }
}

/// Whether the pod was made by a kubelet, of a file of its own.
pub(super) fn is_static(pod: &Node<'_, '_>) -> bool {
    pod.get("metadata.annotations").key(annotations::MIRROR).is_set()
}
