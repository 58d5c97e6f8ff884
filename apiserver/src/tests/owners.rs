//! Who owns the fields of what the server itself makes.

use super::Fixture;
use coracle_etcd::memory::MemoryKv;
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test]
async fn flow_schemas_are_made_by_one_part_and_told_of_their_level_by_another() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let path = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/probes";
    let told = async {
        loop {
            let (_, schema) = fixture.call("GET", path, Value::Null).await;
            if schema["status"]["conditions"].is_array() {
                return schema;
            }
            tokio::task::yield_now().await;
        }
    };
    let schema = tokio::time::timeout(Duration::from_secs(20), told).await.expect("told");
    let owners = schema["metadata"]["managedFields"].as_array().expect("owners");
    let owners: Vec<Value> = owners
        .iter()
        .map(|owner| json!([owner["manager"], owner["operation"], owner["subresource"]]))
        .collect();
    assert_eq!(
        owners,
        [
            json!(["api-priority-and-fairness-config-consumer-v1", "Apply", "status"]),
            json!(["api-priority-and-fairness-config-producer-v1", "Update", null]),
        ]
    );
    fixture.stop().await;
}

#[tokio::test]
async fn who_writes_an_empty_list_owns_it_though_it_is_stored_as_none() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let role = json!({"metadata": {"name": "r"}, "rules": []});
    let (code, made) = fixture.call("POST", roles, role.clone()).await;
    assert_eq!((code, &made["rules"]), (201, &Value::Null), "{made}");
    assert_eq!(made["metadata"]["managedFields"][0]["fieldsV1"], json!({"f:rules": {}}));
    // Written again it is what it was.
    let (code, same) = fixture.call("PUT", &format!("{roles}/r"), role).await;
    assert_eq!((code, same), (200, made));
    fixture.stop().await;
}
