//! All controllers together, against an apiserver in memory and a kubelet that obeys at once.

use super::*;
use coracle_client::fake::FakeApi;
use coracle_client::{Key, Reflector, Scope};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::{Value, json};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/ns/deployments";
const REPLICA_SETS: &str = "/apis/apps/v1/namespaces/ns/replicasets";
const SETS: &str = "/apis/apps/v1/namespaces/ns/statefulsets";
const PODS: &str = "/api/v1/namespaces/ns/pods";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/ns/endpointslices";

fn cluster() -> (FakeApi, Scope) {
    let (api, scope) = (FakeApi::default(), Scope::new(&Tasks::new()));
    start(
        &api.client(),
        &scope,
        &Settings {
            root_ca: Some(Arc::from("PEM")),
            node_grace: Duration::from_secs(50),
            ..Settings::default()
        },
    );
    let pods = Reflector::<Pod>::new(Api::all(api.client())).start(&scope);
    let kubelet = api.clone();
    scope.spawn("kubelet", async move {
        let changes = pods.changes();
        let mut address = 0;
        loop {
            for key in changes.next().await {
                address += 1;
                obey(&kubelet, &key, address);
            }
        }
    });
    (api, scope)
}

/// Runs a new pod: a Job's to its end, any other until it is ready.
fn obey(api: &FakeApi, key: &Key, address: u32) {
    let path = format!("/api/v1/namespaces/{}/pods/{}", key.namespace, key.name);
    let pod = api.get(&path);
    if pod.is_null() || pod["status"]["phase"].is_string() {
        return;
    }
    let status = if pod["metadata"]["labels"]["job-name"].is_string() {
        json!({ "phase": "Succeeded" })
    } else {
        let ip = format!("10.244.0.{address}");
        let ready =
            json!([{ "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" }]);
        json!({ "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }], "conditions": ready })
    };
    api.patch(&format!("{path}/status"), &json!({ "status": status }));
}

fn web(image: &str) -> Value {
    json!({
        "metadata": { "name": "web" },
        "spec": {
            "replicas": 3, "selector": { "matchLabels": { "app": "web" } }, "progressDeadlineSeconds": 600,
            "template": { "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "name": "c", "image": image }] } },
        },
    })
}

fn image_of(pod: &Value) -> &str {
    pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default()
}

fn is_rolled_out(api: &FakeApi, image: &str) -> bool {
    let deployment = api.get(&format!("{DEPLOYMENTS}/web"));
    let (status, pods) = (&deployment["status"], api.list(PODS));
    let progressing = status["conditions"]
        .as_array()
        .and_then(|all| all.iter().find(|condition| condition["type"] == "Progressing"));
    ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"]
        .iter()
        .all(|field| status[*field] == 3)
        && status["observedGeneration"] == deployment["metadata"]["generation"]
        && progressing.is_some_and(|condition| condition["reason"] == "NewReplicaSetAvailable")
        && pods.len() == 3
        && pods.iter().all(|pod| image_of(pod) == image)
}

#[tokio::test]
async fn a_deployment_runs_rolls_and_goes_with_all_that_it_made() {
    let (api, scope) = cluster();
    api.create("/api/v1/namespaces/ns/services", json!({ "metadata": { "name": "web" }, "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80, "protocol": "TCP" }] } }));
    api.create(DEPLOYMENTS, web("a"));
    api.until("three pods run", |api| is_rolled_out(api, "a")).await;
    let endpoints = |api: &FakeApi| {
        api.list(SLICES).iter().filter_map(|slice| slice["endpoints"].as_array().map(Vec::len)).sum::<usize>()
    };
    api.until("the Service has their addresses", |api| endpoints(api) == 3).await;
    api.settled(Duration::from_millis(300)).await;

    api.patch(
        &format!("{DEPLOYMENTS}/web"),
        &json!({ "spec": { "template": { "spec": { "containers": [{ "name": "c", "image": "b" }] } } } }),
    );
    api.until("the new image runs", |api| is_rolled_out(api, "b")).await;
    let sets = api.list(REPLICA_SETS);
    assert_eq!(sets.iter().map(|set| set["spec"]["replicas"].as_i64()).collect::<Vec<_>>().len(), 2);
    let ours = |set: &&Value| set["spec"]["replicas"] == 3;
    assert_eq!(
        sets.iter().find(ours).expect("one is in use")["metadata"]["annotations"]["deployment.kubernetes.io/revision"],
        "2"
    );

    api.delete(&format!("{DEPLOYMENTS}/web"));
    api.until("nothing is left", |api| api.list(REPLICA_SETS).is_empty() && api.list(PODS).is_empty()).await;
    api.until("the Service has no address", |api| endpoints(api) == 0).await;
    scope.stop().await;
}

#[tokio::test]
async fn a_scaled_deployment_follows_and_a_deleted_pod_is_replaced() {
    let (api, scope) = cluster();
    api.create(DEPLOYMENTS, web("a"));
    api.until("three pods run", |api| is_rolled_out(api, "a")).await;
    let name = api.list(PODS)[0]["metadata"]["name"].as_str().expect("a name").to_owned();
    api.delete(&format!("{PODS}/{name}"));
    api.until("it is replaced", |api| is_rolled_out(api, "a")).await;
    api.patch(&format!("{DEPLOYMENTS}/web"), &json!({ "spec": { "replicas": 1 } }));
    api.until("one is left", |api| api.list(PODS).len() == 1).await;
    scope.stop().await;
}

#[tokio::test]
async fn a_namespace_is_furnished_and_emptied() {
    let (api, scope) = cluster();
    api.create("/api/v1/namespaces", json!({ "metadata": { "name": "ns" } }));
    api.until("its account and CA are there", |api| {
        !api.get("/api/v1/namespaces/ns/serviceaccounts/default").is_null()
            && api.get("/api/v1/namespaces/ns/configmaps/kube-root-ca.crt")["data"]["ca.crt"] == "PEM"
    })
    .await;
    api.create(DEPLOYMENTS, web("a"));
    api.until("three pods run", |api| is_rolled_out(api, "a")).await;
    api.delete("/api/v1/namespaces/ns");
    api.until("it is gone", |api| api.get("/api/v1/namespaces/ns").is_null()).await;
    assert!(api.list(PODS).is_empty() && api.list("/api/v1/namespaces/ns/configmaps").is_empty());
    scope.stop().await;
}

#[tokio::test]
async fn a_job_runs_to_its_end() {
    let (api, scope) = cluster();
    let template =
        json!({ "spec": { "containers": [{ "name": "c", "image": "a" }], "restartPolicy": "Never" } });
    api.create("/apis/batch/v1/namespaces/ns/jobs", json!({ "metadata": { "name": "j" }, "spec": { "completions": 3, "parallelism": 2, "selector": { "matchLabels": { "job-name": "j" } }, "template": template } }));
    api.until("it is complete", |api| {
        let status = &api.get("/apis/batch/v1/namespaces/ns/jobs/j")["status"];
        status["succeeded"] == 3
            && status["conditions"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|condition| condition["type"] == "Complete")
    })
    .await;
    let pods = api.list(PODS);
    assert!(pods.len() == 3 && pods.iter().all(|pod| pod["metadata"]["finalizers"] == json!([])));
    scope.stop().await;
}

#[tokio::test]
async fn a_deleted_job_leaves_no_pod_behind() {
    let (api, scope) = cluster();
    let template = json!({ "metadata": { "labels": { "app": "x" } }, "spec": { "containers": [{ "name": "c", "image": "a" }], "restartPolicy": "Never" } });
    api.create("/apis/batch/v1/namespaces/ns/jobs", json!({ "metadata": { "name": "j" }, "spec": { "completions": 2, "parallelism": 1, "suspend": false, "selector": { "matchLabels": { "job-name": "j" } }, "template": template } }));
    api.until("a pod is there", |api| !api.list(PODS).is_empty()).await;
    api.delete("/apis/batch/v1/namespaces/ns/jobs/j");
    api.until("none is left", |api| api.list(PODS).is_empty()).await;
    scope.stop().await;
}

#[tokio::test]
async fn a_pod_that_lost_its_job_is_kept_no_longer() {
    let (api, scope) = cluster();
    let spec = json!({ "containers": [{ "name": "c", "image": "a" }] });
    let meta =
        json!({ "name": "lost", "finalizers": ["example.com/other", "batch.kubernetes.io/job-tracking"] });
    api.create(PODS, json!({ "metadata": meta, "spec": spec }));
    api.until("it is let go", |api| {
        api.get(&format!("{PODS}/lost"))["metadata"]["finalizers"] == json!(["example.com/other"])
    })
    .await;
    scope.stop().await;
}

#[tokio::test]
async fn a_set_with_names_comes_in_order() {
    let (api, scope) = cluster();
    let template = json!({ "metadata": { "labels": { "app": "db" } }, "spec": { "containers": [{ "name": "c", "image": "a" }] } });
    let spec = json!({ "replicas": 3, "serviceName": "db", "selector": { "matchLabels": { "app": "db" } }, "template": template });
    api.create(
        "/apis/apps/v1/namespaces/ns/statefulsets",
        json!({ "metadata": { "name": "db" }, "spec": spec }),
    );
    api.until("all are ready", |api| {
        api.get("/apis/apps/v1/namespaces/ns/statefulsets/db")["status"]["readyReplicas"] == 3
    })
    .await;
    let names: Vec<_> = api.list(PODS).iter().map(|pod| pod["metadata"]["name"].clone()).collect();
    assert_eq!(names, ["db-0", "db-1", "db-2"]);
    scope.stop().await;
}

#[tokio::test]
async fn a_settled_name_that_someone_else_took_is_waited_for_without_an_event() {
    let (api, scope) = cluster();
    api.create(PODS, json!({ "metadata": { "name": "db-0" }, "spec": { "containers": [] } }));
    let spec = json!({
        "replicas": 1, "serviceName": "db", "selector": { "matchLabels": { "app": "db" } },
        "template": { "metadata": { "labels": { "app": "db" } }, "spec": { "containers": [{ "name": "c", "image": "db" }] } },
    });
    api.create(SETS, json!({ "metadata": { "name": "db" }, "spec": spec }));
    api.until("the set was looked at", |api| api.get(&format!("{SETS}/db"))["status"].is_object()).await;
    api.settled(Duration::from_millis(300)).await;
    let reason = |event: &Value| event["reason"].as_str().unwrap_or_default().to_owned();
    let reasons: Vec<_> = api.list("/api/v1/namespaces/ns/events").iter().map(reason).collect();
    assert!(!reasons.contains(&"FailedCreate".to_owned()), "{reasons:?}");
    scope.stop().await;
}

#[tokio::test]
async fn an_owner_deleted_in_the_foreground_outlives_its_dependents() {
    let (api, scope) = cluster();
    api.create("/api/v1/namespaces/ns/configmaps", json!({ "metadata": { "name": "owner" } }));
    let uid = api.get("/api/v1/namespaces/ns/configmaps/owner")["metadata"]["uid"].clone();
    let owners = json!([{ "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid, "blockOwnerDeletion": true }]);
    api.create(
        "/api/v1/namespaces/ns/secrets",
        json!({ "metadata": { "name": "child", "ownerReferences": owners, "finalizers": ["keep/me"] } }),
    );
    let now = json!({ "metadata": { "finalizers": ["foregroundDeletion"], "deletionTimestamp": "2026-01-01T00:00:00Z" } });
    api.patch("/api/v1/namespaces/ns/configmaps/owner", &now);
    api.until("the dependent is being deleted", |api| {
        api.get("/api/v1/namespaces/ns/secrets/child")["metadata"]["deletionTimestamp"].is_string()
    })
    .await;
    assert!(!api.get("/api/v1/namespaces/ns/configmaps/owner").is_null());
    api.patch("/api/v1/namespaces/ns/secrets/child", &json!({ "metadata": { "finalizers": [] } }));
    api.until("both are gone", |api| api.get("/api/v1/namespaces/ns/configmaps/owner").is_null()).await;
    scope.stop().await;
}
