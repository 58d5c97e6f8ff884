//! Processes are killed; what was acknowledged stays.

use anyhow::{Context, Result, ensure};
use coracle_tests::{Cluster, Deadline};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Writers at work while processes die.
const WRITERS: usize = 2;

/// Creates configmaps until told to stop; returns the names whose creation was acknowledged.
fn write(cluster: &Cluster, writer: usize, stop: &AtomicBool) -> Result<Vec<String>> {
    let mut acknowledged = Vec::new();
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("kept-{writer}-{n}");
        let answer = cluster
            .kubectl(&format!("create configmap {name} --from-literal=n={n} --request-timeout=10s"))?;
        // A refusal while a process is down tells nothing: the write may or may not have been done.
        if answer.success {
            acknowledged.push(name);
        }
    }
    Ok(acknowledged)
}

pub fn writes_survive_kills(cluster: &Cluster) -> Result<()> {
    let stop = AtomicBool::new(false);
    let (killed, acknowledged) = thread::scope(|scope| {
        let stop = &stop;
        let writers: Vec<_> =
            (0..WRITERS).map(|writer| scope.spawn(move || write(cluster, writer, stop))).collect();
        let killed = kill_each(cluster);
        stop.store(true, Ordering::Relaxed);
        let written: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        (killed, written)
    });
    killed?;
    let mut names = BTreeSet::new();
    for written in acknowledged {
        names.extend(written.map_err(|_| anyhow::anyhow!("a writer panicked"))??);
    }
    ensure!(names.len() > 10, "only {} writes were acknowledged", names.len());
    let listed = cluster.tells("get configmaps -o jsonpath={.items[*].metadata.name}")?;
    let listed: BTreeSet<String> = listed.split_whitespace().map(str::to_owned).collect();
    let lost: Vec<_> = names.difference(&listed).collect();
    ensure!(lost.is_empty(), "of {} acknowledged writes these are lost: {lost:?}", names.len());
    Ok(())
}

fn leading_store(cluster: &Cluster) -> Result<String> {
    let all = cluster.processes()?;
    let leader = all.iter().find(|process| process.component == "store" && process.role == "leader");
    Ok(leader.context("no store leads")?.id.clone())
}

/// The store that leads stands still: reads, writes and watches go on with the next leader, and it follows when it goes on.
pub fn still_leader(cluster: &Cluster) -> Result<()> {
    cluster.tells("create configmap sloop --from-literal=n=0")?;
    let mut watch = cluster.follow("get configmap sloop --watch -o jsonpath={.data.n}{\"\\n\"}")?;
    watch.line(Deadline::seconds(20), |line| line == "0")?;
    let leader = leading_store(cluster)?;
    let paused = cluster.pause(&leader)?;
    cluster.until("that writes are possible without the leader", Deadline::seconds(20), |cluster| {
        let patch = "patch configmap sloop -p '{\"data\":{\"n\":\"1\"}}' --request-timeout=5s";
        Ok(cluster.kubectl(patch)?.success)
    })?;
    cluster.expect("get configmap sloop -o jsonpath={.data.n}", "1")?;
    watch.line(Deadline::seconds(20), |line| line == "1")?;
    drop(paused);
    cluster.until("that the former leader follows", Deadline::seconds(30), |cluster| {
        let process = cluster.process(&leader)?;
        Ok(process.role == "follower" && process.health == "ok")
    })?;
    cluster.expect("delete configmap sloop", "deleted")
}

/// Kills one process of each kind, the store's leader among them; the cluster works again after each.
fn kill_each(cluster: &Cluster) -> Result<()> {
    let all = cluster.processes()?;
    let mut victims = vec![leading_store(cluster)?];
    for component in ["apiserver", "scheduler", "controllers", "store"] {
        let victim = all.iter().find(|process| process.component == component).context(component)?;
        victims.push(victim.id.clone());
    }
    for victim in victims {
        cluster.kill(&victim).with_context(|| format!("after a kill of {victim}"))?;
        cluster.until("that writes are possible again", Deadline::seconds(20), |cluster| {
            Ok(cluster
                .kubectl("annotate namespace default fault=over --overwrite --request-timeout=5s")?
                .success)
        })?;
    }
    Ok(())
}

