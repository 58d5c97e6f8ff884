//! Keeps the nodes registered: objects made or corrected at once, leases every ten seconds, statuses every five minutes and
//! whenever the API shows something else than what holds (a node that was cut off is told to be away).
//!
//! One timer serves all nodes, so that a node costs no task of its own.

use crate::node::{Node, Nodes};
use crate::runtime::{Image, Runtime};
use coracle_client::controller::{self, Next};
use coracle_client::{Key, Queue, Scope, Store, errors};
use coracle_daemon::backoff::Backoff;
use coracle_daemon::clock::{self, rfc3339_micros, rfc3339_seconds};
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1 as core;
use kube::api::{Api, Patch, PatchParams, PostParams};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const RENEW_EVERY: Duration = Duration::from_secs(10);
/// Statuses are written at every so many renewals: every five minutes.
const RENEWALS_PER_STATUS: u32 = 30;
/// The runtime is looked at every half a minute, as upstream does, and at each renewal once there is trouble.
const RENEWALS_PER_LOOK: u32 = 3;
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MOST: Duration = Duration::from_secs(2);
/// How long the runtime may take to answer before it counts as away.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Asked for only to see whether the runtime answers.
const PROBE_IMAGE: &str = "coracle.dev/none";
/// Requests under way at a time.
const AT_ONCE: usize = 32;

struct Registrar {
    nodes: Api<core::Node>,
    leases: Api<Lease>,
    /// What the API shows.
    known: Store<core::Node>,
    runtime: Arc<dyn Runtime>,
    /// Why no pods can be run, at the last look.
    trouble: Mutex<Option<String>>,
}

/// Starts registering, until the scope ends. `known` reflects Node objects, at least our own.
pub fn start(
    scope: &Scope,
    client: &kube::Client,
    nodes: Arc<Nodes>,
    known: &Store<core::Node>,
    runtime: Arc<dyn Runtime>,
) {
    let registrar = Arc::new(Registrar {
        nodes: Api::all(client.clone()),
        leases: Api::namespaced(client.clone(), "kube-node-lease"),
        known: known.clone(),
        runtime,
        trouble: Mutex::default(),
    });
    let (ours, inner) = (nodes.clone(), registrar);
    let corrections = scope.clone();
    scope.spawn("node registration", async move {
        each(&nodes, |node| inner.register_until_done(node)).await;
        inner.clone().correct_whenever(&corrections, nodes.clone());
        for renewal in 0_u32.. {
            each(&ours, |node| inner.refresh(node, renewal)).await;
            clock::sleep(clock::until_whole(RENEW_EVERY)).await;
        }
    });
}

async fn each<'a, F: Future<Output = ()>>(nodes: &'a Nodes, work: impl Fn(&'a Node) -> F) {
    futures::stream::iter(nodes.values()).for_each_concurrent(AT_ONCE, work).await;
}

impl Registrar {
    /// Writes a status again when someone wrote another, and registers again what someone deleted.
    fn correct_whenever(self: Arc<Self>, scope: &Scope, nodes: Arc<Nodes>) {
        let queue: Queue<Key> = Queue::new();
        let (sink, ours, this) = (queue.clone(), nodes.clone(), Arc::downgrade(&self));
        self.known.on_change(move |change| {
            let (Some(node), Some(this)) = (ours.get(&change.key.name), this.upgrade()) else { return };
            let trouble = this.trouble.lock().clone();
            let told =
                change.new.as_ref().is_some_and(|shown| node.is_told(conditions(shown), trouble.as_deref()));
            if !told {
                sink.add(change.key.clone());
            }
        });
        controller::start(scope, "node status", queue, AT_ONCE, move |key| {
            let (this, nodes) = (self.clone(), nodes.clone());
            async move {
                if let Some(node) = nodes.get(&key.name) {
                    match this.report(node).await {
                        Err(error) if errors::is_not_found(&error) => this.register(node).await?,
                        reported => reported?,
                    }
                }
                Ok(Next::Change)
            }
        });
    }

