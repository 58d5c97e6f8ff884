//! Resizing a pod in place: what its containers run with, what they should, and what is told of the difference.
//!
//! ```text
//! spec ≠ what runs ─► Action::Resize ─► fits? ─no──► PodResizePending (Infeasible, Deferred)
//!                                         └─yes─► limits written, or a restart ─► what runs = spec
//!                                                  └──► PodResizeInProgress until then
//! ```
//!
//! What a container runs with is in the memory, or, after a restart of this process, in the status that was last reported.

use super::view::{Past, Run, View};
use super::{Retry, Stop};
use crate::pod::is_sidecar;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ResourceRequirements};

/// Why a resize is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// It does not fit: `Infeasible` for good, `Deferred` while others hold what it wants.
    Pending {
        /// The reason.
        reason: &'static str,
        /// In a sentence.
        message: String,
        /// The pod's generation that was looked at.
        generation: Option<i64>,
    },
    /// The limits could not be written.
    Failed {
        /// What went wrong.
        message: String,
        /// When to try again.
        retry: Retry,
    },
}

/// One container to be resized.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Its name.
    pub name: String,
    /// The runtime's id.
    pub id: String,
    /// Not in place: why it is stopped to start with what it should have.
    pub restart: Option<Stop>,
}

/// A container's resources in its spec.
pub fn wanted(container: &Container) -> ResourceRequirements {
    container.resources.clone().unwrap_or_default()
}

/// What a running container runs with.
pub fn actual(view: &View<'_>, container: &Container, run: &Run) -> ResourceRequirements {
    let id = run.id.as_deref().unwrap_or_default();
    if let Some(known) = view.memory.resources.get(id) {
        return known.clone();
    }
    let reported = view.reported(&container.name).filter(|known| {
        known
            .container_id
            .as_deref()
            .and_then(|known| known.split_once("://"))
            .is_some_and(|(_, own)| own == id)
    });
    reported.and_then(|known| known.resources.clone()).unwrap_or_else(|| wanted(container))
}

/// The containers that run with other limits than they should.
pub fn changes(view: &View<'_>) -> Vec<Change> {
    let resizable = view.inits().filter(|one| is_sidecar(one)).chain(&view.spec.containers);
    let change = |container: &Container| {
        let Past::Running(run) = view.here(&container.name) else { return None };
        let (actual, wanted) = (actual(view, container, run), wanted(container));
        let id = run.id.clone().filter(|_| !same(&actual, &wanted))?;
        let restart = restarts(container, &actual, &wanted)
            .then(|| Stop::Restart(format!("Container {} resize requires restart", container.name)));
        Some(Change { name: container.name.clone(), id, restart })
    };
    resizable.filter_map(change).collect()
}

fn amounts<'a>(
    of: &'a ResourceRequirements,
    name: &str,
) -> [Option<&'a k8s_openapi::apimachinery::pkg::api::resource::Quantity>; 2] {
    [&of.requests, &of.limits].map(|list| list.as_ref().and_then(|list| list.get(name)))
}

/// Only processors and memory can be resized.
fn same(one: &ResourceRequirements, other: &ResourceRequirements) -> bool {
    ["cpu", "memory"].into_iter().all(|name| amounts(one, name) == amounts(other, name))
}

fn restarts(container: &Container, from: &ResourceRequirements, to: &ResourceRequirements) -> bool {
    let policies = container.resize_policy.iter().flatten();
    let mut asked = policies.filter(|policy| policy.restart_policy == "RestartContainer");
    asked.any(|policy| amounts(from, &policy.resource_name) != amounts(to, &policy.resource_name))
}

/// Whether to try a resize now; otherwise when, if ever by itself.
pub fn due(view: &View<'_>) -> Result<(), Option<Timestamp>> {
    match &view.memory.resize {
        Some(Held::Pending { generation, .. }) if *generation == view.pod().metadata.generation => Err(None),
        Some(Held::Failed { retry, .. }) if view.now < retry.at => Err(Some(retry.at)),
        _ => Ok(()),
    }
}

