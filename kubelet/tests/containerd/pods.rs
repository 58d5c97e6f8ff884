//! Scenarios of sandboxes and containers.

use super::world::{LIMIT, World, eventually, run};
use coracle_daemon::clock::Instant;
use kubelet::runtime::{
    ContainerSpec, Mount, Resources, Runtime, RuntimeError, SandboxSpec, Security, State,
};
use std::fs;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

pub async fn a_container_runs_logs_and_ends_with_its_code(world: &mut World) {
    let spec = world.sandbox("runs", 2);
    world.runtime.start_sandbox(&spec).await.unwrap();
    // What changes later does not take the network from under running containers.
    world.runtime.start_sandbox(&SandboxSpec { hostname: "other".to_owned(), ..spec }).await.unwrap();
    let pod = world.pod("runs").await.unwrap();
    assert!(pod.ready && pod.containers.is_empty());
    assert_eq!(pod.address, Some([10, 244, 0, 2].into()));
    let container = world.script("runs", "main", "echo out; echo err >&2; printf part; exit 3");
    let id = world.runtime.start_container(&container).await.unwrap();
    assert_eq!(world.runtime.start_container(&container).await.unwrap(), id);
    assert_eq!(world.end("runs", "main").await, (3, false));
    let mut entries = world.logged("runs", "main", |entries| entries.len() == 3).await;
    entries.sort();
    assert_eq!(entries, ["stderr F err", "stdout F out", "stdout P part"]);
    // The same attempt is the same container, also after its end.
    assert_eq!(world.runtime.start_container(&container).await.unwrap(), id);
    assert_eq!(world.end("runs", "main").await, (3, false));
    world.runtime.remove_container(&id).await.unwrap();
    world.runtime.remove_container(&id).await.unwrap();
    assert!(world.pod("runs").await.unwrap().containers.is_empty());
    world.runtime.remove_sandbox("runs").await.unwrap();
    assert_eq!(world.pod("runs").await, None);
}

pub async fn a_container_that_ends_while_it_is_asked_for_again_has_run_once(world: &mut World) {
    world.runtime.start_sandbox(&world.sandbox("once", 2)).await.unwrap();
    for attempt in 0..10 {
        let spec = ContainerSpec { attempt, ..world.script("once", "main", "echo ran") };
        // Whoever asks again may look before, while and after it ends.
        for _ in 0..5 {
            world.runtime.start_container(&spec).await.unwrap();
        }
    }
    world.end("once", "main").await;
    let entries = world.logged("once", "main", |entries| entries.len() >= 10).await;
    assert_eq!(entries, ["stdout F ran"; 10]);
    world.runtime.remove_sandbox("once").await.unwrap();
}

pub async fn pods_have_addresses_and_names_of_their_own(world: &mut World) {
    let sysctls = [("net.core.somaxconn".to_owned(), "77".to_owned())].into();
    let server = SandboxSpec { sysctls, ..world.sandbox("server", 3) };
    world.runtime.start_sandbox(&server).await.unwrap();
    let script = "hostname; cat /proc/sys/net/core/somaxconn; exec nc -ll -p 80 -e echo hello";
    world.runtime.start_container(&world.script("server", "main", script)).await.unwrap();
    let entries = world.logged("server", "main", |entries| entries.len() == 2).await;
    assert_eq!(entries, ["stdout F pod-server", "stdout F 77"]);
    let read = async |mut stream: TcpStream| {
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        said
    };
    // It listens a moment after it has said so.
    let mut connected = None;
    while connected.is_none() {
        connected = world.runtime.connect("server", 80).await.ok();
    }
    assert_eq!(read(connected.unwrap()).await, "hello\n");
    assert_eq!(read(TcpStream::connect("10.244.0.3:80").await.unwrap()).await, "hello\n");
    assert!(world.runtime.connect("server", 81).await.is_err());
    let client = world.sandbox("client", 4);
    world.runtime.start_sandbox(&client).await.unwrap();
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    let ask = world.script("client", "main", "nc 10.244.0.3 80");
    assert_eq!(world.output(&ask).await, ["stdout F hello"]);
    for uid in ["server", "client"] {
        world.runtime.remove_sandbox(uid).await.unwrap();
    }
    let host = SandboxSpec { address: None, ..world.sandbox("host", 0) };
    world.runtime.start_sandbox(&host).await.unwrap();
    let look = world.script("host", "main", "readlink /proc/self/ns/net");
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(world.output(&look).await, [format!("stdout F {}", own.display())]);
    assert_eq!(world.pod("host").await.unwrap().address, None);
    world.runtime.remove_sandbox("host").await.unwrap();
    let forbidden = [("vm.swappiness".to_owned(), "1".to_owned())].into();
    let forbidden = SandboxSpec { sysctls: forbidden, ..world.sandbox("forbidden", 5) };
    assert!(matches!(world.runtime.start_sandbox(&forbidden).await, Err(RuntimeError::Config(_))));
}

