//! Sandboxes: a pod's namespaces held by bind mounts instead of a process, its cgroup and its cable.
//!
//! ```text
//! RUN/sandboxes/UID/   spec.json (first to come, last to go)   net uts ipc [pid] (pins)   shm   ready (last to come, first to go)
//! ```
//!
//! Invariant: what `spec.json` names can be removed, however far its making got; only with `ready` is it used. RUN is on a
//! tmpfs: after a restart of the machine or the node nothing is left of it, just as nothing is left of the namespaces.

use super::network::{Network, on_own_thread};
use super::{RuntimeError, SandboxSpec, cgroup, host_ports, pod_init};
use coracle_daemon::{Tasks, nft};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Size of a pod's /dev/shm.
const SHM: &str = "mode=1777,size=65536k";
/// Any program may listen on any port of its own pod, as with containerd 2.
const UNPRIVILEGED_PORTS: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";

/// A sandbox's folder.
#[derive(Clone, Debug)]
pub struct Held {
    dir: PathBuf,
    /// How it was asked for.
    pub spec: SandboxSpec,
}

impl Held {
    /// The sandbox with its folder below `run`.
    pub fn new(run: &Path, spec: SandboxSpec) -> Self {
        Self { dir: folder(run).join(&spec.uid), spec }
    }

    /// The sandbox of that pod, whole or not.
    pub fn load(run: &Path, uid: &str) -> io::Result<Option<Self>> {
        let dir = folder(run).join(uid);
        match fs::read(dir.join("spec.json")) {
            Ok(bytes) => Ok(Some(Self { dir, spec: serde_json::from_slice(&bytes)? })),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// All sandboxes, whole or not.
    pub fn all(run: &Path) -> io::Result<Vec<Self>> {
        let mut all = Vec::new();
        for uid in names(run)? {
            all.extend(Self::load(run, &uid)?);
        }
        Ok(all)
    }

    /// Where a namespace is held.
    pub fn pin(&self, kind: &str) -> PathBuf {
        self.dir.join(kind)
    }

    /// What containers see as /dev/shm.
    pub fn shm(&self) -> PathBuf {
        if self.spec.host_ipc { PathBuf::from("/dev/shm") } else { self.dir.join("shm") }
    }

    /// Which namespaces the pod has of its own, shared by its containers.
    fn kinds(&self) -> Vec<(&'static str, CloneFlags)> {
        let spec = &self.spec;
        let mut kinds = Vec::new();
        if spec.address.is_some() {
            kinds.extend([("net", CloneFlags::CLONE_NEWNET), ("uts", CloneFlags::CLONE_NEWUTS)]);
        }
        if !spec.host_ipc {
            kinds.push(("ipc", CloneFlags::CLONE_NEWIPC));
        }
        kinds
    }

    fn shares_pids(&self) -> bool {
        self.spec.share_pids && !self.spec.host_pid
    }

    /// Whether it is whole: all its namespaces are held.
    pub fn ready(&self) -> bool {
        let held = |kind: &str| {
            nix::sys::statfs::statfs(&self.pin(kind))
                .is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::NSFS_MAGIC)
        };
        self.dir.join("ready").exists()
            && self.kinds().iter().all(|(kind, _)| held(kind))
            && (!self.shares_pids() || (held("pid") && pod_init::process(&self.dir).is_some()))
    }
}

fn folder(run: &Path) -> PathBuf {
    run.join("sandboxes")
}

fn names(run: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    match fs::read_dir(folder(run)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        entries => {
            for entry in entries? {
                names.extend(entry?.file_name().into_string().ok());
            }
        }
    }
    names.sort();
    Ok(names)
}

/// A pod's uid becomes a folder's name.
fn valid_uid(uid: &str) -> bool {
    (1..=128).contains(&uid.len())
        && uid.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && !uid.starts_with('.')
}

fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    doing: impl Into<String>,
) -> impl FnOnce(E) -> RuntimeError {
    let doing = doing.into();
    move |error| RuntimeError::Failed { doing, source: error.into() }
}

