//! Does what a step asks for. What takes long is started beside and marks itself in the pod's memory.

use super::{Entry, Pods, chain};
use crate::launch::{self, ConfigError, text};
use crate::logger;
use crate::node::Node;
use crate::runtime::{Sandbox, State};
use crate::step::{self, Action, Retry, Stop, Volumes, later};
use crate::volumes::content::Source;
use crate::volumes::{self, VolumeError};
use crate::{objects, volumes::token};
use coracle_client::controller::ReconcileError;
use coracle_daemon::clock;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Delays between tries at a pod's volumes or sandbox.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MOST: Duration = Duration::from_secs(60);
/// What a container that is to be killed at once still gets.
const GRACE_LEAST: Duration = Duration::from_secs(2);

/// The next try after one that failed.
pub(super) fn again(before: Option<Retry>, first: Duration, most: Duration) -> Retry {
    let delay = before.map_or(first, |retry| (retry.delay * 2).min(most));
    Retry { at: later(clock::now(), delay), delay }
}

impl Pods {
    pub(super) async fn act(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        pod: &Arc<Pod>,
        node: &Node,
        action: Action,
    ) {
        match action {
            Action::PrepareVolumes => self.prepare_volumes(entry, pod, node).await,
            Action::StartSandbox => self.start_sandbox(entry, pod, node).await,
            Action::Image { name, attempt } => self.see_to_image(entry, pod, &name, attempt).await,
            Action::Start { name, attempt, crashes } => {
                self.start_container(entry, pod, node, (&name, attempt, crashes)).await;
            }
            Action::Stop { name, id, deadline, why } => {
                self.stop(entry, pod, node, (name, id), deadline, why).await;
            }
            Action::Resize { changes } => self.resize(entry, pod, node, changes).await,
            Action::RemoveContainer { name, attempt, id } => {
                if let Err(error) = self.runtime.remove_container(&id).await {
                    tracing::warn!(id, error = chain(&error), "container not removed");
                    entry.memory.lock().sandbox_retry = None;
                }
                self.forget_run(entry, pod, &name, attempt, &id);
            }
            Action::RemoveSandbox => self.remove_sandbox(entry, pod).await,
            Action::CleanUp => {
                if let Err(error) = self.clean(entry, false).await {
                    tracing::warn!(pod = %entry.key, %error, "files not removed");
                }
                entry.memory.lock().volumes = Volumes::Unknown;
            }
        }
    }

    fn forget_run(&self, entry: &Entry, pod: &Pod, name: &str, attempt: u32, id: &str) {
        let mut memory = entry.memory.lock();
        memory.messages.remove(id);
        memory.health.remove(id);
        memory.stopping.remove(id);
        memory.restarting.remove(id);
        memory.resources.remove(id);
        drop(memory);
        if let Some(ground) = &self.ground {
            for file in
                [ground.files.log(pod, name, attempt), ground.files.last_words(&entry.uid, name, attempt)]
            {
                // It may never have been written.
                let _ = std::fs::remove_file(file);
            }
        }
    }

    async fn prepare_volumes(&self, entry: &Arc<Entry>, pod: &Arc<Pod>, node: &Node) {
        let Some(ground) = &self.ground else {
            entry.memory.lock().volumes = Volumes::Ready;
            return;
        };
        let Some(spec) = &pod.spec else { return };
        ground.objects.hold(&entry.key, &objects::references(spec));
        match self.volumes_of(ground, entry, pod, node).await {
            Ok(paths) => {
                entry.work.lock().paths = paths;
                entry.memory.lock().volumes = Volumes::Ready;
            }
            Err(error) => {
                let mut memory = entry.memory.lock();
                let before = match &memory.volumes {
                    Volumes::Failed(retry) => Some(*retry),
                    _ => None,
                };
                memory.volumes = Volumes::Failed(again(before, RETRY_FIRST, RETRY_MOST));
                drop(memory);
                if matches!(error, VolumeError::Failed { .. }) {
                    self.warn(pod, "", "FailedMount", error.to_string());
                }
            }
        }
    }

    async fn volumes_of(
        &self,
        ground: &super::Ground,
        entry: &Arc<Entry>,
        pod: &Arc<Pod>,
        node: &Node,
    ) -> Result<volumes::Paths, VolumeError> {
        let tokens = self.tokens(entry, pod).await;
        let tokens = tokens.map_err(|(volume, why)| VolumeError::Failed { volume, why })?;
        let claims = volumes::claim_paths(&self.client, pod).await?;
        let (files, around, lookup) =
            (ground.files.clone(), ground.around.clone(), objects::of_pod(&ground.objects, pod));
        let (pod, ip) = (pod.clone(), self.ip(pod, node).to_string());
        let made = tokio::task::spawn_blocking(move || {
            let Some(spec) = &pod.spec else { return Ok(volumes::Paths::new()) };
            let source =
                Source { pod: &pod, spec, ip: &ip, objects: &lookup, tokens: &tokens, around: &around };
            files.prepare(&source, &claims)
        });
        made.await.unwrap_or_else(|error| {
            Err(VolumeError::Failed { volume: String::new(), why: format!("interrupted: {error}") })
        })
    }

