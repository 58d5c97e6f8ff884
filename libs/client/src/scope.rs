//! A part of a process's life: its tasks end together, when the process stops or earlier (lost leadership).

use coracle_daemon::Tasks;
use std::future::Future;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Starts tasks that live until [`Scope::stop`]; clones share it.
#[derive(Clone)]
pub struct Scope {
    tasks: Tasks,
    stop: CancellationToken,
    alive: TaskTracker,
}

impl Scope {
    /// A scope that lasts as long as the process, unless stopped before.
    #[must_use]
    pub fn new(tasks: &Tasks) -> Self {
        Self { tasks: tasks.clone(), stop: tasks.stopping().child_token(), alive: TaskTracker::new() }
    }

    /// A part of this scope that may be stopped before it.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { tasks: self.tasks.clone(), stop: self.stop.child_token(), alive: self.alive.clone() }
    }

    /// Asks the scope's tasks to end, without waiting for them.
    pub fn cancel(&self) {
        self.stop.cancel();
    }

    /// Runs `task` until it ends or the scope stops, whichever is first; then it is dropped at its next await.
    pub fn spawn(&self, name: impl Into<String>, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        let tracked = self.alive.track_future(async move {
            stop.run_until_cancelled(task).await;
        });
        self.tasks.run(name, tracked);
    }

    /// Fires when the scope ends.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Ends the scope and waits for its tasks to be gone.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.alive.close();
        self.alive.wait().await;
    }
}
