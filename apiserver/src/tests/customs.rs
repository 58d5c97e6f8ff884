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

#[tokio::test]
async fn custom_objects_are_what_the_schema_of_their_stored_version_makes_of_them() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let mut made = definition();
    let free = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    made["spec"]["versions"][1]["schema"]["openAPIV3Schema"] = free.clone();
    assert_eq!(fixture.call("POST", DEFINITIONS, made).await.0, 201);
    let path = format!("{DEFINITIONS}/widgets.a.io");
    until(&fixture, &path, |_, answer| answer["status"]["conditions"][1]["status"] == "True").await;
    // It is stored in the version that does not know `more`.
    let older = "/apis/a.io/v1beta1/namespaces/default/widgets";
    let mut sent = widget("w", &json!({"size": 1, "more": 1}));
    sent["apiVersion"] = json!("a.io/v1beta1");
    let (code, kept) = fixture.call("POST", older, sent).await;
    assert_eq!((code, &kept["spec"]), (201, &json!({"size": 1, "color": "red"})), "{kept}");

    // Another version is stored from now on; what lies there is changed in any.
    let merge = "application/merge-patch+json";
    let versions = json!([
        {"name": "v1", "served": true, "storage": false, "schema": {"openAPIV3Schema": {"type": "object"}}},
        {"name": "v1beta1", "served": true, "storage": true, "schema": {"openAPIV3Schema": free}}]);
    let changed = json!({"spec": {"versions": versions}});
    assert_eq!(fixture.typed("PATCH", &path, merge, changed).await.0, 200);
    until(&fixture, &format!("{WIDGETS}/w"), |_, answer| answer["spec"].is_null()).await;
    let path = format!("{older}/w");
    let (code, more) = fixture.typed("PATCH", &path, merge, json!({"spec": {"more": 2}})).await;
    assert_eq!((code, &more["apiVersion"]), (200, &json!("a.io/v1beta1")), "{more}");
    assert_eq!(fixture.call("GET", &path, Value::Null).await.1["spec"]["more"], 2);
    let (_, list) = fixture.call("GET", WIDGETS, Value::Null).await;
    assert_eq!(
        (&list["items"][0]["apiVersion"], &list["items"][0]["spec"]),
        (&json!("a.io/v1"), &Value::Null)
    );
    fixture.stop().await;
}

#[tokio::test]
async fn a_definition_that_cannot_be_kept_does_not_hold_up_others() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    established(&fixture).await;
    let path = format!("{DEFINITIONS}/widgets.a.io");
    let merge = "application/merge-patch+json";
    let lost = json!({"status": {"storedVersions": ["gone"]}});
    assert_eq!(fixture.typed("PATCH", &format!("{path}/status"), merge, lost).await.0, 200);
    let (_, marked) = fixture.call("DELETE", &path, Value::Null).await;
    assert_eq!(
        (&marked["metadata"]["generation"], &marked["metadata"]["deletionGracePeriodSeconds"]),
        (&json!(1), &Value::Null)
    );
    // It goes, whatever is wrong with it.
    until(&fixture, &path, |code, _| code == 404).await;
    fixture.stop().await;
}

#[tokio::test]
async fn names_that_are_taken_are_told_until_they_are_free() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    established(&fixture).await;
    let mut other = definition();
    other["metadata"]["name"] = json!("gadgets.a.io");
    other["spec"]["names"]["plural"] = json!("gadgets");
    assert_eq!(fixture.call("POST", DEFINITIONS, other).await.0, 201);
    let path = format!("{DEFINITIONS}/gadgets.a.io");
    let refused = until(&fixture, &path, |_, answer| answer["status"]["conditions"].is_array()).await;
    let condition = &refused["status"]["conditions"][0];
    assert_eq!(
        (&condition["reason"], &condition["message"]),
        (&json!("ListKindConflict"), &json!("\"WidgetList\" is already in use"))
    );
    let names = json!({"spec": {"names": {"kind": "Gadget", "listKind": "GadgetList", "singular": "gadget", "shortNames": ["g"]}}});
    fixture.typed("PATCH", &path, "application/merge-patch+json", names).await;
    let told =
        until(&fixture, &path, |_, answer| answer["status"]["conditions"][1]["status"] == "True").await;
    assert_eq!(told["status"]["acceptedNames"]["shortNames"], json!(["g"]));
    fixture.stop().await;
}

#[tokio::test]
async fn what_custom_kinds_do_not_do_is_told_by_their_handler() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    established(&fixture).await;
    assert_eq!(fixture.call("POST", WIDGETS, widget("w", &json!({}))).await.0, 201);
    let one = format!("{WIDGETS}/w");
    let unsupported = "is not supported on resources of kind \"widgets.a.io\"";
    for (method, path, code, message) in [
        ("DELETE", format!("{one}/status"), 405, format!("delete {unsupported}")),
        ("OPTIONS", WIDGETS.to_owned(), 405, format!(" {unsupported}")),
        ("PUT", WIDGETS.to_owned(), 400, "name must be provided".to_owned()),
        ("POST", one.clone(), 409, "widgets.a.io \"w\" already exists".to_owned()),
        ("POST", "/apis/a.io/v1/widgets".to_owned(), 404, String::new()),
        (
            "GET",
            format!("{one}/scale"),
            500,
            "Internal error occurred: the spec replicas field \".spec.size\" does not exist".to_owned(),
        ),
    ] {
        let body = if method == "GET" { Value::Null } else { widget("w", &json!({})) };
        let (got, status) = fixture.call(method, &path, body).await;
        assert_eq!(
            (got, status["message"].as_str().unwrap_or_default()),
            (code, message.as_str()),
            "{method} {path}"
        );
    }
    fixture.stop().await;
}
