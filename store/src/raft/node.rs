//! A running member: what the API asks of replication, done here when this member leads and by the leader otherwise.

use super::forward::{Forward, ForwardError};
use super::metrics::Metrics;
use super::peers::{Client, Peers, lost_call, never_sent};
use super::pulse::Pulse;
use super::reads::Rounds;
use super::snapshot::Snapshots;
use super::types::{Applied, Proposal, Types};
use super::wire::ask_request::What;
use super::wire::{self, AskReply, AskRequest, ReadIndexRequest};
use super::{apply::Applier, identity::Identity};
use crate::command::{Command, Op};
use crate::consensus::{Committed, Consensus, Leadership, Member, NodeStatus};
use crate::error::StoreError;
use crate::shared::Shared;
use coracle_daemon::{Tasks, clock};
use futures::TryStreamExt;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal, ForwardReason, LinearizableReadError, RaftError};
use openraft::raft::WriteResult;
use openraft::{Raft, ReadPolicy};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{MutexGuard, watch};
use tokio::time::Instant;
use tonic::Status;

/// How long a request may take in all, as in etcd.
pub(super) const REQUEST_MAX: Duration = Duration::from_secs(5);
/// How long to wait before asking again, when nothing tells that asking again would help.
const PAUSE: Duration = Duration::from_millis(20);

/// openraft as it is used here.
pub type RaftHandle = Raft<Types, Applier>;

/// See the module.
pub struct Node {
    pub(super) identity: Identity,
    pub(super) raft: RaftHandle,
    pub(super) shared: Arc<Shared>,
    pub(super) peers: Peers,
    pub(super) pulse: Arc<Pulse>,
    pub(super) snapshots: Snapshots,
    pub(super) rounds: Rounds,
    pub(super) forward: Forward,
    pub(super) applied: watch::Receiver<u64>,
    pub(super) leadership: watch::Sender<Leadership>,
    pub(super) members: watch::Sender<Vec<Member>>,
    /// Members that were, and are not any more.
    pub(super) removed: Mutex<BTreeSet<u64>>,
    pub(super) changing_members: tokio::sync::Mutex<()>,
    pub(super) folders: [PathBuf; 2],
    pub(super) tasks: Tasks,
    pub(super) metrics: Metrics,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// Who should do something.
enum Doer {
    Me,
    Leader(u64, Box<Client>),
}

impl Node {
    /// This cluster's id.
    #[must_use]
    pub fn cluster_id(&self) -> u64 {
        self.identity.cluster
    }

    /// This member's id.
    #[must_use]
    pub fn member_id(&self) -> u64 {
        self.identity.member
    }

    /// What monitoring may know.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(super) fn raft(&self) -> &RaftHandle {
        &self.raft
    }

    pub(super) fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    pub(super) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    pub(super) fn was_removed(&self, id: u64) -> bool {
        self.removed.lock().contains(&id)
    }

