//! The thread that owns the files: group commit, the change of segments, and the removal of old ones.

use super::disk::Disk;
use super::open::{Current, Opened, Sealed, begin, open};
use super::reader::Reader;
use super::record::{EntryId, Head, Record};
use super::segment::{file_name, framed_len, put};
use super::state::LogState;
use super::tail::{Slot, Spot, Tail};
use super::{Entry, Options, WalError};
use parking_lot::{Mutex, RwLock};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Called once, when the request's records are on stable storage or never will be.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Is told, from the log's thread, how the disk does.
pub trait Observer: Send + 'static {
    /// A sync begins.
    fn syncs(&self) {}
    /// A sync took so long.
    fn synced(&self, took: Duration);
    /// There is room for the next segment, or there is not.
    fn has_room(&self, room: bool);
}

/// How soon records must be stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// With the next sync, which this request causes.
    Now,
    /// With the next sync that another request causes.
    Later,
}

struct Request {
    records: Vec<Record>,
    done: Option<Done>,
}

/// A handle to the log. Dropping it writes what waits and closes the files.
#[derive(Debug)]
pub struct Wal {
    requests: Option<Sender<Request>>,
    thread: Option<JoinHandle<()>>,
    /// Wakes whoever drives the log in the thread's stead.
    woken: Option<Arc<Notify>>,
    /// Records that need no sync of their own go with the next request, and wake nobody before.
    later: Mutex<Vec<Record>>,
    tail: Arc<RwLock<Tail>>,
    reader: Reader,
}

impl Wal {
    /// Opens the log on `disk`.
    ///
    /// # Errors
    /// The disk fails, or acknowledged records are damaged.
    pub fn open(disk: Arc<dyn Disk>, options: Options, observer: impl Observer) -> Result<Self, WalError> {
        let (writer, reader) = Writer::open(disk, options, observer, true)?;
        let (requests, inbox) = channel();
        let tail = writer.tail.clone();
        let thread = std::thread::Builder::new()
            .name("wal".to_owned())
            .spawn(move || writer.run(&inbox))
            .map_err(|source| WalError::Folder { what: "start a thread for", source })?;
        let (requests, thread, later) = (Some(requests), Some(thread), Mutex::default());
        Ok(Self { requests, thread, woken: None, later, tail, reader })
    }

    /// Like [`Wal::open`], but without threads: a simulation says when a batch is written, by [`Driver::write_batch`].
    ///
    /// # Errors
    /// The disk fails, or acknowledged records are damaged.
    pub fn open_driven(
        disk: Arc<dyn Disk>,
        options: Options,
        observer: impl Observer,
    ) -> Result<(Self, Driver), WalError> {
        let (writer, reader) = Writer::open(disk, options, observer, false)?;
        let tail = writer.tail.clone();
        let (requests, inbox) = channel();
        let woken = Arc::new(Notify::new());
        let driver = Driver { writer, inbox, woken: woken.clone(), failed: None };
        let (requests, woken, later) = (Some(requests), Some(woken), Mutex::default());
        Ok((Self { requests, thread: None, woken, later, tail, reader }, driver))
    }

    /// Makes the changes in memory and queues them for the disk. `done` is called from the log's thread, in the order of
    /// requests; for records written [`Durability::Later`] it may be called at once.
    ///
    /// # Errors
    /// A record does not fit what is there; none is taken then.
    pub fn write(&self, records: Vec<Record>, durability: Durability, done: Option<Done>) -> io::Result<()> {
        let unfit = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
        let mut tail = self.tail.write();
        // All of them first: memory must not have what the disk never gets.
        let mut head = tail.log().head;
        for record in &records {
            head.admit(record).map_err(unfit)?;
            head.note(record);
        }
        for record in &records {
            tail.apply(record.clone()).map_err(unfit)?;
        }
        // Within the lock: the disk must see changes in the order that memory does.
        self.queue(records, durability, done);
        Ok(())
    }

