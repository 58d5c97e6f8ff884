//! Backups of a running member, restored and started; and logs that are whole or not.

mod etcd;

use super::backup::{self, BackupArgs};
use super::{repair, restore};
use crate::Args;
use crate::wal::{Disk, Durability, Entry, EntryId, Folder, Observer, Options, Record, Wal};
use clap::Parser;
use coracle_daemon::Tasks;
use coracle_etcd::proto::kv_client::KvClient;
use coracle_etcd::proto::{PutRequest, RangeRequest};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    program: super::Program,
}

fn member_args(data: &Path) -> Args {
    let data = format!("--data-dir={}", data.display());
    let own =
        ["store", &data, "--listen-client-urls=http://127.0.0.1:0", "--listen-peer-urls=http://127.0.0.1:0"];
    *Line::try_parse_from(own).expect("flags").program.member
}

async fn member(data: &Path) -> (Tasks, String, KvClient<Channel>) {
    let tasks = Tasks::new();
    let address = crate::api::start(member_args(data), &tasks).await.expect("starts")[0];
    let url = format!("http://{address}");
    let channel = Endpoint::from_shared(url.clone()).expect("an address").connect_lazy();
    (tasks, url, KvClient::new(channel))
}

async fn stop(tasks: Tasks) {
    tasks.stop_within(Duration::from_secs(10)).await.expect("stops");
}

fn backup_args(url: &str, file: PathBuf) -> BackupArgs {
    // The first is nobody: the next one is asked.
    let endpoints = vec!["http://127.0.0.1:1".to_owned(), url.to_owned()];
    BackupArgs { file, endpoints, cacert: None, cert: None, key: None }
}

