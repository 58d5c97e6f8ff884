//! openraft's state machine over the shared machine: committed entries in, answers to whoever proposed them out.
//!
//! Nothing here is synced for each entry. A restart begins with the image or the newest snapshot, whichever is further, and
//! applies the rest of the log again.

use super::snapshot::{Part, SnapshotFile, Snapshots, is_full};
use super::types::{Applied, LogId, SnapshotMeta, StoredMembership, Types};
use crate::command::Command;
use crate::image::ImageWriter;
use crate::machine::View;
use crate::shared::Shared;
use coracle_daemon::clock;
use futures::{Stream, StreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, Snapshot};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Entries applied under one lock of the machine.
const BATCH: usize = 512;
/// How long to wait before a snapshot that had no room on the disk is tried again.
pub(super) const FULL_PAUSE: Duration = Duration::from_secs(1);
/// How long that gets: each try takes all room there is and gives it back, which the log needs too.
const FULL_PAUSE_MAX: Duration = Duration::from_secs(30);

/// How far the machine is. The image keeps it as its description.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
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

/// How much the log has grown since the last snapshot, which tells when the next one is worth its cost.
#[derive(Debug)]
pub struct Growth {
    /// Bytes that the log may always grow by.
    free: u64,
    bytes: AtomicU64,
    told: AtomicBool,
    due: Notify,
}

impl Growth {
    /// What an entry costs besides its payload.
    const ENTRY: u64 = 64;

    /// Nothing has grown yet.
    #[must_use]
    pub fn new(free: u64) -> Self {
        Self { free, bytes: AtomicU64::new(0), told: AtomicBool::new(false), due: Notify::new() }
    }

    /// Returns when a snapshot must be made to keep the log small.
    pub async fn due(&self) {
        self.due.notified().await;
    }

    /// The log has grown, while the state has `state` bytes.
    fn add(&self, entries: u64, bytes: u64, state: u64) {
        let more = bytes + entries * Self::ENTRY;
        let grown = self.bytes.fetch_add(more, Ordering::Relaxed) + more;
        if grown >= self.free.max(Self::worth(state)) && !self.told.swap(true, Ordering::Relaxed) {
            self.due.notify_one();
        }
    }

    /// A snapshot writes all state, so the log may grow to a good part of that first: for each byte of the log 1.3 bytes of
    /// snapshots are written. A restart seldom reads that much log, as it begins with the image.
    fn worth(state: u64) -> u64 {
        state / 4 * 3
    }

    /// Whether a snapshot now would be worth writing all of `state` bytes.
    fn is_worth(&self, state: u64) -> bool {
        self.bytes.load(Ordering::Relaxed) >= Self::worth(state)
    }

    /// A snapshot is being made.
    fn reset(&self) {
        self.bytes.store(0, Ordering::Relaxed);
        self.told.store(false, Ordering::Relaxed);
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
    image: Option<ImageWriter>,
}

impl Position {
    /// As the image keeps it.
    fn encode(&self) -> Vec<u8> {
        // A struct of numbers and texts always has a postcard form; no bytes would be refused when read.
        postcard::to_stdvec(self).unwrap_or_default()
    }

    /// The inverse; `None` for bytes of another version.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }
}

impl Applier {
    /// Before openraft has told it anything. `shared` stands at `position`.
    #[must_use]
    pub fn new(
        shared: Arc<Shared>,
        position: Position,
        snapshots: Snapshots,
        growth: Arc<Growth>,
        image: Option<ImageWriter>,
    ) -> Self {
        let applied = watch::Sender::new(position.applied.map_or(0, |id| id.index));
        Self { shared, position: Arc::new(Mutex::new(position)), snapshots, applied, growth, image }
    }

