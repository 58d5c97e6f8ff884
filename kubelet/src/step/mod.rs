//! The pure core of the kubelet: what is known of one pod in, what to do next and the status to report out.
//!
//! ```text
//! pod (API) ─┐
//! sandbox ───┼─► View ─► decide ─► actions, reasons for waiting, time of the next look
//! Memory ────┘     └───► status ─► PodStatus
//! ```
//!
//! No clock, no I/O: `now` is an argument, and whatever lasts is in the API's status, the runtime, or [`Memory`]. The
//! executor repeats `step` until it asks for nothing more, so each step needs to name only what can be done at once.

mod conditions;
mod decide;
mod resize;
mod status;
#[cfg(test)]
mod tests;
mod view;

pub use crate::pod::{container_named, containers_of, ephemeral_of, is_sidecar, phase_of};
pub use resize::{Change, Held, wanted};
pub use view::View;

use crate::runtime::Sandbox;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// First delay between a container's failure and its restart; each further one doubles it.
pub const BACK_OFF_FIRST: Duration = Duration::from_secs(10);
/// Longest such delay. A container that ran twice as long starts over with the first.
pub const BACK_OFF_MOST: Duration = Duration::from_secs(300);
/// How long `ErrImagePull` shows before it becomes `ImagePullBackOff`.
const PULL_ERROR_SHOWN: Duration = Duration::from_secs(3);

/// Whether the pod will not run again.
pub fn is_over(pod: &Pod) -> bool {
    matches!(phase_of(pod), "Succeeded" | "Failed")
}

/// What a step looks at.
pub struct Observed<'a> {
    /// The pod as the API shows it, with the status last reported.
    pub pod: &'a Pod,
    /// What the runtime has of it.
    pub sandbox: Option<&'a Sandbox>,
    /// What this process knows beside.
    pub memory: &'a Memory,
    /// The node's address.
    pub host: IpAddr,
    /// Scheme of container ids: `containerd`.
    pub scheme: &'a str,
    /// The wall clock.
    pub now: Timestamp,
}

/// What this process knows of a pod. Lost in a restart, which costs some retries and nothing else.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// When this process first saw that the pod is to go.
    pub terminating_since: Option<Timestamp>,
    /// Whether the pod's files are there.
    pub volumes: Volumes,
    /// No new attempt to make the sandbox before this.
    pub sandbox_retry: Option<Retry>,
    /// By container.
    pub images: BTreeMap<String, Image>,
    /// Delays between pulls that failed, by container.
    pub pulls: BTreeMap<String, Retry>,
    /// Delays between restarts, by container.
    pub crashes: BTreeMap<String, Crashes>,
    /// Containers that cannot be started for a reason, by name.
    pub blocked: BTreeMap<String, Blocked>,
    /// Runs that failed before there was a container: the last one of each name.
    pub failed_starts: BTreeMap<String, FailedStart>,
    /// Last words, by container id.
    pub messages: BTreeMap<String, String>,
    /// Containers being stopped, by id, and when they are killed.
    pub stopping: BTreeMap<String, Timestamp>,
    /// Containers to be started anew when they end, whatever the restart policy, by id.
    pub restarting: BTreeSet<String>,
    /// Containers whose postStart hook runs, by id.
    pub hooks: BTreeSet<String>,
    /// Findings of probes, by container id.
    pub health: BTreeMap<String, Health>,
    /// What containers run with, by id.
    pub resources: BTreeMap<String, ResourceRequirements>,
    /// Why a resize is not done.
    pub resize: Option<Held>,
}

/// A thing to be tried again, not before a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Not before this.
    pub at: Timestamp,
    /// The delay that led there.
    pub delay: Duration,
}

/// Whether the pod's files are there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Volumes {
    /// Not looked at yet.
    #[default]
    Unknown,
    /// All are.
    Ready,
    /// Not all; the event that told why was sent.
    Failed(Retry),
}

/// Whether a container's image is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// It is fetched.
    Pulling,
    /// It is there for this attempt.
    Ready {
        /// The attempt whose pull policy was satisfied.
        attempt: u32,
    },
    /// It is not.
    Failed {
        /// `ErrImagePull`, `ErrImageNeverPull`, `InvalidImageName`.
        reason: &'static str,
        /// For the status.
        message: String,
        /// When it failed.
        at: Timestamp,
        /// When to try again.
        retry: Retry,
    },
}

/// The delay before a container's next restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crashes {
    /// The delay.
    pub delay: Duration,
    /// When it was last doubled.
    pub since: Timestamp,
}

/// Why a container cannot be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// `CreateContainerConfigError`, `CreateContainerError`, `RunContainerError`.
    pub reason: &'static str,
    /// For the status.
    pub message: String,
    /// When to try again; `None` when something must change first.
    pub retry: Option<Retry>,
}

/// A run without a container: its command could not be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedStart {
    /// Which run.
    pub attempt: u32,
    /// When.
    pub at: Timestamp,
    /// For the status.
    pub message: String,
}

/// What probes found of a running container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// The startup probe: `None` while it has not decided.
    pub started: Option<bool>,
    /// The liveness probe has not failed for good.
    pub live: bool,
    /// The readiness probe: `None` while it has not decided.
    pub ready: Option<bool>,
}

/// One thing to do at once. All are idempotent.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make the pod's folders and mounts.
    PrepareVolumes,
    /// Make the pod's network and cgroup.
    StartSandbox,
    /// See to a container's image.
    Image {
        /// Container.
        name: String,
        /// Its run.
        attempt: u32,
    },
    /// Make and start a container.
    Start {
        /// Container.
        name: String,
        /// Its run.
        attempt: u32,
        /// What to remember of its crashes.
        crashes: Option<Crashes>,
    },
    /// Stop a running container.
    Stop {
        /// Container.
        name: String,
        /// The runtime's id.
        id: String,
        /// When to kill it.
        deadline: Timestamp,
        /// For the event.
        why: Stop,
    },
    /// Give running containers other limits.
    Resize {
        /// Which.
        changes: Vec<Change>,
    },
    /// Forget an old run.
    RemoveContainer {
        /// Container.
        name: String,
        /// Its run.
        attempt: u32,
        /// The runtime's id.
        id: String,
    },
    /// Remove network, cgroup and containers.
    RemoveSandbox,
    /// Remove the pod's folders and mounts.
    CleanUp,
}

/// Why a container is stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// With its pod.
    Pod,
    /// To start again; the text is the event's.
    Restart(String),
}

/// What a step asks for.
#[derive(Debug)]
pub struct Plan {
    /// To do now, in order.
    pub actions: Vec<Action>,
    /// To report when the actions are done or under way.
    pub status: PodStatus,
    /// When to look again if nothing happens before.
    pub wake: Option<Timestamp>,
    /// Nothing is left on this node: the object may go.
    pub gone: bool,
}

/// The next step of a pod.
pub fn step(observed: &Observed<'_>) -> Plan {
    let view = View::new(observed);
    let decision = decide::decide(&view);
    let status = status::of_pod(&view, &decision);
    let gone = view.terminating()
        && is_over(observed.pod)
        && decision.actions.is_empty()
        && observed.sandbox.is_none();
    Plan { actions: decision.actions, status, wake: decision.wake, gone }
}

/// As the API writes times: whole seconds.
pub fn seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// `at` plus `delay`, as far as time goes.
pub fn later(at: Timestamp, delay: Duration) -> Timestamp {
    at.checked_add(delay).unwrap_or(Timestamp::MAX)
}

/// A duration as Go writes it: `10s`, `1m20s`, `5m0s`.
pub fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}
