//! The flags of `coracle store`: etcd's names, meanings and, where they fit, defaults. Each may also come from etcd's
//! environment variable (`ETCD_NAME`, `ETCD_DATA_DIR`, …).

use clap::{ArgAction, Args as ClapArgs, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Run a member of the store
#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// This member's name, as in --initial-cluster
    #[arg(long, env = "ETCD_NAME", default_value = "default")]
    pub name: String,
    /// Folder of the write-ahead log and the image [default: NAME.etcd]
    #[arg(long, env = "ETCD_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Folder of the write-ahead log, where it should be on another disk
    #[arg(long, env = "ETCD_WAL_DIR")]
    pub wal_dir: Option<PathBuf>,
    /// URLs to listen on for clients
    #[arg(
        long,
        env = "ETCD_LISTEN_CLIENT_URLS",
        value_delimiter = ',',
        default_value = "http://localhost:2379"
    )]
    pub listen_client_urls: Vec<String>,
    /// URLs that clients are told of
    #[arg(
        long,
        env = "ETCD_ADVERTISE_CLIENT_URLS",
        value_delimiter = ',',
        default_value = "http://localhost:2379"
    )]
    pub advertise_client_urls: Vec<String>,
    /// URLs to listen on for other members
    #[arg(
        long,
        env = "ETCD_LISTEN_PEER_URLS",
        value_delimiter = ',',
        default_value = "http://localhost:2380"
    )]
    pub listen_peer_urls: Vec<String>,
    /// URLs that other members are told of
    #[arg(
        long,
        env = "ETCD_INITIAL_ADVERTISE_PEER_URLS",
        value_delimiter = ',',
        default_value = "http://localhost:2380"
    )]
    pub initial_advertise_peer_urls: Vec<String>,
    /// All members of a new cluster, or of the one to join: NAME=URL,…  [default: this member alone]
    #[arg(long, env = "ETCD_INITIAL_CLUSTER", value_delimiter = ',')]
    pub initial_cluster: Vec<String>,
    /// Make a new cluster, or join the one that exists; no matter once the data folder is there
    #[arg(long, env = "ETCD_INITIAL_CLUSTER_STATE", value_enum, default_value_t = ClusterState::New)]
    pub initial_cluster_state: ClusterState,
    /// Tells clusters with the same members apart
    #[arg(long, env = "ETCD_INITIAL_CLUSTER_TOKEN", default_value = "etcd-cluster")]
    pub initial_cluster_token: String,
    /// Start a cluster of this member alone from its data, after the others are lost for good; never start those again
    #[arg(long, env = "ETCD_FORCE_NEW_CLUSTER", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub force_new_cluster: bool,
    /// URLs to answer /health and /metrics on, besides the client URLs
    #[arg(long, env = "ETCD_LISTEN_METRICS_URLS", value_delimiter = ',')]
    pub listen_metrics_urls: Vec<String>,

    /// Certificate shown to clients
    #[arg(long, env = "ETCD_CERT_FILE", requires = "key_file")]
    pub cert_file: Option<PathBuf>,
    /// Key of --cert-file
    #[arg(long, env = "ETCD_KEY_FILE", requires = "cert_file")]
    pub key_file: Option<PathBuf>,
    /// Authority that clients' certificates must come from
    #[arg(long, env = "ETCD_TRUSTED_CA_FILE")]
    pub trusted_ca_file: Option<PathBuf>,
    /// Refuse clients without a certificate
    #[arg(long, env = "ETCD_CLIENT_CERT_AUTH", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", requires_if("true", "trusted_ca_file"))]
    pub client_cert_auth: bool,
    /// Certificate shown to other members, and by this member to them
    #[arg(long, env = "ETCD_PEER_CERT_FILE", requires = "peer_key_file")]
    pub peer_cert_file: Option<PathBuf>,
    /// Key of --peer-cert-file
    #[arg(long, env = "ETCD_PEER_KEY_FILE", requires = "peer_cert_file")]
    pub peer_key_file: Option<PathBuf>,
    /// Authority that members' certificates must come from
    #[arg(long, env = "ETCD_PEER_TRUSTED_CA_FILE")]
    pub peer_trusted_ca_file: Option<PathBuf>,
    /// Refuse members without a certificate
    #[arg(long, env = "ETCD_PEER_CLIENT_CERT_AUTH", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", requires_if("true", "peer_trusted_ca_file"))]
    pub peer_client_cert_auth: bool,

    /// Milliseconds between a leader's heartbeats
    #[arg(long, env = "ETCD_HEARTBEAT_INTERVAL", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub heartbeat_interval: u64,
    /// Milliseconds for which a member that heard the leader votes for no other; it stands for election itself when the connection is lost, or nothing comes for twice as long
    #[arg(long, env = "ETCD_ELECTION_TIMEOUT", default_value_t = 200, value_parser = clap::value_parser!(u64).range(10..=50_000))]
    pub election_timeout: u64,
    /// Log entries between snapshots
    #[arg(long, env = "ETCD_SNAPSHOT_COUNT", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub snapshot_count: u64,
    /// Bytes of state at which the store takes no more writes; 0: 2 GiB, negative: no bound
    #[arg(long, env = "ETCD_QUOTA_BACKEND_BYTES", default_value_t = 0, allow_negative_numbers = true)]
    pub quota_backend_bytes: i64,
    /// Bytes that one request may have
    #[arg(long, env = "ETCD_MAX_REQUEST_BYTES", default_value_t = 1_572_864)]
    pub max_request_bytes: u32,
    /// Operations that one transaction may have
    #[arg(long, env = "ETCD_MAX_TXN_OPS", default_value_t = 128)]
    pub max_txn_ops: u32,
    /// Requests that one connection may have open
    #[arg(long, env = "ETCD_MAX_CONCURRENT_STREAMS", default_value_t = u32::MAX)]
    pub max_concurrent_streams: u32,
    /// Compact by time (periodic) or by number of revisions (revision)
    #[arg(long, env = "ETCD_AUTO_COMPACTION_MODE", value_enum, default_value_t = CompactionMode::Periodic)]
    pub auto_compaction_mode: CompactionMode,
    /// What to keep: a duration, hours, or revisions; 0 turns automatic compaction off
    #[arg(long, env = "ETCD_AUTO_COMPACTION_RETENTION", default_value = "0")]
    pub auto_compaction_retention: String,
    /// Seconds between pings of an idle client connection; 0 sends none
    #[arg(long, env = "ETCD_GRPC_KEEPALIVE_INTERVAL", default_value = "2h", value_parser = parse_duration)]
    pub grpc_keepalive_interval: Duration,
    /// How long a ping may go unanswered
    #[arg(long, env = "ETCD_GRPC_KEEPALIVE_TIMEOUT", default_value = "20s", value_parser = parse_duration)]
    pub grpc_keepalive_timeout: Duration,
    /// How often a quiet watch that asked for it is told how far it is
    #[arg(
        long,
        alias = "watch-progress-notify-interval",
        env = "ETCD_EXPERIMENTAL_WATCH_PROGRESS_NOTIFY_INTERVAL",
        default_value = "10m",
        value_parser = parse_duration
    )]
    pub experimental_watch_progress_notify_interval: Duration,
}

