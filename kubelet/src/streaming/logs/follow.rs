//! Reads a log file to its end, and goes on as it grows.
//!
//! The kernel tells of changes in the folder (inotify). A log is complete when its writer closed it, or when its container is
//! known to have ended and a short grace is over. Across a rotation the old file is read to its end, then the next one.

use super::entry::{Printer, Tail};
use crate::runtime::{Runtime, State};
use bytes::Bytes;
use coracle_client::Key;
use coracle_daemon::clock;
use futures::StreamExt;
use inotify::{EventMask, EventStream, Inotify, WatchMask};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncSeekExt, BufReader, SeekFrom};
use tokio::sync::{broadcast, mpsc};

/// How long the writer of a container that ended may take for its last lines.
const GRACE: Duration = Duration::from_secs(1);
/// Bytes sent at a time.
const CHUNK_BYTES: usize = 32 << 10;
/// The logger writes far shorter lines.
const LINE_BYTES_MAX: usize = 1 << 20;
/// The logger keeps so many files, `.1` the youngest.
const ROTATED_MAX: u32 = 16;

/// A run of a container.
pub struct Run {
    /// Knows whether it runs.
    pub runtime: Arc<dyn Runtime>,
    /// The pod's uid.
    pub uid: String,
    /// The container's name.
    pub container: String,
    /// Which run.
    pub attempt: u32,
}

impl Run {
    async fn is_alive(&self) -> bool {
        match self.runtime.sandbox(&self.uid).await {
            Ok(sandbox) => sandbox.into_iter().flat_map(|sandbox| sandbox.containers).any(|run| {
                run.name == self.container
                    && run.attempt == self.attempt
                    && !matches!(run.state, State::Exited { .. })
            }),
            Err(error) => {
                tracing::debug!(%error, "cannot see whether a container runs");
                true
            }
        }
    }
}

/// A log to be told.
pub struct Log {
    /// The current file.
    pub file: PathBuf,
    /// Where it is.
    pub folder: PathBuf,
    /// Who writes it.
    pub run: Run,
    /// Its pod.
    pub pod: Key,
    /// Pods that changed.
    pub changed: broadcast::Receiver<Key>,
}

/// Why telling ended early: the client left or has enough.
struct Enough;

impl Log {
    /// Sends what the printer makes of the file.
    ///
    /// # Errors
    /// The file cannot be read, or the kernel does not tell of changes.
    pub async fn tell(mut self, printer: Printer, follow: bool, to: mpsc::Sender<Bytes>) -> io::Result<()> {
        // Watched before it is read, so that no change is missed.
        let events = if follow { Some(self.watch()?) } else { None };
        let mut teller = Teller { printer, to };
        let mut file = match Lines::open(&self.file).await {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if let (Some(file), Some(most)) = (&mut file, teller.printer.tail()) {
            file.skip_to_tail(&teller.printer, most).await?;
        }
        if let Some(file) = &mut file
            && teller.tell(file).await?.is_err()
        {
            return Ok(());
        }
        match events {
            Some(events) => self.follow(file, events, teller).await,
            None => Ok(()),
        }
    }

    fn watch(&self) -> io::Result<EventStream<[u8; 4096]>> {
        let inotify = Inotify::init()?;
        let mask = WatchMask::MODIFY | WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::CLOSE_WRITE;
        inotify.watches().add(&self.folder, mask | WatchMask::ONLYDIR)?;
        inotify.into_event_stream([0; 4096])
    }

    async fn follow(
        &mut self,
        mut file: Option<Lines>,
        mut events: EventStream<[u8; 4096]>,
        mut teller: Teller,
    ) -> io::Result<()> {
        let name = self.file.file_name().map(ToOwned::to_owned);
        let mut deadline = if self.run.is_alive().await { None } else { Some(clock::Instant::now() + GRACE) };
        let mut complete = false;
        loop {
            if let Some(open) = &mut file
                && teller.tell(open).await?.is_err()
            {
                return Ok(());
            }
            if let Some(next) = self.next(file.as_ref()).await? {
                // Nothing is written to a file that was put aside, but it may have been put aside after the reading above.
                if let Some(old) = &mut file
                    && teller.tell(old).await?.is_err()
                {
                    return Ok(());
                }
                file = Some(next);
                continue;
            }
            if complete {
                return Ok(());
            }
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => complete = event.mask.contains(EventMask::CLOSE_WRITE) && event.name == name,
                    Some(Err(error)) => return Err(error),
                    None => return Ok(()),
                },
                changed = self.changed.recv() => {
                    // Having missed some may mean having missed ours.
                    let ours = changed.map_or_else(|_| true, |key| key == self.pod);
                    if ours && deadline.is_none() && !self.run.is_alive().await {
                        deadline = Some(clock::Instant::now() + GRACE);
                    }
                }
                () = async { match deadline {
                    Some(deadline) => clock::sleep_until(deadline).await,
                    None => std::future::pending().await,
                } } => complete = true,
                () = teller.to.closed() => return Ok(()),
            }
        }
    }

    /// The file that follows the one read so far, when that was put aside.
    async fn next(&self, file: Option<&Lines>) -> io::Result<Option<Lines>> {
        // None between two steps of a rotation: the next event tells of the new file.
        let Some(current) = inode(&self.file).await else { return Ok(None) };
        let Some(file) = file else { return Lines::open(&self.file).await.map(Some) };
        if file.inode == current {
            return Ok(None);
        }
        let numbered = |n: u32| {
            if n == 0 { self.file.clone() } else { PathBuf::from(format!("{}.{n}", self.file.display())) }
        };
        let mut next = 0;
        for n in 1..ROTATED_MAX {
            if inode(&numbered(n)).await == Some(file.inode) {
                next = n - 1;
                break;
            }
        }
        Lines::open(&numbered(next)).await.map(Some)
    }
}

