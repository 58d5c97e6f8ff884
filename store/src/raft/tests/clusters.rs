//! Clusters whose members die and come back.

use super::*;
use coracle_etcd::proto::LeaseRevokeRequest;

#[test]
fn one_member_commits_and_remembers() {
    let mut cluster = Cluster::new(1, 10_000);
    for number in 0..20 {
        let committed = cluster.member(0).put("k", &number.to_string()).expect("commits");
        assert!(matches!(committed.outcome, Outcome::Put(_)) && committed.term > 0 && committed.index > 0);
    }
    let hash = cluster.member(0).hash();
    cluster.kill(0);
    cluster.start(0);
    assert_eq!(cluster.member(0).get("k").as_deref(), Some("19"));
    assert_eq!(cluster.member(0).hash(), hash);
    let members = eventually("the member is published", || {
        let members = cluster.member(0).node.members();
        members.iter().all(|member| !member.client_urls.is_empty()).then_some(members)
    });
    assert_eq!((members.len(), members[0].name.as_str(), members[0].is_learner), (1, "m0", false));
}

#[test]
fn three_members_form_by_themselves_and_any_of_them_takes_requests() {
    let cluster = Cluster::new(3, 10_000);
    for at in 0..3 {
        cluster.member(at).put(&format!("k{at}"), "v").expect("commits");
    }
    for at in 0..3 {
        for key in 0..3 {
            assert_eq!(cluster.member(at).get(&format!("k{key}")).as_deref(), Some("v"));
        }
        let status = cluster.member(at).node.status();
        assert!(!status.is_learner && status.errors.is_empty() && status.disk_bytes > 0, "{status:?}");
    }
    cluster.assert_equal();
    eventually("all members are published", || {
        let known = cluster.member(2).node.members();
        (known.len() == 3 && known.iter().all(|member| !member.client_urls.is_empty())).then_some(())
    });
}

#[test]
fn a_leader_that_dies_is_replaced_and_rejoins_with_nothing_lost() {
    let mut cluster = Cluster::new(3, 10_000);
    let mut written = 0;
    for _ in 0..3 {
        for _ in 0..20 {
            let at = cluster.follower();
            cluster.member(at).put(&format!("k{written}"), "v").expect("commits");
            written += 1;
        }
        let leader = cluster.leader();
        cluster.kill(leader);
        let survivor = cluster.members.iter().position(Option::is_some).expect("survivors");
        // Whoever asks while there is no leader waits for the next one.
        eventually("a write with the next leader", || cluster.member(survivor).put("after", "v").ok());
        cluster.start(leader);
        assert_eq!(cluster.member(leader).get("after").as_deref(), Some("v"));
        cluster.assert_equal();
    }
    for key in 0..written {
        assert_eq!(cluster.member(0).get(&format!("k{key}")).as_deref(), Some("v"), "k{key}");
    }
}

#[test]
fn without_a_majority_nothing_is_acknowledged_and_with_it_everything_goes_on() {
    let mut cluster = Cluster::new(3, 10_000);
    cluster.member(0).put("k", "before").expect("commits");
    let leader = cluster.leader();
    let others: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
    for at in &others {
        cluster.kill(*at);
    }
    let refused = cluster.member(leader).put("k", "alone").expect_err("no majority");
    assert!(
        matches!(refused, StoreError::TimedOut | StoreError::NoLeader | StoreError::LeaderChanged),
        "{refused}"
    );
    let node = cluster.member(leader).node.clone();
    cluster.member(leader).run(async move { node.read_barrier().await }).expect_err("no majority");
    cluster.start(others[0]);
    eventually("a write with a majority", || cluster.member(leader).put("k", "after").ok());
    cluster.start(others[1]);
    assert_eq!(cluster.member(others[1]).get("k").as_deref(), Some("after"));
    cluster.assert_equal();
}

#[test]
fn a_member_that_was_away_for_long_gets_a_snapshot() {
    let mut cluster = Cluster::new(3, 40);
    let away = cluster.follower();
    cluster.member(away).put("early", "v").expect("commits");
    cluster.kill(away);
    let at = cluster.follower();
    for number in 0..400 {
        cluster.member(at).put(&format!("k{}", number % 50), &number.to_string()).expect("commits");
    }
    let grant = Op::LeaseGrant(LeaseGrantRequest { ttl: 600, id: 77 });
    let node = cluster.member(at).node.clone();
    cluster.member(at).run(async move { node.commit(grant).await }).expect("grants");
    let leader = cluster.member(cluster.leader()).node.clone();
    eventually("the log begins after what the member has", || {
        use openraft::async_runtime::WatchReceiver;
        let metrics = leader.raft().metrics();
        let purged = metrics.borrow_watched().purged.map_or(0, |id| id.index);
        (purged > 100).then_some(())
    });
    cluster.start(away);
    assert_eq!(cluster.member(away).get("early").as_deref(), Some("v"));
    assert_eq!(cluster.member(away).get("k49").as_deref(), Some("399"));
    assert_eq!(cluster.member(away).shared.machine().leases().count(), 1);
    cluster.assert_equal();
    // What it got is its own from now on.
    cluster.kill(away);
    cluster.start(away);
    assert_eq!(cluster.member(away).get("k49").as_deref(), Some("399"));
    cluster.assert_equal();
}

