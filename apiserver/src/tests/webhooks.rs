//! Admission webhooks, asked over TLS, and admission policies.

#![expect(clippy::needless_pass_by_value, reason = "the tables read better with values written in place")]

use super::{Fixture, MAPS, map};
use axum::body::Body;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use coracle_daemon::Tasks;
use coracle_etcd::memory::MemoryKv;
use http_body_util::BodyExt;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

type Answers = dyn Fn(&str, &Value) -> Value + Send + Sync;

/// A webhook server that remembers what it was asked, by path.
pub(super) struct Hooks {
    pub(super) url: String,
    pub(super) bundle: String,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

fn tls() -> (rustls::ServerConfig, String) {
    let ca_key = rcgen::KeyPair::generate().expect("key");
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).expect("ca");
    let issuer = rcgen::Issuer::new(params, ca_key);
    let key = rcgen::KeyPair::generate().expect("key");
    let leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("params");
    let leaf = leaf.signed_by(&key, &issuer).expect("leaf");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("key");
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![leaf.der().clone()], key).expect("config");
    (config, BASE64_STANDARD.encode(ca.pem()))
}

impl Hooks {
    /// `answers` gets a path and the request, and gives the response but for its uid.
    pub(super) async fn start(
        tasks: &Tasks,
        answers: impl Fn(&str, &Value) -> Value + Send + Sync + 'static,
    ) -> Self {
        let (config, bundle) = tls();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let url = format!("https://{}", listener.local_addr().expect("address"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, answers): (_, Arc<Answers>) = (asked.clone(), Arc::new(answers));
        let owner = tasks.clone();
        tasks.run("webhooks", async move {
            let stop = owner.stopping();
            loop {
                let stream = tokio::select! {
                    Ok((stream, _)) = listener.accept() => stream,
                    () = stop.cancelled() => return,
                };
                let (acceptor, log, answers) = (acceptor.clone(), log.clone(), answers.clone());
                owner.run("webhook", async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                        let (log, answers) = (log.clone(), answers.clone());
                        async move {
                            let path = request.uri().path().to_owned();
                            let body = request.into_body().collect().await.expect("body").to_bytes();
                            let review: Value = serde_json::from_slice(&body).expect("review");
                            log.lock().push((path.clone(), review["request"].clone()));
                            let mut response = answers(&path, &review["request"]);
                            response["uid"] = review["request"]["uid"].clone();
                            let answer = json!({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response});
                            Ok::<_, Infallible>(http::Response::new(Body::from(answer.to_string())))
                        }
                    });
                    let server = hyper::server::conn::http1::Builder::new();
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { url, bundle, asked }
    }

    /// A webhook at `path` for what a test makes of config maps.
    pub(super) fn hook(&self, path: &str, more: Value) -> Value {
        let mut hook = json!({"name": format!("{}.hooks.test", path.trim_start_matches('/')),
            "clientConfig": {"url": format!("{}{path}", self.url), "caBundle": self.bundle},
            "admissionReviewVersions": ["v1"], "sideEffects": "None", "timeoutSeconds": 5,
            "rules": [{"operations": ["*"], "apiGroups": ["", "autoscaling"], "apiVersions": ["*"], "resources": ["configmaps"]}]});
        for (key, value) in more.as_object().into_iter().flatten() {
            hook[key] = value.clone();
        }
        hook
    }

    pub(super) fn asked_at(&self, path: &str) -> Vec<Value> {
        let asked = self.asked.lock();
        asked.iter().filter(|(at, _)| at == path).map(|(_, request)| request.clone()).collect()
    }
}

pub(super) const REGISTRATION: &str = "/apis/admissionregistration.k8s.io/v1";

pub(super) async fn configure(fixture: &Fixture, kind: &str, name: &str, webhooks: Value) {
    let path = format!("{REGISTRATION}/{}s", kind.to_lowercase());
    let object = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
        "metadata": {"name": name}, "webhooks": webhooks});
    let (code, made) = fixture.call("POST", &path, object).await;
    assert_eq!(code, 201, "{made}");
    seen(fixture).await;
}

/// Waits until the caches hold what was written before.
pub(super) async fn seen(fixture: &Fixture) {
    fixture.server.store.fresh().await.expect("fresh");
}

fn patch(operations: Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": BASE64_STANDARD.encode(operations.to_string())})
}

/// As Kubernetes asks about the creation of the config map `a`.
fn is_a_review_of_the_creation(request: &Value) {
    for (key, want) in [
        ("operation", json!("CREATE")),
        ("kind", json!({"group": "", "version": "v1", "kind": "ConfigMap"})),
        ("resource", json!({"group": "", "version": "v1", "resource": "configmaps"})),
        ("name", json!("a")),
        ("namespace", json!("default")),
        ("dryRun", json!(false)),
        ("oldObject", Value::Null),
        ("options", json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "me"})),
    ] {
        assert_eq!(request[key], want, "{key}");
    }
    assert_eq!(request["userInfo"]["username"], "admin");
}

