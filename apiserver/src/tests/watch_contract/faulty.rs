//! A store whose watches break, whose answers get lost, and which cannot always be reached.

use super::Draws;
use bytes::Bytes;
use coracle_etcd::memory::MemoryKv;
use coracle_etcd::proto::{RangeRequest, RangeResponse, TxnRequest, TxnResponse};
use coracle_etcd::{Kv, KvError, WatchStream};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc;

/// Of so many writes the answer to one gets lost, and one is not done.
const LOST_ONCE_IN: u64 = 12;
/// Of so many reads one fails.
const UNREAD_ONCE_IN: u64 = 60;
/// Batches until a watch breaks, at most.
const BATCHES_MAX: u64 = 200;

#[derive(Clone)]
pub struct Faulty {
    memory: MemoryKv,
    draws: Arc<Mutex<Draws>>,
    active: Arc<AtomicBool>,
}

impl Faulty {
    pub fn over(memory: MemoryKv) -> Self {
        Self { memory, draws: Arc::new(Mutex::new(Draws::of("store", 0))), active: Arc::default() }
    }

    /// From now on there are faults.
    pub fn begin(&self) {
        self.active.store(true, Ordering::Relaxed);
    }

    /// From now on there are none.
    pub fn end(&self) {
        self.active.store(false, Ordering::Relaxed);
    }

    fn fails(&self, once_in: u64) -> bool {
        self.active.load(Ordering::Relaxed) && self.draws.lock().once_in(once_in)
    }
}

fn away() -> KvError {
    KvError::Unavailable("this test says so".to_owned())
}

#[async_trait::async_trait]
impl Kv for Faulty {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, KvError> {
        if self.fails(UNREAD_ONCE_IN) { Err(away()) } else { self.memory.range(request).await }
    }

    async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, KvError> {
        if self.fails(LOST_ONCE_IN) {
            return Err(away());
        }
        let answer = self.memory.txn(request).await;
        if self.fails(LOST_ONCE_IN) {
            // Others get to do something before the writer looks again.
            for _ in 0..16 {
                tokio::task::yield_now().await;
            }
            return Err(KvError::Unknown("this test lost it".to_owned()));
        }
        answer
    }

    async fn compact(&self, revision: i64) -> Result<(), KvError> {
        self.memory.compact(revision).await
    }

    async fn lease_grant(&self, ttl_seconds: i64) -> Result<i64, KvError> {
        self.memory.lease_grant(ttl_seconds).await
    }

    async fn lease_keep_alive(&self, lease: i64) -> Result<i64, KvError> {
        self.memory.lease_keep_alive(lease).await
    }

    async fn watch(
        &self,
        key: Bytes,
        range_end: Bytes,
        start_revision: i64,
        prev_kv: bool,
    ) -> Result<WatchStream, KvError> {
        let mut inner = self.memory.watch(key, range_end, start_revision, prev_kv).await?;
        let progress = inner.progress_requests();
        let (batches, out) = mpsc::channel(4);
        let faulty = self.clone();
        #[expect(clippy::disallowed_methods, reason = "a store in a test: the task ends with its reader")]
        tokio::spawn(async move {
            let lasts = 1 + faulty.draws.lock().below(BATCHES_MAX);
            for batch in 0.. {
                let breaks = faulty.active.load(Ordering::Relaxed) && batch >= lasts;
                let told = if breaks { Err(away()) } else { inner.next().await };
                let over = told.is_err();
                if batches.send(told).await.is_err() || over {
                    return;
                }
            }
        });
        Ok(WatchStream::new(out, progress))
    }
}