async fn inode(path: &Path) -> Option<u64> {
    tokio::fs::metadata(path).await.ok().map(|metadata| metadata.ino())
}

struct Teller {
    printer: Printer,
    to: mpsc::Sender<Bytes>,
}

impl Teller {
    /// Sends everything up to the end of the file.
    async fn tell(&mut self, file: &mut Lines) -> io::Result<Result<(), Enough>> {
        let mut out = Vec::new();
        loop {
            let line = file.next().await?;
            if let Some(line) = &line {
                self.printer.print(line, &mut out);
            }
            let full = self.printer.is_full();
            let send = line.is_none() || full || out.len() >= CHUNK_BYTES;
            if send && !out.is_empty() && self.to.send(std::mem::take(&mut out).into()).await.is_err() {
                return Ok(Err(Enough));
            }
            if full {
                return Ok(Err(Enough));
            }
            if line.is_none() {
                return Ok(Ok(()));
            }
        }
    }
}

/// The lines of a file that may grow.
struct Lines {
    file: BufReader<File>,
    inode: u64,
    /// Where the next line begins.
    offset: u64,
    /// The line that has not ended yet.
    held: Vec<u8>,
}

impl Lines {
    async fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path).await?;
        let inode = file.metadata().await?.ino();
        Ok(Self { file: BufReader::with_capacity(64 << 10, file), inode, offset: 0, held: Vec::new() })
    }

    /// The next whole line, without its end; `None` when there is none yet.
    async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let available = self.file.fill_buf().await?;
            if available.is_empty() {
                return Ok(None);
            }
            let end = available.iter().position(|byte| *byte == b'\n');
            let part = &available[..end.unwrap_or(available.len())];
            // What is longer than any entry is none: its rest may go.
            let room = LINE_BYTES_MAX.saturating_sub(self.held.len()).min(part.len());
            self.held.extend_from_slice(&part[..room]);
            let used = part.len() + usize::from(end.is_some());
            self.file.consume(used);
            self.offset += used as u64;
            if end.is_some() {
                return Ok(Some(std::mem::take(&mut self.held)));
            }
        }
    }

    /// Goes to where the last `most` lines begin.
    async fn skip_to_tail(&mut self, printer: &Printer, most: usize) -> io::Result<()> {
        let mut tail = Tail::new(printer, most);
        let mut from = self.offset;
        while let Some(line) = self.next().await? {
            tail.see(from, &line);
            from = self.offset;
        }
        self.offset = tail.start(from);
        self.held.clear();
        self.file.seek(SeekFrom::Start(self.offset)).await.map(drop)
    }
}
