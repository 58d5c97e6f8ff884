//! The status to report: phase, conditions and containers, as upstream words them.

use super::decide::Decision;
use super::view::{Past, Run, View};
use super::{Held, conditions, is_over, resize, seconds};
use crate::pod::is_sidecar;
use crate::runtime::State;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HostIP, PodIP, PodStatus, VolumeMountStatus,
};

/// Whether a container that is not there any more counts as ended.
const LOST: &str = "The container could not be located when the pod was terminated";

pub fn of_pod(view: &View<'_>, decision: &Decision) -> PodStatus {
    let known = view.known().cloned().unwrap_or_default();
    let generation = view.pod().metadata.generation;
    if is_over(view.pod()) {
        // Its containers may be gone already: what was reported last stands.
        return PodStatus { observed_generation: generation, ..known };
    }
    let inits: Vec<ContainerStatus> =
        view.inits().map(|one| of_container(view, decision, one, true)).collect();
    let main: Vec<ContainerStatus> =
        view.spec.containers.iter().map(|one| of_container(view, decision, one, false)).collect();
    let ephemeral: Vec<ContainerStatus> =
        view.ephemeral.iter().map(|one| of_ephemeral(view, decision, one)).collect();
    let phase = phase(view, &inits, &main);
    let exceeded = view.deadline_exceeded() && phase == "Failed";
    let host = view.observed.host.to_string();
    let address = address(view).or_else(|| known.pod_ip.clone());
    let conditions = conditions::of(view, phase, &inits, &main, &known);
    PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(conditions),
        host_ip: Some(host.clone()),
        host_ips: Some(vec![HostIP { ip: host }]),
        pod_ips: address.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip: address,
        start_time: known.start_time.clone().or_else(|| Some(seconds(view.now))),
        observed_generation: generation,
        init_container_statuses: view.spec.init_containers.as_ref().map(|_| inits),
        container_statuses: Some(main),
        ephemeral_container_statuses: view.spec.ephemeral_containers.as_ref().map(|_| ephemeral),
        reason: if exceeded { Some("DeadlineExceeded".to_owned()) } else { known.reason.clone() },
        message: if exceeded {
            Some("Pod was active on the node longer than the specified deadline".to_owned())
        } else {
            known.message.clone()
        },
        ..known
    }
}

/// Where the pod is reached. What is left of one whose network is gone does not tell.
fn address(view: &View<'_>) -> Option<String> {
    let sandbox = view.sandbox()?;
    let on_host = view.spec.host_network == Some(true);
    let address = if on_host { Some(view.observed.host) } else { sandbox.address };
    address.map(|address| address.to_string())
}

