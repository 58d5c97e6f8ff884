//! ResourceQuotas: how much of each is used, for whoever looks and for admission.
//!
//! Pods with their requests and limits are counted as the quota's scopes choose them, claims with their storage, Services
//! by type, and all else, custom resources too, by number.

use crate::context::Context;
use crate::counts::Counts;
use crate::plan::{Plan, RESOURCE_QUOTA, status_patch};
use crate::pods;
use coracle_api::quantity::Quantity;
use coracle_client::controller::Next;
use coracle_client::{Key, Queue};
use k8s_openapi::api::core::v1::{
    Container, PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaStatus, ResourceRequirements,
    ScopedResourceSelectorRequirement, Service,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Stands before the resource in a quota on numbers of objects.
const COUNT: &str = "count/";
/// Stands after a storage class in a quota on what claims of that class ask for.
const STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";

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
        let deadline = |pod: &Option<Arc<Pod>>| pod.as_deref().is_some_and(is_terminating);
        let resized = change.old.as_deref().zip(change.new.as_deref()).is_some_and(is_resized);
        if resized
            || finished(&change.old) != finished(&change.new)
            || deadline(&change.old) != deadline(&change.new)
        {
            wake(&change.key.namespace);
        }
    });
    let wake = wake_all.clone();
    ctx.stores.services.on_change(move |change| wake(&change.key.namespace));
    let wake = wake_all.clone();
    ctx.stores.claims.on_change(move |change| wake(&change.key.namespace));
    ctx.counts.on_change(move |namespace| wake_all(namespace));
    ctx.control("resourcequota", queue, 2, |ctx, key| async move {
        let Some(quota) = ctx.stores.quotas.get(&key) else { return Ok(Next::Change) };
        let used = Used {
            namespace: key.namespace.clone(),
            pods: ctx.stores.pods.list_in(&key.namespace),
            services: ctx.stores.services.list_in(&key.namespace),
            claims: ctx.stores.claims.list_in(&key.namespace),
            counts: ctx.counts.clone(),
        };
        ctx.execute(reconcile(&quota, used), None).await
    });
}

/// Whether a pod's containers ask for other resources than before.
fn is_resized((old, new): (&Pod, &Pod)) -> bool {
    let asked = |pod: &Pod| -> Vec<Option<ResourceRequirements>> {
        let spec = pod.spec.iter();
        let all = spec.flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
        all.map(|container| container.resources.clone()).collect()
    };
    // Resources change with the spec only, and that with the generation.
    old.metadata.generation != new.metadata.generation && asked(old) != asked(new)
}

/// What a namespace holds.
#[derive(Default)]
pub struct Used {
    pub namespace: String,
    pub pods: Vec<Arc<Pod>>,
    pub services: Vec<Arc<Service>>,
    pub claims: Vec<Arc<PersistentVolumeClaim>>,
    pub counts: Counts,
}

pub fn reconcile(quota: &ResourceQuota, mut used: Used) -> Plan {
    let mut plan = Plan::default();
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default();
    let scopes = scopes(quota);
    used.pods.retain(|pod| !pods::is_finished(pod) && scopes.iter().all(|scope| chooses(scope, pod)));
    let known = quota.status.as_ref().and_then(|status| status.used.clone()).unwrap_or_default();
    // What is not counted yet stays as admission wrote it.
    let count = |name: &String| {
        let counted = used.amount(name).map(|amount| Text(amount.to_string()));
        counted.or_else(|| known.get(name).cloned()).unwrap_or_else(|| Text("0".into()))
    };
    let amounts: BTreeMap<_, _> = hard.keys().map(|name| (name.clone(), count(name))).collect();
    let status = ResourceQuotaStatus { hard: Some(hard), used: Some(amounts) };
    plan.then(status_patch(&RESOURCE_QUOTA, &quota.metadata, &quota.status, &status));
    plan
}

/// The quota's scopes, in the longer of their two forms.
fn scopes(quota: &ResourceQuota) -> Vec<ScopedResourceSelectorRequirement> {
    let Some(spec) = &quota.spec else { return Vec::new() };
    let plain = spec.scopes.iter().flatten().map(|name| ScopedResourceSelectorRequirement {
        scope_name: name.clone(),
        operator: "Exists".into(),
        values: None,
    });
    let selected =
        spec.scope_selector.iter().flat_map(|selector| selector.match_expressions.iter().flatten());
    plain.chain(selected.cloned()).collect()
}

