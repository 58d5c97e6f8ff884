//! Our store beside etcd: the same flags, the same machine, the same client, turn and turn about.

mod frames;
mod load;
mod messages;
mod requests;
mod wire;
mod workload;

use crate::members::{Members, System};
use crate::process::busy_seconds;
use crate::report::{Output, Report, Unit, median};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use workload::{Call, calls, events, fill, until_a_put};

/// What is done by how many clients at once.
const CALLS: [(Call, &str, usize); 4] = [
    (Call::Put, "put", 16),
    (Call::Put, "put", 128),
    (Call::Put, "put", 1000),
    (Call::Get, "linearizable get", 128),
];
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
    /// Keys of 1 KiB whose memory is measured, and of which 1,000 are read at once
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1000..))]
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

    let first = &members.endpoints[leader..=leader];
    let puts = calls(first, 1, Call::Put, time).await?;
    add("sequential put, p50", Unit::Milliseconds, median(&puts.milliseconds).context("no put")?);
    for (call, name, clients) in CALLS {
        let costs = Costs::begin(&members);
        let took = calls(&members.endpoints, clients, call, time).await?;
        let what = format!("{name}s, {clients} clients");
        add(&what, Unit::PerSecond, took.per_second());
        for (of, unit, figure) in costs.end(&members, took.milliseconds.len() as u64) {
            add(&format!("{what}: {of}"), unit, figure);
        }
    }
    for watchers in WATCHERS {
        let costs = Costs::begin(&members);
        let told = events(&members.endpoints, watchers, WRITERS, time).await?;
        let what = format!("watch events, {watchers} streams");
        add(&what, Unit::PerSecond, told.per_second);
        for (of, unit, figure) in costs.end(&members, told.all) {
            add(&format!("{what}: {of}"), unit, figure);
        }
    }
    for _ in 0..args.kills {
        let gap = kill_leader(&mut members).await?;
        add("leader killed, until the next put", Unit::Milliseconds, gap);
    }
    drop(members);
    keep(system, args, report).await
}

/// What a measurement costs. Members and clients share the cores, so what is done in a second also measures the clients.
struct Costs {
    began: Instant,
    members: f64,
    clients: f64,
}

impl Costs {
    fn begin(members: &Members) -> Self {
        Self { began: Instant::now(), members: members.busy_seconds(), clients: own_seconds() }
    }

    /// What so much that was done took of the members' time, and the clients of a core.
    fn end(self, members: &Members, done: u64) -> [(&'static str, Unit, f64); 2] {
        let time = self.began.elapsed().as_secs_f64();
        let each = (members.busy_seconds() - self.members) / done as f64 * 1e6;
        let share = (own_seconds() - self.clients) / time * 100.0;
        [
            ("CPU of the members for each", Unit::Microseconds, each),
            ("clients, of one core", Unit::Percent, share),
        ]
    }
}

/// Seconds that this process, which is all clients, has kept a core busy.
fn own_seconds() -> f64 {
    busy_seconds(std::process::id()).unwrap_or_default()
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
    let ranges = calls(&members.endpoints, WRITERS, Call::Range, time).await?;
    add("ranges of 1,000 × 1 KiB, 16 clients", Unit::PerSecond, ranges.per_second());
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
