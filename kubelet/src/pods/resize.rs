//! Carries a resize out: what fits is written into the cgroups, or the container starts anew; what does not is remembered.

use super::act::again;
use super::{Entry, Pods, chain};
use crate::launch::{self, limits};
use crate::node::Node;
use crate::runtime::RuntimeError;
use crate::step::{Change, Held, container_named, later, wanted};
use coracle_daemon::clock;
use k8s_openapi::api::core::v1::Pod;
use std::sync::Arc;
use std::time::Duration;

const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(60);

impl Pods {
    pub(super) async fn resize(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        pod: &Arc<Pod>,
        node: &Node,
        changes: Vec<Change>,
    ) {
        if let Err((reason, message)) = self.admission.resize(&entry.uid, pod, node) {
            let generation = pod.metadata.generation;
            entry.memory.lock().resize = Some(Held::Pending { reason, message, generation });
            return;
        }
        // What it gives up others may be waiting for.
        self.wake_deferred(&self.admission.deferred());
        let before = {
            let mut memory = entry.memory.lock();
            let held = memory.resize.take();
            match held {
                Some(Held::Failed { retry, .. }) => Some(retry),
                _ => None,
            }
        };
        if let Err(error) = self.write_limits(entry, pod, node, changes).await {
            let message = chain(&error);
            tracing::warn!(pod = %entry.key, error = message, "not resized");
            let retry = again(before, RETRY_FIRST, RETRY_MOST);
            entry.memory.lock().resize = Some(Held::Failed { message, retry });
        }
    }

    /// The pod's limits must never be less than its containers': what grows starts with the pod's, what shrinks ends with
    /// them. The kernel refuses what is not possible yet, so both are tried.
    async fn write_limits(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        pod: &Arc<Pod>,
        node: &Node,
        changes: Vec<Change>,
    ) -> Result<(), RuntimeError> {
        let Some(spec) = &pod.spec else { return Ok(()) };
        let around = match &self.ground {
            Some(ground) => ground.around.clone(),
            None => Arc::new(node.surroundings()),
        };
        let sandbox = launch::sandbox(pod, spec, self.address(pod, node), &around);
        if let Err(error) = self.runtime.start_sandbox(&sandbox).await {
            tracing::debug!(pod = %entry.key, error = chain(&error), "the pod's limits come last");
        }
        for change in changes {
            let Some(container) = container_named(spec, &change.name) else { continue };
            if let Some(why) = change.restart {
                let grace = spec.termination_grace_period_seconds.unwrap_or(30);
                let deadline = later(clock::now(), Duration::from_secs(u64::try_from(grace).unwrap_or(0)));
                self.stop(entry, pod, node, (change.name, change.id), deadline, why).await;
                continue;
            }
            let resources = limits::resources(pod, &container, around.memory_bytes);
            self.runtime.update_container(&change.id, &resources).await?;
            entry.memory.lock().resources.insert(change.id, wanted(&container));
        }
        self.runtime.start_sandbox(&sandbox).await
    }

    /// The pod holds nothing any more; those whose resize waits for what it held look again.
    pub(super) fn release(&self, uid: &str) {
        self.addresses.release(uid);
        self.admission.release(uid);
        self.wake_deferred(&self.admission.deferred());
    }

    fn wake_deferred(&self, uids: &[String]) {
        for uid in uids {
            let Some(key) = self.entries.key_of(uid) else { continue };
            for entry in self.entries.under(&key) {
                let mut memory = entry.memory.lock();
                memory.resize.take_if(|held| matches!(held, Held::Pending { .. }));
            }
            self.queue.add(key);
        }
    }
}
