//! The Raft-replicated MVCC key-value store that speaks etcd v3.
//!
//! A request becomes a [`command::Command`]; [`consensus`] puts it into every member's log; each member's [`shared::Shared`]
//! applies it to its [`machine::Machine`], which is pure, and wakes watchers. Reads wait until this member has caught up
//! with the leader, and then read the machine.
//!
//! Invariants: a write is answered only after it is on the disks of a majority; the machine is changed only by applying the log.

pub mod api;
pub mod args;
pub mod bolt;
pub mod command;
pub mod consensus;
pub mod database;
pub mod error;
pub mod image;
pub mod lessor;
mod listen;
pub mod machine;
pub mod raft;
pub mod shared;
pub mod tool;
pub mod wal;
pub mod watch;

pub use args::Args;

/// Runs one member.
///
/// # Errors
/// A flag does not fit, the data cannot be read, or an address cannot be bound.
pub async fn run(args: Args, tasks: coracle_daemon::Tasks) -> anyhow::Result<()> {
    api::run(args, tasks).await
}
