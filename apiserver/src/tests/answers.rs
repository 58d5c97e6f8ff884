//! What single requests are answered, as Kubernetes' own answers were recorded.

use super::{Fixture, event};
use coracle_etcd::memory::MemoryKv;
use serde_json::{Value, json};

const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const YAML: &str = "application/yaml";
const APPLY: &str = "application/apply-patch+yaml";
const MAP: &str = "/api/v1/namespaces/default/configmaps/c";
const PARTIAL: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

#[tokio::test]
async fn refusals_have_kubernetes_words() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let maps = MAP.trim_end_matches("/c");
    let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "c"}});
    assert_eq!(fixture.call("POST", maps, map).await.0, 201);
    let nope = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\nnope: 1\n";
    let rows: &[Row<'_>] = &[
        ("GET", "/apis/apps/v9", "", "", 404, "the server could not find the requested resource"),
        ("GET", "/api/v1/nope", "", "", 404, "the server could not find the requested resource"),
        ("PATCH", MAP, JSON, "{}", 415, "415: Unsupported Media Type"),
        (
            "PATCH",
            &format!("{MAP}?fieldValidation=Strict"),
            MERGE,
            r#"{"nope":1}"#,
            422,
            "strict decoding error: unknown field \"nope\"",
        ),
        (
            "PATCH",
            MAP,
            STRATEGIC,
            r#"{"data":{"x":1}}"#,
            422,
            "patch: Invalid value: \"map[data:map[x:1]]\": cannot convert int64 to string",
        ),
        (
            "PATCH",
            &format!("{MAP}?fieldManager=m"),
            APPLY,
            nope,
            500,
            "failed to create typed patch object (/c; /v1, Kind=ConfigMap): .nope: field not declared in schema",
        ),
        (
            "POST",
            maps,
            YAML,
            "kind: ConfigMap\napiVersion: v1\nmetadata:\n  name: y\n",
            400,
            "cannot unmarshal bool into Go struct field ObjectMeta.metadata.name of type string",
        ),
        (
            "POST",
            maps,
            YAML,
            "kind: ConfigMap\nmetadata:\n  name: c\n bad\n",
            400,
            "yaml: line 3: did not find expected key (6b696e643a20436f6e6669674d61700a6d657461646174613a0a20206e61 ...)",
        ),
        (
            "GET",
            &format!("{maps}?limit=1&continue=bad"),
            "",
            "",
            400,
            "continue key is not valid: invalid character 'm' looking for beginning of value",
        ),
    ];
    answers(&fixture, rows).await;
    fixture.stop().await;
}

#[tokio::test]
async fn what_is_not_there_and_what_is_no_text_is_told_as_upstream_does() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "c"}});
    assert_eq!(fixture.call("POST", MAP.trim_end_matches("/c"), map).await.0, 201);
    let rows: &[Row<'_>] = &[
        ("PATCH", MAP, JSON, "", 406, "Available representations: "),
        ("PATCH", MAP, MERGE, "text", 400, "invalid character 'e' in literal true (expecting 'r')"),
        (
            "GET",
            "/api/v1/namespaces/default/configmaps/..%2f",
            "",
            "",
            400,
            "Name parameter invalid: \"..\": may not be '..'",
        ),
        (
            "GET",
            "/apis/authorization.k8s.io/v1/subjectaccessreviews/x",
            "",
            "",
            404,
            "the server could not find the requested resource",
        ),
        (
            "PATCH",
            "/api/v1/namespaces/default/configmaps/none?fieldManager=m",
            APPLY,
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"none","uid":"7"}}"#,
            409,
            "the provided object specified uid 7, and no existing object was found",
        ),
    ];
    answers(&fixture, rows).await;
    fixture.stop().await;
}

/// Method, path, content type and body of a request; its code and the end of the message.
type Row<'a> = (&'a str, &'a str, &'a str, &'a str, u16, &'a str);

