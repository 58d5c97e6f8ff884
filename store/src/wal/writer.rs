//! The handle to the log, and the writer that owns the files: group commit, the change of segments, the removal of old ones.

use super::disk::Disk;
use super::open::{Current, Opened, Sealed, begin, open};
use super::queue::{Done, Driver, Queue, Request};
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
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Is told, by whoever writes, how the disk does.
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
    /// The same, and the caller, who has nothing better to do, does it as long as syncs are quick.
    Here,
    /// With the next sync that another request causes.
    Later,
}

/// A handle to the log. Dropping it writes what waits and closes the files.
pub struct Wal {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
    /// Wakes the simulation that writes in the thread's stead.
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
        let tail = writer.tail.clone();
        let queue = Arc::new(Queue::new(writer));
        let own = queue.clone();
        let thread = std::thread::Builder::new()
            .name("wal".to_owned())
            .spawn(move || own.run())
            .map_err(|source| WalError::Folder { what: "start a thread for", source })?;
        Ok(Self { queue, thread: Some(thread), woken: None, later: Mutex::default(), tail, reader })
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
        let (queue, woken) = (Arc::new(Queue::new(writer)), Arc::new(Notify::new()));
        let driver = Driver { queue: queue.clone(), woken: woken.clone() };
        Ok((Self { queue, thread: None, woken: Some(woken), later: Mutex::default(), tail, reader }, driver))
    }

    /// Makes the changes in memory and queues them for the disk. `done` is called in the order of requests, by
    /// whoever writes; for records written [`Durability::Later`] it may be called at once.
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
        self.enqueue(records, durability, done);
        drop(tail);
        match (&self.woken, durability) {
            (_, Durability::Later) => {}
            (Some(woken), _) => woken.notify_one(),
            (None, Durability::Now) => self.queue.wake(),
            (None, Durability::Here) => self.queue.take_here(),
        }
        Ok(())
    }

    fn enqueue(&self, records: Vec<Record>, durability: Durability, done: Option<Done>) {
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
            Durability::Now | Durability::Here => {
                let mut all = std::mem::take(&mut *later);
                all.extend(records);
                self.queue.push(Request { records: all, done });
            }
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

impl Drop for Wal {
    fn drop(&mut self) {
        let later = std::mem::take(&mut *self.later.lock());
        if self.thread.is_some() && !later.is_empty() {
            self.queue.push(Request { records: later, done: None });
        }
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            if thread.join().is_err() {
                tracing::error!("the thread of the write-ahead log panicked");
            }
            self.queue.finish();
        }
    }
}

pub(super) struct Writer {
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
    /// Memory for the next batch: new memory for each would come from the system page by page.
    buffer: Vec<u8>,
}

/// The next segment's file.
enum Spare {
    None,
    InTheMaking(JoinHandle<io::Result<()>>),
    Ready,
    /// It could not be made; when that was, and where the segment stood.
    Failed(Instant, u64),
}

/// Memory that is kept from batch to batch.
const BUFFER_MAX: usize = 1 << 20;

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
            buffer: Vec::new(),
        };
        Ok((writer, reader))
    }

    /// Ends what was begun.
    pub(super) fn finish(&mut self) {
        if let Spare::InTheMaking(spare) = std::mem::replace(&mut self.spare, Spare::None) {
            // Only a file that would be made again is at stake.
            let _ = spare.join();
        }
    }

    /// Most bytes of a batch, as far as whole requests allow.
    pub(super) fn batch_bytes(&self) -> usize {
        self.options.batch_bytes
    }

    /// Whether the next batch surely needs no new segment, which takes time.
    pub(super) fn has_room(&self) -> bool {
        self.current.at + self.options.batch_bytes as u64 <= self.current.size
    }

    /// Writes one batch with one sync, and tells how long that took.
    pub(super) fn commit(&mut self, batch: &[Record]) -> io::Result<Duration> {
        let length: usize = batch.iter().map(framed_len).sum();
        if self.current.at + length as u64 > self.current.size {
            self.next_segment(length as u64)?;
        }
        let start = u32::try_from(self.current.at).map_err(io::Error::other)?;
        let mut bytes = std::mem::take(&mut self.buffer);
        bytes.clear();
        bytes.reserve(length);
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
        let began = Instant::now();
        self.observer.syncs();
        self.current.file.append(self.current.at, &bytes)?;
        let took = began.elapsed();
        self.observer.synced(took);
        self.current.at += bytes.len() as u64;
        if bytes.capacity() <= BUFFER_MAX {
            self.buffer = bytes;
        }
        let mut tail = self.tail.write();
        for (id, spot) in stable {
            tail.settle(id, spot);
        }
        tail.trim(self.options.resident_bytes);
        Ok(took)
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
    pub(super) fn tidy(&mut self) {
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
