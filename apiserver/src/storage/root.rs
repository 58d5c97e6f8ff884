//! `--etcd-prefix`: a [`Kv`] that keeps below another root what this server names by [`keys::ROOT`], so that several clusters
//! can share one store.
//!
//!     storage ── /registry/pods/a ──► Rooted ── /lab/pods/a ──► Kv
//!
//! In: calls with this server's names. Out: the same calls with the store's, and answers with this server's again. Keys beside
//! the root, such as the one of compaction, are the whole store's and stay as they are, as upstream.

use super::keys;
use bytes::Bytes;
use coracle_daemon::Tasks;
use coracle_etcd::kv::prefix_end;
use coracle_etcd::proto::{
    KeyValue, RangeRequest, RangeResponse, RequestOp, ResponseOp, TxnRequest, TxnResponse, request_op,
    response_op,
};
use coracle_etcd::{Kv, KvError, WatchBatch, WatchStream};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Batches of a watch that wait, named anew.
const BATCHES_WAITING: usize = 16;

/// Where all keys of this server stand in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root(String);

impl Root {
    /// Of the flag; slashes too many or too few do not matter.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        let parts: Vec<&str> = prefix.split('/').filter(|part| !part.is_empty()).collect();
        let joined = parts.join("/");
        Self(if joined.is_empty() { "/".to_owned() } else { format!("/{joined}/") })
    }

    /// Whether both sides use the same names.
    fn is_usual(&self) -> bool {
        self.0 == keys::ROOT
    }

    /// A key as the store names it.
    #[must_use]
    pub fn stored(&self, key: &Bytes) -> Bytes {
        if self.is_usual() {
            return key.clone();
        }
        swapped(key, keys::ROOT.as_bytes(), self.0.as_bytes())
    }

    /// The inverse.
    fn named(&self, key: &Bytes) -> Bytes {
        swapped(key, self.0.as_bytes(), keys::ROOT.as_bytes())
    }

    /// The end of a range as the store names it.
    fn end(&self, end: &Bytes) -> Bytes {
        if *end == prefix_end(keys::ROOT.as_bytes()) {
            prefix_end(self.0.as_bytes())
        } else {
            self.stored(end)
        }
    }
}

fn swapped(key: &Bytes, from: &[u8], to: &[u8]) -> Bytes {
    key.strip_prefix(from).map_or_else(|| key.clone(), |rest| [to, rest].concat().into())
}

/// See the module.
pub struct Rooted {
    kv: Arc<dyn Kv>,
    root: Root,
    tasks: Tasks,
}

impl Rooted {
    /// `kv` with its keys below `root`; `kv` itself when that is the usual one.
    #[must_use]
    pub fn over(kv: Arc<dyn Kv>, root: &Root, tasks: &Tasks) -> Arc<dyn Kv> {
        if root.is_usual() {
            return kv;
        }
        Arc::new(Self { kv, root: root.clone(), tasks: tasks.clone() })
    }

    fn range_request(&self, request: &mut RangeRequest) {
        request.key = self.root.stored(&request.key);
        request.range_end = self.root.end(&request.range_end);
    }

    fn request(&self, op: &mut RequestOp) {
        match &mut op.request {
            Some(request_op::Request::RequestPut(put)) => put.key = self.root.stored(&put.key),
            Some(request_op::Request::RequestRange(range)) => self.range_request(range),
            Some(request_op::Request::RequestDeleteRange(delete)) => {
                delete.key = self.root.stored(&delete.key);
                delete.range_end = self.root.end(&delete.range_end);
            }
            Some(request_op::Request::RequestTxn(txn)) => self.txn_request(txn),
            None => {}
        }
    }

    fn txn_request(&self, txn: &mut TxnRequest) {
        for compare in &mut txn.compare {
            compare.key = self.root.stored(&compare.key);
            compare.range_end = self.root.end(&compare.range_end);
        }
        txn.success.iter_mut().chain(&mut txn.failure).for_each(|op| self.request(op));
    }

    fn rename<'a>(&self, kvs: impl IntoIterator<Item = &'a mut KeyValue>) {
        for kv in kvs {
            kv.key = self.root.named(&kv.key);
        }
    }

    fn answer(&self, answer: &mut ResponseOp) {
        match &mut answer.response {
            Some(response_op::Response::ResponseRange(range)) => self.rename(&mut range.kvs),
            Some(response_op::Response::ResponsePut(put)) => self.rename(&mut put.prev_kv),
            Some(response_op::Response::ResponseDeleteRange(delete)) => self.rename(&mut delete.prev_kvs),
            Some(response_op::Response::ResponseTxn(txn)) => {
                txn.responses.iter_mut().for_each(|answer| self.answer(answer));
            }
            None => {}
        }
    }
}

#[async_trait::async_trait]
impl Kv for Rooted {
    async fn range(&self, mut request: RangeRequest) -> Result<RangeResponse, KvError> {
        self.range_request(&mut request);
        let mut answer = self.kv.range(request).await?;
        self.rename(&mut answer.kvs);
        Ok(answer)
    }

    async fn txn(&self, mut request: TxnRequest) -> Result<TxnResponse, KvError> {
        self.txn_request(&mut request);
        let mut answer = self.kv.txn(request).await?;
        answer.responses.iter_mut().for_each(|answer| self.answer(answer));
        Ok(answer)
    }

    async fn compact(&self, revision: i64) -> Result<(), KvError> {
        self.kv.compact(revision).await
    }

