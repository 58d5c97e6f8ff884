//! The servers that are measured: a cluster without nodes, made for this and removed after it.

use super::wire::{Wire, request};
use crate::cluster::ask;
use crate::process::{busy_seconds, resident_bytes};
use anyhow::{Context, Result};
use coracle_daemon::clock;
use coracle_daemon::tls::{self, Identity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustls::ClientConfig;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Bytes that a client reads at once.
const BUFFER: usize = 64 << 10;
const READY_MAX: Duration = Duration::from_secs(60);

/// A process of the cluster.
struct Process {
    id: String,
    component: String,
    pid: u32,
    port: Option<u16>,
}

/// The servers; they end with it.
pub struct Servers {
    coracle: PathBuf,
    name: String,
    dir: TempDir,
    tls: Arc<ClientConfig>,
    /// The ports of the apiservers.
    pub ports: Vec<u16>,
}

impl Servers {
    /// Starts them.
    ///
    /// # Errors
    /// They do not come up.
    pub async fn start(coracle: &Path, scratch: &Path, port: Option<u16>) -> Result<Self> {
        // A connection each for thousands of watches.
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).context("no limit of open files")?;
        setrlimit(Resource::RLIMIT_NOFILE, most, most)
            .context("cannot have as many open files as allowed")?;
        let dir = tempfile::tempdir_in(scratch).context("cannot make a folder")?;
        let dir_path = dir.path().canonicalize().context("the folder is gone")?;
        let name = format!("bench-{}", std::process::id());
        let mut up = Command::new(coracle);
        up.args(["up", "--no-images", "--nodes", "0", "--stores", "3", "--apiservers", "2", "--name", &name]);
        up.arg("--dir").arg(dir_path.join("cluster")).arg("--kubeconfig").arg(dir_path.join("kubeconfig"));
        up.args(port.map(|port| format!("--api-port={port}")));
        let output = up.output().with_context(|| format!("cannot run {}", coracle.display()))?;
        anyhow::ensure!(output.status.success(), "up: {}", String::from_utf8_lossy(&output.stderr).trim());
        let pki = dir_path.join("cluster/pki");
        let identity = Identity { cert: pki.join("admin.crt"), key: pki.join("admin.key") };
        let tls =
            tls::client(&pki.join("ca.crt"), Some(&identity), &[]).context("cannot use the certificates")?;
        let mut servers = Self { coracle: coracle.to_owned(), name, dir, tls, ports: Vec::new() };
        let processes = servers.processes()?;
        let apiservers = processes.iter().filter(|process| process.component == "apiserver");
        servers.ports = apiservers.filter_map(|process| process.port).collect();
        anyhow::ensure!(servers.ports.len() == 2, "there are no two apiservers");
        // Pods are refused before the account exists that they run as.
        servers.until_found("/api/v1/namespaces/default/serviceaccounts/default").await?;
        Ok(servers)
    }

    fn processes(&self) -> Result<Vec<Process>> {
        let dir = self.dir.path().join("cluster");
        let told = ask((&self.name, Some(&dir), &self.coracle), &["status", "--output", "json"])?;
        let told: Value = serde_json::from_str(&told).context("status is no JSON")?;
        let rows = told["processes"].as_array().context("status has no processes")?;
        let text = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();
        let process = |row: &Value| {
            let pid = row["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok())?;
            let port = text(row, "endpoint").rsplit_once(':').and_then(|(_, port)| port.parse().ok());
            Some(Process { id: text(row, "id"), component: text(row, "component"), pid, port })
        };
        Ok(rows.iter().filter_map(process).collect())
    }

    /// Pauses what is not measured, or lets it go on.
    ///
    /// # Errors
    /// The cluster does not tell its processes.
    pub fn pause_others(&self, pause: bool) -> Result<()> {
        let signal = if pause { Signal::SIGSTOP } else { Signal::SIGCONT };
        for process in self.processes()? {
            if matches!(process.component.as_str(), "controllers" | "scheduler") {
                kill(pid(process.pid)?, signal).with_context(|| format!("cannot signal {}", process.id))?;
            }
        }
        Ok(())
    }

    fn apiserver(&self, which: usize) -> Result<Process> {
        let id = format!("apiserver-{which}");
        self.processes()?.into_iter().find(|process| process.id == id).context("an apiserver is missing")
    }

    /// Bytes of memory that an apiserver holds.
    ///
    /// # Errors
    /// It does not run.
    pub fn resident_bytes(&self, which: usize) -> Result<u64> {
        resident_bytes(self.apiserver(which)?.pid).context("an apiserver is gone")
    }

    /// Seconds that the apiservers have been busy.
    pub fn busy_seconds(&self) -> f64 {
        let processes = self.processes().unwrap_or_default();
        let apiservers = processes.iter().filter(|process| process.component == "apiserver");
        apiservers.filter_map(|process| busy_seconds(process.pid)).sum()
    }

    /// A connection to an apiserver.
    ///
    /// # Errors
    /// It does not take one.
    pub async fn client(&self, n: usize) -> Result<Wire> {
        self.client_with(n, BUFFER).await
    }

    /// The same, reading so many bytes at once.
    ///
    /// # Errors
    /// It does not take one.
    pub async fn client_with(&self, n: usize, buffer: usize) -> Result<Wire> {
        Wire::connect(self.ports[n % self.ports.len()], &self.tls, buffer).await
    }

    /// Kills an apiserver; the time until its successor is ready.
    ///
    /// # Errors
    /// It does not come back.
    pub async fn restart(&self, which: usize) -> Result<Duration> {
        let began = Instant::now();
        kill(pid(self.apiserver(which)?.pid)?, Signal::SIGKILL).context("cannot kill an apiserver")?;
        clock::timeout(READY_MAX, self.ready(which)).await.context("an apiserver does not come back")?;
        Ok(began.elapsed())
    }

    async fn ready(&self, which: usize) {
        let path = request("GET", "/readyz", "", b"");
        loop {
            if let Ok(mut client) = self.client(which).await
                && let Ok(answer) = client.ask(&path).await
                && answer.code == 200
            {
                return;
            }
            clock::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn until_found(&self, path: &str) -> Result<()> {
        let mut client = self.client(0).await?;
        let request = request("GET", path, "", b"");
        let began = Instant::now();
        while client.ask(&request).await?.code != 200 {
            anyhow::ensure!(began.elapsed() < READY_MAX, "{path} does not come");
            clock::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

fn pid(pid: u32) -> Result<Pid> {
    Ok(Pid::from_raw(i32::try_from(pid).context("no process")?))
}

impl Drop for Servers {
    fn drop(&mut self) {
        // Whoever is paused hears no other signal.
        let ended = self.pause_others(false).and_then(|()| {
            let dir = self.dir.path().join("cluster");
            let kubeconfig = self.dir.path().join("kubeconfig");
            let kubeconfig = kubeconfig.to_string_lossy();
            ask((&self.name, Some(&dir), &self.coracle), &["down", "--kubeconfig", &kubeconfig])
        });
        if let Err(error) = ended {
            eprintln!("the cluster {} could not be removed: {error:#}", self.name);
        }
    }
}
