//! When a follower is told more: at once where there are entries, a moment later where there is only word of what is committed.
//!
//! In: openraft's requests to one follower, the end of the log, and members that wait for a commit. Out: the same requests.
//! Most commits are followed by entries, which carry word of them along. A message of its own for each would be three of four
//! messages under load, and entries would wait behind it.

use super::types::Types;
use coracle_daemon::clock;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use openraft::raft::AppendEntriesRequest;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How long word of a commit waits for entries.
const PAUSE: Duration = Duration::from_millis(1);

/// Of one member's requests; clones share it.
#[derive(Clone)]
pub struct Pace {
    /// Index of the log's last entry.
    appended: watch::Receiver<u64>,
    /// By follower: wakes the one who sends to it.
    waiting: Arc<Mutex<HashMap<u64, Arc<Notify>>>>,
}

impl Pace {
    /// With the index of the log's last entry as it grows.
    #[must_use]
    pub fn new(appended: watch::Receiver<u64>) -> Self {
        Self { appended, waiting: Arc::default() }
    }

    /// Has a follower told now what is committed: a client of its waits for that.
    pub fn hurry(&self, follower: u64) {
        if let Some(waiting) = self.waiting.lock().get(&follower) {
            waiting.notify_one();
        }
    }

    /// Takes each of the requests from openraft when it is time for it. They are built when they are taken.
    pub fn paced(
        &self,
        follower: u64,
        requests: impl Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
    ) -> BoxStream<'static, AppendEntriesRequest<Types>> {
        let hurried = self.waiting.lock().entry(follower).or_default().clone();
        let state = (requests, self.appended.clone(), None);
        let next = move |(mut requests, mut appended, sent)| {
            let hurried = hurried.clone();
            async move {
                if let Some(sent) = sent {
                    pause(&mut appended, &hurried, sent).await;
                }
                let request: AppendEntriesRequest<Types> = StreamExt::next(&mut requests).await?;
                // What has no entries is a beat, or word of a commit already: no other follows it soon.
                let sent = request.entries.last().map(|entry| entry.log_id.index);
                Some((request, (requests, appended, sent)))
            }
        };
        futures::stream::unfold(state, next).boxed()
    }
}

async fn pause(appended: &mut watch::Receiver<u64>, hurried: &Notify, sent: u64) {
    tokio::select! {
        biased;
        Ok(_) = appended.wait_for(|last| *last > sent) => {}
        () = hurried.notified() => {}
        () = clock::sleep(PAUSE) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::types::{Vote, raft_entry};
    use crate::wal::{Entry, EntryId};
    use bytes::Bytes;
    use tokio::time::Instant;

    /// With an entry, or with word of a commit only.
    fn request(last: u64, entries: bool) -> AppendEntriesRequest<Types> {
        let entry = Entry { id: EntryId { term: 1, leader: 1, index: last }, kind: 0, payload: Bytes::new() };
        let entries = if entries { vec![raft_entry(&entry).expect("an entry")] } else { Vec::new() };
        AppendEntriesRequest { vote: Vote::new(1, 1), prev_log_id: None, leader_commit: None, entries }
    }

    #[tokio::test(start_paused = true)]
    async fn what_follows_entries_waits_for_more_of_them_or_whoever_waits_or_a_moment() {
        let (last, appended) = watch::channel(1);
        let pace = Pace::new(appended);
        let all = [(1, true), (1, false), (2, true), (3, true), (3, true), (3, false)];
        let requests = futures::stream::iter(all.map(|(last, entries)| request(last, entries)));
        let mut paced = pace.paced(7, requests);
        let mut took = async |before: &dyn Fn()| {
            before();
            let began = Instant::now();
            assert!(paced.next().await.is_some());
            began.elapsed()
        };
        let nothing = || {};
        // The first at once, word of its commit a moment later, and what follows that at once.
        assert!(took(&nothing).await.is_zero());
        assert!(took(&nothing).await >= PAUSE);
        assert!(took(&nothing).await.is_zero());
        // More entries, and a client of the follower, end the wait.
        assert!(took(&|| assert_eq!(last.send_replace(3), 1)).await.is_zero());
        assert!(took(&|| pace.hurry(7)).await.is_zero());
        assert!(took(&|| pace.hurry(8)).await >= PAUSE);
        assert!(paced.next().await.is_none());
    }
}
