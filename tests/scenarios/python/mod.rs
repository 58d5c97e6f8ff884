//! The Python client, as Debian has it.

use anyhow::{Result, ensure};
use coracle_tests::Cluster;
use std::path::Path;
use std::process::{Command, Stdio};

/// Typed, dynamic and custom objects, watches, patches, pages.
pub fn objects(cluster: &Cluster) -> Result<()> {
    run(cluster, "objects")
}

/// Logs of a container, and commands in it.
pub fn containers(cluster: &Cluster) -> Result<()> {
    run(cluster, "containers")
}

fn run(cluster: &Cluster, what: &str) -> Result<()> {
    if !there() {
        eprintln!("SKIPPED: the Python client, for Debian's python3-kubernetes is not installed");
        return Ok(());
    }
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/python/client.py");
    let told = cluster.python(&program, what)?.ok()?;
    ensure!(told.ends_with("done\n"), "{told}");
    Ok(())
}

fn there() -> bool {
    let mut asks = Command::new("/usr/bin/python3");
    asks.args(["-c", "import kubernetes"]).stdin(Stdio::null()).stderr(Stdio::null());
    asks.status().is_ok_and(|status| status.success())
}
