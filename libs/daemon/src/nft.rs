//! The kernel's packet rules: a script in, one transaction.

use std::io;
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Why rules are not in force.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// No nft, or it went away.
    #[error("cannot run nft: install the package nftables")]
    Run(#[from] io::Error),
    /// Nothing of the script was taken.
    #[error("nft: {0}")]
    Refused(String),
}

/// Runs a script in this process's network.
///
/// # Errors
/// nft cannot be run, or the kernel refuses the script.
pub async fn apply(script: &str) -> Result<(), NftError> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(script.as_bytes()).await?;
    }
    let output = child.wait_with_output().await?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(NftError::Refused(said.lines().take(3).collect::<Vec<_>>().join(" ")))
}
