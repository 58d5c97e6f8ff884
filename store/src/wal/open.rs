//! Reading a log after a restart: every segment in order, the torn tail cut off, damage refused.

use super::disk::{Disk, DiskFile};
use super::record::{Head, Record};
use super::segment::{
    HEADER, HeaderRead, Scan, file_name, header, later_batch, number_of, put, read_header, scan,
};
use super::tail::{Spot, Tail};
use super::{Options, WalError};
use std::collections::VecDeque;
use std::io;

/// A segment that is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sealed {
    /// Its number.
    pub(super) number: u64,
    /// The greatest index of an entry in it; 0 when it holds none.
    pub(super) greatest: u64,
}

/// The segment that is appended to.
pub(super) struct Current {
    pub(super) number: u64,
    pub(super) file: Box<dyn DiskFile>,
    /// Where the next record goes.
    pub(super) at: u64,
    pub(super) size: u64,
    pub(super) greatest: u64,
}

/// An opened log.
pub(super) struct Opened {
    pub(super) tail: Tail,
    pub(super) sealed: VecDeque<Sealed>,
    pub(super) current: Current,
}

/// Begins segment `number` in `file`, on stable storage.
pub(super) fn begin(
    mut file: Box<dyn DiskFile>,
    number: u64,
    previous_end: u64,
    size: u64,
    head: Head,
) -> io::Result<Current> {
    let mut bytes = header(number, previous_end).to_vec();
    #[expect(clippy::cast_possible_truncation, reason = "HEADER is 32")]
    put(&mut bytes, &Record::Head(head), number, HEADER as u32);
    file.write_at(0, &bytes)?;
    file.sync()?;
    Ok(Current { number, file, at: bytes.len() as u64, size, greatest: 0 })
}

/// Reads the log on `disk`, or begins one.
pub(super) fn open(disk: &dyn Disk, options: &Options) -> Result<Opened, WalError> {
    let names = disk.list().map_err(|source| WalError::Folder { what: "list", source })?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| number_of(name)).collect();
    numbers.sort_unstable();
    if let Some(pair) = numbers.windows(2).find(|pair| pair[1] != pair[0] + 1) {
        return Err(WalError::Missing { segment: pair[0] + 1 });
    }
    let unborn = take_unborn(disk, &mut numbers)?;
    let Some((&last, sealed_numbers)) = numbers.split_last() else {
        forget(disk, unborn)?;
        return fresh(disk, options);
    };
    let mut replay = Replay::default();
    for &number in sealed_numbers {
        let (bytes, _) = read(disk, number)?;
        replay.segment(number, &bytes, false)?;
        replay.tail.trim(options.resident_bytes);
    }
    let (bytes, mut file) = read(disk, last)?;
    // The next segment was only begun once this one was full and on stable storage.
    let end = replay.segment(last, &bytes, unborn.is_none())?;
    replay.tail.trim(options.resident_bytes);
    let purged = replay.tail.log().head.purged.map(|id| id.index);
    // A segment is removed only when all its entries are purged.
    let beheaded = replay.before.is_some_and(|before| purged.is_none_or(|purged| before > purged));
    if beheaded || !replay.tail.log().is_whole() {
        return Err(WalError::Missing { segment: numbers[0].saturating_sub(1) });
    }
    forget(disk, unborn)?;
    if end.torn {
        tracing::warn!(
            segment = last,
            at = end.end,
            "cutting off an unfinished batch, which nobody was told of"
        );
        let rest = usize::try_from(end.end).map_or(0, |end| bytes.len() - end);
        file.write_at(end.end, &vec![0; rest]).map_err(|source| WalError::Segment {
            what: "cut",
            segment: last,
            source,
        })?;
    }
    // Whoever was killed between writing and syncing left records that would not outlive a power cut yet; from here on they
    // count as stable, and the member may tell others so.
    file.sync().map_err(|source| WalError::Segment { what: "sync", segment: last, source })?;
    let greatest = replay.sealed.pop_back().map_or(0, |sealed| sealed.greatest);
    let current = Current { number: last, file, at: end.end, size: bytes.len() as u64, greatest };
    Ok(Opened { tail: replay.tail, sealed: replay.sealed, current })
}

