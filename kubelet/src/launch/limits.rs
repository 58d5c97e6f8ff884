//! What a container may use: cgroup limits, the order in which the kernel kills, and the pod's cgroup.

use super::text;
use crate::runtime::Resources;
use coracle_api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use std::collections::BTreeMap;

type Amounts = BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>;

fn amount(of: Option<&Amounts>, name: &str) -> Option<Quantity> {
    of?.get(name).and_then(|quantity| Quantity::parse(&quantity.0).ok())
}

/// The pod's class as the apiserver set it.
fn class(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.qos_class.as_deref()).unwrap_or("BestEffort")
}

/// A container's limits on a node with this much memory.
pub fn resources(pod: &Pod, container: &Container, node_memory: i64) -> Resources {
    let given = container.resources.as_ref();
    let (requests, limits) =
        (given.and_then(|given| given.requests.as_ref()), given.and_then(|given| given.limits.as_ref()));
    let millis = |quantity: Option<Quantity>| quantity.map_or(0, |quantity| quantity.milli_value());
    let bytes = |quantity: Option<Quantity>| quantity.map_or(0, |quantity| quantity.value());
    let request = amount(requests, "cpu").or_else(|| amount(limits, "cpu"));
    let memory = bytes(amount(requests, "memory").or_else(|| amount(limits, "memory")));
    Resources {
        cpu_request_millis: millis(request),
        cpu_limit_millis: millis(amount(limits, "cpu")),
        memory_limit_bytes: bytes(amount(limits, "memory")),
        oom_score_adj: match class(pod) {
            "Guaranteed" => -997,
            "BestEffort" => 1000,
            // The less of the node it asked for, the sooner it goes.
            _ => (1000 - (1000 * i128::from(memory) / i128::from(node_memory.max(1)))).clamp(3, 999) as i64,
        },
    }
}

/// What all containers of a pod together may use. A limit counts only when every container has one.
pub fn of_pod(pod: &Pod, spec: &PodSpec, node_memory: i64) -> Resources {
    let each = |containers: &[Container]| -> Vec<Resources> {
        containers.iter().map(|container| resources(pod, container, node_memory)).collect()
    };
    let main = each(&spec.containers);
    let inits = each(spec.init_containers.as_deref().unwrap_or_default());
    let all = || main.iter().chain(&inits);
    // Init containers run before the others, so the larger of the two counts; sidecars run beside them.
    let request = |of: fn(&Resources) -> i64| -> i64 {
        main.iter().map(of).sum::<i64>().max(inits.iter().map(of).max().unwrap_or(0))
    };
    let limit = |of: fn(&Resources) -> i64| -> i64 {
        if all().any(|one| of(one) == 0) { 0 } else { all().map(of).sum() }
    };
    Resources {
        cpu_request_millis: request(|one| one.cpu_request_millis),
        cpu_limit_millis: limit(|one| one.cpu_limit_millis),
        memory_limit_bytes: limit(|one| one.memory_limit_bytes),
        oom_score_adj: 0,
    }
}

/// The pod's cgroup below `root`.
pub fn cgroup(pod: &Pod, root: &str) -> String {
    let uid = text(pod.metadata.uid.as_ref());
    let class = match class(pod) {
        "Guaranteed" => String::new(),
        other => format!("/{}", other.to_lowercase()),
    };
    format!("{}/kubepods{class}/pod{uid}", root.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn limits_and_kill_order_follow_class_and_requests() {
        for (class, resources_given, expected) in [
            (
                "Guaranteed",
                json!({ "limits": { "cpu": "1", "memory": "64Mi" } }),
                (1000, 1000, 64 << 20, -997),
            ),
            ("BestEffort", json!({}), (0, 0, 0, 1000)),
            ("Burstable", json!({ "requests": { "cpu": "250m", "memory": "512Mi" } }), (250, 0, 0, 500)),
            ("Burstable", json!({ "requests": { "memory": "1Gi" } }), (0, 0, 0, 3)),
        ] {
            let pod: Pod =
                serde_json::from_value(json!({ "metadata": { "uid": "u" }, "status": { "qosClass": class },
                "spec": { "containers": [{ "name": "a", "resources": resources_given }] } }))
                .unwrap();
            let got = resources(&pod, &pod.spec.as_ref().unwrap().containers[0], 1 << 30);
            let got =
                (got.cpu_request_millis, got.cpu_limit_millis, got.memory_limit_bytes, got.oom_score_adj);
            assert_eq!(got, expected, "{class}");
        }
    }

    #[test]
    fn cgroups_are_sorted_by_class() {
        for (class, expected) in
            [("Guaranteed", "/x/kubepods/podu"), ("Burstable", "/x/kubepods/burstable/podu")]
        {
            let pod = json!({ "metadata": { "uid": "u" }, "status": { "qosClass": class } });
            assert_eq!(cgroup(&serde_json::from_value(pod).unwrap(), "/x/"), expected);
        }
    }
}
