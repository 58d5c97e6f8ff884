//! Bad input: it is refused with etcd's code, counted, and costs others nothing.

use super::*;
use coracle_etcd::proto::{DefragmentRequest, DowngradeRequest};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic_prost::ProstCodec;

impl Member {
    /// The number that /metrics tells of `series`; 0 if it is not there.
    async fn metric(&self, series: &str) -> f64 {
        let (_, text) = self.page("/metrics").await;
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |number| number.parse().expect("a number"))
    }

    async fn handled(&self, kind: &str, service: &str, method: &str, code: &str) -> f64 {
        let series = format!(
            "grpc_server_handled_total{{grpc_type=\"{kind}\",grpc_service=\"{service}\",grpc_method=\"{method}\",grpc_code=\"{code}\"}}"
        );
        self.metric(&series).await
    }

    /// Sends `bytes`, and reads until the other side ends.
    async fn send(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).await.expect("connects");
        // Who is sent nonsense may be gone before all of it has come.
        let _ = stream.write_all(bytes).await;
        let mut told = Vec::new();
        let _ = clock::timeout(WAIT_MAX, stream.read_to_end(&mut told)).await.expect("it ends");
        told
    }

    /// Calls a method by its path, with a message of another kind.
    async fn call<M: prost::Message + Default + 'static>(&self, path: &'static str, message: M) -> Status {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.expect("is ready");
        let path = PathAndQuery::from_static(path);
        let codec = ProstCodec::<M, RangeResponse>::default();
        grpc.unary(tonic::Request::new(message), path, codec).await.expect_err("is refused")
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A call of KV.Range by HTTP/2's own frames, with `authority`, for a message of `length` bytes that is `content`.
fn range_call(authority: &str, content: &[u8]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).expect("short")], text.as_bytes()].concat();
    let mut fields = vec![0x83, 0x86];
    for (name, value) in [(0x44, "/etcdserverpb.KV/Range"), (0x41, authority), (0x5f, "application/grpc")] {
        fields.push(name);
        fields.extend(text(value));
    }
    fields.push(0x40);
    fields.extend([text("te"), text("trailers")].concat());
    let frame = |kind: u8, flags: u8, content: &[u8]| {
        let length = u8::try_from(content.len()).expect("short");
        [&[0, 0, length, kind, flags, 0, 0, 0, 1], content].concat()
    };
    [PREFACE, &frame(1, 4, &fields), &frame(0, 1, content)].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_answered_whatever_the_client_calls_the_server() {
    let member = Member::start(&[]).await;
    let message = [&[0, 0, 0, 0, 3][..], &[0x0a, 1, b'a']].concat();
    for authority in ["127.0.0.1:1", "http://127.0.0.1:1", "unix:///x", "#initially=[http://a:1;http://b:1]"]
    {
        let mut stream = TcpStream::connect(member.address).await.expect("connects");
        stream.write_all(&range_call(authority, &message)).await.expect("asks");
        let mut told = Vec::new();
        let answered = async {
            while !told.windows(11).any(|bytes| bytes == b"grpc-status") && !told.contains(&0x88) {
                assert!(stream.read_buf(&mut told).await.expect("reads") > 0, "{authority}");
            }
        };
        clock::timeout(WAIT_MAX, answered).await.expect("is answered");
        // A header that says 200, and no RST_STREAM of 4 bytes.
        assert!(told.contains(&0x88), "{authority}");
        assert!(!told.windows(5).any(|bytes| bytes == [0, 0, 4, 3, 0]), "{authority}");
    }
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_frames_and_messages_end_their_own_call_or_connection_alone() {
    let member = Member::start(&[]).await;
    let mut watches = Watches::open(&member).await;
    watches.ask(RequestUnion::CreateRequest(watch(0))).await;
    for nonsense in [
        &b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"[..],
        b"NONSENSE\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        &[PREFACE, &[0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 1], &[0x7f; 64]].concat(),
        &[PREFACE, &[0, 0, 3, 1, 4, 0, 0, 0, 1, 0xff, 0xff, 0xff]].concat(),
        &[PREFACE, &[0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0]].concat(),
    ] {
        member.send(nonsense).await;
    }
    let wrong = member.call("/etcdserverpb.KV/Range", WatchCancelRequest { watch_id: 5 }).await;
    assert_eq!(wrong.code(), Code::Internal, "{wrong:?}");
    let unknown = member.call("/etcdserverpb.KV/Nothing", WatchCancelRequest { watch_id: 5 }).await;
    assert_eq!(unknown.code(), Code::Unimplemented, "{unknown:?}");
    let large = PutRequest { value: vec![1; 700_000].into(), ..put("w", "") };
    let refused = member.kv().put(large).await.expect_err("is larger than a message may be");
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    assert_eq!(member.handled("unary", "etcdserverpb.KV", "Range", "Internal").await as u32, 1);
    assert_eq!(member.handled("unary", "unknown", "unknown", "Unimplemented").await as u32, 1);
    member.put("w", "x").await;
    assert_eq!(watches.next().await.events.len(), 1, "others notice nothing");
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_make_no_sense_are_taken_or_refused_as_by_etcd() {
    let member = Member::start(&[]).await;
    for key in ["a", "b"] {
        member.put(key, "x").await;
    }
    let all = || get("a", "c");
    for (request, count) in [
        (RangeRequest { limit: -1, ..all() }, 2),
        (RangeRequest { revision: -1, ..all() }, 2),
        (RangeRequest { min_mod_revision: -5, ..all() }, 2),
        (RangeRequest { max_mod_revision: -5, ..all() }, 0),
        (get("c", "a"), 0),
    ] {
        assert_eq!(member.range(request.clone()).await.kvs.len(), count, "{request:?}");
    }
    let mut kv = member.kv();
    let compact = |revision| CompactionRequest { revision, physical: false };
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    refused(kv.compact(compact(-1)), Code::OutOfRange, compacted).await;
    refused(kv.compact(compact(0)), Code::OutOfRange, compacted).await;
    let mut lease = LeaseClient::new(member.channel.clone());
    let granted =
        lease.lease_grant(LeaseGrantRequest { id: -7, ttl: -1 }).await.expect("grants").into_inner();
    assert_eq!((granted.id, granted.ttl), (-7, 1), "the shortest that there is");
    assert_eq!(member.handled("unary", "etcdserverpb.KV", "Compact", "OutOfRange").await as u32, 2);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_does_not_read_holds_back_nobody_and_is_forgotten_when_it_goes() {
    let member = Member::start(&[]).await;
    // A connection of its own: one that is full holds back what else is on it.
    let channel = Endpoint::from_shared(format!("http://{}", member.address)).expect("an address");
    let (asks, requests) = mpsc::channel(8);
    let mut client = WatchClient::new(channel.connect().await.expect("connects"));
    let told = client.watch(ReceiverStream::new(requests)).await.expect("watches").into_inner();
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(watch(0))) };
    asks.send(create).await.expect("asks");
    let mut reader = Watches::open(&member).await;
    reader.ask(RequestUnion::CreateRequest(watch(0))).await;
    for _ in 0..200 {
        let put = PutRequest { value: vec![1; 60_000].into(), ..put("w", "") };
        member.kv().put(put).await.expect("puts");
        assert_eq!(reader.next().await.events.len(), 1);
    }
    assert_eq!(member.metric("etcd_debugging_mvcc_watcher_total").await as u32, 2);
    assert_eq!(member.metric("etcd_debugging_mvcc_slow_watcher_total").await as u32, 1);
    drop((told, asks, client));
    let gone = async {
        while member.metric("etcd_debugging_mvcc_watcher_total").await as u32 > 1 {
            clock::sleep(Duration::from_millis(20)).await;
        }
    };
    clock::timeout(WAIT_MAX, gone).await.expect("is forgotten");
    assert_eq!(member.handled("bidi_stream", "etcdserverpb.Watch", "Watch", "Canceled").await as u32, 1);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_are_counted_and_cost_others_nothing() {
    let member = Member::start(&[]).await;
    member.put("a", "x").await;
    let before = member.metric("coracle_store_client_connections").await;
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(TcpStream::connect(member.address).await.expect("connects"));
    }
    assert_eq!(member.keys(get("a", "")).await, ["a"]);
    assert!(member.metric("coracle_store_client_connections").await - before > 199.0);
    drop(idle);
    let gone = async {
        while member.metric("coracle_store_client_connections").await > before {
            clock::sleep(Duration::from_millis(20)).await;
        }
    };
    clock::timeout(WAIT_MAX, gone).await.expect("are gone");
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_users_is_told_that_there_are_none() {
    let member = Member::start(&[]).await;
    let disabled = member.call("/etcdserverpb.Auth/UserAdd", WatchCancelRequest { watch_id: 5 }).await;
    let told = (disabled.code(), disabled.message());
    assert_eq!(told, (Code::FailedPrecondition, "etcdserver: authentication is not enabled"));
    let mut grpc = Grpc::new(member.channel.clone());
    grpc.ready().await.expect("is ready");
    let path = PathAndQuery::from_static("/etcdserverpb.Auth/AuthStatus");
    let codec = ProstCodec::<WatchProgressRequest, coracle_etcd::proto::AlarmResponse>::default();
    let status = grpc.unary(tonic::Request::new(WatchProgressRequest {}), path, codec).await;
    assert!(status.expect("answers").into_inner().header.expect("a header").member_id > 0);
    let mut maintenance = MaintenanceClient::new(member.channel.clone());
    let downgrade = |action, version: &str| DowngradeRequest { action, version: version.to_owned() };
    let checked = maintenance.downgrade(downgrade(0, "3.4.0")).await.expect("could be").into_inner();
    assert_eq!(checked.version, "3.5.0");
    let far = "etcdserver: invalid downgrade target version";
    refused(maintenance.downgrade(downgrade(0, "3.3.0")), Code::InvalidArgument, far).await;
    let done = maintenance.defragment(DefragmentRequest {}).await.expect("is done").into_inner();
    assert_eq!(done.header, None, "etcd gives none");
    let none = "etcdserver: no inflight downgrade job";
    refused(maintenance.downgrade(downgrade(2, "")), Code::FailedPrecondition, none).await;
    member.stop().await;
}
