//! The calls of other members: checks who calls, translates, and hands over to openraft or to the leader's duties.

use super::MESSAGE_MAX;
use super::apply::{FULL_PAUSE, SnapshotData, blocking};
use super::node::Node;
use super::peers::{CLUSTER, FROM, TO};
use super::proposals;
use super::snapshot::{Part, is_full};
use super::types::Vote;
use super::wire::peer_server::{Peer, PeerServer};
use super::wire::{
    self, AppendReply, AppendRequest, AskReply, AskRequest, MembersReply, MembersRequest, ProposeReply,
    ProposeRequest, Proposed, ReadIndexReply, ReadIndexRequest, SnapshotPart, SnapshotReply, TransferReply,
    TransferRequest, VoteReply, VoteRequest,
};
use crate::command::{Command, encode_reply};
use crate::consensus::Consensus;
use coracle_daemon::clock;
use futures::Stream;
use openraft::Snapshot;
use openraft::async_runtime::WatchReceiver;
use openraft::raft::{AppendEntriesResponse, VoteResponse};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

/// A sender that is silent for longer has given up.
const PART_MAX: Duration = Duration::from_secs(10);

/// See the module.
pub struct Served {
    node: Arc<Node>,
}

/// The service for a gRPC server on the peer URLs.
#[must_use]
pub fn service(node: Arc<Node>) -> PeerServer<Served> {
    PeerServer::new(Served { node })
        .max_decoding_message_size(MESSAGE_MAX)
        .max_encoding_message_size(MESSAGE_MAX)
}

fn id_in(metadata: &MetadataMap, name: &str) -> Option<u64> {
    u64::from_str_radix(metadata.get(name)?.to_str().ok()?, 16).ok()
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

impl Served {
    fn check<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let permitted = self.permit(request);
        if permitted.is_err() {
            self.node.metrics().peers_refused.inc();
        }
        permitted
    }

    /// Refuses members of other clusters, and calls meant for another member that had this address before.
    fn permit<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let metadata = request.metadata();
        let (cluster, to) = (id_in(metadata, CLUSTER), id_in(metadata, TO));
        if cluster != Some(self.node.cluster_id()) {
            return Err(Status::failed_precondition("etcdserver: cluster ID mismatch"));
        }
        if to != Some(self.node.member_id()) {
            return Err(Status::failed_precondition("this address belongs to another member"));
        }
        if let Some(from) = id_in(metadata, FROM)
            && self.node.was_removed(from)
        {
            return Err(Status::permission_denied(REMOVED));
        }
        Ok(())
    }
}

/// Answers to entries and heartbeats.
type Answers = Pin<Box<dyn Stream<Item = Result<AppendReply, Status>> + Send>>;

/// Takes what a leader sends, one after the other. `followed` is dropped with the stream.
fn answers(
    node: Arc<Node>,
    request: Request<Streaming<AppendRequest>>,
    followed: Option<Followed>,
) -> Answers {
    let from = id_in(request.metadata(), FROM);
    let stop = node.tasks().stopping();
    let state = (node, followed, request.into_inner(), stop);
    Box::pin(futures::stream::try_unfold(state, move |(node, followed, mut sent, stop)| async move {
        let next = tokio::select! {
            next = sent.message() => next?,
            () = stop.cancelled() => return Err(Status::unavailable("this member stops")),
        };
        let Some(next) = next else { return Ok(None) };
        if from.is_some_and(|from| node.was_removed(from)) {
            return Err(Status::permission_denied(REMOVED));
        }
        let reply = append(&node, from, next).await?;
        Ok(Some((reply, (node, followed, sent, stop))))
    }))
}

async fn append(node: &Node, from: Option<u64>, request: AppendRequest) -> Result<AppendReply, Status> {
    let next_millis = request.next_millis;
    let rpc = wire::take_append(request)?;
    let appended = node.raft().append_entries(rpc).await.map_err(stopped)?;
    if let Some(from) = from
        && !matches!(appended, AppendEntriesResponse::HigherVote(_))
    {
        node.pulse.heard(from, next_millis);
    }
    Ok(wire::put_appended(&appended))
}

/// Replicates a batch that member `from` hands over.
async fn propose(node: Arc<Node>, from: Option<u64>, batch: ProposeRequest) -> Result<ProposeReply, Status> {
    if from.is_some_and(|from| node.was_removed(from)) {
        return Err(Status::permission_denied(REMOVED));
    }
    let ops = batch.commands.into_iter().map(|command| Command::decode(command).map(|one| one.op));
    let ops =
        ops.collect::<Result<Vec<_>, _>>().map_err(|error| Status::invalid_argument(error.to_string()))?;
    let done = node.propose_here(ops, None).await;
    if let Some(from) = from {
        node.peers.pace().hurry(from);
    }
    let proposed = done.into_iter().map(|done| {
        let (index, term) = done.as_ref().map_or((0, 0), |done| (done.index, done.term));
        Proposed { reply: encode_reply(&done.map(|done| done.outcome)), index, term }
    });
    Ok(ProposeReply { replies: proposed.collect(), batch: batch.batch })
}

/// Tells when a leader's stream of beats has ended, however that came about.
struct Followed {
    node: Arc<Node>,
    leader: Option<u64>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        if let Some(leader) = self.leader {
            self.node.pulse.lost(leader);
        }
    }
}

