//! The system calls that `seccompProfile: RuntimeDefault` refuses.
//!
//! Docker's and containerd's profiles list what is allowed; this one lists what they leave out, which comes to the same
//! for the system calls of today. What a capability stands for is allowed to whoever has it.

use serde_json::{Value, json};

const EPERM: i32 = 1;
const ENOSYS: i32 = 38;

/// Refused, whatever the capabilities.
const NEVER: [&str; 18] = [
    "add_key",
    "create_module",
    "get_kernel_syms",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "keyctl",
    "move_pages",
    "nfsservctl",
    "query_module",
    "request_key",
    "sysfs",
    "_sysctl",
    "uselib",
    "userfaultfd",
    "ustat",
    "vm86",
    "vm86old",
];

/// Refused unless there is the capability.
const GUARDED: [(&str, &[&str]); 8] = [
    (
        "CAP_SYS_ADMIN",
        &[
            "bpf",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "pivot_root",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "swapoff",
            "swapon",
            "umount",
            "umount2",
            "unshare",
        ],
    ),
    ("CAP_SYS_BOOT", &["kexec_file_load", "kexec_load", "reboot"]),
    ("CAP_SYS_MODULE", &["delete_module", "finit_module", "init_module"]),
    ("CAP_SYS_PACCT", &["acct"]),
    ("CAP_SYS_RAWIO", &["ioperm", "iopl"]),
    ("CAP_SYS_TIME", &["clock_settime", "clock_settime64", "settimeofday", "stime"]),
    ("CAP_SYS_NICE", &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    ("CAP_DAC_READ_SEARCH", &["open_by_handle_at"]),
];

/// The flags with which `clone` makes namespaces: mount, cgroup, uts, ipc, user, pid, net.
const NEW_NAMESPACES: [u64; 7] =
    [0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];

/// The profile for a container with these capabilities.
pub fn profile(capabilities: &[String]) -> Value {
    let has = |capability: &str| capabilities.iter().any(|name| name == capability);
    let refuse =
        |names: &[&str], errno: i32| json!({"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno});
    let mut rules = vec![refuse(&NEVER, EPERM)];
    rules.extend(
        GUARDED.iter().filter(|(capability, _)| !has(capability)).map(|(_, names)| refuse(names, EPERM)),
    );
    if !has("CAP_SYS_ADMIN") {
        for flag in NEW_NAMESPACES {
            let mut rule = refuse(&["clone"], EPERM);
            rule["args"] = json!([{"index": 0, "value": flag, "valueTwo": flag, "op": "SCMP_CMP_MASKED_EQ"}]);
            rules.push(rule);
        }
        // Its flags are out of a filter's sight; without it, C libraries fall back to `clone`.
        rules.push(refuse(&["clone3"], ENOSYS));
    }
    let architectures: &[&str] = match std::env::consts::ARCH {
        "x86_64" => &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "aarch64" => &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        _ => &[],
    };
    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": architectures, "syscalls": rules})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_allow_what_they_stand_for() {
        let refused = |capabilities: &[String], name: &str| {
            let profile = profile(capabilities);
            let rules = profile["syscalls"].as_array().unwrap();
            rules.iter().any(|rule| rule["names"].as_array().unwrap().contains(&json!(name)))
        };
        for name in ["mount", "unshare", "clone3", "reboot", "keyctl"] {
            assert!(refused(&[], name), "{name}");
        }
        let admin = ["CAP_SYS_ADMIN".to_owned()];
        assert!(!refused(&admin, "mount") && !refused(&admin, "clone3"));
        assert!(refused(&admin, "reboot") && refused(&admin, "keyctl"));
    }
}
