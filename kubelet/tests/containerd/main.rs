//! The containerd runtime against a real containerd, in namespaces of its own: a private /run, /proc, network and processes.
//!
//! Needs root, containerd, runc and the `coracle` program; without them it says so and passes.

#![expect(
    clippy::unwrap_used,
    reason = "the scenarios are all of this test; clippy only spares functions marked as tests"
)]

mod pods;
mod registry;
mod streams;
mod world;

use std::path::Path;
use std::process::{Command, Stdio};
use world::{World, program};

/// Why this machine cannot run the test.
fn missing() -> Option<String> {
    let root = std::fs::metadata("/proc/self").is_ok_and(|it| std::os::unix::fs::MetadataExt::uid(&it) == 0);
    if !root {
        return Some("it needs root".to_owned());
    }
    for (tool, flag) in [("containerd", "--version"), ("runc", "--version"), ("unshare", "--version")] {
        let there = Command::new(tool).arg(flag).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !there.is_ok_and(|status| status.success()) {
            return Some(format!("{tool} is not installed"));
        }
    }
    let program = program();
    (!program.exists()).then(|| format!("{} is not built (cargo build -p coracle)", program.display()))
}

#[test]
fn pods_run_in_a_real_containerd() {
    if let Some(why) = missing() {
        eprintln!("skipped: {why}");
        return;
    }
    let cgroups = if std::fs::exists("/sys/fs/cgroup/cgroup.controllers").expect("cgroups are mounted") {
        vec![""]
    } else {
        // Version 2 alone as well, although without the controllers that version 1 keeps.
        vec!["", "2"]
    };
    for cgroups in cgroups {
        let dir = tempfile::tempdir().expect("a folder");
        let built = Command::new(program())
            .args(["image", "build", "debian:busybox", "--out"])
            .arg(dir.path().join("busybox.tar"))
            .output()
            .expect("coracle runs");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        // A copy, so that building anew meanwhile does not take it away.
        std::fs::copy(program(), dir.path().join("coracle")).expect("the program is copied");
        let test = std::env::current_exe().expect("the test knows its own path");
        let status = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--mount-proc", "--kill-child"])
            .arg(test)
            .args(["--exact", "inside", "--ignored", "--nocapture"])
            .env("CORACLE_TEST_DIR", dir.path())
            .env("CORACLE_TEST_CGROUPS", cgroups)
            .status()
            .expect("unshare runs");
        assert!(status.success(), "{status}");
    }
}

#[test]
#[ignore = "run by the other test, in namespaces of its own"]
fn inside() {
    let Some(dir) = std::env::var_os("CORACLE_TEST_DIR") else {
        eprintln!("skipped: not in namespaces of its own");
        return;
    };
    private_folder("/run");
    private_folder("/var/log");
    if std::env::var("CORACLE_TEST_CGROUPS").is_ok_and(|version| version == "2") {
        let none = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("cgroup2"), "/sys/fs/cgroup", Some("cgroup2"), none, None::<&str>)
            .expect("cgroups of version 2");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(scenarios(Path::new(&dir)));
}

fn private_folder(path: &str) {
    let none = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("tmpfs"), path, Some("tmpfs"), none, Some("mode=755")).expect("a private folder");
}

/// A loopback device with an address that pods can answer to, as every node has one.
async fn node_network() {
    let (connection, netlink, _) = rtnetlink::new_connection().expect("a netlink socket");
    let tasks = coracle_daemon::Tasks::new();
    tasks.run("netlink", connection);
    let up = rtnetlink::LinkUnspec::new_with_index(1).up().build();
    netlink.link().set(up).execute().await.expect("the loopback device starts");
    let address = std::net::Ipv4Addr::new(10, 89, 0, 10).into();
    netlink.address().add(1, address, 32).execute().await.expect("the node gets its address");
}

/// All in one containerd, one after the other: starting one for each would take longer than all of them.
async fn scenarios(dir: &Path) {
    node_network().await;
    let mut world = World::start(dir).await;
    macro_rules! scenario {
        ($($part:ident :: $name:ident),* $(,)?) => {$(
            let begun = coracle_daemon::clock::Instant::now();
            $part::$name(&mut world).await;
            eprintln!("  {} ({} ms)", stringify!($name), begun.elapsed().as_millis());
        )*};
    }
    scenario![
        pods::a_container_runs_logs_and_ends_with_its_code,
        pods::a_container_that_ends_while_it_is_asked_for_again_has_run_once,
        pods::pods_have_addresses_and_names_of_their_own,
        pods::a_command_that_is_not_there_is_told_as_users_know_it,
        pods::images_are_found_by_their_short_names_and_missing_ones_are_told,
        registry::images_are_pulled_from_a_registry,
        registry::damaged_content_is_refused,
        pods::users_groups_and_limits_are_kept,
        pods::stopping_asks_first_and_kills_after_the_grace_period,
        pods::a_container_that_takes_too_much_memory_is_known_for_it,
        pods::containers_can_share_their_processes,
        streams::commands_run_beside_a_container,
        streams::a_terminal_can_be_attached_to,
        streams::input_ends_with_the_first_who_gives_it,
        streams::output_can_be_followed_by_attaching,
        pods::containers_outlive_containerd_and_ends_in_between_are_seen,
        pods::containers_outlive_the_kubelet,
        pods::a_killed_shim_ends_its_container,
        pods::after_a_restart_of_the_node_ends_are_known_and_pods_start_again,
        pods::many_pods_start_and_go_at_once,
        pods::a_half_made_sandbox_is_made_again,
        pods::starting_is_fast,
        pods::removed_pods_leave_nothing,
    ];
}
