//! Programs run to their end within a deadline.
//!
//! In: a program, its words, and what it reads. Out: what it said and how it ended, or an error if it is late.

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// A point in time that something must have happened by.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// So many seconds from now.
    #[must_use]
    pub fn seconds(seconds: u64) -> Self {
        Self(Instant::now() + Duration::from_secs(seconds))
    }

    /// The time that is left, if any.
    #[must_use]
    pub fn left(self) -> Option<Duration> {
        self.0.checked_duration_since(Instant::now())
    }
}

/// What a program said, and how it ended.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The command, as a person would type it.
    pub command: String,
    /// What it wrote to standard output.
    pub out: String,
    /// What it wrote to standard error.
    pub err: String,
    /// Whether it ended with 0.
    pub success: bool,
}

impl Answer {
    /// The output of a program that must succeed.
    ///
    /// # Errors
    /// It failed.
    pub fn ok(self) -> Result<String> {
        anyhow::ensure!(self.success, "`{}` failed: {}{}", self.command, self.out, self.err);
        Ok(self.out)
    }

    /// The error output of a program that must fail.
    ///
    /// # Errors
    /// It succeeded.
    pub fn refused(self) -> Result<String> {
        anyhow::ensure!(!self.success, "`{}` succeeded, but should not have: {}", self.command, self.out);
        Ok(self.err)
    }
}

/// Runs `command`, which reads `input`, until its end.
///
/// # Errors
/// It cannot be started, or has not ended by the deadline; it is killed then.
pub(crate) fn run(mut command: Command, input: &str, deadline: Deadline) -> Result<Answer> {
    let told = told(&command);
    let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{told}`"))?;
    let pid = Pid::from_raw(i32::try_from(child.id()).context("a process id beyond all bounds")?);
    let pipe = child.stdin.take();
    let text = input.to_owned();
    let (ended, end) = mpsc::channel();
    thread::spawn(move || {
        if let Some(mut pipe) = pipe {
            // A program that stops reading tells why by its end.
            let _ = pipe.write_all(text.as_bytes());
        }
        // Nobody waits any more once the deadline has passed.
        let _ = ended.send(child.wait_with_output());
    });
    let Ok(output) = end.recv_timeout(deadline.left().unwrap_or_default()) else {
        // It may have ended between the two.
        let _ = kill(pid, Signal::SIGKILL);
        anyhow::bail!("`{told}` did not end in time");
    };
    let output = output.with_context(|| format!("cannot wait for `{told}`"))?;
    Ok(Answer {
        command: told,
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
        success: output.status.success(),
    })
}

/// A command as a person would type it.
pub(crate) fn told(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    let program = program.rsplit('/').next().unwrap_or_default().to_owned();
    let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
    std::iter::once(program).chain(words).collect::<Vec<_>>().join(" ")
}

/// A line of words, apart by blanks; single quotes keep blanks together.
#[must_use]
pub fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut begun) = (Vec::new(), String::new(), false, false);
    for char in line.chars() {
        match char {
            '\'' => {
                quoted = !quoted;
                begun = true;
            }
            char if char.is_whitespace() && !quoted => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            char => {
                word.push(char);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_blanks_together_and_make_empty_words() {
        assert_eq!(words("a  -p='{\"b\": 1}' ''"), ["a", "-p={\"b\": 1}", ""]);
        assert_eq!(words("  "), [""; 0]);
    }

    #[test]
    fn a_program_that_is_late_is_killed_and_told() {
        let mut late = Command::new("tail");
        late.args(["-f", "/dev/null"]);
        let error = run(late, "", Deadline::seconds(0)).expect_err("late").to_string();
        assert_eq!(error, "`tail -f /dev/null` did not end in time");
    }

    #[test]
    fn a_program_reads_its_input_and_its_end_is_told() {
        let answer = run(Command::new("cat"), "hello", Deadline::seconds(10)).expect("cat");
        assert_eq!(answer.ok().expect("0"), "hello");
        let answer = run(Command::new("false"), "", Deadline::seconds(10)).expect("false");
        assert!(answer.ok().is_err());
    }
}