/// Makes and removes sandboxes. Callers see to it that no two work on the same pod.
pub struct Sandboxes {
    run: PathBuf,
    program: PathBuf,
    node: Network,
    /// Held while the ports of all sandboxes are told to the kernel.
    ports: tokio::sync::Mutex<()>,
    tasks: Tasks,
}

impl Sandboxes {
    /// `program` is the `coracle` program, which holds shared process namespaces.
    pub fn new(run: PathBuf, program: PathBuf, tasks: &Tasks) -> Result<Self, RuntimeError> {
        let node = Network::here(tasks).map_err(failed("use the node's network"))?;
        Ok(Self { run, program, node, ports: tokio::sync::Mutex::default(), tasks: tasks.clone() })
    }

    /// Removes folders whose removal was cut off at the very end.
    pub async fn sweep(&self) -> Result<(), RuntimeError> {
        for uid in names(&self.run).map_err(failed("list sandboxes"))? {
            let dir = folder(&self.run).join(&uid);
            if !dir.join("spec.json").exists() {
                self.remove(&uid).await?;
            }
        }
        Ok(())
    }

    /// Makes the sandbox unless it is there and whole.
    pub async fn start(&self, spec: &SandboxSpec) -> Result<(), RuntimeError> {
        if !valid_uid(&spec.uid) {
            return Err(RuntimeError::Config(format!("invalid pod uid {:?}", spec.uid)));
        }
        let sysctls = sysctls(spec).map_err(RuntimeError::Config)?;
        let held = Held::new(&self.run, spec.clone());
        let before = Held::load(&self.run, &spec.uid).map_err(failed("read a sandbox"))?;
        if before.is_some_and(|before| same_place(&before.spec, spec) && before.ready()) {
            // Limits may have changed; nothing else may be taken from under running containers.
            return cgroup::create(&spec.cgroup, &spec.resources).map_err(failed("set a pod's limits"));
        }
        self.remove(&spec.uid).await?;
        let doing = |what: &str| format!("{what} of the pod {}_{}({})", spec.name, spec.namespace, spec.uid);
        write_spec(&held).map_err(failed(doing("write the sandbox")))?;
        cgroup::create(&spec.cgroup, &spec.resources).map_err(failed(doing("make the cgroup")))?;
        let pod = self.hold(&held).await.map_err(failed(doing("make the namespaces")))?;
        if held.shares_pids() {
            pod_init::start(&self.program, &held.dir)
                .await
                .map_err(failed(doing("make the process namespace")))?;
        }
        if let (Some(pod), Some(address)) = (pod, spec.address) {
            let namespace = File::open(held.pin("net")).map_err(failed(doing("open the network")))?;
            pod.loopback_up().await.map_err(failed(doing("start the network")))?;
            self.node
                .plug(&spec.uid, address, &namespace, &pod)
                .await
                .map_err(failed(doing("make the network")))?;
        }
        if !spec.host_ports.is_empty() {
            self.tell_ports().await.map_err(failed(doing("lead the node's ports to the network")))?;
        }
        if !sysctls.is_empty() {
            set_sysctls(&held, sysctls).await.map_err(failed(doing("set the sysctls")))?;
        }
        File::create(held.dir.join("ready")).map_err(failed(doing("finish the sandbox"))).map(drop)
    }

    /// Makes the kernel lead ports of the node to the pods whose sandboxes say so, and no others.
    async fn tell_ports(&self) -> io::Result<()> {
        let _turn = self.ports.lock().await;
        let all = Held::all(&self.run)?;
        let ports = all.iter().flat_map(|held| {
            let address = held.spec.address;
            held.spec.host_ports.iter().filter_map(move |port| Some((address?, port)))
        });
        fs::write(host_ports::ROUTE_LOCALNET, "1")?;
        nft::apply(&host_ports::script(ports)).await.map_err(io::Error::other)
    }