async fn answers(fixture: &Fixture, rows: &[Row<'_>]) {
    for (method, path, kind, body, code, end) in rows {
        let (got, status) = fixture.text(method, path, kind, body).await;
        let message = status["message"].as_str().unwrap_or_default();
        assert!(got == *code && message.ends_with(end), "{method} {path} {body}: {got} {status}");
    }
}

#[tokio::test]
async fn null_odd_directives_and_odd_options_are_answered_as_upstream_does() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let maps = MAP.trim_end_matches("/c");
    let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "c"}});
    assert_eq!(fixture.call("POST", maps, map).await.0, 201);
    let rows: &[Row<'_>] = &[
        // `null` is an object without fields.
        (
            "POST",
            maps,
            JSON,
            "null",
            422,
            "is invalid: metadata.name: Required value: name or generateName is required",
        ),
        (
            "PUT",
            MAP,
            JSON,
            "null",
            400,
            "the name of the object (c based on URL) was undeterminable: name must be provided",
        ),
        ("PATCH", MAP, MERGE, "null", 400, "Invalid JSON Patch"),
        ("PATCH", MAP, STRATEGIC, "null", 200, ""),
        ("PATCH", MAP, "application/json-patch+json", "null", 200, ""),
        (
            "PATCH",
            MAP,
            STRATEGIC,
            r#"{"metadata":{"$setElementOrder/finalizers":"x"}}"#,
            500,
            "expected a []interface {}, but received a string",
        ),
        (
            "GET",
            &format!("{maps}?sendInitialEvents=maybe"),
            "",
            "",
            422,
            "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
        ),
        (
            "GET",
            &format!("{maps}?watch=1&sendInitialEvents="),
            "",
            "",
            422,
            "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
        (
            "GET",
            &format!("{maps}?watch=1&sendInitialEvents=maybe&resourceVersionMatch=Exact"),
            "",
            "",
            422,
            "is invalid: [resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan, resourceVersionMatch: Unsupported value: \"Exact\": supported values: \"NotOlderThan\"]",
        ),
    ];
    answers(&fixture, rows).await;
    fixture.stop().await;
}

#[tokio::test]
async fn whatever_is_not_false_is_true_in_a_query() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let query = "watch=maybe&sendInitialEvents=maybe&allowWatchBookmarks=&resourceVersionMatch=NotOlderThan";
    let watch = fixture.send("GET", &format!("{maps}?{query}"), "", Value::Null).await;
    assert_eq!(watch.status(), 200);
    let end = event(&mut watch.into_body()).await;
    assert_eq!(end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true", "{end}");
    fixture.stop().await;
}

#[tokio::test]
async fn empty_lists_are_null_where_go_leaves_them_unset() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let rows = [
        ("/api/v1/namespaces/default/pods", "application/json", "items", json!([])),
        ("/api/v1/namespaces/default/pods", PARTIAL, "items", Value::Null),
        ("/api/v1/namespaces/default/pods", TABLE, "rows", json!([])),
        ("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", TABLE, "rows", Value::Null),
        ("/apis/rbac.authorization.k8s.io/v1/clusterroles?labelSelector=none", TABLE, "rows", Value::Null),
        ("/api/v1/limitranges", TABLE, "rows", Value::Null),
    ];
    for (path, accept, list, want) in rows {
        let answer = fixture.accepted(path, accept).await;
        assert_eq!(answer.get(list), Some(&want), "{path} as {accept}");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn a_pod_that_goes_at_once_is_told_of_with_the_marks_of_its_deletion() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let pods = "/api/v1/namespaces/default/pods";
    let account = json!({"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": "default"}});
    fixture.call("POST", "/api/v1/namespaces/default/serviceaccounts", account).await;
    let pod = |node: &str| {
        json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p"},
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}})
    };
    // Nobody runs it: gone at once.
    assert_eq!(fixture.call("POST", pods, pod("")).await.0, 201);
    let (_, gone) = fixture.call("DELETE", &format!("{pods}/p"), Value::Null).await;
    let marks = |pod: &Value| {
        (pod["metadata"]["generation"].clone(), pod["metadata"]["deletionGracePeriodSeconds"].clone())
    };
    assert_eq!(marks(&gone), (json!(2), json!(0)), "{gone}");
    // A node runs it: marked, then gone by force.
    assert_eq!(fixture.call("POST", pods, pod("n")).await.0, 201);
    for (seconds, want) in [(3, (2, 3)), (9, (2, 3)), (-1, (2, 1)), (0, (2, 0))] {
        let (_, told) =
            fixture.call("DELETE", &format!("{pods}/p"), json!({"gracePeriodSeconds": seconds})).await;
        assert_eq!(marks(&told), (json!(want.0), json!(want.1)), "{seconds}");
    }
    assert_eq!(fixture.call("GET", &format!("{pods}/p"), Value::Null).await.0, 404);
    fixture.stop().await;
}