    fn queue(&self, records: Vec<Record>, durability: Durability, done: Option<Done>) {
        let mut later = self.later.lock();
        match durability {
            Durability::Later => {
                for record in records {
                    // Of what is known to be committed, only the newest matters.
                    if let (Record::Committed(_), Some(Record::Committed(_))) = (&record, later.last()) {
                        later.pop();
                    }
                    later.push(record);
                }
                if let Some(done) = done {
                    done(Ok(()));
                }
            }
            Durability::Now => {
                let mut all = std::mem::take(&mut *later);
                all.extend(records);
                self.send(Request { records: all, done });
            }
        }
    }

    fn send(&self, request: Request) {
        let unsent = match &self.requests {
            Some(requests) => requests.send(request).err().map(|unsent| unsent.0),
            None => Some(request),
        };
        if let Some(done) = unsent.and_then(|request| request.done) {
            done(Err(io::Error::new(io::ErrorKind::BrokenPipe, "the write-ahead log is closed")));
        }
        if let Some(woken) = &self.woken {
            woken.notify_one();
        }
    }

    /// What is true of the log now, written or about to be.
    #[must_use]
    pub fn head(&self) -> Head {
        self.tail.read().log().head
    }

    /// Whether nothing was ever written.
    #[must_use]
    pub fn is_pristine(&self) -> bool {
        self.tail.read().log().is_pristine()
    }

    /// The greatest index up to which entries can be dropped while at least `bytes` of entries stay; `None` when there
    /// are fewer.
    #[must_use]
    pub fn index_before_last(&self, bytes: usize) -> Option<u64> {
        let mut kept = 0;
        self.tail.read().log().entries.iter().rev().find_map(|slot| {
            kept += slot.length;
            (kept > bytes).then_some(slot.id.index)
        })
    }

    /// Entries with an index in `start..end`, as far as there are any, up to `limit` bytes but at least one; `None` when some
    /// must be read from the disk first.
    #[must_use]
    pub fn resident(&self, start: u64, end: u64, limit: usize) -> Option<Vec<Entry>> {
        let tail = self.tail.read();
        within(tail.log(), start, end, limit)
            .map(|slot| Some(Entry { id: slot.id, kind: slot.kind, payload: slot.payload.clone()? }))
            .collect()
    }

    /// Like [`Wal::resident`], but waits for the disk.
    ///
    /// # Errors
    /// The disk fails, or what it has is damaged.
    pub fn read(&self, mut start: u64, end: u64, limit: usize) -> io::Result<Vec<Entry>> {
        loop {
            let slots: Vec<_> = within(self.tail.read().log(), start, end, limit).cloned().collect();
            match (self.reader.entries(slots), self.head().purged) {
                // Older entries were purged meanwhile, their segments with them.
                (Err(_), Some(purged)) if purged.index >= start => start = purged.index.saturating_add(1),
                (read, _) => return read,
            }
        }
    }

    /// All of the log.
    ///
    /// # Errors
    /// The disk fails, or what it has is damaged.
    pub fn whole(&self) -> io::Result<LogState> {
        Ok(LogState { head: self.head(), entries: self.read(0, u64::MAX, usize::MAX)?.into() })
    }
}

/// The first entries of a range that together have `limit` bytes, but at least one.
fn within(log: &LogState<Slot>, start: u64, end: u64, limit: usize) -> impl Iterator<Item = &Slot> {
    let mut bytes = 0_usize;
    log.range(start, end).take_while(move |slot| {
        let more = bytes == 0 || bytes.saturating_add(slot.length) <= limit;
        bytes = bytes.saturating_add(slot.length.max(1));
        more
    })
}

/// The log's thread, in the hands of a simulation. Dropped, it writes no more: the process was killed.
pub struct Driver {
    writer: Writer,
    inbox: Receiver<Request>,
    woken: Arc<Notify>,
    failed: Option<io::Error>,
}

impl Driver {
    /// Waits until there is something to write.
    pub async fn woken(&mut self) {
        self.woken.notified().await;
    }