pub async fn a_command_that_is_not_there_is_told_as_users_know_it(world: &mut World) {
    world.runtime.start_sandbox(&world.sandbox("broken", 2)).await.unwrap();
    for (name, tty) in [("plain", false), ("tty", true)] {
        let mut container = world.container("broken", name, &["nosuch"]);
        container.tty = tty;
        match world.runtime.start_container(&container).await {
            Err(RuntimeError::Start(text)) => assert!(
                text.starts_with("failed to create containerd task: ")
                    && text.contains("exec: \"nosuch\": executable file not found in $PATH"),
                "{text}"
            ),
            other => panic!("{other:?}"),
        }
        assert_eq!(world.end("broken", name).await, (128, false));
    }
    let mut root = world.script("broken", "root", "true");
    root.security.non_root = true;
    match world.runtime.start_container(&root).await {
        Err(RuntimeError::Config(text)) => assert_eq!(
            text,
            "container has runAsNonRoot and image will run as root (pod: \"pod-broken_default(broken)\", container: root)"
        ),
        other => panic!("{other:?}"),
    }
    assert_eq!(world.pod("broken").await.unwrap().containers.len(), 2);
    world.runtime.remove_sandbox("broken").await.unwrap();
}

pub async fn images_are_found_by_their_short_names_and_missing_ones_are_told(world: &mut World) {
    let image = world.runtime.image("busybox").await.unwrap().unwrap();
    assert_eq!(image.names, ["docker.io/library/busybox:latest"]);
    assert!(image.id.starts_with("sha256:") && image.size > 100_000 && !image.provided);
    run(
        "ctr",
        &[
            "-n",
            "k8s.io",
            "images",
            "label",
            &image.names[0],
            &format!("{}=true", kubelet::runtime::PROVIDED),
        ],
    );
    for name in ["busybox:latest", "docker.io/library/busybox", &image.id] {
        assert!(world.runtime.image(name).await.unwrap().unwrap().provided, "{name}");
    }
    assert_eq!(world.runtime.images().await.unwrap().len(), 1);
    assert_eq!(world.runtime.image("nosuch").await.unwrap(), None);
    assert_eq!(world.runtime.image("No Such").await.unwrap(), None);
    assert!(matches!(world.runtime.pull("No Such", None).await, Err(RuntimeError::Pull { .. })));
    world.runtime.start_sandbox(&world.sandbox("images", 2)).await.unwrap();
    let mut container = world.script("images", "main", "true");
    container.image = "nosuch".to_owned();
    assert!(matches!(world.runtime.start_container(&container).await, Err(RuntimeError::NotFound { .. })));
    world.runtime.remove_sandbox("images").await.unwrap();
}

