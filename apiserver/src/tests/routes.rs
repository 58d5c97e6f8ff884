//! Paths and methods that nothing is served at, or not what one might think, as kube-apiserver v1.33 answers them.

use super::{Fixture, MAPS, event, map};
use coracle_etcd::memory::MemoryKv;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::time::Duration;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

#[tokio::test]
async fn paths_and_methods_are_answered_as_kubernetes_answers_them() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    for (method, path, code, kind) in [
        ("HEAD", "/", 200, JSON),
        ("HEAD", "/healthz", 200, TEXT),
        ("HEAD", "/apis/apps", 200, JSON),
        ("HEAD", "/version", 405, JSON),
        ("HEAD", "/api/v1", 405, JSON),
        ("HEAD", "/api/v2", 404, JSON),
        ("HEAD", "/apis/apps/v2", 404, JSON),
        ("HEAD", "/api/v1/namespaces/default", 405, JSON),
        ("HEAD", "/api/v1/namespaces/default/pods/p/log", 405, JSON),
        ("HEAD", "/api/v1/nopes", 404, JSON),
        ("HEAD", "/api/v1/namespaces/default/configmaps/c/status", 404, JSON),
        ("HEAD", "/api/v1/namespaces/default/configmaps//c", 404, JSON),
        ("HEAD", "/api/v1/bindings", 404, JSON),
        ("POST", "/api/v1/bindings", 404, JSON),
        ("GET", "/api/v1/namespaces/default/bindings", 405, JSON),
        ("GET", "/api/v1/namespaces/default/bindings/x", 404, JSON),
        ("POST", "/api/v1/configmaps", 405, JSON),
        ("DELETE", "/apis/authorization.k8s.io/v1/subjectaccessreviews/x", 404, JSON),
        ("POST", "/apis/authorization.k8s.io/v1/localsubjectaccessreviews", 404, JSON),
        ("TRACE", "/api/v1/nodes/none/proxy/", 405, JSON),
        ("OPTIONS", "/api/v1/nodes/none/proxy/", 404, JSON),
        ("GET", "/api/v1/namespaces/default/configmaps/%25", 400, JSON),
        ("GET", "/api/v1/namespaces/default/configmaps/..", 400, JSON),
        ("HEAD", "/nope", 404, TEXT),
        ("POST", "/api/v2", 404, JSON),
        ("PUT", "/apis/apps/v2", 404, JSON),
        ("POST", "/apis/apps/v1", 405, JSON),
        ("DELETE", "/api/v1/watch/namespaces", 405, JSON),
        ("GET", "/api/v1/watch", 500, TEXT),
        ("POST", "/apis/apps/v1/watch/", 500, TEXT),
        // A namespace without a name holds nothing, but lists everything.
        ("GET", "/api/v1/namespaces//pods", 200, JSON),
        ("DELETE", "/api/v1/namespaces//pods", 400, JSON),
        ("GET", "/api/v1/namespaces//pods/p", 400, JSON),
        ("GET", "/api/v1/namespaces//pods/p/log", 400, JSON),
        ("POST", "/api/v1/namespaces//pods/p", 405, JSON),
        ("GET", "/api/v1/namespaces//nodes/p", 404, JSON),
        ("GET", "/api/v1/namespaces/default/pods/p/log/more", 404, JSON),
        ("POST", "/api/v1/namespaces/default/pods/p/exec/more", 404, JSON),
        ("GET", "/api/v1/namespaces/default/configmaps/%ff", 404, JSON),
        ("GET", "//api", 404, TEXT),
        ("GET", "//api/v1/namespaces", 404, TEXT),
        ("POST", "//api/v1/namespaces", 404, TEXT),
        ("GET", "/apis//apps", 404, TEXT),
        ("PUT", "/apis//apps", 404, TEXT),
        ("GET", "/api//v1", 404, JSON),
    ] {
        let response = fixture.send(method, path, JSON, Value::Null).await;
        let told = (response.status().as_u16(), response.headers()[CONTENT_TYPE].to_str().expect("text"));
        assert_eq!(told, (code, kind), "{method} {path}");
        if method == "HEAD" {
            assert!(response.headers().contains_key(CONTENT_LENGTH), "{path}");
            assert!(response.into_body().collect().await.expect("a body").to_bytes().is_empty(), "{path}");
        }
    }
    fixture.stop().await;
}

#[tokio::test]
async fn export_is_no_longer_supported() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let of = |query: &str| format!("/api/v1/namespaces/default?{query}");
    for (query, code) in [("export=true", 400), ("export=", 400), ("export=0", 200), ("export=False", 200)] {
        assert_eq!(fixture.call("GET", &of(query), Value::Null).await.0, code, "{query}");
    }
    assert_eq!(fixture.call("GET", "/api/v1/namespaces?export=true", Value::Null).await.0, 200);
    fixture.stop().await;
}

