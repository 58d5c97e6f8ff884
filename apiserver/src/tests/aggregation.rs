//! Group versions of another server: a real one over TLS, which believes the front proxy's certificate only.

use super::{Fixture, event};
use axum::body::Body;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use coracle_daemon::Tasks;
use coracle_daemon::tls::{self, ClientAuth, Identity};
use coracle_etcd::memory::MemoryKv;
use futures::StreamExt;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const API_SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const API: &str = "/apis/apiregistration.k8s.io/v1/apiservices/v1.example.test";
const WIDGETS: &str = "/apis/example.test/v1/namespaces/default/widgets";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// A CA and a leaf of it, as PEM files `NAME-ca.pem`, `NAME.pem` and `NAME-key.pem`.
fn certificates(folder: &Path, name: &str, host: &str) {
    let ca_key = rcgen::KeyPair::generate().expect("key");
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).expect("ca");
    let issuer = rcgen::Issuer::new(params, ca_key);
    let key = rcgen::KeyPair::generate().expect("key");
    let mut leaf = rcgen::CertificateParams::new(vec![host.to_owned()]).expect("params");
    leaf.distinguished_name.push(rcgen::DnType::CommonName, name);
    let leaf = leaf.signed_by(&key, &issuer).expect("leaf");
    for (file, text) in [("-ca", ca.pem()), ("", leaf.pem()), ("-key", key.serialize_pem())] {
        std::fs::write(folder.join(format!("{name}{file}.pem")), text).expect("written");
    }
}

/// What the server was asked: method, path with query, headers, body.
type Asked = Arc<Mutex<Vec<Value>>>;

/// A server of widgets.
struct Extension {
    folder: tempfile::TempDir,
    port: u16,
    asked: Asked,
    /// Lets a watch send its second event.
    more: Arc<Notify>,
    tasks: Tasks,
}

impl Extension {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        certificates(folder.path(), "widgets", "widgets.default.svc");
        certificates(folder.path(), "front-proxy", "front-proxy");
        let file = |name: &str| folder.path().join(name);
        let identity = Identity { cert: file("widgets.pem"), key: file("widgets-key.pem") };
        let authority = file("front-proxy-ca.pem");
        let clients = Some((&[authority.as_path()][..], ClientAuth::Required));
        let acceptor = tls::server(&identity, clients, &[]).expect("tls");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("address").port();
        let (asked, more, tasks) = (Asked::default(), Arc::new(Notify::new()), Tasks::new());
        let (log, gate, owner) = (asked.clone(), more.clone(), tasks.clone());
        tasks.run("extension", async move {
            let stop = owner.stopping();
            loop {
                let tcp = tokio::select! {
                    Ok((tcp, _)) = listener.accept() => tcp,
                    () = stop.cancelled() => return,
                };
                let (acceptor, log, gate, tasks) =
                    (acceptor.clone(), log.clone(), gate.clone(), owner.clone());
                owner.run("extension's connection", async move {
                    let Ok(stream) = acceptor.accept(tcp).await else { return };
                    let stop = tasks.stopping();
                    let service = service_fn(move |request| {
                        let (log, gate, tasks) = (log.clone(), gate.clone(), tasks.clone());
                        async move { Ok::<_, Infallible>(answered(request, log, gate, tasks).await) }
                    });
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .with_upgrades();
                    tokio::select! {
                        _ = connection => {}
                        () = stop.cancelled() => {}
                    }
                });
            }
        });
        Self { folder, port, asked, more, tasks }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn flags(&self) -> Vec<String> {
        let flag = |flag: &str, file: &str| format!("--{flag}={}", self.file(file).display());
        vec![
            flag("proxy-client-cert-file", "front-proxy.pem"),
            flag("proxy-client-key-file", "front-proxy-key.pem"),
            flag("requestheader-client-ca-file", "front-proxy-ca.pem"),
            "--requestheader-allowed-names=front-proxy".to_owned(),
            "--requestheader-uid-headers=X-Remote-Uid".to_owned(),
        ]
    }

