//! The flags of `up`, `down`, `status`, `kubeconfig` and `image`.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// How a command tells its result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Lines and tables for people.
    #[default]
    Text,
    /// One JSON document on standard output.
    Json,
}

/// Which cluster.
#[derive(Args, Clone, Debug)]
pub struct Which {
    /// Name of the cluster; several live side by side.
    #[arg(long, default_value = "coracle", env = "CORACLE_CLUSTER")]
    pub name: String,
    /// Folder that holds everything of the cluster [default: /var/lib/coracle/NAME as root, ~/.local/share/coracle/NAME otherwise].
    #[arg(long)]
    pub dir: Option<PathBuf>,
}

/// `coracle up`
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  coracle up\n  coracle up --name lab --nodes 3\n  coracle up --name api --nodes 0 --simulated-nodes 3   (no root, no containerd)\n\nExit codes: 0 the cluster is up, 1 it could not be brought up (nothing is left behind), 2 wrong flags."
)]
pub struct UpArgs {
    /// See [`Which`].
    #[command(flatten)]
    pub which: Which,
    /// Members of the store: 1, 3 or 5.
    #[arg(long, default_value_t = 3)]
    pub stores: u16,
    /// Apiservers, 1 to 4, behind one address.
    #[arg(long, default_value_t = 2)]
    pub apiservers: u16,
    /// Nodes that run containers (needs root and containerd), up to 20.
    #[arg(long, default_value_t = 2)]
    pub nodes: u16,
    /// Simulated nodes: pods go through every status without a container.
    #[arg(long, default_value_t = 0)]
    pub simulated_nodes: u16,
    /// First of 32 TCP ports on 127.0.0.1, the first being the API's [default: 6443, or the next free block].
    #[arg(long)]
    pub api_port: Option<u16>,
    /// Kubeconfig file to merge the context `coracle-NAME` into [default: $KUBECONFIG or ~/.kube/config].
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Run this etcd (3.4 or later) in place of our store, to compare the two.
    #[arg(long, value_name = "PROGRAM")]
    pub etcd: Option<PathBuf>,
    /// `text` or `json`.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
    /// Do not provide the busybox, nginx and redis images.
    #[arg(long)]
    pub no_images: bool,
}

/// `coracle down`
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  coracle down\n  coracle down --name lab --keep-data   (a later `up --name lab` resumes it)"
)]
pub struct DownArgs {
    /// See [`Which`].
    #[command(flatten)]
    pub which: Which,
    /// Stop everything but keep the folder, for a later `up`.
    #[arg(long)]
    pub keep_data: bool,
    /// Kubeconfig file to take the context `coracle-NAME` out of.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
}

/// `coracle status`
#[derive(Args, Clone, Debug)]
pub struct StatusArgs {
    /// See [`Which`].
    #[command(flatten)]
    pub which: Which,
    /// `text` or `json`.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// `coracle kubeconfig`
#[derive(Args, Clone, Debug)]
pub struct KubeconfigArgs {
    /// See [`Which`].
    #[command(flatten)]
    pub which: Which,
}

/// `coracle image`
#[derive(Subcommand, Clone, Debug)]
pub enum ImageCommand {
    /// Import an OCI or docker archive into every node of a cluster.
    Load(ImageLoadArgs),
    /// Build a small OCI image from Debian packages.
    Build(ImageBuildArgs),
}

/// `coracle image load`
#[derive(Args, Clone, Debug)]
pub struct ImageLoadArgs {
    /// See [`Which`].
    #[command(flatten)]
    pub which: Which,
    /// The archives (`docker save`, `podman save --format oci-archive`, `coracle image build`).
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
}

/// `coracle image build`
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  coracle image build debian:nginx --out nginx.tar\n  coracle image build debian:curl debian:jq --tag tools:1 --cmd curl --out tools.tar"
)]
pub struct ImageBuildArgs {
    /// Packages, as `debian:PACKAGE`; `debian:busybox`, `debian:nginx` and `debian:redis` follow recipes of ours.
    #[arg(required = true)]
    pub packages: Vec<String>,
    /// Name and tag of the image [default: PACKAGE:latest].
    #[arg(long)]
    pub tag: Option<String>,
    /// Command that containers run, one word each time it is given.
    #[arg(long)]
    pub cmd: Vec<String>,
    /// Archive to write [default: PACKAGE.tar].
    #[arg(long)]
    pub out: Option<PathBuf>,
}
