//! What a kubelet needs of whatever runs containers, as one trait with two implementations: containerd and simulated.
//!
//! In: plain values that say what should exist ([`SandboxSpec`], [`ContainerSpec`]). Out: what does exist ([`Sandbox`]),
//! and hints that something changed. Every call is idempotent, so that a kubelet that died half-way simply calls again.

mod cgroup;
mod containerd;
mod host_ports;
pub mod network;
pub mod pod_init;
pub mod reference;
mod sandbox;
pub mod simulated;

pub use containerd::{Config, Containerd};

pub use host_ports::HostPort;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

/// Why the runtime could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The image is not here and could not be fetched. The text is for the pod's status.
    #[error("failed to pull image {image:?}: {why}")]
    Pull {
        /// As the pod names it.
        image: String,
        /// What went wrong.
        why: String,
    },
    /// There is no such sandbox, container or image.
    #[error("{what} not found")]
    NotFound {
        /// What was looked for.
        what: String,
    },
    /// The command cannot be run: no such file, not executable. The text is for the container's status.
    #[error("{0}")]
    Start(String),
    /// The container cannot even be made as asked, such as a root user where none may be. The text is for the status
    /// (upstream's `CreateContainerConfigError`).
    #[error("{0}")]
    Config(String),
    /// Anything else, with what was being done.
    #[error("cannot {doing}")]
    Failed {
        /// What was being done to what.
        doing: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// One pod's network and cgroup, to be made before its containers.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct SandboxSpec {
    /// The pod's uid: the sandbox's identity.
    pub uid: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// Host name inside.
    pub hostname: String,
    /// The pod's address; `None` uses the node's network.
    pub address: Option<Ipv4Addr>,
    /// Ports of the node that lead to it.
    #[serde(default)]
    pub host_ports: Vec<HostPort>,
    /// The node's processes are visible inside (`hostPID`).
    pub host_pid: bool,
    /// The node's IPC objects are visible inside (`hostIPC`).
    pub host_ipc: bool,
    /// Containers see each other's processes (`shareProcessNamespace`).
    pub share_pids: bool,
    /// `net.core.somaxconn` and the like.
    pub sysctls: BTreeMap<String, String>,
    /// The pod's cgroup, relative to each hierarchy's root.
    pub cgroup: String,
    /// What all its containers together may use: sums, as upstream's pod cgroups have them. `oom_score_adj` is not used.
    pub resources: Resources,
}

/// One run of one container. `attempt` tells restarts apart.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerSpec {
    /// The pod's uid.
    pub pod_uid: String,
    /// The pod's namespace.
    pub pod_namespace: String,
    /// The pod's name.
    pub pod_name: String,
    /// The container's name in the pod.
    pub name: String,
    /// 0 for the first run, then one more each time.
    pub attempt: u32,
    /// As the pod names it; present by now.
    pub image: String,
    /// `command`: replaces the image's entrypoint when not empty.
    pub command: Vec<String>,
    /// `args`: replaces the image's cmd when not empty; a command without args drops the image's cmd.
    pub args: Vec<String>,
    /// Added to the image's environment, in order; a later one wins.
    pub env: Vec<(String, String)>,
    /// Replaces the image's working directory.
    pub working_dir: Option<String>,
    /// Files and folders to bind.
    pub mounts: Vec<Mount>,
    /// A terminal is wanted.
    pub tty: bool,
    /// Standard input is wanted.
    pub stdin: bool,
    /// Standard input closes after the first attach.
    pub stdin_once: bool,
    /// Who runs it and what it may do.
    pub security: Security,
    /// What it may use.
    pub resources: Resources,
    /// The runtime's id of a running container of the pod whose processes it sees and may trace.
    pub target: Option<String>,
    /// Where its output goes, in CRI's log format.
    pub log: PathBuf,
    /// Where the container's last words go (`terminationMessagePath` is bound to this file).
    pub termination_log: PathBuf,
}

/// A bind mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// On the node.
    pub source: PathBuf,
    /// In the container.
    pub target: String,
    /// Refuse writes.
    pub read_only: bool,
    /// `rprivate`, `rslave` or `rshared`.
    pub propagation: &'static str,
}

/// From the pod's and the container's security context.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// Replaces the image's user.
    pub user: Option<i64>,
    /// Replaces the image's group.
    pub group: Option<i64>,
    /// More groups (`supplementalGroups`, `fsGroup`).
    pub groups: Vec<i64>,
    /// All capabilities and devices.
    pub privileged: bool,
    /// Refuse to run as root.
    pub non_root: bool,
    /// The root file system refuses writes.
    pub read_only_root: bool,
    /// Setuid programs gain nothing (`allowPrivilegeEscalation: false`).
    pub no_new_privileges: bool,
    /// Refuse system calls that containers rarely need (`seccompProfile: RuntimeDefault`).
    pub seccomp_default: bool,
    /// Capabilities added to the default ones, without `CAP_`; may be `ALL`.
    pub add: Vec<String>,
    /// Capabilities taken away; may be `ALL`.
    pub drop: Vec<String>,
}

/// cgroup limits.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Resources {
    /// Thousandths of a processor, from requests.
    pub cpu_request_millis: i64,
    /// Thousandths of a processor, from limits; 0 is none.
    pub cpu_limit_millis: i64,
    /// Bytes, from limits; 0 is none.
    pub memory_limit_bytes: i64,
    /// `oom_score_adj`.
    pub oom_score_adj: i64,
}

