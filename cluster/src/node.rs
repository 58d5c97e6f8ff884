//! A node: a set of namespaces, and in it an init process that keeps containerd, kubelet, proxy and dns alive.
//!
//! ```text
//! run-node (host's namespaces)  ──makes the cable──►  run-node --inner (pid 1; net, mnt, uts, ipc, pid of its own)
//! ```
//!
//! A private /run and /var/log keep containerd's sockets and pods' logs apart. When pid 1 ends, the kernel ends all else.

use crate::control::{self, Request};
use crate::host;
use crate::layout::Layout;
use crate::plan::Ground;
use crate::process::{self, State, Table, end_with_parent};
use crate::spec::Spec;
use crate::supervisor::read_spec;
use anyhow::{Context, Result};
use clap::Args;
use coracle_daemon::{Tasks, clock};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rtnetlink::{LinkUnspec, LinkVeth, RouteMessageBuilder};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

/// `coracle run-node`
#[derive(Args, Clone, Debug)]
pub struct NodeArgs {
    /// The cluster's folder.
    #[arg(long)]
    pub dir: PathBuf,
    /// Which node.
    #[arg(long)]
    pub index: u16,
    /// Set for the process inside the namespaces.
    #[arg(long)]
    pub inner: bool,
}

/// How long the inside may wait for its cable, and for its processes to stop.
const CABLE_MAX: Duration = Duration::from_secs(10);

/// The outside: makes the namespaces, lays the cable, then waits for the inside to end.
///
/// # Errors
/// Namespaces or network cannot be made.
pub async fn run_outer(args: NodeArgs, tasks: Tasks) -> Result<()> {
    let layout = Layout::at(&args.dir);
    let spec = read_spec(&layout)?;
    // Children of this process start a new pid namespace; it itself stays outside.
    unshare(CloneFlags::CLONE_NEWPID)
        .context("cannot make a pid namespace: a node with containers needs root")?;
    let program = std::env::current_exe().context("cannot find the coracle program")?;
    let mut command = tokio::process::Command::new(program);
    command
        .arg("run-node")
        .arg("--dir")
        .arg(layout.dir())
        .args(["--index", &args.index.to_string(), "--inner"])
        .stdin(Stdio::piped())
        .kill_on_drop(true);
    end_with_parent(&mut command);
    enter_namespaces(&mut command);
    let mut inside = command.spawn().context("cannot start the inside of the node")?;
    let pid = inside.id().context("the inside of the node ended at once")?;
    lay_cable(&spec, args.index, pid, &tasks).await?;
    let mut go = inside.stdin.take().context("the inside of the node has no standard input")?;
    go.write_all(b"go\n").await.context("the inside of the node ended early")?;
    let stop = tasks.stopping();
    tasks.spawn("inside of the node", async move {
        let ended = tokio::select! {
            ended = inside.wait() => ended.context("cannot wait for the inside of the node")?,
            () = stop.cancelled() => {
                if let Ok(pid) = i32::try_from(pid) {
                    // It may be gone already; `wait` below tells.
                    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
                }
                inside.wait().await.context("cannot wait for the inside of the node")?
            }
        };
        anyhow::ensure!(ended.success(), "the inside of the node ended: {ended}");
        Ok(())
    });
    Ok(())
}

fn enter_namespaces(command: &mut tokio::process::Command) {
    let flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    #[expect(unsafe_code, reason = "unshare is a system call, safe between fork and exec")]
    // SAFETY: the closure makes one system call and touches no memory shared with other threads.
    unsafe {
        command.pre_exec(move || unshare(flags).map_err(io::Error::from));
    }
}

