//! StatefulSets: pods with names and claims of their own, made, updated and removed in order.
//!
//! In: a StatefulSet, its pods, revisions and claims. Out: one step: a pod (with its claims) to create or delete, the
//! status. In order means: the next step only when every pod before is available.

mod retention;

use crate::context::Context;
use crate::execute::Tracked;
use crate::expectations::Expectations;
use crate::history::{self, HASH_LABEL};
use crate::ownership::{claim, selector};
use crate::plan::{Action, PERSISTENT_VOLUME_CLAIM, POD, Plan, STATEFUL_SET, status_patch};
use crate::pods::{self, unless_zero};
use crate::stores::{BY_OWNER, candidates};
use crate::wake::owners_of_pods;
use coracle_client::controller::{Next, ReconcileError};
use coracle_client::{Key, ObjectId, Queue};
use coracle_daemon::clock;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

pub fn start(ctx: &Context) {
    let queue = Queue::new();
    let wake = queue.clone();
    ctx.stores.stateful_sets.on_change(move |change| wake.add(change.key.clone()));
    let expectations = Arc::new(Expectations::default());
    owners_of_pods(
        &ctx.stores.pods,
        &queue,
        "StatefulSet",
        &expectations,
        &ctx.stores.stateful_sets,
        |set| Some(selector(&set.spec.as_ref()?.selector)),
    );
    ctx.control("statefulset", queue, 4, move |ctx, key| {
        let expectations = expectations.clone();
        async move { sync(&ctx, &key, &expectations).await }
    });
}

async fn sync(ctx: &Context, key: &Key, expectations: &Expectations) -> Result<Next, ReconcileError> {
    let Some(set) = ctx.stores.stateful_sets.get(key) else { return Ok(Next::Change) };
    let uid = set.metadata.uid.as_deref().unwrap_or_default();
    let pods = candidates(&ctx.stores.pods, uid, &key.namespace);
    let revisions = ctx.stores.revisions.by_index(BY_OWNER, uid);
    let claims = ctx.stores.claims.list_in(&key.namespace).into_iter();
    let claims = claims.map(|claim| (claim.metadata.name.clone().unwrap_or_default(), claim)).collect();
    let observed =
        Cached { pods, revisions: &revisions, claims: &claims, settled: expectations.are_met(key) };
    let plan = reconcile(&set, observed, clock::now());
    ctx.execute(plan, Some(Tracked { expectations, owner: key })).await
}

/// The claims of a namespace, by name.
pub type Claims = BTreeMap<String, Arc<PersistentVolumeClaim>>;

/// What the caches show of a set.
pub struct Cached<'a> {
    /// Pods that are its or might be.
    pub pods: Vec<Arc<Pod>>,
    pub revisions: &'a [Arc<ControllerRevision>],
    pub claims: &'a Claims,
    /// Whether they show all that was done before; without it pods are only counted.
    pub settled: bool,
}

/// What one reconcile works with.
struct Observed<'a> {
    set: &'a StatefulSet,
    spec: &'a StatefulSetSpec,
    owner: ObjectId,
    /// Revision names: of pods that need not be updated yet, and of the template.
    current: String,
    update: String,
    /// By ordinal.
    pods: BTreeMap<i32, Arc<Pod>>,
    revisions: &'a [Arc<ControllerRevision>],
    claims: &'a Claims,
    now: Timestamp,
}

