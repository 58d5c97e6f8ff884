//! The cells of jobs, nodes, autoscalers and volumes.

use super::Row;
use super::rules::{Cell, between, plain};
use serde_json::Value;
use std::collections::BTreeSet;

pub(super) const CELLS: &[(&str, Cell)] = &[
    ("job_status", |row| job_status(row).into()),
    ("job_completions", |row| job_completions(row).into()),
    ("job_duration", |row| {
        between(row.text("/status/startTime"), row.text("/status/completionTime"), row)
            .unwrap_or_default()
            .into()
    }),
    ("suspend", |row| match row.object["spec"]["suspend"].as_bool() {
        None => "<unset>".into(),
        Some(true) => "True".into(),
        Some(false) => "False".into(),
    }),
    ("node_status", |row| node_status(row).into()),
    ("node_roles", |row| node_roles(row).into()),
    ("internal_ip", |row| node_address(row, "InternalIP")),
    ("external_node_ip", |row| node_address(row, "ExternalIP")),
    ("component_status", |row| component_status(row).into()),
    ("hpa_reference", |row| {
        format!("{}/{}", row.text("/spec/scaleTargetRef/kind"), row.text("/spec/scaleTargetRef/name")).into()
    }),
    ("hpa_targets", |row| hpa_targets(row).into()),
    ("phase_or_terminating", |row| {
        if row.is_deleting() { "Terminating" } else { row.text("/status/phase") }.into()
    }),
    ("volume_modes", |row| access_modes(row.list("/spec/accessModes")).into()),
    ("claim_modes", |row| match row.text("/spec/volumeName") {
        "" => "".into(),
        _ => access_modes(row.list("/status/accessModes")).into(),
    }),
    ("claim_capacity", |row| match row.text("/spec/volumeName") {
        "" => "".into(),
        _ if row.text("/status/capacity/storage").is_empty() => "0".into(),
        _ => row.text("/status/capacity/storage").into(),
    }),
    ("volume_claim", |row| match row.text("/spec/claimRef/name") {
        "" => "".into(),
        name => format!("{}/{name}", row.text("/spec/claimRef/namespace")).into(),
    }),
    ("storage_class", |row| {
        let annotations = &row.object["metadata"]["annotations"];
        let beta = annotations["volume.beta.kubernetes.io/storage-class"].as_str();
        beta.unwrap_or_else(|| row.text("/spec/storageClassName")).into()
    }),
];

fn job_status(row: &Row<'_>) -> &'static str {
    let is = |kind: &str| row.condition(kind) == "True";
    match () {
        () if is("Complete") => "Complete",
        () if is("Failed") => "Failed",
        () if row.is_deleting() => "Terminating",
        () if is("Suspended") => "Suspended",
        () if is("FailureTarget") => "FailureTarget",
        () => "Running",
    }
}

fn job_completions(row: &Row<'_>) -> String {
    let succeeded = row.number("/status/succeeded");
    match (row.object["spec"]["completions"].as_i64(), row.number("/spec/parallelism")) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

fn node_status(row: &Row<'_>) -> String {
    let status = match row.condition("Ready") {
        "" => "Unknown",
        "True" => "Ready",
        _ => "NotReady",
    };
    let cordoned = row.object["spec"]["unschedulable"] == true;
    format!("{status}{}", if cordoned { ",SchedulingDisabled" } else { "" })
}

fn node_roles(row: &Row<'_>) -> String {
    let labels = row.object["metadata"]["labels"].as_object().into_iter().flatten();
    let roles: BTreeSet<&str> = labels
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    if roles.is_empty() { "<none>".to_owned() } else { roles.into_iter().collect::<Vec<_>>().join(",") }
}

fn node_address(row: &Row<'_>, kind: &str) -> Value {
    let found = row.list("/status/addresses").iter().find(|address| address["type"] == kind);
    found.map_or_else(|| "<none>".into(), |address| address["address"].clone())
}

fn component_status(row: &Row<'_>) -> &'static str {
    let healthy = row.list("/conditions").iter().find(|condition| condition["type"] == "Healthy");
    match healthy.map(|condition| condition["status"] == "True") {
        Some(true) => "Healthy",
        Some(false) => "Unhealthy",
        None => "Unknown",
    }
}

fn access_modes(modes: &[Value]) -> String {
    const SHORT: [(&str, &str); 4] = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let held = SHORT.iter().filter(|(long, _)| modes.iter().any(|mode| mode == long));
    held.map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

fn hpa_targets(row: &Row<'_>) -> String {
    let percent = |value: &Value| value.as_i64().map(|number| format!("{number}%"));
    let unknown = || "<unknown>".to_owned();
    // autoscaling/v1 knows one target only.
    if let Some(target) = percent(&row.object["spec"]["targetCPUUtilizationPercentage"]) {
        let current =
            percent(&row.object["status"]["currentCPUUtilizationPercentage"]).unwrap_or_else(unknown);
        return format!("cpu: {current}/{target}");
    }
    let metrics = row.list("/spec/metrics");
    if metrics.is_empty() {
        return "<none>".to_owned();
    }
    let null = Value::Null;
    let texts: Vec<String> = metrics
        .iter()
        .enumerate()
        .map(|(index, metric)| {
            hpa_metric(metric, row.list("/status/currentMetrics").get(index).unwrap_or(&null))
        })
        .collect();
    let shown = texts[..texts.len().min(2)].join(", ");
    if texts.len() > 2 { format!("{shown} + {} more...", texts.len() - 2) } else { shown }
}

fn hpa_metric(metric: &Value, status: &Value) -> String {
    let source = match metric["type"].as_str().unwrap_or_default() {
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "Pods" => "pods",
        "Object" => "object",
        "External" => "external",
        _ => return "<unknown type>".to_owned(),
    };
    let (target, current) = (&metric[source]["target"], &status[source]["current"]);
    let shown = |value: &Value| if value.is_null() { "<unknown>".to_owned() } else { plain(value) };
    let average = || format!("{}/{}", shown(&current["averageValue"]), plain(&target["averageValue"]));
    match source {
        "pods" => average(),
        "resource" | "containerResource" => {
            let text = if target["averageValue"].is_null() {
                let percent = |value: &Value, absent: &str| {
                    value.as_i64().map_or_else(|| absent.to_owned(), |number| format!("{number}%"))
                };
                let now = percent(&current["averageUtilization"], "<unknown>");
                format!("{now}/{}", percent(&target["averageUtilization"], "<auto>"))
            } else {
                average()
            };
            format!("{}: {text}", plain(&metric[source]["name"]))
        }
        _ if !target["averageValue"].is_null() => format!("{} (avg)", average()),
        _ => format!("{}/{}", shown(&current["value"]), plain(&target["value"])),
    }
}
