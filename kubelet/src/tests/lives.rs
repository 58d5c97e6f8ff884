//! Whole lives of pods on a node whose runtime does what the test says.

use super::args;
use super::scripted::Scripted;
use crate::launch::Surroundings;
use crate::pods::{self, Ground, Parts};
use crate::{machine, node, objects, registration, volumes};
use coracle_client::fake::FakeApi;
use coracle_client::{Recorder, Reflector, Scope};
use coracle_daemon::{Tasks, clock};
use k8s_openapi::api::core::v1::{Node, Service};
use kube::Api;
use serde_json::{Value, json};
use std::fs;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

const PODS: &str = "/api/v1/namespaces/ns/pods";
const POD: &str = "/api/v1/namespaces/ns/pods/p";

struct World {
    api: FakeApi,
    runtime: Scripted,
    folder: TempDir,
    scope: Scope,
}

fn world() -> World {
    let (api, runtime) = (FakeApi::default(), Scripted::default());
    let world =
        World { api, runtime, folder: tempfile::tempdir().unwrap(), scope: Scope::new(&Tasks::new()) };
    world.start_kubelet(&world.scope);
    world
}

impl World {
    fn start_kubelet(&self, scope: &Scope) {
        let client = self.api.client();
        let cidr = "10.1.0.0/24".parse().unwrap();
        let mut args = args("1");
        args.hostname_override = Some("n".to_owned());
        let nodes = Arc::new(node::real(&args, &machine::Facts::default(), cidr, "scripted://1".to_owned()));
        let around = Surroundings { domain: "cluster.local".to_owned(), ..nodes["n"].surroundings() };
        let recorder = Recorder::new(client.clone(), "kubelet", Some("n"), scope);
        let store = pods::watch(scope, &client, &nodes);
        let services = Reflector::<Service>::new(Api::all(client.clone())).start(scope);
        let runtime = Arc::new(self.runtime.clone());
        let known = Reflector::<Node>::new(Api::all(client.clone())).start(scope);
        let parts = Parts { client: client.clone(), nodes, known, recorder, store, runtime };
        pods::start(scope, parts, |wake| {
            Some(Ground {
                files: volumes::Files::new(self.folder.path(), &self.folder.path().join("logs"), false),
                objects: objects::Objects::new(&client, scope, wake),
                services,
                around: Arc::new(around),
            })
        });
    }

    fn pod(&self, spec: Value) {
        let mut spec = spec;
        spec["nodeName"] = json!("n");
        for container in spec["containers"].as_array_mut().unwrap() {
            container["image"].as_str().is_none().then(|| container["image"] = json!("here"));
        }
        // A finalizer, or this API would not wait for us.
        let meta = json!({ "name": "p", "finalizers": ["test/hold"] });
        self.api.create(PODS, json!({ "metadata": meta, "spec": spec }));
    }

    async fn until(&self, what: &str, pointer: &str, value: Value) {
        self.api.until(what, |api| api.get(POD).pointer(pointer) == Some(&value)).await;
    }

    fn status(&self, pointer: &str) -> Value {
        self.api.get(POD).pointer(&format!("/status{pointer}")).cloned().unwrap_or_default()
    }

    async fn event(&self, reason: &str, message: &str) {
        let events = "/api/v1/namespaces/ns/events";
        let is =
            |event: &Value| event["reason"] == reason && event["message"].as_str().unwrap().contains(message);
        self.api.until(reason, |api| api.list(events).iter().any(is)).await;
    }
}

/// Waits for what the file system tells nobody.
async fn eventually(holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            clock::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(clock::timeout(Duration::from_secs(10), wait).await.is_ok());
}

const WAITING: &str = "/status/containerStatuses/0/state/waiting/reason";

#[tokio::test]
async fn a_container_that_crashes_is_restarted_and_then_waits() {
    let world = world();
    world.pod(json!({ "restartPolicy": "Always", "containers": [{ "name": "c" }] }));
    world.until("it runs", "/status/phase", json!("Running")).await;
    fs::write(world.runtime.spec("c").termination_log, "last words").unwrap();
    world.runtime.end("c", 3);
    world.runtime.until("it runs again", |runtime| runtime.log().contains(&"start c1".to_owned())).await;
    world.runtime.end("c", 4);
    world.until("it waits", WAITING, json!("CrashLoopBackOff")).await;
    assert_eq!(world.status("/containerStatuses/0/restartCount"), 1);
    assert_eq!(world.status("/containerStatuses/0/lastState/terminated/exitCode"), 4);
    world.event("BackOff", "Back-off restarting failed container c in pod p_ns(").await;
    world.scope.stop().await;
}

