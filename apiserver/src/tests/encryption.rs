//! Encryption at rest through the whole server: what the store holds, rotation, rewriting, bad values, reload.

use super::Fixture;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use coracle_etcd::Kv;
use coracle_etcd::memory::MemoryKv;
use coracle_etcd::proto::{PutRequest, RangeRequest, RequestOp, TxnRequest, request_op};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const KEY: &str = "/registry/secrets/default/a";

/// Writes a configuration for secrets.
fn configure(folder: &Path, providers: &str) -> Vec<String> {
    configure_for(folder, "secrets", providers)
}

fn configure_for(folder: &Path, resource: &str, providers: &str) -> Vec<String> {
    let path = folder.join("encryption.yaml");
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [{resource}]\n  providers: [{providers}]\n"
    );
    let fresh = folder.join("fresh");
    std::fs::write(&fresh, text).expect("written");
    std::fs::rename(fresh, &path).expect("in place");
    vec![
        format!("--encryption-provider-config={}", path.display()),
        "--encryption-provider-config-automatic-reload=true".to_owned(),
    ]
}

fn keyed(scheme: &str, name: &str, fill: u8) -> String {
    format!("{{{scheme}: {{keys: [{{name: {name}, secret: {}}}]}}}}", STANDARD.encode([fill; 32]))
}

fn secret(value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a", "labels": {"v": value}}, "stringData": {"v": value}})
}

async fn stored(kv: &MemoryKv) -> Bytes {
    let range = RangeRequest { key: KEY.into(), ..RangeRequest::default() };
    kv.range(range).await.expect("range").kvs[0].value.clone()
}

#[tokio::test]
async fn the_store_holds_no_secret_in_the_clear_and_readers_see_no_difference() {
    let (folder, kv) = (tempfile::tempdir().expect("folder"), MemoryKv::default());
    let fixture = Fixture::flagged(&kv, &configure(folder.path(), &keyed("aesgcm", "k1", 1))).await;
    let (code, created) = fixture.call("POST", SECRETS, secret("classified")).await;
    assert_eq!(code, 201, "{created}");
    assert!(stored(&kv).await.starts_with(b"k8s:enc:aesgcm:v1:k1:"));
    let want = json!(STANDARD.encode("classified"));
    let path = format!("{SECRETS}/a");
    assert_eq!(fixture.call("GET", &path, Value::Null).await.1["data"]["v"], want);
    for query in ["", "?resourceVersion=0", "?labelSelector=v%3Dclassified", "?limit=1"] {
        let (_, list) = fixture.call("GET", &format!("{SECRETS}{query}"), Value::Null).await;
        assert_eq!(list["items"][0]["data"]["v"], want, "{query}");
    }
    let version = created["metadata"]["resourceVersion"].as_str().expect("version").to_owned();
    let watched = format!("{SECRETS}?watch=1&resourceVersion={version}");
    let mut watch = fixture.send("GET", &watched, "", Value::Null).await.into_body();
    let merge = json!({"stringData": {"w": "more"}});
    assert_eq!(fixture.typed("PATCH", &path, "application/merge-patch+json", merge).await.0, 200);
    assert_eq!(super::event(&mut watch).await["object"]["data"]["w"], json!(STANDARD.encode("more")));
    // What no rule names is kept as it is.
    fixture.call("POST", super::MAPS, super::map("m", "1")).await;
    let range = RangeRequest { key: "/registry/configmaps/default/m".into(), ..RangeRequest::default() };
    assert!(kv.range(range).await.expect("range").kvs[0].value.starts_with(b"{"));
    fixture.stop().await;
}