    /// The tokens that the pod's volumes hold, fetched where missing or old.
    async fn tokens(
        &self,
        entry: &Entry,
        pod: &Pod,
    ) -> Result<BTreeMap<volumes::content::TokenKey, String>, (String, String)> {
        let wanted = pod.spec.as_ref().map(volumes::content::tokens_of).unwrap_or_default();
        if wanted.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut tokens = entry.work.lock().tokens.clone();
        let fetched = token::refresh(&self.client, pod, &wanted, &mut tokens).await;
        entry.work.lock().tokens = tokens.clone();
        if let Err(error) = fetched {
            let missing = wanted.iter().any(|key| !tokens.contains_key(key));
            if missing {
                let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
                let volume = volumes.into_iter().find(|volume| volume.projected.is_some());
                let volume = volume.map(|volume| volume.name.clone()).unwrap_or_default();
                return Err((volume, format!("failed to fetch token: {error}")));
            }
            tracing::warn!(pod = %entry.key, %error, "token not renewed yet");
        }
        Ok(tokens.into_iter().map(|(key, token)| (key, token.value)).collect())
    }

    /// When a token of the pod is to be renewed.
    pub(super) fn refresh_due(&self, entry: &Entry) -> Option<Timestamp> {
        let due = entry.work.lock().tokens.values().map(|token| token.refresh_at).min()?;
        // One that could not be renewed is tried again a little later.
        Some(due.max(later(clock::now(), Duration::from_secs(5))))
    }

    /// Brings the content of a running pod's volumes up to date.
    pub(super) async fn refresh_content(&self, entry: &Arc<Entry>, pod: &Arc<Pod>, node: &Node) {
        let Some(ground) = &self.ground else { return };
        let ready = entry.memory.lock().volumes == Volumes::Ready;
        let has_content = pod.spec.as_ref().is_some_and(volumes::has_content);
        if !ready || !has_content || step::is_over(pod) {
            return;
        }
        let Ok(tokens) = self.tokens(entry, pod).await else { return };
        let (files, around, lookup) =
            (ground.files.clone(), ground.around.clone(), objects::of_pod(&ground.objects, pod));
        let (pod, ip) = (pod.clone(), self.ip(pod, node).to_string());
        let key = entry.key.clone();
        let refreshed = tokio::task::spawn_blocking(move || {
            let Some(spec) = &pod.spec else { return Ok(()) };
            files.refresh(&Source {
                pod: &pod,
                spec,
                ip: &ip,
                objects: &lookup,
                tokens: &tokens,
                around: &around,
            })
        });
        match refreshed.await {
            Ok(Ok(()) | Err(VolumeError::NotYet { .. })) => {}
            Ok(Err(error)) => tracing::info!(pod = %key, %error, "a volume keeps its old content"),
            Err(error) => tracing::warn!(pod = %key, %error, "content not refreshed"),
        }
    }

    async fn start_sandbox(&self, entry: &Arc<Entry>, pod: &Arc<Pod>, node: &Node) {
        let Some(spec) = &pod.spec else { return };
        let address = self.address(pod, node);
        let made = if address.is_none() && !launch::on_host_network(spec) {
            Err(format!("no address of {} is free", node.pod_cidr))
        } else {
            self.make_sandbox(pod, spec, address, node).await
        };
        let mut memory = entry.memory.lock();
        match made {
            Ok(()) => memory.sandbox_retry = None,
            Err(why) => {
                memory.sandbox_retry = Some(again(memory.sandbox_retry, RETRY_FIRST, RETRY_MOST));
                drop(memory);
                self.warn(pod, "", "FailedCreatePodSandBox", format!("Failed to create pod sandbox: {why}"));
            }
        }
    }

    async fn make_sandbox(
        &self,
        pod: &Arc<Pod>,
        spec: &k8s_openapi::api::core::v1::PodSpec,
        address: Option<std::net::Ipv4Addr>,
        node: &Node,
    ) -> Result<(), String> {
        let around = match &self.ground {
            None => Arc::new(node.surroundings()),
            Some(ground) => {
                let ip = self.ip(pod, node).to_string();
                let own = volumes::Own::new(pod, spec, &ip, &ground.around);
                let written = volumes::write_own(&ground.files, text(pod.metadata.uid.as_ref()), &own);
                written.map_err(|error| format!("cannot write the pod's files: {error}"))?;
                ground.around.clone()
            }
        };
        let sandbox = launch::sandbox(pod, spec, address, &around);
        self.runtime.start_sandbox(&sandbox).await.map_err(|error| chain(&error))
    }

