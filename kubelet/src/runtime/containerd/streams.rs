//! Where a container's streams go: into its logger, which containerd starts, or which we start and connect by named pipes
//! when there is a terminal or standard input. Attaching is talking to the logger, so it works across restarts.

use super::Containerd;
use super::link::failed;
use super::records;
use crate::logger::{self, frame};
use crate::runtime::{ContainerSpec, RuntimeError, Streams};
use coracle_daemon::{Tasks, clock};
use nix::sys::stat::Mode;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, DuplexStream};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::sync::CancellationToken;

/// How long a logger may take to be ready.
const READY_MAX: Duration = Duration::from_secs(10);
/// Held for a reader of attached output.
const BUFFER_BYTES: usize = 64 << 10;

/// A container's way out.
pub struct Output {
    folder: PathBuf,
    program: PathBuf,
    log: PathBuf,
    pipes: bool,
    stdin: bool,
    tty: bool,
}

impl Output {
    /// Makes the pipes, and starts the logger behind them, where they are needed.
    pub async fn prepare(runtime: &Containerd, spec: &ContainerSpec, id: &str) -> Result<Self, RuntimeError> {
        let config = &runtime.shared.config;
        let output = Self {
            folder: records::folder(id),
            program: config.program.clone(),
            log: spec.log.clone(),
            pipes: spec.tty || spec.stdin,
            stdin: spec.stdin,
            tty: spec.tty,
        };
        if output.pipes {
            let doing = format!("start the logger of the container {id}");
            output
                .start_logger(id, super::containers::once(spec), &runtime.shared.tasks)
                .await
                .map_err(failed(doing))?;
        }
        Ok(output)
    }

    async fn start_logger(&self, id: &str, once: bool, tasks: &Tasks) -> io::Result<()> {
        let names = [("stdin", self.stdin), ("stdout", true), ("stderr", !self.tty)];
        for (name, _) in names.iter().filter(|(_, wanted)| *wanted) {
            make_pipe(&self.folder.join(name))?;
        }
        let mut command = tokio::process::Command::new(&self.program);
        command
            .arg("container-logger")
            .arg(&self.log)
            .args(["--container-id", id, "--pipes"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // It outlives us: the container's output must go on.
            .kill_on_drop(false)
            .process_group(0)
            .current_dir("/");
        if once {
            command.arg("--stdin-once");
        }
        let mut logger = command.spawn()?;
        let mut line = String::new();
        if let Some(stdout) = logger.stdout.take() {
            clock::timeout(READY_MAX, BufReader::new(stdout).read_line(&mut line))
                .await
                .map_err(io::Error::other)??;
        }
        if line != "ready\n" {
            return Err(io::Error::other("the logger did not get ready"));
        }
        let stop = tasks.stopping();
        tasks.run(format!("logger of container {id}"), async move {
            tokio::select! {
                ended = logger.wait() => match ended {
                    Ok(status) if status.success() => {}
                    ended => tracing::warn!(?ended, "a logger failed"),
                },
                // It goes on without us.
                () = stop.cancelled() => {}
            }
        });
        Ok(())
    }

    fn pipe(&self, name: &str) -> String {
        self.folder.join(name).to_string_lossy().into_owned()
    }

    /// What containerd is to open as standard input.
    pub fn stdin(&self) -> String {
        if self.stdin { self.pipe("stdin") } else { String::new() }
    }

    /// What containerd is to open as standard output.
    pub fn stdout(&self) -> String {
        if self.pipes { self.pipe("stdout") } else { logger_uri(&self.program, &self.log) }
    }

    /// What containerd is to open as standard error.
    pub fn stderr(&self) -> String {
        match (self.pipes, self.tty) {
            (true, true) => String::new(),
            (true, false) => self.pipe("stderr"),
            (false, _) => logger_uri(&self.program, &self.log),
        }
    }

    /// The container did not start: nobody will ever write.
    pub async fn abandon(&self) {
        if self.pipes {
            end_logger(&self.folder).await;
        }
    }
}

fn make_pipe(path: &Path) -> io::Result<()> {
    match nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR) {
        // Left by a kubelet that died.
        Err(nix::Error::EEXIST) => Ok(()),
        made => Ok(made?),
    }
}

/// Tells a logger to end; usually it has ended with its container.
pub async fn end_logger(folder: &Path) {
    if let Ok(mut socket) = UnixStream::connect(logger::socket(folder)).await
        && let Err(error) = socket.write_all(&frame::header(frame::END, 0)).await
    {
        tracing::debug!(%error, "a logger was gone already");
    }
}

/// containerd runs the program with the query's key and value as arguments; several keys would come in any order.
fn logger_uri(program: &Path, log: &Path) -> String {
    let escape = |text: &str| -> String {
        url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
    };
    let program: Vec<String> = program.to_string_lossy().split('/').map(escape).collect();
    format!("binary://{}?container-logger={}", program.join("/"), escape(&log.to_string_lossy()))
}

/// Joins a container's streams through its logger, until `left`. `closed` is called when its standard input was closed.
pub async fn attach(
    folder: &Path,
    stdin: bool,
    tty: bool,
    (tasks, left): (&Tasks, CancellationToken),
    closed: impl Future<Output = ()> + Send + 'static,
) -> io::Result<Streams> {
    let (read, write) = UnixStream::connect(logger::socket(folder)).await?.into_split();
    let (stdout, far_stdout) = tokio::io::duplex(BUFFER_BYTES);
    let (stderr, far_stderr) = tokio::io::duplex(BUFFER_BYTES);
    let (near_stdin, far_stdin) = tokio::io::duplex(BUFFER_BYTES);
    let shut = Arc::new(AtomicBool::new(false));
    let input = Input { to: near_stdin, shut: shut.clone() };
    let (until, stop) = (left.clone(), tasks.stopping());
    tasks.run("output of an attached container", async move {
        let ended = tokio::select! {
            ended = receive(read, far_stdout, far_stderr) => ended,
            () = until.cancelled() => Ok(()),
            () = stop.cancelled() => Ok(()),
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "attached output ended");
        }
    });
    let stop = tasks.stopping();
    tasks.run("input of an attached container", async move {
        let mut write = write;
        let sent = tokio::select! {
            sent = send(far_stdin, &mut write, &shut) => sent,
            () = left.cancelled() => Ok(false),
            () = stop.cancelled() => Ok(false),
        };
        match sent {
            Ok(true) => closed.await,
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "attached input ended"),
        }
        // Its end must not end the output; the logger sees the end of the reading half.
        write.forget();
    });
    Ok(Streams {
        stdin: stdin.then(|| Box::new(input) as _),
        stdout: Box::new(stdout),
        stderr: (!tty).then(|| Box::new(stderr) as _),
    })
}

