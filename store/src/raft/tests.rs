//! openraft's own suite for storages, and whole clusters on loopback whose members die at any moment.

use super::apply::{Applier, Growth, Position};
use super::log::Log;
use super::node::Node;
use super::snapshot::Snapshots;
use super::start::{open, serve_peers};
use super::types::Types;
use super::{NodeConfig, identity};
use crate::command::{Op, Outcome};
use crate::consensus::{Committed, Consensus};
use crate::error::StoreError;
use crate::machine::Machine;
use crate::shared::Shared;
use crate::wal::{Disk, DiskFile, Folder, Observer, Options, Wal};
use coracle_daemon::Tasks;
use coracle_etcd::proto::{
    AlarmRequest, CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest,
};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

struct Ignore;

impl Observer for Ignore {
    fn synced(&self, _: Duration) {}
    fn has_room(&self, _: bool) {}
}

struct Stores;

impl StoreBuilder<Types, Log, Applier, TempDir> for Stores {
    async fn build(&self) -> Result<(TempDir, Log, Applier), StorageError<Types>> {
        let folder = tempfile::tempdir().expect("folder");
        let disk = Arc::new(Folder::open(&folder.path().join("wal")).expect("opens"));
        let (wal, state) = Wal::open(disk, Options::default(), Ignore).expect("opens");
        let snapshots = Snapshots::open(&folder.path().join("snapshots")).expect("opens");
        let shared = Shared::new(Machine::new());
        let growth = Arc::new(Growth::new(u64::MAX));
        let applier = Applier::new(shared, Position::default(), snapshots, growth, None);
        Ok((folder, Log::new(wal, state), applier))
    }
}

#[tokio::test]
async fn storage_keeps_every_promise_that_openraft_asks_of_it() {
    Suite::test_all(Stores).await.expect("passes");
}

static NEXT_PORT: AtomicU16 = AtomicU16::new(21_100);

/// A cluster whose members each have a runtime, so that one can die without the others.
struct Cluster {
    folder: TempDir,
    heartbeat_millis: u64,
    ports: Vec<u16>,
    members: Vec<Option<Member>>,
    snapshot_entries: u64,
    first: usize,
}

struct Member {
    runtime: Runtime,
    node: Arc<Node>,
    shared: Arc<Shared>,
}

impl Member {
    fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        self.runtime.block_on(work)
    }

    fn put(&self, key: &str, value: &str) -> Result<Committed, StoreError> {
        let put = PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..PutRequest::default()
        };
        let node = self.node.clone();
        self.run(async move { node.commit(Op::Put(put)).await })
    }

    fn get(&self, key: &str) -> Option<String> {
        let node = self.node.clone();
        self.run(async move { node.read_barrier().await }).expect("a leader");
        let request = RangeRequest { key: key.to_owned().into(), ..RangeRequest::default() };
        let found = self.shared.machine().range(&request).expect("reads");
        found.kvs.first().map(|kv| String::from_utf8(kv.value.to_vec()).expect("text"))
    }

    fn hash(&self) -> u32 {
        let node = self.node.clone();
        self.run(async move { node.read_barrier().await }).expect("a leader");
        self.shared.machine().hash_kv(0)
    }
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

impl Cluster {
    /// Slower than in production: these tests share few cores with others.
    fn new(size: usize, snapshot_entries: u64) -> Self {
        Self::beating(size, snapshot_entries, 150)
    }

    fn beating(size: usize, snapshot_entries: u64, heartbeat_millis: u64) -> Self {
        let ports = (0..size).map(|_| NEXT_PORT.fetch_add(1, Ordering::Relaxed)).collect();
        let folder = tempfile::tempdir().expect("folder");
        let members = (0..size).map(|_| None).collect();
        let mut this = Self { folder, heartbeat_millis, ports, members, snapshot_entries, first: size };
        for at in 0..size {
            this.start(at);
        }
        this
    }

    fn data(&self, at: usize) -> PathBuf {
        self.folder.path().join(format!("m{at}"))
    }

