//! Disks that fail or fill up.

use super::*;

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
        alone: false,
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