    /// Makes the namespaces on a thread of their own, and holds them.
    async fn hold(&self, held: &Held) -> io::Result<Option<Network>> {
        let (held, tasks) = (held.clone(), self.tasks.clone());
        let runtime = tokio::runtime::Handle::current();
        on_own_thread(move || {
            let kinds = held.kinds();
            unshare(kinds.iter().fold(CloneFlags::empty(), |flags, (_, flag)| flags | *flag))?;
            for (kind, _) in &kinds {
                pin(&format!("/proc/thread-self/ns/{kind}"), &held.pin(kind))?;
            }
            if !held.spec.host_ipc {
                fs::create_dir_all(held.shm())?;
                let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
                mount(Some("shm"), &held.shm(), Some("tmpfs"), flags, Some(SHM))?;
            }
            if held.spec.address.is_none() {
                return Ok(None);
            }
            nix::unistd::sethostname(&held.spec.hostname)?;
            fs::write(UNPRIVILEGED_PORTS, "0")?;
            // The socket stays in this namespace, whoever uses it.
            let _entered = runtime.enter();
            Network::here(&tasks).map(Some).map_err(io::Error::other)
        })
        .await
    }

    /// Removes what there is of a sandbox. Nothing is fine. Its containers must be gone.
    pub async fn remove(&self, uid: &str) -> Result<(), RuntimeError> {
        if !valid_uid(uid) {
            return Ok(());
        }
        let dir = folder(&self.run).join(uid);
        let doing = |what: &str| format!("{what} of the pod {uid}");
        self.node.unplug(uid).await.map_err(failed(doing("remove the network")))?;
        if !dir.exists() {
            return Ok(());
        }
        release(&dir).map_err(failed(doing("release the namespaces")))?;
        let held = Held::load(&self.run, uid).map_err(failed(doing("read the sandbox")))?;
        if let Some(held) = &held {
            cgroup::remove(&held.spec.cgroup).await.map_err(failed(doing("remove the cgroup")))?;
        }
        match fs::remove_file(dir.join("spec.json")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(failed(doing("remove the sandbox")))?,
        }
        if held.is_some_and(|held| !held.spec.host_ports.is_empty()) {
            self.tell_ports().await.map_err(failed(doing("let go of the node's ports")))?;
        }
        fs::remove_dir_all(&dir).map_err(failed(doing("remove the sandbox")))
    }
}

/// Whether containers of one sandbox would be at home in the other.
fn same_place(a: &SandboxSpec, b: &SandboxSpec) -> bool {
    let place = |spec: &SandboxSpec| {
        (spec.address, spec.host_pid, spec.host_ipc, spec.share_pids, spec.cgroup.clone())
    };
    place(a) == place(b)
}

fn write_spec(held: &Held) -> io::Result<()> {
    fs::create_dir_all(&held.dir)?;
    let part = held.dir.join("spec.part");
    fs::write(&part, serde_json::to_vec(&held.spec)?)?;
    fs::rename(part, held.dir.join("spec.json"))
}

/// Keeps a namespace alive without a process.
pub(super) fn pin(namespace: &str, at: &Path) -> io::Result<()> {
    File::create(at)?;
    mount(Some(namespace), at, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(())
}

/// Lets go of everything but `spec.json`.
fn release(dir: &Path) -> io::Result<()> {
    let gone = |removed: io::Result<()>| match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    };
    gone(fs::remove_file(dir.join("ready")))?;
    pod_init::stop(dir);
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name == "spec.json") {
            continue;
        }
        match umount2(&path, MntFlags::MNT_DETACH) {
            // No mount: a file, or a pin that was never made.
            Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
        gone(if path.is_dir() { fs::remove_dir(&path) } else { fs::remove_file(&path) })?;
    }
    Ok(())
}