    fn config(&self, at: usize) -> NodeConfig {
        let name = |at: usize| format!("m{at}");
        let known = if at < self.first { self.first } else { at + 1 };
        NodeConfig {
            name: name(at),
            data: self.data(at),
            wal: self.data(at).join("wal"),
            cluster: (0..known).map(|at| (name(at), vec![url(self.ports[at])])).collect(),
            token: "test".to_owned(),
            joins: at >= self.first,
            peer_urls: vec![url(self.ports[at])],
            client_urls: vec![format!("http://client-{at}")],
            heartbeat_millis: self.heartbeat_millis,
            election_millis: self.heartbeat_millis * 3,
            snapshot_entries: self.snapshot_entries,
        }
    }

    fn start(&mut self, at: usize) {
        let member = eventually("the member starts", || self.try_start(at).ok());
        self.members[at] = Some(member);
    }

    fn try_start(&self, at: usize) -> Result<Member, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let (config, port) = (self.config(at), self.ports[at]);
        let started = runtime.block_on(async move {
            let tasks = Tasks::new();
            let shared = Shared::new(Machine::new());
            let listener = TcpListener::bind(("127.0.0.1", port)).await.map_err(|error| error.to_string())?;
            let node = open(config, None, None, shared.clone(), &tasks)
                .await
                .map_err(|error| format!("{error:?}"))?;
            serve_peers(&node, listener, None, &tasks).map_err(|error| error.to_string())?;
            Ok::<_, String>((node, shared))
        });
        match started {
            Ok((node, shared)) => Ok(Member { runtime, node, shared }),
            Err(error) => {
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    /// All its tasks end where they are.
    fn kill(&mut self, at: usize) {
        let member = self.members[at].take().expect("runs");
        member.runtime.shutdown_background();
    }

    fn member(&self, at: usize) -> &Member {
        self.members[at].as_ref().expect("runs")
    }

    fn running(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().flatten()
    }

    fn leader(&self) -> usize {
        eventually("a leader that all agree on", || {
            let leaders: Vec<u64> = self.running().map(|member| member.node.status().leader).collect();
            let leader = *leaders.first()?;
            let agreed = leader != 0 && leaders.iter().all(|other| *other == leader);
            let at = self
                .members
                .iter()
                .position(|member| member.as_ref().is_some_and(|member| member.node.member_id() == leader));
            at.filter(|_| agreed)
        })
    }

    fn follower(&self) -> usize {
        let leader = self.leader();
        (0..self.members.len()).find(|at| *at != leader && self.members[*at].is_some()).expect("a follower")
    }

    fn assert_equal(&self) {
        let hashes: Vec<u32> = self.running().map(Member::hash).collect();
        assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "{hashes:?}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for at in 0..self.members.len() {
            if self.members[at].is_some() {
                self.kill(at);
            }
        }
    }
}

#[test]
fn one_member_commits_and_remembers() {
    let mut cluster = Cluster::new(1, 10_000);
    for number in 0..20 {
        let committed = cluster.member(0).put("k", &number.to_string()).expect("commits");
        assert!(matches!(committed.outcome, Outcome::Put(_)) && committed.term > 0 && committed.index > 0);
    }
    let hash = cluster.member(0).hash();
    cluster.kill(0);
    cluster.start(0);
    assert_eq!(cluster.member(0).get("k").as_deref(), Some("19"));
    assert_eq!(cluster.member(0).hash(), hash);
    let members = eventually("the member is published", || {
        let members = cluster.member(0).node.members();
        members.iter().all(|member| !member.client_urls.is_empty()).then_some(members)
    });
    assert_eq!((members.len(), members[0].name.as_str(), members[0].is_learner), (1, "m0", false));
}

#[test]
fn three_members_form_by_themselves_and_any_of_them_takes_requests() {
    let cluster = Cluster::new(3, 10_000);
    for at in 0..3 {
        cluster.member(at).put(&format!("k{at}"), "v").expect("commits");
    }
    for at in 0..3 {
        for key in 0..3 {
            assert_eq!(cluster.member(at).get(&format!("k{key}")).as_deref(), Some("v"));
        }
        let status = cluster.member(at).node.status();
        assert!(!status.is_learner && status.errors.is_empty() && status.disk_bytes > 0, "{status:?}");
    }
    cluster.assert_equal();
    eventually("all members are published", || {
        let known = cluster.member(2).node.members();
        (known.len() == 3 && known.iter().all(|member| !member.client_urls.is_empty())).then_some(())
    });
}

#[test]
fn a_leader_that_dies_is_replaced_and_rejoins_with_nothing_lost() {
    let mut cluster = Cluster::new(3, 10_000);
    let mut written = 0;
    for _ in 0..3 {
        for _ in 0..20 {
            let at = cluster.follower();
            cluster.member(at).put(&format!("k{written}"), "v").expect("commits");
            written += 1;
        }
        let leader = cluster.leader();
        cluster.kill(leader);
        let survivor = cluster.members.iter().position(Option::is_some).expect("survivors");
        // Whoever asks while there is no leader waits for the next one.
        eventually("a write with the next leader", || cluster.member(survivor).put("after", "v").ok());
        cluster.start(leader);
        assert_eq!(cluster.member(leader).get("after").as_deref(), Some("v"));
        cluster.assert_equal();
    }
    for key in 0..written {
        assert_eq!(cluster.member(0).get(&format!("k{key}")).as_deref(), Some("v"), "k{key}");
    }
}

#[test]
fn without_a_majority_nothing_is_acknowledged_and_with_it_everything_goes_on() {
    let mut cluster = Cluster::new(3, 10_000);
    cluster.member(0).put("k", "before").expect("commits");
    let leader = cluster.leader();
    let others: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
    for at in &others {
        cluster.kill(*at);
    }
    let refused = cluster.member(leader).put("k", "alone").expect_err("no majority");
    assert!(
        matches!(refused, StoreError::TimedOut | StoreError::NoLeader | StoreError::LeaderChanged),
        "{refused}"
    );
    let node = cluster.member(leader).node.clone();
    cluster.member(leader).run(async move { node.read_barrier().await }).expect_err("no majority");
    cluster.start(others[0]);
    eventually("a write with a majority", || cluster.member(leader).put("k", "after").ok());
    cluster.start(others[1]);
    assert_eq!(cluster.member(others[1]).get("k").as_deref(), Some("after"));
    cluster.assert_equal();
}

#[test]
fn a_member_that_was_away_for_long_gets_a_snapshot() {
    let mut cluster = Cluster::new(3, 40);
    let away = cluster.follower();
    cluster.member(away).put("early", "v").expect("commits");
    cluster.kill(away);
    let at = cluster.follower();
    for number in 0..400 {
        cluster.member(at).put(&format!("k{}", number % 50), &number.to_string()).expect("commits");
    }
    let grant = Op::LeaseGrant(LeaseGrantRequest { ttl: 600, id: 77 });
    let node = cluster.member(at).node.clone();
    cluster.member(at).run(async move { node.commit(grant).await }).expect("grants");
    let leader = cluster.member(cluster.leader()).node.clone();
    eventually("the log begins after what the member has", || {
        use openraft::async_runtime::WatchReceiver;
        let metrics = leader.raft().metrics();
        let purged = metrics.borrow_watched().purged.map_or(0, |id| id.index);
        (purged > 100).then_some(())
    });
    cluster.start(away);
    assert_eq!(cluster.member(away).get("early").as_deref(), Some("v"));
    assert_eq!(cluster.member(away).get("k49").as_deref(), Some("399"));
    assert_eq!(cluster.member(away).shared.machine().leases().count(), 1);
    cluster.assert_equal();
    // What it got is its own from now on.
    cluster.kill(away);
    cluster.start(away);
    assert_eq!(cluster.member(away).get("k49").as_deref(), Some("399"));
    cluster.assert_equal();
}

#[test]
fn restarts_begin_with_the_snapshot_and_go_on_with_the_log() {
    let mut cluster = Cluster::new(1, 25);
    for number in 0..90 {
        cluster.member(0).put(&format!("k{}", number % 7), &number.to_string()).expect("commits");
    }
    let compact = Op::Compact(CompactionRequest { revision: 50, physical: false });
    let node = cluster.member(0).node.clone();
    cluster.member(0).run(async move { node.commit(compact).await }).expect("compacts");
    let hash = cluster.member(0).hash();
    eventually("a snapshot is made", || has_snapshot(&cluster.data(0)).then_some(()));
    for _ in 0..2 {
        cluster.kill(0);
        cluster.start(0);
        assert_eq!(cluster.member(0).hash(), hash);
    }
}

fn has_snapshot(data: &Path) -> bool {
    let files = std::fs::read_dir(data.join("snapshots")).expect("the folder");
    files.flatten().any(|file| file.file_name().to_string_lossy().ends_with(".snap"))
}

#[test]
fn leases_are_renewed_by_the_leader_whoever_is_asked() {
    let cluster = Cluster::new(3, 10_000);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    // The task that ends leases does this in a real member.
    cluster.member(leader).shared.lessor().lead(true);
    let node = cluster.member(follower).node.clone();
    cluster.member(follower).run(async move {
        node.commit(Op::LeaseGrant(LeaseGrantRequest { ttl: 60, id: 5 })).await.expect("grants");
        assert_eq!(node.renew_lease(5).await, Ok(60));
        assert!(node.lease_remaining(5).await.expect("lives") >= 58);
        assert_eq!(node.renew_lease(6).await, Err(StoreError::LeaseNotFound));
    });
}

#[test]
fn members_are_added_promoted_and_removed() {
    let mut cluster = Cluster::new(1, 10_000);
    cluster.member(0).put("k", "v").expect("commits");
    eventually("the member is published", || {
        cluster.member(0).node.members().iter().all(|member| !member.client_urls.is_empty()).then_some(())
    });
    let node = |cluster: &Cluster| cluster.member(0).node.clone();
    for at in 1..3 {
        cluster.ports.push(NEXT_PORT.fetch_add(1, Ordering::Relaxed));
        cluster.members.push(None);
        let urls = vec![url(cluster.ports[at])];
        let (adder, again) = (node(&cluster), urls.clone());
        let added = cluster.member(0).run(async move { adder.add_member(urls, true).await }).expect("adds");
        assert!(added.is_learner);
        let adder = node(&cluster);
        let refused = cluster.member(0).run(async move { adder.add_member(again, true).await });
        assert_eq!(refused.expect_err("twice"), StoreError::PeerUrlExists);
        cluster.start(at);
        assert_eq!(cluster.member(at).node.member_id(), added.id);
        assert_eq!(cluster.member(at).get("k").as_deref(), Some("v"));
        assert!(cluster.member(at).node.status().is_learner);
        eventually("the learner is promoted", || {
            let promoter = node(&cluster);
            cluster.member(0).run(async move { promoter.promote_member(added.id).await }).ok()
        });
        let promoter = node(&cluster);
        let refused = cluster.member(0).run(async move { promoter.promote_member(added.id).await });
        assert_eq!(refused.expect_err("a voter"), StoreError::NotLearner);
    }
    // Three voters: one may die.
    cluster.kill(0);
    eventually("a write without the first member", || cluster.member(1).put("k", "w").ok());
    cluster.start(0);
    assert_eq!(cluster.member(0).get("k").as_deref(), Some("w"));
    let gone = cluster.member(2).node.member_id();
    let remover = node(&cluster);
    cluster.member(0).run(async move { remover.remove_member(gone).await }).expect("removes");
    eventually("two members are left", || (cluster.member(0).node.members().len() == 2).then_some(()));
    let tasks = cluster.member(2).node.tasks().clone();
    let death = cluster.member(2).run(async move { tasks.first_death().await });
    assert_eq!(death.error.to_string(), super::serve::REMOVED);
    cluster.kill(2);
    let refused = eventually("the folder is free", || match cluster.try_start(2) {
        Err(error) if error.contains("another process") || error.contains("in use") => None,
        other => Some(other.map(drop)),
    });
    let refused = refused.expect_err("removed for good");
    assert!(refused.contains("Removed"), "{refused}");
    cluster.member(1).put("k", "x").expect("commits");
    let remover = node(&cluster);
    let refused = cluster.member(0).run(async move { remover.remove_member(gone).await });
    assert_eq!(refused.expect_err("gone"), StoreError::MemberNotFound);
}

#[test]
fn leadership_is_handed_over_when_asked() {
    let cluster = Cluster::new(3, 10_000);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let to = cluster.member(follower).node.member_id();
    let node = cluster.member(follower).node.clone();
    let refused = cluster.member(follower).run(async move { node.transfer_leader(to).await });
    assert_eq!(refused, Err(StoreError::NotLeader));
    let node = cluster.member(leader).node.clone();
    let refused = cluster.member(leader).run(async move { node.transfer_leader(1).await });
    assert_eq!(refused, Err(StoreError::BadLeaderTransferee));
    let node = cluster.member(leader).node.clone();
    cluster.member(leader).run(async move { node.transfer_leader(to).await }).expect("moves");
    assert_eq!(cluster.leader(), follower);
    cluster.member(leader).put("k", "v").expect("commits");
}

#[test]
fn members_of_another_cluster_are_refused() {
    let cluster = Cluster::new(1, 10_000);
    cluster.member(0).put("k", "v").expect("commits");
    let peers = super::peers::Peers::new(1, 2, None);
    let peer = super::types::Peer { peer_urls: vec![url(cluster.ports[0])], ..super::types::Peer::default() };
    let id = cluster.member(0).node.member_id();
    let refused = cluster.member(0).run(async move {
        let mut client = peers.client(id, &peer, false).expect("a client");
        client.vote(super::wire::VoteRequest::default()).await.expect_err("refused")
    });
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    assert_eq!(refused.message(), "etcdserver: cluster ID mismatch");
    let stranger = NodeConfig { joins: true, peer_urls: vec![url(1)], ..cluster.config(0) };
    let stranger = NodeConfig { name: "stranger".to_owned(), ..stranger };
    let refused = cluster.member(0).run(async move { identity::join(&stranger, None).await });
    assert!(matches!(refused, Err(super::StartError::NotAMember { .. })), "{refused:?}");
}

/// A log on a disk that breaks, or fills up, when told to.
struct Breaking {
    folder: Folder,
    broken: Arc<AtomicBool>,
    full: Arc<AtomicBool>,
}

struct BreakingFile {
    file: Box<dyn DiskFile>,
    broken: Arc<AtomicBool>,
}

impl Disk for Breaking {
    fn list(&self) -> io::Result<Vec<String>> {
        self.folder.list()
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(BreakingFile { file: self.folder.open(name)?, broken: self.broken.clone() }))
    }
    fn create(&self, name: &str, size: u64) -> io::Result<Box<dyn DiskFile>> {
        if self.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(Box::new(BreakingFile { file: self.folder.create(name, size)?, broken: self.broken.clone() }))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.folder.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.folder.remove(name)
    }
}

