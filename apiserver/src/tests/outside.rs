//! Webhook authentication and authorization, and tokens in Secrets, through the whole server.

use super::{Fixture, certificate};
use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_daemon::Tasks;
use coracle_etcd::memory::MemoryKv;
use coracle_keys::SigningKey;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

type Asked = Arc<Mutex<Vec<Value>>>;

/// A server that answers each posted review with a status, below a kubeconfig that names it.
async fn reviewer(folder: &Path, tasks: &Tasks, status: fn(&Value) -> Value) -> (PathBuf, Asked) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("port");
    let config = json!({"current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": format!("http://{}/review", listener.local_addr().expect("address"))}}],
        "users": [{"name": "u", "user": {"token": "sesame"}}]});
    let path = folder.join("webhook.yaml");
    std::fs::write(&path, config.to_string()).expect("written");
    let asked = Asked::default();
    let (own, stop, connections) = (asked.clone(), tasks.stopping(), tasks.clone());
    tasks.run("reviewer", async move {
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => accepted.expect("accepted").0,
                () = stop.cancelled() => return,
            };
            let (own, stop) = (own.clone(), stop.clone());
            connections.run("connection", async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let own = own.clone();
                    async move {
                        assert_eq!(request.headers()["authorization"], "Bearer sesame");
                        let body = request.into_body().collect().await.expect("body").to_bytes();
                        let mut review: Value = serde_json::from_slice(&body).expect("JSON");
                        review["status"] = status(&review);
                        own.lock().push(review.clone());
                        Ok::<_, std::convert::Infallible>(Response::new(Body::from(review.to_string())))
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
    (path, asked)
}

impl Fixture {
    /// A GET with a bearer token: its code and body.
    async fn bearing(&self, token: &str, path: &str) -> (u16, Value) {
        let request = Request::builder().uri(path).header("authorization", format!("Bearer {token}"));
        let response = self.server.answer(None, request.body(Body::empty()).expect("request")).await;
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.expect("body").to_bytes();
        (code, serde_json::from_slice(&body).unwrap_or_default())
    }

    /// A GET with a certificate.
    async fn shown(&self, leaf: &Arc<[u8]>, path: &str) -> u16 {
        let request = Request::builder().uri(path).body(Body::empty()).expect("request");
        self.server.answer(Some(leaf.clone()), request).await.status().as_u16()
    }
}

fn knows(review: &Value) -> Value {
    match review["spec"]["token"].as_str() {
        Some("good" | "abcdef.0123456789abcdef") => {
            json!({"authenticated": true, "user": {"username": "jane", "groups": ["system:masters"]}})
        }
        Some("unlucky") => json!({"authenticated": false, "error": "the directory is away"}),
        _ => json!({"authenticated": false}),
    }
}

#[tokio::test]
async fn a_token_that_only_the_webhook_knows_is_a_user_and_is_asked_for_once() {
    let (folder, tasks) = (tempfile::tempdir().expect("folder"), Tasks::new());
    let (path, asked) = reviewer(folder.path(), &tasks, knows).await;
    let flags = [
        format!("--authentication-token-webhook-config-file={}", path.display()),
        "--authentication-token-webhook-version=v1".to_owned(),
    ];
    let fixture = Fixture::flagged(&MemoryKv::default(), &flags).await;
    for _ in 0..3 {
        assert_eq!(fixture.bearing("good", "/api/v1/nodes").await.0, 200);
        assert_eq!(fixture.bearing("bad", "/api/v1/nodes").await.0, 401);
    }
    {
        let asked = asked.lock();
        assert_eq!(asked.len(), 2);
        assert_eq!(asked[0]["apiVersion"], "authentication.k8s.io/v1");
        assert_eq!(asked[0]["spec"]["audiences"], json!(["https://kubernetes.default.svc.cluster.local"]));
    }
    for times in [3, 4] {
        assert_eq!(fixture.bearing("unlucky", "/api/v1/nodes").await.0, 401);
        assert_eq!(asked.lock().len(), times, "a failure is not remembered");
    }
    tasks.stop_within(Duration::from_secs(5)).await.expect("stopped");
    fixture.stop().await;
}

#[tokio::test]
async fn a_token_that_merely_looks_like_a_bootstrap_token_is_asked_of_the_webhook() {
    let (folder, tasks) = (tempfile::tempdir().expect("folder"), Tasks::new());
    let (path, asked) = reviewer(folder.path(), &tasks, knows).await;
    let flags = [format!("--authentication-token-webhook-config-file={}", path.display())];
    let fixture = Fixture::flagged(&MemoryKv::default(), &flags).await;
    assert_eq!(fixture.bearing("abcdef.0123456789abcdef", "/api/v1/nodes").await.0, 200);
    assert_eq!(fixture.bearing("abcdef.0123456789abcdee", "/api/v1/nodes").await.0, 401);
    assert_eq!(asked.lock().len(), 2);
    tasks.stop_within(Duration::from_secs(5)).await.expect("stopped");
    fixture.stop().await;
}

#[tokio::test]
async fn answers_of_the_authorizing_webhook_live_as_long_as_they_are_told_to() {
    let (folder, tasks) = (tempfile::tempdir().expect("folder"), Tasks::new());
    let (path, asked) = reviewer(folder.path(), &tasks, allows).await;
    let flags = [
        "--authorization-mode=RBAC,Webhook".to_owned(),
        format!("--authorization-webhook-config-file={}", path.display()),
        "--authorization-webhook-version=v1".to_owned(),
        "--authorization-webhook-cache-authorized-ttl=0s".to_owned(),
        "--authorization-webhook-cache-unauthorized-ttl=1h".to_owned(),
    ];
    let fixture = Fixture::flagged(&MemoryKv::default(), &flags).await;
    let jane = certificate("jane", "some");
    for _ in 0..3 {
        assert_eq!(fixture.shown(&jane, "/api/v1/namespaces/default/pods").await, 200);
    }
    assert_eq!(
        asked.lock().len(),
        3,
        "nothing is remembered for no time, and one answer is enough for one request"
    );
    for _ in 0..3 {
        assert_eq!(fixture.shown(&jane, "/api/v1/namespaces/default/pods/x").await, 403);
    }
    assert_eq!(asked.lock().len(), 4);
    tasks.stop_within(Duration::from_secs(5)).await.expect("stopped");
    fixture.stop().await;
}

#[tokio::test]
async fn a_webhook_that_fails_and_has_no_opinion_stops_only_what_nobody_else_allows() {
    let folder = tempfile::tempdir().expect("folder");
    let dead = folder.path().join("dead.yaml");
    std::fs::write(&dead, r#"{"current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "k"}}], "clusters": [{"name": "k", "cluster": {"server": "http://127.0.0.1:1"}}]}"#).expect("written");
    let flags = [
        "--authorization-mode=Webhook,RBAC".to_owned(),
        format!("--authorization-webhook-config-file={}", dead.display()),
        "--authorization-webhook-version=v1".to_owned(),
    ];
    let fixture = Fixture::flagged(&MemoryKv::default(), &flags).await;
    let jane = certificate("jane", "some");
    assert_eq!(fixture.shown(&jane, "/version").await, 200);
    assert_eq!(fixture.shown(&jane, "/api/v1/nodes").await, 500);
    fixture.stop().await;
}

#[tokio::test]
async fn a_token_of_the_file_is_its_lines_user() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("tokens.csv");
    std::fs::write(&path, "sesame,jane,7,\"system:masters,devs\"\nother,john,8\n").expect("written");
    let flags = [format!("--token-auth-file={}", path.display())];
    let fixture = Fixture::flagged(&MemoryKv::default(), &flags).await;
    assert_eq!(fixture.bearing("sesame", "/api/v1/nodes").await.0, 200);
    assert_eq!(fixture.bearing("other", "/api/v1/nodes").await.0, 403);
    assert_eq!(fixture.bearing("sesam", "/api/v1/nodes").await.0, 401);
    fixture.stop().await;
}

#[tokio::test]
async fn expressions_that_ask_the_authorizer_have_the_webhooks_answer() {
    fn robots(review: &Value) -> Value {
        let may = review["spec"]["user"] == "system:serviceaccount:default:robot";
        json!({"allowed": may, "reason": "robots may"})
    }
    let (folder, tasks) = (tempfile::tempdir().expect("folder"), Tasks::new());
    let (path, asked) = reviewer(folder.path(), &tasks, robots).await;
    let flags = [
        "--authorization-mode=RBAC,Webhook".to_owned(),
        format!("--authorization-webhook-config-file={}", path.display()),
        "--authorization-webhook-version=v1".to_owned(),
        // What is not remembered is known to the write that it was asked for.
        "--authorization-webhook-cache-authorized-ttl=0s".to_owned(),
        "--authorization-webhook-cache-unauthorized-ttl=0s".to_owned(),
    ];
    let fixture = Fixture::flagged(&MemoryKv::default(), &flags).await;
    let registration = "/apis/admissionregistration.k8s.io/v1";
    let expression = "authorizer.serviceAccount('default', object.metadata.name).group('').resource('pods').namespace('default').check('list').allowed()";
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "robots.test"},
        "spec": {"matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["secrets"]}]},
            "validations": [{"expression": expression}]}});
    let (code, told) =
        fixture.call("POST", &format!("{registration}/validatingadmissionpolicies"), policy).await;
    assert_eq!(code, 201, "{told}");
    let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "b"},
        "spec": {"policyName": "robots.test", "validationActions": ["Deny"]}});
    let (code, told) =
        fixture.call("POST", &format!("{registration}/validatingadmissionpolicybindings"), binding).await;
    assert_eq!(code, 201, "{told}");
    fixture.server.store.fresh().await.expect("fresh");
    for (name, want) in [("robot", 201), ("stranger", 422)] {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}});
        let (code, told) = fixture.call("POST", "/api/v1/namespaces/default/secrets", secret).await;
        assert_eq!(code, want, "{told}");
    }
    assert_eq!(asked.lock().len(), 2);
    tasks.stop_within(Duration::from_secs(5)).await.expect("stopped");
    fixture.stop().await;
}

