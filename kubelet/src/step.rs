//! The pure core: one pod as the API shows it in, what to do about it out.

use coracle_client::controller_of;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};
use serde_json::{Value, json};
use std::net::IpAddr;

/// What to do about a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// It is as it should be.
    Nothing,
    /// Write this status.
    Report(Value),
    /// Its containers are gone: delete the object for good.
    Remove,
}

/// How far a simulated pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Running,
    Succeeded,
}

/// Whether the pod will not run again.
pub fn is_over(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// The next step of a pod whose containers are simulated: it runs at once; a Job's pod then succeeds.
pub fn step(pod: &Pod, address: Option<IpAddr>, host: IpAddr, now: &str) -> Action {
    if pod.metadata.deletion_timestamp.is_some() {
        return Action::Remove;
    }
    let of_job = controller_of(&pod.metadata).is_some_and(|owner| owner.kind == "Job");
    let stage = match phase(pod) {
        "Pending" => Stage::Running,
        "Running" if of_job => Stage::Succeeded,
        _ => return Action::Nothing,
    };
    match (pod.spec.as_ref(), address) {
        (Some(spec), Some(address)) => Action::Report(status(pod, spec, stage, (address, host), now)),
        _ => Action::Nothing,
    }
}

type Spec = k8s_openapi::api::core::v1::PodSpec;

fn status(pod: &Pod, spec: &Spec, stage: Stage, (address, host): (IpAddr, IpAddr), now: &str) -> Value {
    let old = pod.status.as_ref();
    let start = old.and_then(|status| status.start_time.as_ref()).map_or_else(|| json!(now), |at| json!(at));
    let ready = stage == Stage::Running;
    let (phase, why) = match stage {
        Stage::Running => ("Running", None),
        Stage::Succeeded => ("Succeeded", Some("PodCompleted")),
    };
    let condition = |kind: &str, holds: bool, reason: Option<&str>| {
        let status = if holds { "True" } else { "False" };
        json!({ "type": kind, "status": status, "reason": reason, "lastTransitionTime": now, "lastProbeTime": null })
    };
    // Init containers that restart are sidecars: they run as long as the pod does.
    let inits = spec.init_containers.iter().flatten().map(|container| {
        let sidecar = container.restart_policy.as_deref() == Some("Always");
        let known = old.and_then(|status| status.init_container_statuses.as_deref());
        container_status(pod, container, known, sidecar && ready, now)
    });
    let known = old.and_then(|status| status.container_statuses.as_deref());
    let containers = spec.containers.iter().map(|c| container_status(pod, c, known, ready, now));
    json!({
        "phase": phase, "hostIP": host, "hostIPs": [{ "ip": host }], "podIP": address, "podIPs": [{ "ip": address }],
        "startTime": start,
        "observedGeneration": pod.metadata.generation,
        "conditions": [
            condition("PodReadyToStartContainers", ready, None), condition("Initialized", true, None),
            condition("Ready", ready, why), condition("ContainersReady", ready, why),
        ],
        "initContainerStatuses": inits.collect::<Vec<_>>(),
        "containerStatuses": containers.collect::<Vec<_>>(),
    })
}

fn container_status(
    pod: &Pod,
    container: &Container,
    known: Option<&[ContainerStatus]>,
    runs: bool,
    now: &str,
) -> Value {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let id = format!("simulated://{uid}/{}", container.name);
    let known = known.into_iter().flatten().find(|status| status.name == container.name);
    let since = known.and_then(|status| status.state.as_ref()?.running.as_ref()?.started_at.as_ref());
    let since = since.map_or_else(|| json!(now), |at| json!(at));
    let state = if runs {
        json!({ "running": { "startedAt": since } })
    } else {
        json!({ "terminated": {
            "exitCode": 0, "reason": "Completed", "startedAt": since, "finishedAt": now, "containerID": id,
        } })
    };
    let image = container.image.as_deref().unwrap_or_default();
    json!({
        "name": container.name, "image": image, "imageID": format!("simulated://{image}"), "containerID": id,
        "ready": runs, "started": runs, "restartCount": 0, "state": state, "lastState": {},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-02T03:04:05Z";

    fn stepped(pod: Value) -> Action {
        let address = Some("10.128.0.2".parse().unwrap());
        step(&serde_json::from_value(pod).unwrap(), address, "10.89.0.1".parse().unwrap(), NOW)
    }

    fn pod(owner: &str, phase: &str) -> Value {
        json!({
            "metadata": { "name": "p", "uid": "u", "ownerReferences": [
                { "apiVersion": "v1", "kind": owner, "name": "o", "uid": "o", "controller": true },
            ] },
            "spec": { "containers": [{ "name": "c", "image": "nginx" }],
                      "initContainers": [{ "name": "i" }, { "name": "s", "restartPolicy": "Always" }] },
            "status": { "phase": phase },
        })
    }

    #[test]
    fn pods_run_and_those_of_jobs_succeed() {
        let rows = [
            ("ReplicaSet", "Pending", Some("Running")),
            ("ReplicaSet", "Running", None),
            ("Job", "Pending", Some("Running")),
            ("Job", "Running", Some("Succeeded")),
            ("Job", "Succeeded", None),
            ("Job", "Failed", None),
        ];
        for (owner, phase, expected) in rows {
            let got = match stepped(pod(owner, phase)) {
                Action::Report(status) => Some(status["phase"].as_str().unwrap().to_owned()),
                _ => None,
            };
            assert_eq!(got.as_deref(), expected, "{owner} {phase}");
        }
    }

    #[test]
    fn containers_follow_their_pod() {
        let Action::Report(status) = stepped(pod("ReplicaSet", "Pending")) else { panic!("no status") };
        assert_eq!(status["containerStatuses"][0]["state"], json!({ "running": { "startedAt": NOW } }));
        assert_eq!(status["initContainerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
        assert!(status["initContainerStatuses"][1]["state"]["running"].is_object(), "a sidecar runs");
        let Action::Report(status) = stepped(pod("Job", "Running")) else { panic!("no status") };
        assert_eq!(status["initContainerStatuses"][1]["state"]["terminated"]["exitCode"], 0);
        assert_eq!(status["conditions"][2]["reason"], "PodCompleted");
    }

    #[test]
    fn deleted_pods_are_removed_in_every_phase() {
        for phase in ["Pending", "Running", "Succeeded"] {
            let mut pod = pod("Job", phase);
            pod["metadata"]["deletionTimestamp"] = json!(NOW);
            assert_eq!(stepped(pod), Action::Remove);
        }
    }
}
