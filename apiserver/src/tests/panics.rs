//! A request that finds a bug harms nobody else.

use super::{Fixture, MAPS, certificate, map};
use axum::body::Body;
use bytes::Bytes;
use coracle_etcd::memory::MemoryKv;
use coracle_etcd::proto::{RangeRequest, RangeResponse, TxnRequest, TxnResponse};
use coracle_etcd::{Kv, KvError, WatchStream};
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::sync::Arc;

/// A store whose client has a bug: whoever writes a key with this in its name panics.
const TRAP: &str = "pitfall";

struct Trapped(MemoryKv);

#[async_trait::async_trait]
impl Kv for Trapped {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, KvError> {
        self.0.range(request).await
    }

    async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, KvError> {
        // As in a real one, somewhere behind an await.
        tokio::task::yield_now().await;
        let trap = request.compare.iter().any(|one| String::from_utf8_lossy(&one.key).contains(TRAP));
        assert!(!trap, "a bug");
        self.0.txn(request).await
    }

    async fn compact(&self, revision: i64) -> Result<(), KvError> {
        self.0.compact(revision).await
    }

    async fn lease_grant(&self, ttl_seconds: i64) -> Result<i64, KvError> {
        self.0.lease_grant(ttl_seconds).await
    }

    async fn lease_keep_alive(&self, lease: i64) -> Result<i64, KvError> {
        self.0.lease_keep_alive(lease).await
    }

    async fn watch(&self, key: Bytes, end: Bytes, from: i64, prev_kv: bool) -> Result<WatchStream, KvError> {
        self.0.watch(key, end, from, prev_kv).await
    }
}

/// What somebody of no special group is answered.
async fn answered(fixture: &Fixture, method: &str, path: &str, body: Value) -> (u16, String) {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let request = request.body(Body::from(body.to_string())).expect("request");
    let response = fixture.server.answer(Some(certificate("somebody", "people")), request).await;
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.expect("body").to_bytes();
    (code, String::from_utf8_lossy(&body).into_owned())
}

const POLICY: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n";

#[tokio::test]
async fn a_request_that_panics_is_answered_with_500_and_gives_back_what_it_held() {
    let folder = tempfile::tempdir().expect("folder");
    let (policy, log) = (folder.path().join("policy.yaml"), folder.path().join("audit.log"));
    std::fs::write(&policy, POLICY).expect("policy");
    let flags = [
        format!("--audit-policy-file={}", policy.display()),
        format!("--audit-log-path={}", log.display()),
        "--authorization-mode=AlwaysAllow".to_owned(),
        "--max-requests-inflight=2".to_owned(),
        "--max-mutating-requests-inflight=2".to_owned(),
    ];
    let fixture = Fixture::on(Arc::new(Trapped(MemoryKv::default())), &flags).await;
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
        "spec": {"hard": {"configmaps": "1000"}}});
    fixture.call("POST", "/api/v1/namespaces/default/resourcequotas", quota).await;
    // More of them than there are seats.
    for number in 0..20 {
        let (code, body) = answered(&fixture, "POST", MAPS, map(&format!("{TRAP}{number}"), "1")).await;
        let told = "This request caused apiserver to panic. Look in the logs for details.\n";
        assert_eq!((code, body.as_str()), (500, told));
    }
    let (code, made) = answered(&fixture, "POST", MAPS, map("fine", "1")).await;
    assert_eq!(code, 201, "{made}");
    let (_, metrics) = answered(&fixture, "GET", "/metrics", Value::Null).await;
    let counted = metrics.lines().find(|line| {
        line.starts_with("apiserver_request_total") && line.contains("configmaps") && line.contains("\"500\"")
    });
    assert!(counted.is_some_and(|line| line.ends_with(" 20")), "{metrics}");
    let events = std::fs::read_to_string(log).expect("log");
    let panics = events.lines().filter(|line| line.contains(r#""stage":"Panic""#)).count();
    assert_eq!(panics, 20, "{events}");
}