fn phase(view: &View<'_>, inits: &[ContainerStatus], main: &[ContainerStatus]) -> &'static str {
    let exit = |status: &ContainerStatus| Some(status.state.as_ref()?.terminated.as_ref()?.exit_code);
    if view.terminating() {
        if view.any_running() {
            return if view.initialized() { "Running" } else { "Pending" };
        }
        let clean = !main.is_empty() && main.iter().all(|one| exit(one) == Some(0));
        return if clean { "Succeeded" } else { "Failed" };
    }
    if (view.deadline_exceeded() || view.init_failed()) && !view.any_running() {
        return "Failed";
    }
    let waiting = main.iter().filter(|one| {
        let last = one.last_state.as_ref().and_then(|last| last.terminated.as_ref());
        one.state.as_ref().is_some_and(|state| state.waiting.is_some()) && last.is_none()
    });
    let initializing = view.inits().zip(inits).any(|(container, status)| pending(container, status));
    if (initializing && !view.initialized()) || waiting.count() > 0 {
        return "Pending";
    }
    let running = main.iter().any(|one| one.state.as_ref().is_some_and(|state| state.running.is_some()));
    let all_over = view.spec.containers.iter().all(|one| view.is_done(&one.name));
    if running || !all_over || view.any_running() {
        return "Running";
    }
    if main.iter().all(|one| exit(one) == Some(0)) { "Succeeded" } else { "Failed" }
}

/// Whether an init container holds up the pod.
fn pending(container: &Container, status: &ContainerStatus) -> bool {
    let state = status.state.as_ref();
    if is_sidecar(container) {
        return status.started != Some(true);
    }
    state.and_then(|state| state.terminated.as_ref()).is_none_or(|ended| ended.exit_code != 0)
}

fn of_container(view: &View<'_>, decision: &Decision, container: &Container, init: bool) -> ContainerStatus {
    let name = container.name.as_str();
    let known = view.reported(name);
    let (state, last) = states(view, decision, container, init);
    let latest = view.latest(name);
    let (mut started, mut ready) = (false, false);
    if let Past::Running(run) = view.here(name) {
        (started, ready) = view.health(container, run);
        // An init container that is to end is never ready while it runs.
        ready &= !init || is_sidecar(container);
    }
    if init && !is_sidecar(container) {
        ready = state.terminated.as_ref().is_some_and(|ended| ended.exit_code == 0);
    }
    let count = latest.map(|run| i32::try_from(run.attempt).unwrap_or(i32::MAX));
    let with_container = view.runs(name).iter().rev().find(|run| run.id.is_some());
    let image = with_container.map(|run| run.image.clone()).filter(|image| !image.is_empty());
    let running = match view.here(name) {
        Past::Running(run) => Some(resize::actual(view, container, run)),
        _ => None,
    };
    // What was granted: the spec's, unless that waits.
    let held = matches!(&view.memory.resize, Some(Held::Pending { .. }));
    let granted = if held { running.clone() } else { container.resources.clone() };
    let given = container.resources.is_some();
    ContainerStatus {
        name: name.to_owned(),
        image: image.or_else(|| container.image.clone()).unwrap_or_default(),
        image_id: with_container
            .map(|run| run.image_id.clone())
            .or_else(|| known.map(|known| known.image_id.clone()))
            .unwrap_or_default(),
        container_id: with_container
            .and_then(|run| run.id.as_ref())
            .map(|id| format!("{}://{id}", view.observed.scheme))
            .or_else(|| known.and_then(|known| known.container_id.clone())),
        ready,
        started: Some(started),
        restart_count: count.or_else(|| known.map(|known| known.restart_count)).unwrap_or(0),
        allocated_resources: running.as_ref().and(granted).and_then(|granted| granted.requests),
        resources: running.filter(|_| given),
        volume_mounts: mounts(container),
        state: Some(state),
        last_state: Some(last.unwrap_or_default()),
        ..ContainerStatus::default()
    }
}

/// As upstream, it is never ready, and nothing is said of what it may use.
fn of_ephemeral(view: &View<'_>, decision: &Decision, container: &Container) -> ContainerStatus {
    let status = of_container(view, decision, container, false);
    ContainerStatus { ready: false, started: None, resources: None, allocated_resources: None, ..status }
}

fn mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_ref()?;
    let status = |mount: &k8s_openapi::api::core::v1::VolumeMount| VolumeMountStatus {
        mount_path: mount.mount_path.clone(),
        name: mount.name.clone(),
        read_only: mount.read_only.filter(|only| *only),
        recursive_read_only: mount.read_only.filter(|only| *only).map(|_| "Disabled".to_owned()),
    };
    Some(mounts.iter().map(status).collect())
}

/// The container's state, and the state before.
fn states(
    view: &View<'_>,
    decision: &Decision,
    container: &Container,
    init: bool,
) -> (ContainerState, Option<ContainerState>) {
    let name = container.name.as_str();
    let known = view.reported(name);
    let known_last = || known.and_then(|known| known.last_state.clone());
    let runs = view.runs(name);
    let before = || {
        let before = runs.len().checked_sub(2).map(|at| ended(view, &runs[at]));
        before.flatten().or_else(known_last)
    };
    let reason = decision.waiting.get(name);
    let Some(latest) = runs.last() else {
        return without_run(view, decision, container, init);
    };
    match &latest.state {
        State::Running { started_at } => {
            let running = ContainerStateRunning { started_at: Some(seconds(*started_at)) };
            (ContainerState { running: Some(running), ..ContainerState::default() }, before())
        }
        State::Exited { .. } => match reason {
            Some(reason) => (waiting(reason), ended(view, latest)),
            None => (ended(view, latest).unwrap_or_default(), before()),
        },
        State::Created => (waiting(reason.unwrap_or(&default_reason(view, init))), before()),
    }
}

