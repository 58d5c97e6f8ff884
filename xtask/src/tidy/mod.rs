//! The rules of the house, checked over all sources at once.
//!
//!     files, cargo metadata ──► rules ──► findings ──(less the allowed ones)──► `path:line: rule: what to do instead`
//!
//! In: the work tree. Out: all findings, not the first. Every rule is a plain function over text or data with its own tests.

mod allowed;
mod arrows;
mod circles;
mod files;
mod rules;
mod source;

use crate::step::root;
use anyhow::{Context, Result};
use std::fmt;
use std::fs;

/// Something against the rules.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Path in the work tree.
    pub path: String,
    /// Line, from 1.
    pub line: usize,
    /// The rule's name.
    pub rule: &'static str,
    /// What to do instead.
    pub instead: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.path, self.line, self.rule, self.instead)
    }
}

/// Checks the work tree.
///
/// # Errors
/// There are findings, or the tree cannot be read.
pub fn run() -> Result<()> {
    let root = root();
    let mut findings = arrows::check(&arrows::read(&root)?);
    let mut crates = circles::Crates::default();
    for path in files::list(&root)? {
        findings.extend(rules::check_name(&path));
        if !rules::is_text(&path) {
            continue;
        }
        let text = fs::read(root.join(&path)).with_context(|| format!("cannot read {path}"))?;
        let text = String::from_utf8_lossy(&text);
        findings.extend(rules::check(&path, &text, &root.to_string_lossy()));
        crates.add(&path, &text);
    }
    findings.extend(crates.check());
    let mut findings = allowed::sift(findings, allowed::ALLOWED);
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    anyhow::ensure!(findings.is_empty(), "tidy: {} findings", findings.len());
    Ok(())
}
