//! A node's Service proxy: Services and EndpointSlices in, one nftables table out.
//!
//! ```text
//! Services, EndpointSlices ──compile──► Ruleset ──diff against what is loaded──► script ──nft -f -──► kernel
//! ```
//!
//! Invariant: the kernel holds exactly the last [`ruleset::Ruleset`] applied; each change is one transaction. The rules stay when
//! the process ends, so that traffic flows while it restarts; the next start replaces the table in one transaction.

pub mod compile;
pub mod nft;
pub mod ruleset;

use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use coracle_client::{Reflector, Scope, Store};
use coracle_daemon::health::{self, Health};
use coracle_daemon::{Tasks, clock};
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use ruleset::Ruleset;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Pause after a transaction that the kernel refused.
const RETRY: Duration = Duration::from_secs(1);

/// `coracle proxy`
#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// How to reach the API.
    #[arg(long)]
    pub kubeconfig: PathBuf,
    /// Name of this node.
    #[arg(long)]
    pub hostname_override: String,
    /// Addresses of all pods: what leaves them is masqueraded.
    #[arg(long, default_value = "10.244.0.0/16")]
    pub cluster_cidr: Ipv4Net,
    /// Where health and metrics are served.
    #[arg(long, default_value = "127.0.0.1:10256")]
    pub healthz_bind_address: SocketAddr,
}

#[derive(Clone, Default)]
struct Metrics {
    transactions: Counter,
    failures: Counter,
    services: Gauge,
    endpoints: Gauge,
}

/// Keeps the node's rules equal to the API until the process stops.
///
/// # Errors
/// The kubeconfig or the health address cannot be used.
pub async fn run(args: Args, tasks: Tasks) -> Result<()> {
    let health = Health::default();
    health.failing("sync", "the rules are not loaded yet");
    let (mut registry, metrics) = (Registry::default(), Metrics::default());
    registry.register(
        "proxy_transactions",
        "Transactions that the kernel took",
        metrics.transactions.clone(),
    );
    registry.register(
        "proxy_transaction_failures",
        "Transactions that the kernel refused",
        metrics.failures.clone(),
    );
    registry.register("proxy_services", "Service ports in the table", metrics.services.clone());
    registry.register("proxy_endpoints", "Endpoints in the table", metrics.endpoints.clone());
    health::serve(args.healthz_bind_address, health.clone(), registry, &tasks).await?;

    let client = coracle_client::connect(&args.kubeconfig, "coracle-proxy")
        .await
        .context("cannot use the kubeconfig")?;
    let scope = Scope::new(&tasks);
    let services: Store<Service> = Reflector::new(Api::all(client.clone())).start(&scope);
    let slices: Store<EndpointSlice> = Reflector::new(Api::all(client)).start(&scope);
    let wake = Arc::new(Notify::new());
    let woken = wake.clone();
    services.on_change(move |_| woken.notify_one());
    let woken = wake.clone();
    slices.on_change(move |_| woken.notify_one());
    let stop = tasks.stopping();
    tasks.spawn("rules", async move {
        stop.run_until_cancelled(follow(&args, &services, &slices, &wake, &health, &metrics)).await;
        Ok(())
    });
    Ok(())
}

/// What changes while a transaction runs is taken together by the next one.
async fn follow(
    args: &Args,
    services: &Store<Service>,
    slices: &Store<EndpointSlice>,
    wake: &Notify,
    health: &Health,
    metrics: &Metrics,
) {
    services.synced().await;
    slices.synced().await;
    let mut loaded: Option<Ruleset> = None;
    loop {
        let wanted = compile::compile(&services.list(), &slices.list(), &args.hostname_override);
        let script = match &loaded {
            None => Some(nft::load(&wanted, args.cluster_cidr)),
            Some(loaded) => nft::change(loaded, &wanted),
        };
        if let Some(script) = script {
            match coracle_daemon::nft::apply(&script).await {
                Ok(()) => {
                    metrics.transactions.inc();
                    metrics.services.set(i64::try_from(wanted.services.len()).unwrap_or(i64::MAX));
                    metrics.endpoints.set(i64::try_from(wanted.endpoints.len()).unwrap_or(i64::MAX));
                    health.ok("sync");
                    loaded = Some(wanted);
                }
                Err(error) => {
                    metrics.failures.inc();
                    tracing::error!(
                        %error,
                        "the kernel refused the rules; loading them anew"
                    );
                    health.failing("sync", error.to_string());
                    loaded = None;
                    clock::sleep(RETRY).await;
                    continue;
                }
            }
        }
        wake.notified().await;
    }
}