fn allows(review: &Value) -> Value {
    let spec = &review["spec"];
    match (spec["user"].as_str(), spec["resourceAttributes"]["verb"].as_str()) {
        (Some("jane"), Some("list")) => json!({"allowed": true, "reason": "jane may list"}),
        (Some("eve"), _) => json!({"allowed": false, "denied": true, "reason": "not eve"}),
        _ => json!({"allowed": false, "reason": "no rule"}),
    }
}

#[tokio::test]
async fn the_webhook_is_asked_in_its_turn_and_its_answers_are_remembered() {
    let (folder, tasks) = (tempfile::tempdir().expect("folder"), Tasks::new());
    let (path, asked) = reviewer(folder.path(), &tasks, allows).await;
    let flags = [
        "--authorization-mode=Node,RBAC,Webhook".to_owned(),
        format!("--authorization-webhook-config-file={}", path.display()),
        "--authorization-webhook-version=v1".to_owned(),
    ];
    let fixture = Fixture::flagged(&MemoryKv::default(), &flags).await;
    let jane = certificate("jane", "some");
    for _ in 0..3 {
        assert_eq!(fixture.shown(&jane, "/api/v1/namespaces/default/pods").await, 200);
        assert_eq!(fixture.shown(&jane, "/api/v1/namespaces/default/pods/x").await, 403);
    }
    // What RBAC allows nobody else is asked of.
    assert_eq!(fixture.shown(&jane, "/version").await, 200);
    assert_eq!(asked.lock().len(), 2);
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {"user": "eve", "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "a"}}});
    let reviews = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let (_, told) = fixture.call("POST", reviews, review).await;
    assert_eq!(told["status"], json!({"allowed": false, "denied": true, "reason": "not eve"}));
    tasks.stop_within(Duration::from_secs(5)).await.expect("stopped");
    fixture.stop().await;
}

#[tokio::test]
async fn a_structured_configuration_says_what_silence_means_and_what_is_not_asked() {
    let (folder, tasks) = (tempfile::tempdir().expect("folder"), Tasks::new());
    let (path, asked) = reviewer(folder.path(), &tasks, allows).await;
    let config = folder.path().join("authorization.yaml");
    let hook = |name: &str, path: &str, policy: &str, condition: &str| {
        format!(
            "- type: Webhook\n  name: {name}\n  webhook:\n    timeout: 1s\n    subjectAccessReviewVersion: v1\n    matchConditionSubjectAccessReviewVersion: v1\n    failurePolicy: {policy}\n    connectionInfo: {{type: KubeConfigFile, kubeConfigFile: {path}}}\n    matchConditions: [{{expression: \"{condition}\"}}]\n"
        )
    };
    let dead = folder.path().join("dead.yaml");
    std::fs::write(&dead, r#"{"current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "k"}}], "clusters": [{"name": "k", "cluster": {"server": "http://127.0.0.1:1"}}]}"#).expect("written");
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers:\n{}{}- {{type: RBAC, name: rbac}}\n",
        hook("guard", &dead.display().to_string(), "Deny", "request.user == 'guarded'"),
        hook("own", &path.display().to_string(), "NoOpinion", "has(request.resourceAttributes)"),
    );
    std::fs::write(&config, text).expect("written");
    let flags = [format!("--authorization-config={}", config.display())];
    let fixture = Fixture::flagged(&MemoryKv::default(), &flags).await;
    let [jane, eve, guarded] = ["jane", "eve", "guarded"].map(|name| certificate(name, "some"));
    assert_eq!(fixture.shown(&jane, "/api/v1/namespaces/default/pods").await, 200);
    assert_eq!(fixture.shown(&jane, "/version").await, 200);
    assert!(asked.lock().iter().all(|review| review["spec"]["nonResourceAttributes"].is_null()));
    assert_eq!(fixture.shown(&eve, "/api/v1/namespaces/default/pods").await, 403);
    // The guard is silent, and nobody else is asked even where RBAC would say yes: a failure, as Kubernetes tells it.
    assert_eq!(fixture.shown(&guarded, "/version").await, 500);
    tasks.stop_within(Duration::from_secs(5)).await.expect("stopped");
    fixture.stop().await;
}

#[tokio::test]
async fn a_token_in_a_secret_is_good_as_long_as_the_secret_holds_it() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("sa.key");
    std::fs::write(&path, rcgen::KeyPair::generate().expect("key").serialize_pem()).expect("written");
    let flags = [format!("--service-account-signing-key-file={}", path.display())];
    let fixture = Fixture::flagged(&MemoryKv::default(), &flags).await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    let (_, account) = fixture.call("POST", accounts, account).await;
    let claims = json!({"iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:default:robot",
        "kubernetes.io/serviceaccount/namespace": "default", "kubernetes.io/serviceaccount/secret.name": "robot-token",
        "kubernetes.io/serviceaccount/service-account.name": "robot",
        "kubernetes.io/serviceaccount/service-account.uid": account["metadata"]["uid"]});
    let token = SigningKey::from_file(&path).expect("key").token(&claims).expect("token");
    let who = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let ask = |token: String| {
        let server = fixture.server.clone();
        async move {
            let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
            let request = Request::post(who)
                .header("authorization", format!("Bearer {token}"))
                .header("content-type", "application/json");
            let response =
                server.answer(None, request.body(Body::from(body.to_string())).expect("request")).await;
            let code = response.status().as_u16();
            let body = response.into_body().collect().await.expect("body").to_bytes();
            (code, serde_json::from_slice::<Value>(&body).unwrap_or_default())
        }
    };
    assert_eq!(ask(token.clone()).await.0, 401, "no Secret holds it");
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
        "metadata": {"name": "robot-token", "annotations": {"kubernetes.io/service-account.name": "robot"}},
        "data": {"token": STANDARD.encode(&token)}});
    let (code, told) = fixture.call("POST", secrets, secret.clone()).await;
    assert_eq!(code, 201, "{told}");
    let (code, told) = ask(token.clone()).await;
    assert_eq!(code, 201, "{told}");
    let info = &told["status"]["userInfo"];
    assert_eq!(
        (&info["username"], &info["uid"]),
        (&json!("system:serviceaccount:default:robot"), &account["metadata"]["uid"])
    );
    let (_, used) = fixture.call("GET", &format!("{secrets}/robot-token"), Value::Null).await;
    assert!(used["metadata"]["labels"]["kubernetes.io/legacy-token-last-used"].is_string(), "{used}");
    fixture.call("DELETE", &format!("{secrets}/robot-token"), Value::Null).await;
    fixture.server.store.fresh().await.expect("fresh");
    assert_eq!(ask(token.clone()).await.0, 401, "revoked");
    fixture.call("POST", secrets, secret).await;
    assert_eq!(ask(token.clone()).await.0, 201);
    fixture.call("DELETE", &format!("{accounts}/robot"), Value::Null).await;
    fixture.server.store.fresh().await.expect("fresh");
    assert_eq!(ask(token).await.0, 401, "the account is gone");
    fixture.stop().await;
}