#[tokio::test]
async fn last_words_are_reported() {
    let world = world();
    world.pod(json!({ "restartPolicy": "Never", "containers": [{ "name": "c" }] }));
    world.until("it runs", "/status/phase", json!("Running")).await;
    fs::write(world.runtime.spec("c").termination_log, "last words").unwrap();
    world.runtime.end("c", 3);
    world.until("it failed", "/status/phase", json!("Failed")).await;
    assert_eq!(world.status("/containerStatuses/0/state/terminated/message"), "last words");
    world.runtime.until("its sandbox is gone", Scripted::is_empty).await;
    assert_eq!(world.status("/containerStatuses/0/state/terminated/exitCode"), 3, "what was reported stays");
    world.scope.stop().await;
}

#[tokio::test]
async fn init_containers_come_first() {
    let world = world();
    world.pod(
        json!({ "initContainers": [{ "name": "i", "image": "here" }], "containers": [{ "name": "c" }] }),
    );
    world.until("it waits", WAITING, json!("PodInitializing")).await;
    assert_eq!(world.status("/phase"), "Pending");
    world.runtime.end("i", 0);
    world.until("it runs", "/status/phase", json!("Running")).await;
    assert_eq!(world.runtime.log(), ["sandbox p", "start i0", "start c0"]);
    world.scope.stop().await;
}

#[tokio::test]
async fn configuration_comes_from_objects_and_follows_them() {
    let world = world();
    let (maps, map) = ("/api/v1/namespaces/ns/configmaps", "/api/v1/namespaces/ns/configmaps/m");
    world.pod(json!({
        "containers": [{ "name": "c", "command": ["run", "$(K)"],
            "env": [{ "name": "K", "valueFrom": { "configMapKeyRef": { "name": "m", "key": "k" } } }],
            "volumeMounts": [{ "name": "v", "mountPath": "/v" }] }],
        "volumes": [{ "name": "v", "configMap": { "name": "m" } }],
    }));
    world.event("FailedMount", "MountVolume.SetUp failed for volume \"v\" : configmap \"m\" not found").await;
    assert_eq!(world.status("/containerStatuses/0/state/waiting/reason"), "ContainerCreating");
    world.api.create(maps, json!({ "metadata": { "name": "m" }, "data": { "other": "x" } }));
    world.until("it waits for the key", WAITING, json!("CreateContainerConfigError")).await;
    let message = "couldn't find key k in ConfigMap ns/m";
    assert_eq!(world.status("/containerStatuses/0/state/waiting/message"), message);
    world.api.patch(map, &json!({ "data": { "k": "1" } }));
    world.until("it runs", "/status/phase", json!("Running")).await;
    let spec = world.runtime.spec("c");
    assert_eq!(spec.command, ["run", "1"]);
    let file = spec.mounts.iter().find(|mount| mount.target == "/v").unwrap().source.join("k");
    // The container may start by the object's news before its volume shows them, as upstream.
    eventually(|| fs::read_to_string(&file).unwrap_or_default() == "1").await;
    world.api.patch(map, &json!({ "data": { "k": "2" } }));
    eventually(|| fs::read_to_string(&file).unwrap_or_default() == "2").await;
    world.scope.stop().await;
}

#[tokio::test]
async fn images_are_pulled_or_told_to_be_missing() {
    let world = world();
    world.pod(json!({ "containers": [{ "name": "c", "image": "far" }] }));
    world.until("it runs", "/status/phase", json!("Running")).await;
    world.event("Pulled", "Successfully pulled image \"far\"").await;
    world.scope.stop().await;
    for (image, policy, reason) in [
        ("bad", "Always", "ErrImagePull"),
        ("far", "Never", "ErrImageNeverPull"),
        ("No Image", "Always", "InvalidImageName"),
    ] {
        let world = self::world();
        world.pod(json!({ "containers": [{ "name": "c", "image": image, "imagePullPolicy": policy }] }));
        world.until(reason, WAITING, json!(reason)).await;
        world.scope.stop().await;
    }
}

#[tokio::test]
async fn a_command_that_cannot_be_started_counts_as_a_crash() {
    let world = world();
    world.pod(json!({ "containers": [{ "name": "c", "command": ["/nope"] }] }));
    world.until("it waits", WAITING, json!("CrashLoopBackOff")).await;
    assert_eq!(world.status("/containerStatuses/0/lastState/terminated/reason"), "StartError");
    assert_eq!(world.status("/containerStatuses/0/lastState/terminated/exitCode"), 128);
    world.scope.stop().await;
}

