//! Commands beside a container's own, through named pipes in its folder; and joining the container's own streams.

use super::link::{failed, found};
use super::records::{self, label};
use super::spec::{PROCESS_TYPE, exec_process};
use super::{Containerd, pipe, streams};
use crate::runtime::{Exec, ExecSpec, RuntimeError, Streams};
use containerd_client::services::v1::{
    CloseIoRequest, Container as Record, DeleteProcessRequest, ExecProcessRequest, KillRequest,
    ResizePtyRequest, StartRequest, WaitRequest,
};
use coracle_daemon::clock;
use nix::sys::stat::Mode;
use parking_lot::Mutex;
use prost_types::Any;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::net::unix::pipe::{OpenOptions, Receiver, Sender};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Code;

/// How long a killed command may take to be gone.
const KILLED_MAX: Duration = Duration::from_secs(10);
const SIGKILL: u32 = 9;

/// A process of a running container: its first, or a further one.
#[derive(Clone)]
struct Target {
    runtime: Containerd,
    container: String,
    /// Empty for the container's first process.
    exec: String,
}

impl Target {
    async fn resize(&self, columns: u16, rows: u16) -> Result<(), RuntimeError> {
        let request = ResizePtyRequest {
            container_id: self.container.clone(),
            exec_id: self.exec.clone(),
            width: columns.into(),
            height: rows.into(),
        };
        let resized = self.runtime.link().tasks().resize_pty(request).await;
        resized.map(drop).map_err(failed("set the size of a terminal"))
    }

    /// The exit code; `None` if the process went with its container.
    async fn wait(&self) -> Result<Option<i32>, RuntimeError> {
        let request = WaitRequest { container_id: self.container.clone(), exec_id: self.exec.clone() };
        let status = match self.runtime.link().patient().tasks().wait(request).await {
            Ok(reply) => return Ok(Some(i32::try_from(reply.into_inner().exit_status).unwrap_or(255))),
            Err(status) => status,
        };
        // A container that ends takes its shim along, and with it the answer to whoever waits.
        if records::ended(&self.runtime, &self.container).await?.is_some() || status.code() == Code::NotFound
        {
            return Ok(None);
        }
        Err(failed(format!("wait in the container {}", self.container))(status))
    }

    async fn close_input(&self) {
        let request =
            CloseIoRequest { container_id: self.container.clone(), exec_id: self.exec.clone(), stdin: true };
        // The process may have ended, which closes everything.
        if let Err(error) = self.runtime.link().tasks().close_io(request).await {
            tracing::debug!(container = self.container, %error, "standard input is not closed");
        }
    }

    /// Ends a further process and forgets it.
    async fn end(&self, ended: bool) {
        let (container_id, exec_id) = (self.container.clone(), self.exec.clone());
        let mut tasks = self.runtime.link().tasks();
        if !ended {
            let request = KillRequest {
                container_id: container_id.clone(),
                exec_id: exec_id.clone(),
                signal: SIGKILL,
                all: false,
            };
            // What has ended cannot be killed, and what cannot be killed cannot be waited for.
            if tasks.kill(request).await.is_ok() {
                let _ = clock::timeout(KILLED_MAX, self.wait()).await;
            }
        }
        if let Err(error) = found(tasks.delete_process(DeleteProcessRequest { container_id, exec_id }).await)
        {
            tracing::debug!(container = self.container, %error, "a command is not forgotten");
        }
    }
}

/// A running container's record, or why there is none.
async fn running(runtime: &Containerd, id: &str) -> Result<Record, RuntimeError> {
    let missing = || RuntimeError::NotFound { what: format!("container {id:?}") };
    let record = records::get(runtime, id).await?.ok_or_else(missing)?;
    let task = records::task(runtime, id).await?;
    if task.is_some_and(|task| records::alive(&task)) {
        return Ok(record);
    }
    let state = if records::exit(&record).is_some() { "CONTAINER_EXITED" } else { "CONTAINER_CREATED" };
    Err(failed(format!("use the container {id}"))(format!("container is in {state} state")))
}

