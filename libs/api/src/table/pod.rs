//! The cells of pods, above all their status in one word.

use super::Row;
use super::rules::Cell;
use serde_json::Value;

pub(super) const CELLS: &[(&str, Cell)] = &[
    ("pod_ready", |row| {
        let summary = summary(row);
        format!("{}/{}", summary.ready, summary.total).into()
    }),
    ("pod_status", |row| summary(row).status.into()),
    ("pod_restarts", |row| summary(row).restarts(row).into()),
    ("readiness_gates", |row| readiness_gates(row).into()),
];

/// What a pod's cells are made of.
#[derive(Debug, Default)]
struct Summary {
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: String,
    status: String,
}

impl Summary {
    fn restarts(&self, row: &Row<'_>) -> String {
        if self.restarts == 0 || self.last_restart.is_empty() {
            return self.restarts.to_string();
        }
        format!("{} ({} ago)", self.restarts, super::since(&self.last_restart, row.now))
    }
    fn count(&mut self, container: &Value) {
        self.restarts += container["restartCount"].as_i64().unwrap_or_default();
        let finished = container["lastState"]["terminated"]["finishedAt"].as_str().unwrap_or_default();
        // Times are all UTC in whole seconds, so that their text sorts as they do.
        if finished > self.last_restart.as_str() {
            finished.clone_into(&mut self.last_restart);
        }
    }
}

fn summary(row: &Row<'_>) -> Summary {
    let init = row.list("/spec/initContainers");
    let sidecars: Vec<&Value> =
        init.iter().filter(|one| one["restartPolicy"] == "Always").map(|one| &one["name"]).collect();
    let mut summary =
        Summary { total: row.list("/spec/containers").len() + sidecars.len(), ..Summary::default() };
    let reason = row.text("/status/reason");
    summary.status = if reason.is_empty() { row.text("/status/phase") } else { reason }.to_owned();
    let gated = |one: &Value| one["type"] == "PodScheduled" && one["reason"] == "SchedulingGated";
    if row.list("/status/conditions").iter().any(gated) {
        "SchedulingGated".clone_into(&mut summary.status);
    }
    let mut sidecar_restarts = Summary::default();
    let initializing = init_pass(row, &sidecars, init.len(), &mut summary, &mut sidecar_restarts);
    if !initializing || row.condition("Initialized") == "True" {
        summary.restarts = sidecar_restarts.restarts;
        summary.last_restart = sidecar_restarts.last_restart;
        let running = main_pass(row, &mut summary);
        if summary.status == "Completed" && running {
            let ready = row.condition("Ready") == "True";
            if ready { "Running" } else { "NotReady" }.clone_into(&mut summary.status);
        }
    }
    if row.is_deleting() {
        if reason == "NodeLost" {
            "Unknown".clone_into(&mut summary.status);
        } else if !matches!(row.text("/status/phase"), "Succeeded" | "Failed") {
            "Terminating".clone_into(&mut summary.status);
        }
    }
    summary
}

/// Init containers in order, up to the first that is not done; whether there is one.
fn init_pass(
    row: &Row<'_>,
    sidecars: &[&Value],
    count: usize,
    summary: &mut Summary,
    sidecar: &mut Summary,
) -> bool {
    for (index, container) in row.list("/status/initContainerStatuses").iter().enumerate() {
        let is_sidecar = sidecars.contains(&&container["name"]);
        summary.count(container);
        if is_sidecar {
            sidecar.count(container);
        }
        let state = &container["state"];
        if state["terminated"].is_object()
            && state["terminated"]["exitCode"].as_i64().unwrap_or_default() == 0
        {
            continue;
        }
        if is_sidecar && container["started"] == true {
            summary.ready += usize::from(container["ready"] == true);
            continue;
        }
        let waiting = state["waiting"]["reason"].as_str().unwrap_or_default();
        summary.status = if state["terminated"].is_object() {
            format!("Init:{}", termination(&state["terminated"]))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{index}/{count}")
        };
        return true;
    }
    false
}

/// Containers from the last to the first, so that the first with something to say wins; whether a ready one runs.
fn main_pass(row: &Row<'_>, summary: &mut Summary) -> bool {
    let mut running = false;
    for container in row.list("/status/containerStatuses").iter().rev() {
        summary.count(container);
        let state = &container["state"];
        let waiting = state["waiting"]["reason"].as_str().unwrap_or_default();
        if !waiting.is_empty() {
            waiting.clone_into(&mut summary.status);
        } else if state["terminated"].is_object() {
            summary.status = termination(&state["terminated"]);
        } else if container["ready"] == true && state["running"].is_object() {
            running = true;
            summary.ready += 1;
        }
    }
    running
}

fn termination(terminated: &Value) -> String {
    let number = |key: &str| terminated[key].as_i64().unwrap_or_default();
    match terminated["reason"].as_str().unwrap_or_default() {
        "" if number("signal") != 0 => format!("Signal:{}", number("signal")),
        "" => format!("ExitCode:{}", number("exitCode")),
        reason => reason.to_owned(),
    }
}

fn readiness_gates(row: &Row<'_>) -> String {
    let gates = row.list("/spec/readinessGates");
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let open = |gate: &&Value| row.condition(gate["conditionType"].as_str().unwrap_or_default()) == "True";
    format!("{}/{}", gates.iter().filter(open).count(), gates.len())
}
