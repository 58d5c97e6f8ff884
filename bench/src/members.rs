//! Three members of a store, ours or etcd's, each a process of its own with the same flags, on loopback.

use crate::process::{busy_seconds, resident_bytes};
use anyhow::{Context, Result};
use coracle_daemon::clock;
use coracle_etcd::proto::StatusRequest;
use coracle_etcd::proto::maintenance_client::MaintenanceClient;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tonic::transport::Channel;

/// Members of each cluster.
pub const MEMBERS: usize = 3;
/// How long a cluster may take until it has a leader.
const START_MAX: Duration = Duration::from_secs(120);
/// Bytes that members may keep, as a flag.
const QUOTA: u64 = 8 << 30;

/// Whose members.
#[derive(Clone, Debug)]
pub struct System {
    /// Its name in the report.
    pub name: &'static str,
    /// Program and first words.
    pub command: Vec<PathBuf>,
}

/// A running cluster; its processes end and its data goes with it.
pub struct Members {
    /// Client URLs.
    pub endpoints: Vec<String>,
    starts: Vec<Start>,
    children: Vec<Child>,
    dir: TempDir,
}

/// How a member is started, the first time and again.
struct Start {
    program: PathBuf,
    words: Vec<std::ffi::OsString>,
    log: PathBuf,
}

impl Start {
    fn spawn(&self) -> Result<Child> {
        let log = File::options().create(true).append(true).open(&self.log).context("cannot make a log")?;
        Command::new(&self.program)
            .args(&self.words)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("cannot share the log")?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {}", self.program.display()))
    }
}

impl Members {
    /// Starts a new cluster with empty data, and waits until it has a leader.
    ///
    /// # Errors
    /// A program cannot be started, or there is no leader in time.
    pub async fn start(system: &System, scratch: &Path) -> Result<Self> {
        let dir = tempfile::tempdir_in(scratch)
            .with_context(|| format!("cannot make a folder in {}", scratch.display()))?;
        let ports = free_ports(2 * MEMBERS)?;
        let client = |i: usize| format!("http://127.0.0.1:{}", ports[2 * i]);
        let peer = |i: usize| format!("http://127.0.0.1:{}", ports[2 * i + 1]);
        let all: Vec<String> = (0..MEMBERS).map(|i| format!("m{i}={}", peer(i))).collect();
        let mut starts = Vec::new();
        for i in 0..MEMBERS {
            let (name, data) = (format!("m{i}"), dir.path().join(format!("m{i}")));
            let flags = [
                ("name", name.clone()),
                ("data-dir", data.to_string_lossy().into_owned()),
                ("listen-client-urls", client(i)),
                ("advertise-client-urls", client(i)),
                ("listen-peer-urls", peer(i)),
                ("initial-advertise-peer-urls", peer(i)),
                ("initial-cluster", all.join(",")),
                ("initial-cluster-state", "new".to_owned()),
                // The default differs between the two, and the data is meant to stay.
                ("quota-backend-bytes", QUOTA.to_string()),
            ];
            let flags = flags.iter().map(|(flag, value)| format!("--{flag}={value}").into());
            let words = system.command.iter().skip(1).map(Into::into).chain(flags).collect();
            let program = system.command.first().context("no program")?.clone();
            starts.push(Start { program, words, log: dir.path().join(format!("{name}.log")) });
        }
        let children = starts.iter().map(Start::spawn).collect::<Result<_>>()?;
        let members = Self { endpoints: (0..MEMBERS).map(client).collect(), starts, children, dir };
        members.until_led().await?;
        Ok(members)
    }

    /// Waits until all members know the same leader, which is given.
    ///
    /// # Errors
    /// They do not in time.
    pub async fn until_led(&self) -> Result<usize> {
        let led = clock::timeout(START_MAX, self.led()).await;
        led.with_context(|| format!("no leader in time: {}", self.last_words()))?;
        self.leader().await.context("the leader is lost again")
    }

    /// Starts a member that was killed.
    ///
    /// # Errors
    /// Its program cannot be started.
    pub fn start_again(&mut self, member: usize) -> Result<()> {
        self.children[member] = self.starts[member].spawn()?;
        Ok(())
    }

    /// Waits until all members know the same leader.
    async fn led(&self) {
        while self.leader().await.is_none() {
            clock::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The member that leads, if all agree.
    pub async fn leader(&self) -> Option<usize> {
        let mut leads = Vec::new();
        let mut own = Vec::new();
        for endpoint in &self.endpoints {
            let channel = channel(endpoint).ok()?;
            let asked = clock::timeout(Duration::from_millis(500), async {
                MaintenanceClient::new(channel).status(StatusRequest {}).await
            });
            let status = asked.await.ok()?.ok()?.into_inner();
            own.push(status.header.map(|header| header.member_id)?);
            leads.push(status.leader);
        }
        let leader = *leads.first().filter(|leader| **leader != 0)?;
        leads.iter().all(|known| *known == leader).then(|| own.iter().position(|id| *id == leader))?
    }

    /// Kills a member without warning.
    ///
    /// # Errors
    /// It has ended already.
    pub async fn kill(&mut self, member: usize) -> Result<()> {
        self.children[member].kill().await.context("the member has ended already")
    }

    /// Bytes of memory that all members hold.
    pub fn resident_bytes(&self) -> u64 {
        self.children.iter().filter_map(Child::id).filter_map(resident_bytes).sum()
    }

    /// Seconds that all members have kept a core busy.
    pub fn busy_seconds(&self) -> f64 {
        self.children.iter().filter_map(Child::id).filter_map(busy_seconds).sum()
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.dir.path().join("m0.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

/// A connection that is made when first used.
///
/// # Errors
/// The endpoint is no URL.
pub fn channel(endpoint: &str) -> Result<Channel> {
    let endpoint = tonic::transport::Endpoint::from_shared(endpoint.to_owned());
    Ok(endpoint.context("no URL")?.tcp_nodelay(true).connect_lazy())
}

fn free_ports(count: usize) -> Result<Vec<u16>> {
    let listeners: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<_, _>>()
        .context("no free port on loopback")?;
    listeners
        .iter()
        .map(|listener| Ok(listener.local_addr().context("a listener has an address")?.port()))
        .collect()
}
