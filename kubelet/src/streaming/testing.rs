//! A runtime of local processes, and a kubelet's server on loopback, for this folder's tests.

use super::{Streaming, router};
use crate::runtime::{
    Changed, Container, ContainerSpec, Exec, ExecSpec, Image, RegistryAuth, Resources, Runtime, RuntimeError,
    Sandbox, SandboxSpec, State, Streams,
};
use coracle_client::Store;
use coracle_daemon::{Tasks, clock};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use serde_json::json;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

/// One pod `ns/p` with uid `u` and containers `c` (running), `old` (ended); commands are local processes.
pub struct Local {
    pub sizes: Mutex<Vec<(u16, u16)>>,
    pub alive: Mutex<bool>,
    /// Fires when a command was dropped.
    pub dropped: mpsc::UnboundedSender<()>,
}

struct Process {
    child: Child,
    runtime: Arc<Local>,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.runtime.dropped.send(());
    }
}

#[async_trait::async_trait]
impl Exec for Process {
    fn streams(&mut self) -> Option<Streams> {
        Some(Streams {
            stdin: self.child.stdin.take().map(|stdin| Box::new(stdin) as _),
            stdout: Box::new(self.child.stdout.take()?),
            stderr: self.child.stderr.take().map(|stderr| Box::new(stderr) as _),
        })
    }

    async fn resize(&self, columns: u16, rows: u16) -> Result<(), RuntimeError> {
        self.runtime.sizes.lock().push((columns, rows));
        Ok(())
    }

    async fn wait(&mut self) -> Result<i32, RuntimeError> {
        Ok(self.child.wait().await.unwrap().code().unwrap_or(137))
    }
}

pub struct Shared(pub Arc<Local>);

impl Shared {
    fn spawn(&self, spec: &ExecSpec) -> Result<Box<dyn Exec>, RuntimeError> {
        let mut command = Command::new(&spec.command[0]);
        command.args(&spec.command[1..]).kill_on_drop(true).stdout(Stdio::piped());
        command.stdin(if spec.stdin { Stdio::piped() } else { Stdio::null() });
        command.stderr(if spec.tty { Stdio::null() } else { Stdio::piped() });
        let child = command
            .spawn()
            .map_err(|error| RuntimeError::Start(format!("{:?}: {error}", spec.command[0])))?;
        Ok(Box::new(Process { child, runtime: self.0.clone() }))
    }
}

fn unused<T>() -> Result<T, RuntimeError> {
    Err(RuntimeError::NotFound { what: "a part that streaming does not use".to_owned() })
}

#[async_trait::async_trait]
impl Runtime for Shared {
    fn version(&self) -> String {
        "local://0".to_owned()
    }
    fn changes(&self) -> Option<mpsc::Receiver<Changed>> {
        None
    }
    async fn list(&self) -> Result<Vec<Sandbox>, RuntimeError> {
        Ok(self.sandbox("u").await?.into_iter().collect())
    }
    async fn sandbox(&self, uid: &str) -> Result<Option<Sandbox>, RuntimeError> {
        let (started_at, ended) = (clock::now(), clock::now());
        let exited = State::Exited { started_at: None, finished_at: ended, code: 0, oom: false };
        let run = |name: &str, attempt, state| Container {
            id: format!("{name}-{attempt}"),
            name: name.to_owned(),
            attempt,
            image: String::new(),
            image_id: String::new(),
            state,
        };
        let running = if *self.0.alive.lock() { State::Running { started_at } } else { exited.clone() };
        let containers = vec![run("c", 0, exited.clone()), run("c", 1, running), run("old", 0, exited)];
        let (uid, namespace, name) = (uid.to_owned(), "ns".to_owned(), "p".to_owned());
        Ok((uid == "u").then_some(Sandbox { uid, namespace, name, address: None, ready: true, containers }))
    }
    async fn image(&self, _: &str) -> Result<Option<Image>, RuntimeError> {
        unused()
    }
    async fn images(&self) -> Result<Vec<Image>, RuntimeError> {
        unused()
    }
    async fn pull(&self, _: &str, _: Option<&RegistryAuth>) -> Result<Image, RuntimeError> {
        unused()
    }
    async fn start_sandbox(&self, _: &SandboxSpec) -> Result<(), RuntimeError> {
        unused()
    }
    async fn remove_sandbox(&self, _: &str) -> Result<(), RuntimeError> {
        unused()
    }
    async fn start_container(&self, _: &ContainerSpec) -> Result<String, RuntimeError> {
        unused()
    }
    async fn update_container(&self, _: &str, _: &Resources) -> Result<(), RuntimeError> {
        unused()
    }
    async fn stop_container(&self, _: &str, _: Duration) -> Result<(), RuntimeError> {
        unused()
    }
    async fn remove_container(&self, _: &str) -> Result<(), RuntimeError> {
        unused()
    }
    async fn exec(&self, id: &str, spec: &ExecSpec) -> Result<Box<dyn Exec>, RuntimeError> {
        assert_eq!(id, "c-1");
        self.spawn(spec)
    }
    async fn attach(&self, id: &str) -> Result<Box<dyn Exec>, RuntimeError> {
        assert_eq!(id, "c-1");
        let command = ["sh", "-c", "cat; exit 3"].map(str::to_owned).to_vec();
        self.spawn(&ExecSpec { command, tty: false, stdin: true })
    }
    async fn connect(&self, _: &str, port: u16) -> Result<TcpStream, RuntimeError> {
        TcpStream::connect(("127.0.0.1", port)).await.map_err(|error| RuntimeError::Failed {
            doing: format!("connect to port {port}"),
            source: Box::new(error),
        })
    }
}

/// A running server.
pub struct Kubelet {
    pub address: SocketAddr,
    pub runtime: Arc<Local>,
    pub pods: Store<Pod>,
    pub logs: tempfile::TempDir,
    pub dropped: mpsc::UnboundedReceiver<()>,
    pub tasks: Tasks,
}

pub fn pod(version: &str) -> Pod {
    let pod = json!({
        "metadata": { "namespace": "ns", "name": "p", "uid": "u", "resourceVersion": version },
        "spec": { "containers": [{ "name": "c" }, { "name": "old" }, { "name": "new" }] },
    });
    serde_json::from_value(pod).unwrap()
}

/// Starts a server for the pod of [`Local`]; without a runtime, as on a simulated node.
pub async fn kubelet(simulated: bool) -> Kubelet {
    let (tell, dropped) = mpsc::unbounded_channel();
    let local = Local { sizes: Mutex::default(), alive: Mutex::new(true), dropped: tell };
    let (runtime, pods, tasks) = (Arc::new(local), Store::new(&[]), Tasks::new());
    pods.upsert(pod("1"));
    let logs = tempfile::tempdir().unwrap();
    let shared: Option<Arc<dyn Runtime>> =
        if simulated { None } else { Some(Arc::new(Shared(runtime.clone()))) };
    let app = router(Streaming::new(shared, pods.clone(), logs.path().to_owned(), tasks.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let owner = tasks.clone();
    tasks.run("listener", async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(app.clone());
            owner.run("connection", async move {
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
            });
        }
    });
    Kubelet { address, runtime, pods, logs, dropped, tasks }
}

/// Waits for what must come soon.
pub async fn soon<T>(what: &str, waiting: impl Future<Output = T>) -> T {
    clock::timeout(Duration::from_secs(10), waiting).await.unwrap_or_else(|_| panic!("{what} did not come"))
}
