//! ResourceQuotas: how much of each is used, for whoever looks and for admission.
//!
//! Pods with their requests and limits, Services and claims are counted here. What else `count/…` may name, and what
//! scopes choose, is left as admission wrote it.

use crate::context::Context;
use crate::plan::{Plan, RESOURCE_QUOTA, status_patch};
use crate::pods;
use coracle_api::quantity::Quantity;
use coracle_client::controller::Next;
use coracle_client::{Key, Queue};
use k8s_openapi::api::core::v1::{
    Container, PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaStatus, Service,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use std::collections::BTreeMap;
use std::sync::Arc;

pub fn start(ctx: &Context) {
    let queue = Queue::new();
    let wake = queue.clone();
    ctx.stores.quotas.on_change(move |change| wake.add(change.key.clone()));
    let quotas = ctx.stores.quotas.clone();
    let wake = queue.clone();
    let wake_all = Arc::new(move |namespace: &str| {
        for quota in quotas.list_in(namespace) {
            wake.add(Key::of(&quota.metadata));
        }
    });
    let wake = wake_all.clone();
    ctx.stores.pods.on_change(move |change| {
        let finished = |pod: &Option<Arc<Pod>>| pod.as_deref().is_none_or(pods::is_finished);
        if finished(&change.old) != finished(&change.new) {
            wake(&change.key.namespace);
        }
    });
    let wake = wake_all.clone();
    ctx.stores.services.on_change(move |change| wake(&change.key.namespace));
    ctx.stores.claims.on_change(move |change| wake_all(&change.key.namespace));
    ctx.control("resourcequota", queue, 2, |ctx, key| async move {
        let Some(quota) = ctx.stores.quotas.get(&key) else { return Ok(Next::Change) };
        let used = Used {
            pods: ctx.stores.pods.list_in(&key.namespace),
            services: ctx.stores.services.list_in(&key.namespace),
            claims: ctx.stores.claims.list_in(&key.namespace),
        };
        ctx.execute(reconcile(&quota, &used), None).await
    });
}

/// What a namespace holds.
#[derive(Default)]
pub struct Used {
    pub pods: Vec<Arc<Pod>>,
    pub services: Vec<Arc<Service>>,
    pub claims: Vec<Arc<PersistentVolumeClaim>>,
}

pub fn reconcile(quota: &ResourceQuota, used: &Used) -> Plan {
    let mut plan = Plan::default();
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default();
    // Scopes choose among pods, which admission does with the whole pod before it.
    let scoped =
        quota.spec.as_ref().is_some_and(|spec| spec.scopes.is_some() || spec.scope_selector.is_some());
    let known = quota.status.as_ref().and_then(|status| status.used.clone()).unwrap_or_default();
    let count = |name: &String| {
        let counted = if scoped { None } else { used.amount(name).map(|amount| Text(amount.to_string())) };
        counted.or_else(|| known.get(name).cloned()).unwrap_or_else(|| Text("0".into()))
    };
    let amounts: BTreeMap<_, _> = hard.keys().map(|name| (name.clone(), count(name))).collect();
    let status = ResourceQuotaStatus { hard: Some(hard), used: Some(amounts) };
    plan.then(status_patch(&RESOURCE_QUOTA, &quota.metadata, &quota.status, &status));
    plan
}

impl Used {
    /// How much of a quota's resource is used; `None` for what is not counted here.
    fn amount(&self, name: &str) -> Option<Quantity> {
        let kind = |service: &Service| service.spec.as_ref().and_then(|spec| spec.type_.clone());
        match name {
            "pods" | "count/pods" => Some(count(self.live().count())),
            "services" | "count/services" => Some(count(self.services.len())),
            "services.loadbalancers" => Some(count(
                self.services
                    .iter()
                    .filter(|service| kind(service).as_deref() == Some("LoadBalancer"))
                    .count(),
            )),
            "services.nodeports" => Some(count(
                self.services
                    .iter()
                    .filter(|service| matches!(kind(service).as_deref(), Some("NodePort" | "LoadBalancer")))
                    .count(),
            )),
            "persistentvolumeclaims" | "count/persistentvolumeclaims" => Some(count(self.claims.len())),
            "requests.storage" => Some(sum(self.claims.iter().filter_map(|claim| {
                claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage")
            }))),
            "cpu" | "memory" | "ephemeral-storage" => Some(self.of_containers("requests", name)),
            _ => {
                let (which, resource) = name.split_once('.')?;
                matches!(which, "requests" | "limits").then(|| self.of_containers(which, resource))
            }
        }
    }

    fn live(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.iter().filter(|pod| !pods::is_finished(pod))
    }

    fn of_containers(&self, which: &str, resource: &str) -> Quantity {
        let of = |container: &Container| {
            let resources = container.resources.as_ref()?;
            let amounts =
                if which == "limits" { resources.limits.as_ref() } else { resources.requests.as_ref() };
            Quantity::parse(&amounts?.get(resource)?.0).ok()
        };
        let of_pod = |pod: &Arc<Pod>| {
            let Some(spec) = &pod.spec else { return Quantity::ZERO };
            let running =
                spec.containers.iter().filter_map(of).fold(Quantity::ZERO, |sum, amount| sum + amount);
            let at_start =
                spec.init_containers.iter().flatten().filter_map(of).max().unwrap_or(Quantity::ZERO);
            running.max(at_start)
        };
        self.live().map(of_pod).fold(Quantity::ZERO, |sum, amount| sum + amount)
    }
}

fn count(number: usize) -> Quantity {
    Quantity::from_units(i64::try_from(number).unwrap_or(i64::MAX))
}

fn sum<'a>(texts: impl Iterator<Item = &'a Text>) -> Quantity {
    texts.filter_map(|text| Quantity::parse(&text.0).ok()).fold(Quantity::ZERO, |sum, amount| sum + amount)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Action;
    use crate::testing::{object, pod};
    use serde_json::json;

    #[test]
    fn what_lives_is_counted() {
        let quota: ResourceQuota = object(
            json!({ "metadata": { "name": "q" }, "spec": { "hard": { "pods": "9", "requests.cpu": "4", "count/secrets": "5" } } }),
        );
        let spec = json!({ "containers": [{ "name": "c", "resources": { "requests": { "cpu": "500m" } } }] });
        let member = |phase: &str| {
            Arc::new(pod(json!({ "metadata": {}, "spec": spec, "status": { "phase": phase } })))
        };
        let used =
            Used { pods: vec![member("Running"), member("Pending"), member("Succeeded")], ..Used::default() };
        let plan = reconcile(&quota, &used);
        let Some(Action::Patch { patch, .. }) = plan.actions().next() else { panic!("a status is written") };
        assert_eq!(
            patch["status"]["used"],
            json!({ "pods": "2", "requests.cpu": "1", "count/secrets": "0" })
        );
    }
}
