//! From an HTTP request to a byte stream: which protocol the client wants, and the 101 that grants it.
//!
//! The apiserver tunnels the bytes of an upgrade, so that both of Kubernetes' ways arrive here: WebSocket and SPDY/3.1.

use axum::body::Body;
use axum::http::{HeaderMap, Request, Response, StatusCode, header};
use axum::response::IntoResponse;
use base64::Engine;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// A connection on which the client says nothing for so long is closed, as upstream's kubelet does by default.
pub const IDLE_MAX: Duration = Duration::from_hours(4);
/// Longer messages end the connection.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
const STREAM_PROTOCOL: &str = "x-stream-protocol-version";
/// What SPDY's protocols are called inside a WebSocket.
pub const TUNNEL_PREFIX: &str = "SPDY/3.1+";

/// The byte stream of an upgraded connection.
pub type Upgraded = TokioIo<hyper::upgrade::Upgraded>;

/// What the client and we speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// WebSocket with this subprotocol; empty when the client named none.
    WebSocket(String),
    /// SPDY with this stream protocol; empty when the client named none.
    Spdy(String),
}

/// A refused request: its status and text.
pub type Refusal = (StatusCode, String);

/// The names in a header that may come several times and hold lists.
fn listed<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// Agrees on the first of the client's protocols that is known here.
///
/// # Errors
/// The request wants no upgrade, or only unknown protocols.
pub fn negotiate(headers: &HeaderMap, websocket: &[&str], spdy: &[&str]) -> Result<Wanted, Refusal> {
    let upgrading = listed(headers, "connection").any(|word| word.eq_ignore_ascii_case("upgrade"));
    let to = |name: &str| upgrading && listed(headers, "upgrade").any(|word| word.eq_ignore_ascii_case(name));
    if to("websocket") {
        let version = listed(headers, "sec-websocket-version").next();
        if !headers.contains_key(header::SEC_WEBSOCKET_KEY) || version != Some("13") {
            return Err((StatusCode::BAD_REQUEST, "not a WebSocket handshake of version 13".to_owned()));
        }
        let asked: Vec<&str> = listed(headers, "sec-websocket-protocol").collect();
        return choose(&asked, websocket, StatusCode::BAD_REQUEST).map(Wanted::WebSocket);
    }
    if to("SPDY/3.1") {
        let asked: Vec<&str> = listed(headers, STREAM_PROTOCOL).collect();
        return choose(&asked, spdy, StatusCode::FORBIDDEN).map(Wanted::Spdy);
    }
    Err((StatusCode::BAD_REQUEST, "unable to upgrade: missing upgrade headers in request".to_owned()))
}

fn choose(asked: &[&str], known: &[&str], refusal: StatusCode) -> Result<String, Refusal> {
    if asked.is_empty() {
        return Ok(String::new());
    }
    let chosen =
        asked.iter().find(|protocol| known.contains(protocol)).map(|protocol| (*protocol).to_owned());
    chosen.ok_or_else(|| {
        let list = |names: &[&str]| format!("[{}]", names.join(" "));
        let text = format!(
            "unable to negotiate protocol: client supports {}, server accepts {}",
            list(asked),
            list(known)
        );
        (refusal, text)
    })
}

/// The answer that grants `wanted`.
#[must_use]
pub fn grant(headers: &HeaderMap, wanted: &Wanted) -> Response<Body> {
    let mut response =
        Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).header(header::CONNECTION, "Upgrade");
    match wanted {
        Wanted::WebSocket(protocol) => {
            let key = headers.get(header::SEC_WEBSOCKET_KEY).map_or(&b""[..], |key| key.as_bytes());
            response = response
                .header(header::UPGRADE, "websocket")
                .header(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key));
            if !protocol.is_empty() {
                response = response.header(header::SEC_WEBSOCKET_PROTOCOL, protocol);
            }
        }
        Wanted::Spdy(protocol) => {
            response = response.header(header::UPGRADE, "SPDY/3.1").header(STREAM_PROTOCOL, protocol);
        }
    }
    response.body(Body::empty()).unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