    fn service(&self, host: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "widgets"},
            "spec": {"type": "ExternalName", "externalName": host, "ports": [{"port": self.port}]}})
    }

    fn api(&self) -> Value {
        let authority = std::fs::read(self.file("widgets-ca.pem")).expect("pem");
        json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1.example.test"},
            "spec": {"group": "example.test", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10,
                "caBundle": BASE64_STANDARD.encode(authority),
                "service": {"namespace": "default", "name": "widgets", "port": self.port}}})
    }

    /// The last request for a path.
    fn last(&self, path: &str) -> Value {
        let asked = self.asked.lock();
        let found =
            asked.iter().rev().find(|asked| asked["path"].as_str().is_some_and(|at| at.starts_with(path)));
        found.cloned().unwrap_or_default()
    }
}

async fn answered(
    mut request: Request<Incoming>,
    log: Asked,
    gate: Arc<Notify>,
    tasks: Tasks,
) -> Response<Body> {
    let (path, method) = (request.uri().to_string(), request.method().to_string());
    let mut headers = json!({});
    for (name, value) in request.headers() {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        let line = headers[name.as_str()].as_str().map_or(value.clone(), |more| format!("{more},{value}"));
        headers[name.as_str()] = json!(line);
    }
    if headers["upgrade"] == "echo" {
        let upgraded = hyper::upgrade::on(&mut request);
        tasks.run("echo", async move {
            let mut stream = TokioIo::new(upgraded.await.expect("upgraded"));
            let mut bytes = [0; 5];
            stream.read_exact(&mut bytes).await.expect("read");
            stream.write_all(&bytes).await.expect("written");
        });
        let response =
            Response::builder().status(101).header("connection", "Upgrade").header("upgrade", "echo");
        return response.body(Body::empty()).expect("response");
    }
    let body = request.into_body().collect().await.expect("body").to_bytes();
    let asked =
        json!({"method": method, "path": path, "headers": headers, "body": String::from_utf8_lossy(&body)});
    log.lock().push(asked.clone());
    if path.contains("watch=1") {
        let line = |kind: &str| format!("{}\n", json!({"type": kind, "object": {"kind": "Widget"}}));
        let first = futures::stream::iter([Ok::<_, Infallible>(line("ADDED"))]);
        let second = futures::stream::once(async move {
            gate.notified().await;
            Ok(line("MODIFIED"))
        });
        return Response::new(Body::from_stream(first.chain(second)));
    }
    let answer = match path.as_str() {
        "/apis/example.test/v1" => {
            json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "example.test/v1",
            "resources": [{"name": "widgets", "singularName": "widget", "namespaced": true, "kind": "Widget", "verbs": ["get", "list", "watch"]}]})
        }
        "/openapi/v3" => {
            json!({"paths": {"apis/example.test/v1": {"serverRelativeURL": "/openapi/v3/apis/example.test/v1?hash=1"}}})
        }
        _ => asked,
    };
    Response::new(Body::from(answer.to_string()))
}

/// Asks until the answer is as wanted.
async fn until(fixture: &Fixture, path: &str, wanted: impl Fn(u16, &Value) -> bool) -> Value {
    let mut last = Value::Null;
    let asking = async {
        loop {
            let (code, answer) = fixture.call("GET", path, Value::Null).await;
            if wanted(code, &answer) {
                return answer;
            }
            last = answer;
            tokio::task::yield_now().await;
        }
    };
    let answer = tokio::time::timeout(Duration::from_secs(20), asking).await.ok();
    answer.unwrap_or_else(|| panic!("not in time: {last}"))
}

async fn condition(fixture: &Fixture, reason: &str) -> Value {
    let said = |_: u16, object: &Value| object["status"]["conditions"][0]["reason"] == reason;
    until(fixture, API, said).await["status"]["conditions"][0].clone()
}

/// A cluster where widgets are served.
async fn world() -> (Extension, Fixture) {
    let extension = Extension::start().await;
    let fixture = Fixture::flagged(&MemoryKv::default(), &extension.flags()).await;
    assert_eq!(fixture.call("POST", API_SERVICES, extension.api()).await.0, 201);
    let missing = condition(&fixture, "ServiceNotFound").await;
    assert_eq!(missing["message"], "service/widgets in \"default\" is not present");
    let (code, made) = fixture.call("POST", SERVICES, extension.service("127.0.0.1")).await;
    assert_eq!(code, 201, "{made}");
    let passed = condition(&fixture, "Passed").await;
    assert_eq!((&passed["status"], &passed["message"]), (&json!("True"), &json!("all checks passed")));
    (extension, fixture)
}

