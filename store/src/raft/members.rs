//! Changes of the membership, on the leader, with etcd's checks and refusals.

use super::identity::member_id;
use super::node::{Node, REQUEST_MAX};
use super::types::{Peer, Types};
use crate::consensus::{Consensus, Member};
use crate::error::StoreError;
use coracle_daemon::clock;
use openraft::ChangeMembers;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use std::collections::{BTreeMap, BTreeSet};

/// Learners that a cluster may have at once, as in etcd.
const LEARNERS_MAX: usize = 1;
/// A learner that has less of the log than this share of it, in percent, does not get a vote.
const READY_PERCENT: u64 = 90;

type Change = ChangeMembers<u64, Peer>;

/// Whether `url` can be a peer URL, by etcd's rules: a scheme, a host and a port, and no path.
fn is_peer_url(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")) else {
        return false;
    };
    rest.rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok())
}

fn check_urls(urls: &[String], members: &[Member], but: Option<u64>) -> Result<(), StoreError> {
    if urls.is_empty() || !urls.iter().all(|url| is_peer_url(url)) {
        return Err(StoreError::BadMemberUrls);
    }
    let taken = members.iter().filter(|member| Some(member.id) != but).flat_map(|member| &member.peer_urls);
    if taken.into_iter().any(|taken| urls.contains(taken)) {
        return Err(StoreError::PeerUrlExists);
    }
    Ok(())
}

/// Whether enough voters have started to decide anything after one more joins, or after `gone` leaves.
fn check_started(members: &[Member], gone: Option<u64>) -> Result<(), StoreError> {
    let voters = members.iter().filter(|member| !member.is_learner && Some(member.id) != gone);
    let (mut all, mut started) = (usize::from(gone.is_none()), 0);
    for member in voters {
        all += 1;
        // A member tells its client URLs when it starts.
        started += usize::from(!member.client_urls.is_empty());
    }
    // One may become two: the second can start only once it is a member.
    let first = gone.is_none() && all == 2 && started == 1;
    if first || started > all / 2 { Ok(()) } else { Err(StoreError::NotEnoughStartedMembers) }
}

impl Node {
    async fn change(&self, change: Change, retain: bool) -> Result<(), StoreError> {
        let changed = tokio::time::timeout(REQUEST_MAX, self.raft().change_membership(change, retain)).await;
        match changed.map_err(|_| StoreError::TimedOut)? {
            Ok(_) => Ok(()),
            Err(error) => Err(refusal(error)),
        }
    }

    fn member(&self, id: u64) -> Result<Member, StoreError> {
        self.members().into_iter().find(|member| member.id == id).ok_or(StoreError::MemberNotFound)
    }

    /// On the leader: see [`Consensus::add_member`].
    pub(super) async fn add_here(
        &self,
        peer_urls: Vec<String>,
        is_learner: bool,
    ) -> Result<Member, StoreError> {
        let _one_at_a_time = self.membership_lock().await;
        let members = self.members();
        check_urls(&peer_urls, &members, None)?;
        if is_learner && members.iter().filter(|member| member.is_learner).count() >= LEARNERS_MAX {
            return Err(StoreError::TooManyLearners);
        }
        let id = member_id(&peer_urls, "", Some(clock::now().as_millisecond()));
        let peer = Peer { peer_urls: peer_urls.clone(), ..Peer::default() };
        let nodes = BTreeMap::from([(id, peer)]);
        if is_learner {
            self.change(Change::AddNodes(nodes), true).await?;
            // The next change is checked against the list.
            let mut known = self.watch_members();
            let listed = async {
                known.wait_for(|members| members.iter().any(|member| member.id == id)).await.map(drop)
            };
            let listed = tokio::time::timeout(REQUEST_MAX, listed).await;
            listed.map_err(|_| StoreError::TimedOut)?.map_err(|_| StoreError::Stopped)?;
        } else {
            check_started(&members, None)?;
            self.add_voter(id, nodes).await?;
        }
        Ok(Member { id, peer_urls, is_learner, ..Member::default() })
    }

    /// A new voter counts at once. Where the majority needs it, the change is complete only after it has started, which it
    /// does after this returns.
    async fn add_voter(&self, id: u64, nodes: BTreeMap<u64, Peer>) -> Result<(), StoreError> {
        let voters = self.members().iter().filter(|member| !member.is_learner).count();
        let raft = self.raft().clone();
        let change = async move { raft.change_membership(Change::AddVoters(nodes), true).await };
        if voters > 1 {
            let changed =
                tokio::time::timeout(REQUEST_MAX, change).await.map_err(|_| StoreError::TimedOut)?;
            return changed.map(drop).map_err(refusal);
        }
        let (ended, mut end) = tokio::sync::oneshot::channel();
        self.tasks().run("add a voter", async move {
            // Nobody waits once the member is in the list.
            let _ = ended.send(change.await.map(drop).map_err(refusal));
        });
        let mut known = self.watch_members();
        let listed = known.wait_for(|members| members.iter().any(|member| member.id == id));
        tokio::select! {
            listed = listed => listed.map(drop).map_err(|_| StoreError::Stopped),
            end = &mut end => end.map_err(|_| StoreError::Stopped)?,
        }
    }

