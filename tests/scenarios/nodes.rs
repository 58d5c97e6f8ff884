//! Nodes, and which pods they take.

use anyhow::{Result, ensure};
use coracle_tests::{Cluster, Deadline};

pub fn unschedulable(cluster: &Cluster) -> Result<()> {
    cluster.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: whale}\n\
         spec: {containers: [{name: a, image: a, resources: {requests: {cpu: 10k}}}]}\n",
    )?;
    cluster.tells("wait pod whale --for=condition=PodScheduled=False --timeout=30s")?;
    let message = cluster.tells("get pod whale -o jsonpath={.status.conditions[0].message}")?;
    ensure!(
        message.contains("0/3 nodes are available") && message.contains("3 Insufficient cpu"),
        "{message}"
    );
    cluster.until("an event that tells of it", Deadline::seconds(20), |cluster| {
        let events = cluster.tells("get events --field-selector involvedObject.name=whale")?;
        Ok(events.contains("FailedScheduling"))
    })?;
    cluster.tells("delete pod whale")?;
    // What could not be becomes possible.
    cluster.tells("run picky --image=a --overrides='{\"spec\":{\"nodeSelector\":{\"berth\":\"quiet\"}}}'")?;
    cluster.tells("wait pod picky --for=condition=PodScheduled=False --timeout=30s")?;
    let node = cluster.tells("get nodes -o jsonpath={.items[1].metadata.name}")?;
    cluster.tells(&format!("label node {node} berth=quiet"))?;
    cluster.tells("wait pod picky --for=condition=Ready --timeout=30s")?;
    cluster.expect("get pod picky -o jsonpath={.spec.nodeName}", &node)?;
    cluster.tells(&format!("label node {node} berth-"))?;
    cluster.expect("delete pod picky", "deleted")
}

pub fn turned_away(cluster: &Cluster) -> Result<()> {
    let node = cluster.tells("get nodes -o jsonpath={.items[0].metadata.name}")?;
    for (name, spec, reason) in [
        ("whale", "containers: [{name: a, image: a, resources: {requests: {cpu: 10k}}}]", "OutOfcpu"),
        ("stray", "nodeSelector: {berth: none}, containers: [{name: a, image: a}]", "NodeAffinity"),
    ] {
        cluster.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{nodeName: {node}, {spec}}}\n"
        ))?;
        cluster.tells(&format!("wait pod {name} --for=jsonpath={{.status.phase}}=Failed --timeout=30s"))?;
        cluster.expect(&format!("get pod {name}"), reason)?;
        cluster.expect(&format!("delete pod {name}"), "deleted")?;
    }
    Ok(())
}

pub fn drain(cluster: &Cluster) -> Result<()> {
    cluster.tells("create deployment crew --image=a --replicas=6")?;
    cluster.tells("rollout status deployment crew --timeout=60s")?;
    let node = cluster.tells("get nodes -o jsonpath={.items[0].metadata.name}")?;
    cluster.tells("create poddisruptionbudget crew --selector=app=crew --min-available=6")?;
    cluster.tells("wait poddisruptionbudget crew --for=jsonpath={.status.currentHealthy}=6 --timeout=30s")?;
    cluster.refuses(&format!("drain {node} --timeout=3s"), "disruption budget")?;
    cluster.expect(&format!("get node {node}"), "SchedulingDisabled")?;
    cluster.tells("delete poddisruptionbudget crew")?;
    cluster.tells(&format!("drain {node} --timeout=60s"))?;
    cluster.tells("rollout status deployment crew --timeout=60s")?;
    let left =
        cluster.tells(&format!("get pods -l app=crew --field-selector spec.nodeName={node} -o name"))?;
    ensure!(left.is_empty(), "{left}");
    cluster.tells(&format!("uncordon {node}"))?;
    cluster.tells("delete deployment crew")?;
    cluster.tells("wait pods -l app=crew --for=delete --timeout=60s").map(|_| ())
}
