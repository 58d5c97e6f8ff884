//! The same snapshot in a real etcd, and that etcd's in ours: left out where Debian's `etcd` and `etcdctl` are not installed.

use super::*;
use coracle_etcd::proto::lease_client::LeaseClient;
use coracle_etcd::proto::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseTimeToLiveRequest, RangeResponse,
};
use std::process::{Child, Command, Output, Stdio};

/// How long an etcd may take to serve.
const START_MAX: Duration = Duration::from_secs(30);

/// An etcd that ends with this.
struct Etcd(Child);

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

fn etcdctl(words: &[&str]) -> String {
    let Output { status, stdout, stderr } =
        Command::new("etcdctl").env("ETCDCTL_API", "3").args(words).output().expect("runs");
    assert!(status.success(), "etcdctl {words:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).expect("text")
}

/// Everything that a client can see.
#[derive(Debug, PartialEq)]
struct Seen {
    revision: i64,
    now: RangeResponse,
    before: RangeResponse,
    lease: (i64, Vec<bytes::Bytes>),
}

async fn seen(url: &str) -> Seen {
    let channel =
        Endpoint::from_shared(url.to_owned()).expect("an address").connect().await.expect("connects");
    let mut kv = KvClient::new(channel.clone());
    let mut range = async |revision| {
        let all = RangeRequest { key: "\0".into(), range_end: "\0".into(), revision, ..Default::default() };
        kv.range(all).await.expect("reads").into_inner()
    };
    let (mut now, mut before) = (range(0).await, range(40).await);
    let revision = now.header.take().map_or(0, |header| header.revision);
    before.header = None;
    let ask = LeaseTimeToLiveRequest { id: 77, keys: true };
    let mut lease = LeaseClient::new(channel).lease_time_to_live(ask).await.expect("tells").into_inner();
    // etcd tells them in any order.
    lease.keys.sort();
    Seen { revision, now, before, lease: (lease.granted_ttl, lease.keys) }
}

/// Starts an etcd on this data, and returns its URL once it serves.
async fn etcd(data: &Path, peers: u16) -> (Etcd, String) {
    let (client, peer) = (format!("http://127.0.0.1:{}", free_port()), format!("http://127.0.0.1:{peers}"));
    let child = Command::new("etcd")
        .arg("--data-dir")
        .arg(data)
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}"), "--log-level", "error"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let etcd = Etcd(child);
    let serves = async {
        let endpoint = Endpoint::from_shared(client.clone()).expect("an address");
        let mut kv = KvClient::new(endpoint.connect_lazy());
        let read = RangeRequest { key: "a".into(), ..RangeRequest::default() };
        while kv.range(read.clone()).await.is_err() {
            coracle_daemon::clock::sleep(Duration::from_millis(50)).await;
        }
    };
    coracle_daemon::clock::timeout(START_MAX, serves).await.expect("serves in time");
    (etcd, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_goes_on_with_our_snapshots_and_the_store_with_those_of_etcd() {
    if !is_installed("etcd") || !is_installed("etcdctl") {
        eprintln!("left out: etcd-server and etcd-client are not installed");
        return;
    }
    let folder = tempfile::tempdir().expect("folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (tasks, url, mut kv) = member(&folder.path().join("old")).await;
    let channel = Endpoint::from_shared(url.clone()).expect("an address").connect_lazy();
    let grant = LeaseGrantRequest { id: 77, ttl: 5000 };
    LeaseClient::new(channel).lease_grant(grant).await.expect("grants");
    for n in 0..60 {
        let (key, lease) = (format!("k{}", n % 50), if n % 7 == 0 { 77 } else { 0 });
        let put = PutRequest { key: key.into(), value: vec![1; n * 400].into(), lease, ..Default::default() };
        kv.put(put).await.expect("puts");
    }
    kv.compact(CompactionRequest { revision: 30, physical: true }).await.expect("compacts");
    let delete = DeleteRangeRequest { key: "k1".into(), range_end: "k2".into(), ..Default::default() };
    kv.delete_range(delete).await.expect("deletes");
    let wanted = seen(&url).await;
    assert_eq!((wanted.revision, wanted.now.count, wanted.lease.0), (62, 39, 5000));

    etcdctl(&["--endpoints", &url, "snapshot", "save", &at("ours")]);
    stop(tasks).await;
    let status = etcdctl(&["snapshot", "status", &at("ours"), "-w", "json"]);
    assert!(status.contains("\"revision\":62,"), "{status}");
    let peers = free_port();
    let (cluster, peer) = (format!("default=http://127.0.0.1:{peers}"), format!("http://127.0.0.1:{peers}"));
    let flags = ["--initial-cluster", &cluster, "--initial-advertise-peer-urls", &peer];
    let restore = ["snapshot", "restore", &at("ours"), "--data-dir", &at("etcd")];
    etcdctl(&[&restore[..], &flags].concat());
    let (running, theirs) = etcd(&folder.path().join("etcd"), peers).await;
    assert_eq!(seen(&theirs).await, wanted);

    let saved = folder.path().join("theirs");
    let told = backup::run(backup_args(&theirs, saved.clone())).await.expect("saves");
    assert!(told.contains("revision 62"), "{told}");
    drop(running);
    let data = folder.path().join("new");
    restore::run(&restore_args(saved, data.clone())).expect("restores");
    let (tasks, url, _) = member(&data).await;
    assert_eq!(seen(&url).await, wanted);
    stop(tasks).await;
    // What a stopped etcd leaves in its folder has no hash.
    let left = folder.path().join("etcd/member/snap/db");
    let args = restore_args(left, folder.path().join("left"));
    restore::run(&args).expect_err("nobody vouches for it");
    restore::run(&restore::RestoreArgs { skip_hash_check: true, ..args }).expect("restores");
    let (tasks, url, _) = member(&folder.path().join("left")).await;
    assert_eq!(seen(&url).await, wanted);
    stop(tasks).await;
}
