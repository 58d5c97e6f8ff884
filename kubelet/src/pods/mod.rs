//! The loop over our nodes' pods: whatever may have changed is observed, stepped, and what the step asks for is done.
//!
//! ```text
//! API watch, runtime's hints, probes, objects, timers ──► Queue ──► handle: observe ─► step ─► act ─┐
//!                                                                              ▲                    │ until nothing is left
//!                                                                              └────────────────────┘ then report, wait
//! ```
//!
//! Invariants: one pod is handled by one worker at a time; whatever takes long (pulls, stops, hooks, probes) runs beside
//! and only marks itself in the pod's memory; a pod is deleted for good only by its uid, and only when nothing of it is left.

mod act;
mod entry;
mod hooks;
mod images;
mod probing;
mod report;
mod resize;
mod start;
mod teardown;

use crate::addresses::Addresses;
use crate::admission::Admission;
use crate::launch::{Surroundings, text};
use crate::node::{Node, Nodes};
use crate::objects::Objects;
use crate::runtime::{Runtime, Sandbox};
use crate::step::{self, Action, Observed, Plan};
use crate::volumes::Files;
use coracle_client::controller::{self, Next, ReconcileError};
use coracle_client::{Key, Queue, Recorder, Reflector, Scope, Store};
use coracle_daemon::clock;
use entry::{Entries, Entry};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{self as core, Pod, Service};
use kube::api::Api;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

/// Pods stepped at a time.
const WORKERS: usize = 64;
/// Steps of one pod in a row; more than this is a step that never settles.
const ROUNDS_MAX: usize = 200;

/// The pods of this process.
pub struct Pods {
    client: kube::Client,
    scope: Scope,
    store: Store<Pod>,
    queue: Queue<Key>,
    nodes: Arc<Nodes>,
    /// Our nodes as the API shows them.
    known: Store<core::Node>,
    addresses: Addresses,
    admission: Admission,
    recorder: Recorder,
    runtime: Arc<dyn Runtime>,
    /// Scheme of container ids.
    scheme: String,
    entries: Entries,
    /// `None` for nodes without containers.
    ground: Option<Ground>,
}

/// What pods with containers stand on.
pub struct Ground {
    /// Their files.
    pub files: Files,
    /// ConfigMaps and Secrets.
    pub objects: Objects,
    /// Services, for environments.
    pub services: Store<Service>,
    /// The node.
    pub around: Arc<Surroundings>,
}

/// What a loop is made of.
pub struct Parts {
    /// The API.
    pub client: kube::Client,
    /// The nodes that this process is.
    pub nodes: Arc<Nodes>,
    /// Those nodes as the API shows them.
    pub known: Store<core::Node>,
    /// For events.
    pub recorder: Recorder,
    /// The nodes' pods.
    pub store: Store<Pod>,
    /// What runs their containers.
    pub runtime: Arc<dyn Runtime>,
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

/// Starts following the pods of `nodes`, all through one watch.
pub fn watch(scope: &Scope, client: &kube::Client, nodes: &Nodes) -> Store<Pod> {
    let selector = match nodes.keys().next() {
        Some(only) if nodes.len() == 1 => format!("spec.nodeName={only}"),
        _ => "spec.nodeName!=".to_owned(),
    };
    Reflector::new(Api::all(client.clone())).fields(selector).start(scope)
}

/// Starts the loop. `ground` makes what pods with containers stand on, given what wakes a pod.
pub fn start(
    scope: &Scope,
    parts: Parts,
    ground: impl FnOnce(&crate::objects::Wake) -> Option<Ground>,
) -> Arc<Pods> {
    let queue: Queue<Key> = Queue::new();
    let pods = Arc::new_cyclic(|this: &std::sync::Weak<Pods>| {
        let (this, sink) = (this.clone(), queue.clone());
        let wake: crate::objects::Wake = Arc::new(move |key: &Key| {
            let Some(pods) = this.upgrade() else { return };
            pods.entries.under(key).iter().for_each(|entry| entry.poke());
            sink.add(key.clone());
        });
        let version = parts.runtime.version();
        Pods {
            client: parts.client,
            scope: scope.clone(),
            store: parts.store,
            queue: queue.clone(),
            nodes: parts.nodes,
            known: parts.known,
            addresses: Addresses::default(),
            admission: Admission::default(),
            recorder: parts.recorder,
            scheme: version.split("://").next().unwrap_or_default().to_owned(),
            runtime: parts.runtime,
            entries: Entries::default(),
            ground: ground(&wake),
        }
    });
    pods.clone().run(scope);
    pods
}

impl Pods {
    fn run(self: Arc<Self>, scope: &Scope) {
        let (sink, watched) = (self.queue.clone(), Arc::downgrade(&self));
        self.store.on_change(move |change| {
            let Some(this) = watched.upgrade() else { return };
            let ours = |pod: &Arc<Pod>| node_of(pod).is_some_and(|node| this.nodes.contains_key(node));
            if change.latest().is_some_and(ours) {
                sink.add(change.key.clone());
            }
        });
        if let Some(mut changes) = self.runtime.changes() {
            let this = self.clone();
            scope.spawn("changes of containers", async move {
                while let Some(changed) = changes.recv().await {
                    if let Some(key) = this.entries.key_of(&changed.uid) {
                        this.queue.add(key);
                    }
                }
            });
        }
        let (queue, name) = (self.queue.clone(), scope.clone());
        scope.spawn("pods", async move {
            // Not until every pod and sandbox is known: else a new pod could get the address of one not yet listed.
            self.recover().await;
            controller::start(&name, "pods", queue, WORKERS, move |key| {
                let this = self.clone();
                async move { this.handle(&key).await }
            });
        });
    }

