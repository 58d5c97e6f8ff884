//! Containers of the three lists: ports, mounts, devices, and what only some lists allow.

use super::super::node::{Faults, Node, Seen};
use super::volume::Volumes;
use super::{Setting, env, probe, resources, security, volume};
use crate::labels;
use serde_json::json;
use std::collections::HashSet;

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const NOT_EPHEMERAL: &str = "cannot be set for an Ephemeral Container";

/// What every container of a spec is judged by.
struct Pod<'a, 'v> {
    spec: Node<'v, 'a>,
    grace: Node<'v, 'a>,
    volumes: &'a Volumes<'v>,
    setting: Setting<'a>,
}

pub(super) fn all(spec: &Node<'_, '_>, volumes: &Volumes<'_>, setting: Setting<'_>, out: &mut Faults) {
    let grace = spec.get("terminationGracePeriodSeconds");
    let pod = Pod { spec: *spec, grace, volumes, setting };
    let (containers, inits) = (spec.get("containers"), spec.get("initContainers"));
    let mut seen = Seen::new();
    if containers.is_empty() {
        containers.required("", out);
    }
    for container in containers.items() {
        let name = container.get("name");
        common(&container, &pod, out);
        known(&name, &mut seen, out);
        probe::lifecycle(&container, &pod.grace, out);
        probe::probes(&container, &pod.grace, out);
        let restart = container.get("restartPolicy");
        if restart.is_set() {
            restart.forbidden("may not be set for non-init containers", out);
        }
    }
    host_ports(&containers, containers.items().enumerate(), out);
    for container in inits.items() {
        common(&container, &pod, out);
        container.get("restartPolicy").if_set_one_of(&["Always"], out);
        known(&container.get("name"), &mut seen, out);
        // They run one by one, so each is looked at alone, and told as the first of the list.
        host_ports(&inits, std::iter::once((0, container)), out);
        init(&container, &pod, out);
    }
    let targets = seen.clone();
    for container in spec.get("ephemeralContainers").items() {
        common(&container, &pod, out);
        whole_image(&container.get("image"), out);
        known(&container.get("name"), &mut seen, out);
        ephemeral(&container, &targets, out);
    }
}

fn known<'v>(name: &Node<'v, '_>, seen: &mut Seen<'v>, out: &mut Faults) {
    if seen.contains(&name.text()) {
        name.duplicate_as(&json!(name.text()), out);
    }
    seen.insert(name.text());
}

fn common(container: &Node<'_, '_>, pod: &Pod<'_, '_>, out: &mut Faults) {
    container.get("name").required_text(labels::is_dns1123_label, out);
    container.get("image").must_be_given(out);
    container.get("terminationMessagePolicy").required_one_of(&["File", "FallbackToLogsOnError"], out);
    ports(&container.get("ports"), out);
    env::all(container, out);
    mounts(container, pod.volumes, out);
    devices(container, pod.volumes, out);
    pull_policy(&container.get("imagePullPolicy"), out);
    resources::container(&container.get("resources"), &pod.spec, pod.setting.allowed, out);
    resize_policy(&container.get("resizePolicy"), pod.spec.get("restartPolicy").text(), out);
    security::container(&container.get("securityContext"), &pod.spec, out);
}

pub(super) fn pull_policy(policy: &Node<'_, '_>, out: &mut Faults) {
    policy.required_one_of(&["Always", "IfNotPresent", "Never"], out);
}

/// Templates may have images of nothing but space, which something is to fill in.
pub(super) fn whole_image(image: &Node<'_, '_>, out: &mut Faults) {
    if image.text() != image.text().trim() {
        image.invalid("must not have leading or trailing whitespace", out);
    }
}

fn init(container: &Node<'_, '_>, pod: &Pod<'_, '_>, out: &mut Faults) {
    if container.get("restartPolicy").text() == "Always" {
        probe::lifecycle(container, &pod.grace, out);
        return probe::probes(container, &pod.grace, out);
    }
    for key in ["lifecycle"].iter().chain(&probe::PROBES) {
        let field = container.get(key);
        if field.is_set() {
            field.forbidden("may not be set for init containers without restartPolicy=Always", out);
        }
    }
}

