//! The loop over our nodes' pods: each changed pod is stepped, and what the step asks for is done.

use crate::addresses::Addresses;
use crate::node::{Node, Nodes};
use crate::step::{self, Action};
use coracle_client::controller::{self, Next, ReconcileError};
use coracle_client::{Key, Queue, Recorder, Reflector, Scope, Store, errors};
use coracle_daemon::clock::{self, rfc3339_seconds};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// Pods stepped at a time.
const WORKERS: usize = 64;

struct Loop {
    client: kube::Client,
    store: Store<Pod>,
    nodes: Arc<Nodes>,
    addresses: Addresses,
    recorder: Recorder,
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

/// Starts following the pods of `nodes`, all through one watch.
pub fn start(scope: &Scope, client: &kube::Client, nodes: Arc<Nodes>, recorder: Recorder) -> Store<Pod> {
    let selector = match nodes.keys().next() {
        Some(only) if nodes.len() == 1 => format!("spec.nodeName={only}"),
        _ => "spec.nodeName!=".to_owned(),
    };
    let store = Reflector::new(Api::all(client.clone())).fields(selector).start(scope);
    let queue = Queue::new();
    let this = Arc::new(Loop {
        client: client.clone(),
        store: store.clone(),
        nodes,
        addresses: Addresses::default(),
        recorder,
    });
    let (sink, watched) = (queue.clone(), Arc::downgrade(&this));
    store.on_change(move |change| {
        let Some(this) = watched.upgrade() else { return };
        let uid = |pod: &Arc<Pod>| pod.metadata.uid.clone();
        let (old, new) = (change.old.as_ref().and_then(uid), change.new.as_ref().and_then(uid));
        if let Some(gone) = old.filter(|old| new.as_ref() != Some(old)) {
            this.addresses.release(&gone);
        }
        let ours = |pod: &Arc<Pod>| node_of(pod).is_some_and(|node| this.nodes.contains_key(node));
        if change.new.as_ref().is_some_and(ours) {
            sink.add(change.key.clone());
        }
    });
    let loops = this;
    controller::start(scope, "pods", queue, WORKERS, move |key| {
        let this = loops.clone();
        async move { this.handle(&key).await }
    });
    store
}

impl Loop {
    async fn handle(&self, key: &Key) -> Result<Next, ReconcileError> {
        // Not until every pod is known: else a new pod could get the address of one not yet listed.
        self.store.synced().await;
        let Some(pod) = self.store.get(key) else { return Ok(Next::Change) };
        let Some(node) = node_of(&pod).and_then(|name| self.nodes.get(name)) else { return Ok(Next::Change) };
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let address = self.address(&pod, uid, node);
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let done = match step::step(&pod, address, node.address, &rfc3339_seconds(clock::now())) {
            Action::Nothing => Ok(()),
            Action::Report(status) => {
                // The uid keeps the status from a new pod of the same name.
                let patch = json!({ "metadata": { "uid": uid }, "status": status });
                let patch = Patch::Strategic(patch);
                api.patch_status(&key.name, &PatchParams::default(), &patch).await.map(|_| self.tell(&pod))
            }
            Action::Remove => {
                let exactly = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
                let params = DeleteParams::default().grace_period(0).preconditions(exactly);
                api.delete(&key.name, &params).await.map(drop)
            }
        };
        match done {
            Err(error) if errors::is_not_found(&error) || errors::is_conflict(&error) => Ok(Next::Change),
            other => Ok(other.map(|()| Next::Change)?),
        }
    }

    /// The pod's address, unless it needs none any more or its node has none left.
    fn address(&self, pod: &Pod, uid: &str, node: &Node) -> Option<IpAddr> {
        if step::is_over(pod) {
            self.addresses.release(uid);
            return None;
        }
        if pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true) {
            return Some(node.address);
        }
        let had = pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()?.parse::<Ipv4Addr>().ok());
        self.addresses.of(uid, had, node.pod_cidr).map(IpAddr::V4)
    }

    fn tell(&self, pod: &Pod) {
        if step::is_over(pod) || pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some()) {
            return;
        }
        for container in pod.spec.iter().flat_map(|spec| &spec.containers) {
            self.recorder.normal(pod, "Started", format!("Started container {}", container.name));
        }
    }
}
