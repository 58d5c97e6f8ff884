//! kube-apiserver's flags, as far as this server knows them.

use crate::admission::AdmissionArgs;
use crate::aggregator::AggregatorArgs;
use crate::audit::AuditArgs;
use crate::authentication::AuthenticationArgs;
use crate::authorization::AuthorizationArgs;
use crate::http::crossing::CrossingArgs;
use crate::http::limits::LimitArgs;
use crate::storage::encryption::EncryptionArgs;
use crate::streaming::StreamingArgs;
use anyhow::{Context, bail};
use ipnet::Ipv4Net;
use std::net::IpAddr;
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
    /// Addresses to listen on.
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1")]
    pub bind_address: Vec<IpAddr>,
    /// Port to listen on.
    #[arg(long, default_value_t = 6443)]
    pub secure_port: u16,
    /// Address that is told to the cluster as this server's; the last that it listens on when not given.
    #[arg(long)]
    pub advertise_address: Option<IpAddr>,
    /// PEM serving certificate.
    #[arg(long)]
    pub tls_cert_file: PathBuf,
    /// Its PEM private key.
    #[arg(long)]
    pub tls_private_key_file: PathBuf,
    /// Range of Services' addresses.
    #[arg(long, default_value = "10.96.0.0/16")]
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
}

/// A boolean as Go's flags write it; alone a flag is true.
///
/// # Errors
/// The text is none.
pub fn switch(text: &str) -> anyhow::Result<bool> {
    coracle_api::meta::parse_bool(text)
        .with_context(|| format!("strconv.ParseBool: parsing {text:?}: invalid syntax"))
}

fn port_range(text: &str) -> anyhow::Result<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').context("a range is FIRST-LAST")?;
    let (first, last) = (first.trim().parse()?, last.trim().parse()?);
    if first == 0 || last < first {
        bail!("{text} is no range of ports");
    }
    Ok(first..=last)
}

/// Go's durations, such as 1h30m or 500ms, that are not negative.
///
/// # Errors
/// The text is none.
pub fn duration(text: &str) -> anyhow::Result<Duration> {
    let span: jiff::SignedDuration =
        text.parse().with_context(|| format!("{text:?} is no duration such as 1h30m"))?;
    Duration::try_from(span).with_context(|| format!("{text:?} is negative"))
}

impl Args {
    /// The address that the cluster is told.
    #[must_use]
    pub fn advertised(&self) -> IpAddr {
        let listened = self.bind_address.iter().rev().find(|address| !address.is_unspecified());
        self.advertise_address.or(listened.copied()).unwrap_or(IpAddr::from([127, 0, 0, 1]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos_and_none_is_too_long_to_be_read() {
        let cases = [("1h30m", 5_400_000), ("2m0s", 120_000), ("500ms", 500), ("1.5s", 1500), ("0s", 0)];
        for (text, millis) in cases {
            assert_eq!(duration(text).ok(), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "m", "1x", "-1s", "18446744073709551615h", "9999999999999999h9999999999999999h"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
