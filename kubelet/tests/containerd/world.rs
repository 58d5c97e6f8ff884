//! A containerd of the test's own in namespaces of its own, and short ways to say what a pod should be.

use coracle_daemon::{Tasks, clock};
use kubelet::runtime::{
    Changed, Config, Container, ContainerSpec, Containerd, Resources, Runtime, Sandbox, SandboxSpec,
    Security, State,
};
use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::sync::mpsc;

/// Everything here happens within this, on a slow machine.
pub const LIMIT: Duration = Duration::from_secs(30);
const SOCKET: &str = "/run/containerd/containerd.sock";

/// The `coracle` program that was built beside this test.
pub fn program() -> PathBuf {
    let test = std::env::current_exe().expect("the test knows its own path");
    test.ancestors().nth(2).expect("target/debug/deps/test").join("coracle")
}

/// The node: containerd, and a runtime that uses it.
pub struct World {
    pub runtime: Containerd,
    pub changes: mpsc::Receiver<Changed>,
    pub dir: PathBuf,
    pub cgroup: String,
    containerd: Child,
    tasks: Tasks,
}

impl World {
    pub async fn start(dir: &Path) -> Self {
        let containerd = start_containerd(dir);
        let (runtime, changes, tasks) = connect(dir).await;
        let image = dir.join("busybox.tar");
        let made =
            run("ctr", &["--address", SOCKET, "-n", "k8s.io", "images", "import", &image.to_string_lossy()]);
        assert!(made.contains("docker.io/library/busybox"), "{made}");
        let cgroup = format!("/coracle-test-{}", fs::read_link("/proc/self/ns/mnt").unwrap().display());
        let cgroup = cgroup.replace(['[', ']', ':'], "-");
        Self { runtime, changes, dir: dir.to_owned(), cgroup, containerd, tasks }
    }

    /// As a kubelet that was killed and started again.
    pub async fn restart_kubelet(&mut self) {
        // The old one's tasks go with it; they are not waited for, as nobody waits for a killed process.
        let _ = self.tasks.stop_within(Duration::from_secs(5)).await;
        (self.runtime, self.changes, self.tasks) = connect(&self.dir).await;
    }