/// A container of which the runtime knows nothing: not there yet, or lost.
fn without_run(
    view: &View<'_>,
    decision: &Decision,
    container: &Container,
    init: bool,
) -> (ContainerState, Option<ContainerState>) {
    let known = view.reported(&container.name);
    let last = known.and_then(|known| known.last_state.clone());
    let state = known.and_then(|known| known.state.clone()).unwrap_or_default();
    let lost = state.running.as_ref().map(|running| ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".to_owned()),
            message: Some(LOST.to_owned()),
            started_at: running.started_at.clone(),
            finished_at: None,
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    });
    let was = if state.terminated.is_some() { Some(state) } else { lost };
    let stays = view.terminating()
        || view.deadline_exceeded()
        || view.is_done(&container.name)
        || view.is_ephemeral(&container.name)
        || (init && view.initialized());
    match was {
        Some(was) if stays => (was, last),
        was => {
            let default = default_reason(view, init);
            (waiting(decision.waiting.get(&container.name).unwrap_or(&default)), was.or(last))
        }
    }
}

/// What a container waits for when nothing is wrong.
fn default_reason(view: &View<'_>, init: bool) -> (String, Option<String>) {
    let has_inits = view.inits().next().is_some();
    let inits_started = view.inits().any(|one| view.latest(&one.name).is_some());
    let reason = if has_inits && !view.initialized() && (init || inits_started || view.sandbox().is_none()) {
        "PodInitializing"
    } else {
        "ContainerCreating"
    };
    (reason.to_owned(), None)
}

fn waiting((reason, message): &(String, Option<String>)) -> ContainerState {
    let waiting = ContainerStateWaiting { reason: Some(reason.clone()), message: message.clone() };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

fn ended(view: &View<'_>, run: &Run) -> Option<ContainerState> {
    let State::Exited { started_at, finished_at, code, oom } = &run.state else { return None };
    let reason = run.reason.unwrap_or(match code {
        _ if *oom => "OOMKilled",
        0 => "Completed",
        _ => "Error",
    });
    let terminated = ContainerStateTerminated {
        container_id: run.id.as_ref().map(|id| format!("{}://{id}", view.observed.scheme)),
        exit_code: *code,
        finished_at: Some(seconds(*finished_at)),
        started_at: Some(seconds(started_at.unwrap_or(*finished_at))),
        reason: Some(reason.to_owned()),
        message: run.message.clone().filter(|message| !message.is_empty()),
        signal: None,
    };
    Some(ContainerState { terminated: Some(terminated), ..ContainerState::default() })
}

#[cfg(test)]
mod tests {
    use crate::runtime::Sandbox;
    use crate::step::{Memory, Observed, step};
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    #[test]
    fn a_pod_whose_network_is_gone_keeps_its_address() {
        let left = Sandbox {
            uid: "u".into(),
            namespace: "ns".into(),
            name: "p".into(),
            address: None,
            ready: false,
            containers: Vec::new(),
        };
        for (on_host, expected) in [(false, "10.1.1.1"), (true, "10.89.0.10")] {
            let pod: Pod = serde_json::from_value(json!({
                "metadata": { "name": "p", "namespace": "ns", "uid": "u" },
                "spec": { "containers": [{ "name": "c" }], "hostNetwork": on_host },
                "status": { "podIP": "10.1.1.1" },
            }))
            .unwrap();
            let (memory, host) = (Memory::default(), "10.89.0.10".parse().unwrap());
            let now = jiff::Timestamp::UNIX_EPOCH;
            let observed =
                Observed { pod: &pod, sandbox: Some(&left), memory: &memory, host, scheme: "s", now };
            assert_eq!(step(&observed).status.pod_ip.as_deref(), Some(expected));
        }
    }
}
