//! Disks that fail, fill up or stall, through the disk seam.

use super::*;
use openraft::storage::RaftStateMachine;
use std::sync::atomic::AtomicUsize;
use std::sync::{Condvar, Mutex, PoisonError};

/// What is wrong with a disk; and how often it was asked to do something since.
#[derive(Default)]
struct Faults {
    /// No new file has room.
    full: AtomicBool,
    writes_fail: AtomicBool,
    syncs_fail: AtomicBool,
    /// Writes and syncs after the first that failed.
    after_failure: AtomicUsize,
    failed: AtomicBool,
    /// Syncs wait for it to be false.
    stalls: Mutex<bool>,
    goes_on: Condvar,
}

impl Faults {
    fn ask(&self, fails: &AtomicBool) -> io::Result<()> {
        if self.failed.load(Ordering::SeqCst) {
            self.after_failure.fetch_add(1, Ordering::SeqCst);
        }
        if fails.load(Ordering::SeqCst) {
            self.failed.store(true, Ordering::SeqCst);
            return Err(io::Error::from_raw_os_error(5));
        }
        Ok(())
    }

    fn stall(&self, stalls: bool) {
        *self.stalls.lock().unwrap_or_else(PoisonError::into_inner) = stalls;
        self.goes_on.notify_all();
    }

    fn wait(&self) {
        let stalls = self.stalls.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.goes_on.wait_while(stalls, |stalls| *stalls));
    }
}

/// A log on a disk with faults.
struct Faulty {
    folder: Folder,
    faults: Arc<Faults>,
}

struct FaultyFile {
    file: Box<dyn DiskFile>,
    faults: Arc<Faults>,
}

impl Disk for Faulty {
    fn list(&self) -> io::Result<Vec<String>> {
        self.folder.list()
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(FaultyFile { file: self.folder.open(name)?, faults: self.faults.clone() }))
    }
    fn create(&self, name: &str, size: u64) -> io::Result<Box<dyn DiskFile>> {
        if self.faults.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(Box::new(FaultyFile { file: self.folder.create(name, size)?, faults: self.faults.clone() }))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.folder.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.folder.remove(name)
    }
}

impl DiskFile for FaultyFile {
    fn read_all(&self) -> io::Result<Vec<u8>> {
        self.file.read_all()
    }
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.faults.ask(&self.faults.writes_fail)?;
        self.file.write_at(offset, bytes)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.faults.wait();
        self.faults.ask(&self.faults.syncs_fail)?;
        self.file.sync()
    }
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
}

fn faulty(folder: &Path, faults: &Arc<Faults>) -> Arc<dyn Disk> {
    Arc::new(Faulty { folder: Folder::open(folder).expect("opens"), faults: faults.clone() })
}

/// One member on a disk with these faults.
async fn alone(folder: &Path, faults: &Arc<Faults>, tasks: &Tasks) -> (Arc<Node>, Arc<Shared>) {
    let disk = faulty(&folder.join("wal"), faults);
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
        alone: false,
    };
    let shared = Shared::new(Machine::new());
    let node = open(config, Some(disk), None, shared.clone(), tasks).await.expect("opens");
    (node, shared)
}

