//! The loop of one controller: takes keys from a queue, reconciles several at a time, and puts back what failed.

use crate::{Queue, Scope, errors};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::fmt::{Debug, Display};
use std::future::Future;
use std::hash::Hash;
use std::time::Duration;

/// What a reconcile that went well asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing, until something changes.
    Change,
    /// Another look after this long, changes or not.
    After(Duration),
}

/// Why a reconcile did not get through.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// A request failed. Conflicts are ordinary; they are retried from fresh state.
    #[error("{0}")]
    Api(#[from] kube::Error),
    /// The observed state makes no sense yet.
    #[error("{0}")]
    NotYet(String),
}

impl ReconcileError {
    fn is_ordinary(&self) -> bool {
        match self {
            Self::Api(error) => {
                errors::is_conflict(error)
                    || errors::is_already_exists(error)
                    || errors::is_namespace_terminating(error)
            }
            Self::NotYet(_) => true,
        }
    }
}

/// Runs a controller until the scope ends; at most `workers` reconciles are under way, never two of one key.
pub fn start<T, F, R>(scope: &Scope, name: &'static str, queue: Queue<T>, workers: usize, reconcile: F)
where
    T: Clone + Eq + Hash + Ord + Debug + Display + Send + Sync + 'static,
    F: Fn(T) -> R + Send + 'static,
    R: Future<Output = Result<Next, ReconcileError>> + Send + 'static,
{
    scope.spawn(format!("controller {name}"), run(name, queue, workers, reconcile));
}

/// The loop itself; never ends. Dropping it drops the reconciles under way at their next await.
pub async fn run<T, F, R>(name: &'static str, queue: Queue<T>, workers: usize, reconcile: F)
where
    T: Clone + Eq + Hash + Ord + Debug + Display + Send + Sync + 'static,
    F: Fn(T) -> R + Send + 'static,
    R: Future<Output = Result<Next, ReconcileError>> + Send + 'static,
{
    let mut working = FuturesUnordered::new();
    loop {
        tokio::select! {
            key = queue.next(), if working.len() < workers => {
                let work = reconcile(key.clone());
                working.push(async move { (key, work.await) });
            }
            Some((key, outcome)) = working.next() => settle(name, &queue, &key, outcome),
        }
        // Reconciles that wait for nothing, however many, leave the thread to others in between.
        tokio::task::coop::consume_budget().await;
    }
}

fn settle<T>(name: &'static str, queue: &Queue<T>, key: &T, outcome: Result<Next, ReconcileError>)
where
    T: Clone + Eq + Hash + Ord + Debug + Display,
{
    match outcome {
        Ok(next) => {
            queue.forget(key);
            if let Next::After(delay) = next {
                queue.add_after(key.clone(), delay);
            }
        }
        Err(error) => {
            if error.is_ordinary() {
                tracing::debug!(controller = name, %key, %error, "again");
            } else {
                tracing::warn!(controller = name, %key, %error, "failed, will try again");
            }
            queue.retry(key.clone());
        }
    }
    queue.done(key);
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::sync::Arc;

    #[tokio::test(start_paused = true)]
    async fn failed_keys_come_back_and_due_keys_return() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let queue = Queue::new();
        queue.add("fails".to_owned());
        queue.add("waits".to_owned());
        let log = seen.clone();
        let reconcile = move |key: String| {
            let mut log = log.lock();
            log.push(key.clone());
            let first = log.iter().filter(|k| **k == key).count() == 1;
            async move {
                match key.as_str() {
                    "fails" if first => Err(ReconcileError::NotYet("no".into())),
                    "waits" if first => Ok(Next::After(Duration::from_secs(3))),
                    _ => Ok(Next::Change),
                }
            }
        };
        let _ =
            coracle_daemon::clock::timeout(Duration::from_secs(60), run("test", queue, 2, reconcile)).await;
        assert_eq!(*seen.lock(), ["fails", "waits", "fails", "waits"]);
    }

    #[tokio::test]
    async fn keys_that_call_for_each_other_for_ever_leave_room_for_others() {
        let queue = Queue::new();
        queue.add("a");
        let others = queue.clone();
        let reconcile = move |key: &'static str| {
            others.add(if key == "a" { "b" } else { "a" });
            async { Ok(Next::Change) }
        };
        tokio::select! {
            biased;
            () = async { run("test", queue, 2, reconcile).await } => {}
            () = tokio::task::yield_now() => {}
        }
    }
}
