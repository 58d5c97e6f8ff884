//! Doors beside an object's own: its subresources, collections and checks, as kube-apiserver v1.33.4 keeps them.

use super::Fixture;
use coracle_etcd::memory::MemoryKv;
use http::Request;
use serde_json::{Value, json};
use std::time::Duration;

const PODS: &str = "/api/v1/namespaces/default/pods";
const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const APPLY: &str = "application/apply-patch+yaml";
const PATCH: &str = "application/json-patch+json";

async fn posted(fixture: &Fixture, path: &str, object: Value) {
    let (code, made) = fixture.call("POST", path, object).await;
    assert_eq!(code, 201, "{made}");
}

/// What is answered to a POST once that has a code.
async fn posted_until(fixture: &Fixture, path: &str, body: &Value, wanted: u16) -> Value {
    let asking = async {
        loop {
            let (code, answer) = fixture.call("POST", path, body.clone()).await;
            if code == wanted {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), asking).await.expect("in time")
}

/// The message with which something is refused in the end.
async fn refusal(fixture: &Fixture, path: &str, body: &Value) -> String {
    let status = posted_until(fixture, path, body, 422).await;
    status["message"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn bindings_and_evictions_pass_admission_as_what_they_are() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    posted(&fixture, "/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}}))
        .await;
    posted(
        &fixture,
        PODS,
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}),
    )
    .await;
    let seen = "request.operation + ' ' + request.subResource + ' ' + request.kind.kind + ' ' + object.metadata.name";
    let rules =
        json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["pods/*"]}]);
    let spec = json!({"matchConstraints": {"resourceRules": rules},
        "validations": [{"expression": "false", "messageExpression": seen}]});
    posted(&fixture, POLICIES, json!({"metadata": {"name": "no"}, "spec": spec})).await;
    let spec = json!({"policyName": "no", "validationActions": ["Deny"]});
    posted(&fixture, BINDINGS, json!({"metadata": {"name": "no"}, "spec": spec})).await;
    let named = json!({"metadata": {"name": "p"}, "target": {"name": "n"}});
    let bound = refusal(&fixture, &format!("{PODS}/p/binding?dryRun=All"), &named).await;
    assert!(bound.ends_with("CREATE binding Binding p"), "{bound}");
    let evicted =
        refusal(&fixture, &format!("{PODS}/p/eviction?dryRun=All"), &json!({"metadata": {"name": "p"}}))
            .await;
    assert!(evicted.ends_with("CREATE eviction Eviction p"), "{evicted}");
    fixture.stop().await;
}

#[tokio::test]
async fn rules_with_names_are_about_what_is_made_too() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let rules = json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
        "resources": ["configmaps"], "resourceNames": ["held", ""]}]);
    let spec = json!({"matchConstraints": {"resourceRules": rules},
        "validations": [{"expression": "false", "messageExpression": "'made ' + request.name"}]});
    posted(&fixture, POLICIES, json!({"metadata": {"name": "no"}, "spec": spec})).await;
    let spec = json!({"policyName": "no", "validationActions": ["Deny"]});
    posted(&fixture, BINDINGS, json!({"metadata": {"name": "no"}, "spec": spec})).await;
    let held = format!("{}?dryRun=All", super::MAPS);
    let told = refusal(&fixture, &held, &json!({"metadata": {"name": "held"}})).await;
    assert!(told.ends_with("made held"), "{told}");
    for (metadata, code) in [
        (json!({"name": "free"}), 201),
        (json!({"generateName": "held"}), 201),
        (json!({"name": "held"}), 422),
    ] {
        let (got, told) = fixture.call("POST", super::MAPS, json!({"metadata": metadata})).await;
        assert_eq!(got, code, "{told}");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn single_checks_of_health_are_for_those_who_may_ask() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    for (path, want) in
        [("/healthz", 200), ("/livez?verbose", 200), ("/healthz/etcd", 403), ("/readyz/ping", 403)]
    {
        let request = Request::builder().uri(path).header("impersonate-user", "jane");
        let request = request.body(axum::body::Body::empty()).expect("request");
        let response = fixture.server.answer(Some(fixture.admin.clone()), request).await;
        assert_eq!(response.status().as_u16(), want, "{path}");
    }
    assert_eq!(fixture.send("GET", "/healthz/etcd", "", Value::Null).await.status().as_u16(), 200);
    fixture.stop().await;
}

