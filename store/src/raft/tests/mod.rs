//! openraft's own suite for storages, and whole clusters on loopback whose members die at any moment.

mod clusters;
mod disk;
mod flags;
mod found;
mod kill;
mod membership;

use super::apply::{Applier, Growth, Position};
use super::log::Log;
use super::node::Node;
use super::open::open;
use super::snapshot::Snapshots;
use super::start::serve_peers;
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
use std::sync::mpsc;
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
        let wal = Wal::open(disk, Options::default(), Ignore).expect("opens");
        let snapshots = Snapshots::open(&folder.path().join("snapshots")).expect("opens");
        let shared = Shared::new(Machine::new());
        let growth = Arc::new(Growth::new(u64::MAX));
        let applier = Applier::new(shared, Position::default(), snapshots, growth, None);
        Ok((folder, Log::new(wal), applier))
    }
}

#[tokio::test]
async fn storage_keeps_every_promise_that_openraft_asks_of_it() {
    Suite::test_all(Stores).await.expect("passes");
}

/// Threads of a member.
const WORKERS: usize = 2;

static NEXT_PORT: AtomicU16 = AtomicU16::new(21_100);

/// A cluster whose members each have a runtime, so that one can die without the others.
struct Cluster {
    folder: TempDir,
    heartbeat_millis: u64,
    ports: Vec<u16>,
    members: Vec<Option<Member>>,
    snapshot_entries: u64,
    first: usize,
    disks: Disks,
}

/// The disk of a member's log, by its number and folder; none for the folder itself.
type Disks = Box<dyn Fn(usize, &Path) -> Option<Arc<dyn Disk>>>;

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
        Self::started(size, snapshot_entries, heartbeat_millis, Box::new(|_, _| None))
    }

    fn on_disks(size: usize, disks: Disks) -> Self {
        Self::started(size, 10_000, 100, disks)
    }

    fn started(size: usize, snapshot_entries: u64, heartbeat_millis: u64, disks: Disks) -> Self {
        let ports = (0..size).map(|_| NEXT_PORT.fetch_add(1, Ordering::Relaxed)).collect();
        let folder = tempfile::tempdir().expect("folder");
        let members = (0..size).map(|_| None).collect();
        let mut this =
            Self { folder, heartbeat_millis, ports, members, snapshot_entries, first: size, disks };
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
            alone: false,
        }
    }

    fn start(&mut self, at: usize) {
        let member = eventually("the member starts", || self.try_start(at).ok());
        self.members[at] = Some(member);
    }

    fn try_start(&self, at: usize) -> Result<Member, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .enable_all()
            .build()
            .expect("a runtime");
        let (config, port) = (self.config(at), self.ports[at]);
        let disk = (self.disks)(at, &config.wal);
        let started = runtime.block_on(async move {
            let tasks = Tasks::new();
            let shared = Shared::new(Machine::new());
            let listener = TcpListener::bind(("127.0.0.1", port)).await.map_err(|error| error.to_string())?;
            let node = open(config, disk, None, shared.clone(), &tasks)
                .await
                .map_err(|error| format!("{error:?}"))?;
            serve_peers(&node, listener, None, &tasks);
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

    /// Its tasks stand still where they are, for as long as what is returned lives; its connections stay.
    fn freeze(&self, at: usize) -> Vec<mpsc::Sender<()>> {
        let (stands, still) = mpsc::channel();
        let worker = |_| {
            let (thaw, frozen) = mpsc::channel::<()>();
            let stands = stands.clone();
            self.member(at).runtime.spawn(async move {
                stands.send(()).expect("is awaited");
                // An error: it is over.
                let _ = frozen.recv();
            });
            thaw
        };
        let frozen = (0..WORKERS).map(worker).collect();
        (0..WORKERS).for_each(|_| still.recv().expect("stands"));
        frozen
    }

    /// Waits until nobody has written for a while, so that the leader beats rarely.
    fn quiet(&self) {
        let leader = self.member(self.leader());
        eventually("nobody writes", || (leader.node.pulse.next_beat() >= 5_000).then_some(()));
    }

    /// It stops as when it is asked to.
    fn stop(&mut self, at: usize) {
        let member = self.members[at].take().expect("runs");
        let tasks = member.node.tasks().clone();
        member
            .runtime
            .block_on(async move { tasks.stop_within(Duration::from_secs(10)).await })
            .expect("stops");
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