/// A veth pair: one end on the cluster's bridge, the other named `eth0` in the node.
async fn lay_cable(spec: &Spec, index: u16, pid: u32, tasks: &Tasks) -> Result<()> {
    let netlink = host::netlink(tasks)?;
    let (near, far) = (spec.cable(index), format!("{}p", spec.cable(index)));
    if let Some(left) = host::link(&netlink, &near).await? {
        netlink
            .link()
            .del(left.header.index)
            .execute()
            .await
            .with_context(|| format!("cannot remove the old cable {near}"))?;
    }
    netlink
        .link()
        .add(LinkVeth::new(&near, &far).build())
        .execute()
        .await
        .with_context(|| format!("cannot make the cable {near}"))?;
    let bridge = host::link(&netlink, &spec.bridge())
        .await?
        .with_context(|| format!("there is no bridge {}", spec.bridge()))?;
    let near = host::link(&netlink, &near).await?.with_context(|| format!("the cable {near} vanished"))?;
    let far = host::link(&netlink, &far).await?.with_context(|| format!("the cable {far} vanished"))?;
    netlink
        .link()
        .set(LinkUnspec::new_with_index(far.header.index).name("eth0").setns_by_pid(pid).build())
        .execute()
        .await
        .context("cannot move the cable into the node")?;
    netlink
        .link()
        .set(LinkUnspec::new_with_index(near.header.index).controller(bridge.header.index).up().build())
        .execute()
        .await
        .context("cannot plug the cable into the bridge")?;
    // Apiservers proxy to pods, and so may whoever sits at this machine. The route goes with the bridge.
    let pods = spec.pod_cidr(index);
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(pods.addr(), pods.prefix_len())
        .gateway(spec.node_address(index))
        .output_interface(bridge.header.index)
        .build();
    netlink.route().add(route).replace().execute().await.context("cannot route to the node's pods")
}

/// The inside, as pid 1: mounts, network, then the node's processes until asked to stop.
///
/// # Errors
/// A mount or the network cannot be made.
pub async fn run_inner(args: NodeArgs, tasks: Tasks) -> Result<()> {
    let layout = Layout::at(&args.dir);
    let spec = read_spec(&layout)?;
    let name = spec.node_name(args.index);
    let mut go = [0; 3];
    clock::timeout(CABLE_MAX, tokio::io::stdin().read_exact(&mut go))
        .await
        .context("no cable was laid in time")?
        .context("the outside of the node ended")?;
    nix::unistd::sethostname(&name).context("cannot set the node's host name")?;
    private_mounts(&layout.node(&name))?;
    network(&spec, args.index, &tasks).await?;
    let processes = prepared(&layout, &spec, args.index)?;
    let (table, keepers) = (Table::default(), Tasks::new());
    reap_orphans(table.clone(), &tasks)?;
    let mut running = Vec::new();
    for process in processes {
        let (stage, stop) = (process.stage, CancellationToken::new());
        let gone = process::keep(process, &table, stop.clone(), &keepers);
        running.push((stage, stop, gone));
    }
    let stop = tasks.stopping();
    tasks.spawn("node's processes", async move {
        stop.cancelled().await;
        process::stop_in_stages(running).await;
        Ok(())
    });
    tasks.spawn("reports", report(layout.socket(), name, table, tasks.stopping()));
    Ok(())
}

/// Mounts that only this node sees: its own /proc, and empty or own folders over the host's /run and /var/log.
fn private_mounts(files: &Path) -> Result<()> {
    const NONE: Option<&str> = None;
    let logs = files.join("log");
    fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .context("cannot make mounts private")?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), NONE).context("cannot mount /proc")?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755,size=256m"))
        .context("cannot mount /run")?;
    mount(Some(&logs), "/var/log", NONE, MsFlags::MS_BIND, NONE).context("cannot mount /var/log")
}

async fn network(spec: &Spec, index: u16, tasks: &Tasks) -> Result<()> {
    let netlink = host::netlink(tasks)?;
    for (name, address) in [("lo", None), ("eth0", Some(spec.node_address(index)))] {
        let link = host::link(&netlink, name)
            .await?
            .with_context(|| format!("the node has no device {name}"))?
            .header
            .index;
        if let Some(address) = address {
            netlink
                .address()
                .add(link, IpAddr::V4(address), 24)
                .execute()
                .await
                .context("cannot give the node its address")?;
        }
        netlink
            .link()
            .set(LinkUnspec::new_with_index(link).up().build())
            .execute()
            .await
            .with_context(|| format!("cannot start {name}"))?;
    }
    let default = RouteMessageBuilder::<Ipv4Addr>::new().gateway(spec.bridge_address()).build();
    netlink.route().add(default).execute().await.context("cannot set the node's default route")?;
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("cannot let the node forward packets")
}

