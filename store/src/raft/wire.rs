//! Messages between members, to and from openraft's.

mod proto {
    tonic::include_proto!("coracle.peer");
}

pub use proto::*;

use super::types::{LogId, Peer, Types, Vote, entry_id, log_id, raft_entry, raft_vote, wal_entry, wal_vote};
use crate::consensus::Member as ApiMember;
use crate::error::StoreError;
use crate::wal;
use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest as RaftVoteRequest,
    VoteResponse,
};
use tonic::Status;

/// Whatever a message must have and lacks.
fn missing(what: &str) -> Status {
    Status::invalid_argument(format!("the message has no {what}"))
}

/// A log id.
#[must_use]
pub fn put_id(id: &LogId) -> EntryId {
    let id = entry_id(id);
    EntryId { term: id.term, leader: id.leader, index: id.index }
}

/// The inverse of [`put_id`].
#[must_use]
pub fn take_id(id: &EntryId) -> LogId {
    log_id(&wal::EntryId { term: id.term, leader: id.leader, index: id.index })
}

/// A vote.
#[must_use]
pub fn put_vote(vote: &Vote) -> Option<VoteState> {
    let vote = wal_vote(vote);
    Some(VoteState { term: vote.term, member: vote.member, committed: vote.committed })
}

/// The inverse of [`put_vote`].
///
/// # Errors
/// There is none.
pub fn take_vote(vote: Option<&VoteState>) -> Result<Vote, Status> {
    let vote = vote.ok_or_else(|| missing("vote"))?;
    Ok(raft_vote(&wal::Vote { term: vote.term, member: vote.member, committed: vote.committed }))
}

/// Entries to append.
///
/// # Errors
/// Never for a membership that this program made.
pub fn put_append(rpc: &AppendEntriesRequest<Types>) -> std::io::Result<AppendRequest> {
    let put = |entry| -> std::io::Result<Entry> {
        let entry = wal_entry(entry)?;
        let id = EntryId { term: entry.id.term, leader: entry.id.leader, index: entry.id.index };
        Ok(Entry { id: Some(id), kind: u32::from(entry.kind), payload: entry.payload })
    };
    Ok(AppendRequest {
        vote: put_vote(&rpc.vote),
        previous: rpc.prev_log_id.as_ref().map(put_id),
        entries: rpc.entries.iter().map(put).collect::<Result<_, _>>()?,
        committed: rpc.leader_commit.as_ref().map(put_id),
        next_millis: 0,
    })
}

/// The inverse of [`put_append`].
///
/// # Errors
/// Something is missing or of an unknown kind.
pub fn take_append(request: AppendRequest) -> Result<AppendEntriesRequest<Types>, Status> {
    let take = |entry: Entry| {
        let id = entry.id.ok_or_else(|| missing("entry id"))?;
        let id = wal::EntryId { term: id.term, leader: id.leader, index: id.index };
        let kind = u8::try_from(entry.kind).map_err(|_| missing("known kind of entry"))?;
        // Memory of its own: the entry outlives the message, whose buffer holds many.
        let payload = Bytes::copy_from_slice(&entry.payload);
        raft_entry(&wal::Entry { id, kind, payload })
            .map_err(|error| Status::invalid_argument(error.to_string()))
    };
    Ok(AppendEntriesRequest {
        vote: take_vote(request.vote.as_ref())?,
        prev_log_id: request.previous.as_ref().map(take_id),
        entries: request.entries.into_iter().map(take).collect::<Result<_, _>>()?,
        leader_commit: request.committed.as_ref().map(take_id),
    })
}

/// What became of an append.
#[must_use]
pub fn put_appended(response: &AppendEntriesResponse<Types>) -> AppendReply {
    use append_reply::Result as R;
    let reply = |result: R| AppendReply { result: result.into(), ..AppendReply::default() };
    match response {
        AppendEntriesResponse::Success => reply(R::Success),
        AppendEntriesResponse::Conflict => reply(R::Conflict),
        AppendEntriesResponse::PartialSuccess(matching) => {
            AppendReply { matching: matching.as_ref().map(put_id), ..reply(R::Partial) }
        }
        AppendEntriesResponse::HigherVote(vote) => {
            AppendReply { vote: put_vote(vote), ..reply(R::HigherVote) }
        }
    }
}

