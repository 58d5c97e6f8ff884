//! What to do next with a pod: run it, or end it.

use super::resize;
use super::view::{Past, Run, View};
use super::{
    Action, BACK_OFF_FIRST, BACK_OFF_MOST, Crashes, Image, PULL_ERROR_SHOWN, Stop, Volumes, go_duration,
    is_over, later,
};
use crate::pod::is_sidecar;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container;
use std::collections::BTreeMap;
use std::time::Duration;

/// What a pod's containers get that names no grace period.
const GRACE_SECONDS: i64 = 30;

#[derive(Debug, Default)]
pub struct Decision {
    pub actions: Vec<Action>,
    /// Why containers wait: reason and message.
    pub waiting: BTreeMap<String, (String, Option<String>)>,
    pub wake: Option<Timestamp>,
}

impl Decision {
    fn look_again(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |before| before.min(at)));
    }

    fn wait(&mut self, name: &str, reason: &str, message: impl Into<Option<String>>) {
        self.waiting.insert(name.to_owned(), (reason.to_owned(), message.into()));
    }
}

pub fn decide(view: &View<'_>) -> Decision {
    let mut decision = Decision::default();
    let over = is_over(view.pod());
    if view.terminating() || over || view.deadline_exceeded() || view.init_failed() || all_done(view) {
        end(view, &mut decision);
        return decision;
    }
    if let Some(deadline) = view.deadline() {
        decision.look_again(deadline);
    }
    run(view, &mut decision);
    resize(view, &mut decision);
    forget_old_runs(view, &mut decision);
    decision
}

fn all_done(view: &View<'_>) -> bool {
    !view.spec.containers.is_empty() && view.spec.containers.iter().all(|one| view.is_done(&one.name))
}

/// Stops what runs: the main containers together, then the sidecars from last to first. When nothing runs and the
/// last status was reported, removes the rest.
fn end(view: &View<'_>, decision: &mut Decision) {
    let deadline = end_deadline(view);
    let main: Vec<&Container> = view
        .inits()
        .filter(|one| !is_sidecar(one))
        .chain(&view.spec.containers)
        .chain(&view.ephemeral)
        .filter(|one| view.is_running(&one.name))
        .collect();
    let last_sidecar = || view.inits().filter(|one| is_sidecar(one) && view.is_running(&one.name)).last();
    let now = if main.is_empty() { last_sidecar().into_iter().collect() } else { main };
    if !now.is_empty() {
        for container in now {
            if let Past::Running(run) = view.here(&container.name) {
                stop(view, decision, container, run, (deadline, Stop::Pod));
            }
        }
        return;
    }
    if !is_over(view.pod()) {
        return;
    }
    if view.sandbox().is_some() {
        decision.actions.push(Action::RemoveSandbox);
    }
    if view.memory.volumes != Volumes::Unknown || (view.terminating() && view.sandbox().is_some()) {
        decision.actions.push(Action::CleanUp);
    }
}

fn end_deadline(view: &View<'_>) -> Timestamp {
    let meta = &view.pod().metadata;
    let grace = meta
        .deletion_grace_period_seconds
        .or(view.spec.termination_grace_period_seconds)
        .unwrap_or(GRACE_SECONDS);
    let since = view.memory.terminating_since.unwrap_or(view.now);
    later(since, Duration::from_secs(u64::try_from(grace).unwrap_or(0)))
}

/// Asks for a stop, unless one as early is under way.
fn stop(
    view: &View<'_>,
    decision: &mut Decision,
    container: &Container,
    run: &Run,
    (deadline, why): (Timestamp, Stop),
) {
    let Some(id) = run.id.clone() else { return };
    let planned = view.memory.stopping.get(&id);
    if planned.is_none_or(|planned| deadline.duration_since(*planned) < jiff::SignedDuration::from_secs(-1)) {
        decision.actions.push(Action::Stop { name: container.name.clone(), id, deadline, why });
    }
}