    /// As a node that lost its power: processes and /run are gone, the disk is not.
    pub async fn restart_node(&mut self) {
        let _ = self.tasks.stop_within(Duration::from_secs(5)).await;
        self.kill_containerd();
        let own = std::process::id().to_string();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let pid = entry.file_name().to_string_lossy().into_owned();
            if pid != own
                && let Ok(pid) = pid.parse()
            {
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid),
                    nix::sys::signal::Signal::SIGKILL,
                );
            }
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        for target in
            mounts.lines().filter_map(|line| line.split(' ').nth(4)).filter(|it| it.starts_with("/run/"))
        {
            let _ = nix::mount::umount2(target, nix::mount::MntFlags::MNT_DETACH);
        }
        nix::mount::umount2("/run", nix::mount::MntFlags::MNT_DETACH).unwrap();
        super::private_folder("/run");
        self.containerd = start_containerd(&self.dir);
        (self.runtime, self.changes, self.tasks) = connect(&self.dir).await;
    }

    pub fn kill_containerd(&mut self) {
        self.containerd.kill().expect("containerd is killed");
        self.containerd.wait().expect("containerd is waited for");
    }

    /// Returns once it answers.
    pub async fn start_containerd(&mut self) {
        self.containerd = start_containerd(&self.dir);
        let answered = async {
            while self.runtime.list().await.is_err() {
                // Another process's start has no event to wait for.
                clock::sleep(Duration::from_millis(10)).await;
            }
        };
        clock::timeout(LIMIT, answered).await.expect("containerd answers in time");
    }

    pub fn sandbox(&self, uid: &str, last_byte: u8) -> SandboxSpec {
        SandboxSpec {
            uid: uid.to_owned(),
            namespace: "default".to_owned(),
            name: format!("pod-{uid}"),
            hostname: format!("pod-{uid}"),
            address: Some(Ipv4Addr::new(10, 244, 0, last_byte)),
            host_ports: Vec::new(),
            host_pid: false,
            host_ipc: false,
            share_pids: false,
            sysctls: BTreeMap::new(),
            cgroup: format!("{}/pod{uid}", self.cgroup),
            resources: Resources::default(),
        }
    }

    /// A container that runs a shell script.
    pub fn script(&self, uid: &str, name: &str, script: &str) -> ContainerSpec {
        self.container(uid, name, &["sh", "-c", script])
    }

    pub fn container(&self, uid: &str, name: &str, command: &[&str]) -> ContainerSpec {
        ContainerSpec {
            pod_uid: uid.to_owned(),
            pod_namespace: "default".to_owned(),
            pod_name: format!("pod-{uid}"),
            name: name.to_owned(),
            attempt: 0,
            image: "busybox".to_owned(),
            command: command.iter().map(|s| (*s).to_owned()).collect(),
            args: Vec::new(),
            env: Vec::new(),
            working_dir: None,
            mounts: Vec::new(),
            tty: false,
            stdin: false,
            stdin_once: false,
            security: Security::default(),
            resources: Resources::default(),
            target: None,
            log: self.log(uid, name),
            termination_log: self.dir.join("last-words"),
        }
    }

    fn log(&self, uid: &str, name: &str) -> PathBuf {
        self.dir.join("pods").join(uid).join(name).join("0.log")
    }

    /// The log's entries without their times.
    pub fn entries(&self, uid: &str, name: &str) -> Vec<String> {
        let log = fs::read_to_string(self.log(uid, name)).unwrap_or_default();
        log.lines().filter_map(|line| line.split_once(' ')).map(|(_, rest)| rest.to_owned()).collect()
    }

    pub async fn pod(&self, uid: &str) -> Option<Sandbox> {
        self.runtime.sandbox(uid).await.expect("the pod is looked up")
    }

    pub async fn find(&self, uid: &str, name: &str) -> Container {
        let pod = self.pod(uid).await.expect("the pod is there");
        pod.containers.into_iter().find(|container| container.name == name).expect("the container is there")
    }

    /// Waits, from hint to hint, until the container is as wanted.
    pub async fn until(&mut self, uid: &str, name: &str, wanted: impl Fn(&State) -> bool) -> State {
        let mut last = None;
        let reached = async {
            loop {
                let state = self.find(uid, name).await.state;
                if wanted(&state) {
                    return state;
                }
                last = Some(state);
                while self.changes.recv().await.expect("hints go on").uid != uid {}
            }
        };
        match clock::timeout(LIMIT, reached).await {
            Ok(state) => state,
            Err(_) => panic!("{uid}/{name} stays {last:?}"),
        }
    }

    /// The exit code and whether memory was the cause.
    pub async fn end(&mut self, uid: &str, name: &str) -> (i32, bool) {
        match self.until(uid, name, |state| matches!(state, State::Exited { .. })).await {
            State::Exited { code, oom, .. } => (code, oom),
            state => unreachable!("{state:?}"),
        }
    }

    /// Runs a script to its end and returns its output.
    pub async fn output(&mut self, container: &ContainerSpec) -> Vec<String> {
        self.runtime.start_container(container).await.expect("the container starts");
        let (uid, name) = (container.pod_uid.clone(), container.name.clone());
        self.end(&uid, &name).await;
        self.logged(&uid, &name, |entries| !entries.is_empty()).await
    }

    /// Waits until the log is as wanted: the logger is a process of its own.
    pub async fn logged(&self, uid: &str, name: &str, wanted: impl Fn(&[String]) -> bool) -> Vec<String> {
        let logged = eventually(|| Some(self.entries(uid, name)).filter(|entries| wanted(entries)));
        match clock::timeout(LIMIT - Duration::from_secs(5), logged).await {
            Ok(entries) => entries,
            Err(_) => {
                panic!("{uid}/{name} has logged {:?}\n{}", self.entries(uid, name), run("ps", &["axf"]))
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.containerd.kill();
    }
}

/// Asks again until there is an answer. For what sends no events: files, the kernel's tables.
pub async fn eventually<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let asked = async {
        loop {
            if let Some(answer) = ask() {
                return answer;
            }
            clock::sleep(Duration::from_millis(10)).await;
        }
    };
    clock::timeout(LIMIT, asked).await.expect("it happens in time")
}

async fn connect(dir: &Path) -> (Containerd, mpsc::Receiver<Changed>, Tasks) {
    let tasks = Tasks::new();
    let config = Config {
        endpoint: format!("unix://{SOCKET}"),
        namespace: "k8s.io".to_owned(),
        program: dir.join("coracle"),
    };
    let connected = clock::timeout(LIMIT, Containerd::connect(config, &tasks)).await;
    let runtime = connected.expect("containerd answers in time").expect("containerd is there");
    let changes = runtime.changes().expect("nobody took the hints yet");
    (runtime, changes, tasks)
}

fn start_containerd(dir: &Path) -> Child {
    let config = dir.join("containerd.toml");
    let root = dir.join("containerd");
    let text = format!(
        "version = 2\nroot = {root:?}\nstate = \"/run/containerd\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\n  address = \"{SOCKET}\"\n"
    );
    fs::write(&config, text).expect("the configuration is written");
    let log = fs::File::options().create(true).append(true).open(dir.join("containerd.log")).expect("a log");
    Command::new("containerd")
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log"))
        .stderr(log)
        .spawn()
        .expect("containerd starts")
}

/// Runs a program to its end and returns its output.
pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().expect("the program runs");
    let told = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {}", told(&output.stderr));
    told(&output.stdout)
}
