//! Keeps the nodes registered: objects made or corrected at once, leases every ten seconds, statuses every five minutes.
//!
//! One timer serves all nodes, so that a node costs no task of its own.

use crate::node::{Node, Nodes};
use coracle_client::backoff::Backoff;
use coracle_client::{Scope, errors};
use coracle_daemon::clock::{self, rfc3339_micros, rfc3339_seconds};
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1 as core;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const RENEW_EVERY: Duration = Duration::from_secs(10);
/// Statuses are written at every so many renewals: every five minutes.
const RENEWALS_PER_STATUS: u32 = 30;
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MOST: Duration = Duration::from_secs(2);
/// Requests under way at a time.
const AT_ONCE: usize = 32;

struct Registrar {
    nodes: Api<core::Node>,
    leases: Api<Lease>,
}

/// Starts registering, until the scope ends.
pub fn start(scope: &Scope, client: &kube::Client, nodes: Arc<Nodes>) {
    let registrar = Registrar {
        nodes: Api::all(client.clone()),
        leases: Api::namespaced(client.clone(), "kube-node-lease"),
    };
    scope.spawn("node registration", async move {
        each(&nodes, |node| registrar.register_until_done(node)).await;
        let mut timer = clock::interval(RENEW_EVERY);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for renewal in 0_u32.. {
            timer.tick().await;
            let with_status = renewal > 0 && renewal % RENEWALS_PER_STATUS == 0;
            each(&nodes, |node| registrar.refresh(node, with_status)).await;
        }
    });
}

async fn each<'a, F: Future<Output = ()>>(nodes: &'a Nodes, work: impl Fn(&'a Node) -> F) {
    futures::stream::iter(nodes.values()).for_each_concurrent(AT_ONCE, work).await;
}

impl Registrar {
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
        let patch = json!({ "status": node.status(&rfc3339_seconds(clock::now())) });
        self.nodes.patch_status(&node.name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
    }

    async fn refresh(&self, node: &Node, with_status: bool) {
        if let Err(error) = self.renew(node).await {
            tracing::warn!(node = node.name, %error, "lease not renewed");
        }
        let reported = if with_status { self.report(node).await } else { Ok(()) };
        match reported {
            Ok(()) => {}
            Err(error) if errors::is_not_found(&error) => {
                // Someone deleted the node while its kubelet lives: it registers again, as upstream's does on restart.
                if let Err(error) = self.register(node).await {
                    tracing::warn!(node = node.name, %error, "not registered again");
                }
            }
            Err(error) => tracing::warn!(node = node.name, %error, "status not reported"),
        }
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

fn typed<T: serde::de::DeserializeOwned>(value: Value) -> kube::Result<T> {
    serde_json::from_value(value).map_err(kube::Error::SerdeError)
}
