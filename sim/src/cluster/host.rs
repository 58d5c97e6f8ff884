//! A machine with a member on it: a runtime of its own, whose clock the world turns, and a disk that outlives it.
//!
//! Dropping the runtime is `kill -9`. The runtime has one thread, the simulation's, and its clock stands unless the world
//! lets a millisecond pass.

use super::clients::{Client, Notes};
use super::history::Change;
use super::net::{End, Net};
use crate::dice::Dice;
use crate::disk::SimDisk;
use coracle_daemon::{Tasks, clock};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use store::machine::Machine;
use store::raft::simulated::{self, Connection, Dial, Driven, Surroundings};
use store::raft::{Node, NodeConfig};
use store::shared::Shared;
use store::wal::{Driver, Options};
use tokio::runtime::{Builder, RngSeed, Runtime};
use tokio_stream::wrappers::UnboundedReceiverStream;

/// Small, so that segments change often.
const OPTIONS: Options = Options { segment_bytes: 16 << 10, batch_bytes: 8 << 10, resident_bytes: 1 << 10 };
const SNAPSHOT_ENTRIES: u64 = 60;
/// The last of them only reads: whoever writes to a leader that nobody hears waits for long.
const CLIENTS: usize = 4;
/// Milliseconds since 1970 when a simulation begins.
const BEGINS: i64 = 1_700_000_000_000;

/// What runs.
#[derive(Clone)]
pub struct Up {
    pub node: Arc<Node>,
    pub shared: Arc<Shared>,
}

/// How a member came to its end, other than by the world's hand.
pub type Ended = Arc<Mutex<Option<String>>>;

/// A machine.
pub struct Host {
    pub number: usize,
    members: usize,
    folder: PathBuf,
    pub disk: SimDisk,
    net: Net,
    notes: Arc<Mutex<Notes>>,
    now: Arc<AtomicU64>,
    pub seen: Arc<Mutex<Vec<Change>>>,
    dice: Dice,
    runtime: Option<Runtime>,
    up: Arc<Mutex<Option<Up>>>,
    ended: Ended,
    /// Milliseconds that a batch takes at most.
    pub sync_millis: Arc<AtomicU64>,
    /// How much faster than the world's its clock goes, in thousandths.
    rate: i64,
    behind: i64,
    /// It stands still until then.
    pub paused_until: u64,
    paused: u64,
}

/// What all machines have in common.
pub struct Common {
    pub members: usize,
    pub folder: PathBuf,
    pub net: Net,
    pub notes: Arc<Mutex<Notes>>,
    pub now: Arc<AtomicU64>,
}

