//! The first process of a process namespace that a pod's containers share: `coracle pod-init DIR`.
//!
//! In: a sandbox's folder. Out: its pin `pid`, and `init` with the number of the process inside. That one only waits for
//! orphans, as somebody must; when it ends, the kernel ends everything in the namespace.

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// `coracle pod-init`
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// The sandbox's folder.
    pub dir: PathBuf,
    /// Set for the process inside.
    #[arg(long)]
    pub inner: bool,
}

/// Makes the namespace, or is its first process.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    match if args.inner { wait_for_orphans() } else { make(&args.dir) } {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("coracle pod-init: {error}");
            ExitCode::FAILURE
        }
    }
}

/// This process stays outside and ends; its child goes on without it.
fn make(dir: &Path) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWPID)?;
    let mut inside = Command::new(std::env::current_exe()?)
        .arg("pod-init")
        .arg(dir)
        .arg("--inner")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    let held = fs::write(dir.join("init"), inside.id().to_string())
        .and_then(|()| super::sandbox::pin(&format!("/proc/{}/ns/pid", inside.id()), &dir.join("pid")));
    if held.is_err() {
        inside.kill()?;
    }
    held
}

fn wait_for_orphans() -> io::Result<()> {
    let mut ended = SigSet::empty();
    ended.add(Signal::SIGCHLD);
    ended.thread_block()?;
    loop {
        ended.wait()?;
        while !matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive) | Err(_)) {}
    }
}

/// Starts `program` for the sandbox in `dir`.
pub(super) async fn start(program: &Path, dir: &Path) -> io::Result<()> {
    let output =
        tokio::process::Command::new(program).arg("pod-init").arg(dir).stdin(Stdio::null()).output().await?;
    if output.status.success() {
        Ok(())
    } else {
        Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

/// The process inside, if it lives. Its namespace tells it from another process with the same number.
pub(super) fn process(dir: &Path) -> Option<Pid> {
    let number: i32 = fs::read_to_string(dir.join("init")).ok()?.trim().parse().ok()?;
    let namespace = |path: &Path| fs::metadata(path).ok().map(|it| (it.dev(), it.ino()));
    let lives = namespace(Path::new(&format!("/proc/{number}/ns/pid")))? == namespace(&dir.join("pid"))?;
    (number > 1 && lives).then(|| Pid::from_raw(number))
}

/// Ends everything in the namespace.
pub(super) fn stop(dir: &Path) {
    if let Some(pid) = process(dir) {
        // Gone in the meantime is what we want.
        let _ = kill(pid, Signal::SIGKILL);
    }
}