/// A sandbox that exists, with its containers.
#[derive(Clone, Debug, PartialEq)]
pub struct Sandbox {
    /// The pod's uid.
    pub uid: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's address; `None` on the node's network.
    pub address: Option<IpAddr>,
    /// Its network and namespaces stand.
    pub ready: bool,
    /// All runs of all its containers that were not removed yet.
    pub containers: Vec<Container>,
}

/// One run of a container that exists.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    /// The runtime's id, without scheme.
    pub id: String,
    /// The container's name in the pod.
    pub name: String,
    /// Which run.
    pub attempt: u32,
    /// As the pod names it.
    pub image: String,
    /// Digest of what runs.
    pub image_id: String,
    /// What it is doing.
    pub state: State,
}

/// What a container is doing.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// Made, not started.
    Created,
    /// It runs.
    Running {
        /// Since when.
        started_at: jiff::Timestamp,
    },
    /// It ended.
    Exited {
        /// When it began.
        started_at: Option<jiff::Timestamp>,
        /// When it ended.
        finished_at: jiff::Timestamp,
        /// 0 to 255; 128 + signal for a killed one.
        code: i32,
        /// Killed for want of memory.
        oom: bool,
    },
}

/// An image that is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Digest of its configuration or manifest, `sha256:…`.
    pub id: String,
    /// All names, tags and digests.
    pub names: Vec<String>,
    /// Bytes.
    pub size: u64,
    /// It was loaded with `coracle image load` (containerd's image record has the label [`PROVIDED`]): it *is* what its name
    /// stands for in this cluster, so `imagePullPolicy: Always` is content with it and asks no registry.
    pub provided: bool,
}

/// Label of images that were loaded by hand; `cluster`'s image loader sets it.
pub const PROVIDED: &str = "coracle.dev/provided";

/// Credentials for a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryAuth {
    /// User name.
    pub username: String,
    /// Password or token.
    pub password: String,
}

/// One command in a running container.
#[derive(Clone, Debug, Default)]
pub struct ExecSpec {
    /// Program and arguments; looked up in the container's PATH.
    pub command: Vec<String>,
    /// Give it a terminal; its errors then come with its output.
    pub tty: bool,
    /// Give it standard input.
    pub stdin: bool,
}

/// The near ends of a process's streams.
pub struct Streams {
    /// Its standard input, when asked for; dropping it closes it.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Its standard output.
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// Its standard error; `None` with a terminal.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
}

/// A started command. Dropping it kills the command.
#[async_trait::async_trait]
pub trait Exec: Send + Sync {
    /// Takes the streams; `None` the second time.
    fn streams(&mut self) -> Option<Streams>;
    /// Sets the terminal's size.
    async fn resize(&self, columns: u16, rows: u16) -> Result<(), RuntimeError>;
    /// Waits for its end: the exit code.
    async fn wait(&mut self) -> Result<i32, RuntimeError>;
}

/// Something about the pod with this uid changed; look again with [`Runtime::list`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The pod's uid.
    pub uid: String,
}

/// What runs containers.
#[async_trait::async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// `containerd://1.6.20`
    fn version(&self) -> String;
    /// Hints; to be taken once. The channel is bounded, and an overflow is told by [`Runtime::list`] being looked at anyway.
    fn changes(&self) -> Option<mpsc::Receiver<Changed>>;
    /// Everything that exists, also of pods that the API has forgotten.
    async fn list(&self) -> Result<Vec<Sandbox>, RuntimeError>;
    /// One pod's part of [`Runtime::list`].
    async fn sandbox(&self, uid: &str) -> Result<Option<Sandbox>, RuntimeError>;
    /// An image that is here.
    async fn image(&self, name: &str) -> Result<Option<Image>, RuntimeError>;
    /// All images that are here.
    async fn images(&self) -> Result<Vec<Image>, RuntimeError>;
    /// Fetches an image.
    async fn pull(&self, name: &str, auth: Option<&RegistryAuth>) -> Result<Image, RuntimeError>;
    /// Makes the pod's network and cgroup; where they are there, sets the cgroup's limits.
    async fn start_sandbox(&self, spec: &SandboxSpec) -> Result<(), RuntimeError>;
    /// Removes the pod's network, cgroup and all of its containers, which have ended or are killed.
    async fn remove_sandbox(&self, uid: &str) -> Result<(), RuntimeError>;
    /// Makes and starts a container; returns its id. The same pod, name and attempt is the same container.
    async fn start_container(&self, spec: &ContainerSpec) -> Result<String, RuntimeError>;
    /// Gives a running container other limits.
    async fn update_container(&self, id: &str, resources: &Resources) -> Result<(), RuntimeError>;
    /// Asks with SIGTERM (or the image's stop signal), then kills after `grace`; returns once it has ended.
    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), RuntimeError>;
    /// Forgets a container that has ended.
    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError>;
    /// Runs a command beside a container's own.
    async fn exec(&self, id: &str, spec: &ExecSpec) -> Result<Box<dyn Exec>, RuntimeError>;
    /// Joins a running container's own streams, from now on.
    async fn attach(&self, id: &str) -> Result<Box<dyn Exec>, RuntimeError>;
    /// Connects to a port on the pod's loopback, for port-forward.
    async fn connect(&self, uid: &str, port: u16) -> Result<tokio::net::TcpStream, RuntimeError>;
}
