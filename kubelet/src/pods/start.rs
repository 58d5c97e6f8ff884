//! Starts a container: everything about it is put together, handed to the runtime, and the outcome remembered.

use super::act::{again, blocked_reason};
use super::{Entry, Ground, Pods, chain};
use crate::launch::{ConfigError, env, expand, limits, names, security, services, text};
use crate::node::Node;
use crate::runtime::{ContainerSpec, Resources, RuntimeError, Security};
use crate::step::{Blocked, Crashes, FailedStart, container_named, wanted};
use crate::volumes;
use coracle_daemon::clock;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(60);

impl Pods {
    pub(super) async fn start_container(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        pod: &Arc<Pod>,
        node: &Node,
        (name, attempt, crashes): (&str, u32, Option<Crashes>),
    ) {
        let container = pod.spec.as_ref().and_then(|spec| container_named(spec, name));
        let (Some(spec), Some(container)) = (pod.spec.as_ref(), container) else { return };
        let container = &container;
        let made = match (&self.ground, self.target(entry, spec, name).await) {
            (_, Err(error)) => Err(error),
            (None, Ok(target)) => Ok(ContainerSpec { target, ..bare(pod, container, attempt) }),
            (Some(ground), Ok(target)) => {
                // An ephemeral container may refer to what nobody did before.
                ground.objects.hold(&entry.key, &crate::objects::references(spec));
                let made = self.container_spec(ground, entry, pod, spec, container, attempt, node).await;
                made.map(|made| ContainerSpec { target, ..made })
            }
        };
        let made = match made {
            Ok(made) => made,
            Err(error) => return self.misconfigured(entry, pod, name, &error),
        };
        match self.runtime.start_container(&made).await {
            Ok(id) => self.started(entry, pod, node, container, (id, crashes)),
            Err(error) => self.not_started(entry, pod, name, (attempt, crashes), &error),
        }
    }

    /// The runtime's id of the container whose processes an ephemeral container wants to see.
    async fn target(&self, entry: &Entry, spec: &PodSpec, name: &str) -> Result<Option<String>, ConfigError> {
        let own = spec.ephemeral_containers.iter().flatten().find(|one| one.name == name);
        let target = own.and_then(|own| own.target_container_name.clone()).filter(|name| !name.is_empty());
        let Some(target) = target else { return Ok(None) };
        let sandbox = self.runtime.sandbox(&entry.uid).await;
        let sandbox = sandbox.map_err(|error| ConfigError::Impossible(chain(&error)))?;
        let runs = sandbox.into_iter().flat_map(|sandbox| sandbox.containers);
        let latest = runs.filter(|run| run.name == target).max_by_key(|run| run.attempt);
        let none = || ConfigError::Impossible(format!("unable to find target container {target}"));
        latest.map(|run| Some(run.id)).ok_or_else(none)
    }

    fn misconfigured(&self, entry: &Entry, pod: &Pod, name: &str, error: &ConfigError) {
        let reason = blocked_reason(error);
        let waiting = matches!(error, ConfigError::NotYet { .. });
        let message = if waiting { String::new() } else { error.to_string() };
        if !waiting {
            self.warn(pod, name, "Failed", format!("Error: {message}"));
        }
        // What is missing is watched for: no need to try before it comes.
        let retry = match error {
            ConfigError::Impossible(_) => {
                let before = entry.memory.lock().blocked.get(name).and_then(|blocked| blocked.retry);
                Some(again(before, RETRY_FIRST * 10, RETRY_MOST))
            }
            _ => None,
        };
        entry.memory.lock().blocked.insert(name.to_owned(), Blocked { reason, message, retry });
    }

    fn started(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        pod: &Arc<Pod>,
        node: &Node,
        container: &Container,
        (id, crashes): (String, Option<Crashes>),
    ) {
        let name = container.name.as_str();
        {
            let mut memory = entry.memory.lock();
            memory.blocked.remove(name);
            memory.failed_starts.remove(name);
            memory.resources.insert(id.clone(), wanted(container));
            if let Some(crashes) = crashes {
                memory.crashes.insert(name.to_owned(), crashes);
            }
        }
        if self.ground.is_some() {
            self.note(pod, name, "Created", format!("Created container: {name}"));
        }
        self.note(pod, name, "Started", format!("Started container {name}"));
        if self.ground.is_some() {
            self.post_start(entry, pod, container, id, self.ip(pod, node));
        }
    }

