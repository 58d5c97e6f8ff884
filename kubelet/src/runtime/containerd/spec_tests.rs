//! Tests of runtime specifications.

use super::*;
use crate::runtime::{SandboxSpec, Security};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

fn container() -> ContainerSpec {
    ContainerSpec {
        pod_uid: "u".into(),
        pod_namespace: "d".into(),
        pod_name: "p".into(),
        name: "c".into(),
        attempt: 0,
        image: "busybox".into(),
        command: Vec::new(),
        args: Vec::new(),
        env: vec![("A".into(), "pod".into())],
        working_dir: None,
        mounts: Vec::new(),
        tty: false,
        stdin: false,
        stdin_once: false,
        security: Security::default(),
        resources: Resources::default(),
        target: None,
        log: PathBuf::from("/log"),
        termination_log: PathBuf::from("/last"),
    }
}

fn sandbox() -> SandboxSpec {
    SandboxSpec {
        uid: "u".into(),
        namespace: "d".into(),
        name: "p".into(),
        hostname: "box".into(),
        address: Some([10, 244, 0, 2].into()),
        host_ports: Vec::new(),
        host_pid: false,
        host_ipc: false,
        share_pids: false,
        sysctls: BTreeMap::new(),
        cgroup: "/kubepods/podu".into(),
        resources: Resources::default(),
    }
}

fn made(container: &ContainerSpec, sandbox: SandboxSpec) -> Result<Value, String> {
    let image: ImageConfiguration = serde_json::from_value(json!({
        "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []},
        "config": {"Entrypoint": ["entry"], "Cmd": ["cmd"], "Env": ["A=image", "B=image"], "WorkingDir": "/srv"},
    }))
    .unwrap();
    let host = Host {
        capabilities: BTreeSet::from(["CHOWN", "SYS_ADMIN"]),
        unified: false,
        cpu_limits: true,
        memory_limits: true,
        swap_limits: true,
        oom_score_adj_min: 0,
    };
    let held = Held::new(std::path::Path::new("/run/coracle"), sandbox);
    let user = User { uid: 1, gid: 2, groups: vec![2, 3], home: None };
    let ground = Ground {
        container,
        id: "abc",
        image: &image,
        user: &user,
        sandbox: &held,
        host: &host,
        target: container.target.as_ref().map(|_| 7),
        devices: &[json!({"path": "/dev/x", "type": "c", "major": 1, "minor": 2})],
    };
    let spec = ground.spec()?;
    // Whatever comes out must be readable as what the specification says.
    serde_json::from_value::<oci_spec::runtime::Spec>(spec.clone()).unwrap();
    Ok(spec)
}

#[test]
fn commands_and_arguments_replace_the_images_as_kubernetes_says() {
    let rows: [(&[&str], &[&str], &[&str]); 4] = [
        (&[], &[], &["entry", "cmd"]),
        (&["x"], &[], &["x"]),
        (&[], &["y"], &["entry", "y"]),
        (&["x"], &["y"], &["x", "y"]),
    ];
    for (command, args, expected) in rows {
        let strings = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        let container = ContainerSpec { command: strings(command), args: strings(args), ..container() };
        assert_eq!(made(&container, sandbox()).unwrap()["process"]["args"], json!(expected));
    }
}

#[test]
fn the_pods_environment_wins_over_the_images() {
    let spec = made(&container(), sandbox()).unwrap();
    assert_eq!(spec["process"]["env"], json!([PATH, "HOSTNAME=box", "A=pod", "B=image"]));
    assert_eq!(spec["process"]["cwd"], "/srv");
}

#[test]
fn a_plain_container_joins_the_pods_namespaces_and_sees_little() {
    let spec = made(&container(), sandbox()).unwrap();
    assert_eq!(
        spec["linux"]["namespaces"],
        json!([
            {"type": "mount"},
            {"type": "network", "path": "/run/coracle/sandboxes/u/net"},
            {"type": "uts", "path": "/run/coracle/sandboxes/u/uts"},
            {"type": "ipc", "path": "/run/coracle/sandboxes/u/ipc"},
            {"type": "pid"},
        ])
    );
    assert_eq!(spec["process"]["capabilities"]["effective"], json!(["CAP_CHOWN"]));
    assert_eq!(spec["process"]["user"], json!({"uid": 1, "gid": 2, "additionalGids": [2, 3]}));
    assert_eq!(spec["linux"]["cgroupsPath"], "/kubepods/podu/abc");
    assert_eq!(spec["linux"]["resources"]["devices"][0]["allow"], false);
    assert!(spec["linux"]["maskedPaths"].as_array().unwrap().len() > 5);
}