    async fn lease_grant(&self, ttl_seconds: i64) -> Result<i64, KvError> {
        self.kv.lease_grant(ttl_seconds).await
    }

    async fn lease_keep_alive(&self, lease: i64) -> Result<i64, KvError> {
        self.kv.lease_keep_alive(lease).await
    }

    async fn watch(
        &self,
        key: Bytes,
        range_end: Bytes,
        start_revision: i64,
        prev_kv: bool,
    ) -> Result<WatchStream, KvError> {
        let (key, range_end) = (self.root.stored(&key), self.root.end(&range_end));
        let from = self.kv.watch(key, range_end, start_revision, prev_kv).await?;
        let (to, batches) = mpsc::channel(BATCHES_WAITING);
        let progress = from.progress_requests();
        let own = Self { kv: self.kv.clone(), root: self.root.clone(), tasks: self.tasks.clone() };
        self.tasks.run("keys below another root", own.relay(from, to));
        Ok(WatchStream::new(batches, progress))
    }
}

impl Rooted {
    /// Names anew what a watch of the store tells, until either end is gone.
    async fn relay(self, mut from: WatchStream, to: mpsc::Sender<Result<WatchBatch, KvError>>) {
        let stop = self.tasks.stopping();
        loop {
            let mut batch = tokio::select! {
                batch = from.next() => batch,
                () = to.closed() => return,
                () = stop.cancelled() => return,
            };
            if let Ok(WatchBatch::Events { events, .. }) = &mut batch {
                for event in events {
                    self.rename(event.kv.iter_mut().chain(&mut event.prev_kv));
                }
            }
            let over = batch.is_err();
            if to.send(batch).await.is_err() || over {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_etcd::memory::MemoryKv;
    use coracle_etcd::proto::compare::{CompareResult, CompareTarget, TargetUnion};
    use coracle_etcd::proto::{Compare, DeleteRangeRequest, PutRequest};

    #[test]
    fn a_root_is_written_with_any_slashes() {
        for (flag, root) in
            [("/registry", "/registry/"), ("lab", "/lab/"), ("//a//b/", "/a/b/"), ("/", "/"), ("", "/")]
        {
            assert_eq!(Root::new(flag), Root(root.to_owned()), "{flag}");
        }
    }

    fn put(key: &'static str) -> RequestOp {
        let put = PutRequest { key: key.into(), value: "v".into(), ..PutRequest::default() };
        RequestOp { request: Some(request_op::Request::RequestPut(put)) }
    }

    fn absent(key: &'static str) -> Compare {
        Compare {
            result: CompareResult::Equal as i32,
            target: CompareTarget::Mod as i32,
            key: key.into(),
            target_union: Some(TargetUnion::ModRevision(0)),
            range_end: Bytes::new(),
        }
    }

    fn all(root: &'static str) -> RangeRequest {
        RangeRequest { key: root.into(), range_end: prefix_end(root.as_bytes()), ..RangeRequest::default() }
    }

    fn names(kvs: &[KeyValue]) -> Vec<&str> {
        kvs.iter().filter_map(|kv| std::str::from_utf8(&kv.key).ok()).collect()
    }

    #[tokio::test]
    async fn another_root_shows_in_the_store_alone() {
        let memory: Arc<dyn Kv> = Arc::new(MemoryKv::default());
        let kv = Rooted::over(memory.clone(), &Root::new("/lab"), &Tasks::default());
        let root = Bytes::from_static(keys::ROOT.as_bytes());
        let mut watch = kv.watch(root.clone(), prefix_end(&root), 0, true).await.expect("watch");
        for (key, fresh) in [("/registry/pods/a", true), ("/registry/pods/a", false), ("compact", true)] {
            let read = RequestOp { request: Some(request_op::Request::RequestRange(all("/registry/pods/"))) };
            let request =
                TxnRequest { compare: vec![absent(key)], success: vec![put(key)], failure: vec![read] };
            let answer = kv.txn(request).await.expect("txn");
            assert_eq!(answer.succeeded, fresh, "{key}");
            if let Some(response_op::Response::ResponseRange(range)) = &answer.responses[0].response {
                assert_eq!(names(&range.kvs), ["/registry/pods/a"]);
            }
        }
        assert_eq!(names(&kv.range(all("/registry/")).await.expect("range").kvs), ["/registry/pods/a"]);
        assert_eq!(names(&memory.range(all("/lab/")).await.expect("range").kvs), ["/lab/pods/a"]);
        assert!(memory.range(all("/registry/")).await.expect("range").kvs.is_empty());
        assert_eq!(memory.range(all("compact")).await.expect("range").count, 1);
        let gone = DeleteRangeRequest {
            key: "/registry/".into(),
            range_end: prefix_end(b"/registry/"),
            ..DeleteRangeRequest::default()
        };
        let delete = RequestOp { request: Some(request_op::Request::RequestDeleteRange(gone)) };
        kv.txn(TxnRequest { success: vec![delete], ..TxnRequest::default() }).await.expect("delete");
        let mut told = Vec::new();
        while told.len() < 2 {
            if let WatchBatch::Events { events, .. } = watch.next().await.expect("told") {
                told.extend(events.into_iter().filter_map(|event| event.kv.map(|kv| kv.key)));
            }
        }
        assert_eq!(told, ["/registry/pods/a", "/registry/pods/a"]);
    }
}
