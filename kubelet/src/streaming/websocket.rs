//! Sessions over a WebSocket: each message begins with its channel's number.
//!
//! ```text
//! 0 stdin   1 stdout   2 stderr   3 how it ended (metav1.Status)   4 the terminal's size   255 N: channel N has ended (v5)
//! ```

use super::session::{Input, Output, Session, WAITING_MAX};
use super::upgrade::{IDLE_MAX, Upgraded, decode, encode, is_base64};
use coracle_daemon::clock;
use futures::stream::SplitStream;
use futures::{Sink, SinkExt, StreamExt};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_util::sync::CancellationToken;

/// Subprotocols of exec and attach.
pub const PROTOCOLS: [&str; 5] = [
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
];
/// How long the client may take to see that the connection ended.
const FAREWELL_MAX: Duration = Duration::from_secs(5);

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// Serves a session to its end.
pub async fn serve(socket: WebSocketStream<Upgraded>, protocol: &str, session: Session) {
    let (sink, mut stream) = socket.split();
    let (input, inputs) = mpsc::channel(WAITING_MAX);
    let (output, outputs) = mpsc::channel(WAITING_MAX);
    let stop = CancellationToken::new();
    let first = if session.stdout {
        STDOUT
    } else if session.stderr {
        STDERR
    } else {
        ERROR
    };
    let read = async {
        stop.run_until_cancelled(read(&mut stream, protocol, input)).await;
        if stop.is_cancelled() {
            farewell(&mut stream).await;
        }
    };
    let write = async {
        if let Err(error) = write(sink, protocol, first, outputs).await {
            tracing::debug!(%error, "a session's client went away");
        }
        stop.cancel();
    };
    tokio::join!(session.run(inputs, output), write, read);
}

/// Waits until the client has closed its end too.
pub async fn farewell(stream: &mut SplitStream<WebSocketStream<Upgraded>>) {
    let rest = async { while let Some(Ok(_)) = stream.next().await {} };
    // A client that does not close is cut off.
    let _ = clock::timeout(FAREWELL_MAX, rest).await;
}

/// The last message.
#[must_use]
pub fn closing() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))
}

/// The next message with bytes in it; `None` at the end, however it came.
pub async fn next(stream: &mut SplitStream<WebSocketStream<Upgraded>>) -> Option<bytes::Bytes> {
    loop {
        match clock::timeout(IDLE_MAX, stream.next()).await {
            Ok(Some(Ok(Message::Binary(bytes)))) => return Some(bytes),
            Ok(Some(Ok(Message::Text(text)))) => return Some(text.into()),
            // Pings are answered by the library.
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)))) => {}
            Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) | Err(_) => return None,
        }
    }
}

async fn read(
    stream: &mut SplitStream<WebSocketStream<Upgraded>>,
    protocol: &str,
    input: mpsc::Sender<Input>,
) {
    while let Some(message) = next(stream).await {
        let Some(taken) = take(protocol, &message) else { continue };
        if input.send(taken).await.is_err() {
            return;
        }
    }
}

/// What a message means; those of unknown channels mean nothing.
fn take(protocol: &str, message: &[u8]) -> Option<Input> {
    let (channel, bytes) = decode(is_base64(protocol), message)?;
    match channel {
        STDIN if bytes.is_empty() => None,
        STDIN => Some(Input::Stdin(bytes)),
        RESIZE => serde_json::from_slice(&bytes).ok().map(Input::Resize),
        CLOSE if protocol.starts_with("v5.") && bytes.first() == Some(&STDIN) => Some(Input::StdinEnd),
        _ => None,
    }
}

async fn write(
    mut sink: impl Sink<Message, Error = tungstenite::Error> + Unpin,
    protocol: &str,
    first: u8,
    mut outputs: mpsc::Receiver<Output>,
) -> Result<(), tungstenite::Error> {
    let base64 = is_base64(protocol);
    // Clients take the first message, even an empty one, as the sign that the session stands.
    sink.send(encode(base64, first, &[])).await?;
    while let Some(output) = outputs.recv().await {
        match output {
            Output::Stdout(bytes) => sink.send(encode(base64, STDOUT, &bytes)).await?,
            Output::Stderr(bytes) => sink.send(encode(base64, STDERR, &bytes)).await?,
            Output::End(status) => {
                let success = status["status"] == "Success";
                if protocol.starts_with("v4.") || protocol.starts_with("v5.") {
                    sink.send(encode(base64, ERROR, status.to_string().as_bytes())).await?;
                } else if !success {
                    // The first protocol told errors as text.
                    let message = status["message"].as_str().unwrap_or_default();
                    sink.send(encode(base64, ERROR, message.as_bytes())).await?;
                }
                return sink.send(closing()).await;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streaming::session::Size;

    #[test]
    fn messages_are_understood_by_their_channel_and_protocol() {
        let (v4, v5) = ("v4.channel.k8s.io", "v5.channel.k8s.io");
        let rows: [(&str, &[u8], Option<Input>); 9] = [
            (v4, b"\x00hi", Some(Input::Stdin("hi".into()))),
            (v4, b"\x00", None),
            (v5, b"\xff\x00", Some(Input::StdinEnd)),
            (v5, b"\xff\x04", None),
            (v4, b"\xff\x00", None),
            (v4, b"\x04{\"Width\":80,\"Height\":24}\n", Some(Input::Resize(Size { width: 80, height: 24 }))),
            (v4, b"\x04nonsense", None),
            (v4, b"\x01hi", None),
            ("v4.base64.channel.k8s.io", b"0aGk=", Some(Input::Stdin("hi".into()))),
        ];
        for (protocol, message, expected) in rows {
            assert_eq!(take(protocol, message), expected, "{message:?}");
        }
    }
}