/// Folders, containerd's configuration and cgroups; then the processes to run.
fn prepared(layout: &Layout, spec: &Spec, index: u16) -> Result<Vec<process::Process>> {
    let files = layout.node(&spec.node_name(index));
    fs::create_dir_all(&files).with_context(|| format!("cannot make {}", files.display()))?;
    let config = files.join("containerd.toml");
    fs::write(&config, containerd_config(&files))
        .with_context(|| format!("cannot write {}", config.display()))?;
    for root in host::cgroup_roots() {
        let group = root.join(spec.cgroup(index).trim_start_matches('/'));
        fs::create_dir_all(&group).with_context(|| format!("cannot make the cgroup {}", group.display()))?;
    }
    let program = std::env::current_exe().context("cannot find the coracle program")?;
    Ok(Ground { spec, layout, program: &program }.inside_node(index))
}

/// Share of its time that containerd spends on collecting garbage at most. It also wakes that often to see that there is
/// none: with the default of 0.02, some 5 times a second for as long as it runs; with this, about once a minute.
const GC_SHARE: f64 = 0.0001;

/// No CRI (our kubelet speaks containerd's own API), no snapshotter but overlayfs, and none of containerd's own restarts: it
/// would wake every ten seconds to look for containers that ask for them.
fn containerd_config(files: &Path) -> String {
    let disabled = [
        "grpc.v1.cri",
        "snapshotter.v1.aufs",
        "snapshotter.v1.btrfs",
        "snapshotter.v1.devmapper",
        "snapshotter.v1.zfs",
        "snapshotter.v1.native",
        "tracing.processor.v1.otlp",
        "internal.v1.opt",
        "internal.v1.restart",
        "internal.v1.tracing",
    ];
    let disabled: Vec<String> = disabled.iter().map(|plugin| format!("\"io.containerd.{plugin}\"")).collect();
    let (root, disabled) = (files.join("containerd"), disabled.join(", "));
    format!(
        r#"version = 2
root = "{}"
state = "/run/containerd"
disabled_plugins = [{disabled}]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.gc.v1.scheduler"]
  pause_threshold = {GC_SHARE}
"#,
        root.display()
    )
}

/// Pid 1 must wait for orphans, such as shims of a containerd that was killed; its own children are waited for by their keepers.
fn reap_orphans(table: Table, tasks: &Tasks) -> Result<()> {
    use nix::sys::wait::{WaitPidFlag, waitpid};
    let mut ended = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::child())
        .context("cannot listen for ended children")?;
    let stop = tasks.stopping();
    tasks.spawn("reaper", async move {
        loop {
            tokio::select! { _ = ended.recv() => {}, () = stop.cancelled() => return Ok(()) }
            let kept: Vec<u32> = table.all().into_iter().filter_map(|state| state.pid).collect();
            for pid in host::children(std::process::id()).into_iter().filter(|pid| !kept.contains(pid)) {
                if let Ok(pid) = i32::try_from(pid) {
                    // Still running, or taken by its keeper in the meantime: both are fine.
                    let _ = waitpid(nix::unistd::Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
                }
            }
        }
    });
    Ok(())
}

/// Tells the supervisor of every change; tries again when it is away.
async fn report(socket: PathBuf, node: String, table: Table, stop: CancellationToken) -> Result<()> {
    let mut changes = table.changes();
    loop {
        let states: Vec<State> = table.all();
        if let Err(error) = control::ask(&socket, &Request::Report { node: node.clone(), states }).await {
            tracing::debug!(error = format!("{error:#}"), "the supervisor did not take a report");
        }
        tokio::select! {
            changed = changes.changed() => changed.context("the process table is gone")?,
            () = stop.cancelled() => return Ok(()),
        }
    }
}