/// The inverse of [`put_appended`].
///
/// # Errors
/// Something is missing.
pub fn take_appended(reply: &AppendReply) -> Result<AppendEntriesResponse<Types>, Status> {
    use append_reply::Result as R;
    Ok(match reply.result() {
        R::Success => AppendEntriesResponse::Success,
        R::Conflict => AppendEntriesResponse::Conflict,
        R::Partial => AppendEntriesResponse::PartialSuccess(reply.matching.as_ref().map(take_id)),
        R::HigherVote => AppendEntriesResponse::HigherVote(take_vote(reply.vote.as_ref())?),
    })
}

/// A request for a vote; `before`: only whether it would be given.
#[must_use]
pub fn put_vote_request(rpc: &RaftVoteRequest<Types>, before: bool) -> VoteRequest {
    let last = rpc.last_log_id.as_ref().map(put_id);
    VoteRequest { vote: put_vote(&rpc.vote), last, transfer: rpc.leadership_transfer, before }
}

/// The inverse of [`put_vote_request`].
///
/// # Errors
/// Something is missing.
pub fn take_vote_request(request: &VoteRequest) -> Result<RaftVoteRequest<Types>, Status> {
    let vote = take_vote(request.vote.as_ref())?;
    let mut rpc = RaftVoteRequest::new(vote, request.last.as_ref().map(take_id));
    rpc.leadership_transfer = request.transfer;
    Ok(rpc)
}

/// A vote given or not.
#[must_use]
pub fn put_voted(response: &VoteResponse<Types>) -> VoteReply {
    let last = response.last_log_id.as_ref().map(put_id);
    VoteReply { vote: put_vote(&response.vote), last, granted: response.vote_granted }
}

/// The inverse of [`put_voted`].
///
/// # Errors
/// Something is missing.
pub fn take_voted(reply: &VoteReply) -> Result<VoteResponse<Types>, Status> {
    let vote = take_vote(reply.vote.as_ref())?;
    Ok(VoteResponse::new(vote, reply.last.as_ref().map(take_id), reply.granted))
}

/// A request to stand for election.
#[must_use]
pub fn put_transfer(request: &TransferLeaderRequest<Types>) -> TransferRequest {
    TransferRequest {
        from: put_vote(request.from_leader()),
        to: *request.to_node_id(),
        last: request.last_log_id().map(put_id),
    }
}

/// The inverse of [`put_transfer`].
///
/// # Errors
/// Something is missing.
pub fn take_transfer(request: &TransferRequest) -> Result<TransferLeaderRequest<Types>, Status> {
    let from = take_vote(request.from.as_ref())?;
    Ok(TransferLeaderRequest::new(from, request.to, request.last.as_ref().map(take_id)))
}

/// An error, or no bytes for none.
#[must_use]
pub fn put_error(error: Option<&StoreError>) -> Bytes {
    // An enum of texts always has a postcard form.
    error.map(|error| postcard::to_stdvec(error).unwrap_or_default().into()).unwrap_or_default()
}

/// The inverse of [`put_error`], as a result.
///
/// # Errors
/// The error that was put.
pub fn take_error(bytes: &[u8]) -> Result<(), StoreError> {
    if bytes.is_empty() {
        return Ok(());
    }
    Err(postcard::from_bytes(bytes).unwrap_or_else(|error| {
        StoreError::Internal(format!("the leader answered in a way that is not understood: {error}"))
    }))
}

impl From<ApiMember> for Member {
    fn from(member: ApiMember) -> Self {
        let ApiMember { id, name, peer_urls, client_urls, is_learner } = member;
        Self { id, name, peer_urls, client_urls, is_learner }
    }
}

impl From<Member> for ApiMember {
    fn from(member: Member) -> Self {
        let Member { id, name, peer_urls, client_urls, is_learner } = member;
        Self { id, name, peer_urls, client_urls, is_learner }
    }
}

impl From<Member> for Peer {
    fn from(member: Member) -> Self {
        Self { name: member.name, peer_urls: member.peer_urls, client_urls: member.client_urls }
    }
}
