//! Reads the configuration, and again whenever its file changes; a bad change leaves what was there.

use super::rules::Rules;
use super::{AtRest, config};
use anyhow::Context;
use futures::StreamExt;
use inotify::{Inotify, WatchMask};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;

/// Events of a folder that are read at once.
const EVENTS_BYTES: usize = 4096;

/// Rules, and what the file's contents were.
pub struct Loaded {
    pub rules: Rules,
    pub digest: [u8; 32],
}

/// The rules in a file.
///
/// # Errors
/// It cannot be read or breaks a rule.
pub fn read(path: &Path) -> anyhow::Result<Loaded> {
    let text = std::fs::read_to_string(path).with_context(|| {
        format!("error opening encryption provider configuration file {:?}", path.display())
    })?;
    let rules = Rules::compile(&config::read(&text)?)?;
    Ok(Loaded { rules, digest: Sha256::digest(&text).into() })
}

/// Follows the file until the process stops. The folder is watched: files are replaced, and mounted ones are links.
pub async fn follow(at_rest: Arc<AtRest>) -> anyhow::Result<()> {
    let folder = at_rest.path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let inotify = Inotify::init().context("cannot follow --encryption-provider-config")?;
    let changes = WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::CREATE;
    inotify
        .watches()
        .add(folder.unwrap_or(Path::new(".")), changes)
        .context("cannot follow --encryption-provider-config")?;
    let mut events = inotify.into_event_stream(vec![0; EVENTS_BYTES])?;
    let stop = at_rest.tasks.stopping();
    let mut known = at_rest.digest;
    loop {
        // Also once at the beginning: the file may have changed before it was watched.
        match read(&at_rest.path) {
            Ok(loaded) if known != loaded.digest => {
                tracing::info!("the encryption configuration changed");
                known = loaded.digest;
                at_rest.replace(loaded.rules);
            }
            Ok(_) => {}
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "the encryption configuration cannot be used; the last one stays");
            }
        }
        tokio::select! {
            event = events.next() => {
                event.context("the encryption configuration cannot be followed any more")??;
            }
            () = stop.cancelled() => return Ok(()),
        }
    }
}