async fn text(response: Response<Body>) -> (u16, String) {
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.expect("body").to_bytes();
    (code, String::from_utf8_lossy(&bytes).into_owned())
}

impl Fixture {
    async fn with_headers(&self, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
        let mut request = Request::builder().method("POST").uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from("{\"a\": 1}")).expect("request");
        self.server.answer(Some(self.admin.clone()), request).await
    }
}

#[tokio::test]
async fn an_aggregated_server_is_told_who_asks_and_nobody_else_can_tell_it() {
    let (extension, fixture) = world().await;
    let forged = [
        ("authorization", "Bearer x"),
        ("x-remote-user", "forged"),
        ("x-remote-group", "forged"),
        ("x-remote-extra-a", "forged"),
        ("x-other", "kept"),
    ];
    let (code, answer) =
        text(fixture.with_headers(&format!("{WIDGETS}/a%20b?dryRun=All"), &forged).await).await;
    let asked: Value = serde_json::from_str(&answer).expect("json");
    assert_eq!(code, 200, "{answer}");
    assert_eq!(
        (&asked["method"], &asked["path"], &asked["body"]),
        (&json!("POST"), &json!(format!("{WIDGETS}/a%20b?dryRun=All")), &json!("{\"a\": 1}"))
    );
    let headers = &asked["headers"];
    for (name, want) in [
        ("x-remote-user", json!("admin")),
        ("x-remote-group", json!("system:masters,system:authenticated")),
        ("x-other", json!("kept")),
        ("host", json!("widgets.default.svc")),
        ("x-remote-extra-a", Value::Null),
        ("authorization", Value::Null),
    ] {
        assert_eq!(headers[name], want, "{name}");
    }
    assert!(headers["x-remote-extra-authentication.kubernetes.io%2fcredential-id"].is_string(), "{headers}");
    // Who may not is refused here.
    let jane = [("impersonate-user", "jane"), ("impersonate-group", "dev")];
    let (code, _) = text(fixture.with_headers(&format!("{WIDGETS}/jane"), &jane).await).await;
    assert_eq!((code, extension.last(&format!("{WIDGETS}/jane"))), (403, Value::Null));
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "jane"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}]});
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    assert_eq!(fixture.call("POST", bindings, binding).await.0, 201);
    fixture.server.store.fresh().await.expect("fresh");
    let (code, _) = text(fixture.with_headers(&format!("{WIDGETS}/jane"), &jane).await).await;
    let asked = extension.last(&format!("{WIDGETS}/jane"));
    assert_eq!((code, &asked["headers"]["x-remote-user"]), (200, &json!("jane")));
    assert_eq!(asked["headers"]["impersonate-user"], Value::Null);
    // Servers learn whom to believe.
    let maps = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let (_, map) = fixture.call("GET", maps, Value::Null).await;
    let authority = std::fs::read_to_string(extension.file("front-proxy-ca.pem")).expect("pem");
    assert_eq!(
        map["data"],
        json!({"requestheader-client-ca-file": authority, "requestheader-allowed-names": "[\"front-proxy\"]",
            "requestheader-extra-headers-prefix": "[\"X-Remote-Extra-\"]", "requestheader-group-headers": "[\"X-Remote-Group\"]",
            "requestheader-uid-headers": "[\"X-Remote-Uid\"]", "requestheader-username-headers": "[\"X-Remote-User\"]"})
    );
    fixture.stop().await;
    extension.tasks.stop_within(Duration::from_secs(5)).await.expect("a clean stop");
}

