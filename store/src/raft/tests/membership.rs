//! Members that come and go, and strangers.

use super::*;
use crate::raft::pulse::{Pulse, Timing};

#[test]
fn members_are_added_promoted_and_removed() {
    let mut cluster = Cluster::new(1, 10_000);
    cluster.member(0).put("k", "v").expect("commits");
    eventually("the member is published", || {
        cluster.member(0).node.members().iter().all(|member| !member.client_urls.is_empty()).then_some(())
    });
    let node = |cluster: &Cluster| cluster.member(0).node.clone();
    for at in 1..3 {
        cluster.ports.push(NEXT_PORT.fetch_add(1, Ordering::Relaxed));
        cluster.members.push(None);
        let urls = vec![url(cluster.ports[at])];
        let (adder, again) = (node(&cluster), urls.clone());
        let added = cluster.member(0).run(async move { adder.add_member(urls, true).await }).expect("adds");
        assert!(added.is_learner);
        let adder = node(&cluster);
        let refused = cluster.member(0).run(async move { adder.add_member(again, true).await });
        assert_eq!(refused.expect_err("twice"), StoreError::PeerUrlExists);
        cluster.start(at);
        assert_eq!(cluster.member(at).node.member_id(), added.id);
        assert_eq!(cluster.member(at).get("k").as_deref(), Some("v"));
        assert!(cluster.member(at).node.status().is_learner);
        eventually("the learner is promoted", || {
            let promoter = node(&cluster);
            cluster.member(0).run(async move { promoter.promote_member(added.id).await }).ok()
        });
        let promoter = node(&cluster);
        let refused = cluster.member(0).run(async move { promoter.promote_member(added.id).await });
        assert_eq!(refused.expect_err("a voter"), StoreError::NotLearner);
    }
    // Three voters: one may die.
    cluster.kill(0);
    eventually("a write without the first member", || cluster.member(1).put("k", "w").ok());
    cluster.start(0);
    assert_eq!(cluster.member(0).get("k").as_deref(), Some("w"));
    let gone = cluster.member(2).node.member_id();
    let remover = node(&cluster);
    cluster.member(0).run(async move { remover.remove_member(gone).await }).expect("removes");
    eventually("two members are left", || (cluster.member(0).node.members().len() == 2).then_some(()));
    let tasks = cluster.member(2).node.tasks().clone();
    let death = cluster.member(2).run(async move { tasks.first_death().await });
    assert_eq!(death.error.to_string(), crate::raft::serve::REMOVED);
    cluster.kill(2);
    let refused = eventually("the folder is free", || match cluster.try_start(2) {
        Err(error) if error.contains("another process") || error.contains("in use") => None,
        other => Some(other.map(drop)),
    });
    let refused = refused.expect_err("removed for good");
    assert!(refused.contains("Removed"), "{refused}");
    cluster.member(1).put("k", "x").expect("commits");
    let remover = node(&cluster);
    let refused = cluster.member(0).run(async move { remover.remove_member(gone).await });
    assert_eq!(refused.expect_err("gone"), StoreError::MemberNotFound);
}

#[test]
fn a_learner_that_comes_back_hears_a_leader_that_beats_rarely_at_once() {
    let mut cluster = Cluster::new(3, 10_000);
    cluster.ports.push(NEXT_PORT.fetch_add(1, Ordering::Relaxed));
    cluster.members.push(None);
    let urls = vec![url(cluster.ports[3])];
    eventually("the learner is added", || {
        let (adder, urls) = (cluster.member(0).node.clone(), urls.clone());
        cluster.member(0).run(async move { adder.add_member(urls, true).await }).ok()
    });
    cluster.start(3);
    eventually("it commits", || cluster.member(3).put("k", "v").ok());
    cluster.quiet();
    cluster.kill(3);
    cluster.start(3);
    let began = Instant::now();
    assert_eq!(cluster.member(3).get("k").as_deref(), Some("v"));
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[test]
fn leadership_is_handed_over_when_asked() {
    let cluster = Cluster::new(3, 10_000);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let to = cluster.member(follower).node.member_id();
    let node = cluster.member(follower).node.clone();
    let refused = cluster.member(follower).run(async move { node.transfer_leader(to).await });
    assert_eq!(refused, Err(StoreError::NotLeader));
    let node = cluster.member(leader).node.clone();
    let refused = cluster.member(leader).run(async move { node.transfer_leader(1).await });
    assert_eq!(refused, Err(StoreError::BadLeaderTransferee));
    let node = cluster.member(leader).node.clone();
    cluster.member(leader).run(async move { node.transfer_leader(to).await }).expect("moves");
    assert_eq!(cluster.leader(), follower);
    cluster.member(leader).put("k", "v").expect("commits");
}

#[test]
fn members_of_another_cluster_are_refused() {
    let cluster = Cluster::new(1, 10_000);
    cluster.member(0).put("k", "v").expect("commits");
    let timing = Timing { heartbeat: Duration::from_millis(50), lease: Duration::from_millis(150) };
    let pace = crate::raft::pace::Pace::new(tokio::sync::watch::channel(0).1);
    let peers = crate::raft::peers::Peers::new(1, 2, None, Arc::new(Pulse::new(timing)), pace, None);
    let peer = crate::raft::types::Peer {
        peer_urls: vec![url(cluster.ports[0])],
        ..crate::raft::types::Peer::default()
    };
    let id = cluster.member(0).node.member_id();
    let refused = cluster.member(0).run(async move {
        let mut client = peers.client(id, &peer, false).expect("a client");
        client.vote(crate::raft::wire::VoteRequest::default()).await.expect_err("refused")
    });
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    assert_eq!(refused.message(), "etcdserver: cluster ID mismatch");
    assert_eq!(cluster.member(0).node.metrics().peers_refused.get(), 1);
    let stranger = NodeConfig { joins: true, peer_urls: vec![url(1)], ..cluster.config(0) };
    let stranger = NodeConfig { name: "stranger".to_owned(), ..stranger };
    let refused = cluster.member(0).run(async move { identity::join(&stranger, None).await });
    assert!(matches!(refused, Err(crate::raft::StartError::NotAMember { .. })), "{refused:?}");
}
