//! Linearizable reads that come at the same time share one question to a majority.
//!
//! A read may join a round only before the round begins: what was committed before the read began is then covered.

use crate::error::StoreError;
use std::future::Future;
use tokio::sync::{mpsc, oneshot};

/// Reads that wait for a round; more wait to wait.
const WAITING: usize = 4096;

type Answer = Result<u64, StoreError>;

/// Where reads queue.
#[derive(Clone, Debug)]
pub struct Rounds {
    queue: mpsc::Sender<oneshot::Sender<Answer>>,
}

/// Where rounds take reads from.
pub type Queue = mpsc::Receiver<oneshot::Sender<Answer>>;

impl Rounds {
    /// Both ends.
    #[must_use]
    pub fn new() -> (Self, Queue) {
        let (queue, reads) = mpsc::channel(WAITING);
        (Self { queue }, reads)
    }

    /// The index that a read which begins now has to wait for.
    ///
    /// # Errors
    /// Nobody could tell.
    pub async fn index(&self) -> Answer {
        let (answer, wait) = oneshot::channel();
        self.queue.send(answer).await.map_err(|_| StoreError::Stopped)?;
        wait.await.map_err(|_| StoreError::Stopped)?
    }
}

/// Runs one round after another with `ask`, each for all reads that wait, until nobody can ask any more.
pub async fn run<F: Future<Output = Answer>>(mut queue: Queue, ask: impl Fn() -> F) {
    let mut waiting = Vec::new();
    while queue.recv_many(&mut waiting, WAITING).await > 0 {
        waiting.retain(|answer| !answer.is_closed());
        if waiting.is_empty() {
            continue;
        }
        let answer = ask().await;
        for reader in waiting.drain(..) {
            // A reader that is gone needs no answer.
            let _ = reader.send(answer.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[tokio::test]
    async fn reads_share_a_round_but_never_one_that_began_before_them() {
        let (rounds, queue) = Rounds::new();
        let asked = AtomicU64::new(0);
        let gate = tokio::sync::Semaphore::new(0);
        let readers = async {
            let first = rounds.index();
            let later = async {
                while asked.load(Ordering::SeqCst) == 0 {
                    tokio::task::yield_now().await;
                }
                // The first round is under way: these two share the second.
                let both = async { tokio::join!(rounds.index(), rounds.index()) };
                let open = async {
                    tokio::task::yield_now().await;
                    gate.add_permits(2);
                };
                tokio::join!(both, open).0
            };
            tokio::join!(first, later)
        };
        let ask = || async {
            let round = asked.fetch_add(1, Ordering::SeqCst) + 1;
            gate.acquire().await.expect("open").forget();
            Ok(round)
        };
        tokio::select! {
            (first, later) = readers => assert_eq!((first, later), (Ok(1), (Ok(2), Ok(2)))),
            () = run(queue, ask) => panic!("ended"),
        }
    }
}