#[tokio::test]
async fn what_conversion_adds_belongs_to_the_writer() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let node = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n"}, "spec": {"podCIDR": "10.9.0.0/24"}});
    let (_, node) = fixture.call("POST", "/api/v1/nodes", node).await;
    let owned = &node["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"];
    assert!(owned["f:podCIDRs"]["v:\"10.9.0.0/24\""].is_object(), "{node}");
    let set = json!({"kind": "DaemonSet", "apiVersion": "apps/v1", "metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let (_, set) = fixture.call("POST", "/apis/apps/v1/namespaces/default/daemonsets", set).await;
    let owned = &set["metadata"]["managedFields"][0]["fieldsV1"]["f:metadata"]["f:annotations"];
    assert!(owned["f:deprecated.daemonset.template.generation"].is_object(), "{set}");
    fixture.stop().await;
}

#[tokio::test]
async fn flow_schemas_are_there_and_tell_of_their_priority_level() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let path = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
    let told = async {
        loop {
            let table = fixture.accepted(path, TABLE).await;
            let rows = table["rows"].as_array().cloned().unwrap_or_default();
            if rows.len() == 13 && rows.iter().all(|row| row["cells"][5] == "False") {
                return rows[0]["cells"][0].clone();
            }
            tokio::task::yield_now().await;
        }
    };
    let first = tokio::time::timeout(std::time::Duration::from_secs(20), told).await.expect("told in time");
    assert_eq!(first, "exempt");
    fixture.stop().await;
}

#[tokio::test]
async fn a_watch_that_begins_too_early_is_told_in_its_stream() {
    let kv = MemoryKv::default();
    let first = Fixture::over(&kv).await;
    let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "c"}});
    assert_eq!(first.call("POST", MAP.trim_end_matches("/c"), map).await.0, 201);
    first.stop().await;
    // This one has not seen what happened before it.
    let fixture = Fixture::over(&kv).await;
    let path = format!("{}?watch=1&resourceVersion=1", MAP.trim_end_matches("/c"));
    let response = fixture.send("GET", &path, "", Value::Null).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["content-type"]),
        (200, &"application/json".parse().expect("type"))
    );
    let told = super::event(&mut response.into_body()).await;
    assert_eq!((&told["type"], &told["object"]["code"]), (&json!("ERROR"), &json!(410)), "{told}");
    fixture.stop().await;
}

#[tokio::test]
async fn options_of_the_wrong_type_delete_nothing() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    assert_eq!(fixture.call("POST", super::MAPS, super::map("kept", "1")).await.0, 201);
    let path = format!("{}/kept", super::MAPS);
    for options in [
        json!({"gracePeriodSeconds": "x"}),
        json!({"propagationPolicy": 5}),
        json!({"dryRun": "All"}),
        json!({"preconditions": []}),
        json!({"preconditions": {"uid": 7}}),
        json!([]),
    ] {
        let (code, refused) = fixture.call("DELETE", &path, options.clone()).await;
        // Kubernetes has no other code for what it cannot read here.
        assert_eq!(code, 500, "{options} {refused}");
        assert_eq!(fixture.call("GET", &path, Value::Null).await.0, 200, "{options}");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn a_query_may_say_which_object_is_to_be_deleted() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    assert_eq!(fixture.call("POST", super::MAPS, super::map("kept", "1")).await.0, 201);
    for path in [format!("{}/kept", super::MAPS), super::MAPS.to_owned()] {
        for condition in ["uid=x", "resourceVersion=1", "resourceVersion=0"] {
            let (code, told) = fixture.call("DELETE", &format!("{path}?{condition}"), Value::Null).await;
            assert_eq!((code, &told["reason"]), (409, &json!("Conflict")), "{path} {condition}: {told}");
        }
    }
    assert_eq!(fixture.call("GET", &format!("{}/kept", super::MAPS), Value::Null).await.0, 200);
    fixture.stop().await;
}

#[tokio::test]
async fn a_patch_to_no_owners_forgets_them_all() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let (_, made) = fixture.call("POST", super::MAPS, super::map("c", "1")).await;
    assert!(made["metadata"]["managedFields"].is_array(), "{made}");
    let (code, told) = fixture.text("PATCH", MAP, MERGE, r#"{"metadata":{"managedFields":[]}}"#).await;
    assert_eq!((code, &told["metadata"]["managedFields"]), (200, &Value::Null), "{told}");
    fixture.stop().await;
}

