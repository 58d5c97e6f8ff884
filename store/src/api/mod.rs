//! etcd's gRPC services over the state machine and replication, and the HTTP pages beside them.
//!
//! A handler checks, then commits or waits for the read barrier, then translates; nothing else. In: requests of any client.
//! Out: etcd's answers, with etcd's codes and texts for what is refused.

mod auth;
mod authority;
mod calls;
#[doc(hidden)]
pub mod check;
mod cluster;
mod compaction;
mod context;
mod election;
mod http;
mod kv;
mod lease;
mod listen;
mod lock;
mod maintenance;
mod metrics;
mod queue;
mod services;
mod session;
mod snapshot;
#[cfg(test)]
mod tests;
mod watch;

pub use context::{Api, Limits};

use crate::consensus::Consensus;
use crate::lessor::end_leases;
use crate::machine::Machine;
use crate::shared::Shared;
use crate::{Args, raft};
use anyhow::Context;
use coracle_daemon::Tasks;
use listen::Listener;
use prometheus_client::registry::Registry;
use services::Services;
use std::net::SocketAddr;
use std::sync::Arc;
use tonic::service::Routes;

/// Watches whose events are encoded already.
mod wire {
    #![allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated code")]
    tonic::include_proto!("etcdserverpb");
}

/// The version of etcd whose behaviour clients may count on.
pub const VERSION: &str = "3.5.21";
/// The least version that all members of a cluster have, as etcd tells it.
const CLUSTER_VERSION: &str = "3.5.0";

/// What a message may have besides the request that it carries, as in etcd.
const MESSAGE_OVERHEAD: usize = 512 << 10;

/// Runs one member.
///
/// # Errors
/// A flag does not fit, the data cannot be read, or an address cannot be bound.
pub async fn run(args: Args, tasks: Tasks) -> anyhow::Result<()> {
    allow_files();
    start(args, &tasks).await.map(drop)
}

/// Lets the process open as many files as the system lets it: each client's connection is one.
fn allow_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// Returns the addresses that clients are served on.
pub(crate) async fn start(args: Args, tasks: &Tasks) -> anyhow::Result<Vec<SocketAddr>> {
    // Bad addresses and certificates are told before the data is touched.
    let clients =
        Listener::bind_all(&args.listen_client_urls, &args).await.context("--listen-client-urls")?;
    let pages =
        Listener::bind_all(&args.listen_metrics_urls, &args).await.context("--listen-metrics-urls")?;
    let compaction = compaction::Policy::from_args(&args)?;

    let shared = Shared::new(Machine::new());
    let node = raft::start(&args, shared.clone(), tasks).await?;
    let mut registry = Registry::default();
    node.metrics().register(&mut registry);
    let consensus: Arc<dyn Consensus> = node;
    let api = Api::new(shared.clone(), consensus.clone(), Limits::from_args(&args), tasks.stopping());
    let metrics = metrics::Metrics::register(&mut registry);
    let http = http::router(http::Pages::new(api.clone(), metrics, registry));

    let (ends, stop) = (consensus.clone(), tasks.stopping());
    tasks.spawn("lease clock", async move {
        end_leases(shared.lessor(), ends, stop).await;
        Ok(())
    });
    if let Some(policy) = compaction {
        let (api, stop) = (api.clone(), tasks.stopping());
        tasks.spawn("automatic compaction", async move {
            compaction::run(policy, &api, stop).await;
            Ok(())
        });
    }
    let addresses = clients.iter().map(|listener| listener.address).collect();
    for listener in clients {
        tracing::info!(address = %listener.address, "serving clients");
        listener.serve(Services::new(&api, http.clone()), &args, &api.counts, tasks);
    }
    for listener in pages {
        listener.serve(Routes::from(http.clone()), &args, &api.counts, tasks);
    }
    Ok(addresses)
}
