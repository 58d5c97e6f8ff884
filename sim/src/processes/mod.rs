//! Real members: processes that are killed, stopped, and whose disk fills up, while clients ask each of them.
//!
//! In: a number of rounds and a seed. Out: what happened, or what was violated. Each round breaks something, mends it, and
//! goes on once a write is acknowledged. In the end all members must have the same state, and the history must be
//! linearizable, which no lost write that was acknowledged is.

mod asking;
mod member;

use crate::cluster::history::{Change, History};
use crate::dice::Dice;
use anyhow::{Context, Result, ensure};
use asking::Asking;
use coracle_daemon::clock::{self, Instant};
use coracle_etcd::proto::alarm_request::AlarmAction;
use coracle_etcd::proto::maintenance_client::MaintenanceClient;
use coracle_etcd::proto::watch_client::WatchClient;
use coracle_etcd::proto::watch_request::RequestUnion;
use coracle_etcd::proto::{
    AlarmRequest, EventType, HashKvRequest, StatusRequest, WatchCreateRequest, WatchRequest,
};
use member::{Member, Signal};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tonic::transport::Channel;

pub use member::run as run_member;

const MEMBERS: usize = 3;
const CLIENTS_EACH: usize = 3;
/// How long a cluster may take to acknowledge a write again.
const BACK_MAX: Duration = Duration::from_secs(30);
/// Size of the disk of the member whose disk fills up: twice what the log keeps at most, and as much for all else.
const DISK_MIB: u64 = 256;
/// Mebibytes that the log grows by while the disk is full, at most: more than a segment.
const LARGE_MAX: usize = 20;

#[derive(Clone, Copy, Debug)]
enum Fault {
    KillOne,
    KillLeader,
    KillMost,
    KillAll,
    StopLeader,
    FillDisk,
}

/// Plays `rounds`, and tells what came of it.
///
/// # Errors
/// Something is violated, or the machine does not let the test run.
pub fn play(rounds: u64, seed: u64, trace: bool) -> Result<String> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start threads")?;
    let folder = tempfile::tempdir()?;
    let played = runtime.block_on(rounds_of(rounds, seed, folder.path(), trace));
    if let Err(error) = played {
        return Err(error.context(format!("see the members' logs in {}", folder.keep().display())));
    }
    played
}

struct Cluster {
    members: Vec<Member>,
    dice: Dice,
    has_small_disk: bool,
}

async fn rounds_of(rounds: u64, seed: u64, folder: &Path, trace: bool) -> Result<String> {
    let small_disk = member::small_disk(&folder.join("m0"), DISK_MIB)?;
    let ports = member::free_ports(2 * MEMBERS)?;
    let members: Result<Vec<Member>> = (0..MEMBERS).map(|at| Member::start(folder, at, &ports)).collect();
    let mut cluster =
        Cluster { members: members?, dice: Dice::new(seed), has_small_disk: small_disk.is_some() };
    let history = Arc::new(Mutex::new(History::default()));
    let asking: Result<Vec<Asking>> = (0..MEMBERS * CLIENTS_EACH)
        .map(|number| {
            let member = &cluster.members[number % MEMBERS];
            Asking::start(number, member.channel()?, history.clone(), cluster.dice.fork())
        })
        .collect();
    let asking = asking?;
    cluster.wait_for_write().await?;
    let mut faults = std::collections::BTreeMap::<String, u64>::new();
    for round in 0..rounds {
        let fault = cluster.draw();
        *faults.entry(format!("{fault:?}")).or_default() += 1;
        let began = Instant::now();
        cluster.suffer(fault, folder).await.with_context(|| format!("round {round}, {fault:?}"))?;
        let mended = began.elapsed();
        cluster.wait_for_write().await.with_context(|| format!("round {round}, after {fault:?}"))?;
        if trace {
            println!(
                "{round:4} {fault:?}: mended after {mended:.1?}, all well after {:.1?}",
                began.elapsed()
            );
        }
    }
    for one in asking {
        one.stop().await;
    }
    let truth = cluster.come_together().await?;
    let history = history.lock().unwrap_or_else(PoisonError::into_inner);
    history.check(&truth).map_err(anyhow::Error::msg)?;
    drop(cluster);
    drop(small_disk);
    Ok(format!(
        "{rounds} rounds of processes ({faults:?}): {} requests answered, {} not, {} changes, linearizable",
        history.answered(),
        history.requests.len() - history.answered(),
        truth.len()
    ))
}

impl Cluster {
    fn draw(&mut self) -> Fault {
        match self.dice.below(100) {
            0..25 => Fault::KillOne,
            25..50 => Fault::KillLeader,
            50..60 => Fault::KillMost,
            60..75 => Fault::KillAll,
            75..90 => Fault::StopLeader,
            _ if self.has_small_disk => Fault::FillDisk,
            _ => Fault::KillLeader,
        }
    }

