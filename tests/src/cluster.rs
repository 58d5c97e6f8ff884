//! A cluster of its own, in a folder of its own, with kubectl to talk to it.

use crate::process::{Answer, Deadline, run, words};
use crate::watch::Watch;
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How long any one kubectl may take. Its own `--timeout` flags are shorter.
const KUBECTL_SECONDS_MAX: u64 = 120;
const UP_SECONDS_MAX: u64 = 300;
const DOWN_SECONDS_MAX: u64 = 90;
/// Where the search for a block of free ports begins; below the range that the kernel hands out.
const PORT_FIRST: u16 = 22_200;
/// Ports of one cluster.
const PORTS: u16 = 32;
/// Lines of each log that a failing step shows.
const LOG_LINES: usize = 12;
/// Characters of each such line.
const LOG_LINE_CHARS: usize = 300;

/// What a cluster consists of: flags of `coracle up`.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Flags, apart from name, folder, kubeconfig and port.
    pub flags: &'static str,
    /// Run real etcd in place of our store.
    pub etcd: bool,
}

/// A process of a cluster, as `coracle status` tells it.
#[derive(Clone, Debug)]
pub struct Process {
    /// Such as `store-0`.
    pub id: String,
    /// Such as `store`.
    pub component: String,
    /// Its id while it runs.
    pub pid: Option<i32>,
    /// Where it serves.
    pub endpoint: String,
    /// `leader`, `follower`, `standby` or nothing.
    pub role: String,
    /// `ok`, or what is wrong.
    pub health: String,
    /// Times it was started again.
    pub restarts: u64,
}

/// A process that stands still as long as this lives.
pub struct Paused(Pid);

impl Drop for Paused {
    fn drop(&mut self) {
        if let Err(error) = kill(self.0, Signal::SIGCONT) {
            eprintln!("cannot have process {} go on: {error}", self.0);
        }
    }
}

/// A cluster that is up, or was.
pub struct Cluster {
    name: String,
    dir: PathBuf,
    port: u16,
    shape: Shape,
    /// What the first `up` told.
    pub told: String,
}