    /// Writes one batch of what waits. Returns whether anything waited.
    pub fn write_batch(&mut self) -> bool {
        let Ok(first) = self.inbox.try_recv() else { return false };
        self.writer.take(first, &self.inbox, &mut self.failed);
        true
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        let later = std::mem::take(&mut *self.later.lock());
        if self.thread.is_some() && !later.is_empty() {
            self.send(Request { records: later, done: None });
        }
        self.requests = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the write-ahead log panicked");
        }
    }
}

struct Writer {
    disk: Arc<dyn Disk>,
    options: Options,
    observer: Box<dyn Observer>,
    sealed: VecDeque<Sealed>,
    current: Current,
    head: Head,
    /// Set when segments may have become removable.
    purged: Option<EntryId>,
    spare: Spare,
    /// Whether the next segment is made on a thread of its own.
    threads: bool,
    tail: Arc<RwLock<Tail>>,
}

/// The next segment's file.
enum Spare {
    None,
    InTheMaking(JoinHandle<io::Result<()>>),
    Ready,
    /// It could not be made; when that was, and where the segment stood.
    Failed(Instant, u64),
}

const SPARE: &str = "spare";
/// How long after a failure the next segment is tried again.
const SPARE_RETRY: Duration = Duration::from_secs(1);

impl Writer {
    fn open(
        disk: Arc<dyn Disk>,
        options: Options,
        observer: impl Observer,
        threads: bool,
    ) -> Result<(Self, Reader), WalError> {
        let Opened { tail, sealed, current } = open(&*disk, &options)?;
        let head = tail.log().head;
        let reader = Reader::new(disk.clone());
        let writer = Self {
            disk,
            options,
            observer: Box::new(observer),
            sealed,
            current,
            head,
            purged: None,
            spare: Spare::None,
            threads,
            tail: Arc::new(RwLock::new(tail)),
        };
        Ok((writer, reader))
    }

    /// Writes one batch, unless writing failed before, and calls back.
    fn take(&mut self, first: Request, inbox: &Receiver<Request>, failed: &mut Option<io::Error>) {
        let (records, dones) = self.gather(first, inbox);
        let written = match failed {
            Some(error) => Err(again(error)),
            None => self.commit(&records),
        };
        if let Err(error) = written
            && failed.is_none()
        {
            // The kernel may have dropped what it could not write: trying again would lie.
            tracing::error!(%error, "the write-ahead log failed; nothing is written any more");
            *failed = Some(error);
        }
        for done in dones {
            done(failed.as_ref().map_or(Ok(()), |error| Err(again(error))));
        }
        if failed.is_none() {
            self.tidy();
        }
    }

    fn run(mut self, inbox: &Receiver<Request>) {
        let mut failed: Option<io::Error> = None;
        while let Ok(first) = inbox.recv() {
            self.take(first, inbox, &mut failed);
        }
        if let Spare::InTheMaking(spare) = self.spare {
            // Only a file that would be made again is at stake.
            let _ = spare.join();
        }
    }