    /// On the leader: see [`Consensus::remove_member`].
    pub(super) async fn remove_here(&self, id: u64) -> Result<(), StoreError> {
        let _one_at_a_time = self.membership_lock().await;
        let member = self.member(id)?;
        let ids = BTreeSet::from([id]);
        if member.is_learner {
            return self.change(Change::RemoveNodes(ids), false).await;
        }
        check_started(&self.members(), Some(id))?;
        self.change(Change::RemoveVoters(ids), false).await
    }

    /// On the leader: see [`Consensus::update_member`].
    pub(super) async fn update_here(&self, id: u64, peer_urls: Vec<String>) -> Result<(), StoreError> {
        let _one_at_a_time = self.membership_lock().await;
        let member = self.member(id)?;
        check_urls(&peer_urls, &self.members(), Some(id))?;
        let peer = Peer { name: member.name, peer_urls, client_urls: member.client_urls };
        self.change(Change::SetNodes(BTreeMap::from([(id, peer)])), true).await
    }

    /// On the leader: a member tells its name and where clients reach it.
    pub(super) async fn publish_here(&self, published: Member) -> Result<(), StoreError> {
        let _one_at_a_time = self.membership_lock().await;
        let member = self.member(published.id)?;
        let peer =
            Peer { name: published.name, peer_urls: member.peer_urls, client_urls: published.client_urls };
        self.change(Change::SetNodes(BTreeMap::from([(published.id, peer)])), true).await
    }

    /// On the leader: see [`Consensus::promote_member`].
    pub(super) async fn promote_here(&self, id: u64) -> Result<(), StoreError> {
        let _one_at_a_time = self.membership_lock().await;
        if !self.member(id)?.is_learner {
            return Err(StoreError::NotLearner);
        }
        let (has, last) = self.replicated(id).ok_or(StoreError::NotLeader)?;
        if has * 100 < last * READY_PERCENT {
            return Err(StoreError::LearnerNotReady);
        }
        self.change(Change::AddVoterIds(BTreeSet::from([id])), true).await
    }
}

/// What a failed change of the membership means for whoever asked.
fn refusal(error: RaftError<Types, ClientWriteError<Types>>) -> StoreError {
    match error {
        RaftError::Fatal(_) => StoreError::Stopped,
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => StoreError::NotLeader,
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => StoreError::LeaderChanged,
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => match error {
            ChangeMembershipError::LearnerNotFound(_) => StoreError::MemberNotFound,
            ChangeMembershipError::EmptyMembership(_) => StoreError::NotEnoughStartedMembers,
            // Another change is not complete.
            _ => StoreError::Unhealthy,
        },
        RaftError::APIError(ClientWriteError::PreconditionFailed(_)) => StoreError::Unhealthy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_would_stop_the_cluster_is_refused() {
        let members = |started: usize, all: usize| -> Vec<Member> {
            (0..all)
                .map(|at| Member {
                    id: at as u64 + 1,
                    client_urls: if at < started { vec!["http://c".to_owned()] } else { Vec::new() },
                    ..Member::default()
                })
                .collect()
        };
        for (started, all, gone, fine) in [
            (1, 1, None, true),
            (0, 1, None, false),
            (2, 2, None, true),
            (1, 2, None, false),
            (2, 3, None, false),
            (3, 3, None, true),
            (1, 1, Some(1), false),
            (3, 3, Some(3), true),
            (2, 3, Some(1), false),
            (2, 3, Some(3), true),
        ] {
            let checked = check_started(&members(started, all), gone);
            assert_eq!(checked.is_ok(), fine, "{started} of {all} started, without {gone:?}");
        }
    }

    #[test]
    fn peer_urls_are_checked_as_in_etcd() {
        for (url, good) in [
            ("http://10.0.0.1:2380", true),
            ("https://[::1]:2380", true),
            ("unix://x:1", false),
            ("http://10.0.0.1", false),
            ("http://:2380", false),
            ("http://a:2380/path", false),
            ("", false),
        ] {
            assert_eq!(is_peer_url(url), good, "{url}");
        }
        let known = [Member { id: 5, peer_urls: vec!["http://a:1".to_owned()], ..Member::default() }];
        let urls = |text: &str| vec![text.to_owned()];
        assert_eq!(check_urls(&urls("http://b:1"), &known, None), Ok(()));
        assert_eq!(check_urls(&urls("http://a:1"), &known, None), Err(StoreError::PeerUrlExists));
        assert_eq!(check_urls(&urls("http://a:1"), &known, Some(5)), Ok(()));
        assert_eq!(check_urls(&[], &known, None), Err(StoreError::BadMemberUrls));
    }
}