    pub(super) async fn membership_lock(&self) -> MutexGuard<'_, ()> {
        self.changing_members.lock().await
    }

    pub(super) fn watch_members(&self) -> watch::Receiver<Vec<Member>> {
        self.members.subscribe()
    }

    /// How far a member's log is, and the leader's own; `None` when this member does not lead or does not know it.
    pub(super) fn replicated(&self, id: u64) -> Option<(u64, u64)> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let has = metrics.replication.as_ref()?.get(&id)?;
        Some((has.map_or(0, |id| id.index), metrics.last_log_index.unwrap_or(0)))
    }

    /// A client of another member; `None` when there is no such member.
    pub(super) fn client_of(&self, id: u64) -> Option<Result<Client, Status>> {
        let server = self.raft.server_metrics();
        let peer = server.borrow_watched().membership_config.get_node(&id).cloned()?;
        Some(self.peers.client(id, &peer, false))
    }

    /// Who leads now; waits for a leader until `deadline`.
    async fn leader(&self, deadline: Instant) -> Result<Leadership, StoreError> {
        let known = *self.leadership.borrow();
        if known.leader != 0 {
            return Ok(known);
        }
        let mut leadership = self.leadership.subscribe();
        let known = tokio::time::timeout_at(deadline, leadership.wait_for(|known| known.leader != 0)).await;
        Ok(*known.map_err(|_| StoreError::NoLeader)?.map_err(|_| StoreError::Stopped)?)
    }

    /// Who leads now, and how to ask; waits for a leader until `deadline`.
    async fn doer(&self, deadline: Instant) -> Result<Doer, StoreError> {
        loop {
            let known = self.leader(deadline).await?;
            if known.is_me {
                return Ok(Doer::Me);
            }
            if let Some(client) = self.client_of(known.leader) {
                let client = client.map_err(|status| StoreError::Internal(status.message().to_owned()))?;
                return Ok(Doer::Leader(known.leader, Box::new(client)));
            }
            // A member that has just joined hears of the leader before it knows where the leader is.
            self.breathe(deadline).await?;
        }
    }

    /// Waits until asking again makes sense: another leader, or a moment.
    async fn breathe(&self, deadline: Instant) -> Result<(), StoreError> {
        if Instant::now() + PAUSE >= deadline {
            return Err(StoreError::NoLeader);
        }
        let mut leadership = self.leadership.subscribe();
        // Elapsing is the other way to go on.
        let _ = tokio::time::timeout(PAUSE, leadership.changed()).await;
        Ok(())
    }

    /// Proposes changes, which only the leader does; only in `term`, if there is one.
    pub(super) async fn propose_here(
        &self,
        ops: Vec<Op>,
        term: Option<u64>,
    ) -> Vec<Result<Committed, StoreError>> {
        let (began, count) = (Instant::now(), ops.len());
        self.pulse.replicates(count as u64);
        let proposed_at_millis = clock::now().as_millisecond();
        let proposals = ops.into_iter().map(|op| Proposal(Command { proposed_at_millis, op }.encode()));
        let proposals: Vec<Proposal> = proposals.collect();
        let mut results = Vec::with_capacity(count);
        let written = async {
            'again: loop {
                let mut written = self.raft.client_write_many(proposals.iter().cloned()).await?;
                while let Some(one) = written.try_next().await? {
                    // Beats are rarer than the lease is long while little is written. Once a majority answers, it is
                    // a leader's again, perhaps in another term.
                    if results.is_empty()
                        && lease_expired(&one)
                        && self.rounds.index().await.is_ok()
                        && term.is_none_or(|term| self.leads_in(term))
                    {
                        continue 'again;
                    }
                    results.push(committed(one));
                }
                return Ok::<_, Fatal<Types>>(());
            }
        };
        // Whatever has no result by then was proposed, and may be done or not.
        let unknown = match tokio::time::timeout_at(began + REQUEST_MAX, written).await {
            Ok(Ok(())) | Err(_) => StoreError::TimedOut,
            Ok(Err(_)) => StoreError::Stopped,
        };
        self.metrics.proposals.observe(began.elapsed().as_secs_f64());
        results.resize(count, Err(unknown));
        results
    }

    fn leads_in(&self, term: u64) -> bool {
        let leads = *self.leadership.borrow();
        leads.is_me && leads.term == term
    }

    /// The index that a linearizable read has to wait for, which only the leader knows.
    pub(super) async fn read_index_here(&self) -> Result<u64, StoreError> {
        if !self.leadership.borrow().is_me {
            return Err(StoreError::NotLeader);
        }
        self.rounds.index().await
    }

    /// One round of asking for a read index: by this member when it leads, by the leader otherwise.
    pub(super) async fn ask_read_index(&self) -> Result<u64, StoreError> {
        let deadline = Instant::now() + REQUEST_MAX;
        loop {
            let again = match self.doer(deadline).await? {
                Doer::Me => {
                    let asked = self.raft.get_read_linearizer(ReadPolicy::ReadIndex);
                    match tokio::time::timeout_at(deadline, asked).await.map_err(|_| StoreError::TimedOut)? {
                        Ok(linearizer) => return Ok(linearizer.read_log_id().index()),
                        Err(RaftError::Fatal(_)) => return Err(StoreError::Stopped),
                        Err(RaftError::APIError(
                            LinearizableReadError::ForwardToLeader(_)
                            | LinearizableReadError::QuorumNotEnough(_),
                        )) => true,
                    }
                }
                Doer::Leader(leader, mut client) => {
                    let asked = client.read_index(ReadIndexRequest {});
                    match self.told(leader, deadline, true, asked).await {
                        Ok(reply) => match wire::take_error(&reply.error) {
                            Ok(()) => return Ok(reply.index),
                            Err(StoreError::NotLeader | StoreError::NoLeader) => true,
                            Err(error) => return Err(error),
                        },
                        // A read changes nothing, so it may be asked for again.
                        Err(status) => status.code() != tonic::Code::FailedPrecondition,
                    }
                }
            };
            if !again {
                return Err(StoreError::ClusterIdMismatch);
            }
            self.breathe(deadline).await?;
        }
    }

    pub(super) async fn wait_applied(&self, index: u64) -> Result<(), StoreError> {
        if *self.applied.borrow() >= index {
            return Ok(());
        }
        let mut applied = self.applied.clone();
        let reached = tokio::time::timeout(REQUEST_MAX, applied.wait_for(|applied| *applied >= index)).await;
        reached.map_err(|_| StoreError::TimedOut)?.map(drop).map_err(|_| StoreError::Stopped)
    }

    /// Does what only the leader does, for another member or this one.
    pub(super) async fn answer_here(&self, what: What) -> Result<AskReply, StoreError> {
        if !self.leadership.borrow().is_me {
            return Err(StoreError::NotLeader);
        }
        let number = |number: i64| AskReply { number, ..AskReply::default() };
        let done = |()| AskReply::default();
        match what {
            What::RenewLease(id) => {
                // A leader that was deposed without knowing must not promise anything, nor a new one before it knows
                // what it inherited: the last leader may have ended the lease in a log that it did not live to commit.
                let index = self.rounds.index().await?;
                self.wait_applied(index).await?;
                self.shared.lessor().renew(id).map(number)
            }
            What::LeaseRemaining(id) => {
                let index = self.rounds.index().await?;
                self.wait_applied(index).await?;
                self.shared.lessor().remaining(id).map(number)
            }
            What::AddMember(member) => {
                let added = self.add_here(member.peer_urls, member.is_learner).await?;
                Ok(AskReply { member: Some(added.into()), ..AskReply::default() })
            }
            What::RemoveMember(id) => self.remove_here(id).await.map(done),
            What::UpdateMember(member) => self.update_here(member.id, member.peer_urls).await.map(done),
            What::PromoteMember(id) => self.promote_here(id).await.map(done),
            What::TransferLeader(to) => self.transfer_here(to).await.map(done),
            What::Publish(member) => self.publish_here(member.into()).await.map(done),
        }
    }

    /// Asks the leader; `idempotent` questions are asked again when an answer is lost.
    pub(super) async fn ask(&self, what: What, idempotent: bool) -> Result<AskReply, StoreError> {
        let deadline = Instant::now() + REQUEST_MAX;
        loop {
            match self.doer(deadline).await? {
                Doer::Me => match self.answer_here(what.clone()).await {
                    Err(StoreError::NotLeader) => {}
                    other => return other,
                },
                Doer::Leader(leader, mut client) => {
                    let request = AskRequest { what: Some(what.clone()) };
                    match self.told(leader, deadline, idempotent, client.ask(request)).await {
                        Ok(reply) => match wire::take_error(&reply.error) {
                            Ok(()) => return Ok(reply),
                            Err(StoreError::NotLeader) => {}
                            Err(error) => return Err(error),
                        },
                        Err(status) if idempotent || never_sent(&status) => {}
                        Err(status) => return Err(lost_call(&status)),
                    }
                }
            }
            self.breathe(deadline).await?;
        }
    }

    async fn transfer_here(&self, to: u64) -> Result<(), StoreError> {
        let target = self.members().into_iter().find(|member| member.id == to);
        if target.is_none_or(|member| member.is_learner) {
            return Err(StoreError::BadLeaderTransferee);
        }
        let mut leadership = self.leadership.subscribe();
        self.raft.trigger().transfer_leader(to).await.map_err(|_| StoreError::Stopped)?;
        let moved = tokio::time::timeout(REQUEST_MAX, leadership.wait_for(|known| known.leader == to)).await;
        moved.map_err(|_| StoreError::TimedOut)?.map(drop).map_err(|_| StoreError::Stopped)
    }
}

