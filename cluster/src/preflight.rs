//! What is checked before anything is made: one sentence that says what to do, and nothing half-started.

use crate::args::UpArgs;
use crate::host;
use crate::layout::Layout;
use crate::spec::{APISERVERS_MAX, NODES_MAX, PORTS_PER_CLUSTER, SUBNETS, Spec};
use anyhow::Result;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

const FIRST_PORT: u16 = 6443;
const LAST_PORT: u16 = 30_000 - PORTS_PER_CLUSTER;
/// Longest cluster name: node names and host names follow from it.
const NAME_MAX: usize = 32;

/// Programs of Debian packages that a node with containers needs.
const PROGRAMS: [(&str, &str); 4] =
    [("containerd", "containerd"), ("runc", "runc"), ("nft", "nftables"), ("ip", "iproute2")];

/// The facts of a new cluster, or why there can be none.
///
/// # Errors
/// One sentence for the user.
pub fn new_spec(args: &UpArgs) -> Result<Spec> {
    check_flags(args)?;
    if args.nodes > 0 {
        check_ground()?;
    }
    let base_port = match args.api_port {
        Some(port) => {
            check_ports(port)?;
            port
        }
        None => free_ports().ok_or_else(|| anyhow::anyhow!("no free block of {PORTS_PER_CLUSTER} ports between {FIRST_PORT} and {LAST_PORT}: name one with --api-port"))?,
    };
    let subnet = if args.nodes == 0 {
        0
    } else {
        host::free_subnet().ok_or_else(|| {
            anyhow::anyhow!("all {SUBNETS} node networks are in use: take a cluster down first")
        })?
    };
    Ok(Spec {
        name: args.which.name.clone(),
        stores: args.stores,
        apiservers: args.apiservers,
        nodes: args.nodes,
        simulated_nodes: args.simulated_nodes,
        base_port,
        subnet,
        etcd: args.etcd.as_deref().map(find_program).transpose()?,
    })
}

fn check_flags(args: &UpArgs) -> Result<()> {
    let name = &args.which.name;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    anyhow::ensure!(
        !name.is_empty()
            && name.len() <= NAME_MAX
            && name.chars().all(plain)
            && !name.starts_with('-')
            && !name.ends_with('-'),
        "--name {name:?} is no cluster name: use up to {NAME_MAX} lower-case letters, digits and '-'"
    );
    anyhow::ensure!(
        [1, 3, 5].contains(&args.stores),
        "--stores {} cannot be: use 1, 3 or 5, so that a majority is well defined",
        args.stores
    );
    anyhow::ensure!(
        (1..=APISERVERS_MAX).contains(&args.apiservers),
        "--apiservers {} cannot be: use 1 to {APISERVERS_MAX}",
        args.apiservers
    );
    anyhow::ensure!(
        args.nodes <= NODES_MAX,
        "--nodes {} is too many: use up to {NODES_MAX}, and --simulated-nodes for more",
        args.nodes
    );
    Ok(())
}

fn check_ground() -> Result<()> {
    anyhow::ensure!(
        nix::unistd::geteuid().is_root(),
        "nodes with containers need root: run as root, or use `--nodes 0 --simulated-nodes 3`"
    );
    for (program, package) in PROGRAMS {
        anyhow::ensure!(
            on_path(program),
            "nodes with containers need {program}: run `apt-get install {package}`, or use `--nodes 0 --simulated-nodes 3`"
        );
    }
    Ok(())
}

fn on_path(program: &str) -> bool {
    find_program(Path::new(program)).is_ok()
}

/// The file of a program that is named by its path or, without a slash, looked up in PATH.
fn find_program(program: &Path) -> Result<PathBuf> {
    let found = if program.components().count() > 1 {
        std::path::absolute(program).ok().filter(|path| path.is_file())
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file())
    };
    found.ok_or_else(|| {
        anyhow::anyhow!("there is no program {}: install it, or name its path", program.display())
    })
}