#[test]
fn host_namespaces_are_simply_not_left() {
    let sandbox =
        SandboxSpec { address: None, host_pid: true, host_ipc: true, share_pids: true, ..sandbox() };
    let spec = made(&container(), sandbox).unwrap();
    assert_eq!(spec["linux"]["namespaces"], json!([{"type": "mount"}]));
}

#[test]
fn shared_pids_come_from_the_sandbox() {
    let spec = made(&container(), SandboxSpec { share_pids: true, ..sandbox() }).unwrap();
    let namespaces = spec["linux"]["namespaces"].as_array().unwrap();
    assert!(namespaces.contains(&json!({"type": "pid", "path": "/run/coracle/sandboxes/u/pid"})));
}

#[test]
fn privileged_containers_get_all_that_the_machine_has() {
    let security = Security { privileged: true, ..Security::default() };
    let spec = made(&ContainerSpec { security, ..container() }, sandbox()).unwrap();
    assert_eq!(spec["process"]["capabilities"]["bounding"], json!(["CAP_CHOWN", "CAP_SYS_ADMIN"]));
    assert_eq!(spec["linux"]["devices"][0]["path"], "/dev/x");
    assert_eq!(spec["linux"]["resources"]["devices"][0]["allow"], true);
    assert!(spec["linux"].get("maskedPaths").is_none());
}

#[test]
fn limits_are_set_and_oom_scores_cut_to_what_the_machine_allows() {
    let resources = Resources {
        cpu_request_millis: 1000,
        cpu_limit_millis: 1500,
        memory_limit_bytes: 1000,
        oom_score_adj: -997,
    };
    let spec = made(&ContainerSpec { resources, ..container() }, sandbox()).unwrap();
    assert_eq!(
        spec["linux"]["resources"]["cpu"],
        json!({"shares": 1024, "quota": 150_000, "period": 100_000})
    );
    assert_eq!(spec["linux"]["resources"]["memory"], json!({"limit": 1000, "swap": 1000}));
    assert_eq!(spec["process"]["oomScoreAdj"], 0);
}

#[test]
fn outer_mounts_come_before_inner_ones_and_replace_defaults() {
    let mount = |target: &str, propagation| Mount {
        source: "/src".into(),
        target: target.into(),
        read_only: true,
        propagation,
    };
    let mounts = vec![mount("/a/b/c", "rprivate"), mount("/dev/shm/", "rprivate"), mount("/a", "rslave")];
    let spec = made(&ContainerSpec { mounts, ..container() }, sandbox()).unwrap();
    let targets: Vec<&str> = spec["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mount| mount["destination"].as_str().unwrap())
        .collect();
    assert_eq!(targets[6..], ["/a", "/dev/shm/", "/a/b/c"]);
    assert_eq!(spec["linux"]["rootfsPropagation"], "rslave");
}

#[test]
fn a_further_process_differs_in_command_and_terminal_only() {
    let spec = made(&container(), sandbox()).unwrap();
    let process = exec_process(&spec, &["ls".to_owned()], true);
    assert_eq!(process["args"], json!(["ls"]));
    assert_eq!(process["terminal"], true);
    assert_eq!(process["user"], spec["process"]["user"]);
    assert!(process["env"].as_array().unwrap().contains(&json!("TERM=xterm")));
}

#[test]
fn a_target_shows_its_processes_unless_the_pod_shares_them_anyway() {
    let container = ContainerSpec { target: Some("t".into()), ..container() };
    let pids = |sandbox: SandboxSpec| {
        let spec = made(&container, sandbox).unwrap();
        let all = spec["linux"]["namespaces"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|one| one["type"] == "pid")
    };
    assert_eq!(pids(sandbox()).unwrap()["path"], "/proc/7/ns/pid");
    let shared = pids(SandboxSpec { share_pids: true, ..sandbox() }).unwrap();
    assert!(shared["path"].as_str().unwrap().ends_with("/pid"), "{shared}");
    assert_ne!(shared["path"], "/proc/7/ns/pid");
    assert_eq!(pids(SandboxSpec { host_pid: true, ..sandbox() }), None);
}
