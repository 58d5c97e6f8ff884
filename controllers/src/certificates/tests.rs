//! Which requests are approved and signed, and when they go.

use super::*;
use crate::testing::{at, object};
use coracle_client::Scope;
use coracle_client::fake::FakeApi;
use coracle_daemon::Tasks;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use serde_json::{Value, json};
use std::path::Path;

const KUBELET: [&str; 3] = ["digital signature", "key encipherment", "client auth"];

fn pem(common_name: &str, organization: &str, dns: &[&str]) -> Vec<u8> {
    let mut of = CertificateParams::default();
    of.distinguished_name = rcgen::DistinguishedName::new();
    of.distinguished_name.push(DnType::CommonName, common_name);
    if !organization.is_empty() {
        of.distinguished_name.push(DnType::OrganizationName, organization);
    }
    for name in dns {
        of.subject_alt_names.push(SanType::DnsName((*name).try_into().expect("name")));
    }
    let key = KeyPair::generate().expect("key");
    of.serialize_request(&key).expect("request").pem().expect("pem").into_bytes()
}

fn request(
    signer: &str,
    sender: &str,
    pem: &[u8],
    usages: &[&str],
    status: &Value,
) -> CertificateSigningRequest {
    object(json!({
        "metadata": {"name": "r", "creationTimestamp": "2030-01-01T00:00:00Z"},
        "spec": {"signerName": signer, "username": sender, "usages": usages,
            "request": k8s_openapi::ByteString(pem.to_vec())},
        "status": status,
    }))
}

fn signer(folder: &Path) -> Signer {
    let key = KeyPair::generate().expect("key");
    let mut of = CertificateParams::default();
    of.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    std::fs::write(folder.join("ca.crt"), of.self_signed(&key).expect("certificate").pem()).expect("written");
    std::fs::write(folder.join("ca.key"), key.serialize_pem()).expect("written");
    let authority = Authority::from_files(&folder.join("ca.crt"), &folder.join("ca.key")).expect("authority");
    Signer { authority, longest: Duration::from_secs(8760 * 3600) }
}

#[test]
fn only_a_nodes_own_client_certificate_is_approved_unseen() {
    let node = pem("system:node:n1", "system:nodes", &[]);
    let named = pem("system:node:n1", "system:nodes", &["n1"]);
    let other = pem("system:node:n1", "other", &[]);
    let user = pem("jane", "system:nodes", &[]);
    let (own, boot) = ("system:node:n1", "system:bootstrap:abcdef");
    let approved = json!({"conditions": [{"type": "Approved", "status": "True"}]});
    let none = json!({});
    type Case<'a> = (&'a str, &'a str, &'a [u8], &'a [&'a str], &'a Value, Option<usize>);
    let cases: [Case<'_>; 9] = [
        (sign::KUBELET_CLIENT, own, &node, &KUBELET, &none, Some(2)),
        (sign::KUBELET_CLIENT, boot, &node, &KUBELET, &none, Some(1)),
        (sign::KUBELET_CLIENT, own, &node, &["digital signature", "client auth"], &none, Some(2)),
        (sign::KUBELET_CLIENT, own, &node, &["server auth", "digital signature"], &none, None),
        (sign::KUBELET_CLIENT, own, &named, &KUBELET, &none, None),
        (sign::KUBELET_CLIENT, own, &other, &KUBELET, &none, None),
        (sign::KUBELET_CLIENT, own, &user, &KUBELET, &none, None),
        (sign::KUBELET_CLIENT, own, &node, &KUBELET, &approved, None),
        ("kubernetes.io/kube-apiserver-client", own, &node, &KUBELET, &none, None),
    ];
    for (index, (signer, sender, pem, usages, status, want)) in cases.into_iter().enumerate() {
        let found = approve::recognized(&request(signer, sender, pem, usages, status));
        assert_eq!(found.map(|permissions| permissions.len()), want, "case {index}");
    }
}

