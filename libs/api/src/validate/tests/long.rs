//! Lists as long as a body lets them be. What is looked for in a list is found at once: walking one for each item of another
//! would take minutes here.

use super::*;

const MANY: usize = 20_000;

fn many(item: impl Fn(usize) -> Value) -> Value {
    (0..MANY).map(item).collect()
}

fn address(n: usize) -> String {
    format!("10.0.{}.{}", n / 256, n % 256)
}

#[test]
fn long_lists_are_judged_in_one_walk() {
    let mut containers =
        pod(&json!({"containers": many(|n| json!({"name": format!("c{n}"), "image": "i"}))}));
    refuses("Pod", containers.clone(), &[]);
    containers["spec"]["containers"][1]["name"] = json!("c0");
    refuses("Pod", containers, &[r#"spec.containers[1].name: Duplicate value: "c0""#]);
    let mut mounting = container(&json!({
        "volumeMounts": many(|n| json!({"name": format!("v{n}"), "mountPath": format!("/{n}")})),
        "ports": many(|n| json!({"containerPort": 1, "hostPort": 1, "hostIP": address(n)})),
    }));
    mounting["spec"]["volumes"] = many(|n| json!({"name": format!("v{n}"), "emptyDir": {}}));
    mounting["spec"]["topologySpreadConstraints"] = many(
        |n| json!({"maxSkew": 1, "topologyKey": format!("k{n}"), "whenUnsatisfiable": "ScheduleAnyway"}),
    );
    refuses("Pod", mounting, &[]);
    let ports = many(|n| json!({"name": format!("p{n}"), "port": n + 1}));
    refuses("Service", json!({"spec": {"selector": {"a": "b"}, "ports": ports}}), &[]);
}

#[test]
fn long_lists_are_compared_in_one_walk() {
    let tolerations = many(|n| json!({"key": format!("k{n}"), "operator": "Exists", "effect": "NoSchedule"}));
    let mut old = pod(&json!({"tolerations": tolerations}));
    old["metadata"] = json!({"name": "x", "finalizers": many(|n| json!(format!("a/f{n}")))});
    let mut new = old.clone();
    refuses_change("Pod", old.clone(), new.clone(), &[]);
    new["spec"]["tolerations"][0]["key"] = json!("other");
    let want =
        "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds";
    let kind = kind("Pod");
    let (mut old, mut new) = (whole("Pod", old), whole("Pod", new));
    for pod in [&mut old, &mut new] {
        defaults::apply(pod, &kind);
        pod["metadata"]["resourceVersion"] = json!("1");
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    let told: Vec<String> = super::super::update(&new, &old, &kind, "", ALL, &mut Vec::new())
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(told.contains(&want.to_owned()), "{told:?}");
}