fn restore_args(file: PathBuf, data: PathBuf) -> restore::RestoreArgs {
    restore::RestoreArgs {
        file,
        skip_hash_check: false,
        name: "default".to_owned(),
        data_dir: Some(data),
        initial_cluster: Vec::new(),
        initial_cluster_token: "restored".to_owned(),
        initial_advertise_peer_urls: vec!["http://localhost:2380".to_owned()],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_running_member_starts_another_with_the_same_state() {
    let folder = tempfile::tempdir().expect("folder");
    let saved = folder.path().join("saved");
    let (tasks, url, mut kv) = member(&folder.path().join("old")).await;
    for n in 0..40 {
        let put =
            PutRequest { key: format!("k{n}").into(), value: vec![1; 5_000].into(), ..Default::default() };
        kv.put(put).await.expect("puts");
    }
    let told = backup::run(backup_args(&url, saved.clone())).await.expect("saves");
    assert!(told.ends_with("revision 41, 40 keys"), "{told}");
    let before = std::fs::read(&saved).expect("reads");
    let again = backup::run(backup_args(&url, saved.clone())).await.expect_err("never twice").to_string();
    assert!(again.contains("overwrites nothing"), "{again}");
    assert_eq!(std::fs::read(&saved).expect("reads"), before);
    assert_eq!(std::fs::read_dir(folder.path()).expect("lists").count(), 2, "nothing half-made is left");
    stop(tasks).await;

    let data = folder.path().join("new");
    restore::run(&restore_args(saved.clone(), data.clone())).expect("restores");
    let taken = restore::run(&restore_args(saved, data.clone())).expect_err("once").to_string();
    assert!(taken.contains("is there already"), "{taken}");
    let (tasks, _, mut kv) = member(&data).await;
    let all = RangeRequest { key: "k".into(), range_end: "l".into(), ..RangeRequest::default() };
    let found = kv.range(all).await.expect("reads").into_inner();
    assert_eq!((found.count, found.header.expect("a header").revision), (40, 41));
    assert_eq!(found.kvs[0].value, vec![1; 5_000]);
    let put = PutRequest { key: "k".into(), ..Default::default() };
    let answer = kv.put(put).await.expect("puts").into_inner();
    assert_eq!(answer.header.expect("a header").revision, 42);
    stop(tasks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_store_is_saved_too() {
    let folder = tempfile::tempdir().expect("folder");
    let (tasks, url, _) = member(&folder.path().join("old")).await;
    let told = backup::run(backup_args(&url, folder.path().join("saved"))).await.expect("saves");
    assert!(told.ends_with("revision 1, 0 keys"), "{told}");
    stop(tasks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_whole_snapshot_is_refused_and_nothing_is_made_of_it() {
    use sha2::{Digest, Sha256};
    let folder = tempfile::tempdir().expect("folder");
    let saved = folder.path().join("saved");
    let (tasks, url, mut kv) = member(&folder.path().join("old")).await;
    kv.put(PutRequest { key: "k".into(), ..Default::default() }).await.expect("puts");
    backup::run(backup_args(&url, saved.clone())).await.expect("saves");
    stop(tasks).await;
    let whole = std::fs::read(&saved).expect("reads");
    let with_hash =
        |state: &[u8]| [state, Sha256::digest(state).as_slice()].into_iter().flatten().copied().collect();
    let mut flipped = whole.clone();
    flipped[5000] ^= 1;
    let state = &whole[..whole.len() - 32];
    let mut pointless = state.to_vec();
    pointless[16 + 16] ^= 0x40;
    pointless[4096 + 16 + 16] ^= 0x40;
    for (bytes, wanted) in [
        (Vec::new(), "cut off"),
        (whole[..whole.len() - 1].to_vec(), "cut off"),
        (state.to_vec(), "no hash"),
        (flipped, "SHA-256"),
        (with_hash(&[7; 512]), "no meta page"),
        (with_hash(&pointless), "no meta page"),
        (with_hash(&state[..8192]), "pages of 4096"),
    ] {
        let path = folder.path().join("file");
        std::fs::write(&path, &bytes).expect("writes");
        let data = folder.path().join("data");
        let error = format!("{:#}", restore::run(&restore_args(path, data.clone())).expect_err(wanted));
        assert!(error.contains("is no snapshot that can be used") && error.contains(wanted), "{error}");
        assert!(!data.exists());
    }
    let path = folder.path().join("file");
    std::fs::write(&path, state).expect("writes");
    let args = restore_args(path, folder.path().join("data"));
    let told = restore::run(&restore::RestoreArgs { skip_hash_check: true, ..args }).expect("takes it");
    assert!(told.ends_with("revision 2, 1 keys"), "{told}");
}

struct Ignore;

impl Observer for Ignore {
    fn synced(&self, _: Duration) {}
    fn has_room(&self, _: bool) {}
}

/// A log of several segments, with entries 1 to `count`.
fn log(folder: &Path, count: u64) {
    let disk = Arc::new(Folder::open(folder).expect("opens"));
    let options = Options { segment_bytes: 4096, ..Options::default() };
    let wal = Wal::open(disk, options, Ignore).expect("opens");
    for index in 1..=count {
        let id = EntryId { term: 1, leader: 1, index };
        let entry = Record::Entry(Entry { id, kind: 1, payload: vec![9; 300].into() });
        let (done, wait) = std::sync::mpsc::channel();
        let done = Box::new(move |written| drop(done.send(written)));
        wal.write(vec![entry], Durability::Now, Some(done)).expect("fits");
        wait.recv().expect("answers").expect("writes");
    }
}

/// What is told of the log of 40 entries after somebody meddled with its segment `number`.
fn told(number: u64, meddle: impl Fn(&mut Vec<u8>)) -> Result<String, String> {
    let folder = tempfile::tempdir().expect("folder");
    log(folder.path(), 40);
    let path = folder.path().join(format!("{number:020}.wal"));
    let mut bytes = std::fs::read(&path).expect("reads");
    meddle(&mut bytes);
    std::fs::write(&path, &bytes).expect("writes");
    let before: Vec<_> = Folder::open(folder.path()).expect("opens").list().expect("lists");
    let told =
        repair::report(&Folder::open(folder.path()).expect("opens")).map_err(|error| error.to_string());
    let after: Vec<_> = Folder::open(folder.path()).expect("opens").list().expect("lists");
    assert_eq!((before.len(), std::fs::read(&path).expect("reads")), (after.len(), bytes), "nothing changes");
    told
}

#[test]
fn a_log_is_looked_at_without_a_change_and_its_damage_told() {
    let whole = told(1, |_| {}).expect("is whole");
    assert!(whole.starts_with("the log is whole: segments 1 to ") && whole.contains("entry 40"), "{whole}");
    let damaged = told(2, |bytes| bytes[1000] ^= 1).expect_err("is damaged");
    assert!(damaged.contains("log segment 2 is damaged at byte"), "{damaged}");
    assert!(damaged.contains("readable entries behind it") && damaged.contains("to 40"), "{damaged}");
    let headless = told(2, |bytes| bytes[..32].fill(0)).expect_err("is damaged");
    assert!(headless.contains("log segment 2 is damaged at byte 0"), "{headless}");
}

#[test]
fn the_last_batch_of_a_log_may_be_unfinished() {
    let folder = tempfile::tempdir().expect("folder");
    log(folder.path(), 3);
    let path = folder.path().join(format!("{:020}.wal", 1));
    let mut bytes = std::fs::read(&path).expect("reads");
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("records");
    bytes[end] ^= 1;
    std::fs::write(&path, &bytes).expect("writes");
    let told = repair::report(&Folder::open(folder.path()).expect("opens")).expect("is no damage");
    assert!(told.contains("up to entry 2") && told.contains("unfinished batch"), "{told}");
}

#[test]
fn commands_stand_beside_the_members_own_flags() {
    let parsed = |words: &[&str]| Line::try_parse_from([&["store"], words].concat());
    assert!(parsed(&["--name=m"]).expect("parses").program.tool.is_none());
    assert!(parsed(&["backup", "file"]).expect("parses").program.tool.is_some());
    assert!(parsed(&["repair", "--data-dir=d", "--dry-run"]).is_ok());
    assert!(parsed(&["repair", "--data-dir=d"]).is_err(), "a log is never cut off in place");
}
