//! The audit log through the whole server.

use super::{Fixture, MAPS, certificate, map};
use axum::body::Body;
use coracle_etcd::memory::MemoryKv;
use http::Request;
use serde_json::{Value, json};
use std::path::Path;

const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitManagedFields: true
rules:
- {level: Metadata, resources: [{group: "", resources: [secrets]}], omitStages: [RequestReceived]}
- {level: RequestResponse, namespaces: [default], users: [admin], omitStages: [RequestReceived]}
- {level: RequestResponse, namespaces: [default], users: [other], omitStages: [RequestReceived]}
- {level: Metadata, nonResourceURLs: ["/version"]}
- {level: Metadata, namespaces: [kube-public]}
"#;

fn flags(folder: &Path) -> Vec<String> {
    let policy = folder.join("policy.yaml");
    std::fs::write(&policy, POLICY).expect("policy");
    vec![
        format!("--audit-policy-file={}", policy.display()),
        format!("--audit-log-path={}", folder.join("audit.log").display()),
    ]
}

fn events(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("audit.log")).expect("log");
    text.lines().map(|line| serde_json::from_str(line).expect("an event")).collect()
}

/// The stages of events, and what is found in the last of them.
fn of<'a>(events: &'a [Value], verb: &str, uri: &str) -> (Vec<&'a str>, &'a Value) {
    let fits = |event: &&Value| event["verb"] == verb && event["requestURI"] == uri;
    let found: Vec<&Value> = events.iter().filter(fits).collect();
    let stages = found.iter().map(|event| event["stage"].as_str().expect("stage")).collect();
    (stages, found.last().unwrap_or_else(|| panic!("{verb} {uri}: {events:#?}")))
}