/// The files below /proc/sys for a pod's sysctls.
///
/// # Errors
/// One of them would change the whole node rather than the pod.
fn sysctls(spec: &SandboxSpec) -> Result<Vec<(PathBuf, String)>, String> {
    let mut files = Vec::new();
    for (name, value) in &spec.sysctls {
        // Either separator is allowed; the first one found tells which.
        let path = match name.find(['.', '/']).map(|at| &name[at..=at]) {
            Some("/") => name.clone(),
            _ => name.replace('.', "/"),
        };
        let valid = path.split('/').all(|part| {
            !matches!(part, "" | "." | "..")
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        });
        let network = path.starts_with("net/") && spec.address.is_some();
        let ipc = ["kernel/shm", "kernel/msg", "kernel/sem", "fs/mqueue/"]
            .iter()
            .any(|prefix| path.starts_with(prefix))
            && !spec.host_ipc;
        if !valid || !(network || ipc) {
            return Err(format!("sysctl {name:?} is not in a separate namespace of the pod"));
        }
        files.push((Path::new("/proc/sys").join(path), value.clone()));
    }
    Ok(files)
}

/// /proc/sys shows the namespaces of whoever looks.
async fn set_sysctls(held: &Held, sysctls: Vec<(PathBuf, String)>) -> io::Result<()> {
    let mut namespaces = Vec::new();
    for (kind, flag) in held.kinds() {
        namespaces.push((File::open(held.pin(kind))?, flag));
    }
    on_own_thread(move || {
        for (namespace, flag) in &namespaces {
            setns(namespace, *flag)?;
        }
        for (file, value) in sysctls {
            fs::write(&file, value)
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", file.display())))?;
        }
        Ok(())
    })
    .await
}

/// Connects to a port on the loopback of a pod, IPv4 first.
pub async fn connect(held: Option<Held>, port: u16) -> io::Result<tokio::net::TcpStream> {
    use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};
    let namespace = match &held {
        Some(held) if held.spec.address.is_some() => Some(File::open(held.pin("net"))?),
        _ => None,
    };
    let stream = on_own_thread(move || {
        if let Some(namespace) = namespace {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
        }
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).or_else(|error| {
            // The first failure is what users know; the second is only an attempt.
            TcpStream::connect((Ipv6Addr::LOCALHOST, port)).map_err(|_| error)
        })?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    })
    .await?;
    tokio::net::TcpStream::from_std(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctls_that_would_change_the_node_are_refused() {
        let spec = |name: &str, address, host_ipc| SandboxSpec {
            uid: "u".into(),
            namespace: "d".into(),
            name: "p".into(),
            hostname: "h".into(),
            address,
            host_ports: Vec::new(),
            host_pid: false,
            host_ipc,
            share_pids: false,
            sysctls: [(name.to_owned(), "1".to_owned())].into(),
            cgroup: "/x".into(),
            resources: super::super::Resources::default(),
        };
        let address = Some([10, 0, 0, 1].into());
        let path = |name: &str| sysctls(&spec(name, address, false)).ok().map(|files| files[0].0.clone());
        assert_eq!(path("net.core.somaxconn"), Some("/proc/sys/net/core/somaxconn".into()));
        assert_eq!(
            path("net/ipv4/conf/a.b/forwarding"),
            Some("/proc/sys/net/ipv4/conf/a.b/forwarding".into())
        );
        assert_eq!(path("kernel.shmmax"), Some("/proc/sys/kernel/shmmax".into()));
        for refused in ["vm.swappiness", "kernel.panic", "net/../vm/swappiness", "net..x", "x"] {
            assert_eq!(path(refused), None, "{refused}");
        }
        assert!(sysctls(&spec("net.core.somaxconn", None, false)).is_err());
        assert!(sysctls(&spec("kernel.shmmax", address, true)).is_err());
    }

    #[test]
    fn a_uid_never_leads_out_of_the_folder() {
        assert!(valid_uid("0b6c9a4e-8f7c-4c1e-9a53-9f6c0f3b8b10"));
        for uid in ["", "..", "a/b", ".x"] {
            assert!(!valid_uid(uid), "{uid}");
        }
    }
}
