//! Decisions in words: a pod and nodes on one line each, and where the pod goes or why it does not.

use super::*;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

/// A pod in words: `name cpu=1 memory=1Gi priority=5 app=x on=node select=k:v tolerate=key port=80 avoid=label spread=label near=label`.
pub fn pod(words: &str) -> PodInfo {
    let mut words = words.split(' ');
    let name = words.next().expect("a name");
    let mut value = json!({
        "metadata": { "name": name, "namespace": "ns", "labels": {} }, "spec": { "containers": [{ "name": "c", "resources": { "requests": {} }, "ports": [] }] },
    });
    let selector = json!({ "matchLabels": { "app": "x" } });
    for word in words {
        let (key, setting) = word.split_once('=').expect("key=value");
        match key {
            "cpu" | "memory" => value["spec"]["containers"][0]["resources"]["requests"][key] = json!(setting),
            "priority" => value["spec"]["priority"] = json!(setting.parse::<i32>().expect("a number")),
            "app" => value["metadata"]["labels"]["app"] = json!(setting),
            "on" => value["spec"]["nodeName"] = json!(setting),
            "select" => {
                let (label, wanted) = setting.split_once(':').expect("label:value");
                value["spec"]["nodeSelector"] = json!({ label: wanted });
            }
            "tolerate" => value["spec"]["tolerations"] = json!([{ "key": setting, "operator": "Exists" }]),
            "port" => {
                value["spec"]["containers"][0]["ports"] =
                    json!([{ "hostPort": setting.parse::<i32>().expect("a port"), "containerPort": 80 }]);
            }
            "avoid" | "near" => {
                let kind = if key == "avoid" { "podAntiAffinity" } else { "podAffinity" };
                let terms = json!([{ "topologyKey": setting, "labelSelector": selector }]);
                value["spec"]["affinity"] =
                    json!({ kind: { "requiredDuringSchedulingIgnoredDuringExecution": terms } });
            }
            "spread" => {
                let constraint = json!({ "maxSkew": 1, "topologyKey": setting, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector });
                value["spec"]["topologySpreadConstraints"] = json!([constraint]);
            }
            "owner" => {
                value["metadata"]["ownerReferences"] = json!([{ "apiVersion": "v1", "kind": "ReplicaSet", "name": "o", "uid": setting, "controller": true }]);
            }
            "preempt" => value["spec"]["preemptionPolicy"] = json!(setting),
            other => panic!("unknown word {other}"),
        }
    }
    PodInfo::of(&serde_json::from_value::<Pod>(value).expect("a pod"))
}

/// A node in words: `name cpu=4 pods=110 zone=z taint=key cordoned=yes`.
fn node(words: &str) -> Node {
    let mut words = words.split(' ');
    let name = words.next().expect("a name");
    let mut value = json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } }, "spec": {},
        "status": { "allocatable": { "cpu": "4", "memory": "8Gi", "pods": "110" } },
    });
    for word in words {
        let (key, setting) = word.split_once('=').expect("key=value");
        match key {
            "cpu" | "memory" | "pods" => value["status"]["allocatable"][key] = json!(setting),
            "taint" => value["spec"]["taints"] = json!([{ "key": setting, "effect": "NoSchedule" }]),
            "cordoned" => value["spec"]["unschedulable"] = Value::Bool(true),
            label => value["metadata"]["labels"][label] = json!(setting),
        }
    }
    serde_json::from_value(value).expect("a node")
}

fn snapshot(nodes: &[&str], placed: &[&str]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    nodes.iter().for_each(|words| snapshot.set_node(&node(words)));
    for words in placed {
        let pod = pod(words);
        let on = pod.node.clone();
        snapshot.place(Arc::new(pod), &on);
    }
    snapshot
}

/// The node's name, or the refusal's message; then who must leave, if anyone.
#[track_caller]
fn places(words: &str, nodes: &[&str], placed: &[&str], want: &str) {
    let told = match decide(&snapshot(nodes, placed), &pod(words), &[], 0) {
        Placement::Bind(node) => node,
        Placement::Refused(Refusal { message, preemption: None, .. }) => message,
        Placement::Refused(Refusal { preemption: Some(preemption), .. }) => {
            let victims: Vec<_> = preemption.victims.iter().map(|key| key.name.as_str()).collect();
            format!("{} without {}", preemption.node, victims.join(" "))
        }
    };
    assert_eq!(told, want);
}

const HELPLESS: &str = "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
const NO_VICTIMS: &str =
    "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.";

#[test]
fn the_emptier_node_wins() {
    places("web", &["a", "b"], &["x cpu=2 on=a"], "b");
}

#[test]
fn a_full_node_names_the_missing_resource() {
    places(
        "web cpu=2",
        &["a"],
        &["x cpu=3 on=a"],
        &format!("0/1 nodes are available: 1 Insufficient cpu. {NO_VICTIMS}"),
    );
    places("web cpu=9", &["a"], &[], &format!("0/1 nodes are available: 1 Insufficient cpu. {HELPLESS}"));
    places(
        "web",
        &["a pods=1"],
        &["x on=a"],
        &format!("0/1 nodes are available: 1 Too many pods. {NO_VICTIMS}"),
    );
}

