//! Making the data of a cluster that begins with state: from a backup, or from what one member of a lost cluster has.
//!
//! In: a machine. Out: a folder with a snapshot of it and a log that begins after that snapshot, which a member starts from
//! like from any other.

use super::apply::Position;
use super::identity::{Identity, member_id, new_cluster};
use super::snapshot::Snapshots;
use super::types::{LogId, Peer, SnapshotMeta, StoredMembership, log_id, raft_entry};
use super::{NodeConfig, StartError, snapshot::SnapshotError};
use crate::command::Command;
use crate::image::{Image, RedbImage};
use crate::machine::Machine;
use crate::wal::{Durability, EntryId, Folder, LogState, Observer, Options, Record, Vote, Wal};
use openraft::{EntryPayload, Membership};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Nobody watches the disk of a log that is only made.
struct Unwatched;

impl Observer for Unwatched {
    fn synced(&self, _took: Duration) {}
    fn has_room(&self, _room: bool) {}
}

fn unusable(path: &Path) -> impl Fn(io::Error) -> StartError + use<> {
    let path = path.to_owned();
    move |source| StartError::Folder { path: path.clone(), source }
}

fn open_wal(folder: &Path) -> Result<Wal, StartError> {
    let disk = Arc::new(Folder::open(folder).map_err(unusable(folder))?);
    Ok(Wal::open(disk, Options::default(), Unwatched)?)
}

/// Writes records and waits until they are stable.
fn write(wal: &Wal, folder: &Path, records: Vec<Record>) -> Result<(), StartError> {
    let (done, wait) = std::sync::mpsc::channel();
    let tell = move |written| drop(done.send(written));
    wal.write(records, Durability::Now, Some(Box::new(tell))).map_err(unusable(folder))?;
    let gone = |_| Err(io::ErrorKind::BrokenPipe.into());
    wait.recv().unwrap_or_else(gone).map_err(unusable(folder))
}

fn membership(at: LogId, members: BTreeMap<u64, Peer>) -> Result<StoredMembership, StartError> {
    let voters: BTreeSet<u64> = members.keys().copied().collect();
    let made = Membership::new(vec![voters], members);
    Ok(StoredMembership::new(Some(at), made.map_err(|error| StartError::Raft(error.to_string()))?))
}

/// Makes the data folder of one member of a new cluster that begins with `machine`. Each member makes its own, from the same
/// state and with the same flags.
///
/// # Errors
/// The folder is there already, flags contradict each other, or the disk fails.
pub fn restore(config: &NodeConfig, machine: &Machine) -> Result<Identity, StartError> {
    config.check_first_start()?;
    let data = &config.data;
    if std::fs::symlink_metadata(data).is_ok() {
        return Err(StartError::Flags(format!(
            "{} is there already; restore to a new folder",
            data.display()
        )));
    }
    let (cluster, members) = new_cluster(&config.cluster, &config.token);
    let me = member_id(&config.peer_urls, &config.token, None);
    let first = members.keys().next().copied().unwrap_or(me);
    // It is the same on all members, so that they begin alike.
    let last = EntryId { term: 1, leader: first, index: 1 };
    let part = restoring(data);
    match std::fs::remove_dir_all(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unusable(&part)(error)),
        _ => {}
    }
    super::open::make_private(&part)?;
    let meta = SnapshotMeta {
        last_log_id: Some(log_id(&last)),
        last_membership: membership(log_id(&last), members)?,
    };
    Snapshots::open(&part.join("snapshots"))?.write(&meta, &machine.view())?;
    let folder = part.join("wal");
    let wal = open_wal(&folder)?;
    let vote = Record::Vote(Vote { term: 1, member: first, committed: false });
    write(&wal, &folder, vec![vote, Record::Purge(last), Record::Committed(Some(last))])?;
    drop(wal);
    let identity = Identity { member: me, cluster, removed: false };
    identity.save(&part)?;
    // Only whole data gets the folder's name.
    std::fs::rename(&part, data).map_err(unusable(data))?;
    let parent = data.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    std::fs::File::open(parent).and_then(|folder| folder.sync_all()).map_err(unusable(parent))?;
    Ok(identity)
}

