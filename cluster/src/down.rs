//! `coracle down`: stop everything, leave nothing behind.

use crate::args::DownArgs;
use crate::control::{Request, ask};
use crate::host;
use crate::kubeconfig;
use crate::layout::Layout;
use crate::spec::Spec;
use crate::supervisor::read_spec;
use anyhow::{Context, Result};
use coracle_daemon::clock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::time::Duration;

/// How long a supervisor may take to stop everything.
const STOP_MAX: Duration = Duration::from_secs(45);

/// Stops a cluster and removes it, or keeps its folder.
///
/// # Errors
/// Something is left and cannot be removed.
pub async fn run(args: DownArgs) -> Result<()> {
    let layout = Layout::of(&args.which);
    let users = kubeconfig::users_file(args.kubeconfig.as_deref());
    let Ok(spec) = read_spec(&layout) else {
        kubeconfig::remove_from(&users, &format!("coracle-{}", args.which.name))?;
        return remove_half_made(&layout, &args.which.name).await;
    };
    stop(&layout, &spec).await?;
    kubeconfig::remove_from(&users, &spec.context())?;
    if !args.keep_data {
        remove_dir(&layout)?;
    }
    let kept = if args.keep_data {
        format!("; its data stays in {}", layout.dir().display())
    } else {
        String::new()
    };
    eprintln!("cluster {} is down{kept}", spec.name);
    Ok(())
}

/// Removes what an `up` that did not end, or damage to the cluster's facts, has left; never what somebody else keeps there.
async fn remove_half_made(layout: &Layout, name: &str) -> Result<()> {
    let dir = layout.dir().display();
    if !layout.dir().exists() {
        eprintln!("there is no cluster {name} in {dir}: nothing to do");
        return Ok(());
    }
    let nothing_else = layout.holds_nothing_else().with_context(|| format!("cannot read {dir}"))?;
    anyhow::ensure!(
        nothing_else,
        "{dir} holds no cluster, and files that are not a cluster's: nothing is removed"
    );
    stop_processes(layout).await;
    remove_dir(layout)?;
    eprintln!("removed the half-made cluster in {dir}");
    Ok(())
}

/// Stops all processes; removes what was made on the host.
///
/// # Errors
/// Something is left and cannot be removed.
pub async fn stop(layout: &Layout, spec: &Spec) -> Result<()> {
    stop_processes(layout).await;
    if spec.has_network() {
        host::network_down(spec).await?;
        for i in 0..spec.nodes {
            host::remove_cgroup(&spec.cgroup(i))?;
        }
        host::remove_cgroup(&format!("/coracle/{}", spec.name))?;
        host::remove_empty_cgroup("/coracle");
    }
    Ok(())
}

/// Through the supervisor or, where it is dead, by themselves.
async fn stop_processes(layout: &Layout) {
    let supervisor = supervisor_pid(layout);
    let asked = clock::timeout(STOP_MAX, ask(&layout.socket(), &Request::Stop)).await;
    if !matches!(asked, Ok(Ok(Some(_)))) {
        tracing::debug!("no supervisor answered; killing what is left");
    } else if let Some(pid) = supervisor {
        wait_gone(pid).await;
    }
    for pid in processes_of(layout) {
        // Gone already is what we want.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        wait_gone(pid).await;
    }
    let _ = fs::remove_file(layout.socket());
}

fn remove_dir(layout: &Layout) -> Result<()> {
    fs::remove_dir_all(layout.dir()).with_context(|| format!("cannot remove {}", layout.dir().display()))?;
    // The parent is ours too when no other cluster lives there.
    if let Some(parent) = layout.dir().parent().filter(|parent| parent.ends_with("coracle")) {
        let _ = fs::remove_dir(parent);
    }
    Ok(())
}

