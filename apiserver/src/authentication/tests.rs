//! Authentication end to end over a fake reader: issue, verify, review.

use super::*;
use crate::reader::fake::Fake;
use serde_json::{Value, json};
use std::io::Write;

fn args(pem: &str) -> (AuthenticationArgs, tempfile::NamedTempFile) {
    let mut file = tempfile::NamedTempFile::new().expect("file");
    file.write_all(pem.as_bytes()).expect("written");
    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: AuthenticationArgs,
    }
    let key = file.path().display();
    let flags = [
        "x".to_owned(),
        format!("--service-account-key-file={key}"),
        format!("--service-account-signing-key-file={key}"),
        "--service-account-issuer=https://issuer".to_owned(),
        "--enable-bootstrap-token-auth".to_owned(),
    ];
    (<Cli as clap::Parser>::parse_from(flags).args, file)
}

#[tokio::test]
async fn a_certificate_of_nobody_here_is_refused_unless_a_token_speaks() {
    let (mut args, _file) = args(&rcgen::KeyPair::generate().expect("key").serialize_pem());
    let mut tokens = tempfile::NamedTempFile::new().expect("file");
    tokens.write_all(b"secret,tina,7\n").expect("written");
    args.token_auth_file = Some(tokens.path().to_owned());
    let fake = world();
    let authentication = Authentication::new(&args, fake.clone(), fake).expect("authentication");
    let stranger = rcgen::generate_simple_self_signed(["stranger".to_owned()]).expect("certificate");
    let peer = authentication.peer(&[stranger.cert.der().clone()]);
    let user = authentication.authenticate(&headers("secret"), &peer).await.expect("tina");
    assert_eq!(user.name, "tina");
    for refused in [http::HeaderMap::new(), headers("wrong")] {
        assert_eq!(authentication.authenticate(&refused, &peer).await.expect_err("a stranger").code, 401);
    }
}

#[test]
fn a_flag_without_a_value_names_no_front_proxy() {
    let (mut args, _file) = args("");
    args.requestheader_allowed_names = vec![String::new()];
    assert!(args.front_proxies().is_empty());
}

#[test]
fn another_issuer_cannot_have_the_url_of_our_own() {
    let (mut args, _file) = args(&rcgen::KeyPair::generate().expect("key").serialize_pem());
    args.oidc = OidcArgs {
        oidc_issuer_url: args.service_account_issuer.first().cloned(),
        oidc_client_id: Some("kube".to_owned()),
        oidc_username_claim: "sub".to_owned(),
        ..OidcArgs::default()
    };
    let world = world();
    let told = Authentication::new(&args, world.clone(), world).err().map(|error| error.to_string());
    assert!(told.as_ref().is_some_and(|told| told.contains("must not overlap")), "{told:?}");
}

fn world() -> Arc<Fake> {
    Fake::with([
        ("", "serviceaccounts", json!({"metadata": {"namespace": "a", "name": "robot", "uid": "u1"}})),
        ("", "nodes", json!({"metadata": {"name": "n1", "uid": "nu"}})),
        (
            "",
            "pods",
            json!({"metadata": {"namespace": "a", "name": "p", "uid": "pu"}, "spec": {"serviceAccountName": "robot", "nodeName": "n1"}}),
        ),
        (
            "",
            "pods",
            json!({"metadata": {"namespace": "a", "name": "other", "uid": "ou"}, "spec": {"serviceAccountName": "x"}}),
        ),
    ])
}

fn authentication(fake: &Arc<Fake>) -> Authentication {
    let key = rcgen::KeyPair::generate().expect("key");
    let (args, _file) = args(&key.serialize_pem());
    Authentication::new(&args, fake.clone(), fake.clone()).expect("authentication")
}

#[tokio::test]
async fn tokens_of_a_former_issuer_stay_good_and_live_no_longer_than_they_may() {
    let fake = world();
    let (mut args, _file) = args(&rcgen::KeyPair::generate().expect("key").serialize_pem());
    let made = |args: &AuthenticationArgs| Authentication::new(args, fake.clone(), fake.clone());
    let former = made(&args).expect("authentication");
    let answer = issue(&former, json!({"expirationSeconds": 7200})).await;
    args.service_account_issuer = ["https://new", "https://issuer"].map(str::to_owned).to_vec();
    args.service_account_max_token_expiration = Duration::from_secs(3600);
    let new = made(&args).expect("authentication");
    assert!(new.authenticate(&headers(token(&answer)), &Peer::default()).await.is_ok());
    let request = json!({"spec": {"expirationSeconds": 7200}});
    let (answer, warning) = new.issue("a", "robot", &request).await.expect("issued");
    assert_eq!(answer["spec"]["expirationSeconds"], 3600);
    let told = "requested expiration of 7200 seconds shortened to 3600 seconds";
    assert_eq!(warning.as_deref(), Some(told));
    assert!(former.authenticate(&headers(token(&answer)), &Peer::default()).await.is_err());
    args.service_account_max_token_expiration = Duration::from_secs(60);
    assert!(made(&args).is_err());
}

