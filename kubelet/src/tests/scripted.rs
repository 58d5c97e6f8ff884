//! A runtime in memory whose containers do what a test tells them.

use crate::runtime::{
    Changed, Container, ContainerSpec, Exec, ExecSpec, Image, RegistryAuth, Resources, Runtime, RuntimeError,
    Sandbox, SandboxSpec, State, Streams,
};
use async_trait::async_trait;
use coracle_daemon::clock;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Clones share it.
#[derive(Clone)]
pub struct Scripted {
    state: Arc<Mutex<Inner>>,
    changed: mpsc::UnboundedSender<String>,
    hints: Arc<Mutex<Option<mpsc::Receiver<Changed>>>>,
    version: watch::Sender<u64>,
    /// Whether it answers nothing about images.
    silent: Arc<AtomicBool>,
}

#[derive(Default)]
struct Inner {
    sandboxes: HashMap<String, Sandbox>,
    specs: Vec<ContainerSpec>,
    pulled: Vec<String>,
    /// What happened, in order.
    log: Vec<String>,
}

impl Default for Scripted {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(1000);
        let (changed, mut changes) = mpsc::unbounded_channel::<String>();
        coracle_daemon::Tasks::new().run("hints", async move {
            while let Some(uid) = changes.recv().await {
                let _ = sender.send(Changed { uid }).await;
            }
        });
        Self {
            state: Arc::default(),
            changed,
            hints: Arc::new(Mutex::new(Some(receiver))),
            version: watch::Sender::new(0),
            silent: Arc::default(),
        }
    }
}

impl Scripted {
    fn act<T>(&self, uid: &str, act: impl FnOnce(&mut Inner) -> T) -> T {
        let done = act(&mut self.state.lock());
        self.version.send_modify(|version| *version += 1);
        let _ = self.changed.send(uid.to_owned());
        done
    }

    /// Ends a running container.
    pub fn end(&self, name: &str, code: i32) {
        let uid = {
            let state = self.state.lock();
            let runs = |one: &Container| one.name == name && matches!(one.state, State::Running { .. });
            let found = state.sandboxes.values().find(|sandbox| sandbox.containers.iter().any(runs));
            found.expect("it runs").uid.clone()
        };
        self.act(&uid, |state| {
            let sandbox = state.sandboxes.get_mut(&uid).unwrap();
            for container in sandbox.containers.iter_mut().filter(|one| one.name == name) {
                end(container, code);
            }
        });
    }

    /// What it was asked to start last under this name.
    pub fn spec(&self, name: &str) -> ContainerSpec {
        self.state.lock().specs.iter().rev().find(|spec| spec.name == name).expect("it was started").clone()
    }

    pub fn silence(&self, silent: bool) {
        self.silent.store(silent, Ordering::SeqCst);
    }

    pub fn log(&self) -> Vec<String> {
        self.state.lock().log.clone()
    }

    pub fn is_empty(&self) -> bool {
        self.state.lock().sandboxes.is_empty()
    }

    /// Waits until `holds`.
    pub async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let mut changes = self.version.subscribe();
        let wait = changes.wait_for(|_| holds(self));
        assert!(clock::timeout(Duration::from_secs(10), wait).await.is_ok(), "{what}: {:?}", self.log());
    }
}

fn end(container: &mut Container, code: i32) {
    if let State::Running { started_at } = container.state {
        let started_at = Some(started_at);
        container.state = State::Exited { started_at, finished_at: clock::now(), code, oom: false };
    }
}

/// A command whose name is its exit code.
struct Done(i32);

#[async_trait]
impl Exec for Done {
    fn streams(&mut self) -> Option<Streams> {
        None
    }
    async fn resize(&self, _: u16, _: u16) -> Result<(), RuntimeError> {
        Ok(())
    }
    async fn wait(&mut self) -> Result<i32, RuntimeError> {
        Ok(self.0)
    }
}