#[tokio::test]
async fn streams_of_an_aggregated_server_pass_through_as_they_come() {
    let (extension, fixture) = world().await;
    let watch = fixture.send("GET", &format!("{WIDGETS}?watch=1"), "", Value::Null).await;
    let mut watch = watch.into_body();
    assert_eq!(event(&mut watch).await["type"], "ADDED");
    extension.more.notify_one();
    assert_eq!(event(&mut watch).await["type"], "MODIFIED");

    // An upgrade needs a connection of its own.
    let (here, there) = tokio::io::duplex(1 << 16);
    let (server, admin) = (fixture.server.clone(), fixture.admin.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let (server, admin) = (server.clone(), admin.clone());
        async move { Ok::<_, Infallible>(server.answer(Some(admin), request.map(Body::new)).await) }
    });
    fixture.tasks.run("server", async move {
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(there), service);
        let _ = connection.with_upgrades().await;
    });
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(here)).await.expect("handshake");
    fixture.tasks.run("client", async move {
        let _ = connection.with_upgrades().await;
    });
    let request =
        Request::get(format!("{WIDGETS}/w/exec")).header("connection", "Upgrade").header("upgrade", "echo");
    let mut response =
        sender.send_request(request.body(Body::empty()).expect("request")).await.expect("answer");
    assert_eq!(response.status(), 101);
    let mut stream = TokioIo::new(hyper::upgrade::on(&mut response).await.expect("upgraded"));
    stream.write_all(b"hello").await.expect("written");
    let mut echo = [0; 5];
    stream.read_exact(&mut echo).await.expect("read");
    assert_eq!(&echo, b"hello");
    drop((stream, sender));
    fixture.stop().await;
    extension.tasks.stop_within(Duration::from_secs(5)).await.expect("a clean stop");
}

#[tokio::test]
async fn discovery_names_what_an_aggregated_server_serves_and_what_it_served_before_it_went() {
    let (extension, fixture) = world().await;
    let version = |answer: &Value| {
        let groups = answer["items"].as_array().into_iter().flatten();
        groups
            .clone()
            .find(|group| group["metadata"]["name"] == "example.test")
            .map(|group| group["versions"][0].clone())
    };
    let fresh = version(&fixture.accepted("/apis", AGGREGATED).await).expect("a group");
    assert_eq!(
        (&fresh["freshness"], &fresh["resources"][0]["resource"]),
        (&json!("Current"), &json!("widgets"))
    );
    let (_, group) = fixture.call("GET", "/apis/example.test", Value::Null).await;
    assert_eq!(group["preferredVersion"], json!({"groupVersion": "example.test/v1", "version": "v1"}));
    let (_, groups) = fixture.call("GET", "/apis", Value::Null).await;
    let names: Vec<&Value> =
        groups["groups"].as_array().expect("groups").iter().map(|group| &group["name"]).collect();
    assert_eq!(
        (names[0], names[1], names[names.len() - 1]),
        (&json!("apiregistration.k8s.io"), &json!("apps"), &json!("example.test"))
    );
    let (_, index) = fixture.call("GET", "/openapi/v3", Value::Null).await;
    let url = index["paths"]["apis/example.test/v1"]["serverRelativeURL"].as_str().expect("url").to_owned();
    let (_, described) = fixture.call("GET", &url, Value::Null).await;
    assert_eq!(
        (&described["path"], &described["headers"]["x-remote-user"]),
        (&json!(url), &json!("system:aggregator"))
    );

    // It dies: requests fail at once, and the next look at it says why.
    extension.tasks.stop_within(Duration::from_secs(5)).await.expect("a clean stop");
    let at = format!("127.0.0.1:{}", extension.port);
    let refused = format!("dial tcp {at}: connect: connection refused");
    let answer = text(fixture.send("GET", WIDGETS, "", Value::Null).await).await;
    assert_eq!(answer, (503, format!("error trying to reach service: {refused}\n")));
    let mut service = fixture.call("GET", &format!("{SERVICES}/widgets"), Value::Null).await.1;
    service["spec"]["externalName"] = json!("localhost");
    assert_eq!(fixture.call("PUT", &format!("{SERVICES}/widgets"), service).await.0, 200);
    let failed = condition(&fixture, "FailedDiscoveryCheck").await;
    let url = format!("https://localhost:{}/apis/example.test/v1", extension.port);
    let start = format!("failing or missing response from {url}: Get \"{url}\": dial tcp localhost:");
    assert_eq!(failed["status"], "False");
    assert!(failed["message"].as_str().expect("text").starts_with(&start), "{failed}");
    let answer = text(fixture.send("GET", WIDGETS, "", Value::Null).await).await;
    assert_eq!(answer, (503, "service unavailable\n".to_owned()));
    let stale = version(&fixture.accepted("/apis", AGGREGATED).await).expect("a group");
    assert_eq!(
        (&stale["freshness"], &stale["resources"][0]["resource"]),
        (&json!("Stale"), &json!("widgets"))
    );

    assert_eq!(fixture.call("DELETE", API, Value::Null).await.0, 200);
    fixture.server.store.fresh().await.expect("fresh");
    assert_eq!(fixture.call("GET", WIDGETS, Value::Null).await.0, 404);
    assert_eq!(version(&fixture.accepted("/apis", AGGREGATED).await), None);
    fixture.stop().await;
}

