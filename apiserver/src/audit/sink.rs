//! How events get to the log: each before its request goes on, or in batches behind it (`--audit-log-mode`).
//!
//! In: lines. Out: lines in the log, in their order. Invariants: what waits is bounded, and what finds no place is counted as
//! lost; a stop writes what waits.

use super::log::Log;
use crate::endpoints::metrics::Register;
use coracle_daemon::{Tasks, clock};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// When a request goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// At once: events are written behind it.
    Batch,
    /// Once its event is written, or could not be.
    #[default]
    Blocking,
    /// Once its event is written; what cannot be noted is not done.
    BlockingStrict,
}

/// How batches are made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Batches {
    /// Events that may wait.
    pub buffer: usize,
    /// Events of one batch.
    pub size: usize,
    /// How long a batch waits for more.
    pub wait: Duration,
}

/// What is counted.
#[derive(Clone, Default)]
struct Counts {
    events: Counter,
    failures: Counter,
    rejected: Counter,
}

/// Where events go.
pub struct Sink {
    mode: Mode,
    log: Arc<Log>,
    /// To the task that writes, in batch mode.
    waiting: Option<mpsc::Sender<Vec<u8>>>,
    counts: Counts,
}

impl Sink {
    /// To a log.
    pub fn new(log: Log, mode: Mode, batches: Batches, tasks: &Tasks, registry: &mut Registry) -> Self {
        let mut to = Register::of(registry, "apiserver_audit_");
        let counts = Counts {
            events: to.add("event", "Audit events that were made", Counter::default()),
            failures: to.add("error", "Audit events that could not be kept", Counter::default()),
            rejected: to.add(
                "requests_rejected",
                "Requests that were refused since they could not be noted",
                Counter::default(),
            ),
        };
        let log = Arc::new(log);
        let waiting = (mode == Mode::Batch).then(|| {
            let (send, lines) = mpsc::channel(batches.buffer.max(1));
            let work = write(log.clone(), lines, batches, counts.clone(), tasks.clone());
            tasks.run("audit log", work);
            send
        });
        Self { mode, log, waiting, counts }
    }

    /// Takes a line; whether what it tells of may go on.
    pub fn take(&self, line: Vec<u8>) -> bool {
        self.counts.events.inc();
        let Some(waiting) = &self.waiting else {
            let Err(error) = self.log.write(&line) else { return true };
            self.counts.failures.inc();
            tracing::error!(%error, "cannot write the audit log");
            return self.mode != Mode::BlockingStrict;
        };
        if waiting.try_send(line).is_err() {
            self.counts.failures.inc();
            tracing::error!("an audit event is lost: too many wait to be written");
        }
        true
    }

    /// Counts a request that may not go on.
    pub fn reject(&self) {
        self.counts.rejected.inc();
    }
}

/// Writes batches until the process stops, and what waits then.
async fn write(
    log: Arc<Log>,
    mut lines: mpsc::Receiver<Vec<u8>>,
    batches: Batches,
    counts: Counts,
    tasks: Tasks,
) {
    let (stop, size) = (tasks.stopping(), batches.size.max(1));
    loop {
        let mut batch = Vec::new();
        tokio::select! {
            biased;
            _ = lines.recv_many(&mut batch, size) => {}
            // No more are taken; those that wait are still told.
            () = stop.cancelled(), if !lines.is_closed() => lines.close(),
        }
        if batch.is_empty() && lines.is_closed() {
            return;
        }
        if !batches.wait.is_zero() && !batch.is_empty() {
            tokio::select! {
                _ = clock::timeout(batches.wait, fill(&mut lines, &mut batch, size)) => {}
                () = stop.cancelled() => {}
            }
        }
        let (log, count) = (log.clone(), batch.len() as u64);
        // Disks are slow, and requests run on these threads.
        let written = tokio::task::spawn_blocking(move || batch.iter().try_for_each(|line| log.write(line)));
        if let Ok(Err(error)) = written.await {
            counts.failures.inc_by(count);
            tracing::error!(%error, "cannot write the audit log");
        }
    }
}

/// Waits until a batch is full, or nothing more comes.
async fn fill(lines: &mut mpsc::Receiver<Vec<u8>>, batch: &mut Vec<Vec<u8>>, size: usize) {
    while batch.len() < size {
        let Some(line) = lines.recv().await else { return };
        batch.push(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::log::Keep;

    fn sink(path: &std::path::Path, mode: Mode, batches: Batches, tasks: &Tasks) -> Sink {
        let log = Log::open(path, Keep::default()).expect("a log");
        Sink::new(log, mode, batches, tasks, &mut Registry::default())
    }

    #[tokio::test]
    async fn a_batch_is_written_behind_and_a_stop_writes_what_waits() {
        let (folder, tasks) = (tempfile::tempdir().expect("folder"), Tasks::new());
        let path = folder.path().join("audit.log");
        let batches = Batches { buffer: 100, size: 10, wait: Duration::from_secs(3600) };
        let sink = sink(&path, Mode::Batch, batches, &tasks);
        for at in 0..25 {
            assert!(sink.take(format!("{at}\n").into_bytes()));
        }
        tasks.stop_within(Duration::from_secs(5)).await.expect("stopped");
        let text = std::fs::read_to_string(&path).expect("a log");
        let want: Vec<String> = (0..25).map(|at| at.to_string()).collect();
        assert_eq!(text.lines().collect::<Vec<_>>(), want);
    }

    #[tokio::test]
    async fn what_finds_no_place_is_counted_as_lost_and_holds_nobody_up() {
        let (folder, tasks) = (tempfile::tempdir().expect("folder"), Tasks::new());
        let batches = Batches { buffer: 2, size: 1, wait: Duration::ZERO };
        let sink = sink(&folder.path().join("audit.log"), Mode::Batch, batches, &tasks);
        // Nothing is written before this task waits.
        assert!((0..10).all(|_| sink.take(b"x\n".to_vec())));
        assert_eq!((sink.counts.events.get(), sink.counts.failures.get()), (10, 8));
        tasks.stop_within(Duration::from_secs(5)).await.expect("stopped");
    }

    #[tokio::test]
    async fn only_the_strict_mode_refuses_what_cannot_be_noted() {
        let tasks = Tasks::new();
        for (mode, goes_on) in [(Mode::Blocking, true), (Mode::BlockingStrict, false)] {
            let sink = sink(std::path::Path::new("/dev/full"), mode, Batches::default(), &tasks);
            assert_eq!(sink.take(b"x\n".to_vec()), goes_on, "{mode:?}");
            assert_eq!(sink.counts.failures.get(), 1);
        }
    }
}
