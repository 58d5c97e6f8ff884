//! Calls to other members: two connections to each, one for what must not wait and one for bulk, both kept open.

use super::pace::Pace;
use super::pulse::Pulse;
use super::serve::REMOVED;
use super::simulated::Dial;
use super::snapshot::SnapshotFile;
use super::types::{Peer, Types, Vote};
use super::wire::peer_client::PeerClient;
use super::wire::{self, AppendReply, AppendRequest, SnapshotPart};
use super::{MESSAGE_MAX, apply::SnapshotData, apply::SnapshotOf, apply::blocking};
use bytes::Bytes;
use coracle_etcd::channel::UrlError;
use futures::{Stream, StreamExt};
use openraft::OptionalSend;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use parking_lot::Mutex;
use rustls::ClientConfig;
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};

/// Metadata of every call: the cluster, who calls, and who is called, in hexadecimal.
pub const CLUSTER: &str = "coracle-cluster";
pub const FROM: &str = "coracle-from";
pub const TO: &str = "coracle-to";

const CONNECT_MAX: Duration = Duration::from_millis(500);
/// A peer that owes an answer and is silent is dead after interval + timeout. The stream of beats is always owed one.
const PING_EVERY: Duration = Duration::from_secs(5);
const PING_MAX: Duration = Duration::from_secs(1);
/// How long a follower may take to store a batch.
const APPEND_MAX: Duration = Duration::from_secs(5);
/// How long a snapshot may take to be sent and installed.
const SNAPSHOT_MAX: Duration = Duration::from_secs(600);
/// Late answers that are waited for before a stream is given up.
const OWED_MAX: u32 = 16;
const SNAPSHOT_PART: usize = 256 << 10;

/// What a call carries.
pub type Client = PeerClient<InterceptedService<Channel, Identify>>;

/// Adds who calls whom to every call.
#[derive(Clone, Debug)]
pub struct Identify {
    cluster: MetadataValue<Ascii>,
    from: MetadataValue<Ascii>,
    to: MetadataValue<Ascii>,
}

impl Interceptor for Identify {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert(CLUSTER, self.cluster.clone());
        metadata.insert(FROM, self.from.clone());
        metadata.insert(TO, self.to.clone());
        Ok(request)
    }
}

fn hexadecimal(id: u64) -> MetadataValue<Ascii> {
    // Sixteen digits are always ASCII.
    MetadataValue::try_from(format!("{id:016x}")).unwrap_or_else(|_| MetadataValue::from_static("0"))
}

/// The connections of a member; clones share them.
#[derive(Clone)]
pub struct Peers {
    shared: Arc<Shared>,
}

struct Shared {
    cluster: u64,
    me: u64,
    tls: Option<Arc<ClientConfig>>,
    pulse: Arc<Pulse>,
    pace: Pace,
    dial: Option<Dial>,
    /// By member and whether it is for bulk, each with its URL.
    clients: Mutex<HashMap<(u64, bool), (String, Client)>>,
    /// Another member told that this one was removed.
    removed: watch::Sender<bool>,
}

/// A connection, made when first used. `url` is a peer URL: `http://host:port` or `https://…`.
///
/// # Errors
/// The URL is unusable.
pub fn channel(url: &str, tls: Option<&Arc<ClientConfig>>, dial: Option<&Dial>) -> Result<Channel, UrlError> {
    let (endpoint, connector) = coracle_etcd::channel::endpoint(url, tls)?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_MAX)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_MAX)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20);
    Ok(match dial {
        Some(dial) => dial.lazily(&endpoint),
        None => endpoint.connect_with_connector_lazy(connector),
    })
}

