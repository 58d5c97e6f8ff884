//! A [`Kv`] whose calls are measured.

use super::{Histogram, Histograms};
use crate::meters::Register;
use crate::storage::keys;
use bytes::Bytes;
use coracle_daemon::clock::Instant;
use coracle_etcd::proto::compare::{CompareTarget, TargetUnion};
use coracle_etcd::proto::request_op::Request;
use coracle_etcd::proto::{RangeRequest, RangeResponse, TxnRequest, TxnResponse};
use coracle_etcd::{Kv, KvError, WatchStream};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use std::sync::Arc;

const BOUNDS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Call {
    operation: &'static str,
    r#type: String,
}

/// The store, measured.
pub struct Measured {
    kv: Arc<dyn Kv>,
    times: Histograms<Call>,
    calls: Family<Call, Counter>,
    failures: Family<Call, Counter>,
}

impl Measured {
    /// Told of at a registry.
    pub fn new(kv: Arc<dyn Kv>, registry: &mut Registry) -> Self {
        let mut to = Register::of(registry, "etcd_");
        let times = Family::new_with_constructor((|| Histogram::seconds(&BOUNDS)) as fn() -> Histogram);
        Self {
            kv,
            times: to.add("request_duration_seconds", "Time of the store to answer", times),
            calls: to.add("requests", "Calls of the store", Family::default()),
            failures: to.add("request_errors", "Calls of the store that failed", Family::default()),
        }
    }

    fn observe<T>(&self, call: &Call, began: Instant, done: &Result<T, KvError>) {
        self.times.get_or_create(call).took(began.elapsed());
        self.calls.get_or_create(call).inc();
        if done.is_err() {
            self.failures.get_or_create(call).inc();
        }
    }
}

/// What a read is called, and of which resource.
fn of_range(request: &RangeRequest) -> Call {
    let operation = if request.range_end.is_empty() { "get" } else { "list" };
    Call { operation, r#type: resource(&request.key) }
}

/// What a write is called, by its first operation.
fn of_txn(request: &TxnRequest) -> Call {
    let is_new = |key: &Bytes| {
        request.compare.iter().any(|compare| {
            compare.key == *key
                && match compare.target() {
                    CompareTarget::Mod => compare.target_union == Some(TargetUnion::ModRevision(0)),
                    CompareTarget::Create => compare.target_union == Some(TargetUnion::CreateRevision(0)),
                    CompareTarget::Version => compare.target_union == Some(TargetUnion::Version(0)),
                    _ => false,
                }
        })
    };
    let (operation, key) = match request.success.first().and_then(|op| op.request.as_ref()) {
        Some(Request::RequestPut(put)) => (if is_new(&put.key) { "create" } else { "update" }, &put.key),
        Some(Request::RequestDeleteRange(delete)) => ("delete", &delete.key),
        Some(Request::RequestRange(range)) => ("get", &range.key),
        _ => return Call { operation: "txn", r#type: String::new() },
    };
    Call { operation, r#type: resource(key) }
}

fn resource(key: &[u8]) -> String {
    let of = std::str::from_utf8(key).ok().and_then(keys::resource_of);
    of.map(|of| of.to_string()).unwrap_or_default()
}

#[async_trait::async_trait]
impl Kv for Measured {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, KvError> {
        let (call, began) = (of_range(&request), Instant::now());
        let done = self.kv.range(request).await;
        self.observe(&call, began, &done);
        done
    }

    async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, KvError> {
        let (call, began) = (of_txn(&request), Instant::now());
        let done = self.kv.txn(request).await;
        self.observe(&call, began, &done);
        done
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
        self.kv.watch(key, range_end, start_revision, prev_kv).await
    }
}