/// What a container that is there to look at others must leave out.
fn ephemeral(container: &Node<'_, '_>, targets: &Seen<'_>, out: &mut Faults) {
    let target = container.get("targetContainerName");
    if !target.is_empty() && !targets.contains(target.text()) {
        target.not_found(out);
    }
    let service = ["ports", "resources", "resizePolicy", "restartPolicy"];
    for key in service.iter().chain(&probe::PROBES).chain(&["lifecycle"]) {
        let field = container.get(key);
        let empty = if key == &"resources" { field.is_empty() } else { !field.is_set() };
        if !empty {
            field.forbidden(NOT_EPHEMERAL, out);
        }
    }
    for mount in container.get("volumeMounts").items() {
        for key in ["subPath", "subPathExpr"] {
            if !mount.get(key).is_empty() {
                mount.get(key).forbidden(NOT_EPHEMERAL, out);
            }
        }
    }
}

fn ports(ports: &Node<'_, '_>, out: &mut Faults) {
    let mut seen = Seen::new();
    for port in ports.items() {
        let name = port.get("name");
        let complaints = labels::is_valid_port_name(name.text());
        if !name.is_empty() && complaints.is_empty() {
            if seen.contains(&name.text()) {
                name.duplicate(out);
            }
            seen.insert(name.text());
        }
        name.text_may(|_| complaints.clone(), out);
        let (number, host) = (port.get("containerPort"), port.get("hostPort"));
        match number.int() {
            0 => number.required("", out),
            _ => number.port(out),
        }
        if host.int() != 0 {
            host.port(out);
        }
        port.get("protocol").required_one_of(&PROTOCOLS, out);
    }
}

/// On the host's network a container's port is the host's. Templates may leave the host's out.
pub(super) fn on_host_network(spec: &Node<'_, '_>, is_pod: bool, out: &mut Faults) {
    if !spec.get("hostNetwork").is_true() {
        return;
    }
    for container in spec.get("containers").items() {
        for port in container.get("ports").items() {
            let host = port.get("hostPort");
            if (is_pod || host.int() != 0) && host.int() != port.get("containerPort").int() {
                let detail = "must match `containerPort` when `hostNetwork` is true";
                host.invalid_as(&json!(host.int()), detail, out);
            }
        }
    }
}

/// One host port serves one container. In: containers and the place in `list` that each is told at.
fn host_ports<'v, 'p>(
    list: &Node<'_, '_>,
    containers: impl Iterator<Item = (usize, Node<'v, 'p>)>,
    out: &mut Faults,
) where
    'v: 'p,
{
    let mut seen: HashSet<String> = HashSet::new();
    for (at, container) in containers {
        let place = format!("[{at}]");
        for (i, port) in container.get("ports").items().enumerate() {
            let number = port.get("hostPort").int();
            if number == 0 {
                continue;
            }
            let shown = format!("{}/{}/{number}", port.get("protocol").text(), port.get("hostIP").text());
            if seen.contains(&shown) {
                let told = format!("{}{place}.ports[{i}].hostPort", list.path());
                out.push(crate::status::FieldError::duplicate(told, &json!(shown)));
            }
            seen.insert(shown);
        }
    }
}

/// What the items of a list have in one of their fields.
fn texts<'v>(list: &Node<'v, '_>, key: &str) -> Seen<'v> {
    list.items().map(|item| item.get(key).text()).collect()
}

fn mounts(container: &Node<'_, '_>, volumes: &Volumes<'_>, out: &mut Faults) {
    let (mounts, devices) = (container.get("volumeMounts"), container.get("volumeDevices"));
    let privileged = container.get("securityContext.privileged").is_true();
    let mut paths = Seen::new();
    let (device_names, device_paths) = (texts(&devices, "name"), texts(&devices, "devicePath"));
    for mount in mounts.items() {
        let (name, path) = (mount.get("name"), mount.get("mountPath"));
        name.must_be_given(out);
        if !volumes.has(name.text()) {
            name.named("", &json!(name.text())).not_found(out);
        }
        path.must_be_given(out);
        if paths.contains(&path.text()) {
            path.invalid("must be unique", out);
        }
        paths.insert(path.text());
        if device_names.contains(name.text()) {
            name.invalid("must not already exist in volumeDevices", out);
        }
        if device_paths.contains(path.text()) {
            path.invalid("must not already exist as a path in volumeDevices", out);
        }
        sub_paths(&mounts, &mount, out);
        propagation(&mounts, &mount, privileged, out);
    }
}

