//! Opening a member's data, and starting openraft on it.

use super::apply::{Applier, Growth, Position};
use super::duties;
use super::forward::Forward;
use super::found::stand_alone;
use super::identity::{Identity, join, member_id, new_cluster};
use super::log::Log;
use super::metrics::Metrics;
use super::node::{Node, RaftHandle};
use super::pace::Pace;
use super::peers::Peers;
use super::pulse::{Pulse, Timing};
use super::reads::Rounds;
use super::simulated::Surroundings;
use super::snapshot::Snapshots;
use super::stall::Syncs;
use super::types::Peer;
use super::{LOG_BYTES, NodeConfig, StartError};
use crate::consensus::Leadership;
use crate::image::{Image, ImageWriter, RedbImage};
use crate::machine::Machine;
use crate::shared::Shared;
use crate::wal::{Disk, Folder, Observer, Options, Wal};
use coracle_daemon::{Tasks, clock};
use openraft::SnapshotPolicy;
use openraft::errors::{InitializeError, RaftError};
use parking_lot::Mutex;
use prometheus_client::metrics::histogram::Histogram;
use rustls::ClientConfig;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Entries that are kept after a snapshot for followers that lag, as in etcd.
const LOG_ENTRIES_KEPT: u64 = 5_000;
/// How long a snapshot may take to be installed.
const SNAPSHOT_MAX_MILLIS: u64 = 600_000;

/// Opens the data of a member and takes part in its cluster. Other members reach it once [`super::start::serve_peers`] was called.
/// `disk` takes the place of the log's folder.
pub(super) async fn open(
    config: NodeConfig,
    disk: Option<Arc<dyn Disk>>,
    tls: Option<Arc<ClientConfig>>,
    shared: Arc<Shared>,
    tasks: &Tasks,
) -> Result<Arc<Node>, StartError> {
    open_within(config, Surroundings { disk, ..Surroundings::default() }, tls, shared, tasks).await
}

/// Like [`open`], within whatever takes the place of disk, network and threads.
pub(super) async fn open_within(
    config: NodeConfig,
    around: Surroundings,
    tls: Option<Arc<ClientConfig>>,
    shared: Arc<Shared>,
    tasks: &Tasks,
) -> Result<Arc<Node>, StartError> {
    let dial = around.dial.clone();
    if config.alone {
        let lost = config.clone();
        let made = tokio::task::spawn_blocking(move || stand_alone(&lost)).await;
        made.map_err(|error| StartError::Raft(error.to_string()))??;
    }
    let metrics = Metrics::default();
    let (room, syncs) = (watch::Sender::new(true), Arc::new(Syncs::new()));
    let watch = DiskWatch { took: metrics.wal_syncs.clone(), syncs: syncs.clone(), room: room.clone() };
    let Data { log, snapshots, remembered, machine, position, image } =
        open_data(&config, around, watch).await?;
    if let Some(machine) = machine {
        shared.install(machine);
    }
    let (cluster, first_members) = new_cluster(&config.cluster, &config.token);
    let identity = match remembered {
        Some(identity) if identity.removed => return Err(StartError::Removed { path: config.data }),
        Some(identity) => identity,
        None if !log.is_pristine() => return Err(StartError::Anonymous { path: config.data }),
        None => introduce(&config, cluster, tls.as_ref()).await?,
    };
    let log = log.of(identity.member);
    let pulse = Arc::new(Pulse::new(Timing::of(&config)));
    let peers =
        Peers::new(identity.cluster, identity.member, tls, pulse.clone(), Pace::new(log.last()), dial);
    let growth = Arc::new(Growth::new(LOG_BYTES as u64));
    let applier = Applier::new(shared.clone(), position, snapshots.clone(), growth.clone(), image);
    let applied = applier.applied();
    let raft_config = Arc::new(raft_config(&config, &identity)?);
    let failed = |error: &dyn std::fmt::Display| StartError::Raft(error.to_string());
    let raft = RaftHandle::new(identity.member, raft_config, peers.clone(), log.clone(), applier)
        .await
        .map_err(|error| failed(&error))?;
    let (rounds, reads) = Rounds::new();
    let (forward, changes) = Forward::new();
    let node = Arc::new(Node {
        identity,
        raft: raft.clone(),
        shared,
        peers,
        pulse,
        snapshots,
        rounds,
        forward,
        applied,
        leadership: watch::Sender::new(Leadership::default()),
        members: watch::Sender::new(Vec::new()),
        removed: Mutex::default(),
        changing_members: tokio::sync::Mutex::default(),
        folders: [config.wal.clone(), config.data.join("snapshots")],
        tasks: tasks.clone(),
        metrics,
    });
    duties::spawn(
        &node,
        &config,
        duties::Inputs { reads, changes, growth, log, room: room.subscribe(), syncs },
    );
    if first_members.contains_key(&node.identity.member) && node.identity.cluster == cluster {
        begin_cluster(&raft, first_members).await?;
    }
    Ok(node)
}

