//! Requests on their way to the disk, and who takes them there: the log's thread, a caller who would only wait for it, or a
//! simulation.
//!
//! In: requests, in the order of memory. Out: batches for the writer, and the calls back. Invariant: requests are taken only by
//! whoever holds the desk, so that the disk sees their order; whoever leaves it looks for more.

use super::record::Record;
use super::segment::framed_len;
use super::writer::Writer;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Called once, when the request's records are on stable storage or never will be.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Syncs that take less on average are done by callers: whatever else their threads have to do hardly notices.
const QUICK: Duration = Duration::from_micros(500);
/// Of how many syncs, roughly, the average tells.
const REMEMBERED: u32 = 8;

pub(super) struct Request {
    pub(super) records: Vec<Record>,
    pub(super) done: Option<Done>,
}

/// See the module.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    woken: Condvar,
    desk: Mutex<Desk>,
}

#[derive(Default)]
struct Waiting {
    requests: VecDeque<Request>,
    closed: bool,
}

/// Who is at the desk writes.
struct Desk {
    writer: Writer,
    failed: Option<io::Error>,
    /// How long syncs take; too long until that is known.
    average: Duration,
}

impl Queue {
    pub(super) fn new(writer: Writer) -> Self {
        Self {
            waiting: Mutex::default(),
            woken: Condvar::new(),
            desk: Mutex::new(Desk { writer, failed: None, average: QUICK }),
        }
    }

    /// Adds a request; [`Queue::wake`] or [`Queue::take_here`] has it written.
    pub(super) fn push(&self, request: Request) {
        let mut waiting = self.waiting.lock();
        if !waiting.closed {
            waiting.requests.push_back(request);
            return;
        }
        drop(waiting);
        if let Some(done) = request.done {
            done(Err(io::Error::new(io::ErrorKind::BrokenPipe, "the write-ahead log is closed")));
        }
    }

    /// Has the log's thread write what waits.
    pub(super) fn wake(&self) {
        self.woken.notify_one();
    }

    /// No more requests: those that wait are the thread's last.
    pub(super) fn close(&self) {
        self.waiting.lock().closed = true;
        self.woken.notify_one();
    }

    fn is_empty(&self) -> bool {
        self.waiting.lock().requests.is_empty()
    }

    /// The thread: writes whatever comes, until the end.
    pub(super) fn run(&self) {
        loop {
            let mut waiting = self.waiting.lock();
            self.woken.wait_while(&mut waiting, |waiting| waiting.requests.is_empty() && !waiting.closed);
            let ends = waiting.requests.is_empty();
            drop(waiting);
            if ends {
                return;
            }
            self.desk.lock().take(&self.waiting);
        }
    }

    /// Writes what waits, unless somebody else does or it may take long, which is for the log's thread: that one would have to
    /// be woken, and would have to wake the caller's, which takes as long as a quick sync.
    pub(super) fn take_here(&self) {
        while let Some(mut desk) = self.desk.try_lock() {
            if desk.average >= QUICK || !desk.writer.has_room() {
                self.wake();
                return;
            }
            desk.take(&self.waiting);
            drop(desk);
            // Whoever was refused the desk meanwhile relies on this.
            if self.is_empty() {
                return;
            }
        }
    }

    /// Ends the thread's work, and what it began.
    pub(super) fn finish(&self) {
        self.desk.lock().writer.finish();
    }
}

impl Desk {
    /// Writes one batch, unless writing failed before, and calls back. Returns whether anything waited.
    fn take(&mut self, waiting: &Mutex<Waiting>) -> bool {
        let (records, dones) = gather(waiting, self.writer.batch_bytes());
        if records.is_empty() && dones.is_empty() {
            return false;
        }
        let written = match &self.failed {
            Some(error) => Err(again(error)),
            None => self.writer.commit(&records).map(|took| {
                self.average = (self.average * (REMEMBERED - 1) + took) / REMEMBERED;
            }),
        };
        if let Err(error) = written
            && self.failed.is_none()
        {
            // The kernel may have dropped what it could not write: trying again would lie.
            tracing::error!(%error, "the write-ahead log failed; nothing is written any more");
            self.failed = Some(error);
        }
        for done in dones {
            done(self.failed.as_ref().map_or(Ok(()), |error| Err(again(error))));
        }
        if self.failed.is_none() {
            self.writer.tidy();
        }
        true
    }
}

/// Takes everything that waits, up to the size of a batch.
fn gather(waiting: &Mutex<Waiting>, most: usize) -> (Vec<Record>, Vec<Done>) {
    let (mut records, mut dones, mut bytes) = (Vec::new(), Vec::new(), 0);
    let mut waiting = waiting.lock();
    while bytes < most
        && let Some(request) = waiting.requests.pop_front()
    {
        bytes += request.records.iter().map(framed_len).sum::<usize>();
        records.extend(request.records);
        dones.extend(request.done);
    }
    (records, dones)
}

/// The same failure, once more.
fn again(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}

/// The log's thread, in the hands of a simulation. Dropped, it writes no more: the process was killed.
pub struct Driver {
    pub(super) queue: Arc<Queue>,
    pub(super) woken: Arc<Notify>,
}

impl Driver {
    /// Waits until there is something to write.
    pub async fn woken(&mut self) {
        self.woken.notified().await;
    }

    /// Writes one batch of what waits. Returns whether anything waited.
    pub fn write_batch(&mut self) -> bool {
        self.queue.desk.lock().take(&self.queue.waiting)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.queue.close();
    }
}
