//! The runtime that runs containers: containerd's own API for images, snapshots and processes, and our own sandboxes.
//!
//! ```text
//! ContainerSpec ──spec──► OCI specification ──► record ──► snapshot ──► task        exit event ──► settle ──► labels, hint
//! ```
//!
//! Nothing is remembered in this process that a successor needs: who a container belongs to and how it ended stands in
//! its labels in containerd, sandboxes stand in their folders. So [`Runtime::list`] is right after any crash.

mod accounts;
mod containers;
mod events;
mod exec;
mod host;
mod images;
mod link;
mod locks;
mod pipe;
mod pull;
mod records;
mod registry;
mod seccomp;
mod spec;
mod streams;

use super::cgroup;
use super::sandbox::{self, Held, Sandboxes};
use super::{
    Changed, ContainerSpec, Exec, ExecSpec, Image, RegistryAuth, Resources, Runtime, RuntimeError, Sandbox,
    SandboxSpec,
};
use crate::logger::RUN;
use coracle_daemon::{Tasks, clock};
use futures::future::try_join_all;
use link::{Link, failed};
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// The only snapshotter that nodes have.
const SNAPSHOTTER: &str = "overlayfs";
/// Hints that wait; more of them would say no more.
const HINTS_MAX: usize = 1024;
/// Pauses between attempts to reach a containerd that is not there (yet): a socket tells nobody that it appeared.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How to reach containerd.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its socket, with or without `unix://`.
    pub endpoint: String,
    /// Its namespace for our containers.
    pub namespace: String,
    /// The `coracle` program, started for loggers and the like.
    pub program: PathBuf,
}

impl Config {
    /// The usual configuration of a node.
    ///
    /// # Errors
    /// The program's own path cannot be found.
    pub fn new(endpoint: &str, namespace: &str) -> std::io::Result<Self> {
        Ok(Self {
            endpoint: endpoint.to_owned(),
            namespace: namespace.to_owned(),
            program: std::env::current_exe()?,
        })
    }
}

/// containerd with our sandboxes; clones share it.
#[derive(Clone)]
pub struct Containerd {
    shared: Arc<Shared>,
}

struct Shared {
    config: Config,
    link: Link,
    images: images::Images,
    sandboxes: Sandboxes,
    host: host::Host,
    version: String,
    /// One lock for each container, for each pod's sandbox, and for each image's name.
    containers: locks::Locks,
    pods: locks::Locks,
    pulls: locks::Locks,
    hints: mpsc::Sender<Changed>,
    changes: Mutex<Option<mpsc::Receiver<Changed>>>,
    tasks: Tasks,
}

impl Containerd {
    /// Waits until containerd answers, then follows its events until `tasks` stop.
    ///
    /// # Errors
    /// The configuration cannot be used, or the process was asked to stop while containerd did not answer.
    pub async fn connect(config: Config, tasks: &Tasks) -> Result<Self, RuntimeError> {
        let link = Link::new(&config.endpoint, &config.namespace)?;
        let version = wait_for_version(&link, tasks).await?;
        own_folder().map_err(failed(format!("make {RUN}")))?;
        let sandboxes = Sandboxes::new(RUN.into(), config.program.clone(), tasks)?;
        sandboxes.sweep().await?;
        let (hints, changes) = mpsc::channel(HINTS_MAX);
        let shared = Shared {
            images: images::Images::new(link.clone()),
            link,
            sandboxes,
            host: host::Host::read(),
            version: format!("containerd://{version}"),
            containers: locks::Locks::default(),
            pods: locks::Locks::default(),
            pulls: locks::Locks::default(),
            hints,
            changes: Mutex::new(Some(changes)),
            tasks: tasks.clone(),
            config,
        };
        let runtime = Self { shared: Arc::new(shared) };
        tasks.spawn("containerd's events", events::follow(runtime.clone(), tasks.stopping()));
        Ok(runtime)
    }

    fn link(&self) -> &Link {
        &self.shared.link
    }

    /// Says that something about a pod changed. A full channel has enough to say.
    fn hint(&self, uid: &str) {
        let _ = self.shared.hints.try_send(Changed { uid: uid.to_owned() });
    }

    fn held(&self, uid: &str) -> Result<Option<Held>, RuntimeError> {
        Held::load(Path::new(RUN), uid).map_err(failed(format!("read the sandbox of the pod {uid}")))
    }
}

