//! DaemonSets: one pod on every node that the template allows.
//!
//! In: a DaemonSet, its pods, revisions, all nodes. Out: pods to create and delete, the status. Pods are tied to their
//! node by node affinity, and the scheduler places them, so that they obey the same rules as all others.

use crate::context::Context;
use crate::execute::Tracked;
use crate::expectations::Expectations;
use crate::history::{self, HASH_LABEL};
use crate::ownership::{claim, selector};
use crate::plan::{Action, DAEMON_SET, POD, Plan, status_patch};
use crate::pods::{self, unless_zero};
use crate::stores::{BY_OWNER, candidates};
use crate::wake::owners_of_pods;
use coracle_client::controller::{Next, ReconcileError};
use coracle_client::placement::{NodeTerms, tolerates};
use coracle_client::{Key, ObjectId, Queue};
use coracle_daemon::clock;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod, Toleration};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Taints that daemons live with: (key, effect).
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
const NETWORK_TAINT: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");
/// How old a failed pod must be to be replaced: one that fails at once must not be made over and over.
const FAILED_STAYS_SECONDS: i64 = 10;

pub fn start(ctx: &Context) {
    let (queue, expectations) = (Queue::new(), Arc::new(Expectations::default()));
    let wake = queue.clone();
    ctx.stores.daemon_sets.on_change(move |change| wake.add(change.key.clone()));
    owners_of_pods(&ctx.stores.pods, &queue, "DaemonSet", &expectations, &ctx.stores.daemon_sets, |set| {
        Some(selector(&set.spec.as_ref()?.selector))
    });
    let (wake, sets) = (queue.clone(), ctx.stores.daemon_sets.clone());
    ctx.stores.nodes.on_change(move |change| {
        let told = |node: &Node| (node.metadata.labels.clone(), crate::node::taints(node));
        if let (Some(old), Some(new)) = (&change.old, &change.new)
            && told(old) == told(new)
        {
            return;
        }
        sets.keys().into_iter().for_each(|key| wake.add(key));
    });
    ctx.control("daemonset", queue, 4, move |ctx, key| {
        let expectations = expectations.clone();
        async move { sync(&ctx, &key, &expectations).await }
    });
}

async fn sync(ctx: &Context, key: &Key, expectations: &Expectations) -> Result<Next, ReconcileError> {
    let Some(set) = ctx.stores.daemon_sets.get(key) else { return Ok(Next::Change) };
    let uid = set.metadata.uid.as_deref().unwrap_or_default();
    let pods = candidates(&ctx.stores.pods, uid, &key.namespace);
    let revisions = ctx.stores.revisions.by_index(BY_OWNER, uid);
    let plan =
        reconcile(&set, pods, &revisions, &ctx.stores.nodes.list(), expectations.are_met(key), clock::now());
    ctx.execute(plan, Some(Tracked { expectations, owner: key })).await
}

struct Observed<'a> {
    set: &'a DaemonSet,
    spec: &'a DaemonSetSpec,
    owner: ObjectId,
    hash: String,
    /// Pods by node, and for each node whether one should be started, and may go on.
    nodes: BTreeMap<String, (Vec<Arc<Pod>>, bool, bool)>,
    now: Timestamp,
}

