//! Requests that were put to kube-apiserver v1.33.4, and what it said.

use super::Fixture;
use coracle_etcd::memory::MemoryKv;
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};

const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const PATCH: &str = "application/json-patch+json";
const APPLY: &str = "application/apply-patch+yaml";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MAP: &str = "/api/v1/namespaces/default/configmaps/a";
const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn deployment() -> Value {
    json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

async fn filled() -> Fixture {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let map = json!({"metadata": {"name": "a"}, "data": {"a": "1"}});
    let account = json!({"metadata": {"name": "default"}});
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    for (path, object) in [
        (MAPS, map),
        ("/api/v1/namespaces/default/serviceaccounts", account),
        (PODS, pod),
        (DEPLOYMENTS, deployment()),
    ] {
        let (code, made) = fixture.call("POST", path, object).await;
        assert_eq!(code, 201, "{made}");
    }
    fixture
}

/// Method, path, content type and body of a request; its code and the end of the message.
type Row<'a> = (&'a str, &'a str, &'a str, &'a str, u16, &'a str);

async fn answers(rows: &[Row<'_>]) {
    let fixture = filled().await;
    for (method, path, kind, body, code, end) in rows {
        let (got, status) = fixture.text(method, path, kind, body).await;
        let message = status["message"].as_str().unwrap_or_default();
        assert!(got == *code && message.ends_with(end), "{method} {path} {body}: {got} {status}");
    }
    fixture.stop().await;
}

/// Header texts of an answer.
async fn headers(
    fixture: &Fixture,
    method: &str,
    path: &str,
    accept: &str,
    name: &str,
) -> (u16, Vec<String>) {
    let request = Request::builder().method(method).uri(path).header("accept", accept);
    let request = request.body(axum::body::Body::empty()).expect("request");
    let response = fixture.server.answer(Some(fixture.admin.clone()), request).await;
    let told = response.headers().get_all(name).iter().filter_map(|text| text.to_str().ok());
    (response.status().as_u16(), told.map(str::to_owned).collect())
}

#[tokio::test]
async fn a_patch_may_not_make_another_kind_of_an_object() {
    answers(&[
        ("PATCH", MAP, MERGE, r#"{"kind":"Bogus"}"#, 422, "no kind \"Bogus\" is registered for version \"v1\" in scheme \"pkg/api/legacyscheme/scheme.go:30\""),
        ("PATCH", MAP, MERGE, r#"{"kind":"Secret"}"#, 422, "converting (v1.Secret) to (core.ConfigMap): unknown conversion"),
        ("PATCH", MAP, MERGE, r#"{"apiVersion":null}"#, 400, "the name of the object (a based on URL) was undeterminable: name must be provided"),
        ("PATCH", MAP, PATCH, r#"[{"op":"replace","path":"/kind","value":"B"}]"#, 422, "no kind \"B\" is registered for version \"v1\" in scheme \"pkg/api/legacyscheme/scheme.go:30\""),
        ("PATCH", MAP, MERGE, r#"{"kind":[]}"#, 422, "couldn't get version/kind; json parse error: json: cannot unmarshal array into Go struct field .kind of type string"),
        // What does not say its kind is of the one that was there.
        ("PATCH", MAP, MERGE, r#"{"kind":null}"#, 200, ""),
        // A strategic merge does not look at them.
        ("PATCH", MAP, STRATEGIC, r#"{"kind":"Secret","data":{"b":"2"}}"#, 200, ""),
        ("GET", MAP, "", "", 200, ""),
    ])
    .await;
}

#[tokio::test]
async fn what_a_patch_leaves_without_a_version_has_no_field_that_anybody_knows() {
    let fixture = filled().await;
    let warnings = ["299 - \"unknown field \\\"data\\\"\"", "299 - \"unknown field \\\"metadata\\\"\""];
    for (validation, code, want) in [("Warn", 400, &warnings[..]), ("Ignore", 400, &[]), ("Strict", 422, &[])]
    {
        let path = format!("{MAP}?fieldValidation={validation}");
        let answer = fixture.send("PATCH", &path, MERGE, json!({"apiVersion": null})).await;
        assert_eq!(answer.status(), code, "{validation}");
        let told: Vec<&str> =
            answer.headers().get_all("warning").iter().filter_map(|text| text.to_str().ok()).collect();
        assert_eq!(told, want, "{validation}");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn patches_that_cannot_be_read_are_told_in_the_words_of_their_readers() {
    answers(&[
        ("PATCH", MAP, STRATEGIC, "{", 400, "unexpected end of JSON input"),
        ("PATCH", MAP, STRATEGIC, "[1]", 400, "json: cannot unmarshal array into Go value of type map[string]interface {}"),
        ("PATCH", MAP, MERGE, r#"{"a":1,}"#, 400, "error decoding patch: invalid character '}' looking for beginning of object key string"),
        ("PATCH", MAP, PATCH, "{}", 400, "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"),
        ("PATCH", MAP, STRATEGIC, r#"{"metadata":{"labels":"x"}}"#, 422, "cannot restore map from string"),
        ("PATCH", MAP, STRATEGIC, r#"{"immutable":"x"}"#, 422, "unrecognized type: bool"),
        ("PATCH", MAP, &format!("{MERGE}; charset=utf-8"), r#"{"data":{"b":1}}"#, 422, "json: cannot unmarshal number into Go struct field ConfigMap.data of type string"),
        ("PATCH", &format!("{DEPLOYMENTS}/d"), STRATEGIC, r#"{"spec":{"template":{"spec":{"restartPolicy":1}}}}"#, 422, "cannot convert int64 to v1.RestartPolicy"),
        ("POST", PODS, JSON, r#"{"spec":{"dnsPolicy":1}}"#, 400, "json: cannot unmarshal number into Go struct field PodSpec.spec.dnsPolicy of type v1.DNSPolicy"),
        ("POST", DEPLOYMENTS, JSON, r#"{"spec":{"strategy":{"rollingUpdate":{"maxSurge":1.5}}}}"#, 400, "json: cannot unmarshal number 1.5 into Go struct field RollingUpdateDeployment.spec.strategy.rollingUpdate.maxSurge of type int32"),
        ("PATCH", &format!("{MAP}?fieldManager=a%01b"), MERGE, "{}", 422, "fieldManager: Invalid value: \"a\\x01b\": invalid character U+0001 (at position 1)"),
    ])
    .await;
}

#[tokio::test]
async fn an_applied_configuration_is_held_to_its_type() {
    let at = format!("{MAP}?fieldManager=m");
    let of = |rest: &str| format!("{{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",{rest}}}");
    let prefix = "failed to create typed patch object (/; /v1, Kind=ConfigMap): ";
    let rows = [
        (of(r#""data":{"a":1}"#), 500, format!("{prefix}.data.a: expected string, got &value.valueUnstructured{{Value:1}}")),
        (of(r#""data":[1]"#), 500, format!("{prefix}.data: expected map, got &{{[1]}}")),
        (of(r#""metadata":{"finalizers":"x"}"#), 500, format!("{prefix}.metadata.finalizers: expected list, got &{{x}}")),
        (String::new(), 400, "invalid object type: /, Kind=".to_owned()),
        ("[]".to_owned(), 400, "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal array into Go value of type map[string]interface {}".to_owned()),
    ];
    let rows: Vec<Row<'_>> =
        rows.iter().map(|(body, code, end)| ("PATCH", &*at, APPLY, &**body, *code, &**end)).collect();
    answers(&rows).await;
    let amount =
        r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"overhead":{"cpu":"x"}}}"#;
    answers(&[(
        "PATCH",
        &format!("{PODS}/p?fieldManager=m"),
        APPLY,
        amount,
        500,
        "failed to convert new object (/p; /v1, Kind=Pod) to proper version: unable to convert unstructured object to /v1, Kind=Pod: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
    )])
    .await;
}

#[tokio::test]
async fn what_cannot_be_asked_of_a_path_is_told_by_the_path() {
    let missing = "the server could not find the requested resource";
    let method = "the server does not allow this method on the requested resource";
    answers(&[
        ("GET", &format!("{MAP}/status"), "", "", 404, missing),
        ("GET", &format!("{MAP}?export=true"), "", "", 400, "the export parameter, deprecated since v1.14, is no longer supported"),
        ("GET", &format!("{MAP}?export=False"), "", "", 200, ""),
        ("GET", &format!("{PODS}/p/binding"), "", "", 405, method),
        ("DELETE", &format!("{PODS}/p/log"), "", "", 405, method),
        ("GET", "/api/v1/namespaces/default/serviceaccounts/default/token", "", "", 405, method),
        ("POST", "/version", JSON, "{}", 405, method),
        ("PUT", "/apis/apps/v1", JSON, "{}", 405, method),
        ("POST", &format!("{PODS}/p/eviction"), JSON, "{}", 400, "name in URL does not match name in Eviction object"),
        ("POST", &format!("{PODS}/p/binding"), JSON, "{}", 400, "name in URL does not match name in Binding object"),
        ("POST", &format!("{PODS}/p/binding"), JSON, r#"{"metadata":{"name":"p"}}"#, 500, "target.name: Required value"),
        ("DELETE", MAP, JSON, r#"{"kind":"Pod","apiVersion":"v1"}"#, 500, "no kind \"Pod\" is registered for version \"v1\" in scheme \"pkg/apis/meta/internalversion/scheme/register.go:27\""),
        ("DELETE", MAP, JSON, "{", 500, "couldn't get version/kind; json parse error: unexpected end of JSON input"),
        ("GET", &format!("{MAPS}?resourceVersion=x"), "", "", 400, "invalid resource version: resourceVersion: Invalid value: \"x\": strconv.ParseUint: parsing \"x\": invalid syntax"),
        ("GET", &format!("{MAP}?resourceVersion=x"), "", "", 500, "resourceVersion: Invalid value: \"x\": strconv.ParseUint: parsing \"x\": invalid syntax"),
        ("GET", &format!("{MAPS}?limit=99999999999999999999"), "", "", 400, "strconv.ParseInt: parsing \"99999999999999999999\": value out of range"),
        ("GET", &format!("{MAPS}?labelSelector=a%3D-"), "", "", 400, "unable to parse requirement: values[0][a]: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"),
        ("DELETE", "/api/v1/configmaps", "", "", 405, method),
        ("DELETE", &format!("{MAPS}?limit=x"), JSON, "{", 400, "strconv.ParseInt: parsing \"x\": invalid syntax"),
        ("DELETE", &format!("{MAP}?gracePeriodSeconds=x"), "", "", 400, "strconv.ParseInt: parsing \"x\": invalid syntax"),
        ("DELETE", MAP, JSON, r#"{"propagationPolicy":""}"#, 422, "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: \"\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""),
        ("POST", &format!("{PODS}/p/eviction"), JSON, r#"{"metadata":{"name":"p","namespace":"x"}}"#, 400, "the namespace of the provided object does not match the namespace sent on the request"),
        ("POST", &format!("{PODS}/p/binding"), JSON, r#"{"metadata":{"name":"p","namespace":"x"}}"#, 400, "the namespace of the provided object does not match the namespace sent on the request"),
        ("PUT", "/apis/apps/v1/namespaces/default/deployments/none/scale", JSON, "{}", 400, "the name of the object (none based on URL) was undeterminable: name must be provided"),
        ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", JSON, r#"{"metadata":{"name":"x"},"spec":{"resourceAttributes":{"labelSelector":{},"fieldSelector":{"rawSelector":"=","requirements":[{}]}}}}"#, 422, ".authorization.k8s.io \"\" is invalid: [spec.resourceAttributes.fieldSelector.rawSelector: Invalid value: \"=\": may not specified at the same time as requirements, spec.resourceAttributes.fieldSelector.requirements[0].key: Required value: must be specified, spec.resourceAttributes.labelSelector.requirements: Required value: when spec.resourceAttributes.labelSelector is specified, requirements or rawSelector is required, metadata: Invalid value: {\"name\":\"x\"}: must be empty]"),
        ("GET", &format!("{MAPS}?timeoutSeconds=x"), "", "", 400, "strconv.ParseInt: parsing \"x\": invalid syntax"),
        ("GET", &format!("{MAPS}?timeout=x"), "", "", 400, "invalid timeout specified in the request URL - time: invalid duration \"x\""),
        ("GET", "/version?timeout=1", "", "", 400, "invalid timeout specified in the request URL - time: missing unit in duration \"1\""),
        ("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", JSON, r#"{"spec":{"nonResourceAttributes":{"path":"/x"}}}"#, 422, ".authorization.k8s.io \"\" is invalid: spec.user: Invalid value: \"\": at least one of user or group must be specified"),
    ])
    .await;
    let fixture = filled().await;
    let (code, missing) = fixture.call("GET", &format!("{MAP}/scale"), Value::Null).await;
    assert_eq!((code, &missing["details"]), (404, &json!({})), "{missing}");
    let (code, refused) = fixture.text("PATCH", MAP, PATCH, r#"[{"op":"remove","path":"/none"}]"#).await;
    assert_eq!((code, &refused["details"]), (422, &json!({})), "{refused}");
    for path in [MAPS, MAP, "/api/v1", "/version"] {
        assert_eq!(headers(&fixture, "HEAD", path, JSON, "x").await.0, 405, "{path}");
    }
    let refused = fixture.accepted(MAP, "text/plain").await;
    let text = "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf";
    assert_eq!(refused["message"], text);
    // One object is no collection, whatever is asked.
    let (code, map) = fixture.call("GET", &format!("{MAP}?watch=1"), Value::Null).await;
    assert_eq!((code, &map["kind"]), (200, &json!("ConfigMap")));
    fixture.stop().await;
}

#[tokio::test]
async fn warnings_come_with_every_answer() {
    let fixture = filled().await;
    let (_, told) = headers(&fixture, "GET", "/api/v1/endpoints", JSON, "warning").await;
    assert_eq!(
        told,
        ["299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\""]
    );
    let (code, told) =
        headers(&fixture, "GET", "/api/v1/namespaces/default/endpoints/none", JSON, "warning").await;
    assert_eq!((code, told.len()), (404, 1));
    let jobs = "/apis/batch/v1/namespaces/default/jobs/none";
    let (code, told) = headers(&fixture, "DELETE", jobs, JSON, "warning").await;
    assert!(code == 404 && told[0].contains("child pods are preserved by default"), "{told:?}");
    for (kind, body, want) in [
        (MERGE, r#"{"data":{"b":"1"},"data":{"b":"2"}}"#, r#"299 - "duplicate field \"data\"""#),
        (
            PATCH,
            r#"[{"op":"test","path":"/data/a","value":"1","x":1}]"#,
            r#"299 - "json patch unknown field \"[0].x\"""#,
        ),
    ] {
        let request = Request::builder().method("PATCH").uri(MAP).header("content-type", kind);
        let request = request.body(axum::body::Body::from(body)).expect("request");
        let response = fixture.server.answer(Some(fixture.admin.clone()), request).await;
        assert_eq!(response.headers()["warning"].to_str().expect("text"), want);
    }
    fixture.stop().await;
}

#[tokio::test]
async fn replicas_are_applied_through_the_scale_with_their_owner() {
    let fixture = filled().await;
    let scale = format!("{DEPLOYMENTS}/d/scale?fieldManager=h");
    let body =
        r#"{"apiVersion":"autoscaling/v1","kind":"Scale","metadata":{"name":"d"},"spec":{"replicas":5}}"#;
    let (code, refused) = fixture.text("PATCH", &scale, APPLY, body).await;
    let text = "Apply failed with 1 conflict: conflict with \"unknown\" using autoscaling/v1: .spec.replicas";
    assert!(
        code == 409
            && refused["message"]
                .as_str()
                .is_some_and(|told| told.replace("apps/v1", "autoscaling/v1") == text),
        "{refused}"
    );
    let (code, applied) = fixture.text("PATCH", &format!("{scale}&force=true"), APPLY, body).await;
    assert_eq!(
        (code, &applied["kind"], &applied["spec"]["replicas"]),
        (200, &json!("Scale"), &json!(5)),
        "{applied}"
    );
    let (_, object) = fixture.call("GET", &format!("{DEPLOYMENTS}/d"), Value::Null).await;
    let owner = &object["metadata"]["managedFields"][0];
    assert_eq!(
        (&owner["manager"], &owner["operation"], &owner["subresource"]),
        (&json!("h"), &json!("Apply"), &json!("scale"))
    );
    assert_eq!(owner["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
    let nameless =
        fixture.call("PUT", &format!("{DEPLOYMENTS}/d/scale"), json!({"spec": {"replicas": 1}})).await;
    assert_eq!(nameless.0, 400, "{nameless:?}");
    fixture.stop().await;
}

#[tokio::test]
async fn a_pod_is_bound_and_evicted_without_owners_and_the_eviction_is_told() {
    let fixture = filled().await;
    let (pod, binding) = (format!("{PODS}/p"), json!({"metadata": {"name": "p"}, "target": {"name": "n"}}));
    assert_eq!(fixture.call("POST", &format!("{pod}/binding"), binding).await.0, 201);
    let (_, bound) = fixture.call("GET", &pod, Value::Null).await;
    assert_eq!((&bound["spec"]["nodeName"], &bound["metadata"]["generation"]), (&json!("n"), &json!(1)));
    assert_eq!(bound["metadata"]["managedFields"].as_array().map(Vec::len), Some(1), "{bound}");
    let eviction = json!({"metadata": {"name": "p"}});
    assert_eq!(fixture.call("POST", &format!("{pod}/eviction"), eviction).await.0, 201);
    let (_, evicted) = fixture.call("GET", &pod, Value::Null).await;
    let conditions = evicted["status"]["conditions"].as_array().expect("conditions");
    let told = conditions.iter().find(|condition| condition["type"] == "DisruptionTarget").expect("told");
    assert_eq!(
        (&told["reason"], &told["message"]),
        (&json!("EvictionByEvictionAPI"), &json!("Eviction API: evicting"))
    );
    fixture.stop().await;
}

#[tokio::test]
async fn reviews_and_tokens_are_owned_by_who_asks() {
    let fixture = filled().await;
    let review = json!({"spec": {"user": "u", "resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let (code, answer) = fixture.call("POST", path, review).await;
    assert_eq!(
        (code, &answer["metadata"]["managedFields"][0]["operation"]),
        (201, &json!("Update")),
        "{answer}"
    );
    let rules = json!({"spec": {"namespace": "default"}});
    let (_, answer) =
        fixture.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", rules).await;
    assert_eq!(answer["spec"], json!({}));
    let response = fixture.send("GET", "/api/v1/nope", "", Value::Null).await;
    let body = response.into_body().collect().await.expect("body").to_bytes();
    assert!(body.starts_with(b"{"), "below a group that is served it is a Status");
    fixture.stop().await;
}

#[tokio::test]
async fn some_kinds_have_ways_of_their_own() {
    let fixture = filled().await;
    let limits = json!({"metadata": {}, "spec": {"limits": [{"type": "Pod", "max": {"cpu": "1"}}]}});
    let (code, made) = fixture.call("POST", "/api/v1/namespaces/default/limitranges", limits).await;
    assert_eq!((code, made["metadata"]["name"].as_str().map(str::len)), (201, Some(36)), "{made}");
    let event = json!({"metadata": {"name": "Bad_"}});
    let (_, refused) = fixture.call("POST", "/apis/events.k8s.io/v1/namespaces/default/events", event).await;
    assert!(
        refused["message"].as_str().is_some_and(|text| text.starts_with("Event \"Bad_\" is invalid")),
        "{refused}"
    );
    let (_, told) =
        headers(&fixture, "DELETE", "/apis/batch/v1/namespaces/default/jobs", JSON, "warning").await;
    assert_eq!(told.len(), 1);
    let (_, told) =
        headers(&fixture, "GET", "/api/v1/namespaces/default/endpoints/x/status", JSON, "warning").await;
    assert!(told.is_empty(), "where there is no route, nobody warns: {told:?}");
    let request =
        Request::builder().uri(MAP).header("accept", "application/yaml").body(axum::body::Body::empty());
    let response = fixture.server.answer(Some(fixture.admin.clone()), request.expect("request")).await;
    let text = response.into_body().collect().await.expect("body").to_bytes();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(
        text.starts_with(
            "apiVersion: v1\ndata:\n  a: \"1\"\nkind: ConfigMap\nmetadata:\n  creationTimestamp: \""
        ),
        "{text}"
    );
    fixture.stop().await;
}
