//! Simulation of the store, in two ways, and a trial of real processes. [`cluster`] runs whole members, openraft and all, on a
//! simulated network; [`processes`] kills real ones. The rest of this page is about the first way, of parts: the real write-ahead log, state machine, snapshots and watch hub of several members,
//! on disks that lose power at any write, under a schedule that follows from one number.
//!
//!     seed ──► schedule: propose, replicate, apply, cut power, restart, snapshot, elect, watch …
//!                 │                        ▲
//!                 ▼                        │ what the members answer is never fed back into the dice
//!              members (real code) ──► invariants, after every step and after everything has healed
//!
//! In: seeds. Out: nothing, or a violation with its seed and the last steps; the same seed plays the same steps again.
//! Who leads and what is committed is decided here by Raft's rules in their simplest form: openraft is not part of this.
//!
//! Bugs that were planted to see whether they are found, and how many seeds that took:
//!
//! | bug | parts | cluster | found by |
//! |---|---|---|---|
//! | acknowledged before it is synced | 1 | 15 | acknowledged writes are kept; openraft's assertion that committed entries are there |
//! | a watcher skips a batch | 1 | 1 | watchers are told everything |
//! | a vote is not stored | – | 1 | openraft's assertion on a leader's log ids |
//! | applying reads the clock | 1 | 1 | reads match; all members come to the same revision |
//!
//! The simulation of parts plays the same seed the same way. Of clusters it does not always: hash maps and threads of
//! dependencies are not seeded, so a violation's seed may have to be played a few times.

mod cluster;
mod commands;
mod dice;
mod disk;
mod invariants;
mod member;
mod oracle;
mod processes;
mod schedule;
mod watcher;
mod world;

use clap::{Parser, Subcommand, ValueEnum};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Simulates the store.
#[derive(Parser)]
#[command(
    name = "cargo xtask sim",
    after_help = "Examples:\n  cargo xtask sim --seeds 1000\n  cargo xtask sim --seed 42 --trace     plays one seed again, and tells every step"
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
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
    /// Play only one of the two simulations
    #[arg(long)]
    only: Option<Part>,
    /// Tell every step
    #[arg(long)]
    trace: bool,
}

/// Other than simulations.
#[derive(Subcommand)]
enum Command {
    /// Kill, stop and starve real processes, for this many rounds
    Processes {
        #[arg(long, default_value_t = 100)]
        rounds: u64,
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
    /// A member, for `processes`
    #[command(hide = true)]
    Member(Box<store::Args>),
}

/// The two simulations.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Log, machine, snapshots and watch hub, under Raft's rules in their simplest form
    Parts,
    /// Whole members with openraft, on a simulated network
    Cluster,
}

fn main() -> ExitCode {
    let mut cli = Cli::parse();
    match cli.command.take() {
        Some(Command::Member(args)) => return processes::run_member(*args),
        Some(Command::Processes { rounds, seed }) => return tell(processes::play(rounds, seed)),
        None => {}
    }
    if cli.trace {
        tracing_subscriber::fmt().with_env_filter(EnvFilter::from_default_env()).init();
    }
    let seeds = cli.seed.map_or(cli.first..cli.first.saturating_add(cli.seeds), |seed| seed..seed + 1);
    let (mut parts, mut clusters) = (schedule::Summary::default(), cluster::Summary::default());
    for seed in seeds.clone() {
        let played = play(&cli, seed, &mut parts, &mut clusters);
        if let Err(violation) = played {
            eprintln!(
                "{violation}\nplay it again: cargo xtask sim --seed {seed} --steps {} --trace",
                cli.steps
            );
            return ExitCode::FAILURE;
        }
    }
    println!("{} seeds of parts: {parts}", seeds.clone().count());
    println!("{} seeds of clusters: {clusters}", seeds.count());
    ExitCode::SUCCESS
}

fn tell(played: anyhow::Result<String>) -> ExitCode {
    match played {
        Ok(what) => {
            println!("{what}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn play(
    cli: &Cli,
    seed: u64,
    parts: &mut schedule::Summary,
    clusters: &mut cluster::Summary,
) -> Result<(), String> {
    if cli.only != Some(Part::Cluster) {
        *parts += schedule::play(seed, cli.steps, cli.trace).map_err(|violation| violation.to_string())?;
    }
    if cli.only != Some(Part::Parts) {
        *clusters += cluster::play(seed, cli.trace)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