/// Faults of a path name the list of mounts, not the mount.
fn sub_paths(mounts: &Node<'_, '_>, mount: &Node<'_, '_>, out: &mut Faults) {
    let (plain, expression) = (mount.get("subPath"), mount.get("subPathExpr"));
    if !plain.is_empty() {
        volume::descending_path(&mounts.named("subPath", plain.value), out);
    }
    if !expression.is_empty() {
        if !plain.is_empty() {
            expression.invalid("subPathExpr and subPath are mutually exclusive", out);
        }
        volume::descending_path(&mounts.named("subPathExpr", expression.value), out);
    }
}

fn propagation(mounts: &Node<'_, '_>, mount: &Node<'_, '_>, privileged: bool, out: &mut Faults) {
    let mode = mounts.named("mountPropagation", mount.get("mountPropagation").value);
    mode.if_set_one_of(&["Bidirectional", "HostToContainer", "None"], out);
    if mode.text() == "Bidirectional" && !privileged {
        mode.forbidden("Bidirectional mount propagation is available only to privileged containers", out);
    }
    let recursive = mounts.named("recursiveReadOnly", mount.get("recursiveReadOnly").value);
    match recursive.text() {
        "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if !mount.get("readOnly").is_true() {
                recursive.forbidden("may only be specified when readOnly is true", out);
            }
            if mode.is_set() && mode.text() != "None" {
                recursive
                    .forbidden("may only be specified when mountPropagation is None or not specified", out);
            }
        }
        _ => recursive.if_set_one_of(&["Disabled", "Enabled", "IfPossible"], out),
    }
}

fn devices(container: &Node<'_, '_>, volumes: &Volumes<'_>, out: &mut Faults) {
    let (devices, mounts) = (container.get("volumeDevices"), container.get("volumeMounts"));
    let (mut names, mut paths) = (Seen::new(), Seen::new());
    let (mount_names, mount_paths) = (texts(&mounts, "name"), texts(&mounts, "mountPath"));
    for device in devices.items() {
        let (name, path) = (device.get("name"), device.get("devicePath"));
        name.must_be_given(out);
        if names.contains(&name.text()) {
            name.invalid("must be unique", out);
        }
        if !volumes.has(name.text()) {
            name.named("", &json!(name.text())).not_found(out);
        } else if !volumes.is_claim(name.text()) {
            name.invalid(
                "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
                out,
            );
        }
        path.must_be_given(out);
        if paths.contains(&path.text()) {
            path.invalid("must be unique", out);
        }
        if path.text().split('/').any(|part| part == "..") {
            path.invalid("can not contain backsteps ('..')", out);
        } else {
            paths.insert(path.text());
        }
        if mount_names.contains(name.text()) {
            name.invalid("must not already exist in volumeMounts", out);
        }
        if mount_paths.contains(path.text()) {
            path.invalid("must not already exist as a path in volumeMounts", out);
        }
        if !name.is_empty() {
            names.insert(name.text());
        }
    }
}

/// Faults name the list; only a resource named twice is told at its place.
fn resize_policy(policies: &Node<'_, '_>, pod_restarts: &str, out: &mut Faults) {
    let mut seen = Seen::new();
    for policy in policies.items() {
        let (resource, restart) = (policy.get("resourceName"), policy.get("restartPolicy"));
        if seen.contains(&resource.text()) {
            policy.duplicate_shown(resource.text().to_owned(), out);
        }
        seen.insert(resource.text());
        let named = policies.named("", resource.value);
        if named.must_be_given(out) && !matches!(resource.text(), "cpu" | "memory") {
            named.unsupported_shown(resource.text(), &["cpu", "memory"], out);
        }
        let told = policies.named("", restart.value);
        told.required_one_of(&["NotRequired", "RestartContainer"], out);
        if pod_restarts == "Never" && restart.text() != "NotRequired" {
            told.invalid_as(
                &json!(restart.text()),
                "must be 'NotRequired' when `restartPolicy` is 'Never'",
                out,
            );
        }
    }
}
