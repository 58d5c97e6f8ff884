//! What a cluster needs of the host beyond its folder: a bridge, a nftables table, cgroups. `down` removes all of it.

use crate::spec::{SUBNETS, Spec};
use anyhow::{Context, Result};
use futures::TryStreamExt;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::{Handle, LinkBridge, LinkUnspec};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// A netlink connection of the calling thread's network namespace.
///
/// # Errors
/// The kernel refuses the socket.
pub fn netlink(tasks: &coracle_daemon::Tasks) -> Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection().context("cannot open a netlink socket")?;
    tasks.run("netlink", connection);
    Ok(handle)
}

/// The link of that name, if there is one.
///
/// # Errors
/// The kernel's answer is an error other than "no such device".
pub async fn link(netlink: &Handle, name: &str) -> Result<Option<LinkMessage>> {
    match netlink.link().get().match_name(name.to_owned()).execute().try_next().await {
        Ok(found) => Ok(found),
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -nix::libc::ENODEV => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot look up the network device {name}")),
    }
}

/// Makes the bridge with the host's address and lets nodes reach out through it. Safe to repeat.
///
/// # Errors
/// No root, or the kernel lacks bridges or nftables.
pub async fn network_up(spec: &Spec) -> Result<()> {
    let tasks = coracle_daemon::Tasks::new();
    let netlink = netlink(&tasks)?;
    let name = spec.bridge();
    if link(&netlink, &name).await?.is_none() {
        netlink
            .link()
            .add(LinkBridge::new(&name).build())
            .execute()
            .await
            .with_context(|| format!("cannot make the bridge {name}"))?;
    }
    let index =
        link(&netlink, &name).await?.with_context(|| format!("the bridge {name} vanished"))?.header.index;
    netlink
        .link()
        .set(LinkUnspec::new_with_index(index).up().build())
        .execute()
        .await
        .with_context(|| format!("cannot start the bridge {name}"))?;
    let address = IpAddr::V4(spec.bridge_address());
    netlink
        .address()
        .add(index, address, 24)
        .replace()
        .execute()
        .await
        .with_context(|| format!("cannot give {name} its address"))?;
    fs::write("/proc/sys/net/ipv4/ip_forward", "1")
        .context("cannot let nodes reach other networks (ip_forward)")?;
    coracle_daemon::nft::apply(&host_rules(spec)).await.context("cannot set the host's rules")
}

/// Source addresses of nodes are hidden behind the host's; the table replaces itself.
fn host_rules(spec: &Spec) -> String {
    let (table, net) = (spec.host_table(), format!("10.89.{}.0/24", spec.subnet));
    format!(
        "table ip {table} {{}}\ndelete table ip {table}\ntable ip {table} {{\n chain postrouting {{\n  type nat hook postrouting priority srcnat;\n  ip saddr {net} ip daddr != {net} masquerade\n }}\n}}\n"
    )
}

/// Removes bridge, table and cgroups. What is not there is fine.
///
/// # Errors
/// Something is there and cannot be removed.
pub async fn network_down(spec: &Spec) -> Result<()> {
    let tasks = coracle_daemon::Tasks::new();
    let netlink = netlink(&tasks)?;
    let name = spec.bridge();
    if let Some(bridge) = link(&netlink, &name).await? {
        netlink
            .link()
            .del(bridge.header.index)
            .execute()
            .await
            .with_context(|| format!("cannot remove the bridge {name}"))?;
    }
    let table = spec.host_table();
    coracle_daemon::nft::apply(&format!("table ip {table} {{}}\ndelete table ip {table}\n"))
        .await
        .context("cannot remove the host's rules")
}

/// Third byte of a free node network: the first whose bridge is not there.
#[must_use]
pub fn free_subnet() -> Option<u8> {
    (0..SUBNETS).find(|n| !Path::new(&format!("/sys/class/net/coracle{n}")).exists())
}

/// The roots of all cgroup hierarchies: one with v2 alone, several with v1 and hybrid.
#[must_use]
pub fn cgroup_roots() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_owned()];
    }
    let Ok(entries) = fs::read_dir(root) else { return Vec::new() };
    let mut roots: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join("cgroup.procs").exists() && !path.is_symlink())
        .collect();
    roots.sort();
    roots
}

/// Removes a cgroup with all below it from every hierarchy, its processes killed first.
///
/// # Errors
/// The kernel keeps one of them.
pub fn remove_cgroup(path: &str) -> Result<()> {
    for root in cgroup_roots() {
        let group = root.join(path.trim_start_matches('/'));
        if group.exists() {
            remove_group(&group).with_context(|| format!("cannot remove the cgroup {}", group.display()))?;
        }
    }
    Ok(())
}

fn remove_group(group: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(group)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_group(&entry.path())?;
        }
    }
    for pid in fs::read_to_string(group.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.parse().ok())
    {
        // Gone already is what we want.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    fs::remove_dir(group)
}

/// The host's id of the process that is `inner` in the pid namespace below `outer`.
#[must_use]
pub fn outer_pid(outer: u32, inner: u32) -> Option<u32> {
    let mut waiting = vec![outer];
    let mut seen = 0;
    while let Some(pid) = waiting.pop() {
        seen += 1;
        if seen > 10_000 {
            return None;
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let ids: Vec<u32> = status
            .lines()
            .find_map(|line| line.strip_prefix("NSpid:"))
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|id| id.parse().ok())
            .collect();
        if ids.len() > 1 && ids.last() == Some(&inner) {
            return Some(pid);
        }
        waiting.extend(children(pid));
    }
    None
}

/// Child processes of all threads of `pid`.
#[must_use]
pub fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    threads
        .flatten()
        .flat_map(|thread| {
            fs::read_to_string(thread.path().join("children"))
                .unwrap_or_default()
                .split_whitespace()
                .filter_map(|id| id.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
}

/// Removes a cgroup that no cluster uses any more.
pub fn remove_empty_cgroup(path: &str) {
    for root in cgroup_roots() {
        // Another cluster's groups keep it, rightly.
        let _ = fs::remove_dir(root.join(path.trim_start_matches('/')));
    }
}
