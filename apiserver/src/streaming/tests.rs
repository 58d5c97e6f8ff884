//! A client, this server and a kubelet on loopback, with real TLS: logs, errors, and an upgrade both ways.

use super::*;
use crate::outbound::fake;
use crate::reader::fake::Fake;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use std::net::SocketAddr;
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the fake kubelet answers: its path, an error, or after an upgrade every byte again.
async fn kubelet_answers(
    mut request: Request<hyper::body::Incoming>,
    tasks: Tasks,
) -> Result<Response<Body>, http::Error> {
    assert!(!request.headers().contains_key("authorization"), "credentials must stay at the apiserver");
    if request.headers().contains_key("upgrade") {
        let upgraded = hyper::upgrade::on(&mut request);
        tasks.run("echo", async move {
            let mut stream = TokioIo::new(upgraded.await.expect("upgraded"));
            let mut bytes = [0; 5];
            stream.read_exact(&mut bytes).await.expect("read");
            stream.write_all(&bytes).await.expect("written");
        });
        let protocol = request.headers()["sec-websocket-protocol"].clone();
        return Response::builder()
            .status(101)
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-protocol", protocol)
            .body(Body::empty());
    }
    let path = request.uri().to_string();
    if path.contains("/waiting") {
        return Response::builder().status(400).body(Body::from("container is waiting to start"));
    }
    Response::builder().header("content-type", "text/plain").body(Body::from(path))
}

async fn start_kubelet(folder: &Path, tasks: &Tasks) -> SocketAddr {
    let identity = Identity { cert: folder.join("cert.pem"), key: folder.join("key.pem") };
    let acceptor = tls::server(&identity, None, &[]).expect("tls");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("address");
    let own = tasks.clone();
    tasks.run("kubelet", async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(tcp).await else { continue };
            let tasks = own.clone();
            let service = service_fn(move |request| kubelet_answers(request, tasks.clone()));
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            own.run("kubelet connection", async move {
                let _ = connection.with_upgrades().await;
            });
        }
    });
    address
}

struct World {
    streaming: Arc<Streaming>,
    tasks: Tasks,
    _folder: tempfile::TempDir,
}

async fn world() -> World {
    let folder = tempfile::tempdir().expect("folder");
    fake::certificates(folder.path());
    let tasks = Tasks::new();
    let kubelet = start_kubelet(folder.path(), &tasks).await;
    let pod = |name: &str, node: &str| json!({"metadata": {"namespace": "a", "name": name}, "spec": {"nodeName": node, "containers": [{"name": "c"}]}});
    let fake = Fake::with([
        ("", "pods", pod("p", "n1")),
        ("", "pods", pod("waiting", "n1")),
        ("", "pods", pod("unbound", "")),
        ("", "pods", pod("down", "n2")),
        (
            "",
            "nodes",
            json!({"metadata": {"name": "n1"}, "status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}], "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet.port()}}}}),
        ),
        (
            "",
            "nodes",
            json!({"metadata": {"name": "n2"}, "status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}], "daemonEndpoints": {"kubeletEndpoint": {"Port": 1}}}}),
        ),
    ]);
    let args = StreamingArgs {
        kubelet_certificate_authority: Some(folder.path().join("ca.pem")),
        kubelet_preferred_address_types: vec!["InternalIP".to_owned()],
        ..StreamingArgs::default()
    };
    let streaming = Streaming::new(&args, fake.clone(), fake, tasks.clone()).expect("streaming");
    World { streaming: Arc::new(streaming), tasks, _folder: folder }
}

fn info(name: &str, subresource: &str) -> RequestInfo {
    RequestInfo {
        is_resource: true,
        namespace: "a".into(),
        resource: "pods".into(),
        name: name.into(),
        subresource: subresource.into(),
        ..RequestInfo::default()
    }
}

async fn ask(world: &World, name: &str, subresource: &str, query: &str) -> Result<String, Status> {
    let request = Request::get(format!("/?{query}"))
        .header("authorization", "Bearer x")
        .body(Body::empty())
        .expect("request");
    let response = world.streaming.proxy(&info(name, subresource), request).await?;
    let bytes = axum::body::to_bytes(response.into_body(), 4096).await.expect("body");
    Ok(String::from_utf8(bytes.to_vec()).expect("text"))
}

