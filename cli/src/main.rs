//! The `coracle` program: argument parsing, and nothing that a component could own.
//!
//! In: a command line. Out: a component that runs until asked to stop, or a command that ends by itself.
//! Exit codes: 0 done, 1 failed (one sentence on standard error says what to do), 2 wrong flags.

use clap::{Parser, Subcommand};
use cluster::args::{DownArgs, ImageCommand, KubeconfigArgs, StatusArgs, UpArgs};
use coracle_daemon::{Component, Tasks, run, run_command};
use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

/// A fifth more reads and a quarter more watch events than with the C library's, for a tenth more memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A minimal Kubernetes-compatible control plane.
#[derive(Parser)]
#[command(
    name = "coracle",
    version,
    after_help = "Examples:\n  coracle up                                     a cluster of two nodes, as context coracle-coracle\n  coracle up --name api --nodes 0 --simulated-nodes 3   one without root or containerd\n  coracle status --output json\n  coracle down"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make or resume a cluster
    Up(UpArgs),
    /// Stop a cluster and remove it
    Down(DownArgs),
    /// Show every process of a cluster
    Status(StatusArgs),
    /// Print a cluster's kubeconfig
    Kubeconfig(KubeconfigArgs),
    /// Build images from Debian packages, load archives into nodes
    #[command(subcommand)]
    Image(ImageCommand),
    /// Run a member of the store
    Store(store::tool::Program),
    /// Run an apiserver
    Apiserver(Box<apiserver::Args>),
    /// Run a scheduler
    Scheduler(scheduler::Args),
    /// Run a controller manager
    Controllers(controllers::Args),
    /// Run a node's kubelet, or one that simulates nodes
    Kubelet(kubelet::Args),
    /// Run a node's Service proxy
    Proxy(proxy::Args),
    /// Run a node's name server
    Dns(dns::Args),
    /// Keep a cluster's processes alive (started by `up`)
    #[command(hide = true)]
    RunSupervisor(cluster::supervisor::SupervisorArgs),
    /// Be a node (started by the supervisor)
    #[command(hide = true)]
    RunNode(cluster::node::NodeArgs),
    /// Spread connections over the apiservers (started by the supervisor)
    #[command(hide = true)]
    RunBalancer(cluster::balancer::BalancerArgs),
    /// Keep a container's output (started by containerd)
    #[command(hide = true)]
    ContainerLogger(kubelet::logger::Args),
    /// Hold a process namespace for a pod (started by the kubelet)
    #[command(hide = true)]
    PodInit(kubelet::runtime::pod_init::Args),
}

fn main() -> ExitCode {
    coracle_daemon::panics::end_the_process();
    match Cli::parse().command {
        Command::Up(args) => command(cluster::up::run(args)),
        Command::Down(args) => command(cluster::down::run(args)),
        Command::Status(args) => command(cluster::status::run(args)),
        Command::Kubeconfig(args) => command(async move { cluster::kubeconfig::print(&args) }),
        Command::Image(args) => command(cluster::image::run(args)),
        Command::Store(store::tool::Program { tool: Some(tool), .. }) => command(store::tool::run(tool)),
        Command::Store(store::tool::Program { member, .. }) => {
            component("store", |tasks| store::run(*member, tasks))
        }
        Command::Apiserver(args) => component("apiserver", |tasks| apiserver::run(*args, tasks)),
        Command::Scheduler(args) => component("scheduler", |tasks| scheduler::run(args, tasks)),
        Command::Controllers(args) => component("controllers", |tasks| controllers::run(args, tasks)),
        Command::Kubelet(args) => component("kubelet", |tasks| kubelet::run(args, tasks)),
        Command::Proxy(args) => component("proxy", |tasks| proxy::run(args, tasks)),
        Command::Dns(args) => component("dns", |tasks| dns::run(args, tasks)),
        Command::RunSupervisor(args) => long("supervisor", 60, |tasks| cluster::supervisor::run(args, tasks)),
        Command::RunNode(args) if args.inner => {
            long("node", 20, |tasks| cluster::node::run_inner(args, tasks))
        }
        Command::RunNode(args) => long("node", 25, |tasks| cluster::node::run_outer(args, tasks)),
        Command::RunBalancer(args) => component("balancer", |tasks| cluster::balancer::run(args, tasks)),
        Command::ContainerLogger(args) => kubelet::logger::run(args),
        Command::PodInit(args) => kubelet::runtime::pod_init::run(&args),
    }
}

/// A component with the usual grace period.
fn component<F: Future<Output = anyhow::Result<()>>>(
    name: &'static str,
    start: impl FnOnce(Tasks) -> F,
) -> ExitCode {
    long(name, 4, start)
}

/// A component whose clean stop may take `grace_seconds`, such as one that stops others.
fn long<F: Future<Output = anyhow::Result<()>>>(
    name: &'static str,
    grace_seconds: u64,
    start: impl FnOnce(Tasks) -> F,
) -> ExitCode {
    run(Component { name, grace: Duration::from_secs(grace_seconds), threads: threads(name) }, start)
}

/// Worker threads of a component. Most share their machine with others, and one thread that stays busy serves more than
/// several that wake each other, which they also do for every event in an idle cluster; only apiservers have work for
/// every core.
fn threads(name: &str) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    match name {
        "apiserver" => cores,
        _ => (cores / 2).clamp(1, 4),
    }
}

fn command(work: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    match run_command(work) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("coracle: {error:#}");
            ExitCode::FAILURE
        }
    }
}