fn headers(token: &str) -> http::HeaderMap {
    let mut headers = http::HeaderMap::new();
    headers.insert("authorization", format!("Bearer {token}").parse().expect("header"));
    headers
}

async fn issue(authentication: &Authentication, spec: Value) -> Value {
    authentication.issue("a", "robot", &json!({"spec": spec})).await.expect("issued").0
}

fn token(answer: &Value) -> &str {
    answer["status"]["token"].as_str().expect("token")
}

#[tokio::test]
async fn a_pods_token_names_its_account_pod_and_node() {
    let fake = world();
    let authentication = authentication(&fake);
    let answer = issue(
        &authentication,
        json!({"expirationSeconds": 3607, "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": "pu"}}),
    )
    .await;
    assert_eq!(answer["spec"]["audiences"], json!(["https://issuer"]));
    let user = authentication.authenticate(&headers(token(&answer)), &Peer::default()).await.expect("user");
    assert_eq!(user.name, "system:serviceaccount:a:robot");
    assert_eq!(user.uid, "u1");
    assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]);
    assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], ["p"]);
    assert_eq!(user.extra["authentication.kubernetes.io/node-uid"], ["nu"]);
}

#[tokio::test]
async fn a_token_dies_with_what_it_is_bound_to() {
    let bound = json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p"}});
    for (plural, name) in [("serviceaccounts", "robot"), ("pods", "p")] {
        let fake = world();
        let authentication = authentication(&fake);
        let answer = issue(&authentication, bound.clone()).await;
        fake.remove("", plural, "a", name);
        let refused =
            authentication.authenticate(&headers(token(&answer)), &Peer::default()).await.expect_err(plural);
        assert_eq!(refused, Status::unauthorized());
        fake.put("", plural, json!({"metadata": {"namespace": "a", "name": name, "uid": "made again"}}));
        assert!(
            authentication.authenticate(&headers(token(&answer)), &Peer::default()).await.is_err(),
            "{plural}"
        );
    }
}

#[tokio::test]
async fn forged_and_foreign_tokens_are_refused() {
    let fake = world();
    let (ours, theirs) = (authentication(&fake), authentication(&fake));
    let answer = issue(&theirs, json!({})).await;
    assert!(ours.authenticate(&headers(token(&answer)), &Peer::default()).await.is_err(), "another key");
    let answer = issue(&ours, json!({"audiences": ["vault"]})).await;
    assert!(ours.authenticate(&headers(token(&answer)), &Peer::default()).await.is_err(), "another audience");
    let answer = issue(&ours, json!({})).await;
    let parts: Vec<&str> = token(&answer).split('.').collect();
    let none = format!("eyJhbGciOiJub25lIn0.{}.", parts[1]);
    for bad in [none.as_str(), "", "a.b.c", "a.b", &format!("{}.{}.{}", parts[0], parts[1], "AAAA")] {
        if !bad.is_empty() {
            assert_eq!(
                ours.authenticate(&headers(bad), &Peer::default()).await.expect_err(bad),
                Status::unauthorized()
            );
        }
    }
}

