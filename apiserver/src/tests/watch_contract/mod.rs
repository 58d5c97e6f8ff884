//! The contract of watches: whatever dies, every watcher is told every event of its selection once and in order.
//!
//! 32 writers and 200 watchers, cut and resumed at random, call two apiservers of a runtime each, which are killed in turn:
//! what runs in them is dropped where it stands. The store's watches break and its answers get lost. In the end the store's
//! own history says what every watcher must have been told, and which writes must have been done. All that is drawn follows
//! from a seed; which of the possible interleavings a run takes does not matter to the verdict.

mod faulty;
mod servers;
mod truth;
mod watcher;
mod writer;

use coracle_etcd::memory::MemoryKv;
use servers::Servers;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use truth::{Selection, Truth};
use watcher::Watcher;
use writer::{Outcome, Writer};

const SEED: u64 = 0x5EED;
const WRITERS: u64 = 32;
const WATCHERS: u64 = 200;
/// Writes between two kills.
const WRITES_A_KILL: u64 = 300;
const TIME_MAX: Duration = Duration::from_secs(180);
/// The object that is created last: whoever has seen it has seen all.
const LAST: &str = "zz-last";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Numbers that follow from a seed (SplitMix64): each part draws its own, so that none depends on another's pace.
#[derive(Clone)]
struct Draws(u64);

impl Draws {
    fn of(part: &str, n: u64) -> Self {
        let name = part.bytes().fold(SEED, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
        Self(name ^ n.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }

    /// True once in `times`, on the average.
    fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_watcher_is_told_every_event_once_and_in_order_whatever_dies() {
    let played = tokio::time::timeout(TIME_MAX, play()).await;
    let (truth, outcomes, watchers) = played.unwrap_or_else(|_| panic!("not done in time; seed {SEED}"));
    truth.check_writes(&outcomes);
    let relists: usize = watchers.iter().map(|watcher| watcher.segments.len() - 1).sum();
    let resumed: usize = watchers.iter().map(|watcher| watcher.resumed).sum();
    for watcher in &watchers {
        truth.check_watcher(watcher);
    }
    // Else nothing was shown.
    assert!(resumed > 5 * watchers.len(), "{resumed} resumed, {relists} listed anew");
    eprintln!("{} events, {resumed} watches resumed, {relists} lists anew", truth.len());
}

/// Lets everything happen; tells what the store says of it, how the writes went, and what the watchers were told.
async fn play() -> (Truth, Vec<Outcome>, Vec<Watcher>) {
    let memory = MemoryKv::default();
    let faulty = faulty::Faulty::over(memory.clone());
    let servers = Arc::new(Servers::start(&faulty).await);
    faulty.begin();
    let done = watch::Sender::new(0_u64);
    let (mut writers, mut watchers) = (JoinSet::new(), JoinSet::new());
    for n in 0..WATCHERS {
        let watcher = Watcher::new(n, Selection::of(n));
        watchers.spawn(watcher.run(servers.clone()));
    }
    for n in 0..WRITERS {
        writers.spawn(Writer::new(n).run(servers.clone(), done.clone()));
    }
    let killer = {
        let (servers, faulty, mut done) = (servers.clone(), faulty.clone(), done.subscribe());
        async move {
            for kill in 1.. {
                let due = |done: &u64| *done >= kill * WRITES_A_KILL;
                // Writes go on until the last writer drops its end.
                if done.wait_for(due).await.is_err() {
                    return kill - 1;
                }
                servers.replace(usize::try_from(kill % 2).expect("small"), &faulty).await;
            }
            0
        }
    };
    drop(done);
    let mut outcomes = Vec::new();
    let written = async {
        while let Some(writer) = writers.join_next().await {
            outcomes.extend(writer.expect("no writer panics"));
        }
    };
    let (kills, ()) = tokio::join!(killer, written);
    assert!(kills >= 4, "only {kills} apiservers were killed");
    faulty.end();
    writer::put_last(&servers).await;
    let mut told = Vec::new();
    while let Some(watcher) = watchers.join_next().await {
        told.push(watcher.expect("no watcher panics"));
    }
    servers.stop();
    (Truth::read(&memory).await, outcomes, told)
}
