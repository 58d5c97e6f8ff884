//! Requests that nobody means well with: answered in time, with no 5xx, and nothing is written.

use super::{Fixture, MAPS, map};
use crate::serve;
use axum::body::Body;
use bytes::Bytes;
use coracle_daemon::tls::{self, Identity};
use coracle_etcd::memory::MemoryKv;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::io::Write;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const PATCH: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";
/// No answer may take longer, also on a slow machine and without optimization.
const TIME_MAX: Duration = Duration::from_secs(20);
const ANSWER_MAX: usize = 64 << 20;

/// Sends any bytes; the answer's code and text.
async fn raw(
    fixture: &Fixture,
    method: &str,
    path: &str,
    kind: &str,
    body: impl Into<Bytes>,
) -> (u16, Bytes) {
    let request = Request::builder().method(method).uri(path).header("content-type", kind);
    let request = request.body(Body::from(body.into())).expect("a request");
    let began = Instant::now();
    let response = fixture.server.answer(Some(fixture.admin.clone()), request).await;
    let code = response.status().as_u16();
    let text = response.into_body().collect().await.expect("a body").to_bytes();
    assert!(began.elapsed() < TIME_MAX, "{method} {path} as {kind} took {:?}", began.elapsed());
    assert!(text.len() < ANSWER_MAX, "{method} {path} as {kind} was answered with {} bytes", text.len());
    (code, text)
}

fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().take(300).collect()
}

/// Objects with their versions: what a write would change.
async fn everything(fixture: &Fixture) -> Vec<Value> {
    let mut all = Vec::new();
    for path in ["/api/v1/configmaps", "/api/v1/pods", "/api/v1/secrets", "/apis/apps/v1/deployments"] {
        let (_, list) = fixture.call("GET", path, Value::Null).await;
        all.extend(list["items"].as_array().cloned().unwrap_or_default());
    }
    all
}

async fn with_map() -> Fixture {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    assert_eq!(fixture.call("POST", MAPS, map("a", "1")).await.0, 201);
    fixture
}

fn nested(open: &str, depth: usize) -> String {
    open.repeat(depth)
}

fn zipped(bytes: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::best());
    out.write_all(bytes).expect("packs");
    out.finish().expect("packs")
}