fn fresh(disk: &dyn Disk, options: &Options) -> Result<Opened, WalError> {
    let failed = |source| WalError::Segment { what: "create", segment: 1, source };
    let file = disk.create(&file_name(1), options.segment_bytes).map_err(failed)?;
    let current = begin(file, 1, 0, options.segment_bytes, Head::default()).map_err(failed)?;
    Ok(Opened { tail: Tail::default(), sealed: VecDeque::new(), current })
}

fn read(disk: &dyn Disk, number: u64) -> Result<(Vec<u8>, Box<dyn DiskFile>), WalError> {
    let failed = |source| WalError::Segment { what: "read", segment: number, source };
    let file = disk.open(&file_name(number)).map_err(failed)?;
    Ok((file.read_all().map_err(failed)?, file))
}

/// Whether the newest segment has its first batch: before that nothing in it counts.
pub(super) fn is_born(bytes: &[u8], number: u64) -> Result<bool, WalError> {
    Ok(match read_header(bytes, number) {
        HeaderRead::Version(version) => return Err(WalError::Version { segment: number, version }),
        HeaderRead::Good { .. } => {
            let scanned = scan(bytes, number).map_err(|at| WalError::Damaged { segment: number, at })?;
            !scanned.records.is_empty()
        }
        HeaderRead::Bad if later_batch(bytes, HEADER, number) => {
            return Err(WalError::Damaged { segment: number, at: 0 });
        }
        HeaderRead::Bad => false,
    })
}

/// Takes out the newest segment when the member died while making it: nothing was appended to it yet.
fn take_unborn(disk: &dyn Disk, numbers: &mut Vec<u64>) -> Result<Option<u64>, WalError> {
    let Some(&number) = numbers.last() else { return Ok(None) };
    let (bytes, _) = read(disk, number)?;
    if is_born(&bytes, number)? { Ok(None) } else { Ok(numbers.pop()) }
}

fn forget(disk: &dyn Disk, unborn: Option<u64>) -> Result<(), WalError> {
    let Some(segment) = unborn else { return Ok(()) };
    tracing::warn!(segment, "removing a segment that was never finished");
    let failed = |source| WalError::Segment { what: "remove", segment, source };
    disk.remove(&file_name(segment)).map_err(failed)
}

/// The segments of a log, one after the other.
#[derive(Default)]
pub(super) struct Replay {
    pub(super) tail: Tail,
    sealed: VecDeque<Sealed>,
    previous_end: Option<(u64, u64)>,
    /// Index of the last entry before the oldest segment.
    before: Option<u64>,
}

/// Where the records of a segment end, and whether an unfinished batch follows.
pub(super) struct End {
    pub(super) end: u64,
    pub(super) torn: bool,
}

impl Replay {
    pub(super) fn segment(&mut self, number: u64, bytes: &[u8], last: bool) -> Result<End, WalError> {
        let previous_end = match read_header(bytes, number) {
            HeaderRead::Good { previous_end } => previous_end,
            HeaderRead::Bad => return Err(WalError::Damaged { segment: number, at: 0 }),
            HeaderRead::Version(version) => return Err(WalError::Version { segment: number, version }),
        };
        if let Some((segment, end)) = self.previous_end
            && end != previous_end
        {
            return Err(WalError::Damaged { segment, at: end });
        }
        let Scan { records, end, torn } =
            scan(bytes, number).map_err(|at| WalError::Damaged { segment: number, at })?;
        if torn && !last {
            return Err(WalError::Damaged { segment: number, at: end });
        }
        let mut greatest = 0;
        for (at, record) in records {
            let mut stable = None;
            match &record {
                Record::Entry(entry) => {
                    greatest = greatest.max(entry.id.index);
                    stable = Some(entry.id);
                }
                Record::Head(head) if self.sealed.is_empty() => self.before = head.last.map(|id| id.index),
                _ => {}
            }
            self.tail.apply(record).map_err(|why| WalError::Contradiction { segment: number, at, why })?;
            if let Some(id) = stable {
                self.tail.settle(id, Spot { segment: number, at });
            }
        }
        self.sealed.push_back(Sealed { number, greatest });
        self.previous_end = Some((number, end));
        Ok(End { end, torn })
    }
}
