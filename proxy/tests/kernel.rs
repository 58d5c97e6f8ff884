//! The scripts against the kernel: needs root and nft, in a network namespace of its own.

use proxy::nft;
use proxy::ruleset::{Front, Protocol, Ruleset, Target};
use std::net::Ipv4Addr;
use std::process::Command;

fn rules(endpoints: usize, affinity_seconds: u32) -> Ruleset {
    let mut rules = Ruleset::default();
    for front in [
        Front::Address(Ipv4Addr::new(10, 96, 0, 5), Protocol::Tcp, 80),
        Front::NodePort(Protocol::Udp, 30053),
    ] {
        rules.services.insert(front, Target { endpoints, affinity_seconds });
        rules.endpoints.extend((0..endpoints).map(|i| ((front, i), (Ipv4Addr::new(10, 244, 0, 9), 8080))));
    }
    rules.hairpins.insert(Ipv4Addr::new(10, 244, 0, 9));
    rules
}

/// Runs scripts one after another in a new network namespace and returns the table afterwards.
fn run(scripts: &[String]) -> Option<String> {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut shell = String::from("set -e\n");
    for (i, script) in scripts.iter().enumerate() {
        let file = dir.path().join(i.to_string());
        std::fs::write(&file, script).expect("written");
        shell.push_str(&format!("nft -f {}\n", file.display()));
    }
    shell.push_str("nft list table ip coracle-proxy");
    let output = Command::new("unshare").args(["--net", "sh", "-c", &shell]).output().ok()?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    if errors.contains("Operation not permitted") || errors.contains("not found") {
        eprintln!("skipped, for want of root or nft: {errors}");
        return None;
    }
    assert!(output.status.success(), "{errors}\n{}", scripts.join("\n---\n"));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn the_kernel_takes_a_load_and_every_kind_of_change() {
    let cluster = "10.244.0.0/16".parse().expect("a network");
    let steps = [rules(2, 0), rules(3, 0), rules(3, 600), rules(0, 0), Ruleset::default()];
    let mut scripts = vec![nft::load(&rules(1, 0), cluster)];
    let mut last = rules(1, 0);
    for step in steps {
        scripts.push(nft::change(&last, &step).expect("a change"));
        last = step;
    }
    let Some(table) = run(&scripts) else { return };
    assert!(!table.contains("elements"), "everything was removed: {table}");
    let Some(table) = run(&scripts[..2]) else { return };
    assert!(table.contains("10.96.0.5 . tcp . 80 : goto service-2"), "{table}");
}
