//! Priority and fairness as clients see it.

use super::Fixture;
use coracle_etcd::memory::MemoryKv;
use serde_json::{Value, json};
use std::time::Duration;

const FLOWS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";

/// The header `name` of an answer to a read of namespaces.
async fn told(fixture: &Fixture, name: &str) -> String {
    let response = fixture.send("GET", "/api/v1/namespaces/default", "", Value::Null).await;
    response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

async fn uid(fixture: &Fixture, plural: &str, name: &str) -> String {
    let (code, object) = fixture.call("GET", &format!("{FLOWS}/{plural}/{name}"), Value::Null).await;
    assert_eq!(code, 200, "{object}");
    object["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn clients_are_told_where_their_requests_belong() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let (schema, level) = (
        uid(&fixture, "flowschemas", "exempt").await,
        uid(&fixture, "prioritylevelconfigurations", "exempt").await,
    );
    let known = async {
        while told(&fixture, "x-kubernetes-pf-flowschema-uid").await != schema {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), known).await.expect("in time");
    assert_eq!(told(&fixture, "x-kubernetes-pf-prioritylevel-uid").await, level);
    fixture.stop().await;
}

#[tokio::test]
async fn a_schema_of_ones_own_takes_requests_and_the_metrics_tell() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let level = json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration", "metadata": {"name": "mine"},
        "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 5, "limitResponse": {"type": "Reject"}}}});
    let (code, made) = fixture.call("POST", &format!("{FLOWS}/prioritylevelconfigurations"), level).await;
    assert_eq!(code, 201, "{made}");
    let schema = json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": "mine"},
        "spec": {"matchingPrecedence": 3, "priorityLevelConfiguration": {"name": "mine"}, "distinguisherMethod": {"type": "ByUser"},
            "rules": [{"subjects": [{"kind": "User", "user": {"name": "joe"}}],
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"]}]}]}});
    let (code, made) = fixture.call("POST", &format!("{FLOWS}/flowschemas"), schema).await;
    assert_eq!(code, 201, "{made}");
    let wanted = made["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    let joe = super::certificate("joe", "people");
    let ask = || async {
        // A header takes nobody past the gate.
        let request = http::Request::builder().uri("/api/v1/nodes").header("upgrade", "anything");
        let request = request.body(axum::body::Body::empty());
        let response = fixture.server.answer(Some(joe.clone()), request.expect("request")).await;
        let uid = response.headers().get("x-kubernetes-pf-flowschema-uid").cloned();
        uid.and_then(|uid| uid.to_str().ok().map(str::to_owned)).unwrap_or_default()
    };
    let known = async {
        while ask().await != wanted {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), known).await.expect("in time");
    let metrics = fixture.server.metrics.text(&fixture.server);
    for line in [
        "apiserver_flowcontrol_dispatched_requests_total{priority_level=\"mine\",flow_schema=\"mine\"}",
        "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"mine\"}",
        "apiserver_request_total{verb=\"POST\",dry_run=\"\",group=\"flowcontrol.apiserver.k8s.io\"",
        "apiserver_storage_objects{resource=\"flowschemas.flowcontrol.apiserver.k8s.io\"}",
        "kubernetes_healthcheck{name=\"poststarthook/rbac/bootstrap-roles\",type=\"readyz\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    fixture.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_every_cluster_has_is_as_it_was_a_minute_later_and_what_none_has_any_more_is_gone() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let default = format!("{FLOWS}/flowschemas/global-default");
    let (_, mut former) = fixture.call("GET", &default, Value::Null).await;
    former["metadata"] =
        json!({"name": "former", "annotations": {"apf.kubernetes.io/autoupdate-spec": "true"}});
    let (code, made) = fixture.call("POST", &format!("{FLOWS}/flowschemas"), former).await;
    assert_eq!(code, 201, "{made}");
    let (_, mut changed) = fixture.call("GET", &default, Value::Null).await;
    changed["spec"]["matchingPrecedence"] = json!(9899);
    let begun = tokio::time::Instant::now();
    let (code, changed) = fixture.call("PUT", &default, changed).await;
    assert_eq!((code, &changed["spec"]["matchingPrecedence"]), (200, &json!(9899)));
    let restored = async {
        loop {
            let (_, now) = fixture.call("GET", &default, Value::Null).await;
            if now["spec"]["matchingPrecedence"] == 9900 {
                return now;
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
    };
    let restored = tokio::time::timeout(Duration::from_secs(200), restored).await.expect("in time");
    assert!(begun.elapsed() >= Duration::from_secs(30), "whoever changed it sees it as it was changed");
    let owners = restored["metadata"]["managedFields"].to_string();
    assert!(owners.contains("api-priority-and-fairness-config-producer-v1"), "{owners}");
    assert!(!owners.contains("\"manager\":\"kube-apiserver\""), "{owners}");
    let gone = async {
        while fixture.call("GET", &format!("{FLOWS}/flowschemas/former"), Value::Null).await.0 != 404 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("in time");
    fixture.stop().await;
}

#[tokio::test]
async fn what_flows_is_dumped_for_those_alone_who_may_look() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let joe = super::certificate("joe", "people");
    for (name, header) in [
        ("dump_priority_levels", "PriorityLevelName, "),
        ("dump_queues", "PriorityLevelName, "),
        ("dump_requests?includeRequestDetails=1", "PriorityLevelName, FlowSchemaName, "),
    ] {
        let path = format!("/debug/api_priority_and_fairness/{name}");
        let response = fixture.send("GET", &path, "", Value::Null).await;
        assert_eq!(response.status(), 200, "{path}");
        let body = http_body_util::BodyExt::collect(response.into_body()).await.expect("body").to_bytes();
        let text = String::from_utf8_lossy(&body);
        assert!(text.starts_with(header), "{text}");
        assert!(name != "dump_priority_levels" || text.contains("\nexempt, "), "{text}");
        let request = http::Request::builder().uri(&path).body(axum::body::Body::empty());
        let refused = fixture.server.answer(Some(joe.clone()), request.expect("request")).await;
        assert_eq!(refused.status(), 403, "{path}");
    }
    for (path, code, want) in [
        ("/debug/pprof", 302, "<a href=\"/debug/pprof/\">Found</a>.\n\n"),
        ("/debug/pprof/symbol", 200, "num_symbols: 1\n"),
        ("/debug/pprof/heap", 404, "Unknown profile\n"),
        ("/debug/pprofs", 404, "404 page not found\n"),
        ("/debug/pprof/", 200, "<html>"),
        ("/debug/flags", 200, "<html>"),
    ] {
        let response = fixture.send("GET", path, "", Value::Null).await;
        assert_eq!(response.status().as_u16(), code, "{path}");
        let body = http_body_util::BodyExt::collect(response.into_body()).await.expect("body").to_bytes();
        assert!(String::from_utf8_lossy(&body).starts_with(want), "{path}: {body:?}");
    }
    for (method, body, code, want) in [
        ("GET", "", 406, "unsupported http method\n"),
        ("PUT", "x", 400, "strconv.ParseUint: parsing \"x\": invalid syntax\n"),
    ] {
        let request = http::Request::builder().method(method).uri("/debug/flags/v");
        let request = request.body(axum::body::Body::from(body)).expect("request");
        let response = fixture.server.answer(Some(fixture.admin.clone()), request).await;
        assert_eq!(response.status().as_u16(), code);
        let body = http_body_util::BodyExt::collect(response.into_body()).await.expect("body").to_bytes();
        assert_eq!(String::from_utf8_lossy(&body), want);
    }
    fixture.stop().await;
}
