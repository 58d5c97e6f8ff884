//! Carrying out a placement: the pod's volumes first, then the pod.

use super::Cluster;
use crate::filter::Cure;
use crate::pod::PodInfo;
use crate::volumes::{self, SELECTED_NODE, Write};
use coracle_client::{EventType, Key, errors};
use coracle_daemon::clock::{self, Instant};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a pod that has a node waits for its volumes, as upstream.
const VOLUMES_MAX: Duration = Duration::from_secs(600);

/// Why a pod is not bound.
#[derive(Debug)]
enum Failure {
    /// A call failed; who reads the pod's events learns nothing from it.
    Call(kube::Error),
    /// Its volumes do not come.
    Volumes(String),
}

impl Cluster {
    /// Binds a pod, after `writes`, which bind its volumes.
    pub(super) async fn bind(&self, pod: &PodInfo, writes: Vec<Write>, node: &str) {
        let bound = match self.bind_volumes(pod, &writes, node).await {
            Ok(()) => self.post_binding(pod, node).await.map_err(Failure::Call),
            failed => failed,
        };
        let failure = match bound {
            Ok(()) => {
                let message = format!("Successfully assigned {} to {node}", pod.key);
                self.recorder.event(&pod.id, EventType::Normal, "Scheduled", message);
                return;
            }
            Err(failure) => failure,
        };
        tracing::debug!(pod = %pod.key, node, ?failure, "binding failed");
        if let Failure::Volumes(why) = &failure {
            let message = format!("running PreBind plugin \"VolumeBinding\": binding volumes: {why}");
            self.recorder.event(&pod.id, EventType::Warning, "FailedScheduling", message);
        }
        let mut core = self.core.lock();
        // If the pod turned out to be bound elsewhere, the watch has said or will say so.
        if core.snapshot.place_of(&pod.key) == Some(node) {
            core.snapshot.remove_pod(&pod.key);
        }
        if !matches!(&failure, Failure::Call(error) if errors::is_not_found(error)) {
            core.queue.retry(&pod.key, Instant::now());
        }
        drop(core);
        self.wake(&[Cure::Room]);
    }

    async fn post_binding(&self, pod: &PodInfo, node: &str) -> kube::Result<()> {
        let Ok(_permit) = self.permits.acquire().await else { return Ok(()) };
        let key = &pod.key;
        let body = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": { "name": key.name, "namespace": key.namespace, "uid": pod.id.uid },
            "target": { "apiVersion": "v1", "kind": "Node", "name": node },
        });
        let path = format!("/api/v1/namespaces/{}/pods/{}/binding", key.namespace, key.name);
        let bytes = serde_json::to_vec(&body).map_err(kube::Error::SerdeError)?;
        let request =
            http::Request::post(path).header(http::header::CONTENT_TYPE, "application/json").body(bytes);
        self.client.request::<Value>(request.map_err(kube::Error::HttpError)?).await.map(|_| ())
    }

    async fn bind_volumes(&self, pod: &PodInfo, writes: &[Write], node: &str) -> Result<(), Failure> {
        if writes.is_empty() {
            return Ok(());
        }
        self.write_volumes(writes).await.map_err(Failure::Call)?;
        let bound = clock::timeout(VOLUMES_MAX, self.volumes_bound(pod, node)).await;
        bound
            .unwrap_or_else(|_| Err("timed out waiting for the condition".to_owned()))
            .map_err(Failure::Volumes)
    }

    async fn write_volumes(&self, writes: &[Write]) -> kube::Result<()> {
        let Ok(_permit) = self.permits.acquire().await else { return Ok(()) };
        let params = PatchParams::default();
        for write in writes {
            match write {
                Write::Volume { name, patch } => {
                    let api = Api::<PersistentVolume>::all(self.client.clone());
                    api.patch(name, &params, &Patch::Merge(patch)).await?;
                }
                Write::Claim { key, patch } => {
                    let api = Api::<PersistentVolumeClaim>::namespaced(self.client.clone(), &key.namespace);
                    api.patch(&key.name, &params, &Patch::Merge(patch)).await?;
                }
            }
        }
        Ok(())
    }

    /// Ends when all of the pod's claims are bound, or one of them will not be.
    async fn volumes_bound(&self, pod: &PodInfo, node: &str) -> Result<(), String> {
        let mut moved = self.claims_moved.subscribe();
        let mut selected: BTreeSet<Key> = BTreeSet::new();
        loop {
            moved.mark_unchanged();
            let mut open = false;
            for key in pod.volumes.waiting() {
                let claim = self.claims.get(&key);
                let claim = claim.ok_or_else(|| format!("persistentvolumeclaim {:?} not found", key.name))?;
                if volumes::is_bound(&claim) {
                    continue;
                }
                open = true;
                let notes = claim.metadata.annotations.as_ref();
                if notes.and_then(|notes| notes.get(SELECTED_NODE)).is_some_and(|own| own == node) {
                    selected.insert(key);
                } else if selected.contains(&key) {
                    // Whoever makes volumes says so that it cannot make this one there.
                    return Err(format!("provisioning failed for PVC {:?}", key.name));
                }
            }
            // The sender lives as long as this.
            if !open || moved.changed().await.is_err() {
                return Ok(());
            }
        }
    }
}