/// The first start of a new cluster's member; one of a cluster that is there already gets its first entries from the leader.
async fn begin_cluster(raft: &RaftHandle, members: BTreeMap<u64, Peer>) -> Result<(), StartError> {
    match raft.initialize(members).await {
        // Not the first start.
        Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
        Err(error) => Err(StartError::Raft(error.to_string())),
    }
}

/// A member that starts for the first time finds out who it is, and remembers that.
async fn introduce(
    config: &NodeConfig,
    cluster: u64,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<Identity, StartError> {
    let identity = if config.joins {
        join(config, tls).await?
    } else {
        Identity { member: member_id(&config.peer_urls, &config.token, None), cluster, removed: false }
    };
    identity.save(&config.data)?;
    Ok(identity)
}

/// What the log tells of its disk.
struct DiskWatch {
    took: Histogram,
    syncs: Arc<Syncs>,
    room: watch::Sender<bool>,
}

impl Observer for DiskWatch {
    fn syncs(&self) {
        self.syncs.begin();
    }

    fn synced(&self, took: Duration) {
        self.syncs.end();
        self.took.observe(took.as_secs_f64());
    }

    fn has_room(&self, room: bool) {
        // Also that there still is none: the alarm may have been taken back meanwhile.
        self.room.send_replace(room);
    }
}

/// What a member finds in its folder.
struct Data {
    log: Log,
    snapshots: Snapshots,
    remembered: Option<Identity>,
    /// From the image, with the position it stands at.
    machine: Option<Machine>,
    position: Position,
    /// Where the machine is kept; a simulation does without.
    image: Option<ImageWriter>,
}

async fn open_data(config: &NodeConfig, around: Surroundings, watch: DiskWatch) -> Result<Data, StartError> {
    let (data, wal) = (config.data.clone(), config.wal.clone());
    let work = move || {
        make_private(&data)?;
        let remembered = Identity::load(&data)?;
        let snapshots = Snapshots::open(&data.join("snapshots"))?;
        let disk = match around.disk {
            Some(disk) => disk,
            None => Arc::new(Folder::open(&wal).map_err(|source| StartError::Folder { path: wal, source })?),
        };
        if let Some(driven) = around.driven {
            let (wal, driver) = Wal::open_driven(disk, driven.options, watch)?;
            (driven.take)(driver);
            let log = Log::new(wal);
            let position = Position::default();
            return Ok(Data { log, snapshots, remembered, machine: None, position, image: None });
        }
        let wal = Wal::open(disk, Options::default(), watch)?;
        let mut image = RedbImage::new(&data.join("image"));
        let loaded = image.load().unwrap_or_else(|error| {
            tracing::warn!(%error, "the image is not used");
            None
        });
        let read = loaded.and_then(|(machine, bytes)| Some((machine, Position::decode(&bytes)?)));
        let (machine, position) =
            read.map_or((None, Position::default()), |(machine, at)| (Some(machine), at));
        let log = Log::new(wal);
        if log.is_pristine() && (machine.is_some() || snapshots.newest()?.is_some()) {
            return Err(StartError::LogGone { path: data });
        }
        let image = ImageWriter::start(image, machine.is_some())
            .map_err(|source| StartError::Folder { path: data.join("image"), source })?;
        Ok(Data { log, snapshots, remembered, machine, position, image: Some(image) })
    };
    if clock::is_simulated() {
        return work();
    }
    tokio::task::spawn_blocking(work).await.map_err(|error| StartError::Raft(error.to_string()))?
}

pub(super) fn make_private(folder: &Path) -> Result<(), StartError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| StartError::Folder { path: folder.to_owned(), source })
}

fn raft_config(config: &NodeConfig, identity: &Identity) -> Result<openraft::Config, StartError> {
    let kept = LOG_ENTRIES_KEPT.min(config.snapshot_entries);
    let raft = openraft::Config {
        cluster_name: format!("{:x}", identity.cluster),
        // The pulse beats and calls elections. What is left of these times: how long the answers to a beat and to a
        // request for a vote may take, and the lease.
        enable_tick: false,
        heartbeat_interval: config.election_millis - 2,
        election_timeout_min: config.election_millis - 1,
        election_timeout_max: config.election_millis,
        enable_pre_vote: Some(true),
        // A leader that restarts may have lost entries that it sent but did not store yet. Would it go on leading in
        // the same term, it could put others in their place, under the same id.
        enable_leader_restore: Some(false),
        max_payload_entries: 1024,
        max_append_entries: Some(1024),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_entries),
        max_in_snapshot_log_to_keep: kept,
        replication_lag_threshold: config.snapshot_entries + kept,
        purge_batch_size: (kept / 10).max(1),
        install_snapshot_timeout: SNAPSHOT_MAX_MILLIS,
        backoff: "20ms 50ms 100ms 100ms".to_owned(),
        ..openraft::Config::default()
    };
    raft.validate().map_err(|error| StartError::Flags(error.to_string()))
}
