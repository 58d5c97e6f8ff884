//! One watch as a stream of batches.

use crate::error::KvError;
use crate::proto::Event;
use tokio::sync::mpsc;

/// Batches that may wait for a slow reader before the watch waits too.
pub const BATCHES_WAITING: usize = 256;

/// What a watch tells.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchBatch {
    /// All events of one or more revisions, in order; never a part of a revision at the end.
    Events {
        /// The last revision in the batch.
        revision: i64,
        /// The events.
        events: Vec<Event>,
    },
    /// Everything up to `revision` has been told.
    Progress {
        /// The store's revision.
        revision: i64,
    },
}

/// The receiving end of a watch. Dropping it ends the watch.
pub struct WatchStream {
    batches: mpsc::Receiver<Result<WatchBatch, KvError>>,
    progress: mpsc::Sender<()>,
}

impl WatchStream {
    /// From its two channels; `progress` carries requests for a progress batch.
    #[must_use]
    pub fn new(batches: mpsc::Receiver<Result<WatchBatch, KvError>>, progress: mpsc::Sender<()>) -> Self {
        Self { batches, progress }
    }

    /// The next batch. After an error the watch is over.
    pub async fn next(&mut self) -> Result<WatchBatch, KvError> {
        self.batches.recv().await.unwrap_or_else(|| Err(KvError::Unavailable("the watch ended".to_owned())))
    }

    /// Asks for a [`WatchBatch::Progress`]; one that is already asked for is enough.
    pub fn request_progress(&self) {
        // A full channel holds such a request already; a closed one is told by `next`.
        let _ = self.progress.try_send(());
    }

    /// A handle that asks for progress while another task reads.
    #[must_use]
    pub fn progress_requests(&self) -> mpsc::Sender<()> {
        self.progress.clone()
    }
}
