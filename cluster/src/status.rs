//! `coracle status`: every process with its component, pid, endpoint, role and health.

use crate::args::{Output, StatusArgs};
use crate::control::{Reply, Request, ask};
use crate::http;
use crate::layout::Layout;
use crate::process::{Probe, State};
use crate::supervisor::read_spec;
use anyhow::{Context, Result};
use futures::future::join_all;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde::Serialize;
use std::collections::BTreeMap;

/// One process as `status` shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Unique in the cluster.
    pub id: String,
    /// `store`, `apiserver` …
    pub component: String,
    /// Process id on the host.
    pub pid: Option<u32>,
    /// Where it serves.
    pub endpoint: String,
    /// `leader`, `follower`, `standby` or empty.
    pub role: String,
    /// `ok`, or what is wrong.
    pub health: String,
    /// Times it was started again.
    pub restarts: u32,
}

/// Prints the state of a cluster.
///
/// # Errors
/// There is no such cluster, or it is not running.
pub async fn run(args: StatusArgs) -> Result<()> {
    let layout = Layout::of(&args.which);
    anyhow::ensure!(
        layout.spec().exists(),
        "there is no cluster {} in {}: make it with `coracle up --name {}`",
        args.which.name,
        layout.dir().display(),
        args.which.name
    );
    let spec = read_spec(&layout)?;
    let Some(Reply::Status(states)) = ask(&layout.socket(), &Request::Status).await? else {
        anyhow::bail!(
            "the cluster {} is not running: resume it with `coracle up --name {}`",
            spec.name,
            spec.name
        );
    };
    let rows = rows(states, &layout).await;
    match args.output {
        Output::Json => println!(
            "{}",
            serde_json::to_string_pretty(
                &serde_json::json!({"name": spec.name, "context": spec.context(), "processes": rows})
            )
            .context("cannot encode")?
        ),
        Output::Text => print!("{}", table(&rows)),
    }
    Ok(())
}

/// Asks every process for its health, all at once.
pub async fn rows(states: Vec<State>, layout: &Layout) -> Vec<Row> {
    let leaders = leaders(layout).await;
    join_all(states.into_iter().map(|state| {
        let leaders = &leaders;
        async move {
            let health = match state.pid {
                None => format!(
                    "not running{}",
                    state.last_exit.as_ref().map(|exit| format!(" ({exit})")).unwrap_or_default()
                ),
                Some(_) => http::probe(&state.process.probe, layout)
                    .await
                    .map_or_else(|error| format!("{error:#}"), |()| "ok".to_owned()),
            };
            let role = role(&state, leaders).await;
            Row {
                id: state.process.id,
                component: state.process.component,
                pid: state.pid,
                endpoint: state.process.endpoint,
                role,
                health,
                restarts: state.restarts,
            }
        }
    }))
    .await
}

/// Holders of the leader leases, by component.
async fn leaders(layout: &Layout) -> BTreeMap<&'static str, String> {
    let mut holders = BTreeMap::new();
    let Ok(client) = coracle_client::connect(&layout.kubeconfig("admin"), "coracle-status").await else {
        return holders;
    };
    let leases: Api<Lease> = Api::namespaced(client, "kube-system");
    for (component, lease) in [("scheduler", "kube-scheduler"), ("controllers", "kube-controller-manager")] {
        let asked =
            coracle_daemon::clock::timeout(std::time::Duration::from_secs(2), leases.get_opt(lease)).await;
        if let Ok(Ok(Some(found))) = asked
            && let Some(holder) = found.spec.and_then(|spec| spec.holder_identity)
        {
            holders.insert(component, holder);
        }
    }
    holders
}

async fn role(state: &State, leaders: &BTreeMap<&'static str, String>) -> String {
    match state.process.component.as_str() {
        "store" => {
            let Probe::Http { address, .. } = &state.process.probe else { return String::new() };
            let metrics =
                http::get_plain(address, "/metrics").await.map(|(_, text)| text).unwrap_or_default();
            let leads =
                metrics.lines().find_map(|line| line.strip_prefix("etcd_server_is_leader ")).map(str::trim);
            match leads {
                Some("1") => "leader".to_owned(),
                Some(_) => "follower".to_owned(),
                None => String::new(),
            }
        }
        component @ ("scheduler" | "controllers") => match leaders.get(component) {
            Some(holder) if *holder == state.process.id => "leader".to_owned(),
            _ => "standby".to_owned(),
        },
        _ => String::new(),
    }
}

fn table(rows: &[Row]) -> String {
    let head = ["PROCESS", "COMPONENT", "PID", "ENDPOINT", "ROLE", "RESTARTS", "HEALTH"].map(str::to_owned);
    let mut lines = vec![head];
    lines.extend(rows.iter().map(|row| {
        let pid = row.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        [
            row.id.clone(),
            row.component.clone(),
            pid,
            row.endpoint.clone(),
            row.role.clone(),
            row.restarts.to_string(),
            row.health.clone(),
        ]
    }));
    let widths: Vec<usize> =
        (0..7).map(|column| lines.iter().map(|line| line[column].len()).max().unwrap_or(0)).collect();
    let mut out = String::new();
    for line in lines {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}
