//! The shell around the decision: keeps the core up to date, tries one pod after the other, carries out what was decided.

mod bind;

use crate::decide::{Budget, Placement, Preemption, Refusal, decide};
use crate::filter::Cure;
use crate::pod::PodInfo;
use crate::queue::Queue;
use crate::snapshot::Snapshot;
use crate::volumes::{self, Known};
use coracle_client::{Change, EventType, Key, Recorder, Reflector, Scope, Store};
use coracle_daemon::clock::{self, Instant, rfc3339_seconds};
use coracle_daemon::random;
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::{Selector, SelectorExt};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::{Notify, Semaphore, watch};

/// Bindings and status updates under way at a time.
const PARALLEL: usize = 64;
/// Pods that will never need a node again are not watched.
const UNFINISHED: &str = "status.phase!=Succeeded,status.phase!=Failed";

#[derive(Default)]
struct Core {
    snapshot: Snapshot,
    queue: Queue,
}

/// What tasks share.
#[derive(Clone)]
struct Cluster {
    client: kube::Client,
    scope: Scope,
    recorder: Recorder,
    name: Arc<str>,
    core: Arc<Mutex<Core>>,
    wake: Arc<Notify>,
    permits: Arc<Semaphore>,
    claims: Store<PersistentVolumeClaim>,
    volumes: Store<PersistentVolume>,
    classes: Store<StorageClass>,
    /// Ticks whenever a claim changes.
    claims_moved: Arc<watch::Sender<()>>,
    budgets: Store<PodDisruptionBudget>,
}

/// Starts watching and scheduling, until the scope ends.
pub fn start(client: &kube::Client, scope: &Scope, name: &str) {
    let api = || client.clone();
    let nodes: Store<Node> = Reflector::new(Api::all(api())).start(scope);
    let pods: Store<Pod> = Reflector::new(Api::all(api())).fields(UNFINISHED).start(scope);
    let namespaces: Store<Namespace> = Reflector::new(Api::all(api())).start(scope);
    let cluster = Cluster {
        client: client.clone(),
        scope: scope.clone(),
        recorder: Recorder::new(client.clone(), name, None, scope),
        name: name.into(),
        core: Arc::default(),
        wake: Arc::default(),
        permits: Arc::new(Semaphore::new(PARALLEL)),
        claims: Reflector::new(Api::all(api())).start(scope),
        volumes: Reflector::new(Api::all(api())).start(scope),
        classes: Reflector::new(Api::all(api())).start(scope),
        claims_moved: Arc::new(watch::Sender::new(())),
        budgets: Reflector::new(Api::all(api())).start(scope),
    };
    scope.spawn("scheduling", async move {
        // Deciding on half a cluster would fill the half that is known.
        nodes.synced().await;
        namespaces.synced().await;
        pods.synced().await;
        cluster.claims.synced().await;
        cluster.volumes.synced().await;
        cluster.classes.synced().await;
        cluster.follow(&nodes, &pods, &namespaces);
        cluster.schedule_all().await;
    });
}

impl Cluster {
    fn follow(&self, nodes: &Store<Node>, pods: &Store<Pod>, namespaces: &Store<Namespace>) {
        let this = self.clone();
        namespaces.on_change(move |change| {
            let labels =
                change.new.as_ref().map(|namespace| namespace.metadata.labels.clone().unwrap_or_default());
            let known = &mut this.core.lock().snapshot.namespaces;
            match labels {
                Some(labels) => known.insert(change.key.name.clone(), labels),
                None => known.remove(&change.key.name),
            };
        });
        let this = self.clone();
        nodes.on_change(move |change| this.node_changed(change));
        let this = self.clone();
        pods.on_change(move |change| this.pod_changed(change));
        let this = self.clone();
        self.claims.on_change(move |_| {
            this.claims_moved.send_replace(());
            this.wake(&[Cure::Volume]);
        });
        let this = self.clone();
        self.classes.on_change(move |_| this.wake(&[Cure::Volume]));
        let this = self.clone();
        self.volumes.on_change(move |_| this.wake(&[Cure::Volume]));
    }

    fn wake(&self, cures: &[Cure]) {
        let mut core = self.core.lock();
        for cure in cures {
            core.queue.wake(*cure, Instant::now());
        }
        self.wake.notify_one();
    }

    fn node_changed(&self, change: &Change<Node>) {
        match &change.new {
            None => self.core.lock().snapshot.remove_node(&change.key.name),
            Some(node) => {
                // A heartbeat helps nobody.
                let told = |node: &Node| {
                    let spec = node.spec.clone().unwrap_or_default();
                    let room = node.status.as_ref().and_then(|status| status.allocatable.clone());
                    (node.metadata.labels.clone(), spec.taints, spec.unschedulable, room)
                };
                if change.old.as_ref().is_some_and(|old| told(old) == told(node)) {
                    return;
                }
                self.core.lock().snapshot.set_node(node);
                self.wake(&[Cure::Node]);
            }
        }
    }

