//! Deterministic simulation of the store: the real write-ahead log, state machine, snapshots and watch hub of several members,
//! on disks that lose power at any write, under a schedule that follows from one number.
//!
//!     seed ──► schedule: propose, replicate, apply, cut power, restart, snapshot, elect, watch …
//!                 │                        ▲
//!                 ▼                        │ what the members answer is never fed back into the dice
//!              members (real code) ──► invariants, after every step and after everything has healed
//!
//! In: seeds. Out: nothing, or a violation with its seed and the last steps; the same seed plays the same steps again.
//! Who leads and what is committed is decided here by Raft's rules in their simplest form: openraft is not part of this.

mod commands;
mod dice;
mod disk;
mod invariants;
mod member;
mod oracle;
mod schedule;
mod watcher;
mod world;

use clap::Parser;
use std::process::ExitCode;

/// Simulates the store.
#[derive(Parser)]
#[command(
    name = "cargo xtask sim",
    after_help = "Examples:\n  cargo xtask sim --seeds 1000\n  cargo xtask sim --seed 42 --trace     plays one seed again, and tells every step"
)]
struct Cli {
    /// How many seeds to play
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Play this seed only
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// Steps of each
    #[arg(long, default_value_t = 400)]
    steps: usize,
    /// Tell every step
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let seeds = cli.seed.map_or(cli.first..cli.first.saturating_add(cli.seeds), |seed| seed..seed + 1);
    let mut total = schedule::Summary::default();
    for seed in seeds.clone() {
        match schedule::play(seed, cli.steps, cli.trace) {
            Ok(summary) => total += summary,
            Err(violation) => {
                eprintln!(
                    "{violation}\nplay it again: cargo xtask sim --seed {seed} --steps {} --trace",
                    cli.steps
                );
                return ExitCode::FAILURE;
            }
        }
    }
    println!("{} seeds: {total}", seeds.count());
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests;