impl DiskFile for BreakingFile {
    fn read_all(&self) -> io::Result<Vec<u8>> {
        self.file.read_all()
    }
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }
    fn sync(&mut self) -> io::Result<()> {
        if self.broken.load(Ordering::SeqCst) {
            Err(io::Error::other("broken disk"))
        } else {
            self.file.sync()
        }
    }
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
}

/// One member on a disk that does as `broken` and `full` say.
async fn alone(
    folder: &Path,
    broken: &Arc<AtomicBool>,
    full: &Arc<AtomicBool>,
    tasks: &Tasks,
) -> (Arc<Node>, Arc<Shared>) {
    let disk = Folder::open(&folder.join("wal")).expect("opens");
    let disk = Arc::new(Breaking { folder: disk, broken: broken.clone(), full: full.clone() });
    let config = NodeConfig {
        name: "m".to_owned(),
        data: folder.join("data"),
        wal: folder.join("wal"),
        cluster: [("m".to_owned(), vec![url(9)])].into(),
        token: String::new(),
        joins: false,
        peer_urls: vec![url(9)],
        client_urls: Vec::new(),
        heartbeat_millis: 50,
        election_millis: 150,
        snapshot_entries: 10_000,
    };
    let shared = Shared::new(Machine::new());
    let node = open(config, Some(disk), None, shared.clone(), tasks).await.expect("opens");
    (node, shared)
}