#[test]
fn restarts_begin_with_the_snapshot_and_go_on_with_the_log() {
    let mut cluster = Cluster::new(1, 25);
    for number in 0..90 {
        cluster.member(0).put(&format!("k{}", number % 7), &number.to_string()).expect("commits");
    }
    let compact = Op::Compact(CompactionRequest { revision: 50, physical: false });
    let node = cluster.member(0).node.clone();
    cluster.member(0).run(async move { node.commit(compact).await }).expect("compacts");
    let hash = cluster.member(0).hash();
    eventually("a snapshot is made", || has_snapshot(&cluster.data(0)).then_some(()));
    for _ in 0..2 {
        cluster.kill(0);
        cluster.start(0);
        assert_eq!(cluster.member(0).hash(), hash);
    }
}

fn has_snapshot(data: &Path) -> bool {
    let files = std::fs::read_dir(data.join("snapshots")).expect("the folder");
    files.flatten().any(|file| file.file_name().to_string_lossy().ends_with(".snap"))
}

#[test]
fn leases_are_renewed_by_the_leader_whoever_is_asked() {
    let cluster = Cluster::new(3, 10_000);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    // The task that ends leases does this in a real member.
    cluster.member(leader).shared.lessor().lead(Some(1));
    let node = cluster.member(follower).node.clone();
    cluster.member(follower).run(async move {
        node.commit(Op::LeaseGrant(LeaseGrantRequest { ttl: 60, id: 5 })).await.expect("grants");
        assert_eq!(node.renew_lease(5).await, Ok(60));
        assert!(node.lease_remaining(5).await.expect("lives") >= 58);
        assert_eq!(node.renew_lease(6).await, Err(StoreError::LeaseNotFound));
    });
}

#[test]
fn a_write_after_the_leader_died_takes_little_longer_than_the_election_timeout() {
    let mut cluster = Cluster::beating(3, 10_000, 50);
    let mut gaps = Vec::new();
    for round in 0..7 {
        let leader = cluster.leader();
        cluster.member(leader).put("k", "v").expect("commits");
        cluster.kill(leader);
        let began = Instant::now();
        let survivor = cluster.members.iter().position(Option::is_some).expect("survivors");
        eventually("a write with the next leader", || {
            cluster.member(survivor).put("k", &round.to_string()).ok()
        });
        gaps.push(began.elapsed());
        cluster.start(leader);
        cluster.member(leader).get("k");
    }
    gaps.sort();
    println!("gaps {gaps:?}");
    assert!(gaps[3] < Duration::from_millis(1500), "{gaps:?}");
}

#[test]
fn a_leader_that_is_stopped_hands_over_first() {
    let mut cluster = Cluster::new(3, 10_000);
    let leader = cluster.leader();
    cluster.member(leader).put("k", "v").expect("commits");
    cluster.stop(leader);
    let began = Instant::now();
    let survivor = cluster.members.iter().position(Option::is_some).expect("survivors");
    cluster.member(survivor).put("k", "w").expect("commits");
    // An election alone would take as long as the leader's lease and a timeout.
    assert!(began.elapsed() < Duration::from_millis(cluster.heartbeat_millis * 5), "{:?}", began.elapsed());
    cluster.start(leader);
    assert_eq!(cluster.member(leader).get("k").as_deref(), Some("w"));
    cluster.assert_equal();
}

#[test]
fn a_restart_begins_where_the_image_is() {
    let mut cluster = Cluster::new(1, 10_000);
    for number in 0..50 {
        cluster.member(0).put(&format!("k{number}"), "v").expect("commits");
    }
    let hash = cluster.member(0).hash();
    cluster.stop(0);
    // The image is finished after the member has stopped.
    eventually("the image is whole", || {
        let copy = tempfile::tempdir().expect("folder");
        std::fs::copy(cluster.data(0).join("image/state.redb"), copy.path().join("state.redb")).ok()?;
        let mut image = crate::image::RedbImage::new(copy.path());
        let (machine, _) = crate::image::Image::load(&mut image).ok()??;
        (machine.hash_kv(0) == hash).then_some(())
    });
    cluster.start(0);
    assert_eq!(cluster.member(0).hash(), hash);
    cluster.member(0).put("more", "v").expect("commits");
    let hash = cluster.member(0).hash();
    // An image that is gone is made anew from the log.
    cluster.stop(0);
    std::fs::remove_dir_all(cluster.data(0).join("image")).expect("removes");
    cluster.start(0);
    assert_eq!(cluster.member(0).hash(), hash);
}

