//! The stream on which a follower hands batches of changes to one leader, and the leader's end of it.
//!
//! Batches are answered in any order, each by its number. A leader answers all that it has taken before it ends a stream in good
//! order; so what is owed then was never taken, and may be done by another leader.

use super::duties::HAND_OVER_MAX;
use super::node::{Node, REQUEST_MAX};
use super::peers::{Client, never_sent};
use super::wire::{ProposeReply, ProposeRequest};
use bytes::Bytes;
use coracle_daemon::{Tasks, clock};
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Status, Streaming};

/// Batches that wait to be sent, and those that a leader works on at once, from one follower.
const BATCHES: usize = 16;

/// Why a batch has no answer.
#[derive(Debug)]
pub enum Unanswered {
    /// Surely nothing was done.
    NotTaken,
    /// Nobody knows what was done.
    Lost(Status),
}

/// What comes of a batch.
pub type Came = Result<ProposeReply, Unanswered>;

/// The follower's end. Dropped, it takes what is owed for a while longer.
pub struct Proposals {
    /// Whom it leads to.
    pub leader: u64,
    requests: mpsc::Sender<ProposeRequest>,
    owed: Arc<Owed>,
    last: u64,
    _given_up: DropGuard,
}

/// Who waits for which batch; none any more once the stream has ended.
struct Owed(Mutex<Option<HashMap<u64, oneshot::Sender<Came>>>>);

fn refuse(waits: oneshot::Sender<Came>) {
    // Whoever waited may have given up.
    let _ = waits.send(Err(Unanswered::NotTaken));
}

impl Owed {
    /// # Errors
    /// The stream has ended.
    fn add(&self, batch: u64, waits: oneshot::Sender<Came>) -> Result<(), oneshot::Sender<Came>> {
        match self.0.lock().as_mut() {
            Some(owed) => {
                owed.insert(batch, waits);
                Ok(())
            }
            None => Err(waits),
        }
    }

    fn take(&self, batch: u64) -> Option<oneshot::Sender<Came>> {
        self.0.lock().as_mut().and_then(|owed| owed.remove(&batch))
    }

    fn answer(&self, reply: ProposeReply) {
        if let Some(waits) = self.take(reply.batch) {
            // Whoever waited may have given up.
            let _ = waits.send(Ok(reply));
        }
    }

    fn end(&self, why: &Result<(), Status>) {
        for waits in self.0.lock().take().into_iter().flat_map(HashMap::into_values) {
            let _ = waits.send(Err(match why {
                Err(status) if !never_sent(status) => Unanswered::Lost(status.clone()),
                Ok(()) | Err(_) => Unanswered::NotTaken,
            }));
        }
    }
}

impl Proposals {
    /// Opens the stream with the first batch. `tasks` run its other half.
    pub fn open(leader: u64, client: Client, tasks: &Tasks) -> Self {
        let (requests, stream) = mpsc::channel(BATCHES);
        let owed = Arc::new(Owed(Mutex::new(Some(HashMap::new()))));
        let given_up = CancellationToken::new();
        let (own, guard) = (owed.clone(), given_up.clone().drop_guard());
        tasks.run("proposals", async move {
            let ended = tokio::select! {
                ended = receive(client, stream, &own) => ended,
                () = async { given_up.cancelled().await; clock::sleep(REQUEST_MAX).await } => {
                    Err(Status::deadline_exceeded("the leader does not answer"))
                }
            };
            own.end(&ended);
        });
        Self { leader, requests, owed, last: 0, _given_up: guard }
    }

    /// Whether it takes batches. One that owes many answers is none.
    pub fn is_open(&self) -> bool {
        self.owed.0.lock().as_ref().is_some_and(|owed| owed.len() < BATCHES)
    }

    /// Sends a batch; the answer comes later.
    pub fn ask(&mut self, commands: Vec<Bytes>) -> oneshot::Receiver<Came> {
        self.last += 1;
        let (waits, wait) = oneshot::channel();
        if let Err(waits) = self.owed.add(self.last, waits) {
            refuse(waits);
        } else if self.requests.try_send(ProposeRequest { commands, batch: self.last }).is_err()
            && let Some(waits) = self.owed.take(self.last)
        {
            refuse(waits);
        }
        wait
    }
}

/// Takes answers until the stream ends.
async fn receive(
    mut client: Client,
    requests: mpsc::Receiver<ProposeRequest>,
    owed: &Owed,
) -> Result<(), Status> {
    let mut replies = client.propose(ReceiverStream::new(requests)).await?.into_inner();
    while let Some(reply) = replies.message().await? {
        owed.answer(reply);
    }
    Ok(())
}

/// The leader's answers.
pub type Answers = Pin<Box<dyn Stream<Item = Result<ProposeReply, Status>> + Send>>;

/// The leader's end: `propose` is called for each batch. A member that stops takes no more once another leads.
pub fn answers<F: Future<Output = Result<ProposeReply, Status>> + Send + 'static>(
    node: &Arc<Node>,
    requests: Streaming<ProposeRequest>,
    propose: impl Fn(ProposeRequest) -> F + Send + 'static,
) -> Answers {
    let of = node.clone();
    let stopped = async move {
        of.tasks().stopping().cancelled_owned().await;
        let mut leads = of.leadership.subscribe();
        let other = leads.wait_for(|leads| !leads.is_me);
        // It has tried to hand over for as long.
        let _ = clock::timeout(HAND_OVER_MAX, other).await;
    };
    let answered = requests.take_until(Box::pin(stopped)).map(move |request| {
        let proposed = request.map(&propose);
        async move { proposed?.await }
    });
    Box::pin(answered.buffer_unordered(BATCHES))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owed(batches: std::ops::Range<u64>) -> (Owed, Vec<oneshot::Receiver<Came>>) {
        let owed = Owed(Mutex::new(Some(HashMap::new())));
        let wait = |batch| {
            let (waits, wait) = oneshot::channel();
            assert!(owed.add(batch, waits).is_ok());
            wait
        };
        let waiting = batches.map(wait).collect();
        (owed, waiting)
    }

    #[test]
    fn batches_are_answered_by_their_numbers_and_the_end_tells_what_became_of_the_rest() {
        let broken = || Status::unavailable("broken pipe");
        for (why, is_lost) in [(Ok(()), false), (Err(broken()), true)] {
            let (owed, mut waiting) = owed(1..4);
            owed.answer(ProposeReply { batch: 2, ..ProposeReply::default() });
            owed.answer(ProposeReply { batch: 9, ..ProposeReply::default() });
            assert_eq!(waiting.remove(1).try_recv().expect("an answer").expect("was done").batch, 2);
            owed.end(&why);
            for mut wait in waiting {
                let came = wait.try_recv().expect("the end").expect_err("has no answer");
                assert_eq!(matches!(came, Unanswered::Lost(_)), is_lost, "{came:?}");
            }
            assert!(owed.add(4, oneshot::channel().0).is_err(), "nobody would answer");
        }
    }
}
