//! Writes whose answers get lost, and watches while others write.

use super::{Fixture, MAPS, event, map};
use bytes::Bytes;
use coracle_etcd::memory::MemoryKv;
use coracle_etcd::proto::{RangeRequest, RangeResponse, TxnRequest, TxnResponse};
use coracle_etcd::{Kv, KvError, WatchStream};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What becomes of the answer to a write.
enum Lost {
    /// The write is done, and another of the same key comes between before the writer can look.
    Hidden,
    /// The store keeps the write to itself, as one that stands still does.
    Kept,
}

/// A store that loses the answer of the next write when told to, and tells nobody of what is written once it is silent.
#[derive(Clone, Default)]
struct Losing {
    memory: MemoryKv,
    next: Arc<Mutex<Option<Lost>>>,
    kept: Arc<Mutex<Vec<TxnRequest>>>,
    silent: Arc<AtomicBool>,
}

impl Losing {
    fn lose(&self, how: Lost) {
        *self.next.lock() = Some(how);
    }
}

#[async_trait::async_trait]
impl Kv for Losing {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, KvError> {
        self.memory.range(request).await
    }

    async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, KvError> {
        let lost = self.next.lock().take();
        match lost {
            None => return self.memory.txn(request).await,
            Some(Lost::Kept) => self.kept.lock().push(request),
            Some(Lost::Hidden) => {
                self.memory.txn(request.clone()).await?;
                let mut other = TxnRequest { success: request.success, ..TxnRequest::default() };
                for op in &mut other.success {
                    if let Some(coracle_etcd::proto::request_op::Request::RequestPut(put)) = &mut op.request {
                        let mut object: Value = serde_json::from_slice(&put.value).expect("an object");
                        object["data"]["other"] = json!("1");
                        put.value = crate::storage::entry::stored(&object).into();
                    }
                }
                self.memory.txn(other).await?;
            }
        }
        Err(KvError::Unknown("lost".to_owned()))
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
        let (batches, out) = tokio::sync::mpsc::channel(4);
        let silent = self.silent.clone();
        #[expect(clippy::disallowed_methods, reason = "a store in a test: the task ends with its reader")]
        tokio::spawn(async move {
            loop {
                let told = inner.next().await;
                let over = told.is_err();
                if silent.load(Ordering::SeqCst) {
                    return batches.closed().await;
                }
                if batches.send(told).await.is_err() || over {
                    return;
                }
            }
        });
        Ok(WatchStream::new(out, progress))
    }
}

#[tokio::test]
async fn a_change_back_is_made_though_the_cache_never_saw_the_change() {
    let kv = Losing::default();
    let fixture = Fixture::on(Arc::new(kv.clone()), &[]).await;
    let path = format!("{MAPS}/a");
    let (_, made) = fixture.call("POST", MAPS, map("a", "1")).await;
    fixture.server.store.fresh().await.expect("fresh");
    kv.silent.store(true, Ordering::SeqCst);
    assert_eq!(fixture.call("PUT", &path, map("a", "2")).await.0, 200);
    // As the cache knows it, each of these changes nothing.
    let (code, dry) = fixture.call("PUT", &format!("{path}?dryRun=All"), map("a", "1")).await;
    assert_eq!((code, &dry["data"]), (200, &made["data"]), "{dry}");
    assert_ne!(dry["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"], "{dry}");
    let (code, stale) = fixture.call("PUT", &path, made.clone()).await;
    assert_eq!((code, &stale["reason"]), (409, &json!("Conflict")), "{stale}");
    let (code, back) = fixture.call("PUT", &path, map("a", "1")).await;
    assert_eq!(code, 200, "{back}");
    let key = RangeRequest { key: "/registry/configmaps/default/a".into(), ..RangeRequest::default() };
    let stored = kv.memory.range(key).await.expect("range").kvs.remove(0);
    assert_eq!(stored.version, 3, "created, changed, changed back");
    let stored: Value = serde_json::from_slice(&stored.value).expect("an object");
    assert_eq!(stored["data"], made["data"], "{stored}");
    fixture.stop().await;
}