fn name(number: usize) -> String {
    format!("m{number}")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Host {
    pub fn new(number: usize, common: &Common, dice: &mut Dice) -> Self {
        Self {
            number,
            members: common.members,
            folder: common.folder.join(name(number)),
            disk: SimDisk::new(dice.fork()),
            net: common.net.clone(),
            notes: common.notes.clone(),
            now: common.now.clone(),
            seen: Arc::default(),
            rate: i64::try_from(dice.below(41)).unwrap_or(20) - 20,
            dice: dice.fork(),
            runtime: None,
            up: Arc::default(),
            ended: Arc::default(),
            sync_millis: Arc::new(AtomicU64::new(3)),
            behind: 0,
            paused_until: 0,
            paused: 0,
        }
    }

    pub fn is_up(&self) -> bool {
        self.runtime.is_some()
    }

    /// The member, once it has started.
    pub fn member(&self) -> Option<Up> {
        lock(&self.up).clone()
    }

    /// Why the member ended by itself, if it did.
    pub fn ended(&self) -> Option<String> {
        lock(&self.ended).clone()
    }

    fn config(&self) -> NodeConfig {
        let url = |number: usize| vec![format!("http://{}:1", name(number))];
        NodeConfig {
            name: name(self.number),
            data: self.folder.clone(),
            wal: self.folder.join("wal"),
            cluster: (0..self.members).map(|number| (name(number), url(number))).collect::<BTreeMap<_, _>>(),
            token: "sim".to_owned(),
            joins: false,
            peer_urls: url(self.number),
            client_urls: Vec::new(),
            heartbeat_millis: 50,
            election_millis: 200,
            snapshot_entries: SNAPSHOT_ENTRIES,
            alone: false,
        }
    }

    /// The power is on, and the member starts.
    pub fn start(&mut self) -> Result<(), String> {
        self.disk.power_on();
        self.net.back(self.number);
        (self.paused_until, self.paused) = (0, 0);
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .max_blocking_threads(1)
            .rng_seed(RngSeed::from_bytes(&self.dice.next().to_le_bytes()))
            .build()
            .map_err(|error| error.to_string())?;
        let (give, take) = tokio::sync::oneshot::channel::<Driver>();
        let driven = Driven {
            options: OPTIONS,
            take: Box::new(move |driver| {
                // Its member was killed meanwhile.
                let _ = give.send(driver);
            }),
        };
        runtime.spawn(write_batches(take, self.sync_millis.clone(), self.dice.fork()));
        let (net, me) = (self.net.clone(), self.number);
        let dial = Dial::new(move |address| {
            let to = address.trim_start_matches('m').split(':').next().and_then(|number| number.parse().ok());
            let dialled = net.clone().dial(me, to.unwrap_or(usize::MAX));
            Box::pin(async move { dialled.await.map(|end| Box::new(end) as Box<dyn Connection>) })
        });
        let around =
            Surroundings { disk: Some(Arc::new(self.disk.clone())), driven: Some(driven), dial: Some(dial) };
        (self.up, self.ended) = (Arc::default(), Arc::default());
        let incoming = UnboundedReceiverStream::new(self.net.listen(self.number));
        runtime.spawn(self.life(around, incoming));
        self.runtime = Some(runtime);
        Ok(())
    }

    /// The member's life and its clients'.
    fn life(
        &mut self,
        around: Surroundings,
        incoming: UnboundedReceiverStream<std::io::Result<End>>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (config, up, ended) = (self.config(), self.up.clone(), self.ended.clone());
        let (notes, now, seen, host) = (self.notes.clone(), self.now.clone(), self.seen.clone(), self.number);
        let mut dice = self.dice.fork();
        async move {
            let (tasks, shared) = (Tasks::new(), Shared::new(Machine::new()));
            let node = match simulated::start(config, around, incoming, shared.clone(), &tasks).await {
                Ok(node) => node,
                Err(error) => {
                    *lock(&ended) = Some(format!("cannot start: {error:?}"));
                    return;
                }
            };
            *lock(&up) = Some(Up { node: node.clone(), shared: shared.clone() });
            let client = |at| Client {
                node: node.clone(),
                shared: shared.clone(),
                notes: notes.clone(),
                now: now.clone(),
                host,
                number: host * CLIENTS + at,
            };
            for at in 0..CLIENTS {
                tasks.run("client", client(at).ask_on(dice.fork(), at + 1 == CLIENTS));
            }
            tasks.run("lease holder", client(0).hold_leases(dice.fork()));
            tasks.run("watcher", client(0).watch(seen, dice.fork()));
            let (lessor, stop) = (shared.clone(), tasks.stopping());
            tasks.run("lease ends", async move {
                store::lessor::end_leases(lessor.lessor(), node, stop).await;
            });
            let death = tasks.first_death().await;
            *lock(&ended) = Some(format!("{}: {:#}", death.name, death.error));
        }
    }

    /// A millisecond of the world passes.
    pub fn tick(&mut self, now: u64) {
        let Some(runtime) = &self.runtime else { return };
        if self.paused_until > now {
            self.paused += 1;
            return;
        }
        let wall = i64::try_from(now).unwrap_or(0) * (1000 + 40 * self.rate) / 1000;
        clock::simulate(BEGINS + wall + i64::try_from(self.number).unwrap_or(0) * 3_600_000);
        // Time went on while it stood still.
        let missed = std::mem::take(&mut self.paused);
        if missed > 0 {
            runtime.block_on(async { tokio::time::advance(Duration::from_millis(missed)).await });
        }
        self.behind += 1000 + self.rate;
        while self.behind >= 1000 {
            self.behind -= 1000;
            runtime.block_on(async { clock::sleep(Duration::from_millis(1)).await });
        }
    }

    /// The process is killed, or the whole machine.
    pub fn kill(&mut self, whole: bool) {
        let Some(runtime) = self.runtime.take() else { return };
        if whole {
            self.disk.cut_after(0);
        }
        *lock(&self.up) = None;
        runtime.shutdown_timeout(Duration::from_secs(5));
        self.net.gone(self.number, whole);
    }
}

/// Writes what the log has to write, as slowly as the disk is.
async fn write_batches(
    driver: tokio::sync::oneshot::Receiver<Driver>,
    sync_millis: Arc<AtomicU64>,
    mut dice: Dice,
) {
    let Ok(mut driver) = driver.await else { return };
    loop {
        driver.woken().await;
        loop {
            let takes = dice.below(sync_millis.load(Ordering::Relaxed) + 1);
            clock::sleep(Duration::from_millis(takes)).await;
            if !driver.write_batch() {
                break;
            }
        }
    }
}
