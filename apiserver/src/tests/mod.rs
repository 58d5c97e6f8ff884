//! The whole way of a request, over a store in memory.

mod aggregation;
mod answers;
mod audit;
mod bad_requests;
mod conversion;
mod customs;
mod documents;
mod doors;
mod drain;
mod encryption;
mod fairness;
mod first;
mod front_proxy;
mod goes;
mod outside;
mod owners;
mod panics;
mod reads;
mod recorded;
mod routes;
mod seen;
mod watch_contract;
mod webhooks;
mod websocket;
mod writes;

use crate::{Args, Server};
use axum::body::Body;
use bytes::Bytes;
use clap::Parser;
use coracle_api::protobuf;
use coracle_daemon::Tasks;
use coracle_etcd::Kv;
use coracle_etcd::memory::MemoryKv;
use coracle_etcd::proto::{PutRequest, RequestOp, TxnRequest, request_op};
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

/// An apiserver, and an admin who calls it.
struct Fixture {
    server: Arc<Server>,
    admin: Arc<[u8]>,
    tasks: Tasks,
}

/// The certificate of a user in one group.
fn certificate(name: &str, group: &str) -> Arc<[u8]> {
    let mut of = rcgen::CertificateParams::default();
    of.distinguished_name.push(rcgen::DnType::CommonName, name);
    of.distinguished_name.push(rcgen::DnType::OrganizationName, group);
    let key = rcgen::KeyPair::generate().expect("key");
    Arc::from(of.self_signed(&key).expect("certificate").der().as_ref())
}

impl Fixture {
    async fn over(kv: &MemoryKv) -> Self {
        Self::flagged(kv, &[]).await
    }

    /// With more flags.
    async fn flagged(kv: &MemoryKv, more: &[String]) -> Self {
        Self::on(Arc::new(kv.clone()), more).await
    }

    /// Over any store.
    async fn on(kv: Arc<dyn Kv>, more: &[String]) -> Self {
        let fixture = Self::unready(kv, more);
        fixture.until_ready().await;
        fixture
    }

    /// One that has only just begun.
    fn unready(kv: Arc<dyn Kv>, more: &[String]) -> Self {
        let flags = [
            "x",
            "--etcd-servers=http://x",
            "--tls-cert-file=x",
            "--tls-private-key-file=x",
            "--allow-privileged=true",
            "--enable-bootstrap-token-auth",
            "--enable-admission-plugins=NodeRestriction",
        ];
        let args =
            Cli::parse_from(flags.iter().map(|flag| (*flag).to_owned()).chain(more.iter().cloned())).args;
        let tasks = Tasks::new();
        let server = Server::new(&args, kv, &tasks).expect("server");
        server.start(&args, &tasks);
        Self { server, admin: certificate("admin", "system:masters"), tasks }
    }

    async fn until_ready(&self) {
        let ready = async {
            // Services that seal may be away on purpose.
            while self.call("GET", "/readyz?exclude=kms-providers", Value::Null).await.0 != 200 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), ready).await.expect("ready");
    }

    async fn send(&self, method: &str, path: &str, kind: &str, body: Value) -> http::Response<Body> {
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let request = Request::builder().method(method).uri(path).header("content-type", kind).body(body);
        self.server.answer(Some(self.admin.clone()), request.expect("request")).await
    }

    async fn typed(&self, method: &str, path: &str, kind: &str, body: Value) -> (u16, Value) {
        let response = self.send(method, path, kind, body).await;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.expect("body").to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// With a body of any text.
    async fn text(&self, method: &str, path: &str, kind: &str, body: &str) -> (u16, Value) {
        let request = Request::builder().method(method).uri(path).header("content-type", kind);
        let request = request.body(Body::from(body.to_owned())).expect("request");
        let response = self.server.answer(Some(self.admin.clone()), request).await;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.expect("body").to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// A GET with `Accept`.
    async fn accepted(&self, path: &str, accept: &str) -> Value {
        let request = Request::builder().uri(path).header("accept", accept).body(Body::empty());
        let response = self.server.answer(Some(self.admin.clone()), request.expect("request")).await;
        let bytes = response.into_body().collect().await.expect("body").to_bytes();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        self.typed(method, path, "application/json", body).await
    }

    async fn stop(self) {
        self.tasks.stop_within(Duration::from_secs(5)).await.expect("a clean stop");
    }
}

/// The next event of a watch.
async fn event(body: &mut Body) -> Value {
    let frame = tokio::time::timeout(Duration::from_secs(5), body.frame()).await.expect("in time");
    let bytes: Bytes = frame.expect("more").expect("frame").into_data().expect("data");
    serde_json::from_slice(&bytes).expect("one event")
}

/// The first events of a watch, some of which come together.
async fn events(mut body: Body, count: usize) -> Vec<Value> {
    let mut text = Vec::new();
    while text.iter().filter(|byte| **byte == b'\n').count() < count {
        let frame = tokio::time::timeout(Duration::from_secs(5), body.frame()).await.expect("in time");
        text.extend(frame.expect("more").expect("frame").into_data().expect("data"));
    }
    serde_json::Deserializer::from_slice(&text).into_iter().map(|event| event.expect("an event")).collect()
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"v": value}}, "data": {"v": value}})
}

