//! An apiserver beside what is wanted of it: writes, reads, lists, watches, memory, and what it costs to do nothing.
//!
//! Three stores and two apiservers, over TLS with client certificates. The controllers and schedulers of the cluster are
//! paused while something is measured: what they would do with the objects is not the apiserver's.

mod load;
mod servers;
mod wire;

use crate::report::{Output, Report, Unit, median, percentile};
use anyhow::{Context, Result};
use coracle_daemon::clock;
use load::{Objects, Write, at_once, watched};
use servers::Servers;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use wire::Wire;

/// Connections that write or read at once.
const CLIENTS: usize = 16;
/// Pods of the list that is measured, and how often it is.
const LISTED: u64 = 5_000;
const LISTS: usize = 15;
/// Events of the fan-out.
const EVENTS: u64 = 2_000;
/// Single requests of which the median is shown.
const SINGLE: usize = 300;
const OURS: &str = "coracle";
const WANTED: &str = "target";

/// `bench apiserver`
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Seconds of each measurement
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Our program
    #[arg(long, env = "CORACLE_PROGRAM", default_value = "target/release/coracle")]
    coracle: PathBuf,
    /// Folder for the cluster's data
    #[arg(long, default_value = ".")]
    scratch: PathBuf,
    /// First of 32 ports, if not the next free ones
    #[arg(long)]
    api_port: Option<u16>,
    /// Clients that watch at once, and are told every event
    #[arg(long, default_value_t = 500)]
    watchers: usize,
    /// Watches, a connection each, whose memory is measured; 0: leave it out
    #[arg(long, default_value_t = 10_000)]
    watches: usize,
    /// Pods whose memory and restart are measured, with the cost of requests at 1,000, 10,000 and so many; 0: leave it
    /// out, as making 100,000 takes minutes
    #[arg(long, default_value_t = 0)]
    stored: u64,
    /// Seconds of doing nothing
    #[arg(long, default_value_t = 10)]
    idle: u64,
    /// `text` or `json`
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Figures beside what is wanted.
#[derive(Default)]
struct Figures(Report);

impl Figures {
    fn add(&mut self, what: &str, unit: Unit, figure: f64, wanted: Option<f64>) {
        eprintln!("{what}: {figure:.2}");
        self.0.add(what, unit, OURS, figure);
        if let Some(wanted) = wanted {
            self.0.add(what, unit, WANTED, wanted);
        }
    }
}

/// Measures.
///
/// # Errors
/// The servers do not start, or fail under load.
pub async fn run(args: Args) -> Result<()> {
    let servers = Servers::start(&args.coracle, &args.scratch, args.api_port).await?;
    let mut figures = Figures::default();
    idle(&servers, &args, &mut figures).await?;
    servers.pause_others(true)?;
    writes_and_reads(&servers, &args, &mut figures).await?;
    fan_out(&servers, &args, &mut figures).await?;
    if args.watches > 0 {
        watches(&servers, &args, &mut figures).await?;
    }
    if args.stored > 0 {
        stored(&servers, &args, &mut figures).await?;
    }
    figures.0.show(args.output, OURS)
}

/// The share of a core that the apiservers take while nobody asks for anything.
async fn idle(servers: &Servers, args: &Args, figures: &mut Figures) -> Result<()> {
    clock::sleep(Duration::from_secs(args.idle / 2)).await;
    let (before, began) = (servers.busy_seconds(), Instant::now());
    clock::sleep(Duration::from_secs(args.idle)).await;
    let share = (servers.busy_seconds() - before) / began.elapsed().as_secs_f64() * 100.0;
    figures.add("idle, 2 apiservers, of one core", Unit::Percent, share, Some(0.0));
    Ok(())
}

async fn writes_and_reads(servers: &Servers, args: &Args, figures: &mut Figures) -> Result<()> {
    let time = Duration::from_secs(args.seconds);
    let pods = Objects::pods("write");
    let took = at_once(servers, CLIENTS, time, |n| pods.create(n)).await?;
    figures.add("pods created, 16 connections", Unit::PerSecond, took.per_second(), Some(2_500.0));
    figures.add("  p50", Unit::Milliseconds, percentile(&took.milliseconds, 50), None);
    figures.add("  p99", Unit::Milliseconds, percentile(&took.milliseconds, 99), Some(50.0));
    let made = took.milliseconds.len() as u64;
    let took = at_once(servers, CLIENTS, time, |n| pods.patch(n % made)).await?;
    figures.add("pods patched, 16 connections", Unit::PerSecond, took.per_second(), Some(2_000.0));
    figures.add("  p99 of patches", Unit::Milliseconds, percentile(&took.milliseconds, 99), None);
    let took = at_once(servers, CLIENTS, time, |n| pods.get(n % made, "")).await?;
    figures.add("consistent GETs, 16 connections", Unit::PerSecond, took.per_second(), None);
    let took = at_once(servers, CLIENTS, time, |n| pods.get(n % made, "?resourceVersion=0")).await?;
    figures.add("GETs from the cache, 16 connections", Unit::PerSecond, took.per_second(), Some(35_000.0));
    let took = at_once(servers, 128, time, |n| pods.get(n % made, "")).await?;
    figures.add("consistent GETs, 128 connections", Unit::PerSecond, took.per_second(), Some(35_000.0));
    list(servers, &pods, made, figures).await
}

