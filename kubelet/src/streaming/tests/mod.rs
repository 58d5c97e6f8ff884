//! Clients and a kubelet's server on loopback: what Kubernetes' clients do, over each of their protocols.

mod forwarding;
mod logging;
mod sessions;

use super::spdy::{Decoder, Encoder, Frame, read, write};
use super::testing::{Kubelet, soon};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// Sends a request and reads the answer's head; the connection lives on in a task.
async fn send(
    kubelet: &Kubelet,
    path: &str,
    headers: &[(&str, &str)],
) -> hyper::Response<hyper::body::Incoming> {
    let stream = TcpStream::connect(kubelet.address).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    kubelet.tasks.run("client", async move {
        let _ = connection.with_upgrades().await;
    });
    let mut request = hyper::Request::builder().uri(path).header("host", "kubelet");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    soon("an answer", sender.send_request(request)).await.unwrap()
}

/// The answer's status and text.
async fn get(kubelet: &Kubelet, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let response = send(kubelet, path, headers).await;
    let status = response.status().as_u16();
    let body = soon("a body", response.into_body().collect()).await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// A WebSocket with this subprotocol.
async fn websocket(kubelet: &Kubelet, path: &str, protocol: &'static str) -> WebSocketStream<TcpStream> {
    let mut request = format!("ws://{}{path}", kubelet.address).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
    let stream = TcpStream::connect(kubelet.address).await.unwrap();
    let (socket, response) =
        soon("a WebSocket", tokio_tungstenite::client_async(request, stream)).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], protocol);
    socket
}

trait Both: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Both for T {}

/// A SPDY client.
struct Spdy {
    io: Box<dyn Both>,
    encoder: Encoder,
    decoder: Decoder,
    last: u32,
}

/// What a client saw of its streams.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    data: BTreeMap<u32, Vec<u8>>,
    ended: Vec<u32>,
}

impl Seen {
    fn text(&self, stream: u32) -> String {
        String::from_utf8_lossy(self.data.get(&stream).map_or(&[], Vec::as_slice)).into_owned()
    }
}

impl Spdy {
    fn over(io: impl Both + 'static) -> Self {
        Self { io: Box::new(io), encoder: Encoder::new().unwrap(), decoder: Decoder::default(), last: 0 }
    }

    async fn connect(kubelet: &Kubelet, path: &str, protocol: &str) -> Self {
        let headers =
            [("connection", "Upgrade"), ("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", protocol)];
        let response = send(kubelet, path, &headers).await;
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()["x-stream-protocol-version"], protocol);
        Self::over(TokioIo::new(hyper::upgrade::on(response).await.unwrap()))
    }

    async fn say(&mut self, frame: &Frame) {
        let bytes = write(frame, &mut self.encoder).unwrap();
        self.io.write_all(&bytes).await.unwrap();
    }

    async fn open(&mut self, headers: &[(&str, &str)]) -> u32 {
        let stream = if self.last == 0 { 1 } else { self.last + 2 };
        self.last = stream;
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.say(&Frame::Open { stream, headers, fin: false }).await;
        stream
    }

    async fn data(&mut self, stream: u32, bytes: &'static [u8], fin: bool) {
        self.say(&Frame::Data { stream, bytes: Bytes::from_static(bytes), fin }).await;
    }

    async fn next(&mut self) -> Option<Frame> {
        soon("a frame", read(&mut self.io, &mut self.decoder)).await.unwrap()
    }

    /// Reads until these streams ended.
    async fn until_ended(&mut self, streams: &[u32]) -> Seen {
        let mut seen = Seen::default();
        while !streams.iter().all(|stream| seen.ended.contains(stream)) {
            match self.next().await.expect("the streams end before the connection") {
                Frame::Data { stream, bytes, fin } => {
                    seen.data.entry(stream).or_default().extend_from_slice(&bytes);
                    if fin {
                        seen.ended.push(stream);
                    }
                }
                Frame::Reset { stream, .. } => panic!("stream {stream} was reset"),
                _ => {}
            }
        }
        seen
    }
}
