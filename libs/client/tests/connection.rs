//! The connection itself: client certificate, HTTP/2, everything on one socket.

use coracle_daemon::tls::{self, ClientAuth, Identity};
use coracle_daemon::{Tasks, clock};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

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

#[tokio::test]
async fn all_requests_share_one_http2_connection() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().expect("a folder");
    let (ca, identity) = certificates(dir.path());
    let acceptor =
        TlsAcceptor::from(tls::server(&identity, Some((&ca, ClientAuth::Required)), &[b"h2"]).expect("TLS"));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (tasks, connections) = (Tasks::new(), Arc::new(AtomicUsize::new(0)));
    let (spawner, counted) = (tasks.clone(), connections.clone());
    tasks.run("server", async move {
        while let Ok((socket, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(socket).await else { continue };
            counted.fetch_add(1, Ordering::Relaxed);
            spawner.run("connection", async move {
                let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service_fn(answer))
                    .await;
                // The client leaves without a word when the test is over.
                let _ = served;
            });
        }
    });
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

/// A ConfigMap named as the client names itself.
async fn answer(request: hyper::Request<Incoming>) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    let agent = request.headers().get("user-agent").and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let body = format!(r#"{{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {{"name": "{agent}"}}}}"#);
    Ok(hyper::Response::new(Full::from(body)))
}
