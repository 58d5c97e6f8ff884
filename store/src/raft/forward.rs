//! Changes on their way to the leader, which may be this member: those that wait go together, and a few batches may be under
//! way at once.

use super::node::{Node, REQUEST_MAX};
use super::peers::lost_call;
use super::proposals::{Came, Proposals, Unanswered};
use crate::command::{Command, Op, decode_reply};
use crate::consensus::Committed;
use crate::error::StoreError;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tonic::Status;

/// Changes that wait for a batch; more wait to wait.
const WAITING: usize = 4096;
/// Changes of a batch, and bytes of them unless one has more.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 4 << 20;
/// Changes under way, where a batch counts as [`WEIGHT_MAX`] at most. Few changes go at once, each alone; many wait until an
/// earlier batch is done, as larger batches cost less for each. One batch at a time would have a change that just missed it
/// wait twice as long.
const UNDER_WAY: usize = 16;
const WEIGHT_MAX: usize = 4;

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
    op: Op,
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

    /// Has `leader` replicate `op`; returns once this member has applied it.
    ///
    /// # Errors
    /// It was refused, or it is not known what became of it: at `deadline` nobody waits any more.
    pub async fn propose(&self, leader: u64, op: Op, deadline: Instant) -> Answer {
        let (answer, wait) = oneshot::channel();
        let stopped = || ForwardError::Answer(StoreError::Stopped);
        let done = async {
            self.queue.send(Waiting { op, leader, answer }).await.map_err(|_| stopped())?;
            wait.await.map_err(|_| stopped())?
        };
        let timed_out = |_| Err(ForwardError::Answer(StoreError::TimedOut));
        tokio::time::timeout_at(deadline, done).await.unwrap_or_else(timed_out)
    }
}

/// Sends batch after batch until nobody can hand over changes any more.
pub async fn run(node: &Arc<Node>, mut queue: Queue) {
    let under_way = Arc::new(Semaphore::new(UNDER_WAY));
    let (mut waiting, mut way) = (Vec::new(), None);
    while queue.recv_many(&mut waiting, BATCH).await > 0 {
        while !waiting.is_empty() {
            let Some(permit) = permit(&under_way, &mut queue, &mut waiting).await else { return };
            let batch = next_batch(&mut waiting);
            let Some(leader) = batch.first().map(|first| first.leader) else { continue };
            let (ops, answers): (Vec<Op>, Vec<_>) = batch.into_iter().map(|one| (one.op, one.answer)).unzip();
            let this = node.clone();
            if leader == node.member_id() {
                node.tasks().run("changes", async move {
                    let done = this.propose_here(ops, None).await;
                    drop(permit);
                    answer(answers, done.into_iter().map(|done| done.map_err(not_done)));
                });
                continue;
            }
            let came = send(node, &mut way, leader, ops);
            node.tasks().run("forward changes", async move {
                let came = answers_of(in_time(&this, leader, came).await, answers.len());
                drop(permit);
                let applied = applied(&this, &came).await;
                let came = came.into_iter().map(|came| {
                    let done = came?;
                    applied.clone().map(|()| done).map_err(ForwardError::Answer)
                });
                answer(answers, came);
            });
        }
    }
}

/// Waits until a batch may go; whatever comes in the meantime goes along. None: nobody needs it any more.
async fn permit(
    under_way: &Arc<Semaphore>,
    queue: &mut Queue,
    waiting: &mut Vec<Waiting>,
) -> Option<OwnedSemaphorePermit> {
    let mut permit = under_way.clone().acquire_owned().await.ok()?;
    gather(queue, waiting);
    let more = u32::try_from(waiting.len().min(WEIGHT_MAX)).unwrap_or(1).saturating_sub(1);
    if more > 0 {
        permit.merge(under_way.clone().acquire_many_owned(more).await.ok()?);
        gather(queue, waiting);
    }
    Some(permit)
}

fn gather(queue: &mut Queue, waiting: &mut Vec<Waiting>) {
    while waiting.len() < BATCH
        && let Ok(more) = queue.try_recv()
    {
        waiting.push(more);
    }
}

/// Takes the first changes that go together: for one leader, and not too large. None if nobody waits any more: who gave up was
/// told that nobody knows what became of the change, so let it not be done late.
fn next_batch(waiting: &mut Vec<Waiting>) -> Vec<Waiting> {
    waiting.retain(|change| !change.answer.is_closed());
    let mut bytes = 0;
    let leader = waiting.first().map_or(0, |first| first.leader);
    let fits = |change: &&Waiting| {
        let first = bytes == 0;
        bytes += change.op.encoded_len().max(1);
        first || (change.leader == leader && bytes <= BATCH_BYTES)
    };
    let rest = waiting.split_off(waiting.iter().take_while(fits).count());
    std::mem::replace(waiting, rest)
}

