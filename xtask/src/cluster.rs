//! `up`, `down`, `status`, `kubeconfig`: the release build of the program, made if needed, with its flags passed through.
//! `bench` and `sim`: the tool crates, built with optimization.

use crate::packages;
use crate::step::{cargo, program, root, run, step};
use anyhow::{Context, Result};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

/// The program that people use.
fn coracle() -> PathBuf {
    target().join("release").join("coracle")
}

/// The folder that cargo builds into.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

fn build() -> Result<()> {
    run(cargo(&["build", "--release", "--package", "coracle"]))
}

/// Installs what is missing, builds, and becomes `coracle up`.
///
/// # Errors
/// What is missing cannot be installed, or the build fails.
pub fn up(flags: &[String]) -> Result<()> {
    step("Debian packages", || packages::provide(packages::BUILD, packages::NODES))?;
    step("building coracle (the first time takes minutes)", build)?;
    become_coracle("up", flags)
}

/// Becomes another command of the program, which is built first only if it never was.
///
/// # Errors
/// The build fails.
pub fn pass(command: &str, flags: &[String]) -> Result<()> {
    if !coracle().exists() {
        packages::provide(packages::BUILD, &[])?;
        step("building coracle (the first time takes minutes)", build)?;
    }
    become_coracle(command, flags)
}

fn become_coracle(command: &str, flags: &[String]) -> Result<()> {
    let path = coracle();
    let mut program = program(&path.to_string_lossy(), &[command]);
    // Flags may name files relative to where the user stands.
    program.args(flags).current_dir(std::env::current_dir().context("the current folder is gone")?);
    Err(program.exec()).with_context(|| format!("cannot run {}", path.display()))
}

/// Runs a tool crate: a benchmark or the simulation.
///
/// # Errors
/// The build or the tool fails.
pub fn tool(package: &str, flags: &[String]) -> Result<()> {
    let needed: &[&'static str] = if package == "coracle-bench" { packages::TESTS } else { &[] };
    packages::provide(packages::BUILD, needed)?;
    if package == "coracle-bench" {
        step("building coracle", build)?;
    }
    let mut command = cargo(&["run", "--quiet", "--release", "--package", package, "--"]);
    command.args(flags).env("CORACLE_PROGRAM", coracle());
    run(command)
}