    /// Takes everything that waits, up to the size of a batch.
    fn gather(&self, first: Request, inbox: &Receiver<Request>) -> (Vec<Record>, Vec<Done>) {
        let (mut records, mut dones, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut next = Some(first);
        while let Some(request) = next {
            bytes += request.records.iter().map(framed_len).sum::<usize>();
            records.extend(request.records);
            dones.extend(request.done);
            next = if bytes < self.options.batch_bytes { inbox.try_recv().ok() } else { None };
        }
        (records, dones)
    }

    /// Writes one batch with one sync.
    fn commit(&mut self, batch: &[Record]) -> io::Result<()> {
        let length: usize = batch.iter().map(framed_len).sum();
        if self.current.at + length as u64 > self.current.size {
            self.next_segment(length as u64)?;
        }
        let start = u32::try_from(self.current.at).map_err(io::Error::other)?;
        let mut bytes = Vec::with_capacity(length);
        let mut stable = Vec::with_capacity(batch.len());
        for record in batch {
            let spot = Spot { segment: self.current.number, at: self.current.at + bytes.len() as u64 };
            put(&mut bytes, record, self.current.number, start);
            self.head.note(record);
            match record {
                Record::Entry(entry) => {
                    self.current.greatest = self.current.greatest.max(entry.id.index);
                    stable.push((entry.id, spot));
                }
                Record::Purge(id) => self.purged = Some(*id),
                _ => {}
            }
        }
        self.current.file.write_at(self.current.at, &bytes)?;
        let began = Instant::now();
        self.observer.syncs();
        self.current.file.sync()?;
        self.observer.synced(began.elapsed());
        self.current.at += bytes.len() as u64;
        let mut tail = self.tail.write();
        for (id, spot) in stable {
            tail.settle(id, spot);
        }
        tail.trim(self.options.resident_bytes);
        Ok(())
    }

    /// Seals the current segment and begins the next, with room for `needed` bytes.
    fn next_segment(&mut self, needed: u64) -> io::Result<()> {
        const HEAD_ROOM: u64 = 256;
        let number = self.current.number + 1;
        let size = self.options.segment_bytes.max(needed + HEAD_ROOM);
        let name = file_name(number);
        let spare = match std::mem::replace(&mut self.spare, Spare::None) {
            Spare::Ready => true,
            Spare::InTheMaking(spare) => matches!(spare.join(), Ok(Ok(()))),
            Spare::None | Spare::Failed(..) => false,
        };
        let file = if spare && size == self.options.segment_bytes {
            self.disk.rename(SPARE, &name)?;
            self.disk.open(&name)?
        } else {
            self.disk.create(&name, size)?
        };
        let next = begin(file, number, self.current.at, size, self.head)?;
        let full = std::mem::replace(&mut self.current, next);
        self.sealed.push_back(Sealed { number: full.number, greatest: full.greatest });
        Ok(())
    }

    /// Work between batches: removes old segments, and prepares the next one while this one still has room.
    fn tidy(&mut self) {
        if let Some(purged) = self.purged.take() {
            while let Some(oldest) = self.sealed.front().filter(|sealed| sealed.greatest <= purged.index) {
                if let Err(error) = self.disk.remove(&file_name(oldest.number)) {
                    // Harmless: it is read again at the next start, and tried again at the next purge.
                    tracing::warn!(segment = oldest.number, %error, "cannot remove an old log segment");
                    break;
                }
                self.sealed.pop_front();
            }
        }
        self.prepare();
    }

    /// Makes the next segment's file on another thread, and tells when there is no room for it.
    fn prepare(&mut self) {
        self.spare = match std::mem::replace(&mut self.spare, Spare::None) {
            Spare::InTheMaking(thread) if thread.is_finished() => match thread.join() {
                Ok(Ok(())) => {
                    self.observer.has_room(true);
                    Spare::Ready
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, "cannot prepare the next log segment");
                    self.observer.has_room(false);
                    Spare::Failed(Instant::now(), self.current.at)
                }
                Err(_) => Spare::Failed(Instant::now(), self.current.at),
            },
            Spare::None if self.current.at > self.current.size / 2 => self.make_spare(),
            // Sooner when much is written: once the segment is full, the member ends.
            Spare::Failed(when, at)
                if when.elapsed() > SPARE_RETRY || self.current.at > at + self.current.size / 16 =>
            {
                self.make_spare()
            }
            other => other,
        };
    }

    fn make_spare(&self) -> Spare {
        let (disk, size) = (self.disk.clone(), self.options.segment_bytes);
        if !self.threads {
            return if disk.create(SPARE, size).is_ok() {
                Spare::Ready
            } else {
                Spare::Failed(Instant::now(), self.current.at)
            };
        }
        let thread = std::thread::Builder::new().name("wal-spare".to_owned());
        // Without a spare the segment is made when it is needed.
        match thread.spawn(move || disk.create(SPARE, size).map(drop)) {
            Ok(thread) => Spare::InTheMaking(thread),
            Err(_) => Spare::Failed(Instant::now(), self.current.at),
        }
    }
}

/// The same failure, once more.
fn again(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}