#[tokio::test]
async fn webhooks_patch_warn_and_deny_as_their_configurations_say() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let hooks = Hooks::start(&fixture.tasks, |path, request| match path {
        "/label" => {
            let mut answer = patch(json!([{"op": "add", "path": "/metadata/labels/hooked", "value": "yes"}]));
            answer["warnings"] = json!(["this was hooked"]);
            answer
        }
        "/count" => {
            let labels = request["object"]["metadata"]["labels"].as_object().map_or(0, serde_json::Map::len);
            patch(json!([{"op": "add", "path": "/data/labels", "value": labels.to_string()}]))
        }
        "/deny" => {
            json!({"allowed": false, "status": {"code": 418, "message": "no teapots", "reason": "Teapot"}})
        }
        _ => json!({"allowed": true}),
    })
    .await;
    // It is asked first, and again since another changed the object after it.
    let count = hooks.hook("/count", json!({"reinvocationPolicy": "IfNeeded"}));
    let label = hooks.hook(
        "/label",
        json!({"matchConditions": [{"name": "few", "expression": "object.data.v != 'plain'"}]}),
    );
    configure(&fixture, "MutatingWebhookConfiguration", "m", json!([count, label])).await;
    let deny = hooks.hook("/deny", json!({"objectSelector": {"matchLabels": {"v": "bad"}}}));
    let look = hooks.hook(
        "/look",
        json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "other"}}}),
    );
    configure(&fixture, "ValidatingWebhookConfiguration", "v", json!([deny, look])).await;

    let response =
        fixture.send("POST", &format!("{MAPS}?fieldManager=me"), "application/json", map("a", "1")).await;
    assert_eq!(response.status(), 201);
    assert_eq!(response.headers()["warning"], "299 - \"this was hooked\"");
    let (_, made) = fixture.call("GET", &format!("{MAPS}/a"), Value::Null).await;
    assert_eq!(
        (&made["metadata"]["labels"]["hooked"], &made["data"]["labels"]),
        (&json!("yes"), &json!("2"))
    );
    let asked = hooks.asked_at("/label");
    is_a_review_of_the_creation(&asked[0]);
    assert_eq!(hooks.asked_at("/count").len(), 2);

    let (_, plain) = fixture.call("POST", MAPS, map("b", "plain")).await;
    assert_eq!(plain["metadata"]["labels"], json!({"v": "plain"}));
    let (code, denied) = fixture.call("POST", MAPS, map("c", "bad")).await;
    assert_eq!((code, &denied["reason"]), (418, &json!("Teapot")));
    assert_eq!(denied["message"], "admission webhook \"deny.hooks.test\" denied the request: no teapots");
    assert!(hooks.asked_at("/look").is_empty());
    // Deletes are asked about too, and have no object to patch.
    let (code, refused) = fixture.call("DELETE", &format!("{MAPS}/a"), Value::Null).await;
    assert_eq!(code, 500, "{refused}");
    let asked = hooks.asked_at("/count");
    let last = asked.last().expect("asked");
    assert_eq!((&last["operation"], &last["object"]), (&json!("DELETE"), &Value::Null));
    assert_eq!(last["oldObject"]["metadata"]["name"], "a");
    // Nobody can lock the configurations themselves.
    assert_eq!(
        fixture
            .call("DELETE", &format!("{REGISTRATION}/mutatingwebhookconfigurations/m"), Value::Null)
            .await
            .0,
        200
    );
    fixture.stop().await;
}

