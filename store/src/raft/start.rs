//! Starting a member: its data, its connections and its tasks.

use super::apply::{Applier, Growth, Position};
use super::forward::{self, Forward};
use super::identity::{Identity, join, new_cluster};
use super::log::Log;
use super::metrics::Metrics;
use super::node::{Node, RaftHandle};
use super::peers::Peers;
use super::reads::{self, Rounds};
use super::snapshot::Snapshots;
use super::types::StoredMembership;
use super::wire::ask_request::What;
use super::{NodeConfig, StartError, serve, wire};
use crate::Args;
use crate::command::Op;
use crate::consensus::{Consensus, Leadership, Member};
use crate::image::{Image, ImageWriter, SledImage};
use crate::machine::Machine;
use crate::shared::Shared;
use crate::wal::{Disk, Folder, Observer, Options, Wal};
use coracle_daemon::Tasks;
use coracle_etcd::proto::alarm_request::AlarmAction;
use coracle_etcd::proto::{AlarmRequest, AlarmType};
use openraft::SnapshotPolicy;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{InitializeError, RaftError};
use parking_lot::Mutex;
use prometheus_client::metrics::histogram::Histogram;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, ClientTlsConfig, Server, ServerTlsConfig};

/// Bytes of entries after which a snapshot is made, so that the log in memory stays small; as many are kept for
/// followers that lag.
const LOG_BYTES: usize = 64 << 20;
/// Entries that are kept after a snapshot for followers that lag, as in etcd.
const LOG_ENTRIES_KEPT: u64 = 5_000;
/// How long a snapshot may take to be installed.
const SNAPSHOT_MAX_MILLIS: u64 = 600_000;
/// How long to wait before raising the alarm for a full disk is tried again.
const ALARM_PAUSE: Duration = Duration::from_millis(500);
/// How long a member that was removed goes on.
const LEAVE_AFTER: Duration = Duration::from_secs(1);
/// How long to wait before telling name and URLs is tried again.
const PUBLISH_PAUSE: Duration = Duration::from_secs(1);

/// Starts replication as the flags say: opens the data, listens to other members, and takes part.
///
/// # Errors
/// Flags contradict each other, the data is unusable, or an address cannot be bound.
pub async fn start(args: &Args, shared: Arc<Shared>, tasks: &Tasks) -> Result<Arc<Node>, StartError> {
    let config = NodeConfig::from_args(args)?;
    let (server_tls, client_tls) = peer_tls(args).await?;
    let mut listeners = Vec::new();
    for url in &args.listen_peer_urls {
        listeners.push((url.starts_with("https://"), listen(url).await?));
    }
    let node = open(config, None, client_tls, shared, tasks).await?;
    for (secure, listener) in listeners {
        let tls = server_tls.clone().filter(|_| secure);
        if secure && tls.is_none() {
            return Err(StartError::Flags(
                "--listen-peer-urls has https:// but there is no --peer-cert-file".to_owned(),
            ));
        }
        serve_peers(&node, listener, tls, tasks)?;
    }
    Ok(node)
}

async fn listen(url: &str) -> Result<TcpListener, StartError> {
    let address = url.split_once("://").map_or(url, |(_, rest)| rest).trim_end_matches('/');
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { url: url.to_owned(), source })
}

/// Serves other members on `listener`.
pub(super) fn serve_peers(
    node: &Arc<Node>,
    listener: TcpListener,
    tls: Option<ServerTlsConfig>,
    tasks: &Tasks,
) -> Result<(), StartError> {
    let mut server = Server::builder()
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .http2_keepalive_interval(Some(Duration::from_secs(10)));
    if let Some(tls) = tls {
        server = server.tls_config(tls).map_err(StartError::Tls)?;
    }
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let serving = server.add_service(serve::service(node.clone()));
    let stop = tasks.stopping();
    tasks.spawn("peer server", async move {
        serving.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await?;
        Ok(())
    });
    Ok(())
}