pub fn reconcile(
    set: &StatefulSet,
    Cached { pods, revisions, claims, settled }: Cached<'_>,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = &set.spec else { return plan };
    let owner = ObjectId::of(set);
    let wanted = selector(&spec.selector);
    // A pod of another name is no member, whatever its labels.
    let members = pods.into_iter().filter(|pod| ordinal(&owner.name, pod).is_some()).collect();
    let claimed = claim(&POD, &owner, &set.metadata, wanted.as_ref(), members, None);
    plan.then(claimed.actions);
    let labels = spec.template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
    let update = history::current(&owner, &set.metadata, &spec.template, &labels, revisions);
    plan.then(update.actions);
    let known = set
        .status
        .as_ref()
        .and_then(|status| status.current_revision.clone())
        .filter(|name| !name.is_empty());
    let pods = claimed.mine.into_iter().filter_map(|pod| Some((ordinal(&owner.name, &pod)?, pod))).collect();
    let observed = Observed {
        set,
        spec,
        owner,
        current: known.unwrap_or_else(|| update.name.clone()),
        update: update.name,
        pods,
        revisions,
        claims,
        now,
    };
    let status = observed.status();
    let used = observed
        .pods
        .values()
        .map(|pod| revision(pod))
        .chain([observed.current.clone(), observed.update.clone()])
        .collect();
    plan.then(status_patch(&STATEFUL_SET, &set.metadata, &set.status, &status));
    plan.then(history::forget(revisions, &used, spec.revision_history_limit.unwrap_or(10)));
    plan.then(retention::owners_of_claims(&observed));
    // Last, for a pod may be refused, which must not hold up the status.
    if settled && set.metadata.deletion_timestamp.is_none() {
        observed.advance(&mut plan);
    }
    plan
}

fn ordinal(set: &str, pod: &Pod) -> Option<i32> {
    pod.metadata
        .name
        .as_deref()?
        .strip_prefix(set)?
        .strip_prefix('-')?
        .parse()
        .ok()
        .filter(|ordinal| *ordinal >= 0)
}

fn revision(pod: &Pod) -> String {
    pod.metadata.labels.as_ref().and_then(|labels| labels.get(HASH_LABEL).cloned()).unwrap_or_default()
}

