//! ReplicationControllers: ReplicaSets of an older name, with a selector of plain labels.
//!
//! Each is taken for the ReplicaSet that it would be, so that there is one set of rules for both.

use crate::context::Context;
use crate::expectations::Expectations;
use crate::ownership::selector;
use crate::plan::REPLICATION_CONTROLLER;
use crate::replica_set;
use crate::wake::owners_of_pods;
use coracle_client::Queue;
use coracle_client::controller::Next;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::api::core::v1::ReplicationController;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::sync::Arc;

pub fn start(ctx: &Context) {
    let (queue, expectations) = (Queue::new(), Arc::new(Expectations::default()));
    let (wake, controllers) = (queue.clone(), &ctx.stores.replication_controllers);
    controllers.on_change(move |change| wake.add(change.key.clone()));
    let kind = REPLICATION_CONTROLLER.kind;
    owners_of_pods(&ctx.stores.pods, &queue, kind, &expectations, controllers, |controller| {
        Some(selector(&selector_of(controller)))
    });
    ctx.control("replicationcontroller", queue, 4, move |ctx, key| {
        let expectations = expectations.clone();
        async move {
            let Some(controller) = ctx.stores.replication_controllers.get(&key) else {
                return Ok(Next::Change);
            };
            replica_set::sync(&ctx, &REPLICATION_CONTROLLER, &as_set(&controller), &expectations).await
        }
    });
}

fn selector_of(controller: &ReplicationController) -> LabelSelector {
    let labels = controller.spec.as_ref().and_then(|spec| spec.selector.clone());
    LabelSelector { match_labels: labels, match_expressions: None }
}

fn as_set(controller: &ReplicationController) -> ReplicaSet {
    let spec = controller.spec.clone().map(|spec| ReplicaSetSpec {
        selector: selector_of(controller),
        replicas: spec.replicas,
        template: spec.template,
        min_ready_seconds: spec.min_ready_seconds,
    });
    let status = controller.status.clone().map(|status| ReplicaSetStatus {
        replicas: status.replicas,
        fully_labeled_replicas: status.fully_labeled_replicas,
        ready_replicas: status.ready_replicas,
        available_replicas: status.available_replicas,
        observed_generation: status.observed_generation,
        conditions: status.conditions.map(|conditions| {
            let condition =
                |own: k8s_openapi::api::core::v1::ReplicationControllerCondition| ReplicaSetCondition {
                    type_: own.type_,
                    status: own.status,
                    reason: own.reason,
                    message: own.message,
                    last_transition_time: own.last_transition_time,
                };
            conditions.into_iter().map(condition).collect()
        }),
        ..ReplicaSetStatus::default()
    });
    ReplicaSet { metadata: controller.metadata.clone(), spec, status }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Action;
    use crate::replica_set::{Work, reconcile};
    use crate::testing::{at, object};
    use serde_json::json;

    #[test]
    fn pods_are_made_and_owned_by_the_controller() {
        let labels = json!({ "a": "b" });
        let controller: ReplicationController = object(json!({
            "metadata": { "name": "rc", "namespace": "ns", "uid": "u" },
            "spec": { "replicas": 1, "selector": labels, "template": { "metadata": { "labels": labels }, "spec": { "containers": [] } } },
        }));
        let plan = reconcile(
            &REPLICATION_CONTROLLER,
            &as_set(&controller),
            Vec::new(),
            Work::Change { settled: true },
            at("2026-01-01T00:00:00Z"),
        );
        let Some(Action::Create { body, .. }) = plan.actions().next() else { panic!("a pod is made") };
        let owner = &body["metadata"]["ownerReferences"][0];
        assert_eq!((&owner["apiVersion"], &owner["kind"]), (&json!("v1"), &json!("ReplicationController")));
    }
}