#[tokio::test]
async fn services_are_made_where_their_status_is_put() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let path = "/api/v1/namespaces/default/services/s/status";
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 1}]}});
    assert_eq!(fixture.call("PUT", path, service).await.0, 201);
    let plain = json!({"metadata": {"name": "none"}, "spec": {"ports": [{"port": 1, "nodePort": 80}], "type": "NodePort"}});
    let services = "/api/v1/namespaces/default/services";
    assert_eq!(fixture.call("POST", services, plain.clone()).await.0, 422);
    assert_eq!(
        fixture.call("POST", &format!("{services}?dryRun=All"), plain).await.0,
        201,
        "no port is looked for"
    );
    fixture.stop().await;
}

#[tokio::test]
async fn whoever_drops_the_last_of_the_metadata_must_name_the_object() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let map = "/api/v1/namespaces/default/configmaps/a";
    let apply = |config: Value| (format!("{map}?fieldManager=m"), config.to_string());
    let named = json!({"name": "a", "labels": {"a": "b"}});
    let rows = [
        (json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": named}), 201),
        (json!({"apiVersion": "v1", "kind": "ConfigMap"}), 400),
        (json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}), 200),
        (json!({"apiVersion": "v1", "kind": "ConfigMap"}), 200),
    ];
    for (config, want) in rows {
        let (path, body) = apply(config);
        let (code, told) = fixture.text("PATCH", &path, APPLY, &body).await;
        assert_eq!(code, want, "{body}: {told}");
    }
    // Where it could be made, who does not say its name is told so, and who does what it lacks.
    let rows = [
        ("v1", "Service", "/api/v1/namespaces/default/services", json!({}), 400),
        ("v1", "Service", "/api/v1/namespaces/default/services", json!({"name": "none"}), 422),
        ("apps/v1", "Deployment", "/apis/apps/v1/namespaces/default/deployments", json!({}), 404),
    ];
    for (version, kind, path, metadata, want) in rows {
        let body = json!({"apiVersion": version, "kind": kind, "metadata": metadata}).to_string();
        let status = format!("{path}/none/status?fieldManager=m");
        let (code, told) = fixture.text("PATCH", &status, APPLY, &body).await;
        assert_eq!(code, want, "{body}: {told}");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn scales_of_custom_objects_move_the_owners_of_replicas_and_are_hardly_applied() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let scale = json!({"scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}});
    let version =
        json!({"name": "v1", "served": true, "storage": true, "schema": schema, "subresources": scale});
    let spec = json!({"group": "a.io", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
        "versions": [version]});
    posted(&fixture, DEFINITIONS, json!({"metadata": {"name": "things.a.io"}, "spec": spec})).await;
    let things = "/apis/a.io/v1/namespaces/default/things";
    let thing =
        json!({"apiVersion": "a.io/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": {"size": 1}});
    posted_until(&fixture, things, &thing, 201).await;
    let path = format!("{things}/t/scale");
    let rows = [
        (
            7,
            "",
            409,
            "Apply failed with 1 conflict: conflict with \"unknown\" using autoscaling/v1: .spec.replicas",
        ),
        (
            7,
            "&force=true",
            500,
            "failed to convert new object (/t; autoscaling/v1, Kind=Scale) to proper version: request to convert CR to an invalid group/version: autoscaling/v1",
        ),
        (1, "", 200, ""),
    ];
    for (replicas, query, want, text) in rows {
        let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "t"}, "spec": {"replicas": replicas}});
        let applied = format!("{path}?fieldManager=m{query}");
        let (code, told) = fixture.text("PATCH", &applied, APPLY, &scale.to_string()).await;
        assert_eq!((code, told["message"].as_str().unwrap_or_default()), (want, text), "{told}");
    }
    let (code, _) =
        fixture.text("PATCH", &path, PATCH, r#"[{"op":"add","path":"/spec/replicas","value":4}]"#).await;
    assert_eq!(code, 200);
    let (_, after) = fixture.call("GET", &format!("{things}/t"), Value::Null).await;
    let owners = json!([{"manager": "unknown", "operation": "Update", "apiVersion": "a.io/v1", "subresource": "scale",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:size": {}}}}]);
    let owned = &after["metadata"]["managedFields"];
    assert_eq!((&after["spec"]["size"], &owned[0]), (&json!(4), &owners[0]), "{owned}");
    let reset = json!({"metadata": {"managedFields": []}}).to_string();
    let (_, kept) =
        fixture.text("PATCH", &format!("{things}/t"), "application/merge-patch+json", &reset).await;
    assert_eq!(kept["metadata"]["managedFields"], *owned, "an empty list is none: {kept}");
    // What a Scale has set is no longer of who applied it, and stays when that is applied no more.
    let apply = |manager: &str, size: Value| {
        let body = json!({"apiVersion": "a.io/v1", "kind": "Thing", "metadata": {"name": "w"}, "spec": size})
            .to_string();
        (format!("{things}/w?fieldManager={manager}"), body)
    };
    let (applied, body) = apply("a", json!({"size": 1, "other": 1}));
    assert_eq!(fixture.text("PATCH", &applied, APPLY, &body).await.0, 201);
    let three = json!({"spec": {"replicas": 3}}).to_string();
    let scale = format!("{things}/w/scale");
    assert_eq!(fixture.text("PATCH", &scale, "application/merge-patch+json", &three).await.0, 200);
    let (applied, body) = apply("a", json!({"other": 1}));
    let (_, kept) = fixture.text("PATCH", &applied, APPLY, &body).await;
    assert_eq!(kept["spec"], json!({"size": 3, "other": 1}), "{kept}");
    let table = fixture.accepted(&path, "application/json;as=Table;v=v1;g=meta.k8s.io").await;
    let names: Vec<&Value> =
        table["columnDefinitions"].as_array().into_iter().flatten().map(|column| &column["name"]).collect();
    assert_eq!(names, ["Name", "Desired", "Available", "Age"], "{table}");
    fixture.stop().await;
}

#[tokio::test]
async fn refusals_tell_what_deletions_and_old_kinds_warn_of() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let jobs = "/apis/batch/v1/namespaces/default/jobs";
    let template = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
    posted(&fixture, jobs, json!({"metadata": {"name": "j"}, "spec": {"template": template}})).await;
    posted(&fixture, "/api/v1/namespaces/default/endpoints", json!({"metadata": {"name": "e"}})).await;
    let rows = [
        ("DELETE", jobs, "application/json", r#"{"preconditions":{"uid":"x"}}"#, 409),
        (
            "PATCH",
            "/api/v1/namespaces/default/endpoints/e",
            PATCH,
            r#"[{"op":"test","path":"/metadata/name","value":"x"}]"#,
            422,
        ),
    ];
    for (method, path, kind, body, want) in rows {
        let request = Request::builder().method(method).uri(path).header("content-type", kind);
        let request = request.body(axum::body::Body::from(body)).expect("request");
        let response = fixture.server.answer(Some(fixture.admin.clone()), request).await;
        assert_eq!(
            (response.status().as_u16(), response.headers().get_all("warning").iter().count()),
            (want, 1),
            "{path}"
        );
    }
    let (code, told) = fixture
        .text(
            "PUT",
            "/api/v1/namespaces/default",
            "application/json",
            r#"{"apiVersion":"v1","kind":"Status"}"#,
        )
        .await;
    let text = told["message"].as_str().unwrap_or_default();
    assert!(
        code == 400 && text.ends_with("converting (v1.Status) to (core.Namespace): unknown conversion"),
        "{told}"
    );
    fixture.stop().await;
}

#[tokio::test]
async fn an_eviction_pays_before_its_options_are_looked_at() {
    const MERGE: &str = "application/merge-patch+json";
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    posted(&fixture, "/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}}))
        .await;
    let pod = json!({"metadata": {"name": "p", "labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    posted(&fixture, PODS, pod).await;
    let spec = json!({"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}});
    posted(&fixture, budgets, json!({"metadata": {"name": "b"}, "spec": spec})).await;
    let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    let allowed = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2,
        "desiredHealthy": 1, "expectedPods": 2}});
    for (path, status) in [(format!("{PODS}/p/status"), ready), (format!("{budgets}/b/status"), allowed)] {
        let (code, told) = fixture.text("PATCH", &path, MERGE, &status.to_string()).await;
        assert_eq!(code, 200, "{told}");
    }
    let evict = |options: Value| json!({"metadata": {"name": "p"}, "deleteOptions": options});
    let path = format!("{PODS}/p/eviction");
    for (options, want, left) in [
        (json!({"dryRun": ["Odd"], "propagationPolicy": "Odd"}), 422, 1),
        (json!({"propagationPolicy": "Odd"}), 422, 0),
        (json!({}), 429, 0),
    ] {
        let (code, told) = fixture.call("POST", &path, evict(options)).await;
        assert_eq!(code, want, "{told}");
        let (_, budget) = fixture.call("GET", &format!("{budgets}/b"), Value::Null).await;
        assert_eq!(budget["status"]["disruptionsAllowed"].as_i64().unwrap_or(0), left, "{budget}");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn nobody_is_anonymous_where_everybody_may_do_everything() {
    for (mode, code) in [("RBAC", 403), ("RBAC,AlwaysAllow", 401)] {
        let flags = [format!("--authorization-mode={mode}")];
        let fixture = Fixture::flagged(&MemoryKv::default(), &flags).await;
        let request = Request::builder().uri(PODS).body(axum::body::Body::empty()).expect("request");
        assert_eq!(fixture.server.answer(None, request).await.status(), code, "{mode}");
        fixture.stop().await;
    }
}