/// Standard input that tells being shut from merely being dropped.
struct Input {
    to: DuplexStream,
    shut: Arc<AtomicBool>,
}

impl AsyncWrite for Input {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.to).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.to).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shut.store(true, Ordering::Release);
        Pin::new(&mut self.to).poll_shutdown(cx)
    }
}

async fn receive(
    mut from: OwnedReadHalf,
    mut stdout: DuplexStream,
    mut stderr: DuplexStream,
) -> io::Result<()> {
    let mut header = [0; frame::HEADER_BYTES];
    let mut content = Vec::new();
    loop {
        match from.read_exact(&mut header).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        };
        let (kind, length) =
            frame::parse(header).ok_or_else(|| io::Error::other("the logger sent too long a frame"))?;
        content.resize(length, 0);
        from.read_exact(&mut content).await?;
        if kind == frame::STDERR {
            // Whoever does not want errors has dropped their end.
            let _ = stderr.write_all(&content).await;
        } else {
            stdout.write_all(&content).await?;
        }
    }
}

/// Passes input on. `true` when somebody used it and is done: wrote something, or shut it.
async fn send(mut from: DuplexStream, to: &mut OwnedWriteHalf, shut: &AtomicBool) -> io::Result<bool> {
    let mut buffer = vec![0; frame::BYTES_MAX];
    let mut used = false;
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            break;
        }
        used = true;
        to.write_all(&frame::header(frame::STDIN, read)).await?;
        to.write_all(&buffer[..read]).await?;
    }
    used |= shut.load(Ordering::Acquire);
    if used {
        to.write_all(&frame::header(frame::STDIN, 0)).await?;
    }
    Ok(used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logger_is_named_as_containerd_reads_it() {
        let uri = logger_uri(Path::new("/opt/a b/coracle"), Path::new("/var/log/pods/d_p_u/c/0.log"));
        assert_eq!(
            uri,
            "binary:///opt/a%20b/coracle?container-logger=%2Fvar%2Flog%2Fpods%2Fd_p_u%2Fc%2F0.log"
        );
    }
}