fn run(view: &View<'_>, decision: &mut Decision) {
    match &view.memory.volumes {
        Volumes::Unknown => {
            decision.actions.push(Action::PrepareVolumes);
            return;
        }
        Volumes::Failed(retry) if view.now < retry.at => decision.look_again(retry.at),
        Volumes::Failed(_) => {
            decision.actions.push(Action::PrepareVolumes);
            return;
        }
        Volumes::Ready => {}
    }
    match view.sandbox() {
        Some(sandbox) if sandbox.ready => {}
        Some(_) => {
            decision.actions.push(Action::RemoveSandbox);
            return;
        }
        None => {
            match view.memory.sandbox_retry {
                _ if view.memory.volumes != Volumes::Ready => {}
                Some(retry) if view.now < retry.at => decision.look_again(retry.at),
                _ => decision.actions.push(Action::StartSandbox),
            }
            return;
        }
    }
    // Before the others, so that they can help to find out why those do not start.
    for container in &view.ephemeral {
        if let Past::Never = view.past(&container.name) {
            start(view, decision, container, None);
        }
    }
    if inits(view, decision) {
        for container in &view.spec.containers {
            // As upstream: a postStart hook holds up the containers behind.
            if !view.memory.hooks.is_empty() && !view.initialized_all_before(container) {
                return;
            }
            main(view, decision, container);
        }
    }
}

/// Gives running containers the limits that their spec has now.
fn resize(view: &View<'_>, decision: &mut Decision) {
    let mut changes = resize::changes(view);
    // Those that are being stopped start with what they should have.
    changes.retain(|change| !view.memory.stopping.contains_key(&change.id));
    if changes.is_empty() {
        return;
    }
    match resize::due(view) {
        Ok(()) => decision.actions.push(Action::Resize { changes }),
        Err(Some(at)) => decision.look_again(at),
        Err(None) => {}
    }
}

impl View<'_> {
    /// Whether this container has run already, so that no hook of another may hold it up.
    fn initialized_all_before(&self, container: &Container) -> bool {
        self.latest(&container.name).is_some()
    }
}

/// Runs the init containers in order. `true` when the main ones may run.
fn inits(view: &View<'_>, decision: &mut Decision) -> bool {
    let initialized = view.initialized();
    for container in view.inits() {
        let past = view.here(&container.name);
        if is_sidecar(container) {
            match past {
                Past::Never => start(view, decision, container, None),
                Past::Ended { attempt, at, .. } => restart(view, decision, container, (attempt, at)),
                Past::Running(run) => {
                    check(view, decision, container, run);
                    if initialized || view.health(container, run).0 {
                        continue;
                    }
                }
            }
            if initialized {
                continue;
            }
            return false;
        }
        match past {
            _ if initialized => {}
            Past::Ended { code: 0, restart: false, .. } => {}
            Past::Ended { attempt, at, .. } => {
                restart(view, decision, container, (attempt, at));
                return false;
            }
            Past::Never => {
                start(view, decision, container, None);
                return false;
            }
            Past::Running(_) => return false,
        }
    }
    true
}

fn main(view: &View<'_>, decision: &mut Decision, container: &Container) {
    match view.past(&container.name) {
        Past::Never => start(view, decision, container, None),
        Past::Running(run) => check(view, decision, container, run),
        Past::Ended { attempt, code, at, restart: wanted } if view.should_restart(code, wanted) => {
            restart(view, decision, container, (attempt, at));
        }
        Past::Ended { .. } => {}
    }
}

/// Stops a running container whose probes gave it up or whose definition changed.
fn check(view: &View<'_>, decision: &mut Decision, container: &Container, run: &Run) {
    let Some(health) = run.id.as_ref().and_then(|id| view.memory.health.get(id)) else {
        return changed(view, decision, container, run);
    };
    let (probe, kind) = match health {
        _ if health.started == Some(false) => (&container.startup_probe, "startup"),
        _ if !health.live => (&container.liveness_probe, "liveness"),
        _ => return changed(view, decision, container, run),
    };
    let grace = probe.as_ref().and_then(|probe| probe.termination_grace_period_seconds);
    let again = if view.policy() == "Never" && !is_sidecar(container) { "" } else { ", will be restarted" };
    let why = format!("Container {} failed {kind} probe{again}", container.name);
    stop(view, decision, container, run, (restart_deadline(view, grace), Stop::Restart(why)));
}

fn changed(view: &View<'_>, decision: &mut Decision, container: &Container, run: &Run) {
    if container.image.as_ref().is_none_or(|image| *image == run.image) {
        return;
    }
    let why = format!("Container {} definition changed, will be restarted", container.name);
    stop(view, decision, container, run, (restart_deadline(view, None), Stop::Restart(why)));
}

