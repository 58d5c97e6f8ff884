//! The client of an etcd v3 cluster: one HTTP/2 connection to one member at a time, the leader where it can be had.
//!
//! Reads move on to the next member at once. A write is sent again only where the failure proves that it was not done.

use crate::channel;
use crate::error::KvError;
use crate::kv::Kv;
use crate::members::{Answer, Members};
use crate::proto::kv_client::KvClient;
use crate::proto::lease_client::LeaseClient;
use crate::proto::watch_client::WatchClient;
use crate::proto::watch_request::RequestUnion;
use crate::proto::{
    CompactionRequest, LeaseGrantRequest, LeaseKeepAliveRequest, RangeRequest, RangeResponse, TxnRequest,
    TxnResponse, WatchCreateRequest, WatchProgressRequest, WatchRequest,
};
use crate::watch::{BATCHES_WAITING, WatchBatch, WatchStream};
use bytes::Bytes;
use coracle_daemon::tls::Identity;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

/// Largest answer accepted, in bytes: a page of large objects.
const ANSWER_MAX: usize = 64 << 20;
const CONNECT_MAX: Duration = Duration::from_millis(500);
/// A write that takes longer than this counts as lost.
const WRITE_MAX: Duration = Duration::from_secs(8);
const READ_MAX: Duration = Duration::from_secs(8);
/// How long a call looks for a member that answers.
const SEARCH_MAX: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(25);
/// How long a member may owe an answer before the others are asked whether it still leads.
const DOUBT_AFTER: Duration = Duration::from_millis(300);
/// A silent peer is dead after interval + timeout.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_MAX: Duration = Duration::from_secs(2);

/// Files for mutual TLS.
#[derive(Clone, Debug)]
pub struct ClientTls {
    /// CA of the members.
    pub ca: PathBuf,
    /// Our certificate.
    pub cert: PathBuf,
    /// Our key.
    pub key: PathBuf,
}

/// A connection to a cluster; clones share it.
#[derive(Clone)]
pub struct Client {
    members: Arc<Members>,
}

impl Client {
    /// Prepares connections to `endpoints` (`http://host:port` or `https://…`); they are made when first used.
    ///
    /// # Errors
    /// An endpoint is no URL, or a TLS file is unusable.
    pub async fn connect(endpoints: &[String], tls: Option<ClientTls>) -> Result<Self, KvError> {
        let unusable =
            |error: String| KvError::Other { code: tonic::Code::InvalidArgument as i32, message: error };
        if endpoints.is_empty() {
            return Err(unusable("no endpoint of the store was given".to_owned()));
        }
        let tls = match tls {
            None => None,
            Some(files) => {
                let own = Identity { cert: files.cert, key: files.key };
                let config = channel::client_tls(&files.ca, Some(&own));
                Some(config.map_err(|error| unusable(chain(&error)))?)
            }
        };
        let mut members = Vec::new();
        for url in endpoints {
            let (endpoint, connector) =
                channel::endpoint(url, tls.as_ref()).map_err(|error| unusable(error.to_string()))?;
            let endpoint = endpoint
                .connect_timeout(CONNECT_MAX)
                .http2_keep_alive_interval(PING_EVERY)
                .keep_alive_timeout(PING_MAX)
                .keep_alive_while_idle(true)
                .initial_stream_window_size(4 << 20)
                .initial_connection_window_size(16 << 20);
            members.push(endpoint.connect_with_connector_lazy(connector));
        }
        Ok(Self { members: Arc::new(Members::new(members)) })
    }

    /// Like [`Self::answered`], for whom it does not matter which member it was.
    async fn call<T, F>(&self, writes: bool, call: impl Fn(Channel) -> F) -> Result<T, KvError>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
        T: Answer,
    {
        self.answered(writes, call).await.map(|(answer, _)| answer)
    }

