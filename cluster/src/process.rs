//! Keeping one process alive: start, notice its end, start again after a pause that doubles, stop when asked.

use coracle_daemon::{Tasks, clock};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A process that lived this long starts over with the shortest pause.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// How to ask a process whether it is well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Probe {
    /// GET over plain HTTP.
    Http { address: String, path: String },
    /// GET over TLS with the admin's certificate.
    Https { address: String, path: String },
    /// A TCP connection.
    Tcp { address: String },
    /// It runs.
    Alive,
}

/// A process to be kept alive. A plain value: see [`crate::plan`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// Unique in the cluster, such as `store-0` or `lab-node-1/kubelet`.
    pub id: String,
    /// `store`, `apiserver`, `kubelet` …
    pub component: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Where it serves, for people.
    pub endpoint: String,
    /// How it is asked for its health.
    pub probe: Probe,
    /// Processes of a lower stage are stopped first.
    pub stage: u8,
    /// How long a clean stop may take, in milliseconds.
    pub grace_millis: u64,
    /// File that its output goes to.
    pub log: PathBuf,
}

/// What a process is doing now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The process.
    pub process: Process,
    /// Its id while it runs, as seen from where it was started.
    pub pid: Option<u32>,
    /// Times it was started again.
    pub restarts: u32,
    /// How it ended last, if it did.
    pub last_exit: Option<String>,
}

/// The states of all processes under one supervisor; clones share them.
#[derive(Clone)]
pub struct Table {
    states: Arc<Mutex<BTreeMap<String, State>>>,
    changes: Arc<watch::Sender<u64>>,
}

impl Default for Table {
    fn default() -> Self {
        Self { states: Arc::default(), changes: Arc::new(watch::Sender::new(0)) }
    }
}

impl Table {
    /// All states, ordered by id.
    #[must_use]
    pub fn all(&self) -> Vec<State> {
        self.states.lock().values().cloned().collect()
    }
    /// Ticks at every change.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
    /// Replaces or adds states.
    pub fn put(&self, states: impl IntoIterator<Item = State>) {
        let mut all = self.states.lock();
        for state in states {
            all.insert(state.process.id.clone(), state);
        }
        drop(all);
        self.changes.send_modify(|n| *n += 1);
    }
    fn update(&self, id: &str, change: impl FnOnce(&mut State)) {
        if let Some(state) = self.states.lock().get_mut(id) {
            change(state);
        }
        self.changes.send_modify(|n| *n += 1);
    }
}

/// Starts keeping `process` alive until `stop` fires, then stops it within its grace period.
/// The returned token is cancelled when it is gone for good.
pub fn keep(process: Process, table: &Table, stop: CancellationToken, tasks: &Tasks) -> CancellationToken {
    let gone = CancellationToken::new();
    table.put([State { process: process.clone(), pid: None, restarts: 0, last_exit: None }]);
    let (table, done) = (table.clone(), gone.clone().drop_guard());
    tasks.run(format!("keeper of {}", process.id), async move {
        let _done = done;
        keep_until(&process, &table, &stop).await;
    });
    gone
}

async fn keep_until(process: &Process, table: &Table, stop: &CancellationToken) {
    let mut pause = PAUSE_MIN;
    loop {
        let started = clock::Instant::now();
        let ended = match spawn(process) {
            Ok(mut child) => {
                table.update(&process.id, |state| state.pid = child.id());
                tokio::select! {
                    status = child.wait() => status.map_or_else(|error| error.to_string(), |status| status.to_string()),
                    () = stop.cancelled() => {
                        end(&mut child, Duration::from_millis(process.grace_millis)).await;
                        table.update(&process.id, |state| state.pid = None);
                        return;
                    }
                }
            }
            Err(error) => format!("cannot be started: {error}"),
        };
        tracing::warn!(process = process.id, %ended, "process ended; starting it again");
        table.update(&process.id, |state| {
            state.pid = None;
            state.restarts += 1;
            state.last_exit = Some(ended);
        });
        pause = if started.elapsed() >= HEALTHY_AFTER { PAUSE_MIN } else { pause };
        tokio::select! {
            () = clock::sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
            () = stop.cancelled() => return,
        }
    }
}

fn spawn(process: &Process) -> io::Result<Child> {
    if let Some(parent) = process.log.parent() {
        fs::create_dir_all(parent)?;
    }
    let log = fs::OpenOptions::new().create(true).append(true).open(&process.log)?;
    let (program, args) = process.command.split_first().ok_or_else(|| io::Error::other("empty command"))?;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    end_with_parent(&mut command);
    command.spawn()
}

/// A process must not outlive the one that started it, even if that is killed.
pub fn end_with_parent(command: &mut Command) {
    #[expect(unsafe_code, reason = "prctl is async-signal-safe, and nothing else runs between fork and exec")]
    // SAFETY: the closure makes one system call and touches no memory shared with other threads.
    unsafe {
        command.pre_exec(|| {
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM).map_err(io::Error::from)
        });
    }
}

async fn end(child: &mut Child, grace: Duration) {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        // It may have ended by itself in the meantime; then `wait` below returns at once.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
    }
    if clock::timeout(grace, child.wait()).await.is_err() {
        tracing::warn!(pid = child.id(), ?grace, "did not stop in time; killing it");
        if let Err(error) = child.kill().await {
            tracing::error!(%error, "cannot kill a process");
        }
    }
}

/// Stops everything, stage by stage: `running` are stop tokens and end tokens by stage.
pub async fn stop_in_stages(running: Vec<(u8, CancellationToken, CancellationToken)>) {
    let mut stages: BTreeMap<u8, Vec<(CancellationToken, CancellationToken)>> = BTreeMap::new();
    for (stage, stop, gone) in running {
        stages.entry(stage).or_default().push((stop, gone));
    }
    for stage in stages.into_values() {
        for (stop, _) in &stage {
            stop.cancel();
        }
        for (_, gone) in &stage {
            gone.cancelled().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(dir: &std::path::Path, script: &str) -> Process {
        Process {
            id: "x".into(),
            component: "x".into(),
            command: vec!["sh".into(), "-c".into(), script.into()],
            endpoint: String::new(),
            probe: Probe::Alive,
            stage: 0,
            grace_millis: 5000,
            log: dir.join("x.log"),
        }
    }

    #[tokio::test]
    async fn a_process_that_ends_is_started_again_and_one_that_is_asked_stops() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (table, tasks, stop) = (Table::default(), Tasks::new(), CancellationToken::new());
        let mut changes = table.changes();
        let gone = keep(process(dir.path(), "exit 3"), &table, stop.clone(), &tasks);
        let restarted = async {
            while table.all()[0].restarts < 2 {
                changes.changed().await.expect("table lives");
            }
        };
        clock::timeout(Duration::from_secs(10), restarted).await.expect("started again");
        assert_eq!(table.all()[0].last_exit.as_deref(), Some("exit status: 3"));
        stop.cancel();
        clock::timeout(Duration::from_secs(10), gone.cancelled()).await.expect("gone");
    }
}
