//! Claims for the ephemeral volumes of pods: made from the pod's template, owned by the pod, and gone with it.

use super::ephemeral_claim;
use crate::context::Context;
use crate::plan::{Action, PERSISTENT_VOLUME_CLAIM, Plan};
use crate::pods;
use coracle_client::controller::{Next, ReconcileError};
use coracle_client::{Key, Queue, controller_of};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use serde_json::json;
use std::sync::Arc;

pub fn start(ctx: &Context) {
    let queue = Queue::new();
    let wake = queue.clone();
    ctx.stores.pods.on_change(move |change| {
        let volumes =
            change.new.iter().flat_map(|pod| pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()));
        if volumes.into_iter().any(|volume| volume.ephemeral.is_some()) {
            wake.add(change.key.clone());
        }
    });
    let wake = queue.clone();
    ctx.stores.claims.on_change(move |change| {
        let Some(gone) = change.old.as_ref().filter(|_| change.new.is_none()) else { return };
        if let Some(owner) = controller_of(&gone.metadata).filter(|owner| owner.kind == "Pod") {
            wake.add(Key::new(change.key.namespace.clone(), owner.name.clone()));
        }
    });
    ctx.control("ephemeral-volume", queue, 4, |ctx, key| async move {
        let Some(pod) = ctx.stores.pods.get(&key) else { return Ok(Next::Change) };
        let claim = |name: &str| ctx.stores.claims.get(&Key::new(key.namespace.clone(), name));
        ctx.execute(reconcile(&pod, claim)?, None).await
    });
}

fn reconcile(
    pod: &Pod,
    claim: impl Fn(&str) -> Option<Arc<PersistentVolumeClaim>>,
) -> Result<Plan, ReconcileError> {
    let mut plan = Plan::default();
    if pods::is_terminating(pod) || pods::is_finished(pod) {
        return Ok(plan);
    }
    let meta = &pod.metadata;
    let owner = json!({
        "apiVersion": "v1", "kind": "Pod", "name": meta.name, "uid": meta.uid,
        "controller": true, "blockOwnerDeletion": true,
    });
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        let template = volume.ephemeral.as_ref().and_then(|source| source.volume_claim_template.as_ref());
        let Some(template) = template else { continue };
        let name = ephemeral_claim(pod, volume);
        if let Some(found) = claim(&name) {
            if controller_of(&found.metadata).is_none_or(|owner| Some(&owner.uid) != meta.uid.as_ref()) {
                let pod = Key::of(meta);
                return Err(ReconcileError::NotYet(format!(
                    "PVC {}/{name} was not created for pod {pod} (pod is not owner)",
                    pod.namespace
                )));
            }
            continue;
        }
        let own = template.metadata.clone().unwrap_or_default();
        let body = json!({
            "metadata": {
                "name": name, "namespace": meta.namespace, "labels": own.labels, "annotations": own.annotations,
                "ownerReferences": [owner],
            },
            "spec": template.spec,
        });
        plan.then([Action::Ensure { resource: &PERSISTENT_VOLUME_CLAIM, body }]);
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{object, pod};

    fn mate(phase: &str) -> Pod {
        let template =
            json!({ "metadata": { "labels": { "a": "b" } }, "spec": { "accessModes": ["ReadWriteOnce"] } });
        pod(json!({
            "metadata": { "name": "mate", "namespace": "ns", "uid": "m" }, "status": { "phase": phase },
            "spec": { "containers": [], "volumes": [
                { "name": "plain", "emptyDir": {} },
                { "name": "hold", "ephemeral": { "volumeClaimTemplate": template } },
            ] },
        }))
    }

    #[test]
    fn a_pod_gets_the_claims_of_its_templates_and_owns_them() {
        let plan = reconcile(&mate("Pending"), |_| None).unwrap();
        let bodies: Vec<_> = plan.actions().collect();
        let [Action::Ensure { body, .. }] = bodies[..] else { panic!("{bodies:?}") };
        assert_eq!(body["metadata"]["name"], "mate-hold");
        assert_eq!(body["metadata"]["labels"]["a"], "b");
        assert_eq!(body["metadata"]["ownerReferences"][0]["uid"], "m");
        assert_eq!(body["spec"]["accessModes"], json!(["ReadWriteOnce"]));
        assert_eq!(reconcile(&mate("Succeeded"), |_| None).unwrap().actions().count(), 0);
    }

    #[test]
    fn a_claim_of_that_name_that_is_not_the_pods_is_left_alone() {
        let claim = |uid: &str| {
            let owner = json!([{ "apiVersion": "v1", "kind": "Pod", "name": "mate", "uid": uid, "controller": true }]);
            Some(Arc::new(object(json!({ "metadata": { "name": "mate-hold", "ownerReferences": owner } }))))
        };
        assert_eq!(reconcile(&mate("Pending"), |_| claim("m")).unwrap().actions().count(), 0);
        assert!(reconcile(&mate("Pending"), |_| claim("other")).is_err());
    }
}