#[tokio::test]
async fn a_change_whose_answer_got_lost_is_not_made_again() {
    let kv = Losing::default();
    let fixture = Fixture::on(Arc::new(kv.clone()), &[]).await;
    let mut object = map("a", "1");
    object["metadata"]["finalizers"] = json!([]);
    fixture.call("POST", MAPS, object).await;
    let path = format!("{MAPS}/a");
    kv.lose(Lost::Hidden);
    let add = json!([{"op": "add", "path": "/metadata/finalizers", "value": ["example.com/a"]},
        {"op": "add", "path": "/metadata/finalizers/-", "value": "example.com/b"}]);
    let (code, told) = fixture.typed("PATCH", &path, "application/json-patch+json", add).await;
    assert_eq!((code, &told["reason"]), (504, &json!("Timeout")), "{told}");
    // Done once, and what came after it stands: it was not made again on top of that.
    let (_, now) = fixture.call("GET", &path, Value::Null).await;
    assert_eq!(now["data"]["other"], "1", "{now}");
    assert_eq!(now["metadata"]["finalizers"], json!(["example.com/a", "example.com/b"]));
    let revision = kv
        .memory
        .range(RangeRequest { key: "/registry/configmaps/default/a".into(), ..RangeRequest::default() });
    assert_eq!(revision.await.expect("range").kvs[0].version, 3, "created, changed, changed by another");
    fixture.stop().await;
}

