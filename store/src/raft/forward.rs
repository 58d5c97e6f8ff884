//! Changes that a follower hands to the leader: those that wait go together, and a few batches may be under way at once.

use super::node::{Node, REQUEST_MAX};
use super::peers::lost_call;
use super::proposals::{Came, Proposals, Unanswered};
use crate::command::decode_reply;
use crate::consensus::Committed;
use crate::error::StoreError;
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tonic::Status;

/// Changes that wait for a batch; more wait to wait.
const WAITING: usize = 4096;
/// Changes of a batch, and bytes of them unless one has more.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 4 << 20;
/// Batches under way: with one alone, a change that just missed it would wait twice as long.
const UNDER_WAY: usize = 4;

/// Why a change was not done by the leader.
#[derive(Debug)]
pub enum ForwardError {
    /// Surely nothing was done, and another leader may do it.
    NotDone,
    /// The leader's answer, or that there was none.
    Answer(StoreError),
}

type Answer = Result<Committed, ForwardError>;

/// A change for the leader, and who waits for it.
pub struct Waiting {
    command: Bytes,
    leader: u64,
    answer: oneshot::Sender<Answer>,
}

/// Where changes queue.
#[derive(Clone, Debug)]
pub struct Forward {
    queue: mpsc::Sender<Waiting>,
}

/// Where batches take changes from.
pub type Queue = mpsc::Receiver<Waiting>;

impl Forward {
    /// Both ends.
    #[must_use]
    pub fn new() -> (Self, Queue) {
        let (queue, changes) = mpsc::channel(WAITING);
        (Self { queue }, changes)
    }

    /// Has `leader` replicate `command`; returns once this member has applied it.
    ///
    /// # Errors
    /// It was refused, or it is not known what became of it.
    pub async fn propose(&self, leader: u64, command: Bytes) -> Answer {
        let (answer, wait) = oneshot::channel();
        let stopped = || ForwardError::Answer(StoreError::Stopped);
        self.queue.send(Waiting { command, leader, answer }).await.map_err(|_| stopped())?;
        wait.await.map_err(|_| stopped())?
    }
}

/// Sends batch after batch until nobody can hand over changes any more.
pub async fn run(node: &Arc<Node>, mut queue: Queue) {
    let under_way = Arc::new(Semaphore::new(UNDER_WAY));
    let (mut waiting, mut way) = (Vec::new(), None);
    while queue.recv_many(&mut waiting, BATCH).await > 0 {
        while !waiting.is_empty() {
            let Ok(permit) = under_way.clone().acquire_owned().await else { return };
            // Whatever came while waiting for the permit goes along.
            while waiting.len() < BATCH
                && let Ok(more) = queue.try_recv()
            {
                waiting.push(more);
            }
            let rest = waiting.split_off(batch_len(&waiting));
            let batch = std::mem::replace(&mut waiting, rest);
            let leader = batch.first().map_or(0, |first| first.leader);
            let (answers, came) = send(node, &mut way, leader, batch);
            let this = node.clone();
            node.tasks().run("forward changes", async move {
                let came = answers_of(in_time(&this, leader, came).await, answers.len());
                drop(permit);
                answer(&this, answers, came).await;
            });
        }
    }
}

/// How many of the first changes go together: for one leader, and not too large. At least one.
fn batch_len(waiting: &[Waiting]) -> usize {
    let mut bytes = 0;
    let leader = waiting.first().map_or(0, |first| first.leader);
    let fits = |change: &&Waiting| {
        let first = bytes == 0;
        bytes += change.command.len().max(1);
        first || (change.leader == leader && bytes <= BATCH_BYTES)
    };
    waiting.iter().take_while(fits).count().max(1)
}

/// Has the leader replicate a batch; tells who waits, and where what came of it will be.
fn send(
    node: &Node,
    way: &mut Option<Proposals>,
    leader: u64,
    batch: Vec<Waiting>,
) -> (Vec<oneshot::Sender<Answer>>, oneshot::Receiver<Came>) {
    let (commands, answers) = batch.into_iter().map(|change| (change.command, change.answer)).unzip();
    if way.as_ref().is_none_or(|way| way.leader != leader || !way.is_open()) {
        *way = match node.client_of(leader) {
            Some(Ok(client)) => Some(Proposals::open(leader, client, node.tasks())),
            // It is no member any more, or has no usable address.
            Some(Err(_)) | None => None,
        };
    }
    let came = way.as_mut().map_or_else(not_taken, |way| way.ask(commands));
    (answers, came)
}

