//! One owner for all tasks of a process. Each has a name; its death is noticed; all are asked to stop together.

use crate::panics::Mutex;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
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
    /// Whose tasks these are too.
    parent: Option<Tasks>,
    /// What is done before tasks are asked to stop.
    before_stop: Mutex<Vec<Pin<Box<dyn Future<Output = ()> + Send>>>>,
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
        Self::owned(CancellationToken::new(), None)
    }

    /// An owner of some of this one's tasks: they are asked to stop with the others at the latest, and may be before.
    #[must_use]
    pub fn child(&self) -> Self {
        Self::owned(self.shared.stop.child_token(), Some(self.clone()))
    }

    fn owned(stop: CancellationToken, parent: Option<Self>) -> Self {
        let (deaths, first_death) = mpsc::unbounded_channel();
        Self {
            shared: Arc::new(Shared {
                stop,
                parent,
                before_stop: Mutex::default(),
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
        let deaths = self.deaths();
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
        let guard = self.enter(name.into());
        #[expect(clippy::disallowed_methods, reason = "this is the seam")]
        tokio::spawn(async move {
            let _guard = guard;
            work.await;
        });
    }

    fn enter(&self, name: String) -> Running {
        let outer = self.shared.parent.as_ref().map(|parent| Box::new(parent.enter(name.clone())));
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        self.shared.alive.lock().insert(id, name);
        Running { id, shared: self.shared.clone(), _outer: outer }
    }

    /// Where deaths are told: to the outermost owner.
    fn deaths(&self) -> mpsc::UnboundedSender<Death> {
        self.shared.parent.as_ref().map_or_else(|| self.shared.deaths.clone(), Self::deaths)
    }

    /// Has `work`, which ends by itself, done before tasks are asked to stop: finishing what others wait for.
    pub fn before_stop(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.shared.before_stop.lock().push(Box::pin(work));
    }

    /// Does what is to be done before tasks are asked to stop.
    pub async fn prepare_stop(&self) {
        let work = std::mem::take(&mut *self.shared.before_stop.lock());
        for work in work {
            work.await;
        }
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
    /// The same in the parent's list.
    _outer: Option<Box<Running>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let name = self.shared.alive.lock().remove(&self.id);
        // A parent tells it, in its own list.
        if std::thread::panicking() && self.shared.parent.is_none() {
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

    #[tokio::test]
    async fn a_childs_tasks_stop_before_or_with_its_parents_and_their_deaths_are_told_to_it() {
        let tasks = Tasks::new();
        let (early, late) = (tasks.child(), tasks.child());
        for child in [&early, &late] {
            let stop = child.stopping();
            child.run("waits", async move { stop.cancelled().await });
        }
        early.stop_within(Duration::from_secs(5)).await.expect("stops alone");
        assert!(!tasks.stopping().is_cancelled());
        late.spawn("short", async { Ok(()) });
        assert_eq!(tasks.first_death().await.name, "short");
        tasks.stop_within(Duration::from_secs(5)).await.expect("stops with its child");
        assert!(late.stopping().is_cancelled());
    }

    #[tokio::test]
    async fn what_is_to_be_done_before_a_stop_is_done_once() {
        let (tasks, (told, mut heard)) = (Tasks::new(), mpsc::unbounded_channel());
        let stop = tasks.stopping();
        tasks.before_stop(async move { told.send(stop.is_cancelled()).expect("a reader") });
        tasks.prepare_stop().await;
        tasks.prepare_stop().await;
        assert_eq!((heard.recv().await, heard.recv().await), (Some(false), None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stuck_task_is_named() {
        let tasks = Tasks::new();
        tasks.run("stuck", std::future::pending());
        let stuck = tasks.stop_within(Duration::from_secs(1)).await.expect_err("stuck");
        assert_eq!(stuck.names, ["stuck"]);
    }
}