/// Starts a command in a running container.
pub async fn start(runtime: &Containerd, id: &str, spec: &ExecSpec) -> Result<Box<dyn Exec>, RuntimeError> {
    let record = running(runtime, id).await?;
    let doing = || format!("run a command in the container {id}");
    let bytes = record.spec.map(|any| any.value).unwrap_or_default();
    let container: serde_json::Value = serde_json::from_slice(&bytes).map_err(failed(doing()))?;
    let process = exec_process(&container, &spec.command, spec.tty);
    let exec = uuid::Uuid::new_v4().simple().to_string();
    let target = Target { runtime: runtime.clone(), container: id.to_owned(), exec: exec.clone() };
    let pipes =
        Pipes::make(&records::folder(id).join(format!("exec-{exec}")), spec).map_err(failed(doing()))?;
    let (stdin, stdout, stderr) = pipes.names();
    let request = ExecProcessRequest {
        container_id: id.to_owned(),
        stdin,
        stdout,
        stderr,
        terminal: spec.tty,
        spec: Some(Any { type_url: PROCESS_TYPE.to_owned(), value: process.to_string().into_bytes() }),
        exec_id: exec.clone(),
    };
    runtime.link().tasks().exec(request).await.map_err(failed(doing()))?;
    let mut command = Command { target, pipes, streams: Mutex::new(None), code: None };
    let request = StartRequest { container_id: id.to_owned(), exec_id: exec.clone() };
    // From here on, dropping `command` cleans up.
    runtime.link().tasks().start(request).await.map_err(|status| {
        RuntimeError::Start(format!(
            "failed to exec in container: failed to start exec {exec:?}: {}",
            status.message()
        ))
    })?;
    let streams = command.pipes.streams(&command.target).await.map_err(failed(doing()))?;
    *command.streams.get_mut() = Some(streams);
    Ok(Box::new(command))
}

/// Named pipes of one command. Our ends of the outputs are open from the beginning, so that nothing is lost.
struct Pipes {
    folder: PathBuf,
    stdin: bool,
    tty: bool,
    stdout: Option<Receiver>,
    stderr: Option<Receiver>,
}

impl Pipes {
    fn make(folder: &Path, spec: &ExecSpec) -> io::Result<Self> {
        fs::create_dir(folder)?;
        // Dropping it removes the folder, should the rest fail.
        let mut pipes =
            Self { folder: folder.to_owned(), stdin: spec.stdin, tty: spec.tty, stdout: None, stderr: None };
        let make = |name: &str| nix::unistd::mkfifo(&folder.join(name), Mode::S_IRUSR | Mode::S_IWUSR);
        if spec.stdin {
            make("stdin")?;
        }
        make("stdout")?;
        pipes.stdout = Some(OpenOptions::new().open_receiver(folder.join("stdout"))?);
        if !spec.tty {
            make("stderr")?;
            pipes.stderr = Some(OpenOptions::new().open_receiver(folder.join("stderr"))?);
        }
        Ok(pipes)
    }

    fn names(&self) -> (String, String, String) {
        let name = |name: &str, wanted: bool| {
            if wanted { self.folder.join(name).to_string_lossy().into_owned() } else { String::new() }
        };
        (name("stdin", self.stdin), name("stdout", true), name("stderr", self.stderr.is_some()))
    }

    /// Our ends, once the command was started: before, they would look as if it had ended.
    async fn streams(&mut self, target: &Target) -> io::Result<Streams> {
        let stdout = self.stdout.take().ok_or_else(|| io::Error::other("the streams were taken"))?;
        let stdin: Option<Box<dyn AsyncWrite + Send + Unpin>> = if self.stdin {
            let ended = async { target.wait().await.map(drop).map_err(io::Error::other) };
            Some(match pipe::open_for(&self.folder.join("stdin"), ended).await? {
                Some(to) => Box::new(Input { to: Some(to), tty: self.tty, target: target.clone() }),
                None => Box::new(tokio::io::sink()),
            })
        } else {
            None
        };
        Ok(Streams { stdin, stdout: Box::new(stdout), stderr: self.stderr.take().map(|s| Box::new(s) as _) })
    }
}

