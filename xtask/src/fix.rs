//! `fix`: the writing twin of the gate. What it can put right, it does; the rest `tidy` and clippy tell.

use crate::packages;
use crate::step::{cargo, run as finish, step};
use anyhow::Result;

/// Formats, and applies clippy's suggestions.
///
/// # Errors
/// The sources do not compile.
pub fn run() -> Result<()> {
    packages::provide(packages::BUILD, &[])?;
    step("clippy --fix", || {
        finish(cargo(&["clippy", "--fix", "--allow-dirty", "--allow-staged", "--workspace", "--all-targets"]))
    })?;
    step("fmt", || finish(cargo(&["fmt", "--all"])))?;
    crate::tidy::run()
}
