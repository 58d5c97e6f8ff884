//! openraft's state machine over the shared machine: committed entries in, answers to whoever proposed them out.
//!
//! Nothing here is synced for each entry: after a restart the newest snapshot is read and the log is applied again.

use super::snapshot::{Part, SnapshotFile, Snapshots};
use super::types::{Applied, LogId, SnapshotMeta, StoredMembership, Types};
use crate::command::Command;
use crate::machine::View;
use crate::shared::Shared;
use futures::{Stream, StreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, Snapshot};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Notify, watch};

/// Entries applied under one lock of the machine.
const BATCH: usize = 512;

/// How far the machine is.
#[derive(Clone, Debug, Default)]
pub struct Position {
    /// The last entry applied.
    pub applied: Option<LogId>,
    /// The last membership applied.
    pub membership: StoredMembership,
}

/// A snapshot for openraft.
#[derive(Debug)]
pub enum SnapshotData {
    /// On the disk.
    Whole(SnapshotFile),
    /// Received, but not adopted yet.
    Received(Part),
}

/// Tells that the log has grown by many bytes since it was last asked to shrink.
#[derive(Debug)]
pub struct Growth {
    limit: u64,
    bytes: AtomicU64,
    reached: Notify,
}

impl Growth {
    /// Tells each time `limit` bytes have been applied.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self { limit, bytes: AtomicU64::new(0), reached: Notify::new() }
    }

    /// Returns when the limit has been reached since the last call.
    pub async fn reached(&self) {
        self.reached.notified().await;
    }

    fn add(&self, bytes: u64) {
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes >= self.limit {
            self.bytes.store(0, Ordering::Relaxed);
            self.reached.notify_one();
        }
    }
}

/// See the module.
pub struct Applier {
    shared: Arc<Shared>,
    position: Arc<Mutex<Position>>,
    snapshots: Snapshots,
    /// Index of the last entry applied; 0 before the first.
    applied: watch::Sender<u64>,
    growth: Arc<Growth>,
}

impl Applier {
    /// Before openraft has told it anything.
    #[must_use]
    pub fn new(shared: Arc<Shared>, snapshots: Snapshots, growth: Arc<Growth>) -> Self {
        Self { shared, position: Arc::default(), snapshots, applied: watch::Sender::new(0), growth }
    }

    /// Follows the index of the last entry applied.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    fn apply_batch(&self, batch: Vec<EntryResponder<Types>>) -> io::Result<()> {
        let mut last = None;
        let mut membership = None;
        let mut commands = Vec::with_capacity(batch.len());
        // Whom to answer, and whether with a command's outcome.
        let mut answers: Vec<(bool, Option<ApplyResponder<Types>>)> = Vec::with_capacity(batch.len());
        let mut bytes = 0;
        for (entry, responder) in batch {
            last = Some(entry.log_id);
            let is_command = match entry.payload {
                EntryPayload::Blank => false,
                EntryPayload::Membership(new) => {
                    membership = Some(StoredMembership::new(Some(entry.log_id), new));
                    false
                }
                EntryPayload::Normal(proposal) => {
                    bytes += proposal.0.len() as u64;
                    let command = Command::decode(proposal.0).map_err(|source| {
                        let index = entry.log_id.index;
                        io::Error::other(format!("log entry {index} cannot be applied: {source}"))
                    })?;
                    commands.push(command);
                    true
                }
            };
            answers.push((is_command, responder));
        }
        let Some(last) = last else { return Ok(()) };
        let outcomes = self.shared.apply_batch(&commands).outcomes;
        let mut position = self.position.lock();
        position.applied = Some(last);
        if let Some(membership) = membership {
            position.membership = membership;
        }
        drop(position);
        self.applied.send_replace(last.index);
        let mut outcomes = outcomes.into_iter();
        for (is_command, responder) in answers {
            let outcome = if is_command { outcomes.next().map(Applied::Command) } else { None };
            if let Some(responder) = responder {
                responder.send(outcome.unwrap_or(Applied::Nothing));
            }
        }
        self.growth.add(bytes);
        Ok(())
    }
}

impl RaftStateMachine<Types> for Applier {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let position = self.position.lock().clone();
        Ok((position.applied, position.membership))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let mut batches = entries.ready_chunks(BATCH);
        while let Some(batch) = batches.next().await {
            self.apply_batch(batch.into_iter().collect::<Result<Vec<_>, _>>()?)?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        // No entry is applied meanwhile, so view and position belong together.
        Builder {
            view: Arc::new(self.shared.view()),
            position: self.position.lock().clone(),
            snapshots: self.snapshots.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> Result<(), io::Error> {
        let snapshots = self.snapshots.clone();
        let (for_disk, shared) = (meta.clone(), self.shared.clone());
        blocking(move || {
            let machine = match snapshot {
                SnapshotData::Whole(file) => snapshots.keep(&for_disk, file)?.restore()?,
                SnapshotData::Received(part) => {
                    let machine = part.reader()?.restore()?;
                    snapshots.adopt(&for_disk, part)?;
                    machine
                }
            };
            shared.install(machine);
            Ok(())
        })
        .await?;
        *self.position.lock() =
            Position { applied: meta.last_log_id, membership: meta.last_membership.clone() };
        self.applied.send_replace(meta.last_log_id.map_or(0, |id| id.index));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf>, io::Error> {
        let snapshots = self.snapshots.clone();
        let newest = blocking(move || Ok(snapshots.newest()?)).await?;
        Ok(newest.map(|(meta, file)| Snapshot { meta, snapshot: SnapshotData::Whole(file) }))
    }
}

/// A snapshot as openraft passes it around.
pub type SnapshotOf = openraft::type_config::alias::SnapshotOf<Types, SnapshotData>;

/// Writes the snapshot of a moment.
pub struct Builder {
    view: Arc<View>,
    position: Position,
    snapshots: Snapshots,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf, io::Error> {
        let position = self.position.clone();
        let meta = SnapshotMeta { last_log_id: position.applied, last_membership: position.membership };
        let (view, snapshots, for_disk) = (self.view.clone(), self.snapshots.clone(), meta.clone());
        let file = blocking(move || Ok(snapshots.write(&for_disk, &view)?)).await?;
        Ok(Snapshot { meta, snapshot: SnapshotData::Whole(file) })
    }
}

/// Runs work that waits for the disk on a thread that may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
