//! One pod's containers, each with all of its runs, whether the runtime or the API's status tells of them.

use super::{Health, Memory, Observed};
use crate::pod::{containers_of, ephemeral_of, is_sidecar};
use crate::runtime::{Sandbox, State};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodSpec, PodStatus};
use std::collections::BTreeMap;

/// One run of a container.
#[derive(Clone, Debug)]
pub struct Run {
    /// `None` when the start failed.
    pub id: Option<String>,
    pub attempt: u32,
    pub image: String,
    pub image_id: String,
    pub state: State,
    /// Instead of the reason that follows from the exit code.
    pub reason: Option<&'static str>,
    pub message: Option<String>,
}

/// How a container stands.
pub enum Past<'a> {
    /// It never ran, or was only made.
    Never,
    Running(&'a Run),
    Ended {
        attempt: u32,
        code: i32,
        at: Option<Timestamp>,
        /// To be started anew, whatever the policy.
        restart: bool,
    },
}

/// What a step looks at, arranged by container.
pub struct View<'a> {
    pub observed: &'a Observed<'a>,
    pub spec: &'a PodSpec,
    pub memory: &'a Memory,
    pub now: Timestamp,
    /// See [`ephemeral_of`].
    pub ephemeral: Vec<Container>,
    runs: BTreeMap<&'a str, Vec<Run>>,
}

static NO_SPEC: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);

impl<'a> View<'a> {
    pub fn new(observed: &'a Observed<'a>) -> Self {
        let spec = observed.pod.spec.as_ref().unwrap_or(&NO_SPEC);
        let memory = observed.memory;
        let mut runs: BTreeMap<&str, Vec<Run>> = BTreeMap::new();
        for container in observed.sandbox.iter().flat_map(|sandbox| &sandbox.containers) {
            runs.entry(&container.name).or_default().push(Run {
                id: Some(container.id.clone()),
                attempt: container.attempt,
                image: container.image.clone(),
                image_id: container.image_id.clone(),
                state: container.state.clone(),
                reason: None,
                message: memory.messages.get(&container.id).cloned(),
            });
        }
        for (name, failed) in &memory.failed_starts {
            let all = runs.entry(name).or_default();
            all.retain(|run| run.attempt != failed.attempt);
            all.push(Run {
                id: None,
                attempt: failed.attempt,
                image: String::new(),
                image_id: String::new(),
                state: State::Exited { started_at: None, finished_at: failed.at, code: 128, oom: false },
                reason: Some("StartError"),
                message: Some(failed.message.clone()),
            });
        }
        for all in runs.values_mut() {
            all.sort_by_key(|run| run.attempt);
        }
        let ephemeral = ephemeral_of(spec).collect();
        Self { observed, spec, memory, now: observed.now, ephemeral, runs }
    }

