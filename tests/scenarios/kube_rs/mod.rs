//! kube-rs, the Rust client: what its users do works, and answers as it expects.
//!
//! The cluster's own components use the same crate; here are the ways of controllers' authors: derived kinds,
//! finalizers, reflectors of both sorts, waits, events, and the streams of a container.

mod custom;
mod objects;
mod streams;
mod watching;

pub use custom::derived_kind;
pub use objects::{patches, reads_and_writes};
pub use streams::container_streams;
pub use watching::{controller, watchers};

use anyhow::{Context, Result};
use coracle_tests::Cluster;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use std::time::Duration;

/// How long one scenario may take.
const SECONDS_MAX: u64 = 90;
/// Who writes.
const MANAGER: &str = "kube-rs-tests";

/// Runs `work` with a client, in a namespace of its own, which goes afterwards.
fn run(cluster: &Cluster, namespace: &str, work: impl AsyncFnOnce(Client, &str) -> Result<()>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let config = Kubeconfig::read_from(cluster.kubeconfig())?;
        let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config)?;
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let wanted = serde_json::from_value(serde_json::json!({"metadata": {"name": namespace}}))?;
        namespaces.create(&PostParams::default(), &wanted).await?;
        let limit = Duration::from_secs(SECONDS_MAX);
        let done = tokio::time::timeout(limit, work(client, namespace)).await;
        namespaces.delete(namespace, &DeleteParams::background()).await?;
        done.context("kube-rs was not done in time")?
    })
}

/// The Status of a refusal.
fn refused<T: std::fmt::Debug>(answer: kube::Result<T>) -> Result<kube::core::Status> {
    match answer {
        Err(kube::Error::Api(status)) => Ok(*status),
        other => anyhow::bail!("a refusal was expected, but: {other:?}"),
    }
}