impl Observed<'_> {
    fn first(&self) -> i32 {
        self.spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0)
    }

    fn ordinals(&self) -> std::ops::Range<i32> {
        self.first()..self.first() + self.spec.replicas.unwrap_or(1)
    }

    fn in_order(&self) -> bool {
        self.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    fn partition(&self) -> i32 {
        let strategy = self.spec.update_strategy.as_ref();
        strategy.and_then(|strategy| strategy.rolling_update.as_ref()?.partition).unwrap_or(0)
    }

    fn is_available(&self, pod: &Pod) -> Result<(), Option<std::time::Duration>> {
        if !pods::is_active(pod) {
            return Err(None);
        }
        pods::availability(pod, self.spec.min_ready_seconds.unwrap_or(0), self.now)
    }

    /// Fills gaps, then removes what is too many, then updates; in order one step at a time.
    fn advance(&self, plan: &mut Plan) {
        let mut waiting = false;
        for ordinal in self.ordinals() {
            match self.pods.get(&ordinal) {
                None => {
                    plan.then(self.create_claims(ordinal));
                    plan.then([pods::create(self.pod(ordinal), &self.owner)]);
                    waiting = true;
                }
                Some(pod) if pods::is_terminating(pod) => waiting = true,
                Some(pod) if pods::is_finished(pod) => {
                    plan.then([pods::delete(pod, &self.owner)]);
                    waiting = true;
                }
                Some(pod) => {
                    if let Err(left) = self.is_available(pod) {
                        plan.look_again(left);
                        waiting = true;
                    }
                }
            }
            if waiting && self.in_order() {
                return;
            }
        }
        let surplus = self.pods.iter().rev().filter(|(ordinal, _)| !self.ordinals().contains(ordinal));
        let mut any = false;
        for (_, pod) in surplus {
            any = true;
            if !pods::is_terminating(pod) {
                plan.then([pods::delete(pod, &self.owner)]);
            }
            if self.in_order() {
                return;
            }
        }
        if !any {
            self.update_one(plan);
        }
    }

    /// Replaces the last pod that is not of the new revision, once all after it are available.
    fn update_one(&self, plan: &mut Plan) {
        if self.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref())
            == Some("OnDelete")
        {
            return;
        }
        for ordinal in self.ordinals().rev().filter(|ordinal| *ordinal >= self.first() + self.partition()) {
            let Some(pod) = self.pods.get(&ordinal) else { return };
            if pods::is_terminating(pod) {
                return;
            }
            if revision(pod) != self.update {
                plan.then([pods::delete(pod, &self.owner)]);
                return;
            }
            if let Err(left) = self.is_available(pod) {
                plan.look_again(left);
                return;
            }
        }
    }

    fn claim_name(&self, template: &str, ordinal: i32) -> String {
        format!("{template}-{}-{ordinal}", self.owner.name)
    }

    fn create_claims(&self, ordinal: i32) -> Vec<Action> {
        let mut actions = Vec::new();
        for template in self.spec.volume_claim_templates.iter().flatten() {
            let meta = &template.metadata;
            let name = self.claim_name(meta.name.as_deref().unwrap_or_default(), ordinal);
            if self.claims.contains_key(&name) {
                continue;
            }
            let mut labels = meta.labels.clone().unwrap_or_default();
            labels.extend(self.spec.selector.match_labels.clone().unwrap_or_default());
            let body = json!({
                "metadata": { "name": name, "namespace": self.owner.namespace, "labels": labels, "annotations": meta.annotations },
                "spec": template.spec,
            });
            actions.push(Action::Ensure { resource: &PERSISTENT_VOLUME_CLAIM, body });
        }
        actions
    }

    fn pod(&self, ordinal: i32) -> Value {
        let name = format!("{}-{ordinal}", self.owner.name);
        let is_old = self.current != self.update && ordinal < self.first() + self.partition();
        let old = self
            .revisions
            .iter()
            .find(|revision| is_old && revision.metadata.name.as_ref() == Some(&self.current));
        let old = old.and_then(|revision| history::template(revision));
        let revision = if old.is_some() { &self.current } else { &self.update };
        let mut pod = pods::from_template(old.as_ref().unwrap_or(&self.spec.template), &self.owner);
        pod["metadata"].as_object_mut().map(|meta| meta.remove("generateName"));
        pod["metadata"]["name"] = json!(name);
        pod["metadata"]["labels"][HASH_LABEL] = json!(revision);
        pod["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"] = json!(name);
        pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"] = json!(ordinal.to_string());
        pod["spec"]["hostname"] = json!(name);
        pod["spec"]["subdomain"] = json!(self.spec.service_name);
        let claims: Vec<_> = self
            .spec
            .volume_claim_templates
            .iter()
            .flatten()
            .filter_map(|claim| claim.metadata.name.clone())
            .collect();
        let mut volumes = pod["spec"]["volumes"].as_array().cloned().unwrap_or_default();
        volumes.retain(|volume| !claims.iter().any(|claim| volume["name"] == **claim));
        volumes.extend(claims.iter().map(|claim| {
            json!({ "name": claim, "persistentVolumeClaim": { "claimName": self.claim_name(claim, ordinal) } })
        }));
        if !volumes.is_empty() {
            pod["spec"]["volumes"] = json!(volumes);
        }
        pod
    }

    fn status(&self) -> StatefulSetStatus {
        let old = self.set.status.clone().unwrap_or_default();
        let live: Vec<_> = self.pods.values().filter(|pod| !pods::is_finished(pod)).cloned().collect();
        let of = |name: &str| pods::count(&live, |pod| !pods::is_terminating(pod) && revision(pod) == name);
        let ready = pods::count(&live, |pod| !pods::is_terminating(pod) && pods::is_ready(pod));
        let total = self.spec.replicas.unwrap_or(1);
        let mut status = StatefulSetStatus {
            replicas: pods::count(&live, |_| true),
            ready_replicas: unless_zero(ready),
            available_replicas: Some(pods::count(&live, |pod| self.is_available(pod).is_ok())),
            current_replicas: unless_zero(of(&self.current)),
            updated_replicas: unless_zero(of(&self.update)),
            current_revision: Some(self.current.clone()),
            update_revision: Some(self.update.clone()),
            observed_generation: self.set.metadata.generation,
            collision_count: old.collision_count.or(Some(0)),
            conditions: old.conditions,
        };
        if of(&self.update) == total && ready == total && status.replicas == total {
            status.current_revision = status.update_revision.clone();
            status.current_replicas = status.updated_replicas;
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, object, pod};

    fn set(replicas: i32, extra: &Value) -> StatefulSet {
        let mut spec = json!({
            "replicas": replicas, "serviceName": "db", "selector": { "matchLabels": { "app": "db" } },
            "template": { "metadata": { "labels": { "app": "db" } }, "spec": { "containers": [{ "name": "c", "image": "new" }] } },
            "volumeClaimTemplates": [{ "metadata": { "name": "data" }, "spec": {} }],
        });
        for (key, value) in extra.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        object(json!({ "metadata": { "name": "db", "namespace": "ns", "uid": "s" }, "spec": spec }))
    }

    /// `ordinal revision state`, where the revision is `new` or `old`, the state `ready`, `unready` or `leaving`.
    fn member(words: &str, new: &str) -> Arc<Pod> {
        let words: Vec<_> = words.split(' ').collect();
        let owner = json!([{ "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "s", "controller": true }]);
        let revision = if words[1] == "new" { new } else { "db-old" };
        let ready = if words[2] == "ready" { "True" } else { "False" };
        let mut value = json!({
            "metadata": { "name": format!("db-{}", words[0]), "namespace": "ns", "uid": words[0], "ownerReferences": owner, "labels": { "app": "db", HASH_LABEL: revision } },
            "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": ready }] },
        });
        if words[2] == "leaving" {
            value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        Arc::new(pod(value))
    }

    fn steps(set: &StatefulSet, members: &[&str]) -> Vec<String> {
        steps_of(set, members, true)
    }

    fn steps_of(set: &StatefulSet, members: &[&str], settled: bool) -> Vec<String> {
        let owner = ObjectId::of(set);
        let template = &set.spec.as_ref().expect("a spec").template;
        let labels = BTreeMap::from([("app".to_owned(), "db".to_owned())]);
        let new = history::current(&owner, &set.metadata, template, &labels, &[]).name;
        let pods = members.iter().map(|words| member(words, &new)).collect();
        let cached = Cached { pods, revisions: &[], claims: &Claims::new(), settled };
        let plan = reconcile(set, cached, at("2026-01-01T00:00:00Z"));
        let words = plan.actions().filter_map(|action| match action {
            Action::Create { body, .. } => Some(format!("+{}", body["metadata"]["name"].as_str()?)),
            Action::Ensure { resource, body } if **resource == PERSISTENT_VOLUME_CLAIM => {
                Some(format!("claim {}", body["metadata"]["name"].as_str()?))
            }
            Action::Delete { resource, key, .. } if **resource == POD => Some(format!("-{}", key.name)),
            _ => None,
        });
        words.collect()
    }

    #[test]
    fn pods_come_one_after_the_other_with_their_claims() {
        let three = set(3, &json!({}));
        assert_eq!(steps(&three, &[]), ["claim data-db-0", "+db-0"]);
        assert!(steps(&three, &["0 new unready"]).is_empty());
        assert_eq!(steps(&three, &["0 new ready"]), ["claim data-db-1", "+db-1"]);
    }

    #[test]
    fn nothing_is_made_or_removed_before_the_cache_shows_what_was_done_last() {
        assert!(steps_of(&set(3, &json!({})), &[], false).is_empty());
        assert!(steps_of(&set(1, &json!({})), &["0 new ready", "1 new ready"], false).is_empty());
    }

    #[test]
    fn in_parallel_all_come_at_once() {
        let three = set(3, &json!({ "podManagementPolicy": "Parallel", "volumeClaimTemplates": [] }));
        assert_eq!(steps(&three, &["1 new unready"]), ["+db-0", "+db-2"]);
    }

    #[test]
    fn the_last_go_first() {
        assert_eq!(steps(&set(1, &json!({})), &["0 new ready", "1 new ready", "2 new ready"]), ["-db-2"]);
        assert!(steps(&set(1, &json!({})), &["0 new ready", "1 new ready", "2 new leaving"]).is_empty());
    }

    #[test]
    fn an_update_goes_from_the_last_down_to_the_partition() {
        let three = set(3, &json!({}));
        assert_eq!(steps(&three, &["0 old ready", "1 old ready", "2 old ready"]), ["-db-2"]);
        assert_eq!(steps(&three, &["0 old ready", "1 old ready", "2 new ready"]), ["-db-1"]);
        let held = set(
            3,
            &json!({ "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 2 } } }),
        );
        assert!(steps(&held, &["0 old ready", "1 old ready", "2 new ready"]).is_empty());
        let manual = set(3, &json!({ "updateStrategy": { "type": "OnDelete" } }));
        assert!(steps(&manual, &["0 old ready", "1 old ready", "2 old ready"]).is_empty());
    }
}
