//! Our store beside etcd: the same flags, the same machine, the same client, turn and turn about.

use crate::members::{Members, System};
use crate::report::{Output, Report, Unit, median};
use crate::workload::{Call, calls_per_second, events_per_second, fill, sequential_puts, until_a_put};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Clients that put at once.
const CLIENTS: [usize; 3] = [16, 128, 1000];
/// Clients that read at once.
const READERS: usize = 128;
/// Clients that put while others watch, and how many watch.
const WRITERS: usize = 16;
const WATCHERS: [usize; 2] = [100, 1000];
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
    /// Times that the leader is killed in each round
    #[arg(long, default_value_t = 7)]
    kills: usize,
    /// Keys of 1 KiB whose memory is measured
    #[arg(long, default_value_t = 100_000)]
    kept: u64,
    /// Keys of 1 KiB with which all members are restarted; 0: leave it out, as filling them takes minutes
    #[arg(long, default_value_t = 0)]
    restart: u64,
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
        let busy = members.busy_seconds();
        let puts = calls_per_second(&members.endpoints, clients, Call::Put, time).await?;
        add(&format!("puts, {clients} clients"), Unit::PerSecond, puts);
        // On few cores the clients take as much as the members, which ratios of puts hide.
        let each = (members.busy_seconds() - busy) / (puts * time.as_secs_f64()) * 1e6;
        add(&format!("CPU of the members for a put, {clients} clients"), Unit::Microseconds, each);
    }
    let gets = calls_per_second(&members.endpoints, READERS, Call::Get, time).await?;
    add(&format!("linearizable gets, {READERS} clients"), Unit::PerSecond, gets);
    for watchers in WATCHERS {
        let events = events_per_second(&members.endpoints, watchers, WRITERS, time).await?;
        add(&format!("watch events, {watchers} streams"), Unit::PerSecond, events);
    }
    for _ in 0..args.kills {
        let gap = kill_leader(&mut members).await?;
        add("leader killed, until the next put", Unit::Milliseconds, gap);
    }
    drop(members);
    keep(system, args, report).await
}

/// Milliseconds from a leader's end to the next put; then it is back.
async fn kill_leader(members: &mut Members) -> Result<f64> {
    let leader = members.until_led().await?;
    let others = members.endpoints.iter().enumerate().filter(|(i, _)| *i != leader);
    let others: Vec<String> = others.map(|(_, url)| url.clone()).collect();
    members.kill(leader).await?;
    let gap = until_a_put(&others, LEADERLESS_MAX).await?;
    members.start_again(leader)?;
    members.until_led().await?;
    Ok(gap)
}

/// What a new cluster holds in memory, how fast it answers ranges, and how fast it is back when all members died.
async fn keep(system: &System, args: &Args, report: &mut Report) -> Result<()> {
    let mut members = Members::start(system, &args.scratch).await?;
    let leader = members.until_led().await?;
    let mut add = |what: &str, unit: Unit, figure: f64| report.add(what, unit, system.name, figure);
    fill(&members.endpoints[leader], args.kept).await?;
    let megabytes = members.resident_bytes() as f64 / 1e6;
    add(&format!("memory, {} keys of 1 KiB", args.kept), Unit::Megabytes, megabytes);
    let time = Duration::from_secs(args.seconds);
    let ranges = calls_per_second(&members.endpoints, WRITERS, Call::Range, time).await?;
    add("ranges of 1,000 × 1 KiB, 16 clients", Unit::PerSecond, ranges);
    if args.restart > 0 {
        fill(&members.endpoints[leader], args.restart).await?;
        let all = 0..members.endpoints.len();
        for member in all.clone() {
            members.kill(member).await?;
        }
        let began = Instant::now();
        for member in all {
            members.start_again(member)?;
        }
        members.until_led().await?;
        until_a_put(&members.endpoints, LEADERLESS_MAX).await?;
        let took = began.elapsed().as_secs_f64() * 1e3;
        add(&format!("restart with {} keys", args.restart), Unit::Milliseconds, took);
    }
    Ok(())
}
