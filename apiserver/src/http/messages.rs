//! An answer that flows, as the messages of a WebSocket, for clients that cannot read a body bit by bit: logs, and watches.
//!
//! Upstream serves both with libraries of their own, which differ in what they ask of a handshake (RFC 6455).

use super::respond;
use crate::request::{asks_for_websocket, listed};
use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, Bytes};
use coracle_api::status::Status;
use coracle_daemon::{Tasks, clock};
use futures::{SinkExt, StreamExt};
use http::header::{self, HeaderName};
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

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
    protocol: Option<HeaderValue>,
    accept: String,
    upgrade: hyper::upgrade::OnUpgrade,
    cut: Cut,
}

/// How bytes become messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// As they come, after an empty message, which tells the client that it is heard.
    Pieces,
    /// The same in base64.
    Base64,
    /// A text for each line.
    Lines,
    /// One for each part that has its length before it, in four bytes.
    Parts,
}

/// The WebSocket that a watch was asked for with, whose events are lines or have their length before them.
///
/// # Errors
/// The answer to a handshake that is none: 400, and 403 to who does not say whose page it is.
pub fn of_watch(parts: &mut Parts, lines: bool) -> Result<Option<Messages>, Box<Response<Body>>> {
    let headers = &parts.headers;
    if !asks_for_websocket(headers) {
        return Ok(None);
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut refusal = respond::error(400, "missing or bad WebSocket Version");
        refusal.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Err(Box::new(refusal));
    }
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY) else {
        return Err(Box::new(respond::error(400, "mismatch challenge/response")));
    };
    if headers.get(header::ORIGIN).is_none_or(|origin| origin == "null") {
        return Err(Box::new(respond::error(403, "")));
    }
    let asked: Vec<&str> = listed(headers, &header::SEC_WEBSOCKET_PROTOCOL).collect();
    let protocol = match asked.as_slice() {
        [] => None,
        [one] => HeaderValue::try_from(*one).ok(),
        _ => return Err(Box::new(respond::error(400, ""))),
    };
    let accept = derive_accept_key(key.as_bytes());
    let cut = if lines { Cut::Lines } else { Cut::Parts };
    // HTTP/2 has no upgrades.
    let upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
    Ok(upgrade.map(|upgrade| Messages { protocol, accept, upgrade, cut }))
}

/// Whether the client wants a log in messages; what is left of the request is one for the plain answer.
///
/// # Errors
/// 400 where it speaks other protocols only.
pub fn of_log(request: &mut Request<Body>) -> Result<Option<Messages>, Status> {
    let headers = request.headers();
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| asks_for_websocket(headers)) else {
        return Ok(None);
    };
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
    let cut = if protocol == Some(BASE64) { Cut::Base64 } else { Cut::Pieces };
    Ok(Some(Messages { protocol: protocol.map(HeaderValue::from_static), accept, upgrade, cut }))
}

impl Messages {
    /// Grants the WebSocket and sends the answer's body over it.
    pub fn carry(self, answer: Response<Body>, tasks: &Tasks) -> Response<Body> {
        let Self { protocol, accept, upgrade, cut } = self;
        tasks.run("an answer in messages", async move {
            let sent = match upgrade.await {
                Ok(io) => send(TokioIo::new(io), answer.into_body(), cut).await,
                Err(error) => Err(Error::Io(std::io::Error::other(error))),
            };
            if let Err(error) = sent {
                tracing::debug!(%error, "a client of messages went away");
            }
        });
        let mut granted = Response::new(Body::empty());
        *granted.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = granted.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        if let Ok(accept) = accept.parse() {
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        }
        if let Some(protocol) = protocol {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        granted
    }
}

impl Cut {
    /// The next message's bytes of a chunk, which has them whole.
    fn next(self, chunk: &mut Bytes) -> Option<Bytes> {
        let end = match self {
            Self::Pieces | Self::Base64 => chunk.len(),
            Self::Lines => chunk.iter().position(|byte| *byte == b'\n').map_or(chunk.len(), |at| at + 1),
            Self::Parts => {
                let length = chunk.try_get_u32().ok()?;
                usize::try_from(length).map_or(chunk.len(), |length| length.min(chunk.len()))
            }
        };
        (!chunk.is_empty()).then(|| chunk.split_to(end))
    }

    fn message(self, bytes: Bytes) -> Message {
        match self {
            Self::Pieces | Self::Parts => Message::Binary(bytes),
            Self::Base64 => Message::text(STANDARD.encode(bytes)),
            Self::Lines => Utf8Bytes::try_from(bytes.clone()).map_or(Message::Binary(bytes), Message::Text),
        }
    }
}

/// Until the body or the client ends. What the client says is nobody's business.
async fn send(io: TokioIo<hyper::upgrade::Upgraded>, body: Body, cut: Cut) -> Result<(), Error> {
    let (mut sink, mut said) = WebSocketStream::from_raw_socket(io, Role::Server, None).await.split();
    let ends = async { while let Some(Ok(_)) = said.next().await {} };
    let sends = async {
        if matches!(cut, Cut::Pieces | Cut::Base64) {
            sink.send(cut.message(Bytes::new())).await?;
        }
        let mut chunks = body.into_data_stream();
        while let Some(Ok(mut chunk)) = chunks.next().await {
            while let Some(part) = cut.next(&mut chunk) {
                sink.feed(cut.message(part)).await?;
            }
            sink.flush().await?;
        }
        // As upstream's library ends, with the code of an end in good order.
        sink.send(Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() })))
            .await
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
