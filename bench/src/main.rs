//! Benchmarks, each beside its peer in the same run, for absolute figures drift from machine to machine.
//!
//! In: what to measure. Out: a table, or one JSON document, with both figures and their ratio.

mod apiserver;
mod cluster;
mod faults;
mod members;
mod process;
mod report;
mod store;

use clap::{Parser, Subcommand};
use coracle_daemon::run_command;
use std::process::ExitCode;

/// Benchmarks of coracle.
#[derive(Parser)]
#[command(
    name = "cargo xtask bench",
    after_help = "Examples:\n  cargo xtask bench store\n  cargo xtask bench store --rounds 1 --seconds 1 --output json\n  cargo xtask bench apiserver --stored 100000\n  coracle up && cargo xtask bench cluster\n  coracle up && cargo xtask bench faults"
)]
struct Cli {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Three members of our store beside three of etcd: puts, gets, watches, the loss of a leader
    Store(store::Args),
    /// Three stores and two apiservers beside what is wanted of them: writes, reads, lists, watches, memory
    Apiserver(apiserver::Args),
    /// A cluster that is up: from a pod's creation until it runs, and what the cluster costs while nothing happens
    Cluster(cluster::Args),
    /// A cluster that is up, its processes killed in turn: how long writes and requests are interrupted by each
    Faults(faults::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().bench {
        Bench::Store(args) => run_command(store::run(args)),
        Bench::Apiserver(args) => run_command(apiserver::run(args)),
        Bench::Cluster(args) => run_command(cluster::run(args)),
        Bench::Faults(args) => run_command(faults::run(args)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
