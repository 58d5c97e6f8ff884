//! A cluster that is up, and its processes killed in turn: how long writes and requests inside it are interrupted by each.
//!
//! Two loops run all the while: `kubectl create configmap`, and a pod that asks a Service for a page by its name. A kill's
//! figure is the longest time between two successes of a loop, from the kill until the process is well again.

use crate::cluster::ask;
use crate::report::{Output, Report, Unit};
use anyhow::{Context, Result};
use coracle_daemon::clock;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a killed process may take until it is well again.
const RECOVER_MAX: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);
/// Between two looks at the cluster's state.
const PAUSE: Duration = Duration::from_millis(100);
/// How long both loops go on after each recovery, and before the first kill.
const CALM: Duration = Duration::from_secs(2);
/// The pod that asks; a request that hangs counts as a failure after two seconds.
const PROBE: &str = "while :; do timeout 2 wget -qO- http://web >/dev/null 2>&1 && echo ok; done";

/// `bench faults`
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// The cluster's name
    #[arg(long, default_value = "coracle")]
    pub name: String,
    /// Its folder, if not the usual one
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Our program
    #[arg(long, env = "CORACLE_PROGRAM", default_value = "target/release/coracle")]
    pub coracle: PathBuf,
    /// `text` or `json`
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// One kill.
struct Kill {
    victim: String,
    from: jiff::Timestamp,
    until: jiff::Timestamp,
}

/// Kills one process after the other while both loops run.
///
/// # Errors
/// The cluster is not up, a process does not come back, or an acknowledged write is lost.
pub async fn run(args: Args) -> Result<()> {
    let kubeconfig = tempfile::NamedTempFile::new().context("cannot make a temporary file")?;
    let cluster = (args.name.as_str(), args.dir.as_deref(), args.coracle.as_path());
    std::fs::write(kubeconfig.path(), ask(cluster, &["kubeconfig"])?)
        .context("cannot keep the kubeconfig")?;
    let namespace = format!("bench-{}", std::process::id());
    let kubectl =
        Arc::new(Kubectl { kubeconfig: kubeconfig.path().to_owned(), namespace: namespace.clone() });
    kubectl.run(&["create", "namespace", &namespace])?;
    let measured = measure(cluster, &kubectl).await;
    kubectl.run(&["delete", "namespace", &namespace])?;
    measured?.show(args.output, "writes")
}

struct Kubectl {
    kubeconfig: PathBuf,
    namespace: String,
}

impl Kubectl {
    fn run(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(["--namespace", &self.namespace]).args(words);
        let output = command.output().context("cannot run kubectl")?;
        let told = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "kubectl {}: {}", words.join(" "), told.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

type Which<'a> = (&'a str, Option<&'a Path>, &'a Path);

async fn measure(cluster: Which<'_>, kubectl: &Arc<Kubectl>) -> Result<Report> {
    kubectl.run(&["create", "deployment", "web", "--image=nginx", "--replicas=2"])?;
    kubectl.run(&["expose", "deployment", "web", "--port=80"])?;
    kubectl.run(&["rollout", "status", "deployment", "web", "--timeout=60s"])?;
    kubectl.run(&["run", "probe", "--image=busybox", "--restart=Never", "--", "sh", "-c", PROBE])?;
    kubectl.run(&["wait", "pod/probe", "--for=condition=Ready", "--timeout=60s"])?;
    let (stop, writes) = (Arc::new(AtomicBool::new(false)), Arc::new(Writes::default()));
    let (by, until, kept) = (kubectl.clone(), stop.clone(), writes.clone());
    let writer = tokio::task::spawn_blocking(move || write(&by, &until, &kept));
    let kills = kill_all(cluster, &writes).await;
    stop.store(true, Ordering::Relaxed);
    writer.await.context("the writer panicked")?;
    let kills = kills?;
    let writes = writes.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let requests = times(&kubectl.run(&["logs", "probe", "--timestamps"])?);
    let written: Vec<jiff::Timestamp> = writes.iter().map(|(at, _)| *at).collect();
    let mut report = Report::default();
    for kill in &kills {
        report.add(&kill.victim, Unit::Milliseconds, "writes", longest_gap(&written, kill));
        report.add(&kill.victim, Unit::Milliseconds, "requests", longest_gap(&requests, kill));
    }
    let listed = kubectl.run(&["get", "configmaps", "-o", "jsonpath={.items[*].metadata.name}"])?;
    let listed: BTreeSet<&str> = listed.split_whitespace().collect();
    let lost: Vec<&String> =
        writes.iter().map(|(_, name)| name).filter(|name| !listed.contains(name.as_str())).collect();
    eprintln!("{} acknowledged writes, {} lost; {} requests", writes.len(), lost.len(), requests.len());
    anyhow::ensure!(lost.is_empty(), "these acknowledged writes are lost: {lost:?}");
    Ok(report)
}

/// Creates configmaps until told to stop, and keeps the name and time of each that was acknowledged.
fn write(kubectl: &Kubectl, stop: &AtomicBool, writes: &Writes) {
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let name = format!("kept-{n}");
        if kubectl.run(&["create", "configmap", &name, "--request-timeout=5s"]).is_ok() {
            writes.lock().unwrap_or_else(PoisonError::into_inner).push((clock::now(), name));
        }
    }
}

