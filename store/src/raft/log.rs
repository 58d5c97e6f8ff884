//! openraft's log storage over the write-ahead log. All entries that are not purged are also kept in memory, where the
//! apply path and the followers' senders read them; how many that are is bounded by snapshots (see [`super::compaction`]).

use super::types::{
    LogId, RaftEntryOf, Types, Vote, entry_id, log_id, raft_entry, raft_vote, wal_entry, wal_vote,
};
use crate::wal::{Durability, LogState, Record, Wal};
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use parking_lot::RwLock;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

/// Bytes of entries that are sent to a follower at once, unless one entry has more.
const READ_BYTES: usize = 1 << 20;
/// Bytes of entries that are handed to the log's thread as one request.
const WRITE_BYTES: usize = 1 << 20;

/// The log of a member; clones share it.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
}

struct Shared {
    state: RwLock<LogState>,
    wal: Wal,
}

impl Log {
    /// A log that was just opened.
    #[must_use]
    pub fn new(wal: Wal, state: LogState) -> Self {
        Self { shared: Arc::new(Shared { state: RwLock::new(state), wal }) }
    }

    /// Whether the member has ever voted or taken an entry.
    #[must_use]
    pub fn is_pristine(&self) -> bool {
        *self.shared.state.read() == LogState::default()
    }

    /// The greatest index up to which entries can be dropped while at least `bytes` of entries stay; `None` when there
    /// are fewer.
    #[must_use]
    pub fn index_before_last(&self, bytes: usize) -> Option<u64> {
        let state = self.shared.state.read();
        let mut kept = 0;
        state.entries.iter().rev().find_map(|entry| {
            kept += entry.payload.len();
            (kept > bytes).then_some(entry.id.index)
        })
    }

    /// Makes the change in memory and queues it for the disk.
    fn change(
        &self,
        records: Vec<Record>,
        durability: Durability,
        done: Option<crate::wal::Done>,
    ) -> io::Result<()> {
        let mut state = self.shared.state.write();
        for record in &records {
            state.apply(record.clone()).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?;
        }
        // Within the lock: the disk must see changes in the order that memory does.
        self.shared.wal.write(records, durability, done);
        Ok(())
    }

    fn read(&self, start: u64, end: u64, limit: usize) -> io::Result<Vec<RaftEntryOf>> {
        let state = self.shared.state.read();
        let mut bytes = 0;
        state
            .range(start, end)
            .take_while(|entry| {
                let more = bytes == 0 || bytes + entry.payload.len() <= limit;
                bytes += entry.payload.len().max(1);
                more
            })
            .map(raft_entry)
            .collect()
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<RaftEntryOf>, io::Error> {
        let start = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(index) => index + 1,
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        self.read(start, end, usize::MAX)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<RaftEntryOf>, io::Error> {
        self.read(start, end, READ_BYTES)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.shared.state.read().head.vote.as_ref().map(raft_vote))
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<openraft::LogState<Types>, io::Error> {
        let head = self.shared.state.read().head;
        Ok(openraft::LogState {
            last_purged_log_id: head.purged.as_ref().map(log_id),
            last_log_id: head.last.as_ref().map(log_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (done, stable) = tokio::sync::oneshot::channel();
        let done = Box::new(move |result| {
            // Nobody waits any more when the member is stopping.
            let _ = done.send(result);
        });
        self.change(vec![Record::Vote(wal_vote(vote))], Durability::Now, Some(done))?;
        stable.await.map_err(|_| io::Error::other("the write-ahead log is closed"))?
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        // Only a hint for the next start, so it need not wait for the disk.
        self.change(vec![Record::Committed(committed.as_ref().map(entry_id))], Durability::Later, None)
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.shared.state.read().head.committed.as_ref().map(log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = RaftEntryOf> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let (mut records, mut bytes) = (Vec::new(), 0);
        for entry in entries {
            let entry = wal_entry(&entry)?;
            bytes += entry.payload.len();
            records.push(Record::Entry(entry));
            if bytes >= WRITE_BYTES {
                self.change(std::mem::take(&mut records), Durability::Now, None)?;
                bytes = 0;
            }
        }
        // Requests complete in order, so the last one speaks for all.
        self.change(records, Durability::Now, Some(Box::new(move |result| callback.io_completed(result))))
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        // Stable together with the entries that take the place of these: until then the old ones do no harm.
        self.change(vec![Record::TruncateAfter(last.as_ref().map(entry_id))], Durability::Later, None)
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.change(vec![Record::Purge(entry_id(&upto))], Durability::Now, None)
    }
}
