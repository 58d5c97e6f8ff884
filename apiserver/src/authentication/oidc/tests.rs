//! An issuer in this process: discovery, keys that turn, and what tokens are mapped to.

use super::config::parse;
use super::*;
use axum::body::Body;
use coracle_daemon::Tasks;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use parking_lot::Mutex;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::Notify;

/// An issuer with one key, which can be turned.
struct Fake {
    url: String,
    authority: String,
    key: Mutex<(String, Arc<EcdsaKeyPair>)>,
    asked: AtomicUsize,
    /// Answers nothing any more, but tells that it was asked.
    silent: AtomicBool,
    unanswered: Notify,
}

fn key() -> Arc<EcdsaKeyPair> {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("key");
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random);
    Arc::new(key.expect("key"))
}

impl Fake {
    async fn start(tasks: &Tasks) -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("port");
        let url = format!("https://localhost:{}", listener.local_addr().expect("address").port());
        let pair = rcgen::KeyPair::generate().expect("key");
        let of = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("names");
        let certificate = of.self_signed(&pair).expect("certificate");
        let tls =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_no_client_auth()
                .with_single_cert(
                    vec![certificate.der().clone()],
                    PrivateKeyDer::try_from(pair.serialize_der()).expect("key"),
                )
                .expect("TLS");
        let fake = Arc::new(Self {
            url,
            authority: certificate.pem(),
            key: Mutex::new(("k1".to_owned(), key())),
            asked: AtomicUsize::new(0),
            silent: AtomicBool::new(false),
            unanswered: Notify::new(),
        });
        let (own, stop, acceptor) =
            (fake.clone(), tasks.stopping(), tokio_rustls::TlsAcceptor::from(Arc::new(tls)));
        let connections = tasks.clone();
        tasks.run("issuer", async move {
            loop {
                let stream = tokio::select! {
                    accepted = listener.accept() => accepted.expect("accepted").0,
                    () = stop.cancelled() => return,
                };
                let (own, acceptor, stop) = (own.clone(), acceptor.clone(), stop.clone());
                connections.run("connection", async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                        let own = own.clone();
                        async move {
                            let body = own.answer(request.uri().path());
                            if own.silent.load(Ordering::SeqCst) {
                                own.unanswered.notify_one();
                                std::future::pending::<()>().await;
                            }
                            Ok::<_, std::convert::Infallible>(http::Response::new(Body::from(body)))
                        }
                    });
                    let builder = Builder::new(TokioExecutor::new());
                    tokio::select! {
                        _ = builder.serve_connection(TokioIo::new(stream), service) => {}
                        () = stop.cancelled() => {}
                    }
                });
            }
        });
        fake
    }

    fn answer(&self, path: &str) -> String {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if path.ends_with("openid-configuration") {
            return json!({"issuer": self.url, "jwks_uri": format!("{}/keys", self.url)}).to_string();
        }
        let key = self.key.lock();
        let (x, y) = key.1.public_key().as_ref()[1..].split_at(32);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        json!({"keys": [{"kty": "EC", "crv": "P-256", "use": "sig", "kid": key.0, "x": x, "y": y}]})
            .to_string()
    }

    fn token(&self, claims: &Value) -> String {
        let key = self.key.lock();
        let header = json!({"alg": "ES256", "kid": key.0}).to_string();
        let mut whole = json!({"iss": self.url, "aud": "kube", "exp": clock::now().as_second() + 600});
        for (name, value) in claims.as_object().expect("claims") {
            whole[name] = value.clone();
        }
        let message =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(whole.to_string()));
        let signature = key.1.sign(&SystemRandom::new(), message.as_bytes()).expect("signed");
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn issuer(&self, more: &str) -> Issuer {
        let authority = self.authority.replace('\n', "\\n");
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- issuer: {{url: '{}', audiences: [kube], certificateAuthority: \"{authority}\"}}\n{more}",
            self.url
        );
        Issuer::new(parse(&text).expect("configuration").jwt.remove(0)).expect("issuer")
    }
}

