//! A cluster that is up: how long a pod takes, and what it costs to do nothing.

use crate::process::{busy_seconds, parent, resident_bytes};
use crate::report::{Output, Report, Unit, median};
use anyhow::{Context, Result};
use coracle_daemon::clock;
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, DeleteParams, PostParams, WatchEvent, WatchParams};
use kube::runtime::wait::{await_condition, conditions::is_deleted};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const POD_MAX: Duration = Duration::from_secs(60);

/// `bench cluster`
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// The cluster's name
    #[arg(long, default_value = "coracle")]
    name: String,
    /// Its folder, if not the usual one
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Pods to start, one after the other
    #[arg(long, default_value_t = 20)]
    pods: usize,
    /// Their image
    #[arg(long, default_value = "busybox")]
    image: String,
    /// Seconds for which the nodes put away what the pods left, before idle time is counted
    #[arg(long, default_value_t = 10)]
    settle: u64,
    /// Seconds of doing nothing
    #[arg(long, default_value_t = 30)]
    idle: u64,
    /// Our program
    #[arg(long, env = "CORACLE_PROGRAM", default_value = "target/release/coracle")]
    coracle: PathBuf,
    /// `text` or `json`
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Measures a cluster.
///
/// # Errors
/// It is not up, or a pod does not run.
pub async fn run(args: Args) -> Result<()> {
    let mut report = Report::default();
    let kubeconfig = tempfile::NamedTempFile::new().context("cannot make a temporary file")?;
    std::fs::write(kubeconfig.path(), ask(args.cluster(), &["kubeconfig"])?)
        .context("cannot keep the kubeconfig")?;
    let client = coracle_client::connect(kubeconfig.path(), "coracle-bench")
        .await
        .context("cannot use the cluster's kubeconfig")?;
    let took = pods(&client, &args).await?;
    report.add(
        "pod created until Running, p50",
        Unit::Milliseconds,
        "coracle",
        median(&took).context("no pod")?,
    );

    clock::sleep(Duration::from_secs(args.settle)).await;
    let pids = processes(&args)?;
    let before: f64 = pids.iter().filter_map(|pid| busy_seconds(*pid)).sum();
    let began = Instant::now();
    clock::sleep(Duration::from_secs(args.idle)).await;
    let after: f64 = pids.iter().filter_map(|pid| busy_seconds(*pid)).sum();
    let share = (after - before) / began.elapsed().as_secs_f64() * 100.0;
    report.add(&format!("idle, {} processes, of one core", pids.len()), Unit::Percent, "coracle", share);
    let bytes: u64 = pids.iter().filter_map(|pid| resident_bytes(*pid)).sum();
    report.add("memory of all processes", Unit::Megabytes, "coracle", bytes as f64 / 1e6);
    report.show(args.output, "coracle")
}

/// Milliseconds from each pod's creation until a watch tells that it runs.
async fn pods(client: &kube::Client, args: &Args) -> Result<Vec<f64>> {
    let namespace = format!("bench-{}", std::process::id());
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let new = serde_json::from_value(json!({"metadata": {"name": namespace}})).context("no namespace")?;
    namespaces.create(&PostParams::default(), &new).await.context("cannot make a namespace")?;
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let measured = measure_pods(&api, args).await;
    let how = DeleteParams::default();
    let leaving = namespaces.delete(&namespace, &how).await.context("cannot delete the namespace")?.left();
    // What is measured next is a cluster with nothing left to do.
    if let Some(uid) = leaving.and_then(|namespace| namespace.metadata.uid) {
        clock::timeout(POD_MAX, await_condition(namespaces, &namespace, is_deleted(&uid)))
            .await
            .context("the namespace does not go")?
            .context("cannot watch the namespace")?;
    }
    measured
}

async fn measure_pods(api: &Api<Pod>, args: &Args) -> Result<Vec<f64>> {
    let mut took = Vec::new();
    for n in 0..args.pods {
        let name = format!("pod-{n}");
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false,
                "containers": [{"name": "a", "image": args.image, "command": ["sleep", "3600"]}]},
        }))
        .context("no pod")?;
        let version = api
            .list(&kube::api::ListParams::default())
            .await
            .context("cannot list pods")?
            .metadata
            .resource_version;
        let watch = api
            .watch(&WatchParams::default(), version.as_deref().unwrap_or("0"))
            .await
            .context("cannot watch pods")?;
        let mut watch = Box::pin(watch);
        let asked = Instant::now();
        api.create(&PostParams::default(), &pod).await.context("cannot create a pod")?;
        let running = async {
            while let Some(event) = watch.try_next().await.context("the watch ended")? {
                if let WatchEvent::Modified(pod) = event
                    && pod.status.and_then(|status| status.phase).as_deref() == Some("Running")
                {
                    return Ok(asked.elapsed().as_secs_f64() * 1e3);
                }
            }
            anyhow::bail!("the watch ended before {name} ran")
        };
        took.push(clock::timeout(POD_MAX, running).await.with_context(|| format!("{name} does not run"))??);
        api.delete(&name, &DeleteParams::default()).await.context("cannot delete a pod")?;
    }
    Ok(took)
}

/// What a command of coracle says of a cluster: its name, folder and our program.
pub fn ask((name, dir, coracle): (&str, Option<&Path>, &Path), words: &[&str]) -> Result<String> {
    let mut command = std::process::Command::new(coracle);
    command.args(words).args(["--name", name]);
    if let Some(dir) = dir {
        command.arg("--dir").arg(dir);
    }
    let output = command.output().with_context(|| format!("cannot run {}", coracle.display()))?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Args {
    fn cluster(&self) -> (&str, Option<&Path>, &Path) {
        (&self.name, self.dir.as_deref(), &self.coracle)
    }
}

/// All processes of the cluster, its supervisor too.
fn processes(args: &Args) -> Result<Vec<u32>> {
    let told: Value = serde_json::from_str(&ask(args.cluster(), &["status", "--output", "json"])?)
        .context("status is no JSON")?;
    let rows = told["processes"].as_array().context("status has no processes")?;
    let mut pids: Vec<u32> =
        rows.iter().filter_map(|row| row["pid"].as_u64()).filter_map(|pid| u32::try_from(pid).ok()).collect();
    let supervisor = pids.first().and_then(|pid| parent(*pid));
    pids.extend(supervisor);
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}
