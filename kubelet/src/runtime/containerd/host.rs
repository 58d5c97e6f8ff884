//! What this machine allows: the bounds that every container's wishes are cut to.

use crate::runtime::{Security, cgroup};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Linux's capabilities by number.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container gets that asks for nothing, as with Docker and containerd.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// Folders and files below /dev that a container has of its own.
const OWN_DEVICES: [&str; 7] =
    ["/dev/pts", "/dev/shm", "/dev/fd", "/dev/mqueue", "/dev/console", "/dev/core", "/dev/ptmx"];
const DEVICES_MAX: usize = 4096;

/// The machine's bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Capabilities that can be handed on, without `CAP_`.
    pub capabilities: BTreeSet<&'static str>,
    /// cgroup v2 alone.
    pub unified: bool,
    /// Processors can be shared out.
    pub cpu_limits: bool,
    /// Memory can be limited.
    pub memory_limits: bool,
    /// Swap can be limited together with memory.
    pub swap_limits: bool,
    /// No process here may be given a lower `oom_score_adj`.
    pub oom_score_adj_min: i64,
}

impl Host {
    /// Looks at the machine.
    pub fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let capabilities = held(&status);
        let own = fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|own| own.trim().parse().ok());
        let unified = cgroup::unified();
        Self {
            oom_score_adj_min: if capabilities.contains("SYS_RESOURCE") { -1000 } else { own.unwrap_or(0) },
            capabilities,
            unified,
            cpu_limits: cgroup::has("cpu"),
            memory_limits: cgroup::has("memory"),
            swap_limits: !unified && Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists(),
        }
    }

    /// The capabilities of a container, as the runtime specification names them.
    pub fn capabilities_for(&self, security: &Security) -> Vec<String> {
        let name = |name: &String| name.trim_start_matches("CAP_").to_ascii_uppercase();
        let add: Vec<String> = security.add.iter().map(name).collect();
        let drop: Vec<String> = security.drop.iter().map(name).collect();
        let all = |names: &[String]| names.iter().any(|name| name == "ALL");
        let allowed = |capability: &str| {
            let named = |names: &[String]| names.iter().any(|name| name == capability);
            let base = match (security.privileged || all(&add), all(&drop)) {
                (true, _) => true,
                (false, true) => false,
                (false, false) => DEFAULT.contains(&capability),
            };
            (base || named(&add)) && (security.privileged || !named(&drop))
        };
        CAPABILITIES
            .into_iter()
            .filter(|capability| self.capabilities.contains(capability) && allowed(capability))
            .map(|capability| format!("CAP_{capability}"))
            .collect()
    }
}

/// The capabilities that a process both has and may keep.
fn held(status: &str) -> BTreeSet<&'static str> {
    let mask = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
            .unwrap_or(0)
    };
    let mask = mask("CapPrm:") & mask("CapBnd:");
    CAPABILITIES.into_iter().enumerate().filter(|(n, _)| mask & (1 << n) != 0).map(|(_, name)| name).collect()
}

/// The machine's device files, for privileged containers, as the runtime specification lists them.
pub fn devices() -> Vec<Value> {
    let mut devices = Vec::new();
    let mut folders = vec![std::path::PathBuf::from("/dev")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            // `DirEntry` does not follow links, which lead to devices listed anyway.
            let Ok(metadata) = entry.metadata() else { continue };
            let kind = metadata.file_type();
            if OWN_DEVICES.iter().any(|own| path == Path::new(own)) || devices.len() >= DEVICES_MAX {
                continue;
            }
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_char_device() || kind.is_block_device() {
                let number = metadata.rdev();
                devices.push(json!({
                    "path": path, "type": if kind.is_char_device() { "c" } else { "b" },
                    "major": libc::major(number), "minor": libc::minor(number),
                    "fileMode": metadata.mode() & 0o777, "uid": metadata.uid(), "gid": metadata.gid(),
                }));
            }
        }
    }
    devices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_added_dropped_and_cut_to_the_machines() {
        let host = Host {
            capabilities: CAPABILITIES.into_iter().filter(|name| *name != "SYS_RESOURCE").collect(),
            unified: false,
            cpu_limits: true,
            memory_limits: true,
            swap_limits: false,
            oom_score_adj_min: 0,
        };
        let count = |privileged, add: &[&str], drop: &[&str]| {
            let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            let security = Security { privileged, add: names(add), drop: names(drop), ..Security::default() };
            host.capabilities_for(&security).len()
        };
        assert_eq!(count(false, &[], &[]), 14);
        assert_eq!(count(false, &["NET_ADMIN"], &[]), 15);
        assert_eq!(count(false, &["SYS_RESOURCE"], &[]), 14);
        assert_eq!(count(false, &[], &["chown"]), 13);
        assert_eq!(count(false, &[], &["ALL"]), 0);
        assert_eq!(count(false, &["NET_BIND_SERVICE"], &["ALL"]), 1);
        assert_eq!(count(false, &["ALL"], &["CHOWN"]), 39);
        assert_eq!(count(true, &[], &[]), 40);
    }

    #[test]
    fn held_capabilities_are_read_bit_by_bit() {
        let names = held("CapPrm:\t0000000000000003\nCapBnd:\t0000000000000005\n");
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["CHOWN"]);
    }
}