impl Peers {
    /// No connections yet.
    #[must_use]
    pub fn new(
        cluster: u64,
        me: u64,
        tls: Option<Arc<ClientConfig>>,
        pulse: Arc<Pulse>,
        pace: Pace,
        dial: Option<Dial>,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                cluster,
                me,
                tls,
                pulse,
                pace,
                dial,
                clients: Mutex::default(),
                removed: watch::Sender::new(false),
            }),
        }
    }

    /// Returns once another member told that this one was removed.
    pub async fn removed(&self) {
        // The sender is in `self`.
        let _ = self.shared.removed.subscribe().wait_for(|removed| *removed).await;
    }

    /// When members are told more.
    #[must_use]
    pub fn pace(&self) -> &Pace {
        &self.shared.pace
    }

    /// A client of member `id`.
    ///
    /// # Errors
    /// The member has no usable URL.
    pub fn client(&self, id: u64, peer: &Peer, bulk: bool) -> Result<Client, Status> {
        let url = peer
            .peer_urls
            .first()
            .ok_or_else(|| Status::unavailable(format!("member {id:x} has no peer URL")))?;
        let mut clients = self.shared.clients.lock();
        if let Some((_, client)) = clients.get(&(id, bulk)).filter(|(known, _)| known == url) {
            return Ok(client.clone());
        }
        let channel = channel(url, self.shared.tls.as_ref(), self.shared.dial.as_ref())
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let identify = Identify {
            cluster: hexadecimal(self.shared.cluster),
            from: hexadecimal(self.shared.me),
            to: hexadecimal(id),
        };
        let client = PeerClient::with_interceptor(channel, identify)
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX);
        clients.insert((id, bulk), (url.clone(), client.clone()));
        Ok(client)
    }
}

/// Whether the call surely never reached the other side.
#[must_use]
pub fn never_sent(status: &Status) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Waits for an answer, at most `limit`.
pub async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded(format!("no answer within {limit:?}"))),
    }
}

impl RaftNetworkFactory<Types> for Peers {
    type Network = To;

    async fn new_client(&mut self, target: u64, node: &Peer) -> To {
        To { peers: self.clone(), id: target, peer: node.clone(), beats: None, appends: None }
    }
}

/// The way to one member.
pub struct To {
    peers: Peers,
    id: u64,
    peer: Peer,
    /// Open once a heartbeat was sent.
    beats: Option<Exchange>,
    /// Open once entries were sent.
    appends: Option<Exchange>,
}

/// A stream of requests, each with its answer.
struct Exchange {
    requests: mpsc::Sender<AppendRequest>,
    replies: Streaming<AppendReply>,
    /// Answers that are still to come.
    owed: u32,
}

impl Exchange {
    async fn open(mut client: Client, bulk: bool) -> Result<Self, Status> {
        let (requests, stream) = mpsc::channel(1);
        let stream = ReceiverStream::new(stream);
        let replies = if bulk { client.append(stream).await? } else { client.beat(stream).await? };
        Ok(Self { requests, replies: replies.into_inner(), owed: 0 })
    }

    /// `None` when the stream has ended. Dropped before that, it owes one answer more.
    async fn ask(&mut self, request: AppendRequest) -> Result<Option<AppendReply>, Status> {
        if self.requests.send(request).await.is_err() {
            // The reason, should there be one.
            return self.replies.message().await.map(|_| None);
        }
        self.owed += 1;
        while let Some(reply) = self.replies.message().await? {
            self.owed -= 1;
            if self.owed == 0 {
                return Ok(Some(reply));
            }
        }
        Ok(None)
    }
}

fn failed(status: &Status) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::from_string(format!("{:?}: {}", status.code(), status.message())))
}

impl To {
    /// The error for openraft; takes note when it means that this member is none any more.
    fn unreachable(&self, status: &Status) -> RPCError<Types> {
        if status.code() == Code::PermissionDenied && status.message() == REMOVED {
            self.peers.shared.removed.send_replace(true);
        }
        failed(status)
    }

    fn client(&self, bulk: bool) -> Result<Client, RPCError<Types>> {
        self.peers.client(self.id, &self.peer, bulk).map_err(|status| self.unreachable(&status))
    }

    /// Sends a heartbeat, or entries, and waits for its own answer: earlier ones may come late, to nobody. The follower takes
    /// the end of the stream of heartbeats for the end of its leader.
    async fn exchange(&mut self, request: AppendRequest, bulk: bool) -> Result<AppendReply, Status> {
        let ended = || Status::unavailable("the stream of answers ended");
        let exchange = if bulk { &mut self.appends } else { &mut self.beats };
        if exchange.as_ref().is_some_and(|open| open.owed >= OWED_MAX) {
            *exchange = None;
        }
        if exchange.is_none() {
            let client = self.peers.client(self.id, &self.peer, bulk)?;
            *exchange = Some(Exchange::open(client, bulk).await?);
        }
        let answered = match exchange {
            Some(open) => open.ask(request).await,
            None => Ok(None),
        };
        if !matches!(answered, Ok(Some(_))) {
            *exchange = None;
        }
        answered?.ok_or_else(ended)
    }

