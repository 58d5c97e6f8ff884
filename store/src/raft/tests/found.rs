//! Members that go on alone after the others are lost.

use super::*;
use crate::machine::Machine;
use crate::raft::found::stand_alone;

#[test]
fn one_member_goes_on_alone_with_all_that_it_has_and_grows_again() {
    let mut cluster = Cluster::new(3, 1_000);
    let survivor = cluster.follower();
    for n in 0..20 {
        cluster.member(survivor).put(&format!("k{n}"), "before").expect("commits");
    }
    let revision = cluster.member(survivor).shared.machine().revision();
    for at in 0..3 {
        cluster.kill(at);
    }
    let alone = NodeConfig { alone: true, ..cluster.config(survivor) };
    let again = alone.clone();
    // The killed member's log is let go of when its last task has ended.
    eventually("the data is free", || stand_alone(&alone).ok());
    stand_alone(&again).expect("a second time changes nothing");

    cluster.start(survivor);
    let member = cluster.member(survivor);
    eventually("it leads", || (member.node.status().leader == member.node.member_id()).then_some(()));
    assert_eq!(member.get("k19").as_deref(), Some("before"));
    assert_eq!(member.shared.machine().revision(), revision);
    assert_eq!(member.node.members().len(), 1);
    member.put("after", "alone").expect("needs nobody else");
    cluster.kill(survivor);
    cluster.start(survivor);
    assert_eq!(cluster.member(survivor).get("after").as_deref(), Some("alone"), "it stays so");
}

#[test]
fn a_folder_without_data_makes_no_member_that_goes_on_alone() {
    let cluster = Cluster::new(1, 1_000);
    let folder = tempfile::tempdir().expect("folder");
    let data = folder.path().join("none");
    let config = NodeConfig { alone: true, wal: data.join("wal"), data, ..cluster.config(0) };
    let error = stand_alone(&config).expect_err("nothing is there").to_string();
    assert!(error.contains("where nothing is"), "{error}");
}

#[test]
fn three_members_restored_from_the_same_state_form_one_cluster() {
    let mut cluster = Cluster::new(3, 1_000);
    for at in 0..3 {
        cluster.kill(at);
    }
    let mut machine = Machine::new();
    let put = PutRequest { key: "k".into(), value: "restored".into(), ..PutRequest::default() };
    machine.apply(&crate::command::Command { proposed_at_millis: 0, op: Op::Put(put) }).expect("applies");
    for at in 0..3 {
        let config = cluster.config(at);
        let taken =
            crate::raft::restore(&config, &machine).expect_err("never over what is there").to_string();
        assert!(taken.contains("is there already"), "{taken}");
        eventually("the old data is gone", || std::fs::remove_dir_all(&config.data).ok());
        crate::raft::restore(&config, &machine).expect("restores");
        cluster.start(at);
    }
    let leader = cluster.leader();
    assert_eq!(cluster.member(leader).get("k").as_deref(), Some("restored"));
    cluster.member(leader).put("k", "changed").expect("commits");
    cluster.assert_equal();
}
