//! One owner for all tasks of a process. Each has a name; its death is noticed; all are asked to stop together.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

/// A handle to the process's tasks; clones share them.
#[derive(Clone)]
pub struct Tasks {
    shared: Arc<Shared>,
}

struct Shared {
    stop: CancellationToken,
    alive: Mutex<BTreeMap<u64, String>>,
    next: AtomicU64,
    ended: Notify,
    deaths: mpsc::UnboundedSender<Death>,
    first_death: tokio::sync::Mutex<mpsc::UnboundedReceiver<Death>>,
}

/// A task that ended before anyone asked it to.
#[derive(Debug)]
pub struct Death {
    /// The task's name.
    pub name: String,
    /// Why it ended.
    pub error: anyhow::Error,
}

/// The tasks that were still running when the grace period was over.
#[derive(Debug, thiserror::Error)]
#[error("these tasks did not stop within {grace:?}: {}", names.join(", "))]
pub struct Stuck {
    /// The grace period.
    pub grace: Duration,
    /// Names of the tasks.
    pub names: Vec<String>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    /// An owner without tasks.
    #[must_use]
    pub fn new() -> Self {
        let (deaths, first_death) = mpsc::unbounded_channel();
        Self {
            shared: Arc::new(Shared {
                stop: CancellationToken::new(),
                alive: Mutex::default(),
                next: AtomicU64::new(0),
                ended: Notify::new(),
                deaths,
                first_death: tokio::sync::Mutex::new(first_death),
            }),
        }
    }

    /// Runs a task of the process's life: it returns only when [`Tasks::stopping`] fires. Should it end or panic
    /// before, the whole process stops (a dead watch or listener must never go unnoticed).
    pub fn spawn(
        &self,
        name: impl Into<String>,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let name = name.into();
        let deaths = self.shared.deaths.clone();
        let stop = self.shared.stop.clone();
        self.run(name.clone(), async move {
            let ended = task.await;
            if !stop.is_cancelled() {
                let error = ended.err().unwrap_or_else(|| anyhow::anyhow!("ended without being asked to"));
                // No receiver means that the process is past caring.
                let _ = deaths.send(Death { name, error });
            }
        });
    }

    /// Like [`Tasks::spawn`], for a loop that may be dropped wherever it waits: which it is once [`Tasks::stopping`] fires.
    pub fn spawn_loop(&self, name: impl Into<String>, endless: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stopping();
        self.spawn(name, async move {
            tokio::select! {
                () = endless => {}
                () = stop.cancelled() => {}
            }
            Ok(())
        });
    }

    /// Runs work that may end at any time (one connection, one request, one pod's probe).
    pub fn run(&self, name: impl Into<String>, work: impl Future<Output = ()> + Send + 'static) {
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        self.shared.alive.lock().insert(id, name.into());
        let guard = Running { id, shared: self.shared.clone() };
        #[expect(clippy::disallowed_methods, reason = "this is the seam")]
        tokio::spawn(async move {
            let _guard = guard;
            work.await;
        });
    }

    /// Fires when the process should stop. Select on `stopping().cancelled()`.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.shared.stop.clone()
    }

    /// Waits for the first task to die unasked.
    pub async fn first_death(&self) -> Death {
        match self.shared.first_death.lock().await.recv().await {
            Some(death) => death,
            // Unreachable while `self` holds a sender.
            None => std::future::pending().await,
        }
    }

    /// Asks every task to stop and waits up to `grace`.
    ///
    /// # Errors
    /// [`Stuck`] names the tasks still running after `grace`.
    pub async fn stop_within(&self, grace: Duration) -> Result<(), Stuck> {
        self.shared.stop.cancel();
        let all_ended = async {
            loop {
                let ended = self.shared.ended.notified();
                if self.shared.alive.lock().is_empty() {
                    return;
                }
                ended.await;
            }
        };
        tokio::time::timeout(grace, all_ended)
            .await
            .map_err(|_| Stuck { grace, names: self.shared.alive.lock().values().cloned().collect() })
    }
}

/// Takes the task off the list however it ends, panics included.
struct Running {
    id: u64,
    shared: Arc<Shared>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let name = self.shared.alive.lock().remove(&self.id);
        if std::thread::panicking() {
            let name = name.unwrap_or_default();
            let _ = self.shared.deaths.send(Death { name, error: anyhow::anyhow!("panicked") });
        }
        // `notify_one` leaves a permit behind when `stop_within` is between its check and its wait.
        self.shared.ended.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_unasked_is_noticed() {
        let tasks = Tasks::new();
        tasks.spawn("short", async { Ok(()) });
        assert_eq!(tasks.first_death().await.name, "short");
    }

    #[tokio::test]
    async fn stopping_waits_for_every_task() {
        let tasks = Tasks::new();
        let stop = tasks.stopping();
        tasks.spawn("long", async move {
            stop.cancelled().await;
            Ok(())
        });
        tasks.stop_within(Duration::from_secs(5)).await.expect("stops");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stuck_task_is_named() {
        let tasks = Tasks::new();
        tasks.run("stuck", std::future::pending());
        let stuck = tasks.stop_within(Duration::from_secs(1)).await.expect_err("stuck");
        assert_eq!(stuck.names, ["stuck"]);
    }
}