#[tokio::test]
async fn a_full_disk_raises_the_alarm_while_there_is_room_for_deletions() {
    let folder = tempfile::tempdir().expect("folder");
    let (broken, full, tasks) = (Arc::default(), Arc::new(AtomicBool::new(false)), Tasks::new());
    let (node, _) = alone(folder.path(), &broken, &full, &tasks).await;
    full.store(true, Ordering::SeqCst);
    let large = || PutRequest { key: "k".into(), value: vec![1; 1 << 20].into(), ..Default::default() };
    let mut taken = 0;
    let refused = loop {
        match node.commit(Op::Put(large())).await {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, StoreError::NoSpace);
    assert!((7..15).contains(&taken), "{taken} of 16");
    let delete = DeleteRangeRequest { key: "k".into(), ..Default::default() };
    node.commit(Op::DeleteRange(delete)).await.expect("deletes");
    // Room again, and the alarm taken back: everything goes on.
    full.store(false, Ordering::SeqCst);
    let disarm = AlarmRequest { action: 2, member_id: node.member_id(), alarm: 1 };
    node.commit(Op::Alarm(disarm)).await.expect("disarms");
    for _ in 0..20 {
        node.commit(Op::Put(large())).await.expect("commits");
    }
}

#[tokio::test]
async fn a_member_whose_disk_fails_acknowledges_nothing_more_and_ends() {
    let folder = tempfile::tempdir().expect("folder");
    let (broken, full, tasks) = (Arc::new(AtomicBool::new(false)), Arc::default(), Tasks::new());
    let (node, shared) = alone(folder.path(), &broken, &full, &tasks).await;
    let put = |value: &'static str| {
        Op::Put(PutRequest { key: "k".into(), value: value.into(), ..Default::default() })
    };
    node.commit(put("before")).await.expect("commits");
    broken.store(true, Ordering::SeqCst);
    node.commit(put("after")).await.expect_err("the disk is broken");
    let death = tasks.first_death().await;
    assert_eq!(death.name, "raft", "{:?}", death.error);
    assert_eq!(shared.machine().revision(), 2, "what is not on the disk is not applied");
}