const PLAIN: &str = "  claimMappings:\n    username: {claim: sub, prefix: 'oidc:'}\n    groups: {claim: groups, prefix: 'g:'}\n";
const MADE: &str = "  claimValidationRules:
  - {claim: hd, requiredValue: example.com}
  - {expression: 'claims.level > 2', message: level too low}
  claimMappings:
    username: {expression: \"claims.name + '@' + claims.hd\"}
    groups: {expression: 'claims.roles'}
    uid: {claim: sub}
    extra: [{key: example.com/team, valueExpression: claims.team}]
  userValidationRules:
  - {expression: \"!user.username.startsWith('system:')\", message: reserved name}
";

fn own() -> Vec<String> {
    vec!["api".to_owned()]
}

#[tokio::test]
async fn a_token_of_the_issuer_is_a_user_and_any_other_is_none() {
    let tasks = Tasks::new();
    let fake = Fake::start(&tasks).await;
    let issuer = fake.issuer(PLAIN);
    let token = fake.token(&json!({"sub": "jane", "groups": ["devs", "ops"]}));
    let (user, audiences) = issuer.user(&token, &own(), &own()).await.expect("a user");
    assert_eq!(
        (user.name.as_str(), user.groups),
        ("oidc:jane", vec!["g:devs".to_owned(), "g:ops".to_owned()])
    );
    assert_eq!(audiences, own());
    let now = clock::now().as_second();
    let cases = [
        (json!({"sub": "jane", "aud": "other"}), "expected audience"),
        (json!({"sub": "jane", "exp": now - 1}), "token is expired"),
        (json!({"sub": "jane", "nbf": now + 3600}), "not before"),
        (json!({"sub": "jane", "iss": "https://other"}), "different provider"),
        (json!({"sub": ""}), ""),
        (json!({"groups": []}), "claim not present"),
        (json!({"sub": "jane", "groups": 7}), "not a string or list of strings"),
    ];
    for (claims, why) in cases {
        let told = issuer.user(&fake.token(&claims), &own(), &own()).await;
        match told {
            Ok((user, _)) => assert_eq!((user.name.as_str(), why), ("oidc:", "")),
            Err(error) => assert!(error.to_string().contains(why) && !why.is_empty(), "{claims}: {error}"),
        }
    }
    assert!(issuer.user(&token, &["vault".to_owned()], &own()).await.is_err(), "for another server");
    let (message, _) = token.rsplit_once('.').expect("parts");
    let none = format!(
        "{}.{}.",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#),
        message.split_once('.').expect("parts").1
    );
    for bad in [format!("{message}.AAAA"), none, "a.b.c".to_owned(), String::new()] {
        assert!(issuer.user(&bad, &own(), &own()).await.is_err(), "{bad}");
    }
    assert_eq!(fake.asked.load(Ordering::SeqCst), 2, "discovery and keys, once");
    tasks.stop_within(Duration::from_secs(5)).await.expect("stopped");
}

#[tokio::test]
async fn expressions_make_users_and_rules_refuse_them() {
    let tasks = Tasks::new();
    let fake = Fake::start(&tasks).await;
    let issuer = fake.issuer(MADE);
    let claims = |change: &dyn Fn(&mut Value)| {
        let mut claims = json!({"sub": "1", "name": "jane", "hd": "example.com", "level": 3, "roles": ["a", "b"], "team": "blue"});
        change(&mut claims);
        fake.token(&claims)
    };
    let (user, _) = issuer.user(&claims(&|_| ()), &own(), &own()).await.expect("a user");
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("jane@example.com", "1"));
    assert_eq!(user.groups, ["a", "b"]);
    assert_eq!(user.extra["example.com/team"], ["blue"]);
    type Case<'a> = (&'a dyn Fn(&mut Value), &'a str);
    let cases: [Case<'_>; 4] = [
        (&|claims| claims["hd"] = json!("other"), "required claim hd value does not match"),
        (&|claims| claims["level"] = json!(1), "level too low"),
        (&|claims| claims["name"] = json!("system:admin"), "reserved name"),
        (&|claims| claims["name"] = Value::Null, "oidc: "),
    ];
    for (change, why) in cases {
        let error = issuer.user(&claims(change), &own(), &own()).await.expect_err(why).to_string();
        assert!(error.contains(why) || why == "oidc: ", "{why}: {error}");
    }
    let (one, _) =
        issuer.user(&claims(&|claims| claims["roles"] = json!("solo")), &own(), &own()).await.expect("one");
    assert_eq!(one.groups, ["solo"]);
    tasks.stop_within(Duration::from_secs(5)).await.expect("stopped");
}

#[tokio::test(flavor = "current_thread")]
async fn a_turned_key_is_asked_for_but_not_for_every_bad_token() {
    let tasks = Tasks::new();
    let fake = Fake::start(&tasks).await;
    let issuer = fake.issuer(PLAIN);
    issuer.user(&fake.token(&json!({"sub": "a"})), &own(), &own()).await.expect("a user");
    *fake.key.lock() = ("k2".to_owned(), key());
    for n in 0..5 {
        let turned = fake.token(&json!({"sub": "b", "n": n}));
        assert!(issuer.user(&turned, &own(), &own()).await.is_err(), "asked a moment ago");
    }
    assert_eq!(fake.asked.load(Ordering::SeqCst), 2);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(11)).await;
    tokio::time::resume();
    let (user, _) =
        issuer.user(&fake.token(&json!({"sub": "b"})), &own(), &own()).await.expect("the new key");
    assert_eq!((user.name.as_str(), fake.asked.load(Ordering::SeqCst)), ("oidc:b", 4));
    tasks.stop_within(Duration::from_secs(5)).await.expect("stopped");
}