#[async_trait]
impl Runtime for Scripted {
    fn version(&self) -> String {
        "scripted://1".to_owned()
    }
    fn changes(&self) -> Option<mpsc::Receiver<Changed>> {
        self.hints.lock().take()
    }
    async fn list(&self) -> Result<Vec<Sandbox>, RuntimeError> {
        Ok(self.state.lock().sandboxes.values().cloned().collect())
    }
    async fn sandbox(&self, uid: &str) -> Result<Option<Sandbox>, RuntimeError> {
        Ok(self.state.lock().sandboxes.get(uid).cloned())
    }
    async fn image(&self, name: &str) -> Result<Option<Image>, RuntimeError> {
        if self.silent.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let here = name.starts_with("here") || self.state.lock().pulled.iter().any(|pulled| pulled == name);
        let image = Image { id: "sha256:0".into(), names: vec![name.into()], size: 7, provided: false };
        Ok(here.then_some(image))
    }
    async fn images(&self) -> Result<Vec<Image>, RuntimeError> {
        Ok(Vec::new())
    }
    async fn pull(&self, name: &str, _: Option<&RegistryAuth>) -> Result<Image, RuntimeError> {
        if name.starts_with("bad") {
            return Err(RuntimeError::Pull { image: name.into(), why: "no such host".into() });
        }
        self.act("", |state| state.pulled.push(name.to_owned()));
        Ok(Image { id: "sha256:0".into(), names: vec![name.into()], size: 7, provided: false })
    }
    async fn start_sandbox(&self, spec: &SandboxSpec) -> Result<(), RuntimeError> {
        self.act(&spec.uid, |state| {
            state.log.push(format!("sandbox {}", spec.name));
            let sandbox = Sandbox {
                uid: spec.uid.clone(),
                namespace: spec.namespace.clone(),
                name: spec.name.clone(),
                address: spec.address.map(Into::into),
                ready: true,
                containers: Vec::new(),
            };
            state.sandboxes.insert(spec.uid.clone(), sandbox);
        });
        Ok(())
    }
    async fn remove_sandbox(&self, uid: &str) -> Result<(), RuntimeError> {
        self.act(uid, |state| {
            if state.sandboxes.remove(uid).is_some() {
                state.log.push("removed".to_owned());
            }
        });
        Ok(())
    }
    async fn start_container(&self, spec: &ContainerSpec) -> Result<String, RuntimeError> {
        if spec.command.first().is_some_and(|word| word == "/nope") {
            return Err(RuntimeError::Start("exec: \"/nope\": no such file".to_owned()));
        }
        let id = format!("{}-{}-{}", spec.pod_uid, spec.name, spec.attempt);
        self.act(&spec.pod_uid, |state| {
            state.log.push(format!("start {}{}", spec.name, spec.attempt));
            state.specs.push(spec.clone());
            let sandbox = state.sandboxes.get_mut(&spec.pod_uid).expect("the sandbox comes first");
            sandbox.containers.push(Container {
                id: id.clone(),
                name: spec.name.clone(),
                attempt: spec.attempt,
                image: spec.image.clone(),
                image_id: "sha256:0".to_owned(),
                state: State::Running { started_at: clock::now() },
            });
        });
        Ok(id)
    }
    async fn update_container(&self, id: &str, resources: &Resources) -> Result<(), RuntimeError> {
        let told = format!("update {id} to {}m", resources.cpu_limit_millis);
        self.state.lock().log.push(told);
        Ok(())
    }
    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        let uid = self.state.lock().sandboxes.values().find_map(|sandbox| {
            sandbox.containers.iter().any(|one| one.id == id).then(|| sandbox.uid.clone())
        });
        let Some(uid) = uid else { return Ok(()) };
        self.act(&uid, |state| {
            let sandbox = state.sandboxes.get_mut(&uid).unwrap();
            let container = sandbox.containers.iter_mut().find(|one| one.id == id).unwrap();
            state.log.push(format!(
                "stop {}{} in {}s",
                container.name,
                container.attempt,
                grace.as_secs_f64().round()
            ));
            end(container, 143);
        });
        Ok(())
    }
    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        for sandbox in self.state.lock().sandboxes.values_mut() {
            sandbox.containers.retain(|container| container.id != id);
        }
        Ok(())
    }
    async fn exec(&self, id: &str, spec: &ExecSpec) -> Result<Box<dyn Exec>, RuntimeError> {
        let word = spec.command.first().cloned().unwrap_or_default();
        self.state.lock().log.push(format!("exec {word}"));
        // A second run is well.
        let code = if id.ends_with("-0") { word.parse().unwrap_or(0) } else { 0 };
        Ok(Box::new(Done(code)))
    }
    async fn attach(&self, _: &str) -> Result<Box<dyn Exec>, RuntimeError> {
        Ok(Box::new(Done(0)))
    }
    async fn connect(&self, _: &str, _: u16) -> Result<tokio::net::TcpStream, RuntimeError> {
        Err(RuntimeError::Start("nothing listens".to_owned()))
    }
}
