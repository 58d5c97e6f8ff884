//! A server that is asked to stop, as its clients see it.

use super::bad_requests::listening;
use super::{Cli, Fixture, MAPS, map};
use axum::body::Body;
use bytes::Bytes;
use clap::Parser;
use coracle_daemon::Tasks;
use coracle_etcd::Kv;
use coracle_etcd::memory::MemoryKv;
use coracle_etcd::proto::RangeRequest;
use http::{HeaderValue, Request};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::net::TcpStream;

const FLAGS: [&str; 7] = [
    "x",
    "--etcd-servers=http://x",
    "--tls-cert-file=x",
    "--tls-private-key-file=x",
    "--authorization-mode=AlwaysAllow",
    "--shutdown-delay-duration=300ms",
    "--advertise-address=192.0.2.7",
];

/// A connection.
async fn connected(
    port: u16,
    tls: &tokio_rustls::TlsConnector,
    tasks: &Tasks,
) -> std::io::Result<http1::SendRequest<Body>> {
    let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
    let stream = tls.connect(name, tcp).await?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
    tasks.run("client", async move {
        let _ = connection.await;
    });
    Ok(sender)
}

fn request(method: &str, path: &str, body: Body) -> Request<Body> {
    let request = Request::builder().method(method).uri(path).header("host", "localhost");
    request.header("content-type", "application/json").body(body).expect("a request")
}

#[tokio::test]
async fn a_connection_goes_on_after_bodies_that_nobody_wanted() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let (port, tls) = listening(&fixture, folder.path()).await;
    let clients = Tasks::new();
    let mut client = connected(port, &tls, &clients).await.expect("connected");
    // (method, path, code): refused by whom one is, by the path, and answered without a look at the body.
    for (method, path, code) in [
        ("POST", MAPS, 403),
        ("POST", "/api/v1/nowhere", 403),
        ("GET", "/healthz", 200),
        ("POST", "/healthz", 403),
    ] {
        client.ready().await.expect("the same connection");
        let body = Body::from(vec![b'x'; 1 << 20]);
        let response = client.send_request(request(method, path, body)).await.expect("an answer");
        assert_eq!(response.status(), code, "{method} {path}");
        response.into_body().collect().await.expect("a body");
    }
    drop(client);
    clients.stop_within(Duration::from_secs(5)).await.expect("a clean stop");
    fixture.stop().await;
}

#[tokio::test]
async fn a_stop_fails_readiness_first_then_finishes_what_runs_and_ends_watches_cleanly() {
    let kv = MemoryKv::default();
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = folder.path().join("tokens");
    std::fs::write(&tokens, "secret,somebody,1\n").expect("written");
    let mut flags: Vec<String> = FLAGS[4..].iter().map(ToString::to_string).collect();
    flags.push(format!("--token-auth-file={}", tokens.display()));
    let fixture = Fixture::flagged(&kv, &flags).await;
    let request = |method: &str, path: &str, body: Body| {
        let mut request = request(method, path, body);
        request.headers_mut().insert("authorization", HeaderValue::from_static("Bearer secret"));
        request
    };
    let (port, tls) = listening(&fixture, folder.path()).await;
    let clients = Tasks::new();
    let client = async || connected(port, &tls, &clients).await;

    let mut watcher = client().await.expect("connected");
    let watch = watcher.send_request(request("GET", &format!("{MAPS}?watch=1"), Body::empty()));
    let mut watch = watch.await.expect("a watch").into_body();
    // A body of which the end is still to come.
    let mut rest = Bytes::from(map("late", "1").to_string());
    let half = rest.split_to(20);
    let (more, body) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
    more.send(half).expect("a reader");
    let frames = futures::stream::unfold(body, |mut body| async move {
        let next = body.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(Frame::data(next)), body))
    });
    let mut poster = client().await.expect("connected");
    let posted = poster.send_request(request("POST", MAPS, Body::new(StreamBody::new(frames))));
    let mut prober = client().await.expect("connected");

    let args = Cli::parse_from(FLAGS).args;
    fixture.tasks.before_stop(fixture.server.clone().drain(args));
    let stopping = async {
        fixture.tasks.prepare_stop().await;
        assert!(client().await.is_err(), "nobody listens any more");
        fixture.tasks.stop_within(Duration::from_secs(5)).await.expect("a clean stop");
    };
    let seen = async {
        let readyz = prober.send_request(request("GET", "/readyz", Body::empty())).await.expect("an answer");
        assert_eq!(readyz.status(), 500);
        let told = readyz.into_body().collect().await.expect("a body").to_bytes();
        assert!(String::from_utf8_lossy(&told).contains("[-]shutdown failed"), "{told:?}");
        let mut alone = client().await.expect("still listening");
        let why = alone.send_request(request("GET", "/readyz/shutdown", Body::empty())).await;
        let why = why.expect("an answer").into_body().collect().await.expect("a body").to_bytes();
        assert_eq!(why, "internal server error: process is shutting down\n");
        // It lives, and serves whoever has not taken notice.
        let mut late = client().await.expect("still listening");
        let livez = late.send_request(request("GET", "/livez", Body::empty())).await.expect("an answer");
        assert_eq!(livez.status(), 200);
        // Watches end between two frames, with no error; the request that runs is answered.
        while let Some(frame) = watch.frame().await {
            frame.expect("a clean end");
        }
        more.send(rest).expect("a reader");
        drop(more);
    };
    let (posted, (), ()) = tokio::join!(posted, seen, stopping);
    assert_eq!(posted.expect("an answer").status(), 201);
    let key = Bytes::from_static(b"/registry/masterleases/192.0.2.7:6443");
    let left = kv.range(RangeRequest { key, ..RangeRequest::default() }).await.expect("the store");
    assert!(left.kvs.is_empty(), "its address is withdrawn");
}