pub fn watch_survives(cluster: &Cluster) -> Result<()> {
    cluster.tells("create configmap beacon --from-literal=n=0")?;
    let mut watch = cluster.follow("get configmap beacon --watch -o jsonpath={.data.n}{\"\\n\"}")?;
    watch.line(Deadline::seconds(20), |line| line == "0")?;
    // kubectl's own watch ends with its connection; its successor starts from the list and goes on from there.
    cluster.kill("apiserver-0")?;
    cluster.kill("apiserver-1")?;
    cluster.tells("patch configmap beacon --type=merge -p '{\"data\":{\"n\":\"1\"}}'")?;
    let mut watch = cluster.follow("get configmap beacon --watch -o jsonpath={.data.n}{\"\\n\"}")?;
    watch.line(Deadline::seconds(20), |line| line == "1")?;
    cluster.tells("patch configmap beacon --type=merge -p '{\"data\":{\"n\":\"2\"}}'")?;
    watch.line(Deadline::seconds(20), |line| line == "2")?;
    cluster.expect("delete configmap beacon", "deleted")
}

/// Leaders that are killed are started again and go on; where they stand still, others take over within their leases.
pub fn leaders_are_replaced(cluster: &Cluster) -> Result<()> {
    for leader in leading(cluster)? {
        cluster.kill(&leader)?;
    }
    rolls_out(cluster, "after")?;
    let still: Vec<_> =
        leading(cluster)?.iter().map(|leader| cluster.pause(leader)).collect::<Result<_>>()?;
    rolls_out(cluster, "instead")?;
    drop(still);
    Ok(())
}

/// The scheduler and the controller manager that lead, once there are both.
fn leading(cluster: &Cluster) -> Result<Vec<String>> {
    let leader = |component: &str| -> Result<Option<String>> {
        let all = cluster.processes()?;
        let mut leaders = all.into_iter().filter(|process| process.role == "leader");
        Ok(leaders.find(|process| process.component == component).map(|process| process.id))
    };
    let components = ["scheduler", "controllers"];
    for component in components {
        cluster.until(&format!("that a {component} leads"), Deadline::seconds(40), |_| {
            Ok(leader(component)?.is_some())
        })?;
    }
    components.iter().map(|component| leader(component)?.context("it led a moment ago")).collect()
}

fn rolls_out(cluster: &Cluster, name: &str) -> Result<()> {
    cluster.tells(&format!("create deployment {name} --image=a --replicas=2"))?;
    cluster.expect(&format!("rollout status deployment {name} --timeout=60s"), "successfully rolled out")?;
    cluster.expect(&format!("delete deployment {name}"), "deleted")
}

pub fn resume(cluster: &Cluster) -> Result<()> {
    cluster.tells("create configmap cargo --from-literal=tea=1")?;
    cluster.tells("create deployment hold --image=a --replicas=2")?;
    cluster.tells("rollout status deployment hold --timeout=60s")?;
    let uid = cluster.tells("get configmap cargo -o jsonpath={.metadata.uid}")?;
    cluster.down("--keep-data")?.ok()?;
    ensure!(!cluster.kubectl("get configmap cargo --request-timeout=2s")?.success, "it should be down");
    let answer = cluster.up_again()?;
    ensure!(answer.err.contains("is up again") || answer.out.contains("is up again"), "{answer:?}");
    answer.ok()?;
    cluster.expect("get configmap cargo -o jsonpath={.metadata.uid}", &uid)?;
    cluster.expect("rollout status deployment hold --timeout=60s", "successfully rolled out")?;
    cluster.tells("create configmap more").map(|_| ())
}