    fn pod_changed(&self, change: &Change<Pod>) {
        let Some(pod) = &change.new else { return self.pod_left(&change.key) };
        let info = Arc::new(PodInfo::of(pod));
        let mut core = self.core.lock();
        let Core { snapshot, queue } = &mut *core;
        if !info.node.is_empty() {
            queue.remove(&info.key);
            let node = info.node.clone();
            let known = snapshot.node(&node).and_then(|node| node.pods.get(&info.key));
            // A status that changes, which is what most changes are, helps nobody.
            let news = [
                (Cure::Company, known.is_none_or(|known| known.labels != info.labels)),
                (Cure::Room, known.is_some_and(|known| known.requests != info.requests)),
            ];
            snapshot.place(info, &node);
            for (cure, _) in news.into_iter().filter(|(_, happened)| *happened) {
                queue.wake(cure, Instant::now());
            }
        } else if info.is_pending(&self.name) {
            // Assumed pods are told of once more before their binding is: they keep their place.
            if !snapshot.is_placed(&info.key) {
                let spec_changed = change
                    .old
                    .as_ref()
                    .is_none_or(|old| old.spec != pod.spec || old.metadata.labels != pod.metadata.labels);
                snapshot.nominate(info.clone());
                queue.set(info, spec_changed, Instant::now());
            }
        } else {
            queue.remove(&info.key);
        }
        drop(core);
        self.wake.notify_one();
    }

    fn pod_left(&self, key: &Key) {
        let mut core = self.core.lock();
        core.queue.remove(key);
        core.snapshot.remove_pod(key);
        drop(core);
        self.wake(&[Cure::Room, Cure::Company]);
    }

    async fn schedule_all(&self) {
        loop {
            let due = {
                let mut core = self.core.lock();
                let now = Instant::now();
                match core.queue.pop(now) {
                    Some(pod) => {
                        self.schedule(&mut core, &pod);
                        continue;
                    }
                    None => core.queue.next_due(),
                }
            };
            match due {
                Some(at) => tokio::select! {
                    () = clock::sleep_until(at) => {}
                    () = self.wake.notified() => {}
                },
                None => self.wake.notified().await,
            }
        }
    }

    /// Decides about one pod and starts what follows from it.
    fn schedule(&self, core: &mut Core, pod: &Arc<PodInfo>) {
        let (pod, placement) = match self.with_volumes(pod) {
            Err(message) => {
                let nodes = core.snapshot.nodes().count();
                let message = format!(
                    "0/{nodes} nodes are available: {message}. preemption: 0/{nodes} nodes are available: {nodes} Preemption is not helpful for scheduling."
                );
                let refusal = Refusal { message, cures: [Cure::Volume].into(), preemption: None };
                (pod.clone(), Placement::Refused(refusal))
            }
            Ok(pod) => {
                let budgets = self.disruption_budgets(core, &pod);
                let placement = decide(&core.snapshot, &pod, &budgets, random::u64());
                (pod, placement)
            }
        };
        match placement {
            Placement::Bind(node) => {
                let labels = core.snapshot.node(&node).map(|node| node.labels.clone()).unwrap_or_default();
                // The node has just been found to fit.
                let writes = pod.volumes.on(&node, &labels).unwrap_or_default();
                core.snapshot.place(pod.clone(), &node);
                let this = self.clone();
                self.scope.spawn("binding", async move { this.bind(&pod, writes, &node).await });
            }
            Placement::Refused(refusal) => {
                core.queue.park(&pod.key, refusal.cures.clone());
                let nominated = refusal.preemption.as_ref().map(|preemption| preemption.node.clone());
                if let Some(node) = &nominated {
                    let mut nominee = PodInfo::clone(&pod);
                    nominee.nominated.clone_from(node);
                    core.snapshot.nominate(Arc::new(nominee));
                }
                let this = self.clone();
                self.scope.spawn("refusal", async move { this.refuse(&pod, refusal).await });
            }
        }
    }

    /// The pod, with what its claims say of nodes.
    fn with_volumes(&self, pod: &Arc<PodInfo>) -> Result<Arc<PodInfo>, String> {
        if pod.claims.is_empty() {
            return Ok(pod.clone());
        }
        let known = Known { claims: &self.claims, volumes: &self.volumes, classes: &self.classes };
        let own = |name: &str| pod.own_claims.contains(name);
        let volumes = volumes::look(&known, &pod.key.namespace, &pod.claims, own)?;
        Ok(Arc::new(PodInfo { volumes, ..PodInfo::clone(pod) }))
    }