pub async fn users_groups_and_limits_are_kept(world: &mut World) {
    world.runtime.start_sandbox(&world.sandbox("users", 2)).await.unwrap();
    let shared = world.dir.join("shared");
    fs::create_dir_all(&shared).unwrap();
    fs::write(shared.join("file"), "content\n").unwrap();
    let mut container = world.script(
        "users",
        "main",
        "id; cat /data/file; touch /data/x /x 2>/dev/null || echo refused; grep -E 'CapEff|NoNewPrivs' /proc/self/status; echo $A; ls /dev/shm",
    );
    container.security = Security {
        user: Some(1000),
        group: Some(2000),
        groups: vec![3000],
        read_only_root: true,
        no_new_privileges: true,
        drop: vec!["ALL".to_owned()],
        ..Security::default()
    };
    container.env = vec![("A".to_owned(), "b c".to_owned())];
    container.mounts =
        vec![Mount { source: shared, target: "/data".to_owned(), read_only: true, propagation: "rprivate" }];
    container.resources = Resources {
        cpu_request_millis: 100,
        cpu_limit_millis: 500,
        memory_limit_bytes: 64 << 20,
        oom_score_adj: -997,
    };
    assert_eq!(
        world.output(&container).await,
        [
            "stdout F uid=1000 gid=2000 groups=2000,3000",
            "stdout F content",
            "stdout F refused",
            "stdout F CapEff:\t0000000000000000",
            "stdout F NoNewPrivs:\t1",
            "stdout F b c",
        ]
    );
    let mut privileged =
        world.script("users", "privileged", "mount -t tmpfs x /mnt && echo mounted; ls /dev/null");
    privileged.security.privileged = true;
    privileged.command[2] = format!("mkdir -p /mnt && {}", privileged.command[2]);
    assert_eq!(world.output(&privileged).await, ["stdout F mounted", "stdout F /dev/null"]);
    let mut filtered = world.script(
        "users",
        "filtered",
        "grep Seccomp: /proc/self/status; unshare -U true 2>/dev/null || echo refused; echo lives",
    );
    filtered.security.seccomp_default = true;
    assert_eq!(world.output(&filtered).await, ["stdout F Seccomp:\t2", "stdout F refused", "stdout F lives"]);
    world.runtime.remove_sandbox("users").await.unwrap();
}

pub async fn stopping_asks_first_and_kills_after_the_grace_period(world: &mut World) {
    world.runtime.start_sandbox(&world.sandbox("stops", 2)).await.unwrap();
    let polite = world.script(
        "stops",
        "polite",
        "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done",
    );
    let stubborn = world.script("stops", "stubborn", "trap '' TERM; echo up; while :; do sleep 0.05; done");
    let grace = Duration::from_millis(300);
    for (container, asked, code) in [(polite, LIMIT, 7), (stubborn, grace, 137)] {
        let id = world.runtime.start_container(&container).await.unwrap();
        world.logged("stops", &container.name, |entries| entries == ["stdout F up"]).await;
        let begun = Instant::now();
        world.runtime.stop_container(&id, asked).await.unwrap();
        assert!(code != 137 || begun.elapsed() >= grace);
        assert!(begun.elapsed() < LIMIT / 2);
        // Recorded by the time that it returns.
        assert!(
            matches!(world.find("stops", &container.name).await.state, State::Exited { code: c, .. } if c == code)
        );
        world.runtime.stop_container(&id, asked).await.unwrap();
    }
    world.runtime.remove_sandbox("stops").await.unwrap();
}

pub async fn a_container_that_takes_too_much_memory_is_known_for_it(world: &mut World) {
    world.runtime.start_sandbox(&world.sandbox("eats", 2)).await.unwrap();
    let mut container = world.container("eats", "main", &["tail", "/dev/zero"]);
    container.resources.memory_limit_bytes = 16 << 20;
    if !fs::exists("/sys/fs/cgroup/memory").unwrap() && !controllers().contains("memory") {
        world.runtime.remove_sandbox("eats").await.unwrap();
        return;
    }
    world.runtime.start_container(&container).await.unwrap();
    assert_eq!(world.end("eats", "main").await, (137, true));
    world.runtime.remove_sandbox("eats").await.unwrap();
}

/// The controllers of cgroup v2 here.
fn controllers() -> String {
    fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default()
}

pub async fn containers_can_share_their_processes(world: &mut World) {
    let spec = SandboxSpec { share_pids: true, ..world.sandbox("shares", 2) };
    world.runtime.start_sandbox(&spec).await.unwrap();
    world.runtime.start_container(&world.script("shares", "main", "exec sleep 12345")).await.unwrap();
    let look =
        world.script("shares", "look", "until ps | grep -q 'sleep 1234[5]'; do sleep 0.05; done; echo seen");
    assert_eq!(world.output(&look).await, ["stdout F seen"]);
    assert!(world.pod("shares").await.unwrap().ready);
    world.runtime.remove_sandbox("shares").await.unwrap();
    assert!(!run("ps", &["ax"]).contains("sleep 12345"));
    assert!(!run("ps", &["ax"]).contains("pod-init"));
}