/// Whether a pod ends by itself at some time.
fn is_terminating(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.active_deadline_seconds.is_some())
}

fn is_best_effort(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.qos_class.as_deref()) == Some("BestEffort")
}

fn has_cross_namespace_affinity(pod: &Pod) -> bool {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
    let together = affinity.and_then(|affinity| affinity.pod_affinity.as_ref());
    let apart = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref());
    let required = [
        together.and_then(|terms| terms.required_during_scheduling_ignored_during_execution.as_ref()),
        apart.and_then(|terms| terms.required_during_scheduling_ignored_during_execution.as_ref()),
    ];
    let preferred = [
        together.and_then(|terms| terms.preferred_during_scheduling_ignored_during_execution.as_ref()),
        apart.and_then(|terms| terms.preferred_during_scheduling_ignored_during_execution.as_ref()),
    ];
    let required = required.into_iter().flatten().flatten();
    let preferred = preferred.into_iter().flatten().flatten().map(|weighted| &weighted.pod_affinity_term);
    required.chain(preferred).any(|term| {
        term.namespaces.as_ref().is_some_and(|names| !names.is_empty()) || term.namespace_selector.is_some()
    })
}

fn chooses(scope: &ScopedResourceSelectorRequirement, pod: &Pod) -> bool {
    match scope.scope_name.as_str() {
        "Terminating" => is_terminating(pod),
        "NotTerminating" => !is_terminating(pod),
        "BestEffort" => is_best_effort(pod),
        "NotBestEffort" => !is_best_effort(pod),
        "CrossNamespacePodAffinity" => has_cross_namespace_affinity(pod),
        "PriorityClass" => {
            let class =
                pod.spec.as_ref().and_then(|spec| spec.priority_class_name.as_deref()).unwrap_or_default();
            let named = || scope.values.iter().flatten().any(|value| value == class);
            match scope.operator.as_str() {
                "In" => named(),
                "NotIn" => !named(),
                "Exists" => !class.is_empty(),
                _ => class.is_empty(),
            }
        }
        _ => false,
    }
}

impl Used {
    /// How much of a quota's resource is used; `None` for what is not counted yet.
    fn amount(&self, name: &str) -> Option<Quantity> {
        if let Some((class, what)) = name.split_once(STORAGE_CLASS) {
            return self.of_claims(what, Some(class));
        }
        let of_type = |types: &[&str]| {
            let kind = |service: &Service| service.spec.as_ref().and_then(|spec| spec.type_.clone());
            let counted =
                |service: &&Arc<Service>| kind(service).is_some_and(|kind| types.contains(&kind.as_str()));
            count(self.services.iter().filter(counted).count())
        };
        match name {
            "pods" => Some(count(self.pods.len())),
            "services.loadbalancers" => Some(of_type(&["LoadBalancer"])),
            "services.nodeports" => Some(of_type(&["NodePort", "LoadBalancer"])),
            "persistentvolumeclaims" | "requests.storage" => self.of_claims(name, None),
            "services" | "configmaps" | "secrets" | "replicationcontrollers" | "resourcequotas" => {
                self.counts.get(name, &self.namespace).map(count)
            }
            "cpu" | "memory" | "ephemeral-storage" => Some(self.of_containers("requests", name)),
            _ if name.starts_with("hugepages-") => Some(self.of_containers("requests", name)),
            _ => match name.strip_prefix(COUNT) {
                Some(resource) => self.counts.get(resource, &self.namespace).map(count),
                None => {
                    let (which, resource) = name.split_once('.')?;
                    matches!(which, "requests" | "limits").then(|| self.of_containers(which, resource))
                }
            },
        }
    }

