//! The scheduler: gives each pending pod a node.
//!
//! In: pods, nodes, namespaces, claims and disruption budgets, by watch. Out: bindings, the condition PodScheduled,
//! events, and deletions of pods that must make room.
//!
//!     watches ──► cluster.rs (Core: snapshot + queue, one lock) ──pop──► decide.rs (pure) ──► bind, or park and tell
//!
//!     pod.rs, terms.rs, resources.rs   what pods and nodes say, parsed once
//!     filter.rs, score.rs              which nodes can, which is best
//!     volumes.rs                       what claims say of nodes, and which volumes they get
//!     queue.rs                         who is tried next, and what wakes whom
//!
//! Invariants: a decision and its place in the snapshot are one step under the lock, so two pods never get the same
//! room; nothing waits for the network under the lock; no pod is tried again unless something changed.

mod cluster;
mod decide;
mod filter;
mod pod;
mod queue;
mod resources;
mod score;
mod snapshot;
mod terms;
#[cfg(test)]
mod tests;
mod volumes;

use clap::Args as ClapArgs;
use coracle_client::{Scope, leader};
use coracle_daemon::Tasks;
use coracle_daemon::health::{self, Health};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// How the scheduler is started; names as kube-scheduler has them.
#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// Kubeconfig with the apiserver's address and our credentials
    #[arg(long)]
    pub kubeconfig: PathBuf,
    /// Run only while holding the Lease kube-scheduler in kube-system
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub leader_elect: bool,
    /// This instance's name in the Lease; made up when not given
    #[arg(long)]
    pub leader_elect_identity: Option<String>,
    /// Schedule pods whose spec.schedulerName is this
    #[arg(long, default_value = "default-scheduler")]
    pub scheduler_name: String,
    /// Address for health checks and metrics
    #[arg(long, default_value = "127.0.0.1")]
    pub bind_address: IpAddr,
    /// Port for health checks and metrics; 0 takes any
    #[arg(long, default_value_t = 10259)]
    pub secure_port: u16,
}

/// Starts the scheduler's tasks.
///
/// # Errors
/// The kubeconfig is unusable, or the health address is taken.
pub async fn run(args: Args, tasks: Tasks) -> anyhow::Result<()> {
    let client = coracle_client::connect(&args.kubeconfig, "coracle-scheduler").await?;
    health::serve(
        SocketAddr::new(args.bind_address, args.secure_port),
        Health::default(),
        Default::default(),
        &tasks,
    )
    .await?;
    if !args.leader_elect {
        cluster::start(&client, &Scope::new(&tasks), &args.scheduler_name);
        return Ok(());
    }
    let identity = args.leader_elect_identity.unwrap_or_else(leader::identity);
    let (contender, name) = (client.clone(), args.scheduler_name);
    leader::run(&tasks, contender, "kube-scheduler", &identity, move |scope| {
        cluster::start(&client, &scope, &name);
        std::future::ready(())
    });
    Ok(())
}