/// The supervisor itself: the one process of the folder that is told `run-supervisor`.
fn supervisor_pid(layout: &Layout) -> Option<i32> {
    processes_of(layout)
        .into_iter()
        .find(|pid| command_line(*pid).iter().any(|word| word == "run-supervisor"))
}

/// Processes of this program or containerd whose command line names the cluster's folder.
fn processes_of(layout: &Layout) -> Vec<i32> {
    let dir = layout.dir().to_string_lossy().into_owned();
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    ids.filter(|pid| *pid != own && is_ours(&command_line(*pid), &dir)).collect()
}

fn is_ours(words: &[String], dir: &str) -> bool {
    let Some(program) = words.first() else { return false };
    let ours = ["coracle", "containerd", "etcd"]
        .iter()
        .any(|name| program == name || program.ends_with(&format!("/{name}")));
    let inside = |word: &str| word == dir || word.starts_with(&format!("{dir}/"));
    ours && words
        .iter()
        .any(|word| inside(word) || word.split_once('=').is_some_and(|(_, value)| inside(value)))
}

fn command_line(pid: i32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect()
}

/// Waits for the end of a process that is not our child, by its pidfd.
async fn wait_gone(pid: i32) {
    let waited = tokio::task::spawn_blocking(move || {
        #[expect(unsafe_code, reason = "nix has no pidfd_open")]
        // SAFETY: the call takes two integers and returns a file descriptor or -1.
        let fd = unsafe { nix::libc::syscall(nix::libc::SYS_pidfd_open, pid, 0) };
        let Ok(fd) = i32::try_from(fd) else { return };
        if fd < 0 {
            return;
        }
        #[expect(unsafe_code, reason = "the descriptor was just made and has no other owner")]
        // SAFETY: see above.
        let fd = unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) };
        let mut fds = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&fd), nix::poll::PollFlags::POLLIN)];
        // A timeout is as good as an end here: the caller's removal of files tells.
        let _ = nix::poll::poll(&mut fds, nix::poll::PollTimeout::from(10_000u16));
    });
    let _ = waited.await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Which;

    async fn down(dir: &std::path::Path) -> Result<()> {
        let which = Which { name: "t".to_owned(), dir: Some(dir.to_owned()) };
        run(DownArgs { which, kubeconfig: Some(dir.with_extension("kubeconfig")), keep_data: false }).await
    }

    #[tokio::test]
    async fn a_folder_that_holds_something_else_is_never_removed() {
        let outer = tempfile::tempdir().expect("temp dir");
        let dir = outer.path().join("thesis");
        down(&dir).await.expect("nothing is nothing to do");
        fs::create_dir_all(dir.join("pki")).expect("a folder");
        fs::write(dir.join("spec.part"), "{").expect("what an up that was killed leaves");
        down(&dir).await.expect("a half-made cluster goes");
        assert!(!dir.exists());

        for foreign in ["thesis.txt", ".git", "pki2"] {
            fs::create_dir_all(dir.join("pki")).expect("a folder");
            fs::write(dir.join("spec.json"), "somebody else's").expect("no spec of a cluster");
            fs::write(dir.join(foreign), "x").expect("a file");
            let error = down(&dir).await.expect_err("refused");
            assert!(format!("{error:#}").contains("nothing is removed"), "{error:#}");
            assert!(dir.join(foreign).exists() && dir.join("spec.json").exists() && dir.join("pki").exists());
            fs::remove_dir_all(&dir).expect("tidy up");
        }
    }

    #[test]
    fn only_processes_of_the_folder_are_ours() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!(is_ours(&words("/usr/bin/coracle store --data-dir=/c/a/stores/0"), "/c/a"));
        assert!(is_ours(&words("containerd --config=/c/a/nodes/x/containerd.toml"), "/c/a"));
        assert!(!is_ours(&words("/usr/bin/coracle store --data-dir=/c/ab/stores/0"), "/c/a"));
        assert!(!is_ours(&words("vi /c/a/spec.json"), "/c/a"));
    }
}