    /// Calls one member after another until one answers, or the failure forbids trying again. Tells which one answered.
    async fn answered<T, F>(&self, writes: bool, call: impl Fn(Channel) -> F) -> Result<(T, usize), KvError>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
        T: Answer,
    {
        let began = tokio::time::Instant::now();
        let limit = if writes { WRITE_MAX } else { READ_MAX };
        let mut tried = 0;
        loop {
            let (at, member) = self.members.current();
            let lost =
                |text: String| if writes { KvError::Unknown(text) } else { KvError::Unavailable(text) };
            let answer = tokio::select! {
                biased;
                answer = call(member) => answer.map_err(|status| KvError::from_status(&status, writes)),
                why = self.given_up(at, limit) => Err(lost(why)),
            };
            let error = match answer {
                Ok(response) => {
                    let answer = response.into_inner();
                    if let Some(header) = answer.header() {
                        self.members.heard(header.raft_term);
                    }
                    return Ok((answer, at));
                }
                Err(error) => error,
            };
            if matches!(error, KvError::Unavailable(_) | KvError::Unknown(_)) {
                self.members.leave(at);
            }
            if !matches!(error, KvError::Unavailable(_)) || began.elapsed() > SEARCH_MAX {
                return Err(error);
            }
            tried += 1;
            if tried % self.members.count() == 0 {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Ends when a member that owes an answer has had its time, or does not lead any more; tells which.
    async fn given_up(&self, at: usize, limit: Duration) -> String {
        let began = tokio::time::Instant::now();
        tokio::time::sleep(DOUBT_AFTER).await;
        let mut led = self.members.led();
        loop {
            tokio::select! {
                () = self.members.doubt() => {}
                // An earlier doubt may be answered first.
                _ = led.changed() => {}
            }
            if self.members.current().0 != at {
                return "another member leads now".to_owned();
            }
            if began.elapsed() >= limit {
                return "no answer in time".to_owned();
            }
            tokio::select! {
                () = tokio::time::sleep(DOUBT_AFTER) => {}
                _ = led.changed() => {}
            }
        }
    }

    fn kv(channel: Channel) -> KvClient<Channel> {
        KvClient::new(channel).max_decoding_message_size(ANSWER_MAX).max_encoding_message_size(ANSWER_MAX)
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[async_trait::async_trait]
impl Kv for Client {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, KvError> {
        self.call(false, |channel| {
            let request = request.clone();
            async move { Self::kv(channel).range(request).await }
        })
        .await
    }

    async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, KvError> {
        self.call(true, |channel| {
            let request = request.clone();
            async move { Self::kv(channel).txn(request).await }
        })
        .await
    }

    async fn compact(&self, revision: i64) -> Result<(), KvError> {
        self.call(true, |channel| async move {
            Self::kv(channel).compact(CompactionRequest { revision, physical: false }).await
        })
        .await
        .map(drop)
    }

    async fn lease_grant(&self, ttl_seconds: i64) -> Result<i64, KvError> {
        let request = LeaseGrantRequest { ttl: ttl_seconds, id: 0 };
        // A lease granted twice expires by itself: asking again is safe.
        self.call(false, |channel| async move { LeaseClient::new(channel).lease_grant(request).await })
            .await
            .map(|granted| granted.id)
    }

    async fn lease_keep_alive(&self, lease: i64) -> Result<i64, KvError> {
        let mut answers = self
            .call(false, |channel| async move {
                LeaseClient::new(channel)
                    .lease_keep_alive(tokio_stream::once(LeaseKeepAliveRequest { id: lease }))
                    .await
            })
            .await?;
        let answer = answers.message().await.map_err(|status| KvError::from_status(&status, false))?;
        answer
            .map(|answer| answer.ttl)
            .ok_or_else(|| KvError::Unavailable("the keep-alive stream ended".to_owned()))
    }

    async fn watch(
        &self,
        key: Bytes,
        range_end: Bytes,
        start_revision: i64,
        prev_kv: bool,
    ) -> Result<WatchStream, KvError> {
        let create = WatchCreateRequest {
            key,
            range_end,
            start_revision,
            prev_kv,
            progress_notify: true,
            ..WatchCreateRequest::default()
        };
        let led = self.members.led();
        let (requests, (answers, at)) = self.open_watch(&create).await?;
        let (batches, out) = mpsc::channel(BATCHES_WAITING);
        let (progress, asked) = mpsc::channel(1);
        #[expect(
            clippy::disallowed_methods,
            reason = "a protocol library owns this task: it ends with the stream or its reader"
        )]
        tokio::spawn(carry(requests, answers, batches, asked, (led, at)));
        Ok(WatchStream::new(out, progress))
    }
}

type WatchAnswers = Streaming<crate::proto::WatchResponse>;

impl Client {
    async fn open_watch(
        &self,
        create: &WatchCreateRequest,
    ) -> Result<(mpsc::Sender<WatchRequest>, (WatchAnswers, usize)), KvError> {
        let (requests, stream) = mpsc::channel(4);
        let first = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create.clone())) };
        // The channel is new and holds four.
        let _ = requests.try_send(first);
        let stream = std::sync::Mutex::new(Some(stream));
        let answers = self
            .answered(false, |channel| {
                let taken = stream.lock().map(|mut stream| stream.take()).unwrap_or_default();
                async move {
                    let Some(stream) = taken else { return Err(Status::aborted("try again")) };
                    let mut request = Request::new(ReceiverStream::new(stream));
                    // etcd cancels a watch on a member without a leader instead of leaving it silent.
                    request
                        .metadata_mut()
                        .insert("hasleader", tonic::metadata::MetadataValue::from_static("true"));
                    WatchClient::new(channel).max_decoding_message_size(ANSWER_MAX).watch(request).await
                }
            })
            .await;
        match answers {
            Ok(answers) => Ok((requests, answers)),
            Err(KvError::Other { code, .. }) if code == tonic::Code::Aborted as i32 => {
                Err(KvError::Unavailable("no member took the watch".to_owned()))
            }
            Err(error) => Err(error),
        }
    }
}