#[tokio::test]
async fn a_change_that_a_store_kept_to_itself_is_made_by_the_next_and_not_twice() {
    let kv = Losing::default();
    let fixture = Fixture::on(Arc::new(kv.clone()), &[]).await;
    let path = format!("{MAPS}/a");
    fixture.call("POST", MAPS, map("a", "1")).await;
    kv.lose(Lost::Kept);
    let (code, changed) = fixture.call("PUT", &path, map("a", "2")).await;
    assert_eq!((code, &changed["data"]), (200, &map("a", "2")["data"]), "{changed}");
    kv.lose(Lost::Kept);
    let (code, told) = fixture.call("DELETE", &path, Value::Null).await;
    assert_eq!((code, &told["status"]), (200, &json!("Success")), "{told}");
    // A new object may be made, deleted, and made again by the first request: whoever sent it is told that nobody knows.
    kv.lose(Lost::Kept);
    let (code, told) = fixture.call("POST", MAPS, map("a", "3")).await;
    assert_eq!((code, &told["reason"]), (504, &json!("Timeout")), "{told}");
    assert_eq!(fixture.call("POST", MAPS, map("a", "4")).await.0, 201);
    let kept = std::mem::take(&mut *kv.kept.lock());
    assert_eq!(kept.len(), 3);
    for late in kept {
        assert!(!kv.memory.txn(late).await.expect("answered").succeeded, "it has an effect of its own");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn a_watch_ends_at_its_time_however_much_is_written() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let path = format!("{MAPS}?watch=1&allowWatchBookmarks=true&timeoutSeconds=1");
    let mut watch = fixture.send("GET", &path, "", Value::Null).await.into_body();
    fixture.call("POST", MAPS, map("a", "0")).await;
    let one = format!("{MAPS}/a");
    let ends = async {
        for n in 1_u64.. {
            let change = json!({"data": {"v": n.to_string()}});
            fixture.typed("PATCH", &one, "application/merge-patch+json", change).await;
            // There is always another event by the time that the client has taken the last.
            if watch.frame().await.is_none() {
                return;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), ends).await.expect("the watch ends");
    fixture.stop().await;
}

#[tokio::test]
async fn a_watch_that_has_nothing_to_tell_says_about_once_a_minute_how_far_it_is() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let path = "/api/v1/namespaces/default/secrets?watch=1&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&sendInitialEvents=true";
    let mut watch = fixture.send("GET", path, "", Value::Null).await.into_body();
    let mut told = event(&mut watch).await["object"]["metadata"]["resourceVersion"].clone();
    tokio::time::pause();
    for value in ["0", "1"] {
        let began = tokio::time::Instant::now();
        fixture.call("POST", MAPS, map(&format!("m{value}"), value)).await;
        let frame = watch.frame().await.expect("goes on").expect("frame").into_data().expect("data");
        let mark: Value = serde_json::from_slice(&frame).expect("one event");
        assert_eq!(mark["type"], "BOOKMARK", "{mark}");
        assert_ne!(mark["object"]["metadata"]["resourceVersion"], told, "{mark}");
        told = mark["object"]["metadata"]["resourceVersion"].clone();
        let waited = began.elapsed().as_secs();
        assert!((50..=63).contains(&waited), "{waited} s");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn ports_and_addresses_of_others_are_refused_before_a_name_that_is_taken() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let path = "/api/v1/namespaces/default/services";
    let service = |name: &str, address: &str, port: u16| {
        json!({"metadata": {"name": name}, "spec": {"type": "NodePort", "clusterIP": address,
            "ports": [{"port": 80, "nodePort": port}]}})
    };
    let first = || service("first", "10.96.7.1", 30201);
    assert_eq!(fixture.call("POST", path, first()).await.0, 201);
    fixture.server.store.fresh().await.expect("fresh");
    let (dry, field) = (&format!("{path}?dryRun=All"), "field");
    for (path, sent, code, wrong) in [
        (path, first(), 422, "spec.clusterIPs"),
        (path, service("first", "10.96.7.2", 30201), 422, "spec.ports[0].nodePort"),
        (dry, first(), 422, "spec.ports[0].nodePort"),
        // A dry run takes no address.
        (dry, service("first", "10.96.7.1", 30202), 409, ""),
        (path, service("first", "10.96.7.2", 30202), 409, ""),
        (path, service("second", "10.96.7.2", 30202), 201, ""),
    ] {
        let (got, told) = fixture.call("POST", path, sent).await;
        assert_eq!(got, code, "{told}");
        assert_eq!(told["details"]["causes"][0][field].as_str().unwrap_or_default(), wrong, "{told}");
    }
    // Its own port is looked at before that of its health checks.
    let mut checked = service("checked", "10.96.7.4", 30203);
    checked["spec"]["type"] = json!("LoadBalancer");
    checked["spec"]["externalTrafficPolicy"] = json!("Local");
    checked["spec"]["healthCheckNodePort"] = json!(30200);
    assert_eq!(fixture.call("POST", path, checked.clone()).await.0, 201);
    fixture.server.store.fresh().await.expect("fresh");
    checked["spec"]["clusterIP"] = json!("10.96.7.5");
    let (_, told) = fixture.call("POST", path, checked.clone()).await;
    assert_eq!(told["details"]["causes"][0][field], "spec.ports[0].nodePort", "{told}");
    checked["spec"]["ports"][0]["nodePort"] = json!(30204);
    let (code, told) = fixture.call("POST", path, checked).await;
    assert_eq!(code, 500, "{told}");
    assert!(told["message"].as_str().expect("text").contains("HealthCheck NodePort 30200"), "{told}");
    let mut twice = first();
    twice["spec"]["ports"] =
        json!([{"name": "a", "port": 80, "nodePort": 30201}, {"name": "b", "port": 81, "nodePort": 30201}]);
    let (code, told) = fixture.call("PUT", &format!("{path}/first"), twice).await;
    assert_eq!((code, &told["message"]), (500, &json!("duplicate nodePort: {TCP 30201}")));
    // What a Service holds itself it may go on asking for.
    assert_eq!(fixture.call("PUT", &format!("{path}/first?dryRun=All"), first()).await.0, 200);
    fixture.stop().await;
}