/// Fields that are told of one by one, behind a long path.
fn long_path(fields: usize) -> String {
    let fields: Vec<String> = (0..fields).map(|n| format!("\"{n}\":0,\"{n}\":0")).collect();
    format!(r#"{{"metadata":{{"name":"b"}},"{}":{{{}}}}}"#, "x".repeat(1 << 20), fields.join(","))
}

#[tokio::test]
async fn bodies_that_are_no_objects_are_refused() {
    let fixture = with_map().await;
    let before = everything(&fixture).await;
    let labels: Vec<String> = (0..20_000).map(|n| format!(r#""not a label {n}":"not a value""#)).collect();
    let bomb = (0..12).fold("a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, n| {
        format!("{text}a{}: &a{} [{}]\n", n + 1, n + 1, vec![format!("*a{n}"); 9].join(","))
    });
    let rows: Vec<(&str, Vec<u8>)> = vec![
        (JSON, nested("[", 100_000).into()),
        (JSON, nested(r#"{"a":"#, 100_000).into()),
        (YAML, nested("[", 100_000).into()),
        (YAML, nested("{a: ", 100_000).into()),
        (YAML, (0..2_000).map(|n| format!("{}a:\n", " ".repeat(n))).collect::<String>().into()),
        (YAML, bomb.into()),
        (YAML, b"{\"a\":!!str, b: [!x,]}".to_vec()),
        (YAML, b"\xff\xfe\0".to_vec()),
        (YAML, b"\xfe\xff\xd8\0\0a".to_vec()),
        (YAML, b"\xff\xff".to_vec()),
        (JSON, b"{\"metadata\":{\"name\":\"\xff\xfe\"}}".to_vec()),
        (JSON, vec![b' '; 4 << 20]),
        (JSON, vec![0; 1 << 20]),
        (JSON, "\"".repeat(1 << 20).into()),
        (JSON, "9".repeat(1 << 20).into()),
        (JSON, zipped(&vec![b' '; 16 << 20])),
        (JSON, br#"{"kind":"ConfigMap","apiVersion":"v9","metadata":{"name":"b"}}"#.to_vec()),
        (JSON, br#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"b"}}"#.to_vec()),
        (JSON, br#"{"kind":7,"apiVersion":[],"metadata":"x"}"#.to_vec()),
        (JSON, br#"{"metadata":{"name":{}},"data":3}"#.to_vec()),
        (JSON, br#"{"metadata":{"name":"../../b"}}"#.to_vec()),
        (JSON, br#"{"metadata":{"name":"b","namespace":"../kube-system"}}"#.to_vec()),
        (JSON, format!(r#"{{"metadata":{{"name":"b","labels":{{{}}}}}}}"#, labels.join(",")).into()),
        (JSON, b"1 2".to_vec()),
        (PROTOBUF, b"k8s\0\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f".to_vec()),
        (PROTOBUF, b"k8s\0".to_vec()),
        (PROTOBUF, vec![0x80; 1 << 20]),
        ("text/plain", b"x".to_vec()),
        ("application/cbor", b"\xd9\xd9\xf7\xa0".to_vec()),
    ];
    for (kind, body) in rows {
        let start = shown(&body[..body.len().min(40)]);
        for (method, path) in
            [("POST", MAPS), ("PUT", &format!("{MAPS}/a")), ("POST", &MAPS.replace("configmaps", "pods"))]
        {
            let (code, text) = raw(&fixture, method, path, kind, body.clone()).await;
            assert!((400..500).contains(&code), "{method} {path} {kind} {start}: {code} {}", shown(&text));
        }
    }
    let strict = format!("{MAPS}?fieldValidation=Strict");
    let (code, text) = raw(&fixture, "POST", &strict, JSON, long_path(50_000)).await;
    assert_eq!(code, 400, "{}", shown(&text));
    assert_eq!(everything(&fixture).await, before);
    fixture.stop().await;
}

#[tokio::test]
async fn patches_that_would_cost_much_are_refused() {
    let fixture = with_map().await;
    let before = everything(&fixture).await;
    let one = format!("{MAPS}/a");
    let operations = |count: usize, operation: Value| Value::Array(vec![operation; count]).to_string();
    let long = json!({"op": "add", "path": "/metadata/finalizers", "value": vec![0; 100_000]});
    let front = json!({"op": "add", "path": "/metadata/finalizers/0", "value": 0});
    let mut shifting = vec![front; 9_999];
    shifting.insert(0, long);
    let many = |count: usize| (0..count).map(|n| json!(format!("no name {n}"))).collect::<Value>();
    let rows = [
        (PATCH, operations(100_000, json!({"op": "test", "path": "/data", "value": {}}))),
        (PATCH, operations(10_000, json!({"op": "copy", "from": "", "path": "/data/x"}))),
        (PATCH, operations(1_000, json!({"op": "copy", "from": "/data", "path": "/data/x"}))),
        (PATCH, Value::Array(shifting).to_string()),
        (PATCH, nested("[", 100_000)),
        (PATCH, operations(1, json!({"op": "add", "path": "/x".repeat(100_000), "value": 0}))),
        (PATCH, operations(1, json!({"op": "remove", "path": ""}))),
        (PATCH, operations(1, json!({"op": "replace", "path": "", "value": [5]}))),
        (MERGE, nested(r#"{"a":"#, 100_000)),
        (MERGE, json!({"metadata": {"finalizers": many(20_000)}}).to_string()),
        (STRATEGIC, nested(r#"{"a":"#, 100_000)),
        (STRATEGIC, json!({"metadata": {"finalizers": many(20_000)}}).to_string()),
        (
            STRATEGIC,
            json!({"metadata": {"$setElementOrder/finalizers": many(20_000), "finalizers": many(20_000)}})
                .to_string(),
        ),
        (APPLY, nested("[", 100_000)),
        (APPLY, nested(r#"{"a":"#, 100_000)),
        (APPLY, "[!x,]".to_owned()),
    ];
    for (kind, body) in rows {
        let path =
            format!("{one}?fieldManager=m").replace(if kind == APPLY { "\0" } else { "?fieldManager=m" }, "");
        let (code, text) = raw(&fixture, "PATCH", &path, kind, body.clone()).await;
        assert!(
            (400..500).contains(&code),
            "{kind} {}: {code} {}",
            shown(&body.as_bytes()[..40.min(body.len())]),
            shown(&text)
        );
    }
    assert_eq!(everything(&fixture).await, before);
    // What is only warned of is warned of in few words.
    let aliases: Value = (0..20_000).map(|_| json!({"ip": "192.0.2.1"})).collect();
    let labels = json!({"a": "b"});
    let odd = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "odd"}, "spec": {
        "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {
            "containers": [{"name": "c", "image": "i"}], "hostAliases": aliases}}}});
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let request = Request::builder().method("POST").uri(path).header("content-type", "application/json");
    let request = request.body(Body::from(odd.to_string()));
    let response = fixture.server.answer(Some(fixture.admin.clone()), request.expect("a request")).await;
    let warned: usize = response.headers().get_all("warning").iter().map(|text| text.len()).sum();
    assert!(response.status() == 201 && (1..16_384).contains(&warned), "{} {warned}", response.status());
    fixture.stop().await;
}

#[tokio::test]
async fn an_object_grows_only_as_deep_as_it_can_be_read_again() {
    let kv = MemoryKv::default();
    let fixture = Fixture::over(&kv).await;
    let revisions = "/apis/apps/v1/namespaces/default/controllerrevisions";
    let revision = json!({"metadata": {"name": "r"}, "revision": 1, "data": {"a": {}}});
    assert_eq!(fixture.call("POST", revisions, revision).await.0, 201);
    let one = format!("{revisions}/r");
    let (mut refused, mut depth) = (0, 1);
    for _ in 0..10 {
        let value: Value = (0..30).fold(json!({}), |inner, _| json!({"a": inner}));
        let operation =
            json!([{"op": "add", "path": format!("/data{}", "/a".repeat(depth)), "value": value}]);
        let (code, text) = raw(&fixture, "PATCH", &one, PATCH, operation.to_string()).await;
        match code {
            200 => depth += 30,
            422 => refused += 1,
            _ => panic!("{code} {}", shown(&text)),
        }
    }
    assert!(refused > 0 && depth > 30, "{depth}");
    let (_, seen) = fixture.call("GET", &one, Value::Null).await;
    fixture.stop().await;
    let fixture = Fixture::over(&kv).await;
    assert_eq!(fixture.call("GET", &one, Value::Null).await.1, seen, "read again from the store");
    fixture.stop().await;
}

#[tokio::test]
async fn patches_that_take_the_name_away_are_refused() {
    let fixture = with_map().await;
    let before = everything(&fixture).await;
    let one = format!("{MAPS}/a");
    let gone = format!("{MAPS}/gone");
    let bare = r#"{"apiVersion":"v1","kind":"ConfigMap","data":{"x":"y"}}"#;
    let rows = [
        (&one, PATCH, r#"[{"op":"replace","path":"/metadata","value":null}]"#),
        (&one, PATCH, r#"[{"op":"remove","path":"/metadata/name"}]"#),
        (&one, MERGE, r#"{"metadata":null}"#),
        (&one, STRATEGIC, r#"{"metadata":{"name":null}}"#),
        (&gone, APPLY, bare),
    ];
    for (path, kind, patch) in rows {
        let path = format!("{path}?fieldManager=m");
        let (code, text) = raw(&fixture, "PATCH", &path, kind, patch).await;
        assert_eq!(code, 400, "{patch}: {}", shown(&text));
        assert!(shown(&text).contains("based on URL) was undeterminable: name must be provided"), "{patch}");
    }
    assert_eq!(everything(&fixture).await, before);
    // What is applied to something that is there need not say its name.
    let (code, text) = raw(&fixture, "PATCH", &format!("{one}?fieldManager=m"), APPLY, bare).await;
    assert_eq!(code, 200, "{}", shown(&text));
    fixture.stop().await;
}

#[tokio::test]
async fn paths_and_queries_lead_nowhere_they_should_not() {
    let fixture = with_map().await;
    let before = everything(&fixture).await;
    let long = format!("{MAPS}/{}", "x".repeat(60_000));
    let paths = [
        "/api/v1/namespaces/default/configmaps/..%2f..%2f..%2fsecrets",
        "/api/v1/namespaces/default/configmaps/../../../secrets/x",
        "/api/v1/namespaces/%2e%2e/configmaps/a",
        "/api/v1/namespaces/default%2fconfigmaps/a/b/c",
        "/api/v1/namespaces/default/configmaps/a%00",
        "/api/v1/namespaces/default/configmaps/a%ff%fe",
        "/api/v1/namespaces/default/configmaps/%zz",
        "/api/v1/namespaces/default/configmaps/%",
        "/api/v1/namespaces/default/configmaps/a/status/x/y/z",
        "/api/v1//namespaces//configmaps//a",
        "//api/v1/x",
        "/api/v1/namespaces/default/configmaps/a\\b",
        "/apis/../api/v1/x",
        "/apis/%2e%2e/v1/x",
        "/openapi/v3/../../etc/passwd",
        "/openapi/v3/%2e%2e/%2e%2e/etc/passwd",
        "/static/../../etc/passwd",
        &long,
    ];
    for path in paths {
        for method in ["GET", "PUT", "DELETE", "PATCH", "POST", "OPTIONS", "BREW"] {
            let (code, text) = raw(&fixture, method, path, JSON, "{}").await;
            assert!((400..500).contains(&code), "{method} {path}: {code} {}", shown(&text));
        }
    }
    let commas = ",".repeat(50_000);
    let queries = [
        "labelSelector=%28%28%28".to_owned(),
        format!("labelSelector={commas}"),
        format!("fieldSelector={}", "a%3Db%2C".repeat(8_000)),
        "limit=-1&continue=%00".to_owned(),
        "continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTEsInN0YXJ0IjoiLi4vLi4ifQ".to_owned(),
        "resourceVersion=99999999999999999999999".to_owned(),
        "resourceVersion=-5".to_owned(),
        "resourceVersionMatch=Exact".to_owned(),
    ];
    for query in queries {
        let (code, text) = raw(&fixture, "GET", &format!("{MAPS}?{query}"), JSON, "").await;
        assert!((400..500).contains(&code), "{}: {code} {}", shown(query.as_bytes()), shown(&text));
    }
    for query in
        ["dryRun=x", "fieldManager=%00", "fieldValidation=x", &format!("fieldManager={}", "x".repeat(5_000))]
    {
        let (code, text) =
            raw(&fixture, "POST", &format!("{MAPS}?{query}"), JSON, map("b", "1").to_string()).await;
        assert!((400..500).contains(&code), "{}: {code} {}", shown(query.as_bytes()), shown(&text));
    }
    assert_eq!(everything(&fixture).await, before);
    fixture.stop().await;
}

#[tokio::test]
async fn whoever_sends_a_body_too_slowly_is_told_so() {
    let fixture = with_map().await;
    let endless = futures::stream::once(async { Ok::<_, std::io::Error>(Bytes::from_static(b"{")) });
    let body = Body::from_stream(futures::StreamExt::chain(endless, futures::stream::pending()));
    let request = Request::builder().method("POST").uri(MAPS).header("content-type", JSON).body(body);
    // Time flies while everybody waits.
    tokio::time::pause();
    let response = fixture.server.answer(Some(fixture.admin.clone()), request.expect("a request")).await;
    tokio::time::resume();
    assert_eq!(response.status().as_u16(), 408);
    fixture.stop().await;
}

/// A server that listens, and the way to it.
pub(super) async fn listening(
    fixture: &Fixture,
    folder: &std::path::Path,
) -> (u16, tokio_rustls::TlsConnector) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate");
    let identity = Identity { cert: folder.join("cert.pem"), key: folder.join("key.pem") };
    std::fs::write(&identity.cert, certificate.pem()).expect("written");
    std::fs::write(&identity.key, key.serialize_pem()).expect("written");
    let acceptor = tls::server(&identity, None, &[b"http/1.1"]).expect("TLS");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("an address").port();
    let listens = serve::listen(fixture.server.clone(), listener, acceptor);
    fixture.tasks.spawn("listener", listens);
    (port, tls::client(&identity.cert, None, &[b"http/1.1"]).expect("TLS").into())
}

/// What the server says to these bytes, until it hangs up.
async fn said(port: u16, tls: &tokio_rustls::TlsConnector, bytes: &[u8], flies: bool) -> String {
    let tcp = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.expect("connected");
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
    let mut stream = tls.connect(name, tcp).await.expect("TLS");
    // The server may hang up before all is sent.
    let _ = stream.write_all(bytes).await;
    let _ = stream.flush().await;
    if flies {
        tokio::time::pause();
    }
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text).await;
    if flies {
        tokio::time::resume();
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn connections_that_never_ask_or_ask_without_end_are_closed() {
    let fixture = with_map().await;
    let folder = tempfile::tempdir().expect("a folder");
    let (port, tls) = listening(&fixture, folder.path()).await;
    // Nothing, half a request line, half of the headers.
    for bytes in [&b""[..], b"GET /livez", b"GET /livez HTTP/1.1\r\nhost: x\r\nx-y: "] {
        let text = said(port, &tls, bytes, true).await;
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 408"), "{bytes:?}: {text}");
    }
    let flood: String = (0..100_000).map(|n| format!("x-{n}: y\r\n")).collect();
    let long = format!("x: {}\r\n", "y".repeat(4 << 20));
    for headers in [flood, long] {
        let request = format!("GET /livez HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
        let text = said(port, &tls, request.as_bytes(), false).await;
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{}", shown(text.as_bytes()));
    }
    // Nobody else noticed.
    let text = said(port, &tls, b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", false).await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    fixture.stop().await;
}

#[tokio::test]
async fn patches_of_the_whole_are_read_as_what_they_make() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let path = format!("{MAPS}/m");
    let (_, made) = fixture.call("POST", MAPS, map("m", "1")).await;
    let rows = [
        (json!("x"), 200, ""),
        (Value::Null, 200, ""),
        (json!({}), 400, "was undeterminable"),
        (json!([1]), 422, "cannot unmarshal array into Go value of type struct"),
    ];
    for (whole, code, text) in rows {
        let patch = json!([{"op": "replace", "path": "", "value": whole}]);
        for path in [path.clone(), format!("{path}?fieldValidation=Strict")] {
            let (got, told) =
                fixture.typed("PATCH", &path, "application/json-patch+json", patch.clone()).await;
            assert_eq!(got, code, "{patch}: {told}");
            match code {
                200 => assert_eq!(told, made),
                _ => assert!(told["message"].as_str().is_some_and(|told| told.contains(text)), "{told}"),
            }
        }
    }
    fixture.stop().await;
}
