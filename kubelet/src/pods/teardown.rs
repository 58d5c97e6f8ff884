//! Pods that are on this node but not in the API: found at the start, or deleted by force. Nothing of them stays.

use super::{Entry, Pods, chain, node_of};
use crate::runtime::State;
use coracle_client::Key;
use coracle_client::controller::ReconcileError;
use coracle_daemon::backoff::Backoff;
use coracle_daemon::clock;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// What a container gets whose pod the API has forgotten.
const GRACE: Duration = Duration::from_secs(2);

impl Pods {
    /// Waits for the API's pods, then finds out what is on this node.
    pub(super) async fn recover(&self) {
        self.store.synced().await;
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        let sandboxes = loop {
            match self.runtime.list().await {
                Ok(sandboxes) => break sandboxes,
                Err(error) => {
                    tracing::info!(error = chain(&error), "the runtime is not ready yet");
                    clock::sleep(backoff.next_delay()).await;
                }
            }
        };
        for sandbox in sandboxes {
            let key = Key::new(&*sandbox.namespace, &*sandbox.name);
            self.entries.of(&key, &sandbox.uid, &self.scope);
            if let (Some(IpAddr::V4(address)), Some(node)) =
                (sandbox.address, self.nodes_of(&sandbox.uid, &key))
            {
                self.addresses.of(&sandbox.uid, Some(address), node);
            }
            self.queue.add(key);
        }
        // What runs holds what it asked for before anything new is let in.
        for pod in self.store.list() {
            let started = pod.status.as_ref().is_some_and(|status| status.start_time.is_some());
            if let (Some(uid), Some(node)) =
                (&pod.metadata.uid, node_of(&pod).and_then(|node| self.nodes.get(node)))
                && started
                && !crate::step::is_over(&pod)
                && let Err(refusal) = self.admission.admit(uid, &pod, node, None)
            {
                tracing::warn!(pod = uid, reason = refusal.reason, "a running pod is not counted");
            }
        }
        // Addresses in statuses count too: their pods may be about to start anew.
        for pod in self.store.list() {
            if let Some(node) = node_of(&pod).and_then(|node| self.nodes.get(node))
                && !crate::step::is_over(&pod)
                && pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some())
            {
                self.address(&pod, node);
            }
        }
        self.remove_strays().await;
    }

    /// The range of addresses of the node that a sandbox is on.
    fn nodes_of(&self, uid: &str, key: &Key) -> Option<ipnet::Ipv4Net> {
        let pod = self.store.get(key).filter(|pod| pod.metadata.uid.as_deref() == Some(uid));
        let node = pod.as_ref().and_then(|pod| self.nodes.get(node_of(pod)?));
        let only = || self.nodes.values().next().filter(|_| self.nodes.len() == 1);
        node.or_else(only).map(|node| node.pod_cidr)
    }

    /// Files of pods that are neither in the API nor in the runtime.
    async fn remove_strays(&self) {
        let Some(ground) = &self.ground else { return };
        let known: Vec<String> =
            self.store.list().iter().filter_map(|pod| pod.metadata.uid.clone()).collect();
        let strays = ground
            .files
            .uids()
            .into_iter()
            .filter(|uid| !known.contains(uid) && self.entries.key_of(uid).is_none());
        let (files, strays): (_, Vec<String>) = (ground.files.clone(), strays.collect());
        let removed = tokio::task::spawn_blocking(move || {
            for uid in strays {
                if let Err(error) = files.remove("", "", &uid, false) {
                    tracing::warn!(uid, %error, "files of a pod that is gone stay behind");
                }
            }
        });
        if let Err(error) = removed.await {
            tracing::warn!(%error, "files of pods that are gone stay behind");
        }
    }

    /// Removes whatever is left of a pod that the API does not know any more.
    pub(super) async fn tear_down(&self, entry: &Arc<Entry>) -> Result<(), ReconcileError> {
        let (stops, probes) = {
            let mut work = entry.work.lock();
            (std::mem::take(&mut work.stops), std::mem::take(&mut work.probes))
        };
        stops.into_values().chain(probes.into_values()).for_each(|scope| scope.cancel());
        let sandbox = self.sandbox(&entry.uid).await?;
        if let Some(sandbox) = sandbox {
            let running = sandbox.containers.iter().filter(|one| matches!(one.state, State::Running { .. }));
            let stops = running.map(|container| self.runtime.stop_container(&container.id, GRACE));
            for stopped in futures::future::join_all(stops).await {
                if let Err(error) = stopped {
                    tracing::info!(pod = %entry.key, error = chain(&error), "not stopped; it is removed by force");
                }
            }
            self.runtime.remove_sandbox(&entry.uid).await.map_err(|error| {
                ReconcileError::NotYet(format!(
                    "cannot remove what is left of {}: {}",
                    entry.key,
                    chain(&error)
                ))
            })?;
        }
        self.clean(entry, true).await?;
        self.release(&entry.uid);
        self.entries.forget(entry);
        Ok(())
    }
}
