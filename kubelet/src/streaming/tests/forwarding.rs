//! Port-forward.

use super::{Spdy, get, websocket};
use crate::streaming::testing::{Kubelet, kubelet, soon};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

/// A server in the pod: it answers everything, once it has ended, in capitals.
async fn shouting(kubelet: &Kubelet) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    kubelet.tasks.run("server in the pod", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            stream.write_all(text.to_uppercase().as_bytes()).await.unwrap();
        }
    });
    port
}

/// A port on which nobody listens.
async fn closed() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

async fn pair(spdy: &mut Spdy, port: u16, request: &str) -> (u32, u32) {
    let port = port.to_string();
    let headers = |kind| [("streamtype", kind), ("port", port.as_str()), ("requestid", request)];
    let error = spdy.open(&headers("error")).await;
    (error, spdy.open(&headers("data")).await)
}

async fn forwards(kubelet: &Kubelet, spdy: &mut Spdy) {
    let port = shouting(kubelet).await;
    // Two at a time, whose bytes come interleaved.
    let (one, two) = (pair(spdy, port, "0").await, pair(spdy, port, "1").await);
    spdy.data(one.0, b"", true).await;
    spdy.data(two.0, b"", true).await;
    spdy.data(one.1, b"first ", false).await;
    spdy.data(two.1, b"second", true).await;
    spdy.data(one.1, b"one", true).await;
    let seen = spdy.until_ended(&[one.0, one.1, two.0, two.1]).await;
    assert_eq!((seen.text(one.1).as_str(), seen.text(two.1).as_str()), ("FIRST ONE", "SECOND"));
    assert_eq!((seen.text(one.0).as_str(), seen.text(two.0).as_str()), ("", ""));

    let nobody = closed().await;
    let (error, data) = pair(spdy, nobody, "2").await;
    let seen = spdy.until_ended(&[error, data]).await;
    let told = format!("error forwarding port {nobody} to pod p, uid u: cannot connect to port {nobody}: ");
    assert!(seen.text(error).starts_with(&told), "{}", seen.text(error));

    // Old clients name no request.
    let port = port.to_string();
    let error = spdy.open(&[("streamtype", "error"), ("port", &port)]).await;
    let data = spdy.open(&[("streamtype", "data"), ("port", &port)]).await;
    spdy.data(data, b"old", true).await;
    assert_eq!(spdy.until_ended(&[error, data]).await.text(data), "OLD");
}

#[tokio::test]
async fn connections_share_one_of_spdy() {
    let kubelet = kubelet(false).await;
    let mut spdy = Spdy::connect(&kubelet, "/portForward/ns/p", "portforward.k8s.io").await;
    forwards(&kubelet, &mut spdy).await;
}

#[tokio::test]
async fn spdy_may_come_in_a_websocket() {
    let kubelet = kubelet(false).await;
    let socket = websocket(&kubelet, "/portForward/ns/p", "SPDY/3.1+portforward.k8s.io").await;
    let (mut sink, mut stream) = socket.split();
    let (near, far) = tokio::io::duplex(1 << 16);
    let (mut from, mut to) = tokio::io::split(far);
    kubelet.tasks.run("to the server", async move {
        let mut buffer = vec![0; 5];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            sink.send(Message::binary(buffer[..read].to_vec())).await.unwrap();
        }
    });
    kubelet.tasks.run("from the server", async move {
        while let Some(Ok(message)) = stream.next().await {
            to.write_all(&message.into_data()).await.unwrap();
        }
    });
    forwards(&kubelet, &mut Spdy::over(near)).await;
}

#[tokio::test]
async fn a_websocket_has_two_channels_for_each_port() {
    let kubelet = kubelet(false).await;
    let (listener, nobody) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), closed().await);
    let port = listener.local_addr().unwrap().port();
    let path = format!("/portForward/ns/p?port={port}&port={nobody}");
    let mut socket = websocket(&kubelet, &path, "v4.channel.k8s.io").await;
    socket.send(Message::binary(b"\x00hello".to_vec())).await.unwrap();
    let (mut server, _) = soon("a connection", listener.accept()).await.unwrap();
    let mut heard = [0; 5];
    soon("the client's bytes", server.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"hello");
    server.write_all(b"bye").await.unwrap();
    drop(server);
    let mut told = vec![Vec::new(); 4];
    while let Message::Binary(bytes) = soon("a message", socket.next()).await.unwrap().unwrap() {
        told[usize::from(bytes[0])].extend(&bytes[1..]);
    }
    let opening = |port: u16| port.to_le_bytes().to_vec();
    assert_eq!(told[0], [opening(port), b"bye".to_vec()].concat());
    assert_eq!((&told[1], &told[2]), (&opening(port), &opening(nobody)));
    assert!(String::from_utf8_lossy(&told[3][2..]).starts_with("error forwarding port"));
}

#[tokio::test]
async fn ports_of_a_websocket_are_checked() {
    let kubelet = kubelet(false).await;
    let headers = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "x"),
        ("sec-websocket-protocol", "v4.channel.k8s.io"),
    ];
    for (query, text) in [
        ("", "query parameter \"port\" is required"),
        ("?port=0", "invalid port \"0\""),
        ("?port=80,x", "invalid port \"x\""),
    ] {
        let path = format!("/portForward/ns/p{query}");
        assert_eq!(get(&kubelet, &path, &headers).await, (400, text.to_owned()));
    }
}