#[tokio::test]
async fn each_request_is_noted_as_far_as_the_policy_goes() {
    let folder = tempfile::tempdir().expect("folder");
    let fixture = Fixture::flagged(&MemoryKv::default(), &flags(folder.path())).await;
    fixture.call("POST", MAPS, map("a", "1")).await;
    fixture.call("POST", MAPS, map("a", "1")).await;
    let path = format!("{MAPS}/a");
    fixture.typed("PATCH", &path, "application/merge-patch+json", json!({"data": {"w": "2"}})).await;
    fixture
        .call("DELETE", &path, json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0}))
        .await;
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"v": "hush"}});
    fixture.call("POST", "/api/v1/namespaces/default/secrets", secret).await;
    fixture.call("GET", "/version?x=1", Value::Null).await;
    fixture.call("GET", "/api/v1/nodes", Value::Null).await;
    let (folder, events) = (folder.path(), events(folder.path()));
    let posts: Vec<&Value> = events.iter().filter(|event| event["requestURI"] == MAPS).collect();
    let [created, taken] = posts.as_slice() else { panic!("{posts:#?}") };
    assert_eq!(created["level"], "RequestResponse");
    assert_eq!(created["responseStatus"], json!({"metadata": {}, "code": 201}));
    assert_eq!(created["user"]["username"], "admin");
    assert_eq!(
        created["annotations"],
        json!({"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""})
    );
    let reference =
        json!({"resource": "configmaps", "namespace": "default", "name": "a", "apiVersion": "v1"});
    assert_eq!(created["objectRef"], reference);
    assert_eq!(created["requestObject"]["data"], json!({"v": "1"}));
    let answer = &created["responseObject"];
    assert!(answer["metadata"]["uid"].is_string() && answer["metadata"]["managedFields"].is_null());
    assert_eq!(
        (&taken["responseStatus"]["code"], &taken["responseStatus"]["reason"]),
        (&json!(409), &json!("AlreadyExists"))
    );
    let (stages, patched) = of(&events, "patch", &path);
    assert_eq!((stages, &patched["requestObject"]), (vec!["ResponseComplete"], &json!({"data": {"w": "2"}})));
    assert_eq!(of(&events, "delete", &path).1["requestObject"]["gracePeriodSeconds"], 0);
    let (_, hushed) = of(&events, "create", "/api/v1/namespaces/default/secrets");
    assert_eq!((&hushed["level"], &hushed["objectRef"]["name"]), (&json!("Metadata"), &json!("s")));
    assert!(!std::fs::read_to_string(folder.join("audit.log")).expect("log").contains("aHVzaA"));
    let (stages, version) = of(&events, "get", "/version?x=1");
    assert_eq!(stages, ["RequestReceived", "ResponseComplete"]);
    assert!(version["objectRef"].is_null() && version["responseObject"].is_null());
    assert!(events.iter().all(|event| event["requestURI"] != "/api/v1/nodes"), "no rule, no event");
    fixture.stop().await;
}

#[tokio::test]
async fn watches_refusals_and_other_users_are_noted_too() {
    let folder = tempfile::tempdir().expect("folder");
    let fixture = Fixture::flagged(&MemoryKv::default(), &flags(folder.path())).await;
    let watch = format!("{MAPS}?watch=1&resourceVersion=0");
    let response = fixture.send("GET", &watch, "", Value::Null).await;
    let id = response.headers()["audit-id"].to_str().expect("id").to_owned();
    assert_eq!(of(&events(folder.path()), "watch", &watch).0, ["ResponseStarted"]);
    drop(response);
    let noted = events(folder.path());
    let (stages, event) = of(&noted, "watch", &watch);
    assert_eq!((stages, &event["auditID"]), (vec!["ResponseStarted", "ResponseComplete"], &json!(id)));
    let ask = |headers: &[(&str, &str)], path: &str, leaf: Option<&str>| {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let leaf = leaf.map(|name| certificate(name, "some"));
        let request = request.body(Body::empty()).expect("request");
        let server = fixture.server.clone();
        async move { server.answer(leaf, request).await.status().as_u16() }
    };
    let path = format!("{MAPS}/none");
    assert_eq!(
        ask(&[("audit-id", "mine"), ("x-forwarded-for", "10.1.2.3, junk")], &path, Some("other")).await,
        403
    );
    let noted = events(folder.path());
    let (_, refused) = of(&noted, "get", &path);
    assert_eq!((&refused["auditID"], &refused["sourceIPs"]), (&json!("mine"), &json!(["10.1.2.3"])));
    assert_eq!(refused["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(
        (&refused["responseStatus"]["code"], &refused["responseObject"]["kind"]),
        (&json!(403), &json!("Status"))
    );
    assert_eq!(ask(&[("authorization", "Bearer junk")], "/version", None).await, 401);
    let noted = events(folder.path());
    let (stages, unknown) = of(&noted, "get", "/version");
    assert_eq!(stages, ["ResponseStarted"]);
    assert_eq!(unknown["responseStatus"]["message"], "Unauthorized");
    let path = "/api/v1/namespaces/kube-public/configmaps";
    let request =
        Request::builder().uri(path).header("impersonate-user", "jane").body(Body::empty()).expect("request");
    assert_eq!(fixture.server.answer(Some(fixture.admin.clone()), request).await.status(), 403);
    assert_eq!(of(&events(folder.path()), "list", path).1["impersonatedUser"]["username"], "jane");
    fixture.stop().await;
}

#[tokio::test]
async fn admission_tells_the_audit_log_what_it_lets_pass() {
    let folder = tempfile::tempdir().expect("folder");
    let fixture = Fixture::flagged(&MemoryKv::default(), &flags(folder.path())).await;
    let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/audit": "restricted"}}});
    fixture.typed("PATCH", "/api/v1/namespaces/default", "application/merge-patch+json", labels).await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    fixture.call("POST", "/api/v1/namespaces/default/serviceaccounts", account).await;
    let group = "/apis/admissionregistration.k8s.io/v1";
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "p"},
        "spec": {"matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]},
            "validations": [{"expression": "true"}, {"expression": "false", "message": "never"}],
            "auditAnnotations": [{"key": "name", "valueExpression": "'pod ' + object.metadata.name"}]}});
    let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "b"},
        "spec": {"policyName": "p", "validationActions": ["Audit"]}});
    fixture.call("POST", &format!("{group}/validatingadmissionpolicies"), policy).await;
    let (code, told) =
        fixture.call("POST", &format!("{group}/validatingadmissionpolicybindings"), binding).await;
    assert_eq!(code, 201, "{told}");
    let hook = json!({"name": "m.a.b", "clientConfig": {"url": "https://127.0.0.1:1/m"}, "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "failurePolicy": "Ignore", "timeoutSeconds": 1,
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]});
    for (plural, kind) in [
        ("mutatingwebhookconfigurations", "MutatingWebhookConfiguration"),
        ("validatingwebhookconfigurations", "ValidatingWebhookConfiguration"),
    ] {
        let configuration = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
            "metadata": {"name": "m"}, "webhooks": [hook]});
        let (code, told) = fixture.call("POST", &format!("{group}/{plural}"), configuration).await;
        assert_eq!(code, 201, "{told}");
    }
    fixture.server.store.fresh().await.expect("fresh");
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let (code, told) = fixture.call("POST", pods, pod).await;
    assert_eq!(code, 201, "{told}");
    let noted = events(folder.path());
    let annotations = &of(&noted, "create", pods).1["annotations"];
    assert_eq!(annotations["pod-security.kubernetes.io/enforce-policy"], "privileged:latest");
    let violations = annotations["pod-security.kubernetes.io/audit-violations"].as_str().expect("violations");
    assert!(
        violations.starts_with(
            "would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false"
        )
    );
    let failure =
        annotations["validation.policy.admission.k8s.io/validation_failure"].as_str().expect("failure");
    let want = json!([{"message": "never", "policy": "p", "binding": "b", "expressionIndex": 1, "validationActions": ["Audit"]}]);
    assert_eq!(serde_json::from_str::<Value>(failure).expect("json"), want);
    assert_eq!(annotations["p/name"], "pod x");
    for (key, want) in [
        (
            "mutation.webhook.admission.k8s.io/round_0_index_0",
            r#"{"configuration":"m","webhook":"m.a.b","mutated":false}"#,
        ),
        ("failed-open.mutation.webhook.admission.k8s.io/round_0_index_0", "m.a.b"),
        ("failed-open.validating.webhook.admission.k8s.io/round_0_index_0", "m.a.b"),
    ] {
        assert_eq!(annotations[key], want, "{key}");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn events_are_written_in_batches_and_all_of_them_before_the_server_has_stopped() {
    let folder = tempfile::tempdir().expect("folder");
    let mut flags = flags(folder.path());
    flags.extend(["--audit-log-mode=batch".to_owned(), "--audit-log-batch-max-size=400".to_owned()]);
    let fixture = Fixture::flagged(&MemoryKv::default(), &flags).await;
    fixture.call("POST", MAPS, map("a", "1")).await;
    fixture.call("GET", "/version", Value::Null).await;
    fixture.stop().await;
    let events = events(folder.path());
    assert_eq!(of(&events, "create", MAPS).0, ["ResponseComplete"]);
    assert_eq!(of(&events, "get", "/version").0, ["RequestReceived", "ResponseComplete"]);
}

#[tokio::test]
async fn what_cannot_be_noted_is_not_done_in_the_strict_mode() {
    let folder = tempfile::tempdir().expect("folder");
    let mut flags = flags(folder.path());
    flags[1] = "--audit-log-path=/dev/full".to_owned();
    flags.push("--audit-log-mode=blocking-strict".to_owned());
    let fixture = Fixture::flagged(&MemoryKv::default(), &flags).await;
    let (code, told) = fixture.call("GET", "/version", Value::Null).await;
    assert_eq!(
        (code, &told["message"]),
        (500, &json!("Internal error occurred: failed to store audit event"))
    );
    fixture.stop().await;
}

#[tokio::test]
async fn what_cannot_be_told_the_audit_log_denies_the_write() {
    let fixture = Fixture::flagged(&MemoryKv::default(), &[]).await;
    let group = "/apis/admissionregistration.k8s.io/v1";
    let policy = |name: &str, failure: &str| {
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
            "spec": {"failurePolicy": failure, "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"],
                "operations": ["CREATE"], "resources": ["configmaps"], "resourceNames": [name]}]},
                "auditAnnotations": [{"key": "k", "valueExpression": "string(object.data.none)"}]}})
    };
    for (name, failure) in [("closed", "Fail"), ("open", "Ignore")] {
        let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Audit"]}});
        fixture.call("POST", &format!("{group}/validatingadmissionpolicies"), policy(name, failure)).await;
        fixture.call("POST", &format!("{group}/validatingadmissionpolicybindings"), binding).await;
    }
    fixture.server.store.fresh().await.expect("fresh");
    assert_eq!(fixture.call("POST", MAPS, map("open", "1")).await.0, 201);
    let (code, told) = fixture.call("POST", MAPS, map("closed", "1")).await;
    assert_eq!(code, 422, "{told}");
    let want = "expression 'string(object.data.none)' resulted in error: no such key: none";
    assert!(told["message"].as_str().expect("message").ends_with(want), "{told}");
    fixture.stop().await;
}

#[tokio::test]
async fn a_status_that_is_answered_is_told_at_every_level() {
    let folder = tempfile::tempdir().expect("folder");
    let fixture = Fixture::flagged(&MemoryKv::default(), &flags(folder.path())).await;
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}});
    fixture.call("POST", secrets, secret).await;
    fixture.call("DELETE", &format!("{secrets}/s"), Value::Null).await;
    fixture.call("GET", &format!("{secrets}/s/nothing"), Value::Null).await;
    let noted = events(folder.path());
    let (_, deleted) = of(&noted, "delete", &format!("{secrets}/s"));
    assert_eq!(deleted["responseStatus"]["status"], "Success");
    assert_eq!(deleted["responseStatus"]["details"]["name"], "s");
    assert!(deleted["responseObject"].is_null(), "the policy says Metadata");
    let (_, lost) = of(&noted, "get", &format!("{secrets}/s/nothing"));
    assert_eq!(
        (&lost["responseStatus"]["status"], &lost["responseStatus"]["code"]),
        (&json!("Failure"), &json!(404))
    );
    fixture.stop().await;
}