/// A snapshot that another member sends, and who leads it says.
async fn receive(node: &Node, mut parts: Streaming<SnapshotPart>) -> Result<(Part, Vote), Status> {
    let mut part = match node.snapshots().part() {
        Ok(part) => part,
        Err(error) => return Err(not_stored(node, &error.into()).await),
    };
    let mut vote: Option<Vote> = None;
    loop {
        let next = tokio::time::timeout(PART_MAX, parts.message()).await;
        let Some(next) = next.map_err(|_| Status::deadline_exceeded("no part of the snapshot came"))?? else {
            break;
        };
        if vote.is_none() {
            vote = Some(wire::take_vote(next.vote.as_ref())?);
        }
        part = match blocking(move || part.push(&next.data).map(|()| part)).await {
            Ok(part) => part,
            Err(error) => return Err(not_stored(node, &error).await),
        };
    }
    let vote = vote.ok_or_else(|| Status::invalid_argument("an empty snapshot"))?;
    Ok((part, vote))
}

/// The answer to a snapshot that the disk does not take. The leader sends it again at once, so a full disk takes its time.
async fn not_stored(node: &Node, error: &io::Error) -> Status {
    tracing::warn!(%error, "cannot store the snapshot that the leader sends");
    if is_full(error) {
        tokio::select! {
            () = clock::sleep(FULL_PAUSE) => {}
            () = node.tasks().stopping().cancelled_owned() => {}
        }
    }
    Status::internal(error.to_string())
}

/// Tells a member that it is not one any more.
pub const REMOVED: &str = "the member has been permanently removed from the cluster";

#[tonic::async_trait]
impl Peer for Served {
    type AppendStream = Answers;

    async fn append(&self, request: Request<Streaming<AppendRequest>>) -> Result<Response<Answers>, Status> {
        self.check(&request)?;
        Ok(Response::new(answers(self.node.clone(), request, None)))
    }

    type BeatStream = Answers;

    async fn beat(&self, request: Request<Streaming<AppendRequest>>) -> Result<Response<Answers>, Status> {
        self.check(&request)?;
        let followed = Followed { node: self.node.clone(), leader: id_in(request.metadata(), FROM) };
        Ok(Response::new(answers(self.node.clone(), request, Some(followed))))
    }

    async fn vote(&self, request: Request<VoteRequest>) -> Result<Response<VoteReply>, Status> {
        self.check(&request)?;
        let request = request.into_inner();
        let rpc = wire::take_vote_request(&request)?;
        let raft = self.node.raft();
        if request.before && self.node.has_leader().await {
            // Beats may be rarer than openraft's lease is long.
            let metrics = raft.metrics();
            let metrics = metrics.borrow_watched();
            let refused = VoteResponse::new(metrics.vote, None, false);
            return Ok(Response::new(wire::put_voted(&refused)));
        }
        let voted = if request.before { raft.pre_vote(rpc).await } else { raft.vote(rpc).await };
        Ok(Response::new(wire::put_voted(&voted.map_err(stopped)?)))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<SnapshotPart>>,
    ) -> Result<Response<SnapshotReply>, Status> {
        self.check(&request)?;
        let (part, vote) = receive(&self.node, request.into_inner()).await?;
        let failed = |error: &dyn std::fmt::Display| Status::internal(error.to_string());
        let meta = part.reader().map_err(|error| failed(&error))?.meta().map_err(|error| failed(&error))?;
        let snapshot = Snapshot { meta, snapshot: SnapshotData::Received(part) };
        let installed = self.node.raft().install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
        Ok(Response::new(SnapshotReply { vote: wire::put_vote(&installed.vote) }))
    }

    async fn transfer(&self, request: Request<TransferRequest>) -> Result<Response<TransferReply>, Status> {
        self.check(&request)?;
        let request = wire::take_transfer(request.get_ref())?;
        let taken = self.node.raft().handle_transfer_leader(request).await.map_err(stopped)?;
        let refusal = taken.err().map(|error| error.to_string()).unwrap_or_default();
        Ok(Response::new(TransferReply { refusal }))
    }

    type ProposeStream = proposals::Answers;

    async fn propose(
        &self,
        request: Request<Streaming<ProposeRequest>>,
    ) -> Result<Response<proposals::Answers>, Status> {
        self.check(&request)?;
        let from = id_in(request.metadata(), FROM);
        let node = self.node.clone();
        let propose = move |batch| propose(node.clone(), from, batch);
        Ok(Response::new(proposals::answers(&self.node, request.into_inner(), propose)))
    }

    async fn read_index(
        &self,
        request: Request<ReadIndexRequest>,
    ) -> Result<Response<ReadIndexReply>, Status> {
        self.check(&request)?;
        let reply = match self.node.read_index_here().await {
            Ok(index) => ReadIndexReply { index, ..ReadIndexReply::default() },
            Err(error) => ReadIndexReply { error: wire::put_error(Some(&error)), index: 0 },
        };
        Ok(Response::new(reply))
    }

    async fn ask(&self, request: Request<AskRequest>) -> Result<Response<AskReply>, Status> {
        self.check(&request)?;
        let what =
            request.into_inner().what.ok_or_else(|| Status::invalid_argument("an unknown question"))?;
        let reply = match self.node.answer_here(what).await {
            Ok(reply) => reply,
            Err(error) => AskReply { error: wire::put_error(Some(&error)), ..AskReply::default() },
        };
        Ok(Response::new(reply))
    }

    async fn members(&self, _request: Request<MembersRequest>) -> Result<Response<MembersReply>, Status> {
        let members = self.node.members().into_iter().map(Into::into).collect();
        Ok(Response::new(MembersReply { cluster: self.node.cluster_id(), members }))
    }
}
