//! Containers of the three lists: ports, mounts, probes, lifecycle.

use super::super::node::{Faults, Node, unique};
use super::{env, resources, security, volume};
use crate::labels;
use serde_json::{Value, json};

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];

pub(super) fn all(spec: &Node<'_, '_>, is_pod: bool, out: &mut Faults) {
    let lists = ["containers", "initContainers", "ephemeralContainers"];
    if spec.get("containers").is_empty() {
        spec.get("containers").required("", out);
    }
    let mut seen: Vec<&str> = Vec::new();
    for list in lists {
        let containers = spec.get(list);
        for container in containers.items() {
            let name = container.get("name");
            common(&container, spec, is_pod, out);
            match list {
                "containers" => main(&container, spec, out),
                "initContainers" => init(&container, spec, out),
                _ => ephemeral(&container, spec, out),
            }
            if !name.text().is_empty() && seen.contains(&name.text()) {
                name.duplicate(out);
            }
            seen.push(name.text());
        }
        if list != "ephemeralContainers" {
            host_ports(&containers, out);
        }
    }
}

fn common(container: &Node<'_, '_>, spec: &Node<'_, '_>, is_pod: bool, out: &mut Faults) {
    container.get("name").required_text(labels::is_dns1123_label, out);
    let image = container.get("image");
    if image.is_empty() {
        image.required("", out);
    } else if is_pod && image.text() != image.text().trim() {
        image.invalid("must not have leading or trailing whitespace", out);
    }
    container.get("terminationMessagePolicy").required_one_of(&["File", "FallbackToLogsOnError"], out);
    ports(container, spec.get("hostNetwork").is_true(), out);
    env::all(container, out);
    mounts(container, spec, out);
    devices(container, spec, out);
    container.get("imagePullPolicy").required_one_of(&["Always", "IfNotPresent", "Never"], out);
    resources::container(&container.get("resources"), spec, out);
    resize_policy(container, spec, out);
    security::container(&container.get("securityContext"), spec, out);
}

fn main(container: &Node<'_, '_>, spec: &Node<'_, '_>, out: &mut Faults) {
    let grace = spec.get("terminationGracePeriodSeconds").int();
    lifecycle(container, grace, out);
    probes(container, out);
    let restart = container.get("restartPolicy");
    if restart.is_set() {
        restart.forbidden("may not be set for non-init containers", out);
    }
}

fn init(container: &Node<'_, '_>, spec: &Node<'_, '_>, out: &mut Faults) {
    let restart = container.get("restartPolicy");
    restart.may_be_one_of(&["Always"], out);
    if restart.text() == "Always" {
        lifecycle(container, spec.get("terminationGracePeriodSeconds").int(), out);
        return probes(container, out);
    }
    for key in ["lifecycle"].iter().chain(&PROBES) {
        let field = container.get(key);
        if field.is_set() {
            field.forbidden("may not be set for init containers without restartPolicy=Always", out);
        }
    }
}

fn ephemeral(container: &Node<'_, '_>, spec: &Node<'_, '_>, out: &mut Faults) {
    let target = container.get("targetContainerName");
    let known = |name: &str| {
        ["containers", "initContainers"]
            .iter()
            .any(|list| spec.get(list).items().any(|container| container.get("name").text() == name))
    };
    if !target.is_empty() && !known(target.text()) {
        target.not_found(out);
    }
    for key in ["ports", "resources", "lifecycle"].iter().chain(&PROBES) {
        let field = container.get(key);
        if !field.is_empty() {
            field.forbidden("cannot be set for an Ephemeral Container", out);
        }
    }
    for mount in container.get("volumeMounts").items() {
        for key in ["subPath", "subPathExpr"] {
            if !mount.get(key).is_empty() {
                mount.get(key).forbidden("cannot be set for an Ephemeral Container", out);
            }
        }
    }
}