/// The condition to tell: its type, reason and message.
pub fn condition(view: &View<'_>) -> Option<(&'static str, Option<&'static str>, Option<String>)> {
    if view.terminating() || changes(view).is_empty() {
        return None;
    }
    Some(match &view.memory.resize {
        Some(Held::Pending { reason, message, .. }) => {
            ("PodResizePending", Some(*reason), Some(message.clone()))
        }
        Some(Held::Failed { message, .. }) => ("PodResizeInProgress", Some("Error"), Some(message.clone())),
        None => ("PodResizeInProgress", None, None),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Case, case, one};
    use super::*;
    use crate::step::{Action, Memory};
    use serde_json::{Value, json};
    use std::time::Duration;

    fn amounts(cpu: &str, memory: &str) -> Value {
        json!({ "requests": { "cpu": cpu, "memory": "1Mi" }, "limits": { "memory": memory } })
    }

    fn resources(cpu: &str, memory: &str) -> ResourceRequirements {
        serde_json::from_value(amounts(cpu, memory)).unwrap()
    }

    /// A container that runs with 100m and 64Mi, in a pod that says `wanted` now; of memory it starts anew.
    fn resized(wanted: &Value) -> Case {
        let mut spec = one("Always");
        spec["containers"][0]["resources"] = wanted.clone();
        let policy = json!([{ "resourceName": "memory", "restartPolicy": "RestartContainer" }]);
        spec["containers"][0]["resizePolicy"] = policy;
        case(spec)
            .running("a", 0)
            .pod(|pod| pod["metadata"]["generation"] = json!(2))
            .with(|memory| drop(memory.resources.insert("a0".to_owned(), resources("100m", "64Mi"))))
    }

    fn pending(generation: i64) -> impl FnOnce(&mut Memory) {
        let message = "full".to_owned();
        let held = Held::Pending { reason: "Deferred", message, generation: Some(generation) };
        move |memory| memory.resize = Some(held)
    }

    fn failed(at: i64) -> impl FnOnce(&mut Memory) {
        let retry = Retry { at: Timestamp::from_second(at).unwrap(), delay: Duration::from_secs(1) };
        move |memory| memory.resize = Some(Held::Failed { message: "no".to_owned(), retry })
    }

    /// What is done, and the condition that is told.
    fn told(case: &Case) -> (String, String) {
        let plan = case.plan();
        let actions = plan.actions.iter().map(|action| match action {
            Action::Resize { changes } => {
                let restart = changes.iter().any(|change| change.restart.is_some());
                format!("resize {}{}", changes[0].id, if restart { " anew" } else { "" })
            }
            other => format!("{other:?}"),
        });
        let conditions = plan.status.conditions.unwrap_or_default();
        let told = conditions.iter().filter(|one| one.type_.starts_with("PodResize")).map(|one| {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            format!("{} {} {}", one.type_, text(&one.reason), text(&one.message)).trim_end().to_owned()
        });
        (actions.collect::<Vec<_>>().join(", "), told.collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn a_container_that_runs_with_other_limits_than_it_should_is_resized() {
        let more = || resized(&amounts("200m", "64Mi"));
        let rows = [
            (resized(&amounts("100m", "64Mi")), "", ""),
            (more(), "resize a0", "PodResizeInProgress"),
            (resized(&amounts("100m", "128Mi")), "resize a0 anew", "PodResizeInProgress"),
            (
                resized(&amounts("100m", "128Mi"))
                    .with(|memory| memory.stopping.extend([("a0".to_owned(), Timestamp::MAX)])),
                "",
                "PodResizeInProgress",
            ),
            // What does not fit is not tried again before the pod or the room for it changes.
            (more().with(pending(2)), "", "PodResizePending Deferred full"),
            (more().with(pending(1)), "resize a0", "PodResizePending Deferred full"),
            (more().with(failed(1001)), "", "PodResizeInProgress Error no"),
            (more().with(failed(999)), "resize a0", "PodResizeInProgress Error no"),
        ];
        for (case, actions, condition) in rows {
            assert_eq!(told(&case), (actions.to_owned(), condition.to_owned()));
        }
    }

    #[test]
    fn the_status_says_what_a_container_runs_with_and_what_it_was_granted() {
        let status = |case: Case| {
            let status = case.plan().status.container_statuses.unwrap().remove(0);
            let cpu = |list: Option<std::collections::BTreeMap<_, _>>| {
                let amount: Option<k8s_openapi::apimachinery::pkg::api::resource::Quantity> =
                    list.and_then(|list| list.get("cpu").cloned());
                amount.map(|amount| amount.0).unwrap_or_default()
            };
            let runs_with = status.resources.and_then(|resources| resources.requests);
            (cpu(runs_with), cpu(status.allocated_resources))
        };
        let more = || resized(&amounts("200m", "64Mi"));
        let words = |one: &str, other: &str| (one.to_owned(), other.to_owned());
        assert_eq!(status(more()), words("100m", "200m"));
        assert_eq!(status(more().with(pending(2))), words("100m", "100m"));
        // A process that has just started knows from the status what was reported before.
        let reported = json!({ "name": "a", "image": "x", "imageID": "", "ready": true, "restartCount": 0,
            "containerID": "containerd://a0", "resources": amounts("150m", "64Mi") });
        let anew = more()
            .with(|memory| memory.resources.clear())
            .pod(|pod| pod["status"] = json!({ "containerStatuses": [reported] }));
        assert_eq!(status(anew), words("150m", "200m"));
    }
}
