//! Replication: a log that a majority of members agrees on, by openraft over gRPC, on the write-ahead log.
//!
//! In: changes to make, reads to make linearizable, and the calls of other members. Out: [`Node`], which is the
//! [`crate::consensus::Consensus`] of a real member.
//!
//! Any member takes any request; a follower hands it to the leader. A change is answered once it is on the disks of a
//! majority and applied by the member that was asked. Members of a new cluster derive its ids and first membership
//! from their flags, so it forms with no call from outside.
//!
//! Invariants: a member never takes up a term that it led before a restart (its last entries may be lost, and others may
//! have them); a member that cannot write its log ends; members of other clusters are refused.

mod apply;
mod duties;
mod forward;
mod found;
mod identity;
mod leader;
mod log;
mod members;
mod metrics;
mod node;
mod open;
mod pace;
mod peers;
mod proposals;
mod pulse;
mod reads;
mod rhythm;
mod serve;
pub mod simulated;
mod snapshot;
mod stall;
mod start;
#[cfg(test)]
mod tests;
mod types;
#[doc(hidden)]
pub mod wire;

pub use found::restore;
pub use metrics::Metrics;
pub use node::Node;
#[doc(hidden)]
pub use snapshot::Snapshots;
pub use start::start;

use crate::Args;
use coracle_daemon::tls::TlsError;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

/// Bytes of a message between members: a batch of entries, with one that is as large as a request may be.
const MESSAGE_MAX: usize = 64 << 20;

/// Bytes that the log may grow by before a snapshot is made, however few entries they are; as many are kept for
/// followers that lag.
const LOG_BYTES: usize = 64 << 20;

/// What a member has to know to start.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Its name.
    pub name: String,
    /// Folder of identity, snapshots and log.
    pub data: PathBuf,
    /// Folder of the log.
    pub wal: PathBuf,
    /// Peer URLs of all members of the cluster by name, as flags tell them.
    pub cluster: BTreeMap<String, Vec<String>>,
    /// Tells clusters with the same members apart.
    pub token: String,
    /// Whether the cluster is there already.
    pub joins: bool,
    /// Where other members reach this one.
    pub peer_urls: Vec<String>,
    /// Where clients reach this one.
    pub client_urls: Vec<String>,
    /// Milliseconds between heartbeats while somebody writes.
    pub heartbeat_millis: u64,
    /// Milliseconds after a leader's call in which no other is elected.
    pub election_millis: u64,
    /// Entries between snapshots.
    pub snapshot_entries: u64,
    /// Whether this member goes on alone with what it has, as the others are lost for good.
    pub alone: bool,
}

/// Why a member cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Flags contradict each other.
    #[error("{0}")]
    Flags(String),
    /// The file that says who this member is.
    #[error("cannot read or write {}", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The data folder.
    #[error("cannot use the folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The data folder has a log, but nothing says whose.
    #[error("{} has a log but no identity.json: restore that file, or start again with an empty folder", path.display())]
    Anonymous {
        /// The folder.
        path: PathBuf,
    },
    /// The data folder has state, but its log is gone: the member no longer knows whom it voted for.
    #[error(
        "{} has state but no log; remove this member from the cluster and add it again with an empty folder",
        path.display()
    )]
    LogGone {
        /// The folder.
        path: PathBuf,
    },
    /// The member was removed from its cluster.
    #[error(
        "{} belongs to a member that was permanently removed from its cluster; start again with an empty folder",
        path.display()
    )]
    Removed {
        /// The folder.
        path: PathBuf,
    },
    /// The log.
    #[error("cannot open the write-ahead log")]
    Wal(#[from] crate::wal::WalError),
    /// Snapshots.
    #[error("cannot open the snapshots")]
    Snapshots(#[from] snapshot::SnapshotError),
    /// No member of the cluster to join answers.
    #[error("no member of the cluster answers; tried {tried}")]
    NobodyAnswers {
        /// Whom, and what was wrong.
        tried: String,
    },
    /// The cluster to join does not know this member.
    #[error("the cluster has no member with the peer URLs {urls}; add it first with `etcdctl member add`")]
    NotAMember {
        /// This member's peer URLs.
        urls: String,
    },
    /// Other members know this one, but its data is gone.
    #[error(
        "member {member:x} has already been bootstrapped, but its data is gone: remove it from the cluster and add it again"
    )]
    Bootstrapped {
        /// The member.
        member: u64,
    },
    /// A peer URL to listen on.
    #[error("cannot listen on {url}")]
    Listen {
        /// The URL.
        url: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A certificate or key.
    #[error("cannot set up TLS for other members")]
    Tls(#[from] TlsError),
    /// openraft.
    #[error("cannot start replication: {0}")]
    Raft(String),
}

impl NodeConfig {
    /// From the flags.
    ///
    /// # Errors
    /// They contradict each other.
    pub fn from_args(args: &Args) -> Result<Self, StartError> {
        let this = Self::of_flags(
            &args.name,
            args.data_dir(),
            &args.initial_cluster,
            &args.initial_cluster_token,
            &args.initial_advertise_peer_urls,
        )?;
        if args.election_timeout < 3 * args.heartbeat_interval {
            return Err(StartError::Flags(format!(
                "--election-timeout ({}) must be at least three times --heartbeat-interval ({})",
                args.election_timeout, args.heartbeat_interval
            )));
        }
        Ok(Self {
            wal: args.wal_dir.clone().unwrap_or(this.wal),
            joins: args.initial_cluster_state == crate::args::ClusterState::Existing,
            client_urls: args.advertise_client_urls.clone(),
            heartbeat_millis: args.heartbeat_interval,
            election_millis: args.election_timeout,
            snapshot_entries: args.snapshot_count,
            alone: args.force_new_cluster,
            ..this
        })
    }

    /// A member of a new cluster; the rest as by default.
    ///
    /// # Errors
    /// `--initial-cluster` cannot be read.
    pub fn of_flags(
        name: &str,
        data: PathBuf,
        initial_cluster: &[String],
        token: &str,
        peer_urls: &[String],
    ) -> Result<Self, StartError> {
        let mut peer_urls: Vec<String> =
            peer_urls.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        peer_urls.sort();
        let mut cluster = identity::parse_cluster(initial_cluster)?;
        if cluster.is_empty() {
            cluster.insert(name.to_owned(), peer_urls.clone());
        }
        Ok(Self {
            name: name.to_owned(),
            wal: data.join("wal"),
            data,
            cluster,
            token: token.to_owned(),
            joins: false,
            peer_urls,
            client_urls: Vec::new(),
            heartbeat_millis: 50,
            election_millis: 200,
            snapshot_entries: 10_000,
            alone: false,
        })
    }

    /// What matters only before a member has data.
    ///
    /// # Errors
    /// `--initial-cluster` and this member's own flags contradict each other.
    fn check_first_start(&self) -> Result<(), StartError> {
        let Self { name, peer_urls, .. } = self;
        match self.cluster.get(name) {
            None => Err(StartError::Flags(format!(
                "--initial-cluster has no member named {name:?}, which is --name"
            ))),
            Some(urls) if urls != peer_urls => {
                let (flag, mine) = (urls.join(","), peer_urls.join(","));
                Err(StartError::Flags(format!(
                    "--initial-cluster has {flag} for this member, but --initial-advertise-peer-urls is {mine}"
                )))
            }
            Some(_) => Ok(()),
        }
    }
}
