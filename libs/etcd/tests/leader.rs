//! Which member a client talks to, against members that say who leads, and may stand still.

use coracle_etcd::proto::kv_server::{Kv as KvService, KvServer};
use coracle_etcd::proto::maintenance_server::{Maintenance, MaintenanceServer};
use coracle_etcd::proto::*;
use coracle_etcd::{Client, Kv};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// What the members of a cluster agree on.
#[derive(Default)]
struct Cluster {
    term: AtomicU64,
    leader: AtomicU64,
    /// The member that will lead once it is asked for a fresh read.
    stands: AtomicU64,
}

/// One of them, numbered from 1.
#[derive(Clone)]
struct Member {
    id: u64,
    cluster: Arc<Cluster>,
    still: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
}

impl Member {
    async fn header(&self) -> Option<ResponseHeader> {
        if self.still.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let raft_term = self.cluster.term.load(Ordering::SeqCst);
        Some(ResponseHeader { member_id: self.id, raft_term, revision: 1, cluster_id: 1 })
    }
}

type Answer<T> = Result<Response<T>, Status>;

fn unasked<T>() -> Answer<T> {
    Err(Status::unimplemented("not asked here"))
}

#[tonic::async_trait]
impl KvService for Member {
    async fn range(&self, _: Request<RangeRequest>) -> Answer<RangeResponse> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.cluster.stands.load(Ordering::SeqCst) == self.id {
            self.cluster.leader.store(self.id, Ordering::SeqCst);
            self.cluster.term.store(2, Ordering::SeqCst);
        }
        Ok(Response::new(RangeResponse { header: self.header().await, ..RangeResponse::default() }))
    }
    async fn put(&self, _: Request<PutRequest>) -> Answer<PutResponse> {
        unasked()
    }
    async fn delete_range(&self, _: Request<DeleteRangeRequest>) -> Answer<DeleteRangeResponse> {
        unasked()
    }
    async fn txn(&self, _: Request<TxnRequest>) -> Answer<TxnResponse> {
        unasked()
    }
    async fn compact(&self, _: Request<CompactionRequest>) -> Answer<CompactionResponse> {
        unasked()
    }
}

#[tonic::async_trait]
impl Maintenance for Member {
    async fn status(&self, _: Request<StatusRequest>) -> Answer<StatusResponse> {
        let header = self.header().await;
        let (leader, raft_term) =
            (self.cluster.leader.load(Ordering::SeqCst), self.cluster.term.load(Ordering::SeqCst));
        Ok(Response::new(StatusResponse { header, leader, raft_term, ..StatusResponse::default() }))
    }
    async fn alarm(&self, _: Request<AlarmRequest>) -> Answer<AlarmResponse> {
        unasked()
    }
    async fn defragment(&self, _: Request<DefragmentRequest>) -> Answer<DefragmentResponse> {
        unasked()
    }
    async fn hash(&self, _: Request<HashRequest>) -> Answer<HashResponse> {
        unasked()
    }
    async fn hash_kv(&self, _: Request<HashKvRequest>) -> Answer<HashKvResponse> {
        unasked()
    }
    type SnapshotStream = Pin<Box<dyn Stream<Item = Result<SnapshotResponse, Status>> + Send>>;
    async fn snapshot(&self, _: Request<SnapshotRequest>) -> Answer<Self::SnapshotStream> {
        unasked()
    }
    async fn move_leader(&self, _: Request<MoveLeaderRequest>) -> Answer<MoveLeaderResponse> {
        unasked()
    }
    async fn downgrade(&self, _: Request<DowngradeRequest>) -> Answer<DowngradeResponse> {
        unasked()
    }
}

/// Three members, led by `leader` in term 1, and a client of theirs.
async fn cluster(leader: u64) -> (Arc<Cluster>, Vec<Member>, Client) {
    let cluster =
        Arc::new(Cluster { term: AtomicU64::new(1), leader: AtomicU64::new(leader), ..Cluster::default() });
    let (mut members, mut endpoints) = (Vec::new(), Vec::new());
    for id in 1..=3 {
        let member = Member { id, cluster: cluster.clone(), still: Arc::default(), asked: Arc::default() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listens");
        endpoints.push(format!("http://{}", listener.local_addr().expect("bound")));
        let serves = tonic::transport::Server::builder()
            .add_service(KvServer::new(member.clone()))
            .add_service(MaintenanceServer::new(member.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        #[expect(clippy::disallowed_methods, reason = "ends with the test")]
        tokio::spawn(serves);
        members.push(member);
    }
    let client = Client::connect(&endpoints, None).await.expect("endpoints");
    (cluster, members, client)
}

/// Asks until `member` is the one that answers.
async fn until_asked(client: &Client, member: &Member) {
    let asks = async {
        loop {
            let answer = client.range(RangeRequest::default()).await.expect("an answer");
            if answer.header.is_some_and(|header| header.member_id == member.id) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), asks).await.expect("the leader is found");
}

#[tokio::test]
async fn calls_go_to_whoever_leads() {
    let (cluster, members, client) = cluster(3).await;
    until_asked(&client, &members[2]).await;
    // An answer of a later term tells that there may be another.
    cluster.leader.store(2, Ordering::SeqCst);
    cluster.term.store(2, Ordering::SeqCst);
    until_asked(&client, &members[1]).await;
    let before = members[1].asked.load(Ordering::SeqCst);
    for _ in 0..10 {
        client.range(RangeRequest::default()).await.expect("an answer");
    }
    assert_eq!(members[1].asked.load(Ordering::SeqCst), before + 10);
}

#[tokio::test]
async fn a_leader_that_stands_still_is_left_when_another_leads() {
    let (cluster, members, client) = cluster(3).await;
    until_asked(&client, &members[2]).await;
    members[2].still.store(true, Ordering::SeqCst);
    let mut waits = Box::pin(client.range(RangeRequest::default()));
    // As long as nobody else leads it is waited for.
    let early = tokio::time::timeout(Duration::from_secs(1), &mut waits).await;
    assert!(early.is_err(), "{early:?}");
    cluster.leader.store(1, Ordering::SeqCst);
    cluster.term.store(2, Ordering::SeqCst);
    let answer = tokio::time::timeout(Duration::from_secs(20), waits).await.expect("goes on");
    assert_eq!(answer.expect("an answer").header.map(|header| header.member_id), Some(1));
}

#[tokio::test]
async fn members_that_do_not_miss_a_leader_which_stands_still_are_made_to() {
    let (cluster, members, client) = cluster(3).await;
    until_asked(&client, &members[2]).await;
    members[2].still.store(true, Ordering::SeqCst);
    // They hear little of a leader while little is written.
    cluster.stands.store(1, Ordering::SeqCst);
    let answer = tokio::time::timeout(Duration::from_secs(20), client.range(RangeRequest::default())).await;
    let answer = answer.expect("goes on").expect("an answer");
    assert_eq!(answer.header.map(|header| header.member_id), Some(1));
}
