//! One command or attachment: the client's input to the process, the process's output to the client, and how it ended.
//!
//! Whatever carries the bytes (WebSocket or SPDY) turns them into [`Input`] and [`Output`].

use crate::runtime::{Exec, ExecSpec, Runtime, RuntimeError, Streams};
use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

/// Messages that wait in either direction.
pub const WAITING_MAX: usize = 16;
/// Bytes read from a process at a time.
const CHUNK_BYTES: usize = 32 << 10;

/// What a client sends. The channel's end means that the client is gone.
#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    /// Bytes for standard input.
    Stdin(Bytes),
    /// There are no more.
    StdinEnd,
    /// The terminal's new size.
    Resize(Size),
}

/// What a client gets.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Bytes of standard output.
    Stdout(Bytes),
    /// Bytes of standard error.
    Stderr(Bytes),
    /// How it ended, as a `metav1.Status`; the last of all.
    End(Value),
}

/// A terminal's size, as clients write it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub struct Size {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// What to do in which container.
#[derive(Clone)]
pub struct Session {
    /// Runs it.
    pub runtime: Arc<dyn Runtime>,
    /// The container.
    pub container: String,
    /// A command; `None` attaches to the container's own process.
    pub command: Option<Vec<String>>,
    /// There is a terminal.
    pub tty: bool,
    /// Which streams the client wants.
    pub stdin: bool,
    /// Which streams the client wants.
    pub stdout: bool,
    /// Which streams the client wants.
    pub stderr: bool,
}

impl Session {
    /// Runs it to its end, or until the client is gone.
    pub async fn run(self, mut input: mpsc::Receiver<Input>, output: mpsc::Sender<Output>) {
        let end = match self.start().await {
            Ok(mut exec) => self.drive(exec.as_mut(), &mut input, &output).await,
            Err(error) => Some(self.failure(&error)),
        };
        if let Some(end) = end {
            // A client that left meanwhile does not want to know.
            let _ = output.send(Output::End(end)).await;
        }
    }

    async fn start(&self) -> Result<Box<dyn Exec>, RuntimeError> {
        let Some(command) = &self.command else { return self.runtime.attach(&self.container).await };
        let spec = ExecSpec { command: command.clone(), tty: self.tty, stdin: self.stdin };
        self.runtime.exec(&self.container, &spec).await
    }

    /// `None` when the client is gone.
    async fn drive(
        &self,
        exec: &mut dyn Exec,
        input: &mut mpsc::Receiver<Input>,
        output: &mpsc::Sender<Output>,
    ) -> Option<Value> {
        let Some(Streams { stdin, stdout, stderr }) = exec.streams() else {
            return Some(internal("the process has no streams"));
        };
        let stdout = copy(stdout, self.stdout.then_some(output), Output::Stdout);
        let stderr = async {
            match stderr {
                Some(stderr) => copy(stderr, self.stderr.then_some(output), Output::Stderr).await,
                None => true,
            }
        };
        // A client without input ends it at once: the process must not wait for any.
        let stdin = stdin.filter(|_| self.stdin);
        tokio::select! {
            (out, err) = async { tokio::join!(stdout, stderr) } => if !(out && err) { return None },
            () = feed(exec, stdin, input) => return None,
        }
        let ended = tokio::select! {
            ended = exec.wait() => ended,
            () = gone(input) => return None,
        };
        Some(match (ended, &self.command) {
            (Err(error), _) => self.failure(&error),
            (Ok(code), Some(command)) if code != 0 => exit_status(command, code),
            // Whoever attaches learns the container's exit code from its pod.
            (Ok(_), _) => json!({ "metadata": {}, "status": "Success" }),
        })
    }

    fn failure(&self, error: &RuntimeError) -> Value {
        let doing = if self.command.is_some() { "executing command in" } else { "attaching to" };
        internal(&format!("error {doing} container: {}", told(error)))
    }
}

/// An error with its causes.
pub fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn internal(why: &str) -> Value {
    json!({
        "metadata": {}, "status": "Failure", "message": format!("Internal error occurred: {why}"),
        "reason": "InternalError", "details": { "causes": [{ "message": why }] }, "code": 500,
    })
}

fn exit_status(command: &[String], code: i32) -> Value {
    let message = format!(
        "command terminated with non-zero exit code: error executing command [{}], exit code {code}",
        command.join(" ")
    );
    json!({
        "metadata": {}, "status": "Failure", "message": message, "reason": "NonZeroExitCode",
        "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
    })
}

/// Copies until the stream ends; without an output, what comes is thrown away. `false` when the client is gone.
async fn copy(
    mut from: Box<dyn AsyncRead + Send + Unpin>,
    to: Option<&mpsc::Sender<Output>>,
    wrap: fn(Bytes) -> Output,
) -> bool {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK_BYTES);
        match from.read_buf(&mut buffer).await {
            // A terminal whose last user left fails instead of ending.
            Ok(0) | Err(_) => return true,
            Ok(_) => {}
        }
        let bytes = buffer.split().freeze();
        if let Some(to) = to
            && to.send(wrap(bytes)).await.is_err()
        {
            return false;
        }
    }
}

/// Does what the client sends, until it is gone.
async fn feed(
    exec: &dyn Exec,
    mut stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    input: &mut mpsc::Receiver<Input>,
) {
    while let Some(input) = input.recv().await {
        match input {
            Input::Stdin(bytes) => {
                if let Some(open) = &mut stdin {
                    let written = async {
                        open.write_all(&bytes).await?;
                        open.flush().await
                    };
                    if written.await.is_err() {
                        // The process reads no more; it may still write.
                        stdin = None;
                    }
                }
            }
            Input::StdinEnd => {
                if let Some(mut open) = stdin.take() {
                    // Dropping it closes it all the same.
                    let _ = open.shutdown().await;
                }
            }
            Input::Resize(Size { width, height }) => {
                if let Err(error) = exec.resize(width, height).await {
                    tracing::debug!(error = told(&error), "cannot resize a terminal");
                }
            }
        }
    }
}

async fn gone(input: &mut mpsc::Receiver<Input>) {
    while input.recv().await.is_some() {}
}
