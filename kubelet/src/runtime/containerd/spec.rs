//! What a container should be in, an OCI runtime specification out. Pure.
//!
//! Defaults are those of containerd's CRI. As with upstream's kubelet, no seccomp filter is set unless asked for.

use super::accounts::User;
use super::host::Host;
use super::seccomp;
use crate::runtime::sandbox::Held;
use crate::runtime::{ContainerSpec, Mount, Resources, cgroup};
use oci_spec::image::ImageConfiguration;
use serde_json::{Value, json};

/// The type under which containerd keeps a runtime specification.
pub const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
/// The type under which containerd takes a further process.
pub const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

/// The type under which containerd takes limits.
pub const RESOURCES_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// All that a specification is made of.
pub struct Ground<'a> {
    /// What is wanted.
    pub container: &'a ContainerSpec,
    /// The runtime's id for it.
    pub id: &'a str,
    /// The image's configuration.
    pub image: &'a ImageConfiguration,
    /// Who it runs as.
    pub user: &'a User,
    /// The pod's sandbox.
    pub sandbox: &'a Held,
    /// The machine.
    pub host: &'a Host,
    /// The first process of the container whose processes it sees.
    pub target: Option<u32>,
    /// The machine's device files; looked at for privileged containers.
    pub devices: &'a [Value],
}