#[async_trait::async_trait]
impl Consensus for Node {
    async fn commit(&self, op: Op) -> Result<Committed, StoreError> {
        let deadline = Instant::now() + REQUEST_MAX;
        loop {
            let known = self.leader(deadline).await?;
            match self.forward.propose(known.leader, op.clone(), deadline).await {
                Ok(committed) => return Ok(committed),
                Err(ForwardError::NotDone) => {}
                Err(ForwardError::Answer(error)) => return Err(error),
            }
            self.breathe(deadline).await?;
        }
    }

    async fn commit_in_term(&self, op: Op, term: u64) -> Result<Committed, StoreError> {
        if !self.leads_in(term) {
            return Err(StoreError::NotLeader);
        }
        self.propose_here(vec![op], Some(term)).await.pop().unwrap_or(Err(StoreError::NotLeader))
    }

    async fn read_barrier(&self) -> Result<(), StoreError> {
        let index = self.rounds.index().await?;
        self.wait_applied(index).await
    }

    fn status(&self) -> NodeStatus {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let leader = metrics.current_leader.unwrap_or(0);
        let mut errors = Vec::new();
        if leader == 0 {
            errors.push(StoreError::NoLeader.to_string());
        }
        if let Err(error) = &metrics.running_state {
            errors.push(error.to_string());
        }
        NodeStatus {
            member_id: self.identity.member,
            cluster_id: self.identity.cluster,
            leader,
            term: metrics.current_term,
            index: metrics.local_committed.map_or(0, |id| id.index),
            applied: *self.applied.borrow(),
            is_learner: !metrics.membership_config.voter_ids().any(|id| id == self.identity.member),
            disk_bytes: self.folders.iter().map(folder_bytes).sum(),
            errors,
        }
    }