#[test]
fn a_signer_signs_what_is_approved_and_of_its_kind() {
    let folder = tempfile::tempdir().expect("folder");
    let signer = signer(folder.path());
    let approved = json!({"conditions": [{"type": "Approved", "status": "True"}]});
    let now = at("2030-01-01T00:00:00Z");
    let serving = pem("system:node:n1", "system:nodes", &["n1"]);
    let nameless = pem("system:node:n1", "system:nodes", &[]);
    let jane = pem("jane", "devs", &[]);
    let (client, server) = ("kubernetes.io/kube-apiserver-client", "kubernetes.io/kubelet-serving");
    let serves = ["digital signature", "server auth"];
    type Case<'a> = (&'a str, &'a [u8], &'a [&'a str], Result<(), &'a str>);
    let cases: [Case<'_>; 6] = [
        (client, &jane, &["client auth"], Ok(())),
        (client, &jane, &["client auth", "cert sign"], Err("usages did not match")),
        (server, &serving, &serves, Ok(())),
        (server, &nameless, &serves, Err("DNS or IP subjectAltName is required")),
        (server, &jane, &serves, Err("subject organization is not system:nodes")),
        (client, b"junk", &["client auth"], Err("unable to parse csr")),
    ];
    for (index, (name, pem, usages, want)) in cases.into_iter().enumerate() {
        let done = sign::signed(&signer, &request(name, "x", pem, usages, &approved), now).expect("handled");
        match want {
            Ok(()) => {
                assert!(done.expect("signed").starts_with("-----BEGIN CERTIFICATE-----"), "case {index}");
            }
            Err(why) => assert!(done.expect_err("refused").starts_with(why), "case {index}"),
        }
    }
    let not_yet = request(client, "x", &jane, &["client auth"], &json!({}));
    let foreign = request("example.com/own", "x", &jane, &["client auth"], &approved);
    let denied =
        json!({"conditions": [{"type": "Approved", "status": "True"}, {"type": "Denied", "status": "True"}]});
    let denied = request(client, "x", &jane, &["client auth"], &denied);
    assert!([not_yet, foreign, denied].iter().all(|request| sign::signed(&signer, request, now).is_none()));
    let mut short = request(client, "x", &jane, &["client auth"], &approved);
    short.spec.expiration_seconds = Some(700);
    let pem = sign::signed(&signer, &short, now).expect("handled").expect("signed");
    assert_eq!(coracle_keys::certificate::expiry(pem.as_bytes()).expect("time"), now.as_second() + 700);
}

#[test]
fn requests_go_when_their_time_is_over() {
    let seen = |status: &Value, time: &str| {
        let request = request("example.com/own", "x", b"", &[], status);
        matches!(clean::look(&request, at(time)), clean::Look::Gone)
    };
    let decided = |kind: &str| json!({"conditions": [{"type": kind, "status": "True", "lastUpdateTime": "2030-01-01T02:00:00Z"}]});
    assert!(!seen(&json!({}), "2030-01-01T23:59:59Z"));
    assert!(seen(&json!({}), "2030-01-02T00:00:00Z"));
    for kind in ["Approved", "Denied", "Failed"] {
        assert!(!seen(&decided(kind), "2030-01-01T02:59:59Z"), "{kind}");
        assert!(seen(&decided(kind), "2030-01-01T03:00:00Z"), "{kind}");
    }
}

#[tokio::test]
async fn an_approved_request_gets_its_certificate() {
    let folder = tempfile::tempdir().expect("folder");
    let (api, scope) = (FakeApi::default(), Scope::new(&Tasks::new()));
    let settings = crate::Settings {
        node_grace: Duration::from_secs(50),
        signer: Some(Arc::new(signer(folder.path()))),
        ..crate::Settings::default()
    };
    crate::start(&api.client(), &scope, &settings);
    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let mut asked = json!(request(
        "kubernetes.io/kube-apiserver-client",
        "jane",
        &pem("jane", "devs", &[]),
        &["client auth"],
        &json!({})
    ));
    asked["metadata"] = json!({"name": "r"});
    api.create(path, asked);
    let one = format!("{path}/r");
    let now = clock::rfc3339_seconds(clock::now());
    api.patch(
        &format!("{one}/status"),
        &json!({"status": {"conditions": [{"type": "Approved", "status": "True", "lastUpdateTime": now}]}}),
    );
    api.until("the certificate", |api| api.get(&one)["status"]["certificate"].is_string()).await;
    let pem = api.get(&one)["status"]["certificate"].as_str().expect("text").to_owned();
    // `-----BEGIN CERTIFICATE-`
    assert!(pem.starts_with("LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0"));
}
