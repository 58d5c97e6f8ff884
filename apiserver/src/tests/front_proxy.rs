//! Front proxies, over real TLS: who is believed to say who asks.

use super::{Cli, Fixture};
use crate::outbound::{Destination, Relay};
use crate::serve;
use axum::body::Body;
use clap::Parser;
use coracle_daemon::Tasks;
use coracle_daemon::tls::{self, ClientAuth, Identity};
use coracle_etcd::memory::MemoryKv;
use http::Request;
use http_body_util::BodyExt;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpListener;

/// A CA `NAME-ca.pem`, and of it a certificate for each common name: `COMMON.pem` and `COMMON-key.pem`.
fn authority(folder: &Path, name: &str, commons: &[&str]) {
    let ca_key = KeyPair::generate().expect("key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let ca = params.self_signed(&ca_key).expect("ca");
    std::fs::write(folder.join(format!("{name}-ca.pem")), ca.pem()).expect("written");
    let issuer = Issuer::new(params, ca_key);
    for common in commons {
        let key = KeyPair::generate().expect("key");
        let mut leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("params");
        leaf.distinguished_name.push(DnType::CommonName, *common);
        let leaf = leaf.signed_by(&key, &issuer).expect("leaf");
        std::fs::write(folder.join(format!("{common}.pem")), leaf.pem()).expect("written");
        std::fs::write(folder.join(format!("{common}-key.pem")), key.serialize_pem()).expect("written");
    }
}

/// Whom a server on `port` takes a caller for.
async fn taken_for(folder: &Path, port: u16, common: Option<&str>, headers: &[(&str, &str)]) -> (u16, Value) {
    let identity = |common: &str| Identity {
        cert: folder.join(format!("{common}.pem")),
        key: folder.join(format!("{common}-key.pem")),
    };
    let own = common.map(identity);
    let config = tls::client(&folder.join("clients-ca.pem"), own.as_ref(), &[]).expect("tls");
    let destination = Destination { host: "127.0.0.1".to_owned(), port, tls: Some(config), name: None };
    let mut request = Request::post("/").header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let request = request.body(Body::from(review.to_string())).expect("request");
    let (path, tasks) = ("/apis/authentication.k8s.io/v1/selfsubjectreviews", Tasks::new());
    let response = Relay::new(tasks.clone()).send(&destination, request, path).await.expect("an answer");
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.expect("body").to_bytes();
    tasks.stop_within(Duration::from_secs(5)).await.expect("a clean stop");
    let answer: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    (code, answer["status"]["userInfo"].clone())
}

#[tokio::test]
async fn a_front_proxy_says_who_asks_and_nobody_else_does() {
    let folder = tempfile::tempdir().expect("folder");
    authority(folder.path(), "clients", &["server", "jane", ""]);
    authority(folder.path(), "others", &["mallory"]);
    authority(folder.path(), "proxies", &["front-proxy", "stranger"]);
    let file = |flag: &str, file: &str| format!("--{flag}={}", folder.path().join(file).display());
    let flags = [
        file("client-ca-file", "clients-ca.pem"),
        file("requestheader-client-ca-file", "proxies-ca.pem"),
        "--requestheader-allowed-names=front-proxy".to_owned(),
        "--requestheader-uid-headers=X-Remote-Uid".to_owned(),
    ];
    let fixture = Fixture::flagged(&MemoryKv::default(), &flags).await;
    let known =
        ["x", "--etcd-servers=http://x", "--tls-cert-file=x", "--tls-private-key-file=x"].map(str::to_owned);
    let args = Cli::parse_from(known.into_iter().chain(flags)).args;
    let identity =
        Identity { cert: folder.path().join("server.pem"), key: folder.path().join("server-key.pem") };
    let clients = Some((&args.authentication.authorities()[..], ClientAuth::Asked));
    let acceptor = tls::server(&identity, clients, &[b"http/1.1"]).expect("tls");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("address").port();
    fixture.tasks.spawn("listener", serve::listen(fixture.server.clone(), listener, acceptor));

    let ann = [("x-remote-user", "ann"), ("x-remote-group", "dev"), ("x-remote-extra-Scopes", "all")];
    // Whose certificate, the headers, and whom that makes.
    type Row<'a> = (Option<&'a str>, &'a [(&'a str, &'a str)], u16, &'a str);
    let rows: [Row<'_>; 9] = [
        (Some("front-proxy"), &ann, 201, "ann"),
        (Some("front-proxy"), &[], 401, ""),
        (Some("stranger"), &ann, 401, ""),
        (Some("stranger"), &[], 401, ""),
        (Some("jane"), &ann, 201, "jane"),
        (Some("jane"), &[], 201, "jane"),
        // Strangers may not even ask who they are.
        (None, &ann, 403, ""),
        // A certificate without a name is as good as none; one of an unknown authority is refused in HTTP.
        (Some(""), &[], 403, ""),
        (Some("mallory"), &[], 401, ""),
    ];
    for (at, (common, headers, code, name)) in rows.into_iter().enumerate() {
        let (got, user) = taken_for(folder.path(), port, common, headers).await;
        assert_eq!((got, user["username"].as_str().unwrap_or_default()), (code, name), "row {at}");
    }
    let (_, user) = taken_for(folder.path(), port, Some("front-proxy"), &ann).await;
    assert_eq!(
        (&user["groups"], &user["extra"]),
        (&json!(["dev", "system:authenticated"]), &json!({"scopes": ["all"]}))
    );
    fixture.stop().await;
}
