//! Running programs as steps that are told with their time.
//!
//! In: a program with arguments. Out: its output as it comes, and an error that names the command if it fails.
//! Nothing here reads standard input: every step also works where there is none.

use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Variables that cargo sets for the program it runs. A cargo below this one must not see them: some build scripts
/// watch them, and would have their crates built again.
const CARGO_RUN_VARIABLES: [&str; 4] =
    ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_BIN_NAME", "CARGO_CRATE_NAME"];

/// The folder of the workspace.
pub fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map_or(here.clone(), PathBuf::from)
}

/// A program in the workspace's folder, without standard input.
pub fn program(name: &str, words: &[&str]) -> Command {
    let mut command = Command::new(name);
    command.args(words).current_dir(root()).stdin(Stdio::null());
    for (variable, _) in std::env::vars_os() {
        let name = variable.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || CARGO_RUN_VARIABLES.contains(&name.as_ref()) {
            command.env_remove(&variable);
        }
    }
    command
}

/// The cargo that runs us.
pub fn cargo(words: &[&str]) -> Command {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    program(&cargo, words)
}

/// Runs a program to its end.
///
/// # Errors
/// It cannot be started, or does not end with 0.
pub fn run(mut command: Command) -> Result<()> {
    let words = words(&command);
    let status = command.status().with_context(|| format!("cannot run `{words}`"))?;
    anyhow::ensure!(status.success(), "`{words}` failed ({status})");
    Ok(())
}

/// Runs a program and returns what it says, or `None` where it fails or does not exist.
pub fn asked(mut command: Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A command as a person would type it.
pub fn words(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    let program = program.rsplit('/').next().unwrap_or_default().to_owned();
    let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
    std::iter::once(program).chain(words).collect::<Vec<_>>().join(" ")
}

/// Tells a step's begin and end, with its time, on standard error.
///
/// # Errors
/// Those of the step.
pub fn step(what: &str, work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    eprintln!("==> {what}");
    let began = Instant::now();
    let done = work();
    let took = began.elapsed();
    let how = if done.is_ok() { "done" } else { "FAILED" };
    eprintln!("<== {what}: {how} in {:.1} s", took.as_secs_f64());
    done.map(|()| took)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_told_without_the_folder_of_its_program() {
        assert_eq!(words(&program("/usr/bin/cargo", &["fmt", "--check"])), "cargo fmt --check");
    }

    #[test]
    fn a_failing_program_is_an_error_that_names_it() {
        let error = run(program("false", &[])).expect_err("false fails").to_string();
        assert!(error.contains("`false` failed"), "{error}");
    }

    #[test]
    fn what_a_missing_program_says_is_nothing() {
        assert_eq!(asked(program("no-such-program-here", &[])), None);
        assert_eq!(asked(program("echo", &["hi"])).as_deref(), Some("hi\n"));
    }
}