/// Waits for the bytes that follow the 101.
pub async fn upgraded(request: Request<Body>) -> Result<Upgraded, hyper::Error> {
    hyper::upgrade::on(request).await.map(TokioIo::new)
}

/// A WebSocket over an upgraded connection.
pub async fn websocket(io: Upgraded) -> WebSocketStream<Upgraded> {
    let mut config = WebSocketConfig::default();
    config.max_message_size = Some(MESSAGE_BYTES_MAX);
    config.max_frame_size = Some(MESSAGE_BYTES_MAX);
    // Keystrokes must not wait for more of their kind.
    config.write_buffer_size = 0;
    config.read_buffer_size = 16 << 10;
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

/// Whether messages of this subprotocol are text in base64.
#[must_use]
pub fn is_base64(protocol: &str) -> bool {
    protocol.contains("base64")
}

/// One WebSocket message of a channel.
#[must_use]
pub fn encode(base64: bool, channel: u8, bytes: &[u8]) -> tokio_tungstenite::tungstenite::Message {
    use tokio_tungstenite::tungstenite::Message;
    if base64 {
        // The channel is a digit there; ours are below ten, or one per port of a port-forward.
        let mut text = String::from(char::from(b'0'.wrapping_add(channel)));
        base64::engine::general_purpose::STANDARD.encode_string(bytes, &mut text);
        return Message::text(text);
    }
    let mut message = Vec::with_capacity(bytes.len() + 1);
    message.push(channel);
    message.extend_from_slice(bytes);
    Message::binary(message)
}

/// The channel and bytes of a message; `None` when it is not of the protocol.
#[must_use]
pub fn decode(base64: bool, message: &[u8]) -> Option<(u8, bytes::Bytes)> {
    let (channel, rest) = message.split_first()?;
    if base64 {
        let bytes = base64::engine::general_purpose::STANDARD.decode(rest).ok()?;
        return Some((channel.checked_sub(b'0')?, bytes.into()));
    }
    Some((*channel, bytes::Bytes::copy_from_slice(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn the_clients_first_known_protocol_is_taken() {
        let ws = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "k"),
        ];
        let spdy = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
        let with = |pairs: &[(&'static str, &'static str)], more: &[(&'static str, &'static str)]| {
            negotiate(&headers(&[pairs, more].concat()), &["v5", "v4"], &["v4", "v3"])
        };
        let protocol = "sec-websocket-protocol";
        assert_eq!(with(&ws, &[(protocol, "v9, v4, v5")]), Ok(Wanted::WebSocket("v4".into())));
        assert_eq!(with(&ws, &[]), Ok(Wanted::WebSocket(String::new())));
        assert_eq!(with(&ws, &[(protocol, "v9")]).unwrap_err().0, StatusCode::BAD_REQUEST);
        let versions = [(STREAM_PROTOCOL, "v5"), (STREAM_PROTOCOL, "v3"), (STREAM_PROTOCOL, "v4")];
        assert_eq!(with(&spdy, &versions), Ok(Wanted::Spdy("v3".into())));
        let refused = with(&spdy, &[(STREAM_PROTOCOL, "v9")]).unwrap_err();
        let text = "unable to negotiate protocol: client supports [v9], server accepts [v4 v3]";
        assert_eq!(refused, (StatusCode::FORBIDDEN, text.to_owned()));
        assert_eq!(with(&[("upgrade", "SPDY/3.1")], &[]).unwrap_err().0, StatusCode::BAD_REQUEST);
    }

    #[test]
    fn messages_carry_their_channel() {
        for base64 in [false, true] {
            let message = encode(base64, 2, b"hi\xff");
            assert_eq!(message.is_text(), base64);
            assert_eq!(decode(base64, &message.into_data()), Some((2, (&b"hi\xff"[..]).into())));
        }
        assert_eq!(decode(true, b"1not base64!"), None);
        assert_eq!(decode(false, b""), None);
    }
}