    fn is_learner(&self) -> bool {
        let me = self.identity.member;
        self.members.borrow().iter().any(|member| member.id == me && member.is_learner)
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    fn members(&self) -> Vec<Member> {
        self.members.borrow().clone()
    }

    async fn renew_lease(&self, id: i64) -> Result<i64, StoreError> {
        self.ask(What::RenewLease(id), true).await.map(|reply| reply.number)
    }

    async fn lease_remaining(&self, id: i64) -> Result<i64, StoreError> {
        self.ask(What::LeaseRemaining(id), true).await.map(|reply| reply.number)
    }

    async fn add_member(&self, peer_urls: Vec<String>, is_learner: bool) -> Result<Member, StoreError> {
        let member = wire::Member { peer_urls, is_learner, ..wire::Member::default() };
        let reply = self.ask(What::AddMember(member), false).await?;
        reply
            .member
            .map(Into::into)
            .ok_or_else(|| StoreError::Internal("the leader told no member".to_owned()))
    }

    async fn remove_member(&self, id: u64) -> Result<(), StoreError> {
        self.ask(What::RemoveMember(id), false).await.map(drop)
    }

    async fn update_member(&self, id: u64, peer_urls: Vec<String>) -> Result<(), StoreError> {
        let member = wire::Member { id, peer_urls, ..wire::Member::default() };
        self.ask(What::UpdateMember(member), false).await.map(drop)
    }

    async fn promote_member(&self, id: u64) -> Result<(), StoreError> {
        self.ask(What::PromoteMember(id), false).await.map(drop)
    }

    async fn transfer_leader(&self, to: u64) -> Result<(), StoreError> {
        if !self.leadership.borrow().is_me {
            return Err(StoreError::NotLeader);
        }
        self.transfer_here(to).await
    }

    async fn defragment(&self) -> Result<(), StoreError> {
        self.raft.trigger().snapshot().await.map_err(|_| StoreError::Stopped)
    }
}

/// Whether nothing was proposed, only because no majority answered the leader of late.
fn lease_expired(written: &WriteResult<Types>) -> bool {
    matches!(written, Err(ClientWriteError::ForwardToLeader(to)) if to.reason == ForwardReason::LeaseExpired)
}

/// What became of a proposal.
fn committed(written: WriteResult<Types>) -> Result<Committed, StoreError> {
    let written = written.map_err(|error| match error {
        ClientWriteError::ForwardToLeader(_) => StoreError::NotLeader,
        ClientWriteError::LogEntryDiscarded(_) => StoreError::LeaderChanged,
        error => StoreError::Internal(error.to_string()),
    })?;
    let (index, term) = (written.log_id.index, written.log_id.leader_id.term);
    match written.response {
        Applied::Command(outcome) => outcome.map(|outcome| Committed { outcome, index, term }),
        Applied::Nothing => Err(StoreError::Internal("a command came back as no command".to_owned())),
    }
}

/// Bytes of the files in a folder.
fn folder_bytes(folder: &PathBuf) -> u64 {
    // A file that was just replaced counts nothing.
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files
        .filter_map(|file| file.metadata().ok())
        .filter(std::fs::Metadata::is_file)
        .map(|file| file.len())
        .sum()
}
