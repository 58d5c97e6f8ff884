//! The cluster's name server.

/// `coracle dns`
#[derive(clap::Args, Clone, Debug)]
pub struct Args {}

/// Runs the name server of one node.
///
/// # Errors
/// Always, so far.
pub async fn run(_args: Args, _tasks: coracle_daemon::Tasks) -> anyhow::Result<()> {
    anyhow::bail!("under construction")
}
