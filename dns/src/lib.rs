//! A node's cluster name server: Services, EndpointSlices and Namespaces in, DNS answers out.
//!
//! ```text
//! Services, EndpointSlices, Namespaces ──follow──► Zone ──answer──► UDP, TCP ◄── pods, through the Service kube-dns
//!                                                    └─ not ours ──► upstream (resolv.conf)
//! ```
//!
//! Invariants: nothing is answered before the first lists are in (SERVFAIL, so that clients ask another server), and only
//! then does this server become an endpoint of the Service `kube-dns`.

pub mod answer;
mod follow;
mod publish;
mod server;
#[cfg(test)]
mod tests;
mod upstream;
pub mod zone;

use anyhow::{Context, Result};
use coracle_client::{Reflector, Scope, Store};
use coracle_daemon::Tasks;
use coracle_daemon::health::{self, Health};
use hickory_proto::rr::Name;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use prometheus_client::registry::Registry;
use publish::Publisher;
use server::{Handler, Metrics};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use upstream::Upstream;
use zone::Zone;

/// `coracle dns`
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// How to reach the API.
    #[arg(long)]
    pub kubeconfig: PathBuf,
    /// Name of this node.
    #[arg(long)]
    pub node_name: String,
    /// Where questions are answered, over UDP and TCP.
    #[arg(long, required = true)]
    pub listen: Vec<SocketAddr>,
    /// The domain under which the cluster's names are.
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Names the servers that know all other names.
    #[arg(long, default_value = "/etc/resolv.conf")]
    pub resolv_conf: PathBuf,
    /// Where health and metrics are served; nowhere unless given.
    #[arg(long)]
    pub healthz_bind_address: Option<SocketAddr>,
}

/// Answers until the process stops.
///
/// # Errors
/// The kubeconfig, the domain or an address cannot be used.
pub async fn run(args: Args, tasks: Tasks) -> Result<()> {
    let client = coracle_client::connect(&args.kubeconfig, "coracle-dns")
        .await
        .context("cannot use the kubeconfig")?;
    start(&args, client, &tasks).await.map(drop)
}

/// Binds, starts to follow the API, and returns the bound addresses.
async fn start(args: &Args, client: kube::Client, tasks: &Tasks) -> Result<Vec<SocketAddr>> {
    let mut domain = Name::from_ascii(&args.cluster_domain).context("bad cluster domain")?;
    domain.set_fqdn(true);
    let health = Health::default();
    health.failing("sync", "the first lists are not in yet");
    let (mut registry, metrics) = (Registry::default(), Metrics::default());
    metrics.register(&mut registry);
    if let Some(listen) = args.healthz_bind_address {
        health::serve(listen, health.clone(), registry, tasks).await?;
    }
    let mut sockets = Vec::new();
    for listen in &args.listen {
        sockets.push(server::bind(*listen).await?);
    }
    let bound = sockets.iter().map(|(_, tcp)| tcp.local_addr()).collect::<Result<Vec<_>, _>>()?;
    let upstream = Arc::new(Upstream::from_file(&args.resolv_conf, &bound)?);

    let scope = Scope::new(tasks);
    let followed = follow::start(&client, Zone::new(&domain), &scope);
    let nodes: Store<Node> = Reflector::new(Api::all(client.clone()))
        .fields(format!("metadata.name={}", args.node_name))
        .start(&scope);
    let ready = Arc::new(AtomicBool::new(false));
    let handler =
        Handler { zone: followed.zone.clone(), ready: ready.clone(), upstream: upstream.clone(), metrics };
    let (mut server, stop) = (server::serve(handler, sockets), tasks.stopping());
    tasks.spawn("name server", async move {
        tokio::select! {
            ended = server.block_until_done() => ended.context("the name server failed"),
            () = stop.cancelled() => server.shutdown_gracefully().await.context("the name server failed"),
        }
    });
    let publisher = Publisher {
        listen: bound.clone(),
        node_name: args.node_name.clone(),
        nodes,
        slices: followed.slices.clone(),
        api: Publisher::api(client),
    };
    let stop = tasks.stopping();
    tasks.spawn("endpoint of kube-dns", async move {
        if stop.run_until_cancelled(followed.synced()).await.is_some() {
            ready.store(true, Ordering::Release);
            health.ok("sync");
            publisher.run(stop).await;
        }
        Ok(())
    });
    scope.spawn("search for a loop", async move { upstream.look_for_loop().await });
    Ok(bound)
}