impl Drop for Pipes {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            tracing::debug!(%error, "a command's pipes stay until its container goes");
        }
    }
}

/// A command's standard input. The shim holds it open until told otherwise. A terminal's is never closed, as that
/// would hang it up; whoever types ends it by typing.
struct Input {
    to: Option<Sender>,
    tty: bool,
    target: Target,
}

impl Input {
    fn close(&mut self) {
        if self.to.take().is_some() && !self.tty {
            let target = self.target.clone();
            let tasks = target.runtime.shared.tasks.clone();
            tasks.run("close a command's input", async move { target.close_input().await });
        }
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.close();
    }
}

impl AsyncWrite for Input {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.to {
            Some(to) => Pin::new(to).poll_write(cx, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close();
        Poll::Ready(Ok(()))
    }
}

struct Command {
    target: Target,
    pipes: Pipes,
    /// Behind a lock only so that others may look at the rest meanwhile.
    streams: Mutex<Option<Streams>>,
    code: Option<i32>,
}

#[async_trait::async_trait]
impl Exec for Command {
    fn streams(&mut self) -> Option<Streams> {
        self.streams.get_mut().take()
    }
    async fn resize(&self, columns: u16, rows: u16) -> Result<(), RuntimeError> {
        self.target.resize(columns, rows).await
    }
    async fn wait(&mut self) -> Result<i32, RuntimeError> {
        let code = match self.code {
            Some(code) => code,
            // The container ended, and took the command with it.
            None => self.target.wait().await?.unwrap_or(137),
        };
        self.code = Some(code);
        Ok(code)
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        let (target, ended) = (self.target.clone(), self.code.is_some());
        let tasks = target.runtime.shared.tasks.clone();
        tasks.run("end a command", async move { target.end(ended).await });
    }
}

/// Joins a running container's own streams.
pub async fn attach(runtime: &Containerd, id: &str) -> Result<Box<dyn Exec>, RuntimeError> {
    let record = running(runtime, id).await?;
    let target = Target { runtime: runtime.clone(), container: id.to_owned(), exec: String::new() };
    let (stdin, tty) = (records::text(&record, label::STDIN), records::text(&record, label::TTY) == "true");
    let left = CancellationToken::new();
    let closing = (stdin == "once").then(|| target.clone());
    let closed = async move {
        if let Some(target) = closing {
            target.close_input().await;
        }
    };
    let folder = records::folder(id);
    let tasks = (&runtime.shared.tasks, left.clone());
    let streams = streams::attach(&folder, stdin != "false", tty, tasks, closed)
        .await
        .map_err(failed(format!("attach to the container {id}")))?;
    Ok(Box::new(Attached { target, streams: Mutex::new(Some(streams)), _left: left.drop_guard() }))
}

struct Attached {
    target: Target,
    /// Behind a lock only so that others may look at the rest meanwhile.
    streams: Mutex<Option<Streams>>,
    _left: DropGuard,
}

#[async_trait::async_trait]
impl Exec for Attached {
    fn streams(&mut self) -> Option<Streams> {
        self.streams.get_mut().take()
    }
    async fn resize(&self, columns: u16, rows: u16) -> Result<(), RuntimeError> {
        self.target.resize(columns, rows).await
    }
    async fn wait(&mut self) -> Result<i32, RuntimeError> {
        if let Some(code) = self.target.wait().await? {
            return Ok(code);
        }
        let missing = || RuntimeError::NotFound { what: format!("container {:?}", self.target.container) };
        records::ended(&self.target.runtime, &self.target.container).await?.ok_or_else(missing)
    }
}

/// Tells containerd of inputs that were closed while no kubelet was there.
pub async fn close_left_inputs(runtime: &Containerd) -> Result<(), RuntimeError> {
    for record in records::of_pod(runtime, None).await? {
        let closed = crate::logger::stdin_closed(&records::folder(&record.id)).exists();
        if closed && records::text(&record, label::STDIN) == "once" && records::exit(&record).is_none() {
            let target = Target { runtime: runtime.clone(), container: record.id, exec: String::new() };
            target.close_input().await;
        }
    }
    Ok(())
}
