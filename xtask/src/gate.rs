//! The gate: everything that must hold before a change lands, cheapest first.
//!
//! In: a filter, or none. Out: each step with its time, then one line `N passed, N failed` over all tests.
//! Every step runs, whatever the earlier ones said, so that one run tells all that is wrong.

use crate::cluster::target;
use crate::packages;
use crate::step::{asked, cargo, step, words};
use crate::tidy;
use anyhow::{Context, Result};
use clap::Args;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Profile of the program that the end-to-end tests run. `dev` spares the minutes of a release build, and keeps
/// overflow checks and debug assertions on; `--release` tests what users run.
const END_TO_END_PROFILE: &str = "dev";
/// The crate of end-to-end tests.
const END_TO_END: &str = "coracle-tests";

/// `cargo xtask test`
#[derive(Args)]
pub struct TestArgs {
    /// Run only tests whose name contains this, and no other checks.
    filter: Option<String>,
    /// Leave out the end-to-end tests.
    #[arg(long)]
    fast: bool,
    /// Run the end-to-end tests against a release build.
    #[arg(long)]
    release: bool,
}

/// Tests counted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    passed: u64,
    failed: u64,
}

impl Count {
    /// Adds what a line of a test program's output tells, if it is the one that does.
    fn heed(&mut self, line: &str) {
        let Some(told) = line.trim_start().strip_prefix("test result: ") else { return };
        for part in told.split(['.', ';']) {
            let mut words = part.split_whitespace();
            let (number, what) = (words.next().and_then(|word| word.parse::<u64>().ok()), words.next());
            match (number, what) {
                (Some(number), Some("passed")) => self.passed += number,
                (Some(number), Some("failed")) => self.failed += number,
                _ => {}
            }
        }
    }
}

/// What ran, how long, and what of it failed.
#[derive(Default)]
struct Gate {
    steps: Vec<(String, Option<Duration>)>,
    count: Count,
}

impl Gate {
    fn run(&mut self, what: &str, work: impl FnOnce(&mut Count) -> Result<()>) {
        let count = &mut self.count;
        let done = step(what, || work(count));
        if let Err(error) = &done {
            eprintln!("{what}: {error:#}");
        }
        self.steps.push((what.to_owned(), done.ok()));
    }

    /// Tells all, the count last; fails if anything did.
    fn tell(&self) -> Result<()> {
        println!();
        for (what, took) in &self.steps {
            match took {
                Some(took) => println!("{:>8.1} s  {what}", took.as_secs_f64()),
                None => println!("   FAILED   {what}"),
            }
        }
        println!("{} passed, {} failed", self.count.passed, self.count.failed);
        let failed: Vec<&str> =
            self.steps.iter().filter(|(_, took)| took.is_none()).map(|(what, _)| what.as_str()).collect();
        anyhow::ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
        Ok(())
    }
}

/// Runs the gate.
///
/// # Errors
/// A check or a test failed.
pub fn test(args: &TestArgs) -> Result<()> {
    packages::provide(packages::BUILD, &[packages::NODES, packages::TESTS].concat())?;
    anyhow::ensure!(
        args.fast || packages::on_path("kubectl"),
        "the end-to-end tests need kubectl 1.31 to 1.34 on the PATH: put it there, or leave them out with --fast"
    );
    let mut gate = Gate::default();
    let filter: Vec<&str> = args.filter.iter().map(String::as_str).collect();
    if filter.is_empty() {
        gate.run("tidy", |_| tidy::run());
        gate.run("fmt", |_| quiet(cargo(&["fmt", "--all", "--", "--check"])));
        gate.run("clippy", |_| {
            quiet(cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
        });
    }
    // Tests of the kubelet's containers run it as well, and leave themselves out where it is missing.
    gate.run("build of the program", |_| quiet(cargo(&["build", "--package", "coracle"])));
    gate.run("unit and integration tests", |count| {
        let tests = ["test", "--no-fail-fast", "--workspace", "--exclude", END_TO_END];
        counted(cargo(&[&tests, filter.as_slice()].concat()), count)
    });
    if !args.fast {
        let profile = if args.release { "release" } else { END_TO_END_PROFILE };
        if args.release {
            gate.run("release build", |_| quiet(cargo(&["build", "--package", "coracle", "--release"])));
        }
        gate.run("end-to-end tests", |count| {
            let mut tests = cargo(&[&["test", "--package", END_TO_END, "--"], filter.as_slice()].concat());
            // Cargo calls the dev profile's folder `debug`.
            let folder = if profile == "dev" { "debug" } else { profile };
            tests.env("CORACLE_PROGRAM", target().join(folder).join("coracle"));
            counted(tests, count)
        });
    }
    if filter.is_empty() {
        if asked(cargo(&["deny", "--version"])).is_some() {
            gate.run("deny", |_| {
                quiet(cargo(&["deny", "--offline", "check", "bans", "licenses", "sources"]))
            });
        } else {
            eprintln!("deny: left out, for cargo-deny is not installed");
        }
    }
    gate.tell()
}

fn quiet(command: Command) -> Result<()> {
    crate::step::run(command)
}

/// Runs tests, passes their output on, and counts.
fn counted(mut command: Command, count: &mut Count) -> Result<()> {
    let words = words(&command);
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run `{words}`"))?;
    let output = child.stdout.take().context("the tests have no output")?;
    for line in BufReader::new(output).split(b'\n') {
        let line = line.with_context(|| format!("cannot read the output of `{words}`"))?;
        let line = String::from_utf8_lossy(&line);
        count.heed(&line);
        println!("{line}");
    }
    let status = child.wait().with_context(|| format!("cannot wait for `{words}`"))?;
    anyhow::ensure!(status.success(), "`{words}` failed ({status})");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::program;

    #[test]
    fn results_of_all_test_programs_are_summed() {
        let mut count = Count::default();
        for line in [
            "running 3 tests",
            "test a ... ok",
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out; finished in 0.10s",
            "test result: FAILED. 4 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.00s",
            "the text test result: ok. 9 passed; in the middle of a line does not count",
        ] {
            count.heed(line);
        }
        assert_eq!(count, Count { passed: 7, failed: 2 });
    }

    #[test]
    fn tests_that_fail_are_counted_and_make_the_step_fail() {
        let mut count = Count::default();
        let says = "echo 'test result: FAILED. 1 passed; 2 failed; 0 ignored'; exit 101";
        counted(program("sh", &["-c", says]), &mut count).expect_err("exit 101");
        assert_eq!(count, Count { passed: 1, failed: 2 });
    }

    #[test]
    fn one_failed_step_fails_the_gate_and_the_later_ones_still_run() {
        let mut gate = Gate::default();
        gate.run("first", |_| anyhow::bail!("no"));
        gate.run("second", |_| Ok(()));
        assert_eq!(gate.steps.len(), 2);
        assert_eq!(gate.tell().expect_err("failed").to_string(), "failed: first");
    }
}
