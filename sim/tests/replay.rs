//! A seed of whole members plays the same way each time, down to the order of all requests and answers.

use std::process::Command;

fn played(flags: &[&str]) -> String {
    let played = Command::new(env!("CARGO_BIN_EXE_coracle-sim")).args(flags).output().expect("runs");
    let told = String::from_utf8_lossy(&played.stderr);
    assert!(played.status.success(), "{told}");
    String::from_utf8(played.stdout).expect("text")
}

/// The number that stands for everything that happened.
fn fingerprint(told: &str) -> &str {
    told.trim_end().rsplit_once('(').expect("a fingerprint").1
}

#[test]
fn a_seed_of_whole_members_plays_the_same_way_alone_and_after_others() {
    let alone = played(&["--only", "cluster", "--seed", "200"]);
    let again = played(&["--only", "cluster", "--seed", "200"]);
    let after = played(&["--only", "cluster", "--first", "199", "--seeds", "2"]);
    assert_eq!(fingerprint(&alone), fingerprint(&again));
    assert_eq!(fingerprint(&alone), fingerprint(&after));
}
