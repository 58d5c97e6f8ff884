//! What a running member does all the time, besides answering: tasks that end with it.

use super::apply::Growth;
use super::forward;
use super::identity::Identity;
use super::log::Log;
use super::node::Node;
use super::pulse;
use super::reads;
use super::stall::{self, Syncs};
use super::types::{Peer, StoredMembership};
use super::wire::ask_request::What;
use super::{LOG_BYTES, NodeConfig, serve, wire};
use crate::command::Op;
use crate::consensus::{Consensus, Leadership, Member};
use coracle_daemon::clock;
use coracle_etcd::proto::alarm_request::AlarmAction;
use coracle_etcd::proto::{AlarmRequest, AlarmType};
use openraft::async_runtime::WatchReceiver;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long to wait before raising the alarm for a full disk is tried again.
const ALARM_PAUSE: Duration = Duration::from_millis(500);
/// How long a member that was removed goes on.
const LEAVE_AFTER: Duration = Duration::from_secs(1);
/// How long a leader that stops tries to hand leadership over.
pub(super) const HAND_OVER_MAX: Duration = Duration::from_millis(500);
/// How long to wait before telling name and URLs is tried again.
const PUBLISH_PAUSE: Duration = Duration::from_secs(1);

/// What the duties take from.
pub struct Inputs {
    /// Linearizable reads.
    pub reads: reads::Queue,
    /// Changes for the leader.
    pub changes: forward::Queue,
    /// How the log grows.
    pub growth: Arc<Growth>,
    /// The log.
    pub log: Log,
    /// Whether the disk has room.
    pub room: watch::Receiver<bool>,
    /// Whether it stalls.
    pub syncs: Arc<Syncs>,
}

/// Starts all duties.
pub fn spawn(node: &Arc<Node>, config: &NodeConfig, inputs: Inputs) {
    let tasks = node.tasks();
    let Inputs { reads, changes, growth, log, room, syncs } = inputs;
    let (this, stop, data) = (node.clone(), tasks.stopping(), config.data.clone());
    tasks.spawn("raft", async move { follow(&this, &data, stop).await });
    let (this, stop) = (node.clone(), tasks.stopping());
    tasks.spawn("pulse", async move {
        pulse::run(&this, stop.clone()).await;
        // Why replication ended is told by whoever follows it.
        stop.cancelled().await;
        Ok(())
    });
    let (this, stop) = (node.clone(), tasks.stopping());
    tasks.spawn("read rounds", async move {
        let rounds = reads::run(reads, || this.ask_read_index());
        tokio::select! { () = rounds => anyhow::bail!("nobody can read any more"), () = stop.cancelled() => Ok(()) }
    });
    let (this, stop) = (node.clone(), tasks.stopping());
    tasks.spawn("forwarding", async move {
        let forwarding = forward::run(&this, changes);
        tokio::select! { () = forwarding => anyhow::bail!("nobody can forward any more"), () = stop.cancelled() => Ok(()) }
    });
    let (this, stop) = (node.clone(), tasks.stopping());
    tasks.spawn("log compaction", async move {
        tokio::select! { done = compact(&this, &growth, &log) => done, () = stop.cancelled() => Ok(()) }
    });
    let (this, stop) = (node.clone(), tasks.stopping());
    tasks.run("disk space", async move {
        tokio::select! { () = raise_alarm(&this, room) => {}, () = stop.cancelled() => {} }
    });
    let (this, stop) = (node.clone(), tasks.stopping());
    tasks.run("wake watchers", async move {
        tokio::select! { () = this.shared.hub().wake() => {}, () = stop.cancelled() => {} }
    });
    let (this, stop, limit) = (node.clone(), tasks.stopping(), stall::limit(config.election_millis));
    tasks.run("disk stalls", async move {
        tokio::select! { () = watch_disk(&this, &syncs, limit) => {}, () = stop.cancelled() => {} }
    });
    let (this, stop) = (node.clone(), tasks.stopping());
    let (name, urls) = (config.name.clone(), config.client_urls.clone());
    tasks.run("publish", async move {
        tokio::select! { () = publish(&this, name, urls) => {}, () = stop.cancelled() => {} }
    });
}

/// Follows who leads and who is a member, until the member stops or cannot go on.
async fn follow(node: &Node, data: &Path, stop: CancellationToken) -> anyhow::Result<()> {
    let mut server = node.raft.server_metrics();
    let mut was_member = false;
    loop {
        let left;
        {
            let now = server.borrow_and_update();
            let leader = now.current_leader.unwrap_or(0);
            let is_me = leader == node.identity.member;
            let leadership = Leadership { leader, term: now.vote.leader_id.term, is_me };
            let members = members(&now.membership_config);
            let ids: BTreeSet<u64> = members.iter().map(|member| member.id).collect();
            node.members.send_if_modified(|known| {
                if *known == members {
                    return false;
                }
                let gone = known.iter().map(|member| member.id).filter(|id| !ids.contains(id));
                node.removed.lock().extend(gone);
                *known = members;
                true
            });
            let is_member = now.committed_membership_config.get_node(&node.identity.member).is_some();
            left = was_member && !is_member;
            was_member |= is_member;
            node.leadership.send_if_modified(|known| std::mem::replace(known, leadership) != leadership);
        }
        if left {
            return leave(node, data).await;
        }
        tokio::select! {
            changed = server.changed() => if changed.is_err() {
                let state = node.raft.metrics().borrow_watched().running_state.clone();
                anyhow::bail!("replication ended: {}", state.err().map_or_else(|| "no reason".to_owned(), |error| error.to_string()));
            },
            () = node.peers.removed() => return leave(node, data).await,
            () = stop.cancelled() => {
                hand_over(node).await;
                // What it has not finished by now is finished after the next start.
                let _ = node.raft.shutdown().await;
                return Ok(());
            }
        }
    }
}