    async fn suffer(&mut self, fault: Fault, folder: &Path) -> Result<()> {
        let one = self.dice.index(MEMBERS);
        let leader = self.leader().await.unwrap_or(one);
        let moment = Duration::from_millis(self.dice.below(150));
        // In the midst of requests, at a moment that differs.
        clock::sleep(moment).await;
        let victims: Vec<usize> = match fault {
            Fault::KillOne => vec![one],
            Fault::KillLeader => vec![leader],
            Fault::KillMost => (0..MEMBERS).filter(|at| *at != one).collect(),
            Fault::KillAll => (0..MEMBERS).collect(),
            Fault::StopLeader => {
                self.members[leader].signal(Signal::SIGSTOP)?;
                clock::sleep(Duration::from_millis(700 + self.dice.below(1500))).await;
                return self.members[leader].signal(Signal::SIGCONT);
            }
            Fault::FillDisk => return self.fill_disk(&folder.join("m0")).await,
        };
        for at in &victims {
            self.members[*at].kill()?;
        }
        clock::sleep(Duration::from_millis(self.dice.below(500))).await;
        for at in victims {
            self.members[at].start_again()?;
        }
        Ok(())
    }

    /// The first member's disk has no byte left, is written to, and has room again.
    async fn fill_disk(&mut self, disk: &Path) -> Result<()> {
        let ballast = disk.join("ballast");
        member::fill(&ballast)?;
        // Until the log needs the next segment. The cluster takes no more once the member tells; or the member ends.
        for _ in 0..LARGE_MAX {
            if self.grow_log().await.is_err() {
                break;
            }
        }
        std::fs::remove_file(&ballast)?;
        for member in &mut self.members {
            member.start_again_if_ended()?;
        }
        let began = Instant::now();
        while let Err(error) = self.disarm().await {
            ensure!(began.elapsed() < BACK_MAX, "the alarm cannot be taken back: {error:#}");
            clock::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn grow_log(&self) -> Result<()> {
        let member = self.members.last().context("no member")?;
        asking::grow_log(member.channel()?).await
    }

    async fn disarm(&self) -> Result<()> {
        let member = self.members.last().context("no member")?;
        let mut client = MaintenanceClient::new(member.channel()?);
        // Of all members, both kinds of alarm are asked about; there is only one here.
        let told = client.alarm(AlarmRequest::default()).await?.into_inner();
        for alarm in told.alarms {
            let request = AlarmRequest {
                action: AlarmAction::Deactivate.into(),
                member_id: alarm.member_id,
                alarm: alarm.alarm,
            };
            client.alarm(request).await?;
        }
        Ok(())
    }

    async fn leader(&self) -> Option<usize> {
        for at in 0..MEMBERS {
            let mut client = MaintenanceClient::new(self.members[at].channel().ok()?);
            let asked = clock::timeout(Duration::from_millis(500), client.status(StatusRequest {})).await;
            if let Ok(Ok(status)) = asked {
                let status = status.into_inner();
                if status.header.is_some_and(|header| header.member_id == status.leader) {
                    return Some(at);
                }
            }
        }
        None
    }

    /// Waits until a write through each member is acknowledged.
    async fn wait_for_write(&mut self) -> Result<()> {
        let began = Instant::now();
        for at in 0..MEMBERS {
            loop {
                self.members[at].start_again_if_ended()?;
                let written = asking::put_mark(self.members[at].channel()?).await;
                let Err(error) = written else { break };
                // An alarm may be raised late.
                let _ = self.disarm().await;
                ensure!(began.elapsed() < BACK_MAX, "member {at} acknowledges no write: {error:#}");
                clock::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    /// Waits until all members have the same state, and returns how it came about.
    async fn come_together(&mut self) -> Result<Vec<Change>> {
        let began = Instant::now();
        let revision = loop {
            let mut stands = Vec::new();
            for member in &self.members {
                let mut client = MaintenanceClient::new(member.channel()?);
                let told = client.hash_kv(HashKvRequest { revision: 0 }).await?.into_inner();
                stands.push((told.hash, told.header.map_or(0, |header| header.revision)));
            }
            if stands.iter().all(|stand| *stand == stands[0]) {
                break stands[0].1;
            }
            ensure!(began.elapsed() < BACK_MAX, "members differ: {stands:x?}");
            clock::sleep(Duration::from_millis(50)).await;
        };
        truth(self.members[0].channel()?, revision).await
    }
}

/// All changes up to a revision.
async fn truth(channel: Channel, revision: i64) -> Result<Vec<Change>> {
    let all = WatchCreateRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        start_revision: 1,
        ..WatchCreateRequest::default()
    };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(all)) };
    let requests = futures::StreamExt::chain(futures::stream::iter([request]), futures::stream::pending());
    let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
    let mut told = client.watch(requests).await?.into_inner();
    let mut truth: Vec<Change> = Vec::new();
    while truth.last().is_none_or(|(last, ..)| *last < revision) {
        let next = clock::timeout(BACK_MAX, told.message()).await.context("the watch is silent")??;
        let next = next.context("the watch has ended")?;
        ensure!(!next.canceled, "the watch was cancelled: {}", next.cancel_reason);
        for event in next.events {
            let deleted = event.r#type() == EventType::Delete;
            let kv = event.kv.context("an event without a key")?;
            let value = if deleted { None } else { crate::cluster::clients::value(&kv.value) };
            truth.push((kv.mod_revision, String::from_utf8_lossy(&kv.key).into_owned(), value));
        }
    }
    Ok(truth)
}