fn not_taken() -> oneshot::Receiver<Came> {
    let (none, wait) = oneshot::channel();
    // The receiver is here.
    let _ = none.send(Err(Unanswered::NotTaken));
    wait
}

/// What comes within the time that a request has.
async fn in_time(node: &Node, leader: u64, came: oneshot::Receiver<Came>) -> Came {
    let late = || Status::deadline_exceeded(format!("no answer within {REQUEST_MAX:?}"));
    let stopped = || Status::unavailable("this member stops");
    match node.owed(leader, REQUEST_MAX, came).await {
        Some(came) => came.unwrap_or_else(|_| Err(Unanswered::Lost(stopped()))),
        None => Err(Unanswered::Lost(late())),
    }
}

/// Answers once this member has applied what the leader did: all together, so that each is woken once.
async fn answer(node: &Node, answers: Vec<oneshot::Sender<Answer>>, came: Vec<Answer>) {
    let last = came.iter().flatten().map(|done| done.index).max();
    let applied = match last {
        Some(last) => node.wait_applied(last).await,
        None => Ok(()),
    };
    for (answer, came) in answers.into_iter().zip(came) {
        let came = came.and_then(|done| match &applied {
            Ok(()) => Ok(done),
            Err(error) => Err(ForwardError::Answer(error.clone())),
        });
        // Whoever waited may have given up.
        let _ = answer.send(came);
    }
}

/// The answer to each of `count` changes.
fn answers_of(reply: Came, count: usize) -> Vec<Answer> {
    let all = |error: &dyn Fn() -> ForwardError| (0..count).map(|_| Err(error())).collect();
    match reply {
        Err(Unanswered::NotTaken) => all(&|| ForwardError::NotDone),
        Err(Unanswered::Lost(status)) => all(&|| ForwardError::Answer(lost_call(&status))),
        Ok(reply) if reply.replies.len() != count => all(&|| {
            ForwardError::Answer(StoreError::Internal("the leader did not answer all changes".to_owned()))
        }),
        Ok(reply) => reply
            .replies
            .into_iter()
            .map(|one| match decode_reply(one.reply) {
                Ok(Ok(outcome)) => Ok(Committed { outcome, index: one.index, term: one.term }),
                Ok(Err(StoreError::NotLeader)) => Err(ForwardError::NotDone),
                Ok(Err(error)) => Err(ForwardError::Answer(error)),
                Err(error) => Err(ForwardError::Answer(StoreError::Internal(error.to_string()))),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::ProposeReply;
    use super::*;

    fn change(leader: u64, bytes: usize) -> Waiting {
        Waiting { command: vec![0; bytes].into(), leader, answer: oneshot::channel().0 }
    }

    #[test]
    fn batches_are_for_one_leader_and_not_too_large() {
        let mib = 1 << 20;
        for (waiting, together) in [
            (vec![(1, 10)], 1),
            (vec![(1, 10), (1, 10), (1, 0)], 3),
            (vec![(1, 10), (2, 10), (1, 10)], 1),
            (vec![(1, 9 * mib), (1, 10)], 1),
            (vec![(1, 2 * mib), (1, mib), (1, 2 * mib)], 2),
        ] {
            let waiting: Vec<Waiting> =
                waiting.into_iter().map(|(leader, bytes)| change(leader, bytes)).collect();
            assert_eq!(batch_len(&waiting), together);
        }
    }

    #[test]
    fn a_lost_answer_leaves_open_whether_it_was_done() {
        let lost = answers_of(Err(Unanswered::Lost(Status::unavailable("broken pipe"))), 2);
        assert!(
            lost.iter().all(
                |answer| matches!(answer, Err(ForwardError::Answer(error)) if error.may_have_happened())
            )
        );
        let short = answers_of(Ok(ProposeReply::default()), 2);
        assert!(
            short.iter().all(
                |answer| matches!(answer, Err(ForwardError::Answer(error)) if error.may_have_happened())
            )
        );
        let refused = super::super::wire::Proposed {
            reply: crate::command::encode_reply(&Err(StoreError::NotLeader)),
            ..Default::default()
        };
        let refused = answers_of(Ok(ProposeReply { replies: vec![refused], batch: 1 }), 1);
        assert!(matches!(refused[0], Err(ForwardError::NotDone)));
    }
}