/// Where data is made before it gets its name.
fn restoring(data: &Path) -> PathBuf {
    let mut name = data.file_name().unwrap_or_default().to_owned();
    name.push(".restoring");
    data.with_file_name(name)
}

/// What a member knows of the cluster's state, decided or not.
struct Known {
    machine: Machine,
    position: Position,
}

/// Makes the member with this data the only one of its cluster, with every entry that it has: whatever was acknowledged and
/// reached this member is kept. It changes nothing when the member is the only one already.
///
/// # Errors
/// There is no data, it is damaged, or the disk fails.
pub fn stand_alone(config: &NodeConfig) -> Result<(), StartError> {
    let Some(identity) = Identity::load(&config.data)? else {
        return Err(StartError::Flags(format!(
            "--force-new-cluster makes a cluster of what is in {}, where nothing is",
            config.data.display()
        )));
    };
    let snapshots = Snapshots::open(&config.data.join("snapshots"))?;
    let wal = open_wal(&config.wal)?;
    let log = wal.whole().map_err(unusable(&config.wal))?;
    let Known { machine, position } = known(config, &snapshots, &log)?;
    let me = identity.member;
    let ids: Vec<u64> = position.membership.nodes().map(|(id, _)| *id).collect();
    if ids == [me] {
        return Ok(());
    }
    let Some(at) = position.applied else {
        return Err(StartError::Flags(format!("{} has no state yet", config.data.display())));
    };
    let peer = Peer {
        name: config.name.clone(),
        peer_urls: config.peer_urls.clone(),
        client_urls: config.client_urls.clone(),
    };
    let meta = SnapshotMeta { last_log_id: Some(at), last_membership: membership(at, [(me, peer)].into())? };
    snapshots.write(&meta, &machine.view())?;
    // The image still knows the others.
    let image = config.data.join("image");
    match std::fs::remove_dir_all(&image) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unusable(&image)(error)),
        _ => {}
    }
    let at = super::types::entry_id(&at);
    write(&wal, &config.wal, vec![Record::Purge(at), Record::Committed(Some(at))])?;
    tracing::warn!(
        revision = machine.revision(),
        "this member is a cluster of its own now; {} others are not members any more",
        ids.len() - 1
    );
    Ok(())
}

/// Image or snapshot, whichever is further, and all entries after it.
fn known(config: &NodeConfig, snapshots: &Snapshots, log: &LogState) -> Result<Known, StartError> {
    let index = |position: &Position| position.applied.as_ref().map_or(0, |id| id.index);
    let loaded = RedbImage::new(&config.data.join("image")).load().unwrap_or_else(|error| {
        tracing::warn!(%error, "the image is not used");
        None
    });
    let image = loaded.and_then(|(machine, stands)| Some((machine, Position::decode(&stands)?)));
    let (mut machine, mut position) = image.unwrap_or_else(|| (Machine::new(), Position::default()));
    if let Some((meta, file)) = snapshots.newest()? {
        let theirs = Position { applied: meta.last_log_id, membership: meta.last_membership };
        if index(&theirs) > index(&position) {
            (machine, position) = (file.restore()?, theirs);
        }
    }
    let from = index(&position) + 1;
    if log.head.purged.is_some_and(|purged| purged.index >= from) {
        return Err(SnapshotError::Gone { path: config.data.clone(), index: from }.into());
    }
    for entry in log.range(from, u64::MAX) {
        let at = log_id(&entry.id);
        let unreadable = |error: &dyn std::fmt::Display| {
            StartError::Raft(format!("log entry {} cannot be applied: {error}", entry.id.index))
        };
        match raft_entry(entry).map_err(|error| unreadable(&error))?.payload {
            EntryPayload::Blank => {}
            EntryPayload::Normal(proposal) => {
                let command = Command::decode(proposal.0).map_err(|error| unreadable(&error))?;
                // A refusal is an outcome like any other.
                let _ = machine.apply(&command);
                drop(machine.take_effects());
            }
            EntryPayload::Membership(new) => position.membership = StoredMembership::new(Some(at), new),
        }
        position.applied = Some(at);
    }
    Ok(Known { machine, position })
}
