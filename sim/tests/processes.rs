//! Real processes that are killed, stopped, and whose disk fills up. `CORACLE_ROUNDS=100` plays more rounds.

use std::process::Command;

#[test]
fn nothing_acknowledged_is_lost_and_the_history_is_linearizable_whatever_becomes_of_processes() {
    let rounds = std::env::var("CORACLE_ROUNDS").unwrap_or_else(|_| "8".to_owned());
    let played = Command::new(env!("CARGO_BIN_EXE_coracle-sim"))
        .args(["processes", "--rounds", &rounds])
        .output()
        .expect("runs");
    let told = String::from_utf8_lossy(&played.stderr);
    assert!(played.status.success(), "{told}");
}