#[tokio::test]
async fn webhooks_that_cannot_be_asked_refuse_or_are_passed_over() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let hooks = Hooks::start(&fixture.tasks, |_, _| json!({"allowed": true})).await;
    let untrusted = tls().1;
    let strange = json!({"url": format!("{}/a", hooks.url), "caBundle": untrusted});
    let rows = [
        (
            json!({"clientConfig": strange}),
            "tls: failed to verify certificate: x509: certificate signed by unknown authority",
        ),
        (
            json!({"clientConfig": {"url": "https://127.0.0.1:1/a", "caBundle": hooks.bundle}}),
            "dial tcp 127.0.0.1:1: connect: connection refused",
        ),
        (
            json!({"clientConfig": {"service": {"namespace": "x", "name": "none", "path": "/p"}, "caBundle": hooks.bundle}}),
            "failed to call webhook: Post \"https://none.x.svc:443/p?timeout=5s\": service \"none\" not found",
        ),
        (
            json!({"matchConditions": [{"name": "broken", "expression": "object.spec.none == 1"}]}),
            "expression 'object.spec.none == 1' resulted in error: no such key: spec",
        ),
    ];
    for (index, (more, want)) in rows.into_iter().enumerate() {
        let name = format!("row{index}");
        configure(&fixture, "ValidatingWebhookConfiguration", &name, json!([hooks.hook("/a", more.clone())]))
            .await;
        let (code, refused) = fixture.call("POST", MAPS, map(&name, "1")).await;
        assert!(
            code >= 403 && refused["message"].as_str().is_some_and(|text| text.ends_with(want)),
            "{refused}"
        );
        let path = format!("{REGISTRATION}/validatingwebhookconfigurations/{name}");
        let ignore = json!([{"op": "add", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]);
        assert_eq!(fixture.typed("PATCH", &path, "application/json-patch+json", ignore).await.0, 200);
        seen(&fixture).await;
        assert_eq!(fixture.call("POST", MAPS, map(&name, "1")).await.0, 201, "{want}");
        fixture.call("DELETE", &path, Value::Null).await;
        seen(&fixture).await;
    }
    fixture.stop().await;
}

#[tokio::test]
async fn a_webhook_sees_an_object_in_the_version_that_it_asks_for() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let hooks = Hooks::start(&fixture.tasks, |_, _| {
        patch(json!([{"op": "replace", "path": "/spec/metrics/0/resource/target/averageUtilization", "value": 70}]))
    })
    .await;
    let rules = json!([{"operations": ["CREATE"], "apiGroups": ["autoscaling"], "apiVersions": ["v2"], "resources": ["horizontalpodautoscalers"]}]);
    configure(
        &fixture,
        "MutatingWebhookConfiguration",
        "m",
        json!([hooks.hook("/v2", json!({"rules": rules}))]),
    )
    .await;
    let path = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
    let scaler = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
        "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50, "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}});
    let (code, made) = fixture.call("POST", path, scaler).await;
    assert_eq!((code, &made["spec"]["targetCPUUtilizationPercentage"]), (201, &json!(70)), "{made}");
    let request = &hooks.asked_at("/v2")[0];
    assert_eq!(
        (&request["kind"]["version"], &request["requestKind"]["version"]),
        (&json!("v2"), &json!("v1"))
    );
    fixture.stop().await;
}