fn ports(container: &Node<'_, '_>, host_network: bool, out: &mut Faults) {
    let ports = container.get("ports");
    let mut seen: Vec<&str> = Vec::new();
    for port in ports.items() {
        let name = port.get("name");
        name.text_may(labels::is_valid_port_name, out);
        if !name.is_empty() && seen.contains(&name.text()) {
            name.duplicate(out);
        }
        seen.push(name.text());
        let (number, host) = (port.get("containerPort"), port.get("hostPort"));
        match number.int() {
            0 => number.required("", out),
            _ => number.port(out),
        }
        if host.int() != 0 {
            host.port(out);
            if host_network && host.int() != number.int() {
                host.invalid("must match `containerPort` when `hostNetwork` is true", out);
            }
        }
        port.get("protocol").required_one_of(&PROTOCOLS, out);
    }
}

/// One host port serves one container of a list.
fn host_ports(containers: &Node<'_, '_>, out: &mut Faults) {
    let mut seen: Vec<String> = Vec::new();
    for container in containers.items() {
        for port in container.get("ports").items() {
            let (number, protocol, ip) = (port.get("hostPort"), port.get("protocol"), port.get("hostIP"));
            if number.int() == 0 {
                continue;
            }
            let shown = format!("{}/{}/{}", protocol.text(), ip.text(), number.int());
            if seen.contains(&shown) {
                number.duplicate_as(&json!(shown), out);
            }
            seen.push(shown);
        }
    }
}

fn mounts(container: &Node<'_, '_>, spec: &Node<'_, '_>, out: &mut Faults) {
    let (mounts, devices) = (container.get("volumeMounts"), container.get("volumeDevices"));
    let privileged = container.get("securityContext.privileged").is_true();
    let mut paths: Vec<&str> = Vec::new();
    for mount in mounts.items() {
        let (name, path) = (mount.get("name"), mount.get("mountPath"));
        if name.is_empty() {
            name.required("", out);
        } else if !volume::exists(spec, name.text()) {
            name.not_found(out);
        }
        if path.is_empty() {
            path.required("", out);
        }
        if paths.contains(&path.text()) {
            path.invalid("must be unique", out);
        }
        paths.push(path.text());
        if devices.items().any(|device| device.get("name").value == name.value) {
            name.invalid("must not already exist in volumeDevices", out);
        }
        if devices.items().any(|device| device.get("devicePath").value == path.value) {
            path.invalid("must not already exist as a path in volumeDevices", out);
        }
        sub_paths(&mount, out);
        propagation(&mount, privileged, out);
    }
}

fn sub_paths(mount: &Node<'_, '_>, out: &mut Faults) {
    let (plain, expression) = (mount.get("subPath"), mount.get("subPathExpr"));
    if !plain.is_empty() {
        volume::descending_path(&plain, out);
    }
    if !expression.is_empty() {
        if !plain.is_empty() {
            expression.invalid("subPathExpr and subPath are mutually exclusive", out);
        }
        volume::descending_path(&expression, out);
    }
}

fn propagation(mount: &Node<'_, '_>, privileged: bool, out: &mut Faults) {
    let mode = mount.get("mountPropagation");
    mode.may_be_one_of(&["Bidirectional", "HostToContainer", "None"], out);
    if mode.text() == "Bidirectional" && !privileged {
        mode.forbidden("Bidirectional mount propagation is available only to privileged containers", out);
    }
    let recursive = mount.get("recursiveReadOnly");
    match recursive.text() {
        "" | "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if !mount.get("readOnly").is_true() {
                recursive.forbidden("may only be specified when readOnly is true", out);
            }
            if !matches!(mode.text(), "" | "None") {
                recursive
                    .forbidden("may only be specified when mountPropagation is None or not specified", out);
            }
        }
        _ => recursive.not_supported(&["Disabled", "Enabled", "IfPossible"], out),
    }
}