#[tokio::test]
async fn a_definition_that_is_deleted_has_no_grace_period() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let definition = json!({"kind": "CustomResourceDefinition", "apiVersion": "apiextensions.k8s.io/v1", "metadata": {"name": "things.an.example"},
        "spec": {"group": "an.example", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    let (code, made) = fixture.call("POST", path, definition).await;
    assert_eq!(code, 201, "{made}");
    let (_, told) =
        fixture.call("DELETE", &format!("{path}/things.an.example?dryRun=All"), Value::Null).await;
    let metadata = &told["metadata"];
    assert!(
        metadata["deletionTimestamp"].is_string() && metadata["deletionGracePeriodSeconds"].is_null(),
        "{told}"
    );
    assert_eq!(metadata["generation"], 1, "{told}");
    fixture.stop().await;
}

#[tokio::test]
async fn no_patch_begins_a_deletion_or_makes_another_object() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let maps = MAP.trim_end_matches("/c");
    assert_eq!(fixture.call("POST", maps, super::map("c", "1")).await.0, 201);
    let dry = format!("{MAP}?dryRun=All");
    let rows: &[Row<'_>] = &[
        (
            "PATCH",
            MAP,
            MERGE,
            r#"{"metadata":{"deletionTimestamp":"2020-01-02T03:04:05Z"}}"#,
            422,
            "Invalid value: 2020-01-02 03:04:05 +0000 UTC: field is immutable",
        ),
        ("PATCH", MAP, MERGE, r#"{"metadata":{"deletionGracePeriodSeconds":3}}"#, 422, "field is immutable"),
        (
            "PATCH",
            MAP,
            MERGE,
            r#"{"metadata":{"uid":"x"}}"#,
            422,
            "metadata.uid: Invalid value: \"x\": field is immutable",
        ),
        (
            "PUT",
            &dry,
            JSON,
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","uid":"x"}}"#,
            409,
            "",
        ),
        ("PATCH", MAP, "application/json-patch+json, x", "[]", 415, "application/apply-patch+yaml"),
    ];
    answers(&fixture, rows).await;
    fixture.stop().await;
}

#[tokio::test]
async fn metrics_tell_of_admission_the_store_and_watches_under_kubernetes_names() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let (code, made) = fixture.call("POST", super::MAPS, super::map("m", "1")).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(fixture.call("POST", super::MAPS, super::map("m", "1")).await.0, 409);
    let version = made["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    let watch = format!("{}?watch=1&resourceVersion={version}", super::MAPS);
    let mut watch = fixture.send("GET", &watch, "", Value::Null).await.into_body();
    fixture.call("POST", super::MAPS, super::map("n", "1")).await;
    super::event(&mut watch).await;
    fixture.call("DELETE", &format!("{}/n", super::MAPS), Value::Null).await;
    let response = fixture.send("GET", "/metrics", "", Value::Null).await;
    let bytes = http_body_util::BodyExt::collect(response.into_body()).await.expect("body").to_bytes();
    let text = String::from_utf8_lossy(&bytes);
    for want in [
        "apiserver_admission_controller_admission_duration_seconds_count{name=\"NamespaceLifecycle\",type=\"admit\",operation=\"CREATE\",rejected=\"false\"}",
        "apiserver_admission_controller_admission_duration_seconds_count{name=\"ResourceQuota\",type=\"validate\",operation=\"CREATE\",rejected=\"false\"}",
        "apiserver_admission_step_admission_duration_seconds_count{type=\"validate\",operation=\"DELETE\",rejected=\"false\"}",
        "etcd_requests_total{operation=\"create\",type=\"configmaps\"}",
        "etcd_requests_total{operation=\"delete\",type=\"configmaps\"}",
        "etcd_request_duration_seconds_bucket{le=\"0.005\",operation=\"create\",type=\"configmaps\"}",
        "apiserver_watch_events_total{group=\"\",version=\"v1\",kind=\"ConfigMap\"}",
        "apiserver_watch_events_sizes_count{group=\"\",version=\"v1\",kind=\"ConfigMap\"}",
        "apiserver_longrunning_requests{verb=\"WATCH\"",
        "apiserver_storage_objects{resource=\"configmaps\"}",
        "apiserver_storage_events_received_total{resource=\"configmaps\"}",
        "process_resident_memory_bytes ",
        "apiserver_request_duration_seconds_count{verb=\"POST\"",
    ] {
        let told = text.lines().find(|line| line.starts_with(want));
        assert!(told.is_some_and(|line| !line.ends_with(" 0")), "{want}: {text}");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn whole_numbers_beyond_their_range_wrap_in_apply_and_strategic_patches() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let of = |port: u32| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "c"}, "spec": {"ports": [{"port": port}]}})
            .to_string()
    };
    let path = "/api/v1/namespaces/default/services/c";
    let applied = format!("{path}?fieldManager=m");
    let strategic = r#"{"spec":{"sessionAffinity":"ClientIP","sessionAffinityConfig":{"clientIP":{"timeoutSeconds":3000000000}}}}"#;
    let rows: &[Row<'_>] = &[
        (
            "PATCH",
            &applied,
            APPLY,
            &of(3_000_000_000),
            422,
            "Invalid value: -1294967296: must be between 1 and 65535, inclusive]",
        ),
        ("PATCH", &applied, APPLY, &of(80), 201, ""),
        (
            "PATCH",
            path,
            STRATEGIC,
            strategic,
            422,
            "timeoutSeconds: Invalid value: -1294967296: must be greater than 0 and less than 86400",
        ),
    ];
    answers(&fixture, rows).await;
    fixture.stop().await;
}