impl Ground<'_> {
    /// The specification.
    ///
    /// # Errors
    /// There is no command to run. The text is for the container's status.
    pub fn spec(&self) -> Result<Value, String> {
        let (container, security) = (self.container, &self.container.security);
        let mut spec = json!({
            "ociVersion": "1.0.2",
            "process": self.process()?,
            "root": {"path": "rootfs", "readonly": security.read_only_root},
            "mounts": self.mounts(),
            "linux": {
                "cgroupsPath": format!("{}/{}", self.sandbox.spec.cgroup.trim_end_matches('/'), self.id),
                "resources": self.resources(),
                "namespaces": self.namespaces(),
            },
        });
        let linux = &mut spec["linux"];
        if security.privileged {
            linux["devices"] = json!(self.devices);
        } else {
            linux["maskedPaths"] = json!(MASKED);
            linux["readonlyPaths"] = json!(READ_ONLY);
        }
        if security.seccomp_default && !security.privileged {
            linux["seccomp"] = seccomp::profile(&self.host.capabilities_for(security));
        }
        // Mounts can only flow in or out where the root does not stop them.
        let flows = |how: &str| container.mounts.iter().any(|mount| mount.propagation == how);
        if flows("rshared") {
            linux["rootfsPropagation"] = json!("rshared");
        } else if flows("rslave") {
            linux["rootfsPropagation"] = json!("rslave");
        }
        Ok(spec)
    }

    fn process(&self) -> Result<Value, String> {
        let (container, security) = (self.container, &self.container.security);
        let capabilities = self.host.capabilities_for(security);
        let image = self.image.config().as_ref();
        let working_dir = container
            .working_dir
            .clone()
            .or_else(|| image.and_then(|image| image.working_dir().clone()))
            .filter(|dir| !dir.is_empty());
        Ok(json!({
            "terminal": container.tty,
            "user": {"uid": self.user.uid, "gid": self.user.gid, "additionalGids": self.user.groups},
            "args": self.args()?,
            "env": self.env(),
            "cwd": working_dir.as_deref().unwrap_or("/"),
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "noNewPrivileges": security.no_new_privileges,
            "oomScoreAdj": container.resources.oom_score_adj.clamp(self.host.oom_score_adj_min, 1000),
        }))
    }

    /// Kubernetes' rule: a command replaces the image's entrypoint and drops its cmd; arguments replace its cmd.
    fn args(&self) -> Result<Vec<String>, String> {
        let container = self.container;
        let image = self.image.config().as_ref();
        let entrypoint = image.and_then(|image| image.entrypoint().clone()).unwrap_or_default();
        let cmd = image.and_then(|image| image.cmd().clone()).unwrap_or_default();
        let mut args = if container.command.is_empty() { entrypoint } else { container.command.clone() };
        if !container.args.is_empty() {
            args.extend(container.args.iter().cloned());
        } else if container.command.is_empty() {
            args.extend(cmd);
        }
        if args.is_empty() { Err("no command specified".to_owned()) } else { Ok(args) }
    }

    fn env(&self) -> Vec<String> {
        let mut env: Vec<String> = Vec::new();
        let mut set = |entry: String| {
            let name = entry.split('=').next().unwrap_or_default();
            match env.iter_mut().find(|old| old.split('=').next() == Some(name)) {
                Some(old) => *old = entry,
                None => env.push(entry),
            }
        };
        set(PATH.to_owned());
        if self.container.tty {
            set("TERM=xterm".to_owned());
        }
        set(format!("HOSTNAME={}", self.sandbox.spec.hostname));
        let image = self.image.config().as_ref().and_then(|image| image.env().clone()).unwrap_or_default();
        image.into_iter().for_each(&mut set);
        self.container.env.iter().for_each(|(name, value)| set(format!("{name}={value}")));
        // runc sets HOME itself when nobody did, from the container's /etc/passwd.
        env
    }

    fn mounts(&self) -> Vec<Value> {
        let writable = if self.container.security.privileged { "rw" } else { "ro" };
        let mount = |target: &str, kind: &str, options: &[&str]| json!({"destination": target, "type": kind, "source": kind, "options": options});
        let mut mounts = vec![
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount(
                "/dev/pts",
                "devpts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            ),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", writable]),
            mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", writable]),
            json!({"destination": "/dev/shm", "type": "bind", "source": self.sandbox.shm(), "options": ["rbind", "rw"]}),
        ];
        let mut wanted: Vec<&Mount> = self.container.mounts.iter().collect();
        let target = |mount: &Mount| mount.target.trim_end_matches('/').to_owned();
        mounts.retain(|mount| !wanted.iter().any(|own| mount["destination"] == target(own).as_str()));
        // What is mounted inside another mount comes after it.
        wanted.sort_by_key(|mount| target(mount).split('/').count());
        mounts.extend(wanted.into_iter().map(|mount| {
            let access = if mount.read_only { "ro" } else { "rw" };
            json!({"destination": mount.target, "type": "bind", "source": mount.source, "options": ["rbind", mount.propagation, access]})
        }));
        mounts
    }

    fn namespaces(&self) -> Vec<Value> {
        let (held, spec) = (self.sandbox, &self.sandbox.spec);
        let mut namespaces = vec![json!({"type": "mount"})];
        let mut join = |kind: &str, pin: &str| {
            namespaces.push(json!({"type": kind, "path": held.pin(pin)}));
        };
        if spec.address.is_some() {
            join("network", "net");
            join("uts", "uts");
        }
        if !spec.host_ipc {
            join("ipc", "ipc");
        }
        match (spec.host_pid, spec.share_pids, self.target) {
            (true, ..) => {}
            (false, true, _) => join("pid", "pid"),
            (false, false, Some(target)) => {
                namespaces.push(json!({"type": "pid", "path": format!("/proc/{target}/ns/pid")}));
            }
            (false, false, None) => namespaces.push(json!({"type": "pid"})),
        }
        if self.host.unified {
            namespaces.push(json!({"type": "cgroup"}));
        }
        namespaces
    }

    fn resources(&self) -> Value {
        let privileged = self.container.security.privileged;
        let mut resources = limits(&self.container.resources, self.host);
        resources["devices"] = json!([{"allow": privileged, "access": "rwm"}]);
        resources
    }
}

/// What the machine can limit of what should be.
pub fn limits(resources: &Resources, host: &Host) -> Value {
    let mut out = json!({});
    if host.cpu_limits {
        out["cpu"] = json!({"shares": cgroup::shares(resources.cpu_request_millis)});
        if let Some((quota, period)) = cgroup::quota(resources.cpu_limit_millis) {
            out["cpu"]["quota"] = json!(quota);
            out["cpu"]["period"] = json!(period);
        }
    }
    let memory = resources.memory_limit_bytes;
    if memory > 0 && host.memory_limits {
        out["memory"] = json!({"limit": memory});
        if host.swap_limits {
            // Memory and swap together: no swap beyond the memory.
            out["memory"]["swap"] = json!(memory);
        }
    }
    out
}

/// A further process of a container, made of its first one.
pub fn exec_process(spec: &Value, command: &[String], tty: bool) -> Value {
    let mut process = spec["process"].clone();
    process["args"] = json!(command);
    process["terminal"] = json!(tty);
    if let Some(env) = process["env"].as_array_mut()
        && tty
        && !env.iter().any(|entry| entry.as_str().is_some_and(|entry| entry.starts_with("TERM=")))
    {
        env.push(json!("TERM=xterm"));
    }
    process
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
