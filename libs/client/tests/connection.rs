//! The connection itself: client certificate, HTTP/2, everything on one socket.

use coracle_daemon::tls::{self, ClientAuth, Identity};
use coracle_daemon::{Tasks, clock};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use parking_lot::Mutex;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;

/// Writes a CA and one identity for both sides; returns their paths.
fn certificates(dir: &Path) -> (PathBuf, Identity) {
    let ca_key = rcgen::KeyPair::generate().expect("a key");
    let mut ca = rcgen::CertificateParams::new(Vec::new()).expect("a CA");
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_cert = ca.self_signed(&ca_key).expect("signed");
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().expect("a key");
    let cert = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()])
        .expect("names")
        .signed_by(&key, &issuer)
        .expect("signed");
    let write = |name: &str, text: String| {
        let path = dir.join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    let identity =
        Identity { cert: write("tls.crt", cert.pem()), key: write("tls.key", key.serialize_pem()) };
    (write("ca.crt", ca_cert.pem()), identity)
}

fn kubeconfig(dir: &Path, port: u16) -> PathBuf {
    let at = |name: &str| dir.join(name).display().to_string();
    let text = format!(
        r#"{{"apiVersion": "v1", "kind": "Config", "current-context": "c", "contexts": [{{"name": "c", "context": {{"cluster": "c", "user": "u"}}}}],
        "clusters": [{{"name": "c", "cluster": {{"server": "https://127.0.0.1:{port}", "certificate-authority": "{}"}}}}],
        "users": [{{"name": "u", "user": {{"client-certificate": "{}", "client-key": "{}"}}}}]}}"#,
        at("ca.crt"),
        at("tls.crt"),
        at("tls.key")
    );
    let path = dir.join("kubeconfig");
    std::fs::write(&path, text).expect("written");
    path
}

/// Serves HTTP/2 by `answer` until `tasks` end; returns the port and the number of connections so far.
async fn serve<F>(dir: &Path, tasks: &Tasks, answer: F) -> (u16, Arc<AtomicUsize>)
where
    F: Fn(&hyper::Request<Incoming>) -> (u16, String) + Clone + Send + Sync + 'static,
{
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (ca, identity) = certificates(dir);
    let clients = Some((&[ca.as_path()][..], ClientAuth::Required));
    let acceptor = tls::server(&identity, clients, &[b"h2"]).expect("TLS");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let connections = Arc::new(AtomicUsize::new(0));
    let (spawner, counted) = (tasks.clone(), connections.clone());
    tasks.run("server", async move {
        while let Ok((socket, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(socket).await else { continue };
            counted.fetch_add(1, Ordering::Relaxed);
            let answer = answer.clone();
            let service = service_fn(move |request: hyper::Request<Incoming>| {
                let (code, body) = answer(&request);
                async move {
                    let response = hyper::Response::builder().status(code);
                    Ok::<_, Infallible>(response.body(Full::new(Bytes::from(body))).expect("a response"))
                }
            });
            spawner.run("connection", async move {
                let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
                // The client leaves without a word when the test is over.
                let _ = served;
            });
        }
    });
    (port, connections)
}

/// A ConfigMap named as the client names itself.
fn named(request: &hyper::Request<Incoming>) -> (u16, String) {
    let agent = request.headers().get("user-agent").and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    (200, format!(r#"{{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {{"name": "{agent}"}}}}"#))
}

#[tokio::test]
async fn all_requests_share_one_http2_connection() {
    let (dir, tasks) = (tempfile::tempdir().expect("a folder"), Tasks::new());
    let (port, connections) = serve(dir.path(), &tasks, named).await;
    let client = coracle_client::connect(&kubeconfig(dir.path(), port), "tester").await.expect("a client");
    let api: Api<ConfigMap> = Api::namespaced(client, "ns");
    let names = ["a", "b", "c", "d"];
    // One request opens the connection, the others find it open.
    api.get(names[0]).await.expect("answered");
    let got = futures::future::join_all(names.iter().map(|name| api.get(name)));
    let got = clock::timeout(Duration::from_secs(10), got).await.expect("in time");
    assert!(
        got.iter()
            .all(|answer| answer.as_ref().is_ok_and(|map| map.metadata.name.as_deref() == Some("tester"))),
        "{got:?}"
    );
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn nothing_is_asked_of_a_server_before_it_is_ready() {
    let (dir, tasks) = (tempfile::tempdir().expect("a folder"), Tasks::new());
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = asked.clone();
    let (port, _) = serve(dir.path(), &tasks, move |request: &hyper::Request<Incoming>| {
        let mut asked = seen.lock();
        asked.push(request.uri().path().to_owned());
        if asked.len() < 3 { (500, "not yet".to_owned()) } else { named(request) }
    })
    .await;
    let client = coracle_client::connect(&kubeconfig(dir.path(), port), "tester").await.expect("a client");
    let api: Api<ConfigMap> = Api::namespaced(client, "ns");
    let both = futures::future::join(api.get("a"), api.get("a"));
    let (one, other) = clock::timeout(Duration::from_secs(10), both).await.expect("in time");
    assert!(one.is_ok() && other.is_ok(), "{one:?} {other:?}");
    let (ready, get) = ("/readyz", "/api/v1/namespaces/ns/configmaps/a");
    assert_eq!(*asked.lock(), [ready, ready, ready, get, get]);
}