/// Carries answers to the reader until either side ends, or another member leads: events are had there first.
async fn carry(
    requests: mpsc::Sender<WatchRequest>,
    mut answers: WatchAnswers,
    batches: mpsc::Sender<Result<WatchBatch, KvError>>,
    mut asked: mpsc::Receiver<()>,
    (mut led, at): (watch::Receiver<usize>, usize),
) {
    let mut fragments = Vec::new();
    loop {
        let answer = tokio::select! {
            answer = answers.next() => answer,
            Some(()) = asked.recv() => {
                let progress = WatchRequest { request_union: Some(RequestUnion::ProgressRequest(WatchProgressRequest {})) };
                if requests.send(progress).await.is_err() { return; }
                continue;
            }
            () = batches.closed() => return,
            Ok(()) = led.changed() => {
                if *led.borrow_and_update() == at {
                    continue;
                }
                Some(Err(Status::unavailable("another member leads now")))
            }
        };
        let told = match answer {
            None => Err(KvError::Unavailable("the store ended the watch".to_owned())),
            Some(Err(status)) => Err(KvError::from_status(&status, false)),
            Some(Ok(answer)) if answer.canceled && answer.compact_revision > 0 => {
                Err(KvError::Compacted { compact_revision: answer.compact_revision })
            }
            Some(Ok(answer)) if answer.canceled => Err(KvError::Unavailable(answer.cancel_reason)),
            Some(Ok(answer)) if answer.created => continue,
            Some(Ok(mut answer)) => {
                let revision = answer.header.as_ref().map_or(0, |header| header.revision);
                fragments.append(&mut answer.events);
                if answer.fragment {
                    continue;
                }
                let events = std::mem::take(&mut fragments);
                match events.last().and_then(|event| event.kv.as_ref()).map(|kv| kv.mod_revision) {
                    Some(last) => Ok(WatchBatch::Events { revision: last, events }),
                    None => Ok(WatchBatch::Progress { revision }),
                }
            }
        };
        let over = told.is_err();
        if batches.send(told).await.is_err() || over {
            return;
        }
    }
}
