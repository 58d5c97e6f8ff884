//! One real member on loopback, asked by the generated clients: what it answers, and with which of etcd's codes and texts it refuses.

mod queues;
mod refusals;

use super::start;
use crate::Args;
use clap::Parser;
use coracle_daemon::{Tasks, clock};
use coracle_etcd::proto::cluster_client::ClusterClient;
use coracle_etcd::proto::compare::{CompareResult, CompareTarget, TargetUnion};
use coracle_etcd::proto::kv_client::KvClient;
use coracle_etcd::proto::lease_client::LeaseClient;
use coracle_etcd::proto::maintenance_client::MaintenanceClient;
use coracle_etcd::proto::range_request::{SortOrder, SortTarget};
use coracle_etcd::proto::request_op::Request as Op;
use coracle_etcd::proto::response_op::Response as Done;
use coracle_etcd::proto::watch_client::WatchClient;
use coracle_etcd::proto::watch_request::RequestUnion;
use coracle_etcd::proto::{
    AlarmRequest, CompactionRequest, Compare, DeleteRangeRequest, EventType, HashKvRequest,
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest,
    MemberAddRequest, MemberListRequest, MemberPromoteRequest, MemberRemoveRequest, MoveLeaderRequest,
    PutRequest, RangeRequest, RangeResponse, RequestOp, SnapshotRequest, StatusRequest, TxnRequest,
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use sha2::{Digest, Sha256};
use std::future::Future;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status, Streaming};

/// Nothing that is asked here takes as long.
const WAIT_MAX: Duration = Duration::from_secs(20);

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    args: Args,
}

/// A member alone, on a folder that goes with it.
struct Member {
    _folder: TempDir,
    tasks: Tasks,
    address: std::net::SocketAddr,
    channel: Channel,
}

impl Member {
    async fn start(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let data = format!("--data-dir={}", folder.path().join("m").display());
        let own = [
            "store",
            &data,
            "--listen-client-urls=http://127.0.0.1:0",
            "--listen-peer-urls=http://127.0.0.1:0",
            "--max-request-bytes=65536",
            "--max-txn-ops=8",
        ];
        let args = Program::try_parse_from(own.iter().chain(flags)).expect("flags").args;
        let tasks = Tasks::new();
        let address = start(args, &tasks).await.expect("starts")[0];
        let channel = Endpoint::from_shared(format!("http://{address}")).expect("an address").connect_lazy();
        Self { _folder: folder, tasks, address, channel }
    }

    fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone())
    }

    async fn put(&self, key: &'static str, value: &'static str) -> i64 {
        let answer = self.kv().put(put(key, value)).await.expect("puts").into_inner();
        answer.header.expect("a header").revision
    }

    async fn range(&self, request: RangeRequest) -> RangeResponse {
        self.kv().range(request).await.expect("reads").into_inner()
    }

    async fn keys(&self, request: RangeRequest) -> Vec<String> {
        let kvs = self.range(request).await.kvs;
        kvs.into_iter().map(|kv| String::from_utf8(kv.key.to_vec()).expect("text")).collect()
    }

    async fn grant(&self, id: i64, ttl: i64) -> i64 {
        let grant = LeaseGrantRequest { id, ttl };
        LeaseClient::new(self.channel.clone()).lease_grant(grant).await.expect("grants").into_inner().id
    }

    /// A page's status line and body.
    async fn page(&self, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.address).await.expect("connects");
        let request = format!("GET {path} HTTP/1.1\r\nHost: member\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("asks");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("reads");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        (head.lines().next().expect("a status line").to_owned(), body.to_owned())
    }

    async fn stop(self) {
        drop(self.channel);
        self.tasks.stop_within(Duration::from_secs(10)).await.expect("stops");
    }
}

fn put(key: &'static str, value: &'static str) -> PutRequest {
    PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() }
}

fn get(key: &'static str, range_end: &'static str) -> RangeRequest {
    RangeRequest { key: key.into(), range_end: range_end.into(), ..RangeRequest::default() }
}