fn devices(container: &Node<'_, '_>, spec: &Node<'_, '_>, out: &mut Faults) {
    let devices = container.get("volumeDevices");
    let (mut names, mut paths): (Vec<&str>, Vec<&str>) = Default::default();
    for device in devices.items() {
        let (name, path) = (device.get("name"), device.get("devicePath"));
        if name.is_empty() {
            name.required("", out);
        }
        if names.contains(&name.text()) {
            name.invalid("must be unique", out);
        }
        if !volume::exists(spec, name.text()) {
            name.not_found(out);
        } else if !volume::is_claim(spec, name.text()) {
            name.invalid(
                "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
                out,
            );
        }
        if path.is_empty() {
            path.required("", out);
        }
        if paths.contains(&path.text()) {
            path.invalid("must be unique", out);
        }
        if path.text().split('/').any(|part| part == "..") {
            path.invalid("can not contain backsteps ('..')", out);
        }
        names.push(name.text());
        paths.push(path.text());
    }
}

fn resize_policy(container: &Node<'_, '_>, spec: &Node<'_, '_>, out: &mut Faults) {
    let policies = container.get("resizePolicy");
    let all: Vec<Node<'_, '_>> = policies.items().collect();
    unique(all.iter().map(|policy| policy.get("resourceName")), out);
    for policy in &all {
        policy.get("resourceName").required_one_of(&["cpu", "memory"], out);
        let restart = policy.get("restartPolicy");
        restart.required_one_of(&["NotRequired", "RestartContainer"], out);
        if spec.get("restartPolicy").text() == "Never" && restart.text() == "RestartContainer" {
            restart.invalid("must be 'NotRequired' when `restartPolicy` is 'Never'", out);
        }
    }
}

fn lifecycle(container: &Node<'_, '_>, grace: i64, out: &mut Faults) {
    for hook in ["lifecycle.postStart", "lifecycle.preStop"] {
        let hook = container.get(hook);
        if hook.is_set() {
            handler(&hook, grace, out);
        }
    }
}

fn probes(container: &Node<'_, '_>, out: &mut Faults) {
    for kind in PROBES {
        let probe = container.get(kind);
        if !probe.is_set() {
            continue;
        }
        handler(&probe, 0, out);
        for key in
            ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
        {
            probe.get(key).not_negative(out);
        }
        let (grace, success) = (probe.get("terminationGracePeriodSeconds"), probe.get("successThreshold"));
        if grace.is_set() && grace.int() <= 0 {
            grace.invalid("must be greater than 0", out);
        }
        if kind == "readinessProbe" && grace.is_set() {
            grace.invalid("must not be set for readinessProbes", out);
        }
        if kind != "readinessProbe" && success.int() != 1 {
            success.invalid_as(&json!(success.int()), "must be 1", out);
        }
    }
}

/// Exactly one way to ask.
fn handler(handler: &Node<'_, '_>, grace: i64, out: &mut Faults) {
    let mut count = 0;
    for kind in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let action = handler.get(kind);
        if !action.is_set() {
            continue;
        }
        count += 1;
        if count > 1 {
            action.forbidden("may not specify more than 1 handler type", out);
            continue;
        }
        match kind {
            "exec" if action.get("command").is_empty() => action.get("command").required("", out),
            "httpGet" => http_get(&action, out),
            "tcpSocket" => port_or_name(&action.get("port"), out),
            "grpc" => action.get("port").port(out),
            "sleep" => {
                let seconds = action.get("seconds");
                if seconds.int() < 0 || seconds.int() > grace {
                    let detail =
                        format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                    action.invalid_as(&json!(seconds.int()), detail, out);
                }
            }
            _ => {}
        }
    }
    if count == 0 {
        handler.required("must specify a handler type", out);
    }
}

fn http_get(action: &Node<'_, '_>, out: &mut Faults) {
    if action.get("path").is_empty() {
        action.get("path").required("", out);
    }
    port_or_name(&action.get("port"), out);
    action.get("scheme").must_be_one_of(&["HTTP", "HTTPS"], out);
    let headers = action.get("httpHeaders");
    for header in headers.items() {
        for complaint in labels::is_http_header_name(header.get("name").text()) {
            headers.invalid_as(header.get("name").value, complaint, out);
        }
    }
}

pub(super) fn port_or_name(port: &Node<'_, '_>, out: &mut Faults) {
    match port.value {
        Value::String(_) => port.text_must(labels::is_valid_port_name, out),
        _ => port.port(out),
    }
}