/// Whether the cluster is there already.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterState {
    New,
    Existing,
}

/// What automatic compaction counts.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactionMode {
    Periodic,
    Revision,
}

/// A duration as Go writes it: `1h30m`, `20s`, `100ms`.
///
/// # Errors
/// The text is no such duration.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let wrong = || format!("{text:?} is no duration; write it like 1h30m, 20s or 100ms");
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(unit_at);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let seconds = |each: u64| number.checked_mul(each).map(Duration::from_secs);
        let part = match unit {
            "h" => seconds(3600),
            "m" => seconds(60),
            "s" => seconds(1),
            "ms" => Some(Duration::from_millis(number)),
            "us" | "µs" => Some(Duration::from_micros(number)),
            "ns" => Some(Duration::from_nanos(number)),
            _ => None,
        };
        total = part.and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
        rest = tail;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

impl Args {
    /// Where the data is.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| PathBuf::from(format!("{}.etcd", self.name)))
    }

    /// Bytes of state that may not be passed, if there is a bound.
    #[must_use]
    pub fn quota_bytes(&self) -> Option<u64> {
        const DEFAULT: u64 = 2 << 30;
        match u64::try_from(self.quota_backend_bytes) {
            Ok(0) => Some(DEFAULT),
            Ok(bytes) => Some(bytes),
            Err(_) => None,
        }
    }

    /// The shortest lease, in seconds: time for an election and a bit, as in etcd.
    #[must_use]
    pub fn lease_ttl_min(&self) -> i64 {
        i64::try_from((self.election_timeout * 3 / 2).div_ceil(1000)).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, millis) in
            [("0", 0), ("1h30m", 5_400_000), ("20s", 20_000), ("100ms", 100), ("5m0s", 300_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "s", "5x", "1h-1m", "99999999999999999999h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn switches_are_taken_as_go_programs_take_them() {
        for (flags, wanted) in [
            (vec!["--client-cert-auth", "--trusted-ca-file=x"], true),
            (vec!["--client-cert-auth=true", "--trusted-ca-file=x"], true),
            (vec!["--client-cert-auth=false"], false),
            (vec![], false),
        ] {
            let parsed = Program::try_parse_from([vec!["store"], flags].concat()).expect("flags");
            assert_eq!(parsed.args.client_cert_auth, wanted);
        }
        assert!(
            Program::try_parse_from(["store", "--client-cert-auth"]).is_err(),
            "no authority to check against"
        );
    }

    #[test]
    fn quotas_have_a_default_and_may_be_turned_off() {
        let quota = |text: &str| {
            let flag = format!("--quota-backend-bytes={text}");
            Program::try_parse_from(["store", &flag]).expect("flags").args.quota_bytes()
        };
        assert_eq!([quota("0"), quota("5"), quota("-1")], [Some(2 << 30), Some(5), None]);
    }
}
