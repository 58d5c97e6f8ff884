//! The kubelet's flags, named as upstream's where upstream has them.

use std::net::IpAddr;
use std::path::PathBuf;

/// `coracle kubelet`
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// How to reach the API.
    #[arg(long)]
    pub kubeconfig: PathBuf,
    /// Name of this node; the machine's host name if not given.
    #[arg(long)]
    pub hostname_override: Option<String>,
    /// Address of this node, and of the server of simulated nodes.
    #[arg(long, default_value = "127.0.0.1")]
    pub node_ip: IpAddr,
    /// Addresses that this node gives to its pods.
    #[arg(long)]
    pub pod_cidr: Option<ipnet::Ipv4Net>,
    /// containerd's socket.
    #[arg(long, default_value = "unix:///run/containerd/containerd.sock")]
    pub container_runtime_endpoint: String,
    /// containerd's namespace for our containers.
    #[arg(long, default_value = "k8s.io")]
    pub containerd_namespace: String,
    /// Folder of the kubelet's files.
    #[arg(long, default_value = "/var/lib/kubelet")]
    pub root_dir: PathBuf,
    /// Folder of pods' logs.
    #[arg(long, default_value = "/var/log/pods")]
    pub pod_logs_dir: PathBuf,
    /// Address of the cluster's name server, as pods see it.
    #[arg(long, default_value = "10.96.0.10")]
    pub cluster_dns: Vec<IpAddr>,
    /// Domain of the cluster's names.
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,
    /// The cgroup under which pods get theirs.
    #[arg(long, default_value = "/")]
    pub cgroup_root: String,
    /// Serving certificate.
    #[arg(long)]
    pub tls_cert_file: PathBuf,
    /// Its key.
    #[arg(long)]
    pub tls_private_key_file: PathBuf,
    /// Who signs the certificates of our clients.
    #[arg(long)]
    pub client_ca_file: PathBuf,
    /// Address to serve on.
    #[arg(long, default_value = "0.0.0.0")]
    pub address: IpAddr,
    /// Port to serve on.
    #[arg(long, default_value_t = 10250)]
    pub port: u16,
    /// Plays this many nodes without containers, instead of being one.
    #[arg(long, default_value_t = 0)]
    pub simulated_nodes: u16,
    /// Their names are this, a dash and a number from 0.
    #[arg(long, default_value = "simulated")]
    pub simulated_node_prefix: String,
    /// Most pods a node takes.
    #[arg(long, default_value_t = 110)]
    pub max_pods: u16,
}
