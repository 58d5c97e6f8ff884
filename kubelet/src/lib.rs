//! A node's kubelet: the pods bound to its nodes in; node objects, leases and pod statuses out.
//!
//! ```text
//! pods of our nodes ──Reflector──► Queue ──► step(pod, address, now) ──► Action ──► pods/status, final delete
//! machine facts ──► node::object ──► nodes, nodes/status          one timer ──► leases of all nodes
//! ```
//!
//! So far one runtime exists: the simulated one (`--simulated-nodes N`), where one unprivileged process plays N nodes
//! whose pods go through every status without a container. Invariant: a pod is deleted for good only by its uid.

mod addresses;
mod args;
pub mod logger;
mod machine;
mod node;
mod pods;
mod registration;
pub mod runtime;
mod server;
mod step;
#[cfg(test)]
mod tests;

pub use args::Args;

use anyhow::{Context, Result};
use coracle_client::{Recorder, Scope};
use coracle_daemon::Tasks;
use std::sync::Arc;

/// Plays the nodes until the process stops.
///
/// # Errors
/// The arguments ask for a runtime that is not there, or the kubeconfig, certificates or address cannot be used.
pub async fn run(args: Args, tasks: Tasks) -> Result<()> {
    anyhow::ensure!(
        args.simulated_nodes > 0,
        "this build has no container runtime: pass --simulated-nodes N to play nodes without containers"
    );
    let nodes = Arc::new(node::simulated(&args, &machine::Facts::read()));
    let client = coracle_client::connect(&args.kubeconfig, "coracle-kubelet")
        .await
        .context("cannot set up the API client")?;
    let scope = Scope::new(&tasks);
    let recorder = Recorder::new(client.clone(), "kubelet", None, &scope);
    let store = pods::start(&scope, &client, nodes.clone(), recorder);
    server::start(&args, store, &tasks).await?;
    registration::start(&scope, &client, nodes);
    Ok(())
}