#[test]
fn reasons_are_counted_and_sorted() {
    let told = "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {gpu: }. preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling.";
    places("web cpu=3", &["a", "b taint=gpu", "c taint=gpu"], &["x cpu=3 on=a"], told);
}

#[test]
fn an_untolerated_taint_keeps_the_pod_off() {
    places("web", &["a taint=gpu", "b"], &["x cpu=3 on=b"], "b");
    places("web tolerate=gpu", &["a taint=gpu"], &[], "a");
}

#[test]
fn a_cordoned_node_takes_nothing_new() {
    places(
        "web",
        &["a cordoned=yes"],
        &[],
        &format!("0/1 nodes are available: 1 node(s) were unschedulable. {HELPLESS}"),
    );
}

#[test]
fn a_selector_needs_its_label() {
    places("web select=disk:ssd", &["a", "b disk=ssd"], &[], "b");
    let told =
        format!("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. {HELPLESS}");
    places("web select=disk:ssd", &["a"], &[], &told);
}

#[test]
fn without_nodes_it_says_so() {
    places("web", &[], &[], "no nodes available to schedule pods");
}

#[test]
fn a_taken_port_is_taken() {
    places("web port=80", &["a", "b"], &["x port=80 on=a"], "b");
}

#[test]
fn repelled_pods_stay_apart() {
    places("web app=x avoid=kubernetes.io/hostname", &["a", "b"], &["y app=x on=a"], "b");
    places("web app=x", &["a", "b"], &["y app=x avoid=kubernetes.io/hostname on=a"], "b");
}

#[test]
fn company_is_sought_and_the_first_makes_its_own() {
    places("web near=kubernetes.io/hostname", &["a", "b"], &["y app=x on=b cpu=3"], "b");
    places("web app=x near=kubernetes.io/hostname", &["a"], &[], "a");
    let told = format!("0/1 nodes are available: 1 node(s) didn't match pod affinity rules. {HELPLESS}");
    places("web near=kubernetes.io/hostname", &["a"], &[], &told);
}

#[test]
fn zones_are_filled_evenly() {
    places("web app=x spread=zone", &["a zone=1", "b zone=2 cpu=1"], &["p app=x on=a"], "b");
    let told = format!(
        "0/1 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required label). {HELPLESS}"
    );
    places("web app=x spread=zone", &["a"], &[], &told);
}

#[test]
fn siblings_go_to_different_nodes_by_themselves() {
    places("p3 owner=rs", &["a", "b"], &["p1 owner=rs on=a", "x on=b"], "b");
}

#[test]
fn the_least_important_leave_for_the_important() {
    let placed = ["low cpu=2 priority=1 on=a", "lower cpu=2 priority=0 on=a"];
    places("web cpu=2 priority=9", &["a"], &placed, "a without lower");
    places("web cpu=4 priority=9", &["a"], &placed, "a without low lower");
}

#[test]
fn a_pod_that_must_not_preempt_says_so() {
    let told = "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never.";
    places("web cpu=2 priority=9 preempt=Never", &["a"], &["x cpu=4 on=a"], told);
}

#[test]
fn a_pod_that_leaves_gives_its_room_back() {
    let mut snapshot = snapshot(&["a"], &["x cpu=3 on=a"]);
    snapshot.remove_pod(&Key::new("ns", "x"));
    assert_eq!(snapshot.node("a").expect("known").used.get("cpu"), 0);
    assert_eq!(decide(&snapshot, &pod("web cpu=4"), &[], 0), Placement::Bind("a".into()));
}

#[test]
fn ties_are_broken_by_the_seed() {
    let snapshot = snapshot(&["a", "b"], &[]);
    let chosen: BTreeSet<_> =
        (0..2).map(|seed| format!("{:?}", decide(&snapshot, &pod("web"), &[], seed))).collect();
    assert_eq!(chosen.len(), 2);
}

#[test]
fn a_pod_goes_where_its_volumes_are() {
    let mut pod = pod("a");
    let required = json!([{ "matchExpressions": [{ "key": "kubernetes.io/hostname", "operator": "In", "values": ["n2"] }] }]);
    let required = serde_json::from_value(required).expect("terms");
    let terms = coracle_client::placement::NodeTerms { required: Some(required), ..Default::default() };
    pod.volumes = crate::volumes::Volumes::bound_to(vec![terms]);
    let nodes = ["n1", "n2", "n3"];
    assert_eq!(decide(&snapshot(&nodes, &[]), &pod, &[], 0), Placement::Bind("n2".into()));
    let Placement::Refused(refusal) = decide(&snapshot(&nodes[..1], &[]), &pod, &[], 0) else {
        panic!("refused")
    };
    assert_eq!(
        refusal.message,
        "0/1 nodes are available: 1 node(s) had volume node affinity conflict. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    );
}
