//! openraft's log storage over the write-ahead log. The apply path and the followers' senders read new entries from memory;
//! who lags reads older ones from the disk.

use super::apply::blocking;
use super::types::{
    LogId, RaftEntryOf, Types, Vote, entry_id, log_id, raft_entry, raft_vote, wal_entry, wal_vote,
};
use crate::wal::{Durability, Record, Wal};
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use tokio::sync::watch;

/// Bytes of entries that are sent to a follower at once, unless one entry has more.
const READ_BYTES: usize = 1 << 20;
/// Bytes of entries that are handed to the log's thread as one request.
const WRITE_BYTES: usize = 1 << 20;

/// The log of a member; clones share it.
#[derive(Clone)]
pub struct Log {
    wal: Arc<Wal>,
    /// Index of the last entry.
    last: Arc<watch::Sender<u64>>,
    /// Whose log it is, once that is known.
    member: Option<u64>,
}

impl Log {
    /// A log that was just opened.
    #[must_use]
    pub fn new(wal: Wal) -> Self {
        let last = wal.head().last.map_or(0, |last| last.index);
        Self { wal: Arc::new(wal), last: Arc::new(watch::Sender::new(last)), member: None }
    }

    /// The log of `member`.
    #[must_use]
    pub fn of(self, member: u64) -> Self {
        Self { member: Some(member), ..self }
    }

    /// Index of the last entry, as it changes.
    #[must_use]
    pub fn last(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    /// Whether the member has ever voted or taken an entry.
    #[must_use]
    pub fn is_pristine(&self) -> bool {
        self.wal.is_pristine()
    }

    /// See [`Wal::index_before_last`].
    #[must_use]
    pub fn index_before_last(&self, bytes: usize) -> Option<u64> {
        self.wal.index_before_last(bytes)
    }

    fn tell_last(&self) {
        self.last.send_replace(self.wal.head().last.map_or(0, |last| last.index));
    }

    async fn read(&self, start: u64, end: u64, limit: usize) -> io::Result<Vec<RaftEntryOf>> {
        let entries = match self.wal.resident(start, end, limit) {
            Some(entries) => entries,
            None => {
                let wal = self.wal.clone();
                blocking(move || wal.read(start, end, limit)).await?
            }
        };
        entries.iter().map(raft_entry).collect()
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
        self.read(start, end, usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<RaftEntryOf>, io::Error> {
        self.read(start, end, READ_BYTES).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.wal.head().vote.as_ref().map(raft_vote))
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<openraft::LogState<Types>, io::Error> {
        let head = self.wal.head();
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
        self.wal.write(vec![Record::Vote(wal_vote(vote))], Durability::Now, Some(done))?;
        stable.await.map_err(|_| io::Error::other("the write-ahead log is closed"))?
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        // Only a hint for the next start, so it need not wait for the disk.
        self.wal.write(vec![Record::Committed(committed.as_ref().map(entry_id))], Durability::Later, None)
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.wal.head().committed.as_ref().map(log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = RaftEntryOf> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let (mut records, mut bytes, mut leader) = (Vec::new(), 0, self.member);
        for entry in entries {
            let entry = wal_entry(&entry)?;
            bytes += entry.payload.len();
            leader = Some(entry.id.leader);
            records.push(Record::Entry(entry));
            if bytes >= WRITE_BYTES {
                self.wal.write(std::mem::take(&mut records), Durability::Now, None)?;
                bytes = 0;
            }
        }
        // Requests complete in order, so the last one speaks for all.
        let done = Box::new(move |result| callback.io_completed(result));
        // A follower has one request of its leader's at a time; a leader has more to do than to wait for its disk.
        let durability = if leader == self.member { Durability::Now } else { Durability::Here };
        self.wal.write(records, durability, Some(done))?;
        self.tell_last();
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        // Stable together with the entries that take the place of these: until then the old ones do no harm.
        self.wal.write(vec![Record::TruncateAfter(last.as_ref().map(entry_id))], Durability::Later, None)?;
        self.tell_last();
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.wal.write(vec![Record::Purge(entry_id(&upto))], Durability::Now, None)
    }
}
