//! Watches over WebSockets: one event a message.

use super::{Fixture, MAPS, map};
use axum::body::Body;
use coracle_etcd::memory::MemoryKv;
use futures::StreamExt;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::convert::Infallible;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

/// Asks for a path with these headers over a connection of its own: it, and the head of the answer in small letters.
async fn asked(fixture: &Fixture, path: &str, headers: &[&str]) -> (DuplexStream, String) {
    let (mut near, far) = tokio::io::duplex(1 << 16);
    let (server, admin) = (fixture.server.clone(), fixture.admin.clone());
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (server, admin) = (server.clone(), admin.clone());
        async move { Ok::<_, Infallible>(server.answer(Some(admin), request.map(Body::new)).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), service);
    fixture.tasks.run("connection", async move {
        let _ = connection.with_upgrades().await;
    });
    let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{}\r\n\r\n", headers.join("\r\n"));
    near.write_all(head.as_bytes()).await.expect("written");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(near.read_u8().await.expect("head"));
    }
    (near, String::from_utf8(answer).expect("text").to_lowercase())
}

const HANDSHAKE: [&str; 5] = [
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Origin: http://localhost",
];

async fn message(socket: &mut WebSocketStream<DuplexStream>) -> Message {
    let next = tokio::time::timeout(Duration::from_secs(5), socket.next()).await.expect("in time");
    next.expect("a message").expect("read")
}

#[tokio::test]
async fn each_event_is_a_message_until_the_watch_ends() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    for name in ["a", "b"] {
        fixture.call("POST", MAPS, map(name, "1")).await;
    }
    let path = format!("{MAPS}?watch=1&resourceVersion=0&timeoutSeconds=1&labelSelector=v%3D1");
    let (stream, head) = asked(&fixture, &path, &HANDSHAKE).await;
    assert!(head.starts_with("http/1.1 101"), "{head}");
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
    for name in ["a", "b"] {
        let Message::Text(text) = message(&mut socket).await else { panic!("a text") };
        let event: Value = serde_json::from_str(&text).expect("one event");
        assert_eq!(
            (event["type"].as_str(), event["object"]["metadata"]["name"].as_str()),
            (Some("ADDED"), Some(name))
        );
    }
    let Message::Close(Some(end)) = message(&mut socket).await else { panic!("an end in good order") };
    assert_eq!(u16::from(end.code), 1000);
    drop(socket);

    // Protobuf comes in bytes, without the length that stands before each event elsewhere.
    let accept = "Accept: application/vnd.kubernetes.protobuf;stream=watch";
    let (stream, head) =
        asked(&fixture, &path, &[&HANDSHAKE[..], &[accept, "Sec-WebSocket-Protocol: mine"]].concat()).await;
    assert!(head.contains("sec-websocket-protocol: mine"), "{head}");
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
    for _ in ["a", "b"] {
        let Message::Binary(bytes) = message(&mut socket).await else { panic!("bytes") };
        assert!(bytes.starts_with(b"\x0a\x05ADDED"), "{bytes:?}");
    }
    drop(socket);
    fixture.stop().await;
}

#[tokio::test]
async fn what_is_no_handshake_is_refused_and_what_asks_for_none_is_a_plain_watch() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let path = format!("{MAPS}?watch=1&timeoutSeconds=1");
    let without =
        |left: &str| -> Vec<&str> { HANDSHAKE.into_iter().filter(|line| !line.starts_with(left)).collect() };
    for (headers, code) in [
        (without("Origin"), 403),
        (without("Sec-WebSocket-Version"), 400),
        (without("Sec-WebSocket-Key"), 400),
        ([&HANDSHAKE[..], &["Sec-WebSocket-Protocol: a, b"]].concat(), 400),
        (without("Upgrade"), 200),
    ] {
        let (_, head) = asked(&fixture, &path, &headers).await;
        assert!(head.starts_with(&format!("http/1.1 {code}")), "{headers:?}: {head}");
    }
    fixture.stop().await;
}