#[tokio::test(flavor = "current_thread")]
async fn a_token_of_a_known_key_does_not_wait_for_an_issuer_that_is_asked_for_another() {
    let tasks = Tasks::new();
    let fake = Fake::start(&tasks).await;
    let issuer = fake.issuer(PLAIN);
    issuer.user(&fake.token(&json!({"sub": "a"})), &own(), &own()).await.expect("a user");
    let known = fake.token(&json!({"sub": "b"}));
    *fake.key.lock() = ("k2".to_owned(), key());
    let unknown = fake.token(&json!({"sub": "c"}));
    fake.silent.store(true, Ordering::SeqCst);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(11)).await;
    tokio::time::resume();
    let (own, known) = (own(), async {
        fake.unanswered.notified().await;
        issuer.user(&known, &own(), &own()).await
    });
    let both = async {
        tokio::select! {
            _ = issuer.user(&unknown, &own, &own) => panic!("nobody answers"),
            known = known => known,
        }
    };
    let (user, _) = clock::timeout(Duration::from_secs(10), both).await.expect("in time").expect("a user");
    assert_eq!(user.name, "oidc:b");
    tasks.stop_within(Duration::from_secs(5)).await.expect("stopped");
}

#[test]
fn a_bad_configuration_is_refused() {
    let with = |jwt: &str| {
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1beta1\nkind: AuthenticationConfiguration\njwt:\n- {jwt}"
        );
        parse(&text).err().map(|error| format!("{error:#}")).unwrap_or_default()
    };
    let issuer = "issuer: {url: 'https://a', audiences: [a]}";
    let cases = [
        ("issuer: {url: 'http://a', audiences: [a]}".to_owned(), "URL scheme must be https"),
        ("issuer: {url: 'https://a'}".to_owned(), "at least one issuer.audiences is required"),
        ("issuer: {url: 'https://a', audiences: [a, b]}".to_owned(), "audienceMatchPolicy must be MatchAny"),
        (issuer.to_owned(), "claimMappings.username: Required value"),
        (
            format!("{issuer}\n  claimMappings: {{username: {{claim: sub}}}}"),
            "prefix is required when claim is set",
        ),
        (
            format!(
                "{issuer}\n  claimMappings: {{username: {{claim: sub, expression: claims.sub, prefix: ''}}}}"
            ),
            "can't both be set",
        ),
        (
            format!("{issuer}\n  claimMappings: {{username: {{expression: claims.email}}}}"),
            "claims.email_verified must be used",
        ),
        (
            format!(
                "{issuer}\n  claimMappings: {{username: {{expression: claims.sub}}, extra: [{{key: k8s.io/x, valueExpression: claims.a}}]}}"
            ),
            "reserved for Kubernetes use",
        ),
        (
            format!(
                "{issuer}\n  claimMappings: {{username: {{expression: claims.sub}}}}\n  claimValidationRules: [{{message: m}}]"
            ),
            "exactly one of claim or expression",
        ),
    ];
    for (text, why) in cases {
        let told = with(&text);
        assert!(told.contains(why), "{text}: {told}");
    }
    assert_eq!(with(&format!("{issuer}\n  claimMappings: {{username: {{claim: sub, prefix: ''}}}}")), "");
}
