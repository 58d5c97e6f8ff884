//! `coracle store restore`: a member's data folder from a snapshot, ours or etcd's, as a member of a new cluster.

use super::file;
use crate::raft::{NodeConfig, restore};
use anyhow::Result;
use clap::Args as ClapArgs;
use std::path::PathBuf;

/// `coracle store restore`
#[derive(ClapArgs, Clone, Debug)]
pub struct RestoreArgs {
    /// What `backup`, or etcdctl's `snapshot save`, has written
    pub file: PathBuf,
    /// Take a database without a hash, as it is in the data folder of an etcd that does not run
    #[arg(long)]
    pub skip_hash_check: bool,
    /// The member's name, as in --initial-cluster
    #[arg(long, default_value = "default")]
    pub name: String,
    /// Folder to make, which must not be there yet [default: NAME.etcd]
    #[arg(long)]
    pub data_dir: Option<PathBuf>,
    /// All members of the new cluster: NAME=URL,…  [default: this member alone]
    #[arg(long, value_delimiter = ',')]
    pub initial_cluster: Vec<String>,
    /// Tells the new cluster from the old one, whose members may still be somewhere
    #[arg(long, default_value = "etcd-cluster")]
    pub initial_cluster_token: String,
    /// URLs that other members are told of
    #[arg(long, value_delimiter = ',', default_value = "http://localhost:2380")]
    pub initial_advertise_peer_urls: Vec<String>,
}

pub(super) fn run(args: &RestoreArgs) -> Result<String> {
    let data = args.data_dir.clone().unwrap_or_else(|| PathBuf::from(format!("{}.etcd", args.name)));
    let config = NodeConfig::of_flags(
        &args.name,
        data,
        &args.initial_cluster,
        &args.initial_cluster_token,
        &args.initial_advertise_peer_urls,
    )?;
    let machine = file::read(&args.file, !args.skip_hash_check)?;
    let identity = restore(&config, &machine)?;
    let (keys, revision, data) = (machine.keys(), machine.revision(), config.data.display());
    Ok(format!("restored {data} as member {:x}: revision {revision}, {keys} keys", identity.member))
}
