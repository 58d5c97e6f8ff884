//! What webhooks and plugins see of requests.

use super::webhooks::{Hooks, configure, seen};
use super::{Fixture, MAPS, certificate};
use axum::body::Body;
use coracle_etcd::memory::MemoryKv;
use http_body_util::BodyExt;
use serde_json::{Value, json};

/// (request, its answer's code, the webhook, what that saw)
type Sight = ((&'static str, String, Value), u16, &'static str, Vec<(&'static str, Value)>);

fn deployment() -> Value {
    let containers = json!({"containers": [{"name": "c", "image": "i"}]});
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": containers});
    json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}})
}

fn sights() -> Vec<Sight> {
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let shown = [("/object/kind", json!("Scale")), ("/kind/group", json!("autoscaling"))];
    vec![
        (
            ("POST", MAPS.to_owned(), json!({"metadata": {"generateName": "g-"}})),
            201,
            "/first",
            vec![
                ("/object/metadata/uid", Value::Null),
                ("/object/metadata/name", Value::Null),
                ("/name", Value::Null),
            ],
        ),
        (
            ("POST", MAPS.to_owned(), json!({"metadata": {"name": "m"}})),
            201,
            "/last",
            vec![("/name", json!("m"))],
        ),
        (
            ("PATCH", format!("{MAPS}/m"), json!({"data": {"a": "b"}})),
            400,
            "/last",
            vec![("/options", json!({"kind": "UpdateOptions", "apiVersion": "meta.k8s.io/v1"}))],
        ),
        (
            ("DELETE", format!("{MAPS}/m?gracePeriodSeconds=3&propagationPolicy=Background"), Value::Null),
            200,
            "/last",
            vec![
                ("/options/gracePeriodSeconds", json!(3)),
                ("/options/propagationPolicy", json!("Background")),
            ],
        ),
        (
            ("POST", deployments.to_owned(), deployment()),
            201,
            "/last",
            vec![("/kind/kind", json!("Deployment"))],
        ),
        (
            ("PATCH", format!("{deployments}/d"), json!({"spec": {"replicas": 2}})),
            200,
            "/first",
            vec![("/object/metadata/generation", json!(1)), ("/object/spec/replicas", json!(2))],
        ),
        (
            ("PATCH", format!("{deployments}/d/scale"), json!({"spec": {"replicas": 3}})),
            200,
            "/last",
            shown.to_vec(),
        ),
    ]
}

/// Of the Deployment `d`.
fn changes() -> Vec<Sight> {
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let whole = |replicas: i64, status: Value| {
        let mut whole = deployment();
        (whole["spec"]["replicas"], whole["status"]) = (json!(replicas), status);
        whole
    };
    vec![
        // A Scale has owners while it is written: those of the replicas.
        (
            ("PATCH", format!("{deployments}/d/scale"), json!({"spec": {"replicas": 4}})),
            200,
            "/first",
            vec![
                ("/object/metadata/managedFields/0/fieldsV1", json!({"f:spec": {"f:replicas": {}}})),
                ("/object/metadata/managedFields/0/apiVersion", json!("autoscaling/v1")),
                ("/object/metadata/managedFields/0/subresource", json!("scale")),
                ("/oldObject/metadata/managedFields/0/fieldsV1", json!({"f:spec": {"f:replicas": {}}})),
            ],
        ),
        (
            (
                "PUT",
                format!("{deployments}/d/scale"),
                json!({"metadata": {"name": "d"}, "spec": {"replicas": 5}}),
            ),
            200,
            "/first",
            vec![("/object/metadata/uid", Value::Null), ("/object/spec/replicas", json!(5))],
        ),
        // Who changes objects before they are judged sees them as they were sent, with what their path does not write.
        (
            ("PUT", format!("{deployments}/d"), whole(3, json!({"replicas": 7}))),
            200,
            "/first",
            vec![("/object/status/replicas", json!(7)), ("/object/metadata/resourceVersion", Value::Null)],
        ),
        (
            ("PUT", format!("{deployments}/d/status"), whole(9, json!({"replicas": 1}))),
            200,
            "/first",
            vec![("/object/spec/replicas", json!(9)), ("/object/status/replicas", json!(1))],
        ),
        (
            ("PUT", format!("{deployments}/d/status"), whole(9, json!({"replicas": 2}))),
            200,
            "/last",
            vec![("/object/spec/replicas", json!(3)), ("/object/status/replicas", json!(2))],
        ),
    ]
}

