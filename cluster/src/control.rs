//! The supervisor's socket: one JSON request on a line, one JSON answer on a line.

use crate::process::State;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// Longest line either side reads, in bytes.
const LINE_MAX: u64 = 4 << 20;

/// What is asked of a supervisor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// All processes.
    Status,
    /// Stop everything; answered when all are gone.
    Stop,
    /// From a node's init process: its children now, with process ids of the node's own namespace.
    Report {
        /// The node's name.
        node: String,
        /// Its processes.
        states: Vec<State>,
    },
}

/// A supervisor's answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reply {
    /// All processes, with process ids as the host sees them.
    Status(Vec<State>),
    /// Done.
    Done,
}

/// Asks the supervisor at `socket`. `Ok(None)`: none runs there.
///
/// # Errors
/// It runs but does not answer as it should.
pub async fn ask(socket: &Path, request: &Request) -> Result<Option<Reply>> {
    let stream = match UnixStream::connect(socket).await {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => {
            return Err(error)
                .with_context(|| format!("cannot reach the supervisor at {}", socket.display()));
        }
    };
    let mut stream = BufReader::new(stream);
    write_line(&mut stream, request).await?;
    read_line(&mut stream).await.map(Some).context("the supervisor ended without an answer")
}

/// Writes one message.
///
/// # Errors
/// The other side is gone.
pub async fn write_line<T: Serialize>(stream: &mut BufReader<UnixStream>, message: &T) -> Result<()> {
    let mut line = serde_json::to_vec(message).context("cannot encode a message")?;
    line.push(b'\n');
    stream.get_mut().write_all(&line).await.context("cannot write to the socket")
}

/// Reads one message.
///
/// # Errors
/// The other side is gone, or says something else.
pub async fn read_line<T: for<'de> Deserialize<'de>>(stream: &mut BufReader<UnixStream>) -> Result<T> {
    let mut line = String::new();
    let read = stream.take(LINE_MAX).read_line(&mut line).await.context("cannot read from the socket")?;
    anyhow::ensure!(read > 0, "the socket was closed");
    serde_json::from_str(&line).context("not a message of ours")
}