type Writes = Mutex<Vec<(jiff::Timestamp, String)>>;

async fn kill_all(cluster: Which<'_>, writes: &Writes) -> Result<Vec<Kill>> {
    let calm = clock::now();
    clock::sleep(CALM).await;
    let mut kills = vec![Kill { victim: "nothing".to_owned(), from: calm, until: clock::now() }];
    for victim in victims(&status(cluster)?) {
        // Who leads may have changed with the kill before.
        let (id, pid) = find(&status(cluster)?, &victim).with_context(|| format!("there is no {victim}"))?;
        let from = clock::now();
        let killed =
            Command::new("kill").args(["-9", &pid.to_string()]).status().context("cannot run kill")?;
        anyhow::ensure!(killed.success(), "cannot kill {id}");
        loop {
            let well = status(cluster)?.iter().any(|row| {
                row["id"] == id.as_str()
                    && row["pid"].as_u64().is_some_and(|new| new != pid)
                    && row["health"] == "ok"
            });
            if well {
                break;
            }
            anyhow::ensure!(clock::now().duration_since(from) < RECOVER_MAX, "{id} does not come back");
            clock::sleep(PAUSE).await;
        }
        // Else the next kill would be blamed for this one's interruption.
        let recovered = clock::now();
        while writes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .last()
            .is_none_or(|(at, _)| *at < recovered)
        {
            anyhow::ensure!(
                clock::now().duration_since(from) < RECOVER_MAX,
                "writes do not go on after {id} died"
            );
            clock::sleep(PAUSE).await;
        }
        clock::sleep(CALM).await;
        kills.push(Kill { victim, from, until: clock::now() });
    }
    Ok(kills)
}

fn status(cluster: Which<'_>) -> Result<Vec<Value>> {
    let told: Value =
        serde_json::from_str(&ask(cluster, &["status", "--output", "json"])?).context("status is no JSON")?;
    Ok(told["processes"].as_array().cloned().unwrap_or_default())
}

/// Every store and apiserver, the leaders of the others, and what runs on the first node.
fn victims(rows: &[Value]) -> Vec<String> {
    let text = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();
    let mut victims: Vec<String> = rows
        .iter()
        .filter(|row| matches!(row["component"].as_str(), Some("store" | "apiserver" | "balancer")))
        .map(|row| text(row, "id"))
        .collect();
    victims.extend(["leading store", "leading scheduler", "leading controllers"].map(str::to_owned));
    for component in ["kubelet", "proxy", "dns", "containerd"] {
        victims.extend(rows.iter().find(|row| row["component"] == component).map(|row| text(row, "id")));
    }
    victims
}

fn find(rows: &[Value], victim: &str) -> Option<(String, u64)> {
    let row = rows.iter().find(|row| match victim.strip_prefix("leading ") {
        Some(component) => row["component"] == component && row["role"] == "leader",
        None => row["id"] == victim,
    })?;
    Some((row["id"].as_str()?.to_owned(), row["pid"].as_u64()?))
}

/// The time at the start of each line of `kubectl logs --timestamps`.
fn times(log: &str) -> Vec<jiff::Timestamp> {
    log.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect()
}

/// Milliseconds of the longest time without a success that touches the kill's window.
fn longest_gap(successes: &[jiff::Timestamp], kill: &Kill) -> f64 {
    let before = successes.iter().rfind(|at| **at <= kill.from).copied().unwrap_or(kill.from);
    let inside = successes.iter().filter(|at| **at > kill.from && **at <= kill.until).copied();
    let after = successes.iter().find(|at| **at > kill.until).copied().unwrap_or(kill.until);
    let mut last = before;
    let mut longest = Duration::ZERO;
    for at in inside.chain([after]) {
        longest = longest.max(at.duration_since(last).unsigned_abs());
        last = at;
    }
    longest.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(millis: i64) -> jiff::Timestamp {
        jiff::Timestamp::from_millisecond(millis).expect("a time")
    }

    #[test]
    fn the_longest_gap_of_a_kill_reaches_over_both_ends_of_its_window() {
        let kill = Kill { victim: "x".into(), from: at(1000), until: at(2000) };
        let rows: [(&[i64], f64); 4] = [
            (&[900, 1100, 1200, 1900, 2100], 700.0),
            (&[100, 1900, 2000, 2100], 1800.0),
            (&[900, 1100, 5000], 3900.0),
            (&[], 1000.0),
        ];
        for (times, expected) in rows {
            let times: Vec<_> = times.iter().map(|millis| at(*millis)).collect();
            assert!((longest_gap(&times, &kill) - expected).abs() < 0.001, "{times:?}");
        }
    }

    #[test]
    fn leaders_are_found_when_their_turn_comes() {
        let rows = [
            json!({"id": "scheduler-0", "component": "scheduler", "role": "standby", "pid": 1}),
            json!({"id": "scheduler-1", "component": "scheduler", "role": "leader", "pid": 2}),
        ];
        assert_eq!(find(&rows, "leading scheduler"), Some(("scheduler-1".to_owned(), 2)));
        assert_eq!(find(&rows, "leading store"), None);
        assert_eq!(times("2026-01-02T03:04:05.5Z ok\nnonsense\n").len(), 1);
    }
}