    /// Follows the index of the last entry applied.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    fn apply_batch(&mut self, batch: Vec<EntryResponder<Types>>) -> io::Result<()> {
        let mut last = None;
        let mut membership = None;
        let mut commands = Vec::with_capacity(batch.len());
        // Whom to answer, and whether with a command's outcome.
        let mut answers: Vec<(bool, Option<ApplyResponder<Types>>)> = Vec::with_capacity(batch.len());
        let (entries, mut bytes) = (batch.len() as u64, 0);
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
        let crate::shared::Applied { outcomes, changes } = self.shared.apply_batch(&commands);
        let mut position = self.position.lock();
        position.applied = Some(last);
        if let Some(membership) = membership {
            position.membership = membership;
        }
        let description = self.image.as_ref().map(|_| position.encode());
        drop(position);
        if let (Some(image), Some(description)) = (&mut self.image, description) {
            image.update(changes, description, || self.shared.view());
        }
        self.applied.send_replace(last.index);
        let mut outcomes = outcomes.into_iter();
        for (is_command, responder) in answers {
            let outcome = if is_command { outcomes.next().map(Applied::Command) } else { None };
            if let Some(responder) = responder {
                responder.send(outcome.unwrap_or(Applied::Nothing));
            }
        }
        self.growth.add(entries, bytes, self.shared.machine().size());
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

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Self::SnapshotBuilder> {
        let worth = force || self.growth.is_worth(self.shared.machine().size());
        if worth { Some(self.get_snapshot_builder().await) } else { None }
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        self.growth.reset();
        // No entry is applied meanwhile, so view and position belong together.
        Builder {
            view: Arc::new(self.shared.view()),
            position: self.position.lock().clone(),
            snapshots: self.snapshots.clone(),
            applied: self.applied(),
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
        let position = Position { applied: meta.last_log_id, membership: meta.last_membership.clone() };
        if let Some(image) = &mut self.image {
            image.replace(self.shared.view(), position.encode());
        }
        *self.position.lock() = position;
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
    /// Closed once the member applies nothing any more.
    applied: watch::Receiver<u64>,
}

impl Builder {
    /// Waits before it tries again, as no disk tells when there is room; `false` when the member has stopped, for openraft
    /// lets snapshots go on then.
    pub(super) async fn pause(&mut self, pause: Duration) -> bool {
        tokio::select! {
            () = clock::sleep(pause) => true,
            _ = self.applied.wait_for(|_| false) => false,
        }
    }
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf, io::Error> {
        let position = self.position.clone();
        let meta = SnapshotMeta { last_log_id: position.applied, last_membership: position.membership };
        let mut pause = FULL_PAUSE;
        loop {
            let (view, snapshots, for_disk) = (self.view.clone(), self.snapshots.clone(), meta.clone());
            match blocking(move || Ok(snapshots.write(&for_disk, &view)?)).await {
                Ok(file) => return Ok(Snapshot { meta, snapshot: SnapshotData::Whole(file) }),
                // The log has all of it: a member need not end because its disk is full for a while.
                Err(error) if is_full(&error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "no room for a snapshot yet");
                    if !self.pause(pause).await {
                        return Err(error);
                    }
                    pause = (pause * 2).min(FULL_PAUSE_MAX);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Runs work that waits for the disk on a thread that may.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    if clock::is_simulated() {
        return work();
    }
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn a_snapshot_is_due_once_the_log_has_grown_by_three_quarters_of_the_state_and_by_what_is_free() {
        for (free, state, grown, due) in
            [(100, 40, 99, false), (100, 40, 100, true), (100, 400, 299, false), (100, 400, 300, true)]
        {
            let growth = Growth::new(free);
            growth.add(0, grown, state);
            let told = growth.due().now_or_never().is_some();
            assert_eq!(told, due, "{grown} bytes of log, {state} of state");
        }
        let growth = Growth::new(100);
        growth.add(0, 300, 400);
        assert!(growth.is_worth(400) && !growth.is_worth(404));
        growth.reset();
        assert!(!growth.is_worth(400), "it counts from the last one on");
    }
}