#[tokio::test]
async fn an_object_lives_from_create_to_delete_and_a_watch_sees_it_all() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let (code, created) = fixture.call("POST", MAPS, map("a", "1")).await;
    assert_eq!(code, 201, "{created}");
    let version = created["metadata"]["resourceVersion"].as_str().expect("version").to_owned();
    assert_eq!(fixture.call("POST", MAPS, map("a", "1")).await.1["reason"], "AlreadyExists");
    let mut watch = fixture
        .send(
            "GET",
            &format!("{MAPS}?watch=1&resourceVersion={version}&labelSelector=v%3D1"),
            "",
            Value::Null,
        )
        .await
        .into_body();
    let path = format!("{MAPS}/a");
    let merge = "application/merge-patch+json";
    let (code, patched) = fixture.typed("PATCH", &path, merge, json!({"data": {"w": "2"}})).await;
    assert_eq!((code, &patched["data"]), (200, &json!({"v": "1", "w": "2"})));
    assert_eq!(event(&mut watch).await["type"], "MODIFIED");
    // Nothing changes: nothing is written.
    let (_, same) = fixture.typed("PATCH", &path, merge, json!({"data": {"w": "2"}})).await;
    assert_eq!(same["metadata"]["resourceVersion"], patched["metadata"]["resourceVersion"]);
    // An update of a state that is past is refused.
    let (code, stale) = fixture.call("PUT", &path, created).await;
    assert_eq!((code, &stale["reason"]), (409, &json!("Conflict")));
    // The object leaves the selection.
    fixture.typed("PATCH", &path, merge, json!({"metadata": {"labels": {"v": "2"}}})).await;
    assert_eq!(event(&mut watch).await["type"], "DELETED");
    let (_, list) = fixture.call("GET", &format!("{MAPS}?labelSelector=v%3D2"), Value::Null).await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
    let (code, gone) = fixture.call("DELETE", &path, Value::Null).await;
    assert_eq!((code, &gone["status"]), (200, &json!("Success")));
    assert_eq!(fixture.call("GET", &path, Value::Null).await.0, 404);
    fixture.stop().await;
}