/// Only root may look into, or connect to, what is in there.
fn own_folder() -> std::io::Result<()> {
    std::fs::create_dir_all(RUN)?;
    std::fs::set_permissions(RUN, std::os::unix::fs::PermissionsExt::from_mode(0o700))
}

async fn wait_for_version(link: &Link, tasks: &Tasks) -> Result<String, RuntimeError> {
    let (stop, mut pause) = (tasks.stopping(), PAUSE_MIN);
    loop {
        let error = match link.version().version(()).await {
            Ok(reply) => return Ok(reply.into_inner().version),
            Err(error) => error,
        };
        if pause == PAUSE_MAX {
            tracing::warn!(%error, "containerd does not answer yet");
        }
        tokio::select! {
            () = clock::sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
            () = stop.cancelled() => return Err(failed("reach containerd")(error)),
        }
    }
}

/// Lower-case hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[async_trait::async_trait]
impl Runtime for Containerd {
    fn version(&self) -> String {
        self.shared.version.clone()
    }

    fn changes(&self) -> Option<mpsc::Receiver<Changed>> {
        self.shared.changes.lock().take()
    }

    async fn list(&self) -> Result<Vec<Sandbox>, RuntimeError> {
        records::list(self, None).await
    }

    async fn sandbox(&self, uid: &str) -> Result<Option<Sandbox>, RuntimeError> {
        Ok(records::list(self, Some(uid)).await?.pop())
    }

    async fn image(&self, name: &str) -> Result<Option<Image>, RuntimeError> {
        self.shared.images.describe(name).await
    }

    async fn images(&self) -> Result<Vec<Image>, RuntimeError> {
        self.shared.images.list().await
    }

    async fn pull(&self, name: &str, auth: Option<&RegistryAuth>) -> Result<Image, RuntimeError> {
        let _turn = self.shared.pulls.lock(name).await;
        pull::pull(&self.shared.images, &self.shared.link, name, auth).await?;
        let pulled = self.shared.images.describe(name).await?;
        pulled.ok_or_else(|| RuntimeError::NotFound { what: format!("image {name:?}") })
    }

    async fn start_sandbox(&self, spec: &SandboxSpec) -> Result<(), RuntimeError> {
        let _turn = self.shared.pods.lock(&spec.uid).await;
        self.shared.sandboxes.start(spec).await
    }

    async fn remove_sandbox(&self, uid: &str) -> Result<(), RuntimeError> {
        let _turn = self.shared.pods.lock(uid).await;
        let containers = records::of_pod(self, Some(uid)).await?;
        // After a restart of the machine only the containers still know where the pod's cgroup was.
        let mut cgroups: Vec<String> = containers.iter().filter_map(records::pod_cgroup).collect();
        cgroups.dedup();
        try_join_all(containers.into_iter().map(|record| async move {
            self.stop_container(&record.id, Duration::ZERO).await?;
            self.remove_container(&record.id).await
        }))
        .await?;
        self.shared.sandboxes.remove(uid).await?;
        for group in cgroups {
            cgroup::remove(&group).await.map_err(failed(format!("remove the cgroup {group}")))?;
        }
        self.hint(uid);
        Ok(())
    }

    async fn start_container(&self, spec: &ContainerSpec) -> Result<String, RuntimeError> {
        containers::start(self, spec).await
    }

    async fn update_container(&self, id: &str, resources: &Resources) -> Result<(), RuntimeError> {
        containers::update(self, id, resources).await
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        containers::stop(self, id, grace).await
    }

    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        containers::remove(self, id).await
    }

    async fn exec(&self, id: &str, spec: &ExecSpec) -> Result<Box<dyn Exec>, RuntimeError> {
        exec::start(self, id, spec).await
    }

    async fn attach(&self, id: &str) -> Result<Box<dyn Exec>, RuntimeError> {
        exec::attach(self, id).await
    }

    async fn connect(&self, uid: &str, port: u16) -> Result<tokio::net::TcpStream, RuntimeError> {
        let held = self.held(uid)?.ok_or_else(|| RuntimeError::NotFound { what: format!("pod {uid}") })?;
        sandbox::connect(Some(held), port)
            .await
            .map_err(failed(format!("connect to port {port} of the pod {uid}")))
    }
}
