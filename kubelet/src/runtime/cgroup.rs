//! Pods' cgroups: made with their limits, asked for kills, removed. cgroup v1, hybrid and v2.
//!
//! In: a path relative to every hierarchy's root. Containers' own cgroups below it are runc's.

use super::Resources;
use coracle_daemon::clock;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

const MOUNT: &str = "/sys/fs/cgroup";
/// The scheduler's period for CPU quotas.
const PERIOD_MICROS: i64 = 100_000;
/// The kernel frees a killed process's cgroup a moment later and, in v1, tells nobody; so removal is tried again.
const REMOVE_TRIES_MAX: u32 = 200;
const REMOVE_PAUSE: Duration = Duration::from_millis(5);

/// Whether v2 is the only hierarchy.
pub fn unified() -> bool {
    Path::new(MOUNT).join("cgroup.controllers").exists()
}

/// The roots of all hierarchies: one with v2 alone, several with v1 and hybrid.
fn roots() -> io::Result<Vec<PathBuf>> {
    let root = Path::new(MOUNT);
    if unified() {
        return Ok(vec![root.to_owned()]);
    }
    let mut roots = Vec::new();
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        if !path.is_symlink() && path.join("cgroup.procs").exists() {
            roots.push(path);
        }
    }
    roots.sort();
    Ok(roots)
}

fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// `cpu.shares` for a request, as upstream reckons them.
pub fn shares(request_millis: i64) -> i64 {
    (request_millis.max(0) * 1024 / 1000).clamp(2, 262_144)
}

/// CPU quota and period in microseconds for a limit; `None` is no limit.
pub fn quota(limit_millis: i64) -> Option<(i64, i64)> {
    (limit_millis > 0).then(|| ((limit_millis * PERIOD_MICROS / 1000).max(1000), PERIOD_MICROS))
}

/// Files to write for limits: in v1 by controller, in v2 all in one folder.
fn settings(resources: &Resources, unified: bool) -> Vec<(&'static str, &'static str, String)> {
    let mut files = Vec::new();
    let shares = shares(resources.cpu_request_millis);
    if unified {
        files.push(("", "cpu.weight", (1 + (shares - 2) * 9999 / 262_142).to_string()));
        if let Some((quota, period)) = quota(resources.cpu_limit_millis) {
            files.push(("", "cpu.max", format!("{quota} {period}")));
        }
        if resources.memory_limit_bytes > 0 {
            files.push(("", "memory.max", resources.memory_limit_bytes.to_string()));
        }
        return files;
    }
    files.push(("cpu", "cpu.shares", shares.to_string()));
    if let Some((quota, period)) = quota(resources.cpu_limit_millis) {
        files.push(("cpu", "cpu.cfs_period_us", period.to_string()));
        files.push(("cpu", "cpu.cfs_quota_us", quota.to_string()));
    }
    if resources.memory_limit_bytes > 0 {
        files.push(("memory", "memory.limit_in_bytes", resources.memory_limit_bytes.to_string()));
    }
    files
}

/// Makes the cgroup in every hierarchy and sets its limits. Safe to repeat.
pub fn create(path: &str, resources: &Resources) -> io::Result<()> {
    let unified = unified();
    let roots = roots()?;
    for root in &roots {
        if unified {
            delegate(root, path)?;
        }
        fs::create_dir_all(below(root, path))?;
    }
    for (controller, file, value) in settings(resources, unified) {
        // `cpu` may be mounted as `cpu,cpuacct`; a controller that is not there limits nothing.
        let root = roots.iter().find(|root| unified || serves(root, controller));
        if let Some(file) = root.map(|root| below(root, path).join(file)).filter(|file| file.exists()) {
            fs::write(file, value)?;
        }
    }
    Ok(())
}

/// Whether a hierarchy of v1 is this controller's.
fn serves(root: &Path, controller: &str) -> bool {
    root.file_name().is_some_and(|name| name.to_string_lossy().split(',').any(|part| part == controller))
}

/// Whether the machine has a controller, in whichever version.
pub fn has(controller: &str) -> bool {
    if unified() {
        let all = fs::read_to_string(Path::new(MOUNT).join("cgroup.controllers")).unwrap_or_default();
        return all.split_whitespace().any(|name| name == controller);
    }
    roots().is_ok_and(|roots| roots.iter().any(|root| serves(root, controller)))
}

/// v2: every group above `path` hands its controllers down.
fn delegate(root: &Path, path: &str) -> io::Result<()> {
    let mut group = root.to_owned();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let controllers = fs::read_to_string(group.join("cgroup.controllers"))?;
        let on = fs::read_to_string(group.join("cgroup.subtree_control"))?;
        for controller in controllers.split_whitespace() {
            if matches!(controller, "cpu" | "cpuset" | "memory" | "pids" | "io")
                && !on.split_whitespace().any(|enabled| enabled == controller)
            {
                fs::write(group.join("cgroup.subtree_control"), format!("+{controller}"))?;
            }
        }
        group.push(part);
        fs::create_dir_all(&group)?;
    }
    Ok(())
}

/// How many processes of this cgroup the kernel has killed for want of memory.
pub fn oom_kills(path: &str) -> u64 {
    let (root, file) = if unified() {
        (PathBuf::from(MOUNT), "memory.events")
    } else {
        (Path::new(MOUNT).join("memory"), "memory.oom_control")
    };
    fs::read_to_string(below(&root, path).join(file)).map_or(0, |text| counter(&text, "oom_kill"))
}

fn counter(text: &str, name: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

/// Removes the cgroup with all below it from every hierarchy; processes left in it are killed.
pub async fn remove(path: &str) -> io::Result<()> {
    // A root must never be emptied by an empty path.
    if path.trim_matches('/').is_empty() {
        return Ok(());
    }
    for root in roots()? {
        let group = below(&root, path);
        let mut tries = 0;
        while let Err(error) = remove_tree(&group) {
            tries += 1;
            if tries > REMOVE_TRIES_MAX || error.raw_os_error() != Some(libc::EBUSY) {
                return Err(error);
            }
            clock::sleep(REMOVE_PAUSE).await;
        }
    }
    Ok(())
}

fn remove_tree(group: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    let processes = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    for pid in processes.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0) {
        // Gone already is what we want.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
    match fs::remove_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_become_the_files_of_each_version() {
        let resources = Resources {
            cpu_request_millis: 500,
            cpu_limit_millis: 250,
            memory_limit_bytes: 1 << 20,
            oom_score_adj: 0,
        };
        let files = |unified| {
            settings(&resources, unified)
                .into_iter()
                .map(|(_, file, value)| format!("{file}={value}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            files(false),
            [
                "cpu.shares=512",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=25000",
                "memory.limit_in_bytes=1048576"
            ]
        );
        assert_eq!(files(true), ["cpu.weight=20", "cpu.max=25000 100000", "memory.max=1048576"]);
    }

    #[test]
    fn no_request_still_gets_the_least_share_and_a_tiny_limit_the_least_quota() {
        assert_eq!(shares(0), 2);
        assert_eq!(quota(0), None);
        assert_eq!(quota(1), Some((1000, 100_000)));
    }

    #[test]
    fn kills_are_counted_in_both_versions() {
        assert_eq!(counter("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "oom_kill"), 3);
        assert_eq!(counter("low 0\noom 4\noom_kill 2\n", "oom_kill"), 2);
        assert_eq!(counter("", "oom_kill"), 0);
    }
}