#[tokio::test]
async fn a_replace_that_changes_nothing_writes_a_secret_under_the_new_key_once() {
    let (folder, kv) = (tempfile::tempdir().expect("folder"), MemoryKv::default());
    let plain = Fixture::over(&kv).await;
    plain.call("POST", SECRETS, secret("classified")).await;
    plain.stop().await;
    assert!(stored(&kv).await.starts_with(b"{"));
    let providers = [keyed("aescbc", "k1", 1), "{identity: {}}".to_owned()].join(", ");
    let fixture = Fixture::flagged(&kv, &configure(folder.path(), &providers)).await;
    let path = format!("{SECRETS}/a");
    let (_, object) = fixture.call("GET", &path, Value::Null).await;
    let (code, written) = fixture.call("PUT", &path, object.clone()).await;
    assert_eq!(code, 200, "{written}");
    assert_ne!(written["metadata"]["resourceVersion"], object["metadata"]["resourceVersion"]);
    assert!(stored(&kv).await.starts_with(b"k8s:enc:aescbc:v1:k1:"));
    let (_, again) = fixture.call("PUT", &path, written.clone()).await;
    assert_eq!(again["metadata"]["resourceVersion"], written["metadata"]["resourceVersion"]);
    // The key is turned while the server runs.
    let providers = [keyed("secretbox", "k2", 2), keyed("aescbc", "k1", 1)].join(", ");
    configure(folder.path(), &providers);
    let turned = async {
        loop {
            let (code, object) = fixture.call("GET", &path, Value::Null).await;
            assert_eq!((code, &object["data"]["v"]), (200, &json!(STANDARD.encode("classified"))));
            fixture.call("PUT", &path, object).await;
            if stored(&kv).await.starts_with(b"k8s:enc:secretbox:v1:k2:") {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), turned).await.expect("turned");
    fixture.stop().await;
}

#[tokio::test]
async fn what_cannot_be_decrypted_is_told_hides_nothing_else_and_comes_back_with_its_key() {
    let (folder, kv) = (tempfile::tempdir().expect("folder"), MemoryKv::default());
    let fixture = Fixture::flagged(&kv, &configure(folder.path(), &keyed("aesgcm", "k1", 1))).await;
    fixture.call("POST", SECRETS, secret("classified")).await;
    let moved = PutRequest {
        key: "/registry/secrets/other/b".into(),
        value: stored(&kv).await,
        ..PutRequest::default()
    };
    let success = vec![RequestOp { request: Some(request_op::Request::RequestPut(moved)) }];
    kv.txn(TxnRequest { success, ..TxnRequest::default() }).await.expect("moved");
    let other = "/api/v1/namespaces/other/secrets";
    let message = |name: &str, why: &str| {
        format!("Internal error occurred: unable to transform key \"/registry/secrets/{name}\": {why}")
    };
    let alone = |why: &str| format!("Internal error occurred: {why}");
    // Taken from another object's key: it is bound to that.
    for path in [
        format!("{other}/b"),
        other.to_owned(),
        format!("{other}?labelSelector=x"),
        "/api/v1/secrets".to_owned(),
    ] {
        let (code, told) = fixture.call("GET", &path, Value::Null).await;
        let why = "cipher: message authentication failed";
        // Whoever asks for one knows which.
        let want = if path.ends_with("/b") { alone(why) } else { message("other/b", why) };
        assert_eq!((code, &told["message"]), (500, &json!(want)), "{path}");
    }
    assert_eq!(fixture.call("GET", SECRETS, Value::Null).await.0, 200);
    configure(folder.path(), &keyed("aesgcm", "k2", 2));
    let seen = |code: u16| {
        let (fixture, path) = (&fixture, format!("{SECRETS}/a"));
        async move {
            // A write makes the watch tell of the new key.
            while fixture.call("GET", &path, Value::Null).await.0 != code {
                tokio::task::yield_now().await;
            }
        }
    };
    // The cache still knows it; a server that begins now does not.
    let second = Fixture::flagged(&kv, &configure(folder.path(), &keyed("aesgcm", "k2", 2))).await;
    let (code, told) = second.call("GET", &format!("{SECRETS}/a"), Value::Null).await;
    assert_eq!((code, &told["message"]), (500, &json!(alone("no matching prefix found"))));
    let back = [keyed("aesgcm", "k2", 2), keyed("aesgcm", "k1", 1)].join(", ");
    configure(folder.path(), &back);
    let readable = async {
        while second.call("GET", &format!("{SECRETS}/a"), Value::Null).await.0 != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), readable).await.expect("readable again");
    tokio::time::timeout(Duration::from_secs(10), seen(200)).await.expect("readable");
    second.stop().await;
    fixture.stop().await;
}

async fn page(fixture: &Fixture, path: &str) -> (u16, String) {
    let response = fixture.send("GET", path, "", Value::Null).await;
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.expect("body").to_bytes();
    (code, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn a_service_that_is_away_is_told_of_and_keeps_only_what_it_seals_from_being_written() {
    let (folder, kv) = (tempfile::tempdir().expect("folder"), MemoryKv::default());
    let socket = folder.path().join("none.sock");
    let provider =
        format!("{{kms: {{apiVersion: v2, name: vault, endpoint: 'unix://{}'}}}}", socket.display());
    let fixture = Fixture::flagged(&kv, &configure(folder.path(), &provider)).await;
    let (code, status) = fixture.call("POST", SECRETS, secret("classified")).await;
    assert_eq!((code, &status["reason"]), (500, &json!("InternalError")));
    assert_eq!(status["message"], "Internal error occurred: got unexpected nil transformer");
    assert_eq!(fixture.call("POST", super::MAPS, super::map("m", "1")).await.0, 201);
    let (code, text) = page(&fixture, "/readyz/kms-providers").await;
    assert_eq!(code, 500);
    let why = "internal server error: kms-provider-0: failed to perform status section of the healthz check for KMS Provider vault, error: rpc error: code = Unavailable desc =";
    assert!(text.starts_with(why), "{text}");
    let (_, all) = page(&fixture, "/readyz").await;
    assert!(all.contains("[-]kms-providers failed: reason withheld\n"), "{all}");
    assert_eq!(page(&fixture, "/livez").await, (200, "ok".to_owned()));
    fixture.stop().await;
}

#[tokio::test]
async fn requests_have_their_turns_where_something_else_cannot_be_made_at_the_first_start() {
    let (folder, kv) = (tempfile::tempdir().expect("folder"), MemoryKv::default());
    let socket = folder.path().join("none.sock");
    let provider =
        format!("{{kms: {{apiVersion: v2, name: vault, endpoint: 'unix://{}'}}}}", socket.display());
    // The first Service is among what a server makes before it is ready.
    let flags = configure_for(folder.path(), "services", &provider);
    let fixture = Fixture::unready(std::sync::Arc::new(kv), &flags);
    let known = async {
        loop {
            let response = fixture.send("GET", super::MAPS, "", Value::Null).await;
            if response.headers().get("x-kubernetes-pf-flowschema-uid").is_some_and(|uid| !uid.is_empty()) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), known).await.expect("in time");
    let told = page(&fixture, "/readyz/poststarthook/bootstrap-controller").await;
    assert_eq!(told, (500, "internal server error: not finished\n".to_owned()));
    assert_eq!(page(&fixture, "/livez").await.0, 200);
    fixture.stop().await;
}
