//! The types that openraft is instantiated with, and their forms in the log.

use crate::command::{Outcome, decode_reply, encode_reply};
use crate::error::StoreError;
use crate::wal::{Entry, EntryId, Vote as WalVote};
use bytes::Bytes;
use openraft::entry::RaftEntry;
use openraft::vote::RaftVote;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::io;

openraft::declare_raft_types!(
    /// openraft as it is used here.
    pub Types:
        D = Proposal,
        R = Applied,
        Node = Peer,
);

/// One member's view of the cluster's log ids.
pub type LogId = openraft::type_config::alias::LogIdOf<Types>;
/// A vote.
pub type Vote = openraft::type_config::alias::VoteOf<Types>;
/// An entry.
pub type RaftEntryOf = openraft::type_config::alias::EntryOf<Types>;
/// A membership with the entry that made it.
pub type StoredMembership = openraft::type_config::alias::StoredMembershipOf<Types>;
/// What a snapshot covers.
pub type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Types>;

/// A command as bytes: encoded once by the leader, decoded once by each member that applies it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal(pub Bytes);

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What came of an entry.
#[derive(Clone, Debug, PartialEq)]
pub enum Applied {
    /// The entry was a command.
    Command(Result<Outcome, StoreError>),
    /// The entry was about the cluster itself.
    Nothing,
}

impl Serialize for Applied {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Command(reply) => encode_reply(reply).serialize(serializer),
            Self::Nothing => Bytes::new().serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Applied {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Bytes::deserialize(deserializer)?;
        if bytes.is_empty() {
            return Ok(Self::Nothing);
        }
        decode_reply(bytes).map(Self::Command).map_err(serde::de::Error::custom)
    }
}

/// A member as the membership entries of the log describe it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name; empty until it has started once.
    pub name: String,
    /// Where other members reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until it has started once.
    pub client_urls: Vec<String>,
}

/// The kinds of payload in the log.
const BLANK: u8 = 0;
const COMMAND: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// An openraft log id as the log keeps it.
#[must_use]
pub fn entry_id(id: &LogId) -> EntryId {
    EntryId { term: id.leader_id.term, leader: id.leader_id.node_id, index: id.index }
}

/// The inverse of [`entry_id`].
#[must_use]
pub fn log_id(id: &EntryId) -> LogId {
    let leader_id = openraft::impls::leader_id_adv::LeaderId { term: id.term, node_id: id.leader };
    LogId::new(leader_id, id.index)
}

/// An openraft vote as the log keeps it.
#[must_use]
pub fn wal_vote(vote: &Vote) -> WalVote {
    WalVote { term: vote.leader_id.term, member: vote.leader_id.node_id, committed: vote.is_committed() }
}

/// The inverse of [`wal_vote`].
#[must_use]
pub fn raft_vote(vote: &WalVote) -> Vote {
    let leader_id = openraft::impls::leader_id_adv::LeaderId { term: vote.term, node_id: vote.member };
    Vote::from_leader_id(leader_id, vote.committed)
}

/// An openraft entry as the log keeps it.
///
/// # Errors
/// Never for a membership that this program made.
pub fn wal_entry(entry: &RaftEntryOf) -> io::Result<Entry> {
    use openraft::EntryPayload as P;
    let (kind, payload) = match &entry.payload {
        P::Blank => (BLANK, Bytes::new()),
        P::Normal(proposal) => (COMMAND, proposal.0.clone()),
        P::Membership(membership) => {
            (MEMBERSHIP, postcard::to_stdvec(membership).map_err(io::Error::other)?.into())
        }
    };
    Ok(Entry { id: entry_id(&entry.log_id), kind, payload })
}

/// The inverse of [`wal_entry`].
///
/// # Errors
/// The payload is of another version of the program.
pub fn raft_entry(entry: &Entry) -> io::Result<RaftEntryOf> {
    use openraft::EntryPayload as P;
    let payload = match entry.kind {
        BLANK => P::Blank,
        COMMAND => P::Normal(Proposal(entry.payload.clone())),
        MEMBERSHIP => P::Membership(postcard::from_bytes(&entry.payload).map_err(io::Error::other)?),
        other => {
            let what = format!(
                "log entry {} has payload kind {other}, which this program does not know",
                entry.id.index
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
    };
    Ok(RaftEntryOf::new(log_id(&entry.id), payload))
}
