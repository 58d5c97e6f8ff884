//! A runtime without containers: whatever is started runs at once, init containers end at once, and so do the containers
//! of a Job's pod when the API shows them running.
//!
//! In: specs. Out: sandboxes that exist in memory only. It keeps nothing over a restart: what ran is recalled from the
//! pods' statuses. One lock and one map serve any number of nodes; one task ends what was told to stop.

use super::{
    Changed, Container, ContainerSpec, Exec, ExecSpec, Image, RegistryAuth, Resources, Runtime, RuntimeError,
    Sandbox, SandboxSpec, State,
};
use crate::pod::{is_sidecar, phase_of};
use async_trait::async_trait;
use coracle_client::{Key, Queue, Scope, Store, controller_of};
use coracle_daemon::clock;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Changes waiting to be looked at; one that finds no room is dropped, and its pod succeeds at its next change.
const CHANGES_MAX: usize = 65_536;
/// How long a container takes to stop. Real ones never end at once, and clients rely on it: `kubectl delete` waits in vain
/// for a pod that was replaced under its name between kubectl's first look and its watch.
pub const STOP_TAKES: Duration = Duration::from_millis(300);

/// The runtime.
pub struct Simulated {
    pods: Store<Pod>,
    shared: Arc<Shared>,
    /// Ids of containers that were told to stop.
    stops: Queue<String>,
    changes: Mutex<Option<mpsc::Receiver<Changed>>>,
}

struct Shared {
    sandboxes: Mutex<HashMap<String, Sandbox>>,
    changed: mpsc::Sender<Changed>,
}

impl Simulated {
    /// For the pods in this store, as long as `scope` lasts.
    pub fn new(scope: &Scope, pods: &Store<Pod>) -> Self {
        let (changed, changes) = mpsc::channel(CHANGES_MAX);
        let shared = Arc::new(Shared { sandboxes: Mutex::default(), changed });
        let watching = Arc::downgrade(&shared);
        pods.on_change(move |change| {
            if let (Some(shared), Some(pod)) = (watching.upgrade(), &change.new)
                && ends_by_itself(pod)
                && phase_of(pod) == "Running"
            {
                shared.end(pod.metadata.uid.as_deref().unwrap_or_default(), |_| true);
            }
        });
        let (stops, ending) = (Queue::<String>::new(), shared.clone());
        let stopping = stops.clone();
        scope.spawn("ends of simulated containers", async move {
            loop {
                let id = stopping.next().await;
                ending.end(uid_of(&id), |container| container.id == id);
                stopping.done(&id);
            }
        });
        Self { pods: pods.clone(), shared, stops, changes: Mutex::new(Some(changes)) }
    }

    fn is_init(&self, spec: &ContainerSpec) -> bool {
        let pod = self.pods.get(&Key::new(&*spec.pod_namespace, &*spec.pod_name));
        let inits = pod.as_ref().and_then(|pod| pod.spec.as_ref()?.init_containers.as_ref());
        inits.into_iter().flatten().any(|init| init.name == spec.name && !is_sidecar(init))
    }
}

fn ends_by_itself(pod: &Pod) -> bool {
    controller_of(&pod.metadata).is_some_and(|owner| owner.kind == "Job")
}

impl Shared {
    /// These containers of a pod end well.
    fn end(&self, uid: &str, these: impl Fn(&Container) -> bool) {
        let mut all = self.sandboxes.lock();
        let Some(sandbox) = all.get_mut(uid) else { return };
        let mut ended = false;
        for container in sandbox.containers.iter_mut().filter(|container| these(container)) {
            if let State::Running { started_at } = container.state {
                container.state = exited(Some(started_at), 0);
                ended = true;
            }
        }
        drop(all);
        if ended && self.changed.try_send(Changed { uid: uid.to_owned() }).is_err() {
            tracing::warn!(uid, "too many changes at once: one is told late");
        }
    }
}

fn exited(started_at: Option<jiff::Timestamp>, code: i32) -> State {
    State::Exited { started_at, finished_at: clock::now(), code, oom: false }
}

fn id(uid: &str, name: &str, attempt: u32) -> String {
    if attempt == 0 { format!("{uid}/{name}") } else { format!("{uid}/{name}/{attempt}") }
}

fn uid_of(id: &str) -> &str {
    id.split('/').next().unwrap_or_default()
}

fn image(name: &str) -> Image {
    Image { id: format!("simulated://{name}"), names: vec![name.to_owned()], size: 0, provided: true }
}

