//! What reads are answered that ask for odd things, as kube-apiserver answers them.

use super::{Fixture, MAPS, map};
use axum::body::Body;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use coracle_etcd::memory::MemoryKv;
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};

/// A GET's code and text.
async fn read(fixture: &Fixture, path: &str, accept: &str) -> (u16, String) {
    let request = Request::builder().uri(path).header("accept", accept).body(Body::empty());
    let response = fixture.server.answer(Some(fixture.admin.clone()), request.expect("request")).await;
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.expect("body").to_bytes();
    (code, String::from_utf8_lossy(&bytes).into_owned())
}

fn token(text: &str) -> String {
    format!("{MAPS}?limit=1&continue={}", BASE64_URL_SAFE_NO_PAD.encode(text))
}

#[tokio::test]
async fn odd_reads_are_answered_in_kubernetes_words() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let fault = "invalid continue token: continue key is not valid: ";
    let of = "(version meta.k8s.io/v1)";
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let not_found = "the server could not find the requested resource".to_owned();
    let rows = [
        (
            token(r#"{"v":"x","rv":5,"start":"a"}"#),
            400,
            format!("{fault}server does not recognize this encoded version x"),
        ),
        (
            token(r#"{"v":"meta.k8s.io/v1","rv":0,"start":"a"}"#),
            400,
            format!("{fault}incorrect encoded start resourceVersion {of}"),
        ),
        (
            token(r#"{"v":"meta.k8s.io/v1","rv":5,"start":""}"#),
            400,
            format!("{fault}encoded start key empty {of}"),
        ),
        (token(r#"{"v":"meta.k8s.io/v1","rv":5,"start":"../x"}"#), 400, format!("{fault}../x")),
        (
            token("[]"),
            400,
            format!("{fault}json: cannot unmarshal array into Go value of type storage.continueToken"),
        ),
        (
            format!("{MAPS}?resourceVersion=18446744073709551616"),
            400,
            "invalid resource version: resourceVersion: Invalid value: \"18446744073709551616\": strconv.ParseUint: parsing \"18446744073709551616\": value out of range".to_owned(),
        ),
        (format!("{MAPS}?continue=e30="), 400, format!("{fault}illegal base64 data at input byte 3")),
        // A resource has one place.
        (format!("{deployments}/d/scale/x"), 404, not_found.clone()),
        ("/apis/apps/v1/deployments/d".to_owned(), 404, not_found.clone()),
        ("/api/v1/namespaces/default/nodes".to_owned(), 404, not_found),
    ];
    for (path, want, message) in rows {
        let (code, text) = read(&fixture, &path, "application/json").await;
        let status: Value = serde_json::from_str(&text).unwrap_or_default();
        assert_eq!((code, status["message"].as_str()), (want, Some(message.as_str())), "{path}");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn documents_are_only_what_somebody_accepts() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let rows = [
        ("/apis", "application/json;as=Table;v=v1;g=meta.k8s.io", 406),
        ("/apis/apps", "text/html", 406),
        ("/apis/apps", "text/html, */*", 200),
        ("/openapi/v2", "application/yaml", 406),
        ("/openapi/v2", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf", 200),
        ("/openapi/v3/apis/apps/v1", "text/html", 406),
        ("/openapi/v2/", "*/*", 404),
        ("/openid/v1/jwks", "application/json", 406),
        ("/openid/v1/jwks", "application/jwk-set+json", 200),
        ("/healthz/", "*/*", 404),
        ("/healthz/nope", "*/*", 404),
        // Without a certificate for aggregated servers.
        ("/readyz/poststarthook/aggregator-reload-proxy-client-cert", "*/*", 404),
        ("/apis//v1", "*/*", 404),
        ("/index.html", "*/*", 200),
        ("/openapi/v3/nope", "*/*", 404),
        ("/metrics/slis/", "*/*", 404),
    ];
    for (path, accept, want) in rows {
        assert_eq!(read(&fixture, path, accept).await.0, want, "{path} {accept}");
    }
    let (_, below) = read(&fixture, "/version/x", "*/*").await;
    assert!(below.starts_with('{') && below.contains("the server could not find the requested resource"));
    let (_, root) = read(&fixture, "/", "*/*").await;
    for path in ["/apis/apps/v1", "/healthz/etcd", "/readyz/shutdown", "/metrics/slis"] {
        assert!(root.contains(&format!("\"{path}\"")), "{path}: {root}");
    }
    let (_, told) = read(&fixture, "/livez?verbose&exclude=etcd&exclude=b&exclude=a", "*/*").await;
    assert!(told.contains("[+]etcd excluded: ok\n"), "{told}");
    assert!(
        told.contains("warn: some health checks cannot be excluded: no matches for \"a\",\"b\"\n"),
        "{told}"
    );
    let all = read(&fixture, "/metrics", "*/*").await.1;
    assert!(all.contains("apiserver_request_sli_duration_seconds_count{verb=\"GET\""), "{all}");
    assert!(all.contains("# TYPE apiserver_request_total counter\n"), "{all}");
    fixture.call("DELETE", "/metrics", Value::Null).await;
    let none = read(&fixture, "/metrics", "*/*").await.1;
    assert!(!none.contains("apiserver_request_sli_duration_seconds_count{verb=\"GET\""), "{none}");
    let objectives = read(&fixture, "/metrics/slis", "*/*").await.1;
    assert!(objectives.contains("kubernetes_healthcheck{name=\"etcd\""), "{objectives}");
    fixture.stop().await;
}

#[tokio::test]
async fn a_list_goes_on_from_its_own_last_name() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    for name in ["a", "b", "c"] {
        assert_eq!(fixture.call("POST", MAPS, map(name, "1")).await.0, 201);
    }
    let (_, first) = fixture.call("GET", &format!("{MAPS}?limit=2"), Value::Null).await;
    let sealed = first["metadata"]["continue"].as_str().expect("token");
    let opened: Value =
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(sealed).expect("base64")).expect("JSON");
    assert_eq!(opened["start"], "b\0");
    // The latest revision, from anywhere.
    let (code, rest) =
        fixture.call("GET", &token(r#"{"v":"meta.k8s.io/v1","rv":-1,"start":"b\u0000"}"#), Value::Null).await;
    assert_eq!((code, &rest["items"][0]["metadata"]["name"]), (200, &json!("c")));
    fixture.stop().await;
}

#[tokio::test]
async fn a_page_of_a_selection_ends_where_the_collection_does() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    for (name, labels) in [("a", json!({"n": "1"})), ("b", json!({"n": "2"})), ("c", json!({}))] {
        let mut map = map(name, "1");
        map["metadata"]["labels"] = labels;
        assert_eq!(fixture.call("POST", MAPS, map).await.0, 201);
    }
    // query → whether there is more
    let rows = [
        ("limit=2&labelSelector=n", true),
        ("limit=3&labelSelector=n", false),
        ("limit=1&labelSelector=!n", false),
        ("limit=1&fieldSelector=metadata.name%3Da", false),
        ("limit=1&fieldSelector=metadata.name!%3Da", true),
    ];
    for (query, more) in rows {
        let (_, told) = fixture.call("GET", &format!("{MAPS}?{query}"), Value::Null).await;
        assert_eq!(told["metadata"]["continue"].is_string(), more, "{query}: {told}");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn refusals_are_told_in_a_form_that_is_accepted() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let (table, list) = (
        "application/json;as=Table;v=v1;g=meta.k8s.io",
        "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    );
    let rows = [
        (format!("{MAPS}/none"), "application/yaml", 404, "code: 404"),
        (
            "/api/v1/namespaces/none".to_owned(),
            "application/yaml;as=Table;v=v1;g=meta.k8s.io",
            404,
            "\"code\": 404",
        ),
        // What is wrong with a request comes before what is wrong with its answer.
        (format!("{MAPS}/none"), list, 404, "not found"),
        (format!("{MAPS}/none?includeObject=x"), table, 404, "not found"),
        (format!("{MAPS}?includeObject=x"), table, 400, "includeObject"),
        (format!("{MAPS}?watch=1&timeoutSeconds=x&resourceVersion=x"), "application/yaml", 400, "ParseInt"),
        (
            format!("{MAPS}?watch=1&timeoutSeconds=1"),
            "application/yaml,application/json",
            406,
            "stream=watch",
        ),
    ];
    for (path, accept, want, told) in rows {
        let (code, text) = read(&fixture, &path, accept).await;
        assert!(code == want && text.contains(told), "{path} {accept}: {code} {text}");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn later_tables_of_a_watch_have_no_columns() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    for name in ["a", "b"] {
        assert_eq!(fixture.call("POST", MAPS, map(name, "1")).await.0, 201);
    }
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let (_, told) = read(&fixture, &format!("{MAPS}?watch=1&timeoutSeconds=1"), table).await;
    let events: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).expect("an event")).collect();
    let columns: Vec<&Value> = events.iter().map(|event| &event["object"]["columnDefinitions"]).collect();
    assert!(columns.len() == 2 && columns[0].is_array() && columns[1].is_null(), "{told}");
    fixture.stop().await;
}

#[tokio::test]
async fn a_scale_is_shown_as_a_table_of_replicas() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let template =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let path = "/apis/apps/v1/namespaces/default/deployments";
    assert_eq!(fixture.call("POST", path, deployment).await.0, 201);
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let told = fixture.accepted(&format!("{path}/d/scale"), table).await;
    let name = &told["columnDefinitions"][0];
    assert!(
        name["description"].as_str().is_some_and(|told| told.starts_with("Name must be unique")),
        "{name}"
    );
    assert_eq!(told["columnDefinitions"][1]["name"], "Desired");
    let cells = &told["rows"][0]["cells"];
    assert_eq!((&cells[0], &cells[1], &cells[2]), (&json!("d"), &json!(2), &json!(0)), "{told}");
    let old = fixture.accepted(path, &table.replace("v=v1;", "v=v1beta1;")).await;
    let versions = [&old["apiVersion"], &old["rows"][0]["object"]["apiVersion"]];
    assert_eq!(versions, ["meta.k8s.io/v1beta1", "meta.k8s.io/v1beta1"], "{old}");
    fixture.stop().await;
}

#[tokio::test]
async fn an_address_of_a_service_is_an_object_that_goes_with_it() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let path = "/api/v1/namespaces/default/services";
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    let (code, made) = fixture.call("POST", path, service).await;
    assert_eq!(code, 201, "{made}");
    let ip = made["spec"]["clusterIP"].as_str().expect("an address");
    let address = format!("/apis/networking.k8s.io/v1/ipaddresses/{ip}");
    let (code, told) = fixture.call("GET", &address, Value::Null).await;
    assert_eq!((code, &told["apiVersion"]), (200, &json!("networking.k8s.io/v1")), "{told}");
    assert_eq!(
        told["spec"]["parentRef"],
        json!({"resource": "services", "namespace": "default", "name": "s"})
    );
    assert_eq!(told["metadata"]["labels"]["ipaddress.kubernetes.io/ip-family"], "IPv4");
    assert_eq!(fixture.call("DELETE", &format!("{path}/s"), Value::Null).await.0, 200);
    assert_eq!(fixture.call("GET", &address, Value::Null).await.0, 404);
    // The first Service has one from the start.
    let (_, first) =
        fixture.call("GET", "/apis/networking.k8s.io/v1/ipaddresses/10.96.0.1", Value::Null).await;
    assert_eq!(first["spec"]["parentRef"]["name"], "kubernetes");
    let (_, range) =
        fixture.call("GET", "/apis/networking.k8s.io/v1/servicecidrs/kubernetes", Value::Null).await;
    assert_eq!(range["status"]["conditions"][0]["type"], "Ready", "{range}");
    fixture.stop().await;
}

#[tokio::test]
async fn a_table_of_an_old_version_shows_what_only_the_new_one_can_say() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let metric = |name: &str| {
        json!({"type": "Resource", "resource": {"name": name,
        "target": {"type": "Utilization", "averageUtilization": 50}}})
    };
    let scaler = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"},
            "metrics": [metric("cpu"), metric("memory")]}});
    let path = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    assert_eq!(fixture.call("POST", path, scaler).await.0, 201);
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    for include in ["Metadata", "Object"] {
        let path = format!("{}?includeObject={include}", path.replace("v2", "v1"));
        let told = fixture.accepted(&path, table).await;
        assert_eq!(told["rows"][0]["cells"][2], "cpu: <unknown>/50%, memory: <unknown>/50%", "{told}");
        let of = if include == "Object" { "autoscaling/v1" } else { "meta.k8s.io/v1" };
        assert_eq!(told["rows"][0]["object"]["apiVersion"], of, "{told}");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn components_tell_how_they_are() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let path = "/api/v1/componentstatuses";
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let told = fixture.accepted(path, table).await;
    let cells: Vec<&Value> = told["rows"].as_array().expect("rows").iter().map(|row| &row["cells"]).collect();
    assert_eq!(cells[1], &json!(["scheduler", "Unhealthy", "nobody holds its Lease", ""]), "{told}");
    assert_eq!(cells[2], &json!(["etcd-0", "Healthy", "ok", ""]), "{told}");
    let (code, one) = fixture.call("GET", &format!("{path}/etcd-0"), Value::Null).await;
    assert_eq!((code, &one["conditions"][0]["status"]), (200, &json!("True")));
    let (code, none) = fixture.call("GET", &format!("{path}/nope"), Value::Null).await;
    assert_eq!((code, &none["message"]), (404, &json!("componentstatus \"nope\" not found")));
    fixture.stop().await;
}
