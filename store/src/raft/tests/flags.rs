//! Members started as the flags say, with certificates.

use super::*;
use crate::Args;
use crate::raft::{StartError, start};
use clap::Parser;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    args: Args,
}

/// A certificate authority, and a certificate of it for loopback.
fn certificates(folder: &Path) {
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::new(Vec::new()).expect("parameters");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).expect("signs").pem();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().expect("a key");
    let cert = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
    let cert = cert.signed_by(&key, &issuer).expect("signs").pem();
    for (name, text) in [("ca.crt", ca_pem), ("peer.crt", cert), ("peer.key", key.serialize_pem())] {
        std::fs::write(folder.join(name), text).expect("writes");
    }
}

fn args(folder: &Path, at: usize, ports: &[u16], more: &[&str]) -> Args {
    let url = |port: &u16| format!("https://127.0.0.1:{port}");
    let cluster: Vec<String> =
        ports.iter().enumerate().map(|(at, port)| format!("m{at}={}", url(port))).collect();
    let file = |name: &str| folder.join(name).display().to_string();
    let mut flags = vec!["store".to_owned(), "--peer-client-cert-auth".to_owned()];
    for (flag, value) in [
        ("name", format!("m{at}")),
        ("data-dir", file(&format!("m{at}"))),
        ("listen-peer-urls", url(&ports[at])),
        ("initial-advertise-peer-urls", url(&ports[at])),
        ("initial-cluster", cluster.join(",")),
        ("peer-cert-file", file("peer.crt")),
        ("peer-key-file", file("peer.key")),
        ("peer-trusted-ca-file", file("ca.crt")),
        ("heartbeat-interval", "150".to_owned()),
        ("election-timeout", "500".to_owned()),
    ] {
        flags.push(format!("--{flag}={value}"));
    }
    flags.extend(more.iter().map(|&flag| flag.to_owned()));
    Program::try_parse_from(flags).expect("flags").args
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn members_with_certificates_form_a_cluster_and_refuse_whoever_has_none() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().expect("folder");
    certificates(folder.path());
    let ports: Vec<u16> = (0..3).map(|_| NEXT_PORT.fetch_add(1, Ordering::Relaxed)).collect();
    let mut members = Vec::new();
    for at in 0..3 {
        let tasks = Tasks::new();
        let shared = Shared::new(Machine::new());
        let node = start(&args(folder.path(), at, &ports, &[]), shared, &tasks).await.expect("starts");
        members.push((node, tasks));
    }
    let put = |key: &str| {
        Op::Put(PutRequest { key: key.to_owned().into(), value: "v".into(), ..Default::default() })
    };
    for (at, (node, _)) in members.iter().enumerate() {
        node.commit(put(&at.to_string())).await.expect("commits");
        node.read_barrier().await.expect("reads");
    }
    // Without a certificate, and without TLS.
    let stranger = coracle_etcd::channel::client_tls(&folder.path().join("ca.crt"), None).expect("TLS");
    for (scheme, tls) in [("https", Some(stranger)), ("http", None)] {
        let url = format!("{scheme}://127.0.0.1:{}", ports[0]);
        let channel = crate::raft::peers::channel(&url, tls.as_ref(), None).expect("a channel");
        let mut client = crate::raft::wire::peer_client::PeerClient::new(channel);
        client.members(crate::raft::wire::MembersRequest {}).await.expect_err("refused");
    }
    let failed = &members[0].0.metrics().peer_handshakes_failed;
    eventually_async(|| failed.get() >= 2).await;
    // With another authority's certificates in their files, two members find together again once they have met anew.
    certificates(folder.path());
    let (node, tasks) = members.remove(0);
    tasks.stop_within(Duration::from_secs(10)).await.expect("stops");
    drop(node);
    members.insert(0, started_again(&args(folder.path(), 0, &ports, &[])).await);
    let (again, _) = &members[0];
    again.commit(put("renewed")).await.expect("commits");
    again.read_barrier().await.expect("reads");
    // A member whose data is gone must not begin anew.
    let (node, tasks) = members.pop().expect("three");
    eventually_async(|| node.members().iter().all(|member| !member.client_urls.is_empty())).await;
    tasks.stop_within(Duration::from_secs(10)).await.expect("stops");
    drop(node);
    std::fs::rename(folder.path().join("m2"), folder.path().join("lost")).expect("moves");
    let again = start(&args(folder.path(), 2, &ports, &[]), Shared::new(Machine::new()), &Tasks::new()).await;
    assert!(matches!(again, Err(StartError::Bootstrapped { .. })), "{again:?}");
    for (_, tasks) in members {
        tasks.stop_within(Duration::from_secs(10)).await.expect("stops");
    }
}

/// Starts a member once its folder is free of the one before.
async fn started_again(args: &Args) -> (Arc<Node>, Tasks) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let tasks = Tasks::new();
        match start(args, Shared::new(Machine::new()), &tasks).await {
            Ok(node) => return (node, tasks),
            Err(StartError::Folder { .. }) if Instant::now() < deadline => {
                coracle_daemon::clock::sleep(Duration::from_millis(10)).await;
            }
            Err(error) => panic!("it does not start again: {error}"),
        }
    }
}

async fn eventually_async(look: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !look() {
        assert!(Instant::now() < deadline, "never");
        coracle_daemon::clock::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn flags_that_contradict_each_other_are_refused() {
    let folder = tempfile::tempdir().expect("folder");
    certificates(folder.path());
    for (more, complaint) in [
        ("--name=other", "no member named \"other\""),
        (
            "--initial-advertise-peer-urls=https://127.0.0.1:9",
            "--initial-advertise-peer-urls is https://127.0.0.1:9",
        ),
        ("--initial-cluster=nonsense", "no NAME=URL"),
        ("--election-timeout=160", "at least three times"),
    ] {
        let flags: Vec<&str> = vec![more];
        let parsed = overriding(folder.path(), &flags);
        let refused = start(&parsed, Shared::new(Machine::new()), &Tasks::new()).await.expect_err(more);
        assert!(refused.to_string().contains(complaint), "{more}: {refused}");
    }
}

/// Flags of which the last one wins.
fn overriding(folder: &Path, more: &[&str]) -> Args {
    let name = more[0].split_once('=').expect("a value").0.to_owned();
    let port = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
    let mut parsed = args(folder, 0, &[port], &[]);
    let value = more[0].split_once('=').expect("a value").1.to_owned();
    match name.as_str() {
        "--name" => parsed.name = value,
        "--initial-advertise-peer-urls" => parsed.initial_advertise_peer_urls = vec![value],
        "--initial-cluster" => parsed.initial_cluster = vec![value],
        _ => parsed.election_timeout = value.parse().expect("a number"),
    }
    parsed
}
