//! The Raft-replicated MVCC key-value store that speaks etcd v3.

/// `coracle store`
#[derive(clap::Args, Clone, Debug)]
pub struct Args {}

/// Runs one member.
///
/// # Errors
/// Always, so far.
pub async fn run(_args: Args, _tasks: coracle_daemon::Tasks) -> anyhow::Result<()> {
    anyhow::bail!("under construction")
}
