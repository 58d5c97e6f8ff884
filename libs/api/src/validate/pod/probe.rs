//! Probes and lifecycle hooks: one way to ask, and numbers that make sense.

use super::super::node::{Faults, Node};
use crate::labels;
use serde_json::{Value, json};

pub(super) const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];
const PROBE_ACTIONS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "grpc"];
const HOOK_ACTIONS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "sleep"];

/// `grace` is how long the pod has to end, where it says so.
pub(super) fn lifecycle(container: &Node<'_, '_>, grace: &Node<'_, '_>, out: &mut Faults) {
    for hook in ["lifecycle.postStart", "lifecycle.preStop"] {
        let hook = container.get(hook);
        if hook.is_set() {
            handler(&hook, &HOOK_ACTIONS, grace, out);
        }
    }
}

pub(super) fn probes(container: &Node<'_, '_>, grace: &Node<'_, '_>, out: &mut Faults) {
    for kind in PROBES {
        let probe = container.get(kind);
        if !probe.is_set() {
            continue;
        }
        handler(&probe, &PROBE_ACTIONS, grace, out);
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
fn handler(handler: &Node<'_, '_>, actions: &[&str], grace: &Node<'_, '_>, out: &mut Faults) {
    let mut count = 0;
    for kind in actions {
        let action = handler.get(kind);
        if !action.is_set() {
            continue;
        }
        count += 1;
        if count > 1 {
            action.forbidden("may not specify more than 1 handler type", out);
            continue;
        }
        match *kind {
            "exec" => {
                action.get("command").must_be_given(out);
            }
            "httpGet" => http_get(&action, out),
            "tcpSocket" => port_or_name(&action.get("port"), out),
            "grpc" => action.get("port").port(out),
            _ => sleep(&action, grace, out),
        }
    }
    if count == 0 {
        handler.required("must specify a handler type", out);
    }
}

fn sleep(action: &Node<'_, '_>, grace: &Node<'_, '_>, out: &mut Faults) {
    let seconds = action.get("seconds").int();
    if grace.is_set() && !(0..=grace.int()).contains(&seconds) {
        let detail =
            format!("must be non-negative and less than terminationGracePeriodSeconds ({})", grace.int());
        action.invalid_as(&json!(seconds), detail, out);
    }
}

fn http_get(action: &Node<'_, '_>, out: &mut Faults) {
    action.get("path").must_be_given(out);
    port_or_name(&action.get("port"), out);
    action.get("scheme").must_be_one_of(&["HTTP", "HTTPS"], out);
    let headers = action.get("httpHeaders");
    for header in headers.items() {
        for complaint in labels::is_http_header_name(header.get("name").text()) {
            headers.invalid_as(&json!(header.get("name").text()), complaint, out);
        }
    }
}

pub(in super::super) fn port_or_name(port: &Node<'_, '_>, out: &mut Faults) {
    match port.value {
        Value::String(_) => port.text_must(labels::is_valid_port_name, out),
        _ => port.port(out),
    }
}