#[test]
fn a_write_after_the_leader_died_takes_little_longer_than_the_election_timeout() {
    let mut cluster = Cluster::beating(3, 10_000, 50);
    let mut gaps = Vec::new();
    for round in 0..7 {
        let leader = cluster.leader();
        cluster.member(leader).put("k", "v").expect("commits");
        cluster.kill(leader);
        let began = Instant::now();
        let survivor = cluster.members.iter().position(Option::is_some).expect("survivors");
        eventually("a write with the next leader", || {
            cluster.member(survivor).put("k", &round.to_string()).ok()
        });
        gaps.push(began.elapsed());
        cluster.start(leader);
        cluster.member(leader).get("k");
    }
    gaps.sort();
    println!("gaps {gaps:?}");
    assert!(gaps[3] < Duration::from_millis(1500), "{gaps:?}");
}

/// Prints how many changes and reads a second three members do here; run it by hand, in a release build.
#[test]
#[ignore = "a measurement"]
fn throughput() {
    let cluster = Cluster::beating(3, 10_000, 50);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    for (name, at) in [("leader", leader), ("follower", follower)] {
        for clients in [1, 16, 128] {
            let member = cluster.member(at);
            let each = if clients == 1 { 300 } else { 6_000 / clients };
            for reads in [false, true] {
                let node = member.node.clone();
                let began = Instant::now();
                member.run(async move {
                    let client = |client: usize| {
                        let node = node.clone();
                        async move {
                            for number in 0..each {
                                if reads {
                                    node.read_barrier().await.expect("reads");
                                    continue;
                                }
                                let key = format!("/registry/{client}/{number}");
                                let put = PutRequest {
                                    key: key.into(),
                                    value: vec![7; 1024].into(),
                                    ..Default::default()
                                };
                                node.commit(Op::Put(put)).await.expect("commits");
                            }
                        }
                    };
                    futures::future::join_all((0..clients).map(client)).await;
                });
                let rate = (clients * each) as f64 / began.elapsed().as_secs_f64();
                println!("{name}, {clients} clients, reads {reads}: {rate:.0}/s");
            }
        }
    }
}
