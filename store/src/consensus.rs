//! What the API needs of replication, as a trait: Raft implements it, and a single member in memory does in tests.

use crate::command::{Op, Outcome};
use crate::error::StoreError;

/// A command's outcome and where it stands in the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Committed {
    /// What it did.
    pub outcome: Outcome,
    /// Its index in the log.
    pub index: u64,
    /// The term of its leader.
    pub term: u64,
}

/// A member of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its id, never 0.
    pub id: u64,
    /// Its name; empty until it has started once.
    pub name: String,
    /// Where other members reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until it has started once.
    pub client_urls: Vec<String>,
    /// Whether it has no vote yet.
    pub is_learner: bool,
}

/// Where this member stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeStatus {
    /// This member.
    pub member_id: u64,
    /// Its cluster.
    pub cluster_id: u64,
    /// The leader's id; 0 when none is known.
    pub leader: u64,
    /// The current term.
    pub term: u64,
    /// The last index known to be committed.
    pub index: u64,
    /// The last index applied.
    pub applied: u64,
    /// Whether this member has no vote.
    pub is_learner: bool,
    /// Bytes that log and image take on the disk.
    pub disk_bytes: u64,
    /// What is wrong with this member.
    pub errors: Vec<String>,
}

/// Replication among the members.
#[async_trait::async_trait]
pub trait Consensus: Send + Sync + 'static {
    /// Replicates `op`, and returns once it is applied on this member too. A follower hands it to the leader.
    ///
    /// Errors: what applying refused; [`StoreError::may_have_happened`] tells whether it may have been done.
    async fn commit(&self, op: Op) -> Result<Committed, StoreError>;
    /// Replicates what this member decided as the leader of `term`, and never hands it on: whoever leads after it may have
    /// decided otherwise.
    ///
    /// Errors: as for `commit`; `NotLeader` once the term is over.
    async fn commit_in_term(&self, op: Op, term: u64) -> Result<Committed, StoreError>;
    /// Returns once this member has applied everything that was committed anywhere when the call began.
    async fn read_barrier(&self) -> Result<(), StoreError>;
    /// Where this member stands.
    fn status(&self) -> NodeStatus;
    /// Whether this member has no vote.
    fn is_learner(&self) -> bool;
    /// Changes whenever leader, term or voters change; for whoever acts on leadership.
    fn leadership(&self) -> tokio::sync::watch::Receiver<Leadership>;
    /// All members as this one knows them, by id.
    fn members(&self) -> Vec<Member>;
    /// Prolongs a lease on the leader. Returns its TTL in seconds; `LeaseNotFound` when it is gone.
    async fn renew_lease(&self, id: i64) -> Result<i64, StoreError>;
    /// Seconds left of a lease, which only the leader knows; `LeaseNotFound` when it is gone.
    async fn lease_remaining(&self, id: i64) -> Result<i64, StoreError>;
    /// Adds a member, which starts with these peer URLs later.
    async fn add_member(&self, peer_urls: Vec<String>, is_learner: bool) -> Result<Member, StoreError>;
    /// Removes a member for good.
    async fn remove_member(&self, id: u64) -> Result<(), StoreError>;
    /// Changes a member's peer URLs.
    async fn update_member(&self, id: u64, peer_urls: Vec<String>) -> Result<(), StoreError>;
    /// Gives a learner that has caught up its vote.
    async fn promote_member(&self, id: u64) -> Result<(), StoreError>;
    /// Hands leadership over. Only the leader does it.
    async fn transfer_leader(&self, to: u64) -> Result<(), StoreError>;
    /// Gives disk space back, and shrinks the log as far as that is safe.
    async fn defragment(&self) -> Result<(), StoreError>;
}

/// Who leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The leader's id; 0 when none is known.
    pub leader: u64,
    /// Its term.
    pub term: u64,
    /// Whether this member is it.
    pub is_me: bool,
}