#[tokio::test]
async fn probes_decide_over_readiness_and_restarts() {
    let world = world();
    world.pod(
        json!({ "restartPolicy": "Always", "terminationGracePeriodSeconds": 9, "containers": [{ "name": "c",
        "livenessProbe": { "exec": { "command": ["1"] }, "periodSeconds": 1, "failureThreshold": 1 },
        "readinessProbe": { "exec": { "command": ["0"] }, "periodSeconds": 1 } }] }),
    );
    world.event("Unhealthy", "Liveness probe failed: ").await;
    world.event("Killing", "Container c failed liveness probe, will be restarted").await;
    world.runtime.until("it runs again", |runtime| runtime.log().contains(&"start c1".to_owned())).await;
    assert!(world.runtime.log().contains(&"stop c0 in 9s".to_owned()), "{:?}", world.runtime.log());
    world.until("it is ready", "/status/containerStatuses/0/ready", json!(true)).await;
    world.scope.stop().await;
}

#[tokio::test]
async fn a_deleted_pod_is_stopped_with_its_hook_and_nothing_stays() {
    let world = world();
    world.pod(json!({ "containers": [{ "name": "c", "lifecycle": { "preStop": { "exec": { "command": ["bye"] } } } }] }));
    world.until("it runs", "/status/phase", json!("Running")).await;
    let uid = world.api.get(POD)["metadata"]["uid"].as_str().unwrap().to_owned();
    assert!(world.folder.path().join("pods").join(&uid).exists());
    world.api.patch(
        POD,
        &json!({ "metadata": {
        "deletionTimestamp": "2026-01-02T03:04:05Z", "deletionGracePeriodSeconds": 4 } }),
    );
    world.until("its end is reported", "/status/phase", json!("Failed")).await;
    world.runtime.until("its sandbox is gone", Scripted::is_empty).await;
    let log = world.runtime.log();
    assert_eq!(log, ["sandbox p", "start c0", "exec bye", "stop c0 in 4s", "removed"]);
    assert_eq!(world.status("/containerStatuses/0/state/terminated/exitCode"), 143);
    let files = world.folder.path().join("pods").join(&uid);
    eventually(|| !files.exists()).await;
    world.api.patch(POD, &json!({ "metadata": { "finalizers": [] } }));
    world.api.until("the object is gone", |api| api.get(POD).is_null()).await;
    world.scope.stop().await;
}

#[tokio::test]
async fn what_the_api_has_forgotten_is_torn_down_also_after_a_restart() {
    let world = world();
    world.pod(json!({ "containers": [{ "name": "c" }] }));
    world.until("it runs", "/status/phase", json!("Running")).await;
    world.scope.stop().await;
    world.api.patch(POD, &json!({ "metadata": { "finalizers": [] } }));
    world.api.delete(POD);
    let second = Scope::new(&Tasks::new());
    world.start_kubelet(&second);
    world.runtime.until("nothing is left", Scripted::is_empty).await;
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_runtime_does_not_answer_is_not_ready_until_it_does() {
    let (api, runtime, scope) = (FakeApi::default(), Scripted::default(), Scope::new(&Tasks::new()));
    let client = api.client();
    let mut args = args("1");
    args.hostname_override = Some("n".to_owned());
    let cidr = "10.1.0.0/24".parse().unwrap();
    let nodes = Arc::new(node::real(&args, &machine::Facts::default(), cidr, "scripted://1".to_owned()));
    let known = Reflector::<Node>::new(Api::all(client.clone())).start(&scope);
    registration::start(&scope, &client, nodes, &known, Arc::new(runtime.clone()));
    // In seconds. Looks are three renewals apart while all is well and one otherwise; an answer may take five. A renewal is
    // up to 12.5 away: the time of day, which says when it is due, stands still in this test.
    for (silent, status, most) in [(false, "True", 1), (true, "False", 43), (false, "True", 18)] {
        runtime.silence(silent);
        let holds = |api: &FakeApi| {
            let node = api.get("/api/v1/nodes/n");
            let told = node["status"]["conditions"].as_array();
            told.is_some_and(|told| told.iter().any(|one| one["type"] == "Ready" && one["status"] == status))
        };
        let what = format!("Ready is {status} of a runtime that is silent: {silent}");
        api.until_within(Duration::from_secs(most), &what, holds).await;
    }
    scope.stop().await;
}
