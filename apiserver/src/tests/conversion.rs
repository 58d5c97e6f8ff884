//! Custom kinds whose versions a webhook makes of each other.

use super::webhooks::Hooks;
use super::{Fixture, event};
use coracle_etcd::memory::MemoryKv;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::time::Duration;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

fn path(version: &str) -> String {
    format!("/apis/b.io/{version}/namespaces/default/hosts")
}

fn definition(hooks: &Hooks) -> Value {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}});
    let version = |name: &str, storage: bool| json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema}});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "hosts.b.io"},
        "spec": {"group": "b.io", "scope": "Namespaced", "names": {"plural": "hosts", "kind": "Host"},
            "versions": [version("v1", true), version("v2", false)],
            "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
                "clientConfig": {"url": format!("{}/convert", hooks.url), "caBundle": hooks.bundle}}}}})
}

/// v1 has `spec.at` as HOST:PORT, v2 has the two apart.
fn converted(request: &Value) -> Value {
    let wanted = request["desiredAPIVersion"].as_str().unwrap_or_default();
    let one = |object: &Value| {
        let mut object = object.clone();
        object["apiVersion"] = json!(wanted);
        let spec = object["spec"].clone();
        object["spec"] = if wanted == "b.io/v2" {
            let at = spec["at"].as_str().unwrap_or_default();
            let (host, port) = at.split_once(':').unwrap_or((at, ""));
            json!({"host": host, "port": port})
        } else {
            let text = |key: &str| spec[key].as_str().unwrap_or_default().to_owned();
            json!({"at": format!("{}:{}", text("host"), text("port"))})
        };
        // Nobody may change these.
        object["metadata"]["finalizers"] = json!(["a.io/evil"]);
        object
    };
    let objects: Vec<Value> = request["objects"].as_array().into_iter().flatten().map(one).collect();
    if objects.iter().any(|object| object["metadata"]["name"] == "broken") {
        return json!({"result": {"status": "Failed", "message": "cannot convert this one"}});
    }
    json!({"result": {"status": "Success"}, "convertedObjects": objects})
}

fn host(version: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": format!("b.io/{version}"), "kind": "Host", "metadata": {"name": name}, "spec": spec})
}

async fn established(fixture: &Fixture, hooks: &Hooks) {
    let (code, made) = fixture.call("POST", DEFINITIONS, definition(hooks)).await;
    assert_eq!(code, 201, "{made}");
    served(fixture).await;
}

async fn served(fixture: &Fixture) {
    let served = async {
        while fixture.call("GET", &path("v2"), Value::Null).await.0 != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), served).await.expect("in time");
}