#[tokio::test]
async fn evictions_are_taken_in_both_versions() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    fixture
        .call("POST", "/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}}))
        .await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(fixture.call("POST", pods, pod).await.0, 201);
    for (version, code) in [("policy/v1", 201), ("policy/v1beta1", 201), ("policy/v2", 400)] {
        let eviction = json!({"apiVersion": version, "kind": "Eviction", "metadata": {"name": "p"}});
        let (found, told) = fixture.call("POST", &format!("{pods}/p/eviction?dryRun=All"), eviction).await;
        assert_eq!(found, code, "{version}: {told}");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn a_deleted_namespace_has_no_grace_period() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    fixture.call("POST", "/api/v1/namespaces", json!({"metadata": {"name": "n"}})).await;
    let (code, gone) = fixture.call("DELETE", "/api/v1/namespaces/n", Value::Null).await;
    assert_eq!((code, &gone["status"]["phase"]), (200, &json!("Terminating")));
    assert!(gone["metadata"]["deletionTimestamp"].is_string());
    assert!(gone["metadata"].get("deletionGracePeriodSeconds").is_none(), "{gone}");
    fixture.stop().await;
}

#[tokio::test]
async fn a_watch_of_the_future_hears_of_what_comes_after_it() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let (_, made) = fixture.call("POST", MAPS, map("a", "1")).await;
    let at: u64 =
        made["metadata"]["resourceVersion"].as_str().and_then(|at| at.parse().ok()).expect("a version");
    // The server itself may write meanwhile.
    let future = at + 50;
    let path = format!("{MAPS}?watch=1&resourceVersion={future}");
    let response = fixture.send("GET", &path, JSON, Value::Null).await;
    assert_eq!(response.status().as_u16(), 200);
    let mut body = response.into_body();
    let mut last = 0;
    for number in 0.. {
        let (_, made) = fixture.call("POST", MAPS, map(&format!("b{number}"), "1")).await;
        last =
            made["metadata"]["resourceVersion"].as_str().and_then(|at| at.parse().ok()).expect("a version");
        if last > future {
            break;
        }
    }
    let told = tokio::time::timeout(Duration::from_secs(5), event(&mut body)).await.expect("told");
    assert_eq!(
        (&told["type"], &told["object"]["metadata"]["resourceVersion"]),
        (&json!("ADDED"), &json!(last.to_string()))
    );
    fixture.stop().await;
}

#[tokio::test]
async fn a_list_at_exactly_a_future_version_is_told_the_stores_words() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    for query in ["resourceVersion=999999&resourceVersionMatch=Exact", "resourceVersion=999999&limit=1"] {
        let (code, told) = fixture.call("GET", &format!("{MAPS}?{query}"), Value::Null).await;
        let words = "etcdserver: mvcc: required revision is a future revision";
        assert_eq!((code, &told["message"]), (500, &json!(words)), "{query}");
    }
    let beyond = format!("{MAPS}?resourceVersion={}&resourceVersionMatch=Exact", u64::MAX);
    let (code, told) = fixture.call("GET", &beyond, Value::Null).await;
    assert_eq!(
        (code, &told["details"]["causes"][0]["reason"]),
        (504, &json!("ResourceVersionTooLarge")),
        "{told}"
    );
    fixture.stop().await;
}

#[tokio::test]
async fn a_template_generation_that_is_no_number_is_refused() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let sets = "/apis/apps/v1/namespaces/default/daemonsets";
    let set = |generation: &str| {
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        json!({"metadata": {"name": "d", "annotations": {"deprecated.daemonset.template.generation": generation}},
            "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}})
    };
    let fault = "strconv.ParseInt: parsing \"junk\": invalid syntax";
    let (code, told) = fixture.call("POST", sets, set("junk")).await;
    let refused = format!("DaemonSet in version \"v1\" cannot be handled as a DaemonSet: {fault}");
    assert_eq!((code, &told["message"]), (400, &json!(refused)));
    assert_eq!(fixture.call("POST", sets, set("7")).await.0, 201);
    let patch = json!({"metadata": {"annotations": {"deprecated.daemonset.template.generation": "junk"}}});
    for (kind, code) in [("merge-patch", 422), ("strategic-merge-patch", 500)] {
        let kind = format!("application/{kind}+json");
        let (found, told) = fixture.typed("PATCH", &format!("{sets}/d"), &kind, patch.clone()).await;
        assert_eq!(found, code, "{told}");
        assert!(told["message"].as_str().is_some_and(|text| text.ends_with(fault)), "{told}");
    }
    fixture.stop().await;
}