#[tokio::test]
async fn policies_deny_and_warn_by_their_bindings() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "few.test"},
        "spec": {"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "matchConstraints": {"resourceRules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["secrets"]}]},
            "matchConditions": [{"name": "not-exempt", "expression": "!('exempt' in object.metadata.?labels.orValue({}))"}],
            "variables": [{"name": "count", "expression": "object.data.size()"}],
            "validations": [{"expression": "variables.count <= int(params.data.max)", "messageExpression": "'too many: ' + string(variables.count)", "reason": "Forbidden"},
                {"expression": "request.userInfo.username != 'nobody'"}]}});
    let policies = format!("{REGISTRATION}/validatingadmissionpolicies");
    let (code, made) = fixture.call("POST", &policies, policy).await;
    assert_eq!(code, 201, "{made}");
    let bind = |name: &str, param: &str, actions: Value| {
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name},
            "spec": {"policyName": "few.test", "validationActions": actions, "paramRef": {"name": param, "namespace": "default", "parameterNotFoundAction": "Deny"}}})
    };
    let bindings = format!("{REGISTRATION}/validatingadmissionpolicybindings");
    for (name, max) in [("one", "1"), ("zero", "0")] {
        let param = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"max": max}});
        assert_eq!(fixture.call("POST", MAPS, param).await.0, 201);
    }
    assert_eq!(fixture.call("POST", &bindings, bind("b", "one", json!(["Deny"]))).await.0, 201);
    assert_eq!(fixture.call("POST", &bindings, bind("w", "zero", json!(["Warn", "Audit"]))).await.0, 201);
    seen(&fixture).await;
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = |name: &str, labels: Value, data: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "labels": labels}, "data": data});
    let two = json!({"a": "YQ==", "b": "YQ=="});
    let (code, denied) = fixture.call("POST", secrets, secret("s", Value::Null, two.clone())).await;
    let text = "ValidatingAdmissionPolicy 'few.test' with binding 'b' denied request: too many: 2";
    assert_eq!((code, &denied["reason"]), (403, &json!("Forbidden")));
    assert_eq!(denied["message"], format!("secrets \"s\" is forbidden: {text}"));
    assert_eq!(denied["details"]["causes"], json!([{"message": text}]));
    let one = secret("t", Value::Null, json!({"a": "YQ=="}));
    let warned = fixture.send("POST", secrets, "application/json", one).await;
    assert_eq!(warned.status(), 201);
    assert_eq!(
        warned.headers()["warning"],
        "299 - \"Validation failed for ValidatingAdmissionPolicy 'few.test' with binding 'w': too many: 1\""
    );
    assert_eq!(fixture.call("POST", secrets, secret("u", json!({"exempt": ""}), two)).await.0, 201);
    fixture.call("DELETE", &format!("{MAPS}/one"), Value::Null).await;
    seen(&fixture).await;
    let (_, denied) = fixture.call("POST", secrets, secret("v", Value::Null, json!({"a": "YQ=="}))).await;
    assert_eq!(
        denied["details"]["causes"][0]["message"],
        "ValidatingAdmissionPolicy 'few.test' with binding 'b' denied request: failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"
    );
    fixture.stop().await;
}

#[tokio::test]
async fn a_slow_webhook_is_not_waited_for_longer_than_it_says() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("address");
    let hook = json!({"name": "slow.hooks.test", "clientConfig": {"url": format!("https://{address}/")}, "timeoutSeconds": 1,
        "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["*"], "resources": ["configmaps"]}]});
    configure(&fixture, "ValidatingWebhookConfiguration", "slow", json!([hook])).await;
    let call = fixture.call("POST", MAPS, map("a", "1"));
    let (code, refused) = tokio::time::timeout(Duration::from_secs(8), call).await.expect("in time");
    let want = format!(
        "Internal error occurred: failed calling webhook \"slow.hooks.test\": failed to call webhook: Post \"https://{address}/?timeout=1s\": context deadline exceeded"
    );
    assert_eq!((code, &refused["message"]), (500, &json!(want)));
    fixture.stop().await;
}
