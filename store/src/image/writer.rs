//! The thread that writes the image: collects changes, writes them together, and gives up the image rather than holding
//! anybody up.

use super::{Image, ImageError};
use crate::machine::{Change, View};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

/// Batches of changes that may wait for the thread.
const WAITING: usize = 1024;
/// How long changes are collected before they are written.
const COLLECT: Duration = Duration::from_secs(2);
/// How long the thread may take to write what waits when the member stops.
const END_MAX: Duration = Duration::from_secs(2);
/// Changes that are written at once, even sooner.
const CHANGES_MAX: usize = 50_000;

enum Work {
    Update { changes: Vec<Change>, description: Vec<u8> },
    Replace { view: View, description: Vec<u8> },
}

/// A handle to the thread. Dropping it writes what waits.
#[derive(Debug)]
pub struct ImageWriter {
    work: Option<SyncSender<Work>>,
    /// Disconnected once the thread has ended.
    ended: Mutex<Receiver<()>>,
    /// The image lacks something, and must be made anew.
    stale: bool,
}

impl ImageWriter {
    /// Starts the thread. `loaded`: whether the image was just loaded; otherwise it is made anew with the first changes.
    ///
    /// # Errors
    /// The process may have no more threads.
    pub fn start(image: impl Image, loaded: bool) -> Result<Self, std::io::Error> {
        let (work, inbox) = sync_channel(WAITING);
        let (alive, ended) = sync_channel(0);
        std::thread::Builder::new().name("image".to_owned()).spawn(move || {
            run(image, &inbox);
            drop(alive);
        })?;
        Ok(Self { work: Some(work), ended: Mutex::new(ended), stale: !loaded })
    }

    /// Takes over `changes`, after which the machine stands where `description` tells. `view` is called when all state is
    /// needed instead.
    pub fn update(&mut self, changes: Vec<Change>, description: Vec<u8>, view: impl FnOnce() -> View) {
        if self.stale {
            self.replace(view(), description);
        } else {
            self.send(Work::Update { changes, description });
        }
    }

    /// Takes over all state.
    pub fn replace(&mut self, view: View, description: Vec<u8>) {
        self.stale = false;
        self.send(Work::Replace { view, description });
    }

    fn send(&mut self, work: Work) {
        let Some(sender) = &self.work else { return };
        match sender.try_send(work) {
            Ok(()) => {}
            // It cannot keep up: all state at once costs less than every step to it.
            Err(TrySendError::Full(_)) => self.stale = true,
            Err(TrySendError::Disconnected(_)) => self.work = None,
        }
    }
}

impl Drop for ImageWriter {
    fn drop(&mut self) {
        self.work = None;
        // An image that is not finished is not trusted: nobody needs to wait longer.
        if self.ended.lock().recv_timeout(END_MAX) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the image was not finished");
        }
    }
}

fn run(mut image: impl Image, inbox: &Receiver<Work>) {
    while let Ok(first) = inbox.recv() {
        if let Err(error) = write(&mut image, first, inbox) {
            // Without an image a restart reads the newest snapshot and more of the log.
            tracing::warn!(%error, "the image is given up until the next start");
            return;
        }
    }
}

/// Collects changes for a while, then writes and syncs them.
fn write(image: &mut impl Image, first: Work, inbox: &Receiver<Work>) -> Result<(), ImageError> {
    let due = Instant::now() + COLLECT;
    let mut collected = Vec::new();
    let mut next = Some(first);
    let mut stands = Vec::new();
    while let Some(work) = next.take() {
        match work {
            Work::Update { changes, description } => {
                collected.extend(changes);
                stands = description;
            }
            Work::Replace { view, description } => {
                collected.clear();
                image.replace(view);
                stands = description;
            }
        }
        if collected.len() >= CHANGES_MAX {
            break;
        }
        next = inbox.recv_timeout(due.saturating_duration_since(Instant::now())).ok();
    }
    image.update(without_passing(collected));
    image.sync(&stands)
}

/// Leaves out records that came and went meanwhile.
fn without_passing(changes: Vec<Change>) -> Vec<Change> {
    let forgotten: HashSet<_> = changes
        .iter()
        .filter_map(|change| if let Change::Forget(place) = change { Some(*place) } else { None })
        .collect();
    if forgotten.is_empty() {
        return changes;
    }
    let mut passing = HashSet::new();
    let mut kept: Vec<Change> = changes
        .into_iter()
        .filter(|change| match change {
            Change::Record(record) if forgotten.contains(&record.place()) => {
                passing.insert(record.place());
                false
            }
            _ => true,
        })
        .collect();
    kept.retain(|change| !matches!(change, Change::Forget(place) if passing.contains(place)));
    kept
}
