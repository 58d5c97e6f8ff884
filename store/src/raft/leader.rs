//! What a member makes of its leader: whether it is still there, and what it answers. A leader that owes an answer for too
//! long is doubted, and missed unless it calls.

use super::node::Node;
use super::peers::within;
use super::wire::{self, ReadIndexRequest};
use openraft::async_runtime::WatchReceiver;
use openraft::raft::VoteRequest;
use openraft::{Instant as _, ServerState};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tonic::{Response, Status};

impl Node {
    /// Whether an election now would only disturb: this member follows a leader that is not missing, or leads a majority
    /// that answers. It is asked as another member misses the leader, so a leader beats, and one that has not called lately
    /// has to answer.
    pub(super) async fn has_leader(self: &Arc<Self>) -> bool {
        if self.raft.server_metrics().borrow_watched().state != ServerState::Leader {
            let leader = match self.pulse.follows() {
                None => return false,
                Some((_, true)) => return true,
                Some((leader, false)) => leader,
            };
            // Whoever asked may not wait for so long, but asks again.
            let (this, (told, leads)) = (self.clone(), oneshot::channel());
            self.tasks.run("ask the leader", async move {
                // The receiver may be gone.
                let _ = told.send(this.still_leads(leader).await);
            });
            return leads.await.unwrap_or_default();
        }
        let answered = self.raft.metrics().borrow_watched().last_quorum_acked;
        let leads = answered.is_some_and(|answered| answered.elapsed() < self.pulse.answered_within());
        // A member that stops does not beat any more.
        leads && self.raft.trigger().heartbeat().await.is_ok()
    }

    /// Asks `leader` whether a majority follows it.
    async fn still_leads(&self, leader: u64) -> bool {
        let Some(Ok(mut client)) = self.client_of(leader) else { return false };
        let limit = self.pulse.timing.lease;
        let told = within(limit, client.read_index(ReadIndexRequest {})).await;
        let leads = told.is_ok_and(|reply| wire::take_error(&reply.error).is_ok());
        if leads {
            self.pulse.answered(leader);
        } else {
            self.pulse.doubt(leader);
        }
        leads
    }

    /// Has a leader that this member, which does not vote, does not hear beat.
    pub(super) async fn call_leader(&self) {
        let request = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let last = metrics.last_applied;
            wire::put_vote_request(&VoteRequest::new(metrics.vote, last), true)
        };
        let voters: Vec<u64> =
            self.raft.server_metrics().borrow_watched().membership_config.voter_ids().collect();
        let limit = self.pulse.timing.lease;
        let calls = voters.into_iter().filter_map(|id| self.client_of(id)?.ok()).map(|mut client| {
            // Its beat is the answer.
            async move { drop(within(limit, client.vote(request)).await) }
        });
        futures::future::join_all(calls).await;
    }

    /// What `leader` answers within `limit`. It is doubted when it takes long.
    pub(super) async fn owed<T>(
        &self,
        leader: u64,
        limit: Duration,
        answer: impl Future<Output = T>,
    ) -> Option<T> {
        let (asked, mut answer) = (Instant::now(), std::pin::pin!(answer));
        let mut due = asked + self.pulse.timing.patience();
        loop {
            if let Ok(answer) = tokio::time::timeout_at(due.min(asked + limit), &mut answer).await {
                return Some(answer);
            }
            if due >= asked + limit {
                return None;
            }
            due = self.pulse.doubt(leader);
        }
    }

    /// What `leader` answers until `deadline`. What may be asked `again` is given up, too, once another leads.
    pub(super) async fn told<T>(
        &self,
        leader: u64,
        deadline: Instant,
        again: bool,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Status> {
        let limit = deadline.saturating_duration_since(Instant::now());
        let mut leadership = self.leadership.subscribe();
        tokio::select! {
            biased;
            answer = self.owed(leader, limit, answer) => {
                let late = || Err(Status::deadline_exceeded(format!("no answer within {limit:?}")));
                answer.unwrap_or_else(late).map(Response::into_inner)
            }
            _ = leadership.wait_for(|known| known.leader != 0 && known.leader != leader), if again => {
                Err(Status::unavailable("another member leads now"))
            }
        }
    }
}