#[tokio::test]
async fn every_version_reads_and_writes_what_the_webhook_makes_of_the_stored_one() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let hooks = Hooks::start(&fixture.tasks, |_, request| converted(request)).await;
    established(&fixture, &hooks).await;
    let (code, made) =
        fixture.call("POST", &path("v2"), host("v2", "a", &json!({"host": "h", "port": "1"}))).await;
    assert_eq!((code, &made["spec"]), (201, &json!({"host": "h", "port": "1"})), "{made}");
    assert_eq!(made["apiVersion"], "b.io/v2");
    assert!(made["metadata"]["finalizers"].is_null(), "{made}");
    let (_, stored) = fixture.call("GET", &format!("{}/a", path("v1")), Value::Null).await;
    assert_eq!(stored["spec"], json!({"at": "h:1"}));
    fixture.call("POST", &path("v1"), host("v1", "b", &json!({"at": "x:2"}))).await;
    let before = hooks.asked_at("/convert").len();
    let (_, list) = fixture.call("GET", &path("v2"), Value::Null).await;
    assert_eq!(
        (&list["items"][0]["spec"], &list["items"][1]["spec"]["host"]),
        (&json!({"host": "h", "port": "1"}), &json!("x"))
    );
    let asked = hooks.asked_at("/convert");
    // One question for the whole list.
    assert_eq!((asked.len(), asked[before]["objects"].as_array().map(Vec::len)), (before + 1, Some(2)));
    let change = json!({"spec": {"port": "9"}});
    let (code, patched) =
        fixture.typed("PATCH", &format!("{}/b", path("v2")), "application/merge-patch+json", change).await;
    assert_eq!((code, &patched["spec"]), (200, &json!({"host": "x", "port": "9"})), "{patched}");
    let (_, stored) = fixture.call("GET", &format!("{}/b", path("v1")), Value::Null).await;
    assert_eq!(stored["spec"], json!({"at": "x:9"}));
    let mut watch = fixture
        .send("GET", &format!("{}?watch=1", path("v2")), "application/json", Value::Null)
        .await
        .into_body();
    let opening = watch.frame().await.expect("more").expect("frame").into_data().expect("data");
    let events = serde_json::Deserializer::from_slice(&opening).into_iter::<Value>();
    let events: Vec<Value> = events.collect::<Result<_, _>>().expect("events");
    let (first, second) = (&events[0], &events[1]);
    assert_eq!((&first["type"], &first["object"]["spec"]["host"]), (&json!("ADDED"), &json!("h")));
    assert_eq!(second["object"]["spec"], json!({"host": "x", "port": "9"}));
    fixture.call("POST", &path("v1"), host("v1", "c", &json!({"at": "y:3"}))).await;
    assert_eq!(event(&mut watch).await["object"]["spec"], json!({"host": "y", "port": "3"}));
    drop(watch);
    fixture.stop().await;
}

#[tokio::test]
async fn lists_and_watches_select_by_what_the_webhook_makes_of_the_stored_objects() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let hooks = Hooks::start(&fixture.tasks, |_, request| converted(request)).await;
    let mut definition = definition(&hooks);
    let version = &mut definition["spec"]["versions"][1];
    let properties = json!({"host": {"type": "string"}});
    version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"] = properties;
    version["selectableFields"] = json!([{"jsonPath": ".spec.host"}]);
    assert_eq!(fixture.call("POST", DEFINITIONS, definition).await.0, 201);
    served(&fixture).await;
    for (name, at) in [("a", "h:1"), ("b", "x:2"), ("c", "h:3")] {
        fixture.call("POST", &path("v1"), host("v1", name, &json!({"at": at}))).await;
    }
    let names = |list: &Value| {
        let items = list["items"].as_array().cloned().unwrap_or_default();
        items.iter().map(|item| item["metadata"]["name"].clone()).collect::<Vec<_>>()
    };
    let on_h = format!("{}?fieldSelector=spec.host%3Dh", path("v2"));
    let (_, list) = fixture.call("GET", &on_h, Value::Null).await;
    assert_eq!(names(&list), ["a", "c"]);
    let (_, first) = fixture.call("GET", &format!("{on_h}&limit=2"), Value::Null).await;
    let next = first["metadata"]["continue"].as_str().expect("more");
    let (_, second) = fixture.call("GET", &format!("{on_h}&limit=2&continue={next}"), Value::Null).await;
    assert_eq!((names(&first), names(&second)), (vec![json!("a")], vec![json!("c")]));
    let from = list["metadata"]["resourceVersion"].as_str().expect("a version");
    let watch = format!("{on_h}&watch=1&resourceVersion={from}");
    let mut watch = fixture.send("GET", &watch, "application/json", Value::Null).await.into_body();
    for (name, at, kind, port) in
        [("b", "h:2", "ADDED", "2"), ("c", "h:4", "MODIFIED", "4"), ("a", "x:1", "DELETED", "1")]
    {
        let change = json!({"spec": {"at": at}});
        fixture
            .typed("PATCH", &format!("{}/{name}", path("v1")), "application/merge-patch+json", change)
            .await;
        let told = event(&mut watch).await;
        assert_eq!((&told["type"], &told["object"]["metadata"]["name"]), (&json!(kind), &json!(name)));
        assert_eq!(told["object"]["spec"], json!({"host": "h", "port": port}), "what was last selected");
    }
    drop(watch);
    fixture.stop().await;
}