    async fn ask_vote(
        &self,
        rpc: &VoteRequest<Types>,
        before: bool,
        limit: Duration,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let mut client = self.client(false)?;
        let reply = within(limit, client.vote(wire::put_vote_request(rpc, before)));
        reply.await.and_then(|reply| wire::take_voted(&reply)).map_err(|status| self.unreachable(&status))
    }
}

/// A snapshot in parts, which are read when they are asked for.
fn parts(
    vote: Option<wire::VoteState>,
    file: SnapshotFile,
) -> impl Stream<Item = SnapshotPart> + Send + 'static {
    let rest = futures::stream::unfold((file, 0), |(file, at)| async move {
        let of = file.clone();
        let read = blocking(move || {
            let mut data = vec![0; SNAPSHOT_PART];
            let read = of.read_at(at, &mut data)?;
            data.truncate(read);
            Ok(data)
        });
        match read.await {
            Ok(data) if data.is_empty() => None,
            Ok(data) => {
                let next = at + data.len() as u64;
                Some((SnapshotPart { vote: None, data: data.into() }, (file, next)))
            }
            // The receiver sees that the end is missing.
            Err(error) => {
                tracing::error!(%error, "cannot read a snapshot");
                None
            }
        }
    });
    futures::stream::iter([SnapshotPart { vote, data: Bytes::new() }]).chain(rest)
}

impl RaftNetworkV2<Types> for To {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let mut request =
            wire::put_append(&rpc).map_err(|error| RPCError::Unreachable(Unreachable::new(&error)))?;
        // A heartbeat must not wait behind entries.
        let bulk = !rpc.entries.is_empty();
        let limit = if bulk { APPEND_MAX } else { option.hard_ttl() };
        if !bulk {
            request.next_millis = self.peers.shared.pulse.next_beat();
        }
        let exchanged = tokio::time::timeout(limit, self.exchange(request, bulk)).await;
        let reply = exchanged
            .unwrap_or_else(|_| Err(Status::deadline_exceeded(format!("no answer within {limit:?}"))));
        reply.and_then(|reply| wire::take_appended(&reply)).map_err(|status| self.unreachable(&status))
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>, RPCError<Types>>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        let requests = self.peers.pace().paced(self.id, input);
        stream_append_sequential(self, requests, option)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask_vote(&rpc, false, option.hard_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask_vote(&rpc, true, option.hard_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let SnapshotData::Whole(file) = snapshot.snapshot else {
            let what = "a snapshot that is not on the disk yet";
            return Err(StreamingError::Unreachable(Unreachable::from_string(what)));
        };
        let mut client = self.client(true)?;
        let sent = within(SNAPSHOT_MAX, client.snapshot(parts(wire::put_vote(&vote), file)));
        let reply = tokio::select! {
            sent = sent => sent,
            closed = cancel => return Err(StreamingError::Closed(closed)),
        };
        let vote = reply.and_then(|reply| wire::take_vote(reply.vote.as_ref()));
        vote.map(SnapshotResponse::new).map_err(|status| self.unreachable(&status).into())
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let mut client = self.client(false)?;
        let reply = within(option.hard_ttl(), client.transfer(wire::put_transfer(&request)))
            .await
            .map_err(|status| self.unreachable(&status))?;
        if reply.refusal.is_empty() {
            return Ok(Ok(()));
        }
        tracing::info!(to = format!("{:x}", self.id), why = reply.refusal, "leadership was not taken over");
        let expected = request.last_log_id().copied();
        Ok(Err(TransferLeaderError::LogNotFlushed { expected, actual: None }))
    }
}

/// The error of a call, for whoever asked the leader to do something.
#[must_use]
pub fn lost_call(status: &Status) -> crate::error::StoreError {
    use crate::error::StoreError as E;
    match status.code() {
        Code::DeadlineExceeded => E::TimedOut,
        Code::FailedPrecondition => E::ClusterIdMismatch,
        _ => E::TimedOutLeaderFailed,
    }
}