fn restart_deadline(view: &View<'_>, grace: Option<i64>) -> Timestamp {
    let grace = grace.or(view.spec.termination_grace_period_seconds).unwrap_or(GRACE_SECONDS);
    later(view.now, Duration::from_secs(u64::try_from(grace).unwrap_or(0)))
}

/// Starts a container that ended, when its delay is over.
fn restart(
    view: &View<'_>,
    decision: &mut Decision,
    container: &Container,
    (_, ended): (u32, Option<Timestamp>),
) {
    let (crashes, ended) = (view.memory.crashes.get(&container.name), ended.unwrap_or(view.now));
    // Whoever ran long enough has a clean slate.
    let crashes = crashes.filter(|crashes| ended < later(crashes.since, BACK_OFF_MOST * 2));
    let Some(crashes) = crashes else {
        let first = Crashes { delay: BACK_OFF_FIRST, since: view.now };
        return start(view, decision, container, Some(first));
    };
    let due = later(ended, crashes.delay);
    if view.now < due {
        let meta = &view.pod().metadata;
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let message = format!(
            "back-off {} restarting failed container={} pod={}_{}({})",
            go_duration(crashes.delay),
            container.name,
            text(&meta.name),
            text(&meta.namespace),
            text(&meta.uid)
        );
        decision.wait(&container.name, "CrashLoopBackOff", message);
        return decision.look_again(due);
    }
    let next = Crashes { delay: (crashes.delay * 2).min(BACK_OFF_MOST), since: view.now };
    start(view, decision, container, Some(next));
}

/// Starts a container: its image first, then itself.
fn start(view: &View<'_>, decision: &mut Decision, container: &Container, crashes: Option<Crashes>) {
    let (name, attempt) = (container.name.as_str(), view.next_attempt(&container.name));
    if view.memory.volumes != Volumes::Ready {
        return;
    }
    match view.memory.images.get(name) {
        Some(Image::Pulling) => return,
        Some(Image::Failed { reason, message, at, retry }) if view.now < retry.at => {
            return pull_failed(view, decision, container, (reason, message, *at, retry.at));
        }
        Some(Image::Ready { attempt: ready }) if *ready == attempt => {}
        _ => {
            decision.actions.push(Action::Image { name: name.to_owned(), attempt });
            return;
        }
    }
    if let Some(blocked) = view.memory.blocked.get(name) {
        let due = blocked.retry.is_some_and(|retry| retry.at <= view.now);
        if !due {
            decision.wait(name, blocked.reason, blocked.message.clone());
            if let Some(retry) = blocked.retry {
                decision.look_again(retry.at);
            }
            return;
        }
    }
    decision.actions.push(Action::Start { name: name.to_owned(), attempt, crashes });
}

fn pull_failed(
    view: &View<'_>,
    decision: &mut Decision,
    container: &Container,
    (reason, message, at, retry_at): (&'static str, &str, Timestamp, Timestamp),
) {
    let shown_until = later(at, PULL_ERROR_SHOWN);
    decision.look_again(retry_at);
    if reason != "ErrImagePull" {
        return decision.wait(&container.name, reason, message.to_owned());
    }
    if view.now < shown_until {
        decision.look_again(shown_until);
        return decision.wait(&container.name, reason, message.to_owned());
    }
    let image = container.image.as_deref().unwrap_or_default();
    let text = format!("Back-off pulling image {image:?}: {reason}: {message}");
    decision.wait(&container.name, "ImagePullBackOff", text);
}

/// Of each container the last run and the one before are kept, for its status and its logs.
fn forget_old_runs(view: &View<'_>, decision: &mut Decision) {
    for container in super::containers_of(view.spec) {
        let runs = view.runs(&container.name);
        let old = runs.len().saturating_sub(2);
        let ended = |run: &&Run| !matches!(run.state, crate::runtime::State::Running { .. });
        let name = &container.name;
        decision.actions.extend(runs[..old].iter().filter(ended).filter_map(|run| {
            let id = run.id.clone()?;
            Some(Action::RemoveContainer { name: name.clone(), attempt: run.attempt, id })
        }));
    }
}