    /// Budgets matter to those who may send others away only.
    fn disruption_budgets(&self, core: &Core, pod: &PodInfo) -> Vec<Budget> {
        if pod.priority <= 0 || self.budgets.is_empty() {
            return Vec::new();
        }
        let budget = |budget: &Arc<PodDisruptionBudget>| {
            let selector = Selector::try_from(budget.spec.as_ref()?.selector.clone()?).ok()?;
            let covered = core.snapshot.nodes().flat_map(|node| node.pods.values()).filter(|pod| {
                Some(&pod.key.namespace) == budget.metadata.namespace.as_ref()
                    && selector.matches(&pod.labels)
            });
            let allowed = budget.status.as_ref().map_or(0, |status| i64::from(status.disruptions_allowed));
            Some(Budget { pods: covered.map(|pod| pod.key.clone()).collect(), allowed })
        };
        self.budgets.list().iter().filter_map(budget).collect()
    }

    async fn refuse(&self, pod: &PodInfo, refusal: Refusal) {
        let Ok(_permit) = self.permits.acquire().await else { return };
        self.recorder.event(&pod.id, EventType::Warning, "FailedScheduling", refusal.message.clone());
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.key.namespace);
        if let Some(patch) = refusal_patch(pod, &refusal, clock::now())
            && let Err(error) =
                api.patch_status(&pod.key.name, &PatchParams::default(), &Patch::Merge(patch)).await
        {
            tracing::debug!(pod = %pod.key, %error, "refusal not told");
        }
        if let Some(preemption) = &refusal.preemption {
            self.make_room(pod, preemption).await;
        }
    }

    async fn make_room(&self, pod: &PodInfo, preemption: &Preemption) {
        for victim in &preemption.victims {
            let found = self
                .core
                .lock()
                .snapshot
                .node(&preemption.node)
                .and_then(|node| node.pods.get(victim).cloned());
            let Some(victim) = found.filter(|victim| !victim.terminating) else { continue };
            let api: Api<Pod> = Api::namespaced(self.client.clone(), &victim.key.namespace);
            let message = format!("{}: preempting to accommodate a higher priority pod", self.name);
            let mut conditions = conditions_but(&victim, "DisruptionTarget");
            conditions.push(condition(
                "DisruptionTarget",
                "True",
                "PreemptionByScheduler",
                &message,
                clock::now(),
            ));
            let patch =
                json!({ "metadata": { "uid": victim.id.uid }, "status": { "conditions": conditions } });
            if let Err(error) =
                api.patch_status(&victim.key.name, &PatchParams::default(), &Patch::Merge(patch)).await
            {
                tracing::debug!(pod = %victim.key, %error, "victim not marked");
            }
            let params = DeleteParams {
                preconditions: Some(Preconditions {
                    uid: Some(victim.id.uid.clone()),
                    resource_version: None,
                }),
                ..DeleteParams::default()
            };
            match api.delete(&victim.key.name, &params).await {
                Ok(_) => {
                    let message = format!("Preempted by pod {} on node {}", pod.id.uid, preemption.node);
                    self.recorder.event(&victim.id, EventType::Normal, "Preempted", message);
                }
                Err(error) => tracing::debug!(pod = %victim.key, %error, "victim not deleted"),
            }
        }
    }
}

fn conditions_but(pod: &PodInfo, kind: &str) -> Vec<Value> {
    let others = pod.conditions.iter().filter(|condition| condition.type_ != kind);
    others.filter_map(|condition| serde_json::to_value(condition).ok()).collect()
}

fn condition(kind: &str, status: &str, reason: &str, message: &str, now: jiff::Timestamp) -> Value {
    json!({ "type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": rfc3339_seconds(now) })
}

/// What to write to a refused pod's status; `None` when it says so already.
fn refusal_patch(pod: &PodInfo, refusal: &Refusal, now: jiff::Timestamp) -> Option<Value> {
    let nominated = refusal.preemption.as_ref().map(|preemption| preemption.node.as_str());
    let old = pod.conditions.iter().find(|condition| condition.type_ == "PodScheduled");
    let same = old.is_some_and(|old| {
        old.reason.as_deref() == Some("Unschedulable") && old.message.as_ref() == Some(&refusal.message)
    });
    if same && nominated.is_none_or(|node| node == pod.nominated) {
        return None;
    }
    let since = old
        .filter(|old| old.status == "False")
        .and_then(|old| old.last_transition_time.as_ref())
        .map_or(now, |at| at.0);
    let mut conditions = conditions_but(pod, "PodScheduled");
    conditions.push(condition("PodScheduled", "False", "Unschedulable", &refusal.message, since));
    let mut patch = json!({ "metadata": { "uid": pod.id.uid }, "status": { "conditions": conditions } });
    if let Some(node) = nominated {
        patch["status"]["nominatedNodeName"] = json!(node);
    }
    Some(patch)
}