pub async fn containers_outlive_containerd_and_ends_in_between_are_seen(world: &mut World) {
    world.runtime.start_sandbox(&world.sandbox("outlives", 2)).await.unwrap();
    let file = world.dir.join("go");
    let stays = world.script("outlives", "stays", "echo up; exec sleep 1000");
    let mut ends = world.script("outlives", "ends", "until [ -e /dir/go ]; do sleep 0.05; done; exit 5");
    ends.mounts = vec![Mount {
        source: world.dir.clone(),
        target: "/dir".to_owned(),
        read_only: false,
        propagation: "rprivate",
    }];
    let id = world.runtime.start_container(&stays).await.unwrap();
    world.runtime.start_container(&ends).await.unwrap();
    let before = world.find("outlives", "stays").await;
    world.kill_containerd();
    assert!(world.runtime.list().await.is_err());
    fs::write(&file, "").unwrap();
    eventually(|| (!run("ps", &["ax"]).contains("until [ -e /dir/go ]")).then_some(())).await;
    world.start_containerd().await;
    assert_eq!(world.end("outlives", "ends").await, (5, false));
    assert_eq!(world.find("outlives", "stays").await, before);
    world.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    assert_eq!(world.end("outlives", "stays").await, (137, false));
    world.runtime.remove_sandbox("outlives").await.unwrap();
}

pub async fn containers_outlive_the_kubelet(world: &mut World) {
    world.runtime.start_sandbox(&world.sandbox("again", 2)).await.unwrap();
    let mut tty = world.container("again", "tty", &["sh"]);
    (tty.tty, tty.stdin) = (true, true);
    world.runtime.start_container(&tty).await.unwrap();
    let plain = world.script("again", "plain", "sleep 0.3; echo late; exit 4");
    world.runtime.start_container(&plain).await.unwrap();
    let before = world.find("again", "tty").await;
    world.restart_kubelet().await;
    assert_eq!(world.find("again", "tty").await, before);
    assert!(world.pod("again").await.unwrap().ready);
    assert_eq!(world.end("again", "plain").await, (4, false));
    world.logged("again", "plain", |entries| entries == ["stdout F late"]).await;
    super::streams::shell_answers(world, &before.id).await;
    world.runtime.remove_sandbox("again").await.unwrap();
}

pub async fn a_killed_shim_ends_its_container(world: &mut World) {
    world.runtime.start_sandbox(&world.sandbox("shim", 2)).await.unwrap();
    world.runtime.start_container(&world.script("shim", "main", "exec sleep 1000")).await.unwrap();
    let shim = run("ps", &["axo", "pid,args"]);
    let shim = shim.lines().find(|line| line.contains("containerd-shim-runc-v2")).unwrap();
    let shim = shim.split_whitespace().next().unwrap().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim), nix::sys::signal::Signal::SIGKILL).unwrap();
    // Nobody saw its exit code.
    assert_eq!(world.end("shim", "main").await, (255, false));
    eventually(|| (!run("ps", &["ax"]).contains("sleep 1000")).then_some(())).await;
    world.runtime.remove_sandbox("shim").await.unwrap();
}

pub async fn after_a_restart_of_the_node_ends_are_known_and_pods_start_again(world: &mut World) {
    let spec = world.sandbox("power", 2);
    world.runtime.start_sandbox(&spec).await.unwrap();
    world.runtime.start_container(&world.script("power", "ended", "exit 3")).await.unwrap();
    assert_eq!(world.end("power", "ended").await, (3, false));
    let mut running = world.script("power", "running", "exec sleep 1000");
    world.runtime.start_container(&running).await.unwrap();
    world.restart_node().await;
    let pod = world.pod("power").await.unwrap();
    assert_eq!((pod.ready, pod.address, pod.name.as_str()), (false, None, "pod-power"));
    assert_eq!(world.end("power", "ended").await, (3, false));
    assert_eq!(world.end("power", "running").await, (255, false));
    world.runtime.start_sandbox(&spec).await.unwrap();
    running.attempt = 1;
    world.runtime.start_container(&running).await.unwrap();
    let pod = world.pod("power").await.unwrap();
    assert!(pod.ready && matches!(pod.containers[2].state, State::Running { .. }), "{pod:?}");
    // The pod is deleted while the node is down.
    world.restart_node().await;
    world.runtime.remove_sandbox("power").await.unwrap();
    assert_eq!(world.pod("power").await, None);
}