    async fn remove_sandbox(&self, entry: &Arc<Entry>, pod: &Pod) {
        entry.work.lock().probes.drain().for_each(|(_, scope)| scope.cancel());
        if let Err(error) = self.runtime.remove_sandbox(&entry.uid).await {
            tracing::warn!(pod = %entry.key, error = chain(&error), "sandbox not removed");
            // Not at once: this step would be taken again without a pause.
            clock::sleep(RETRY_FIRST).await;
            return;
        }
        let mut memory = entry.memory.lock();
        memory.images.clear();
        memory.failed_starts.clear();
        memory.messages.clear();
        memory.stopping.clear();
        memory.hooks.clear();
        memory.health.clear();
        memory.restarting.clear();
        memory.resources.clear();
        memory.resize = None;
        drop(memory);
        if super::report::is_over(pod) {
            self.release(&entry.uid);
        }
    }

    /// Removes the pod's files; its logs only if `logs`.
    pub(super) async fn clean(&self, entry: &Entry, logs: bool) -> Result<(), ReconcileError> {
        let Some(ground) = &self.ground else { return Ok(()) };
        if self.entries.under(&entry.key).len() == 1 {
            ground.objects.release(&entry.key);
        }
        let (files, key, uid) = (ground.files.clone(), entry.key.clone(), entry.uid.clone());
        let removed =
            tokio::task::spawn_blocking(move || files.remove(&key.namespace, &key.name, &uid, logs)).await;
        let told = |error: &dyn std::fmt::Display| {
            ReconcileError::NotYet(format!("cannot remove the files of pod {}: {error}", entry.key))
        };
        removed.map_err(|error| told(&error))?.map_err(|error| told(&error))
    }

    pub(super) async fn stop(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        pod: &Arc<Pod>,
        node: &Node,
        (name, id): (String, String),
        deadline: Timestamp,
        why: Stop,
    ) {
        let first = {
            let mut memory = entry.memory.lock();
            if let Stop::Restart(_) = &why {
                memory.restarting.insert(id.clone());
            }
            memory.stopping.insert(id.clone(), deadline).is_none()
        };
        if self.ground.is_none() {
            if let Err(error) = self.runtime.stop_container(&id, Duration::ZERO).await {
                tracing::warn!(id, error = chain(&error), "not stopped");
            }
            return;
        }
        if first {
            let text = match why {
                Stop::Pod => format!("Stopping container {name}"),
                Stop::Restart(text) => text,
            };
            self.note(pod, &name, "Killing", text);
        }
        let scope = entry.scope.child();
        if let Some(earlier) = entry.work.lock().stops.insert(id.clone(), scope.clone()) {
            earlier.cancel();
        }
        let (this, entry, pod) = (self.clone(), entry.clone(), pod.clone());
        let ip = self.ip(&pod, node);
        scope.spawn(format!("stop of {id}"), async move {
            // A hook that ran already is not run again when only the deadline moved.
            if first {
                this.pre_stop(&pod, &name, &id, ip, deadline).await;
            }
            let left = Duration::try_from(deadline.duration_since(clock::now())).unwrap_or(Duration::ZERO);
            let stopped = this.runtime.stop_container(&id, left.max(least(&pod, deadline))).await;
            if let Err(error) = stopped {
                tracing::warn!(id, error = chain(&error), "not stopped, will try again");
                clock::sleep(Duration::from_secs(1)).await;
                entry.memory.lock().stopping.remove(&id);
            }
            entry.work.lock().stops.remove(&id);
            this.queue.add(entry.key.clone());
        });
    }

    /// Reads the last words of containers that ended since the last look.
    pub(super) async fn read_last_words(&self, entry: &Entry, pod: &Pod, sandbox: Option<&Sandbox>) {
        let Some(ground) = &self.ground else { return };
        for container in sandbox.iter().flat_map(|sandbox| &sandbox.containers) {
            let State::Exited { code, .. } = container.state else { continue };
            if entry.memory.lock().messages.contains_key(&container.id) {
                continue;
            }
            let spec = pod.spec.as_ref().and_then(|spec| step::container_named(spec, &container.name));
            let policy = spec.as_ref().and_then(|spec| spec.termination_message_policy.as_deref());
            let log_counts = policy == Some("FallbackToLogsOnError") && code != 0;
            if log_counts {
                logger::ended(&logger::socket(&logger::folder(&container.id))).await;
            }
            let words = super::hooks::last_words(
                &ground.files.last_words(&entry.uid, &container.name, container.attempt),
                &ground.files.log(pod, &container.name, container.attempt),
                log_counts,
            );
            entry.memory.lock().messages.insert(container.id.clone(), words);
        }
    }
}

/// Whoever spent all of the grace in a hook still gets a moment; a grace of nothing is nothing.
fn least(pod: &Pod, deadline: Timestamp) -> Duration {
    let none = pod.metadata.deletion_grace_period_seconds == Some(0);
    let spent = deadline <= clock::now();
    if none && spent { Duration::ZERO } else { GRACE_LEAST }
}

/// What a configuration that cannot be made is called in a container's status.
pub(super) fn blocked_reason(error: &ConfigError) -> &'static str {
    match error {
        ConfigError::NotYet { .. } => "ContainerCreating",
        _ => "CreateContainerConfigError",
    }
}