fn op(request: Op) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn puts(count: usize) -> TxnRequest {
    let success = (0..count)
        .map(|n| op(Op::RequestPut(PutRequest { key: format!("txn/{n}").into(), ..PutRequest::default() })));
    TxnRequest { success: success.collect(), ..TxnRequest::default() }
}

/// Checks code and text of a refusal.
async fn refused<T: std::fmt::Debug>(
    answer: impl Future<Output = Result<Response<T>, Status>>,
    code: Code,
    text: &str,
) {
    let status = answer.await.expect_err(text);
    assert_eq!((status.code(), status.message()), (code, text));
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_have_etcds_order_bounds_and_counts() {
    let member = Member::start(&[]).await;
    for (key, value) in [("a", "3"), ("b", "1"), ("c", "2"), ("b", "1b")] {
        member.put(key, value).await;
    }
    let all = || get("a", "d");
    let sorted = |target: SortTarget, order: SortOrder| RangeRequest {
        sort_target: target as i32,
        sort_order: order as i32,
        ..all()
    };
    for (request, wanted) in [
        (all(), &["a", "b", "c"][..]),
        (get("b", "\0"), &["b", "c"]),
        (get("x", ""), &[]),
        (RangeRequest { limit: 2, ..all() }, &["a", "b"]),
        (RangeRequest { revision: 2, ..all() }, &["a"]),
        (RangeRequest { min_mod_revision: 4, ..all() }, &["b", "c"]),
        (RangeRequest { max_create_revision: 2, ..all() }, &["a"]),
        (sorted(SortTarget::Value, SortOrder::Ascend), &["b", "c", "a"]),
        (sorted(SortTarget::Mod, SortOrder::Descend), &["b", "c", "a"]),
        (RangeRequest { serializable: true, ..all() }, &["a", "b", "c"]),
    ] {
        assert_eq!(member.keys(request.clone()).await, wanted, "{request:?}");
    }
    let limited = member.range(RangeRequest { limit: 2, ..all() }).await;
    assert_eq!((limited.more, limited.count), (true, 3));
    let counted = member.range(RangeRequest { count_only: true, ..all() }).await;
    assert_eq!((counted.kvs.len(), counted.count), (0, 3));
    let bare = member.range(RangeRequest { keys_only: true, ..get("b", "") }).await.kvs.remove(0);
    assert_eq!((bare.value.len(), bare.create_revision, bare.mod_revision, bare.version), (0, 3, 5, 2));
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_answer_with_what_was_there_before() {
    let member = Member::start(&[]).await;
    let mut kv = member.kv();
    member.put("a", "1").await;
    let answer = kv.put(PutRequest { prev_kv: true, ..put("a", "2") }).await.expect("puts").into_inner();
    assert_eq!(answer.prev_kv.map(|kv| kv.value), Some("1".into()));
    let kept = PutRequest { ignore_value: true, ..put("a", "") };
    kv.put(kept).await.expect("puts");
    assert_eq!(member.range(get("a", "")).await.kvs[0].value, "2");
    let compare = Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Version as i32,
        key: "a".into(),
        target_union: Some(TargetUnion::Version(3)),
        ..Compare::default()
    };
    let txn = TxnRequest {
        compare: vec![compare],
        success: vec![op(Op::RequestPut(put("b", "x"))), op(Op::RequestRange(get("b", "")))],
        failure: Vec::new(),
    };
    let done = kv.txn(txn.clone()).await.expect("runs").into_inner();
    let Some(Done::ResponseRange(read)) = &done.responses[1].response else { panic!("{done:?}") };
    assert!(done.succeeded && read.kvs[0].value == "x", "a transaction reads what it wrote");
    member.put("a", "3").await;
    assert!(!kv.txn(txn).await.expect("runs").into_inner().succeeded, "it is at version 4 now");
    let delete = DeleteRangeRequest { key: "a".into(), range_end: "c".into(), prev_kv: true };
    let gone = kv.delete_range(delete.clone()).await.expect("deletes").into_inner();
    assert_eq!((gone.deleted, gone.prev_kvs.len(), gone.header.expect("a header").revision), (2, 2, 7));
    let none = kv.delete_range(delete).await.expect("deletes").into_inner();
    assert_eq!((none.deleted, none.header.expect("a header").revision), (0, 7), "nothing changed");
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_for_keys_are_refused_in_etcds_words() {
    use Code::{InvalidArgument, NotFound, OutOfRange};
    let member = Member::start(&[]).await;
    let mut kv = member.kv();
    for value in ["1", "2", "3"] {
        member.put("a", value).await;
    }
    kv.compact(CompactionRequest { revision: 3, physical: true }).await.expect("compacts");
    let no_key = "etcdserver: key is not provided";
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    let future = "etcdserver: mvcc: required revision is a future revision";
    refused(kv.range(get("", "")), InvalidArgument, no_key).await;
    refused(kv.put(put("", "x")), InvalidArgument, no_key).await;
    refused(kv.delete_range(DeleteRangeRequest::default()), InvalidArgument, no_key).await;
    refused(kv.range(RangeRequest { revision: 2, ..get("a", "") }), OutOfRange, compacted).await;
    refused(kv.range(RangeRequest { revision: 99, ..get("a", "") }), OutOfRange, future).await;
    refused(kv.compact(CompactionRequest { revision: 2, ..Default::default() }), OutOfRange, compacted).await;
    refused(kv.compact(CompactionRequest { revision: 99, ..Default::default() }), OutOfRange, future).await;
    let sort = RangeRequest { sort_order: 9, ..get("a", "") };
    refused(kv.range(sort), InvalidArgument, "etcdserver: invalid sort option").await;
    let value_too = PutRequest { ignore_value: true, ..put("a", "x") };
    refused(kv.put(value_too), InvalidArgument, "etcdserver: value is provided").await;
    let lease_too = PutRequest { ignore_lease: true, lease: 1, ..put("a", "") };
    refused(kv.put(lease_too), InvalidArgument, "etcdserver: lease is provided").await;
    let nothing_to_keep = PutRequest { ignore_value: true, ..put("none", "") };
    refused(kv.put(nothing_to_keep), InvalidArgument, "etcdserver: key not found").await;
    let leased = PutRequest { lease: 77, ..put("a", "x") };
    refused(kv.put(leased), NotFound, "etcdserver: requested lease not found").await;
    let large = PutRequest { value: vec![1; 70_000].into(), ..put("a", "") };
    refused(kv.put(large), InvalidArgument, "etcdserver: request is too large").await;
    refused(kv.txn(puts(9)), InvalidArgument, "etcdserver: too many operations in txn request").await;
    let twice = TxnRequest { success: vec![op(Op::RequestPut(put("a", "x"))); 2], ..TxnRequest::default() };
    refused(kv.txn(twice), InvalidArgument, "etcdserver: duplicate key given in txn request").await;
    let empty = TxnRequest { success: vec![RequestOp::default()], ..TxnRequest::default() };
    refused(kv.txn(empty), InvalidArgument, "etcdserver: key not found").await;
    let late = RangeRequest { revision: 2, ..get("a", "") };
    let reads = TxnRequest { success: vec![op(Op::RequestRange(late))], ..puts(0) };
    refused(kv.txn(reads), OutOfRange, compacted).await;
    assert_eq!(member.range(get("a", "z")).await.header.expect("a header").revision, 4, "nothing was done");
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_are_granted_prolonged_listed_and_refused_as_in_etcd() {
    let member = Member::start(&[]).await;
    let mut lease = LeaseClient::new(member.channel.clone());
    let unknown = "etcdserver: requested lease not found";
    refused(lease.lease_revoke(LeaseRevokeRequest { id: 5 }), Code::NotFound, unknown).await;
    assert_eq!(member.grant(5, 100).await, 5);
    let again = lease.lease_grant(LeaseGrantRequest { id: 5, ttl: 100 });
    refused(again, Code::FailedPrecondition, "etcdserver: lease already exists").await;
    let eternal = lease.lease_grant(LeaseGrantRequest { id: 0, ttl: 9_000_000_001 });
    refused(eternal, Code::OutOfRange, "etcdserver: too large lease TTL").await;
    let mut watches = Watches::open(&member).await;
    watches.ask(RequestUnion::CreateRequest(watch(0))).await;
    let drawn = member.grant(0, 1).await;
    assert!(drawn > 0 && drawn != 5);
    member.kv().put(PutRequest { lease: drawn, ..put("w", "x") }).await.expect("puts");
    assert_eq!(watches.next().await.events.len(), 1, "what the short lease holds");

    member.kv().put(PutRequest { lease: 5, ..put("leased", "x") }).await.expect("puts");
    let ask = LeaseTimeToLiveRequest { id: 5, keys: true };
    let told = lease.lease_time_to_live(ask).await.expect("tells").into_inner();
    assert!((95..=100).contains(&told.ttl), "{told:?}");
    assert_eq!((told.granted_ttl, told.keys), (100, vec!["leased".into()]));
    let ask = LeaseTimeToLiveRequest { id: 6, keys: true };
    let told = lease.lease_time_to_live(ask).await.expect("tells").into_inner();
    assert_eq!((told.ttl, told.granted_ttl), (-1, 0), "no error for an unknown lease");

    let asks = tokio_stream::iter([5, 6].map(|id| LeaseKeepAliveRequest { id }));
    let mut told = lease.lease_keep_alive(asks).await.expect("takes").into_inner();
    for wanted in [(5, 100), (6, 0)] {
        let answer = told.message().await.expect("answers").expect("an answer");
        assert_eq!((answer.id, answer.ttl), wanted);
    }
    lease.lease_revoke(LeaseRevokeRequest { id: 5 }).await.expect("revokes");
    assert!(member.keys(get("leased", "")).await.is_empty(), "keys go with their lease");
    let event = watches.next().await.events.remove(0);
    assert_eq!(event.r#type(), EventType::Delete, "a lease of one second ends by itself");
    let left = lease.lease_leases(LeaseLeasesRequest {}).await.expect("lists").into_inner().leases;
    assert!(left.is_empty(), "{left:?}");
    member.stop().await;
}

/// A stream of watches.
struct Watches {
    asks: mpsc::Sender<WatchRequest>,
    told: Streaming<WatchResponse>,
}

impl Watches {
    async fn open(member: &Member) -> Self {
        let (asks, requests) = mpsc::channel(8);
        let requests = ReceiverStream::new(requests);
        let told = WatchClient::new(member.channel.clone()).watch(requests).await.expect("watches");
        Self { asks, told: told.into_inner() }
    }

    async fn ask(&mut self, request: RequestUnion) -> WatchResponse {
        self.asks.send(WatchRequest { request_union: Some(request) }).await.expect("asks");
        self.next().await
    }

    async fn next(&mut self) -> WatchResponse {
        let told = clock::timeout(WAIT_MAX, self.told.message()).await.expect("is told in time");
        told.expect("goes on").expect("has not ended")
    }
}

fn watch(start_revision: i64) -> WatchCreateRequest {
    WatchCreateRequest { key: "w".into(), range_end: "x".into(), start_revision, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_tell_what_etcd_tells() {
    let member = Member::start(&[]).await;
    let mut watches = Watches::open(&member).await;
    member.put("w1", "old").await;
    let created = watches.ask(RequestUnion::CreateRequest(watch(2))).await;
    assert!(created.created && !created.canceled && created.watch_id == 0, "{created:?}");
    assert_eq!(watches.next().await.events.len(), 1, "what was before");
    member.put("elsewhere", "x").await;
    let delete = DeleteRangeRequest { key: "w1".into(), ..Default::default() };
    member.kv().delete_range(delete).await.expect("deletes");
    let told = watches.next().await;
    assert_eq!((told.events.len(), told.events[0].r#type, told.watch_id), (1, 1, 0), "{told:?}");
    let progress = watches.ask(RequestUnion::ProgressRequest(WatchProgressRequest {})).await;
    assert_eq!((progress.watch_id, progress.events.len()), (-1, 0));
    assert_eq!(progress.header.expect("a header").revision, 4);
    let same_id = WatchCreateRequest { watch_id: 7, prev_kv: true, ..watch(0) };
    assert!(watches.ask(RequestUnion::CreateRequest(same_id.clone())).await.created);
    let twice = watches.ask(RequestUnion::CreateRequest(same_id)).await;
    let reason = "mvcc: duplicate watch ID provided on the WatchStream";
    assert_eq!((twice.watch_id, twice.canceled, twice.cancel_reason.as_str()), (-1, true, reason));
    let canceled = watches.ask(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 7 })).await;
    assert!(canceled.canceled && canceled.watch_id == 7 && canceled.cancel_reason.is_empty(), "{canceled:?}");
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_the_compacted_past_is_cancelled_and_told_where_it_may_begin() {
    let member = Member::start(&[]).await;
    for value in ["1", "2", "3"] {
        member.put("w", value).await;
    }
    member.kv().compact(CompactionRequest { revision: 3, physical: true }).await.expect("compacts");
    let mut watches = Watches::open(&member).await;
    assert!(watches.ask(RequestUnion::CreateRequest(watch(1))).await.created);
    let told = watches.next().await;
    let reason = "etcdserver: mvcc: required revision has been compacted";
    assert_eq!((told.canceled, told.compact_revision, told.cancel_reason.as_str()), (true, 3, reason));
    assert!(watches.ask(RequestUnion::CreateRequest(watch(4))).await.created, "the stream goes on");
    assert_eq!(watches.next().await.events.len(), 1);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_and_maintenance_are_refused_in_etcds_words() {
    use Code::{FailedPrecondition, InvalidArgument, NotFound, OutOfRange};
    let member = Member::start(&[]).await;
    member.put("a", "1").await;
    let mut cluster = ClusterClient::new(member.channel.clone());
    let mut maintenance = MaintenanceClient::new(member.channel.clone());
    let not_found = "etcdserver: member not found";
    refused(cluster.member_remove(MemberRemoveRequest { id: 1 }), NotFound, not_found).await;
    refused(cluster.member_promote(MemberPromoteRequest { id: 1 }), NotFound, not_found).await;
    let bad = MemberAddRequest { peer_ur_ls: vec!["nonsense".into()], is_learner: true };
    refused(cluster.member_add(bad), InvalidArgument, "etcdserver: given member URLs are invalid").await;
    let members = cluster.member_list(MemberListRequest { linearizable: true }).await.expect("lists");
    let members = members.into_inner().members;
    assert_eq!(members.len(), 1);
    let known = MemberAddRequest { peer_ur_ls: members[0].peer_ur_ls.clone(), is_learner: true };
    refused(cluster.member_add(known), FailedPrecondition, "etcdserver: Peer URLs already exists").await;
    let promote = cluster.member_promote(MemberPromoteRequest { id: members[0].id });
    refused(promote, FailedPrecondition, "etcdserver: can only promote a learner member").await;
    let to_nobody = maintenance.move_leader(MoveLeaderRequest { target_id: 1 });
    refused(to_nobody, FailedPrecondition, "etcdserver: bad leader transferee").await;
    let hash = maintenance.hash_kv(HashKvRequest { revision: 99 });
    refused(hash, OutOfRange, "etcdserver: mvcc: required revision is a future revision").await;

    let status = maintenance.status(StatusRequest {}).await.expect("tells").into_inner();
    assert_eq!((status.leader, status.errors.len()), (members[0].id, 0));
    assert!(status.db_size >= status.db_size_in_use && status.db_size_in_use > 0);
    let alarm = AlarmRequest { action: 1, member_id: 9, alarm: 1 };
    maintenance.alarm(alarm).await.expect("raises");
    refused(
        member.kv().put(put("a", "2")),
        Code::ResourceExhausted,
        "etcdserver: mvcc: database space exceeded",
    )
    .await;
    let status = maintenance.status(StatusRequest {}).await.expect("tells").into_inner();
    assert_eq!(status.errors, ["memberID:9 alarm:NOSPACE "]);
    maintenance.alarm(AlarmRequest { action: 2, ..alarm }).await.expect("takes back");
    member.put("a", "2").await;
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_quota_raises_the_alarm_and_leaves_deletions() {
    let member = Member::start(&["--quota-backend-bytes=100000"]).await;
    let mut kv = member.kv();
    let large = || PutRequest { value: vec![1; 40_000].into(), ..put("a", "") };
    kv.put(large()).await.expect("puts");
    kv.put(large()).await.expect("puts");
    let full = "etcdserver: mvcc: database space exceeded";
    refused(kv.put(large()), Code::ResourceExhausted, full).await;
    let (status, body) = member.page("/health").await;
    assert_eq!(status, "HTTP/1.1 503 Service Unavailable");
    assert_eq!(body, r#"{"health":"false","reason":"ALARM NOSPACE"}"#);
    assert_eq!(member.page("/health?exclude=NOSPACE").await.0, "HTTP/1.1 200 OK");
    kv.delete_range(DeleteRangeRequest { key: "a".into(), ..Default::default() }).await.expect("deletes");
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_a_database_of_pages_and_their_hash() {
    let member = Member::start(&[]).await;
    for (key, value) in [("a", "1"), ("b", "2"), ("a", "3")] {
        member.put(key, value).await;
    }
    let mut maintenance = MaintenanceClient::new(member.channel.clone());
    let mut blobs = maintenance.snapshot(SnapshotRequest {}).await.expect("begins").into_inner();
    let mut all = Vec::new();
    let mut remaining = None;
    while let Some(part) = blobs.message().await.expect("goes on") {
        all.extend_from_slice(&part.blob);
        remaining = Some(part.remaining_bytes);
    }
    assert_eq!((all.len() % 4096, remaining), (32, Some(0)));
    let (state, hash) = all.split_at(all.len() - 32);
    assert_eq!(Sha256::digest(state).as_slice(), hash);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_stand_beside_grpc() {
    let member = Member::start(&[]).await;
    member.put("a", "1").await;
    for (path, status, body) in [
        ("/health", "200 OK", r#"{"health":"true","reason":""}"#),
        ("/livez", "200 OK", "ok\n"),
        ("/readyz", "200 OK", "ok\n"),
        ("/version", "200 OK", r#"{"etcdcluster":"3.5.0","etcdserver":"3.5.21"}"#),
    ] {
        assert_eq!(member.page(path).await, (format!("HTTP/1.1 {status}"), body.to_owned()), "{path}");
    }
    let (_, metrics) = member.page("/metrics").await;
    for name in [
        "etcd_server_has_leader 1",
        "etcd_server_is_leader 1",
        "etcd_mvcc_put_total 1",
        "etcd_disk_wal_fsync_duration_seconds_count",
        "etcd_server_proposals_applied_total",
        "etcd_debugging_mvcc_current_revision 2",
        "# EOF",
    ] {
        assert!(metrics.contains(name), "no {name} in {metrics}");
    }
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_stops_ends_the_streams_that_are_open() {
    let member = Member::start(&[]).await;
    let mut watches = Watches::open(&member).await;
    assert!(watches.ask(RequestUnion::CreateRequest(watch(0))).await.created);
    let (_asks, requests) = mpsc::channel::<LeaseKeepAliveRequest>(1);
    let mut lease = LeaseClient::new(member.channel.clone());
    let mut kept = lease.lease_keep_alive(ReceiverStream::new(requests)).await.expect("takes").into_inner();
    drop(lease);
    member.stop().await;
    let stopped = watches.told.message().await.expect_err("the watch ends");
    assert_eq!((stopped.code(), stopped.message()), (Code::Unavailable, "etcdserver: server stopped"));
    let stopped = kept.message().await.expect_err("the keep-alive ends");
    assert_eq!((stopped.code(), stopped.message()), (Code::Unavailable, "etcdserver: server stopped"));
}