pub async fn many_pods_start_and_go_at_once(world: &mut World) {
    let begun = Instant::now();
    let pods = (0..20).map(|n| {
        let uid = format!("many{n}");
        let (sandbox, container) =
            (world.sandbox(&uid, 100 + n), world.script(&uid, "main", "exec sleep 1000"));
        let runtime = &world.runtime;
        async move {
            runtime.start_sandbox(&sandbox).await.unwrap();
            runtime.start_container(&container).await.unwrap();
        }
    });
    futures::future::join_all(pods).await;
    let all = world.runtime.list().await.unwrap();
    let running = |pod: &&kubelet::runtime::Sandbox| {
        pod.ready && matches!(pod.containers[0].state, State::Running { .. })
    };
    assert_eq!(all.iter().filter(running).count(), 20);
    eprintln!("    20 pods started in {} ms", begun.elapsed().as_millis());
    let begun = Instant::now();
    let gone = all.iter().map(|pod| world.runtime.remove_sandbox(&pod.uid));
    futures::future::try_join_all(gone).await.unwrap();
    eprintln!("    and removed in {} ms", begun.elapsed().as_millis());
}

pub async fn a_half_made_sandbox_is_made_again(world: &mut World) {
    let spec = world.sandbox("half", 2);
    world.runtime.start_sandbox(&spec).await.unwrap();
    fs::remove_file("/run/coracle/sandboxes/half/ready").unwrap();
    assert!(!world.pod("half").await.unwrap().ready);
    world.runtime.start_sandbox(&spec).await.unwrap();
    assert!(world.pod("half").await.unwrap().ready);
    // A folder whose removal was cut off at the end goes when the next kubelet starts.
    fs::create_dir_all("/run/coracle/sandboxes/left").unwrap();
    world.restart_kubelet().await;
    assert!(!fs::exists("/run/coracle/sandboxes/left").unwrap());
    world.runtime.remove_sandbox("half").await.unwrap();
    world.runtime.remove_sandbox("half").await.unwrap();
}

pub async fn starting_is_fast(world: &mut World) {
    let mut millis = Vec::new();
    for n in 0..10 {
        let uid = format!("fast{n}");
        let begun = Instant::now();
        world.runtime.start_sandbox(&world.sandbox(&uid, 10 + n)).await.unwrap();
        let sandbox = begun.elapsed().as_millis();
        world.runtime.start_container(&world.container(&uid, "main", &["sleep", "1000"])).await.unwrap();
        millis.push((begun.elapsed().as_millis(), sandbox));
    }
    millis.sort_unstable();
    eprintln!("    start of a pod in ms, whole and sandbox: {millis:?}");
    for n in 0..10 {
        world.runtime.remove_sandbox(&format!("fast{n}")).await.unwrap();
    }
}

pub async fn removed_pods_leave_nothing(world: &mut World) {
    assert_eq!(world.runtime.list().await.unwrap(), []);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("/run/coracle/") && !mounts.contains("io.containerd.runtime"), "{mounts}");
    assert_eq!(fs::read_dir("/run/coracle/sandboxes").unwrap().count(), 0);
    assert_eq!(fs::read_dir("/run/coracle/containers").unwrap().count(), 0);
    let devices = fs::read_to_string("/proc/net/dev").unwrap();
    assert!(!devices.contains("veth"), "{devices}");
    let left: Vec<_> = cgroups(&world.cgroup).into_iter().filter(|group| group.contains("/pod")).collect();
    assert!(left.is_empty(), "{left:?}");
    let ctr = |what: &[&str]| run("ctr", &[&["-n", "k8s.io"], what].concat());
    assert_eq!(ctr(&["containers", "list", "-q"]), "");
    assert_eq!(ctr(&["tasks", "list", "-q"]), "");
    let snapshots = ctr(&["snapshots", "list"]);
    assert!(!snapshots.contains("Active"), "{snapshots}");
    eventually(|| (!run("ps", &["ax"]).contains("container-logger")).then_some(())).await;
    eventually(|| (!run("ps", &["ax"]).contains("containerd-shim-runc-v2")).then_some(())).await;
    for group in cgroups(&world.cgroup) {
        fs::remove_dir(group).unwrap();
    }
}

/// All groups below the test's own, in all hierarchies, inner ones first.
fn cgroups(path: &str) -> Vec<String> {
    let found =
        run("find", &["/sys/fs/cgroup", "-depth", "-type", "d", "-path", &format!("/sys/fs/cgroup*{path}*")]);
    found.lines().map(str::to_owned).collect()
}
