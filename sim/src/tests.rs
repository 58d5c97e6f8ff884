//! The simulation itself: seeds hold, and play the same way each time.

use crate::cluster;
use crate::dice::Dice;
use crate::disk::SimDisk;
use crate::invariants;
use crate::schedule::{Summary, play, play_to_the_end};
use crate::world::World;
use coracle_etcd::proto::PutRequest;
use std::path::Path;
use store::command::{Command, Op};
use store::wal::Disk;

#[test]
fn every_property_holds_over_many_seeds() {
    let mut total = Summary::default();
    for seed in 0..60 {
        match play(seed, 300, false) {
            Ok(summary) => total += summary,
            Err(violation) => panic!("{violation}"),
        }
    }
    // A simulation in which nothing happens proves nothing.
    assert!(total.decided > 3000 && total.power_cuts > 300, "{total}");
    assert!(total.snapshots > 100 && total.events_told > 1000, "{total}");
}

#[test]
fn whole_members_keep_every_promise_over_many_seeds() {
    let mut total = cluster::Summary::default();
    for seed in 0..12 {
        match cluster::play(seed, false) {
            Ok(summary) => total += summary,
            Err(violation) => panic!("{violation}"),
        }
    }
    // A simulation in which nothing happens proves nothing.
    assert!(total.answered > 5000 && total.kills > 50 && total.cuts > 20, "{total}");
    assert!(total.terms > 30 && total.pauses > 10 && total.lease_ends > 50, "{total}");
}

#[test]
fn a_seed_plays_the_same_way_each_time() {
    for seed in 100..105 {
        let (first, second) =
            (play(seed, 300, false).expect("holds"), play(seed, 300, false).expect("holds"));
        assert_eq!(first, second);
    }
    assert_ne!(play(1, 300, false).expect("holds"), play(2, 300, false).expect("holds"));
}

/// Whoever changes what a planted bug changes has to plant it anew.
#[test]
fn planted_bugs_are_about_the_code_as_it_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    let mut planted = 0;
    for patch in std::fs::read_dir(root.join("sim/planted")).expect("is there") {
        let patch = std::fs::read_to_string(patch.expect("is there").path()).expect("reads");
        let file = patch.lines().find_map(|line| line.strip_prefix("--- a/")).expect("a file");
        let before: String = patch
            .lines()
            .skip_while(|line| !line.starts_with("@@"))
            .filter_map(|line| line.strip_prefix(' ').or_else(|| line.strip_prefix('-')))
            .map(|line| format!("{line}\n"))
            .collect();
        let code = std::fs::read_to_string(root.join(file)).expect("reads");
        assert!(code.contains(&before), "{file} has not\n{before}");
        planted += 1;
    }
    assert_eq!(planted, 5);
}

#[test]
fn a_disk_without_power_keeps_what_was_synced_and_tears_the_rest() {
    let disk = SimDisk::new(Dice::new(1));
    let mut file = disk.create("a", 8192).expect("create");
    file.write_at(0, &[1; 4096]).expect("write");
    file.sync().expect("sync");
    file.write_at(4096, &[2; 4096]).expect("write");
    disk.cut_after(0);
    file.sync().expect_err("no power");
    file.write_at(0, &[3; 4]).expect_err("no power");
    disk.power_on();
    let bytes = disk.open("a").expect("open").read_all().expect("read");
    assert!(bytes[..4096].iter().all(|byte| *byte == 1));
    let kept = bytes[4096..].iter().filter(|byte| **byte == 2).count();
    assert!(kept > 0 && kept < 4096 && kept % 512 == 0, "{kept}");
}

/// What the invariants say of a healed world after somebody meddled with it.
fn complaint(meddle: impl Fn(&mut World)) -> String {
    let (mut world, _) = play_to_the_end(7, 300, false).expect("holds");
    let mut dice = Dice::new(0);
    invariants::check_healed(&world, &mut dice).expect("nothing is wrong yet");
    meddle(&mut world);
    // Reads are drawn: often enough, every key is among them.
    (0..200).find_map(|_| invariants::check_healed(&world, &mut dice).err()).expect("something is wrong now")
}

#[test]
fn an_event_that_is_lost_told_twice_or_out_of_order_is_found() {
    let told = |world: &World| world.watchers.iter().position(|watcher| watcher.seen.len() > 3).expect("one");
    for meddle in [
        |seen: &mut Vec<crate::oracle::Event>| drop(seen.remove(1)),
        |seen: &mut Vec<crate::oracle::Event>| seen.insert(1, seen[1].clone()),
        |seen: &mut Vec<crate::oracle::Event>| seen.swap(1, 2),
    ] {
        let complaint = complaint(|world| {
            let watcher = told(world);
            meddle(&mut world.watchers[watcher].seen);
        });
        assert!(complaint.contains("a watcher of"), "{complaint}");
    }
}

#[test]
fn a_member_that_went_its_own_way_is_found() {
    let put = PutRequest { key: "/k/00".into(), value: "astray".into(), ..PutRequest::default() };
    let command = Command { proposed_at_millis: 0, op: Op::Put(put) };
    let one = complaint(|world| {
        let running = world.members[1].running.as_mut().expect("up");
        running.machine.apply(&command).expect("applies");
    });
    assert!(one.contains("have both applied"), "{one}");
    let all = complaint(|world| {
        for member in &mut world.members {
            member.running.as_mut().expect("up").machine.apply(&command).expect("applies");
        }
    });
    assert!(all.contains("answers") || all.contains("is at revision"), "{all}");
}

#[test]
fn a_log_that_forgot_what_it_acknowledged_is_found() {
    let (mut world, _) = play_to_the_end(7, 300, false).expect("holds");
    let member = &mut world.members[0];
    let mut opened = member.promised.clone();
    invariants::acknowledged_write_kept(member, &opened).expect("nothing is lost");
    assert!(opened.entries.pop_back().is_some());
    invariants::acknowledged_write_kept(member, &opened).expect_err("an entry is lost");
}
