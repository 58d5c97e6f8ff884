//! The whole kubelet but its server, against an apiserver in memory.

mod lives;
mod scripted;

use crate::pods::Parts;
use crate::runtime::Runtime;
use crate::runtime::simulated::{STOP_TAKES, Simulated};
use crate::{Args, machine, node, pods, registration};
use coracle_client::fake::FakeApi;
use coracle_client::{Recorder, Reflector, Scope};
use coracle_daemon::Tasks;
use coracle_daemon::clock::Instant;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use serde_json::{Value, json};
use std::sync::Arc;

const PODS: &str = "/api/v1/namespaces/ns/pods";

pub fn args(nodes: &str) -> Args {
    #[derive(clap::Parser)]
    struct Program {
        #[command(flatten)]
        args: Args,
    }
    let files =
        ["--kubeconfig", "k", "--tls-cert-file", "c", "--tls-private-key-file", "p", "--client-ca-file", "a"];
    let words = ["kubelet", "--simulated-nodes", nodes, "--simulated-node-prefix", "s"];
    <Program as clap::Parser>::parse_from(words.into_iter().chain(files)).args
}

fn start(api: &FakeApi, nodes: &str) -> Scope {
    let scope = Scope::new(&Tasks::new());
    let nodes = Arc::new(node::simulated(&args(nodes), &machine::Facts::default()));
    let client = api.client();
    let recorder = Recorder::new(client.clone(), "kubelet", None, &scope);
    let store = pods::watch(&scope, &client, &nodes);
    let runtime: Arc<dyn Runtime> = Arc::new(Simulated::new(&scope, &store));
    let known = Reflector::<Node>::new(Api::all(client.clone())).start(&scope);
    let parts = Parts {
        client: client.clone(),
        nodes: nodes.clone(),
        known: known.clone(),
        recorder,
        store,
        runtime: runtime.clone(),
    };
    pods::start(&scope, parts, |_| None);
    registration::start(&scope, &client, nodes, &known, runtime);
    scope
}

fn pod(name: &str, node: &str, owner: &str) -> Value {
    json!({
        "metadata": { "name": name, "ownerReferences": [
            { "apiVersion": "v1", "kind": owner, "name": "o", "uid": "o", "controller": true },
        ] },
        "spec": { "nodeName": node, "restartPolicy": if owner == "Job" { "Never" } else { "Always" },
                  "containers": [{ "name": "c", "image": "nginx" }] },
        "status": { "phase": "Pending" },
    })
}

fn phase(api: &FakeApi, name: &str) -> String {
    let pod = api.get(&format!("{PODS}/{name}"));
    pod["status"]["phase"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn nodes_register_and_hold_leases() {
    let api = FakeApi::default();
    let scope = start(&api, "3");
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    api.until("three leases", |api| api.list(leases).len() == 3).await;
    let node = api.get("/api/v1/nodes/s-2");
    assert_eq!(node["spec"]["podCIDR"], "10.128.2.0/24");
    assert_eq!(node["status"]["conditions"][3]["type"], "Ready");
    assert_eq!(api.get(&format!("{leases}/s-2"))["spec"]["holderIdentity"], "s-2");
    scope.stop().await;
}

#[tokio::test]
async fn a_node_that_was_told_to_be_away_or_deleted_says_that_it_is_here() {
    let api = FakeApi::default();
    let scope = start(&api, "1");
    let node = "/api/v1/nodes/s-0";
    let ready = |api: &FakeApi| api.get(node)["status"]["conditions"][3]["status"] == "True";
    api.until("it is ready", ready).await;
    let unknown = json!([{ "type": "Ready", "status": "Unknown" }]);
    api.patch("/api/v1/nodes/s-0/status", &json!({ "status": { "conditions": unknown } }));
    api.until("it is ready again", ready).await;
    api.delete(node);
    api.until("it is registered again", ready).await;
    scope.stop().await;
}

#[tokio::test]
async fn pods_run_to_their_end_with_addresses_of_their_own() {
    for nodes in ["1", "2"] {
        let api = FakeApi::default();
        let scope = start(&api, nodes);
        for (name, node, owner) in [
            ("a", "s-0", "ReplicaSet"),
            ("b", "s-0", "ReplicaSet"),
            ("job", "s-0", "Job"),
            ("far", "elsewhere", "Job"),
        ] {
            api.create(PODS, pod(name, node, owner));
        }
        api.until("the pods run", |api| phase(api, "a") == "Running" && phase(api, "b") == "Running").await;
        api.until("the Job's pod succeeds", |api| phase(api, "job") == "Succeeded").await;
        let address = |name: &str| api.get(&format!("{PODS}/{name}"))["status"]["podIP"].clone();
        assert!(address("a").as_str().unwrap().starts_with("10.128.0."));
        assert_ne!(address("a"), address("b"));
        assert_eq!(phase(&api, "far"), "Pending", "another node's pod is left alone");
        scope.stop().await;
    }
}

#[tokio::test]
async fn a_pod_that_was_being_deleted_while_the_kubelet_was_down_is_removed() {
    let api = FakeApi::default();
    let mut going = pod("a", "s-0", "ReplicaSet");
    going["metadata"]["deletionTimestamp"] = json!("2026-01-02T03:04:05Z");
    api.create(PODS, going);
    assert!(!api.get(&format!("{PODS}/a")).is_null(), "only its kubelet removes it");
    let scope = start(&api, "1");
    api.until("the pod is gone", |api| api.get(&format!("{PODS}/a")).is_null()).await;
    scope.stop().await;
}

#[tokio::test]
async fn a_deleted_pod_takes_a_moment_to_stop() {
    let api = FakeApi::default();
    let scope = start(&api, "1");
    let mut mate = pod("a", "s-0", "StatefulSet");
    // A finalizer, or this API would not wait for us.
    mate["metadata"]["finalizers"] = json!(["test/hold"]);
    api.create(PODS, mate);
    api.until("the pod runs", |api| phase(api, "a") == "Running").await;
    let (since, going) = (Instant::now(), json!({ "deletionTimestamp": "2026-01-02T03:04:05Z" }));
    api.patch(&format!("{PODS}/a"), &json!({ "metadata": going }));
    api.until("the pod has ended", |api| phase(api, "a") == "Succeeded").await;
    assert!(since.elapsed() >= STOP_TAKES, "it ended after {:?}", since.elapsed());
    scope.stop().await;
}

#[tokio::test]
async fn a_pod_that_does_not_fit_its_node_fails_and_says_why() {
    let api = FakeApi::default();
    let scope = start(&api, "1");
    let mut large = pod("a", "s-0", "ReplicaSet");
    large["spec"]["containers"][0]["resources"] = json!({ "requests": { "cpu": "1" } });
    api.create(PODS, large);
    api.until("the pod is turned away", |api| phase(api, "a") == "Failed").await;
    let status = api.get(&format!("{PODS}/a"))["status"].clone();
    assert_eq!(status["reason"], "OutOfcpu");
    let words = "Node didn't have enough resource: cpu, requested: 1000, used: 0, capacity: 0";
    assert_eq!(status["message"], format!("Pod was rejected: {words}"));
    let told = |api: &FakeApi| {
        let events = api.list("/api/v1/namespaces/ns/events");
        events.iter().any(|event| event["reason"] == "OutOfcpu" && event["message"] == words)
    };
    api.until("an event tells of it", told).await;
    scope.stop().await;
}
