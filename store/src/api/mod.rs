//! etcd's gRPC services.

/// Runs one member.
///
/// # Errors
/// A flag does not fit, the data cannot be read, or an address cannot be bound.
pub async fn run(_args: crate::Args, _tasks: coracle_daemon::Tasks) -> anyhow::Result<()> {
    anyhow::bail!("under construction")
}