/// What ran when the kubelet stopped, as the pod's status tells.
fn recalled(pod: &Pod) -> Option<Sandbox> {
    let (meta, status) = (&pod.metadata, pod.status.as_ref()?);
    let uid = meta.uid.clone()?;
    if !matches!(phase_of(pod), "Running" | "Pending") {
        return None;
    }
    let container = |status: &ContainerStatus| {
        let attempt = u32::try_from(status.restart_count).unwrap_or(0);
        let state = status.state.as_ref()?;
        let state = match (&state.running, &state.terminated) {
            (Some(running), _) => {
                State::Running { started_at: running.started_at.as_ref().map_or_else(clock::now, |at| at.0) }
            }
            (None, Some(ended)) => exited(ended.started_at.as_ref().map(|at| at.0), ended.exit_code),
            (None, None) => return None,
        };
        Some(Container {
            id: id(&uid, &status.name, attempt),
            name: status.name.clone(),
            attempt,
            image: status.image.clone(),
            image_id: status.image_id.clone(),
            state,
        })
    };
    let all =
        [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    let containers: Vec<Container> = all.into_iter().flatten().flatten().filter_map(container).collect();
    let host_network = pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
    (!containers.is_empty()).then(|| Sandbox {
        uid: uid.clone(),
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        address: status.pod_ip.as_ref().filter(|_| !host_network).and_then(|ip| ip.parse::<IpAddr>().ok()),
        ready: true,
        containers,
    })
}

/// What is answered to whoever wants to enter a container. No colon is in it: kubectl would read an object of this text, and show
/// nothing of it.
pub const NO_CONTAINERS: &str = "pods of simulated nodes have no containers to enter";

fn without_containers<T>() -> Result<T, RuntimeError> {
    Err(RuntimeError::Start(NO_CONTAINERS.to_owned()))
}

#[async_trait]
impl Runtime for Simulated {
    fn version(&self) -> String {
        concat!("simulated://", env!("CARGO_PKG_VERSION")).to_owned()
    }

    fn changes(&self) -> Option<mpsc::Receiver<Changed>> {
        self.changes.lock().take()
    }

    async fn list(&self) -> Result<Vec<Sandbox>, RuntimeError> {
        let pods = self.pods.list();
        let mut all = self.shared.sandboxes.lock();
        for sandbox in pods.iter().filter_map(|pod| recalled(pod)) {
            all.entry(sandbox.uid.clone()).or_insert(sandbox);
        }
        drop(all);
        for pod in pods.iter().filter(|pod| ends_by_itself(pod) && phase_of(pod) == "Running") {
            self.shared.end(pod.metadata.uid.as_deref().unwrap_or_default(), |_| true);
        }
        Ok(self.shared.sandboxes.lock().values().cloned().collect())
    }

    async fn sandbox(&self, uid: &str) -> Result<Option<Sandbox>, RuntimeError> {
        Ok(self.shared.sandboxes.lock().get(uid).cloned())
    }

    async fn image(&self, name: &str) -> Result<Option<Image>, RuntimeError> {
        Ok(Some(image(name)))
    }

    async fn images(&self) -> Result<Vec<Image>, RuntimeError> {
        Ok(Vec::new())
    }

    async fn pull(&self, name: &str, _: Option<&RegistryAuth>) -> Result<Image, RuntimeError> {
        Ok(image(name))
    }

    async fn start_sandbox(&self, spec: &SandboxSpec) -> Result<(), RuntimeError> {
        let sandbox = Sandbox {
            uid: spec.uid.clone(),
            namespace: spec.namespace.clone(),
            name: spec.name.clone(),
            address: spec.address.map(IpAddr::V4),
            ready: true,
            containers: Vec::new(),
        };
        self.shared.sandboxes.lock().entry(spec.uid.clone()).or_insert(sandbox);
        Ok(())
    }

    async fn remove_sandbox(&self, uid: &str) -> Result<(), RuntimeError> {
        self.shared.sandboxes.lock().remove(uid);
        Ok(())
    }

    async fn start_container(&self, spec: &ContainerSpec) -> Result<String, RuntimeError> {
        let id = id(&spec.pod_uid, &spec.name, spec.attempt);
        let now = clock::now();
        let state =
            if self.is_init(spec) { exited(Some(now), 0) } else { State::Running { started_at: now } };
        let mut all = self.shared.sandboxes.lock();
        let sandbox = all.get_mut(&spec.pod_uid);
        let sandbox = sandbox.ok_or_else(|| RuntimeError::NotFound { what: "sandbox".to_owned() })?;
        if sandbox.containers.iter().all(|container| container.id != id) {
            sandbox.containers.push(Container {
                id: id.clone(),
                name: spec.name.clone(),
                attempt: spec.attempt,
                image: spec.image.clone(),
                image_id: format!("simulated://{}", spec.image),
                state,
            });
        }
        Ok(id)
    }

    async fn update_container(&self, _: &str, _: &Resources) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn stop_container(&self, id: &str, _: Duration) -> Result<(), RuntimeError> {
        self.stops.add_after(id.to_owned(), STOP_TAKES);
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        if let Some(sandbox) = self.shared.sandboxes.lock().get_mut(uid_of(id)) {
            sandbox.containers.retain(|container| container.id != id);
        }
        Ok(())
    }

    async fn exec(&self, _: &str, _: &ExecSpec) -> Result<Box<dyn Exec>, RuntimeError> {
        without_containers()
    }

    async fn attach(&self, _: &str) -> Result<Box<dyn Exec>, RuntimeError> {
        without_containers()
    }

    async fn connect(&self, _: &str, _: u16) -> Result<tokio::net::TcpStream, RuntimeError> {
        without_containers()
    }
}