fn free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// Each port of the block that starts at `first`.
fn block(first: u16) -> impl Iterator<Item = u16> {
    (0..PORTS_PER_CLUSTER).filter_map(move |i| first.checked_add(i))
}

fn check_ports(first: u16) -> Result<()> {
    anyhow::ensure!(
        (1024..=LAST_PORT).contains(&first),
        "--api-port {first} cannot be: use 1024 to {LAST_PORT}"
    );
    if let Some(used) = block(first).find(|port| !free(*port)) {
        anyhow::bail!(
            "port {used} is in use, and --api-port {first} needs {first} to {}: choose another --api-port",
            first + PORTS_PER_CLUSTER - 1
        );
    }
    Ok(())
}

fn free_ports() -> Option<u16> {
    (FIRST_PORT..LAST_PORT).step_by(usize::from(PORTS_PER_CLUSTER)).find(|first| block(*first).all(free))
}

/// A folder that is there but holds no cluster of ours must not be written into.
///
/// # Errors
/// One sentence for the user.
pub fn check_folder(layout: &Layout) -> Result<()> {
    let dir = layout.dir();
    for hidden in ["/run", "/var/log", "/proc", "/sys", "/dev"] {
        anyhow::ensure!(
            !dir.starts_with(Path::new(hidden)),
            "the folder cannot be below {hidden}, which nodes replace by their own: choose another --dir"
        );
    }
    let fits = match layout.holds_nothing_else() {
        Ok(nothing_else) => nothing_else || layout.spec().exists(),
        Err(error) => anyhow::bail!("cannot read {}: {error}: choose another --dir", dir.display()),
    };
    anyhow::ensure!(fits, "{} is not empty and holds no cluster: choose another --dir", dir.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        args: UpArgs,
    }

    fn args(flags: &[&str]) -> UpArgs {
        let simulated = ["up", "--nodes", "0", "--simulated-nodes", "1"];
        Program::parse_from(simulated.into_iter().chain(flags.iter().copied())).args
    }

    #[track_caller]
    fn refuses(flags: &[&str], told: &str) {
        let error = format!("{:#}", new_spec(&args(flags)).expect_err("refused"));
        assert!(error.contains(told), "{error:?} does not say {told:?}");
    }

    #[test]
    fn wrong_flags_are_refused_with_what_to_use_instead() {
        refuses(&["--name", "Bad_Name"], "use up to 32 lower-case letters");
        refuses(&["--name=-x-"], "no cluster name");
        refuses(&["--stores", "2"], "use 1, 3 or 5");
        refuses(&["--apiservers", "0"], "use 1 to 4");
        refuses(&["--api-port", "80"], "use 1024 to");
        refuses(&["--etcd", "no-such-etcd"], "install it, or name its path");
    }

    #[test]
    fn a_used_port_is_named_with_the_block_that_is_needed() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = taken.local_addr().expect("address").port();
        // The block's first port is taken, if the block is one that may be used at all.
        let told =
            if port <= LAST_PORT { format!("port {port} is in use") } else { "use 1024 to".to_owned() };
        refuses(&["--api-port", &port.to_string()], &told);
    }

    #[test]
    fn a_folder_that_holds_something_else_or_cannot_be_read_is_refused() {
        let dir = tempfile::tempdir().expect("temp dir");
        check_folder(&Layout::at(dir.path())).expect("an empty folder is fine");
        check_folder(&Layout::at(&dir.path().join("new"))).expect("a new folder is fine");
        std::fs::write(dir.path().join("thesis.txt"), "x").expect("write");
        let told = |path: &Path| format!("{:#}", check_folder(&Layout::at(path)).expect_err("refused"));
        assert!(told(dir.path()).contains("is not empty and holds no cluster"));
        assert!(told(&dir.path().join("thesis.txt")).contains("choose another --dir"));
        assert!(told(Path::new("/run/x")).contains("cannot be below /run"));
        // A key store of somebody else's beside it makes no cluster of it.
        std::fs::create_dir(dir.path().join("pki")).expect("a folder");
        assert!(told(dir.path()).contains("is not empty and holds no cluster"));
    }
}