    fn of_claims(&self, what: &str, class: Option<&str>) -> Option<Quantity> {
        let chosen = self.claims.iter().filter(|claim| {
            let own = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
            class.is_none() || own == class
        });
        match what {
            "persistentvolumeclaims" => Some(count(chosen.count())),
            "requests.storage" => Some(sum(chosen.filter_map(|claim| {
                claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage")
            }))),
            _ => None,
        }
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
            let (sidecars, inits): (Vec<_>, Vec<_>) = spec
                .init_containers
                .iter()
                .flatten()
                .partition(|init| init.restart_policy.as_deref() == Some("Always"));
            let beside = sidecars.into_iter().filter_map(of).fold(Quantity::ZERO, |sum, amount| sum + amount);
            let running = spec.containers.iter().filter_map(of).fold(beside, |sum, amount| sum + amount);
            let at_start = inits.into_iter().filter_map(of).max().unwrap_or(Quantity::ZERO);
            running.max(at_start)
        };
        self.pods.iter().map(of_pod).fold(Quantity::ZERO, |sum, amount| sum + amount)
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
    use serde_json::{Value, json};

    #[expect(clippy::needless_pass_by_value, reason = "tests read better with json! in place")]
    fn used(spec: Value) -> Value {
        let quota: ResourceQuota = object(json!({ "metadata": { "name": "q" }, "spec": spec }));
        let member = |phase: &str, class: &str| {
            let spec = json!({ "priorityClassName": class, "containers": [{ "name": "c", "resources": { "requests": { "cpu": "500m" } } }] });
            Arc::new(pod(json!({ "metadata": {}, "spec": spec, "status": { "phase": phase } })))
        };
        let counts = Counts::default();
        counts.note("secrets", "ns", true);
        counts.note("deployments.apps", "ns", true);
        counts.note("deployments.apps", "other", true);
        let claim = json!({ "metadata": {}, "spec": { "storageClassName": "fast", "resources": { "requests": { "storage": "2Gi" } } } });
        let used = Used {
            namespace: "ns".into(),
            pods: vec![member("Running", "high"), member("Pending", ""), member("Succeeded", "high")],
            claims: vec![Arc::new(object(claim))],
            counts,
            ..Used::default()
        };
        let plan = reconcile(&quota, used);
        let Some(Action::Patch { patch, .. }) = plan.actions().next() else { panic!("a status is written") };
        patch["status"]["used"].clone()
    }

    #[test]
    fn a_quota_is_counted_anew_when_a_pod_is_resized_and_not_when_it_is_bound() {
        let of = |generation: i64, cpu: &str, node: &str| {
            let containers = json!([{ "name": "c", "resources": { "requests": { "cpu": cpu } } }]);
            pod(
                json!({ "metadata": { "generation": generation }, "spec": { "nodeName": node, "containers": containers } }),
            )
        };
        let before = of(1, "1", "");
        assert!(is_resized((&before, &of(2, "2", ""))));
        assert!(!is_resized((&before, &of(2, "1", "n"))));
    }

    #[test]
    fn what_lives_is_counted() {
        assert_eq!(
            used(
                json!({ "hard": { "pods": "9", "requests.cpu": "4", "secrets": "5", "count/deployments.apps": "1", "count/nothings": "1" } })
            ),
            json!({ "pods": "2", "requests.cpu": "1", "secrets": "1", "count/deployments.apps": "1", "count/nothings": "0" })
        );
    }

    #[test]
    fn claims_are_counted_by_class() {
        assert_eq!(
            used(
                json!({ "hard": { "requests.storage": "9Gi", "fast.storageclass.storage.k8s.io/requests.storage": "9Gi", "slow.storageclass.storage.k8s.io/persistentvolumeclaims": "1" } })
            ),
            json!({ "requests.storage": "2Gi", "fast.storageclass.storage.k8s.io/requests.storage": "2Gi", "slow.storageclass.storage.k8s.io/persistentvolumeclaims": "0" })
        );
    }

    #[test]
    fn scopes_choose_pods() {
        let selector = json!({ "matchExpressions": [{ "scopeName": "PriorityClass", "operator": "In", "values": ["high"] }] });
        assert_eq!(
            used(json!({ "hard": { "pods": "9" }, "scopeSelector": selector })),
            json!({ "pods": "1" })
        );
        assert_eq!(
            used(json!({ "hard": { "pods": "9" }, "scopes": ["Terminating"] })),
            json!({ "pods": "0" })
        );
    }
}