#[tokio::test]
async fn logs_come_from_the_kubelet_of_the_pods_node() {
    let world = world().await;
    assert_eq!(
        ask(&world, "p", "log", "tailLines=5").await.expect("log"),
        "/containerLogs/a/p/c?tailLines=5"
    );
    assert_eq!(ask(&world, "unbound", "log", "").await.expect("nothing yet"), "");
    let waiting = ask(&world, "waiting", "log", "").await.expect_err("waiting");
    assert_eq!(
        (waiting.code, waiting.reason.as_str(), waiting.message.as_str()),
        (400, "BadRequest", "container is waiting to start")
    );
    assert_eq!(ask(&world, "none", "log", "").await.expect_err("none").message, r#"pods "none" not found"#);
    let down = ask(&world, "down", "log", "").await.expect_err("down");
    assert!(
        down.code == 500
            && down
                .message
                .starts_with("Get \"https://127.0.0.1:1/containerLogs/a/down/c\": dial tcp 127.0.0.1:1: "),
        "{}",
        down.message
    );
    assert_eq!(
        ask(&world, "unbound", "exec", "command=sh").await.expect_err("unbound").message,
        "pod unbound does not have a host assigned"
    );
    assert_eq!(ask(&world, "p", "attach", "stdout=1").await.expect("relayed"), "/attach/a/p/c?output=1");
}

/// A connection that asks for an upgrade, and the head of the answer, in small letters.
async fn upgraded(world: &World, subresource: &'static str, asks: &str) -> (TcpStream, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("address");
    let streaming = world.streaming.clone();
    world.tasks.run("front", async move {
        let (tcp, _) = listener.accept().await.expect("accepted");
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            let streaming = streaming.clone();
            async move {
                Ok::<_, std::convert::Infallible>(
                    streaming.proxy(&info("p", subresource), request.map(Body::new)).await.expect("relayed"),
                )
            }
        });
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(tcp), service)
            .with_upgrades()
            .await;
    });
    let mut client = TcpStream::connect(address).await.expect("connected");
    let request = format!(
        "GET {asks}\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nAuthorization: Bearer x\r\n\r\n"
    );
    client.write_all(request.as_bytes()).await.expect("written");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.expect("head"));
    }
    (client, String::from_utf8(head).expect("text").to_lowercase())
}

#[tokio::test]
async fn an_upgrade_becomes_a_tunnel() {
    let world = world().await;
    let asks = "/?command=cat&stdin=1 HTTP/1.1\r\nSec-WebSocket-Protocol: v5.channel.k8s.io";
    let (mut client, head) = upgraded(&world, "exec", asks).await;
    assert!(
        head.starts_with("http/1.1 101") && head.contains("sec-websocket-protocol: v5.channel.k8s.io"),
        "{head}"
    );
    client.write_all(b"hello").await.expect("written");
    let mut echoed = String::new();
    client.read_to_string(&mut echoed).await.expect("the tunnel ends with the kubelet's side");
    assert_eq!(echoed, "hello");
}

#[tokio::test]
async fn a_log_comes_in_messages_to_who_asks_for_a_websocket() {
    let world = world().await;
    for (protocol, kind, text) in [
        ("", 0x82, "/containerLogs/a/p/c?tailLines=5"),
        ("binary.k8s.io", 0x82, "/containerLogs/a/p/c?tailLines=5"),
        ("base64.binary.k8s.io", 0x81, "L2NvbnRhaW5lckxvZ3MvYS9wL2M/dGFpbExpbmVzPTU="),
    ] {
        let named = if protocol.is_empty() {
            String::new()
        } else {
            format!("\r\nSec-WebSocket-Protocol: {protocol}")
        };
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13";
        let asks = format!("/?tailLines=5 HTTP/1.1\r\n{key}{named}");
        let (mut client, head) = upgraded(&world, "log", &asks).await;
        assert!(head.starts_with("http/1.1 101") && head.contains("s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
        assert_eq!(head.contains("sec-websocket-protocol"), !protocol.is_empty(), "{head}");
        // An empty message, the log, the end with its code, 1000.
        let length = u8::try_from(text.len()).expect("short");
        let wanted = [&[kind, 0, kind, length], text.as_bytes(), &[0x88, 2, 3, 232]].concat();
        let mut told = vec![0; wanted.len()];
        client.read_exact(&mut told).await.expect("messages");
        assert_eq!(told, wanted, "{protocol}");
    }
}