/// Has the leader replicate a batch; tells where what came of it will be.
fn send(node: &Node, way: &mut Option<Proposals>, leader: u64, ops: Vec<Op>) -> oneshot::Receiver<Came> {
    // The leader stamps the time.
    let command = |op| Command { proposed_at_millis: 0, op }.encode();
    if way.as_ref().is_none_or(|way| way.leader != leader || !way.is_open()) {
        *way = match node.client_of(leader) {
            Some(Ok(client)) => Some(Proposals::open(leader, client, node.tasks())),
            // It is no member any more, or has no usable address.
            Some(Err(_)) | None => None,
        };
    }
    way.as_mut().map_or_else(not_taken, |way| way.ask(ops.into_iter().map(command).collect()))
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

/// Returns once this member has applied what the leader did of a batch: waited for once, so that who waits is woken once.
async fn applied(node: &Node, came: &[Answer]) -> Result<(), StoreError> {
    match came.iter().flatten().map(|done| done.index).max() {
        Some(last) => node.wait_applied(last).await,
        None => Ok(()),
    }
}

fn answer(answers: Vec<oneshot::Sender<Answer>>, came: impl Iterator<Item = Answer>) {
    for (answer, came) in answers.into_iter().zip(came) {
        // Whoever waited may have given up.
        let _ = answer.send(came);
    }
}

fn not_done(error: StoreError) -> ForwardError {
    match error {
        StoreError::NotLeader => ForwardError::NotDone,
        error => ForwardError::Answer(error),
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
                Ok(Err(error)) => Err(not_done(error)),
                Err(error) => Err(ForwardError::Answer(StoreError::Internal(error.to_string()))),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::ProposeReply;
    use super::*;
    use coracle_etcd::proto::PutRequest;

    fn put(bytes: usize) -> Op {
        Op::Put(PutRequest { value: vec![0; bytes].into(), ..PutRequest::default() })
    }

    fn change(leader: u64, bytes: usize) -> (Waiting, oneshot::Receiver<Answer>) {
        let (answer, wait) = oneshot::channel();
        (Waiting { op: put(bytes), leader, answer }, wait)
    }

    #[test]
    fn batches_are_for_one_leader_and_not_too_large() {
        let mib = 1 << 20;
        for (waiting, together) in [
            (vec![], 0),
            (vec![(1, 10)], 1),
            (vec![(1, 10), (1, 10), (1, 0)], 3),
            (vec![(1, 10), (2, 10), (1, 10)], 1),
            (vec![(1, 9 * mib), (1, 10)], 1),
            (vec![(1, 2 * mib), (1, mib), (1, 2 * mib)], 2),
        ] {
            let (mut waiting, _waits): (Vec<_>, Vec<_>) =
                waiting.into_iter().map(|(leader, bytes)| change(leader, bytes)).unzip();
            let all = waiting.len();
            assert_eq!((next_batch(&mut waiting).len(), waiting.len()), (together, all - together));
        }
    }

    #[test]
    fn a_change_that_nobody_waits_for_is_in_no_batch() {
        let (mut waiting, mut waits): (Vec<_>, Vec<_>) =
            [1, 1, 2].map(|leader| change(leader, 1)).into_iter().unzip();
        waits.drain(..2);
        let leaders: Vec<u64> = next_batch(&mut waiting).iter().map(|change| change.leader).collect();
        assert_eq!(leaders, [2]);
        let (given_up, _) = change(1, 1);
        assert!(next_batch(&mut vec![given_up]).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_waits_no_longer_than_its_request() {
        let (forward, mut queue) = Forward::new();
        let (began, limit) = (Instant::now(), std::time::Duration::from_secs(7));
        let done = forward.propose(1, put(1), began + limit).await;
        assert!(matches!(done, Err(ForwardError::Answer(StoreError::TimedOut))));
        assert_eq!(began.elapsed(), limit);
        assert!(queue.recv().await.is_some_and(|change| change.answer.is_closed()));
    }

    #[tokio::test(start_paused = true)]
    async fn few_changes_go_at_once_and_many_wait_for_an_earlier_batch() {
        // Changes in each batch that is asked for, and how many of these batches may go before one ends.
        for (changes, batches) in [(1, 16), (3, 5), (4, 4), (200, 4)] {
            let (_, mut queue) = Forward::new();
            let under_way = Arc::new(Semaphore::new(UNDER_WAY));
            let mut permits = Vec::new();
            for _ in 0..batches {
                let (mut waiting, _waits): (Vec<_>, Vec<_>) = (0..changes).map(|_| change(1, 1)).unzip();
                permits.push(permit(&under_way, &mut queue, &mut waiting).await);
            }
            let (mut waiting, _waits): (Vec<_>, Vec<_>) = (0..changes).map(|_| change(1, 1)).unzip();
            let mut next = std::pin::pin!(permit(&under_way, &mut queue, &mut waiting));
            assert!(futures::poll!(&mut next).is_pending(), "{changes} changes each");
            permits.pop();
            assert!(next.await.is_some());
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