/// Ends a member that was removed, for good.
async fn leave(node: &Node, data: &Path) -> anyhow::Result<()> {
    // A leader that removed itself still has to tell the others, and whoever asked for it.
    clock::sleep(LEAVE_AFTER).await;
    Identity { removed: true, ..node.identity }.save(data)?;
    anyhow::bail!("{}", serve::REMOVED)
}

/// Watches the disk of a member for as long as it leads: a follower whose disk stalls has nothing to give up.
async fn watch_disk(node: &Node, syncs: &Syncs, limit: Duration) {
    let mut leadership = node.leadership.subscribe();
    while leadership.wait_for(|now| now.is_me).await.is_ok() {
        tokio::select! {
            () = stall::watch(syncs, limit, |taken| give_up(node, taken)) => {}
            _ = leadership.wait_for(|now| !now.is_me) => {}
        }
    }
}

/// A leader whose disk stalls lets another lead. Alone it has nobody to hand over to.
async fn give_up(node: &Node, stalled: Duration) {
    if node.leadership.borrow().is_me {
        tracing::warn!(?stalled, "the disk of the log stalls; handing leadership over");
        hand_over(node).await;
    }
}

/// A leader that stops makes the member that is furthest lead, so that nobody waits for an election.
async fn hand_over(node: &Node) {
    let me = node.identity.member;
    let best = {
        let metrics = node.raft.metrics();
        let metrics = metrics.borrow_watched();
        let Some(replication) = &metrics.replication else { return };
        let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().filter(|id| *id != me).collect();
        let others = replication.iter().filter(|(id, _)| voters.contains(id));
        others.max_by_key(|(_, has)| has.map(|id| id.index)).map(|(id, _)| *id)
    };
    let Some(best) = best else { return };
    let mut server = node.raft.server_metrics();
    let handed = async {
        if node.raft.trigger().transfer_leader(best).await.is_err() {
            return;
        }
        while server.borrow_and_update().current_leader == Some(me) && server.changed().await.is_ok() {}
    };
    // An election follows otherwise.
    let _ = clock::timeout(HAND_OVER_MAX, handed).await;
}

/// The members of a membership, by id.
fn members(membership: &StoredMembership) -> Vec<Member> {
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let member = |(id, peer): (&u64, &Peer)| Member {
        id: *id,
        name: peer.name.clone(),
        peer_urls: peer.peer_urls.clone(),
        client_urls: peer.client_urls.clone(),
        is_learner: !voters.contains(id),
    };
    membership.nodes().map(member).collect()
}

/// Keeps the log small, whatever the size of its entries: openraft counts only their number.
async fn compact(node: &Node, growth: &Growth, log: &Log) -> anyhow::Result<()> {
    loop {
        growth.due().await;
        let mut metrics = node.raft.metrics();
        let before = metrics.borrow_watched().snapshot;
        node.raft.trigger().snapshot().await?;
        // Another snapshot was made, by this trigger or by the number of entries.
        while metrics.borrow_and_update().snapshot == before {
            metrics.changed().await?;
        }
        if let Some(index) = log.index_before_last(LOG_BYTES) {
            node.raft.trigger().purge_log(index).await?;
        }
    }
}

/// Makes the cluster take no more data while this member's disk is full. Taking the alarm back is up to people, as in etcd;
/// it is raised again when there still is no room.
async fn raise_alarm(node: &Node, mut room: watch::Receiver<bool>) {
    let (me, nospace) = (node.identity.member, i32::from(AlarmType::Nospace));
    let alarm = AlarmRequest { action: AlarmAction::Activate.into(), member_id: me, alarm: nospace };
    loop {
        let is_full = !*room.borrow_and_update();
        let stands = node.shared.machine().alarms().any(|raised| raised == (me, nospace));
        if is_full && !stands {
            match node.commit(Op::Alarm(alarm)).await {
                Ok(_) => tracing::error!("the disk is full: the cluster takes no more data"),
                Err(error) => {
                    tracing::warn!(%error, "cannot raise the alarm for the full disk yet");
                    clock::sleep(ALARM_PAUSE).await;
                    continue;
                }
            }
        }
        if room.changed().await.is_err() {
            return;
        }
    }
}

/// Tells the cluster this member's name and where clients reach it, once it differs from what the cluster knows.
async fn publish(node: &Node, name: String, client_urls: Vec<String>) {
    let mut known = node.members.subscribe();
    let me = node.identity.member;
    loop {
        let knows = known.wait_for(|members| members.iter().any(|member| member.id == me)).await;
        let Ok(knows) = knows.map(|members| {
            members
                .iter()
                .any(|member| member.id == me && member.name == name && member.client_urls == client_urls)
        }) else {
            return;
        };
        if knows {
            return;
        }
        let member = wire::Member {
            id: me,
            name: name.clone(),
            client_urls: client_urls.clone(),
            ..wire::Member::default()
        };
        match node.ask(What::Publish(member), true).await {
            Ok(_) => return,
            Err(error) => tracing::debug!(%error, "name and client URLs are not published yet"),
        }
        clock::sleep(PUBLISH_PAUSE).await;
    }
}
