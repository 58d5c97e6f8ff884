//! A pod's conditions, with the reasons and messages that upstream gives them.

use super::view::View;
use super::{resize, seconds};
use crate::pod::is_sidecar;
use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition, PodStatus};

/// These are there only as long as they hold.
const RESIZE: [&str; 2] = ["PodResizePending", "PodResizeInProgress"];

/// What a condition says.
struct Claim {
    kind: &'static str,
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Claim {
    const fn holds(kind: &'static str) -> Self {
        Self { kind, holds: true, reason: None, message: None }
    }

    fn fails(kind: &'static str, reason: &'static str, message: impl Into<Option<String>>) -> Self {
        Self { kind, holds: false, reason: Some(reason), message: message.into() }
    }
}

/// All conditions: ours as they are now, others' as they were.
pub fn of(
    view: &View<'_>,
    phase: &str,
    inits: &[ContainerStatus],
    main: &[ContainerStatus],
    known: &PodStatus,
) -> Vec<PodCondition> {
    let before = known.conditions.as_deref().unwrap_or_default();
    let sandbox =
        view.sandbox().is_some_and(|sandbox| sandbox.ready) && !matches!(phase, "Succeeded" | "Failed");
    let start = if sandbox {
        Claim::holds("PodReadyToStartContainers")
    } else {
        Claim { kind: "PodReadyToStartContainers", holds: false, reason: None, message: None }
    };
    let containers = containers_ready(view, phase, inits, main);
    let ready = ready(view, &containers, before);
    let mut claims = vec![start, initialized(view, phase, inits), ready, containers];
    if !before.iter().any(|condition| condition.type_ == "PodScheduled") {
        claims.push(Claim::holds("PodScheduled"));
    }
    if let Some((kind, reason, message)) = resize::condition(view) {
        claims.push(Claim { kind, holds: true, reason, message });
    }
    let ours = |kind: &str| RESIZE.contains(&kind) || claims.iter().any(|claim| claim.kind == kind);
    let others = before.iter().filter(|condition| !ours(&condition.type_)).cloned();
    let mut all: Vec<PodCondition> = claims.iter().map(|claim| condition(view, claim, before)).collect();
    all.extend(others);
    all
}

fn condition(view: &View<'_>, claim: &Claim, before: &[PodCondition]) -> PodCondition {
    let old = before.iter().find(|condition| condition.type_ == claim.kind);
    let status = if claim.holds { "True" } else { "False" };
    let since = old.filter(|old| old.status == status).and_then(|old| old.last_transition_time.clone());
    PodCondition {
        type_: claim.kind.to_owned(),
        status: status.to_owned(),
        reason: claim.reason.map(str::to_owned),
        message: claim.message.clone(),
        last_probe_time: None,
        last_transition_time: Some(since.unwrap_or_else(|| seconds(view.now))),
        observed_generation: old.and_then(|old| old.observed_generation),
    }
}

fn names<'a>(statuses: impl Iterator<Item = &'a ContainerStatus>) -> String {
    statuses.map(|status| status.name.as_str()).collect::<Vec<_>>().join(" ")
}

fn initialized(view: &View<'_>, phase: &str, inits: &[ContainerStatus]) -> Claim {
    if phase == "Succeeded" {
        return Claim { kind: "Initialized", holds: true, reason: Some("PodCompleted"), message: None };
    }
    let open = view.inits().zip(inits).filter(|(container, status)| {
        if is_sidecar(container) { status.started != Some(true) } else { !status.ready }
    });
    let open = names(open.map(|(_, status)| status));
    if open.is_empty() || view.initialized() {
        return Claim::holds("Initialized");
    }
    let message = format!("containers with incomplete status: [{open}]");
    Claim::fails("Initialized", "ContainersNotInitialized", message)
}

fn containers_ready(
    view: &View<'_>,
    phase: &str,
    inits: &[ContainerStatus],
    main: &[ContainerStatus],
) -> Claim {
    const KIND: &str = "ContainersReady";
    match phase {
        "Succeeded" => return Claim::fails(KIND, "PodCompleted", None),
        "Failed" => return Claim::fails(KIND, "PodFailed", None),
        _ => {}
    }
    let sidecars = view.inits().zip(inits).filter(|(container, _)| is_sidecar(container));
    let counted = sidecars.map(|(_, status)| status).chain(main);
    let unready = names(counted.filter(|status| !status.ready));
    if unready.is_empty() {
        return Claim::holds(KIND);
    }
    Claim::fails(KIND, "ContainersNotReady", format!("containers with unready status: [{unready}]"))
}

/// Ready is when the containers are, and every readiness gate is open.
fn ready(view: &View<'_>, containers: &Claim, before: &[PodCondition]) -> Claim {
    if !containers.holds {
        return Claim {
            kind: "Ready",
            holds: false,
            reason: containers.reason,
            message: containers.message.clone(),
        };
    }
    let shut = view.spec.readiness_gates.iter().flatten().filter_map(|gate| {
        let kind = &gate.condition_type;
        match before.iter().find(|condition| condition.type_ == *kind) {
            None => Some(format!("corresponding condition of pod readiness gate {kind:?} does not exist.")),
            Some(condition) if condition.status != "True" => Some(format!(
                "the status of pod readiness gate {kind:?} is not \"True\", but {}",
                condition.status
            )),
            Some(_) => None,
        }
    });
    let shut: Vec<String> = shut.collect();
    if shut.is_empty() {
        return Claim::holds("Ready");
    }
    Claim::fails("Ready", "ReadinessGatesNotReady", shut.join(", "))
}