pub fn reconcile(
    set: &DaemonSet,
    candidates: Vec<Arc<Pod>>,
    revisions: &[Arc<ControllerRevision>],
    nodes: &[Arc<Node>],
    settled: bool,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = &set.spec else { return plan };
    let owner = ObjectId::of(set);
    let wanted = selector(&spec.selector);
    let claimed = claim(&POD, &owner, &set.metadata, wanted.as_ref(), candidates, None);
    plan.then(claimed.actions);
    let labels = spec.template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
    let current = history::current(&owner, &set.metadata, &spec.template, &labels, revisions);
    plan.then(current.actions);
    let mut by_node: BTreeMap<String, (Vec<Arc<Pod>>, bool, bool)> = BTreeMap::new();
    for node in nodes {
        let (start, go_on) = allows(spec, node);
        by_node.insert(node.metadata.name.clone().unwrap_or_default(), (Vec::new(), start, go_on));
    }
    for pod in claimed.mine {
        by_node.entry(target(&pod)).or_default().0.push(pod);
    }
    let observed = Observed { set, spec, owner, hash: current.hash, nodes: by_node, now };
    let mut left = None;
    let status = observed.status(&mut left);
    plan.look_again(left);
    plan.then(status_patch(&DAEMON_SET, &set.metadata, &set.status, &status));
    let used = observed
        .nodes
        .values()
        .flat_map(|(pods, ..)| pods)
        .map(|pod| format!("{}-{}", observed.owner.name, hash_of(pod)));
    let used = used.chain([current.name]).collect();
    plan.then(history::forget(revisions, &used, spec.revision_history_limit.unwrap_or(10)));
    // Last, for a pod may be refused, which must not hold up the status.
    if settled && set.metadata.deletion_timestamp.is_none() {
        let placed = observed.place(&mut plan);
        if placed.is_empty() {
            plan.then(observed.update());
        }
        plan.then(placed);
    }
    plan
}

fn hash_of(pod: &Pod) -> &str {
    pod.metadata.labels.as_ref().and_then(|labels| labels.get(HASH_LABEL)).map_or("", String::as_str)
}

/// The node that a pod is on, or is meant for.
fn target(pod: &Pod) -> String {
    let on = pods::node_name(pod);
    if !on.is_empty() {
        return on.to_owned();
    }
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()?.node_affinity.as_ref());
    let required =
        affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    let mut fields = required
        .into_iter()
        .flat_map(|required| &required.node_selector_terms)
        .flat_map(|term| term.match_fields.iter().flatten());
    fields
        .find(|field| field.key == "metadata.name")
        .and_then(|field| field.values.as_ref()?.first().cloned())
        .unwrap_or_default()
}

fn tolerations(spec: &DaemonSetSpec) -> Vec<Toleration> {
    let pod = spec.template.spec.as_ref();
    let mut all = pod.and_then(|pod| pod.tolerations.clone()).unwrap_or_default();
    let own_network = pod.is_some_and(|pod| pod.host_network == Some(true));
    for (key, effect) in TOLERATED.into_iter().chain(own_network.then_some(NETWORK_TAINT)) {
        let added = Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            effect: Some(effect.into()),
            ..Toleration::default()
        };
        if !all.contains(&added) {
            all.push(added);
        }
    }
    all
}

/// Whether a pod should be started on the node, and whether one that is there may go on.
fn allows(spec: &DaemonSetSpec, node: &Node) -> (bool, bool) {
    let Some(pod) = &spec.template.spec else { return (false, false) };
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let fixed_elsewhere = pod.node_name.as_deref().is_some_and(|fixed| !fixed.is_empty() && fixed != name);
    if fixed_elsewhere || !NodeTerms::of(pod).allow(name, &node.metadata.labels.clone().unwrap_or_default()) {
        return (false, false);
    }
    let tolerations = tolerations(spec);
    let taints = crate::node::taints(node);
    let clear = |effects: &[&str]| {
        taints
            .iter()
            .filter(|taint| effects.contains(&taint.effect.as_str()))
            .all(|taint| tolerates(&tolerations, taint))
    };
    (clear(&["NoSchedule", "NoExecute"]), clear(&["NoExecute"]))
}

