//! The controller manager: makes what is match what was asked for, one controller a file or folder.
//!
//! In: every workload, Service, Node and Namespace, from shared informers. Out: pods, ReplicaSets, endpoints, statuses.
//!
//!     stores.rs ──keys──► a controller's queue ──► observe ──► reconcile (pure) ──► Plan ──► execute.rs
//!
//! Of all instances one leads; only that one watches, so a waiting instance costs next to nothing.

mod certificates;
mod cluster_role;
mod context;
mod counts;
mod daemon_set;
mod deployment;
mod discovery;
mod disruption;
mod endpoints;
mod execute;
mod expectations;
mod garbage;
mod history;
mod job;
mod namespace;
mod node;
mod ownership;
mod plan;
mod pods;
mod quota;
mod replica_set;
mod replication_controller;
mod service_account;
mod stateful_set;
mod stores;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tokens;
mod volume;
mod wake;

use anyhow::Context as _;
use certificates::{Signer, SigningArgs};
use clap::Args as ClapArgs;
use context::Context;
use coracle_client::leader;
use coracle_daemon::Tasks;
use coracle_daemon::health::{self, Health};
use coracle_keys::SigningKey;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How the controller manager is started; names as kube-controller-manager has them.
#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// Kubeconfig with the apiserver's address and our credentials
    #[arg(long)]
    pub kubeconfig: PathBuf,
    /// Run only while holding the Lease kube-controller-manager in kube-system
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub leader_elect: bool,
    /// This instance's name in the Lease; made up when not given
    #[arg(long)]
    pub leader_elect_identity: Option<String>,
    /// CA certificate to publish in every namespace as ConfigMap kube-root-ca.crt
    #[arg(long)]
    pub root_ca_file: Option<PathBuf>,
    /// How certificates are signed
    #[command(flatten)]
    pub signing: SigningArgs,
    /// PEM private key that signs the tokens in Secrets of ServiceAccounts
    #[arg(long)]
    pub service_account_private_key_file: Option<PathBuf>,
    /// Folder for the volumes of storage classes of the provisioner coracle.dev/folder; without it none are made
    #[arg(long)]
    pub volume_dir: Option<PathBuf>,
    /// Give each controller its own ServiceAccount's credentials (not done yet: all use the kubeconfig's)
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub use_service_account_credentials: bool,
    /// Seconds without a sign of life after which a node counts as unreachable
    #[arg(long, default_value_t = 50)]
    pub node_monitor_grace_seconds: u64,
    /// Address for health checks and metrics
    #[arg(long, default_value = "127.0.0.1")]
    pub bind_address: IpAddr,
    /// Port for health checks and metrics; 0 takes any
    #[arg(long, default_value_t = 10257)]
    pub secure_port: u16,
}

/// Starts the controller manager's tasks.
///
/// # Errors
/// The kubeconfig or CA file is unusable, or the health address is taken.
pub async fn run(args: Args, tasks: Tasks) -> anyhow::Result<()> {
    let root_ca = match &args.root_ca_file {
        Some(path) => {
            let pem = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the root CA from {}", path.display()))?;
            Some(Arc::from(pem))
        }
        None => None,
    };
    let client = coracle_client::connect(&args.kubeconfig, "kube-controller-manager/v1.33 (coracle)").await?;
    health::serve(
        SocketAddr::new(args.bind_address, args.secure_port),
        Health::default(),
        Default::default(),
        &tasks,
    )
    .await?;
    let token_key =
        args.service_account_private_key_file.as_deref().map(SigningKey::from_file).transpose()?;
    let settings = Settings {
        root_ca,
        signer: args.signing.signer()?,
        token_key: token_key.map(Arc::new),
        node_grace: Duration::from_secs(args.node_monitor_grace_seconds),
        volume_dir: args.volume_dir,
    };
    if !args.leader_elect {
        start(&client, &coracle_client::Scope::new(&tasks), &settings);
        return Ok(());
    }
    let contender = client.clone();
    let identity = args.leader_elect_identity.unwrap_or_else(leader::identity);
    leader::run(&tasks, contender, "kube-controller-manager", &identity, move |scope| {
        start(&client, &scope, &settings);
        std::future::ready(())
    });
    Ok(())
}

#[derive(Default)]
struct Settings {
    root_ca: Option<Arc<str>>,
    signer: Option<Arc<Signer>>,
    token_key: Option<Arc<SigningKey>>,
    node_grace: Duration,
    volume_dir: Option<PathBuf>,
}

fn start(client: &kube::Client, scope: &coracle_client::Scope, settings: &Settings) {
    let ctx = Context::new(client, scope);
    namespace::start(&ctx);
    service_account::start(&ctx, settings.root_ca.clone());
    tokens::start(&ctx, settings.token_key.clone(), settings.root_ca.clone());
    certificates::start(&ctx, settings.signer.clone());
    deployment::start(&ctx);
    replica_set::start(&ctx);
    replication_controller::start(&ctx);
    stateful_set::start(&ctx);
    daemon_set::start(&ctx);
    job::start(&ctx);
    endpoints::start(&ctx);
    disruption::start(&ctx);
    cluster_role::start(&ctx);
    quota::start(&ctx);
    node::start(&ctx, settings.node_grace);
    volume::start(&ctx, settings.volume_dir.as_deref());
    garbage::start(&ctx);
}
