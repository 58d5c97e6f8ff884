//! Our store beside etcd: the same flags, the same machine, the same client, turn and turn about.

use crate::members::{Members, System};
use crate::report::{Output, Report, Unit, median};
use crate::workload::{Call, calls_per_second, events_per_second, sequential_puts, until_a_put};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::time::Duration;

/// Clients that put at once.
const CLIENTS: [usize; 2] = [16, 128];
const WATCHERS: usize = 100;
/// How long a cluster may be without a leader.
const LEADERLESS_MAX: Duration = Duration::from_secs(30);

/// `bench store`
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Rounds; each starts both clusters anew, and the medians over all are shown
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Our program
    #[arg(long, env = "CORACLE_PROGRAM", default_value = "target/release/coracle")]
    coracle: PathBuf,
    /// The peer's program
    #[arg(long, default_value = "etcd")]
    etcd: PathBuf,
    /// Measure only this system: `coracle` or `etcd`
    #[arg(long)]
    only: Option<String>,
    /// Folder for the data: the disk under it is measured as well
    #[arg(long, default_value = ".")]
    scratch: PathBuf,
    /// `text` or `json`
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Measures both, alternating.
///
/// # Errors
/// A cluster does not start, or fails under load.
pub async fn run(args: Args) -> Result<()> {
    let systems = [
        System { name: "coracle", command: vec![args.coracle.clone(), "store".into()] },
        System { name: "etcd", command: vec![args.etcd.clone()] },
    ];
    let systems: Vec<&System> =
        systems.iter().filter(|system| args.only.as_deref().is_none_or(|only| only == system.name)).collect();
    anyhow::ensure!(!systems.is_empty(), "--only takes `coracle` or `etcd`");
    let mut report = Report::default();
    for round in 0..args.rounds {
        // Whoever goes first finds a cooler machine.
        let turn = |i: usize| systems[(i + round) % systems.len()];
        for system in (0..systems.len()).map(turn) {
            eprintln!("round {} of {}: {}", round + 1, args.rounds, system.name);
            measure(system, &args, &mut report).await.with_context(|| format!("{} failed", system.name))?;
        }
    }
    report.show(args.output, "coracle")
}

async fn measure(system: &System, args: &Args, report: &mut Report) -> Result<()> {
    let time = Duration::from_secs(args.seconds);
    let mut members = Members::start(system, &args.scratch).await?;
    let leader = members.leader().await.context("no leader")?;
    let mut add = |what: &str, unit: Unit, figure: f64| report.add(what, unit, system.name, figure);

    let puts = sequential_puts(&members.endpoints[leader], time).await?;
    add("sequential put, p50", Unit::Milliseconds, median(&puts).context("no put")?);
    for clients in CLIENTS {
        let puts = calls_per_second(&members.endpoints, clients, Call::Put, time).await?;
        add(&format!("puts, {clients} clients"), Unit::PerSecond, puts);
    }
    let gets = calls_per_second(&members.endpoints, CLIENTS[0], Call::Get, time).await?;
    add(&format!("linearizable gets, {} clients", CLIENTS[0]), Unit::PerSecond, gets);
    let events = events_per_second(&members.endpoints, WATCHERS, CLIENTS[0], time).await?;
    add(&format!("watch events, {WATCHERS} streams"), Unit::PerSecond, events);
    add("memory of all members", Unit::Megabytes, members.resident_bytes() as f64 / 1e6);

    let leader = members.leader().await.context("no leader")?;
    members.kill(leader).await?;
    let others: Vec<String> = members
        .endpoints
        .iter()
        .enumerate()
        .filter(|(i, _)| *i != leader)
        .map(|(_, url)| url.clone())
        .collect();
    let gap = until_a_put(&others, LEADERLESS_MAX).await?;
    add("leader killed, until the next put", Unit::Milliseconds, gap);
    Ok(())
}