#[tokio::test]
async fn a_request_is_checked_before_a_token_is_issued() {
    let fake = world();
    let authentication = authentication(&fake);
    let pod = |name: &str, uid: &str| json!({"spec": {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": name, "uid": uid}}});
    let bound = |object: Value| json!({"spec": {"boundObjectRef": object}});
    let cases = [
        (
            "robot",
            json!({"metadata": {"name": "b"}}),
            422,
            r#"TokenRequest.authentication.k8s.io "robot" is invalid: metadata.name: Invalid value: "b": must match the service account name if specified"#,
        ),
        ("robot", bound(json!({})), 400, "cannot bind token to object of type /, Kind="),
        // Whatever the version is.
        (
            "robot",
            bound(json!({"kind": "Pod", "apiVersion": "v2", "name": "none"})),
            404,
            r#"pods "none" not found"#,
        ),
        ("robot", bound(json!({"kind": "Pod", "apiVersion": "v1"})), 400, "Name parameter required."),
        (
            "robot",
            json!({"spec": {"expirationSeconds": 60}}),
            422,
            r#"TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: 60: may not specify a duration less than 10 minutes"#,
        ),
        (
            "robot",
            json!({"spec": {"expirationSeconds": 4_294_967_297_u64}}),
            422,
            r#"TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: 4294967297: may not specify a duration larger than 2^32 seconds"#,
        ),
        ("none", json!({"spec": {}}), 404, r#"serviceaccounts "none" not found"#),
        ("robot", pod("gone", ""), 404, r#"pods "gone" not found"#),
        (
            "robot",
            pod("other", ""),
            400,
            r#"cannot bind token for serviceaccount "robot" to pod running with different serviceaccount name."#,
        ),
        (
            "robot",
            pod("p", "zz"),
            409,
            r#"Operation cannot be fulfilled on Pod "p": the UID in the bound object reference (zz) does not match the UID in record. The object might have been deleted and then recreated"#,
        ),
    ];
    for (name, request, code, message) in cases {
        let status = authentication.issue("a", name, &request).await.expect_err(message);
        assert_eq!((status.code, status.message.as_str()), (code, message));
    }
}

#[tokio::test]
async fn nobody_is_anonymous_and_bad_credentials_are_not() {
    let fake = world();
    let authentication = authentication(&fake);
    let user =
        authentication.authenticate(&http::HeaderMap::new(), &Peer::default()).await.expect("anonymous");
    assert_eq!(
        (user.name.as_str(), user.groups),
        ("system:anonymous", vec!["system:unauthenticated".to_owned()])
    );
    assert!(authentication.authenticate(&http::HeaderMap::new(), &Peer::client(b"junk")).await.is_err());
}

#[tokio::test]
async fn a_token_review_tells_user_and_audiences() {
    let fake = world();
    let authentication = authentication(&fake);
    let answer = issue(&authentication, json!({"audiences": ["vault", "x"]})).await;
    let ask = |token: &str| json!({"kind": "TokenReview", "spec": {"token": token, "audiences": ["vault"]}});
    let good = authentication.review_token(ask(token(&answer))).await;
    assert_eq!(good["status"]["authenticated"], json!(true));
    assert_eq!(good["status"]["audiences"], json!(["vault"]));
    assert_eq!(good["status"]["user"]["username"], json!("system:serviceaccount:a:robot"));
    let bad = authentication.review_token(ask("junk")).await;
    assert_eq!(bad["status"], json!({"user": {}, "error": "invalid bearer token"}));
    assert_eq!(super::check_review(&json!({"spec": {}})).expect_err("no token").code, 400);
}

#[test]
fn keys_of_every_pem_form_give_the_same_public_key_and_sign() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/authentication/testdata");
    for (family, forms, algorithm) in
        [("ec", ["sec1", "pkcs8"], "ES256"), ("rsa", ["pkcs1", "pkcs8"], "RS256")]
    {
        let public = keys::verifying_keys(&folder.join(format!("{family}-public.pem"))).expect("public key");
        assert_eq!(public[0].algorithm(), algorithm);
        for form in forms {
            let path = folder.join(format!("{family}-{form}.pem"));
            let key = SigningKey::from_file(&path).expect("private key");
            assert_eq!(key.public().jwk(), public[0].jwk(), "{family} {form}");
            assert!(public[0].verifies(b"text", &key.sign(b"text").expect("signed")));
            assert!(!public[0].verifies(b"Text", &key.sign(b"text").expect("signed")));
        }
    }
}

#[test]
fn the_discovery_documents_tell_issuer_and_keys() {
    let authentication = authentication(&world());
    assert_eq!(authentication.jwks()["keys"][0]["alg"], json!("ES256"));
    let document = authentication.openid_configuration("h:1");
    assert_eq!(document["id_token_signing_alg_values_supported"], json!(["ES256"]));
    assert_eq!(document["jwks_uri"], json!("https://h:1/openid/v1/jwks"));
}

#[tokio::test]
async fn times_and_issuer_are_checked_on_every_use() {
    let fake = world();
    let authentication = authentication(&fake);
    let now = coracle_daemon::clock::now().as_second();
    let claims = |change: &dyn Fn(&mut jwt::Claims)| {
        let mut claims = jwt::Claims {
            aud: vec!["https://issuer".to_owned()],
            exp: now + 600,
            iss: "https://issuer".to_owned(),
            sub: "system:serviceaccount:a:robot".to_owned(),
            bound: jwt::Bound {
                namespace: "a".to_owned(),
                serviceaccount: jwt::Reference { name: "robot".to_owned(), uid: "u1".to_owned() },
                ..jwt::Bound::default()
            },
            ..jwt::Claims::default()
        };
        change(&mut claims);
        authentication.signing.as_ref().expect("key").token(&claims).expect("signed")
    };
    type Case<'a> = (&'a dyn Fn(&mut jwt::Claims), bool);
    let cases: [Case<'_>; 6] = [
        (&|_| (), true),
        (&|claims| claims.exp = now - 30, true),
        (&|claims| claims.exp = now - 90, false),
        (&|claims| claims.nbf = now + 90, false),
        (&|claims| claims.iss = "https://other".to_owned(), false),
        (&|claims| claims.sub = "system:serviceaccount:a:other".to_owned(), false),
    ];
    for (at, (change, allowed)) in cases.into_iter().enumerate() {
        let token = claims(change);
        assert_eq!(
            authentication.authenticate(&headers(&token), &Peer::default()).await.is_ok(),
            allowed,
            "case {at}"
        );
    }
}