    async fn handle(self: &Arc<Self>, key: &Key) -> Result<Next, ReconcileError> {
        let pod = self.store.get(key);
        let node = pod.as_ref().and_then(|pod| self.nodes.get(node_of(pod)?));
        let uid = pod.as_ref().filter(|_| node.is_some()).and_then(|pod| pod.metadata.uid.clone());
        for entry in self.entries.under(key) {
            if uid.as_ref() != Some(&entry.uid) {
                self.tear_down(&entry).await?;
            }
        }
        let (Some(uid), Some(node)) = (uid, node) else { return Ok(Next::Change) };
        let entry = self.entries.of(key, &uid, &self.scope);
        entry.begin();
        for _ in 0..ROUNDS_MAX {
            let Some(seen) = self.store.get(key).filter(|pod| pod.metadata.uid.as_ref() == Some(&uid)) else {
                // Gone meanwhile; the removal wakes us again.
                return Ok(Next::Change);
            };
            if let Some(next) = self.round(&entry, &entry.freshest(seen), node).await? {
                return Ok(next);
            }
        }
        Err(ReconcileError::NotYet(format!("pod {key} does not settle")))
    }

    /// One observation and step. `None` when there is more to do.
    async fn round(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        pod: &Arc<Pod>,
        node: &Node,
    ) -> Result<Option<Next>, ReconcileError> {
        let now = clock::now();
        let settled = step::is_over(pod) || pod.metadata.deletion_timestamp.is_some();
        if !settled {
            let shown = self.known.get(&Key::cluster(&*node.name));
            if let Err(refusal) = self.admission.admit(&entry.uid, pod, node, shown.as_deref()) {
                return self.reject(entry, pod, refusal).await.map(|()| None);
            }
        }
        if pod.metadata.deletion_timestamp.is_some() {
            entry.memory.lock().terminating_since.get_or_insert(now);
        }
        let sandbox = self.sandbox(&entry.uid).await?;
        self.read_last_words(entry, pod, sandbox.as_ref()).await;
        self.probe(entry, pod, sandbox.as_ref(), node);
        let plan = self.step(entry, pod, sandbox.as_ref(), node, now);
        if plan.actions.is_empty() {
            if self.report(entry, pod, &plan.status).await? && step::is_over(&with_status(pod, &plan)) {
                return Ok(None);
            }
            if plan.gone {
                return self.finish(entry, pod).await.map(|()| Some(Next::Change));
            }
            let due = [plan.wake, self.refresh_due(entry)].into_iter().flatten().min();
            self.refresh_content(entry, pod, node).await;
            return Ok(Some(due.map_or(Next::Change, |due| Next::After(until(now, due)))));
        }
        if plan.actions.contains(&Action::RemoveSandbox) {
            // It takes along what the status is made of.
            self.report(entry, pod, &plan.status).await?;
        }
        for action in plan.actions {
            self.act(entry, pod, node, action).await;
        }
        Ok(None)
    }

    async fn sandbox(&self, uid: &str) -> Result<Option<Sandbox>, ReconcileError> {
        let found = self.runtime.sandbox(uid).await;
        found.map_err(|error| {
            ReconcileError::NotYet(format!("the runtime does not answer: {}", chain(&error)))
        })
    }

    fn step(&self, entry: &Entry, pod: &Pod, sandbox: Option<&Sandbox>, node: &Node, now: Timestamp) -> Plan {
        let memory = entry.memory.lock();
        step::step(&Observed { pod, sandbox, memory: &memory, host: node.address, scheme: &self.scheme, now })
    }

    /// The pod's address on its node; `None` on the node's network, or when all are taken.
    fn address(&self, pod: &Pod, node: &Node) -> Option<Ipv4Addr> {
        if pod.spec.as_ref().is_some_and(crate::launch::on_host_network) {
            return None;
        }
        let had = pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()?.parse::<Ipv4Addr>().ok());
        self.addresses.of(text(pod.metadata.uid.as_ref()), had, node.pod_cidr)
    }

    /// What the pod is reached under.
    fn ip(&self, pod: &Pod, node: &Node) -> IpAddr {
        self.address(pod, node).map_or(node.address, IpAddr::V4)
    }
}

fn with_status(pod: &Pod, plan: &Plan) -> Pod {
    Pod { status: Some(plan.status.clone()), ..pod.clone() }
}

/// How long from `now` until `due`, rounded up so that it is due then.
fn until(now: Timestamp, due: Timestamp) -> Duration {
    let wait = Duration::try_from(due.duration_since(now)).unwrap_or(Duration::ZERO);
    wait.max(Duration::from_millis(1))
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        out.push_str(": ");
        out.push_str(&cause.to_string());
        next = cause.source();
    }
    out
}
