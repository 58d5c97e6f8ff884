//! kube-apiserver's flags, as far as this server knows them.

mod beyond;
pub mod gates;
#[cfg(test)]
mod tests;

use crate::admission::AdmissionArgs;
use crate::aggregator::AggregatorArgs;
use crate::audit::AuditArgs;
use crate::authentication::AuthenticationArgs;
use crate::authorization::AuthorizationArgs;
use crate::flags::{duration, switch};
use crate::http::crossing::CrossingArgs;
use crate::http::limits::LimitArgs;
use crate::serve::ServingArgs;
use crate::storage::encryption::EncryptionArgs;
use crate::streaming::StreamingArgs;
use anyhow::{Context, bail};
use beyond::Beyond;
use ipnet::Ipv4Net;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// Flags of `coracle apiserver`.
#[derive(Clone, Debug, clap::Args)]
#[command(args_override_self = true)]
pub struct Args {
    /// Members of the store, e.g. https://127.0.0.1:2379.
    #[arg(long, value_delimiter = ',', required = true)]
    pub etcd_servers: Vec<String>,
    /// CA of the store's members.
    #[arg(long, requires = "etcd_certfile")]
    pub etcd_cafile: Option<PathBuf>,
    /// PEM client certificate for the store.
    #[arg(long, requires = "etcd_keyfile")]
    pub etcd_certfile: Option<PathBuf>,
    /// Its PEM private key.
    #[arg(long, requires = "etcd_cafile")]
    pub etcd_keyfile: Option<PathBuf>,
    /// Prefix of all keys in the store.
    #[arg(long, default_value = "/registry")]
    pub etcd_prefix: String,
    /// Addresses to listen on; without, this machine's own alone, or all where the cluster is told of one.
    #[arg(long, value_delimiter = ',')]
    pub bind_address: Vec<IpAddr>,
    /// Port to listen on.
    #[arg(long, default_value_t = 6443)]
    pub secure_port: u16,
    /// Address that is told to the cluster as this server's; the last that it listens on when not given.
    #[arg(long)]
    pub advertise_address: Option<IpAddr>,
    /// How it is served.
    #[command(flatten)]
    pub serving: ServingArgs,
    /// Host, with a port if it is another, by which this server is known outside of the cluster.
    #[arg(long, default_value = "")]
    pub external_hostname: String,
    /// How the `kubernetes` Service gets to know this server: lease, or none where others tell it.
    #[arg(long, default_value = "lease", value_parser = ["lease", "none"])]
    pub endpoint_reconciler_type: String,
    /// A port of every node at which the `kubernetes` Service is; 0: none.
    #[arg(long, default_value_t = 0)]
    pub kubernetes_service_node_port: u16,
    /// What the store speaks: etcd3.
    #[arg(long, default_value = "")]
    pub storage_backend: String,
    /// How often old revisions of the store are let go, e.g. 5m0s; 0: never.
    #[arg(long, default_value = "5m0s", value_parser = duration)]
    pub etcd_compaction_interval: Duration,
    /// How long new Events share a lease, e.g. 60.
    #[arg(long, default_value_t = 60)]
    pub lease_reuse_duration_seconds: u64,
    /// Built-in APIs that are served or not, e.g. batch/v1=false, api/beta=false, apps/v1/deployments=false.
    #[arg(long, value_delimiter = ',', value_name = "API=BOOL")]
    pub runtime_config: Vec<String>,
    /// Features of Kubernetes that are on or off, as this server has them: what it does not have is refused.
    #[arg(long, value_delimiter = ',', value_name = "NAME=BOOL")]
    pub feature_gates: Vec<String>,
    /// How much is logged: 4 and more is for developers.
    #[arg(long, short)]
    pub v: Option<u32>,
    /// Range of Services' addresses.
    #[arg(long, default_value = "10.96.0.0/16", value_parser = service_range)]
    pub service_cluster_ip_range: Ipv4Net,
    /// Range of node ports.
    #[arg(long, default_value = "30000-32767", value_parser = port_range)]
    pub service_node_port_range: RangeInclusive<u16>,
    /// How long Events are kept, e.g. 1h0m0s.
    #[arg(long, default_value = "1h0m0s", value_parser = duration)]
    pub event_ttl: Duration,
    /// A JSON List of objects that the cluster's maker wants in it; applied before this server says that it is ready.
    #[arg(long)]
    pub addons_file: Option<PathBuf>,
    /// Let containers be privileged.
    #[arg(long, default_value = "false", value_parser = switch, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub allow_privileged: bool,
    /// Who admits writes.
    #[command(flatten)]
    pub admission: AdmissionArgs,
    /// How objects are kept in the store.
    #[command(flatten)]
    pub encryption: EncryptionArgs,
    /// What is noted of requests.
    #[command(flatten)]
    pub audit: AuditArgs,
    /// How requests are authenticated.
    #[command(flatten)]
    pub authentication: AuthenticationArgs,
    /// Who decides what is allowed.
    #[command(flatten)]
    pub authorization: AuthorizationArgs,
    /// How many requests run, and how long.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// What browsers are told.
    #[command(flatten)]
    pub crossing: CrossingArgs,
    /// How kubelets are reached.
    #[command(flatten)]
    pub streaming: StreamingArgs,
    /// How aggregated servers are reached.
    #[command(flatten)]
    pub aggregator: AggregatorArgs,
    /// What there is nothing of here.
    #[command(flatten)]
    pub beyond: Beyond,
}

fn service_range(text: &str) -> anyhow::Result<Ipv4Net> {
    if text.contains(',') {
        bail!("Services have addresses of one family here; name one range of IPv4");
    }
    text.parse().ok().context("service-cluster-ip-range[0] is not a valid cidr of IPv4")
}

fn port_range(text: &str) -> anyhow::Result<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').context("a range is FIRST-LAST")?;
    let (first, last) = (first.trim().parse()?, last.trim().parse()?);
    if first == 0 || last < first {
        bail!("{text} is no range of ports");
    }
    Ok(first..=last)
}

impl Args {
    /// What no value of a flag alone tells.
    ///
    /// # Errors
    /// Flags ask for what is not here.
    pub fn check(&self) -> anyhow::Result<()> {
        if !["", "etcd3"].contains(&self.storage_backend.as_str()) {
            bail!(
                "--storage-backend invalid, allowed values: etcd3. If not specified, it will default to 'etcd3'"
            );
        }
        gates::check(&self.feature_gates)
    }

    /// The addresses that are listened on. Nothing listens beyond this machine unless asked; a cluster that is told of an
    /// address is to find somebody there.
    #[must_use]
    pub fn bound(&self) -> Vec<IpAddr> {
        match (self.bind_address.as_slice(), self.advertise_address) {
            ([], None) => vec![IpAddr::from([127, 0, 0, 1])],
            ([], Some(_)) => vec![IpAddr::from([0, 0, 0, 0])],
            (given, _) => given.to_vec(),
        }
    }

    /// The address that the cluster is told.
    #[must_use]
    pub fn advertised(&self) -> IpAddr {
        let listened = self.bind_address.iter().rev().find(|address| !address.is_unspecified());
        self.advertise_address.or(listened.copied()).unwrap_or(IpAddr::from([127, 0, 0, 1]))
    }

    /// Host and port as clients are told.
    #[must_use]
    pub fn external(&self) -> String {
        match self.external_hostname.as_str() {
            "" => SocketAddr::new(self.advertised(), self.secure_port).to_string(),
            name if name.contains(':') => name.to_owned(),
            name => format!("{name}:{}", self.secure_port),
        }
    }
}
