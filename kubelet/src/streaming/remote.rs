//! Sessions over SPDY: the client opens one stream for each of stdin, stdout, stderr, error and resize.

use super::session::{Input, Output, Session, Size, WAITING_MAX};
use super::spdy::{Connection, Stream};
use super::upgrade::{IDLE_MAX, Upgraded};
use bytes::Bytes;
use coracle_daemon::clock;
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Stream protocols of exec and attach.
pub const PROTOCOLS: [&str; 4] =
    ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
/// How long the client may take to open its streams.
const OPENING_MAX: Duration = Duration::from_secs(30);
/// A size is far shorter.
const SIZE_BYTES_MAX: usize = 4 << 10;

/// Serves a session to its end.
pub async fn serve(io: Upgraded, protocol: &str, session: Session) {
    let serve = async |streams| {
        if let Err(error) = run(streams, protocol, session).await {
            tracing::debug!(%error, "a session's client went away");
        }
    };
    if let Err(error) = Connection::new(io, IDLE_MAX).run(serve).await {
        tracing::debug!(%error, "a session's connection broke off");
    }
}

async fn run(mut opened: mpsc::Receiver<Stream>, protocol: &str, session: Session) -> io::Result<()> {
    let resizable = session.tty && (protocol.starts_with("v4.") || protocol.starts_with("v3."));
    let wanted = [
        ("error", true),
        ("stdin", session.stdin),
        ("stdout", session.stdout),
        ("stderr", session.stderr),
        ("resize", resizable),
    ];
    let wanted: Vec<&str> = wanted.iter().filter(|(_, wanted)| *wanted).map(|(name, _)| *name).collect();
    let collected = clock::timeout(OPENING_MAX, collect(&mut opened, &wanted)).await;
    let mut streams = collected.map_err(|_| {
        io::Error::new(io::ErrorKind::TimedOut, "timed out waiting for client to create streams")
    })??;
    let Some(error) = streams.remove("error") else { return Ok(()) };
    let (stdin, resize) = (streams.remove("stdin"), streams.remove("resize"));
    let (input, inputs) = mpsc::channel(WAITING_MAX);
    let (output, outputs) = mpsc::channel(WAITING_MAX);
    let (gone, done) = (error.reset(), CancellationToken::new());
    let read = async {
        let both = async {
            tokio::join!(feed_stdin(stdin, &input), feed_sizes(resize, &input));
            // Silence is not absence.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = both => {}
            () = gone.cancelled() => {}
            () = done.cancelled() => {}
        }
        // To the session this is the client's leaving.
        drop(input);
    };
    let write = async {
        let written = write(outputs, protocol, &streams, &error).await;
        done.cancel();
        written
    };
    tokio::join!(session.run(inputs, output), write, read).1
}

async fn write(
    mut outputs: mpsc::Receiver<Output>,
    protocol: &str,
    streams: &BTreeMap<String, Stream>,
    error: &Stream,
) -> io::Result<()> {
    while let Some(output) = outputs.recv().await {
        match output {
            Output::Stdout(bytes) => send(streams.get("stdout"), bytes).await?,
            Output::Stderr(bytes) => send(streams.get("stderr"), bytes).await?,
            Output::End(status) => {
                for stream in streams.values() {
                    stream.sender().finish().await?;
                }
                let success = status["status"] == "Success";
                let told = if protocol.starts_with("v4.") {
                    status.to_string()
                } else if success {
                    String::new()
                } else {
                    status["message"].as_str().unwrap_or_default().to_owned()
                };
                error.sender().send(told.into()).await?;
                return error.sender().finish().await;
            }
        }
    }
    Ok(())
}

async fn send(stream: Option<&Stream>, bytes: Bytes) -> io::Result<()> {
    match stream {
        Some(stream) => stream.sender().send(bytes).await,
        None => Ok(()),
    }
}

async fn collect(
    opened: &mut mpsc::Receiver<Stream>,
    wanted: &[&str],
) -> io::Result<BTreeMap<String, Stream>> {
    let mut streams = BTreeMap::new();
    while streams.len() < wanted.len() {
        let stream = opened.recv().await.ok_or(io::ErrorKind::UnexpectedEof)?;
        let kind = stream.header("streamtype").unwrap_or_default().to_owned();
        if wanted.contains(&kind.as_str()) && !streams.contains_key(&kind) {
            streams.insert(kind, stream);
        } else {
            stream.sender().abort().await;
        }
    }
    Ok(streams)
}

async fn feed_stdin(stdin: Option<Stream>, input: &mpsc::Sender<Input>) {
    let Some(mut stdin) = stdin else { return };
    while let Some(bytes) = stdin.input().recv().await {
        if input.send(Input::Stdin(bytes)).await.is_err() {
            return;
        }
    }
    // The session may have ended meanwhile.
    let _ = input.send(Input::StdinEnd).await;
}

async fn feed_sizes(resize: Option<Stream>, input: &mpsc::Sender<Input>) {
    let Some(mut resize) = resize else { return };
    let mut held = Vec::new();
    while let Some(bytes) = resize.input().recv().await {
        held.extend_from_slice(&bytes);
        let (sizes, used) = sizes(&held);
        for size in sizes {
            if input.send(Input::Resize(size)).await.is_err() {
                return;
            }
        }
        held.drain(..used);
        if held.len() > SIZE_BYTES_MAX {
            return;
        }
    }
}

/// The whole sizes in a stream of JSON documents, and how many bytes they took.
fn sizes(held: &[u8]) -> (Vec<Size>, usize) {
    let mut documents = serde_json::Deserializer::from_slice(held).into_iter::<Size>();
    let (mut sizes, mut used) = (Vec::new(), 0);
    while let Some(Ok(size)) = documents.next() {
        sizes.push(size);
        used = documents.byte_offset();
    }
    (sizes, used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_may_come_in_pieces() {
        let (width, height) = (80, 24);
        let one = b"{\"Width\":80,\"Height\":24}\n";
        let rows: [(&[u8], usize, usize); 4] = [
            (one, 1, one.len() - 1),
            (&one[..9], 0, 0),
            (b"{\"Width\":80,\"Height\":24}{\"Width\":80,\"Height\":24}{", 2, 48),
            (b"x", 0, 0),
        ];
        for (held, count, used) in rows {
            assert_eq!(sizes(held), (vec![Size { width, height }; count], used));
        }
    }
}