#[tokio::test]
async fn two_servers_never_give_one_address_twice() {
    let kv = MemoryKv::default();
    let (one, two) = tokio::join!(Fixture::over(&kv), Fixture::over(&kv));
    let service = |name: String| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
    let path = "/api/v1/namespaces/default/services";
    let mut calls = Vec::new();
    for n in 0..10 {
        calls.push(one.call("POST", path, service(format!("one-{n}"))));
        calls.push(two.call("POST", path, service(format!("two-{n}"))));
    }
    let created = futures::future::join_all(calls).await;
    let mut addresses: Vec<String> = created
        .iter()
        .map(|(_, service)| {
            format!("{} {}", service["spec"]["clusterIP"], service["spec"]["ports"][0]["nodePort"])
        })
        .collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 20, "{created:?}");
    let fixed = created[0].1["spec"]["clusterIP"].clone();
    let mut taken = service("taken".to_owned());
    taken["spec"]["clusterIP"] = fixed.clone();
    assert_eq!(two.call("POST", path, taken.clone()).await.0, 422);
    let name = created[0].1["metadata"]["name"].as_str().expect("name");
    assert_eq!(one.call("DELETE", &format!("{path}/{name}"), Value::Null).await.0, 200);
    assert_eq!(two.call("POST", path, taken).await.0, 201);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn what_a_kube_apiserver_left_in_its_store_is_served_and_its_node_ports_stay_taken() {
    let kv = MemoryKv::default();
    let service = |name: &str| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
        "spec": {"type": "NodePort", "clusterIP": "10.96.7.7", "clusterIPs": ["10.96.7.7"], "ports": [{"port": 80, "nodePort": 30123}]}})
    };
    let key = Bytes::from_static(b"/registry/services/specs/default/left");
    let value = protobuf::encode(&service("left")).expect("protobuf").into();
    let put = PutRequest { key, value, ..PutRequest::default() };
    let success = vec![RequestOp { request: Some(request_op::Request::RequestPut(put)) }];
    kv.txn(TxnRequest { success, ..TxnRequest::default() }).await.expect("put");
    let fixture = Fixture::over(&kv).await;
    let path = "/api/v1/namespaces/default/services";
    let (code, left) = fixture.call("GET", &format!("{path}/left"), Value::Null).await;
    assert_eq!(
        (code, &left["kind"], &left["spec"]["clusterIP"]),
        (200, &json!("Service"), &json!("10.96.7.7"))
    );
    for field in ["clusterIP", "ports"] {
        let mut second = service("second");
        second["spec"]
            .as_object_mut()
            .expect("spec")
            .retain(|name, _| name == "type" || name.starts_with(field));
        second["spec"]["ports"] = second["spec"].get("ports").cloned().unwrap_or(json!([{"port": 80}]));
        let (code, refused) = fixture.call("POST", path, second).await;
        assert_eq!(code, 422, "{field}: {refused}");
    }
    assert_eq!(fixture.call("DELETE", &format!("{path}/left"), Value::Null).await.0, 200);
    assert_eq!(fixture.call("POST", path, service("third")).await.0, 201);
    fixture.stop().await;
}

#[tokio::test]
async fn finalizers_and_grace_hold_a_deletion_back() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let mut held = map("held", "1");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    fixture.call("POST", MAPS, held).await;
    let path = format!("{MAPS}/held");
    let (_, pending) = fixture.call("DELETE", &path, Value::Null).await;
    assert!(pending["metadata"]["deletionTimestamp"].is_string());
    let freed = json!({"metadata": {"finalizers": null}});
    fixture.typed("PATCH", &path, "application/merge-patch+json", freed).await;
    assert_eq!(fixture.call("GET", &path, Value::Null).await.0, 404);
    let (code, protected) = fixture.call("DELETE", "/api/v1/namespaces/default", Value::Null).await;
    assert_eq!(code, 403, "{protected}");
    fixture.stop().await;
}

#[tokio::test]
async fn pages_of_a_list_are_one_snapshot() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    for name in ["a", "b", "c"] {
        fixture.call("POST", MAPS, map(name, "1")).await;
    }
    let (_, first) = fixture.call("GET", &format!("{MAPS}?limit=2"), Value::Null).await;
    fixture.call("DELETE", &format!("{MAPS}/c"), Value::Null).await;
    let token = first["metadata"]["continue"].as_str().expect("token");
    let (_, rest) = fixture.call("GET", &format!("{MAPS}?limit=2&continue={token}"), Value::Null).await;
    assert_eq!(rest["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let name = |list: &Value, at: usize| list["items"][at]["metadata"]["name"].clone();
    assert_eq!([name(&first, 0), name(&first, 1), name(&rest, 0)], ["a", "b", "c"].map(Value::from));
    fixture.stop().await;
}
