//! Commands beside the member itself: `coracle store backup`, `restore` and `repair`.
//!
//! In: flags. Out: files, and one line on standard output that says what was done.

mod backup;
mod file;
mod repair;
mod restore;
#[cfg(test)]
mod tests;

use clap::{Args as ClapArgs, Subcommand};

/// `coracle store`: a member, or a command beside it.
#[derive(ClapArgs, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Program {
    /// A command beside the member.
    #[command(subcommand)]
    pub tool: Option<Tool>,
    /// The member's flags.
    #[command(flatten)]
    pub member: Box<crate::Args>,
}

/// The commands.
#[derive(Subcommand, Clone, Debug)]
pub enum Tool {
    /// Save all state of a running cluster to a file
    Backup(backup::BackupArgs),
    /// Make a member's data folder from such a file, or from a snapshot of an etcd, for a new cluster
    Restore(restore::RestoreArgs),
    /// Look for damage in a stopped member's log
    Repair(repair::RepairArgs),
}

/// Does what was asked.
///
/// # Errors
/// It could not be done, or damage was found; the error says what that means.
pub async fn run(tool: Tool) -> anyhow::Result<()> {
    let done = match tool {
        Tool::Backup(args) => backup::run(args).await?,
        Tool::Restore(args) => tokio::task::spawn_blocking(move || restore::run(&args)).await??,
        Tool::Repair(args) => tokio::task::spawn_blocking(move || repair::run(&args)).await??,
    };
    println!("{done}");
    Ok(())
}
