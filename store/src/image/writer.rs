//! The thread that writes the image: collects changes, writes them together, and holds nobody up. It sleeps while they are
//! collected: whoever applies does not pay for waking it each time. While the machine is busy it comes last, as only the next
//! start needs the image.

use super::{Image, ImageError};
use crate::machine::{Change, View};
use coracle_daemon::clock;
use parking_lot::{Condvar, Mutex};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// How long changes are collected before they are written. What is not written yet, a restart reads from the log.
const COLLECT: Duration = Duration::from_secs(10);
/// How long the thread may take to write what waits when the member stops.
const END_MAX: Duration = Duration::from_secs(2);
/// How much the thread lets others go first, as `nice` counts.
const NICE: i32 = 15;
/// Changes that are written at once, even sooner.
const CHANGES_MAX: usize = 50_000;
/// Changes that may wait while others are written. All state at once costs less than more of them.
const WAITING_MAX: usize = 4 * CHANGES_MAX;

/// What waits for the thread.
#[derive(Default)]
struct Waiting {
    /// All state, to which `changes` came.
    view: Option<View>,
    changes: Vec<Change>,
    /// Where the machine stands after them; none while nothing waits.
    stands: Option<Vec<u8>>,
    /// No more will come.
    closed: bool,
    /// The image was given up.
    given_up: bool,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.stands.is_none()
    }

    fn is_due(&self) -> bool {
        self.closed || self.changes.len() >= CHANGES_MAX
    }
}

#[derive(Default)]
struct Inbox {
    waiting: Mutex<Waiting>,
    woken: Condvar,
}

impl Inbox {
    /// Lets `add` change what waits, and wakes the thread when that makes it begin or hurry.
    fn add(&self, add: impl FnOnce(&mut Waiting)) {
        let mut waiting = self.waiting.lock();
        if waiting.given_up {
            return;
        }
        let (was_empty, was_due) = (waiting.is_empty(), waiting.is_due());
        add(&mut waiting);
        if was_empty || was_due != waiting.is_due() {
            self.woken.notify_one();
        }
    }

    /// Waits until there is something, and then for as long as more may come with it; `None` at the end.
    fn take(&self) -> Option<Waiting> {
        let mut waiting = self.waiting.lock();
        self.woken.wait_while(&mut waiting, |waiting| waiting.is_empty() && !waiting.closed);
        let due = Instant::now() + clock::until_whole(COLLECT);
        self.woken.wait_while_until(&mut waiting, |waiting| !waiting.is_due(), due);
        let rest = Waiting { closed: waiting.closed, ..Waiting::default() };
        Some(std::mem::replace(&mut *waiting, rest)).filter(|taken| !taken.is_empty())
    }
}

/// A handle to the thread. Dropping it writes what waits.
pub struct ImageWriter {
    inbox: Arc<Inbox>,
    /// Disconnected once the thread has ended.
    ended: Mutex<Receiver<()>>,
    /// The image has what is needed to make changes to it.
    loaded: bool,
}

impl ImageWriter {
    /// Starts the thread. `loaded`: whether the image was just loaded; otherwise it is made anew with the first changes.
    ///
    /// # Errors
    /// The process may have no more threads.
    pub fn start(image: impl Image, loaded: bool) -> Result<Self, std::io::Error> {
        let inbox = Arc::new(Inbox::default());
        let (alive, ended) = sync_channel(0);
        let own = inbox.clone();
        std::thread::Builder::new().name("image".to_owned()).spawn(move || {
            // Some systems forbid it, and nothing depends on it.
            let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
            run(image, &own);
            drop(alive);
        })?;
        Ok(Self { inbox, ended: Mutex::new(ended), loaded })
    }

    /// Takes over `changes`, after which the machine stands where `description` tells. `view` is called when all state is
    /// needed instead.
    pub fn update(&mut self, changes: Vec<Change>, description: Vec<u8>, view: impl FnOnce() -> View) {
        let loaded = std::mem::replace(&mut self.loaded, true);
        self.inbox.add(|waiting| {
            if loaded && waiting.changes.len() + changes.len() <= WAITING_MAX {
                waiting.changes.extend(changes);
            } else {
                waiting.view = Some(view());
                waiting.changes.clear();
            }
            waiting.stands = Some(description);
        });
    }

    /// Takes over all state.
    pub fn replace(&mut self, view: View, description: Vec<u8>) {
        self.loaded = true;
        self.inbox.add(|waiting| {
            waiting.view = Some(view);
            waiting.changes.clear();
            waiting.stands = Some(description);
        });
    }
}

impl Drop for ImageWriter {
    fn drop(&mut self) {
        self.inbox.add(|waiting| waiting.closed = true);
        // An image that is not finished is not trusted: nobody needs to wait longer.
        if self.ended.lock().recv_timeout(END_MAX) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the image was not finished");
        }
    }
}

fn run(mut image: impl Image, inbox: &Inbox) {
    while let Some(taken) = inbox.take() {
        if let Err(error) = write(&mut image, taken) {
            // Without an image a restart reads the newest snapshot and more of the log.
            tracing::warn!(%error, "the image is given up until the next start");
            *inbox.waiting.lock() = Waiting { given_up: true, ..Waiting::default() };
            return;
        }
    }
}

/// Writes and syncs what was collected.
fn write(image: &mut impl Image, taken: Waiting) -> Result<(), ImageError> {
    if let Some(view) = taken.view {
        image.replace(view);
    }
    image.update(without_passing(taken.changes));
    taken.stands.map_or(Ok(()), |stands| image.sync(&stands))
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
