//! Custom kinds from their definition to its end.

use super::{Fixture, event};
use coracle_etcd::memory::MemoryKv;
use serde_json::{Value, json};
use std::time::Duration;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/a.io/v1/namespaces/default/widgets";

fn definition() -> Value {
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"size": {"type": "integer", "maximum": 5}, "color": {"type": "string", "default": "red"}}},
        "status": {"type": "object", "properties": {"n": {"type": "integer"}}}}});
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema},
            "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.n"}}})
    };
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "widgets.a.io"},
        "spec": {"group": "a.io", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["w"]},
            "versions": [version("v1", true), version("v1beta1", false)]}})
}

fn widget(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "a.io/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

/// Asks until the answer is as wanted.
async fn until(fixture: &Fixture, path: &str, wanted: impl Fn(u16, &Value) -> bool) -> Value {
    let asking = async {
        loop {
            let (code, answer) = fixture.call("GET", path, Value::Null).await;
            if wanted(code, &answer) {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), asking).await.expect("in time")
}

async fn established(fixture: &Fixture) {
    assert_eq!(fixture.call("POST", DEFINITIONS, definition()).await.0, 201);
    let path = format!("{DEFINITIONS}/widgets.a.io");
    let told = until(fixture, &path, |_, answer| answer["status"]["conditions"][1]["status"] == "True").await;
    assert_eq!(told["status"]["acceptedNames"]["listKind"], "WidgetList");
}

#[tokio::test]
async fn a_custom_kind_is_served_like_any_other() {
    let kv = MemoryKv::default();
    let (one, two) = (Fixture::over(&kv).await, Fixture::over(&kv).await);
    established(&one).await;
    // The other server knows it as soon as anybody can.
    let (code, made) = two.call("POST", WIDGETS, widget("w", &json!({"size": 2, "nope": 1}))).await;
    assert_eq!((code, &made["spec"]), (201, &json!({"size": 2, "color": "red"})), "{made}");
    let (code, refused) = one.call("POST", WIDGETS, widget("x", &json!({"size": 9}))).await;
    assert_eq!((code, refused["details"]["causes"][0]["field"].as_str()), (422, Some("spec.size")));
    let (code, other) = one
        .call("POST", WIDGETS, json!({"apiVersion": "a.io/v1", "kind": "Gadget", "metadata": {"name": "x"}}))
        .await;
    assert_eq!(
        (code, other["details"]["causes"][0]["message"].as_str()),
        (422, Some("Invalid value: \"Gadget\": must be Widget"))
    );

    let path = format!("{WIDGETS}/w");
    let merge = "application/merge-patch+json";
    let (_, patched) =
        one.typed("PATCH", &path, merge, json!({"spec": {"size": 3}, "status": {"n": 1}})).await;
    assert_eq!(
        (&patched["metadata"]["generation"], &patched["status"]),
        (&json!(2), &Value::Null),
        "{patched}"
    );
    let (_, patched) = one
        .typed("PATCH", &format!("{path}/status"), merge, json!({"spec": {"size": 1}, "status": {"n": 5}}))
        .await;
    assert_eq!((&patched["spec"]["size"], &patched["status"]["n"]), (&json!(3), &json!(5)));
    let (_, scale) = one.call("GET", &format!("{path}/scale"), Value::Null).await;
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["replicas"]), (&json!(3), &json!(5)));
    let (code, _) =
        one.typed("PATCH", &format!("{path}/scale"), merge, json!({"spec": {"replicas": 4}})).await;
    assert_eq!(code, 200);
    let (_, older) = two.call("GET", "/apis/a.io/v1beta1/namespaces/default/widgets/w", Value::Null).await;
    assert_eq!((&older["apiVersion"], &older["spec"]["size"]), (&json!("a.io/v1beta1"), &json!(4)));
    let (_, list) = two.call("GET", "/apis/a.io/v1/widgets", Value::Null).await;
    assert_eq!((&list["kind"], list["items"].as_array().map(Vec::len)), (&json!("WidgetList"), Some(1)));
    let (_, groups) = two.call("GET", "/apis/a.io", Value::Null).await;
    assert_eq!(groups["preferredVersion"]["version"], "v1");
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn objects_go_before_their_definition() {
    let kv = MemoryKv::default();
    let fixture = Fixture::over(&kv).await;
    established(&fixture).await;
    let mut held = widget("w", &json!({}));
    held["metadata"]["finalizers"] = json!(["a.io/held"]);
    assert_eq!(fixture.call("POST", WIDGETS, held).await.0, 201);
    let mut watch = fixture.send("GET", &format!("{WIDGETS}?watch=1"), "", Value::Null).await.into_body();
    assert_eq!(event(&mut watch).await["type"], "ADDED");

    let path = format!("{DEFINITIONS}/widgets.a.io");
    let (code, marked) = fixture.call("DELETE", &path, Value::Null).await;
    assert_eq!(code, 200);
    assert_eq!(marked["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    assert!(event(&mut watch).await["object"]["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(fixture.call("GET", &path, Value::Null).await.0, 200);
    assert_eq!(fixture.call("POST", WIDGETS, widget("late", &json!({}))).await.0, 405);

    let release = json!({"metadata": {"finalizers": null}});
    fixture.typed("PATCH", &format!("{WIDGETS}/w"), "application/merge-patch+json", release).await;
    until(&fixture, &path, |code, _| code == 404).await;
    until(&fixture, WIDGETS, |code, _| code == 404).await;
    fixture.stop().await;
}

#[tokio::test]
async fn custom_kinds_and_their_objects_are_there_after_a_restart() {
    let kv = MemoryKv::default();
    let fixture = Fixture::over(&kv).await;
    established(&fixture).await;
    assert_eq!(fixture.call("POST", WIDGETS, widget("w", &json!({}))).await.0, 201);
    fixture.stop().await;
    let fixture = Fixture::over(&kv).await;
    let (_, list) = fixture.call("GET", &format!("{WIDGETS}?resourceVersion=0"), Value::Null).await;
    assert_eq!(list["items"][0]["metadata"]["name"], "w");
    fixture.stop().await;
}
