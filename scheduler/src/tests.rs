//! The scheduling loop against an apiserver in memory.

use crate::cluster::start;
use coracle_client::Scope;
use coracle_client::fake::FakeApi;
use coracle_daemon::Tasks;
use serde_json::{Value, json};
use std::time::Duration;

const PODS: &str = "/api/v1/namespaces/ns/pods";

fn cluster() -> (FakeApi, Scope) {
    let (api, scope) = (FakeApi::default(), Scope::new(&Tasks::new()));
    start(&api.client(), &scope, "default-scheduler");
    (api, scope)
}

fn add_node(api: &FakeApi, name: &str, cpu: &str) {
    let allocatable = json!({ "cpu": cpu, "memory": "8Gi", "pods": "110" });
    api.create("/api/v1/nodes", json!({ "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } }, "status": { "allocatable": allocatable } }));
}

fn add_pod(api: &FakeApi, name: &str, cpu: &str, priority: i32) {
    let containers = json!([{ "name": "c", "resources": { "requests": { "cpu": cpu } } }]);
    api.create(PODS, json!({ "metadata": { "name": name }, "spec": { "containers": containers, "priority": priority, "schedulerName": "default-scheduler" } }));
}

fn node_of(api: &FakeApi, pod: &str) -> String {
    api.get(&format!("{PODS}/{pod}"))["spec"]["nodeName"].as_str().unwrap_or_default().to_owned()
}

fn events(api: &FakeApi, reason: &str) -> Vec<Value> {
    api.list("/api/v1/namespaces/ns/events")
        .into_iter()
        .filter(|event| event["reason"] == reason)
        .map(|event| event["message"].clone())
        .collect()
}

#[tokio::test]
async fn pods_are_bound_and_told_of() {
    let (api, scope) = cluster();
    add_node(&api, "a", "4");
    add_node(&api, "b", "4");
    for n in 0..8 {
        add_pod(&api, &format!("p{n}"), "1", 0);
    }
    api.until("all are bound", |api| (0..8).all(|n| !node_of(api, &format!("p{n}")).is_empty())).await;
    // The room on each is exactly enough: none was given twice.
    assert_eq!((0..8).filter(|n| node_of(&api, &format!("p{n}")) == "a").count(), 4);
    api.until("it is told", |api| events(api, "Scheduled").len() == 8).await;
    assert!(
        events(&api, "Scheduled").iter().all(|message| message
            .as_str()
            .is_some_and(|text| text.starts_with("Successfully assigned ns/p")))
    );
    scope.stop().await;
}

#[tokio::test]
async fn a_refused_pod_says_why_and_goes_when_the_cure_comes() {
    let (api, scope) = cluster();
    add_node(&api, "a", "1");
    add_pod(&api, "big", "2", 0);
    let message = |api: &FakeApi| {
        api.get(&format!("{PODS}/big"))["status"]["conditions"][0]["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    api.until("it is refused", |api| {
        message(api).starts_with("0/1 nodes are available: 1 Insufficient cpu.")
    })
    .await;
    api.until("it is told", |api| events(api, "FailedScheduling").len() == 1).await;
    api.settled(Duration::from_millis(300)).await;
    add_node(&api, "b", "4");
    api.until("it is bound", |api| node_of(api, "big") == "b").await;
    scope.stop().await;
}

#[tokio::test]
async fn room_that_a_pod_leaves_is_used() {
    let (api, scope) = cluster();
    add_node(&api, "a", "1");
    add_pod(&api, "first", "1", 0);
    api.until("the first is bound", |api| node_of(api, "first") == "a").await;
    add_pod(&api, "second", "1", 0);
    api.until("the second is refused", |api| !events(api, "FailedScheduling").is_empty()).await;
    api.delete(&format!("{PODS}/first"));
    api.until("the second is bound", |api| node_of(api, "second") == "a").await;
    scope.stop().await;
}

#[tokio::test]
async fn an_important_pod_makes_room_for_itself() {
    let (api, scope) = cluster();
    add_node(&api, "a", "1");
    add_pod(&api, "low", "1", 0);
    api.until("the low one is bound", |api| node_of(api, "low") == "a").await;
    add_pod(&api, "high", "1", 1000);
    api.until("the high one takes its place", |api| node_of(api, "high") == "a").await;
    assert!(api.get(&format!("{PODS}/low")).is_null());
    api.until("it is told", |api| events(api, "Preempted").len() == 1).await;
    scope.stop().await;
}

#[tokio::test]
async fn a_pod_with_a_new_claim_that_waits_for_it_is_bound_without_a_complaint() {
    let (api, scope) = (FakeApi::default(), Scope::new(&Tasks::new()));
    let class = json!({ "metadata": { "name": "standard" }, "provisioner": "x", "volumeBindingMode": "WaitForFirstConsumer" });
    api.create("/apis/storage.k8s.io/v1/storageclasses", class);
    let claims = "/api/v1/namespaces/ns/persistentvolumeclaims";
    api.create(claims, json!({ "metadata": { "name": "c" }, "spec": { "storageClassName": "standard" } }));
    add_node(&api, "a", "4");
    let volumes = json!([{ "name": "v", "persistentVolumeClaim": { "claimName": "c" } }]);
    api.create(PODS, json!({ "metadata": { "name": "p" }, "spec": { "volumes": volumes, "containers": [{ "name": "c" }], "schedulerName": "default-scheduler" } }));
    start(&api.client(), &scope, "default-scheduler");
    let selected = |api: &FakeApi| {
        api.get(&format!("{claims}/c"))["metadata"]["annotations"]["volume.kubernetes.io/selected-node"]
            .clone()
    };
    api.until("a node is selected", |api| selected(api) == "a").await;
    api.settled(Duration::from_millis(300)).await;
    assert_eq!(node_of(&api, "p"), "", "its volume is not there yet");
    let notes = json!({ "pv.kubernetes.io/bind-completed": "yes" });
    api.patch(
        &format!("{claims}/c"),
        &json!({ "metadata": { "annotations": notes }, "spec": { "volumeName": "v" } }),
    );
    api.until("it is bound", |api| node_of(api, "p") == "a").await;
    assert_eq!(events(&api, "FailedScheduling"), Vec::<Value>::new());
    scope.stop().await;
}
