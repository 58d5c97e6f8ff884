//! What the machine is: processors, memory, disk, kernel and system, read once from /proc, /sys and /etc.
//!
//! A file that is missing or odd yields an empty or zero fact: a node with an unknown kernel is still a node.

use std::fs;

/// Facts for a Node's capacity and nodeInfo.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Processors that this process may use.
    pub cpus: usize,
    /// Memory in KiB.
    pub memory_kib: u64,
    /// Size of the root file system in KiB.
    pub disk_kib: u64,
    /// `6.18.0`
    pub kernel: String,
    /// `Debian GNU/Linux 12 (bookworm)`
    pub os_image: String,
    /// Same for every boot.
    pub machine_id: String,
    /// New with every boot.
    pub boot_id: String,
    /// The host name.
    pub hostname: String,
}

impl Facts {
    /// Reads them.
    pub fn read() -> Self {
        let line = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let disk = nix::sys::statvfs::statvfs("/").ok();
        Self {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_kib: memory_kib(&line("/proc/meminfo")),
            disk_kib: disk.map_or(0, |disk| disk.blocks() * disk.fragment_size() / 1024),
            kernel: line("/proc/sys/kernel/osrelease"),
            os_image: os_image(&line("/etc/os-release")),
            machine_id: line("/etc/machine-id"),
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            hostname: line("/proc/sys/kernel/hostname").to_lowercase(),
        }
    }
}

fn memory_kib(meminfo: &str) -> u64 {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    total.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn os_image(release: &str) -> String {
    let pretty = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    pretty.unwrap_or("Linux").trim_matches('"').to_owned()
}

/// The architecture under the name that Kubernetes and Go use.
pub const fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_from_their_files() {
        assert_eq!(memory_kib("MemTotal:       24571424 kB\nMemFree: 1 kB"), 24_571_424);
        assert_eq!(memory_kib("garbage"), 0);
        assert_eq!(os_image("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12\""), "Debian GNU/Linux 12");
        assert_eq!(os_image(""), "Linux");
    }
}
