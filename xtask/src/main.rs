//! Developer commands: `cargo xtask CMD`.
//!
//! In: a command line. Out: steps, each told with its time, and an exit code: 0 all well, 1 something failed, 2 wrong flags.
//! Whatever a command needs is installed first, so that a clean checkout on a clean machine is enough.

mod cluster;
mod fix;
mod gate;
mod packages;
mod step;
mod tidy;

use clap::{Args, Parser, Subcommand};
use std::process::ExitCode;

/// Developer commands of coracle.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    after_help = "Examples:\n  cargo xtask up --nodes 3                what `coracle up` takes, after building it\n  cargo xtask test                         the gate: everything\n  cargo xtask test --fast                  all but the end-to-end tests\n  cargo xtask test scale                   only tests whose name contains `scale`\n  cargo xtask fix                          formats, applies clippy's suggestions\n  cargo xtask bench store --output json"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what is missing, build the program, bring a cluster up
    #[command(disable_help_flag = true)]
    Up(Passed),
    /// Stop a cluster and remove it
    #[command(disable_help_flag = true)]
    Down(Passed),
    /// Show every process of a cluster
    #[command(disable_help_flag = true)]
    Status(Passed),
    /// Print a cluster's kubeconfig
    #[command(disable_help_flag = true)]
    Kubeconfig(Passed),
    /// Check and test everything; ends with a line `N passed, N failed`
    Test(gate::TestArgs),
    /// Check the sources against the rules of the house
    Tidy,
    /// Format, apply clippy's suggestions
    Fix,
    /// Run a benchmark beside its peer: `store`, `apiserver`, `cluster`, `faults`
    #[command(disable_help_flag = true)]
    Bench(Passed),
    /// Run the simulation, a seed at a time: `--seeds N`
    #[command(disable_help_flag = true)]
    Sim(Passed),
}

/// Flags for the program behind the command.
#[derive(Args)]
struct Passed {
    /// Passed on as they are.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    flags: Vec<String>,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Up(passed) => cluster::up(&passed.flags),
        Command::Down(passed) => cluster::pass("down", &passed.flags),
        Command::Status(passed) => cluster::pass("status", &passed.flags),
        Command::Kubeconfig(passed) => cluster::pass("kubeconfig", &passed.flags),
        Command::Test(args) => gate::test(&args),
        Command::Tidy => tidy::run(),
        Command::Fix => fix::run(),
        Command::Bench(passed) => cluster::tool("coracle-bench", &passed.flags),
        Command::Sim(passed) => cluster::tool("coracle-sim", &passed.flags),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