    async fn register_until_done(&self, node: &Node) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MOST);
        while let Err(error) = self.register(node).await {
            tracing::info!(node = node.name, %error, "not registered yet");
            clock::sleep(backoff.next_delay()).await;
        }
    }

    async fn register(&self, node: &Node) -> kube::Result<()> {
        let object = typed(node.object(&rfc3339_seconds(clock::now())))?;
        match self.nodes.create(&PostParams::default(), &object).await {
            Err(error) if errors::is_already_exists(&error) => self.correct(node).await?,
            created => drop(created?),
        }
        self.report(node).await
    }

    /// Brings an existing object up to date. A pod CIDR, once set, is never changed.
    async fn correct(&self, node: &Node) -> kube::Result<()> {
        let known = self.nodes.get(&node.name).await?;
        let mut patch = json!({ "metadata": { "labels": node.labels() } });
        if known.spec.and_then(|spec| spec.pod_cidr).is_none() {
            patch["spec"] = node.spec();
        }
        let params = PatchParams::default();
        self.nodes.patch(&node.name, &params, &Patch::Strategic(patch)).await.map(drop)
    }

    async fn report(&self, node: &Node) -> kube::Result<()> {
        let known = self.known.get(&Key::cluster(&*node.name));
        let known = known.as_deref().map(conditions).unwrap_or_default();
        let images = if node.simulated { Vec::new() } else { self.images().await };
        let (now, trouble) = (rfc3339_seconds(clock::now()), self.trouble.lock().clone());
        let patch = json!({ "status": node.status(&now, known, &images, trouble.as_deref()) });
        self.nodes.patch_status(&node.name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
    }

    /// The largest first, as upstream tells them.
    async fn images(&self) -> Vec<Image> {
        let mut images = self.runtime.images().await.unwrap_or_else(|error| {
            tracing::info!(%error, "the runtime does not tell its images");
            Vec::new()
        });
        images.sort_by_key(|image| std::cmp::Reverse(image.size));
        images
    }

    async fn refresh(&self, node: &Node, renewal: u32) {
        let with_status = renewal > 0 && renewal.is_multiple_of(RENEWALS_PER_STATUS);
        let looks = renewal.is_multiple_of(RENEWALS_PER_LOOK) || self.trouble.lock().is_some();
        let look = async { looks && self.look_for_trouble(node).await };
        let (renewed, changed) = tokio::join!(self.renew(node), look);
        if let Err(error) = renewed {
            tracing::warn!(node = node.name, %error, "lease not renewed");
        }
        let reported = if with_status || changed { self.report(node).await } else { Ok(()) };
        match reported {
            // Whoever deleted the node also wakes what registers it again.
            Err(error) if !errors::is_not_found(&error) => {
                tracing::warn!(node = node.name, %error, "status not reported");
            }
            _ => {}
        }
    }

    /// Whether the runtime came or went since the last look.
    async fn look_for_trouble(&self, node: &Node) -> bool {
        if node.simulated {
            return false;
        }
        let answer = clock::timeout(ANSWER_MAX, self.runtime.image(PROBE_IMAGE)).await;
        let trouble = match answer {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(format!("container runtime is down: {error}")),
            Err(_) => Some("container runtime is down: it does not answer".to_owned()),
        };
        let mut known = self.trouble.lock();
        let changed = known.is_some() != trouble.is_some();
        *known = trouble;
        changed
    }

    async fn renew(&self, node: &Node) -> kube::Result<()> {
        let lease = node.lease(&rfc3339_micros(clock::now()));
        let params = PatchParams::default();
        match self.leases.patch(&node.name, &params, &Patch::Merge(&lease)).await {
            Err(error) if errors::is_not_found(&error) => {
                self.leases.create(&PostParams::default(), &typed(lease)?).await.map(drop)
            }
            patched => patched.map(drop),
        }
    }
}

fn conditions(node: &core::Node) -> &[core::NodeCondition] {
    node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default()
}

fn typed<T: serde::de::DeserializeOwned>(value: Value) -> kube::Result<T> {
    serde_json::from_value(value).map_err(kube::Error::SerdeError)
}