#[tokio::test]
async fn a_server_that_cannot_be_trusted_gets_no_requests() {
    let extension = Extension::start().await;
    let fixture = Fixture::flagged(&MemoryKv::default(), &extension.flags()).await;
    assert_eq!(fixture.call("POST", SERVICES, extension.service("127.0.0.1")).await.0, 201);
    let mut api = extension.api();
    let authority = std::fs::read(extension.file("front-proxy-ca.pem")).expect("pem");
    api["spec"]["caBundle"] = json!(BASE64_STANDARD.encode(authority));
    assert_eq!(fixture.call("POST", API_SERVICES, api).await.0, 201);
    // As in Kubernetes, availability looks past certificates.
    condition(&fixture, "Passed").await;
    let reloads = "/readyz/poststarthook/aggregator-reload-proxy-client-cert";
    assert_eq!(text(fixture.send("GET", reloads, "", Value::Null).await).await, (200, "ok".to_owned()));
    let answer = text(fixture.send("GET", WIDGETS, "", Value::Null).await).await;
    let want = "error trying to reach service: tls: failed to verify certificate: x509: certificate signed by unknown authority\n";
    assert_eq!(answer, (503, want.to_owned()));
    assert_eq!(extension.last(WIDGETS), Value::Null);
    fixture.stop().await;
    extension.tasks.stop_within(Duration::from_secs(5)).await.expect("a clean stop");
}

#[tokio::test]
async fn every_group_version_has_its_api_service_and_definitions_take_theirs_with_them() {
    let kv = MemoryKv::default();
    let (fixture, other) = (Fixture::over(&kv).await, Fixture::over(&kv).await);
    for (name, priorities) in [("v1.", (18_000, 1)), ("v2.autoscaling", (17_500, 30))] {
        let path = format!("{API_SERVICES}/{name}");
        let object = until(&fixture, &path, |code, _| code == 200).await;
        let spec = &object["spec"];
        assert_eq!(
            (&spec["groupPriorityMinimum"], &spec["versionPriority"]),
            (&json!(priorities.0), &json!(priorities.1))
        );
        assert_eq!(object["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "onstart");
        let condition = &object["status"]["conditions"][0];
        assert_eq!((&condition["status"], &condition["reason"]), (&json!("True"), &json!("Local")));
    }
    let version = json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}});
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "gears.a.io"},
        "spec": {"group": "a.io", "scope": "Cluster", "names": {"plural": "gears", "kind": "Gear"}, "versions": [version]}});
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    assert_eq!(fixture.call("POST", definitions, definition).await.0, 201);
    let path = format!("{API_SERVICES}/v1.a.io");
    let object = until(&other, &path, |code, _| code == 200).await;
    assert_eq!(object["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "true");
    assert_eq!(
        object["spec"],
        json!({"group": "a.io", "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 100})
    );
    // Who takes it away gets it back, with another uid.
    assert_eq!(fixture.call("DELETE", &path, Value::Null).await.0, 200);
    until(&fixture, &path, |code, new| code == 200 && new["metadata"]["uid"] != object["metadata"]["uid"])
        .await;
    assert_eq!(fixture.call("DELETE", &format!("{definitions}/gears.a.io"), Value::Null).await.0, 200);
    until(&other, &path, |code, _| code == 404).await;
    fixture.stop().await;
    other.stop().await;
}