/// What is asked and not stored.
fn questions() -> Vec<Sight> {
    let asks = json!({"user": "x", "resourceAttributes": {"namespace": "default", "verb": "get", "resource": "pods"}});
    let owned = |fields: Value| vec![("/object/metadata/managedFields/0/fieldsV1", fields)];
    let base = "/api/v1/namespaces/default";
    let reviews = "/apis/authorization.k8s.io/v1";
    vec![
        (
            (
                "POST",
                format!("{base}/pods/none/binding"),
                json!({"metadata": {"name": "none"}, "target": {"name": "n"}}),
            ),
            404,
            "/first",
            owned(json!({"f:target": {}})),
        ),
        (
            (
                "POST",
                format!("{base}/pods/none/eviction"),
                json!({"metadata": {"name": "none"}, "deleteOptions": {"gracePeriodSeconds": 1}}),
            ),
            404,
            "/last",
            owned(json!({"f:deleteOptions": {".": {}, "f:gracePeriodSeconds": {}}})),
        ),
        (
            ("POST", format!("{base}/serviceaccounts/none/token"), json!({"spec": {"audiences": ["a"]}})),
            404,
            "/first",
            vec![("/object/metadata/namespace", json!("default"))],
        ),
        (
            (
                "POST",
                format!("{reviews}/namespaces/default/localsubjectaccessreviews"),
                json!({"metadata": {"namespace": "default"}, "spec": asks}),
            ),
            201,
            "/last",
            vec![("/object/spec/user", json!("x")), ("/operation", json!("CREATE")), ("/name", Value::Null)],
        ),
        (
            ("POST", format!("{reviews}/selfsubjectrulesreviews"), json!({"spec": {"namespace": "default"}})),
            201,
            "/first",
            owned(json!({"f:spec": {"f:namespace": {}}})),
        ),
        (
            (
                "POST",
                "/apis/authentication.k8s.io/v1/tokenreviews".to_owned(),
                json!({"spec": {"token": "t"}}),
            ),
            201,
            "/last",
            vec![("/object/spec/token", json!("t"))],
        ),
        (
            ("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews".to_owned(), json!({})),
            201,
            "/last",
            vec![("/object/kind", json!("SelfSubjectReview"))],
        ),
    ]
}

fn connections() -> Vec<Sight> {
    let (pods, exec) = ("/api/v1/namespaces/default/pods", "command=x&stdout=true");
    vec![
        (
            ("POST", format!("{pods}/p/exec?{exec}"), Value::Null),
            404,
            "/first",
            vec![
                ("/operation", json!("CONNECT")),
                ("/object/kind", json!("PodExecOptions")),
                ("/object/command", json!(["x"])),
            ],
        ),
        (
            ("GET", "/api/v1/namespaces/default/services/s/proxy/a/".to_owned(), Value::Null),
            404,
            "/last",
            vec![("/object/path", json!("/a/")), ("/subResource", json!("proxy"))],
        ),
    ]
}

#[tokio::test]
async fn webhooks_see_what_is_asked_for_in_the_form_of_the_subresource_and_each_request_once() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let hooks = Hooks::start(&fixture.tasks, |path, request| match path {
        "/last" if request["operation"] == "UPDATE" && request["resource"]["resource"] == "configmaps" => {
            json!({"allowed": false, "warnings": ["beware"]})
        }
        _ => json!({"allowed": true}),
    })
    .await;
    let rules =
        json!([{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]);
    for (kind, path) in
        [("MutatingWebhookConfiguration", "/first"), ("ValidatingWebhookConfiguration", "/last")]
    {
        let hook = hooks.hook(path, json!({"rules": rules}));
        configure(&fixture, kind, "all", json!([hook])).await;
    }
    let merge = "application/merge-patch+json";
    for ((method, path, body), code, hook, wants) in
        sights().into_iter().chain(changes()).chain(questions()).chain(connections())
    {
        seen(&fixture).await;
        let before = hooks.asked_at(hook).len();
        let (got, answer) = fixture
            .typed(method, &path, if method == "PATCH" { merge } else { "application/json" }, body)
            .await;
        assert_eq!(got, code, "{method} {path}: {answer}");
        let asked = hooks.asked_at(hook);
        assert_eq!(asked.len(), before + 1, "{method} {path}");
        for (place, want) in wants {
            let seen = asked.last().and_then(|request| request.pointer(place)).unwrap_or(&Value::Null);
            assert_eq!(*seen, want, "{method} {path}: {place}");
        }
    }
    fixture.stop().await;
}

/// A node's request, its code, and what the answer says.
async fn by_node(fixture: &Fixture, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let request = http::Request::builder().method(method).uri(path).header("content-type", kind);
    let request = request.body(Body::from(body.to_string())).expect("request");
    let node = certificate("system:node:n", "system:nodes");
    let response = fixture.server.answer(Some(node), request).await;
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.expect("body").to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap_or_default())
}

#[tokio::test]
async fn a_node_is_refused_what_its_path_would_not_write() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let nodes = "/api/v1/nodes";
    let (code, made) = by_node(&fixture, "POST", nodes, &json!({"metadata": {"name": "n"}})).await;
    assert_eq!(code, 201, "{made}");
    let mut tainted = made.clone();
    tainted["spec"]["taints"] = json!([{"key": "a", "effect": "NoSchedule"}]);
    let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": "x", "uid": "u"}]);
    let rows = [
        ("PUT", tainted.clone(), "node \"n\" is not allowed to modify taints"),
        ("PATCH", json!({"spec": {"taints": null}}), "node \"n\" is not allowed to modify taints"),
        (
            "PATCH",
            json!({"metadata": {"ownerReferences": owner}}),
            "node \"n\" is not allowed to modify ownerReferences",
        ),
        ("PATCH", json!({"metadata": {"labels": {"x": "y"}}, "spec": {"unschedulable": true}}), ""),
    ];
    for (method, body, cause) in rows {
        let (code, answer) = by_node(&fixture, method, "/api/v1/nodes/n/status", &body).await;
        let refused = format!("nodes \"n\" is forbidden: {cause}");
        let want = if cause.is_empty() { (200, Value::Null) } else { (403, json!(refused)) };
        assert_eq!((code, answer["message"].clone()), want, "{method} {body}: {answer}");
    }
    let (_, left) = fixture.call("GET", "/api/v1/nodes/n", Value::Null).await;
    assert_eq!((&left["spec"], &left["metadata"]["labels"]["x"]), (&made["spec"], &json!("y")));
    fixture.stop().await;
}