#[tokio::test]
async fn what_the_webhook_cannot_convert_is_told() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let hooks = Hooks::start(&fixture.tasks, |_, request| converted(request)).await;
    established(&fixture, &hooks).await;
    assert_eq!(fixture.call("POST", &path("v1"), host("v1", "broken", &json!({"at": "x:2"}))).await.0, 201);
    let (code, told) = fixture.call("GET", &format!("{}/broken", path("v2")), Value::Null).await;
    assert_eq!(code, 500);
    assert_eq!(told["message"], "conversion webhook for b.io/v1, Kind=Host failed: cannot convert this one");
    fixture.stop().await;
}

#[tokio::test]
async fn what_the_webhook_makes_on_the_way_to_the_store_is_written_though_nothing_was_asked_for() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let stamped = |_: &str, request: &Value| {
        let mut answer = converted(request);
        for object in answer["convertedObjects"].as_array_mut().into_iter().flatten() {
            object["metadata"]["labels"] =
                json!({"made": request["desiredAPIVersion"].as_str().map(|v| &v[5..])});
        }
        answer
    };
    let hooks = Hooks::start(&fixture.tasks, stamped).await;
    established(&fixture, &hooks).await;
    let (_, made) = fixture.call("POST", &path("v1"), host("v1", "a", &json!({"at": "x:2"}))).await;
    assert!(made["metadata"]["labels"].is_null(), "{made}");
    let nothing = async || {
        let at = format!("{}/a", path("v2"));
        fixture.typed("PATCH", &at, "application/merge-patch+json", json!({})).await.1
    };
    let first = nothing().await;
    let (_, stored) = fixture.call("GET", &format!("{}/a", path("v1")), Value::Null).await;
    assert_eq!(stored["metadata"]["labels"], json!({"made": "v1"}));
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    assert_ne!(version(&first), version(&made));
    assert_eq!(version(&nothing().await), version(&first), "nothing new was made");
    fixture.stop().await;
}

#[tokio::test]
async fn an_object_that_is_written_as_it_is_comes_into_the_version_that_is_stored_by_now() {
    let kv = MemoryKv::default();
    let fixture = Fixture::over(&kv).await;
    let hooks = Hooks::start(&fixture.tasks, |_, request| converted(request)).await;
    let mut definition = definition(&hooks);
    definition["spec"]["conversion"] = json!({"strategy": "None"});
    assert_eq!(fixture.call("POST", DEFINITIONS, definition.clone()).await.0, 201);
    served(&fixture).await;
    let (_, made) = fixture.call("POST", &path("v1"), host("v1", "a", &json!({"at": "x:2"}))).await;
    let at = format!("{DEFINITIONS}/hosts.b.io");
    let swapped = json!([{"op": "replace", "path": "/spec/versions/0/storage", "value": false},
        {"op": "replace", "path": "/spec/versions/1/storage", "value": true}]);
    assert_eq!(fixture.typed("PATCH", &at, "application/json-patch+json", swapped).await.0, 200);
    let moved = async {
        loop {
            let (_, put) = fixture.call("PUT", &format!("{}/a", path("v1")), made.clone()).await;
            if put["metadata"]["resourceVersion"] != made["metadata"]["resourceVersion"] {
                return put;
            }
            tokio::task::yield_now().await;
        }
    };
    let put = tokio::time::timeout(Duration::from_secs(20), moved).await.expect("in time");
    let (_, again) = fixture.call("PUT", &format!("{}/a", path("v1")), put.clone()).await;
    assert_eq!(again["metadata"]["resourceVersion"], put["metadata"]["resourceVersion"]);
    fixture.stop().await;
}