    pub fn pod(&self) -> &'a Pod {
        self.observed.pod
    }

    pub fn known(&self) -> Option<&'a PodStatus> {
        self.observed.pod.status.as_ref()
    }

    pub fn sandbox(&self) -> Option<&'a Sandbox> {
        self.observed.sandbox
    }

    pub fn terminating(&self) -> bool {
        self.pod().metadata.deletion_timestamp.is_some()
    }

    pub fn policy(&self) -> &str {
        self.spec.restart_policy.as_deref().unwrap_or("Always")
    }

    pub fn inits(&self) -> impl Iterator<Item = &'a Container> + use<'a> {
        self.spec.init_containers.iter().flatten()
    }

    /// All runs, oldest first.
    pub fn runs(&self, name: &str) -> &[Run] {
        self.runs.get(name).map_or(&[], Vec::as_slice)
    }

    pub fn latest(&self, name: &str) -> Option<&Run> {
        self.runs(name).last()
    }

    /// What was last reported of a container.
    pub fn reported(&self, name: &str) -> Option<&'a ContainerStatus> {
        let status = self.known()?;
        let all = [
            &status.init_container_statuses,
            &status.container_statuses,
            &status.ephemeral_container_statuses,
        ];
        all.into_iter().flatten().flatten().find(|status| status.name == name)
    }

    /// How the container stands by what the runtime knows.
    pub fn here(&self, name: &str) -> Past<'_> {
        match self.latest(name) {
            None => Past::Never,
            Some(run) => match run.state {
                State::Created => Past::Never,
                State::Running { .. } => Past::Running(run),
                State::Exited { finished_at, code, .. } => Past::Ended {
                    attempt: run.attempt,
                    code,
                    at: Some(finished_at),
                    restart: run.id.as_ref().is_some_and(|id| self.memory.restarting.contains(id)),
                },
            },
        }
    }

    /// The same, with what was reported of a container that the runtime has lost.
    pub fn past(&self, name: &str) -> Past<'_> {
        let here = self.here(name);
        let (Past::Never, None) = (&here, self.latest(name)) else { return here };
        let Some(known) = self.reported(name) else { return here };
        let attempt = u32::try_from(known.restart_count).unwrap_or(0);
        let ended = |code, at| Past::Ended { attempt, code, at, restart: false };
        let terminated = |state: &Option<k8s_openapi::api::core::v1::ContainerState>| {
            state.as_ref().and_then(|state| state.terminated.clone())
        };
        if let Some(terminated) = terminated(&known.state).or_else(|| terminated(&known.last_state)) {
            return ended(terminated.exit_code, terminated.finished_at.map(|at| at.0));
        }
        match known.state.as_ref().and_then(|state| state.running.as_ref()) {
            Some(_) => ended(137, None),
            None => Past::Never,
        }
    }

    /// The number of the next run.
    pub fn next_attempt(&self, name: &str) -> u32 {
        let here = self.latest(name).map(|run| match run.state {
            State::Created => run.attempt,
            _ => run.attempt + 1,
        });
        here.unwrap_or_else(|| match self.past(name) {
            Past::Ended { attempt, .. } => attempt + 1,
            _ => 0,
        })
    }

    /// Whether the main containers were let loose in this sandbox: init containers are then never run again.
    pub fn initialized(&self) -> bool {
        self.spec.containers.iter().any(|container| self.latest(&container.name).is_some())
    }

    /// Whether a container that ended should run again, by the pod's policy.
    pub fn should_restart(&self, code: i32, restart: bool) -> bool {
        match self.policy() {
            "Never" => false,
            "OnFailure" => code != 0 || restart,
            _ => true,
        }
    }

    /// Whether a main container has ended and stays so.
    pub fn is_done(&self, name: &str) -> bool {
        match self.past(name) {
            Past::Ended { code, restart, .. } => !self.should_restart(code, restart),
            _ => false,
        }
    }

    /// Whether an init container's failure is the pod's.
    pub fn init_failed(&self) -> bool {
        self.policy() == "Never"
            && !self.initialized()
            && self.inits().any(|container| {
                !is_sidecar(container)
                    && matches!(self.here(&container.name), Past::Ended { code, .. } if code != 0)
            })
    }

    /// When the pod has run too long.
    pub fn deadline(&self) -> Option<Timestamp> {
        let most = self.spec.active_deadline_seconds?;
        let start = self.known()?.start_time.as_ref()?.0;
        start.checked_add(jiff::SignedDuration::from_secs(most)).ok()
    }

    pub fn deadline_exceeded(&self) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= self.now)
    }

    pub fn is_running(&self, name: &str) -> bool {
        matches!(self.here(name), Past::Running(_))
    }

    pub fn any_running(&self) -> bool {
        containers_of(self.spec).chain(&self.ephemeral).any(|container| self.is_running(&container.name))
    }

    pub fn is_ephemeral(&self, name: &str) -> bool {
        self.ephemeral.iter().any(|container| container.name == name)
    }

    /// What probes say of a running container; what was last reported of it, until they have spoken.
    pub fn health(&self, container: &Container, run: &Run) -> (bool, bool) {
        let id = run.id.as_deref().unwrap_or_default();
        let found = self.memory.health.get(id).copied();
        let Health { started, ready, .. } =
            found.unwrap_or(Health { started: None, live: true, ready: None });
        let before = self.reported(&container.name).filter(|known| {
            let same = |known: &str| known.split_once("://").is_some_and(|(_, known)| known == id);
            known.container_id.as_deref().is_some_and(same)
        });
        let before_started = before.is_some_and(|known| known.started == Some(true));
        let started = container.startup_probe.is_none() || started.unwrap_or(before_started);
        let started = started && !self.memory.hooks.contains(id);
        let before_ready = before.is_some_and(|known| known.ready);
        let ready = container.readiness_probe.is_none() || ready.unwrap_or(before_ready);
        (started, started && ready)
    }
}
