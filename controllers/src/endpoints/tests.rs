//! Which slices a Service gets, from the pods it selects.

use super::*;
use crate::plan::Action;
use crate::testing::{object, pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;

#[expect(clippy::needless_pass_by_value, reason = "tests read better with json! in place")]
fn service(spec: Value) -> Service {
    object(json!({ "metadata": { "name": "web", "namespace": "ns", "uid": "s" }, "spec": spec }))
}

fn web() -> Service {
    service(
        json!({ "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": "http", "protocol": "TCP" }] }),
    )
}

fn backend(name: &str, ip: &str, ready: bool) -> Arc<Pod> {
    Arc::new(pod(json!({
        "metadata": { "name": name, "namespace": "ns", "uid": name, "labels": { "app": "web" } },
        "spec": { "nodeName": "n", "containers": [{ "name": "c", "ports": [{ "name": "http", "containerPort": 8080 }] }] },
        "status": { "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }], "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }] },
    })))
}

/// The plan in words: what happens to slices, with the pods and their readiness in each.
fn slices(service: &Service, pods: &[Arc<Pod>], existing: &[Arc<EndpointSlice>]) -> Vec<String> {
    let plan = slices::reconcile(service, pods, &Store::new(&[]), existing);
    let endpoints = |value: &Value| {
        let all = value["endpoints"].as_array().cloned().unwrap_or_default();
        all.iter()
            .map(|e| {
                format!(" {}={}", e["targetRef"]["name"].as_str().unwrap_or(""), e["conditions"]["ready"])
            })
            .collect::<String>()
    };
    let words = plan.actions().map(|action| match action {
        Action::Create { body, .. } => format!("create {}{}", body["ports"][0]["port"], endpoints(body)),
        Action::Patch { key, patch, .. } => format!("change {}{}", key.name, endpoints(patch)),
        Action::Delete { key, .. } => format!("delete {}", key.name),
        other => format!("{other:?}"),
    });
    words.collect()
}

fn created(service: &Service, pods: &[Arc<Pod>], name: &str) -> Arc<EndpointSlice> {
    let plan = slices::reconcile(service, pods, &Store::new(&[]), &[]);
    let Some(Action::Create { body, .. }) = plan.actions().next() else { panic!("a slice is created") };
    let mut body = body.clone();
    body["metadata"]["name"] = json!(name);
    Arc::new(object(body))
}

#[test]
fn pods_become_endpoints_at_their_named_port() {
    assert_eq!(
        slices(&web(), &[backend("a", "10.0.0.1", true), backend("b", "10.0.0.2", false)], &[]),
        ["create 8080 a=true b=false"]
    );
}

#[test]
fn an_unchanged_service_needs_nothing() {
    let pods = [backend("a", "10.0.0.1", true)];
    assert!(slices(&web(), &pods, &[created(&web(), &pods, "x")]).is_empty());
}

#[test]
fn a_pod_that_became_ready_changes_its_slice_only() {
    let before = [backend("a", "10.0.0.1", false)];
    let after = [backend("a", "10.0.0.1", true)];
    assert_eq!(slices(&web(), &after, &[created(&web(), &before, "x")]), ["change x a=true"]);
}

#[test]
fn the_last_slice_stays_empty() {
    let before = [backend("a", "10.0.0.1", true)];
    assert_eq!(slices(&web(), &[], &[created(&web(), &before, "x")]), ["change x"]);
    assert_eq!(slices(&web(), &[], &[]), ["create null"]);
}

#[test]
fn a_slice_holds_a_hundred() {
    let pods: Vec<_> = (0..250).map(|n| backend(&format!("p{n:03}"), &format!("10.0.1.{n}"), true)).collect();
    let sizes: Vec<_> =
        slices(&web(), &pods, &[]).iter().map(|words| words.matches("=true").count()).collect();
    assert_eq!(sizes, [100, 100, 50]);
}

#[test]
fn a_service_without_selector_is_left_alone() {
    assert!(slices(&service(json!({ "ports": [{ "port": 80 }] })), &[], &[]).is_empty());
}

#[test]
fn endpoints_tell_ready_from_unready() {
    let plan =
        legacy::reconcile(&web(), &[backend("a", "10.0.0.1", true), backend("b", "10.0.0.2", false)], None);
    let Some(Action::Create { body, .. }) = plan.actions().next() else { panic!("Endpoints are created") };
    let subset = &body["subsets"][0];
    assert_eq!(
        (&subset["addresses"][0]["ip"], &subset["notReadyAddresses"][0]["ip"], &subset["ports"]),
        (&json!("10.0.0.1"), &json!("10.0.0.2"), &json!([{ "port": 8080, "protocol": "TCP" }]))
    );
}
