//! A member as a process of its own: this program again, with the flags of `coracle store`.

use anyhow::{Context, Result, bail};
use coracle_daemon::{Component, run as run_component};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
pub use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::{Pid, geteuid};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// The argument that makes this program a member.
pub const MEMBER: &str = "member";

/// The body of a member process.
pub fn run(args: store::Args) -> ExitCode {
    let component = Component { name: "store", grace: Duration::from_secs(5), threads: 2 };
    run_component(component, |tasks| store::run(args, tasks))
}

/// A member, which dies with this.
pub struct Member {
    child: Child,
    program: PathBuf,
    flags: Vec<String>,
    log: PathBuf,
    client_url: String,
    channel: Option<Channel>,
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

impl Member {
    pub fn start(folder: &Path, at: usize, ports: &[u16]) -> Result<Self> {
        let peer = |at: usize| url(ports[2 * at]);
        let client_url = url(ports[2 * at + 1]);
        let cluster: Vec<String> = (0..ports.len() / 2).map(|at| format!("m{at}={}", peer(at))).collect();
        let data = folder.join(format!("m{at}"));
        let flags = vec![
            MEMBER.to_owned(),
            format!("--name=m{at}"),
            format!("--data-dir={}", data.join("data").display()),
            format!("--listen-client-urls={client_url}"),
            format!("--advertise-client-urls={client_url}"),
            format!("--listen-peer-urls={}", peer(at)),
            format!("--initial-advertise-peer-urls={}", peer(at)),
            format!("--initial-cluster={}", cluster.join(",")),
            "--snapshot-count=500".to_owned(),
            // Slower than by default: a test shares its cores with others.
            "--heartbeat-interval=100".to_owned(),
            "--election-timeout=400".to_owned(),
        ];
        DirBuilder::new().recursive(true).mode(0o700).create(&data)?;
        let program = std::env::current_exe().context("this program has no path")?;
        let log = folder.join(format!("m{at}.log"));
        let child = spawn(&program, &flags, &log)?;
        Ok(Self { child, program, flags, log, client_url, channel: None })
    }

    /// The connection to it, made anew by itself when it is lost.
    pub fn channel(&self) -> Result<Channel> {
        match &self.channel {
            Some(channel) => Ok(channel.clone()),
            None => {
                let endpoint = Endpoint::from_shared(self.client_url.clone())?;
                Ok(endpoint.connect_timeout(Duration::from_secs(1)).connect_lazy())
            }
        }
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.child.id()).context("no process id")?;
        Ok(kill(Pid::from_raw(id), signal)?)
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    pub fn start_again(&mut self) -> Result<()> {
        self.child = spawn(&self.program, &self.flags, &self.log)?;
        Ok(())
    }

    pub fn start_again_if_ended(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            self.start_again()?;
        }
        Ok(())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.kill();
    }
}

fn spawn(program: &Path, flags: &[String], log: &Path) -> Result<Child> {
    let log = OpenOptions::new().create(true).append(true).open(log)?;
    let mut command = Command::new(program);
    command.args(flags).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().with_context(|| format!("cannot start {}", program.display()))
}

/// Ports of loopback that nobody listens on.
pub fn free_ports(count: usize) -> Result<Vec<u16>> {
    let listeners: std::io::Result<Vec<TcpListener>> =
        (0..count).map(|_| TcpListener::bind(("127.0.0.1", 0))).collect();
    let ports: std::io::Result<Vec<u16>> =
        listeners?.iter().map(|listener| Ok(listener.local_addr()?.port())).collect();
    Ok(ports?)
}

/// A small disk in memory, mounted as long as this lives.
pub struct SmallDisk(PathBuf);

/// Mounts one at `path`; `None` where that takes rights that this process has not.
pub fn small_disk(path: &Path, mib: u64) -> Result<Option<SmallDisk>> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    if !geteuid().is_root() {
        return Ok(None);
    }
    let options = format!("size={mib}m,mode=0700");
    match mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())) {
        Ok(()) => Ok(Some(SmallDisk(path.to_owned()))),
        // A container's root may have no right to mount.
        Err(nix::errno::Errno::EPERM | nix::errno::Errno::EACCES) => Ok(None),
        Err(error) => bail!("cannot mount a small disk at {}: {error}", path.display()),
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = umount2(&self.0, MntFlags::MNT_DETACH) {
            eprintln!("{} stays mounted: {error}", self.0.display());
        }
    }
}

/// Writes a file until the disk is full.
pub fn fill(path: &Path) -> Result<()> {
    let mut file = File::create(path)?;
    for size in [1 << 20, 4096, 1] {
        loop {
            match file.write_all(&vec![0; size]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}