/// Makes the list as long as it should be, and reads it.
async fn list(servers: &Servers, pods: &Objects, made: u64, figures: &mut Figures) -> Result<()> {
    pods.fill(servers, made, LISTED).await?;
    for n in LISTED..made {
        servers.client(0).await?.ask(&pods.delete(n)).await?;
    }
    let mut client = servers.client(0).await?;
    let path = format!("{}?resourceVersion=0", pods.path());
    let request = wire::request("GET", &path, "", b"");
    let (mut whole, mut first) = (Vec::new(), Vec::new());
    for _ in 0..LISTS {
        let answer = client.ask(&request).await?;
        anyhow::ensure!(answer.code == 200, "the list was answered with {}", answer.code);
        whole.push(answer.whole.as_secs_f64() * 1e3);
        first.push(answer.first.as_secs_f64() * 1e3);
    }
    let (whole, first) = (median(&whole).context("no list")?, median(&first).context("no list")?);
    figures.add("LIST of 5,000 pods, whole", Unit::Milliseconds, whole, Some(40.0));
    figures.add("LIST of 5,000 pods, first byte", Unit::Milliseconds, first, Some(10.0));
    Ok(())
}

/// Every watcher is told every event, counted to the last.
async fn fan_out(servers: &Servers, args: &Args, figures: &mut Figures) -> Result<()> {
    let maps = Objects::maps("told");
    maps.fill(servers, 0, 64).await?;
    let told = watched(servers, &maps, args.watchers).await?.read(EVENTS);
    let began = Instant::now();
    load::so_many(servers, CLIENTS, EVENTS, |n| maps.patch(n % 64)).await?;
    told.all().await?;
    let rate = EVENTS as f64 * args.watchers as f64 / began.elapsed().as_secs_f64();
    let what = format!("events told to {} watchers, none lost", args.watchers);
    figures.add(&what, Unit::PerSecond, rate, Some(250_000.0));
    Ok(())
}

/// What watches of one kind that say nothing take in memory, a connection each.
async fn watches(servers: &Servers, args: &Args, figures: &mut Figures) -> Result<()> {
    let maps = Objects::maps("quiet");
    let before = servers.resident_bytes(0)?;
    let watchers = load::watched_by(servers, 0, &maps, args.watches).await?;
    let megabytes = servers.resident_bytes(0)?.saturating_sub(before) as f64 / 1e6;
    drop(watchers);
    let what = format!("memory of {} watches, a connection each", args.watches);
    figures.add(&what, Unit::Megabytes, megabytes, Some(400.0 * args.watches as f64 / 1e4));
    Ok(())
}

/// Memory, restart and the cost of requests as more and more is stored.
async fn stored(servers: &Servers, args: &Args, figures: &mut Figures) -> Result<()> {
    let pods = Objects::pods("kept");
    let mut have = 0;
    let mut sizes: Vec<u64> = vec![1_000, 10_000, args.stored];
    sizes.retain(|size| *size <= args.stored);
    for size in sizes {
        pods.fill(servers, have, size).await?;
        have = size;
        cost(servers, &pods, size, figures).await?;
    }
    let megabytes = servers.resident_bytes(0)? as f64 / 1e6;
    let wanted = Some(1_000.0).filter(|_| args.stored == 100_000);
    figures.add(&format!("memory of an apiserver, {have} pods"), Unit::Megabytes, megabytes, wanted);
    let took = servers.restart(0).await?;
    let wanted = Some(5_000.0).filter(|_| args.stored == 100_000);
    let milliseconds = took.as_secs_f64() * 1e3;
    figures.add(
        &format!("apiserver killed until ready, {have} pods"),
        Unit::Milliseconds,
        milliseconds,
        wanted,
    );
    let megabytes = servers.resident_bytes(0)? as f64 / 1e6;
    figures.add(&format!("memory after the restart, {have} pods"), Unit::Megabytes, megabytes, None);
    Ok(())
}

/// One request after the other, of each sort.
async fn cost(servers: &Servers, pods: &Objects, size: u64, figures: &mut Figures) -> Result<()> {
    let mut client = servers.client(0).await?;
    let one_of = |n: usize| (n as u64).wrapping_mul(7919) % size;
    let other = Objects::pods("cost");
    let list = wire::request("GET", &format!("{}?limit=100", pods.path()), "", b"");
    let sorts: [(&str, &Make<'_>); 4] = [
        ("GET", &|n| pods.get(one_of(n), "")),
        ("PATCH", &|n| pods.patch(one_of(n))),
        ("POST", &|n| other.create(size * 1_000 + n as u64)),
        ("LIST of 100", &|_| list.clone()),
    ];
    for (sort, request) in sorts {
        let took = singly(&mut client, request).await?;
        figures.add(&format!("{sort} with {size} pods stored, p50"), Unit::Milliseconds, took, None);
    }
    Ok(())
}

/// The request of a number.
type Make<'a> = dyn Fn(usize) -> Write + Send + Sync + 'a;

async fn singly(client: &mut Wire, request: &Make<'_>) -> Result<f64> {
    let mut took = Vec::new();
    for n in 0..SINGLE {
        let answer = client.ask(&request(n)).await?;
        anyhow::ensure!(answer.code < 300, "answered with {}", answer.code);
        took.push(answer.whole.as_secs_f64() * 1e3);
    }
    median(&took).context("no request")
}