impl Cluster {
    /// Brings a cluster up in `dir`.
    ///
    /// # Errors
    /// `up` failed; it has cleaned up after itself.
    pub fn up(name: &str, dir: &Path, shape: Shape) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let port = free_ports().context("no block of free ports")?;
        let cluster = Self { name: name.to_owned(), dir: dir.to_owned(), port, shape, told: String::new() };
        let answer = cluster.up_again()?;
        let told = answer.err.clone();
        answer.ok()?;
        Ok(Self { told, ..cluster })
    }

    /// Runs `up` with the flags of the first time.
    ///
    /// # Errors
    /// It did not end in time.
    pub fn up_again(&self) -> Result<Answer> {
        let mut line = format!("{} --api-port {}", self.shape.flags, self.port);
        if self.shape.etcd || std::env::var_os("CORACLE_TEST_ON_ETCD").is_some() {
            line.push_str(" --etcd etcd");
        }
        self.coracle_within("up", &line, UP_SECONDS_MAX)
    }

    /// Takes the cluster down.
    ///
    /// # Errors
    /// It did not end in time.
    pub fn down(&self, flags: &str) -> Result<Answer> {
        self.coracle_within("down", flags, DOWN_SECONDS_MAX)
    }

    /// Runs a command of coracle on this cluster.
    ///
    /// # Errors
    /// It did not end in time.
    pub fn coracle(&self, command: &str, flags: &str) -> Result<Answer> {
        self.coracle_within(command, flags, DOWN_SECONDS_MAX)
    }

    fn coracle_within(&self, command: &str, flags: &str, seconds: u64) -> Result<Answer> {
        let mut coracle = Command::new(program());
        coracle.args(words(command)).args(["--name", &self.name]).arg("--dir").arg(self.folder());
        if matches!(command, "up" | "down") {
            coracle.arg("--kubeconfig").arg(self.kubeconfig());
        }
        coracle.args(words(flags));
        run(coracle, "", Deadline::seconds(seconds))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder that everything of it is in, its user's kubeconfig apart.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.dir.join("cluster")
    }

    /// The kubeconfig that `up` wrote for its user.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// The one address of its API.
    #[must_use]
    pub fn server(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    fn kubectl_command(&self, line: &str) -> Command {
        let mut kubectl = Command::new("kubectl");
        // Discovery is cached on disk by address: clusters that follow each other must not share it.
        kubectl.arg("--cache-dir").arg(self.dir.join("kubectl-cache")).args(words(line));
        kubectl.env("KUBECONFIG", self.kubeconfig()).env("HOME", &self.dir);
        kubectl
    }

    /// Runs kubectl.
    ///
    /// # Errors
    /// It did not end in time.
    pub fn kubectl(&self, line: &str) -> Result<Answer> {
        self.kubectl_reading("", line)
    }

    /// Runs kubectl, which reads `input`.
    ///
    /// # Errors
    /// It did not end in time.
    pub fn kubectl_reading(&self, input: &str, line: &str) -> Result<Answer> {
        run(self.kubectl_command(line), input, Deadline::seconds(KUBECTL_SECONDS_MAX))
    }

    /// What a kubectl tells that must succeed, without blanks around.
    ///
    /// # Errors
    /// It failed.
    pub fn tells(&self, line: &str) -> Result<String> {
        Ok(self.kubectl(line)?.ok()?.trim().to_owned())
    }

    /// Runs a kubectl that must succeed and tell `wanted`.
    ///
    /// # Errors
    /// It failed, or told something else.
    pub fn expect(&self, line: &str, wanted: &str) -> Result<()> {
        let told = self.tells(line)?;
        anyhow::ensure!(told.contains(wanted), "`kubectl {line}` should tell {wanted:?}, but told: {told}");
        Ok(())
    }

    /// Runs a kubectl that must be refused with `wanted` in what it says.
    ///
    /// # Errors
    /// It succeeded, or was refused with other words.
    pub fn refuses(&self, line: &str, wanted: &str) -> Result<()> {
        let told = self.kubectl(line)?.refused()?;
        anyhow::ensure!(
            told.contains(wanted),
            "`kubectl {line}` should be refused with {wanted:?}, but was with: {told}"
        );
        Ok(())
    }

    /// Asks a question again and again, as fast as it is answered, until the answer is yes.
    ///
    /// For what no watch tells, such as the state of processes.
    ///
    /// # Errors
    /// The question failed, or the answer was never yes in time.
    pub fn until(&self, what: &str, deadline: Deadline, ask: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        loop {
            if ask(self)? {
                return Ok(());
            }
            anyhow::ensure!(deadline.left().is_some(), "{what} did not come true in time");
        }
    }

    /// Applies YAML, which must succeed.
    ///
    /// # Errors
    /// It failed.
    pub fn apply(&self, yaml: &str) -> Result<String> {
        self.kubectl_reading(yaml, "apply -f -")?.ok()
    }

    /// Runs a program of Debian's Python, which finds the cluster by its environment.
    ///
    /// # Errors
    /// It did not end in time.
    pub fn python(&self, program: &Path, line: &str) -> Result<Answer> {
        let mut python = Command::new("/usr/bin/python3");
        python.arg(program).args(words(line)).env("KUBECONFIG", self.kubeconfig()).env("HOME", &self.dir);
        run(python, "", Deadline::seconds(KUBECTL_SECONDS_MAX))
    }

    /// Starts a kubectl that goes on telling.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn follow(&self, line: &str) -> Result<Watch> {
        Watch::start(self.kubectl_command(line))
    }

    /// Runs etcdctl as the apiserver, against all members of the store unless the line names some.
    ///
    /// # Errors
    /// It did not end in time, or the cluster does not tell its members.
    pub fn etcdctl(&self, line: &str) -> Result<Answer> {
        let members = self.processes()?.into_iter().filter(|process| process.component == "store");
        let endpoints: Vec<String> = members.map(|member| member.endpoint).collect();
        let pki = self.folder().join("pki");
        let mut etcdctl = Command::new("etcdctl");
        etcdctl.env("ETCDCTL_API", "3");
        // Some commands are for one member, which the line names itself.
        if !line.contains("--endpoints") {
            etcdctl.arg("--endpoints").arg(endpoints.join(","));
        }
        for (flag, file) in [
            ("--cacert", "ca.crt"),
            ("--cert", "apiserver-etcd-client.crt"),
            ("--key", "apiserver-etcd-client.key"),
        ] {
            etcdctl.arg(flag).arg(pki.join(file));
        }
        etcdctl.args(words(line)).current_dir(&self.dir);
        run(etcdctl, "", Deadline::seconds(KUBECTL_SECONDS_MAX))
    }

    /// Its processes.
    ///
    /// # Errors
    /// `coracle status` failed.
    pub fn processes(&self) -> Result<Vec<Process>> {
        let told = self.coracle("status", "--output json")?.ok()?;
        let told: Value = serde_json::from_str(&told).context("status is no JSON")?;
        let rows = told["processes"].as_array().context("status has no processes")?;
        let text = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();
        Ok(rows
            .iter()
            .map(|row| Process {
                id: text(row, "id"),
                component: text(row, "component"),
                pid: row["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()),
                endpoint: text(row, "endpoint"),
                role: text(row, "role"),
                health: text(row, "health"),
                restarts: row["restarts"].as_u64().unwrap_or_default(),
            })
            .collect())
    }

    /// One of its processes.
    ///
    /// # Errors
    /// There is none of that id.
    pub fn process(&self, id: &str) -> Result<Process> {
        let all = self.processes()?;
        all.into_iter().find(|process| process.id == id).with_context(|| format!("there is no process {id}"))
    }

    /// Kills a process, and waits until its supervisor has another one that is well.
    ///
    /// # Errors
    /// It does not run, or nothing follows it.
    pub fn kill(&self, id: &str) -> Result<()> {
        let before = self.process(id)?;
        let pid = before.pid.with_context(|| format!("{id} does not run"))?;
        kill(Pid::from_raw(pid), Signal::SIGKILL).with_context(|| format!("cannot kill {id}"))?;
        self.until(&format!("that {id} runs again after a kill"), Deadline::seconds(30), |cluster| {
            let now = cluster.process(id)?;
            Ok(now.restarts > before.restarts && now.health == "ok")
        })
    }

    /// Has a process stand still until the answer is dropped.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&self, id: &str) -> Result<Paused> {
        let pid = self.process(id)?.pid.with_context(|| format!("{id} does not run"))?;
        let pid = Pid::from_raw(pid);
        kill(pid, Signal::SIGSTOP).with_context(|| format!("cannot pause {id}"))?;
        Ok(Paused(pid))
    }

    /// How long every log is now, for [`Cluster::told_since`].
    #[must_use]
    pub fn log_lengths(&self) -> BTreeMap<PathBuf, usize> {
        self.logs().into_iter().map(|(path, text)| (path, text.len())).collect()
    }

    /// The last lines that each log has gained, for a failure's report.
    #[must_use]
    pub fn told_since(&self, before: &BTreeMap<PathBuf, usize>) -> String {
        let mut told = String::new();
        for (path, text) in self.logs() {
            let new = text.get(before.get(&path).copied().unwrap_or_default()..).unwrap_or_default();
            let lines: Vec<String> =
                new.lines().map(|line| line.chars().take(LOG_LINE_CHARS).collect()).collect();
            if !lines.is_empty() {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let tail = &lines[lines.len().saturating_sub(LOG_LINES)..];
                told.push_str(&format!("--- {name}\n{}\n", tail.join("\n")));
            }
        }
        told
    }

    /// What every process has told so far.
    #[must_use]
    pub fn logs(&self) -> BTreeMap<PathBuf, String> {
        let Ok(logs) = fs::read_dir(self.folder().join("logs")) else { return BTreeMap::new() };
        let text = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        let mut texts = BTreeMap::new();
        for path in logs.flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                // The processes inside a node.
                let inside = fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path());
                texts.extend(inside.map(|path| (path.clone(), text(&path))));
            } else {
                texts.insert(path.clone(), text(&path));
            }
        }
        texts
    }
}

/// The program under test: what the gate built, or the dev build.
pub(crate) fn program() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debug/coracle");
    std::env::var_os("CORACLE_PROGRAM").map_or(built, PathBuf::from)
}

fn free_ports() -> Option<u16> {
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    (0..64).map(|i| PORT_FIRST + i * PORTS).find(|first| (*first..*first + PORTS).all(free))
}
