//! How far the store is, asked once for all who want to know.
//!
//! In: any number of readers at once. Out: to each a revision that the store had after the reader came. While one question
//! is on its way, whoever comes waits for the next: the store is asked no faster than it answers.

use bytes::Bytes;
use coracle_daemon::panics::Mutex;
use coracle_etcd::proto::RangeRequest;
use coracle_etcd::{Kv, KvError};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use std::sync::Arc;

type Round = Shared<BoxFuture<'static, Result<u64, KvError>>>;

pub struct Rounds {
    kv: Arc<dyn Kv>,
    /// The question that is not yet asked.
    next: Mutex<Option<Round>>,
    /// Held by the one that is.
    turn: tokio::sync::Mutex<()>,
}

impl Rounds {
    pub fn over(kv: &Arc<dyn Kv>) -> Arc<Self> {
        Arc::new(Self { kv: kv.clone(), next: Mutex::default(), turn: tokio::sync::Mutex::default() })
    }

    /// A revision that the store had after this call began.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub async fn revision(self: &Arc<Self>) -> Result<u64, KvError> {
        let round = {
            let mut next = self.next.lock();
            // Whoever waits drives it; it stays until its turn, so that no reader's end takes it from the others.
            next.get_or_insert_with(|| self.clone().ask().boxed().shared()).clone()
        };
        round.await
    }

    async fn ask(self: Arc<Self>) -> Result<u64, KvError> {
        let _turn = self.turn.lock().await;
        // From here on the answer may be older than a reader that comes.
        self.next.lock().take();
        let key = Bytes::from_static(b"/registry/health");
        let request = RangeRequest { key, count_only: true, ..RangeRequest::default() };
        let answer = self.kv.range(request).await?;
        Ok(answer.header.map_or(0, |header| u64::try_from(header.revision).unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_etcd::WatchStream;
    use coracle_etcd::memory::MemoryKv;
    use coracle_etcd::proto::{PutRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse, request_op};
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Answers a question only when told to, as of the time that it was asked.
    #[derive(Default)]
    struct Slow {
        memory: MemoryKv,
        asked: AtomicU64,
        answers: tokio::sync::Notify,
    }

    #[async_trait::async_trait]
    impl Kv for Slow {
        async fn range(&self, request: RangeRequest) -> Result<RangeResponse, KvError> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let answer = self.memory.range(request).await;
            self.answers.notified().await;
            answer
        }

        async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, KvError> {
            self.memory.txn(request).await
        }

        async fn compact(&self, revision: i64) -> Result<(), KvError> {
            self.memory.compact(revision).await
        }

        async fn lease_grant(&self, seconds: i64) -> Result<i64, KvError> {
            self.memory.lease_grant(seconds).await
        }

        async fn lease_keep_alive(&self, lease: i64) -> Result<i64, KvError> {
            self.memory.lease_keep_alive(lease).await
        }

        async fn watch(
            &self,
            key: Bytes,
            end: Bytes,
            from: i64,
            before: bool,
        ) -> Result<WatchStream, KvError> {
            self.memory.watch(key, end, from, before).await
        }
    }

    async fn put(kv: &dyn Kv) {
        let put = PutRequest { key: "/registry/a".into(), ..PutRequest::default() };
        let success = vec![RequestOp { request: Some(request_op::Request::RequestPut(put)) }];
        kv.txn(TxnRequest { success, ..TxnRequest::default() }).await.expect("put");
    }

    #[tokio::test]
    async fn a_question_on_its_way_is_too_old_for_whoever_comes_and_one_more_serves_all() {
        let slow = Arc::new(Slow::default());
        let kv: Arc<dyn Kv> = slow.clone();
        let rounds = Rounds::over(&kv);
        let mut first = Box::pin(rounds.revision());
        assert!(futures::poll!(&mut first).is_pending());
        put(kv.as_ref()).await;
        let mut later: Vec<_> = (0..100).map(|_| Box::pin(rounds.revision())).collect();
        for one in &mut later {
            assert!(futures::poll!(one).is_pending());
        }
        // The reader whose turn comes next is gone: the others get their answer all the same.
        drop(later.remove(0));
        slow.answers.notify_one();
        assert_eq!(first.await, Ok(1));
        let all = futures::future::join_all(later);
        slow.answers.notify_one();
        let told = tokio::time::timeout(std::time::Duration::from_secs(10), all).await.expect("answered");
        assert!(told.into_iter().all(|revision| revision == Ok(2)));
        assert_eq!(slow.asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_question_whose_readers_are_all_gone_holds_nobody_up() {
        let slow = Arc::new(Slow::default());
        let kv: Arc<dyn Kv> = slow.clone();
        let rounds = Rounds::over(&kv);
        let (mut asked, mut waits) = (Box::pin(rounds.revision()), Box::pin(rounds.revision()));
        assert!(futures::poll!(&mut asked).is_pending());
        assert!(futures::poll!(&mut waits).is_pending());
        drop((asked, waits));
        slow.answers.notify_one();
        let revision = tokio::time::timeout(std::time::Duration::from_secs(10), rounds.revision()).await;
        assert_eq!(revision.expect("answered"), Ok(1));
    }
}
