//! What every coracle process shares: start, logging, signals, tasks, clock, randomness, back-off, TLS, health and packet rules.
//!
//! In: a component's name and its `async fn(Tasks) -> anyhow::Result<()>`. Out: an exit code, after a clean drain.
//!
//! Invariants: only this crate reads the wall clock or draws randomness, so that `sim` can turn both;
//! every task has a name, an owner and an end; a panic ends the process where nobody takes it.

pub mod backoff;
pub mod clock;
pub mod health;
pub mod logging;
pub mod nft;
pub mod panics;
pub mod random;
mod run;
pub mod tasks;
pub mod tls;

pub use run::{Component, run, run_command};
pub use tasks::Tasks;