async fn peer_tls(args: &Args) -> Result<(Option<ServerTlsConfig>, Option<ClientTlsConfig>), StartError> {
    let read = async |path: &PathBuf| {
        let bytes = tokio::fs::read(path).await;
        bytes.map_err(|source| StartError::Certificate { path: path.clone(), source })
    };
    let identity = match (&args.peer_cert_file, &args.peer_key_file) {
        (Some(cert), Some(key)) => {
            Some(tonic::transport::Identity::from_pem(read(cert).await?, read(key).await?))
        }
        _ => None,
    };
    let authority = match &args.peer_trusted_ca_file {
        Some(ca) => Some(Certificate::from_pem(read(ca).await?)),
        None => None,
    };
    let server = identity.clone().map(|identity| {
        let server = ServerTlsConfig::new().identity(identity);
        match (&authority, args.peer_client_cert_auth) {
            (Some(ca), must) => server.client_ca_root(ca.clone()).client_auth_optional(!must),
            (None, _) => server,
        }
    });
    let client = authority.map(|ca| {
        let client = ClientTlsConfig::new().ca_certificate(ca);
        match identity {
            Some(identity) => client.identity(identity),
            None => client,
        }
    });
    Ok((server, client))
}

/// Opens the data of a member and takes part in its cluster. Other members reach it once [`serve_peers`] was called.
/// `disk` takes the place of the log's folder.
pub(super) async fn open(
    config: NodeConfig,
    disk: Option<Arc<dyn Disk>>,
    tls: Option<ClientTlsConfig>,
    shared: Arc<Shared>,
    tasks: &Tasks,
) -> Result<Arc<Node>, StartError> {
    let metrics = Metrics::default();
    let room = watch::Sender::new(true);
    let Data { log, snapshots, remembered, machine, position, image } =
        open_data(&config, disk, metrics.wal_syncs.clone(), room.clone()).await?;
    if let Some(machine) = machine {
        shared.install(machine);
    }
    let (cluster, first_members) = new_cluster(&config.cluster, &config.token);
    let identity = match remembered {
        Some(identity) => identity,
        None if !log.is_pristine() => return Err(StartError::Anonymous { path: config.data.clone() }),
        None => {
            let member = super::identity::member_id(&config.peer_urls, &config.token, None);
            let identity = if config.joins {
                join(&config, tls.as_ref()).await?
            } else {
                Identity { member, cluster, removed: false }
            };
            identity.save(&config.data)?;
            identity
        }
    };
    if identity.removed {
        return Err(StartError::Removed { path: config.data });
    }
    let peers = Peers::new(identity.cluster, identity.member, tls);
    let growth = Arc::new(Growth::new(LOG_BYTES as u64));
    let applier = Applier::new(shared.clone(), position, snapshots.clone(), growth.clone(), Some(image));
    let applied = applier.applied();
    let raft_config = Arc::new(raft_config(&config, &identity)?);
    let failed = |error: &dyn std::fmt::Display| StartError::Raft(error.to_string());
    let raft = RaftHandle::new(identity.member, raft_config, peers.clone(), log.clone(), applier)
        .await
        .map_err(|error| failed(&error))?;
    let (rounds, queue) = Rounds::new();
    let (forward, changes) = Forward::new();
    let node = Arc::new(Node {
        identity,
        raft: raft.clone(),
        shared,
        peers,
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
    spawn(&node, tasks, queue, growth, log, &config);
    let (this, stop) = (node.clone(), tasks.stopping());
    tasks.spawn("forwarding", async move {
        let forwarding = forward::run(&this, changes);
        tokio::select! { () = forwarding => anyhow::bail!("nobody can forward any more"), () = stop.cancelled() => Ok(()) }
    });
    let (this, stop) = (node.clone(), tasks.stopping());
    tasks.run("disk space", async move {
        tokio::select! { () = raise_alarm(&this, room.subscribe()) => {}, () = stop.cancelled() => {} }
    });
    // A member of a cluster that is there already gets its first entries from the leader.
    if first_members.contains_key(&identity.member) && identity.cluster == cluster {
        match raft.initialize(first_members).await {
            // Not the first start.
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
            Err(error) => return Err(failed(&error)),
        }
    }
    Ok(node)
}

/// What the log tells of its disk.
struct DiskWatch {
    syncs: Histogram,
    room: watch::Sender<bool>,
}

impl Observer for DiskWatch {
    fn synced(&self, took: Duration) {
        self.syncs.observe(took.as_secs_f64());
    }

    fn has_room(&self, room: bool) {
        self.room.send_if_modified(|known| std::mem::replace(known, room) != room);
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
    image: ImageWriter,
}

async fn open_data(
    config: &NodeConfig,
    disk: Option<Arc<dyn Disk>>,
    syncs: Histogram,
    room: watch::Sender<bool>,
) -> Result<Data, StartError> {
    let (data, wal) = (config.data.clone(), config.wal.clone());
    let opened = tokio::task::spawn_blocking(move || {
        make_private(&data)?;
        let remembered = Identity::load(&data)?;
        let snapshots = Snapshots::open(&data.join("snapshots"))?;
        let disk = match disk {
            Some(disk) => disk,
            None => Arc::new(Folder::open(&wal).map_err(|source| StartError::Folder { path: wal, source })?),
        };
        let (wal, state) = Wal::open(disk, Options::default(), DiskWatch { syncs, room })?;
        let mut image = SledImage::new(&data.join("image"));
        let loaded = image.load().unwrap_or_else(|error| {
            tracing::warn!(%error, "the image is not used");
            None
        });
        let read = loaded.and_then(|(machine, bytes)| Some((machine, Position::decode(&bytes)?)));
        let (machine, position) =
            read.map_or((None, Position::default()), |(machine, at)| (Some(machine), at));
        let log = Log::new(wal, state);
        if log.is_pristine() && (machine.is_some() || snapshots.newest()?.is_some()) {
            return Err(StartError::LogGone { path: data });
        }
        let image = ImageWriter::start(image, machine.is_some())
            .map_err(|source| StartError::Folder { path: data.join("image"), source })?;
        Ok(Data { log, snapshots, remembered, machine, position, image })
    });
    opened.await.map_err(|error| StartError::Raft(error.to_string()))?
}

fn make_private(folder: &Path) -> Result<(), StartError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| StartError::Folder { path: folder.to_owned(), source })
}

fn raft_config(config: &NodeConfig, identity: &Identity) -> Result<openraft::Config, StartError> {
    let kept = LOG_ENTRIES_KEPT.min(config.snapshot_entries);
    let raft = openraft::Config {
        cluster_name: format!("{:x}", identity.cluster),
        heartbeat_interval: config.heartbeat_millis,
        // A follower stands for election once the leader's lease (the greatest timeout) and its own timeout are both
        // over: after 5/3 to 2 times the timeout that was asked for.
        election_timeout_min: config.election_millis * 2 / 3,
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

fn spawn(
    node: &Arc<Node>,
    tasks: &Tasks,
    queue: reads::Queue,
    growth: Arc<Growth>,
    log: Log,
    config: &NodeConfig,
) {
    let stop = tasks.stopping();
    let (this, stopping) = (node.clone(), stop.clone());
    let data = config.data.clone();
    tasks.spawn("raft", async move { follow(&this, &data, stopping).await });
    let (this, stopping) = (node.clone(), stop.clone());
    tasks.spawn("read rounds", async move {
        let rounds = reads::run(queue, || this.ask_read_index());
        tokio::select! { () = rounds => anyhow::bail!("nobody can read any more"), () = stopping.cancelled() => Ok(()) }
    });
    let (this, stopping) = (node.clone(), stop.clone());
    tasks.spawn("log compaction", async move {
        tokio::select! { done = compact(&this, &growth, &log) => done, () = stopping.cancelled() => Ok(()) }
    });
    let (this, me) = (node.clone(), (config.name.clone(), config.client_urls.clone()));
    tasks.run("publish", async move {
        tokio::select! { () = publish(&this, me.0, me.1) => {}, () = stop.cancelled() => {} }
    });
}

/// Follows who leads and who is a member, until the member stops or cannot go on.
async fn follow(node: &Node, data: &Path, stop: tokio_util::sync::CancellationToken) -> anyhow::Result<()> {
    let mut server = node.raft.server_metrics();
    let mut was_member = false;
    loop {
        let left;
        {
            let now = server.borrow_and_update();
            let leader = now.current_leader.unwrap_or(0);
            let is_me = leader == node.identity.member;
            let leadership = Leadership { leader, term: now.vote.leader_id.term, is_me };
            let members = members(&now.membership_config);
            let ids: BTreeSet<u64> = members.iter().map(|member| member.id).collect();
            node.members.send_if_modified(|known| {
                if *known == members {
                    return false;
                }
                let gone = known.iter().map(|member| member.id).filter(|id| !ids.contains(id));
                node.removed.lock().extend(gone);
                *known = members;
                true
            });
            let is_member = now.committed_membership_config.get_node(&node.identity.member).is_some();
            left = was_member && !is_member;
            was_member |= is_member;
            node.leadership.send_if_modified(|known| std::mem::replace(known, leadership) != leadership);
        }
        if left {
            return leave(node, data).await;
        }
        tokio::select! {
            changed = server.changed() => if changed.is_err() {
                let state = node.raft.metrics().borrow_watched().running_state.clone();
                anyhow::bail!("replication ended: {}", state.err().map_or_else(|| "no reason".to_owned(), |error| error.to_string()));
            },
            () = node.peers.removed() => return leave(node, data).await,
            () = stop.cancelled() => {
                // What it has not finished by now is finished after the next start.
                let _ = node.raft.shutdown().await;
                return Ok(());
            }
        }
    }
}

/// Ends a member that was removed, for good.
async fn leave(node: &Node, data: &Path) -> anyhow::Result<()> {
    // A leader that removed itself still has to tell the others, and whoever asked for it.
    coracle_daemon::clock::sleep(LEAVE_AFTER).await;
    Identity { removed: true, ..node.identity }.save(data)?;
    anyhow::bail!("{}", serve::REMOVED)
}

/// The members of a membership, by id.
fn members(membership: &StoredMembership) -> Vec<Member> {
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let member = |(id, peer): (&u64, &super::types::Peer)| Member {
        id: *id,
        name: peer.name.clone(),
        peer_urls: peer.peer_urls.clone(),
        client_urls: peer.client_urls.clone(),
        is_learner: !voters.contains(id),
    };
    membership.nodes().map(member).collect()
}

/// Keeps the log in memory small, whatever the size of its entries: openraft counts only their number.
async fn compact(node: &Node, growth: &Growth, log: &Log) -> anyhow::Result<()> {
    loop {
        growth.due().await;
        let mut metrics = node.raft.metrics();
        let before = metrics.borrow_watched().snapshot;
        node.raft.trigger().snapshot().await?;
        // Another snapshot was made, by this trigger or by the number of entries.
        while metrics.borrow_and_update().snapshot == before {
            metrics.changed().await?;
        }
        if let Some(index) = log.index_before_last(LOG_BYTES) {
            node.raft.trigger().purge_log(index).await?;
        }
    }
}

/// Makes the cluster take no more data once this member's disk is full. Taking the alarm back is up to people, as in etcd.
async fn raise_alarm(node: &Node, mut room: watch::Receiver<bool>) {
    let alarm = AlarmRequest {
        action: AlarmAction::Activate.into(),
        member_id: node.identity.member,
        alarm: AlarmType::Nospace.into(),
    };
    while room.wait_for(|room| !room).await.is_ok() {
        match node.commit(Op::Alarm(alarm)).await {
            Ok(_) => {
                tracing::error!("the disk is full: the cluster takes no more data");
                // Once is enough, until there was room again.
                if room.wait_for(|room| *room).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot raise the alarm for the full disk yet");
                coracle_daemon::clock::sleep(ALARM_PAUSE).await;
            }
        }
    }
}

/// Tells the cluster this member's name and where clients reach it, once it differs from what the cluster knows.
async fn publish(node: &Node, name: String, client_urls: Vec<String>) {
    let mut known = node.members.subscribe();
    let me = node.identity.member;
    loop {
        let knows = known.wait_for(|members| members.iter().any(|member| member.id == me)).await;
        let Ok(knows) = knows.map(|members| {
            members
                .iter()
                .any(|member| member.id == me && member.name == name && member.client_urls == client_urls)
        }) else {
            return;
        };
        if knows {
            return;
        }
        let member = wire::Member {
            id: me,
            name: name.clone(),
            client_urls: client_urls.clone(),
            ..wire::Member::default()
        };
        match node.ask(What::Publish(member), true).await {
            Ok(_) => return,
            Err(error) => tracing::debug!(%error, "name and client URLs are not published yet"),
        }
        coracle_daemon::clock::sleep(PUBLISH_PAUSE).await;
    }
}
