//! exec and attach.

use super::{Spdy, get, websocket};
use crate::runtime::simulated::NO_CONTAINERS;
use crate::streaming::spdy::Frame;
use crate::streaming::testing::{kubelet, soon};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";

fn path(streams: &str, script: &str) -> String {
    let command: String = url::form_urlencoded::byte_serialize(script.as_bytes()).collect();
    format!("/exec/ns/p/c?{streams}&command=sh&command=-c&command={command}")
}

/// All channels' bytes, up to a clean close.
async fn channels(socket: &mut WebSocketStream<TcpStream>) -> BTreeMap<u8, Vec<u8>> {
    let mut channels: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
    loop {
        match soon("a message", socket.next()).await.unwrap().unwrap() {
            Message::Binary(bytes) => channels.entry(bytes[0]).or_default().extend(&bytes[1..]),
            Message::Text(text) => {
                channels.entry(text.as_bytes()[0]).or_default().extend(&text.as_bytes()[1..]);
            }
            Message::Close(close) => {
                assert_eq!(u16::from(close.unwrap().code), 1000);
                return channels;
            }
            _ => {}
        }
    }
}

fn status(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[tokio::test]
async fn a_command_tells_its_output_and_exit_code_over_a_websocket() {
    let kubelet = kubelet(false).await;
    let mut socket =
        websocket(&kubelet, &path("output=1&error=1", "echo out; echo err >&2; exit 3"), V4).await;
    let channels = channels(&mut socket).await;
    assert_eq!((&*channels[&1], &*channels[&2]), (&b"out\n"[..], &b"err\n"[..]));
    let status = status(&channels[&3]);
    assert_eq!((&status["status"], &status["reason"]), (&json!("Failure"), &json!("NonZeroExitCode")));
    assert_eq!(status["details"]["causes"], json!([{ "reason": "ExitCode", "message": "3" }]));
}

#[tokio::test]
async fn input_ends_when_the_client_says_so() {
    let kubelet = kubelet(false).await;
    let mut socket = websocket(&kubelet, &path("input=1&output=1", "cat; echo done"), V5).await;
    for message in [&b"\x00some "[..], b"\x00bytes\n", b"\xff\x00"] {
        socket.send(Message::binary(message.to_vec())).await.unwrap();
    }
    let channels = channels(&mut socket).await;
    assert_eq!(channels[&1], b"some bytes\ndone\n");
    assert_eq!(status(&channels[&3])["status"], "Success");
}

#[tokio::test]
async fn much_output_arrives_whole() {
    let kubelet = kubelet(false).await;
    let mut socket = websocket(&kubelet, &path("output=1", "head -c 3000000 /dev/zero"), V5).await;
    assert_eq!(channels(&mut socket).await[&1].len(), 3_000_000);
    let mut spdy = Spdy::connect(&kubelet, &path("output=1", "head -c 3000000 /dev/zero"), V4).await;
    let streams = [spdy.open(&[("streamtype", "error")]).await, spdy.open(&[("streamtype", "stdout")]).await];
    assert_eq!(spdy.until_ended(&streams).await.data[&streams[1]].len(), 3_000_000);
}

#[tokio::test]
async fn base64_and_the_oldest_protocol_are_spoken() {
    let kubelet = kubelet(false).await;
    let script = path("output=1", "printf hi; exit 1");
    let mut socket = websocket(&kubelet, &script, "v4.base64.channel.k8s.io").await;
    let told = channels(&mut socket).await;
    assert_eq!(told[&b'1'], b"aGk=");
    let mut socket = websocket(&kubelet, &script, "channel.k8s.io").await;
    let told = channels(&mut socket).await;
    assert!(told[&3].starts_with(b"command terminated with non-zero exit code"));
}

#[tokio::test]
async fn a_terminal_is_resized_and_has_no_stderr() {
    let kubelet = kubelet(false).await;
    let mut socket = websocket(&kubelet, &path("input=1&output=1&error=1&tty=1", "cat"), V5).await;
    for message in [&b"\x04{\"Width\":80,\"Height\":24}"[..], b"\x00x", b"\xff\x00"] {
        socket.send(Message::binary(message.to_vec())).await.unwrap();
    }
    assert_eq!(channels(&mut socket).await[&1], b"x");
    assert_eq!(*kubelet.runtime.sizes.lock(), [(80, 24)]);
}

#[tokio::test]
async fn a_command_that_cannot_start_is_an_error_of_the_session() {
    let kubelet = kubelet(false).await;
    let mut socket = websocket(&kubelet, "/exec/ns/p/c?output=1&command=/no/such/program", V5).await;
    let status = status(&channels(&mut socket).await[&3]);
    assert_eq!((&status["reason"], &status["code"]), (&json!("InternalError"), &json!(500)));
    assert!(status["message"].as_str().unwrap().contains("/no/such/program"), "{status}");
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_command_along() {
    let mut kubelet = kubelet(false).await;
    let script = path("output=1", "echo started; exec sleep 1000");
    let mut socket = websocket(&kubelet, &script, V5).await;
    while soon("output", socket.next()).await.unwrap().unwrap().into_data() != b"\x01started\n"[..] {}
    drop(socket);
    soon("the end of the command", kubelet.dropped.recv()).await;
    let mut spdy = Spdy::connect(&kubelet, &script, V4).await;
    spdy.open(&[("streamtype", "error")]).await;
    spdy.open(&[("streamtype", "stdout")]).await;
    while !matches!(spdy.next().await, Some(Frame::Data { .. })) {}
    drop(spdy);
    soon("the end of the command", kubelet.dropped.recv()).await;
}

#[tokio::test]
async fn a_command_has_streams_of_its_own_over_spdy() {
    let kubelet = kubelet(false).await;
    let script = path("input=1&output=1&error=1", "cat; echo err >&2; exit 7");
    let mut spdy = Spdy::connect(&kubelet, &script, V4).await;
    let error = spdy.open(&[("streamtype", "error")]).await;
    let stdin = spdy.open(&[("streamtype", "stdin")]).await;
    let stdout = spdy.open(&[("streamtype", "stdout")]).await;
    let stderr = spdy.open(&[("streamtype", "stderr")]).await;
    spdy.say(&Frame::Ping(1)).await;
    spdy.data(stdin, b"some bytes", true).await;
    let seen = spdy.until_ended(&[error, stdout, stderr]).await;
    assert_eq!((seen.text(stdout).as_str(), seen.text(stderr).as_str()), ("some bytes", "err\n"));
    assert_eq!(status(&seen.data[&error])["details"]["causes"][0]["message"], "7");
    assert_eq!(spdy.next().await, Some(Frame::GoAway { last: stderr, status: 0 }));
    assert_eq!(spdy.next().await, None);
}

#[tokio::test]
async fn a_terminal_is_resized_over_spdy() {
    let kubelet = kubelet(false).await;
    let mut spdy = Spdy::connect(&kubelet, &path("input=1&output=1&tty=1", "cat"), V4).await;
    let mut streams = Vec::new();
    for kind in ["error", "stdin", "stdout", "resize"] {
        streams.push(spdy.open(&[("streamtype", kind)]).await);
    }
    spdy.data(streams[3], b"{\"Width\":132,\"Height\":43}\n", false).await;
    spdy.say(&Frame::Ping(5)).await;
    while spdy.next().await != Some(Frame::Ping(5)) {}
    let resized = async {
        while kubelet.runtime.sizes.lock().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    soon("the size", resized).await;
    spdy.data(streams[1], b"x", true).await;
    assert_eq!(spdy.until_ended(&[streams[0], streams[2]]).await.text(streams[2]), "x");
    assert_eq!(*kubelet.runtime.sizes.lock(), [(132, 43)]);
}

#[tokio::test]
async fn an_attachment_ends_well_whatever_the_exit_code() {
    let kubelet = kubelet(false).await;
    let mut socket = websocket(&kubelet, "/attach/ns/p/c?input=1&output=1", V5).await;
    for message in [&b"\x00hello"[..], b"\xff\x00"] {
        socket.send(Message::binary(message.to_vec())).await.unwrap();
    }
    let channels = channels(&mut socket).await;
    assert_eq!(channels[&1], b"hello");
    assert_eq!(status(&channels[&3])["status"], "Success");
}

#[tokio::test]
async fn what_can_be_refused_is_refused_before_the_upgrade() {
    let kubelet = kubelet(false).await;
    let upgrade = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "v9")];
    let rows = [
        ("/exec/ns/none/c?output=1&command=a", 404, "pod does not exist"),
        ("/exec/ns/p/none?output=1&command=a", 500, "container not found (\"none\")"),
        ("/exec/ns/p/old?output=1&command=a", 500, "container is in CONTAINER_EXITED state"),
        ("/exec/ns/p/c?command=a", 400, "you must specify at least 1 of stdin, stdout, stderr"),
        ("/exec/ns/p/c?output=1", 400, "you must specify a command"),
        (
            "/attach/ns/p/c?output=1",
            403,
            "unable to negotiate protocol: client supports [v9], server accepts [v4.channel.k8s.io v3.channel.k8s.io v2.channel.k8s.io channel.k8s.io]",
        ),
        ("/portForward/ns/none", 404, "pod does not exist"),
    ];
    for (path, code, text) in rows {
        assert_eq!(get(&kubelet, path, &upgrade).await, (code, text.to_owned()), "{path}");
    }
    let plain = get(&kubelet, "/exec/ns/p/c?output=1&command=a", &[]).await;
    assert_eq!(plain, (400, "unable to upgrade: missing upgrade headers in request".to_owned()));
}

#[tokio::test]
async fn a_simulated_node_has_nothing_to_enter() {
    let kubelet = kubelet(true).await;
    let told = NO_CONTAINERS;
    assert!(!told.contains(": "), "YAML, which kubectl takes for a Status without a message");
    for path in ["/exec/ns/p/c?output=1&command=a", "/attach/ns/p/c?output=1", "/portForward/ns/p"] {
        assert_eq!(get(&kubelet, path, &[]).await, (501, told.to_owned()));
    }
    assert_eq!(get(&kubelet, "/containerLogs/ns/p/c", &[]).await, (200, String::new()));
}