#[tokio::test]
async fn a_full_disk_raises_the_alarm_while_there_is_room_for_deletions() {
    let folder = tempfile::tempdir().expect("folder");
    let (faults, tasks) = (Arc::<Faults>::default(), Tasks::new());
    let (node, _) = alone(folder.path(), &faults, &tasks).await;
    faults.full.store(true, Ordering::SeqCst);
    let large = || PutRequest { key: "k".into(), value: vec![1; 1 << 20].into(), ..Default::default() };
    let until_refused = async || {
        let mut taken = 0;
        loop {
            match node.commit(Op::Put(large())).await {
                Ok(_) => taken += 1,
                Err(error) => return (error, taken),
            }
        }
    };
    let (refused, taken) = until_refused().await;
    assert_eq!(refused, StoreError::NoSpace);
    assert!((7..15).contains(&taken), "{taken} of 16");
    // Taken back too early, the alarm is raised again, and not only once the log has no place left.
    let disarm = AlarmRequest { action: 2, member_id: node.member_id(), alarm: 1 };
    node.commit(Op::Alarm(disarm)).await.expect("disarms");
    let (refused, more) = until_refused().await;
    assert_eq!(refused, StoreError::NoSpace, "after {taken} and {more}");
    let delete = DeleteRangeRequest { key: "k".into(), ..Default::default() };
    node.commit(Op::DeleteRange(delete)).await.expect("deletes");
    // Room again, and the alarm taken back: everything goes on.
    faults.full.store(false, Ordering::SeqCst);
    node.commit(Op::Alarm(disarm)).await.expect("disarms");
    for _ in 0..20 {
        node.commit(Op::Put(large())).await.expect("commits");
    }
}

/// A member on whose disk something fails from one moment on ends, and never writes again.
#[tokio::test(start_paused = true)]
async fn a_snapshot_waits_for_room_only_as_long_as_its_member_lives() {
    let (_folder, _, mut applier) = Stores.build().await.expect("builds");
    let mut builder = applier.get_snapshot_builder().await;
    assert!(builder.pause(Duration::from_secs(1)).await, "tries again");
    drop(applier);
    assert!(!builder.pause(Duration::from_secs(1)).await, "gives up");
}

async fn ends_when(fails: impl Fn(&Faults) -> &AtomicBool) {
    let folder = tempfile::tempdir().expect("folder");
    let (faults, tasks) = (Arc::<Faults>::default(), Tasks::new());
    let (node, shared) = alone(folder.path(), &faults, &tasks).await;
    let put = |value: &'static str| {
        Op::Put(PutRequest { key: "k".into(), value: value.into(), ..Default::default() })
    };
    node.commit(put("before")).await.expect("commits");
    fails(&faults).store(true, Ordering::SeqCst);
    node.commit(put("after")).await.expect_err("the disk fails");
    let death = tasks.first_death().await;
    assert_eq!(death.name, "raft", "{:?}", death.error);
    assert_eq!(shared.machine().revision(), 2, "what is not on the disk is not applied");
    // A second sync might succeed without what the kernel has dropped.
    fails(&faults).store(false, Ordering::SeqCst);
    node.commit(put("again")).await.expect_err("it has ended");
    drop((node, tasks));
    assert_eq!(faults.after_failure.load(Ordering::SeqCst), 0, "nothing is tried again");
}

#[tokio::test]
async fn a_member_whose_sync_fails_acknowledges_nothing_more_and_ends_without_a_second_try() {
    ends_when(|faults| &faults.syncs_fail).await;
}

#[tokio::test]
async fn a_member_whose_write_fails_acknowledges_nothing_more_and_ends_without_a_second_try() {
    ends_when(|faults| &faults.writes_fail).await;
}

#[test]
fn a_leader_whose_disk_stalls_lets_another_lead_and_has_lost_nothing_once_it_works_again() {
    let all: Vec<Arc<Faults>> = (0..3).map(|_| Arc::default()).collect();
    let of = all.clone();
    let cluster = Cluster::on_disks(3, Box::new(move |at, folder| Some(faulty(folder, &of[at]))));
    let old = cluster.leader();
    let other = cluster.follower();
    cluster.member(old).put("k", "1").expect("commits");
    all[old].stall(true);
    // A majority has it without the leader's disk.
    cluster.member(other).put("k", "2").expect("commits");
    let new = eventually("another leader", || {
        let status = cluster.member(other).node.status();
        let new = (0..3).find(|at| cluster.member(*at).node.member_id() == status.leader)?;
        Some(new).filter(|new| *new != old)
    });
    cluster.member(new).put("k", "3").expect("commits");
    all[old].stall(false);
    assert_eq!(cluster.member(old).get("k").as_deref(), Some("3"));
    cluster.assert_equal();
}