/// Sooner than a rare beat, whatever else the machine does.
const SOON: Duration = Duration::from_secs(4);

#[test]
fn a_member_that_comes_back_hears_a_leader_that_beats_rarely_at_once_and_does_not_depose_it() {
    let mut cluster = Cluster::new(3, 10_000);
    let leader = cluster.leader();
    cluster.member(leader).put("k", "v").expect("commits");
    let term = cluster.member(leader).node.status().term;
    let follower = cluster.follower();
    for _ in 0..3 {
        cluster.quiet();
        cluster.kill(follower);
        cluster.start(follower);
        let began = Instant::now();
        assert_eq!(cluster.leader(), leader);
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    }
    assert_eq!(cluster.member(leader).node.status().term, term);
}

#[test]
fn a_leader_that_stands_still_between_rare_beats_is_replaced_once_somebody_asks() {
    for asks_two in [false, true] {
        let cluster = Cluster::new(3, 10_000);
        eventually("it commits", || cluster.member(0).put("k", "v").ok());
        cluster.quiet();
        let leader = cluster.leader();
        let frozen = cluster.freeze(leader);
        let began = Instant::now();
        let followers: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
        if asks_two {
            // What was handed to it may be done or not, but the next one is.
            let _ = cluster.member(followers[0]).put("k", "w");
            cluster.member(followers[0]).put("k", "v").expect("commits");
        }
        assert_eq!(cluster.member(followers[1]).get("k").as_deref(), Some("v"));
        let limit = if asks_two { SOON + crate::raft::node::REQUEST_MAX } else { SOON };
        assert!(began.elapsed() < limit, "{:?}", began.elapsed());
        drop(frozen);
        assert_ne!(cluster.leader(), leader, "the next one leads");
        cluster.member(leader).put("k", "x").expect("commits");
        cluster.assert_equal();
    }
}

#[test]
fn a_leader_whose_lease_ran_out_between_rare_beats_still_takes_a_write_at_once() {
    use openraft::Instant as _;
    use openraft::async_runtime::WatchReceiver;
    let cluster = Cluster::new(3, 10_000);
    let leader = cluster.member(cluster.leader());
    leader.put("k", "v").expect("commits");
    eventually("the lease runs out", || {
        let answered = leader.node.raft().metrics().borrow_watched().last_quorum_acked?;
        (answered.elapsed() > Duration::from_millis(cluster.heartbeat_millis * 4)).then_some(())
    });
    let node = leader.node.clone();
    let put = Op::Put(PutRequest { key: "k".into(), value: "w".into(), ..PutRequest::default() });
    let proposed = leader.run(async move { node.propose_here(vec![put], None).await });
    assert!(proposed[0].is_ok(), "{proposed:?}");
}

#[test]
fn only_the_leader_that_counted_a_leases_time_may_end_it() {
    let cluster = Cluster::new(3, 10_000);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let node = cluster.member(leader).node.clone();
    let term = node.status().term;
    let others = cluster.member(follower).node.clone();
    cluster.member(leader).run(async move {
        node.commit(Op::LeaseGrant(LeaseGrantRequest { ttl: 60, id: 5 })).await.expect("grants");
        let revoke = || Op::LeaseRevoke(LeaseRevokeRequest { id: 5 });
        // A member that led before decided on what it counted then.
        assert_eq!(others.commit_in_term(revoke(), term).await, Err(StoreError::NotLeader));
        assert_eq!(node.commit_in_term(revoke(), term - 1).await, Err(StoreError::NotLeader));
        assert!(node.commit_in_term(revoke(), term).await.is_ok());
    });
}

#[test]
fn a_lease_whose_end_is_decided_is_not_renewed() {
    let cluster = Cluster::new(1, 10_000);
    let member = cluster.member(0);
    let node = member.node.clone();
    let grant = Op::LeaseGrant(LeaseGrantRequest { ttl: 60, id: 5 });
    member.run(async move { node.commit(grant).await }).expect("grants");
    member.shared.lessor().lead(Some(member.node.status().term));
    // What is decided is not done while somebody reads.
    let reading = member.shared.machine();
    let node = member.node.clone();
    let ending =
        member.runtime.spawn(async move { node.commit(Op::LeaseRevoke(LeaseRevokeRequest { id: 5 })).await });
    eventually("the end is decided", || {
        let status = member.node.status();
        (status.index > status.applied).then_some(())
    });
    let node = member.node.clone();
    let renewing = member.runtime.spawn(async move { node.renew_lease(5).await });
    // Rounds are asked for in turn: when this one is answered, that of the renewal is.
    let node = member.node.clone();
    member.run(async move { node.rounds.index().await }).expect("leads");
    drop(reading);
    assert_eq!(member.run(renewing).expect("runs"), Err(StoreError::LeaseNotFound));
    member.run(ending).expect("runs").expect("ends");
}
