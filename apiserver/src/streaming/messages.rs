//! An answer that flows, as the messages of a WebSocket, for clients that cannot read a body bit by bit.

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_api::status::Status;
use coracle_daemon::{Tasks, clock};
use futures::{SinkExt, StreamExt};
use http::header::{self, HeaderName};
use http::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Error, Message};

/// Subprotocols: bytes as they are, which is meant without one, and bytes in base64.
const BINARY: &str = "binary.k8s.io";
const BASE64: &str = "base64.binary.k8s.io";
/// How long the client may take to see that the answer ended.
const FAREWELL_MAX: Duration = Duration::from_secs(5);
/// What makes a request one for a WebSocket.
const HANDSHAKE: [HeaderName; 6] = [
    header::CONNECTION,
    header::UPGRADE,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_PROTOCOL,
    header::SEC_WEBSOCKET_EXTENSIONS,
];

/// A WebSocket that was asked for.
pub struct Messages {
    protocol: Option<&'static str>,
    accept: String,
    upgrade: hyper::upgrade::OnUpgrade,
}

/// Whether the client wants messages; what is left of the request is one for the plain answer.
///
/// # Errors
/// 400 where it speaks other protocols only.
pub fn wanted(request: &mut Request<Body>) -> Result<Option<Messages>, Status> {
    let headers = request.headers();
    let is =
        |name: HeaderName, word: &str| listed(headers, &name).any(|known| known.eq_ignore_ascii_case(word));
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY) else { return Ok(None) };
    if !is(header::CONNECTION, "upgrade") || !is(header::UPGRADE, "websocket") {
        return Ok(None);
    }
    let accept = derive_accept_key(key.as_bytes());
    let asked: Vec<&str> = listed(headers, &header::SEC_WEBSOCKET_PROTOCOL).collect();
    let protocol = [BINARY, BASE64].into_iter().find(|known| asked.contains(known));
    if protocol.is_none() && !asked.is_empty() {
        return Err(Status::bad_request(format!("this server speaks {BINARY} and {BASE64} only")));
    }
    let upgrade = hyper::upgrade::on(&mut *request);
    for name in HANDSHAKE {
        request.headers_mut().remove(name);
    }
    Ok(Some(Messages { protocol, accept, upgrade }))
}

fn listed<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

impl Messages {
    /// Grants the WebSocket and sends the answer's body over it.
    pub fn carry(self, answer: Response<Body>, tasks: &Tasks) -> Response<Body> {
        let Self { protocol, accept, upgrade } = self;
        tasks.run("an answer in messages", async move {
            let sent = match upgrade.await {
                Ok(io) => send(TokioIo::new(io), answer.into_body(), protocol == Some(BASE64)).await,
                Err(error) => Err(Error::Io(std::io::Error::other(error))),
            };
            if let Err(error) = sent {
                tracing::debug!(%error, "a client of messages went away");
            }
        });
        let mut granted = Response::new(Body::empty());
        *granted.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = granted.headers_mut();
        headers.insert(header::CONNECTION, header::HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, header::HeaderValue::from_static("websocket"));
        if let Ok(accept) = accept.parse() {
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        }
        if let Some(protocol) = protocol {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, header::HeaderValue::from_static(protocol));
        }
        granted
    }
}

/// Until the body or the client ends. What the client says is nobody's business.
async fn send(io: TokioIo<hyper::upgrade::Upgraded>, body: Body, in_base64: bool) -> Result<(), Error> {
    let (mut sink, mut said) = WebSocketStream::from_raw_socket(io, Role::Server, None).await.split();
    let message = |bytes: &[u8]| {
        if in_base64 { Message::text(STANDARD.encode(bytes)) } else { Message::binary(bytes.to_vec()) }
    };
    let ends = async { while let Some(Ok(_)) = said.next().await {} };
    let sends = async {
        // Upstream begins with an empty one, which tells the client that it is heard.
        sink.send(message(&[])).await?;
        let mut chunks = body.into_data_stream();
        while let Some(Ok(chunk)) = chunks.next().await {
            sink.send(message(&chunk)).await?;
        }
        sink.close().await
    };
    tokio::pin!(ends);
    tokio::select! {
        sent = sends => sent?,
        () = &mut ends => return Ok(()),
    }
    // A client that does not close is cut off.
    let _ = clock::timeout(FAREWELL_MAX, ends).await;
    Ok(())
}
