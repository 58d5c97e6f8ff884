//! What a Deployment plans next, from what it sees.

use super::*;
use crate::testing::{at, object};
use serde_json::{Value, json};

const NOW: &str = "2026-01-01T00:00:00Z";

fn deployment(replicas: i32, image: &str, extra: &Value) -> Deployment {
    let mut spec = json!({
        "replicas": replicas, "selector": { "matchLabels": { "app": "web" } }, "progressDeadlineSeconds": 600,
        "template": { "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "name": "c", "image": image }] } },
    });
    for (key, value) in extra.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    object(
        json!({ "apiVersion": "apps/v1", "metadata": { "name": "web", "namespace": "ns", "uid": "d", "generation": 1 }, "spec": spec }),
    )
}

/// A ReplicaSet of `image` with `replicas` pods of which `available` are; it remembers a Deployment of three.
fn set(image: &str, replicas: i32, available: i32, revision: i32) -> Arc<ReplicaSet> {
    let owner = json!([{ "apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "d", "controller": true }]);
    let notes = json!({ "deployment.kubernetes.io/revision": revision.to_string(), "deployment.kubernetes.io/desired-replicas": "3", "deployment.kubernetes.io/max-replicas": "4" });
    Arc::new(object(json!({
        "metadata": {
            "name": format!("web-{image}"), "namespace": "ns", "uid": image, "ownerReferences": owner, "annotations": notes,
            "creationTimestamp": format!("2025-01-01T00:00:{revision:02}Z"), "labels": { "app": "web", "pod-template-hash": image },
        },
        "spec": {
            "replicas": replicas, "selector": { "matchLabels": { "app": "web" } },
            "template": { "metadata": { "labels": { "app": "web", "pod-template-hash": image } }, "spec": { "containers": [{ "name": "c", "image": image }] } },
        },
        "status": { "replicas": replicas, "readyReplicas": available, "availableReplicas": available, "observedGeneration": 0 },
    })))
}

/// What happens to ReplicaSets, in words.
fn steps(deployment: &Deployment, sets: &[Arc<ReplicaSet>], has_pods: bool) -> Vec<String> {
    let plan = reconcile(deployment, sets.to_vec(), |_| has_pods, at(NOW));
    let words = plan.actions().filter_map(|action| match action {
        Action::Create { body, .. } => Some(format!("create {}", body["spec"]["replicas"])),
        Action::Patch { resource, key, patch, .. }
            if **resource == REPLICA_SET && patch["spec"]["replicas"].is_number() =>
        {
            Some(format!("{} to {}", key.name, patch["spec"]["replicas"]))
        }
        Action::Delete { key, .. } => Some(format!("delete {}", key.name)),
        _ => None,
    });
    words.collect()
}

#[test]
fn the_first_set_is_made_at_full_size() {
    assert_eq!(steps(&deployment(3, "a", &json!({})), &[], false), ["create 3"]);
}

#[test]
fn a_new_template_surges_first() {
    assert_eq!(steps(&deployment(3, "b", &json!({})), &[set("a", 3, 3, 1)], true), ["create 1"]);
}

#[test]
fn old_pods_go_as_new_ones_become_available() {
    let wanted = deployment(3, "b", &json!({}));
    assert!(steps(&wanted, &[set("a", 3, 3, 1), set("b", 1, 0, 2)], true).is_empty());
    assert_eq!(steps(&wanted, &[set("a", 3, 3, 1), set("b", 1, 1, 2)], true), ["web-a to 2"]);
    assert_eq!(steps(&wanted, &[set("a", 2, 2, 1), set("b", 1, 1, 2)], true), ["web-b to 2"]);
}

#[test]
fn broken_old_pods_go_at_once() {
    let strategy = json!({ "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 0, "maxUnavailable": 1 } } });
    assert_eq!(
        steps(&deployment(3, "b", &strategy), &[set("a", 3, 2, 1), set("b", 0, 0, 2)], true),
        ["web-a to 2"]
    );
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    let wanted = deployment(3, "b", &json!({ "strategy": { "type": "Recreate" } }));
    assert_eq!(steps(&wanted, &[set("a", 3, 3, 1)], true), ["web-a to 0"]);
    assert!(steps(&wanted, &[set("a", 0, 0, 1)], true).is_empty());
    assert_eq!(steps(&wanted, &[set("a", 0, 0, 1)], false), ["create 3"]);
}

#[test]
fn a_size_change_in_the_middle_is_shared_out() {
    let wanted = deployment(6, "b", &json!({}));
    // Eight pods may exist (6 + 25 %, rounded up); four do.
    assert_eq!(steps(&wanted, &[set("a", 2, 2, 1), set("b", 2, 1, 2)], true), ["web-b to 4", "web-a to 4"]);
}

#[test]
fn a_paused_deployment_scales_and_does_not_roll() {
    let wanted = deployment(5, "b", &json!({ "paused": true }));
    assert_eq!(steps(&wanted, &[set("a", 3, 3, 1)], true), ["web-a to 5"]);
}

#[test]
fn a_rollback_gives_the_old_set_a_new_revision() {
    let plan = reconcile(
        &deployment(3, "a", &json!({})),
        vec![set("a", 0, 0, 1), set("b", 3, 3, 2)],
        |_| true,
        at(NOW),
    );
    let revisions = plan.actions().filter_map(|action| match action {
        Action::Patch { key, patch, .. } => {
            patch["metadata"]["annotations"][revision::REVISION].as_str().map(|r| format!("{} {r}", key.name))
        }
        _ => None,
    });
    assert_eq!(revisions.collect::<Vec<_>>(), ["web-a 3", "web 3"]);
}

#[test]
fn names_of_sets_are_stable_and_safe() {
    let template = deployment(1, "a", &json!({})).spec.expect("a spec").template;
    let hash = revision::hash(&template, 0);
    assert_eq!(hash, revision::hash(&template, 0));
    assert_ne!(hash, revision::hash(&template, 1));
    assert!(hash.len() == 10 && hash.chars().all(|c| "bcdfghjklmnpqrstvwxz2456789".contains(c)));
}

#[test]
fn a_rollout_that_stands_still_misses_its_deadline() {
    let mut stuck = deployment(3, "b", &json!({}));
    let condition = json!([{ "type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated", "lastUpdateTime": "2025-12-31T23:00:00Z" }]);
    stuck.status = Some(object(
        json!({ "replicas": 4, "updatedReplicas": 1, "readyReplicas": 3, "availableReplicas": 3, "conditions": condition }),
    ));
    let plan = reconcile(&stuck, vec![set("a", 3, 3, 1), set("b", 1, 0, 2)], |_| true, at(NOW));
    let text = format!("{:?}", plan.steps);
    assert!(text.contains("ReplicaSet \\\"web-b\\\" has timed out progressing."), "{text}");
}
