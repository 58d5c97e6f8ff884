//! Locks and elections: first come, first served, and whoever goes away makes way.

use super::*;
use coracle_etcd::proto::ResponseHeader;
use coracle_etcd::proto::v3electionpb::election_client::ElectionClient;
use coracle_etcd::proto::v3electionpb::{
    CampaignRequest, LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest,
};
use coracle_etcd::proto::v3lockpb::lock_client::LockClient;
use coracle_etcd::proto::v3lockpb::{LockRequest, UnlockRequest};

fn lock(lease: i64) -> LockRequest {
    LockRequest { name: "l".into(), lease }
}

/// Drives `waiting` until its `key` stands in the queue. Who has its turn too soon is found by the revision of the answer.
async fn queued<T: std::fmt::Debug>(member: &Member, key: &'static str, waiting: impl Future<Output = T>) {
    let stands = async {
        while member.keys(get(key, "")).await.is_empty() {
            clock::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        biased;
        early = waiting => panic!("it is held, and yet: {early:?}"),
        stands = clock::timeout(WAIT_MAX, stands) => stands.expect("queues in time"),
    }
}

fn revision(header: Option<ResponseHeader>) -> i64 {
    header.expect("a header").revision
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_goes_to_who_came_first_and_then_to_who_still_waits() {
    let member = Member::start(&[]).await;
    for lease in [1, 2, 3] {
        member.grant(lease, 100).await;
    }
    let locks = || LockClient::new(member.channel.clone());
    let held = locks().lock(lock(1)).await.expect("locks").into_inner();
    assert_eq!((held.key.as_ref(), held.header.expect("a header").revision), (&b"l/1"[..], 2));
    let again = locks().lock(lock(1)).await.expect("has it already").into_inner();
    assert_eq!(again.key, held.key);
    {
        // The second gives up; the third waits for the first alone then.
        let mut second = locks();
        let mut second = std::pin::pin!(second.lock(lock(2)));
        queued(&member, "l/2", second.as_mut()).await;
    }
    let mut third = locks();
    let mut third = std::pin::pin!(third.lock(lock(3)));
    queued(&member, "l/3", third.as_mut()).await;
    let left = async {
        while member.keys(get("l/", "l0")).await != ["l/1", "l/3"] {
            clock::sleep(Duration::from_millis(5)).await;
        }
    };
    clock::timeout(WAIT_MAX, left).await.expect("who gave up stands no more");
    let unlock = UnlockRequest { key: held.key };
    let unlocked = locks().unlock(unlock).await.expect("unlocks").into_inner();
    let next = clock::timeout(WAIT_MAX, third).await.expect("in time").expect("locks").into_inner();
    assert_eq!(next.key.as_ref(), b"l/3");
    assert!(revision(next.header) >= revision(unlocked.header), "not before it was free");

    let own = locks().lock(LockRequest { name: "other".into(), lease: 0 }).await.expect("a lease of its own");
    assert!(own.into_inner().key.starts_with(b"other/"));
    let unknown = locks().lock(lock(99)).await.expect_err("no such lease");
    assert_eq!(
        (unknown.code(), unknown.message()),
        (Code::NotFound, "etcdserver: requested lease not found")
    );
    let nameless = locks().lock(LockRequest::default()).await.expect_err("no name");
    assert_eq!(nameless.code(), Code::InvalidArgument);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_whose_lease_ends_is_free() {
    let member = Member::start(&[]).await;
    member.grant(1, 100).await;
    member.grant(2, 100).await;
    let mut locks = LockClient::new(member.channel.clone());
    locks.lock(lock(1)).await.expect("locks");
    let mut waiter = LockClient::new(member.channel.clone());
    let mut waiting = std::pin::pin!(waiter.lock(lock(2)));
    queued(&member, "l/2", waiting.as_mut()).await;
    let mut leases = LeaseClient::new(member.channel.clone());
    let revoked = leases.lease_revoke(LeaseRevokeRequest { id: 1 }).await.expect("revokes").into_inner();
    let next = clock::timeout(WAIT_MAX, waiting).await.expect("in time").expect("locks").into_inner();
    assert!(revision(next.header) >= revision(revoked.header), "not before it was free");
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_elected_proclaim_are_observed_and_resign() {
    let member = Member::start(&[]).await;
    for lease in [1, 2] {
        member.grant(lease, 100).await;
    }
    let elections = || ElectionClient::new(member.channel.clone());
    let campaign =
        |lease, value: &'static str| CampaignRequest { name: "e".into(), lease, value: value.into() };
    let who = || LeaderRequest { name: "e".into() };
    refused(elections().leader(who()), Code::Unknown, "election: no leader").await;
    let mut observer = elections();
    let mut observed = observer.observe(who()).await.expect("observes").into_inner();
    let won = elections().campaign(campaign(1, "one")).await.expect("wins").into_inner();
    let leader = won.leader.expect("a key");
    assert_eq!((leader.key.as_ref(), leader.lease, leader.rev), (&b"e/1"[..], 1, 2));
    let mut told = async || {
        let told = clock::timeout(WAIT_MAX, observed.message()).await.expect("in time");
        told.expect("goes on").expect("has not ended").kv.expect("a leader").value
    };
    assert_eq!(told().await, "one");
    let other = elections().campaign(campaign(1, "uno")).await.expect("leads already").into_inner();
    assert_eq!(other.leader.as_ref(), Some(&leader));
    assert_eq!(told().await, "uno", "the new value is proclaimed");
    let proclaim = |leader: &LeaderKey, value: &'static str| ProclaimRequest {
        leader: Some(leader.clone()),
        value: value.into(),
    };
    elections().proclaim(proclaim(&leader, "eins")).await.expect("proclaims");
    assert_eq!(told().await, "eins");
    let mut second = elections();
    let mut second = std::pin::pin!(second.campaign(campaign(2, "two")));
    queued(&member, "e/2", second.as_mut()).await;
    let mut asked = elections();
    // As in etcd the answer tells the revision of the candidacy, not of the turn: the turn comes as a lock's does.
    tokio::select! {
        biased;
        early = second.as_mut() => panic!("another leads, and yet: {early:?}"),
        now = asked.leader(who()) => {
            assert_eq!(now.expect("tells").into_inner().kv.expect("a leader").value.as_ref(), b"eins");
        }
    }
    let resign = ResignRequest { leader: Some(leader.clone()) };
    elections().resign(resign.clone()).await.expect("resigns");
    clock::timeout(WAIT_MAX, second).await.expect("in time").expect("wins");
    assert_eq!(told().await, "two");
    let kv = elections().leader(who()).await.expect("tells").into_inner().kv.expect("a leader");
    assert_eq!(kv.key.as_ref(), b"e/2");
    refused(elections().proclaim(proclaim(&leader, "late")), Code::Unknown, "election: not leader").await;
    elections().resign(resign).await.expect("has nothing to resign");
    let missing = "\"leader\" field must be provided";
    refused(elections().resign(ResignRequest::default()), Code::InvalidArgument, missing).await;
    member.stop().await;
}