    fn not_started(
        &self,
        entry: &Entry,
        pod: &Pod,
        name: &str,
        (attempt, crashes): (u32, Option<Crashes>),
        error: &RuntimeError,
    ) {
        let message = chain(error);
        self.warn(pod, name, "Failed", format!("Error: {message}"));
        let mut memory = entry.memory.lock();
        let before = memory.blocked.get(name).and_then(|blocked| blocked.retry);
        let retry = again(before, RETRY_FIRST, RETRY_MOST);
        let reason = match error {
            RuntimeError::Start(_) => {
                memory.blocked.remove(name);
                let failed = FailedStart { attempt, at: clock::now(), message };
                memory.failed_starts.insert(name.to_owned(), failed);
                if let Some(crashes) = crashes {
                    memory.crashes.insert(name.to_owned(), crashes);
                }
                return;
            }
            RuntimeError::Config(_) => "CreateContainerConfigError",
            RuntimeError::NotFound { .. } | RuntimeError::Pull { .. } => {
                // The image went away between the look and the start.
                memory.images.remove(name);
                "CreateContainerError"
            }
            RuntimeError::Failed { .. } => "RunContainerError",
        };
        memory.blocked.insert(name.to_owned(), Blocked { reason, message, retry: Some(retry) });
    }

    #[expect(clippy::too_many_arguments, reason = "one value for each thing that a container is made of")]
    async fn container_spec(
        &self,
        ground: &Ground,
        entry: &Entry,
        pod: &Arc<Pod>,
        spec: &PodSpec,
        container: &Container,
        attempt: u32,
        node: &Node,
    ) -> Result<ContainerSpec, ConfigError> {
        ground.services.synced().await;
        let services = ground.services.list();
        let (namespace, around) = (text(pod.metadata.namespace.as_ref()), &ground.around);
        let links = spec.enable_service_links != Some(false);
        let (ip, hostname) = (self.ip(pod, node).to_string(), names::hostname(pod, spec, around));
        let source = env::Source {
            pod,
            spec,
            ip: &ip,
            hostname: &hostname,
            services: services::variables(services.iter().map(|service| &**service), namespace, links),
            objects: &crate::objects::of_pod(&ground.objects, pod),
            around,
        };
        let env = env::of_container(&source, container)?;
        let paths = entry.work.lock().paths.clone();
        let mounts = volumes::mounts_of_container(&ground.files, pod, container, attempt, &env, &paths)?;
        let expanded = |words: &Option<Vec<String>>| -> Vec<String> {
            let lookup = |word: &String| expand::expand(word, |name| expand::value_of(&env, name));
            words.iter().flatten().map(lookup).collect()
        };
        let log = ground.files.log(pod, &container.name, attempt);
        let made = log.parent().map_or(Ok(()), std::fs::create_dir_all);
        made.map_err(|error| ConfigError::Impossible(format!("cannot make the folder of logs: {error}")))?;
        Ok(ContainerSpec {
            command: expanded(&container.command),
            args: expanded(&container.args),
            working_dir: container.working_dir.clone().filter(|folder| !folder.is_empty()),
            mounts,
            security: security::of_container(spec, container)?,
            resources: limits::resources(pod, container, around.memory_bytes),
            termination_log: ground.files.last_words(&entry.uid, &container.name, attempt),
            log,
            env,
            ..bare(pod, container, attempt)
        })
    }
}

/// A container with nothing but its names.
fn bare(pod: &Pod, container: &Container, attempt: u32) -> ContainerSpec {
    let meta = &pod.metadata;
    ContainerSpec {
        pod_uid: text(meta.uid.as_ref()).to_owned(),
        pod_namespace: text(meta.namespace.as_ref()).to_owned(),
        pod_name: text(meta.name.as_ref()).to_owned(),
        name: container.name.clone(),
        attempt,
        image: container.image.clone().unwrap_or_default(),
        command: Vec::new(),
        args: Vec::new(),
        env: Vec::new(),
        working_dir: None,
        mounts: Vec::new(),
        tty: container.tty == Some(true),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        security: Security::default(),
        resources: Resources::default(),
        target: None,
        log: PathBuf::new(),
        termination_log: PathBuf::new(),
    }
}
