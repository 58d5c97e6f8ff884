//! A Job's pod failure policy: what one pod's failure means for the Job.

use crate::pods;
use k8s_openapi::api::batch::v1::{JobSpec, PodFailurePolicyOnExitCodesRequirement};
use k8s_openapi::api::core::v1::Pod;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Counts towards the limit, as without a policy.
    Count,
    /// Does not count.
    Ignore,
    /// Ends the pod's index.
    FailIndex,
    /// Ends the Job, with this message.
    FailJob(String),
}

/// The first rule that fits decides.
pub fn meaning(spec: &JobSpec, pod: &Pod) -> Meaning {
    let Some(policy) = &spec.pod_failure_policy else { return Meaning::Count };
    for (index, rule) in policy.rules.iter().enumerate() {
        let because = rule.on_exit_codes.as_ref().and_then(|codes| exit_code(codes, pod)).or_else(|| {
            let mut patterns = rule.on_pod_conditions.iter().flatten();
            let fits = |kind: &str, status: &str| {
                pods::condition(pod, kind).is_some_and(|condition| condition.status == status)
            };
            let found = patterns.find(|pattern| fits(&pattern.type_, &pattern.status))?;
            Some(format!("Pod {} has condition {}", name(pod), found.type_))
        });
        let Some(because) = because else { continue };
        return match rule.action.as_str() {
            "Ignore" => Meaning::Ignore,
            "FailIndex" if spec.backoff_limit_per_index.is_some() => Meaning::FailIndex,
            "FailJob" => Meaning::FailJob(format!("{because} matching FailJob rule at index {index}")),
            _ => Meaning::Count,
        };
    }
    Meaning::Count
}

fn name(pod: &Pod) -> String {
    coracle_client::Key::of(&pod.metadata).to_string()
}

/// What to say when a container's exit code is one that the rule means. Success is never a failure.
fn exit_code(rule: &PodFailurePolicyOnExitCodesRequirement, pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let containers =
        status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
    let mine = containers
        .filter(|container| rule.container_name.as_ref().is_none_or(|name| *name == container.name));
    mine.filter_map(|container| {
        Some((&container.name, container.state.as_ref()?.terminated.as_ref()?.exit_code))
    })
    .find(|(_, code)| *code != 0 && rule.values.contains(code) == (rule.operator == "In"))
    .map(|(container, code)| {
        format!("Container {container} for pod {} failed with exit code {code}", name(pod))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{object, pod};
    use serde_json::json;

    fn failed(code: i32, condition: &str) -> Meaning {
        let rules = json!([
            { "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] },
            { "action": "FailJob", "onExitCodes": { "operator": "In", "values": [42] } },
        ]);
        let spec: JobSpec = object(json!({ "template": {}, "podFailurePolicy": { "rules": rules } }));
        let containers = json!([{ "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": { "terminated": { "exitCode": code } } }]);
        let conditions = json!([{ "type": condition, "status": "True" }]);
        let status = json!({ "phase": "Failed", "containerStatuses": containers, "conditions": conditions });
        meaning(&spec, &pod(json!({ "metadata": { "name": "p", "namespace": "ns" }, "status": status })))
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        assert_eq!(failed(1, "Ready"), Meaning::Count);
        assert_eq!(failed(42, "DisruptionTarget"), Meaning::Ignore);
        let told = "Container c for pod ns/p failed with exit code 42 matching FailJob rule at index 1";
        assert_eq!(failed(42, "Ready"), Meaning::FailJob(told.into()));
    }
}
