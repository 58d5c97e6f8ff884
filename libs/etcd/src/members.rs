//! The members of a cluster, and which of them calls go to: the leader, as every write and every fresh read ends there.
//!
//! In: the term of every answer. Out: a member. A new term means that another may lead, and all members are asked which.
//! Where one owes an answer, the others are asked for a fresh read, for which they need the leader themselves.

use crate::proto::kv_client::KvClient;
use crate::proto::maintenance_client::MaintenanceClient;
use crate::proto::{
    CompactionResponse, LeaseGrantResponse, LeaseKeepAliveResponse, RangeRequest, RangeResponse,
    ResponseHeader, StatusRequest, StatusResponse, TxnResponse, WatchResponse,
};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use tonic::Streaming;
use tonic::transport::Channel;

/// How long members may take to tell who leads.
const STATUS_MAX: Duration = Duration::from_millis(250);
/// How long they may take for a fresh read when they do not hear their leader: they find that out, and elect another.
const READ_MAX: Duration = Duration::from_secs(5);
/// Before a leader is known.
const NOBODY: usize = usize::MAX;

/// What a call brings.
pub(crate) trait Answer {
    /// As of when it is; streams tell it later.
    fn header(&self) -> Option<&ResponseHeader>;
}

macro_rules! answers {
    ($($kind:ty),*) => { $(impl Answer for $kind {
        fn header(&self) -> Option<&ResponseHeader> {
            self.header.as_ref()
        }
    })* };
}
answers!(RangeResponse, TxnResponse, CompactionResponse, LeaseGrantResponse);

macro_rules! streams {
    ($($kind:ty),*) => { $(impl Answer for Streaming<$kind> {
        fn header(&self) -> Option<&ResponseHeader> {
            None
        }
    })* };
}
streams!(LeaseKeepAliveResponse, WatchResponse);

/// See the module.
pub(crate) struct Members {
    channels: Vec<Channel>,
    current: AtomicUsize,
    /// The latest term in which the leader was asked for and known.
    term: AtomicU64,
    /// Who was found to lead.
    leader: watch::Sender<usize>,
    seeking: Arc<Mutex<()>>,
    /// Held while others are asked for a fresh read.
    reading: Arc<Mutex<()>>,
}

impl Members {
    /// `channels` are not empty.
    pub(crate) fn new(channels: Vec<Channel>) -> Self {
        Self {
            channels,
            current: AtomicUsize::new(0),
            term: AtomicU64::new(0),
            leader: watch::Sender::new(NOBODY),
            seeking: Arc::default(),
            reading: Arc::default(),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.channels.len()
    }

    /// The member that calls go to.
    pub(crate) fn current(&self) -> (usize, Channel) {
        let at = self.current.load(Ordering::Relaxed) % self.channels.len();
        (at, self.channels[at].clone())
    }

    /// Goes on with the next member; whoever saw the same failure first has done so already.
    pub(crate) fn leave(&self, at: usize) {
        let next = (at + 1) % self.channels.len();
        let _ = self.current.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Tells of every change of the leader.
    pub(crate) fn led(&self) -> watch::Receiver<usize> {
        self.leader.subscribe()
    }

    /// Looks for the leader where the term is a new one. The caller goes on meanwhile.
    pub(crate) fn heard(self: &Arc<Self>, term: u64) {
        if term <= self.term.load(Ordering::Relaxed) {
            return;
        }
        let Ok(turn) = self.seeking.clone().try_lock_owned() else { return };
        let members = self.clone();
        #[expect(
            clippy::disallowed_methods,
            reason = "a protocol library owns this task: it ends when all members answered or had their time"
        )]
        tokio::spawn(async move { members.seek(turn).await });
    }

    /// Has the member that is called doubted: maybe another leads, or should. One question serves all who doubt at the time.
    pub(crate) async fn doubt(self: &Arc<Self>) {
        if let Ok(turn) = self.reading.clone().try_lock_owned() {
            let members = self.clone();
            #[expect(
                clippy::disallowed_methods,
                reason = "a protocol library owns this task: it ends when a member answered or had its time"
            )]
            tokio::spawn(async move { members.read_of_others(turn).await });
        }
        match self.seeking.clone().try_lock_owned() {
            Ok(turn) => self.seek(turn).await,
            // Before the answer is there, nothing is known of the leader.
            Err(_) => drop(self.seeking.lock().await),
        }
    }

    /// Asks all but the current member for a fresh read, until one answers. A member whose leader does not answer it stands for
    /// election; otherwise it may wait for the leader's next beat, as nothing tells it that the leader is gone.
    async fn read_of_others(self: &Arc<Self>, _turn: OwnedMutexGuard<()>) {
        let (current, _) = self.current();
        let others = self.channels.iter().enumerate().filter(|(at, _)| *at != current);
        let asked = others.map(|(_, channel)| {
            let mut client = KvClient::new(channel.clone());
            // No key is needed, only what it takes to read one.
            let fresh =
                RangeRequest { key: b"\0".as_slice().into(), count_only: true, ..RangeRequest::default() };
            async move { client.range(fresh).await.ok()?.into_inner().header }
        });
        let mut asked: FuturesUnordered<_> = asked.collect();
        let answered = async {
            while let Some(header) = asked.next().await {
                if let Some(header) = header {
                    return Some(header.raft_term);
                }
            }
            None
        };
        if let Ok(Some(term)) = tokio::time::timeout(READ_MAX, answered).await {
            let turn = self.seeking.clone().lock_owned().await;
            if term > self.term.load(Ordering::Relaxed) {
                self.seek(turn).await;
            }
        }
    }

    /// Asks every member who leads, and goes on with that one if it answers.
    async fn seek(&self, _turn: OwnedMutexGuard<()>) {
        let asked = self.channels.iter().enumerate().map(|(at, channel)| {
            let mut client = MaintenanceClient::new(channel.clone());
            async move {
                let status = tokio::time::timeout(STATUS_MAX, client.status(StatusRequest {})).await;
                (at, status.ok().and_then(Result::ok).map(tonic::Response::into_inner))
            }
        });
        let mut asked: FuturesUnordered<_> = asked.collect();
        let (known, mut told) = (self.term.load(Ordering::Relaxed), Vec::new());
        while let Some((at, status)) = asked.next().await {
            let Some(status) = status else { continue };
            // A leader of a later term than the last one known need not wait for those that are silent.
            let settles = leads(&status, status.leader) && status.raft_term > known;
            told.push((at, status));
            if settles {
                break;
            }
        }
        self.follow(&told);
    }

    /// Goes on with whoever leads in the latest term that any member tells of.
    fn follow(&self, told: &[(usize, StatusResponse)]) {
        let Some((_, latest)) = told.iter().max_by_key(|(_, status)| status.raft_term) else { return };
        if latest.leader == 0 {
            return;
        }
        self.term.fetch_max(latest.raft_term, Ordering::Relaxed);
        // One that is not among the endpoints, or silent, is of no use.
        if let Some((at, _)) = told.iter().find(|(_, status)| leads(status, latest.leader)) {
            self.current.store(*at, Ordering::Relaxed);
            self.leader.send_if_modified(|leader| std::mem::replace(leader, *at) != *at);
        }
    }
}

/// Whether it is `leader` that tells this.
fn leads(status: &StatusResponse, leader: u64) -> bool {
    leader != 0 && status.header.as_ref().is_some_and(|header| header.member_id == leader)
}