impl Observed<'_> {
    /// Pods that are missing, too many or failed.
    fn place(&self, plan: &mut Plan) -> Vec<Action> {
        let (mut create, mut delete) = (Vec::new(), Vec::new());
        for (node, (pods, start, go_on)) in &self.nodes {
            let (failed, live): (Vec<_>, Vec<_>) =
                pods.iter().filter(|pod| !pods::is_terminating(pod)).partition(|pod| pods::is_finished(pod));
            if !go_on {
                delete.extend(live.iter().chain(&failed).map(|pod| pods::delete(pod, &self.owner)));
                continue;
            }
            for pod in failed {
                let made = pod.metadata.creation_timestamp.as_ref().map_or(self.now, |at| at.0);
                match pods::until(made, FAILED_STAYS_SECONDS, self.now) {
                    Some(left) => {
                        plan.look_again(Some(left));
                    }
                    None => delete.push(pods::delete(pod, &self.owner)),
                }
            }
            // The pod that is going away must be gone before the next may come.
            if pods.is_empty() && *start {
                create.push(pods::create(self.pod(node), &self.owner));
            }
            let mut surplus = live;
            surplus.sort_by_key(|pod| {
                (!pods::is_ready(pod), pod.metadata.creation_timestamp.as_ref().map(|at| at.0))
            });
            delete.extend(surplus.into_iter().skip(1).map(|pod| pods::delete(pod, &self.owner)));
        }
        delete.extend(create);
        delete
    }

    fn pod(&self, node: &str) -> Value {
        let mut pod = pods::from_template(&self.spec.template, &self.owner);
        pod["metadata"]["labels"][HASH_LABEL] = json!(self.hash);
        pod["spec"]["tolerations"] = json!(tolerations(self.spec));
        let here =
            json!([{ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [node] }] }]);
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        // The template's own terms were checked when the node was chosen.
        pod["spec"]["affinity"]["nodeAffinity"][required] = json!({ "nodeSelectorTerms": here });
        pod
    }

    fn availability(&self, pod: &Pod) -> Result<(), Option<std::time::Duration>> {
        if !pods::is_active(pod) {
            return Err(None);
        }
        pods::availability(pod, self.spec.min_ready_seconds.unwrap_or(0), self.now)
    }

    /// Old pods to replace now: those that serve nobody, and as many others as may be missed.
    fn update(&self) -> Vec<Action> {
        let strategy = self.spec.update_strategy.clone().unwrap_or_default();
        if strategy.type_.as_deref() == Some("OnDelete") {
            return Vec::new();
        }
        let wanted =
            i32::try_from(self.nodes.values().filter(|(_, start, _)| *start).count()).unwrap_or(i32::MAX);
        let most = strategy
            .rolling_update
            .and_then(|rolling| rolling.max_unavailable)
            .unwrap_or(IntOrString::Int(1));
        let mut spare = pods::resolve(&most, wanted, true).max(1);
        let (mut broken, mut working) = (Vec::new(), Vec::new());
        for (pods, start, _) in self.nodes.values() {
            let available = pods.iter().any(|pod| self.availability(pod).is_ok());
            if *start && !available {
                spare -= 1;
            }
            for pod in pods.iter().filter(|pod| !pods::is_terminating(pod) && hash_of(pod) != self.hash) {
                if self.availability(pod).is_ok() { working.push(pod) } else { broken.push(pod) }
            }
        }
        let working = working.into_iter().take(usize::try_from(spare).unwrap_or(0));
        broken.into_iter().chain(working).map(|pod| pods::delete(pod, &self.owner)).collect()
    }

    fn status(&self, look_again: &mut Option<std::time::Duration>) -> DaemonSetStatus {
        let old = self.set.status.clone().unwrap_or_default();
        let mut status = DaemonSetStatus {
            observed_generation: self.set.metadata.generation,
            collision_count: old.collision_count,
            conditions: old.conditions,
            ..DaemonSetStatus::default()
        };
        let (mut updated, mut available) = (0, 0);
        for (pods, start, _) in self.nodes.values() {
            let live: Vec<_> = pods.iter().filter(|pod| !pods::is_finished(pod)).collect();
            if !start {
                status.number_misscheduled += i32::from(!live.is_empty());
                continue;
            }
            status.desired_number_scheduled += 1;
            status.current_number_scheduled += i32::from(!live.is_empty());
            status.number_ready += i32::from(live.iter().any(|pod| pods::is_ready(pod)));
            updated += i32::from(live.iter().any(|pod| hash_of(pod) == self.hash));
            match live.iter().map(|pod| self.availability(pod)).min_by_key(Result::is_err) {
                Some(Ok(())) => available += 1,
                Some(Err(left)) => *look_again = [*look_again, left].into_iter().flatten().min(),
                None => {}
            }
        }
        status.updated_number_scheduled = unless_zero(updated);
        status.number_available = unless_zero(available);
        status.number_unavailable = unless_zero(status.desired_number_scheduled - available);
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, object, pod};

    fn set(extra: &Value) -> DaemonSet {
        let mut spec = json!({
            "selector": { "matchLabels": { "app": "d" } },
            "template": { "metadata": { "labels": { "app": "d" } }, "spec": { "containers": [{ "name": "c", "image": "new" }] } },
        });
        for (key, value) in extra.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        object(json!({ "metadata": { "name": "d", "namespace": "ns", "uid": "d" }, "spec": spec }))
    }

    #[expect(clippy::needless_pass_by_value, reason = "tests read better with json! in place")]
    fn node(name: &str, taints: Value) -> Arc<Node> {
        Arc::new(object(json!({ "metadata": { "name": name }, "spec": { "taints": taints } })))
    }

    /// `node revision state`.
    fn member(words: &str, new: &str) -> Arc<Pod> {
        let words: Vec<_> = words.split(' ').collect();
        let owner = json!([{ "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "d", "controller": true }]);
        let (hash, ready) =
            (if words[1] == "new" { new } else { "old" }, if words[2] == "ready" { "True" } else { "False" });
        Arc::new(pod(json!({
            "metadata": { "name": format!("d-{}", words[0]), "namespace": "ns", "uid": words[0], "ownerReferences": owner, "labels": { "app": "d", HASH_LABEL: hash } },
            "spec": { "containers": [], "nodeName": words[0] },
            "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": ready }] },
        })))
    }

    fn steps(set: &DaemonSet, nodes: &[Arc<Node>], members: &[&str]) -> Vec<String> {
        let labels = BTreeMap::from([("app".to_owned(), "d".to_owned())]);
        let new = history::current(
            &ObjectId::of(set),
            &set.metadata,
            &set.spec.as_ref().expect("a spec").template,
            &labels,
            &[],
        )
        .hash;
        let pods = members.iter().map(|words| member(words, &new)).collect();
        let plan = reconcile(set, pods, &[], nodes, true, at("2026-01-01T00:00:00Z"));
        let words = plan.actions().filter_map(|action| match action {
            Action::Create { body, .. } => {
                let terms = &body["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
                Some(format!("+{}", terms[0]["matchFields"][0]["values"][0].as_str()?))
            }
            Action::Delete { resource, key, .. } if **resource == POD => Some(format!("-{}", key.name)),
            _ => None,
        });
        words.collect()
    }

    #[test]
    fn every_node_that_allows_it_gets_one() {
        let gpu = json!([{ "key": "gpu", "effect": "NoSchedule" }]);
        let cordoned = json!([{ "key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule" }]);
        let nodes = [node("a", json!([])), node("b", gpu), node("c", cordoned)];
        assert_eq!(steps(&set(&json!({})), &nodes, &[]), ["+a", "+c"]);
    }

    #[test]
    fn a_node_that_drives_out_loses_its_pod_and_one_that_only_refuses_keeps_it() {
        let nodes = [
            node("a", json!([{ "key": "x", "effect": "NoExecute" }])),
            node("b", json!([{ "key": "x", "effect": "NoSchedule" }])),
        ];
        assert_eq!(steps(&set(&json!({})), &nodes, &["a new ready", "b new ready"]), ["-d-a"]);
    }

    #[test]
    fn an_update_replaces_the_broken_and_one_more_at_a_time() {
        let nodes = ["a", "b", "c"].map(|name| node(name, json!([])));
        assert_eq!(steps(&set(&json!({})), &nodes, &["a old ready", "b old ready", "c old ready"]), ["-d-a"]);
        assert_eq!(
            steps(&set(&json!({})), &nodes, &["a new unready", "b old ready", "c old ready"]),
            Vec::<String>::new()
        );
        assert_eq!(
            steps(&set(&json!({})), &nodes, &["a old unready", "b old ready", "c old ready"]),
            ["-d-a"]
        );
    }
}
