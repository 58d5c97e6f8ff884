//! Simulation of the store, in two ways, and a trial of real processes; the crate's README tells what each has found.
//! [`cluster`] runs whole members, openraft and all, on a simulated network; [`processes`] kills real ones. The rest of this
//! page is about the first way, of parts: the real write-ahead log, state machine, snapshots and watch hub of several
//! members, on disks that lose power at any write, under a schedule that follows from one number.
//!
//!     seed ──► schedule: propose, replicate, apply, cut power, restart, snapshot, elect, watch …
//!                 │                        ▲
//!                 ▼                        │ what the members answer is never fed back into the dice
//!              members (real code) ──► invariants, after every step and after everything has healed
//!
//! In: seeds. Out: nothing, or a violation with its seed and the last steps; the same seed plays the same steps again.
//! Who leads and what is committed is decided here by Raft's rules in their simplest form: openraft is not part of this.

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
        /// Tell every round
        #[arg(long)]
        trace: bool,
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
        Some(Command::Processes { rounds, seed, trace }) => {
            return tell(processes::play(rounds, seed, trace));
        }
        None => {}
    }
    if cli.trace {
        tracing_subscriber::fmt().with_env_filter(EnvFilter::from_default_env()).init();
    }
    let seeds = cli.seed.map_or(cli.first..cli.first.saturating_add(cli.seeds), |seed| seed..seed + 1);
    let mut parts = schedule::Summary::default();
    for seed in seeds.clone() {
        let played = play(&cli, seed, &mut parts);
        if let Err(violation) = played {
            let only = if cli.only == Some(Part::Cluster) { "--only cluster " } else { "" };
            eprintln!(
                "{violation}\nplay it again: cargo xtask sim {only}--seed {seed} --steps {} --trace",
                cli.steps
            );
            return ExitCode::FAILURE;
        }
    }
    if cli.only != Some(Part::Cluster) {
        println!("{} seeds of parts: {parts}", seeds.count());
    }
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

fn play(cli: &Cli, seed: u64, parts: &mut schedule::Summary) -> Result<(), String> {
    if cli.only != Some(Part::Cluster) {
        *parts += schedule::play(seed, cli.steps, cli.trace).map_err(|violation| violation.to_string())?;
    }
    if cli.only != Some(Part::Parts) {
        println!("seed {seed} of clusters: {}", play_cluster(cli, seed)?);
    }
    Ok(())
}

/// One seed a process: what an earlier seed left in a process would change the next one.
fn play_cluster(cli: &Cli, seed: u64) -> Result<String, String> {
    if cli.seed.is_some() {
        return cluster::play(seed, cli.trace).map(|summary| summary.to_string());
    }
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut child = std::process::Command::new(program);
    let child = child.args(["--only", "cluster", "--seed", &seed.to_string()]);
    let played = child.output().map_err(|error| error.to_string())?;
    let told = String::from_utf8_lossy(&played.stdout);
    match told.split_once(": ") {
        Some((_, summary)) if played.status.success() => Ok(summary.trim_end().to_owned()),
        _ => Err(format!("cluster seed {seed}: {}", String::from_utf8_lossy(&played.stderr))),
    }
}

#[cfg(test)]
mod tests;
