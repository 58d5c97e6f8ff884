//! A command that goes on telling: its lines as they come.

use crate::process::{Deadline, told};
use anyhow::{Context, Result};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

/// A running `kubectl … --watch`, `kubectl logs -f` or the like. Dropping it ends the command.
pub struct Watch {
    child: Child,
    lines: mpsc::Receiver<String>,
    told: String,
    seen: Vec<String>,
}

impl Watch {
    /// Starts `command`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(mut command: Command) -> Result<Self> {
        let told = told(&command);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .with_context(|| format!("cannot run `{told}`"))?;
        let out = child.stdout.take().with_context(|| format!("`{told}` has no output"))?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, lines, told, seen: Vec::new() })
    }

    /// Waits for a line that `fits`, and returns it; the lines before it are passed over.
    ///
    /// # Errors
    /// No such line came in time; the error shows those that did.
    pub fn line(&mut self, deadline: Deadline, fits: impl Fn(&str) -> bool) -> Result<String> {
        loop {
            match self.lines.recv_timeout(deadline.left().unwrap_or_default()) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if fits(&line) {
                        return Ok(line);
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    anyhow::bail!(
                        "`{}` did not tell in time what was waited for, but: {:#?}",
                        self.told,
                        self.seen
                    )
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    anyhow::bail!(
                        "`{}` ended before it told what was waited for; it told: {:#?}",
                        self.told,
                        self.seen
                    )
                }
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
