//! `up`, `status`, `down`.

use anyhow::{Context, Result, ensure};
use coracle_tests::{Cluster, Deadline};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

pub fn up_tells_its_steps(cluster: &Cluster) -> Result<()> {
    for step in ["certificates", "processes started", "API ready", "nodes Ready", "is up at"] {
        ensure!(cluster.told.contains(step), "`up` does not tell {step:?}, but: {}", cluster.told);
    }
    cluster.until("that every process is well", Deadline::seconds(30), |cluster| {
        Ok(cluster.processes()?.iter().all(|process| process.health == "ok"))
    })?;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for process in cluster.processes()? {
        ensure!(process.restarts == 0, "{} was restarted: {process:?}", process.id);
        *counts.entry(process.component).or_default() += 1;
    }
    for (component, count) in
        [("apiserver", 2), ("store", 3), ("scheduler", 2), ("controllers", 2), ("kubelet", 1)]
    {
        ensure!(counts.get(component) == Some(&count), "{count} of {component}, not: {counts:?}");
    }
    Ok(())
}

/// Components that start before their roles are bound would be.
pub fn nothing_was_forbidden(cluster: &Cluster) -> Result<()> {
    for (log, text) in cluster.logs() {
        let refused = text.lines().find(|line| line.contains("orbidden"));
        ensure!(refused.is_none(), "{}: {}", log.display(), refused.unwrap_or_default());
    }
    Ok(())
}

pub fn up_again_says_already_up(cluster: &Cluster) -> Result<()> {
    let answer = cluster.up_again()?;
    let told = format!("{}{}", answer.out, answer.err);
    answer.ok()?;
    ensure!(told.contains("is already up"), "{told}");
    Ok(())
}

/// Every file that may hold a key or a token.
pub fn keys_are_private(cluster: &Cluster) -> Result<()> {
    let mut open = Vec::new();
    look(&cluster.folder(), &mut |path, text| {
        let mode = fs::metadata(path)?.permissions().mode();
        if (text.contains("PRIVATE KEY") || text.contains("client-key-data")) && mode & 0o077 != 0 {
            open.push(format!("{} has mode {mode:o}", path.display()));
        }
        Ok(())
    })?;
    let mode = fs::metadata(cluster.kubeconfig())?.permissions().mode();
    if mode & 0o077 != 0 {
        open.push(format!("the user's kubeconfig has mode {mode:o}"));
    }
    ensure!(open.is_empty(), "{open:#?}");
    Ok(())
}

fn look(folder: &Path, at: &mut impl FnMut(&Path, &str) -> Result<()>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let (path, kind) =
            (entry.as_ref().map(fs::DirEntry::path), entry.as_ref().map(fs::DirEntry::file_type));
        let (Ok(path), Ok(Ok(kind))) = (path, kind) else { continue };
        if kind.is_dir() {
            look(&path, at)?;
        } else if kind.is_file() {
            // A file that went away meanwhile holds nothing.
            let Ok(bytes) = fs::read(&path) else { continue };
            at(&path, &String::from_utf8_lossy(&bytes))?;
        }
    }
    Ok(())
}

pub fn down_leaves_nothing(cluster: &Cluster) -> Result<()> {
    let pids: Vec<i32> = cluster.processes()?.into_iter().filter_map(|process| process.pid).collect();
    ensure!(!pids.is_empty(), "no process runs");
    cluster.down("")?.ok()?;
    let alive: Vec<i32> =
        pids.into_iter().filter(|pid| Path::new(&format!("/proc/{pid}")).exists()).collect();
    ensure!(alive.is_empty(), "processes live on: {alive:?}");
    ensure!(!cluster.folder().exists(), "{} is still there", cluster.folder().display());
    let kubeconfig = fs::read_to_string(cluster.kubeconfig()).unwrap_or_default();
    ensure!(!kubeconfig.contains(cluster.name()), "the kubeconfig still names the cluster: {kubeconfig}");
    let answer = cluster.down("")?;
    ensure!(answer.err.contains("nothing to do"), "a second `down` says so: {}", answer.err);
    answer.ok()?;
    Ok(())
}
